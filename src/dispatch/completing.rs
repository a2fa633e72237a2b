//! Which threads are in the middle of completing requests.

use std::cell::Cell;

use crate::events;

thread_local! {
    /// How many loops that complete requests this thread is in. Inside one, flushing is left to its end.
    static COMPLETING: Cell<usize> = const { Cell::new(0) };
}

/// This thread is in a loop that completes requests.
pub(crate) struct Completing {
    /// Released last.
    _events: events::Hold,
}

impl Completing {
    #[inline]
    pub(crate) fn enter() -> Self {
        COMPLETING.set(COMPLETING.get() + 1);
        Self { _events: events::hold() }
    }
}

impl Drop for Completing {
    fn drop(&mut self) {
        COMPLETING.set(COMPLETING.get() - 1);
    }
}

/// Whether this thread is in the middle of completing requests.
#[inline]
pub(crate) fn is_completing() -> bool {
    COMPLETING.get() > 0
}
