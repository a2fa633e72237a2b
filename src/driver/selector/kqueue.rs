//! The BSDs and macOS: kqueue(2).
//!
//! Each direction of a stream is an event of its own (`EVFILT_READ`, `EVFILT_WRITE`) that fires once (`EV_ONESHOT`) and
//! is gone then. A child of fork(2) does not inherit the instance: it leaks what it has of the engine, this descriptor's
//! number too, and never closes what may have that number by then.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::{EVENTS, NO_STREAM, Trigger};
use crate::completion::Errno;
use crate::error::Error;

/// A read would find something.
pub(crate) const READABLE: i32 = 1;
/// A write would find room.
pub(crate) const WRITABLE: i32 = 2;
/// Whoever tries will learn of it, in both directions.
pub(crate) const FAILED: i32 = 4;

/// Both directions of a stream: the bit, and the filter that tells of it.
const DIRECTIONS: [(i32, i64); 2] = [(READABLE, libc::EVFILT_READ as i64), (WRITABLE, libc::EVFILT_WRITE as i64)];

/// The type differs between systems.
const NOTHING: libc::kevent = {
    // SAFETY: a C structure of numbers and a pointer, for which zeroes are values.
    unsafe { MaybeUninit::zeroed().assume_init() }
};

/// A kqueue.
pub(in crate::driver) struct Selector(OwnedFd);

/// Room for what one [`Selector::wait`] tells.
pub(in crate::driver) struct Events {
    events: [libc::kevent; EVENTS],
    count: usize,
}

impl Events {
    pub(in crate::driver) fn new() -> Self {
        Self { events: [NOTHING; EVENTS], count: 0 }
    }

    /// Whether there may be more than there was room for.
    pub(in crate::driver) fn is_full(&self) -> bool {
        self.count == EVENTS
    }

    /// Numbers, and what has become of whom they stand for.
    pub(in crate::driver) fn iter(&self) -> impl Iterator<Item = (u64, i32)> {
        self.events[..self.count].iter().map(|event| (number_of(event), readiness(event)))
    }
}

/// The end of the other side (`EV_EOF`) is something that a transfer in this direction finds.
#[allow(clippy::unnecessary_cast)]
fn readiness(event: &libc::kevent) -> i32 {
    if event.flags as u64 & libc::EV_ERROR as u64 != 0 {
        return FAILED;
    }
    DIRECTIONS.iter().find(|(_, filter)| *filter == event.filter as i64).map_or(0, |(bit, _)| *bit)
}

/// Numbers are kept by one more than they are in the pointer that the kernel carries: [`NO_STREAM`] is 0 there, whatever a
/// pointer's width.
fn number_of(event: &libc::kevent) -> u64 {
    (event.udata as usize as u64).wrapping_sub(1)
}

// The fields' types differ between systems.
#[allow(clippy::unnecessary_cast)]
fn change(fd: RawFd, filter: i64, flags: u64, number: u64) -> libc::kevent {
    let mut change = NOTHING;
    change.ident = fd as _;
    change.filter = filter as _;
    change.flags = flags as _;
    change.udata = number.wrapping_add(1) as usize as _;
    change
}

