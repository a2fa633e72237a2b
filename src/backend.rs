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
//!
//! # Examples
//! The least that a backend does: what is written is counted and thrown away, everything else goes to the next backend.
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
//! use polyaio::backend::{Backend, Batch, Capabilities, OpSet, Refusal};
//! use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy};
//!
//! #[derive(Default)]
//! struct Sink(AtomicU64);
//!
//! impl Backend for Sink {
//!     fn name(&self) -> &'static str {
//!         "sink"
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         let mut can = Capabilities::new(1024);
//!         can.operations = OpSet::NONE.with(OpKind::Write);
//!         can
//!     }
//!
//!     fn submit(&self, batch: &mut Batch<'_>) {
//!         while let Some(mut request) = batch.take() {
//!             if request.kind() != OpKind::Write {
//!                 batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP)));
//!                 continue;
//!             }
//!             let bytes = request.length();
//!             self.0.fetch_add(bytes, Ordering::Relaxed);
//!             // SAFETY: the memory of a write is only read; here not even that.
//!             unsafe { request.start() };
//!             request.complete(Ok(bytes));
//!         }
//!     }
//!
//!     fn shutdown(&self) {}
//! }
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! let sink = Arc::new(Sink::default());
//! let engine = Engine::builder().backend(sink.clone()).policy(Policy::Prefer(vec!["sink".into()])).build()?;
//! let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
//! file.write_all_at("gone", 0).wait().0?;
//! assert_eq!((sink.0.load(Ordering::Relaxed), file.len().wait()?), (4, 0));
//! # Ok(()) }
//! ```

// No unsafe block, but an unsafe function in the contract.
#![allow(unsafe_code)]

mod capabilities;
mod operation;
mod room;
mod sync_backend;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::capabilities::{Capabilities, OpSet, Serves};
pub use self::operation::{Handle, Operation};
pub use self::room::Room;
pub use self::sync_backend::SyncBackend;
pub(crate) use self::sync_backend::serve;
use crate::completion::{Answer, Errno, Outcome};
use crate::open::OpenOptions;
use crate::os::{BorrowedFd, RawFd};
use crate::request::{RawHandle, Request, RequestId};
use crate::slot::Slab;

/// Serves requests. See the [module's documentation](self) for who owns what.
///
/// # Examples
/// A backend around another one has to pass on what has a default, too:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{io, os::fd::{BorrowedFd, RawFd}, path::Path, sync::Arc};
/// use polyaio::backend::{Backend, Batch, CancelOutcome, Capabilities, Completions, VirtualFile, Wait};
/// use polyaio::{Engine, OpenOptions, Policy, RequestId, backends::noop::Noop};
///
/// struct Logged<B>(B);
///
/// impl<B: Backend> Backend for Logged<B> {
///     fn submit(&self, batch: &mut Batch<'_>) {
///         let before = batch.len();
///         self.0.submit(batch);
///         println!("{} has taken {} of {before}", self.0.name(), before - batch.len());
///     }
///
///     fn name(&self) -> &'static str { "logged" }
///     fn capabilities(&self) -> Capabilities { self.0.capabilities() }
///     fn open(&self, path: &Path, how: &OpenOptions) -> Option<io::Result<VirtualFile>> { self.0.open(path, how) }
///     fn close(&self, number: u64) { self.0.close(number) }
///     fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize { self.0.reap(wait, completions) }
///     fn ready(&self) -> bool { self.0.ready() }
///     fn notification(&self) -> Option<BorrowedFd<'_>> { self.0.notification() }
///     fn wait_for(&self, id: RequestId) -> bool { self.0.wait_for(id) }
///     fn cancel(&self, id: RequestId) -> CancelOutcome { self.0.cancel(id) }
///     fn forget(&self, fd: RawFd) { self.0.forget(fd) }
///     fn degraded(&self) -> Option<String> { self.0.degraded() }
///     fn set_threads(&self, threads: usize) { self.0.set_threads(threads) }
///     fn shutdown(&self) { self.0.shutdown() }
///     // But for this: another instance of what is inside would not be logged.
///     fn another(&self) -> Option<Arc<dyn Backend>> { None }
/// }
///
/// let policy = Policy::Prefer(vec!["logged".into()]);
/// let engine = Engine::builder().backend(Arc::new(Logged(Noop))).policy(policy).build()?;
/// # assert!(engine.backends()[0].started);
/// # Ok(()) }
/// ```
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
    /// themselves. On Windows an event object, best one that a wait resets.
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
///
/// # Examples
/// What [`Backend::open`] answers for the paths that are the backend's own:
/// ```
/// use polyaio::{OpenOptions, backend::VirtualFile};
/// use std::{io, path::Path};
/// fn open(path: &Path, options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
///     let number = path.to_str()?.strip_prefix("table:")?.parse().ok()?; // others are somebody else's
///     if options.writes() {
///         return Some(Err(io::ErrorKind::ReadOnlyFilesystem.into()));
///     }
///     Some(Ok(VirtualFile { number, alignment: 1 }))
/// }
/// let mut options = OpenOptions::new();
/// assert!(open(Path::new("/etc/hosts"), &options).is_none());
/// assert!(open(Path::new("table:7"), &options).is_some_and(|file| file.is_ok_and(|file| file.number == 7)));
/// assert!(open(Path::new("table:7"), options.write(true)).is_some_and(|file| file.is_err()));
/// ```
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
    ///
    /// # Examples
    /// ```
    /// use polyaio::{RawHandle, backend::VirtualFile};
    /// assert_eq!(VirtualFile { number: 7, alignment: 512 }.handle(), RawHandle::Virtual(7));
    /// ```
    pub fn handle(self) -> RawHandle {
        RawHandle::Virtual(self.number)
    }
}

