//! What this backend calls: the five system calls and their structures, without libaio.
//!
//! Names and layouts are those of `include/uapi/linux/aio_abi.h`; the ring is private to `fs/aio.c` but has been the same
//! since Linux 2.6 and is read in user space by fio, QEMU and Seastar. Nothing here keeps state or decides anything.
//!
//! # References
//! `io_setup(2)`, `io_submit(2)`, `io_getevents(2)`, `io_destroy(2)`, `eventfd(2)`; `fs/aio.c` in the kernel's source.

#![allow(unsafe_code)]

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::completion::Errno;
use crate::os;

/// `aio_context_t`: the address of the ring in this process.
pub(super) type ContextId = libc::c_ulong;

/// `IOCB_CMD_*`. 4 was the experimental `PREADX`, 5 is `POLL`, 6 `NOOP` (which no kernel implements).
pub(super) const IOCB_CMD_PREAD: u16 = 0;
pub(super) const IOCB_CMD_PWRITE: u16 = 1;
pub(super) const IOCB_CMD_FSYNC: u16 = 2;
pub(super) const IOCB_CMD_FDSYNC: u16 = 3;
pub(super) const IOCB_CMD_PREADV: u16 = 7;
pub(super) const IOCB_CMD_PWRITEV: u16 = 8;

/// `aio_resfd` is valid: signal it with each completion.
pub(super) const IOCB_FLAG_RESFD: u32 = 1 << 0;

/// `aio_reqprio` is valid: the request's own priority. Since Linux 4.18; ignored before.
pub(super) const IOCB_FLAG_IOPRIO: u32 = 1 << 1;

/// The write completes when its data is durable. Since Linux 4.13, as every flag here.
pub(super) const RWF_DSYNC: i32 = 0x2;
/// The same, with all metadata.
pub(super) const RWF_SYNC: i32 = 0x4;
/// Answer `EAGAIN` instead of blocking. `include/uapi/linux/fs.h`; kernels before 4.13 answer `EINVAL` to any flag here.
pub(super) const RWF_NOWAIT: i32 = 0x8;

/// `AIO_RING_MAGIC`.
pub(super) const RING_MAGIC: u32 = 0xa10a_10a1;
/// `AIO_RING_INCOMPAT_FEATURES`: a kernel that sets any bit has a ring that we do not know.
pub(super) const RING_INCOMPAT_FEATURES: u32 = 0;

/// `struct iocb`: one operation.
///
/// The kernel copies it inside `io_submit` and never looks at it again (it only remembers the address, for `io_cancel`
/// and [`IoEvent::obj`]), so that it need not outlive the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Iocb {
    /// Comes back in [`IoEvent::data`].
    pub(super) data: u64,
    /// Written by the kernel (`KIOCB_KEY`, always 0). The pair with `rw_flags` is swapped by the byte order: both were
    /// once one 64-bit word.
    #[cfg(target_endian = "little")]
    pub(super) key: u32,
    /// `RWF_*`. Must be 0 for `FSYNC` and `FDSYNC`.
    pub(super) rw_flags: i32,
    #[cfg(target_endian = "big")]
    pub(super) key: u32,
    /// `IOCB_CMD_*`.
    pub(super) opcode: u16,
    pub(super) reqprio: i16,
    pub(super) fildes: u32,
    /// Address of the memory, or of the iovecs. Must be 0 for `FSYNC` and `FDSYNC`, and so must the next two.
    pub(super) buf: u64,
    /// Length in bytes, or the number of iovecs.
    pub(super) nbytes: u64,
    /// Offset in the file in bytes.
    pub(super) offset: i64,
    /// Must be 0.
    pub(super) reserved2: u64,
    /// `IOCB_FLAG_*`.
    pub(super) flags: u32,
    /// The eventfd.
    pub(super) resfd: u32,
}

impl Iocb {
    /// Every field zero: what those that a command does not use have to be (`EINVAL` otherwise).
    pub(super) const ZERO: Self = Self {
        data: 0,
        key: 0,
        rw_flags: 0,
        opcode: 0,
        reqprio: 0,
        fildes: 0,
        buf: 0,
        nbytes: 0,
        offset: 0,
        reserved2: 0,
        flags: 0,
        resfd: 0,
    };
}

/// `struct io_event`: one completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct IoEvent {
    /// [`Iocb::data`] of the operation.
    pub(super) data: u64,
    /// Address of its iocb, which is long gone.
    pub(super) obj: u64,
    /// Bytes transferred, or a negative error number.
    pub(super) res: i64,
    /// "Secondary result". Only USB gadgets ever set it, and since Linux 5.16 it is always 0.
    pub(super) res2: i64,
}

/// `struct aio_ring`, followed by `nr` [`IoEvent`]s.
///
/// Kernel and process share it. `tail` is the kernel's to write, `head` is the reader's: the process's when it reads by
/// itself, the kernel's inside `io_getevents`, under a lock that only the kernel has.
#[repr(C)]
pub(super) struct RingHeader {
    /// Index of the context in the kernel's table.
    pub(super) id: u32,
    /// Places for events. One always stays empty, so that full differs from empty.
    pub(super) nr: u32,
    pub(super) head: AtomicU32,
    pub(super) tail: AtomicU32,
    pub(super) magic: u32,
    pub(super) compat_features: u32,
    pub(super) incompat_features: u32,
    /// Size of this header in bytes.
    pub(super) header_length: u32,
}

