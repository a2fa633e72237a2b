//! The sleep in the kernel, and what it tells.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Driver;
use super::parker::Parker;
use crate::completion::Errno;
use crate::dispatch::{Completing, Core, REAP_MAX};
use crate::error::Error;
use crate::notify;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// Events taken from the kernel in one go.
const EVENTS: usize = 64;

/// `epoll_data` of the doorbell and the backends' descriptors: they only end the sleep.
pub(super) const NO_STREAM: u64 = u64::MAX;

pub(super) fn new_epoll() -> Result<OwnedFd, Error> {
    // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
    unsafe {
        match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
            -1 => Err(Error::system("epoll_create1")),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

pub(super) fn control(epoll: &OwnedFd, operation: i32, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: events as u32, u64: data };
    // SAFETY: `event` is read during the call only.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

impl Driver {
    /// Lets a backend's completions end the sleep of whoever is seated.
    pub(crate) fn watch(&self, notification: BorrowedFd<'_>) -> Result<(), Error> {
        self.control(libc::EPOLL_CTL_ADD, notification.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, NO_STREAM)
            .map_err(|errno| Error::System { what: "epoll_ctl", source: errno.into() })
    }

    pub(super) fn control(&self, operation: i32, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
        if self.fork.is_child() {
            return Err(Errno(libc::ECHILD));
        }
        control(&self.epoll, operation, fd, events, data)
    }

    /// Waits in the kernel, in the driver's seat.
    pub(super) fn drive(&self, core: &Arc<Core>, parker: &Parker, timeout: Option<Duration>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let wait = || self.wait(&mut events, timeout);
        let count = parker.sleep_in_kernel(&self.doorbell, || core.has_completions() || notify::is_due(core), wait);
        self.report(core, &events[..count.unwrap_or(0)]);
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
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let count = self.wait(&mut events, Some(Duration::ZERO));
            self.report(core, &events[..count]);
            if count < EVENTS {
                break;
            }
        }
    }

    /// Tells streams that they are ready.
    fn report(&self, core: &Core, events: &[libc::epoll_event]) {
        // Their wakers run in here, and the seat is taken: whoever drops the engine must not wait on this thread.
        let _completing = Completing::enter();
        for event in events {
            let (number, ready) = (event.u64, event.events as i32);
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

    fn wait(&self, events: &mut [libc::epoll_event; EVENTS], timeout: Option<Duration>) -> usize {
        // Rounded up, so that a timeout is never early.
        let milliseconds = timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: the kernel fills at most EVENTS entries of the array.
        let count =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, milliseconds) };
        // EINTR: a signal. The caller looks and comes back.
        usize::try_from(count).unwrap_or(0)
    }
}
