//! What is so only where a descriptor's requests run in their order, which is with glibc.

use super::super::abi::{Block, Call, Operation};
use super::super::library::GLIBC;
use super::cancelling::wait_for_reader;
use super::*;
use crate::testing::one_of_many;

const SEATS: usize = GLIBC.seats;
const DEPTH: usize = GLIBC.depth;

#[test]
fn duplicates_grow_with_the_depth_that_is_used() {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), start(&GLIBC, 100), file(&pattern(64)));
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

/// One descriptor, whose queue takes nothing while the reaper sleeps: what waits here goes on all the same, in order.
#[test]
fn a_single_descriptor_keeps_its_order() {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), narrow(&GLIBC, 1000, 1));
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
fn the_others_of_a_queue_go_on_in_order() {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), narrow(&GLIBC, 1000, 1));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (requests, pendings): (Vec<_>, Vec<_>) = (0..2 * DEPTH).map(|_| slow(&bench, &pipe)).unzip();
    let ids: Vec<_> = requests.iter().map(Request::id).collect();
    submit(&bench, &backend, requests);
    // Until a thread of the C library's has taken up the first one.
    wait_for_reader(&pipe);
    assert_eq!(backend.cancel(ids[0]), CancelOutcome::Running);
    // One that is queued at the C library, and one that waits here.
    for id in [ids[1], ids[DEPTH + 1]] {
        assert_eq!(backend.cancel(id), CancelOutcome::Cancelled);
        assert_eq!(backend.cancel(id), CancelOutcome::Unknown, "only once");
    }
    let bytes: Vec<u8> = (0..2 * DEPTH as u8 - 2).collect();
    writer.write_all(&bytes).expect("room in the pipe");
    let mut next = 0;
    for (at, pending) in pendings.into_iter().enumerate() {
        let (outcome, buffer) = wait(pending);
        if at == 1 || at == DEPTH + 1 {
            assert_eq!((outcome, buffer), (Err(Errno(libc::ECANCELED)), vec![0]), "it has done nothing");
        } else {
            assert_eq!((outcome, buffer), (Ok(1), vec![next]), "request {at}");
            next += 1;
        }
    }
    assert_eq!(held(&backend), 0);
}

/// glibc loses what is queued behind a request that is cancelled while it waits for a thread.
#[test]
fn nothing_is_lost_where_no_thread_is_free() {
    let _turn = busy();
    let (bench, backend, file) = (Bench::new(), narrow(&GLIBC, 1000, 1), file(&pattern(64)));
    // A reaper, and so the process's first use, before the C library's threads are all taken.
    run(&bench, &backend, bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8])).0.expect("readable");
    one_of_many("no thread is free", || {
        let mut pipes: Vec<_> = (0..40).map(|_| std::io::pipe().expect("a pipe")).collect();
        let blocks: Vec<_> = (0..pipes.len()).map(|_| Block::new()).collect();
        let mut bytes = vec![0u8; pipes.len()];
        for (((reader, _), block), byte) in pipes.iter().zip(&blocks).zip(&mut bytes) {
            let operation = Operation { call: Call::Read, fd: reader.as_raw_fd(), offset: 0, memory: byte, length: 1 };
            // SAFETY: block, byte and pipe stay in their places until all are over, which is waited for below.
            unsafe { block.send(&operation) }.expect("room");
        }
        // Each thread takes up one of them: idle ones need a moment, and others are started one by one; on a busy machine
        // more than this.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let all = (0..DEPTH).map(|at| bench.request(OpKind::Read, file.as_raw_fd(), Some(at as u64), vec![0; 8]));
        let (requests, mut pendings): (Vec<_>, Vec<_>) = all.unzip();
        let first = requests[0].id();
        submit(&bench, &backend, requests);
        let outcome = backend.cancel(first);
        let ended = wait(pendings.remove(0));
        for (block, (_, writer)) in blocks.iter().zip(&mut pipes) {
            release(writer, 1);
            // SAFETY: in flight, and nobody else collects it.
            while unsafe { block.collect() }.is_none() {
                std::thread::yield_now();
            }
        }
        for (at, pending) in (1..DEPTH).zip(pendings) {
            assert_eq!(wait(pending), (Ok(8), pattern(64)[at..at + 8].to_vec()), "request {at}");
        }
        if outcome != CancelOutcome::Cancelled {
            return Err(format!("one was: {outcome:?}"));
        }
        assert_eq!(ended, (Err(Errno(libc::ECANCELED)), vec![0; 8]));
        Ok(())
    });
}
