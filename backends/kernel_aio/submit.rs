//! Turns requests into iocbs and offers them to the kernel, a chunk at a time.
//!
//! `io_submit` takes operations in order and stops at the first that it refuses: it returns how many it took, or, when
//! that is none, the error *of the first*. So what a call leaves is offered again at once: the call then either goes on or
//! tells the error of the one request that it is about, and only that one goes back to the router.
//!
//! A request is parked before the call, because its completion can be reaped before the call returns. From there on it
//! belongs to whoever takes it back first, reaper or submitter ([`Batch::reclaim`]), which is also who counts it out of
//! what is in flight.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::abi::{self, Iocb};
use super::{InFlight, Live};
use crate::backend::{Batch, Refusal};
use crate::completion::Errno;
use crate::how::Durability;
use crate::request::{OpKind, Request, RequestId};

/// Requests in one system call. Enough to spread its cost over, and few enough not to hold the caller up: 1853 in one call
/// kept it for 4 ms, so that 64 are about 0.1 ms.
const CHUNK: usize = 64;
/// `io_submit` is not known to answer `EINTR` at all. So many in a row are a lie, and treated as a full queue.
const INTERRUPTIONS: u32 = 64;

/// [`Backend::submit`](crate::backend::Backend::submit).
pub(super) fn submit(live: &Live, in_flight: &InFlight, eventfd: BorrowedFd<'_>, batch: &mut Batch<'_>) {
    // Each round takes at least one request out of the batch, or is the last.
    while !batch.is_empty() {
        let reserved = in_flight.reserve(batch.len().min(CHUNK));
        if reserved == 0 {
            // Full: what was not taken is busy.
            return;
        }
        let mut chunk = Chunk::new();
        while chunk.len < reserved
            && let Some(request) = batch.take()
        {
            if request.is_abandoned() {
                // Nobody waits for it and nothing has happened yet. Dropping it cancels it.
                drop(request);
                continue;
            }
            match prepare(request, eventfd) {
                Ok(iocb) => chunk.push(iocb),
                Err((request, errno)) => batch.put_back(request, Refusal::Unsupported(errno)),
            }
        }
        in_flight.release(reserved - chunk.len);
        if chunk.offer(live, in_flight, batch) == Queue::Full {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// The kernel takes more.
    Open,
    /// It took no more; the rest went back as busy.
    Full,
}

/// The iocbs of one system call. They live on the stack: the kernel copies them during the call.
struct Chunk {
    /// The first `len` are written, each as a whole, so that nothing of an earlier command is left over in it.
    iocbs: [MaybeUninit<Iocb>; CHUNK],
    /// Where they are, for the kernel.
    pointers: [MaybeUninit<*mut Iocb>; CHUNK],
    /// Their requests, all parked.
    ids: [MaybeUninit<u64>; CHUNK],
    len: usize,
}

impl Chunk {
    fn new() -> Self {
        Self {
            iocbs: [const { MaybeUninit::uninit() }; CHUNK],
            pointers: [const { MaybeUninit::uninit() }; CHUNK],
            ids: [const { MaybeUninit::uninit() }; CHUNK],
            len: 0,
        }
    }

    fn push(&mut self, iocb: Iocb) {
        self.ids[self.len].write(iocb.data);
        self.iocbs[self.len].write(iocb);
        self.len += 1;
    }

    /// The ids of the requests.
    fn ids(&self) -> &[u64] {
        // SAFETY: `push` has written the first `len`.
        unsafe { std::slice::from_raw_parts(self.ids.as_ptr().cast(), self.len) }
    }

    /// Offers all of them, until each is either in the kernel or back in the batch.
    fn offer(&mut self, live: &Live, in_flight: &InFlight, batch: &mut Batch<'_>) -> Queue {
        let base: *mut Iocb = self.iocbs.as_mut_ptr().cast();
        for (at, pointer) in self.pointers[..self.len].iter_mut().enumerate() {
            // `wrapping_add` because that needs no promise: the address lies within the array.
            pointer.write(base.wrapping_add(at));
        }
        // SAFETY: the first `len` were written just now.
        let pointers: &[*mut Iocb] = unsafe { std::slice::from_raw_parts(self.pointers.as_ptr().cast(), self.len) };
        let (mut first, mut interruptions) = (0, 0);
        while first < self.len {
            // SAFETY: the pointers name iocbs that `push` wrote; they live, and are not touched by us, as long as
            // `self` is borrowed. The memory that they name is the requests', which were started and parked by `prepare`:
            // the engine keeps it until they come back by their events, or by `give_back` where there will be none.
            match unsafe { abi::io_submit(live.context.id(), &pointers[first..]) } {
                // Nothing taken and no error. No kernel does this; going on would never end.
                Ok(0) => return self.give_back_from(first, in_flight, batch),
                Ok(taken) => first += taken.min(self.len - first),
                Err(Errno(libc::EINTR)) if interruptions < INTERRUPTIONS => interruptions += 1,
                Err(Errno(libc::EAGAIN | libc::EINTR)) => return self.give_back_from(first, in_flight, batch),
                Err(errno) => {
                    give_back(self.ids()[first], Refusal::Unsupported(errno), in_flight, batch);
                    first += 1;
                }
            }
        }
        Queue::Open
    }

    /// Gives everything from `first` on back as busy, in order.
    fn give_back_from(&self, first: usize, in_flight: &InFlight, batch: &mut Batch<'_>) -> Queue {
        for id in &self.ids()[first..] {
            give_back(*id, Refusal::Busy, in_flight, batch);
        }
        Queue::Full
    }
}

/// Gives back a request that the kernel did not take.
pub(super) fn give_back(id: u64, refusal: Refusal, in_flight: &InFlight, batch: &mut Batch<'_>) {
    // Where it cannot be reclaimed its completion was already reaped: so the kernel did take it, whatever it said. It is the
    // reaper's, and counted out by it.
    // SAFETY: `prepare` has parked it, and the system call has refused it.
    if let Some(mut request) = unsafe { batch.reclaim(RequestId::from_u64(id)) } {
        in_flight.release(1);
        // SAFETY: the system call has refused it: the kernel holds no pointers of it, and the iocb is not offered again.
        unsafe { request.retract() };
        batch.put_back(request, refusal);
    }
}

/// Starts and parks a request, and makes its iocb; or says why it cannot be served here.
fn prepare(mut request: Request, eventfd: BorrowedFd<'_>) -> Result<Iocb, (Request, Errno)> {
    let mut iocb = match describe(&request) {
        Ok(iocb) => iocb,
        Err(errno) => return Err((request, errno)),
    };
    // SAFETY: the memory goes to the kernel only, for what the kind says, and is the kernel's until the event or
    // `give_back`. The slice of iovecs stays where it is just as long.
    let iovecs = unsafe { request.start() };
    match (iovecs, iocb.opcode) {
        (_, abi::IOCB_CMD_FSYNC | abi::IOCB_CMD_FDSYNC) => {}
        ([], _) => {}
        ([one], _) => {
            iocb.buf = one.base.expose_provenance() as u64;
            iocb.nbytes = one.len as u64;
        }
        (many, opcode) => {
            let vectored = if opcode == abi::IOCB_CMD_PREAD { abi::IOCB_CMD_PREADV } else { abi::IOCB_CMD_PWRITEV };
            iocb.opcode = vectored;
            iocb.buf = many.as_ptr().expose_provenance() as u64;
            iocb.nbytes = many.len() as u64;
        }
    }
    // Each completion signals the eventfd: whoever sleeps on it must not miss one.
    iocb.flags |= abi::IOCB_FLAG_RESFD;
    iocb.resfd = eventfd.as_raw_fd() as u32;
    iocb.data = request.park().to_u64();
    Ok(iocb)
}

/// Everything of the iocb but the memory and what all have in common.
pub(super) fn describe(request: &Request) -> Result<Iocb, Errno> {
    // A virtual file is unknown to this kernel, though not to every backend.
    let fd = request.descriptor().ok_or(Errno(libc::EOPNOTSUPP))?;
    let opcode = match request.kind() {
        OpKind::Read => abi::IOCB_CMD_PREAD,
        OpKind::Write => abi::IOCB_CMD_PWRITE,
        OpKind::SyncAll => abi::IOCB_CMD_FSYNC,
        OpKind::SyncData => abi::IOCB_CMD_FDSYNC,
        _ => return Err(Errno(libc::EOPNOTSUPP)),
    };
    // A negative number becomes one that no process has, and the kernel's answer is the right one: `EBADF`.
    let mut iocb = Iocb { opcode, fildes: fd as u32, ..Iocb::ZERO };
    if request.kind().is_transfer() {
        if request.is_stream() && !request.nowait() {
            // It would wait inside `io_submit` for the other end.
            return Err(Errno(libc::EOPNOTSUPP));
        }
        iocb.offset = offset(request, fd)?;
        if request.appends() {
            // It would have to wait for its turn inside `io_submit`.
            return Err(Errno(libc::EOPNOTSUPP));
        }
        iocb.rw_flags = if request.nowait() { abi::RWF_NOWAIT } else { 0 };
        iocb.rw_flags |= match request.durability() {
            Durability::Later => 0,
            Durability::Data => abi::RWF_DSYNC,
            Durability::All => abi::RWF_SYNC,
        };
        if let Some(priority) = request.priority() {
            iocb.reqprio = priority.to_ioprio().ok_or(Errno(libc::EINVAL))? as i16;
            iocb.flags |= abi::IOCB_FLAG_IOPRIO;
        }
    }
    Ok(iocb)
}

/// The offset to give to the kernel in bytes.
fn offset(request: &Request, fd: std::os::fd::RawFd) -> Result<i64, Errno> {
    match request.position() {
        Some(position) => i64::try_from(position).map_err(|_| Errno(libc::EINVAL)),
        None if request.is_stream() || fd < 0 => Ok(0),
        // The kernel's AIO has no "at the file's own position": right only where there is none.
        // SAFETY: the request keeps its descriptor open.
        None if abi::is_unseekable(unsafe { BorrowedFd::borrow_raw(fd) }) => Ok(0),
        None => Err(Errno(libc::EOPNOTSUPP)),
    }
}
