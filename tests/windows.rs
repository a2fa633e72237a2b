//! Windows: what is different there. What operations mean everywhere is the business of the other suites.

#![cfg(windows)]

use std::fs;
use std::io::{ErrorKind, Seek as _, SeekFrom};
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsHandle as _, AsRawHandle as _, BorrowedHandle, RawHandle};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use polyaio::{BufResult, Direct, Engine, Errno, Error, File, FileKind, OpenOptions, backends};

#[path = "support/mod.rs"]
mod support;
#[path = "tools/mod.rs"]
mod tools;

use tools::Watchdog;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn WaitForSingleObject(object: RawHandle, milliseconds: u32) -> u32;
}

/// FILE_FLAG_OVERLAPPED of winbase.h.
const OVERLAPPED: u32 = 0x4000_0000;
/// FILE_FLAG_WRITE_THROUGH of winbase.h.
const WRITE_THROUGH: u32 = 0x8000_0000;

struct Place {
    engine: Engine,
    path: PathBuf,
    _dir: tempfile::TempDir,
    _watchdog: Watchdog,
}

fn place(name: &'static str, content: &[u8]) -> Place {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    fs::write(&path, content).expect("room");
    Place { engine: Engine::new().expect("an engine"), path, _dir: dir, _watchdog: Watchdog::new(name) }
}

fn both() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

fn read_at(file: &File, len: usize, offset: u64) -> Vec<u8> {
    let BufResult(n, mut buf) = file.read_at(vec![0; len], offset).wait();
    buf.truncate(n.expect("it can be read"));
    buf
}

fn read(file: &File, len: usize) -> Vec<u8> {
    let BufResult(n, mut buf) = file.read(vec![0; len]).wait();
    buf.truncate(n.expect("it can be read"));
    buf
}

/// The position of what is behind a handle: every duplicate has the same.
fn position(handle: BorrowedHandle<'_>) -> u64 {
    let file = fs::File::from(handle.try_clone_to_owned().expect("a duplicate"));
    (&file).stream_position().expect("it has one")
}

fn position_of(file: &File) -> u64 {
    // SAFETY: the file is open, and nobody closes it here.
    position(unsafe { BorrowedHandle::borrow_raw(file.as_raw_handle()) })
}

#[test]
fn the_pool_serves() {
    assert_eq!(backends::COMPILED_IN, ["thread-pool"]);
    let Place { path, engine, .. } = &place("the_pool_serves", b"hello, world");
    let file = both().open(engine, path).expect("it is there");
    assert_eq!(file.facts().kind, FileKind::Regular);
    assert_eq!(read_at(&file, 5, 7), b"world");
    assert_eq!(read_at(&file, 5, 10), b"ld", "the end is a short read");
    assert!(read_at(&file, 5, 12).is_empty() && read_at(&file, 5, 1 << 40).is_empty(), "and then none");
    file.write_all_at("WORLD", 7).wait().0.expect("room");
    file.sync_all().wait().expect("it can be written");
    file.sync_data().wait().expect("it can be written");
    assert_eq!(fs::read(path).expect("it is there"), b"hello, WORLD");
    file.set_len(4).wait().expect("it can be cut");
    assert_eq!((file.len().wait().expect("it has a length"), position_of(&file)), (4, 0));
    let known = file.metadata().wait().expect("it is known");
    assert!(known.is_file() && known.len == 4 && known.links == 1 && known.created.is_some(), "{known:?}");
    let told = fs::metadata(path).expect("it is there").modified().expect("it is kept");
    assert_eq!(known.modified, told);
    assert!(engine.stats().served_by().iter().any(|&(name, count)| name == "thread-pool" && count > 0));
    file.close().wait().expect("it was open");
}

#[test]
fn the_position_moves_with_what_has_no_offset_and_with_nothing_else() {
    let Place { path, engine, .. } = &place("the_position", b"0123456789");
    let file = both().open(engine, path).expect("it is there");
    assert_eq!((read(&file, 4), position_of(&file)), (b"0123".to_vec(), 4));
    assert_eq!(read_at(&file, 2, 8), b"89");
    file.write_all_at("ab", 0).wait().0.expect("room");
    assert_eq!(position_of(&file), 4, "overlapped transfers leave it alone");
    file.write_all("cd").wait().0.expect("room");
    assert_eq!((read(&file, 100), position_of(&file)), (b"6789".to_vec(), 10));
    assert!(read(&file, 1).is_empty());
    assert_eq!(fs::read(path).expect("it is there"), b"ab23cd6789");
}

