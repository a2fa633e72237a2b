//! Linux kernel AIO: `io_submit`, and completions read from a ring in memory.
//!
//! Truly asynchronous for files opened with `O_DIRECT` (and for syncs); anything else may block inside the submission,
//! and belongs elsewhere unless it carries `RWF_NOWAIT`. Needs nothing but the kernel: no libaio.
//!
//! | file | what |
//! |---|---|
//! | `abi.rs` | the system calls and their structures |
//! | `probe.rs` | `io_setup`, smaller if it must be, or the reason why not |
//! | `submit.rs` | requests into iocbs, partial acceptance |
//! | `reap.rs` | collects completions, from the ring or by `io_getevents` |
//! | `ring.rs` | the ring, and its protocol with the kernel |
//!
//! Four rules hold it together:
//! - *What is in flight is counted* (`InFlight`): never more than the context has room for, so that no event is ever lost
//!   to a full ring. A request is counted out by whoever takes it back from the kernel, once.
//! - *One reader*: what moves the ring's head takes the one `Reaper`.
//! - *Nobody is inside when the context goes*: every use of the ring or the context holds the read side of a lock whose
//!   write side ends it. Both sides are only ever tried, so that nothing waits for a sleeper, and a waker that ends the
//!   engine from inside a submission does not wait for itself; who leaves after the shutdown tries again.
//! - *What the kernel may still write into is leaked*: a context with requests in flight is never destroyed by us.
//!
//! # Examples
//! An engine that is to use it, and nothing else for what it can serve:
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
//! # let path = dir.path().join("data");
//! use polyaio::{Direct, Engine, Error, OpenOptions, Policy, backends::kernel_aio};
//! let engine = match Engine::builder().policy(Policy::Require(kernel_aio::NAME.into())).build() {
//!     Ok(engine) => engine,
//!     // A quota that is spent, a container that forbids it: the reason says so, and what to do.
//!     Err(Error::BackendUnavailable { reason, .. }) => return Ok(println!("{reason}")),
//!     Err(other) => return Err(other.into()),
//! };
//! let mut options = OpenOptions::new();
//! let file = options.read(true).write(true).create(true).direct(Direct::Preferred).open(&engine, &path)?;
//! match file.sync_all().wait() {
//!     Ok(()) => assert_eq!(engine.stats().served_by(), [(kernel_aio::NAME, 1)]),
//!     Err(error) => println!("{error}"), // a kernel before 4.18, or a file system that has no sync of this kind
//! }
//! # Ok(()) }
//! ```

mod abi;
mod probe;
mod reap;
mod ring;
mod submit;
#[cfg(all(test, not(polyaio_loom)))]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

pub use probe::{NotStarted, Options};

use crate::backend::{Backend, Batch, CancelOutcome, Capabilities, Completions, OpSet, Refusal, Serves, Wait};
use crate::completion::Errno;
use crate::request::{OpKind, RequestId};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, try_lock};
use reap::Reaper;
use ring::Ring;

/// The name of this backend in policies and reports.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = polyaio::Engine::new()?;
/// # use polyaio::backends::kernel_aio;
/// let status = engine.backends().into_iter().find(|backend| backend.name == kernel_aio::NAME).ok_or("compiled in")?;
/// assert!(status.started || status.reason.is_some());
/// # Ok(()) }
/// ```
pub const NAME: &str = "kernel-aio";

/// The backend. One context, shared by all threads of the process that made it.
///
/// # Platform
/// Linux. Allowed by the default seccomp profiles of Docker and containerd, where io_uring is not.
///
/// # References
/// `io_submit(2)`, `fs/aio.c`.
///
/// # Examples
/// As part of an engine that is put together by hand, in front of the one that the engine starts itself:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backend::Backend;
/// use polyaio::backends::kernel_aio::KernelAio;
/// if let Ok(backend) = KernelAio::start(128) {
///     let can = backend.capabilities();
///     assert!(can.reaped && can.vectored && can.queue_bound <= 128);
///     assert!(backend.notification().is_some(), "an eventfd");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct KernelAio {
    /// `None` once it was shut down. `std`'s lock, not the crate's: no model needs to explore it.
    live: RwLock<Option<Live>>,
    /// [`Backend::shutdown`] was called: no request gets in any more.
    closing: AtomicBool,
    /// Who made it. A child of `fork(2)` has no context, and locks that nobody may ever unlock.
    process: u32,
    /// The engine that it serves; 0 before its first call.
    engine: AtomicU64,
    reaper: Mutex<Reaper>,
    in_flight: InFlight,
    eventfd: OwnedFd,
    options: Options,
    degraded: Option<String>,
}

