//! The threads: one loop each, started by `threadpool`, one more whenever all are busy.

use std::cell::Cell;
use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::Seat;
use super::reap::{self, LoopCount};
use super::{Shared, probe};
use crate::events::{self, Event};
use crate::os;
use crate::request::Request;
use crate::sync::{Condvar, Mutex, lock};

/// The name that `ps -L`, `top -H` and debuggers show, unless the pool was given another; Linux has room for 15 bytes.
pub(super) const THREAD_NAME: &str = "polyaio-worker";

/// After a thread could not be created, how long until it is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

thread_local! {
    /// Which pool this thread works for.
    static POOL: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

/// What it takes to start one more worker.
pub(super) struct Staff {
    /// Owns the threads; `None` once the pool shuts down, which lets each thread end after its loop.
    threads: Option<threadpool::ThreadPool>,
    /// Seats of workers that are not hired yet, the next one last.
    seats: Vec<Seat<Request>>,
    /// When and why the last attempt failed.
    failed: Option<(Instant, String)>,
}

impl Staff {
    pub(super) fn new(mut seats: Vec<Seat<Request>>) -> Self {
        seats.reverse();
        Self { threads: None, seats, failed: None }
    }

    /// Lets the threads end as soon as their loops do.
    pub(super) fn disband(&mut self) -> Option<threadpool::ThreadPool> {
        self.threads.take()
    }

    /// Why the last attempt to start a worker failed, unless one has succeeded since.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.as_ref().map(|(_, reason)| reason.as_str())
    }

    fn may_retry(&self) -> bool {
        self.failed.as_ref().is_none_or(|(at, _)| at.elapsed() >= RETRY_AFTER)
    }
}

/// Whether the calling thread is one of this pool's.
pub(super) fn is_own_thread(shared: &Shared) -> bool {
    POOL.with(|pool| std::ptr::eq(pool.get(), shared))
}

/// Starts the first worker.
///
/// # Errors
/// What the system said to the attempt to create a thread.
pub(super) fn start_first(shared: &Arc<Shared>) -> io::Result<()> {
    // Nobody else knows the pool yet: there is nothing that could prevent the hire.
    if shared.queue.hire() { start_hired(shared) } else { Ok(()) }
}

/// Starts one more worker if every one is busy and the bound allows.
///
/// A worker calls this with a job in hand, *before* it serves it: the job may take seconds (an `fsync`, a dead network
/// file system), and whatever is submitted meanwhile finds a worker that is awake or can be woken. So there is always
/// one worker more than were ever busy at once, up to the bound; and the submitter never pays for a thread.
///
/// Returns whether one should have been started and could not be. The reason is kept for `degraded`: the pool works on with
/// what it has.
fn grow(shared: &Arc<Shared>) -> bool {
    if !shared.queue.needs_hands() || !lock(&shared.staff).may_retry() {
        return false;
    }
    shared.queue.hire() && start_hired(shared).is_err()
}

/// Makes a worker of a hire. Only one hire is under way at a time: it counts as a searcher, and `hire` refuses another.
fn start_hired(shared: &Arc<Shared>) -> io::Result<()> {
    if shared.rest.call() {
        shared.queue.came_back();
        return Ok(());
    }
    let started = start_thread(shared);
    let failed = started.as_ref().err().map(|error| (Instant::now(), probe::blame(error)));
    lock(&shared.staff).failed = failed;
    if started.is_err() {
        shared.queue.dismiss();
    }
    started
}

/// Starts a thread and its loop. Holds no lock while the system, or a panic hook, is at work.
fn start_thread(shared: &Arc<Shared>) -> io::Result<()> {
    probe::one_more_thread()?;
    let (running, name) = (shared.loops.running(), shared.trade.threads);
    let threads = lock(&shared.staff).threads.clone();
    let grown = catch_unwind(|| match (threads, running) {
        (Some(mut threads), _) => {
            threads.set_num_threads(running + 1);
            Some(threads)
        }
        (None, 0) => Some(threadpool::Builder::new().num_threads(1).thread_name(name.into()).build()),
        // The pool is shutting down.
        (None, _) => None,
    });
    let mut staff = lock(&shared.staff);
    let threads = match grown {
        Ok(Some(threads)) => threads,
        Ok(None) => return Err(os::error_of(libc::ECANCELED)),
        Err(panic) => {
            // A payload's destructor is no place to panic again.
            std::mem::forget(panic);
            if let Some(threads) = &mut staff.threads {
                // `threadpool` has counted the thread that it could not create. Lowering the count starts and ends nothing.
                threads.set_num_threads(running);
            }
            return Err(os::error_of(libc::EAGAIN));
        }
    };
    let Some(seat) = staff.seats.pop() else { unreachable!("`hire` gives out no more places than there are seats") };
    let (worker, count) = (shared.clone(), LoopCount::new(shared));
    threads.execute(move || run(&worker, seat, count));
    if running == 0 {
        staff.threads = Some(threads);
    }
    Ok(())
}

/// Tells that the pool is smaller than it should be.
fn tell(shared: &Shared) {
    let reason = lock(&shared.staff).failure().map(str::to_owned);
    if let Some(reason) = reason {
        events::raise(|| Event::Degraded { backend: shared.trade.backend, reason });
    }
}

/// A worker's life.
fn run(shared: &Arc<Shared>, mut seat: Seat<Request>, count: LoopCount) {
    POOL.set(Arc::as_ptr(shared));
    #[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
    shared.roll.enter();
    loop {
        let Some(request) = shared.queue.next(&mut seat) else {
            if seat.is_surplus() && shared.rest.take(|| shared.queue.leave(&mut seat)) {
                continue;
            }
            break;
        };
        let small = grow(shared);
        reap::finish(shared, request);
        if small {
            tell(shared);
        }
    }
    drop(count);
}

/// Changes how many workers there may be, from 1 to as many as there are seats.
///
/// What runs is finished. Workers that are too many then rest: they keep their threads, which sleep, and are the first to be
/// hired when there may be more again.
pub(super) fn set_most(shared: &Arc<Shared>, workers: usize) {
    shared.queue.set_most(workers.clamp(1, shared.seats));
    // If all are busy with what takes long, none of them would find out that there may be more.
    if shared.queue.has_queued() && grow(shared) {
        tell(shared);
    }
}

/// Where workers rest that are too many.
#[derive(Default)]
pub(super) struct Rest {
    state: Mutex<Resting>,
    changed: Condvar,
}

#[derive(Default)]
struct Resting {
    /// Those that rest.
    workers: usize,
    /// Of these, so many have been hired again.
    called: usize,
    closed: bool,
}

impl Rest {
    /// Rests until it is called, if `leave` says that the worker has left the others. `false`: the pool is closed. (Until it
    /// has left, nobody is hired in its place, who would find neither a seat nor somebody to call: hence inside the lock.)
    fn take(&self, leave: impl FnOnce() -> bool) -> bool {
        let mut state = lock(&self.state);
        if !leave() {
            return true;
        }
        state.workers += 1;
        loop {
            if state.called > 0 {
                state.called -= 1;
                state.workers -= 1;
                return true;
            }
            if state.closed {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Makes a hire of somebody who rests.
    fn call(&self) -> bool {
        let mut state = lock(&self.state);
        let free = state.workers > state.called;
        if free {
            state.called += 1;
            self.changed.notify_one();
        }
        free
    }

    /// Sends home those that rest.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}
