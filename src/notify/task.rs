//! One operation with its callback.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use super::{Callback, is_collecting, is_running};
use crate::backend::CancelOutcome;
use crate::dispatch::Core;
use crate::error::Error;
use crate::future::Op;
use crate::op::Operation;
use crate::refused::Refused;
use crate::request::contain;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, lock};

/// A task, whatever its operation.
pub(super) trait Run: Send + Sync {
    fn id(&self) -> u64;
    /// Polls the operation, and calls the callback if that has ended it. Returns whether it has.
    fn run(self: Arc<Self>) -> bool;
    fn cancel(self: Arc<Self>) -> CancelOutcome;
}

/// The number of the next task of this process. A pointer's worth, because signals carry no more.
pub(super) fn next_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as u64
}

struct Task<T: Operation, F> {
    core: Arc<Core>,
    id: u64,
    /// It is in the queue of those that somebody has to look after.
    queued: AtomicBool,
    state: Mutex<State<T, F>>,
    /// It is not out any more.
    back: Condvar,
}

enum State<T: Operation, F> {
    Waits(Op<T>, Ending<F>),
    /// A thread has taken it out, to work on it without the lock: foreign code runs there. `again`: somebody came to look
    /// after it meanwhile.
    Out {
        by: ThreadId,
        again: bool,
    },
    /// The callback was called, or is being called.
    Over,
}

/// What is to be done at the end; its drop is what the end of the engine waits for.
struct Ending<F> {
    callback: F,
    live: Live,
}

/// One callback that the end of the engine waits for.
struct Live(Arc<Core>);

impl Live {
    /// Counts before it looks whether the engine is open: its end waits for all that have found it so.
    fn enter(core: &Arc<Core>) -> Result<Self, Error> {
        core.notifications.live.fetch_add(1, Ordering::SeqCst);
        let live = Self(core.clone());
        core.check().map(|()| live)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.notifications.live.fetch_sub(1, Ordering::SeqCst);
        if !self.0.state.is_open() {
            self.0.drained.look();
        }
    }
}

/// Begins an operation whose end calls `callback`.
pub(super) fn register<T: Operation, F>(mut op: Op<T>, id: u64, callback: F) -> Result<Callback, Refused<Op<T>>>
where
    F: FnOnce(T::Output) + Send + 'static,
{
    let core = op.home();
    if core.fork.is_child() {
        // Before anything that a thread of the parent may have been changing.
        return Err(Refused::new(op, Error::Forked));
    }
    let live = match Live::enter(&core) {
        Ok(live) => live,
        Err(error) => return Err(Refused::new(op, error)),
    };
    let state = Mutex::new(State::Out { by: std::thread::current().id(), again: false });
    let task = Arc::new(Task { core: core.clone(), id, queued: AtomicBool::new(false), state, back: Condvar::new() });
    let waker = Waker::from(task.clone());
    let waits = match catch_unwind(AssertUnwindSafe(|| op.launch(&waker))) {
        Ok(waits) => waits,
        Err(panic) => {
            // A buffer's, and the caller's own affair. The operation is dropped.
            task.over();
            resume_unwind(panic);
        }
    };
    task.put_back(op, Ending { callback, live });
    if !waits {
        task.clone().wake();
    }
    if !is_collecting(&core) {
        core.flush();
        if !core.driver.ensure_driven_for_callbacks(&core) {
            core.counters.undriven.add(1);
        }
    } else if is_running(&core) && !core.notifications.is_ready() {
        // Nobody is behind this callback whose requests could go out together with this one.
        core.flush();
    }
    Ok(Callback { task })
}

impl<T: Operation, F> Task<T, F> {
    /// Takes the operation out. `None` where it is out already, or over.
    fn take(&self, state: &mut MutexGuard<'_, State<T, F>>) -> Option<(Op<T>, Ending<F>)> {
        let out = State::Out { by: std::thread::current().id(), again: false };
        match std::mem::replace(&mut **state, out) {
            State::Waits(op, ending) => Some((op, ending)),
            other => {
                **state = other;
                None
            }
        }
    }
}

impl<T: Operation, F: FnOnce(T::Output) + Send + 'static> Task<T, F> {
    fn put_back(self: &Arc<Self>, op: Op<T>, ending: Ending<F>) {
        let again = {
            let mut state = lock(&self.state);
            let before = std::mem::replace(&mut *state, State::Waits(op, ending));
            matches!(before, State::Out { again: true, .. })
        };
        self.back.notify_all();
        if again {
            self.clone().wake();
        }
    }

    fn over(&self) {
        *lock(&self.state) = State::Over;
        self.back.notify_all();
    }
}

impl<T: Operation, F: FnOnce(T::Output) + Send + 'static> Run for Task<T, F> {
    fn id(&self) -> u64 {
        self.id
    }

    fn run(self: Arc<Self>) -> bool {
        // Swapped, so that what the last wake-up told of is seen.
        self.queued.swap(false, Ordering::SeqCst);
        let (mut op, ending) = {
            let mut state = lock(&self.state);
            match self.take(&mut state) {
                Some(out) => out,
                None => {
                    if let State::Out { again, .. } = &mut *state {
                        *again = true;
                    }
                    return false;
                }
            }
        };
        let waker = Waker::from(self.clone());
        let mut polled = None;
        contain(|| polled = Some(Pin::new(&mut op).poll(&mut Context::from_waker(&waker))));
        if let Some(Poll::Pending) = polled {
            self.put_back(op, ending);
            return false;
        }
        self.over();
        let Ending { callback, live } = ending;
        let ended_well = contain(|| {
            drop(op);
            match polled {
                Some(Poll::Ready(output)) => callback(output),
                // A buffer has panicked, and the operation has no result.
                _ => drop(callback),
            }
        });
        let counters = &self.core.counters;
        counters.callback_panics.add(u64::from(!ended_well));
        counters.callbacks.add(1);
        drop(live);
        true
    }

    fn cancel(self: Arc<Self>) -> CancelOutcome {
        if self.core.fork.is_child() {
            return CancelOutcome::Unknown;
        }
        let mut state = lock(&self.state);
        let (mut op, ending) = loop {
            if let Some(out) = self.take(&mut state) {
                break out;
            }
            match &*state {
                // Called by what is being polled, or by a waker that is called meanwhile.
                State::Out { by, .. } if *by == std::thread::current().id() => return CancelOutcome::Running,
                State::Over => return CancelOutcome::Done,
                _ => state = self.back.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner()),
            }
        };
        drop(state);
        let outcome = op.cancel();
        self.put_back(op, ending);
        if outcome == CancelOutcome::Cancelled {
            // What was cancelled before there was a request has nobody else who would wake it.
            self.wake();
        }
        outcome
    }
}

impl<T: Operation, F: FnOnce(T::Output) + Send + 'static> Wake for Task<T, F> {
    fn wake(self: Arc<Self>) {
        if self.core.fork.is_child() || self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let core = self.core.clone();
        {
            // Under the lock: what is over is never put into the queue, which belongs to the engine, which it keeps alive.
            let task = self.clone();
            let state = lock(&self.state);
            if let State::Over = &*state {
                return;
            }
            core.notifications.push(task);
        }
        core.driver.summon(&core);
    }
}
