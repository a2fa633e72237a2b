//! The backend against the real C library, without an engine.
//!
//! Each of the [`cases!`] runs twice: as the library of this build is served, and as another one is for which it can stand in.
//! glibc can be served as musl is; and musl as kernels are, for it knows no order either, and looks through the list that
//! somebody sleeps on as they do. So all three ways to wake the reaper are run, though two of them on one library.
//!
//! A request on a pipe stands in for a slow device: C libraries read from what has no offsets as `read(2)` does, so that such a
//! request runs until the test writes a byte. Tests that keep glibc's threads busy in this way take turns ([`busy`]), for
//! there are 20 for the whole process.

#![allow(unsafe_code)]

/// Functions that take a [`Library`], as tests: `own::` with that of this build, `other::` with another one.
macro_rules! cases {
    ($($name:ident)+) => {
        mod own {
            $(#[test] fn $name() { super::$name(super::own()) })+
        }
        mod other {
            $(#[test] fn $name() {
                let _alone = super::alone();
                super::$name(super::OTHER)
            })+
        }
    };
}

mod attended;
mod cancelling;
mod ends;
mod functions;
#[cfg(target_env = "gnu")]
mod order;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex as StdMutex, MutexGuard as StdMutexGuard};

use super::*;
use crate::completion::Outcome;
use crate::request::{RawHandle, Request};
use crate::testing::{Bench, Pending};

/// What this C library can be served as, though it is another.
#[cfg(target_env = "gnu")]
const OTHER: &Library = &library::MUSL;
#[cfg(target_env = "musl")]
const OTHER: &Library = &Library { appends: false, ..library::FREEBSD };

fn own() -> &'static Library {
    library::HERE.expect("it is known")
}

/// Held by who sleeps on several requests, which with musl can miss an end where two threads do (see [`library::MUSL`]).
fn alone() -> StdMutexGuard<'static, ()> {
    static TURN: StdMutex<()> = StdMutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Held by tests that occupy threads of the C library.
fn busy() -> StdMutexGuard<'static, ()> {
    static TURN: StdMutex<()> = StdMutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn start(library: &'static Library, queue_depth: usize) -> PosixAio {
    narrow(library, queue_depth, library::GLIBC.seats)
}

fn narrow(library: &'static Library, queue_depth: usize, spread: usize) -> PosixAio {
    PosixAio::on(Some(library), Options { queue_depth, spread }).expect("this C library has POSIX AIO")
}

/// Requests at the C library at the most.
fn most(library: &Library) -> usize {
    library.seats * library.depth
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
#[cfg(target_env = "gnu")]
fn readers(pipe: &PipeReader) -> usize {
    namesakes(pipe.as_raw_fd()) - 1
}

cases! {
    write_sync_read errors_are_the_kernels what_cannot_be_served_is_left nothing_starts_before_the_first_request
    thousands_of_requests_each_end_once five_thousand_in_flight_on_one_file control_blocks_are_written_anew
    a_completion_anywhere_is_noticed_at_once no_file_starves_behind_another a_second_engine_is_turned_away
    what_is_appended_never_moves_the_position without_room_a_request_is_left_or_waits
}

fn write_sync_read(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 16), file(b""));
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

fn errors_are_the_kernels(library: &'static Library) {
    let (bench, backend) = (Bench::new(), start(library, 16));
    let write_only = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
    let read = bench.request(OpKind::Read, write_only.as_raw_fd(), Some(0), vec![0; 8]);
    assert_eq!(run(&bench, &backend, read).0, Err(Errno(libc::EBADF)));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let write = bench.request(OpKind::Write, full.as_raw_fd(), Some(0), vec![0; 8]);
    assert_eq!(run(&bench, &backend, write).0, Err(Errno(libc::ENOSPC)));
    // Such a one may be refused by the call that makes it, or end so.
    let (read, pending) = bench.request(OpKind::Read, 1 << 20, Some(0), vec![0; 8]);
    let mut left = bench.submit(&backend, [read]);
    let outcome = match left.refused.pop() {
        Some((_, errno)) => Err(errno),
        None => wait(pending).0,
    };
    assert_eq!((outcome, left.busy.len()), (Err(Errno(libc::EBADF)), 0));
    assert_eq!(held(&backend), 0);
}

fn what_cannot_be_served_is_left(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 16), file(&pattern(64)));
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

fn nothing_starts_before_the_first_request(library: &'static Library) {
    let backend = start(library, 16);
    assert!(backend.shared.lock().thread.is_none());
    backend.shutdown();
    let (bench, file) = (Bench::new(), file(b"x"));
    let (read, _pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 1]);
    let left = bench.submit(&backend, [read]);
    assert_eq!(left.refused.first().map(|(_, errno)| errno.0), Some(libc::ESHUTDOWN));
}