/// Why a backend did not take a request.
///
/// # Examples
/// One write at a time, on a thread of its own:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
/// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
/// # struct Submits(fn(&mut Batch<'_>));
/// # impl Backend for Submits {
/// #     fn name(&self) -> &'static str { "submits" }
/// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
/// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
/// #     fn shutdown(&self) {}
/// # }
/// use std::sync::atomic::{AtomicBool, Ordering};
/// static OCCUPIED: AtomicBool = AtomicBool::new(false);
///
/// fn submit(batch: &mut Batch<'_>) {
///     while let Some(mut request) = batch.take() {
///         if request.kind() != OpKind::Write {
///             batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP))); // for the next backend
///         } else if OCCUPIED.swap(true, Ordering::Relaxed) {
///             batch.put_back(request, Refusal::Busy); // it comes again, once the other one has completed
///         } else {
///             std::thread::spawn(move || {
///                 let bytes = request.length();
///                 // SAFETY: the memory of a write is only read; here not even that.
///                 unsafe { request.start() };
///                 OCCUPIED.store(false, Ordering::Relaxed);
///                 request.complete(Ok(bytes));
///             });
///         }
///     }
/// }
/// # let dir = tempfile::tempdir()?;
/// # let builder = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).strict(false);
/// # let engine = builder.policy(Policy::Prefer(vec!["submits".into()])).build()?;
/// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
/// let mut batch = engine.batch();
/// for block in 0..4 { batch.push(file.write_at("hello", block * 5), |written| written.0); }
/// for written in engine.block_on(batch.all()) { assert_eq!(written?, 5); }
/// assert_eq!(file.len().wait()?, 0, "of the file itself, which nobody has written");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room now. The engine offers it again, in order, after a completion.
    Busy,
    /// This request cannot be served here; the error tells why, and the router what to do.
    Unsupported(Errno),
}

