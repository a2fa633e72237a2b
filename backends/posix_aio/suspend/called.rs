//! The bell where the C library calls a function at the end of each request: a condition variable.
//!
//! The function runs on a thread of the C library's, with little stack and all signals blocked. It notes that the request is
//! over and wakes the reaper, and does nothing else. What is new need not be told: the reaper sleeps on no list.

#![allow(unsafe_code)]

use std::sync::{Arc, PoisonError};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, lock};

/// What the reaper sleeps on.
pub(in super::super) struct Ring {
    rung: Mutex<bool>,
    woken: Condvar,
}

/// What the function is called with: kept by the control block, and by the C library while the request is in flight.
pub(in super::super) struct Told {
    over: AtomicBool,
    ring: Arc<Ring>,
}

impl Ring {
    pub(in super::super) fn new() -> Self {
        Self { rung: Mutex::new(false), woken: Condvar::new() }
    }

    /// Ends the reaper's sleep, or the next one.
    pub(in super::super) fn ring(&self) {
        *lock(&self.rung) = true;
        self.woken.notify_one();
    }

    /// Sleeps until it is rung.
    pub(in super::super) fn sleep(&self) {
        let mut rung = lock(&self.rung);
        while !std::mem::take(&mut *rung) {
            rung = self.woken.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Told {
    pub(in super::super) fn new(ring: Arc<Ring>) -> Self {
        Self { over: AtomicBool::new(false), ring }
    }

    /// A request with the block is about to be made.
    pub(in super::super) fn begin(&self) {
        self.over.store(false, Ordering::Relaxed);
    }

    /// Whether the function was called, which has seen all that the C library did.
    pub(in super::super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.ring.ring();
    }
}

/// What the C library calls.
///
/// # Safety
/// The value is the address of a [`Told`] in an `Arc`, one count of which comes along.
// No library elsewhere is asked for calls.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(in super::super) unsafe extern "C" fn tell(value: libc::sigval) {
    // SAFETY: the caller's promise.
    let told = unsafe { Arc::from_raw(value.sival_ptr.cast::<Told>()) };
    told.end();
}
