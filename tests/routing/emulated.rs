//! The rules of direct I/O on file systems that have them not, and what transfers must be multiples of.

use std::path::Path;

use polyaio::{Alignment, BufResult, Direct, Engine, Error, File, IoBuf as _, OpenOptions, Reason};

use crate::support::{self, LoopDevice, Scratch, direct_io, image, overlayfs, pattern, ramfs, report_skip, require};
use crate::tools::Watchdog;
use crate::{BLOCK, KERNEL, POOL, auto, exercise, open, prefer};

fn emulate(engine: &Engine, path: &Path, alignment: usize) -> File {
    open(engine, path, Direct::Emulated { alignment })
}

fn both(bytes: usize) -> Alignment {
    Alignment { memory: bytes, offset: bytes }
}

/// A program's mistakes are found on each file system, whatever it does with `O_DIRECT`.
fn rules_are_kept(dir: &Path) {
    for engine in [auto(), prefer(KERNEL), prefer(POOL), strict()] {
        let (path, plain) = (dir.join("file"), dir.join("plain"));
        let file = emulate(&engine, &path, BLOCK);
        let buffered = open(&engine, &plain, Direct::Off);
        let facts = file.facts();
        assert_eq!((facts.emulated, file.alignment()), (Some(both(BLOCK)), both(BLOCK)));
        assert!(!facts.direct && facts.direct_refused.is_none(), "{facts:?}");
        let (route, want) = (file.route(), buffered.route());
        assert_eq!((&route.read, &route.write, &route.sync), (&want.read, &want.write, &want.sync));
        assert_eq!((route.emulated, want.emulated), (Some(both(BLOCK)), None));
        assert!(route.to_string().ends_with("; direct I/O emulated with 4096 bytes"), "{route}");
        assert!(!want.to_string().contains("emulated"), "{want}");

        exercise(&engine, &file);
        let data = std::fs::read(&path).expect("written just now");
        for (memory, offset, length) in [(1, 0, BLOCK), (0, 512, BLOCK), (0, 0, 512)] {
            let what = format!("{}: memory + {memory}, offset {offset}, length {length}", dir.display());
            let part = || file.buffer(2 * BLOCK).slice(memory..memory + length);
            let BufResult(n, back) = file.read_at(part(), offset).wait();
            assert_eq!(n.expect_err(&what).raw_os_error(), Some(libc::EINVAL), "{what}");
            assert_eq!(back.into_inner()[..], [0; 2 * BLOCK], "{what}");
            let BufResult(n, _) = file.write_at(part(), offset).wait();
            assert_eq!(n.expect_err(&what).raw_os_error(), Some(libc::EINVAL), "{what}");
            let BufResult(n, _) = buffered.write_at(part(), offset).wait();
            assert_eq!(n.expect("without rules"), length, "{what}");
        }
        let BufResult(n, _) = file.read_at(vec![0; 3], data.len() as u64).wait();
        assert_eq!(n.expect("nothing is misaligned at the end"), 0);
        support::assert_file(&path, &data);
        for reason in [Reason::Invalid, Reason::Misaligned, Reason::DirectRefused] {
            assert_eq!(engine.stats().fallback(reason), 0, "{:#?}", engine.stats());
        }
    }
}

fn strict() -> Engine {
    Engine::builder().policy(polyaio::Policy::Auto).strict(true).build().expect("an engine starts on every machine")
}

#[test]
fn rules_on_a_disk() {
    let _watchdog = Watchdog::new("routing: rules_on_a_disk");
    rules_are_kept(Scratch::new().dir());
}

#[test]
fn rules_on_tmpfs() {
    let _watchdog = Watchdog::new("routing: rules_on_tmpfs");
    rules_are_kept(require!(Scratch::in_memory()).dir());
}

#[test]
fn rules_on_ramfs() {
    let _watchdog = Watchdog::new("routing: rules_on_ramfs");
    let scratch = Scratch::new();
    rules_are_kept(require!(ramfs(&scratch.path("ramfs"))).dir());
}

#[test]
fn rules_on_overlayfs() {
    let _watchdog = Watchdog::new("routing: rules_on_overlayfs");
    let scratch = Scratch::new();
    rules_are_kept(require!(overlayfs(scratch.dir())).dir());
}

#[test]
fn rules_on_a_block_device() {
    let _watchdog = Watchdog::new("routing: rules_on_a_block_device");
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", 1 << 20));
    let engine = auto();
    let mut options = OpenOptions::new();
    options.read(true).write(true).direct(Direct::Emulated { alignment: BLOCK });
    let file = options.open(&engine, device.path()).expect("a device");
    assert_eq!(file.alignment(), both(BLOCK));
    exercise(&engine, &file);
    let misaligned = |offset| file.read_at(vec![0; 3], offset).wait().0.map_err(|error| error.raw_os_error());
    assert_eq!(misaligned(0), Err(Some(libc::EINVAL)));
    assert_eq!(misaligned((1 << 20) - 3), Err(Some(libc::EINVAL)));
    assert_eq!(misaligned(1 << 20), Ok(0), "the end of a device is its size");
}

