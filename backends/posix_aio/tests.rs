//! The backend against the real C library, without an engine.
//!
//! A request on a pipe stands in for a slow device: glibc reads from what has no offsets as `read(2)` does, so that such a
//! request runs until the test writes a byte. Tests that keep glibc's threads busy in this way take turns ([`busy`]), for
//! there are 20 for the whole process.

#![allow(unsafe_code)]

mod attended;
mod cancelling;
mod ends;
mod library;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex as StdMutex, MutexGuard as StdMutexGuard};

use super::*;
use crate::completion::Outcome;
use crate::request::{RawHandle, Request};
use crate::testing::{Bench, Pending};
use seats::{DEPTH, SEATS};

/// Held by tests that occupy threads of the C library.
fn busy() -> StdMutexGuard<'static, ()> {
    static TURN: StdMutex<()> = StdMutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn start(queue_depth: usize) -> PosixAio {
    PosixAio::start(queue_depth).expect("glibc has POSIX AIO")
}

fn narrow(queue_depth: usize, spread: usize) -> PosixAio {
    PosixAio::with_options(Options { queue_depth, spread }).expect("glibc has POSIX AIO")
}

fn held(backend: &PosixAio) -> usize {
    backend.shared.lock().seats.held()
}

fn duplicates(backend: &PosixAio) -> usize {
    backend.shared.lock().seats.files.duplicates()
}

/// An unnamed file with this content.
fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(content).expect("its content");
    file
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 8 * 37 + at) as u8).collect()
}

/// One that begins at once and ends when its byte comes.
fn slow<'a>(bench: &'a Bench, pipe: &PipeReader) -> (Request, Pending<'a>) {
    bench.request(OpKind::Read, pipe.as_raw_fd(), Some(0), vec![0])
}

fn release(writer: &mut PipeWriter, count: usize) {
    writer.write_all(&vec![7; count]).expect("room in the pipe");
}

/// Submits; everything must be taken.
fn submit(bench: &Bench, backend: &PosixAio, requests: impl IntoIterator<Item = Request>) {
    let left = bench.submit(backend, requests);
    assert!(left.refused.is_empty() && left.busy.is_empty(), "refused: {:?}, busy: {}", left.refused, left.busy.len());
}

fn wait(pending: Pending<'_>) -> (Outcome, Vec<u8>) {
    pending.finish(|| std::thread::sleep(std::time::Duration::from_micros(50)))
}

fn run(bench: &Bench, backend: &PosixAio, (request, pending): (Request, Pending<'_>)) -> (Outcome, Vec<u8>) {
    submit(bench, backend, [request]);
    wait(pending)
}

/// How many descriptors of this process name the same thing as `fd`.
fn namesakes(fd: RawFd) -> usize {
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open");
    let all = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    all.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|other| other == name)).count()
}

/// The same for the reading end of a pipe, whose writing end has the same name.
fn readers(pipe: &PipeReader) -> usize {
    namesakes(pipe.as_raw_fd()) - 1
}

#[test]
fn write_sync_read() {
    let (bench, backend, file) = (Bench::new(), start(16), file(b""));
    let (fd, content) = (file.as_raw_fd(), pattern(10_000));
    assert_eq!(run(&bench, &backend, bench.request(OpKind::Write, fd, Some(5), content.clone())).0, Ok(10_000));
    assert_eq!(run(&bench, &backend, bench.request(OpKind::SyncAll, fd, None, Vec::new())).0, Ok(0));
    assert_eq!(run(&bench, &backend, bench.request(OpKind::SyncData, fd, None, Vec::new())).0, Ok(0));
    let (outcome, read) = run(&bench, &backend, bench.request(OpKind::Read, fd, Some(5), vec![0; 20_000]));
    assert_eq!((outcome, &read[..10_000]), (Ok(10_000), &content[..]));
    assert_eq!(run(&bench, &backend, bench.request(OpKind::Read, fd, Some(10_005), vec![0; 8])).0, Ok(0), "the end");
    assert_eq!(run(&bench, &backend, bench.request(OpKind::Read, fd, Some(0), Vec::new())).0, Ok(0), "nothing");
    // Beyond four gigabytes: offsets have 64 bits.
    let far = 5 << 30;
    assert_eq!(run(&bench, &backend, bench.request(OpKind::Write, fd, Some(far), vec![9; 3])).0, Ok(3));
    assert_eq!(file.metadata().expect("open").len(), far + 3);
    assert_eq!(held(&backend), 0);
}

