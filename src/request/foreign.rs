//! Foreign code that the engine calls: wakers, callbacks, destructors. Its panics end here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

thread_local! {
    /// How many calls of foreign code this thread is inside.
    static CONTAINED: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread is inside a waker, or other foreign code, that the engine has called. Who drops the engine there
/// must not wait for its end: another thread of ours may be about to call the same waker, whose owner may hold a lock.
pub(crate) fn is_in_foreign_code() -> bool {
    CONTAINED.get() > 0
}

/// Calls foreign code (a waker, a buffer's destructor); its panic ends here. It must reach neither a backend's thread nor
/// the loop that completes a batch. The panic hook has reported it.
/// Returns whether there was none.
#[inline]
pub(crate) fn contain(f: impl FnOnce()) -> bool {
    CONTAINED.set(CONTAINED.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(f));
    CONTAINED.set(CONTAINED.get() - 1);
    match result {
        Ok(()) => true,
        Err(panic) => {
            // The payload's destructor is foreign code that could panic once more.
            std::mem::forget(panic);
            false
        }
    }
}

/// Calls a waker; its panic ends here, and the task that did not wake is its own.
#[inline]
pub(crate) fn wake(waker: Waker) {
    contain(|| waker.wake());
}

/// The same, and keeps it.
#[inline]
pub(crate) fn wake_by_ref(waker: &Waker) {
    contain(|| waker.wake_by_ref());
}
