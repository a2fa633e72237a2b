//! The engine: owns the backends, and ends them.

use std::future::Future;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::backend::{Backend, Capabilities, Serves, SyncBackend};
use crate::backends::{self, Registered};
use crate::batch::Batch;
use crate::descriptor::OpenFile;
use crate::dispatch::{self, Core, Drained, Ended, Lane, State};
use crate::driver::{self, Driver, Sides};
use crate::error::Error;
use crate::events;
use crate::file::File;
use crate::fork::ForkGuard;
use crate::future::Op;
use crate::monitor;
use crate::notify::Notifications;
use crate::op;
use crate::open::OpenOptions;
use crate::opening::{self, Opening};
use crate::request;
use crate::router::facts;
use crate::router::policy::{Candidate, Policy, Settings};
use crate::slot::Slab;
use crate::stats::{Anomalies, Counter, Counters, InlineStats, NotificationStats, Stats};
use crate::sync::atomic::AtomicUsize;

/// Names the preferred backends where the builder was not told; `auto`, or names with commas between.
const ENV_BACKEND: &str = "POLYAIO_BACKEND";
/// Makes the engine strict where the builder was not told; `1` or `0`.
const ENV_STRICT: &str = "POLYAIO_STRICT";

/// After how many microseconds a submission counts as slow, where the builder was not told.
const ENV_SLOW_SUBMIT: &str = "POLYAIO_SLOW_SUBMIT_US";

/// Requests in flight per backend, unless the builder is told otherwise.
const DEFAULT_QUEUE_DEPTH: usize = 256;
/// Worker threads at the most, unless the builder is told otherwise. They are started as they are needed.
const DEFAULT_THREADS: usize = 32;
/// Operations that an engine holds at the most, unless the builder is told otherwise; more wait in line.
const DEFAULT_CAPACITY: usize = 65_536;

/// Serves files through the backends that this machine offers. Clones are the same engine.
///
/// When the last clone is dropped, what is in flight is finished, operations that wait for streams or for a place are
/// cancelled, callbacks are called ([`Op::on_completion`]), and all threads end; files that are still open answer
/// [`Error::EngineClosed`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::Engine;
/// let engine = Engine::new()?;
/// for backend in engine.backends() {
///     println!("{}: {}", backend.name, backend.reason.as_deref().unwrap_or("started"));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// Shuts down when the last clone goes.
struct Inner {
    core: Arc<Core>,
}

/// Settings of an [`Engine`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::{Engine, Policy};
/// let engine = Engine::builder()
///     .policy(Policy::Prefer(vec!["thread-pool".into()]))
///     .strict(false)
///     .queue_depth(64)  // requests that a backend has at the most
///     .threads(4)       // workers at the most
///     .capacity(10_000) // operations at the most; others wait in line
///     .slow_submit(std::time::Duration::from_micros(200))
///     .build()?;
/// assert_eq!(engine.backends().last().map(|backend| backend.name), Some("thread-pool"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing starts before `build`"]
pub struct EngineBuilder {
    policy: Option<Policy>,
    strict: Option<bool>,
    queue_depth: usize,
    threads: usize,
    capacity: usize,
    slow_submit: Option<Duration>,
    thread_contexts: Option<usize>,
    own: Vec<Own>,
}

/// A backend that was made elsewhere.
#[derive(Clone)]
enum Own {
    Whole(Arc<dyn Backend>),
    Sync(Arc<dyn SyncBackend>),
}

/// The state of one backend of an engine.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = polyaio::Engine::new()?;
/// let pool = engine.backends().into_iter().find(|backend| backend.name == "thread-pool").ok_or("always there")?;
/// assert!(pool.started && pool.capabilities.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackendStatus {
    /// Its name.
    pub name: &'static str,
    /// Whether it serves requests.
    pub started: bool,
    /// Why it did not start, or works below what was asked for; and what can be done about it.
    pub reason: Option<String>,
    /// What it can do; `None` where it did not start.
    pub capabilities: Option<Capabilities>,
}

