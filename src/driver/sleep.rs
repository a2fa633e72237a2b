//! The sleep in the kernel, and what it tells.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Driver;
use super::parker::Parker;
use super::selector::{Events, NO_STREAM, Trigger};
use crate::completion::Errno;
use crate::dispatch::{Completing, Core, REAP_MAX};
use crate::error::Error;
use crate::notify;
use crate::os::BorrowedFd;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

impl Driver {
    /// Lets a backend's completions end the sleep of whoever is seated.
    pub(crate) fn watch(&self, notification: BorrowedFd<'_>) -> Result<(), Error> {
        self.check_process().map_err(|errno| Error::System { what: "watch", source: errno.into() })?;
        self.selector.watch(notification, Trigger::Edge)
    }

    /// Whether a backend's completions end it.
    pub(super) fn tell(&self, notification: BorrowedFd<'_>, told: bool) {
        if self.check_process().is_ok() {
            // It is watched already: there is nothing in this that could fail.
            let _ = self.selector.tell(notification, told);
        }
    }

    /// # Errors
    /// `ECHILD` in a child of the process that made it: what the parent is registered for is not to be touched.
    pub(super) fn check_process(&self) -> Result<(), Errno> {
        if self.fork.is_child() { Err(Errno(libc::ECHILD)) } else { Ok(()) }
    }

    /// Waits in the kernel, in the driver's seat.
    pub(super) fn drive(&self, core: &Arc<Core>, parker: &Parker, timeout: Option<Duration>) {
        core.take_along();
        let mut events = Events::new();
        let wait = || self.wait(&mut events, timeout);
        parker.sleep_in_kernel(&self.doorbell, || core.has_completions() || notify::is_due(core), wait);
        self.report(core, &events);
        core.reap(REAP_MAX);
    }

    /// Collects what is ready without sleeping, where nobody else does.
    pub(super) fn glance(&self, core: &Arc<Core>) {
        let wanted = self.exported.load(Ordering::SeqCst) || self.waits_for_streams();
        if !wanted || !self.take_seat() {
            return;
        }
        self.take_events(core);
        self.leave_seat(core);
    }

    /// Takes what the kernel has to tell, without sleeping. For who has the seat.
    pub(super) fn take_events(&self, core: &Core) {
        let mut events = Events::new();
        loop {
            self.wait(&mut events, Some(Duration::ZERO));
            self.report(core, &events);
            if !events.is_full() {
                break;
            }
        }
    }

    /// Tells streams that they are ready.
    fn report(&self, core: &Core, events: &Events) {
        // Their wakers run in here, and the seat is taken: whoever drops the engine must not wait on this thread.
        let _completing = Completing::enter();
        for (number, ready) in events.iter() {
            if number != NO_STREAM {
                let stream = lock(&self.streams).get(number as usize).and_then(Weak::upgrade);
                if let Some(stream) = stream {
                    stream.ready(self, ready);
                    core.ended.add_ordered(1);
                    self.announce();
                }
            }
        }
    }

    fn wait(&self, events: &mut Events, timeout: Option<Duration>) {
        self.selector.wait(events, timeout);
        // Who rings after this rings for the next sleep; who has rung before is heard: the seated thread looks now.
        self.doorbell.heard();
    }
}
