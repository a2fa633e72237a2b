//! What ends the seated thread's sleep when what it waits for happens elsewhere.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use crate::error::Error;

/// What ends a sleep in the kernel.
pub(super) trait Bell: Send + Sync + 'static {
    fn ring(&self);
}

/// An eventfd that ends the seated thread's sleep.
pub(super) struct Doorbell(OwnedFd);

impl Doorbell {
    pub(super) fn new() -> Result<Self, Error> {
        // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
        unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => Err(Error::system("eventfd")),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Makes it unreadable, for one that is watched level-triggered.
    pub(super) fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes are written to `count`. Where it was not rung the answer is EAGAIN.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes are read from `one`. The counter cannot overflow in a lifetime; it is never read, because
        // epoll watches it edge-triggered.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