/// The requests of one submission, in order.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
/// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
/// # struct Submits(fn(&mut Batch<'_>));
/// # impl Backend for Submits {
/// #     fn name(&self) -> &'static str { "submits" }
/// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
/// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
/// #     fn shutdown(&self) {}
/// # }
/// fn submit(batch: &mut Batch<'_>) {
///     println!("{} requests of engine {}", batch.len(), batch.engine());
///     // The submitting thread is going to sleep for the end of this one: nobody else need be woken for it.
///     let attended = batch.attended();
///     while let Some(request) = batch.take() {
///         println!("{request:?}, wake somebody: {}", attended != Some(request.id()));
///         batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP)));
///     }
///     assert!(batch.is_empty());
/// }
/// # let dir = tempfile::tempdir()?;
/// # let builder = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).strict(false);
/// # let engine = builder.policy(Policy::Prefer(vec!["submits".into()])).build()?;
/// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
/// let (synced, trace) = file.sync_all().traced().wait();
/// synced?; // by somebody else
/// assert!(trace.fallbacks.contains(Reason::Unsupported));
/// # Ok(()) }
/// ```
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
    ///
    /// # Examples
    /// A kernel that says no. The request is parked before it is asked: the completion may be there before the answer.
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
    /// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
    /// # struct Submits(fn(&mut Batch<'_>));
    /// # impl Backend for Submits {
    /// #     fn name(&self) -> &'static str { "submits" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    /// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
    /// #     fn shutdown(&self) {}
    /// # }
    /// fn io_submit(_user_data: u64) -> Result<(), Errno> {
    ///     Err(Errno(libc::EINVAL))
    /// }
    ///
    /// fn submit(batch: &mut Batch<'_>) {
    ///     while let Some(request) = batch.take() {
    ///         let id = request.park();
    ///         if let Err(errno) = io_submit(id.to_u64()) {
    ///             // SAFETY: parked above, and refused: nobody else has it.
    ///             let request = unsafe { batch.reclaim(id) }.expect("parked above");
    ///             batch.put_back(request, Refusal::Unsupported(errno));
    ///         }
    ///     }
    /// }
    /// # let dir = tempfile::tempdir()?;
    /// # let builder = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).strict(false);
    /// # let engine = builder.policy(Policy::Prefer(vec!["submits".into()])).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
    /// let (synced, trace) = file.sync_all().traced().wait();
    /// synced?; // by somebody else
    /// assert!(trace.fallbacks.contains(Reason::Invalid));
    /// # Ok(()) }
    /// ```
    pub unsafe fn reclaim(&mut self, id: RequestId) -> Option<Request> {
        Request::claim(self.slab, id)
    }
}

/// How long [`Backend::reap`] waits: the meaning of `io_getevents`' `min_nr`, `nr` and `timeout`.
///
/// # Examples
/// ```
/// use polyaio::backend::Wait;
/// use std::time::Duration;
/// // `io_getevents(2)`'s min_nr, nr and timeout: one event at least and 64 at most, for at most a second.
/// let wait = Wait { min: 1, max: 64, timeout: Some(Duration::from_secs(1)) };
/// assert_ne!(wait, Wait::poll(64));
/// ```
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
    ///
    /// # Examples
    /// ```
    /// use polyaio::backend::Wait;
    /// assert_eq!(Wait::poll(256), Wait { min: 0, max: 256, timeout: None });
    /// ```
    pub const fn poll(max: usize) -> Self {
        Self { min: 0, max, timeout: None }
    }
}

