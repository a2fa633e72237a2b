//! One turn of the program's own loop.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::on_exit::OnExit;
use super::parker::Parker;
use crate::dispatch::Core;
use crate::notify;
use crate::settle::Deferring;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

thread_local! {
    /// The engine of this thread's last [`turn`], by the tag of its slab, and how much had ended there by then.
    static SEEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Submits what is queued and collects completions on this thread: at most `max`, and until at least `min` were there or
/// `timeout` is over. Returns how many operations have ended, and streams have become ready, since the thread's last turn.
pub(crate) fn turn(core: &Arc<Core>, min: usize, max: usize, timeout: Option<Duration>) -> usize {
    if core.fork.is_child() {
        return 0;
    }
    let _waiting = Deferring::wait();
    let parker = Parker::current();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let driver = &core.driver;
    let (seen_of, seen) = SEEN.get();
    let before = if seen_of == core.slab.tag() { seen } else { 0 };
    driver.turners.fetch_add(1, Ordering::SeqCst);
    lock(&driver.turning).push(parker.clone());
    let _guard = OnExit(|| {
        // One entry only: another turn of this thread may be around this one.
        let mut turning = lock(&driver.turning);
        if let Some(at) = turning.iter().position(|other| Arc::ptr_eq(other, &parker)) {
            turning.swap_remove(at);
        }
        drop(turning);
        driver.turners.fetch_sub(1, Ordering::SeqCst);
        driver.retire(core);
        if core.notifications.is_ready() {
            // More than this turn was to call: the program is to come again.
            driver.announce();
        }
        // A `block_on` of this thread may be around us.
        parker.notify();
    });
    let mut called = 0;
    loop {
        parker.take_notified();
        // Before the flush: what is queued after it rings anew.
        driver.answer();
        driver.sides.share_all(core);
        core.flush();
        driver.glance(core);
        let ended = || (core.ended.ordered_value() - before) as usize;
        core.reap(max.saturating_sub(ended()));
        called += notify::run(core, max.saturating_sub(called));
        let expired = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let count = ended();
        // A callback may be of an operation that an earlier turn has counted, or that has ended in its caller.
        if count.max(called) >= min.min(max) || expired {
            SEEN.set((core.slab.tag(), before + count as u64));
            return count;
        }
        if !parker.is_notified() && !notify::is_due(core) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            driver.sleep(core, &parker, left);
        }
    }
}
