//! What an impossible request is told: the kernel's own error, its buffer back, and nobody else is disturbed.

use std::io::ErrorKind;

use polyaio::backend::CancelOutcome;
use polyaio::{BufResult, Error, OpenOptions};

use crate::bed::{BLOCK, Bed, What, assert_healthy, buffer, code, filled, number};
#[cfg(unix)]
use crate::support::tmpfs;
use crate::support::{Scratch, pattern, pipe, require};
#[cfg(unix)]
use crate::tools::{Respawn, respawn};
use crate::tools::{join, poll_once};

pub(crate) fn a_bad_one_in_the_middle_fails_alone(bed: &Bed) {
    const COUNT: usize = 33;
    for medium in bed.media() {
        let data = pattern(COUNT * BLOCK, 1);
        for bad in [0, COUNT / 2, COUNT - 1] {
            let engine = bed.engine();
            let file = bed.file(&engine, medium, &format!("{medium:?}-{bad}"), &data);
            let offset = |i: usize| if i == bad { i64::MAX as u64 + 1 } else { (i * BLOCK) as u64 };
            let results = engine.block_on(join((0..COUNT).map(|i| file.read_at(buffer(BLOCK), offset(i)))));
            for (i, BufResult(n, back)) in results.into_iter().enumerate() {
                assert_eq!(back.len(), BLOCK, "every buffer comes back");
                if i == bad {
                    assert_eq!(code(n), libc::EINVAL);
                } else {
                    assert_eq!(n.expect("the others are well"), BLOCK);
                    assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
                }
            }
            bed.assert_served(&engine, &[(medium.read(), COUNT as u64 - 1)]);
        }
    }
}

/// A real `EIO` among others in one batch: nobody has anything at address 0, so that its memory cannot be read.
#[cfg(unix)]
pub(crate) fn an_error_of_the_device_is_its_own(bed: &Bed) {
    const COUNT: usize = 16;
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(COUNT * BLOCK, 1);
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        let memory = OpenOptions::new().read(true).open(&engine, "/proc/self/mem").expect("our own");
        let place = |i: usize| if i == COUNT / 2 { (&memory, 0) } else { (&file, (i * BLOCK) as u64) };
        let reads = (0..COUNT).map(place).map(|(file, at)| file.read_at(buffer(BLOCK), at));
        for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
            if i == COUNT / 2 {
                assert_eq!((code(n), back.len()), (libc::EIO, BLOCK));
            } else {
                assert_eq!(n.expect("the others are well"), BLOCK);
                assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
            }
        }
        assert_healthy(&engine.stats());
    }
}

pub(crate) fn wrong_access_mode(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", &[1; BLOCK]);
    let read_only = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
    let write_only = OpenOptions::new().write(true).open(&engine, &path).expect("it is there");
    let BufResult(n, back) = read_only.write_at(filled(&[2; BLOCK]), 0).wait();
    assert_eq!(code(n), libc::EBADF);
    assert!(back.iter().all(|byte| *byte == 2), "the buffer comes back as it was");
    assert_eq!(code(read_only.write_all_at(filled(&[2; 1]), 0).wait().0), libc::EBADF);
    assert_eq!(code(read_only.write(filled(&[2; 1])).wait().0), libc::EBADF);
    assert_eq!(code(write_only.read_at(buffer(BLOCK), 0).wait().0), libc::EBADF);
    assert_eq!(code(write_only.read_exact_at(buffer(BLOCK), 0).wait().0), libc::EBADF);
    // Each kind has its own word: ftruncate(2) says EINVAL, fallocate(2) EBADF.
    if cfg!(unix) {
        assert_eq!(code(read_only.set_len(0).wait()), libc::EINVAL);
        assert_eq!(code(read_only.allocate(0, 1).wait()), libc::EBADF);
        read_only.sync_all().wait().expect("fsync(2) works on any descriptor of the file");
    }
    let (reader, writer) = pipe();
    let (reader, writer) = (engine.adopt(reader.into()).expect("a pipe"), engine.adopt(writer.into()).expect("a pipe"));
    assert_eq!(code(reader.write(vec![0]).wait().0), libc::EBADF);
    assert_eq!(code(writer.read(vec![0]).wait().0), libc::EBADF);
    bed.assert_file(&path, &[1; BLOCK]);
}

