//! A thread of the program that runs a future, and collects meanwhile.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::on_exit::OnExit;
use super::parker::Parker;
use crate::dispatch::{Core, REAP_MAX};
use crate::notify;

thread_local! {
    /// The engine that this thread is inside [`block_on`] of.
    static DRIVING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// Whether this thread is inside [`block_on`] of this engine: it will flush and collect before it sleeps.
pub(crate) fn is_driving(core: &Core) -> bool {
    std::ptr::eq(DRIVING.get(), core)
}

/// Runs a future to its end on this thread, collecting completions meanwhile.
pub(crate) fn block_on<F: Future>(core: &Arc<Core>, future: F) -> F::Output {
    match block_on_until(core, future, None) {
        Some(output) => output,
        None => unreachable!("there is no deadline"),
    }
}

/// The same, until `deadline`: `None` when it has passed.
pub(crate) fn block_on_until<F: Future>(core: &Arc<Core>, future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let parker = Parker::current();
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let outer = DRIVING.replace(Arc::as_ptr(core));
    let _guard = OnExit(|| {
        DRIVING.set(outer);
        // What was polled in here relied on this thread to flush, and on somebody to collect.
        core.flush();
        core.driver.retire(core);
        // A wake-up that an outer `block_on` of this thread waits for may have been taken by this one: let it look.
        parker.notify();
    });
    loop {
        parker.take_notified();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if parker.is_notified() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // A future that wakes itself in each poll.
            return None;
        }
        while !parker.is_notified() {
            core.flush();
            core.reap(REAP_MAX);
            notify::run(core, REAP_MAX);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            if !parker.is_notified() && !notify::is_due(core) {
                core.driver.sleep(core, &parker, left);
            }
        }
        // Also where the future is woken again and again.
        notify::run(core, REAP_MAX);
        core.driver.hand_over(core);
    }
}
