//! Reads and writes: overlapped, and waited for on the spot.
//!
//! The names and the answers are those of pread(2) and the others: bytes, or -1 and an error in
//! [`Errno::last`](crate::Errno::last).
//!
//! # References
//! ReadFile, WriteFile, GetOverlappedResult; "Synchronous and Asynchronous I/O" of the Win32 documentation

#![allow(unsafe_code)]
#![allow(non_camel_case_types, reason = "`iovec` is what it is called elsewhere")]

use std::ffi::{c_int, c_void};

use super::ffi::{self, Overlapped};
use super::handle::with_own_event;
use super::{Offset, RawFd, SEEK_CUR, SEEK_SET, iovec, is_append, length, lseek};

/// The most that one call moves, in bytes: as on Linux.
const MOST_BYTES: usize = 0x7fff_f000;

/// The offset that stands for the end of the file, wherever that is by then (WriteFile, on `lpOverlapped`).
const END: u64 = u64::MAX;

// winerror.h
const ERROR_IO_PENDING: u32 = 997;
const ERROR_HANDLE_EOF: u32 = 38;
const ERROR_BROKEN_PIPE: u32 = 109;
const ERROR_MORE_DATA: u32 = 234;

/// A range to transfer: where it lies, and in which direction.
#[derive(Clone, Copy)]
struct Range {
    write: bool,
    base: *mut c_void,
    len: usize,
}

/// Transfers one range at an offset, and waits until the system is done with the memory.
///
/// # Errors
/// The code.
///
/// # Safety
/// The range may be used for what it says until the call is over.
unsafe fn transfer(fd: RawFd, range: Range, offset: u64) -> Result<usize, u32> {
    let call = |event| {
        let mut how = Overlapped {
            internal: 0,
            internal_high: 0,
            offset: offset as u32,
            offset_high: (offset >> 32) as u32,
            // The lowest bit: the completion port that the handle may be bound to is told nothing (GetQueuedCompletionStatus).
            event: event | 1,
        };
        // SAFETY: forwarded to the caller; `how` lives until the transfer is over, as `complete` sees to.
        unsafe {
            let (len, moved) = (range.len.min(MOST_BYTES) as u32, std::ptr::null_mut());
            let done = match range.write {
                true => ffi::WriteFile(fd, range.base, len, moved, &raw mut how),
                false => ffi::ReadFile(fd, range.base, len, moved, &raw mut how),
            };
            complete(fd, &mut how, done != 0)
        }
    };
    let answer = with_own_event(call).unwrap_or_else(|error| Err(error.raw_os_error().unwrap_or(0) as u32));
    match answer {
        Err(ERROR_HANDLE_EOF | ERROR_BROKEN_PIPE) if !range.write => Ok(0),
        answer => answer,
    }
}

/// Waits for a transfer that was begun, and tells what it came to. `done`: the call that began it says that it is over.
///
/// # Safety
/// `how` is what the transfer on `fd` was begun with, on this thread.
unsafe fn complete(fd: RawFd, how: &mut Overlapped, done: bool) -> Result<usize, u32> {
    // SAFETY: takes nothing.
    let code = if done { 0 } else { unsafe { ffi::GetLastError() } };
    if !done && !matches!(code, ERROR_IO_PENDING | ERROR_MORE_DATA) {
        return Err(code);
    }
    let mut moved = 0;
    // SAFETY: both are there for the call, which waits.
    if unsafe { ffi::GetOverlappedResult(fd, how, &raw mut moved, 1) } != 0 {
        return Ok(moved as usize);
    }
    // SAFETY: takes nothing.
    let code = unsafe { ffi::GetLastError() };
    // Read as the system writes it. Where the wait itself has failed, the memory may still be in use.
    // SAFETY: a field of `how`.
    if unsafe { (&raw const how.internal).read_volatile() } == ffi::STATUS_PENDING {
        eprintln!("polyaio: a transfer cannot be waited for (error {code}), and may still use its memory");
        std::process::abort();
    }
    // What did not fit of a message stays for the next read.
    if code == ERROR_MORE_DATA { Ok(how.internal_high) } else { Err(code) }
}

/// Several ranges one after the other, until one comes back short. An error counts if nothing was moved before it.
///
/// # Safety
/// As [`transfer`], for each.
unsafe fn transfer_all(fd: RawFd, write: bool, ranges: &[iovec], offset: u64) -> Result<usize, u32> {
    let mut moved = 0;
    for (index, range) in ranges.iter().enumerate() {
        let at = if offset == END { END } else { offset + moved as u64 };
        // SAFETY: forwarded to the caller.
        match unsafe { transfer(fd, Range { write, base: range.base.cast(), len: range.len }, at) } {
            Ok(n) => {
                moved += n;
                if n < range.len {
                    break;
                }
            }
            Err(_) if index > 0 => break,
            Err(code) => return Err(code),
        }
    }
    Ok(moved)
}

