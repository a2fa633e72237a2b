//! What this backend calls: the C library's `aio_*` functions and `fcntl(F_DUPFD_CLOEXEC)`. Nothing here decides anything.
//!
//! The names are `libc`'s. Older C libraries have them in `librt` (glibc before 2.34), newer ones in the C library itself
//! with an empty `librt` beside it: linking against both is right everywhere.
//!
//! # References
//! `aio(7)`, `aio_read(3)`, `aio_error(3)`, `aio_suspend(3)`, `aio_cancel(3)`, `fcntl(2)`; `rt/` in glibc's source.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::os::fd::RawFd;
use std::ptr;

use crate::completion::{Errno, Outcome};

#[cfg_attr(target_os = "linux", link(name = "rt"))]
unsafe extern "C" {}

cfg_if::cfg_if! {
    // There `off_t` may have 32 bits; the control block has room for 64, which only these functions look at.
    if #[cfg(all(target_env = "gnu", target_pointer_width = "32"))] {
        unsafe extern "C" {
            fn aio_read64(block: *mut libc::aiocb) -> libc::c_int;
            fn aio_write64(block: *mut libc::aiocb) -> libc::c_int;
        }
    } else {
        use libc::{aio_read as aio_read64, aio_write as aio_write64};
    }
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    /// `fsync`.
    SyncAll,
    /// `fdatasync`.
    SyncData,
}

/// One operation, as a control block describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) call: Call,
    /// The descriptor, or a duplicate of it.
    pub(super) fd: RawFd,
    /// Offset in the file in bytes.
    pub(super) offset: i64,
    pub(super) memory: *mut u8,
    /// Length in bytes.
    pub(super) length: usize,
}

/// What `aio_cancel(3)` says of the requests that it was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// None had begun; all have ended with `ECANCELED`.
    All,
    /// At least one is running.
    NotAll,
    /// They had ended before.
    Ended,
}

/// A control block. It stays where it is for as long as the C library may look at it.
///
/// It is *in flight* from a [`send`](Self::send) that succeeded to the [`collect`](Self::collect) that returned an outcome.
pub(super) struct Block(UnsafeCell<libc::aiocb>);

// SAFETY: a control block is bound to no thread; `send` and `collect` demand that callers take turns.
unsafe impl Send for Block {}
// SAFETY: as above. What is shared is the address.
unsafe impl Sync for Block {}

impl Block {
    pub(super) fn new() -> Self {
        // SAFETY: a C structure of numbers and pointers, for which zeroes are values.
        Self(UnsafeCell::new(unsafe { std::mem::zeroed() }))
    }

    /// What names it in a list for [`suspend`].
    pub(super) fn address(&self) -> *const libc::aiocb {
        self.0.get()
    }

    /// Hands the operation to the C library. Whatever the block held before is overwritten.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`: no room, or no thread to be had. Then the block is not in flight.
    ///
    /// # Safety
    /// The block is not in flight, and nobody else uses it meanwhile. While it is in flight it stays where it is, the
    /// descriptor stays open, and the memory is valid for the call, and used by nobody else.
    pub(super) unsafe fn send(&self, operation: &Operation) -> Result<(), Errno> {
        // SAFETY: zeroes are values, see `new`. Its `aio_reqprio` must stay 0: others would reorder a descriptor's queue.
        let mut block: libc::aiocb = unsafe { std::mem::zeroed() };
        block.aio_fildes = operation.fd;
        block.aio_buf = operation.memory.cast();
        block.aio_nbytes = operation.length;
        block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        let at = self.0.get();
        // SAFETY: the caller has the block for itself. The offset has eight bytes, also where `off_t` has four: what follows
        // it there is padding for just that.
        unsafe {
            at.write(block);
            (&raw mut (*at).aio_offset).cast::<i64>().write_unaligned(operation.offset);
        }
        // SAFETY: the caller's promises are what the functions ask for.
        let answer = unsafe {
            match operation.call {
                Call::Read => aio_read64(at),
                Call::Write => aio_write64(at),
                Call::SyncAll => libc::aio_fsync(libc::O_SYNC, at),
                Call::SyncData => libc::aio_fsync(libc::O_DSYNC, at),
            }
        };
        if answer == 0 { Ok(()) } else { Err(Errno::last()) }
    }

    /// What became of the operation, if it is over: then the block is no longer in flight.
    ///
    /// # Safety
    /// The block is in flight, and nobody else collects it.
    pub(super) unsafe fn collect(&self) -> Option<Outcome> {
        let at = self.0.get();
        // SAFETY: the block is in flight. (glibc takes its lock in here: what its thread did happened before.)
        let errno = match unsafe { libc::aio_error(at) } {
            libc::EINPROGRESS => return None,
            // Not known as a control block in use: impossible for one in flight.
            -1 => Errno::last().0,
            errno => errno,
        };
        // SAFETY: it is over, and asked for once: afterwards it is not in flight.
        let count = unsafe { libc::aio_return(at) };
        Some(if errno == 0 { u64::try_from(count).map_err(|_| Errno(libc::EIO)) } else { Err(Errno(errno)) })
    }
}

/// Sleeps until one of the listed blocks is over. Without a time limit: its clock is the wrong one in some versions of glibc
/// (bug 32795).
///
/// # Errors
/// `EINTR`: a signal.
///
/// # Safety
/// The blocks are in flight and stay where they are.
pub(super) unsafe fn suspend(blocks: &[*const libc::aiocb]) -> Result<(), Errno> {
    let count = libc::c_int::try_from(blocks.len()).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: the list lives across the call, and what it names lives by the caller's promise.
    match unsafe { libc::aio_suspend(blocks.as_ptr(), count, ptr::null()) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

/// Ends the descriptor's requests that have not begun: that of `block`, or all.
///
/// # Errors
/// `EBADF`, `EINVAL`: nothing is known of the descriptor or the block.
///
/// # Safety
/// The block is in flight.
pub(super) unsafe fn cancel(fd: RawFd, block: Option<&Block>) -> Result<Cancelled, Errno> {
    let block = block.map_or(ptr::null_mut(), |block| block.0.get());
    // SAFETY: the block is in flight by the caller's promise; none stands for all.
    match unsafe { libc::aio_cancel(fd, block) } {
        libc::AIO_CANCELED => Ok(Cancelled::All),
        libc::AIO_NOTCANCELED => Ok(Cancelled::NotAll),
        libc::AIO_ALLDONE => Ok(Cancelled::Ended),
        _ => Err(Errno::last()),
    }
}

/// Another descriptor of the same open file description.
///
/// # Errors
/// `EMFILE`; `EBADF`.
pub(super) fn duplicate(fd: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: takes no pointers. Above the three standard ones, as every descriptor that a program does not know of.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(Errno::last()),
        duplicate => Ok(duplicate),
    }
}

/// Closes a descriptor that [`duplicate`] made.
///
/// # Safety
/// Nobody uses it any more.
pub(super) unsafe fn close(fd: RawFd) {
    // SAFETY: the caller's promise. An error tells of data that some file system did not write: the descriptor itself is
    // closed next, and tells it again.
    unsafe { libc::close(fd) };
}

/// A limit of the system; `None` where there is none.
pub(super) fn limit(name: libc::c_int) -> Option<usize> {
    // SAFETY: takes no pointers.
    usize::try_from(unsafe { libc::sysconf(name) }).ok()
}

/// How many descriptors the process may have open.
pub(super) fn open_files() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for what is written.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0;
    if failed { 0 } else { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) }
}
