//! Descriptors, and the C library's calls.
//!
//! Those that Linux has twice have offsets of 64 bits, on 32-bit machines too. The plain names have offsets of 32 bits there,
//! so that a cast would send a transfer to another place of the file, and files of 2 GiB and more answer `EOVERFLOW`. Nothing
//! in the crate uses those. (`off64_t` is what the others have anyway.)
//!
//! # References
//! feature_test_macros(7), `_FILE_OFFSET_BITS`

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

pub(crate) use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

pub(crate) use libc::{
    EDQUOT, ESHUTDOWN, ESTALE, O_APPEND, O_CLOEXEC, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, POLLERR,
    POLLIN, POLLOUT, SEEK_CUR, SEEK_SET, c_short, close, iovec, read, readv, write, writev,
};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use libc::fsync;

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        pub(crate) use libc::{
            fallocate64 as fallocate, fstat64 as fstat, ftruncate64 as ftruncate, lseek64 as lseek, off64_t as Offset,
            posix_fadvise64 as posix_fadvise, pread64 as pread, preadv64 as preadv, pwrite64 as pwrite,
            pwritev64 as pwritev, stat64 as Stat,
        };
    } else {
        pub(crate) use libc::{fstat, ftruncate, lseek, off_t as Offset, pread, preadv, pwrite, pwritev, stat as Stat};
    }
}

/// The type of the flags that the crate's caller adds to an open: those of open(2).
pub(crate) type CustomFlags = i32;

/// The type of all flags of an open.
pub(crate) type Flags = i32;

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd"))] {
        pub(crate) use libc::O_DIRECT;
    } else {
        // No such flag: `Preferred` is then buffered.
        pub(crate) const O_DIRECT: i32 = 0;
    }
}

/// Either: each write is on the disk when it is over.
#[cfg(feature = "simulated")]
pub(crate) const O_SYNCED: Flags = libc::O_DSYNC | libc::O_SYNC;

/// What of the caller's flags is used: access mode bits are the crate's.
pub(crate) const fn custom(flags: CustomFlags) -> Flags {
    flags & !libc::O_ACCMODE
}

/// An error's number; `None` where it has none.
pub(crate) fn number_of(error: &io::Error) -> Option<i32> {
    error.raw_os_error()
}

/// The error of a number.
pub(crate) fn error_of(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// `open(2)`, called again where a signal has ended it. `flags`: all of them, also those that the caller of the crate has added.
///
/// # Errors
/// That of the call; `InvalidInput` for a path with a NUL byte.
pub(crate) fn open(path: &Path, flags: Flags, mode: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path contains a NUL byte"))?;
    loop {
        // SAFETY: `path` is a C string; open(2) takes nothing else by pointer.
        let fd = unsafe { libc::open(path.as_ptr(), flags, mode as libc::c_uint) };
        if fd >= 0 {
            // SAFETY: the descriptor is new and nobody else's.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A descriptor that stays somebody else's.
///
/// # Safety
/// It is open as long as what is returned lives.
pub(crate) unsafe fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: forwarded to the caller.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// What the engine works on when it is given a descriptor: that descriptor.
pub(crate) fn adopt(fd: OwnedFd) -> OwnedFd {
    fd
}

/// Whether all writes go to the end of the file (`O_APPEND`); `None` where the descriptor does not tell.
pub(crate) fn is_append(fd: RawFd) -> Option<bool> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    (flags != -1).then_some(flags & libc::O_APPEND != 0)
}

/// Whether the caller has made the descriptor non-blocking.
pub(crate) fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags != -1 && flags & libc::O_NONBLOCK != 0
}

/// Which of `events` poll(2) tells of a descriptor now, without waiting for any.
pub(crate) fn poll(fd: RawFd, events: c_short) -> c_short {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one pollfd, for the duration of the call; a timeout of 0 does not sleep.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents
}

/// CPU time of this thread: to the nanosecond, where that of getrusage(2) moves with the timer's tick.
pub(crate) fn thread_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: clock_gettime(2) fills the structure; all zeroes is a value of it, should it fail.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Tells the other end of a socket that nothing more comes.
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
pub(crate) fn shutdown_writing(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointer is passed.
    if unsafe { libc::shutdown(fd, libc::SHUT_WR) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
