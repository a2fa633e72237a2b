//! The way into a queue, and who is in it: one atomic word.
//!
//! Who comes is put on a stack, the *inbox*, in one step and without a lock: each knows the one below it. Who has the queue's
//! lock takes all of them at once (never one alone, so that it does not matter whether the top was taken and has come back
//! while somebody was about to put another one on it). From then on they are *gathered*. In the same step they are counted as
//! that, so that no look falls between two counters while a request moves from one to the other, and perhaps back.

#![allow(unsafe_code)]

use crate::slot::{Below, MOST_SLOTS};
use crate::sync::atomic::{AtomicU64, Ordering};

/// How the requests of a queue are put on a stack.
pub(super) trait Links<T> {
    /// Gives one up: its number, below [`MOST_SLOTS`], and where it notes the one below it.
    fn give_up(&self, request: T) -> (u32, &Below);

    /// Takes one back, and where it has noted the one below it.
    ///
    /// # Safety
    /// It was given up, and was not taken back since.
    unsafe fn take_back(&self, number: u32) -> (T, &Below);
}

/// From the lowest bit: the number of the top of the inbox, counted from 1 (0: it is empty); how many are in it; how many were
/// gathered and have not left; and whether a thread flushes.
pub(super) struct Inbox(AtomicU64);

/// Bits of each of the three numbers. There are no more requests than slots.
const BITS: u32 = 21;
const _: () = assert!(MOST_SLOTS < 1 << BITS && 3 * BITS < 64);
const NUMBER: u64 = (1 << BITS) - 1;
/// One that is in the inbox.
const ARRIVED: u64 = 1 << BITS;
/// One that was gathered.
const GATHERED: u64 = 1 << (2 * BITS);
/// A thread flushes.
const FLUSHING: u64 = 1 << (3 * BITS);

/// What the word has said.
#[derive(Clone, Copy)]
pub(super) struct Seen(u64);

impl Seen {
    fn top(self) -> u32 {
        (self.0 & NUMBER) as u32
    }

    /// How many are in the inbox.
    #[inline]
    pub(super) fn arrived(self) -> usize {
        ((self.0 / ARRIVED) & NUMBER) as usize
    }

    /// How many were gathered, and have not left.
    #[inline]
    pub(super) fn gathered(self) -> usize {
        ((self.0 / GATHERED) & NUMBER) as usize
    }

    /// Whether a thread flushes.
    pub(super) fn is_flushing(self) -> bool {
        self.0 & FLUSHING != 0
    }

    /// Whether nobody is there, neither in the inbox nor gathered.
    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 & !FLUSHING == 0
    }

    /// With all in the inbox gathered.
    fn gather(self) -> Self {
        let gathered = self.arrived() as u64 * GATHERED;
        Self((self.0 & !(GATHERED - 1)) + gathered)
    }
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Puts a request on top.
    #[inline]
    pub(super) fn push<T>(&self, request: T, links: &impl Links<T>) {
        let (number, below) = links.give_up(request);
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            below.set(Seen(seen).top());
            let with = ((seen & !NUMBER) + ARRIVED) | u64::from(number + 1);
            // Sequentially consistent: who has put something in here looks for who sleeps, or submits, after it. And
            // released: whoever takes it sees the request, and what it has noted.
            match self.0.compare_exchange_weak(seen, with, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    #[inline]
    pub(super) fn look(&self) -> Seen {
        Seen(self.0.load(Ordering::SeqCst))
    }

    /// A look after which what others have done by now is known, as if this were written: loom knows no order of loads.
    pub(super) fn look_behind(&self) -> Seen {
        Seen(self.0.fetch_add(0, Ordering::SeqCst))
    }

    /// Takes all out of the inbox, the last that has come first, and notes whether a thread flushes from now on. For who has
    /// the queue's lock. Returns what is said then, or, where something was said since `seen`, that.
    pub(super) fn take<T>(
        &self,
        seen: Seen,
        flushes: bool,
        links: &impl Links<T>,
        mut each: impl FnMut(T),
    ) -> Result<Seen, Seen> {
        let taken = Seen(seen.gather().0 | if flushes { FLUSHING } else { 0 });
        self.0.compare_exchange_weak(seen.0, taken.0, Ordering::SeqCst, Ordering::SeqCst).map_err(Seen)?;
        let mut top = seen.top();
        while let Some(number) = top.checked_sub(1) {
            // SAFETY: it was in the inbox, and the exchange has taken it out, for us alone.
            let (request, below) = unsafe { links.take_back(number) };
            // Before the request may be used, and end.
            top = below.get();
            each(request);
        }
        Ok(taken)
    }

    /// So many of those gathered have left.
    #[inline]
    pub(super) fn leave(&self, count: u32) {
        self.0.fetch_sub(u64::from(count) * GATHERED, Ordering::SeqCst);
    }

    /// The thread that flushes does so no more. What it has done is seen by the next one.
    pub(super) fn end_flush(&self) {
        self.0.fetch_and(!FLUSHING, Ordering::SeqCst);
    }
}