/// At the file's position, which is moved: the engine has one such transfer of a file under way at a time. What has no
/// position has an offset of 0, which means nothing to it.
///
/// # Safety
/// As [`transfer`], for each.
unsafe fn transfer_here(fd: RawFd, write: bool, ranges: &[iovec]) -> Result<usize, u32> {
    // SAFETY: seeking takes no memory of ours.
    let Ok(position) = u64::try_from(unsafe { lseek(fd, 0, SEEK_CUR) }) else {
        // SAFETY: forwarded to the caller.
        return unsafe { transfer_all(fd, write, ranges, 0) };
    };
    // SAFETY: forwarded to the caller.
    let moved = unsafe { transfer_all(fd, write, ranges, position)? };
    let after = match write && is_append(fd) == Some(true) {
        true => length(fd).unwrap_or(position),
        false => position + moved as u64,
    };
    // SAFETY: as above. The bytes are moved: an error would say that they are not.
    unsafe { lseek(fd, after as Offset, SEEK_SET) };
    Ok(moved)
}

/// The answer of a call of the C library.
fn answer(result: Result<usize, u32>) -> libc::ssize_t {
    match result {
        Ok(n) => n as isize,
        Err(code) => {
            // SAFETY: takes no pointer.
            unsafe { ffi::SetLastError(code) };
            -1
        }
    }
}

/// # Safety
/// The list, and the ranges that it names, may be used during the call.
unsafe fn listed<'a>(list: *const iovec, count: c_int) -> &'a [iovec] {
    // SAFETY: forwarded to the caller.
    if count > 0 { unsafe { std::slice::from_raw_parts(list, count as usize) } } else { &[] }
}

/// As pread(2).
///
/// # Safety
/// `len` bytes at `base` may be written.
pub(crate) unsafe fn pread(fd: RawFd, base: *mut c_void, len: usize, offset: Offset) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer(fd, Range { write: false, base, len }, offset as u64) })
}

/// As pwrite(2).
///
/// # Safety
/// `len` bytes at `base` may be read.
pub(crate) unsafe fn pwrite(fd: RawFd, base: *const c_void, len: usize, offset: Offset) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer(fd, Range { write: true, base: base.cast_mut(), len }, offset as u64) })
}

/// As read(2).
///
/// # Safety
/// `len` bytes at `base` may be written.
pub(crate) unsafe fn read(fd: RawFd, base: *mut c_void, len: usize) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer_here(fd, false, &[iovec { base: base.cast(), len }]) })
}

/// As write(2).
///
/// # Safety
/// `len` bytes at `base` may be read.
pub(crate) unsafe fn write(fd: RawFd, base: *const c_void, len: usize) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer_here(fd, true, &[iovec { base: base.cast_mut().cast(), len }]) })
}

/// As preadv(2), but that others may write between two ranges.
///
/// # Safety
/// The list, and the ranges that it names, may be used during the call.
pub(crate) unsafe fn preadv(fd: RawFd, list: *const iovec, count: c_int, offset: Offset) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer_all(fd, false, listed(list, count), offset as u64) })
}

/// As pwritev(2), but that others may read between two ranges.
///
/// # Safety
/// As [`preadv`].
pub(crate) unsafe fn pwritev(fd: RawFd, list: *const iovec, count: c_int, offset: Offset) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer_all(fd, true, listed(list, count), offset as u64) })
}

/// As readv(2).
///
/// # Safety
/// As [`preadv`].
pub(crate) unsafe fn readv(fd: RawFd, list: *const iovec, count: c_int) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer_here(fd, false, listed(list, count)) })
}

/// As writev(2).
///
/// # Safety
/// As [`preadv`].
pub(crate) unsafe fn writev(fd: RawFd, list: *const iovec, count: c_int) -> libc::ssize_t {
    // SAFETY: forwarded to the caller.
    answer(unsafe { transfer_here(fd, true, listed(list, count)) })
}

/// Writes to the end of the file, wherever that is: several ranges as one, so that nobody else's come between them.
///
/// # Safety
/// As [`preadv`].
pub(crate) unsafe fn append(fd: RawFd, ranges: &[iovec]) -> libc::ssize_t {
    if let [] | [_] = ranges {
        // SAFETY: forwarded to the caller.
        return answer(unsafe { transfer_all(fd, true, ranges, END) });
    }
    let mut whole = Vec::with_capacity(ranges.iter().map(|range| range.len).sum::<usize>().min(MOST_BYTES));
    for range in ranges {
        let room = MOST_BYTES - whole.len();
        // SAFETY: the caller lends the ranges.
        whole.extend_from_slice(unsafe { std::slice::from_raw_parts(range.base, range.len.min(room)) });
    }
    // SAFETY: the memory is ours.
    answer(unsafe { transfer(fd, Range { write: true, base: whole.as_mut_ptr().cast(), len: whole.len() }, END) })
}
