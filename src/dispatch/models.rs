//! What loom checks of the queue before a backend: every request is submitted once, by somebody, in order, whoever is full,
//! refuses, races or leaves.
//!
//! Run with `RUSTFLAGS="--cfg polyaio_loom" cargo test --release --lib loom`. The queue is the engine's own
//! (`pending.rs`); requests are numbers, and the backend has so much room. What nobody would ever submit shows at the end:
//! everything that the backend has is completed then, and nothing may wait any more.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::Mutex as Plain;

use loom::thread;

use super::inbox::Links;
use super::pending::{Pending, Scratch, Submit};
use crate::completion::Errno;
use crate::slot::Below;
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicUsize, Ordering};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Three switches at points where none is forced find what is known to go wrong here.
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(f);
}

/// A lane whose backend has room for a few requests.
struct Lane {
    pending: Pending<usize>,
    room: AtomicUsize,
    /// One that the backend cannot serve.
    unsupported: Option<usize>,
    links: Places,
    /// What happened. No model explores these locks: they are held for a moment, in which nobody switches.
    log: Plain<Log>,
}

/// Where requests are while they are in the inbox: in a place of their own, as in a slot. Loom notices if somebody looks into
/// it who does not have it.
#[derive(Default)]
struct Places([Place; 5]);

struct Place {
    below: Below,
    request: UnsafeCell<usize>,
}

impl Default for Place {
    fn default() -> Self {
        Self { below: Below::new(), request: UnsafeCell::new(0) }
    }
}

// SAFETY: that one thread at a time uses a place is what is explored.
unsafe impl Sync for Places {}

impl Links<usize> for Places {
    fn give_up(&self, request: usize) -> (u32, &Below) {
        // The last is for the request of `Lane::finish`.
        let at = request.min(self.0.len() - 1);
        let place = &self.0[at];
        // SAFETY: as above.
        place.request.with_mut(|place| unsafe { *place = request });
        (at as u32, &place.below)
    }

    unsafe fn take_back(&self, number: u32) -> (usize, &Below) {
        let place = &self.0[number as usize];
        // SAFETY: as above. Written, for it is the taker's now.
        (place.request.with_mut(|place| unsafe { std::mem::replace(&mut *place, usize::MAX) }), &place.below)
    }
}

#[derive(Default)]
struct Log {
    /// In the order in which the backend took them.
    taken: Vec<usize>,
    /// Those that it has now.
    running: Vec<usize>,
    /// What was ended without it.
    refused: Vec<(usize, i32)>,
    submitting: bool,
}

impl Lane {
    fn new(room: usize) -> Arc<Self> {
        Self::refusing(room, None)
    }

    fn refusing(room: usize, unsupported: Option<usize>) -> Arc<Self> {
        let (pending, room, links) = (Pending::default(), AtomicUsize::new(room), Places::default());
        Arc::new(Self { pending, room, unsupported, links, log: Plain::default() })
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("nobody panics inside")
    }

    fn flush(&self) {
        while self.pending.flush(&self.links, self) {}
    }

    fn push(&self, request: usize) {
        self.pending.push(request, &self.links);
    }

    /// As an operation does that is polled.
    fn send(&self, request: usize) {
        self.push(request);
        self.flush();
    }

    /// Ends the request that the backend has had for longest. `false`: it has none.
    fn complete(&self) -> bool {
        let mut log = self.log();
        if log.running.is_empty() {
            return false;
        }
        log.running.remove(0);
        drop(log);
        self.room.fetch_add(1, Ordering::AcqRel);
        if self.pending.left(1) {
            self.flush();
        }
        true
    }

    /// Completes all that is submitted, and then some: what is left waiting nobody would ever submit.
    fn finish(&self) -> std::sync::MutexGuard<'_, Log> {
        while self.complete() {}
        assert_eq!(self.pending.waiting(), 0, "a request waits for ever");
        assert_eq!(self.pending.in_flight(), 0);
        assert!(self.pending.is_empty(), "somebody was not counted out");
        // Neither stalled nor flushing: what comes now goes out.
        let before = self.log().taken.len();
        self.send(99);
        assert_eq!(self.log().taken.len(), before + 1, "the queue takes nothing any more");
        assert!(self.complete());
        let mut log = self.log();
        log.taken.pop();
        log
    }
}

impl Submit<usize> for Lane {
    type Held = ();

    fn begin(&self, scratch: &Scratch<usize>) {
        assert!(!scratch.batch.is_empty());
    }