#[test]
fn errors_are_the_kernels() {
    let (bench, backend) = (Bench::new(), start(16));
    let write_only = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let read = bench.request(OpKind::Read, write_only.as_raw_fd(), Some(0), vec![0; 8]);
    assert_eq!(run(&bench, &backend, read).0, Err(Errno(libc::EBADF)));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let write = bench.request(OpKind::Write, full.as_raw_fd(), Some(0), vec![0; 8]);
    assert_eq!(run(&bench, &backend, write).0, Err(Errno(libc::ENOSPC)));
    assert_eq!(held(&backend), 0);
}

#[test]
fn what_cannot_be_served_is_left() {
    let (bench, backend, file) = (Bench::new(), start(16), file(&pattern(64)));
    let fd = file.as_raw_fd();
    let (mut virtual_file, _a) = bench.request(OpKind::Read, fd, Some(0), vec![0; 8]);
    virtual_file.body_mut().handle = RawHandle::Virtual(1);
    let (mut stream, _b) = bench.request(OpKind::Read, fd, Some(0), vec![0; 8]);
    stream.body_mut().stream = true;
    let (mut two, _c) = bench.request(OpKind::Read, fd, Some(0), vec![0; 8]);
    two.body_mut().memory.iovecs[1] = two.body().memory.iovecs[0];
    two.body_mut().memory.count = 2;
    let (position, _d) = bench.request(OpKind::Read, fd, None, vec![0; 8]);
    let (beyond, _e) = bench.request(OpKind::Read, fd, Some(1 << 63), vec![0; 8]);
    let (set_len, _f) = bench.request(OpKind::SetLen, fd, Some(1), Vec::new());
    let (nowhere, _g) = bench.request(OpKind::SyncAll, -1, None, Vec::new());
    let (good, pending) = bench.request(OpKind::Read, fd, Some(0), vec![0; 8]);
    let left = bench.submit(&backend, [virtual_file, stream, two, position, beyond, set_len, nowhere, good]);
    let errors: Vec<_> = left.refused.iter().map(|(_, errno)| errno.0).collect();
    let no = libc::EOPNOTSUPP;
    assert_eq!(errors, [no, no, no, no, libc::EINVAL, no, libc::EBADF]);
    assert!(left.busy.is_empty());
    assert_eq!(wait(pending), (Ok(8), pattern(64)[..8].to_vec()), "what follows is served");
}

#[test]
fn nothing_starts_before_the_first_request() {
    let backend = start(16);
    assert!(backend.shared.lock().thread.is_none());
    backend.shutdown();
    let (bench, file) = (Bench::new(), file(b"x"));
    let (read, _pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 1]);
    let left = bench.submit(&backend, [read]);
    assert_eq!(left.refused.first().map(|(_, errno)| errno.0), Some(libc::ESHUTDOWN));
}