/// A handle that was opened without FILE_FLAG_OVERLAPPED is opened once more: nothing moves the first one's position.
#[test]
fn an_adopted_handle_is_opened_once_more() {
    let Place { path, engine, .. } = &place("adopted", b"0123456789");
    let mut synchronous = fs::OpenOptions::new().read(true).write(true).open(path).expect("it is there");
    synchronous.seek(SeekFrom::Start(3)).expect("it is a file");
    let witness = synchronous.try_clone().expect("a duplicate");
    let file = engine.adopt(synchronous.into()).expect("a file");
    assert!(file.facts().readable && file.facts().writable);
    assert_eq!(read_at(&file, 2, 8), b"89");
    file.write_all_at("ab", 0).wait().0.expect("room");
    assert_eq!(position(witness.as_handle()), 3);
    assert_eq!(read(&file, 2), b"34", "it begins where the given one was");
    assert_eq!((position_of(&file), position(witness.as_handle())), (5, 3));
}

/// Rights do not grow by that.
#[test]
fn an_adopted_handle_keeps_its_rights() {
    let Place { path, engine, .. } = &place("rights", b"0123456789");
    let reader = engine.adopt(fs::File::open(path).expect("it is there").into()).expect("a file");
    assert!(reader.facts().readable && !reader.facts().writable);
    let writer = fs::OpenOptions::new().write(true).open(path).expect("it is there");
    let writer = engine.adopt(writer.into()).expect("a file");
    assert!(!writer.facts().readable && writer.facts().writable);
    let BufResult(refused, _) = reader.write_at("x", 0).wait();
    assert_eq!(Errno::of(&refused.expect_err("for reading only")), Some(Errno(libc::EBADF)));
    let appender = fs::OpenOptions::new().append(true).open(path).expect("it is there");
    let appender = engine.adopt(appender.into()).expect("a file");
    assert!(appender.facts().append && appender.facts().writable);
    appender.write_all_at("end", 0).wait().0.expect("room");
    assert_eq!(fs::read(path).expect("it is there"), b"0123456789end");
}

/// One that nobody else may open: what was given is used, with transfers that move its position.
#[test]
fn a_handle_that_cannot_be_opened_once_more_serves_too() {
    let Place { path, engine, .. } = &place("exclusive", b"0123456789");
    let alone = fs::OpenOptions::new().read(true).write(true).share_mode(0).open(path).expect("it is there");
    let file = engine.adopt(alone.into()).expect("a file");
    let begun: Vec<_> = (0..10).map(|at| file.read_at(vec![0; 1], at)).collect();
    for (at, read) in begun.into_iter().enumerate() {
        assert_eq!(read.wait().1, [b'0' + at as u8]);
    }
    file.write_all_at("ab", 4).wait().0.expect("room");
    assert_eq!(read_at(&file, 4, 3), b"3ab6");
    assert!(read_at(&file, 1, 10).is_empty());
}

#[test]
fn a_handle_for_overlapped_transfers_is_used_as_it_is() {
    let Place { path, engine, .. } = &place("overlapped", b"0123456789");
    let own = fs::OpenOptions::new().read(true).custom_flags(OVERLAPPED).open(path).expect("it is there");
    let number = own.as_raw_handle();
    let file = engine.adopt(own.into()).expect("a file");
    assert_eq!((file.as_raw_handle(), read_at(&file, 3, 7)), (number, b"789".to_vec()));
    let clone = file.clone();
    clone.close().wait().expect("it was open");
    assert_eq!(file.as_raw_handle() as isize, -1);
}

#[test]
fn what_is_appended_goes_to_the_end() {
    let Place { path, engine, .. } = &place("appended", b"0123");
    let appending = OpenOptions::new().append(true).open(engine, path).expect("it is there");
    appending.write_all_at("4", 0).wait().0.expect("room");
    appending.write_all("56").wait().0.expect("room");
    let file = both().open(engine, path).expect("it is there");
    file.append("789").wait().0.expect("room");
    file.append(b"abc".to_vec()).dsync().wait().0.expect("room");
    assert_eq!(fs::read(path).expect("it is there"), b"0123456789abc");
    assert_eq!(position_of(&file), 0);
}