    fn isolates(&self, _request: &usize) -> bool {
        false
    }

    fn mark(&self, _request: &mut usize, _counted: bool) {}

    fn submit(&self, scratch: &mut Scratch<usize>) {
        assert!(!std::mem::replace(&mut self.log().submitting, true), "two threads submit");
        while let Some(&request) = scratch.batch.front() {
            if self.unsupported == Some(request) {
                scratch.batch.pop_front();
                scratch.refused.push((request, Errno(libc::EINVAL)));
                continue;
            }
            // One thread submits, and others only make room.
            if self.room.load(Ordering::Acquire) == 0 {
                break;
            }
            self.room.fetch_sub(1, Ordering::AcqRel);
            scratch.batch.pop_front();
            let mut log = self.log();
            log.taken.push(request);
            log.running.push(request);
        }
        self.log().submitting = false;
    }

    fn was_busy(&self) {}

    fn end(&self, request: usize, Errno(errno): Errno) {
        self.log().refused.push((request, errno));
        if errno != libc::EAGAIN && self.pending.left(1) {
            self.flush();
        }
    }
}

fn start(lane: &Arc<Lane>, f: impl FnOnce(&Lane) + 'static) -> thread::JoinHandle<()> {
    let lane = lane.clone();
    thread::spawn(move || f(&lane))
}

/// Two threads send: the one that finds the other submitting leaves its request to it.
#[test]
fn loom_what_is_queued_beside_a_flush_is_submitted() {
    model(|| {
        let lane = Lane::new(4);
        let other = start(&lane, |lane| {
            lane.send(1);
            lane.send(2);
        });
        lane.send(3);
        other.join().expect("no panic");
        assert_eq!(lane.log().taken.len(), 3, "a request waits although there was room");
        let log = lane.finish();
        let place = |request| log.taken.iter().position(|taken| *taken == request).expect("it was submitted");
        assert!(place(1) < place(2), "order: {:?}", log.taken);
    });
}

/// The backend is full, and what it has completes meanwhile: before, between, or after the queue says that it waits for that.
#[test]
fn loom_a_stalled_queue_is_offered_again() {
    model(|| {
        let lane = Lane::new(1);
        lane.send(0);
        let worker = start(&lane, |lane| assert!(lane.complete()));
        lane.send(1);
        lane.send(2);
        worker.join().expect("no panic");
        let log = lane.finish();
        assert_eq!(log.taken, [0, 1, 2]);
        assert_eq!(log.refused, [], "there was always something in flight, or room");
    });
}

/// Two requests complete at once, on two threads, while a third is sent: one of them, or the sender, sends it off.
#[test]
fn loom_two_completions_against_a_full_backend() {
    model(|| {
        let lane = Lane::new(2);
        lane.send(0);
        lane.send(1);
        let workers = [(); 2].map(|()| start(&lane, |lane| assert!(lane.complete())));
        lane.send(2);
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        let log = lane.finish();
        assert_eq!(log.taken, [0, 1, 2]);
        assert_eq!(log.refused, []);
    });
}

/// Who was cancelled takes its request out, or it was submitted; the one behind it goes out in either case.
#[test]
fn loom_a_withdrawn_request_holds_nothing_up() {
    model(|| {
        let lane = Lane::new(1);
        lane.send(0);
        let worker = start(&lane, |lane| assert!(lane.complete()));
        let canceller = start(&lane, |lane| {
            let withdrawn = lane.pending.withdraw(&lane.links, |request| *request == 1);
            lane.flush();
            lane.log().refused.extend(withdrawn.map(|request| (request, libc::ECANCELED)));
        });
        lane.push(1);
        lane.push(2);
        lane.flush();
        worker.join().expect("no panic");
        canceller.join().expect("no panic");
        let log = lane.finish();
        match log.refused[..] {
            [] => assert_eq!(log.taken, [0, 1, 2]),
            [(1, libc::ECANCELED)] => assert_eq!(log.taken, [0, 2]),
            ref refused => panic!("{refused:?}"),
        }
    });
}

/// A refusal makes no room, and is no reason to wait for room either.
#[test]
fn loom_a_refused_request_holds_nothing_up() {
    model(|| {
        let lane = Lane::refusing(1, Some(1));
        lane.send(0);
        let worker = start(&lane, |lane| assert!(lane.complete()));
        lane.push(1);
        lane.push(2);
        lane.flush();
        worker.join().expect("no panic");
        let log = lane.finish();
        assert_eq!(log.taken, [0, 2]);
        assert_eq!(log.refused, [(1, libc::EINVAL)]);
    });
}

