//! The program's own loop: what it polls, and who rings for it.

use super::Driver;
use super::doorbell::{Bell as _, Doorbell};
use super::selector::Selector;
#[cfg(unix)]
use super::selector::Trigger;
use crate::error::Error;
use crate::os::{AsFd as _, BorrowedFd};
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// What the program's own loop watches: our selector, and a bell for what that does not tell. The bell is not in our
/// selector, so that a thread that drives beside the program does not take its rings.
pub(super) struct Outside {
    #[cfg(unix)]
    selector: Selector,
    bell: Doorbell,
}

cfg_if::cfg_if! {
    if #[cfg(unix)] {
        impl Outside {
            fn new(inside: &Selector) -> Result<Self, Error> {
                let outside = Self { selector: Selector::new()?, bell: Doorbell::new()? };
                for inside in [inside.as_fd(), outside.bell.as_fd()] {
                    outside.selector.watch(inside, Trigger::Level)?;
                }
                Ok(outside)
            }

            fn handle(&self) -> BorrowedFd<'_> {
                self.selector.as_fd()
            }
        }
    } else {
        /// Without a selector, which no program could wait for: it tells of events of backends alone, for which the program
        /// can wait by itself.
        impl Outside {
            fn new(_inside: &Selector) -> Result<Self, Error> {
                Ok(Self { bell: Doorbell::new()? })
            }

            fn handle(&self) -> BorrowedFd<'_> {
                self.bell.as_fd()
            }
        }
    }
}

impl Driver {
    /// What the program can poll: readable while there is something to do for [`turn`](super::turn()). From now on
    /// the program drives, and no background thread is started.
    pub(crate) fn export(&self) -> Result<BorrowedFd<'_>, Error> {
        if self.outside.get().is_none() {
            let outside = Outside::new(&self.selector)?;
            // What was queued before nobody has rung for.
            outside.bell.ring();
            // Another thread may have been quicker: then this one's is closed.
            let _ = self.outside.set(outside);
            self.exported.store(true, Ordering::SeqCst);
        }
        match self.outside.get() {
            Some(outside) => Ok(outside.handle()),
            None => unreachable!("it was set above"),
        }
    }

    /// Something was queued, or has ended, on whatever thread: lets those know who wait for anything.
    #[inline]
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