pub(crate) fn offsets_beyond_the_end_of_numbers(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &[1; BLOCK]);
        // "Negative", and such that only their end is: EINVAL as pread(2) has it.
        let negative = [i64::MAX as u64 + 1, u64::MAX - BLOCK as u64 + 1, u64::MAX];
        let beyond = i64::MAX as u64 - BLOCK as u64 + 1;
        for offset in negative.into_iter().chain([beyond + 1]) {
            assert_eq!(code(file.read_at(buffer(BLOCK), offset).wait().0), libc::EINVAL, "read at {offset:#x}");
            assert_eq!(code(file.write_at(filled(&[2; BLOCK]), offset).wait().0), libc::EINVAL, "write at {offset:#x}");
            assert_eq!(code(file.read_exact_at(buffer(BLOCK), offset).wait().0), libc::EINVAL);
        }
        assert_eq!(code(file.allocate(i64::MAX as u64, 1).wait()), libc::EINVAL);
        assert_eq!(code(file.set_len(i64::MAX as u64 + 1).wait()), libc::EINVAL);
        // A number that exists, but no file is so long.
        let far = (i64::MAX as u64 - BLOCK as u64) / BLOCK as u64 * BLOCK as u64;
        assert_eq!(file.read_at(buffer(BLOCK), far).wait().0.expect("past the end"), 0, "{medium:?}");
        // Windows leaves the number to the file system.
        let too_far = code(file.write_at(filled(&[2; BLOCK]), far).wait().0);
        assert!(too_far == libc::EFBIG || cfg!(windows), "{medium:?}: {too_far}");
        assert_eq!(file.len().wait().expect("a file has a length"), BLOCK as u64);
        assert_healthy(&engine.stats());
    }
}

pub(crate) fn nothing_to_transfer(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &[1; BLOCK]);
        for offset in [0, 1, BLOCK as u64, 1 << 40, i64::MAX as u64] {
            assert_eq!(file.read_at(Vec::new(), offset).wait().0.expect("nothing"), 0);
            assert_eq!(file.write_at(Vec::new(), offset).wait().0.expect("nothing"), 0);
            file.read_exact_at(Vec::new(), offset).wait().0.expect("nothing is all there");
            file.write_all_at(Vec::new(), offset).wait().0.expect("nothing is written");
        }
        assert_eq!(file.len().wait().expect("a file has a length"), BLOCK as u64);
        let read_only = OpenOptions::new().read(true).open(&engine, "/dev/null").expect("/dev/null");
        assert_eq!(code(read_only.write(Vec::new()).wait().0), libc::EBADF, "write(2) looks at the mode first");
        bed.assert_served(&engine, &[(What::Meta, 1)]);
    }
}

pub(crate) fn a_full_device(bed: &Bed) {
    let engine = bed.engine();
    let full = OpenOptions::new().write(true).open(&engine, "/dev/full").expect("/dev/full");
    for _ in 0..3 {
        let BufResult(n, back) = full.write_at(filled(&[1; BLOCK]), 0).wait();
        assert_eq!((code(n), back.len()), (libc::ENOSPC, BLOCK));
        assert_eq!(code(full.write(vec![1; 10]).wait().0), libc::ENOSPC);
        let BufResult(done, _) = full.write_all(vec![1; 10]).wait();
        assert_eq!(done.expect_err("it is full").kind(), ErrorKind::StorageFull);
    }
}

/// A write of which a part was written in its caller, before there was no room for the rest, was not cancelled.
#[cfg(unix)]
pub(crate) fn a_part_of_a_write_is_not_cancelled(bed: &Bed) {
    const ROOM: usize = 1 << 20;
    let mount = require!(tmpfs(&bed.scratch.path("small"), "size=1m"));
    for in_line in [false, true] {
        let engine = bed.builder().capacity(1).build().expect("an engine");
        let open = OpenOptions::new().write(true).create(true).truncate(true).open(&engine, mount.path("file"));
        let file = open.expect("a new file");
        file.write_all_at(pattern(ROOM - 2 * BLOCK, 1), 0).wait().0.expect("room");
        let mut sync = file.sync_all();
        assert!(!in_line || poll_once(&mut sync).is_pending(), "it has the only place");
        let mut write = file.write_all_at(pattern(4 * BLOCK, 2), (ROOM - 2 * BLOCK) as u64);
        assert!(poll_once(&mut write).is_pending(), "it has met the end of the disk");
        let (outcome, written) = (write.cancel(), std::fs::metadata(mount.path("file")).expect("it is there").len());
        if in_line {
            sync.wait().expect("synced");
        }
        let result = code(write.wait().0);
        if outcome == CancelOutcome::Cancelled {
            assert_eq!((result, written), (libc::ECANCELED, (ROOM - 2 * BLOCK) as u64), "in line: {in_line}");
        } else {
            assert_eq!(result, libc::ENOSPC, "{outcome:?}, in line: {in_line}");
        }
        bed.look(&engine);
    }
}

