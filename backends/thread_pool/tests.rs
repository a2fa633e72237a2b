//! The pool with real threads.

#![allow(unsafe_code)]

mod end;
mod limits;

use std::fs::{File, read_to_string};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::*;
use crate::request::OpKind;
use crate::testing::{Bench, PATIENCE, Pending, one_of_many};

/// The kernel's ids of a pool's threads: other pools in this process have threads of the same name.
#[derive(Default)]
pub(super) struct Roll(Mutex<Vec<libc::pid_t>>);

impl Roll {
    pub(super) fn enter(&self) {
        // SAFETY: takes nothing, cannot fail.
        lock(&self.0).push(unsafe { libc::gettid() });
    }

    fn ids(&self) -> Vec<libc::pid_t> {
        lock(&self.0).clone()
    }
}

fn pool(threads: usize, queue_bound: usize) -> ThreadPool {
    ThreadPool::start(Options { threads, queue_bound }).expect("a thread can be created")
}

/// A file of 64 KiB whose every byte is its offset modulo 251.
fn file() -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&pattern(0, 64 << 10)).expect("room for 64 KiB");
    file
}

fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at % 251) as u8).collect()
}

/// A pipe; reading from it blocks until something is written to the second end.
fn pipe() -> (File, File) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (File::from(std::os::fd::OwnedFd::from(reader)), File::from(std::os::fd::OwnedFd::from(writer)))
}

fn read<'a>(bench: &'a Bench, fd: &impl AsRawFd, at: Option<u64>, length: usize) -> (Request, Pending<'a>) {
    bench.request(OpKind::Read, fd.as_raw_fd(), at, vec![0; length])
}

fn submit_all(bench: &Bench, pool: &ThreadPool, requests: impl IntoIterator<Item = Request>) {
    let left = bench.submit(pool, requests);
    assert!(left.refused.is_empty() && left.busy.is_empty(), "there is room for all");
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn living(ids: &[libc::pid_t]) -> usize {
    let named = |id: &&libc::pid_t| {
        read_to_string(format!("/proc/self/task/{id}/comm")).is_ok_and(|name| name.trim() == worker::THREAD_NAME)
    };
    ids.iter().filter(named).count()
}

/// How often these threads were put on a processor, and how many of them are there or wait for one now.
fn activity(ids: &[libc::pid_t]) -> (u64, usize) {
    let (mut switches, mut awake) = (0, 0);
    for id in ids {
        let status = read_to_string(format!("/proc/self/task/{id}/status")).expect("a thread that lives");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        for counted in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
            switches += field(counted).and_then(|n| n.parse::<u64>().ok()).expect("a number");
        }
        awake += usize::from(!field("State:").is_some_and(|state| state.starts_with('S')));
    }
    (switches, awake)
}

/// Has `waker` woken at the end of the request.
fn wake_at_end(request: &Request, waker: &Waker) {
    let owner = request.owner().clone();
    let slot = owner.slab().find(request.id()).expect("it is live");
    assert!(slot.completion.poll(waker).is_pending());
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_hundred_jobs_on_fewer_threads_run_once_each() {
    let (bench, pool, file) = (Bench::new(), pool(4, 1000), file());
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let (requests, pending): (Vec<_>, Vec<_>) = (0..100).map(|i| read(&bench, &file, Some(i * 600), 600)).unzip();
    let waker = Waker::from(woken.clone());
    requests.iter().for_each(|request| wake_at_end(request, &waker));
    submit_all(&bench, &pool, requests);
    for (i, pending) in pending.into_iter().enumerate() {
        let (outcome, buffer) = pending.finish(|| {});
        assert_eq!(outcome, Ok(600));
        assert_eq!(buffer, pattern(i * 600, 600));
    }
    pool.shutdown();
    assert_eq!(woken.0.load(Ordering::SeqCst), 100, "each is completed once");
    assert!(pool.shared.roll.ids().len() <= 4);
}

#[test]
fn a_pool_of_one_serves_everything_in_order() {
    let (bench, pool, file) = (Bench::new(), pool(1, 1000), file());
    // Reads at the file's own position: the order shows.
    (&file).read_to_end(&mut Vec::new()).expect("the position moves to the end");
    // SAFETY: moves the position back.
    assert_eq!(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) }, 0);
    let (requests, pending): (Vec<_>, Vec<_>) = (0..50).map(|_| read(&bench, &file, None, 100)).unzip();
    submit_all(&bench, &pool, requests);
    for (i, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.finish(|| {}), (Ok(100), pattern(i * 100, 100)));
    }
    assert_eq!(pool.threads(), 1);
}

