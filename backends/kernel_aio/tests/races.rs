//! Threads, signals, forks and endings.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

/// Ends the loops of other threads, also where this one fails: they would be waited for.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn stamped_events_with_one_submitter_and_one_reaper() {
    const ROUNDS: usize = 1_000;
    // Each 8 bytes of the file say where they are.
    let content: Vec<u8> = (0..1_u64 << 14).flat_map(u64::to_le_bytes).collect();
    let buffered = file(&content);
    for user_ring in [true, false] {
        let bench = Bench::new();
        let Some(backend) = start(24, user_ring) else { return };
        let (bench, backend, done) = (&bench, &backend, &AtomicBool::new(false));
        thread::scope(|scope| {
            let reaper = scope.spawn(move || {
                let (mut known, mut unknown) = (0, 0);
                while !done.load(Ordering::Acquire) || backend.in_flight.count() > 0 {
                    // Looks and waits take turns, so that both of a ring's readers move the head.
                    let min = known % 2;
                    let wait = Wait { min, max: 7, timeout: Some(Duration::from_millis(1)) };
                    if backend.ready() || min == 1 {
                        let reaped = bench.reap(backend, wait);
                        known += reaped.0;
                        unknown += reaped.1;
                    }
                }
                (known, unknown)
            });
            let end = SetAtEnd(done);
            let mut stamp = 0;
            for _ in 0..ROUNDS {
                let (mut requests, mut pendings) = (Vec::new(), Vec::new());
                for _ in 0..10 {
                    stamp = (stamp + 7919) % (1 << 14);
                    let read = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(stamp * 8), vec![0; 8]);
                    requests.push(read.0);
                    pendings.push((stamp, read.1));
                }
                while !requests.is_empty() {
                    let left = bench.submit(backend, requests);
                    assert!(left.refused.is_empty());
                    assert!(backend.in_flight.count() <= 24);
                    requests = left.busy.into();
                }
                for (stamp, pending) in pendings {
                    assert_eq!(pending.finish(thread::yield_now), (Ok(8), stamp.to_le_bytes().to_vec()));
                }
            }
            drop(end);
            assert_eq!(reaper.join().expect("the reaper"), (ROUNDS * 10, 0), "each once, and no stranger");
        });
        assert_eq!(backend.in_flight.count(), 0);
    }
}

#[test]
fn several_submitters_never_exceed_the_bound() {
    let buffered = file(&pattern(4096));
    for user_ring in [true, false] {
        let bench = Bench::new();
        let Some(backend) = start(16, user_ring) else { return };
        let (bench, backend, buffered) = (&bench, &backend, &buffered);
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    for round in 0..300 {
                        let (requests, pendings): (Vec<_>, Vec<_>) = (0..8)
                            .map(|at| {
                                bench.request(
                                    OpKind::Read,
                                    buffered.as_raw_fd(),
                                    Some(at + thread),
                                    vec![0; 1 + round % 9],
                                )
                            })
                            .unzip();
                        let mut requests: Vec<_> = requests;
                        while !requests.is_empty() {
                            requests = bench.submit(backend, requests).busy.into();
                            assert!(backend.in_flight.count() <= 16);
                            // Two reapers at once: one of them gets nothing, and neither gets it twice.
                            assert_eq!(bench.reap(backend, Wait::poll(5)).1, 0);
                        }
                        for pending in pendings {
                            let (outcome, _) = pending.finish(|| assert_eq!(bench.reap(backend, Wait::poll(5)).1, 0));
                            assert_eq!(outcome, Ok(1 + round as u64 % 9));
                        }
                    }
                });
            }
        });
        assert_eq!(backend.in_flight.count(), 0);
    }
}

#[test]
fn a_sleeper_holds_nobody_back() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| bench.reap(backend, Wait { min: 1, max: 8, timeout: Some(PATIENCE) }).0);
            thread::sleep(Duration::from_millis(50));
            let begin = Instant::now();
            assert!(!backend.ready());
            assert_eq!(poll(bench, backend), 0, "the sleeper is the reader");
            let (read, pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
            bench.submit(backend, [read]);
            assert_eq!(pending.finish(thread::yield_now).0, Ok(8));
            assert_eq!(sleeper.join().expect("the sleeper"), 1);
            assert!(begin.elapsed() < PATIENCE, "a completion ends the sleep");
        });
    });
}

