//! The backend against a real kernel, without an engine. Each test runs with the ring and with `io_getevents` only.

#![allow(unsafe_code)]

mod faults;
mod races;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::*;
use crate::completion::Outcome;
use crate::memory::IoVec;
use crate::request::Request;
use crate::testing::{Bench, PATIENCE, Pending};

const PAGE: usize = 4096;

/// A context of `depth`, or nothing and a printed reason where this machine has no kernel AIO.
fn start(depth: usize, user_ring: bool) -> Option<KernelAio> {
    match KernelAio::with_options(Options { queue_depth: depth, user_ring }) {
        Ok(backend) => {
            assert_eq!(backend.with_live(|live| live.ring.is_some()), Some(user_ring));
            Some(backend)
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn context_id(backend: &KernelAio) -> abi::ContextId {
    backend.with_live(|live| live.context.id()).expect("not shut down")
}

/// Runs a test in both modes.
fn each_mode(depth: usize, test: impl Fn(&Bench, &KernelAio)) {
    for user_ring in [true, false] {
        println!("ring: {user_ring}");
        let bench = Bench::new();
        let Some(backend) = start(depth, user_ring) else { return };
        if let Some(why) = backend.degraded() {
            eprintln!("skipped: {why}");
            return;
        }
        test(&bench, &backend);
        assert_eq!(backend.in_flight.count(), 0, "everything came back");
        assert!(!backend.ready());
    }
}

/// An unnamed file with this content.
fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(content).expect("its content");
    file
}

/// A file open with `O_DIRECT`, where the crate or `/var/tmp` lies on a file system that has it.
fn direct_file(content: &[u8]) -> Option<File> {
    for place in ["/var/tmp", env!("CARGO_MANIFEST_DIR")] {
        let Ok(mut file) = tempfile::NamedTempFile::new_in(place) else { continue };
        file.write_all(content).expect("its content");
        file.as_file().sync_all().expect("a sync");
        let mut options = OpenOptions::new();
        match options.read(true).write(true).custom_flags(libc::O_DIRECT).open(file.path()) {
            Ok(file) => return Some(file),
            Err(error) => eprintln!("no O_DIRECT in {place}: {error}"),
        }
    }
    eprintln!("skipped: O_DIRECT is refused everywhere");
    None
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 8 * 37 + at) as u8).collect()
}

/// A request whose memory begins at a page; returns where in the buffer that is.
fn aligned<'a>(
    bench: &'a Bench,
    kind: OpKind,
    fd: RawFd,
    position: u64,
    content: &[u8],
) -> (Request, Pending<'a>, usize) {
    let mut buffer = vec![0; content.len() + PAGE];
    let begin = buffer.as_ptr().align_offset(PAGE);
    buffer[begin..begin + content.len()].copy_from_slice(content);
    let (mut request, pending) = bench.request(kind, fd, Some(position), buffer);
    let iovec = &mut request.body_mut().memory.iovecs[0];
    *iovec = IoVec { base: iovec.base.wrapping_add(begin), len: content.len() };
    (request, pending, begin)
}

fn poll(bench: &Bench, backend: &KernelAio) -> usize {
    bench.reap(backend, Wait::poll(usize::MAX)).0
}

