//! Linux: epoll(7).

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use super::{EVENTS, NO_STREAM, Trigger};
use crate::completion::Errno;
use crate::error::Error;

/// A read would find something.
pub(crate) const READABLE: i32 = libc::EPOLLIN;
/// A write would find room.
pub(crate) const WRITABLE: i32 = libc::EPOLLOUT;
/// Whoever tries will learn of it, in both directions.
pub(crate) const FAILED: i32 = libc::EPOLLERR | libc::EPOLLHUP;

/// An epoll instance. Children of this process share it.
pub(in crate::driver) struct Selector(OwnedFd);

/// Room for what one [`Selector::wait`] tells.
pub(in crate::driver) struct Events {
    /// The first `count` are filled.
    events: [MaybeUninit<libc::epoll_event>; EVENTS],
    count: usize,
}

impl Events {
    pub(in crate::driver) fn new() -> Self {
        Self { events: [const { MaybeUninit::uninit() }; EVENTS], count: 0 }
    }

    /// Whether there may be more than there was room for.
    pub(in crate::driver) fn is_full(&self) -> bool {
        self.count == EVENTS
    }

    /// Numbers, and what has become of whom they stand for.
    pub(in crate::driver) fn iter(&self) -> impl Iterator<Item = (u64, i32)> {
        // SAFETY: the kernel has filled so many.
        let filled = self.events[..self.count].iter().map(|event| unsafe { event.assume_init() });
        filled.map(|event| (event.u64, event.events as i32))
    }
}

impl Selector {
    /// # Errors
    /// [`Error::System`]: `EMFILE`, `ENFILE`.
    pub(in crate::driver) fn new() -> Result<Self, Error> {
        // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
        unsafe {
            match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
                -1 => Err(Error::system("epoll_create1")),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Tells, as [`NO_STREAM`], when `fd` is readable.
    pub(in crate::driver) fn watch(&self, fd: BorrowedFd<'_>, trigger: Trigger) -> Result<(), Error> {
        let edge = if trigger == Trigger::Edge { libc::EPOLLET } else { 0 };
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), libc::EPOLLIN | edge, NO_STREAM)
            .map_err(|errno| Error::System { what: "epoll_ctl", source: errno.into() })
    }

    /// Whether it tells of a descriptor that is watched by edges. One that is readable is told of at once.
    pub(in crate::driver) fn tell(&self, fd: BorrowedFd<'_>, told: bool) -> Result<(), Errno> {
        let events = if told { libc::EPOLLIN | libc::EPOLLET } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), events, NO_STREAM)
    }

    /// Makes a stream known; `EPERM` for descriptors that are always ready, such as `/dev/null`.
    pub(in crate::driver) fn add_stream(&self, fd: RawFd, number: u64) -> Result<(), Errno> {
        // Disarmed: without a direction epoll would still report errors, but not with EPOLLONESHOT after the first.
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLONESHOT | libc::EPOLLET, number)
    }

    /// Asks for one report of any of `events`; 0 asks for none.
    pub(in crate::driver) fn arm_stream(&self, fd: RawFd, number: u64, events: i32) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_MOD, fd, events | libc::EPOLLONESHOT, number)
    }

    /// Forgets a stream.
    pub(in crate::driver) fn remove_stream(&self, fd: RawFd, number: u64) {
        // A descriptor that is gone already is what we want; nothing else can fail here.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, number);
    }

    /// Waits until there is something to tell; without a timeout for as long as it takes. A signal ends it, with nothing.
    pub(in crate::driver) fn wait(&self, events: &mut Events, timeout: Option<Duration>) {
        // Rounded up, so that a timeout is never early.
        let milliseconds = timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: the kernel fills at most EVENTS entries of the array.
        let count = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.events.as_mut_ptr().cast(), EVENTS as i32, milliseconds)
        };
        // EINTR: a signal. The caller looks and comes back.
        events.count = usize::try_from(count).unwrap_or(0);
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        // SAFETY: `event` is read during the call only.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }
}

impl AsFd for Selector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
