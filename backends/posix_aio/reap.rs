//! The thread that sleeps for the requests at the C library, and ends them.
//!
//! It starts with the first request. A completion wakes it at once, wherever it happens: the sleep is on the first request
//! of every seat (`suspend.rs`), and costs the same for ten requests and for ten thousand, since those beyond the seats
//! wait here. It completes requests itself, with no lock held and everything of the backend's own in order.

#![allow(unsafe_code)]

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::abi::suspend;
use super::seats::Leaving;
use super::suspend::{List, Phase};
use super::{Shared, State, probe};
use crate::backends::THREAD_PREFIX;
use crate::completion::{Answer, Errno, Outcome};
use crate::request::{Request, RequestId, complete_all, contain};
use crate::sync::MutexGuard;

/// Starts the thread if there is none. `false`: none can be had.
pub(super) fn ensure_started(shared: &Arc<Shared>, state: &mut State) -> bool {
    if state.thread.is_some() {
        return true;
    }
    probe::size_once();
    let mine = shared.clone();
    let started = std::thread::Builder::new().name(format!("{THREAD_PREFIX}posix")).spawn(move || run(&mine));
    state.thread = started.ok();
    if state.thread.is_some() {
        probe::note_use();
    }
    state.thread.is_some()
}

/// Ends the thread once it has nothing left to do, and waits for that; not on itself.
pub(super) fn stop(shared: &Shared) {
    let thread: Option<JoinHandle<()>> = {
        let mut state = shared.lock();
        state.closing = true;
        state.wake(shared);
        state.thread.take()
    };
    if let Some(thread) = thread
        && thread.thread().id() != std::thread::current().id()
    {
        // Its panics were printed; it contains those of others.
        let _ = thread.join();
    }
}

fn run(shared: &Shared) {
    let mut done = Vec::with_capacity(shared.limits.blocks);
    let (mut leaving, mut list) = (Leaving::default(), List::new(&shared.lock().bell, shared.limits.seats));
    while collect(shared, &mut done, &mut leaving, &mut list) {
        finish(&mut done);
        leaving.settle();
    }
}

impl Leaving {
    /// Ends them, not under the lock.
    fn settle(&mut self) {
        for request in self.stranded.drain(..) {
            // It was taken and cannot be left any more. "Not here" sends it to the next backend.
            contain(|| request.complete(Err(Errno(libc::ENOSYS))));
        }
        for (request, errno) in self.refused.drain(..) {
            contain(|| request.complete(Err(errno)));
        }
        for request in self.abandoned.drain(..) {
            contain(|| drop(request));
        }
    }
}

/// Ends requests. Not under the lock: wakers run in here.
pub(super) fn finish(done: &mut Vec<(Request, Answer)>) {
    contain(|| complete_all(done));
}

/// Sleeps until there is something to end. `false`: there will never be anything.
fn collect(shared: &Shared, done: &mut Vec<(Request, Answer)>, leaving: &mut Leaving, list: &mut List) -> bool {
    let mut state = shared.lock();
    loop {
        state.wake_up();
        state.seats.harvest(done);
        state.fill(leaving);
        if !done.is_empty() || !leaving.is_empty() {
            return true;
        }
        if state.is_idle() {
            let State { seats, bell, closing, .. } = &mut *state;
            bell.take_down(seats);
            if *closing {
                return false;
            }
            state = idle(shared, state);
            continue;
        }
        let State { seats, bell, .. } = &mut *state;
        list.make(seats, bell);
        state.fall_asleep();
        drop(state);
        list.sleep();
        state = shared.lock();
    }
}

/// [`Backend::wait_for`](crate::backend::Backend::wait_for): sleeps on the control block of one request, and ends it. The
/// reaper is not woken on the way: that would be one thread more between the end and who waits for it.
///
/// A cancelled request ends the sleep as any other end does, and nothing else has to: so that there is no bell. (One that is
/// sent again, because it was taken back with another, has a new block.)
pub(super) fn wait_for(shared: &Shared, id: RequestId) -> bool {
    let mut slept = false;
    let mut state = shared.lock();
    while let Some(block) = state.seats.watch(id) {
        let address = state.seats.address(block);
        drop(state);
        // SAFETY: the block stays where it is, and is in flight, or was until it was ended by somebody else: then it stays
        // untouched as long as it is watched. A signal is no harm: we look, and come back.
        let _ = unsafe { suspend(&[address]) };
        slept = true;
        state = shared.lock();
        state.seats.unwatch(block);
        let (mut done, mut leaving) = (Vec::new(), Leaving::default());
        let own = state.end_one(shared, id, &mut done, &mut leaving);
        if own.is_some() || !done.is_empty() || !leaving.is_empty() {
            drop(state);
            // First our own, which calls nothing foreign.
            if let Some((request, outcome)) = own {
                contain(|| request.complete(outcome));
            }
            finish(&mut done);
            leaving.settle();
            return true;
        }
    }
    slept
}

impl State {
    /// For a thread that waits for one request: takes it, if it is over, and goes on with what waits for its room.
    fn end_one(
        &mut self,
        shared: &Shared,
        id: RequestId,
        done: &mut Vec<(Request, Answer)>,
        leaving: &mut Leaving,
    ) -> Option<(Request, Outcome)> {
        self.bell.settle(&mut self.seats);
        let own = self.seats.harvest_one(id, done);
        if own.is_some() || !done.is_empty() {
            self.fill(leaving);
            if self.closing && self.is_idle() {
                self.wake(shared);
            }
            self.alert(shared);
        }
        own
    }
}

fn idle<'a>(shared: &'a Shared, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    state.phase = Phase::Idle;
    while state.phase == Phase::Idle {
        state = shared.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state
}
