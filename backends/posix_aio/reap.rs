//! The thread that sleeps for the requests at the C library, and ends them.
//!
//! It starts with the first request. A completion wakes it at once, wherever it happens: the sleep is on the first request
//! of every seat (`suspend.rs`), and costs the same for ten requests and for ten thousand, since those beyond the seats
//! wait here. It completes requests itself, with no lock held and everything of the backend's own in order.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::seats::{DEPTH, Leaving, SEATS};
use super::suspend::{List, Phase};
use super::{Shared, State, probe};
use crate::backends::THREAD_PREFIX;
use crate::completion::{Errno, Outcome};
use crate::request::{Request, contain};
use crate::sync::MutexGuard;

/// Starts the thread if there is none. `false`: none can be had.
pub(super) fn ensure_started(shared: &Arc<Shared>, state: &mut State) -> bool {
    if state.thread.is_some() {
        return true;
    }
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
    let mut done = Vec::with_capacity(SEATS * DEPTH);
    let (mut leaving, mut list) = (Leaving::default(), List::new());
    while collect(shared, &mut done, &mut leaving, &mut list) {
        finish(&mut done);
        for request in leaving.stranded.drain(..) {
            // It was taken and cannot be left any more. "Not here" sends it to the next backend.
            contain(|| request.complete(Err(Errno(libc::ENOSYS))));
        }
        for request in leaving.abandoned.drain(..) {
            contain(|| drop(request));
        }
    }
}

/// Ends requests. Not under the lock: wakers run in here.
pub(super) fn finish(done: &mut Vec<(Request, Outcome)>) {
    for (request, outcome) in done.drain(..) {
        contain(|| request.complete(outcome));
    }
}

/// Sleeps until there is something to end. `false`: there will never be anything.
fn collect(shared: &Shared, done: &mut Vec<(Request, Outcome)>, leaving: &mut Leaving, list: &mut List) -> bool {
    let mut state = shared.lock();
    loop {
        state.wake_up();
        state.seats.harvest(done);
        state.fill(leaving);
        if !done.is_empty() || !leaving.is_empty() {
            return true;
        }
        if state.seats.flights() == 0 {
            if state.closing {
                let State { seats, bell, .. } = &mut *state;
                bell.take_down(seats);
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

fn idle<'a>(shared: &'a Shared, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    state.phase = Phase::Idle;
    while state.phase == Phase::Idle {
        state = shared.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state
}