/// Each of many appends lands whole, whoever else appends.
#[test]
fn appends_of_several_threads_stay_whole() {
    const EACH: usize = 50;
    let Place { path, engine, .. } = &place("appends_of_several", b"");
    let file = &both().open(engine, path).expect("it is there");
    // Where that is not so, one `File` keeps the order itself.
    let own = support::atomic_appends().is_ok();
    std::thread::scope(|scope| {
        for letter in b'a'..b'e' {
            scope.spawn(move || {
                let file = if own { &both().open(engine, path).expect("it is there") } else { file };
                for _ in 0..EACH {
                    file.append(vec![letter; 100]).wait().0.expect("room");
                }
            });
        }
    });
    let bytes = fs::read(path).expect("it is there");
    assert_eq!(bytes.len(), 4 * EACH * 100);
    assert!(bytes.chunks(100).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
}

#[test]
fn several_ranges_in_one_transfer() {
    let Place { path, engine, .. } = &place("several_ranges", b"0123456789");
    let file = both().open(engine, path).expect("it is there");
    let parts: Vec<Vec<u8>> = (0..20).map(|part| vec![b'a' + part; usize::from(part)]).collect();
    let BufResult(n, parts) = file.write_all_vectored_at(parts, 5).wait();
    n.expect("room");
    let BufResult(n, back) =
        file.read_vectored_at(parts.iter().map(|part| vec![0; part.len()]).collect::<Vec<_>>(), 5).wait();
    assert_eq!((n.expect("it can be read"), back), (190, parts));
    let BufResult(n, short) = file.read_vectored_at(vec![vec![0; 5], vec![0; 100], vec![0; 200]], 0).wait();
    assert_eq!(n.expect("it can be read"), 195, "up to the end");
    assert_eq!(short[0], b"01234");
}

/// To the program an error has the code of Windows; to the crate, the number of the C library.
#[test]
fn errors_have_the_systems_code_and_a_number() {
    let Place { path, engine, .. } = &place("errors", b"");
    let missing =
        OpenOptions::new().read(true).open(engine, path.with_extension("missing")).expect_err("there is none");
    assert_eq!((missing.raw_os_error(), missing.kind()), (Some(2), ErrorKind::NotFound));
    assert!(missing.to_string().contains("check the path"), "{missing}");
    let there = OpenOptions::new().write(true).create_new(true).open(engine, path).expect_err("there is one");
    assert_eq!(there.kind(), ErrorKind::AlreadyExists);
    let alone = fs::OpenOptions::new().read(true).share_mode(0).open(path).expect("it is there");
    let shared = both().open(engine, path).expect_err("somebody wants to be alone with it");
    assert_eq!(shared.raw_os_error(), Some(32), "ERROR_SHARING_VIOLATION, as it is");
    drop(alone);
    let file = both().open(engine, path).expect("it is there");
    for refused in [
        file.allocate(0, 100).wait(),
        file.punch_hole(0, 100).wait(),
        file.read_at(vec![0; 1], 0).nowait().wait().0.map(|_| ()),
    ] {
        let error = refused.expect_err("there is no such call");
        assert_eq!(
            (error.kind(), Errno::of(&error)),
            (ErrorKind::Unsupported, Some(Errno(libc::EOPNOTSUPP))),
            "{error}"
        );
        assert!(Error::explain(&error).contains("cannot do it"), "{}", Error::explain(&error));
    }
    let clone = file.clone();
    file.close().wait().expect("it was open");
    let closed = clone.len().wait().expect_err("it is closed");
    assert_eq!((closed.raw_os_error(), Errno::of(&closed)), (Some(6), Some(Errno(libc::EBADF))));
}

#[test]
fn flags_of_the_system_are_passed_on() {
    let Place { path, engine, .. } = &place("flags", b"0123");
    let file = both().custom_flags(WRITE_THROUGH).open(engine, path).expect("it is there");
    file.write_all_at("ab", 1).wait().0.expect("room");
    assert_eq!(read_at(&file, 9, 0), b"0ab3");
}

/// Past the cache with FILE_FLAG_NO_BUFFERING; what is misaligned is served all the same.
#[test]
fn direct_files() {
    let Place { path, engine, .. } = &place("direct", &[7; 10_000]);
    let file = both().direct(Direct::Required).open(engine, path).expect("every disk has it");
    if !file.facts().direct {
        assert!(support::is_wine(), "the flag was accepted");
        return support::report_skip("windows::direct_files", "wine accepts the flag, and ignores it");
    }
    let alignment = file.alignment();
    assert!(alignment.offset >= 512 && alignment.memory >= 512, "{alignment}");
    let BufResult(n, buf) = file.read_at(file.buffer(4096), 0).wait();
    assert!(n.expect("it is aligned") == 4096 && buf.iter().all(|byte| *byte == 7));
    file.write_all_at(vec![8; 10], 4090).wait().0.expect("through whole blocks");
    assert_eq!(read_at(&file, 12, 4089), [7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7]);
    assert_eq!(file.len().wait().expect("it has a length"), 10_000);
}

/// A pipe has no readiness to wait for: a worker is inside of the call.
#[test]
fn pipes() {
    let Place { engine, .. } = &place("pipes", b"");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (reader, writer) = (engine.adopt(reader.into()).expect("a pipe"), engine.adopt(writer.into()).expect("a pipe"));
    assert!(reader.is_stream() && writer.is_stream());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| read(&reader, 100));
        writer.write_all("ping").wait().0.expect("somebody reads");
        assert_eq!(waiting.join().expect("no panic"), b"ping");
    });
    writer.write_all("rest").wait().0.expect("there is room");
    drop(writer);
    assert_eq!(read(&reader, 100), b"rest");
    assert!(read(&reader, 100).is_empty(), "the other end is gone");
}