#[test]
fn a_storm_of_signals_loses_nothing_and_ends_nothing() {
    extern "C" fn nothing(_: libc::c_int) {}
    let signal = libc::SIGRTMIN() + 5;
    // SAFETY: a handler that does nothing; without `SA_RESTART`, which `io_getevents` ignores anyway.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let (awake, timeout) = (&AtomicBool::new(false), Duration::from_millis(200));
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let sleeper = scope.spawn(move || {
                // A number or a pointer, by the C library.
                // SAFETY: takes nothing.
                tell.send(unsafe { libc::pthread_self() } as usize).expect("the test listens");
                let begin = Instant::now();
                let nothing = bench.reap(backend, Wait { min: 1, max: 8, timeout: Some(timeout) }).0;
                let slept = begin.elapsed();
                awake.store(true, Ordering::Release);
                // Three completions, one after the other: a signal between two of them must not end the wait.
                let three = bench.reap(backend, Wait { min: 3, max: 8, timeout: Some(PATIENCE) }).0;
                (nothing, slept, three)
            });
            let thread = told.recv().expect("the sleeper's name");
            let mut pendings = Vec::new();
            let mut signals = 0_u32;
            while !sleeper.is_finished() {
                // SAFETY: the thread is not joined yet, so that its handle is valid.
                unsafe { libc::pthread_kill(thread as libc::pthread_t, signal) };
                signals += 1;
                if signals.is_multiple_of(100) && awake.load(Ordering::Acquire) && pendings.len() < 3 {
                    let (read, pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
                    bench.submit(backend, [read]);
                    pendings.push(pending);
                }
                thread::sleep(Duration::from_micros(20));
            }
            let (nothing, slept, three) = sleeper.join().expect("the sleeper");
            println!("{signals} signals");
            assert!(nothing == 0 && slept >= timeout && slept < PATIENCE, "{nothing} in {slept:?}");
            assert_eq!(three, 3);
        });
    });
}

#[test]
fn shut_down_while_others_look() {
    for _ in 0..8 {
        for user_ring in [true, false] {
            let buffered = file(&pattern(64));
            let bench = Bench::new();
            let Some(backend) = start(16, user_ring) else { return };
            let backend = Arc::new(backend);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..2 {
                    let (backend, bench, stop) = (backend.clone(), &bench, &stop);
                    scope.spawn(move || {
                        while !stop.load(Ordering::Acquire) {
                            backend.ready();
                            bench.reap(&*backend, Wait { min: 1, max: 8, timeout: Some(Duration::from_micros(10)) });
                        }
                    });
                }
                let _stop = SetAtEnd(&stop);
                let (read, pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
                bench.submit(&*backend, [read]);
                assert_eq!(pending.finish(thread::yield_now).0, Ok(8));
                let context = backend.with_live(|live| live.context.witness()).expect("not shut down");
                backend.shutdown();
                // Freed by this thread, or by a reaper when it leaves.
                let deadline = Instant::now() + PATIENCE;
                while context.strong_count() > 0 {
                    assert!(Instant::now() < deadline, "the context is not freed");
                    thread::yield_now();
                }
                let (read, _pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
                assert_eq!(bench.submit(&*backend, [read]).refused[0].1, Errno(libc::ESHUTDOWN));
            });
        }
    }
}

#[test]
fn dropped_with_requests_in_flight() {
    let Some(file) = direct_file(&pattern(1 << 20)) else { return };
    for (user_ring, shutdown) in [(true, false), (false, true)] {
        let bench = Bench::new();
        let Some(backend) = start(16, user_ring) else { return };
        let (mut requests, mut pendings) = (Vec::new(), Vec::new());
        for _ in 0..16 {
            let (request, pending, _) = aligned(&bench, OpKind::Read, file.as_raw_fd(), 0, &[0; 1 << 20]);
            requests.push(request);
            pendings.push(pending);
        }
        assert!(bench.submit(&backend, requests).busy.is_empty());
        if shutdown {
            backend.shutdown();
            assert!(backend.with_live(|_| ()).is_some(), "a context with requests in flight stays");
        }
        drop(backend);
        // Nobody ends them any more; their slots, and with them their memory, stay for the device to write into.
        assert!(pendings.iter().all(|pending| pending.peek().is_none()));
        drop(pendings);
        drop(bench);
    }
    // The device is done with what was leaked before this test's process ends.
    thread::sleep(Duration::from_millis(100));
}

/// In a child of fork the context is not there, and what is left of it is the parent's.
#[test]
fn dropped_in_a_child_of_fork() {
    let buffered = file(&pattern(64));
    for in_flight in [0, 5] {
        each_mode(16, |bench, backend| {
            let reads = (0..in_flight).map(|_| bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]));
            let (requests, pendings): (Vec<_>, Vec<_>) = reads.unzip();
            assert!(bench.submit(backend, requests).busy.is_empty());
            // SAFETY: the child frees memory and ends; glibc's allocator allows that after a fork with threads.
            let child = unsafe { libc::fork() };
            if child == 0 {
                backend.shutdown();
                // SAFETY: the child's copy is used by nobody else in the child, which ends with this.
                unsafe {
                    drop(std::ptr::read(backend));
                    libc::_exit(7);
                }
            }
            let mut status = 0;
            // SAFETY: `status` lives across the call.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "the child's status is {status:#x}");
            assert_eq!(poll(bench, backend), in_flight, "the parent gets every event");
            for pending in pendings {
                assert_eq!(pending.finish(|| ()).0, Ok(8));
            }
        });
    }
}