#[test]
fn a_hundred_thousand_requests_each_end_once() {
    const COUNT: usize = 100_000;
    const BOUND: usize = 1000;
    let (bench, backend, content) = (Bench::new(), start(BOUND), pattern(1 << 16));
    let files = [file(&content), file(&content), file(&content)];
    let (mut sent, mut ended) = (0, 0);
    let mut flying = std::collections::VecDeque::new();
    let mut busy = std::collections::VecDeque::new();
    while ended < COUNT {
        while sent < COUNT && flying.len() < 2 * BOUND {
            let place = sent % 60_000;
            let fd = files[sent % files.len()].as_raw_fd();
            let (request, pending) = bench.request(OpKind::Read, fd, Some(place as u64), vec![0; 16]);
            busy.push_back(request);
            flying.push_back((place, pending));
            sent += 1;
        }
        let left = bench.submit(&backend, busy.drain(..));
        assert!(left.refused.is_empty());
        busy = left.busy;
        assert!(held(&backend) <= BOUND, "no more than it says");
        let done = flying.iter().take_while(|(_, pending)| pending.peek().is_some()).count();
        for (place, pending) in flying.drain(..done) {
            assert_eq!(pending.finish(|| ()), (Ok(16), content[place..][..16].to_vec()));
            ended += 1;
        }
        if done == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(held(&backend), 0);
    assert!(duplicates(&backend) >= SEATS / 3, "{} duplicates", duplicates(&backend));
}

/// However many are in flight on one file, the C library has few of them, and the reaper sleeps on fewer: neither a
/// completion nor a wait costs more for it.
#[test]
fn five_thousand_in_flight_on_one_file() {
    const COUNT: usize = 5000;
    let _turn = busy();
    let (bench, backend) = (Bench::new(), start(COUNT));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (requests, pendings): (Vec<_>, Vec<_>) = (0..COUNT).map(|_| slow(&bench, &pipe)).unzip();
    submit(&bench, &backend, requests);
    let (one_more, _pending) = slow(&bench, &pipe);
    assert_eq!(bench.submit(&backend, [one_more]).busy.len(), 1, "no more than it says");
    for left in (0..COUNT).rev() {
        {
            let state = backend.shared.lock();
            let heads = state.seats.heads().count();
            assert!(heads <= SEATS && state.seats.flights() <= SEATS * DEPTH, "with {left} to go");
        }
        release(&mut writer, 1);
        if left % 100 == 0 {
            let ended = || pendings.iter().filter(|pending| pending.peek().is_some()).count();
            while ended() < COUNT - left {
                std::thread::yield_now();
            }
        }
    }
    assert_eq!(duplicates(&backend), SEATS - 1);
    pendings.into_iter().for_each(|pending| assert_eq!(wait(pending), (Ok(1), vec![7])));
    assert_eq!(held(&backend), 0);
}

/// Whatever was in a control block before, and however often it was used.
#[test]
fn control_blocks_are_written_anew() {
    let (bench, backend, file) = (Bench::new(), start(1000), file(&pattern(4096)));
    for block in backend.shared.lock().seats.blocks() {
        // SAFETY: none is in flight, nobody else looks at them, and they are numbers and pointers all over.
        unsafe { block.address().cast_mut().cast::<u8>().write_bytes(0xa5, size_of::<libc::aiocb>()) };
    }
    for round in 0..4u64 {
        // Twice as many as there are blocks.
        let all = (0..2 * SEATS as u64 * DEPTH as u64)
            .map(|at| bench.request(OpKind::Read, file.as_raw_fd(), Some(at + round), vec![0; 8]));
        let (requests, pendings): (Vec<_>, Vec<_>) = all.unzip();
        submit(&bench, &backend, requests);
        for (at, pending) in pendings.into_iter().enumerate() {
            let from = at + round as usize;
            assert_eq!(wait(pending), (Ok(8), pattern(4096)[from..][..8].to_vec()));
        }
    }
}

#[test]
fn duplicates_grow_with_the_depth_that_is_used() {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(100), file(&pattern(64)));
    for _ in 0..10 {
        run(&bench, &backend, bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8])).0.expect("readable");
    }
    assert_eq!(duplicates(&backend), 0, "one at a time needs none");
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let mut pendings = Vec::new();
    for count in 1..=20 {
        let (request, pending) = slow(&bench, &pipe);
        submit(&bench, &backend, [request]);
        pendings.push(pending);
        assert_eq!(duplicates(&backend), count.min(SEATS) - 1);
    }
    assert_eq!(readers(&pipe), SEATS);
    backend.forget(pipe.as_raw_fd());
    assert_eq!(readers(&pipe), SEATS, "not while requests use them");
    release(&mut writer, 20);
    pendings.into_iter().for_each(|pending| assert_eq!(wait(pending), (Ok(1), vec![7])));
    assert_eq!(readers(&pipe), SEATS, "they stay: closing one would drop locks");
    backend.forget(file.as_raw_fd());
    assert_eq!(duplicates(&backend), SEATS - 1, "another file's");
    backend.forget(pipe.as_raw_fd());
    assert_eq!((duplicates(&backend), readers(&pipe)), (0, 1));
    backend.forget(pipe.as_raw_fd());
    let (request, pending) = slow(&bench, &pipe);
    submit(&bench, &backend, [request]);
    release(&mut writer, 1);
    assert_eq!(wait(pending).0, Ok(1), "forgotten, and known again");
}

