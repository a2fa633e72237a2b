//! The parkers of threads that have ended, for threads to come: as many are made as threads sleep at the same time.
//!
//! A stack that is emptied as a whole, so that nobody looks at the link of one that another thread has taken. Without a lock,
//! which the child of a fork might find taken.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Parker;

/// A parker that stays for ever.
struct Kept {
    parker: Arc<Parker>,
    /// The next spare one, while this is one.
    below: AtomicPtr<Kept>,
}

/// The spare ones.
static SPARE: AtomicPtr<Kept> = AtomicPtr::new(ptr::null_mut());

/// A thread's. Spare again once it is dropped.
pub(super) struct Taken(&'static Kept);

impl Taken {
    /// For this thread.
    pub(super) fn new() -> Self {
        // SAFETY: what is in the stack was leaked.
        let Some(first) = (unsafe { SPARE.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() }) else {
            return Self(Box::leak(Box::new(Kept { parker: Parker::new(), below: AtomicPtr::default() })));
        };
        // Those below it go back. Who looks meanwhile makes one more.
        // SAFETY: as above; the whole list is ours.
        let mut rest = unsafe { first.below.swap(ptr::null_mut(), Ordering::Relaxed).as_ref() };
        while let Some(kept) = rest {
            // SAFETY: as above.
            rest = unsafe { kept.below.load(Ordering::Relaxed).as_ref() };
            put(kept);
        }
        first.parker.take_over();
        Self(first)
    }

    pub(super) fn parker(&self) -> &'static Arc<Parker> {
        &self.0.parker
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.parker.leave();
        put(self.0);
    }
}

fn put(kept: &'static Kept) {
    let mut top = SPARE.load(Ordering::Relaxed);
    loop {
        kept.below.store(top, Ordering::Relaxed);
        match SPARE.compare_exchange_weak(top, ptr::from_ref(kept).cast_mut(), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}
