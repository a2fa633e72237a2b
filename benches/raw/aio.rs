//! Kernel AIO by hand: the system calls, and the completion ring in memory. As little as a program needs that does nothing
//! else; no line of the crate runs in it.

// Whoever mounts it uses a part of it.
#![allow(dead_code)]

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// `IOCB_CMD_PREAD`.
pub(crate) const PREAD: u16 = 0;
/// `IOCB_CMD_PWRITE`.
pub(crate) const PWRITE: u16 = 1;

/// `struct iocb` of `linux/aio_abi.h`, on a little-endian machine.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Iocb {
    pub(crate) data: u64,
    pub(crate) key: u32,
    pub(crate) rw_flags: u32,
    pub(crate) opcode: u16,
    pub(crate) reqprio: i16,
    pub(crate) fildes: u32,
    pub(crate) buf: u64,
    pub(crate) nbytes: u64,
    pub(crate) offset: i64,
    pub(crate) reserved: u64,
    pub(crate) flags: u32,
    pub(crate) resfd: u32,
}

/// `struct io_event`: the request's `data`, its iocb, what came of it (bytes, or a negated errno), and 0.
pub(crate) type Event = [u64; 4];

/// A context of kernel AIO.
pub(crate) struct RawContext(pub(crate) libc::c_ulong);

impl RawContext {
    /// # Panics
    /// Panics where the kernel has none to give.
    pub(crate) fn new(depth: usize) -> Self {
        Self::try_new(depth).unwrap_or_else(|error| panic!("io_setup: {error}"))
    }

    pub(crate) fn try_new(depth: usize) -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one context through the pointer.
        match unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) } {
            0 => Ok(Self(context)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Submits all of them, in as few calls as the kernel allows; returns how many calls those were.
    ///
    /// # Safety
    /// The iocbs, and what they point at, stay where they are until their events have come.
    pub(crate) unsafe fn submit(&self, iocbs: &[*mut Iocb]) -> io::Result<u64> {
        let (mut offered, mut calls) = (0, 0);
        while offered < iocbs.len() {
            let rest = &iocbs[offered..];
            // SAFETY: the caller's promise; the list has as many entries as it says.
            let taken = unsafe { libc::syscall(libc::SYS_io_submit, self.0, rest.len(), rest.as_ptr()) };
            // It takes one at least, or says why not.
            offered += usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
            calls += 1;
        }
        Ok(calls)
    }

    /// Sleeps until there is an event, for `patience` at the most; returns how many there are. 0: interrupted, or nothing came.
    pub(crate) fn wait(&self, events: &mut [Event], patience: Option<&libc::timespec>) -> usize {
        let (room, to) = (events.len(), events.as_mut_ptr());
        let patience = patience.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: there is room for as many events as are asked for.
        let got = unsafe { libc::syscall(libc::SYS_io_getevents, self.0, 1, room, to, patience) };
        usize::try_from(got).unwrap_or(0)
    }

    /// Takes events out of the ring in memory, without a system call.
    ///
    /// # Safety
    /// No other thread collects from this context: the head of the ring has one owner.
    pub(crate) unsafe fn take(&self, events: &mut [Event]) -> usize {
        let ring = self.0 as *mut u32;
        // SAFETY: `struct aio_ring` of `fs/aio.c`: id, nr, head, tail, four numbers more, and then `nr` events. The caller says
        // that nobody else moves the head.
        unsafe {
            let places = ring.add(1).read();
            let (head_at, tail_at) = (AtomicU32::from_ptr(ring.add(2)), AtomicU32::from_ptr(ring.add(3)));
            let (mut head, tail) = (head_at.load(Ordering::Relaxed), tail_at.load(Ordering::Acquire));
            let mut got = 0;
            while head != tail && got < events.len() {
                events[got] = ring.add(8).cast::<Event>().add(head as usize).read();
                got += 1;
                head = (head + 1) % places;
            }
            head_at.store(head, Ordering::Release);
            got
        }
    }
}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody uses it any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
