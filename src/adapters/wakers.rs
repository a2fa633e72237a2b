//! The tasks that wait for one adapter. A reader and a writer may be two (`split`), and each must be woken by operations
//! that the other one has polled last: so operations know this waker, and no task's.

use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::request::wake;
use crate::sync::{Mutex, lock};

#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Reads and seeks.
    Reader,
    /// Writes, flushes and closes.
    Writer,
}

#[derive(Default)]
pub(super) struct Wakers {
    sides: [Mutex<Option<Waker>>; 2],
}

impl Wakers {
    /// The task on this side waits from now on.
    pub(super) fn wait(&self, side: Side, waker: &Waker) {
        let mut place = lock(&self.sides[side as usize]);
        if place.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        drop(place);
        // Wakers are foreign code: cloned and dropped outside of the lock.
        let waker = waker.clone();
        place = lock(&self.sides[side as usize]);
        let old = place.replace(waker);
        drop(place);
        drop(old);
    }

    /// It has got what it waited for.
    pub(super) fn done(&self, side: Side) {
        let old = lock(&self.sides[side as usize]).take();
        drop(old);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        for side in &self.sides {
            // Who is woken looks, and waits anew.
            let waker = lock(side).take();
            if let Some(waker) = waker {
                wake(waker);
            }
        }
    }
}