/// A context in use.
#[derive(Debug)]
struct Live {
    /// Points into the context's memory: declared, and so dropped, before it.
    ring: Option<Ring>,
    context: probe::Context,
}

impl KernelAio {
    /// Starts with room for `queue_depth` requests in flight, or for fewer where the machine's quota is nearly spent
    /// (then [`Backend::degraded`] says so).
    ///
    /// Reads the environment variable `POLYAIO_KERNEL_AIO_RING`: `0` reads completions by `io_getevents` only.
    ///
    /// # Errors
    /// `EAGAIN`: the quota `fs.aio-max-nr` is spent. `ENOSYS`, `EPERM`: no AIO in this kernel, or a seccomp profile forbids
    /// it. `EINVAL`: a depth of 0, or a wrong value of the variable. The reason says what to do.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backend::Backend;
    /// use polyaio::backends::kernel_aio::KernelAio;
    /// match KernelAio::start(1_000_000_000) {
    ///     // Half as much is asked for, until the machine has it.
    ///     Ok(backend) => println!("{}", backend.degraded().unwrap_or_default()),
    ///     Err(refused) => println!("{refused}"),
    /// }
    /// assert_eq!(KernelAio::start(0).unwrap_err().errno.0, libc::EINVAL);
    /// # Ok(()) }
    /// ```
    pub fn start(queue_depth: usize) -> Result<Self, NotStarted> {
        Self::with_options(Options::from_env(queue_depth)?)
    }

