//! The disk as a program sees it: bytes, space, sectors, time.

use std::time::Duration;

use polyaio::backend::CancelOutcome;
use polyaio::backends::simulated::{Latency, SimulatedDisk, SimulatedDiskBuilder};
use polyaio::{BufResult, Direct, Engine, Errno, File, OpenOptions, Policy};

use crate::tools::{Watchdog, join, poll_once};

/// An engine on a disk, and nothing else.
pub(crate) fn engine(disk: &SimulatedDisk) -> Engine {
    let only = Policy::Require("simulated".into());
    Engine::builder().backend(disk.backend()).policy(only).build().expect("an engine starts on every machine")
}

pub(crate) fn disk(set: impl FnOnce(SimulatedDiskBuilder) -> SimulatedDiskBuilder) -> SimulatedDisk {
    set(SimulatedDisk::builder().seed(1)).build().expect("the settings make sense")
}

/// Opens for reading and writing, and makes the file where there is none.
pub(crate) fn open(engine: &Engine, path: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).open(engine, path).expect("there is power")
}

/// The error number of a result that must have failed.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    Errno::of(&result.expect_err("it cannot succeed")).expect("an error with a number").0
}

#[test]
fn what_is_written_is_read() {
    let disk = disk(|d| d);
    let engine = engine(&disk);
    let file = open(&engine, "a");
    let BufResult(n, _) = file.write_all_at(b"hello, world".to_vec(), 3).wait();
    n.expect("written");
    let (n, back) = file.read_at(vec![1; 100], 0).wait().into_result().expect("read");
    assert_eq!(&back[..n], b"\0\0\0hello, world");
    assert_eq!(file.len().wait().expect("a length"), 15);
    file.set_len(5).wait().expect("cut");
    file.sync_all().wait().expect("synced");
    assert_eq!((disk.read("a"), disk.durable("a")), (Some(b"\0\0\0he".to_vec()), Some(b"\0\0\0he".to_vec())));
    file.close().wait().expect("closed");
    drop(engine);
}

#[test]
fn seconds_take_no_time() {
    let disk = disk(|d| d.latency(Latency::fixed(Duration::from_secs(3600))));
    let engine = engine(&disk);
    let file = open(&engine, "a");
    for _ in 0..100 {
        file.write_all_at(vec![1; 10], 0).wait().into_result().expect("written");
    }
    assert_eq!(disk.now(), Duration::from_secs(360_000));
}

#[test]
fn direct_files_demand_sectors() {
    let disk = disk(|d| d.sector(4096));
    let engine = engine(&disk);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).direct(Direct::Required).open(&engine, "a").expect("opened");
    assert_eq!((file.alignment().memory, file.alignment().offset), (4096, 4096));
    assert_eq!(code(file.write_at(file.buffer(4096), 512).wait().into_result().map(|_| ())), libc::EINVAL);
    file.write_all_at(file.buffer(4096), 4096).wait().into_result().expect("aligned");
}

#[test]
fn a_full_disk() {
    let disk = disk(|d| d.capacity(8192));
    let engine = engine(&disk);
    let file = open(&engine, "a");
    let (n, _) = file.write_at(vec![1; 10_000], 0).wait().into_result().expect("a part fits");
    assert_eq!(n, 8192);
    assert_eq!(code(file.write_at(vec![1; 10_000], 8192).wait().into_result().map(|_| ())), libc::ENOSPC);
    file.write_all_at(vec![2; 8192], 0).wait().into_result().expect("what there is can be overwritten");
}

