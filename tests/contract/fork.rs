//! A child process of the one that made the engine: it is told, and the parent loses nothing.
//!
//! Each case runs in a process of its own, because a fork copies whatever the other tests are doing.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use polyaio::backend::CancelOutcome;
use polyaio::{BufResult, Engine, Error, File, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer};
use crate::support::{self, pattern};
use crate::tools::{Begun, Flag, Respawn, errno, eventually, exit_now, join, park_on, poll_once, respawn, spawn_park};

/// Tells a hang from a slow machine, and claims nothing about speed. Less than the process that forks is given itself.
const LIMIT_SECONDS: u32 = 100;

/// Runs `in_child` in a child process; fails unless it returns `Ok`.
fn forked(in_child: impl FnOnce() -> Result<(), i32>) {
    // SAFETY: the child runs on this thread's copy alone, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: error {}", errno()),
        0 => {
            // SAFETY: the default action of SIGALRM ends the child where it hangs.
            unsafe { libc::alarm(LIMIT_SECONDS) };
            let run = std::panic::AssertUnwindSafe(in_child);
            exit_now(match std::panic::catch_unwind(run) {
                Ok(Ok(())) => 0,
                Ok(Err(place)) => place,
                Err(_) => 101,
            });
        }
        child => {
            let mut status = 0;
            // SAFETY: the kernel writes one int; the child is ours.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child, "waitpid: error {}", errno());
            assert_eq!(status, 0, "the child failed: wait status {status:#x} (0x0e: it hung; 0xNN00: at place NN)");
        }
    }
}

fn is_forked(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::Forked))
}

/// `Err(place)` unless everything that the child tries is refused as it should be.
fn all_is_refused(engine: &Engine, file: &File) -> Result<(), i32> {
    let BufResult(n, back) = file.read_at(buffer(BLOCK), 0).wait();
    if !n.is_err_and(|error| is_forked(&error)) || back.len() != BLOCK {
        return Err(1);
    }
    if !park_on(file.sync_all()).is_err_and(|error| is_forked(&error)) {
        return Err(2);
    }
    let opened = OpenOptions::new().read(true).open(engine, "/dev/null");
    if !matches!(opened, Err(Error::Forked)) {
        return Err(3);
    }
    let null = std::fs::File::open("/dev/null").map_err(|_| 4)?;
    if !matches!(engine.adopt(null.into()), Err(Error::Forked)) {
        return Err(5);
    }
    Ok(())
}

pub(crate) fn the_child_is_told_and_the_parent_loses_nothing(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(64 * BLOCK, 1);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for round in 0..20 {
            bed.evict(&path, 0, 0);
            let begin = |i| Begun::new(file.read_at(buffer(BLOCK), (i * BLOCK) as u64));
            let mut reads: Vec<_> = (0..64).map(begin).collect();
            if round % 2 == 0 {
                reads.iter_mut().for_each(|read| _ = read.again());
            }
            let mut copy = Some((engine.clone(), file.clone(), reads));
            forked(|| {
                let (engine, file, reads) = copy.take().ok_or(9)?;
                all_is_refused(&engine, &file)?;
                // What is in flight is the parent's: dropping it touches nothing of it.
                drop(reads);
                drop((file, engine));
                Ok(())
            });
            let (_, _, reads) = copy.expect("only the child has taken it");
            for (place, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK, "{medium:?}, round {round}");
                assert_eq!(back[..], data[place * BLOCK..][..BLOCK]);
            }
        }
        assert_healthy(&engine.stats());
        // The very last handles, too.
        let mut last = Some((engine, file));
        forked(|| {
            drop(last.take());
            Ok(())
        });
        let (engine, file) = last.expect("only the child has taken it");
        assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
        drop((file, engine));
    }
}