impl Selector {
    /// # Errors
    /// [`Error::System`]: `EMFILE`, `ENFILE`, `ENOMEM`.
    pub(in crate::driver) fn new() -> Result<Self, Error> {
        // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
        let queue = unsafe {
            match libc::kqueue() {
                -1 => return Err(Error::system("kqueue")),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        // SAFETY: takes no pointer. Not every system has a call that does both.
        match unsafe { libc::fcntl(queue.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } {
            -1 => Err(Error::system("fcntl")),
            _ => Ok(Self(queue)),
        }
    }

    /// Tells, as [`NO_STREAM`], when `fd` is readable.
    pub(in crate::driver) fn watch(&self, fd: BorrowedFd<'_>, trigger: Trigger) -> Result<(), Error> {
        let edge = if trigger == Trigger::Edge { libc::EV_CLEAR as u64 } else { 0 };
        self.change(fd.as_raw_fd(), libc::EVFILT_READ as i64, libc::EV_ADD as u64 | edge, NO_STREAM)
            .map_err(|errno| Error::System { what: "kevent", source: errno.into() })
    }

    /// Whether it tells of a descriptor that is watched by edges. One that is readable is told of at once.
    pub(in crate::driver) fn tell(&self, fd: BorrowedFd<'_>, told: bool) -> Result<(), Errno> {
        let flags = if told { libc::EV_ADD as u64 | libc::EV_CLEAR as u64 } else { libc::EV_DELETE as u64 };
        self.change(fd.as_raw_fd(), libc::EVFILT_READ as i64, flags, NO_STREAM)
    }

    /// Makes a stream known; `EPERM` for descriptors that have no events, and so are always ready.
    pub(in crate::driver) fn add_stream(&self, fd: RawFd, number: u64) -> Result<(), Errno> {
        // Nothing is asked for yet, but whether it could be: an end of a pipe may know one direction only. A report that is taken
        // in between is one too many.
        let mut answer = Ok(());
        for (_, filter) in DIRECTIONS {
            answer = self.change(fd, filter, libc::EV_ADD as u64, number);
            if answer.is_ok() {
                return self.change(fd, filter, libc::EV_DELETE as u64, number);
            }
        }
        match answer {
            Err(Errno(libc::EBADF | libc::ENOMEM | libc::ENOSPC)) => answer,
            Err(_) => Err(Errno(libc::EPERM)),
            Ok(()) => answer,
        }
    }

    /// Asks for one report of any of `events`; 0 asks for none.
    pub(in crate::driver) fn arm_stream(&self, fd: RawFd, number: u64, events: i32) -> Result<(), Errno> {
        for (bit, filter) in DIRECTIONS {
            if events & bit != 0 {
                self.change(fd, filter, (libc::EV_ADD | libc::EV_ENABLE | libc::EV_ONESHOT) as u64, number)?;
            } else {
                // One that has fired, or was never asked for, is not there: that is what we want.
                let _ = self.change(fd, filter, libc::EV_DELETE as u64, number);
            }
        }
        Ok(())
    }

    /// Forgets a stream.
    pub(in crate::driver) fn remove_stream(&self, fd: RawFd, number: u64) {
        // No event is asked for, and none is kept.
        let _ = self.arm_stream(fd, number, 0);
    }

    /// Waits until there is something to tell; without a timeout for as long as it takes. A signal ends it, with nothing.
    pub(in crate::driver) fn wait(&self, events: &mut Events, timeout: Option<Duration>) {
        let limit = timeout.map(|timeout| {
            // SAFETY: a C structure of numbers, for which zeroes are values.
            let mut limit: libc::timespec = unsafe { std::mem::zeroed() };
            // Some systems refuse more seconds than they can add up; the caller comes back. A day is never early.
            limit.tv_sec = timeout.as_secs().min(24 * 60 * 60) as _;
            limit.tv_nsec = timeout.subsec_nanos() as _;
            limit
        });
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: nothing is changed; the kernel fills at most EVENTS entries of the array, and reads the time limit.
        let count =
            unsafe { libc::kevent(self.0.as_raw_fd(), ptr::null(), 0, events.events.as_mut_ptr(), EVENTS as _, limit) };
        // EINTR: a signal. The caller looks and comes back.
        events.count = usize::try_from(count).unwrap_or(0);
    }

    fn change(&self, fd: RawFd, filter: i64, flags: u64, number: u64) -> Result<(), Errno> {
        let change = change(fd, filter, flags, number);
        loop {
            // SAFETY: one change, read during the call; no room for events, so that an error is the call's own.
            match unsafe { libc::kevent(self.0.as_raw_fd(), &raw const change, 1, ptr::null_mut(), 0, ptr::null()) } {
                -1 => match Errno::last() {
                    Errno(libc::EINTR) => {}
                    errno => return Err(errno),
                },
                _ => return Ok(()),
            }
        }
    }
}

impl AsFd for Selector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