impl Engine {
    /// An engine with the defaults, as the environment has them.
    ///
    /// `POLYAIO_BACKEND` is `auto` (the default, also where it is empty), or a backend that is to be preferred, such as
    /// `thread-pool`, or several in their order with commas between: [`Policy::Prefer`]. `POLYAIO_STRICT` is `0` (the
    /// default, also where it is empty) or `1`: what is preferred is required, so that the engine fails where one of the
    /// named did not start. `POLYAIO_SLOW_SUBMIT_US` is the number for [`EngineBuilder::slow_submit`] in microseconds. Names
    /// are written as they are shown, without spaces; anything else is an error.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// Settings to start from.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            policy: None,
            strict: None,
            queue_depth: DEFAULT_QUEUE_DEPTH,
            threads: DEFAULT_THREADS,
            capacity: DEFAULT_CAPACITY,
            slow_submit: None,
            thread_contexts: None,
            own: Vec::new(),
        }
    }

    /// Takes over any open descriptor: a file, a pipe, a socket, standard input ... It is closed with the [`File`].
    ///
    /// The descriptor's flags are not changed.
    ///
    /// # Errors
    /// [`Error::System`] with `EBADF` for a descriptor opened with `O_PATH`; [`Error::EngineClosed`], [`Error::Forked`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// use polyaio::BufResult;
    /// let (reader, writer) = std::io::pipe()?;
    /// let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// writer.write_all("ping").wait().0?;
    /// let BufResult(n, buf) = reader.read(vec![0; 16]).wait();
    /// assert_eq!(&buf[..n?], b"ping");
    /// # Ok(()) }
    /// ```
    pub fn adopt(&self, fd: OwnedFd) -> Result<File, Error> {
        self.core().check()?;
        let file = OpenFile::adopt(self.core().clone(), fd, None, None)?;
        events::file_opened(&file, None);
        Ok(File::new(file))
    }

    pub(crate) fn open(&self, options: &OpenOptions, path: &Path) -> Result<File, Error> {
        opening::open(self.core(), options, path).map(File::new)
    }

    pub(crate) fn open_later(&self, options: OpenOptions, path: PathBuf) -> Op<op::Open> {
        let core = self.core();
        let opening = Opening::new(core.clone(), options, path);
        Op::new(OpenFile::none(core.clone()), op::Open { opening })
    }

    /// Runs a future to its end on this thread. While it is pending the thread collects completions itself, without a
    /// hop to another thread.
    ///
    /// Other futures may be mixed in: any waker ends the sleep. Do not block the thread inside the future with another
    /// executor's `block_on`, which knows nothing of this engine; [`Op::wait`](crate::Op::wait) is fine.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::BufResult;
    /// let text = engine.block_on(async {
    ///     let BufResult(n, buf) = file.read_at(vec![0; 100], 0).await;
    ///     n.map(|n| buf[..n].to_vec())
    /// })?;
    /// assert_eq!(text, b"hello, world");
    /// # Ok(()) }
    /// ```
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        driver::block_on(self.core(), future)
    }

    /// A batch of operations that are submitted together.
    pub fn batch<R>(&self) -> Batch<R> {
        Batch::new(self.core().clone())
    }

    /// Submits what is queued and collects completions on this thread, for programs with a loop of their own: at most `max`
    /// of them, and until at least `min` operations have ended (or streams have become ready) or `timeout` is over. `None`
    /// waits without a limit.
    ///
    /// Returns how many have ended since this thread's last turn, whoever has collected them: fewer than `min` only when the
    /// time was over, more than `max` where other threads have completed some meanwhile. What ends in the caller at its first
    /// poll (page-cache hits, transfers on streams) does not count.
    ///
    /// The meaning of `min` and `max` is that of `min_nr` and `nr` of `io_getevents(2)`: `turn(0, usize::MAX, None)` collects
    /// what is there and returns, `turn(1, 64, None)` waits for the next one. Wakers are called from inside, and at most `max`
    /// callbacks ([`Op::on_completion`]); where `min` of those were called, it waits no longer either. Any number of
    /// threads may call it: one collects, and each of them returns once enough has ended, whoever has collected it.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello")?;
    /// use std::{future::Future, pin::Pin, task::{Context, Poll, Waker}};
    /// let engine = polyaio::Engine::new()?;
    /// let file = polyaio::OpenOptions::new().read(true).open(&engine, &path)?;
    /// let mut len = file.len();
    /// let mut context = Context::from_waker(Waker::noop());
    /// let length = loop {
    ///     match Pin::new(&mut len).poll(&mut context) {
    ///         Poll::Ready(length) => break length?,
    ///         Poll::Pending => engine.turn(1, usize::MAX, None),
    ///     };
    /// };
    /// assert_eq!(length, 5);
    /// # Ok(()) }
    /// ```
    pub fn turn(&self, min: usize, max: usize, timeout: Option<Duration>) -> usize {
        driver::turn(self.core(), min, max, timeout)
    }

    /// A descriptor for the program's own loop (`poll(2)`, `epoll(7)`, a reactor): readable while there is something to do for
    /// [`turn`](Self::turn). A request was queued or has ended, a completion can be collected, a stream has become ready.
    ///
    /// On each report call `turn(0, usize::MAX, None)`, then poll the operations that are of interest. A report too many is
    /// possible, one too few is not. Nothing but `turn` may be done with the descriptor.
    ///
    /// From the first call on the program drives the engine: no background thread is started for it, so that operations that
    /// are awaited elsewhere complete only while somebody calls `turn`, [`block_on`](Self::block_on) or
    /// [`Op::wait`](crate::Op::wait).
    ///
    /// # Errors
    /// [`Error::System`] where there are no descriptors left (`EMFILE`, `ENFILE`).
    pub fn notification(&self) -> Result<BorrowedFd<'_>, Error> {
        self.core().driver.export()
    }

    /// Changes how many worker threads serve at the most, from 1 to the [builder's number](EngineBuilder::threads).
    ///
    /// Takes effect at once: with more, requests that wait for a thread get one; with fewer, what runs is finished, and no
    /// thread beyond the number begins with another. Threads that are too many sleep until they are needed again, or until
    /// the engine ends. The stream workers, and the threads of backends by others, are not counted.
    ///
    /// # Errors
    /// [`Error::Options`] for a number that is out of this range; [`Error::EngineClosed`], [`Error::Forked`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), polyaio::Error> {
    /// let engine = polyaio::Engine::builder().threads(16).build()?;
    /// engine.set_threads(2)?; // The machine has better things to do.
    /// engine.set_threads(16)?;
    /// assert!(engine.set_threads(17).is_err());
    /// # Ok(()) }
    /// ```
    pub fn set_threads(&self, threads: usize) -> Result<(), Error> {
        let core = self.core();
        core.check()?;
        let most = core.threads;
        if !(1..=most).contains(&threads) {
            return Err(Error::Options(format!(
                "threads is {threads}: it must be at least 1, and at most {most}, which the engine was built with"
            )));
        }
        let backends = core.lanes.iter().filter_map(|lane| lane.backend.as_ref());
        backends.for_each(|backend| backend.set_threads(threads));
        Ok(())
    }

    /// The backends, in the order of registration: which started, and why others did not.
    pub fn backends(&self) -> Vec<BackendStatus> {
        let core = self.core();
        let status = |(lane, candidate): (&Lane, &Candidate)| BackendStatus {
            name: candidate.name,
            started: lane.backend.is_some(),
            reason: match &lane.backend {
                Some(backend) => backend.degraded(),
                None => candidate.missing.as_deref().map(str::to_owned),
            },
            capabilities: lane.backend.as_ref().map(|_| lane.capabilities),
        };
        // Ends with the candidates: the stream workers are no backend that anybody could choose.
        core.lanes.iter().zip(&core.settings.candidates).map(status).collect()
    }

    /// What was done so far, counted.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.sync_data().wait()?;
    /// let stats = engine.stats();
    /// for (name, requests) in stats.served_by() {
    ///     println!("{name} has served {requests}");
    /// }
    /// for (reason, count) in &stats.fallbacks {
    ///     println!("{count} times something else was asked: {reason}");
    /// }
    /// assert_eq!(stats.served_by().iter().map(|(_, requests)| requests).sum::<u64>(), 1);
    /// # Ok(()) }
    /// ```
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let counters = &core.counters;
        Stats {
            backends: (0..core.lanes.len()).map(|backend| core.backend_stats(backend)).collect(),
            inline: InlineStats {
                requests: counters.inline_requests.value(),
                bytes: counters.inline_bytes.value(),
                misses: counters.inline_misses.value(),
            },
            streams: InlineStats {
                requests: counters.stream_requests.value(),
                bytes: counters.stream_bytes.value(),
                misses: counters.stream_misses.value(),
            },
            fallbacks: counters.fallbacks(),
            anomalies: Anomalies {
                implausible: counters.implausible.value(),
                unknown_ids: counters.unknown_ids.value(),
                undriven: counters.undriven.value(),
            },
            notifications: NotificationStats {
                callbacks: counters.callbacks.value(),
                panics: counters.callback_panics.value(),
                signals: counters.signals.value(),
                signals_waiting: core.notifications.unsent.waiting() as u64,
            },
        }
    }

    /// Ends the engine without blocking: what is in flight is finished, then all threads end. Dropping the last clone does
    /// the same, but waits for it: unless a shutdown is under way already, or it happens inside a waker that the engine calls.
    ///
    /// # Cancel safety
    /// The shutdown begins with the call and goes on if the future is dropped.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let other = engine.clone();
    /// other.block_on(engine.shutdown());
    /// assert!(file.sync_all().wait().is_err(), "its engine has ended");
    /// # Ok(()) }
    /// ```
    pub fn shutdown(self) -> Shutdown {
        let core = self.core().clone();
        // Closed here and now: the drop of `self` below must not do it, and wait.
        if core.state.close() {
            finish_elsewhere(&core);
        }
        Shutdown { core }
    }

    fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("backends", &self.backends()).finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Which backends to use. Overrides `POLYAIO_BACKEND`.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Makes every fallback at run time an error, and a preferred backend a required one. Overrides `POLYAIO_STRICT`.
    ///
    /// The error is an [`io::Error`](std::io::Error) around an [`Error::Strict`], which says what the backend answered and
    /// what to do. A request's own errors (`EBADF`, `ENOSPC` ...) stay the kernel's.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }

    /// Requests that each backend holds at the most; more wait in order. The default is 256.
    ///
    /// Kernel AIO takes so many events from `fs.aio-max-nr`.
    pub fn queue_depth(mut self, depth: usize) -> Self {
        self.queue_depth = depth;
        self
    }

    /// Threads at the most that get a context of kernel AIO of their own while several are inside
    /// [`block_on`](Engine::block_on) or a `wait` at the same time: each with room for [`queue_depth`](Self::queue_depth)
    /// requests, from `fs.aio-max-nr`, made when it is first wanted, and kept. 0: all threads share one. The default is the
    /// number of processors, or 0 where there is one only; at most 16. Whoever gets none, and all other executors, share one.
    pub fn thread_contexts(mut self, most: usize) -> Self {
        self.thread_contexts = Some(most);
        self
    }

    /// Worker threads at the most. They start as they are needed. The default is 32. [`Engine::set_threads`] changes it while
    /// the engine runs, to this number at the most.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Operations that the engine holds at the most, in flight and waiting. The default is 65 536; at most two million.
    ///
    /// Further ones wait in line for a place, with their buffers. One that stands in the line and is not polled when its turn
    /// comes holds up those behind it.
    pub fn capacity(mut self, operations: usize) -> Self {
        self.capacity = operations;
        self
    }

    /// How long submitting one request may hold the caller up, by sleeping or computing, before it counts as slow. A backend
    /// that is slow for a file a few times in a row rests for that file. Overrides `POLYAIO_SLOW_SUBMIT_US`. The default is
    /// 0.1 ms; [`Duration::MAX`] is never.
    pub fn slow_submit(mut self, time: Duration) -> Self {
        self.slow_submit = Some(time);
        self
    }

    /// Adds a backend made elsewhere. It is asked first to open files, and serves other files where the policy names it.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use std::sync::Arc;
    /// use polyaio::{Engine, OpenOptions, Policy, backends::noop::Noop};
    /// // What does the crate itself cost? This one completes everything, and does nothing.
    /// let policy = Policy::Prefer(vec!["noop".into()]);
    /// let engine = Engine::builder().backend(Arc::new(Noop)).policy(policy).build()?;
    /// let file = OpenOptions::new().write(true).open(&engine, &path)?;
    /// assert_eq!(file.write_at("HELLO", 0).wait().0?, 5);
    /// assert_eq!(std::fs::read(&path)?, b"hello, world");
    /// # Ok(()) }
    /// ```
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.own.push(Own::Whole(backend));
        self
    }

    /// Adds a backend that only knows how to serve one operation, with threads of its own to do it on: at most
    /// [`threads`](Self::threads) of them, and one to begin with. Otherwise as [`backend`](Self::backend); those that are
    /// added by either are asked to open files in the order in which they were added.
    ///
    /// One that serves several engines has threads in each.
    pub fn sync_backend(mut self, backend: Arc<dyn SyncBackend>) -> Self {
        self.own.push(Own::Sync(backend));
        self
    }

    /// Starts the backends.
    ///
    /// One that does not start is left out, with a reason in [`Engine::backends`]; only the thread pool has to.
    ///
    /// # Errors
    /// [`Error::Options`] for a queue depth, capacity or number of threads of 0, and for a value in the environment that
    /// makes no sense; [`Error::UnknownBackend`]; [`Error::BackendUnavailable`] when a required one did not start;
    /// [`Error::System`] where there are no descriptors left.
    pub fn build(self) -> Result<Engine, Error> {
        let by_environment = self.policy.is_none();
        let policy = self.policy.clone().map_or_else(policy_from_environment, Ok)?;
        let strict = self.strict.map_or_else(strict_from_environment, Ok)?;
        for (value, name) in [(self.queue_depth, "queue depth"), (self.threads, "threads"), (self.capacity, "capacity")]
        {
            if value == 0 {
                return Err(Error::Options(format!("{name} is 0: it must be at least 1")));
            }
        }
        let slow = self.slow_submit.map_or_else(slow_submit_from_environment, Ok)?;
        let registered = self.start_backends(&policy)?;
        let pool = registered.iter().position(|r| r.name == backends::LAST_RESORT).unwrap_or(0) as u8;
        let candidates = registered.iter().map(candidate).collect();
        // What a mistake in the policy leaves behind is an engine that was never used: its backends end on drop.
        let settings = Settings::new(candidates, &policy, strict, facts::swap_is_active())
            .map_err(|error| if by_environment { of_environment(error) } else { error })?;
        let fork = Arc::new(ForkGuard::new());
        let driver = Driver::new(
            fork.clone(),
            Sides::new(self.thread_contexts.unwrap_or_else(contexts_for_this_machine), slow),
        )?;
        for registered in &registered {
            let notification = registered.backend.as_ref().ok().and_then(|backend| backend.notification());
            if let Some(notification) = notification {
                driver.watch(notification)?;
            }
        }
        let mut lanes: Vec<_> =
            registered.into_iter().map(|r| Lane::new(r.name, r.backend.ok(), r.capabilities, slow)).collect();
        let workers = backends::stream_workers(self.capacity);
        let stream_workers = lanes.len() as u8;
        lanes.push(Lane::new(workers.name(), Some(workers.clone()), workers.capabilities(), slow));
        let core = Arc::new(Core {
            slab: Arc::new(Slab::new(self.capacity)),
            settings,
            lanes: lanes.into(),
            driver,
            counters: Counters::default(),
            state: State::open(),
            unfinished: AtomicUsize::new(0),
            ended: Counter::default(),
            notifications: Notifications::default(),
            drained: Drained::default(),
            end: Ended::default(),
            pool,
            stream_workers,
            threads: self.threads,
            fork,
        });
        let engine = Engine { inner: Arc::new(Inner { core }) };
        events::engine_started(engine.core());
        Ok(engine)
    }

    /// Whether the policy leaves all data to a backend of the program's own, which has its files for itself.
    fn has_files_of_its_own(&self, policy: &Policy) -> bool {
        let Policy::Require(name) = policy else { return false };
        self.own.iter().any(|own| {
            let (own, capabilities) = match own {
                Own::Whole(backend) => (backend.name(), backend.capabilities()),
                Own::Sync(backend) => (backend.name(), backend.capabilities()),
            };
            own == name && capabilities.serves == Serves::OwnFiles
        })
    }

    fn start_backends(&self, policy: &Policy) -> Result<Vec<Registered>, Error> {
        let own = self.own.iter().map(|own| match own {
            Own::Whole(backend) => Registered {
                name: backend.name(),
                capabilities: backend.capabilities(),
                backend: Ok(backend.clone()),
                automatic: false,
            },
            Own::Sync(backend) => backends::start_threaded(backend.clone(), self.threads),
        });
        let mut all: Vec<Registered> = own.collect();
        // The end of a kernel's context takes tens of milliseconds: not for tests with thousands of engines.
        let idle = self.has_files_of_its_own(policy);
        all.extend(backends::start(self.queue_depth, self.threads, self.capacity, idle)?);
        if let Some(twice) = all.iter().enumerate().find(|(i, r)| all[..*i].iter().any(|other| other.name == r.name)) {
            return Err(Error::Options(format!("there are two backends named {:?}", twice.1.name)));
        }
        if all.iter().any(|registered| registered.name == backends::STREAM_WORKERS) {
            return Err(Error::Options(format!("{:?} is the engine's own name", backends::STREAM_WORKERS)));
        }
        // One more number is the stream workers'.
        if all.len() >= usize::from(crate::router::learned::INLINE) {
            return Err(Error::Options(format!("{} backends are too many", all.len())));
        }
        Ok(all)
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("policy", &self.policy)
            .field("strict", &self.strict)
            .field("queue_depth", &self.queue_depth)
            .field("threads", &self.threads)
            .field("capacity", &self.capacity)
            .field("slow_submit", &self.slow_submit)
            .field("thread_contexts", &self.thread_contexts)
            .finish_non_exhaustive()
    }
}