    /// As [`start`](Self::start), without looking at the environment.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::kernel_aio::{KernelAio, Options};
    /// // Completions by `io_getevents(2)`, whatever the environment says: for a comparison.
    /// match KernelAio::with_options(Options { queue_depth: 32, user_ring: false }) {
    ///     Ok(backend) => drop(backend),
    ///     Err(refused) => println!("{} ({})", refused.reason, refused.errno),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn with_options(options: Options) -> Result<Self, NotStarted> {
        let context = probe::Context::new(options.queue_depth)?;
        let eventfd = abi::eventfd().map_err(|errno| NotStarted {
            errno,
            reason: format!("kernel AIO does not start: eventfd: {errno}: completions could not be announced"),
        })?;
        let mut notes = Vec::new();
        let size = context.size();
        if size < options.queue_depth {
            notes.push(probe::smaller(options.queue_depth, size));
        }
        let ring = match options.user_ring.then(|| Ring::of(&context)) {
            Some(Ok(ring)) => Some(ring),
            Some(Err(what)) => {
                notes.push(format!(
                    "completions are read by io_getevents: this kernel's ring is not the known one ({what})"
                ));
                None
            }
            None => None,
        };
        Ok(Self {
            live: RwLock::new(Some(Live { ring, context })),
            closing: AtomicBool::new(false),
            process: std::process::id(),
            engine: AtomicU64::new(0),
            reaper: Mutex::new(Reaper::new(size)),
            in_flight: InFlight::new(size),
            eventfd,
            options,
            degraded: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    /// Whether it serves this engine: the first that calls. Another one would take the first one's completions for its
    /// own, whose ids are the same numbers.
    fn serves(&self, engine: u64) -> bool {
        if self.engine.load(Ordering::Acquire) == engine {
            return true;
        }
        // Another thread of the same engine may be first.
        match self.engine.compare_exchange(0, engine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(bound) => bound == engine,
        }
    }

    /// Uses the context, unless it is gone.
    fn with_live<R>(&self, use_it: impl FnOnce(&Live) -> R) -> Option<R> {
        if self.closing.load(Ordering::Acquire) && self.in_flight.count() == 0 {
            // Nobody has business here any more; a stream of visitors would keep the lock from ever being free.
            self.free();
            return None;
        }
        let result = match self.live.try_read() {
            Ok(live) => live.as_ref().map(use_it),
            // Nothing under this lock is ever half changed.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().as_ref().map(use_it),
            // It is going this moment.
            Err(TryLockError::WouldBlock) => None,
        };
        if self.closing.load(Ordering::Acquire) {
            // The shutdown may have found us inside, or requests in flight.
            self.free();
        }
        result
    }

    /// Frees the context if nobody uses it and nothing is in flight.
    fn free(&self) {
        let mut live = match self.live.try_write() {
            Ok(live) => live,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Who is inside tries when it leaves; if it looked at `closing` too early, `drop` remains.
            Err(TryLockError::WouldBlock) => return,
        };
        let taken = if self.in_flight.count() == 0 { live.take() } else { None };
        drop(live);
        // Outside of the lock: `io_destroy` sleeps through an RCU grace period.
        drop(taken);
    }
}

impl Backend for KernelAio {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.in_flight.bound);
        capabilities.revocable = true;
        capabilities.operations =
            OpSet::NONE.with(OpKind::Read).with(OpKind::Write).with(OpKind::SyncAll).with(OpKind::SyncData);
        capabilities.serves = Serves::Direct;
        capabilities.vectored = true;
        capabilities.nowait = true;
        capabilities.durable = true;
        capabilities.priorities = true;
        capabilities.cancel = false;
        capabilities.reaped = true;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        if !self.serves(batch.engine()) {
            while let Some(request) = batch.take() {
                batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP)));
            }
            return;
        }
        if !self.closing.load(Ordering::Acquire) {
            self.with_live(|live| submit::submit(live, &self.in_flight, self.eventfd.as_fd(), batch));
        }
        if self.closing.load(Ordering::Acquire) {
            // What is left would wait for completions that never come.
            while let Some(request) = batch.take() {
                batch.put_back(request, Refusal::Unsupported(Errno(libc::ESHUTDOWN)));
            }
        }
    }

    /// A second thread that reaps while another does gets nothing and does not wait.
    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        if !self.serves(completions.engine()) {
            return 0;
        }
        let got = self.with_live(|live| Some(try_lock(&self.reaper)?.reap(live, &self.in_flight, wait, completions)));
        got.flatten().unwrap_or(0)
    }

    fn ready(&self) -> bool {
        if self.in_flight.count() == 0 {
            return false;
        }
        let found = self.with_live(|live| match &live.ring {
            Some(ring) => !ring.is_empty(),
            // Only a system call can tell. Saying yes without it would keep whoever is about to sleep from sleeping. But
            // a thread that looks or reaps at the moment may have looked before the completion came whose signal has woken
            // us, and there will be no other signal: look again when it is out.
            None => try_lock(&self.reaper).is_none_or(|mut reaper| reaper.look(live)),
        });
        found.unwrap_or(false)
    }

    fn notification(&self) -> Option<BorrowedFd<'_>> {
        Some(self.eventfd.as_fd())
    }

    /// Never succeeds: `io_cancel(2)` reaches polls and USB gadgets, not file I/O, and what it calls cancelled still owns
    /// its memory until the event. Which ids are in flight is known to the kernel and the slots only, so that `Running` is
    /// said of any id while something is.
    fn cancel(&self, _id: RequestId) -> CancelOutcome {
        if self.in_flight.count() == 0 { CancelOutcome::Unknown } else { CancelOutcome::Running }
    }

    fn degraded(&self) -> Option<String> {
        self.degraded.clone()
    }

    /// A context of its own: the kernel locks a context for each submission, and wakes who sleeps on it with each completion.
    fn another(&self) -> Option<Arc<dyn Backend>> {
        let another = Self::with_options(self.options).ok()?;
        // Where the quota is nearly spent, a part of the room of one that all share is better than little of one's own.
        (another.in_flight.bound >= self.in_flight.bound).then(|| Arc::new(another) as Arc<dyn Backend>)
    }

    /// Takes no more requests, and frees the context, at the latest when who uses it this moment leaves. With requests in
    /// flight it stays until they are reaped or `self` is dropped, and with requests in flight even then, until the process
    /// ends.
    fn shutdown(&self) {
        if self.process != std::process::id() {
            return;
        }
        self.closing.store(true, Ordering::Release);
        // Before the lock is looked at: whoever we find inside is to see the line above when it leaves.
        fence(Ordering::SeqCst);
        self.free();
    }
}

impl Drop for KernelAio {
    fn drop(&mut self) {
        let live = self.live.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // With requests in flight `io_destroy` would wait for the device, perhaps for ever, and lose their events. Leaked, the
        // context goes with the process, and the slots, which hold their memory, are never freed.
        if self.in_flight.count() != 0 {
            std::mem::forget(live);
        }
    }
}

/// How many requests the kernel holds, or is about to be offered.
#[derive(Debug)]
struct InFlight {
    count: AtomicUsize,
    /// Never more than this.
    bound: usize,
}

impl InFlight {
    fn new(bound: usize) -> Self {
        Self { count: AtomicUsize::new(0), bound }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts in up to `wanted` requests; returns how many there was room for.
    fn reserve(&self, wanted: usize) -> usize {
        let mut granted = 0;
        let _ = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            granted = wanted.min(self.bound.saturating_sub(count));
            (granted > 0).then_some(count + granted)
        });
        granted
    }

    /// Counts out requests that came back.
    fn release(&self, count: usize) {
        if count > 0 {
            let before = self.count.fetch_sub(count, Ordering::AcqRel);
            debug_assert!(before >= count, "more requests came back than were sent");
        }
    }
}
