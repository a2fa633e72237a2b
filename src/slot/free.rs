//! The free slots of an engine: a stack that needs no lock, until somebody has to wait for one.
//!
//! Each free slot knows the next one. The word at the top has a number that grows with each slot that is taken: who has looked
//! at the top, and at the slot below it, is refused if the top was taken and put back meanwhile. While somebody waits in line
//! the stack is *closed*: all slots then go by the lock of the line, which also opens it again.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The stack.
pub(super) struct Free {
    /// The place of the top, counted from 1 (0: the stack is empty), `CLOSED`, and the number of those taken.
    top: AtomicU64,
}

/// What a slot knows of the stack that it is in: that of the free ones, or the inbox of a queue (`dispatch/inbox.rs`). It is
/// never in both, and who looks for a free one and finds what was noted for an inbox is refused: the slot was taken meanwhile.
#[derive(Debug)]
pub(crate) struct Below(AtomicU32);

/// The stack is out of use for who does not have the lock of the line.
const CLOSED: u64 = 1 << 32;
/// One slot was taken.
const TAKEN: u64 = 1 << 33;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Empty,
    Closed,
}

impl Below {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The place of the slot below, counted from 1 (0: there is none).
    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Who puts the slot on the stack orders it.
    #[inline]
    pub(crate) fn set(&self, place: u32) {
        self.0.store(place, Ordering::Relaxed);
    }
}

impl Free {
    pub(super) fn new() -> Self {
        Self { top: AtomicU64::new(0) }
    }

    /// Takes a slot.
    #[inline]
    pub(super) fn take<'a>(&self, below: impl Fn(u32) -> &'a Below) -> Result<u32, Refused> {
        self.take_if(below, |top| top & CLOSED == 0)
    }

    /// Takes a slot, whether or not the stack is closed: for who has the lock of the line.
    pub(super) fn take_locked<'a>(&self, below: impl Fn(u32) -> &'a Below) -> Option<u32> {
        self.take_if(below, |_| true).ok()
    }

    #[inline]
    fn take_if<'a>(&self, below: impl Fn(u32) -> &'a Below, may: impl Fn(u64) -> bool) -> Result<u32, Refused> {
        // Acquired: whatever was done to a slot before it was put back is seen by who takes it.
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            if !may(top) {
                return Err(Refused::Closed);
            }
            let Some(index) = (top as u32).checked_sub(1) else { return Err(Refused::Empty) };
            // Somebody may have taken it this moment, and be about to put it back: then the number tells.
            let next = u64::from(below(index).get());
            let rest = (top & !u64::from(u32::MAX)).wrapping_add(TAKEN) | next;
            match self.top.compare_exchange_weak(top, rest, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(index),
                Err(now) => top = now,
            }
        }
    }

    /// Puts a slot back. `false`: the stack is closed, and the slot is for who is in line.
    #[inline]
    pub(super) fn put(&self, index: u32, below: &Below) -> bool {
        self.put_if(index, below, |top| top & CLOSED == 0)
    }

    /// Puts a slot back, whether or not the stack is closed: for who has the lock of the line.
    pub(super) fn put_locked(&self, index: u32, below: &Below) {
        self.put_if(index, below, |_| true);
    }

    #[inline]
    fn put_if(&self, index: u32, below: &Below, may: impl Fn(u64) -> bool) -> bool {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            if !may(top) {
                return false;
            }
            below.set(top as u32);
            let with = top & !u64::from(u32::MAX) | u64::from(index + 1);
            match self.top.compare_exchange_weak(top, with, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => top = now,
            }
        }
    }

    /// From now on all slots go by the lock of the line, which the caller has.
    pub(super) fn close(&self) {
        self.top.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Nobody is in line any more. The caller has the line's lock.
    pub(super) fn open(&self) {
        self.top.fetch_and(!CLOSED, Ordering::AcqRel);
    }
}

#[cfg(all(test, polyaio_loom))]
mod models {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    /// Slots with something in them that only who has taken one may touch: loom notices if two do.
    struct Slots {
        free: Free,
        below: [Below; 3],
        contents: [UnsafeCell<u32>; 3],
    }

    // SAFETY: that this holds is what is explored.
    #[allow(unsafe_code)]
    unsafe impl Sync for Slots {}

    impl Slots {
        fn new(count: u32) -> Arc<Self> {
            let slots = Self {
                free: Free::new(),
                below: std::array::from_fn(|_| Below::new()),
                contents: std::array::from_fn(|_| UnsafeCell::new(0)),
            };
            (0..count).for_each(|index| assert!(slots.free.put(index, &slots.below[index as usize])));
            Arc::new(slots)
        }

        fn take(&self) -> Result<u32, Refused> {
            let taken = self.free.take(|index| &self.below[index as usize]);
            if let Ok(index) = taken {
                // SAFETY: as above.
                #[allow(unsafe_code)]
                self.contents[index as usize].with_mut(|content| unsafe { *content += 1 });
            }
            taken
        }

        fn put(&self, index: u32) -> bool {
            self.free.put(index, &self.below[index as usize])
        }
    }

    /// One thread takes two and puts the first back, which is on top again, over another one than before, while the other
    /// takes one: no slot is given out twice, and none is lost.
    #[test]
    fn loom_each_free_slot_is_given_out_once() {
        loom::model(|| {
            let slots = Slots::new(3);
            let other = {
                let slots = slots.clone();
                thread::spawn(move || slots.take().expect("there are three"))
            };
            let first = slots.take().expect("there are three");
            let second = slots.take().expect("there are two");
            assert!(slots.put(first));
            let third = other.join().expect("it does not panic");
            assert_ne!(second, third);
            let mut left = Vec::new();
            while let Ok(index) = slots.take() {
                left.push(index);
            }
            left.extend([second, third]);
            left.sort_unstable();
            assert_eq!(left, [0, 1, 2]);
        });
    }

    /// Who closes the stack and finds it empty is told of the slot that comes back meanwhile: it is in there, or its giver
    /// comes to the line.
    #[test]
    fn loom_a_slot_put_back_into_a_closing_stack_is_not_lost() {
        loom::model(|| {
            let slots = Slots::new(1);
            let index = slots.take().expect("there is one");
            let giver = {
                let slots = slots.clone();
                thread::spawn(move || slots.put(index))
            };
            slots.free.close();
            let found = slots.free.take_locked(|index| &slots.below[index as usize]);
            let put = giver.join().expect("it does not panic");
            assert_eq!(found.is_some(), put, "in the stack, or to the line");
            assert_eq!(slots.take(), Err(Refused::Closed));
            slots.free.open();
            assert_eq!(slots.take(), Err(Refused::Empty));
        });
    }
}