/// Submits one request, which must be taken, and waits for it in the kernel.
fn run(bench: &Bench, backend: &KernelAio, (request, pending): (Request, Pending<'_>)) -> (Outcome, Vec<u8>) {
    let left = bench.submit(backend, [request]);
    assert!(left.refused.is_empty() && left.busy.is_empty(), "refused: {:?}", left.refused);
    let wait = Wait { min: 1, max: 1, timeout: Some(PATIENCE) };
    assert_eq!(bench.reap(backend, wait), (1, 0));
    pending.finish(|| unreachable!("it was reaped"))
}

#[test]
fn buffered_write_sync_read() {
    each_mode(16, |bench, backend| {
        let file = file(b"");
        let fd = file.as_raw_fd();
        let content = pattern(10_000);
        assert_eq!(run(bench, backend, bench.request(OpKind::Write, fd, Some(5), content.clone())).0, Ok(10_000));
        // A sync after a write: whatever the write left in an iocb would make these `EINVAL` (pitfall 13).
        assert_eq!(run(bench, backend, bench.request(OpKind::SyncAll, fd, None, Vec::new())).0, Ok(0));
        assert_eq!(run(bench, backend, bench.request(OpKind::SyncData, fd, None, Vec::new())).0, Ok(0));
        let (outcome, read) = run(bench, backend, bench.request(OpKind::Read, fd, Some(5), vec![0; 20_000]));
        assert_eq!((outcome, &read[..10_000]), (Ok(10_000), &content[..]));
        assert_eq!(run(bench, backend, bench.request(OpKind::Read, fd, Some(10_005), vec![0; 8])).0, Ok(0), "the end");
        assert_eq!(run(bench, backend, bench.request(OpKind::Read, fd, Some(0), Vec::new())).0, Ok(0), "nothing");
    });
}

#[test]
fn direct_write_sync_read() {
    let Some(file) = direct_file(&pattern(16 * PAGE)) else { return };
    let fd = file.as_raw_fd();
    each_mode(16, |bench, backend| {
        let content: Vec<u8> = pattern(8 * PAGE).iter().map(|byte| !byte).collect();
        for nowait in [false, true] {
            let (mut write, pending, _) = aligned(bench, OpKind::Write, fd, 4096, &content);
            write.body_mut().nowait = nowait;
            match run(bench, backend, (write, pending)).0 {
                Ok(count) => assert_eq!(count, content.len() as u64),
                // A file system may refuse to write without waiting. It may not do anything else.
                Err(errno) => assert!(nowait && errno == Errno(libc::EAGAIN), "{errno}"),
            }
        }
        assert_eq!(run(bench, backend, bench.request(OpKind::SyncData, fd, None, Vec::new())).0, Ok(0));
        let (read, pending, begin) = aligned(bench, OpKind::Read, fd, 4096, &[0; 8 * PAGE]);
        let (outcome, buffer) = run(bench, backend, (read, pending));
        assert_eq!((outcome, &buffer[begin..begin + content.len()]), (Ok(content.len() as u64), &content[..]));
    });
}

#[test]
fn a_misaligned_direct_read_answers_by_a_completion() {
    let Some(file) = direct_file(&pattern(4 * PAGE)) else { return };
    each_mode(16, |bench, backend| {
        let (mut read, pending, _) = aligned(bench, OpKind::Read, file.as_raw_fd(), 0, &[0; PAGE]);
        let iovec = &mut read.body_mut().memory.iovecs[0];
        *iovec = IoVec { base: iovec.base.wrapping_add(1), len: 511 };
        match run(bench, backend, (read, pending)).0 {
            Err(errno) => assert_eq!(errno, Errno(libc::EINVAL)),
            Ok(count) => println!("this file system reads it buffered: {count} bytes"),
        }
    });
}

#[test]
fn how_a_transfer_is_done_is_said_in_the_iocb() {
    use crate::how::{Durability, How, Priority};
    let bench = Bench::new();
    let with = |kind, how: How| {
        let (mut request, _pending) = bench.request(kind, 5, Some(0), vec![0; 8]);
        request.body_mut().how = how;
        super::submit::describe(&request).map(|iocb| (iocb.rw_flags, iocb.flags, iocb.reqprio))
    };
    let plain = How::default();
    assert_eq!(with(OpKind::Write, plain), Ok((0, 0, 0)));
    assert_eq!(with(OpKind::Write, How { durability: Durability::Data, ..plain }), Ok((2, 0, 0)));
    assert_eq!(with(OpKind::Write, How { durability: Durability::All, ..plain }), Ok((4, 0, 0)));
    let priority = |priority| How { priority: Some(priority), ..plain };
    assert_eq!(with(OpKind::Read, priority(Priority::Idle)), Ok((0, 2, 3 << 13)));
    assert_eq!(with(OpKind::Read, priority(Priority::BestEffort(6))), Ok((0, 2, (2 << 13) | 6)));
    assert_eq!(with(OpKind::Read, priority(Priority::Realtime(8))), Err(Errno(libc::EINVAL)));
    assert_eq!(with(OpKind::Write, How { append: true, ..plain }), Err(Errno(libc::EOPNOTSUPP)));
}

#[test]
fn several_ranges_of_memory() {
    each_mode(16, |bench, backend| {
        let file = file(b"");
        let fd = file.as_raw_fd();
        let content = pattern(100);
        let split = |(mut request, pending): (Request, Pending<'static>)| {
            let body = request.body_mut();
            let base = body.memory.iovecs[0].base;
            for (at, range) in [(0, 0..10), (1, 10..10), (2, 10..73), (3, 73..100)] {
                body.memory.iovecs[at] = IoVec { base: base.wrapping_add(range.start), len: range.len() };
            }
            body.memory.count = 4;
            (request, pending)
        };
        // The closure's lifetime: the bench outlives every request of this test.
        // SAFETY: `bench` lives until `each_mode` returns from this closure, and no request is kept beyond that.
        let bench: &'static Bench = unsafe { &*std::ptr::from_ref(bench) };
        let write = split(bench.request(OpKind::Write, fd, Some(3), content.clone()));
        assert_eq!(run(bench, backend, write).0, Ok(100));
        let read = split(bench.request(OpKind::Read, fd, Some(3), vec![0; 100]));
        assert_eq!(run(bench, backend, read), (Ok(100), content));
    });
}

#[test]
fn batches_of_one_to_four_times_the_queue() {
    let content = pattern(1 << 16);
    let buffered = file(&content);
    each_mode(16, |bench, backend| {
        assert_eq!(backend.capabilities().queue_bound, 16);
        for times in 1..=4 {
            let mut pendings = Vec::new();
            let mut requests = Vec::new();
            for at in 0..16 * times {
                // Each has a length of its own, so that a mixed-up result shows.
                let read =
                    bench.request(OpKind::Read, buffered.as_raw_fd(), Some(at * 512), vec![0; 100 + at as usize]);
                requests.push(read.0);
                pendings.push((at, read.1));
            }
            let mut order: Vec<_> = requests.iter().map(Request::id).collect();
            let mut rounds = 0;
            while !requests.is_empty() {
                let left = bench.submit(backend, requests);
                assert!(left.refused.is_empty());
                assert_eq!(backend.in_flight.count(), order.len().min(16), "full, and not more than full");
                order.drain(..order.len().min(16));
                assert_eq!(order, left.busy.iter().map(Request::id).collect::<Vec<_>>(), "the rest, in order");
                let again = bench.submit(backend, left.busy);
                assert_eq!(again.busy.len(), order.len(), "nothing more before a completion");
                while backend.in_flight.count() > 0 {
                    bench.reap(backend, Wait { min: 1, max: 5, timeout: Some(PATIENCE) });
                }
                requests = again.busy.into_iter().collect();
                rounds += 1;
            }
            assert_eq!(rounds, times);
            for (at, pending) in pendings {
                let (begin, len) = (at as usize * 512, 100 + at as usize);
                assert_eq!(pending.finish(|| ()), (Ok(len as u64), content[begin..begin + len].to_vec()));
            }
        }
    });
}

#[test]
fn more_than_one_system_call_in_one_batch() {
    let content = pattern(1 << 16);
    let buffered = file(&content);
    each_mode(1000, |bench, backend| {
        let (requests, pendings): (Vec<_>, Vec<_>) = (0..333)
            .map(|at| bench.request(OpKind::Read, buffered.as_raw_fd(), Some(at * 16), vec![0; 1 + at as usize]))
            .unzip();
        let left = bench.submit(backend, requests);
        assert!(left.busy.is_empty() && left.refused.is_empty());
        assert!(backend.ready());
        assert_eq!(bench.reap(backend, Wait::poll(300)), (300, 0), "more than one buffer, and not more than asked for");
        assert_eq!(poll(bench, backend), 33);
        for (at, pending) in pendings.into_iter().enumerate() {
            assert_eq!(pending.finish(|| ()), (Ok(1 + at as u64), content[at * 16..at * 17 + 1].to_vec()));
        }
    });
}

#[test]
fn waiting_honours_its_limits() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let time = |min, max, timeout| {
            let begin = Instant::now();
            (bench.reap(backend, Wait { min, max, timeout: Some(timeout) }).0, begin.elapsed())
        };
        // Who does not wait may be preempted, but not for so long.
        let (short, long) = (Duration::from_millis(50), PATIENCE);
        let (got, took) = time(1, 8, short);
        assert!(got == 0 && took >= short && took < long, "{got} after {took:?}");
        let (got, took) = time(0, 8, long);
        assert!(got == 0 && took < long, "a poll does not wait: {took:?}");
        let (got, took) = time(5, 0, long);
        assert!(got == 0 && took < long, "at most none: {took:?}");
        let (got, took) = time(1, 1, Duration::ZERO);
        assert!(got == 0 && took < long, "no time: {took:?}");

        let reads: Vec<_> =
            (0..3).map(|_| bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8])).collect();
        let (requests, _pendings): (Vec<_>, Vec<_>) = reads.into_iter().unzip();
        assert!(bench.submit(backend, requests).busy.is_empty());
        let (got, took) = time(2, 2, long);
        assert!(got == 2 && took < long, "no more than two: {got} after {took:?}");
        let (got, took) = time(2, 8, short);
        assert!(got == 1 && took >= short, "what is there once the time is up: {got} after {took:?}");
    });
}

