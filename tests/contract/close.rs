//! `close`, and what was under way.

use std::os::fd::AsRawFd as _;
use std::time::Duration;

use polyaio::{BufResult, IoBuf as _};

use crate::bed::{BLOCK, Bed, Medium, What, buffer, code, filled};
use crate::support::{self, pattern};
use crate::tools::{HELD, Held, Respawn, eventually, join, poll_once, respawn, spawn_park, transfers};

pub(crate) fn waits_for_what_is_in_flight(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let path = bed.make("file", &[0; 8 * BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let number = file.as_raw_fd();
    let mut writes: Vec<_> = (0..8).map(|i| file.write_at(filled(&[1; BLOCK]), (i * BLOCK) as u64)).collect();
    writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
    let mut close = file.clone().close();
    assert!(poll_once(&mut close).is_pending());
    eventually("all writes are with their backend", || poll_once(&mut close).is_pending() && held.held() == 8);
    assert_eq!(file.as_raw_fd(), -1, "closed for everybody");
    assert_eq!(code(file.read_at(buffer(BLOCK), 0).wait().0), libc::EBADF);
    for left in (0..8).rev() {
        std::thread::sleep(Duration::from_millis(3));
        assert!(poll_once(&mut close).is_pending(), "closed under {} requests", left + 1);
        // The number alone says nothing: another test may have it by now.
        let behind = std::fs::read_link(format!("/proc/self/fd/{number}")).expect("open");
        assert_eq!(behind, std::fs::canonicalize(&path).expect("there"), "closed under {} requests", left + 1);
        assert!(held.release());
    }
    close.wait().expect("an ordinary file");
    engine.block_on(join(writes)).into_iter().for_each(|BufResult(n, _)| assert_eq!(n.expect("room"), BLOCK));
    bed.assert_file(&path, &[1; 8 * BLOCK]);
}

pub(crate) fn happens_once(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &pattern(BLOCK, 1));
        let clones = [file.clone(), file.clone(), file.clone()];
        file.close().wait().expect("an ordinary file");
        bed.assert_served(&engine, &[(What::Meta, 1)]);
        let [first, second, third] = clones;
        assert_eq!(code(first.read_at(buffer(BLOCK), 0).wait().0), libc::EBADF);
        let BufResult(n, back) = first.write_at(filled(&[1; BLOCK]), 0).wait();
        assert_eq!((code(n), back.len()), (libc::EBADF, BLOCK), "the buffer comes back");
        assert_eq!(code(first.sync_all().wait()), libc::EBADF);
        assert_eq!(code(first.len().wait()), libc::EBADF);
        assert_eq!(code(first.set_len(0).wait()), libc::EBADF);
        assert_eq!(code(first.close().wait()), libc::EBADF);
        assert_eq!(code(second.close().wait()), libc::EBADF);
        // Its number is somebody else's by now: the last handle must not close it again.
        let others: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").expect("/dev/null")).collect();
        drop(third);
        for other in others {
            // SAFETY: takes no pointer.
            assert_ne!(unsafe { libc::fcntl(other.as_raw_fd(), libc::F_GETFD) }, -1, "closed twice");
        }
    }
}

pub(crate) fn cancels_who_waits_for_a_stream(bed: &Bed) {
    let engine = bed.engine();
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    // Polled here first: on a busy machine the threads may come too late for the close.
    let waits = || {
        let mut read = reader.read(vec![7; 10]);
        assert!(poll_once(&mut read).is_pending());
        read
    };
    let waiting: Vec<_> = (0..3).map(|_| spawn_park(waits())).collect();
    let own = waits();
    let closing = spawn_park(reader.clone().close());
    for task in waiting {
        let BufResult(n, back) = task.join().expect("no panic");
        assert_eq!((code(n), &back[..]), (libc::ECANCELED, &[7; 10][..]));
    }
    assert_eq!(code(own.wait().0), libc::ECANCELED);
    closing.join().expect("no panic").expect("a pipe");
    assert_eq!(code(reader.read(vec![0; 10]).wait().0), libc::EBADF);
    // Who waits for room is cancelled too, and a looping write does not say that it was finished.
    let (_reader, writer) = support::pipe();
    let writer = engine.adopt(writer.into()).expect("a pipe");
    let mut write = writer.write_all(vec![1; 1 << 20]);
    assert!(poll_once(&mut write).is_pending());
    let writing = spawn_park(write);
    let closing = spawn_park(writer.close());
    assert_eq!(code(writing.join().expect("no panic").0), libc::ECANCELED);
    closing.join().expect("no panic").expect("a pipe");
}

