//! A pool of threads that make ordinary blocking calls: serves every operation on any descriptor, everywhere.
//!
//! - `abi.rs`: the system calls of each kind of request
//! - `control.rs`: those of what moves no data
//! - `flagged.rs`: transfers that are durable, appended, of a priority, or must not wait
//! - `misaligned.rs`, `bounce.rs`: those of transfers that direct I/O refuses for their alignment
//! - `probe.rs`: can a thread be had, and what stands in the way
//! - `submit.rs`: from a batch to the queue
//! - `queue.rs`, `deque.rs`: who takes which job, who sleeps, who is woken
//! - `worker.rs`: the threads' loop, and how the pool grows
//! - `reap.rs`: how jobs end, and how the pool does
//! - `streams.rs`: a small second pool, for streams only
//! - `threaded.rs`: a pool that serves by somebody else's function
//!
//! # Examples
//! An engine that leaves everything to it:
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! use polyaio::{Engine, OpenOptions, Policy, backends::thread_pool};
//! let engine = Engine::builder().policy(Policy::Require(thread_pool::NAME.into())).threads(4).build()?;
//! let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
//! file.write_all_at("hello", 0).wait().0?;
//! file.sync_all().wait()?;
//! assert_eq!(engine.stats().served_by(), [(thread_pool::NAME, 2)]);
//! # Ok(()) }
//! ```

mod abi;
mod bounce;
mod control;
mod deque;
mod flagged;
mod misaligned;
#[cfg(all(test, polyaio_loom))]
mod models;
mod probe;
mod queue;
mod reap;
pub(crate) mod streams;
mod submit;
#[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
mod tests;
mod threaded;
mod worker;

use std::sync::Arc;

use self::queue::Queue;
use self::reap::Loops;
pub use self::threaded::Threaded;
use self::worker::{Rest, Staff};
use crate::backend::{Backend, Batch, Capabilities};
use crate::completion::{Errno, Outcome};
use crate::os;
use crate::request::Request;
use crate::sync::{Mutex, lock};

/// The name of this backend in policies and reports.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::{Engine, Policy, backends::thread_pool};
/// let engine = Engine::builder().policy(Policy::Require(thread_pool::NAME.into())).build()?;
/// assert!(engine.backends().iter().any(|backend| backend.name == thread_pool::NAME && backend.started));
/// # Ok(()) }
/// ```
pub const NAME: &str = "thread-pool";

/// More threads than this make no sense on any machine, and the queue's counters have 16 bits each.
const MOST_THREADS: usize = 4096;

/// How large a [`ThreadPool`] may become.
///
/// # Examples
/// ```
/// use polyaio::backends::thread_pool::Options;
/// let options = Options { threads: 0, queue_bound: 0 };
/// // Brought into the range: one thread, and one request.
/// assert_eq!(polyaio::backends::thread_pool::ThreadPool::start(options).map(|pool| pool.threads()), Ok(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads at the most, 1 to 4096; other values are brought into this range. One is started at once, more when all
    /// are busy. [`Backend::set_threads`] changes it, to this number at the most.
    pub threads: usize,
    /// Requests held at the most, queued and being served; more are [`Busy`](crate::backend::Refusal::Busy). At least 1.
    pub queue_bound: usize,
}

/// The pool could not start a single thread.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::thread_pool::{NotStarted, Options, ThreadPool};
/// fn start(threads: usize) -> Result<ThreadPool, NotStarted> {
///     ThreadPool::start(Options { threads, queue_bound: 64 })
///         // `EAGAIN`, and a sentence with the limits that are spent: RLIMIT_NPROC, pids.max ...
///         .inspect_err(|refused| eprintln!("{}: {}", refused.errno, refused.reason))
/// }
/// drop(start(2)?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotStarted {
    /// What the system said.
    pub errno: Errno,
    /// The same as a sentence for an operator, with the limits that may be spent.
    pub reason: String,
}

/// Serves requests on threads of its own. Dropping it is [`shutdown`](Backend::shutdown).
///
/// The threads are named `polyaio-worker`. Idle ones sleep and cost no CPU time; they stay until the shutdown.
///
/// # Platform
/// Any Unix.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backend::Backend;
/// use polyaio::backends::thread_pool::{Options, ThreadPool};
/// let pool = ThreadPool::start(Options { threads: 4, queue_bound: 256 })?;
/// let can = pool.capabilities();
/// assert!(can.revocable && !can.reaped && can.queue_bound == 256);
/// pool.set_threads(2); // from now on
/// # Ok(()) }
/// ```
pub struct ThreadPool {
    shared: Arc<Shared>,
}

