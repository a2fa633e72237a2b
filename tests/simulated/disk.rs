//! The disk as a program sees it: bytes, space, sectors, time.

use std::time::Duration;

use polyaio::backends::simulated::{Latency, SimulatedDisk, SimulatedDiskBuilder};
use polyaio::{BufResult, Direct, Engine, File, OpenOptions, Policy};

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
    result.expect_err("it cannot succeed").raw_os_error().expect("an error with a number")
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
