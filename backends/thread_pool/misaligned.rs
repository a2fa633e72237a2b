//! Transfers that direct I/O refuses for their alignment.
//!
//! They go through the page cache, by the file's buffered twin; a write is flushed, and its pages are dropped from the
//! cache, so that direct requests find it on the disk. Where the file cannot be opened a second time, whole blocks go
//! through a buffer of our own (`bounce.rs`). The engine keeps conflicting requests apart meanwhile.

#![allow(unsafe_code)]

use super::{abi, bounce};
use crate::completion::{Errno, Outcome};
use crate::os::{self, RawFd};
use crate::request::{OpKind, Request};

/// Serves one misaligned transfer on the calling thread, blocking it.
///
/// # Errors
/// Those of the transfer, and of writing it back (`EIO`, `ENOSPC`). `EINVAL` where neither a twin nor a bounce buffer can
/// serve it: an append, or a partial block of a file that is open for writing only.
///
/// # References
/// open(2) on `O_DIRECT`, sync_file_range(2), posix_fadvise(2)
pub(super) fn serve(fd: RawFd, request: &mut Request) -> Outcome {
    match request.twin() {
        Ok(twin) => match request.position() {
            Some(position) => through(twin, position, request),
            None => at_position(fd, twin, request),
        },
        // It is the process that lacks something, not the file.
        Err(errno @ Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
            bounce::serve(fd, request).map_err(|other| if other.0 == libc::EINVAL { errno } else { other })
        }
        Err(_) => bounce::serve(fd, request),
    }
}

fn through(twin: RawFd, position: u64, request: &mut Request) -> Outcome {
    let n = abi::transfer(twin, Some(position), request)?;
    if request.kind() == OpKind::Write {
        // An append has gone elsewhere: to where the file ended.
        let (from, length) =
            if request.appends() || os::is_append(twin) == Some(true) { (0, 0) } else { (position, n) };
        write_back(twin, from, length)?;
    }
    Ok(n)
}

/// At the position of the descriptor, which the twin does not share.
fn at_position(fd: RawFd, twin: RawFd, request: &mut Request) -> Outcome {
    let position = seek(fd, 0, os::SEEK_CUR)?;
    seek(twin, position, os::SEEK_SET)?;
    let n = abi::transfer(twin, None, request)?;
    let after = seek(twin, 0, os::SEEK_CUR)?;
    seek(fd, after, os::SEEK_SET)?;
    if request.kind() == OpKind::Write {
        write_back(twin, after.saturating_sub(n), n)?;
    }
    Ok(n)
}

fn seek(fd: RawFd, offset: u64, whence: libc::c_int) -> Outcome {
    let offset = os::Offset::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: lseek(2) takes no pointer.
    u64::try_from(unsafe { os::lseek(fd, offset, whence) }).map_err(|_| Errno::last())
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        /// The largest page that a Linux kernel may be built with, in bytes.
        const PAGE: u64 = 64 * 1024;

        /// Writes a range back to the disk and drops its pages; a length of 0 means to the end of the file.
        fn write_back(fd: RawFd, from: u64, length: u64) -> Result<(), Errno> {
            const ALL: libc::c_uint =
                libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            // Pages that the advice below covers in part would stay.
            let (first, end) = (from - from % PAGE, (from + length).next_multiple_of(PAGE));
            let length = if length == 0 { 0 } else { end - first };
            let (from, length) = (first as libc::off64_t, length as libc::off64_t);
            // SAFETY: these calls take no pointers.
            let answer = abi::retry(|| unsafe { libc::sync_file_range(fd, from, length, ALL) } as isize);
            match answer {
                Ok(_) => {}
                // Not for this kind of file, or refused by a filter: the whole file, then.
                Err(Errno(libc::ESPIPE | libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP)) => {
                    // SAFETY: as above.
                    abi::retry(|| unsafe { libc::fdatasync(fd) } as isize)?;
                }
                Err(errno) => return Err(errno),
            }
            // Advice: what stays in the cache is invalidated by the next direct write, which then has to block for it.
            // SAFETY: as above.
            unsafe { libc::posix_fadvise64(fd, from, length, libc::POSIX_FADV_DONTNEED) };
            Ok(())
        }
    } else {
        fn write_back(fd: RawFd, _from: u64, _length: u64) -> Result<(), Errno> {
            // SAFETY: the call takes no pointer.
            abi::retry(|| unsafe { os::fsync(fd) } as isize).map(|_| ())
        }
    }
}