pub(crate) fn goes_on_when_it_is_dropped(bed: &Bed) {
    let engine = bed.engine();
    let (reader, writer) = support::pipe();
    let (reader, writer) = (engine.adopt(reader.into()).expect("a pipe"), engine.adopt(writer.into()).expect("a pipe"));
    let mut close = writer.clone().close();
    let _ = poll_once(&mut close);
    drop(close);
    assert_eq!(code(writer.write(vec![1]).wait().0), libc::EBADF);
    // The other end sees it, although a handle is still there.
    assert_eq!(reader.read(vec![0; 10]).wait().0.expect("the end is no error"), 0);
    drop(writer);
    // Never polled, it has not begun.
    let (reader, writer) = support::pipe();
    let writer = engine.adopt(writer.into()).expect("a pipe");
    drop(writer.clone().close());
    assert_eq!(writer.write(vec![1]).wait().0.expect("it is open"), 1);
    drop(reader);
}

/// Without `close`, the descriptor goes with the last handle and the last request.
pub(crate) fn the_last_handle_closes(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; BLOCK]);
    let number = file.as_raw_fd();
    // SAFETY: takes no pointer.
    let is_open = || unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    let mut write = file.write_at(vec![1; BLOCK].slice(0..100), 0);
    drop(file);
    assert!(is_open(), "an operation that has not begun holds it too");
    assert!(poll_once(&mut write).is_pending());
    eventually("the write is with its backend", || poll_once(&mut write).is_pending() && held.held() == 1);
    drop(write);
    assert!(is_open(), "a request in flight");
    assert!(held.release());
    // Another test's thread may have been given the number at once.
    let path = std::fs::read_link(format!("/proc/self/fd/{number}"));
    assert!(path.is_err() || path.is_ok_and(|path| !path.starts_with(bed.scratch.dir())), "still open");
}

/// Closing any descriptor of a file drops the process's `fcntl` locks on it. A backend may have more of them than the one
/// that is the file's, and closes none before that one.
pub(crate) fn record_locks_last_as_long_as_the_descriptor(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    for (medium, closing) in bed.media().flat_map(|medium| [(medium, true), (medium, false)]) {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(64 * BLOCK, 1));
        let file = bed.open(&engine, medium, &path);
        // Whose closing would drop the locks too: so it is opened before, and closed after all.
        let other = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("there");
        assert_eq!(record_lock(file.as_raw_fd(), libc::F_SETLK, libc::F_WRLCK), Some(libc::F_WRLCK));
        for _ in 0..5 {
            let transfers = (0..64).map(|i| file.write_at(filled(&[1; BLOCK]), i * BLOCK as u64));
            let transfers = engine.block_on(join(transfers));
            transfers.into_iter().for_each(|BufResult(n, _)| assert_eq!(n.expect("room"), BLOCK));
        }
        assert!(is_locked(other.as_raw_fd()), "{medium:?}: a descriptor of the file was closed");
        if closing {
            file.close().wait().expect("an ordinary file");
        } else {
            drop(file);
        }
        let canonical = std::fs::canonicalize(&path).expect("there");
        let open = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
        let open = open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|name| name == canonical)).count();
        assert_eq!(open, 1, "{medium:?}: descriptors of the file are left, beside this test's own");
        assert!(!is_locked(other.as_raw_fd()), "{medium:?}: closed");
    }
}

/// Asks about, or takes, a lock on a file's first byte; returns the type that is answered.
fn record_lock(fd: i32, command: i32, kind: i32) -> Option<i32> {
    // SAFETY: zeroes are values of the structure.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence, lock.l_len) = (kind as i16, libc::SEEK_SET as i16, 1);
    // SAFETY: the structure is read, and written, during the call.
    (unsafe { libc::fcntl(fd, command, &raw mut lock) } == 0).then_some(i32::from(lock.l_type))
}

/// Whether this process has the lock: another one would not get it.
fn is_locked(fd: i32) -> bool {
    // SAFETY: the child makes a system call and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let free = record_lock(fd, libc::F_GETLK, libc::F_WRLCK) == Some(libc::F_UNLCK);
        crate::tools::exit_now(if free { 1 } else { 0 });
    }
    let mut status = 0;
    // SAFETY: the kernel writes one number; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status == 0
}