/// A hundred; a fifth of them where each has a thread.
fn thousands_of_requests_each_end_once(library: &'static Library) {
    const BOUND: usize = 1000;
    let count = if library.serial { 100_000 } else { 20_000 };
    let (bench, backend, content) = (Bench::new(), start(library, BOUND), pattern(1 << 16));
    let files = [file(&content), file(&content), file(&content)];
    let (mut sent, mut ended) = (0, 0);
    let mut flying = std::collections::VecDeque::new();
    let mut busy = std::collections::VecDeque::new();
    while ended < count {
        while sent < count && flying.len() < 2 * BOUND {
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
    assert_eq!(duplicates(&backend) >= library.seats / 3, library.serial, "{} duplicates", duplicates(&backend));
}

/// However many are in flight on one file, the C library has few of them, and the reaper sleeps on fewer: neither a
/// completion nor a wait costs more for it.
fn five_thousand_in_flight_on_one_file(library: &'static Library) {
    const COUNT: usize = 5000;
    let _turn = busy();
    let (bench, backend) = (Bench::new(), start(library, COUNT));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (requests, pendings): (Vec<_>, Vec<_>) = (0..COUNT).map(|_| slow(&bench, &pipe)).unzip();
    submit(&bench, &backend, requests);
    let (one_more, _pending) = slow(&bench, &pipe);
    assert_eq!(bench.submit(&backend, [one_more]).busy.len(), 1, "no more than it says");
    for left in (0..COUNT).rev() {
        {
            let state = backend.shared.lock();
            let heads = state.seats.heads().count();
            assert!(heads <= library.seats && state.seats.flights() <= most(library), "with {left} to go");
        }
        release(&mut writer, 1);
        if left % 100 == 0 {
            let ended = || pendings.iter().filter(|pending| pending.peek().is_some()).count();
            while ended() < COUNT - left {
                std::thread::yield_now();
            }
        }
    }
    assert_eq!(duplicates(&backend), if library.serial { library.seats - 1 } else { 0 });
    pendings.into_iter().for_each(|pending| assert_eq!(wait(pending), (Ok(1), vec![7])));
    assert_eq!(held(&backend), 0);
}

/// Whatever was in a control block before, and however often it was used.
fn control_blocks_are_written_anew(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 1000), file(&pattern(4096)));
    for block in backend.shared.lock().seats.blocks() {
        // SAFETY: none is in flight, nobody else looks at them, and they are numbers and pointers all over.
        unsafe { block.address().cast_mut().cast::<u8>().write_bytes(0xa5, size_of::<libc::aiocb>()) };
    }
    for round in 0..4u64 {
        // Twice as many as there are blocks.
        let all = (0..2 * most(library) as u64)
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
fn without_more_descriptors_there_are_fewer_duplicates() {
    let file = file(b"x");
    let fd = file.as_raw_fd();
    let mut files = duplicates::Files::new(3, Some(16));
    let lines: Vec<_> = (0..6).map_while(|_| files.seat(fd)).collect();
    assert_eq!((lines.len(), lines[0], files.duplicates()), (4, fd, 3), "its own, and three more");
    files.unseat(fd, lines[2]);
    assert_eq!(files.seat(fd), Some(lines[2]), "what is free is used again");
    assert!(files.refused.is_none(), "a bound is no refusal");
    let mut files = duplicates::Files::new(100, Some(16));
    let closed = 1 << 20;
    assert_eq!(files.seat(closed), Some(closed));
    assert_eq!((files.seat(closed), files.refused), (None, Some(Errno(libc::EBADF))), "as it is with EMFILE");
    files.refused = None;
    assert_eq!((files.seat(closed), files.refused), (None, None), "asked once");
}

/// The reaper sleeps on what it knows; what comes later must wake it, wherever it completes.
fn a_completion_anywhere_is_noticed_at_once(library: &'static Library) {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(library, 100), file(&pattern(64)));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let mut slow_ones = Vec::new();
    // One seat is left for the file, whose requests come and go while the others do not move.
    for _ in 1..library.seats {
        let (request, pending) = slow(&bench, &pipe);
        submit(&bench, &backend, [request]);
        slow_ones.push(pending);
        for _ in 0..20 {
            let read = bench.request(OpKind::Read, file.as_raw_fd(), Some(8), vec![0; 8]);
            assert_eq!(run(&bench, &backend, read), (Ok(8), pattern(64)[8..16].to_vec()));
        }
    }
    assert!(slow_ones.iter().all(|pending| pending.peek().is_none()));
    release(&mut writer, library.seats - 1);
    slow_ones.into_iter().for_each(|pending| assert_eq!(wait(pending).0, Ok(1)));
}

/// A file whose requests fill every seat shares them with one that comes later.
fn no_file_starves_behind_another(library: &'static Library) {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(library, 1000), file(&pattern(64)));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (requests, pendings): (Vec<_>, Vec<_>) = (0..200).map(|_| slow(&bench, &pipe)).unzip();
    submit(&bench, &backend, requests);
    let (read, pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8]);
    submit(&bench, &backend, [read]);
    assert!(pending.peek().is_none(), "all seats are taken");
    // What the seats have, one by one. If they were filled up again, the file's turn would come after all the others.
    for count in 1..=most(library) {
        release(&mut writer, 1);
        while pendings.iter().filter(|pending| pending.peek().is_some()).count() < count {
            std::thread::yield_now();
        }
    }
    assert_eq!(wait(pending).0, Ok(8));
    assert!(pendings.iter().any(|pending| pending.peek().is_none()), "the others still wait for their bytes");
    release(&mut writer, 200 - most(library));
    pendings.into_iter().for_each(|pending| assert_eq!(wait(pending).0, Ok(1)));
}

fn a_second_engine_is_turned_away(library: &'static Library) {
    let (first, second, backend, file) = (Bench::new(), Bench::new(), start(library, 16), file(&pattern(64)));
    let read = |bench: &Bench| {
        let (read, _pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8]);
        bench.submit(&backend, [read]).refused.first().map(|(_, errno)| errno.0)
    };
    assert_eq!(read(&first), None);
    assert_eq!(read(&second), Some(libc::EOPNOTSUPP), "its ids are the same numbers");
}

