//! A thread that queues the requests of several operations before it sends any.

use std::cell::Cell;

use crate::dispatch::Core;

thread_local! {
    /// The engine for which this thread queues requests without sending them.
    static GATHERING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// While it lives, first polls on this thread queue their requests for one engine and leave it to the caller to flush.
pub(crate) struct Gathering {
    outer: *const Core,
}

impl Gathering {
    pub(crate) fn enter(core: &Core) -> Self {
        Self { outer: GATHERING.replace(core) }
    }

    #[inline]
    pub(super) fn is_for(core: &Core) -> bool {
        std::ptr::eq(GATHERING.get(), core)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        GATHERING.set(self.outer);
    }
}