/// What workers and submitters have in common.
struct Shared {
    queue: Queue<Request>,
    staff: Mutex<Staff>,
    loops: Loops,
    rest: Rest,
    /// Threads that it can have at the most.
    seats: usize,
    /// Requests at the most.
    bound: usize,
    trade: Trade,
    #[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
    roll: tests::Roll,
}

/// What the workers of a pool do, and under which names.
struct Trade {
    /// The backend that they work for.
    backend: &'static str,
    /// What `ps -L`, `top -H` and debuggers show; Linux has room for 15 bytes.
    threads: &'static str,
    /// Serves one request, blocking the thread. A panic in it is contained.
    serve: Box<dyn Fn(&mut Request) -> Outcome + Send + Sync>,
}

impl Trade {
    /// The ordinary system calls.
    fn system_calls(backend: &'static str, threads: &'static str) -> Self {
        Self { backend, threads, serve: Box::new(abi::serve) }
    }
}

impl ThreadPool {
    /// Starts the pool with one thread.
    ///
    /// # Errors
    /// [`NotStarted`] where not even one thread can be created (`EAGAIN`: a limit on threads is spent, see
    /// [`NotStarted::reason`]). Threads that cannot be created later make a smaller pool, see
    /// [`degraded`](Backend::degraded).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backend::Backend;
    /// use polyaio::backends::thread_pool::{Options, ThreadPool};
    /// let pool = ThreadPool::start(Options { threads: 4, queue_bound: 256 })?;
    /// assert_eq!((pool.threads(), pool.degraded()), (1, None));
    /// drop(pool); // its thread has ended
    /// # Ok(()) }
    /// ```
    pub fn start(options: Options) -> Result<Self, NotStarted> {
        Self::start_with(options, Trade::system_calls(NAME, worker::THREAD_NAME))
    }

    fn start_with(options: Options, trade: Trade) -> Result<Self, NotStarted> {
        let threads = options.threads.clamp(1, MOST_THREADS);
        let bound = options.queue_bound.clamp(1, Queue::<Request>::MOST_JOBS);
        let (queue, seats) = Queue::new(bound, threads);
        let staff = Mutex::new(Staff::new(seats));
        let shared = Arc::new(Shared {
            queue,
            staff,
            loops: Loops::default(),
            rest: Rest::default(),
            seats: threads,
            bound,
            trade,
            #[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
            roll: tests::Roll::default(),
        });
        if let Err(error) = worker::start_first(&shared) {
            let errno = Errno(os::number_of(&error).unwrap_or(libc::EAGAIN));
            let reason = lock(&shared.staff).failure().map_or_else(|| error.to_string(), str::to_owned);
            return Err(NotStarted { errno, reason });
        }
        Ok(Self { shared })
    }

    /// How many threads serve, or would, at the moment: those that are started, without those that are
    /// [too many](Backend::set_threads).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backends::thread_pool::{Options, ThreadPool};
    /// let pool = ThreadPool::start(Options { threads: 4, queue_bound: 256 })?;
    /// assert_eq!(pool.threads(), 1, "nothing has been asked of it");
    /// # Ok(()) }
    /// ```
    pub fn threads(&self) -> usize {
        self.shared.queue.hired()
    }
}

impl Backend for ThreadPool {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.shared.bound);
        capabilities.revocable = true;
        capabilities.nowait = true;
        capabilities.durable = true;
        capabilities.priorities = true;
        capabilities.appends = true;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        submit::submit(&self.shared, batch);
    }

    fn degraded(&self) -> Option<String> {
        let staff = lock(&self.shared.staff);
        let (has, most) = (self.shared.queue.hired(), self.shared.queue.most());
        staff.failure().map(|reason| format!("{has} of up to {most} threads: {reason}"))
    }

    fn set_threads(&self, threads: usize) {
        worker::set_most(&self.shared, threads);
    }

    fn shutdown(&self) {
        reap::shutdown(&self.shared);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool")
            .field("threads", &self.threads())
            .field("most_threads", &self.shared.queue.most())
            .field("queue_bound", &self.shared.bound)
            .finish_non_exhaustive()
    }
}