fn candidate(registered: &Registered) -> Candidate {
    Candidate {
        name: registered.name,
        capabilities: registered.capabilities,
        automatic: registered.automatic,
        missing: registered.backend.as_ref().err().map(|reason| reason.as_str().into()),
    }
}

/// One for each processor: more threads do not run at the same time.
fn contexts_for_this_machine() -> usize {
    std::thread::available_parallelism().map_or(0, |count| if count.get() > 1 { count.get() } else { 0 })
}

fn policy_from_environment() -> Result<Policy, Error> {
    match std::env::var(ENV_BACKEND) {
        Ok(name) if name.is_empty() => Ok(Policy::Auto),
        Ok(name) => Ok(name.parse().unwrap_or(Policy::Auto)),
        Err(std::env::VarError::NotPresent) => Ok(Policy::Auto),
        // Shown as it is, and refused with the names that there are.
        Err(std::env::VarError::NotUnicode(name)) => Ok(Policy::Prefer(vec![name.to_string_lossy().into_owned()])),
    }
}

/// A name that no backend has, where the environment has it from.
fn of_environment(error: Error) -> Error {
    let Error::UnknownBackend { name, known } = &error else { return error };
    let note = crate::error::not_compiled_in(name);
    Error::Options(format!(
        "{ENV_BACKEND} names {name:?}, and there is no such backend{note}: it must be auto, or one or more of {}, with \
         commas between",
        known.join(", ")
    ))
}