/// Where a backend puts the completions that it reaped. They are completed after `reap` has returned, so that no waker
/// runs while the backend holds a lock or has half moved a ring's head.
///
/// # Examples
/// A backend whose requests are over when somebody looks: in [`reap`](Backend::reap), on the thread of whoever waits.
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{collections::VecDeque, sync::{Arc, Mutex}};
/// use polyaio::backend::{Backend, Batch, Capabilities, Completions, OpSet, Wait};
/// use polyaio::{Engine, OpKind, OpenOptions, Policy, Request};
///
/// #[derive(Default)]
/// struct Lazy(Mutex<VecDeque<Request>>);
///
/// impl Backend for Lazy {
///     fn name(&self) -> &'static str { "lazy" }
///
///     fn capabilities(&self) -> Capabilities {
///         let mut can = Capabilities::new(64);
///         can.operations = OpSet::NONE.with(OpKind::SyncAll).with(OpKind::SyncData);
///         can.reaped = true;
///         can
///     }
///
///     fn submit(&self, batch: &mut Batch<'_>) {
///         self.0.lock().unwrap().extend(std::iter::from_fn(|| batch.take()));
///     }
///
///     fn ready(&self) -> bool { !self.0.lock().unwrap().is_empty() }
///
///     fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
///         assert_ne!(completions.engine(), 0);
///         let mut requests = self.0.lock().unwrap();
///         let count = requests.len().min(wait.max);
///         requests.drain(..count).for_each(|request| completions.finish(request, Ok(0)));
///         count
///     }
///
///     fn shutdown(&self) {}
/// }
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// let policy = Policy::Prefer(vec!["lazy".into()]);
/// let engine = Engine::builder().backend(Arc::new(Lazy::default())).policy(policy).build()?;
/// let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
/// let (synced, trace) = file.sync_all().traced().wait();
/// assert_eq!((synced?, trace.served_by), ((), "lazy"));
/// # Ok(()) }
/// ```
pub struct Completions<'a> {
    pub(crate) slab: &'a Slab,
    pub(crate) claimed: &'a mut Vec<(Request, Answer)>,
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
        self.claimed.push((request, outcome.into()));
    }

    /// Ends a parked request. An id that is not parked (stale, forged) is counted and ignored; returns whether it was known.
    ///
    /// # Safety
    /// If a request of this engine is parked under the id, this backend has parked it, and nobody uses its memory any more:
    /// the id comes from a completion of that request.
    ///
    /// # Examples
    /// An event that nobody has asked for; [`RequestId`] shows those that somebody has.
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backend::{Backend, Batch, Capabilities, Completions, Wait};
    /// # use polyaio::{Engine, OpenOptions, Policy, Request, RequestId};
    /// #[derive(Default)]
    /// struct Forging(std::sync::Mutex<Vec<Request>>);
    ///
    /// impl Backend for Forging {
    ///     fn reap(&self, _wait: Wait, completions: &mut Completions<'_>) -> usize {
    ///         // SAFETY: this backend parks nothing, so that none of its requests is meant.
    ///         let known = unsafe { completions.push(RequestId::from_u64(1 << 40), Ok(4096)) };
    ///         assert!(!known);
    ///         self.0.lock().unwrap().drain(..).map(|sync| completions.finish(sync, Ok(0))).count()
    ///     }
    ///     // ...
    /// #   fn name(&self) -> &'static str { "forging" }
    /// #   fn capabilities(&self) -> Capabilities { let mut can = Capabilities::new(9); can.reaped = true; can }
    /// #   fn submit(&self, batch: &mut Batch<'_>) {
    /// #       self.0.lock().unwrap().extend(std::iter::from_fn(|| batch.take()))
    /// #   }
    /// #   fn ready(&self) -> bool { !self.0.lock().unwrap().is_empty() }
    /// #   fn shutdown(&self) {}
    /// }
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let policy = Policy::Prefer(vec!["forging".into()]);
    /// # let engine = Engine::builder().backend(std::sync::Arc::new(Forging::default())).policy(policy).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
    /// file.sync_all().wait()?;
    /// assert_eq!(engine.stats().anomalies.unknown_ids, 1, "counted, and ignored");
    /// # Ok(()) }
    /// ```
    pub unsafe fn push(&mut self, id: RequestId, outcome: Outcome) -> bool {
        match Request::claim(self.slab, id) {
            Some(request) => {
                self.claimed.push((request, outcome.into()));
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
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
/// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
/// use polyaio::backend::CancelOutcome;
/// let mut read = reader.read(vec![0; 4]);
/// match read.cancel() {
///     CancelOutcome::Cancelled => println!("nothing has happened, and ECANCELED comes back with the buffer"),
///     CancelOutcome::Running => println!("too late: it has to be awaited for what it will have been"),
///     CancelOutcome::Done => println!("there is a result already"),
///     _ => println!("nobody can tell, as in the child of a fork"),
/// }
/// let _buffer = read.wait().1; // in each case
/// # drop(writer);
/// # Ok(()) }
/// ```
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
