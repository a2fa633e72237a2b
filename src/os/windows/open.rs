//! How a path becomes a handle, and a handle that somebody else has opened one of ours.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::Path;

use super::control::{self, access};
use super::ffi;
use super::{AsRawFd as _, FromRawFd as _, Offset, OwnedFd, RawFd, SEEK_CUR, SEEK_SET, lseek};
use crate::completion::Errno;

/// The type of the flags that the crate's caller adds to an open: `FILE_FLAG_*` and `FILE_ATTRIBUTE_*` of CreateFile.
pub(crate) type CustomFlags = u32;

/// The type of all flags of an open: those of open(2), as far as there are any, and in the upper half CreateFile's.
pub(crate) type Flags = i64;

pub(crate) const O_RDONLY: Flags = 0;
pub(crate) const O_WRONLY: Flags = 1;
pub(crate) const O_RDWR: Flags = 2;
pub(crate) const O_APPEND: Flags = 1 << 2;
pub(crate) const O_CREAT: Flags = 1 << 3;
pub(crate) const O_EXCL: Flags = 1 << 4;
pub(crate) const O_TRUNC: Flags = 1 << 5;
/// No handle is inherited unless somebody says so.
pub(crate) const O_CLOEXEC: Flags = 0;
/// `FILE_FLAG_NO_BUFFERING`.
pub(crate) const O_DIRECT: Flags = custom(ffi::FILE_FLAG_NO_BUFFERING);

/// `FILE_FLAG_WRITE_THROUGH`.
#[cfg(feature = "simulated")]
pub(crate) const O_SYNCED: Flags = custom(ffi::FILE_FLAG_WRITE_THROUGH);

/// What of the caller's flags is used: all.
pub(crate) const fn custom(flags: CustomFlags) -> Flags {
    (flags as Flags) << 32
}

/// CreateFile, as `std` calls it: others may read, write and delete the file meanwhile. For overlapped I/O. `mode` is for
/// those who have such bits.
///
/// # Errors
/// That of the call; `InvalidInput` for a path with a NUL.
pub(crate) fn open(path: &Path, flags: Flags, _mode: u32) -> io::Result<OwnedFd> {
    let has = |flag| flags & flag != 0;
    let (append, wanted) = (has(O_APPEND), flags & 3);
    OpenOptions::new()
        .read(wanted != O_WRONLY)
        .write(wanted != O_RDONLY && !append)
        .append(append)
        .create(has(O_CREAT))
        .create_new(has(O_EXCL))
        .truncate(has(O_TRUNC))
        .custom_flags((flags >> 32) as u32 | ffi::FILE_FLAG_OVERLAPPED)
        .open(path)
        .map(OwnedFd::from)
}

/// What the engine works on when it is given a handle: a second one of the same file, for overlapped I/O and with the same
/// rights, where the given one was opened without. It begins at the same position. Where the file cannot be opened once more,
/// it is the handle itself: also that of a pipe, or of what was opened for overlapped I/O.
///
/// # References
/// ReOpenFile
pub(crate) fn adopt(fd: OwnedFd) -> OwnedFd {
    reopened(&fd).unwrap_or(fd)
}

fn reopened(fd: &OwnedFd) -> Option<OwnedFd> {
    let raw = fd.as_raw_fd();
    let mode = control::mode(raw)?;
    let directory = control::status(raw).ok()?.directory;
    if mode & ffi::FILE_SYNCHRONOUS_IO == 0 || directory {
        return None;
    }
    let unbuffered = mode & ffi::FILE_NO_INTERMEDIATE_BUFFERING != 0;
    let own = reopen(raw, mode, if unbuffered { ffi::FILE_FLAG_NO_BUFFERING } else { 0 }).ok()?;
    // SAFETY: seeking takes no memory of ours.
    unsafe {
        let position: Offset = lseek(raw, 0, SEEK_CUR);
        (position >= 0 && lseek(own.as_raw_fd(), position, SEEK_SET) == position).then_some(own)
    }
}

/// A second handle of the same file with the same rights, for overlapped I/O through the cache.
///
/// # Errors
/// `EACCES` where those who have opened the file keep others from it; `EOPNOTSUPP` where a handle does not tell its rights.
pub(crate) fn reopen_buffered(fd: RawFd) -> Result<OwnedFd, Errno> {
    reopen(fd, control::mode(fd).ok_or(Errno(libc::EOPNOTSUPP))?, 0)
}

fn reopen(fd: RawFd, mode: u32, flags: u32) -> Result<OwnedFd, Errno> {
    let access = access(fd).ok_or(Errno(libc::EOPNOTSUPP))?;
    let through = if mode & ffi::FILE_WRITE_THROUGH != 0 { ffi::FILE_FLAG_WRITE_THROUGH } else { 0 };
    // SAFETY: takes no pointer; the handle that it returns is new.
    unsafe {
        match ffi::ReOpenFile(fd, access.mask, ffi::FILE_SHARE_ALL, flags | through | ffi::FILE_FLAG_OVERLAPPED) {
            ffi::INVALID_HANDLE => Err(Errno::last()),
            handle => Ok(OwnedFd::from_raw_fd(handle)),
        }
    }
}