#[test]
fn every_operation_does_what_the_system_call_does() {
    let (bench, pool, file) = (Bench::new(), pool(2, 10), file());
    let fd = file.as_raw_fd();
    let run = |kind, fd: RawFd, position, buffer| {
        let (request, pending) = bench.request(kind, fd, position, buffer);
        submit_all(&bench, &pool, [request]);
        pending.finish(|| {})
    };
    assert_eq!(run(OpKind::Len, fd, None, vec![]).0, Ok(64 << 10));
    assert_eq!(run(OpKind::Write, fd, Some(100_000), vec![7; 10]).0, Ok(10));
    assert_eq!(run(OpKind::Len, fd, None, vec![]).0, Ok(100_010));
    assert_eq!(run(OpKind::Read, fd, Some(99_999), vec![1; 20]), (Ok(11), [&[0][..], &[7; 10], &[1; 9]].concat()));
    assert_eq!(run(OpKind::SyncAll, fd, None, vec![]).0, Ok(0));
    assert_eq!(run(OpKind::SyncData, fd, None, vec![]).0, Ok(0));
    assert_eq!(run(OpKind::SetLen, fd, Some(5), vec![]).0, Ok(0));
    assert_eq!(run(OpKind::Read, fd, Some(0), vec![9; 8]), (Ok(5), vec![0, 1, 2, 3, 4, 9, 9, 9]));
    assert_eq!(run(OpKind::Read, fd, Some(u64::MAX), vec![9; 8]).0, Err(Errno(libc::EINVAL)));
    assert_eq!(run(OpKind::SetLen, fd, Some(1 << 63), vec![]).0, Err(Errno(libc::EINVAL)));
    assert_eq!(run(OpKind::Read, fd, Some(0), vec![]).0, Ok(0));
    assert_eq!(run(OpKind::Read, -1, Some(0), vec![0; 8]).0, Err(Errno(libc::EBADF)));
    let (reader, mut writer) = pipe();
    assert_eq!(run(OpKind::Read, reader.as_raw_fd(), Some(0), vec![0; 8]).0, Err(Errno(libc::ESPIPE)));
    writer.write_all(b"abc").expect("the pipe has room");
    assert_eq!(run(OpKind::Read, reader.as_raw_fd(), None, vec![0; 3]), (Ok(3), b"abc".to_vec()));
    assert_eq!(run(OpKind::SyncAll, reader.as_raw_fd(), None, vec![]).0, Err(Errno(libc::EINVAL)));
    assert_eq!(run(OpKind::Close, file.into_raw_fd(), None, vec![]).0, Ok(0));
    // The number may be another file's by now (tests run in parallel), so that closing is judged by what it frees.
    assert_eq!(run(OpKind::Close, writer.into_raw_fd(), None, vec![]).0, Ok(0));
    assert_eq!(run(OpKind::Read, reader.as_raw_fd(), None, vec![0; 3]).0, Ok(0), "the writing end is closed");
}

#[test]
fn space_is_allocated_or_the_refusal_reported() {
    let (bench, pool, file) = (Bench::new(), pool(1, 10), file());
    let (mut request, pending) = bench.request(OpKind::Allocate, file.as_raw_fd(), Some(1 << 20), vec![]);
    request.body_mut().length = 4096;
    submit_all(&bench, &pool, [request]);
    match pending.finish(|| {}).0 {
        Ok(_) => assert_eq!(file.metadata().expect("it is open").len(), (1 << 20) + 4096),
        Err(errno) => assert_eq!(errno, Errno(libc::EOPNOTSUPP)),
    }
}