fn strict_from_environment() -> Result<bool, Error> {
    let value = std::env::var_os(ENV_STRICT).unwrap_or_default();
    match value.to_str() {
        Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        _ => Err(Error::Options(format!("{ENV_STRICT} is {value:?}: it must be 0 or 1"))),
    }
}

fn slow_submit_from_environment() -> Result<Duration, Error> {
    let wrong =
        |value: &str| Error::Options(format!("{ENV_SLOW_SUBMIT} is {value:?}: it must be a number of microseconds"));
    match std::env::var(ENV_SLOW_SUBMIT).as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("") => Ok(monitor::SLOW),
        Ok(value) => value.parse().map(Duration::from_micros).map_err(|_| wrong(value)),
        Err(_) => Err(wrong("not valid UTF-8")),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.core.fork.is_child() {
            // The threads, and the kernel's contexts, are the parent's: touch nothing, leak all.
            std::mem::forget(self.core.clone());
            return;
        }
        if !self.core.state.close() {
            return;
        }
        let owned = std::thread::current().name().is_some_and(|name| name.starts_with(backends::THREAD_PREFIX));
        if owned || dispatch::is_completing() || request::is_in_foreign_code() {
            // A thread of ours, or one in the middle of completing requests, would wait for itself; one inside a waker
            // perhaps for another that is about to call it.
            finish_elsewhere(&self.core);
        } else {
            finish(&self.core);
        }
    }
}

