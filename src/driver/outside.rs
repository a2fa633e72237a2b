//! The program's own loop: what it polls, and who rings for it.

use std::os::fd::{AsFd as _, BorrowedFd};

use super::Driver;
use super::doorbell::{Bell as _, Doorbell};
use super::selector::{Selector, Trigger};
use crate::error::Error;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// What the program's own loop watches: our selector, and a bell for what that does not tell. The bell is not in our
/// selector, so that a thread that drives beside the program does not take its rings.
pub(super) struct Outside {
    selector: Selector,
    bell: Doorbell,
}

impl Driver {
    /// What the program can poll: readable while there is something to do for [`turn`](super::turn()). From now on
    /// the program drives, and no background thread is started.
    pub(crate) fn export(&self) -> Result<BorrowedFd<'_>, Error> {
        if self.outside.get().is_none() {
            let outside = Outside { selector: Selector::new()?, bell: Doorbell::new()? };
            for inside in [self.selector.as_fd(), outside.bell.as_fd()] {
                outside.selector.watch(inside, Trigger::Level)?;
            }
            // What was queued before nobody has rung for.
            outside.bell.ring();
            // Another thread may have been quicker: then this one's is closed.
            let _ = self.outside.set(outside);
            self.exported.store(true, Ordering::SeqCst);
        }
        match self.outside.get() {
            Some(outside) => Ok(outside.selector.as_fd()),
            None => unreachable!("it was set above"),
        }
    }

    /// Something was queued, or has ended, on whatever thread: lets those know who wait for anything.
    pub(crate) fn announce(&self) {
        if self.exported.load(Ordering::SeqCst)
            && !self.rung.swap(true, Ordering::SeqCst)
            && let Some(outside) = self.outside.get()
        {
            outside.bell.ring();
        }
        if self.turners.load(Ordering::SeqCst) > 0 {
            // Nothing foreign runs in there: it unparks a thread, or rings its bell.
            lock(&self.turning).iter().for_each(|parker| parker.notify());
        }
    }

    /// The program has come: who has something new rings again.
    pub(super) fn answer(&self) {
        if let Some(outside) = self.outside.get() {
            outside.bell.silence();
            // Now, and no earlier: who does not ring because of the last one has published before this, and the program looks
            // at its operations after this.
            self.rung.store(false, Ordering::SeqCst);
        }
    }
}