/// A child shares the epoll instance with its parent: what it forgets there the parent would wait for in vain.
pub(crate) fn streams_survive_a_child_that_drops_them(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    for foreign in [false, true] {
        let (reader, mut writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let mut read = reader.read(vec![0; 10]);
        assert!(poll_once(&mut read).is_pending());
        let mut handles = Some((reader, read));
        forked(|| {
            let (reader, read) = handles.take().ok_or(9)?;
            drop(read);
            drop(reader);
            Ok(())
        });
        let (reader, read) = handles.expect("only the child has taken it");
        let reading = if foreign {
            spawn_park(read)
        } else {
            let engine = engine.clone();
            std::thread::spawn(move || engine.block_on(read))
        };
        std::thread::sleep(std::time::Duration::from_millis(20));
        writer.write_all(b"hello").expect("room");
        eventually("the parent's read hears of the data", || reading.is_finished());
        assert_eq!(reading.join().expect("no panic").0.expect("readable"), 5);
        drop(reader);
    }
}

/// The child's `block_on` serves whatever future it is given, but sleeps for itself alone: what the shared epoll instance
/// tells once is the parent's.
pub(crate) fn a_child_that_blocks_on_something_else_takes_no_event(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut read = reader.read(vec![0; 10]);
    // On an engine that the program drives there is no thread of ours that could be faster than the child.
    engine.notification().expect("a descriptor");
    let woken = Flag::new();
    let waker = std::task::Waker::from(woken.clone());
    let poll = |read: &mut polyaio::Op<_>| std::pin::Pin::new(read).poll(&mut std::task::Context::from_waker(&waker));
    assert!(poll(&mut read).is_pending());
    engine.turn(0, usize::MAX, None);
    let before = woken.wakes();
    forked(|| {
        let oneshot = crate::tools::Oneshot::new();
        let done = oneshot.clone();
        let later = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            writer.write_all(b"hello").map_err(|_| 1)?;
            std::thread::sleep(std::time::Duration::from_millis(50));
            done.send(());
            Ok(())
        });
        engine.block_on(oneshot);
        later.join().map_err(|_| 2)?
    });
    eventually("the parent hears of the data", || {
        engine.turn(0, usize::MAX, None);
        woken.wakes() > before
    });
    assert_eq!(read.wait().0.expect("readable"), 5);
}

/// Who is next in a stream's queue is the parent's affair.
pub(crate) fn a_child_that_leaves_a_queue_wakes_nobody(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    let (reader, writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut first = reader.read(vec![0; 1]);
    assert!(poll_once(&mut first).is_pending());
    let mut second = reader.read(vec![0; 1]);
    let woken = Flag::new();
    let waker = std::task::Waker::from(woken.clone());
    assert!(std::pin::Pin::new(&mut second).poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let (before, mut first) = (woken.wakes(), Some(first));
    forked(|| {
        if first.as_mut().ok_or(1)?.cancel() != polyaio::backend::CancelOutcome::Unknown {
            return Err(2);
        }
        drop(first.take());
        if woken.wakes() == before { Ok(()) } else { Err(3) }
    });
    drop((first, second, writer));
}

/// The callbacks behind the one in which the process forks are the parent's, and are called there only.
pub(crate) fn a_child_made_in_a_callback_calls_no_other(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    engine.notification().expect("a descriptor, so that nobody else collects");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 1));
    let (parent, called) = (std::process::id(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..3 {
        let called = called.clone();
        let mut read = file.read_at(buffer(BLOCK), 0);
        // So that the callbacks' time has come when the first of them is called.
        assert_eq!(read.cancel(), CancelOutcome::Cancelled);
        let callback = move |_| {
            if std::process::id() != parent {
                exit_now(3);
            }
            // SAFETY: the child runs on this thread's copy alone, and leaves by `_exit`.
            if called.fetch_add(1, SeqCst) == 0 && unsafe { libc::fork() } == 0 {
                // SAFETY: the default action of SIGALRM ends the child where it hangs.
                unsafe { libc::alarm(20) };
            }
        };
        read.on_completion(callback).expect("open");
    }
    engine.turn(0, usize::MAX, None);
    if std::process::id() != parent {
        exit_now(0);
    }
    let mut status = 0;
    // SAFETY: the kernel writes one int; the only child is ours.
    assert!(unsafe { libc::wait(&raw mut status) } > 0, "error {}", errno());
    assert_eq!((status, called.load(SeqCst)), (0, 3), "the child called another one (0x300), or hung (0xe)");
}

pub(crate) fn a_new_engine_works_in_the_child(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    let data = pattern(8 * BLOCK, 2);
    let file = bed.file(&engine, Medium::Buffered, "file", &data);
    assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
    for medium in bed.media() {
        let path = bed.make(&format!("{medium:?}"), &data);
        forked(|| {
            let engine = bed.builder().build().map_err(|_| 1)?;
            let file = bed.open(&engine, medium, &path);
            let BufResult(done, back) = file.read_exact_at(buffer(8 * BLOCK), 0).wait();
            done.map_err(|_| 2)?;
            drop((file, engine));
            if back[..] == data[..] { Ok(()) } else { Err(3) }
        });
    }
    assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
}