/// A write goes to the end, or elsewhere: in no case to the file's position, from where the next ordinary call goes on.
fn what_is_appended_never_moves_the_position(library: &'static Library) {
    let (bench, backend, original) = (Bench::new(), start(library, 16), file(b"0123"));
    let path = format!("/proc/self/fd/{}", original.as_raw_fd());
    let mut appending = std::fs::OpenOptions::new().read(true).append(true).open(path).expect("its own file");
    let fd = appending.as_raw_fd();
    let (write, pending) = bench.request(OpKind::Write, fd, Some(0), b"45".to_vec());
    let left = bench.submit(&backend, [write]);
    if library.appends {
        assert_eq!(wait(pending).0, Ok(2));
    } else {
        assert_eq!(left.refused.first().map(|(_, errno)| errno.0), Some(libc::EOPNOTSUPP));
        std::os::unix::fs::FileExt::write_at(&appending, b"45", 0).expect("room");
    }
    assert_eq!(std::io::Seek::stream_position(&mut appending).expect("it has one"), 0);
    assert_eq!(run(&bench, &backend, bench.request(OpKind::Read, fd, Some(2), vec![0; 8])).1, b"2345\0\0\0\0");
}

fn without_room_a_request_is_left_or_waits(library: &'static Library) {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(library, 16), file(&pattern(64)));
    let read = || bench.request(OpKind::Read, file.as_raw_fd(), Some(8), vec![0; 8]);
    // With nothing there that could end, it is left.
    let (request, _pending) = read();
    abi::no_room::of(1);
    let left = bench.submit(&backend, [request]);
    assert_eq!((left.busy.len(), left.refused.len(), held(&backend)), (1, 0, 0));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (request, first) = slow(&bench, &pipe);
    submit(&bench, &backend, [request]);
    let (request, second) = read();
    abi::no_room::of(1);
    submit(&bench, &backend, [request]);
    // Sent again when the first one ends, or when the reaper was woken for it.
    release(&mut writer, 1);
    assert_eq!(wait(first).0, Ok(1));
    assert_eq!(wait(second), (Ok(8), pattern(64)[8..16].to_vec()));
    assert_eq!(held(&backend), 0);
}

/// Closed as soon as its last request has ended, and given to another file by the next call that opens one. With musl it is
/// not so as another library (see [`library::MUSL`]).
#[cfg(target_env = "musl")]
#[test]
fn a_number_that_is_used_again_stands_for_what_it_is_now() {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), start(own(), 16));
    for round in 0..1000 {
        let (pipe, mut writer) = std::io::pipe().expect("a pipe");
        let (request, pending) = slow(&bench, &pipe);
        submit(&bench, &backend, [request]);
        let block = backend.shared.lock().seats.heads().next().expect("it waits for its byte");
        release(&mut writer, 1);
        // The library says that it is over, which it says a little early. Looked at without a pause, as a reaper may.
        // SAFETY: in flight, or was; it stays in its table.
        unsafe { abi::suspend(&[block]) }.expect("no signal");
        while pending.peek().is_none() {
            let mut done = Vec::new();
            backend.shared.lock().seats.harvest(&mut done);
            reap::finish(&mut done);
        }
        assert_eq!(wait(pending).0, Ok(1));
        backend.forget(pipe.as_raw_fd());
        drop(pipe);
        let file = file(b"");
        let write = bench.request(OpKind::Write, file.as_raw_fd(), Some(100), vec![9; 8]);
        assert_eq!(run(&bench, &backend, write).0, Ok(8));
        assert_eq!(file.metadata().expect("open").len(), 108, "round {round}: written where it was to be");
        backend.forget(file.as_raw_fd());
    }
}