/// Finishes a closed engine on a thread of its own.
fn finish_elsewhere(core: &Arc<Core>) {
    let mine = core.clone();
    if std::thread::Builder::new().name("polyaio-shutdown".into()).spawn(move || finish(&mine)).is_err() {
        // The engine refuses new operations all the same, and its threads finish what they have; they end with the process.
        wake_all(core);
        core.end.end();
    }
}

/// Waits for what is in flight in a closed engine, and ends all threads. Who has closed it calls this, once.
fn finish(core: &Arc<Core>) {
    events::shutdown("engine shuts down");
    core.driver.sides.share_all(core);
    wake_all(core);
    driver::block_on(core, Drain { core });
    core.notifications.end();
    core.driver.stop_background();
    #[cfg(feature = "tokio")]
    core.driver.stop_reactors();
    core.all_lanes().filter_map(|lane| lane.backend.as_ref()).for_each(|backend| backend.shutdown());
    events::shutdown("engine has ended");
    core.end.end();
}

/// Lets those look again that do not end by themselves: who waits for a stream, or in line for a slot.
fn wake_all(core: &Core) {
    core.driver.wake_all_streams();
    core.slab.wake_line();
}

/// Ready when nothing is in flight that would end by itself, and no callback is to come.
struct Drain<'a> {
    core: &'a Core,
}