/// Streams and devices without blocks have no such rules.
#[test]
fn rules_are_for_files_only() {
    let _watchdog = Watchdog::new("routing: rules_are_for_files_only");
    let scratch = Scratch::new();
    let fifo = support::fifo(scratch.dir(), "fifo");
    let engine = auto();
    for path in [fifo.as_path(), Path::new("/dev/zero")] {
        let mut options = OpenOptions::new();
        options.read(true).write(true).direct(Direct::Emulated { alignment: BLOCK });
        let file = options.open(&engine, path).expect("it is there");
        assert_eq!((file.facts().emulated, file.route().emulated, file.alignment()), (None, None, Alignment::NONE));
        assert_eq!(file.write_all("odd").wait().0.map_err(|error| error.raw_os_error()), Ok(()));
        assert_eq!(file.buffer(3).len(), 3);
    }
}

#[test]
fn an_alignment_that_no_device_has() {
    let _watchdog = Watchdog::new("routing: an_alignment_that_no_device_has");
    let scratch = Scratch::new();
    let (engine, path) = (auto(), scratch.path("never"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    for alignment in [0, 3, 100, 4097, usize::MAX] {
        let error = options.direct(Direct::Emulated { alignment }).open(&engine, &path).expect_err("no power of two");
        assert!(matches!(error, Error::Options(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("power of two") && text.contains(&format!(" {alignment}:")), "{text}");
    }
    let error = options.direct(Direct::Emulated { alignment: 512 }).custom_flags(libc::O_DIRECT).open(&engine, &path);
    let error = error.expect_err("one or the other");
    assert!(matches!(error, Error::Options(_)) && error.to_string().contains("O_DIRECT"), "{error:?}");
    assert!(!path.exists(), "a refused open has left a file behind");
    let file = emulate(&engine, &path, 1);
    file.write_all_at(vec![1; 3], 1).wait().0.expect("nothing is demanded");
}

// ----- what transfers must be multiples of -----------------------------------------------------------------------------

/// A buffer that the file gives is one that it takes.
#[track_caller]
fn fits(file: &File, data: &[u8]) {
    let needed = file.alignment();
    for len in [0, 1, 511, 512, 4097, 10_000] {
        let buffer = file.buffer(len);
        assert_eq!(buffer.len(), len.next_multiple_of(needed.offset), "{needed}");
        assert!(needed.admits(buffer.as_ptr(), buffer.len(), Some(0)), "{needed}");
        assert!(buffer.as_ptr().addr().is_multiple_of(8) && buffer.iter().all(|byte| *byte == 0), "{needed}");
        let BufResult(n, buffer) = file.read_at(buffer, 0).wait();
        let n = n.expect("it fits");
        assert_eq!((n, &buffer[..n]), (buffer.len().min(data.len()), &data[..n]), "{needed}");
    }
}

/// As a program sees it that was opened each way.
fn alignments(engine: &Engine, path: &Path, data: &[u8]) -> Alignment {
    std::fs::write(path, data).expect("room");
    let buffered = open(engine, path, Direct::Off);
    assert_eq!(buffered.alignment(), Alignment::NONE);
    fits(&buffered, data);
    let direct = open(engine, path, Direct::Preferred);
    fits(&direct, data);
    for alignment in [1, 512, 1 << 16] {
        let emulated = emulate(engine, path, alignment);
        assert_eq!(emulated.alignment(), both(alignment));
        fits(&emulated, data);
    }
    direct.alignment()
}

#[test]
fn what_files_demand() {
    let _watchdog = Watchdog::new("routing: what_files_demand");
    let (engine, data) = (auto(), pattern(9_000, 3));
    let (reader, _writer) = support::pipe();
    assert_eq!(engine.adopt(reader.into()).expect("a pipe").alignment(), Alignment::NONE);

    let scratch = Scratch::new();
    if direct_io(scratch.dir()).is_ok() {
        let path = scratch.path("file");
        let needed = alignments(&engine, &path, &data);
        assert_eq!(Some(needed), open(&engine, &path, Direct::Required).facts().alignment.or(Some(both(BLOCK))));
    }
    match Scratch::in_memory() {
        Ok(memory) => assert_eq!(alignments(&engine, &memory.path("file"), &data), Alignment::NONE, "it is memory"),
        Err(why) => report_skip("routing::emulated::what_files_demand tmpfs", &why),
    }
    match ramfs(&scratch.path("ramfs")) {
        Ok(mount) => assert_eq!(alignments(&engine, &mount.path("file"), &data), Alignment::NONE, "refused: buffered"),
        Err(why) => report_skip("routing::emulated::what_files_demand ramfs", &why),
    }
    match overlayfs(scratch.dir()) {
        Ok(mount) => drop(alignments(&engine, &mount.path("file"), &data)),
        Err(why) => report_skip("routing::emulated::what_files_demand overlayfs", &why),
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let mount = match image(scratch.dir(), kind) {
            Ok(mount) => mount,
            Err(why) => {
                report_skip(&format!("routing::emulated::what_files_demand {kind}"), &why);
                continue;
            }
        };
        let needed = alignments(&engine, &mount.path("file"), &data);
        let want = if kind == "btrfs" { BLOCK } else { 512 };
        assert_eq!(needed.offset, want, "{kind}");
        assert!(needed.memory <= want, "{kind}: {needed}");
    }
}