#[test]
fn several_ranges_of_memory_are_one_transfer() {
    use crate::memory::IoVec;
    let (bench, pool, file) = (Bench::new(), pool(1, 10), file());
    for position in [Some(10), None] {
        for kind in [OpKind::Write, OpKind::Read] {
            // SAFETY: moves the position.
            unsafe { libc::lseek(file.as_raw_fd(), 10, libc::SEEK_SET) };
            let buffer = if kind == OpKind::Write { pattern(90, 30) } else { vec![0; 30] };
            let (mut request, pending) = bench.request(kind, file.as_raw_fd(), position, buffer);
            let body = request.body_mut();
            let base = body.memory.iovecs[0].base;
            // SAFETY: the three ranges lie in the buffer of 30 bytes.
            let ranges = unsafe { [(base.add(20), 10), (base, 5), (base.add(5), 15)] };
            for (iovec, (base, len)) in body.memory.iovecs.iter_mut().zip(ranges) {
                *iovec = IoVec { base, len };
            }
            body.memory.count = 3;
            submit_all(&bench, &pool, [request]);
            assert_eq!(pending.finish(|| {}), (Ok(30), pattern(90, 30)), "{kind:?} at {position:?}");
        }
    }
    assert_eq!(bench.request(OpKind::Len, -1, None, vec![]).0.segments(), 0);
}

#[test]
fn a_waker_that_panics_takes_no_worker() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            // `resume_unwind` panics without a message on standard error.
            std::panic::resume_unwind(Box::new("a waker's panic"));
        }
    }
    let (bench, pool, file) = (Bench::new(), pool(1, 100), file());
    let (requests, pending): (Vec<_>, Vec<_>) = (0..10).map(|_| read(&bench, &file, Some(0), 8)).unzip();
    requests.iter().for_each(|request| wake_at_end(request, &Waker::from(Arc::new(Panics))));
    submit_all(&bench, &pool, requests);
    for pending in pending {
        assert_eq!(pending.finish(|| {}).0, Ok(8));
    }
    assert_eq!(living(&pool.shared.roll.ids()), 1, "the same thread has served all");
}

#[test]
fn a_panic_in_the_call_completes_the_request() {
    let (bench, file) = (Bench::new(), file());
    let (mut request, pending) = read(&bench, &file, Some(0), 8);
    let outcome = reap::outcome_of(&mut request, |request| {
        // SAFETY: the memory is not used.
        unsafe { request.start() };
        std::panic::resume_unwind(Box::new("a panic in the middle of the call"))
    });
    request.complete(outcome);
    assert_eq!(pending.finish(|| {}).0, Err(Errno(libc::EIO)));
}

#[test]
fn what_nobody_waits_for_is_not_started() {
    let (bench, pool) = (Bench::new(), pool(1, 100));
    let (reader, mut writer) = pipe();
    let (blocking, blocked) = read(&bench, &reader, None, 1);
    let (abandoned, gone) = read(&bench, &reader, None, 1);
    let (last, end) = read(&bench, &reader, None, 1);
    submit_all(&bench, &pool, [blocking, abandoned, last]);
    drop(gone);
    writer.write_all(b"12").expect("the pipe has room");
    assert_eq!(blocked.finish(|| {}).1, b"1");
    assert_eq!(end.finish(|| {}).1, b"2", "the abandoned read took nothing");
}

#[test]
fn idle_workers_stay_asleep() {
    let (bench, pool, file) = (Bench::new(), pool(8, 1000), file());
    let (requests, pending): (Vec<_>, Vec<_>) = (0..200).map(|i| read(&bench, &file, Some(i), 512)).unzip();
    submit_all(&bench, &pool, requests);
    pending.into_iter().for_each(|p| assert_eq!(p.finish(|| {}).0, Ok(512)));
    let ids = pool.shared.roll.ids();
    // At first some may be on their way to sleep. One that looks for work now and then, or goes round in circles, is awake or
    // wakes up in each of these.
    one_of_many("nobody wakes up", || {
        let before = activity(&ids);
        std::thread::sleep(Duration::from_millis(300));
        let after = activity(&ids);
        if before == after && after.1 == 0 { Ok(()) } else { Err(format!("{before:?} before, {after:?} after")) }
    });
}