/// A backend without room and without requests: the first goes elsewhere, and nothing waits for ever.
#[test]
fn loom_a_backend_that_never_has_room_holds_nothing() {
    model(|| {
        let lane = Lane::new(0);
        let other = start(&lane, |lane| lane.send(1));
        lane.send(2);
        other.join().expect("no panic");
        let mut log = lane.log();
        log.refused.sort_unstable();
        assert_eq!(log.refused, [(1, libc::EAGAIN), (2, libc::EAGAIN)]);
        assert_eq!(lane.pending.waiting(), 0);
        assert!(lane.pending.is_empty());
    });
}

/// While a request moves to the backend and back, nobody may take the lane for empty: who did would sleep where nobody wakes
/// it.
#[test]
fn loom_a_request_on_its_way_is_always_seen() {
    model(|| {
        let lane = Lane::new(1);
        lane.send(0);
        lane.push(1);
        let worker = start(&lane, |lane| assert!(lane.complete()));
        let flusher = start(&lane, Lane::flush);
        assert!(!lane.pending.is_empty(), "a request was overlooked");
        worker.join().expect("no panic");
        flusher.join().expect("no panic");
        assert_eq!(lane.finish().taken, [0, 1]);
    });
}

/// The same of one that another thread puts into the inbox, of which whoever flushes takes it, before the backend has it, or
/// gives it back.
#[test]
fn loom_a_request_on_its_way_in_is_always_seen() {
    model(|| {
        let lane = Lane::new(1);
        lane.push(0);
        let sender = start(&lane, |lane| {
            lane.push(1);
            assert!(!lane.pending.is_empty(), "its own request was overlooked");
            lane.flush();
        });
        let flusher = start(&lane, Lane::flush);
        assert!(!lane.pending.is_empty(), "a request was overlooked");
        sender.join().expect("no panic");
        flusher.join().expect("no panic");
        let log = lane.finish();
        assert_eq!(log.taken, [0, 1]);
        assert_eq!(log.refused, []);
    });
}

/// A look that follows another one, which has found the lane not to be empty, finds the request, too, wherever it is: its
/// end comes after it.
#[test]
fn loom_a_request_is_seen_until_its_end() {
    model(|| {
        let lane = Lane::new(2);
        lane.push(0);
        let over = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (lane, over) = (lane.clone(), over.clone());
            thread::spawn(move || {
                lane.flush();
                over.store(1, Ordering::Release);
                // The sender may be about to submit it, or have submitted the other one before.
                lane.complete();
            })
        };
        let sender = start(&lane, |lane| lane.send(1));
        let seen = !lane.pending.is_empty();
        assert!(seen || over.load(Ordering::Acquire) == 1, "a request was overlooked");
        worker.join().expect("no panic");
        sender.join().expect("no panic");
        drop(lane.finish());
    });
}

/// One thread gathers and submits, another one gathers and withdraws, while a third queues two: all that is left is submitted,
/// in order.
#[test]
fn loom_a_push_beside_who_gathers_is_submitted() {
    model(|| {
        let lane = Lane::new(4);
        lane.push(0);
        let sender = start(&lane, |lane| {
            lane.push(1);
            lane.send(2);
        });
        let canceller = start(&lane, |lane| {
            let withdrawn = lane.pending.withdraw(&lane.links, |request| *request == 0);
            lane.log().refused.extend(withdrawn.map(|request| (request, libc::ECANCELED)));
        });
        lane.flush();
        sender.join().expect("no panic");
        canceller.join().expect("no panic");
        let log = lane.finish();
        match log.refused[..] {
            [] => assert_eq!(log.taken, [0, 1, 2]),
            [(0, libc::ECANCELED)] => assert_eq!(log.taken, [1, 2]),
            ref refused => panic!("{refused:?}"),
        }
    });
}

/// Several come while one waits from before that the backend had no room for: it goes first, and they follow as they came.
#[test]
fn loom_what_comes_behind_a_stalled_queue_keeps_its_order() {
    model(|| {
        let lane = Lane::new(1);
        lane.send(0);
        lane.send(1);
        let worker = start(&lane, |lane| assert!(lane.complete()));
        lane.push(2);
        lane.push(3);
        lane.flush();
        worker.join().expect("no panic");
        let log = lane.finish();
        assert_eq!(log.taken, [0, 1, 2, 3]);
        assert_eq!(log.refused, []);
    });
}
