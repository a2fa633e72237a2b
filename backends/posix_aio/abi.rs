//! What this backend calls: the C library's `aio_*` functions and `fcntl(F_DUPFD_CLOEXEC)`. Nothing here decides anything.
//!
//! The names are `libc`'s. Older C libraries have them in `librt` (glibc before 2.34), newer ones in the C library itself
//! with an empty `librt` beside it: linking against both is right everywhere on Linux. For the BSDs `libc` does it.
//!
//! # References
//! `aio(7)`, `aio_read(3)`, `lio_listio(3)`, `aio_error(3)`, `aio_suspend(3)`, `aio_cancel(3)`, `aio_init(3)`, `fcntl(2)`;
//! `rt/` in glibc's source.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use super::suspend::called::{Ring, Told};
use crate::completion::{Errno, Outcome};

#[cfg_attr(target_os = "linux", link(name = "rt"))]
unsafe extern "C" {}

cfg_if::cfg_if! {
    // There `off_t` may have 32 bits; the control block has room for 64, which only these functions look at.
    if #[cfg(all(target_env = "gnu", target_pointer_width = "32"))] {
        unsafe extern "C" {
            fn aio_read64(block: *mut libc::aiocb) -> libc::c_int;
            fn aio_write64(block: *mut libc::aiocb) -> libc::c_int;
            fn lio_listio64(
                mode: libc::c_int,
                list: *const *mut libc::aiocb,
                count: libc::c_int,
                event: *mut libc::sigevent,
            ) -> libc::c_int;
        }
    } else {
        use libc::{aio_read as aio_read64, aio_write as aio_write64, lio_listio as lio_listio64};
    }
}

cfg_if::cfg_if! {
    if #[cfg(target_env = "gnu")] {
        /// `struct aioinit` of `<aio.h>`, which the `libc` crate has not.
        #[repr(C)]
        struct AioInit {
            threads: libc::c_int,
            requests: libc::c_int,
            unused: [libc::c_int; 4],
            /// Seconds after which idle threads end; 0 leaves it as it is.
            idle_time: libc::c_int,
            reserved: libc::c_int,
        }

        unsafe extern "C" {
            fn aio_init(init: *const AioInit);
        }

        /// Tells the C library how many threads to have at the most, and how many requests to expect. Does nothing once it
        /// has served any.
        pub(super) fn init(threads: usize, requests: usize) {
            let number = |number: usize| libc::c_int::try_from(number).unwrap_or(libc::c_int::MAX);
            let (threads, requests) = (number(threads), number(requests));
            let init = AioInit { threads, requests, unused: [0; 4], idle_time: 0, reserved: 0 };
            // SAFETY: the structure is read during the call.
            unsafe { aio_init(&raw const init) };
        }
    } else {
        /// There is nothing to tell.
        pub(super) fn init(_threads: usize, _requests: usize) {}
    }
}

cfg_if::cfg_if! {
    if #[cfg(target_os = "linux")] {
        /// `struct sigevent` of `<signal.h>` as it is read with `SIGEV_THREAD`, which the `libc` crate has not.
        #[repr(C)]
        struct Calling {
            value: libc::sigval,
            signal: libc::c_int,
            notify: libc::c_int,
            function: unsafe extern "C" fn(libc::sigval),
            /// Of the thread; null for the default ones.
            attributes: *mut libc::pthread_attr_t,
        }

        const _: () = assert!(size_of::<Calling>() <= size_of::<libc::sigevent>());
        const _: () = assert!(align_of::<Calling>() <= align_of::<libc::sigevent>());

        /// Asks for a call of [`tell`](super::suspend::called::tell) at the end of the request.
        fn ask_for_call(event: &mut libc::sigevent, told: &Arc<Told>) {
            let calling = Calling {
                value: libc::sigval { sival_ptr: Arc::as_ptr(told).cast_mut().cast() },
                signal: 0,
                notify: libc::SIGEV_THREAD,
                function: super::suspend::called::tell,
                attributes: ptr::null_mut(),
            };
            // SAFETY: the structure has room for it, as was asserted, and this is what it holds with that `notify`.
            unsafe { ptr::from_mut(event).cast::<Calling>().write(calling) };
        }
    } else {
        /// No library there is asked for calls (`library.rs`).
        fn ask_for_call(_event: &mut libc::sigevent, _told: &Arc<Told>) {}
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "freebsd", target_os = "macos"))] {
        /// Requests that the kernel accepts of one process; `None` where it does not say.
        pub(super) fn most_per_process() -> Option<usize> {
            let name = if cfg!(target_os = "macos") { c"kern.aioprocmax" } else { c"vfs.aio.max_aio_queue_per_proc" };
            let (mut most, mut size): (libc::c_int, _) = (0, size_of::<libc::c_int>());
            // SAFETY: the name is a C string; the kernel writes one number, as large as is said.
            let failed = unsafe {
                libc::sysctlbyname(name.as_ptr(), (&raw mut most).cast(), &raw mut size, ptr::null_mut(), 0)
            } != 0;
            usize::try_from(most).ok().filter(|_| !failed)
        }
    } else {
        /// There is no such limit.
        pub(super) fn most_per_process() -> Option<usize> {
            None
        }
    }
}