#[test]
fn the_notification_becomes_readable_with_each_completion() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let fd = backend.notification().expect("an eventfd").as_raw_fd();
        // SAFETY: takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: `event` lives across the call.
        assert_eq!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) }, 0);
        // SAFETY: as above.
        let mut wakes = || unsafe { libc::epoll_wait(epoll, &raw mut event, 1, 100) };
        assert_eq!(wakes(), 0, "nothing has completed");
        for _ in 0..3 {
            assert_eq!(
                run(bench, backend, bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8])).0,
                Ok(8)
            );
            assert_eq!(wakes(), 1, "nobody reads the eventfd, and its edge still comes");
        }
        // SAFETY: made above, used nowhere else.
        unsafe { libc::close(epoll) };
    });
}

#[test]
fn what_nobody_waits_for_is_not_started() {
    let mut buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let (write, pending) = bench.request(OpKind::Write, buffered.as_raw_fd(), Some(0), vec![0xee; 64]);
        drop(pending);
        let left = bench.submit(backend, [write]);
        assert!(left.busy.is_empty() && left.refused.is_empty());
        assert_eq!(backend.in_flight.count(), 0);
    });
    let mut content = Vec::new();
    buffered.seek(SeekFrom::Start(0)).and_then(|_| buffered.read_to_end(&mut content)).expect("a read");
    assert_eq!(content, pattern(64), "nothing was written");
}