#[test]
fn without_more_descriptors_there_are_fewer_duplicates() {
    let file = file(b"x");
    let fd = file.as_raw_fd();
    let mut files = duplicates::Files::new(3, 16);
    let lines: Vec<_> = (0..6).map_while(|_| files.seat(fd)).collect();
    assert_eq!((lines.len(), lines[0], files.duplicates()), (4, fd, 3), "its own, and three more");
    files.unseat(fd, lines[2]);
    assert_eq!(files.seat(fd), Some(lines[2]), "what is free is used again");
    assert!(files.refused.is_none(), "a bound is no refusal");
    let mut files = duplicates::Files::new(100, 16);
    let closed = 1 << 20;
    assert_eq!(files.seat(closed), Some(closed));
    assert_eq!((files.seat(closed), files.refused), (None, Some(Errno(libc::EBADF))), "as it is with EMFILE");
    files.refused = None;
    assert_eq!((files.seat(closed), files.refused), (None, None), "asked once");
}

/// The reaper sleeps on what it knows; what comes later must wake it, wherever it completes.
#[test]
fn a_completion_anywhere_is_noticed_at_once() {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(100), file(&pattern(64)));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let mut slow_ones = Vec::new();
    // One seat is left for the file, whose requests come and go while the others do not move.
    for _ in 1..SEATS {
        let (request, pending) = slow(&bench, &pipe);
        submit(&bench, &backend, [request]);
        slow_ones.push(pending);
        for _ in 0..20 {
            let read = bench.request(OpKind::Read, file.as_raw_fd(), Some(8), vec![0; 8]);
            assert_eq!(run(&bench, &backend, read), (Ok(8), pattern(64)[8..16].to_vec()));
        }
    }
    assert!(slow_ones.iter().all(|pending| pending.peek().is_none()));
    release(&mut writer, SEATS - 1);
    slow_ones.into_iter().for_each(|pending| assert_eq!(wait(pending).0, Ok(1)));
}

/// A file whose requests fill every seat shares them with one that comes later.
#[test]
fn no_file_starves_behind_another() {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(1000), file(&pattern(64)));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (requests, pendings): (Vec<_>, Vec<_>) = (0..200).map(|_| slow(&bench, &pipe)).unzip();
    submit(&bench, &backend, requests);
    let (read, pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8]);
    submit(&bench, &backend, [read]);
    assert!(pending.peek().is_none(), "all seats are taken");
    // What the seats have, one by one. If they were filled up again, the file's turn would come after all the others.
    for count in 1..=SEATS * DEPTH {
        release(&mut writer, 1);
        while pendings.iter().filter(|pending| pending.peek().is_some()).count() < count {
            std::thread::yield_now();
        }
    }
    assert_eq!(wait(pending).0, Ok(8));
    assert!(pendings.iter().any(|pending| pending.peek().is_none()), "the others still wait for their bytes");
    release(&mut writer, 200 - SEATS * DEPTH);
    pendings.into_iter().for_each(|pending| assert_eq!(wait(pending).0, Ok(1)));
}

/// One descriptor, whose queue takes nothing while the reaper sleeps: what waits here goes on all the same, in order.
#[test]
fn a_single_descriptor_keeps_its_order() {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), narrow(1000, 1));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let mut pendings = Vec::new();
    for _ in 0..50 {
        let (request, pending) = slow(&bench, &pipe);
        submit(&bench, &backend, [request]);
        pendings.push(pending);
    }
    let bytes: Vec<u8> = (0..50).collect();
    writer.write_all(&bytes).expect("room in the pipe");
    for (at, pending) in pendings.into_iter().enumerate() {
        assert_eq!(wait(pending), (Ok(1), vec![at as u8]));
    }
    assert_eq!((duplicates(&backend), readers(&pipe)), (0, 1));
}

#[test]
fn a_second_engine_is_turned_away() {
    let (first, second, backend, file) = (Bench::new(), Bench::new(), start(16), file(&pattern(64)));
    let read = |bench: &Bench| {
        let (read, _pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8]);
        bench.submit(&backend, [read]).refused.first().map(|(_, errno)| errno.0)
    };
    assert_eq!(read(&first), None);
    assert_eq!(read(&second), Some(libc::EOPNOTSUPP), "its ids are the same numbers");
}