#[test]
fn many_submitters() {
    let (bench, pool, file) = (Bench::new(), pool(4, 64), file());
    std::thread::scope(|scope| {
        for submitter in 0..8_u64 {
            let (bench, pool, file) = (&bench, &pool, &file);
            scope.spawn(move || {
                for round in 0..200_u64 {
                    let at = (submitter * 200 + round) * 16;
                    let (requests, pending): (Vec<_>, Vec<_>) =
                        (0..5).map(|i| read(bench, file, Some(at + i), 16)).unzip();
                    let mut rest = bench.submit(pool, requests).busy;
                    while !rest.is_empty() {
                        std::thread::yield_now();
                        rest = bench.submit(pool, rest).busy;
                    }
                    for (i, pending) in pending.into_iter().enumerate() {
                        assert_eq!(pending.finish(|| {}), (Ok(16), pattern(at as usize + i, 16)));
                    }
                }
            });
        }
    });
}

#[test]
fn the_bound_is_honoured_exactly() {
    let (bench, pool) = (Bench::new(), pool(2, 5));
    assert_eq!(pool.capabilities().queue_bound, 5);
    let (reader, _writer) = pipe();
    let (requests, _pending): (Vec<_>, Vec<_>) = (0..8).map(|_| read(&bench, &reader, None, 1)).unzip();
    let ids: Vec<_> = requests.iter().map(Request::id).collect();
    let busy = bench.submit(&pool, requests).busy;
    assert_eq!(busy.iter().map(Request::id).collect::<Vec<_>>(), ids[5..], "the first five are held");
    assert_eq!(bench.submit(&pool, busy).busy.len(), 3, "also while two of them are served");
}

#[test]
fn the_pool_grows_only_when_all_are_busy() {
    // A worker that was preempted after its request's end is busy still: then one more is right.
    one_of_many("one at work, one in reserve, one that was not yet back asleep", || {
        let threads = grown();
        if threads <= 3 { Ok(()) } else { Err(format!("{threads} threads")) }
    });
    one_of_many("ten blocked, one in reserve, one that was not yet back asleep", || {
        let threads = grown_around_ten_that_block();
        if threads <= 12 { Ok(()) } else { Err(format!("{threads} threads")) }
    });
}

/// How many threads a pool has after requests one after the other.
fn grown() -> usize {
    let (bench, pool, file) = (Bench::new(), pool(32, 1000), file());
    assert_eq!(pool.threads(), 1);
    for i in 0..1000 {
        let (request, pending) = read(&bench, &file, Some(i), 8);
        submit_all(&bench, &pool, [request]);
        assert_eq!(pending.finish(|| {}).0, Ok(8));
    }
    pool.threads()
}

fn grown_around_ten_that_block() -> usize {
    let (bench, pool, file) = (Bench::new(), pool(32, 1000), file());
    let (readers, writers): (Vec<_>, Vec<_>) = (0..10).map(|_| pipe()).unzip();
    let mut blocked = Vec::new();
    for reader in &readers {
        let (request, pending) = read(&bench, reader, None, 1);
        submit_all(&bench, &pool, [request]);
        blocked.push(pending);
    }
    // Nothing that was submitted earlier ever returns, and still the next is served.
    let (request, pending) = read(&bench, &file, Some(0), 8);
    submit_all(&bench, &pool, [request]);
    assert_eq!(pending.finish(|| {}).0, Ok(8));
    eventually("ten blocked, one in reserve", || pool.threads() >= 11);
    // What would grow it once more needs a moment.
    std::thread::sleep(Duration::from_millis(20));
    let threads = pool.threads();
    drop(writers);
    blocked.into_iter().for_each(|p| assert_eq!(p.finish(|| {}).0, Ok(0)));
    threads
}