/// `struct __kernel_old_timespec`, which is what `io_getevents` takes: `long` twice, on 32-bit machines too.
#[repr(C)]
struct KernelTimespec {
    seconds: libc::c_long,
    nanoseconds: libc::c_long,
}

const _: () = {
    assert!(size_of::<Iocb>() == 64);
    assert!(offset_of!(Iocb, key) == if cfg!(target_endian = "little") { 8 } else { 12 });
    assert!(offset_of!(Iocb, rw_flags) == if cfg!(target_endian = "little") { 12 } else { 8 });
    assert!(offset_of!(Iocb, opcode) == 16 && offset_of!(Iocb, fildes) == 20);
    assert!(offset_of!(Iocb, buf) == 24 && offset_of!(Iocb, nbytes) == 32 && offset_of!(Iocb, offset) == 40);
    assert!(offset_of!(Iocb, flags) == 56 && offset_of!(Iocb, resfd) == 60);
    assert!(size_of::<IoEvent>() == 32);
    assert!(size_of::<RingHeader>() == 32 && offset_of!(RingHeader, head) == 8 && offset_of!(RingHeader, magic) == 16);
    assert!(size_of::<ContextId>() == size_of::<usize>());
    assert!(
        !(cfg!(target_arch = "x86_64") && cfg!(target_pointer_width = "32")),
        "on x32 the kernel's long has 64 bits and libc's has 32: build without the feature kernel-aio"
    );
};

/// Makes a context for `events` requests in flight.
///
/// # Errors
/// `EAGAIN` (`fs.aio-max-nr` would be exceeded), `EINVAL` (0, or millions), `ENOMEM`, `ENOSYS` (no AIO in this kernel),
/// and whatever a seccomp filter answers, mostly `EPERM`.
pub(super) fn io_setup(events: u32) -> Result<ContextId, Errno> {
    let mut context: ContextId = 0;
    // SAFETY: the kernel writes one `aio_context_t` to `context`, which lives across the call.
    match unsafe { libc::syscall(libc::SYS_io_setup, events, &raw mut context) } {
        0 => Ok(context),
        _ => Err(Errno::last()),
    }
}

/// Ends a context: cancels what can be cancelled (polls), **waits for everything else**, and unmaps the ring.
///
/// (`kill_ioctx` hands over a completion, on which the call sleeps until the last request has dropped its reference.)
/// Events that nobody has read are lost with the ring.
///
/// # Safety
/// The context is live in this process, and nobody reads its ring or passes it to a system call any more.
pub(super) unsafe fn io_destroy(context: ContextId) -> Result<(), Errno> {
    // SAFETY: forwarded to the caller; the call unmaps the ring.
    match unsafe { libc::syscall(libc::SYS_io_destroy, context) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

/// Offers operations to the kernel; returns how many it took, counted from the first.
///
/// # Errors
/// Only when it took none: the error is about the **first** one, or the context (`do_io_submit` returns `i ? i : ret`).
///
/// # Safety
/// Each pointer names an iocb that is valid for reads and writes (of `key`) during the call. The memory that the iocbs of
/// accepted operations name stays valid, and is used by nobody else, until their events.
pub(super) unsafe fn io_submit(context: ContextId, iocbs: &[*mut Iocb]) -> Result<usize, Errno> {
    let count = iocbs.len() as libc::c_long;
    // SAFETY: forwarded to the caller. The array of pointers is read during the call only.
    let taken = unsafe { libc::syscall(libc::SYS_io_submit, context, count, iocbs.as_ptr()) };
    usize::try_from(taken).map_err(|_| Errno::last())
}

/// Takes events out of the ring, under the kernel's lock: waits until `min` are there or `timeout` has passed
/// (`None`: without a limit), and takes `events.len()` at the most. Returns how many.
///
/// # Errors
/// `EINTR` when a signal came and nothing was there (even with a `timeout` of 0). Interrupted after the first event, it
/// returns fewer than `min` without an error.
///
/// # Safety
/// The context is live, and nobody reads events in the ring in user space meanwhile: this call moves its head.
pub(super) unsafe fn io_getevents(
    context: ContextId,
    min: usize,
    events: &mut [IoEvent],
    timeout: Option<Duration>,
) -> Result<usize, Errno> {
    let timeout = timeout.map(|timeout| KernelTimespec {
        seconds: libc::c_long::try_from(timeout.as_secs()).unwrap_or(libc::c_long::MAX),
        nanoseconds: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (min, most) = (min as libc::c_long, events.len() as libc::c_long);
    // SAFETY: the kernel writes at most `most` events, which `events` has room for; the rest is the caller's promise.
    let got = unsafe { libc::syscall(libc::SYS_io_getevents, context, min, most, events.as_mut_ptr(), timeout) };
    // A kernel never returns more than it was asked for; `min` keeps a broken one (or an injected lie) from reaching a slice.
    usize::try_from(got).map(|got| got.min(events.len())).map_err(|_| Errno::last())
}

/// An eventfd that does not block and does not survive `exec`.
pub(super) fn eventfd() -> Result<OwnedFd, Errno> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the call made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `fd` has no file position: a pipe, socket or terminal (`ESPIPE`).
pub(super) fn is_unseekable(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: takes no pointers; moves nothing.
    let position = unsafe { os::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) };
    position < 0 && Errno::last() == Errno(libc::ESPIPE)
}