/// Time stands still until the test lets it pass; and what waits can be cancelled meanwhile.
#[test]
fn a_clock_by_hand() {
    let disk = disk(|d| d.manual_clock().latency(Latency::fixed(Duration::from_secs(1))));
    let engine = engine(&disk);
    let file = open(&engine, "a");
    let (mut one, mut other) = (file.write_at(vec![1; 10], 0), file.write_at(vec![2; 10], 10));
    assert!(poll_once(&mut one).is_pending() && poll_once(&mut other).is_pending());
    engine.turn(0, usize::MAX, None);
    disk.advance(Duration::from_millis(999));
    engine.turn(0, usize::MAX, None);
    assert!(poll_once(&mut one).is_pending(), "a millisecond is missing");
    assert_eq!(other.cancel(), CancelOutcome::Cancelled);
    disk.advance(Duration::from_millis(1));
    assert_eq!(one.wait().0.expect("its time has come"), 10);
    assert_eq!(code(other.wait().0), libc::ECANCELED);
    assert_eq!(disk.read("a"), Some(vec![1; 10]), "what was cancelled has done nothing");
    disk.advance(Duration::from_secs(10));
}

/// Another thread waits in the kernel; it is woken.
#[test]
fn a_clock_by_hand_wakes_who_waits() {
    let _watchdog = Watchdog::new("a_clock_by_hand_wakes_who_waits");
    let disk = disk(|d| d.manual_clock());
    let engine = engine(&disk);
    let file = open(&engine, "a");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| file.write_at(vec![1; 10], 0).wait().0.expect("room"));
        while !waiting.is_finished() {
            disk.advance(Duration::from_micros(100));
            std::thread::yield_now();
        }
        assert_eq!(waiting.join().expect("no panic"), 10);
    });
    let mut pending = file.read_at(vec![0; 1], 0);
    assert!(poll_once(&mut pending).is_pending());
    drop(pending);
    disk.advance(Duration::from_secs(1));
}

#[test]
fn the_position_moves_by_what_has_no_offset() {
    let disk = disk(|d| d);
    let engine = engine(&disk);
    let file = open(&engine, "a");
    let writes = (0..20).map(|i| file.write_all(vec![b'a' + i; 3]));
    engine.block_on(join(writes)).into_iter().for_each(|done| done.0.expect("room"));
    file.write_all_at(b"!".to_vec(), 59).wait().0.expect("room");
    let (n, _) = file.read(vec![0; 9]).wait().into_result().expect("the end");
    assert_eq!(n, 0, "what has an offset moves nothing");
    let want: Vec<u8> = (0..60).map(|at| if at == 59 { b'!' } else { b'a' + at / 3 }).collect();
    assert_eq!(disk.read("a"), Some(want.clone()));
    let again = open(&engine, "a");
    let (n, back) = again.read(vec![0; 100]).wait().into_result().expect("readable");
    assert_eq!(back[..n], want);
    // Appended, whatever the offset says.
    let appending = OpenOptions::new().append(true).open(&engine, "a").expect("there");
    let appends = (0..10).map(|i| appending.write_at(vec![b'0' + i; 2], 7));
    engine.block_on(join(appends)).into_iter().for_each(|done| _ = done.0.expect("room"));
    assert_eq!(disk.read("a").expect("there")[60..], *b"00112233445566778899");
}

/// Two engines have the same files, each with a backend of its own.
#[test]
fn shared_by_engines() {
    let disk = disk(|d| d);
    let engines = [engine(&disk), engine(&disk)];
    let files = engines.each_ref().map(|engine| open(engine, "a"));
    std::thread::scope(|scope| {
        for (number, file) in files.iter().enumerate() {
            scope.spawn(move || {
                let place = |i: u64| (2 * i + number as u64) * 10;
                (0..200).for_each(|i| _ = file.write_at(vec![number as u8 + 1; 10], place(i)).wait().0.expect("room"));
            });
        }
    });
    let want: Vec<u8> = (0..4000).map(|at| (at / 10 % 2) as u8 + 1).collect();
    assert_eq!(disk.read("a"), Some(want));
}