/// Control blocks of one [`start_list`] at the most: the C library puts arrays of the list's length on the stack.
pub(super) const LIST_MAX: usize = 64;

/// What a control block is filled with before it is used.
const POISON: u8 = 0xa5;

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

impl Call {
    /// Whether it moves bytes. A list can have no others.
    pub(super) fn is_transfer(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
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
/// It is *in flight* from a [`start`](Self::start) that succeeded to the [`collect`](Self::collect) that returned an outcome.
///
/// Where the library makes a call at the end of a request, it is over only when that was made.
pub(super) struct Block {
    control: UnsafeCell<libc::aiocb>,
    told: Option<Arc<Told>>,
}

// SAFETY: a control block is bound to no thread; `start` and `collect` demand that callers take turns.
unsafe impl Send for Block {}
// SAFETY: as above. What is shared is the address.
unsafe impl Sync for Block {}

impl Block {
    pub(super) fn new() -> Self {
        // SAFETY: a C structure of numbers and pointers, for which zeroes are values.
        Self { control: UnsafeCell::new(unsafe { std::mem::zeroed() }), told: None }
    }

    /// One whose requests ring this when they are over.
    pub(super) fn calling(ring: Arc<Ring>) -> Self {
        Self { told: Some(Arc::new(Told::new(ring))), ..Self::new() }
    }

    /// What names it in a list for [`suspend`].
    pub(super) fn address(&self) -> *const libc::aiocb {
        self.control.get()
    }

    /// Writes the operation into the block. Whatever it held before is overwritten; what the C library keeps in it for itself
    /// gets a pattern that shows whether it has.
    ///
    /// # Safety
    /// The block is not in flight, and nobody else uses it meanwhile.
    pub(super) unsafe fn prepare(&self, operation: &Operation) {
        // SAFETY: numbers and pointers, for which any bytes are values.
        let mut block: libc::aiocb = unsafe {
            let mut block = MaybeUninit::<libc::aiocb>::uninit();
            block.as_mut_ptr().cast::<u8>().write_bytes(POISON, size_of::<libc::aiocb>());
            block.assume_init()
        };
        block.aio_fildes = operation.fd;
        block.aio_lio_opcode = match operation.call {
            Call::Read => libc::LIO_READ,
            Call::Write => libc::LIO_WRITE,
            Call::SyncAll | Call::SyncData => libc::LIO_NOP,
        };
        // Any other would reorder a descriptor's queue.
        block.aio_reqprio = 0;
        block.aio_buf = operation.memory.cast();
        block.aio_nbytes = operation.length;
        // SAFETY: as above.
        block.aio_sigevent = unsafe { std::mem::zeroed() };
        block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        if let Some(told) = &self.told {
            told.begin();
            ask_for_call(&mut block.aio_sigevent, told);
        }
        let at = self.control.get();
        // SAFETY: the caller has the block for itself. The offset has eight bytes, also where `off_t` has four: what follows
        // it there is padding for just that.
        unsafe {
            at.write(block);
            (&raw mut (*at).aio_offset).cast::<i64>().write_unaligned(operation.offset);
        }
    }

    /// Hands the operation to the C library.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`: no room, or no thread to be had. Then the block is not in flight.
    ///
    /// # Safety
    /// The block is [prepared](Self::prepare) for this call. While it is in flight it stays where it is, the descriptor stays
    /// open, and the memory is valid for the call, and used by nobody else.
    pub(super) unsafe fn start(&self, call: Call) -> Result<(), Errno> {
        #[cfg(all(test, not(polyaio_loom)))]
        if no_room::strikes() {
            return Err(Errno(libc::EAGAIN));
        }
        let at = self.control.get();
        let told = self.told.as_ref().map(|told| Arc::into_raw(told.clone()));
        // SAFETY: the caller's promises are what the functions ask for.
        let answer = unsafe {
            match call {
                Call::Read => aio_read64(at),
                Call::Write => aio_write64(at),
                Call::SyncAll => libc::aio_fsync(libc::O_SYNC, at),
                Call::SyncData => libc::aio_fsync(libc::O_DSYNC, at),
            }
        };
        if answer == 0 {
            return Ok(());
        }
        let errno = Errno::last();
        // SAFETY: there is no request, and so no call that would take this count.
        told.into_iter().for_each(|told| unsafe { drop(Arc::from_raw(told)) });
        Err(errno)
    }

    /// Both at once.
    ///
    /// # Errors
    /// # Safety
    /// As [`prepare`](Self::prepare) and [`start`](Self::start).
    pub(super) unsafe fn send(&self, operation: &Operation) -> Result<(), Errno> {
        // SAFETY: forwarded to the caller.
        unsafe {
            self.prepare(operation);
            self.start(operation.call)
        }
    }

    /// Whether the C library has taken it, after a [`start_list`] that failed or was not called: then it is in flight.
    ///
    /// glibc leaves what it has no memory for untouched, and where it has no thread it says so in the block.
    ///
    /// # Safety
    /// The block is prepared, and was not collected since.
    pub(super) unsafe fn was_taken(&self) -> bool {
        // SAFETY: glibc reads a number. That of one that it has taken is under its lock.
        let errno = unsafe { libc::aio_error(self.control.get()) };
        ![libc::c_int::from_ne_bytes([POISON; size_of::<libc::c_int>()]), libc::EAGAIN, libc::ENOMEM].contains(&errno)
    }

    /// Makes a block that is not in flight look as if it were, as kernels see it that do not look for one there.
    ///
    /// # Safety
    /// The block is not in flight.
    #[cfg(all(test, target_env = "musl"))]
    pub(super) unsafe fn seem_in_flight(&self) {
        let at = self.control.get().cast::<libc::c_int>();
        for word in 0..size_of::<libc::aiocb>() / size_of::<libc::c_int>() {
            // SAFETY: within the block, of which only `aio_error` looks at one number, wherever that is.
            unsafe {
                let before = at.add(word).read();
                at.add(word).write(libc::EINPROGRESS);
                if libc::aio_error(self.address()) == libc::EINPROGRESS {
                    return;
                }
                at.add(word).write(before);
            }
        }
        panic!("no number in it is the error");
    }

    /// What became of the operation, if it is over: then the block is no longer in flight.
    ///
    /// # Safety
    /// The block is in flight, and nobody else collects it.
    pub(super) unsafe fn collect(&self) -> Option<Outcome> {
        if self.told.as_ref().is_some_and(|told| !told.is_over()) {
            return None;
        }
        let at = self.control.get();
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

/// For tests: the C library has no room for the next calls of this thread.
#[cfg(all(test, not(polyaio_loom)))]
pub(super) mod no_room {
    use std::cell::Cell;

    thread_local!(static CALLS: Cell<usize> = const { Cell::new(0) });

    pub(in super::super) fn of(calls: usize) {
        CALLS.set(calls);
    }

    pub(super) fn strikes() -> bool {
        CALLS.replace(CALLS.get().saturating_sub(1)) > 0
    }
}

/// Hands several transfers to the C library in one call of `lio_listio`, in order; at most [`LIST_MAX`].
///
/// # Errors
/// Some were not taken, others may be in flight: [`Block::was_taken`] tells.
///
/// # Safety
/// As [`Block::start`], for each of them.
pub(super) unsafe fn start_list<'a>(blocks: impl Iterator<Item = &'a Block>) -> Result<(), Errno> {
    let mut list = [ptr::null_mut(); LIST_MAX];
    let mut count = 0;
    for (place, block) in list.iter_mut().zip(blocks) {
        debug_assert!(block.told.is_none(), "a library that makes calls gets no lists");
        *place = block.control.get();
        count += 1;
    }
    // SAFETY: the list lives across the call, and what it names lives by the caller's promise. No event: nobody is told.
    match unsafe { lio_listio64(libc::LIO_NOWAIT, list.as_ptr(), count, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
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
    let block = block.map_or(ptr::null_mut(), |block| block.control.get());
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

/// Whether writes to it go to its file's end.
pub(super) fn appends(fd: RawFd) -> bool {
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags != -1 && flags & libc::O_APPEND != 0
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
