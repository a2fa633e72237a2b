//! How many operations use a file's handle, and how many transfers of it run untracked: one atomic word for both.
//!
//! A close (see `order.rs`) waits for the operations, the first write through the page cache (see `overlap.rs`) for the
//! untracked transfers. What most requests are counts in both, so that it pays one addition at its begin and one subtraction
//! at its end, and learns by them what it has to know: who refuses it, and who waits for it.
//!
//! The flags lie in the same word, and that is the whole argument: all changes of one atomic have one order. Who sets a flag
//! learns by that of everyone who was counted before, and everyone who is counted later learns of the flag. Each change
//! acquires and releases, so that what an operation did before it was counted out has happened before what waited for that.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

/// The word, from its lowest bit: operations (37 bits), untracked transfers (24 bits), flags.
///
/// No count runs over into the next one. An untracked transfer has a slot, or its thread is about to fetch one: two million
/// slots at the most (`Slab::new`), and a thread each. Operations are those, and what waits in line for a slot or in a
/// stream's queue, with more than a hundred bytes of memory each.
#[derive(Default)]
pub(crate) struct Counts(AtomicU64);

/// One operation.
const OPERATION: u64 = 1;
/// One untracked transfer.
const UNTRACKED: u64 = 1 << 37;
/// A cached write has been there: every request is tracked from now on.
const TRACKING: u64 = 1 << 61;
/// The close waits.
const CLOSING: u64 = 1 << 62;
/// A close was asked for.
const CLOSED: u64 = 1 << 63;

fn operations(word: u64) -> u64 {
    word & (UNTRACKED - 1)
}

fn untracked(word: u64) -> u64 {
    (word & (TRACKING - 1)) / UNTRACKED
}

/// The handle is closed, or being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// What an operation finds at its begin. It is counted in any case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// It must not use the handle.
    pub(crate) closed: bool,
    /// It is counted as an untracked transfer.
    pub(crate) untracked: bool,
    /// It must not be: see [`Counts::leave`].
    pub(crate) tracking: bool,
}

/// Who waited for the end of an operation, and for no other one any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The close.
    pub(crate) close: bool,
    /// Cached writes.
    pub(crate) writes: bool,
}

impl Counts {
    /// Counts an operation in; [`end`](Self::end) must follow. `transfer`: as an untracked transfer as well, unless ranges are
    /// tracked as far as can be seen beforehand.
    #[inline]
    pub(crate) fn begin(&self, transfer: bool) -> Begun {
        // Saves giving it back each time. What counts is what the addition finds.
        let untracked = transfer && self.0.load(Ordering::Relaxed) & TRACKING == 0;
        let before = self.0.fetch_add(if untracked { OPERATION + UNTRACKED } else { OPERATION }, Ordering::SeqCst);
        Begun { closed: before & CLOSED != 0, untracked, tracking: before & TRACKING != 0 }
    }

    /// Counts an operation out, and with it the untracked transfer that it is.
    #[inline]
    pub(crate) fn end(&self, is_untracked: bool) -> Ended {
        let before = self.0.fetch_sub(if is_untracked { OPERATION + UNTRACKED } else { OPERATION }, Ordering::SeqCst);
        debug_assert!(operations(before) > 0, "it has begun");
        debug_assert!(!is_untracked || untracked(before) > 0, "it was counted");
        Ended {
            close: before & CLOSING != 0 && operations(before) == 1,
            writes: before & TRACKING != 0 && is_untracked && untracked(before) == 1,
        }
    }

    /// Counts an operation that has begun as an untracked transfer. `false`: ranges are tracked, and it has to
    /// [`leave`](Self::leave).
    pub(crate) fn enter(&self) -> bool {
        self.0.fetch_add(UNTRACKED, Ordering::SeqCst) & TRACKING == 0
    }

    /// Counts an untracked transfer out, which goes on as an operation. Returns whether it was the last one that a cached
    /// write may wait for.
    pub(crate) fn leave(&self) -> bool {
        let before = self.0.fetch_sub(UNTRACKED, Ordering::SeqCst);
        before & TRACKING != 0 && untracked(before) == 1
    }

    /// From now on every transfer is tracked; those that are not are counted.
    pub(crate) fn track(&self) {
        self.0.fetch_or(TRACKING, Ordering::SeqCst);
    }

    pub(crate) fn is_tracking(&self) -> bool {
        self.0.load(Ordering::SeqCst) & TRACKING != 0
    }

    /// Whether a transfer runs untracked.
    pub(crate) fn has_untracked(&self) -> bool {
        untracked(self.0.load(Ordering::SeqCst)) > 0
    }

    /// Refuses every operation from here on. One caller succeeds, and submits the request that closes.
    pub(crate) fn close(&self) -> Result<(), Closed> {
        if self.0.fetch_or(CLOSED, Ordering::SeqCst) & CLOSED != 0 { Err(Closed) } else { Ok(()) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) & CLOSED != 0
    }
}

/// The request that closes, while it waits for all operations.
pub(crate) struct Closing<T>(Mutex<Option<T>>);

impl<T> Default for Closing<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Closing<T> {
    /// Keeps the close until all operations have ended; hands it back where they have.
    pub(crate) fn wait(&self, counts: &Counts, close: T) -> Option<T> {
        *lock(&self.0) = Some(close);
        // Who is counted out later takes it, and finds it there.
        let before = counts.0.fetch_or(CLOSING, Ordering::SeqCst);
        if operations(before) == 0 { self.take() } else { None }
    }

    /// Takes the close, for which nobody else is left to wait. One of those who are told so gets it: operations that are
    /// refused are counted, too.
    pub(crate) fn take(&self) -> Option<T> {
        lock(&self.0).take()
    }
}

#[cfg(all(test, polyaio_loom))]
mod models;

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_count_holds_more_than_there_can_be() {
        let counts = Counts::default();
        let (slots, threads, lined_up) = (64 * ((1 << 15) - 1), 1 << 22, 1 << 32);
        counts.0.store((slots + threads) * UNTRACKED + (slots + threads + lined_up) * OPERATION, Ordering::SeqCst);
        let begun = counts.begin(true);
        assert!(begun.untracked && !begun.closed && !begun.tracking);
        assert_eq!(counts.end(true), Ended { close: false, writes: false });
        assert!(counts.has_untracked() && !counts.is_tracking() && !counts.is_closed());
    }

    #[test]
    fn what_is_tracked_is_counted_once() {
        let counts = Counts::default();
        assert!(counts.begin(true).untracked);
        counts.track();
        let begun = counts.begin(true);
        assert!(!begun.untracked && begun.tracking);
        assert!(!counts.enter(), "neither later");
        assert!(!counts.leave(), "the first one is left");
        assert_eq!(counts.end(false), Ended { close: false, writes: false });
        assert_eq!(counts.end(true), Ended { close: false, writes: true });
    }
}