#[test]
fn cancelling_is_answered_honestly() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let (read, pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
        let id = read.id();
        assert_eq!(backend.cancel(id), CancelOutcome::Unknown);
        bench.submit(backend, [read]);
        assert_eq!(backend.cancel(id), CancelOutcome::Running);
        assert_eq!(poll(bench, backend), 1);
        assert_eq!(pending.finish(|| ()).0, Ok(8), "it ran");
        assert_eq!(backend.cancel(id), CancelOutcome::Unknown);
    });
}

#[test]
fn ready_tells_the_truth_and_takes_nothing_away() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        for max in [1, 2, 16] {
            let reads = (0..3).map(|at| bench.request(OpKind::Read, buffered.as_raw_fd(), Some(at), vec![0; 8]));
            let (requests, pendings): (Vec<_>, Vec<_>) = reads.unzip();
            assert!(!backend.ready());
            bench.submit(backend, requests);
            assert!(backend.ready() && backend.ready());
            let mut got = 0;
            while backend.ready() {
                let count = bench.reap(backend, Wait { min: 1, max, timeout: None }).0;
                assert!(count >= 1 && count <= max);
                got += count;
            }
            assert_eq!(got, 3);
            for (at, pending) in pendings.into_iter().enumerate() {
                assert_eq!(pending.finish(|| ()), (Ok(8), pattern(64)[at..at + 8].to_vec()));
            }
        }
        // In flight, and nothing to reap: who asks before it sleeps must be told so.
        let mut watch = abi::Iocb {
            opcode: IOCB_CMD_POLL,
            fildes: reader.as_raw_fd() as u32,
            buf: libc::POLLIN as u64,
            ..abi::Iocb::ZERO
        };
        // SAFETY: a poll names no memory; the iocb lives across the call.
        assert_eq!(unsafe { abi::io_submit(context_id(backend), &[&raw mut watch]) }, Ok(1));
        assert_eq!(backend.in_flight.reserve(1), 1);
        assert!(!backend.ready());
        writer.write_all(b"x").expect("room in the pipe");
        assert!(backend.ready());
        assert_eq!(bench.reap(backend, Wait::poll(1)), (0, 1), "known to nobody");
        backend.in_flight.release(1);
    });
}

/// Only tests use it.
const IOCB_CMD_POLL: u16 = 5;