/// On another executor, where the engine's background thread collects; and files beside the disk's.
#[test]
fn elsewhere_and_beside() {
    let _watchdog = Watchdog::new("elsewhere_and_beside");
    let real = tempfile::tempdir().expect("a directory");
    let disk = disk(|d| d.below("/simulated"));
    let engine = Engine::builder().backend(disk.backend()).build().expect("an engine");
    let file = open(&engine, "/simulated/a");
    let beside = open(&engine, real.path().join("b").to_str().expect("a plain name"));
    futures::executor::block_on(async {
        for i in 0..50 {
            file.write_all_at(vec![i as u8; 10], i * 10).await.0.expect("room");
            beside.write_all_at(vec![i as u8; 10], i * 10).await.0.expect("room");
        }
    });
    assert_eq!(disk.read("/simulated/a"), std::fs::read(real.path().join("b")).ok());
    assert_eq!(disk.paths(), [std::path::Path::new("/simulated/a")]);
    assert!(file.route().to_string().contains("simulated") && beside.facts().kind == polyaio::FileKind::Regular);
}

#[test]
fn names() {
    let disk = disk(|d| d);
    let engine = engine(&disk);
    let mut options = OpenOptions::new();
    let missing = options.read(true).open(&engine, "a").expect_err("there is none");
    assert!(missing.to_string().contains("os error 2"), "{missing}");
    let file = options.write(true).create_new(true).open(&engine, "./a").expect("none yet");
    file.write_all_at(b"kept".to_vec(), 0).wait().0.expect("room");
    let there = options.open(&engine, "a").expect_err("there is one");
    assert!(there.kind() == std::io::ErrorKind::AlreadyExists, "{there}");
    assert!(disk.rename("a", "b") && !disk.rename("a", "c") && disk.read("a").is_none());
    assert_eq!((disk.read("b"), file.len().wait().expect("open")), (Some(b"kept".to_vec()), 4));
    assert!(disk.remove("b") && !disk.remove("b"));
    assert_eq!(file.len().wait().expect("open still"), 4);
    assert_eq!(disk.used(), 4096);
    drop(file);
    assert_eq!((disk.used(), disk.paths().len()), (0, 0));
    let cut = OpenOptions::new().write(true).create(true).truncate(true).open(&engine, "a").expect("made");
    assert_eq!(cut.metadata().wait().map(|m| (m.is_file(), m.len)).expect("open"), (true, 0));
}

#[test]
fn settings_that_make_no_sense() {
    for builder in [
        SimulatedDisk::builder().sector(0),
        SimulatedDisk::builder().sector(513),
        SimulatedDisk::builder().sector(256),
        SimulatedDisk::builder().sector(1 << 20),
        SimulatedDisk::builder().queue_bound(0),
    ] {
        assert!(matches!(builder.build(), Err(polyaio::Error::Options(_))));
    }
    let disk = disk(|d| d.without_direct());
    let engine = engine(&disk);
    let direct = |direct| OpenOptions::new().write(true).create(true).direct(direct).open(&engine, "a");
    assert!(direct(Direct::Required).is_err());
    assert_eq!(direct(Direct::Preferred).expect("buffered").alignment().offset, 1);
}

/// Who requires the disk needs no kernel's context; who prefers it does.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_started_in_vain() {
    let disk = disk(|d| d);
    let started = |engine: &Engine| {
        let backends = engine.backends();
        backends.into_iter().filter(|status| status.started).map(|status| status.name).collect::<Vec<_>>()
    };
    let required = engine(&disk);
    assert_eq!(started(&required), ["simulated", "thread-pool"]);
    let why = required.backends().into_iter().filter(|status| !status.started).map(|status| status.reason);
    for reason in why.map(|reason| reason.expect("there is one")) {
        assert!(reason.contains("files of its own"), "{reason}");
    }
    let preferred = Policy::Prefer(vec!["simulated".into()]);
    let preferred =
        Engine::builder().backend(disk.backend()).policy(preferred).strict(false).build().expect("an engine");
    let alone = Engine::builder().policy(Policy::Auto).build().expect("an engine");
    assert_eq!(started(&preferred)[1..], started(&alone)[..]);
}
