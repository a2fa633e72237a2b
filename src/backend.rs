//! (5) The contract between the engine and whatever serves requests.
//!
//! A [`Backend`] takes owned [`Request`]s in batches and completes each exactly once. Who owns what, and when:
//!
//! - Before [`Backend::submit`] returns, each request of the batch was either **taken** ([`Batch::take`]) or **left**: put
//!   back with a [`Refusal`], or simply not taken, which means [`Refusal::Busy`].
//! - A taken request belongs to the backend. It ends by [`Request::complete`] (on any thread, also inside `submit`), or it
//!   is handed to a kernel by [`Request::park`] and comes back through [`Completions::push`]. One that a reaped backend has
//!   kept by itself ends by [`Completions::finish`].
//! - The request's memory is reachable only through the unsafe [`Request::start`]; from there on, dropping it aborts the
//!   process. Before that, dropping it cancels it.
//! - A backend serves one engine. Ids are unique within an engine only: one that parks requests checks [`Batch::engine`].
//! - The engine keeps the descriptor, the buffer and the control block's memory alive until the request is complete.
//!
//! Backends that complete requests by themselves (threads) leave [`Backend::reap`] alone. Backends that collect
//! completions from somewhere (a kernel's ring) say so in [`Capabilities::reaped`] and are called to reap by whoever waits.
//!
//! Most need less than this: a [`SyncBackend`] serves one [`Operation`] at a time, on a thread that it may block.

// No unsafe block, but an unsafe function in the contract.
#![allow(unsafe_code)]

mod capabilities;
mod operation;
mod sync_backend;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::capabilities::{Capabilities, OpSet, Serves};
pub use self::operation::{Handle, Operation, Room};
pub use self::sync_backend::SyncBackend;
pub(crate) use self::sync_backend::serve;
use crate::completion::{Errno, Outcome};
use crate::open::OpenOptions;
use crate::request::{RawHandle, Request, RequestId};
use crate::slot::Slab;

/// Serves requests. See the [module's documentation](self) for who owns what.
pub trait Backend: Send + Sync {
    /// The name by which policies select it and reports name it, such as `"kernel-aio"`.
    fn name(&self) -> &'static str;

    /// What it can do. Asked once, when the engine starts.
    fn capabilities(&self) -> Capabilities;

    /// Opens `path`, for backends that serve files of their own.
    ///
    /// `None` (the default) leaves the path to the next backend, and in the end to the operating system. The engine keeps
    /// the access mode: a file that was opened for reading is never asked to write.
    fn open(&self, path: &Path, options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        let _ = (path, options);
        None
    }

    /// Forgets a file that [`open`](Self::open) made: the last handle was dropped without an
    /// [`OpKind::Close`](crate::OpKind::Close) request.
    fn close(&self, number: u64) {
        let _ = number;
    }

    /// Takes requests out of the batch and starts them. Must not block.
    fn submit(&self, batch: &mut Batch<'_>);

    /// Collects completions; returns how many it pushed.
    ///
    /// Called by one thread at a time. With `wait.min` 0 it must not block; a cheap look in memory is best.
    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        let _ = (wait, completions);
        0
    }

    /// Whether [`reap`](Self::reap) would find something, as far as can be told without a system call.
    fn ready(&self) -> bool {
        self.capabilities().reaped
    }

    /// A descriptor that becomes readable, *edge-triggered*, with each completion. `None` for backends that complete by
    /// themselves.
    fn notification(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Lends the backend the calling thread, which has nothing to wait for but the end of `id`: sleeps until that, and
    /// completes the request. `false`: it is not here, or is waited for by others; then the thread sleeps elsewhere.
    ///
    /// For backends that would otherwise wake a thread of their own, and from there the one that waits. What
    /// [`Batch::attended`] has named is asked for in this way until it is over. May return early, but not later than the end.
    fn wait_for(&self, id: RequestId) -> bool {
        let _ = id;
        false
    }

    /// Tries to stop a request that the backend has taken.
    fn cancel(&self, id: RequestId) -> CancelOutcome {
        let _ = id;
        CancelOutcome::Unknown
    }

    /// Lets go of what belongs to a descriptor that is about to be closed, such as duplicates of it.
    ///
    /// Called before each `close(2)` of a descriptor that requests may have named, once none of them is in flight. Closing
    /// any descriptor of a file drops the process's `fcntl` locks on it: so a backend closes its own no earlier, and does it
    /// before it returns. May block as `close(2)` may.
    fn forget(&self, fd: RawFd) {
        let _ = fd;
    }

    /// Why it works below what was asked for (a smaller queue, fewer threads), as a sentence for an operator.
    fn degraded(&self) -> Option<String> {
        None
    }

    /// Another instance with the same options, for the requests of one thread at a time, where a backend is served better by
    /// several than by one that all threads share; `None`: it is not, or none can be had. Only asked of a backend that is
    /// [reaped](Capabilities::reaped). An instance has the same name and capabilities, a [`notification`](Self::notification)
    /// of its own, and is [shut down](Self::shutdown) with the engine. Never called while the engine does not use threads at
    /// the same time; see [`EngineBuilder::thread_contexts`](crate::EngineBuilder::thread_contexts).
    fn another(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// From now on it may serve with so many threads at the most. What runs is finished. A backend without threads of its own
    /// has nothing to do.
    fn set_threads(&self, threads: usize) {
        let _ = threads;
    }

    /// Stops for good: the engine submits nothing more and has drained what was in flight. Joins threads and frees
    /// contexts, at the latest when the last caller has left. What a kernel may still write into is leaked, never freed.
    fn shutdown(&self);
}

/// A file that no kernel knows, as a backend opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualFile {
    /// The number by which requests name it ([`RawHandle::Virtual`]).
    pub number: u64,
    /// Required alignment of memory and file offsets in bytes; 1 where none is required. [`File::alignment`] tells it to
    /// programs; what is misaligned is for the backend to refuse, with `EINVAL`.
    ///
    /// [`File::alignment`]: crate::File::alignment
    pub alignment: usize,
}

impl VirtualFile {
    /// The handle that requests carry.
    pub fn handle(self) -> RawHandle {
        RawHandle::Virtual(self.number)
    }
}

/// Why a backend did not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room now. The engine offers it again, in order, after a completion.
    Busy,
    /// This request cannot be served here; the error tells why, and the router what to do.
    Unsupported(Errno),
}

