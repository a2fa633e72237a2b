//! Threads that wait for one request each, and sleep on its control block themselves.

#[cfg(target_env = "gnu")]
use super::super::library::GLIBC;
use super::*;

#[cfg(target_env = "gnu")]
const SEATS: usize = GLIBC.seats;
#[cfg(target_env = "gnu")]
const DEPTH: usize = GLIBC.depth;

cases! { what_the_reaper_waits_for_is_left_to_it many_threads_and_the_reaper }

/// A backend whose reaper has nothing to do, and sleeps.
#[cfg(target_env = "gnu")]
fn quiet(bench: &Bench, queue_depth: usize, spread: usize) -> PosixAio {
    let (backend, file) = (narrow(&GLIBC, queue_depth, spread), file(&pattern(64)));
    run(bench, &backend, bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8])).0.expect("readable");
    backend.forget(file.as_raw_fd());
    until(|| phase(&backend) == Phase::Idle);
    backend
}

#[cfg(target_env = "gnu")]
fn phase(backend: &PosixAio) -> Phase {
    backend.shared.lock().phase
}

#[cfg(target_env = "gnu")]
fn until(mut condition: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "it does not happen");
        std::thread::yield_now();
    }
}

/// Submits a request for whose end this thread, or the one that the id goes to, is going to wait.
fn submit_attended(bench: &Bench, backend: &PosixAio, request: Request) -> RequestId {
    let id = request.id();
    let left = bench.submit_attending(backend, Some(id), [request]);
    assert!(left.refused.is_empty() && left.busy.is_empty());
    id
}

#[cfg(target_env = "gnu")]
#[test]
fn the_reaper_is_not_woken_for_what_a_thread_waits_for() {
    let _turn = busy();
    let bench = Bench::new();
    let backend = quiet(&bench, 16, SEATS);
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    for _ in 0..100 {
        let (request, pending) = slow(&bench, &pipe);
        let id = submit_attended(&bench, &backend, request);
        assert_eq!((phase(&backend), pending.peek()), (Phase::Idle, None));
        release(&mut writer, 1);
        assert!(backend.wait_for(id), "it was there, and is over");
        assert_eq!(pending.peek(), Some(Ok(1)), "ended by who has waited");
        assert_eq!((phase(&backend), held(&backend)), (Phase::Idle, 0));
        assert!(!backend.wait_for(id), "it is not there any more");
        assert_eq!(wait(pending), (Ok(1), vec![7]));
    }
}

fn what_the_reaper_waits_for_is_left_to_it(library: &'static Library) {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), start(library, 16));
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (request, pending) = slow(&bench, &pipe);
    let id = request.id();
    submit(&bench, &backend, [request]);
    assert!(!backend.wait_for(id), "others wait for it");
    release(&mut writer, 1);
    assert_eq!(wait(pending).0, Ok(1));
    let (request, pending) = slow(&bench, &pipe);
    let id = submit_attended(&bench, &backend, request);
    release(&mut writer, 1);
    if !library.attends {
        assert!(!backend.wait_for(id), "no thread can wait for one");
    }
    backend.wait_for(id);
    assert_eq!(wait(pending).0, Ok(1));
}

/// One descriptor: what is before it and behind it in the queue is everybody's.
#[cfg(target_env = "gnu")]
#[test]
fn others_in_its_queue_end_in_order() {
    let _turn = busy();
    let bench = Bench::new();
    let backend = quiet(&bench, 100, 1);
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    for attended in 0..2 * DEPTH {
        let (requests, pendings): (Vec<_>, Vec<_>) = (0..2 * DEPTH).map(|_| slow(&bench, &pipe)).unzip();
        let mut id = None;
        for (at, request) in requests.into_iter().enumerate() {
            if at == attended {
                id = Some(submit_attended(&bench, &backend, request));
            } else {
                submit(&bench, &backend, [request]);
            }
        }
        let bytes: Vec<u8> = (0..2 * DEPTH as u8).collect();
        writer.write_all(&bytes).expect("room in the pipe");
        backend.wait_for(id.expect("one is"));
        for (at, pending) in pendings.into_iter().enumerate() {
            assert_eq!(wait(pending), (Ok(1), vec![at as u8]), "request {at}, with {attended} waited for");
        }
        assert_eq!(held(&backend), 0);
    }
}

/// A thread sleeps on the block of a request that is cancelled, or taken back and sent again with another one.
#[cfg(target_env = "gnu")]
#[test]
fn cancelled_under_a_thread_that_waits() {
    let _turn = busy();
    let bench = Bench::new();
    let backend = quiet(&bench, 100, 1);
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    for cancelled in [1, 2] {
        let (requests, mut pendings): (Vec<_>, Vec<_>) = (0..3).map(|_| slow(&bench, &pipe)).unzip();
        let ids: Vec<_> = requests.iter().map(Request::id).collect();
        // All are queued at the C library: while the reaper sleeps on a request of the descriptor, nothing is added to its queue.
        let mut requests = requests.into_iter();
        let first = submit_attended(&bench, &backend, requests.next().expect("three"));
        let id = submit_attended(&bench, &backend, requests.next().expect("three"));
        submit(&bench, &backend, requests);
        std::thread::scope(|scope| {
            let backend = &backend;
            let waits = scope.spawn(move || backend.wait_for(id));
            until(|| backend.shared.lock().seats.is_watched());
            assert_eq!(backend.cancel(ids[cancelled]), CancelOutcome::Cancelled);
            let (outcome, _) = wait(pendings.remove(cancelled));
            assert_eq!(outcome, Err(Errno(libc::ECANCELED)));
            release(&mut writer, 2);
            backend.wait_for(first);
            assert!(waits.join().expect("no panic"), "it has slept");
        });
        pendings.into_iter().for_each(|pending| assert_eq!(wait(pending).0, Ok(1)));
        let state = backend.shared.lock();
        assert!(state.seats.held() == 0 && !state.seats.is_watched());
    }
}

/// Nobody loses a block: many threads wait for theirs, while the reaper ends others'.
fn many_threads_and_the_reaper(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 1000), file(&pattern(4096)));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (bench, backend, fd) = (&bench, &backend, file.as_raw_fd());
            scope.spawn(move || {
                for round in 0..500u64 {
                    let at = (thread * 500 + round) % 4000;
                    let want = (Ok(8), pattern(4096)[at as usize..][..8].to_vec());
                    let (request, pending) = bench.request(OpKind::Read, fd, Some(at), vec![0; 8]);
                    let id = submit_attended(bench, backend, request);
                    let (other, also) = bench.request(OpKind::Read, fd, Some(at), vec![0; 8]);
                    submit(bench, backend, [other]);
                    if round % 3 == 0 {
                        backend.cancel(RequestId::from_u64(u64::MAX));
                    }
                    backend.wait_for(id);
                    assert_eq!((wait(pending), wait(also)), (want.clone(), want));
                }
            });
        }
    });
    let state = backend.shared.lock();
    assert!(state.seats.held() == 0 && !state.seats.is_watched());
}
