//! Handles, and what Windows has in place of the C library's calls.
//!
//! A handle is used for overlapped I/O wherever it can be: each transfer says where it goes, and the file's position stays
//! where it is. The crate opens files so ([`open`]), and opens a second handle of one that it is given without ([`adopt`]).
//! Where neither is to be had, each transfer moves the position, and the system makes one wait for the other.

mod control;
mod errors;
mod ffi;
mod handle;
mod open;
mod transfer;

pub(crate) use self::control::{
    FileType, access, close, fsync, ftruncate, is_console, is_unbuffered, kind, length, lseek, page_size, sector_size,
    status, thread_time,
};
pub(crate) use self::errors::{EDQUOT, ESHUTDOWN, ESTALE, error_of, number_of};
pub(crate) use self::handle::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd, borrow};
pub(crate) use self::handle::{Event, MOST_WAITED_FOR, wait_for_any};
#[cfg(feature = "simulated")]
pub(crate) use self::open::O_SYNCED;
pub(crate) use self::open::{
    CustomFlags, Flags, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, adopt,
    custom, open, reopen_buffered,
};
pub(crate) use self::transfer::{append, pread, preadv, pwrite, pwritev, read, readv, write, writev};
/// A range of memory, laid out as any `struct iovec`: there is no such type here.
pub(crate) use crate::memory::IoVec as iovec;

/// The type of offsets.
pub(crate) type Offset = i64;

pub(crate) use libc::{SEEK_CUR, SEEK_SET, c_short};

// poll(2)'s events, for which nothing here has a number.
pub(crate) const POLLIN: c_short = 1;
pub(crate) const POLLOUT: c_short = 4;
pub(crate) const POLLERR: c_short = 8;

/// Nothing tells of a handle whether a transfer would wait: each is taken to be ready, and transferred by a worker, which may.
pub(crate) fn poll(_fd: RawFd, events: c_short) -> c_short {
    events
}

/// No handle is known to be a socket's.
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
pub(crate) fn shutdown_writing(_fd: RawFd) -> std::io::Result<()> {
    Err(error_of(libc::EOPNOTSUPP))
}

/// No handle answers instead of waiting.
pub(crate) fn is_nonblocking(_fd: RawFd) -> bool {
    false
}

/// Whether all writes go to the end of the file: it was opened with the right to append, and without that to write.
pub(crate) fn is_append(fd: RawFd) -> Option<bool> {
    access(fd).map(|access| access.append_only)
}
