//! What can be stopped, and what becomes of the rest.

use super::super::abi::{Block, Call, Operation};
use super::*;
use crate::testing::{PATIENCE, one_of_many};

/// Waits until a thread is inside read(2) of this pipe, by whatever descriptor.
fn wait_for_reader(pipe: &PipeReader) {
    let link = |fd: RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let reads = |task: std::fs::DirEntry| {
        let doing = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        let fd = doing.strip_prefix(&format!("{} 0x", libc::SYS_read)).and_then(|rest| rest.split(' ').next());
        let fd = fd.and_then(|fd| RawFd::from_str_radix(fd, 16).ok());
        fd.is_some_and(|fd| link(fd).is_some() && link(fd) == link(pipe.as_raw_fd()))
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !std::fs::read_dir("/proc/self/task").expect("/proc").flatten().any(reads) {
        assert!(std::time::Instant::now() < deadline, "no thread takes it up");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// How many of the pipe's requests are running: those that cannot be cancelled. The others end.
fn cancel_all(backend: &PosixAio, ids: &[RequestId]) -> usize {
    ids.iter().filter(|id| backend.cancel(**id) == CancelOutcome::Running).count()
}

#[test]
fn sixteen_of_one_file_run_and_all_others_can_be_cancelled() {
    let _turn = busy();
    one_of_many("so many run at once", || {
        let (bench, backend) = (Bench::new(), start(1000));
        let (pipe, mut writer) = std::io::pipe().expect("a pipe");
        let (requests, pendings): (Vec<_>, Vec<_>) = (0..100).map(|_| slow(&bench, &pipe)).unzip();
        let ids: Vec<_> = requests.iter().map(Request::id).collect();
        submit(&bench, &backend, requests);
        // Threads need a moment to take up their first request; on a busy machine more than this.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let running = cancel_all(&backend, &ids);
        let ended = pendings.iter().filter(|pending| pending.peek() == Some(Err(Errno(libc::ECANCELED)))).count();
        assert_eq!(ended, 100 - running, "cancelled means complete, with ECANCELED");
        assert_eq!(backend.cancel(ids[99]), CancelOutcome::Unknown, "it is complete");
        release(&mut writer, running);
        let outcomes = pendings.into_iter().map(|pending| wait(pending).0);
        assert_eq!(outcomes.filter(|outcome| *outcome == Ok(1)).count(), running, "what ran has ended with its byte");
        assert_eq!(held(&backend), 0);
        if running == SEATS { Ok(()) } else { Err(format!("{running} of {SEATS}")) }
    });
}

#[test]
fn the_others_of_a_queue_go_on_in_order() {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), narrow(1000, 1));
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
    let (bench, backend, file) = (Bench::new(), narrow(1000, 1), file(&pattern(64)));
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

#[test]
fn cancelling_races_with_the_end() {
    let (bench, backend, file) = (Bench::new(), start(1000), file(&pattern(4096)));
    for _ in 0..300 {
        let all = (0..40).map(|at| bench.request(OpKind::Read, file.as_raw_fd(), Some(at), vec![0; 64]));
        let (requests, pendings): (Vec<_>, Vec<_>) = all.unzip();
        let ids: Vec<_> = requests.iter().map(Request::id).collect();
        submit(&bench, &backend, requests);
        let cancelled: Vec<_> = ids.iter().rev().map(|id| backend.cancel(*id) == CancelOutcome::Cancelled).collect();
        for ((at, pending), cancelled) in pendings.into_iter().enumerate().zip(cancelled.into_iter().rev()) {
            let (outcome, buffer) = wait(pending);
            match outcome {
                Err(Errno(libc::ECANCELED)) => assert!(cancelled, "request {at} was not cancelled"),
                outcome => {
                    assert!(!cancelled, "request {at} was cancelled");
                    assert_eq!((outcome, buffer), (Ok(64), pattern(4096)[at..][..64].to_vec()));
                }
            }
        }
    }
    assert_eq!(held(&backend), 0);
}