/// The requests of one submission, in order.
pub struct Batch<'a> {
    pub(crate) slab: &'a Slab,
    pub(crate) queue: &'a mut VecDeque<Request>,
    pub(crate) refused: &'a mut Vec<(Request, Errno)>,
    pub(crate) busy: &'a mut VecDeque<Request>,
    /// The backend looks at [`Request::is_abandoned`] by itself.
    pub(crate) revocable: bool,
    pub(crate) attended: Option<RequestId>,
}

impl Batch<'_> {
    /// Requests that were not taken yet.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether all were taken.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A number that tells the engine from every other of the process; never 0.
    pub fn engine(&self) -> u64 {
        self.slab.tag()
    }

    /// The request for whose end the submitting thread is going to sleep in [`Backend::wait_for`]. Nobody else need be
    /// woken for it. It may not be among these.
    pub fn attended(&self) -> Option<RequestId> {
        self.attended
    }

    /// Takes the next request.
    pub fn take(&mut self) -> Option<Request> {
        loop {
            let request = self.queue.pop_front()?;
            if self.revocable || request.begin() {
                return Some(request);
            }
            // Cancelled in time.
            self.refused.push((request, Errno(libc::ECANCELED)));
        }
    }

    /// Gives a taken request back. Busy ones are offered again in the order in which they are put back, before all that
    /// were not taken.
    pub fn put_back(&mut self, request: Request, refusal: Refusal) {
        match refusal {
            Refusal::Busy => self.busy.push_back(request),
            Refusal::Unsupported(errno) => self.refused.push((request, errno)),
        }
    }

    /// Takes back a request that was [parked](Request::park) and that the kernel then did not accept. What comes back has
    /// still started: [retract](Request::retract) it, once nobody holds its pointers.
    ///
    /// # Safety
    /// If a request of this engine is parked under the id, this backend has parked it, and no kernel holds it: its memory is
    /// used by nobody.
    pub unsafe fn reclaim(&mut self, id: RequestId) -> Option<Request> {
        Request::claim(self.slab, id)
    }
}

/// How long [`Backend::reap`] waits: the meaning of `io_getevents`' `min_nr`, `nr` and `timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Return once so many completions are there; 0 polls.
    pub min: usize,
    /// Collect at most so many.
    pub max: usize,
    /// Return after this time whatever is there; `None` waits without a limit.
    pub timeout: Option<Duration>,
}

impl Wait {
    /// Collects what is there, up to `max`, without waiting.
    pub const fn poll(max: usize) -> Self {
        Self { min: 0, max, timeout: None }
    }
}

/// Where a backend puts the completions that it reaped. They are completed after `reap` has returned, so that no waker
/// runs while the backend holds a lock or has half moved a ring's head.
pub struct Completions<'a> {
    pub(crate) slab: &'a Slab,
    pub(crate) claimed: &'a mut Vec<(Request, Outcome)>,
    pub(crate) unknown: u64,
}

impl Completions<'_> {
    /// A number that tells the engine from every other of the process; never 0.
    pub fn engine(&self) -> u64 {
        self.slab.tag()
    }

    /// Ends a request that the backend has kept by itself, instead of [`Request::complete`]. It ends together with all others
    /// of this `reap`, once that has returned: the engine judges and counts all of them, then publishes their results and calls
    /// the wakers.
    pub fn finish(&mut self, request: Request, outcome: Outcome) {
        self.claimed.push((request, outcome));
    }

    /// Ends a parked request. An id that is not parked (stale, forged) is counted and ignored; returns whether it was known.
    ///
    /// # Safety
    /// If a request of this engine is parked under the id, this backend has parked it, and nobody uses its memory any more:
    /// the id comes from a completion of that request.
    pub unsafe fn push(&mut self, id: RequestId, outcome: Outcome) -> bool {
        match Request::claim(self.slab, id) {
            Some(request) => {
                self.claimed.push((request, outcome));
                true
            }
            None => {
                self.unknown += 1;
                false
            }
        }
    }
}

/// What became of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelOutcome {
    /// It will complete with `ECANCELED` and has done nothing.
    Cancelled,
    /// Too late: it is running and will complete.
    Running,
    /// It is already complete.
    Done,
    /// No such request, or this backend cannot tell.
    Unknown,
}