impl Future for Drain<'_> {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.core.drained.register(context.waker());
        self.core.flush();
        if self.core.is_idle() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Ready when the engine has ended; made by [`Engine::shutdown`].
#[must_use = "the engine ends anyway; this waits for it"]
pub struct Shutdown {
    core: Arc<Core>,
}

impl Future for Shutdown {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.core.end.poll(context.waker())
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    /// A name that another build knows is told from one that nobody knows.
    #[test]
    fn a_backend_that_is_not_compiled_in_is_said_to_be_so() {
        let all = [("kernel-aio", cfg!(feature = "kernel-aio")), ("posix-aio", cfg!(feature = "posix-aio"))];
        for (name, compiled_in) in all {
            let built = Engine::builder().policy(Policy::Prefer(vec![name.to_owned()])).strict(false).build();
            match built {
                Ok(engine) => assert!(compiled_in && engine.backends().iter().any(|status| status.name == name)),
                Err(error) => {
                    assert!(!compiled_in && matches!(error, Error::UnknownBackend { .. }), "{error:?}");
                    let feature = format!("feature {name}");
                    assert!(error.to_string().contains(&feature) || cfg!(not(target_os = "linux")), "{error}");
                    let text = of_environment(error).to_string();
                    assert!(text.contains(&feature) && text.contains(backends::LAST_RESORT), "{text}");
                }
            }
        }
        let unknown = Engine::builder().policy(Policy::Require("io-uring".to_owned())).build().expect_err("no such");
        assert!(!unknown.to_string().contains("feature"), "{unknown}");
    }
}
