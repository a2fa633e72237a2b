//! A pool that serves by somebody else's function: what makes a [`Backend`] of a [`SyncBackend`].
//!
//! It has threads of its own, not those of `thread-pool`: what blocks in a stranger's function must not hold up the disk,
//! and the pool is where requests go that the stranger has refused.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{NotStarted, Options, ThreadPool, Trade, abi};
use crate::backend::{self, Backend, Batch, Capabilities, SyncBackend, VirtualFile};
use crate::open::OpenOptions;
use crate::request::{self, OpKind};

/// The name that `ps -L`, `top -H` and debuggers show.
const THREAD_NAME: &str = "polyaio-execute";

/// Runs a [`SyncBackend`] on threads of its own. Dropping it is [`shutdown`](Backend::shutdown).
///
/// [`EngineBuilder::sync_backend`](crate::EngineBuilder::sync_backend) makes one for an engine; this is for those who want
/// another number of threads than the engine's. The threads are named `polyaio-execute`; one is started at once, more when
/// all are busy, and idle ones sleep. As every backend it serves one engine.
///
/// # Platform
/// Any Unix.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{io, sync::Arc};
/// use polyaio::backend::{Capabilities, Operation, SyncBackend};
/// use polyaio::backends::thread_pool::Threaded;
/// use polyaio::{Engine, Policy};
///
/// /// Lets somebody look at each operation, and otherwise does what the thread pool does.
/// struct Watched;
///
/// impl SyncBackend for Watched {
///     fn name(&self) -> &'static str {
///         "watched"
///     }
///
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::new(256)
///     }
///
///     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
///         let result = operation.system_call();
///         println!("{operation:?}: {result:?}");
///         result
///     }
/// }
///
/// let watched = Threaded::start(Arc::new(Watched), 4)?;
/// let policy = Policy::Prefer(vec!["watched".into()]);
/// let engine = Engine::builder().backend(Arc::new(watched)).policy(policy).build()?;
/// # Ok(()) }
/// ```
pub struct Threaded {
    backend: Arc<dyn SyncBackend>,
    capabilities: Capabilities,
    pool: ThreadPool,
}

impl Threaded {
    /// Starts the first of at most so many threads, 1 to 4096; other values are brought into this range.
    ///
    /// # Errors
    /// As [`ThreadPool::start`].
    ///
    /// # Examples
    /// ```
    /// # use std::{io, sync::Arc};
    /// # use polyaio::backend::{Backend, Capabilities, Operation, SyncBackend};
    /// # use polyaio::backends::thread_pool::Threaded;
    /// # struct Plain;
    /// # impl SyncBackend for Plain {
    /// #     fn name(&self) -> &'static str { "plain" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> { operation.system_call() }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // What may be called by one thread at a time only: one thread.
    /// let serial = Threaded::start(Arc::new(Plain), 1)?;
    /// assert_eq!((serial.name(), serial.threads()), ("plain", 1));
    /// # Ok(()) }
    /// ```
    pub fn start(backend: Arc<dyn SyncBackend>, threads: usize) -> Result<Self, NotStarted> {
        let asked = backend.capabilities();
        let theirs = backend.clone();
        let trade = Trade {
            backend: backend.name(),
            threads: THREAD_NAME,
            serve: Box::new(move |request| backend::serve(&*theirs, request, abi::serve)),
        };
        let pool = ThreadPool::start_with(Options { threads, queue_bound: asked.queue_bound }, trade)?;
        let capabilities = Capabilities {
            // Of virtual files, which only `SyncBackend::close` can do.
            operations: asked.operations.with(OpKind::Close),
            cancel: false,
            revocable: true,
            reaped: false,
            queue_bound: pool.capabilities().queue_bound,
            ..asked
        };
        Ok(Self { backend, capabilities, pool })
    }

    /// How many threads it has at the moment.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, sync::Arc};
    /// # use polyaio::backend::{Backend, Capabilities, Operation, SyncBackend};
    /// # use polyaio::backends::thread_pool::Threaded;
    /// # struct Plain;
    /// # impl SyncBackend for Plain {
    /// #     fn name(&self) -> &'static str { "plain" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> { operation.system_call() }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let backend = Threaded::start(Arc::new(Plain), 4)?;
    /// assert_eq!(backend.threads(), 1, "of at most 4: nothing has been asked of it");
    /// # Ok(()) }
    /// ```
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Backend for Threaded {
    fn name(&self) -> &'static str {
        self.pool.shared.trade.backend
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        self.backend.open(path, options)
    }

    fn close(&self, number: u64) {
        // On whatever thread has dropped the file, which may be in the middle of something of the engine's.
        request::contain(|| drop(self.backend.close(number)));
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        self.pool.submit(batch);
    }

    fn degraded(&self) -> Option<String> {
        self.pool.degraded()
    }

    fn shutdown(&self) {
        self.pool.shutdown();
    }
}

impl std::fmt::Debug for Threaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threaded").field("name", &self.name()).field("pool", &self.pool).finish()
    }
}
