//! What ends the sleep of who waits: the time of a delayed request, or whatever the backend below has to tell.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// A timerfd; and around that and the descriptor of the backend below, where it has one, an epoll instance.
#[derive(Debug)]
pub(super) struct Timer {
    timer: OwnedFd,
    both: Option<OwnedFd>,
}

impl Timer {
    pub(super) fn new(below: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
        let timer =
            unsafe { owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK))? };
        let Some(below) = below else { return Ok(Self { timer, both: None }) };
        // SAFETY: as above.
        let both = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))? };
        for inside in [timer.as_fd(), below] {
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
            // SAFETY: `event` is read during the call only.
            let added =
                unsafe { libc::epoll_ctl(both.as_raw_fd(), libc::EPOLL_CTL_ADD, inside.as_raw_fd(), &raw mut event) };
            if added != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self { timer, both: Some(both) })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.both.as_ref().unwrap_or(&self.timer).as_fd()
    }

    /// Takes the news, so that the next ones are news again.
    pub(super) fn silence(&self) {
        let Some(both) = &self.both else { return };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        // SAFETY: the kernel fills at most two entries of the array.
        unsafe { libc::epoll_wait(both.as_raw_fd(), events.as_mut_ptr(), 2, 0) };
    }

    /// Becomes readable then.
    pub(super) fn set(&self, due: Option<Instant>) {
        // 0 would mean never.
        let left = due.map(|due| due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)));
        let left = left.unwrap_or_default();
        let value = libc::timespec {
            // 68 years: as much as every system's seconds hold.
            tv_sec: left.as_secs().min(i32::MAX as u64) as _,
            tv_nsec: left.subsec_nanos() as libc::c_long,
        };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: never, it_value: value };
        // SAFETY: `setting` is read during the call only. It cannot fail for a time that is well formed.
        unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) };
    }
}

/// # Safety
/// The descriptor is new, or -1.
unsafe fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