#[test]
fn an_idle_pipe_keeps_nobody_else_waiting() {
    let Place { engine, path, .. } = &place("idle_pipe", b"0123456789");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut idle = Box::pin(reader.read(vec![0; 10]));
    assert!(idle.as_mut().poll_once().is_pending());
    let file = both().open(engine, path).expect("it is there");
    assert_eq!(read_at(&file, 3, 3), b"345");
    drop(idle);
    // The engine ends though a worker is inside of the call.
    drop((file, reader));
    let _ended = engine.clone().shutdown();
    drop(writer);
}

trait PollOnce: Future {
    fn poll_once(self: std::pin::Pin<&mut Self>) -> Poll<Self::Output>;
}

impl<F: Future> PollOnce for F {
    fn poll_once(self: std::pin::Pin<&mut Self>) -> Poll<F::Output> {
        self.poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// What the program's own loop waits for is an event.
#[test]
fn the_notification_is_an_event() {
    let Place { engine, path, .. } = &place("notification", b"0123456789");
    let file = both().open(engine, path).expect("it is there");
    let event = engine.notification().expect("an event").as_raw_handle();
    engine.turn(0, usize::MAX, None);
    // SAFETY: the event lives as long as the engine.
    let is_set = |milliseconds| unsafe { WaitForSingleObject(event, milliseconds) == 0 };
    assert!(!is_set(0), "there is nothing to do");
    let mut read = Box::pin(file.read_at(vec![0; 4], 2));
    while read.as_mut().poll_once().is_pending() {
        assert!(is_set(60_000), "it has ended, or is to be submitted");
        engine.turn(0, usize::MAX, None);
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// On an executor that is not the crate's, in `block_on`, by a callback, and together in a batch.
#[test]
fn everybody_is_woken() {
    let Place { engine, path, .. } = &place("everybody", &[5; 64 << 10]);
    let file = both().open(engine, path).expect("it is there");
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut elsewhere = Box::pin(file.read_at(vec![0; 4096], 8192));
    let BufResult(n, _) = loop {
        match elsewhere.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => break result,
            Poll::Pending => std::thread::park(),
        }
    };
    assert_eq!(n.expect("it can be read"), 4096);
    let sum = engine.block_on(async {
        let mut sum = 0;
        for at in 0..16 {
            sum += file.read_at(vec![0; 4096], at * 4096).await.0.expect("it can be read");
        }
        sum
    });
    assert_eq!(sum, 64 << 10);
    let (tell, told) = std::sync::mpsc::channel();
    for at in 0..16 {
        let tell = tell.clone();
        file.read_at(vec![0; 4096], at * 4096)
            .on_completion(move |BufResult(n, _)| tell.send(n.expect("it can be read")).expect("somebody listens"))
            .map_err(|_| "refused")
            .expect("there is room");
    }
    let each = || told.recv_timeout(Duration::from_secs(60)).expect("it is called");
    assert_eq!((0..16).map(|_| each()).sum::<usize>(), 64 << 10);
    let refused = file.read_at(vec![0; 1], 0).signal_on_completion(10).map_err(|refused| refused.to_string());
    assert!(refused.is_err(), "there are no signals that could be queued");
}

/// Four threads read and write places of their own, at random; in the end each place holds what was written last.
#[test]
fn four_threads_on_one_file() {
    const PLACES: u64 = 64;
    let Place { engine, path, .. } = &place("four_threads", &vec![0; 4 * PLACES as usize * 512]);
    let file = &both().open(engine, path).expect("it is there");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let (mut dice, mut model) = (thread + 1, vec![0_u8; PLACES as usize]);
                for round in 0..400_u64 {
                    dice ^= dice << 13;
                    dice ^= dice >> 7;
                    dice ^= dice << 17;
                    let at = dice % PLACES;
                    let offset = (thread * PLACES + at) * 512;
                    if dice >> 32 & 1 == 0 {
                        model[at as usize] = round as u8;
                        file.write_all_at(vec![round as u8; 512], offset).wait().0.expect("room");
                    } else {
                        assert_eq!(read_at(file, 512, offset), vec![model[at as usize]; 512]);
                    }
                }
            });
        }
    });
    assert_eq!(position_of(file), 0);
}