/// A file system of 1 MiB: what fits exactly succeeds, what crosses the end is short, then there is nothing left.
#[cfg(unix)]
pub(crate) fn a_full_disk(bed: &Bed) {
    const ROOM: usize = 1 << 20;
    let mount = require!(tmpfs(&bed.scratch.path("small"), "size=1m"));
    let engine = bed.engine();
    let open = || OpenOptions::new().write(true).create(true).truncate(true).open(&engine, mount.path("file"));
    let file = open().expect("a new file");
    file.write_all_at(pattern(ROOM, 1), 0).wait().0.expect("an exact fit");
    bed.assert_file(&mount.path("file"), &pattern(ROOM, 1));
    assert_eq!(code(file.write_at(vec![1; BLOCK], ROOM as u64).wait().0), libc::ENOSPC);
    let file = open().expect("cut to nothing");
    file.write_all_at(pattern(ROOM - 2 * BLOCK, 1), 0).wait().0.expect("room");
    let at = (ROOM - 2 * BLOCK) as u64;
    let BufResult(n, back) = file.write_at(pattern(4 * BLOCK, 2), at).wait();
    assert_eq!((n.expect("a part of it"), back.len()), (2 * BLOCK, 4 * BLOCK), "crossing the end is short");
    let file = open().expect("cut to nothing");
    let BufResult(done, _) = file.write_all_at(pattern(ROOM + BLOCK, 3), 0).wait();
    assert_eq!(code(done), libc::ENOSPC, "all or an error");
    bed.assert_file(&mount.path("file"), &pattern(ROOM + BLOCK, 3)[..ROOM]);
}

/// A limit counts for the whole process: a child has one.
#[cfg(unix)]
pub(crate) fn the_limit_of_file_sizes(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    const LIMIT: usize = 8 * BLOCK;
    let limit = libc::rlimit { rlim_cur: LIMIT as u64, rlim_max: LIMIT as u64 };
    // SAFETY: ignores a signal, and reads `limit` during the call.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(BLOCK, 1));
        let file = bed.open(&engine, medium, &path);
        let BufResult(n, _) = file.write_at(filled(&pattern(4 * BLOCK, 2)), (LIMIT - BLOCK) as u64).wait();
        assert_eq!(n.expect("a part of it"), BLOCK, "{medium:?}: crossing the limit is short");
        assert_eq!(code(file.write_at(filled(&[1; BLOCK]), LIMIT as u64).wait().0), libc::EFBIG);
        let BufResult(done, _) = file.write_all_at(filled(&[1; 4 * BLOCK]), (LIMIT - BLOCK) as u64).wait();
        assert_eq!(code(done), libc::EFBIG, "all or an error");
        assert_eq!(code(file.set_len(LIMIT as u64 + 1).wait()), libc::EFBIG);
        assert_eq!(bed.len(&path), LIMIT as u64);
    }
}

#[cfg(unix)]
pub(crate) fn directories(bed: &Bed) {
    let engine = bed.engine();
    let directory = OpenOptions::new().read(true).open(&engine, bed.scratch.dir()).expect("ours");
    assert_eq!(code(directory.read_at(buffer(BLOCK), 0).wait().0), libc::EISDIR);
    assert_eq!(code(directory.read(buffer(BLOCK)).wait().0), libc::EISDIR);
    directory.sync_all().wait().expect("how a new name becomes durable");
    let refused = OpenOptions::new().write(true).open(&engine, bed.scratch.dir()).expect_err("not for writing");
    assert_eq!(refused.raw_os_error(), Some(libc::EISDIR));
}

#[cfg(unix)]
pub(crate) fn syncs_of_what_cannot_be_synced(bed: &Bed) {
    let engine = bed.engine();
    let (reader, _writer) = pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    for _ in 0..4 {
        assert_eq!(code(reader.sync_all().wait()), libc::EINVAL, "fsync(2)");
        assert_eq!(code(reader.sync_data().wait()), libc::EINVAL, "fdatasync(2)");
        assert_eq!(code(reader.set_len(0).wait()), libc::EINVAL, "ftruncate(2)");
    }
}

pub(crate) fn opening_what_is_not_there(bed: &Bed) {
    let engine = bed.engine();
    let missing = Scratch::new().path("missing");
    let error = OpenOptions::new().read(true).open(&engine, &missing).expect_err("it is not there");
    assert_eq!((number(&error), error.kind()), (Some(libc::ENOENT), ErrorKind::NotFound));
    assert!(error.to_string().contains("missing"), "it names the file: {error}");
    let error = OpenOptions::new().read(true).create(true).open(&engine, &missing).expect_err("contradicts itself");
    assert!(matches!(&error, Error::Options(text) if text.contains("create")), "{error}");
    let error = OpenOptions::new().open(&engine, &missing).expect_err("for nothing");
    assert!(matches!(error, Error::Options(_)), "{error}");
    let error = OpenOptions::new().read(true).open(&engine, "a\0b").expect_err("no such name is possible");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let path = bed.make("there", b"x");
    let error = OpenOptions::new().write(true).create_new(true).open(&engine, &path).expect_err("it is there");
    assert_eq!(number(&error), Some(libc::EEXIST));
}
