//! tokio's reactor as the one who collects: a task in each runtime in which futures of the engine are pending, woken when
//! our selector becomes readable, instead of the background thread.

use std::cell::Cell;
use std::future::Future;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};

use super::Driver;
use crate::dispatch::Core;
use crate::request::{wake, wake_by_ref};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// The runtimes whose reactors collect.
#[derive(Default)]
pub(super) struct Reactors {
    runtimes: Mutex<Vec<Runtime>>,
    /// A task of ours runs, or may come to run.
    any: AtomicBool,
    /// A task could not sit down. Who has the seat calls them all when it leaves.
    owed: AtomicBool,
    /// How many runtimes have gone: what threads remember of them is out of date then.
    departures: AtomicUsize,
    /// The engine has ended.
    stopped: AtomicBool,
}

/// A runtime that was asked to collect.
struct Runtime {
    id: Id,
    state: State,
}

enum State {
    /// It has no I/O driver, or its reactor has no room.
    Refused,
    /// The task runs. It was not polled yet without a waker.
    Runs(Option<Waker>),
}

thread_local! {
    /// The engine and the runtime that this thread has attended last, and how many runtimes had left the engine by then.
    static ATTENDED: Cell<Option<(u64, Id, usize)>> = const { Cell::new(None) };
}

impl Driver {
    /// Called from a poll whose future is pending: sees to it that the tokio runtime of this thread collects. `false` where
    /// there is none, or where it cannot.
    pub(super) fn attend_in_tokio(&self, core: &Arc<Core>) -> bool {
        let Ok(handle) = Handle::try_current() else { return false };
        let id = handle.id();
        let attended = Some((core.slab.tag(), id, self.reactors.departures.load(Ordering::SeqCst)));
        if ATTENDED.get() == attended {
            return true;
        }
        let mut runtimes = lock(&self.reactors.runtimes);
        if let Some(known) = runtimes.iter().find(|runtime| runtime.id == id) {
            let runs = matches!(known.state, State::Runs(_));
            ATTENDED.set(attended.filter(|_| runs));
            return runs;
        }
        if self.reactors.stopped.load(Ordering::SeqCst) {
            return false;
        }
        let reactor = self.selector.as_fd().try_clone_to_owned().ok().and_then(register);
        let state = if reactor.is_some() { State::Runs(None) } else { State::Refused };
        runtimes.push(Runtime { id, state });
        drop(runtimes);
        let Some(epoll) = reactor else { return false };
        self.reactors.any.store(true, Ordering::SeqCst);
        handle.spawn(Attend { core: Arc::downgrade(core), epoll, id });
        true
    }

    /// The seat is vacant again: calls the tasks that found it taken, and those who would find something in it.
    pub(super) fn call_reactors(&self, core: &Core) {
        if self.reactors.any.load(Ordering::SeqCst)
            && (self.reactors.owed.swap(false, Ordering::SeqCst) || core.has_completions())
        {
            self.reactors.call();
        }
    }

    /// Ends the tasks. Each closes its descriptor when its runtime runs it next.
    pub(crate) fn stop_reactors(&self) {
        self.reactors.stopped.store(true, Ordering::SeqCst);
        self.reactors.call();
    }

    /// Collects what is there. Returns whether there is more, which somebody else has to let go of first.
    fn collect(&self, core: &Arc<Core>) -> bool {
        // Before the look at the seat: who leaves it afterwards sees this.
        self.reactors.owed.store(true, Ordering::SeqCst);
        if !self.take_seat() {
            return false;
        }
        self.reactors.owed.store(false, Ordering::SeqCst);
        self.take_events(core);
        core.flush();
        core.reap(crate::dispatch::REAP_MAX);
        self.leave_seat(core);
        core.has_completions()
    }
}

impl Reactors {
    /// Wakes all tasks.
    fn call(&self) {
        let take = |runtime: &mut Runtime| match &mut runtime.state {
            State::Runs(waker) => waker.take(),
            State::Refused => None,
        };
        let wakers: Vec<_> = lock(&self.runtimes).iter_mut().filter_map(take).collect();
        wakers.into_iter().for_each(wake);
    }
}

/// Registers with the reactor of this thread's runtime.
// What takes its place came long after, and is unsafe for descriptors that somebody else may close; this one is owned.
#[allow(deprecated)]
fn register(epoll: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // It panics where the runtime was built without its I/O driver, and there is no other way to ask.
    catch_unwind(AssertUnwindSafe(|| AsyncFd::with_interest(epoll, Interest::READABLE))).ok()?.ok()
}

/// The task in a runtime.
struct Attend {
    /// No reference is kept while it sleeps: it does not keep the engine.
    core: Weak<Core>,
    epoll: AsyncFd<OwnedFd>,
    id: Id,
}

impl Attend {
    /// Leaves a waker for those who call. `false`: the engine has ended.
    fn listen(&self, core: &Core, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut runtimes = lock(&core.driver.reactors.runtimes);
        if let Some(runtime) = runtimes.iter_mut().find(|runtime| runtime.id == self.id) {
            let old = std::mem::replace(&mut runtime.state, State::Runs(Some(waker)));
            drop(runtimes);
            drop(old);
        }
        !core.driver.reactors.stopped.load(Ordering::SeqCst)
    }
}

impl Future for Attend {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(core) = self.core.upgrade() else { return Poll::Ready(()) };
        if core.fork.is_child() || !self.listen(&core, context.waker()) {
            return Poll::Ready(());
        }
        // Edges: forgotten before the look, so that the next one counts. Until it is pending, and so registered.
        while let Poll::Ready(ready) = self.epoll.poll_read_ready(context) {
            match ready {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is shutting down.
                Err(_) => return Poll::Ready(()),
            }
        }
        if core.driver.collect(&core) {
            wake_by_ref(context.waker());
        }
        Poll::Pending
    }
}

/// The end of the runtime, or of the engine.
impl Drop for Attend {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        if core.fork.is_child() {
            return;
        }
        let mut runtimes = lock(&core.driver.reactors.runtimes);
        let gone = runtimes.iter().position(|runtime| runtime.id == self.id).map(|at| runtimes.swap_remove(at));
        drop(runtimes);
        drop(gone);
        // After the entry is gone: who polls from now on looks anew, and what was begun before is seen here.
        core.driver.reactors.departures.fetch_add(1, Ordering::SeqCst);
        // What was begun in it is reaped by whoever drives next, or by the thread. Who waits need not have been a task of the
        // runtime, and so gone with it: a thread that had entered it has a waker of its own, which nobody else would call.
        if core.needs_driving() {
            core.driver.ensure_driven_for_callbacks(&core);
        }
    }
}
