//! How an engine is made: its settings, from the program or from the environment, and its parts.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, Inner};
use crate::backend::{Backend, Serves, SyncBackend};
use crate::backends::{self, Registered};
use crate::dispatch::{Core, Drained, Ended, Lane, State};
use crate::driver::{Driver, Sides};
use crate::error::Error;
use crate::events;
use crate::fork::ForkGuard;
use crate::monitor;
use crate::notify::Notifications;
use crate::router::facts;
use crate::router::policy::{Candidate, Policy, Settings, Shelf};
use crate::slot::Slab;
use crate::stats::{Counter, Counters};
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

impl EngineBuilder {
    pub(super) fn new() -> Self {
        Self {
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

    /// Which backends to use. Overrides `POLYAIO_BACKEND`. Whether there are such backends is seen by [`build`](Self::build).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// use polyaio::{Engine, OpenOptions, Policy};
    /// let engine = Engine::builder().policy(Policy::Require("thread-pool".into())).build()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let (written, trace) = file.write_all_at("hello", 0).traced().wait();
    /// written.0?;
    /// assert_eq!(trace.served_by, "thread-pool", "not even in the caller");
    /// # Ok(()) }
    /// ```
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Makes every fallback at run time an error, and a preferred backend a required one. Overrides `POLYAIO_STRICT`.
    ///
    /// The error is an [`io::Error`](std::io::Error) around an [`Error::Strict`], which says what the backend answered and
    /// what to do. A request's own errors (`EBADF`, `ENOSPC` ...) stay the kernel's.
    ///
    /// # Examples
    /// An engine that is to run on kernel AIO does not start where there is none:
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::{Engine, Error, Policy};
    /// match Engine::builder().policy(Policy::Prefer(vec!["kernel-aio".into()])).strict(true).build() {
    ///     Ok(engine) => assert!(engine.backends()[0].started),
    ///     Err(Error::BackendUnavailable { name, reason }) => println!("{name}: {reason}"),
    ///     Err(Error::UnknownBackend { name, known }) => println!("this build has no {name}, but {known:?}"),
    ///     Err(other) => return Err(other.into()),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }

    /// Requests that each backend holds at the most; more wait in order. At least 1; the default is 256.
    ///
    /// Kernel AIO takes so many events from `fs.aio-max-nr`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::Engine;
    /// let engine = Engine::builder().queue_depth(8).build()?;
    /// // More is no error, it waits. Less than was asked for, where a quota is nearly spent, is told:
    /// for backend in engine.backends().iter().filter(|backend| backend.started) {
    ///     println!("{}: at most {:?} requests", backend.name, backend.capabilities.map(|can| can.queue_bound));
    /// }
    /// assert!(Engine::builder().queue_depth(0).build().is_err());
    /// # Ok(()) }
    /// ```
    pub fn queue_depth(mut self, depth: usize) -> Self {
        self.queue_depth = depth;
        self
    }

    /// Threads at the most that get a context of kernel AIO of their own while several are inside
    /// [`block_on`](Engine::block_on) or a `wait` at the same time: each with room for [`queue_depth`](Self::queue_depth)
    /// requests, from `fs.aio-max-nr`, made when it is first wanted, and kept. 0: all threads share one. The default is the
    /// number of processors, or 0 where there is one only; at most 16. Whoever gets none, and all other executors, share one.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::Engine;
    /// // What is in flight on the device is then bounded by one queue depth, however many threads there are.
    /// let engine = Engine::builder().queue_depth(64).thread_contexts(0).build()?;
    /// assert!(engine.stats().backends.iter().all(|backend| backend.contexts <= 1));
    /// # Ok(()) }
    /// ```
    pub fn thread_contexts(mut self, most: usize) -> Self {
        self.thread_contexts = Some(most);
        self
    }

    /// Worker threads at the most, at least 1. They start as they are needed. The default is 32.
    /// [`Engine::set_threads`] changes it while the engine runs, to this number at the most.
    ///
    /// # Examples
    /// One thread serves any number of operations, one after the other:
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// let only = polyaio::Policy::Require("thread-pool".into());
    /// let engine = polyaio::Engine::builder().threads(1).policy(only).build()?;
    /// let file = polyaio::OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// for block in 0..100 {
    ///     batch.push(file.write_all_at(vec![1; 512], block * 512), |written| written.0);
    /// }
    /// assert!(engine.block_on(batch.all()).iter().all(|written| written.is_ok()));
    /// # Ok(()) }
    /// ```
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Operations that the engine holds at the most, in flight and waiting. At least 1; the default is 65 536; more than two
    /// million are as many as that.
    ///
    /// Further ones wait in line for a place, with their buffers. One that stands in the line and is not polled when its turn
    /// comes holds up those behind it.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::Engine;
    /// let engine = Engine::builder().capacity(1).build()?;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # let file = polyaio::OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let first = file.sync_all().try_start().map_err(|_| "there is room for one")?;
    /// let second = file.sync_all().try_start().err().ok_or("and not for two")?.into_inner();
    /// first.wait()?;  // it has its place until its result is fetched
    /// second.wait()?; // in line, but for that
    /// # Ok(()) }
    /// ```
    pub fn capacity(mut self, operations: usize) -> Self {
        self.capacity = operations;
        self
    }

    /// How long submitting one request may hold the caller up, by sleeping or computing, before it counts as slow. A backend
    /// that is slow for a file a few times in a row rests for that file. Overrides `POLYAIO_SLOW_SUBMIT_US`. The default is
    /// 0.1 ms; [`Duration::MAX`] is never.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// // On a slow machine 0.1 ms are soon over; and where the route is never to change, nothing is slow.
    /// for time in [Duration::from_millis(2), Duration::MAX] {
    ///     let engine = polyaio::Engine::builder().slow_submit(time).build()?;
    ///     assert!(engine.stats().backends.iter().all(|backend| backend.slow_submits == 0));
    /// }
    /// # Ok(()) }
    /// ```
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
    ///
    /// # Examples
    /// Every request of some files, delayed. [`SyncBackend`] shows one with files of its own.
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// use std::{io, sync::Arc, time::{Duration, Instant}};
    /// use polyaio::backend::{Capabilities, Operation, SyncBackend};
    ///
    /// struct Slow(Duration);
    ///
    /// impl SyncBackend for Slow {
    ///     fn name(&self) -> &'static str { "slow" }
    ///     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    ///     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    ///         std::thread::sleep(self.0);
    ///         operation.system_call()
    ///     }
    /// }
    ///
    /// let delay = Duration::from_millis(5);
    /// let policy = polyaio::Policy::Require("slow".into());
    /// let engine = polyaio::Engine::builder().sync_backend(Arc::new(Slow(delay))).policy(policy).build()?;
    /// let file = polyaio::OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let begin = Instant::now();
    /// file.write_all_at("hello", 0).wait().0?;
    /// assert!(begin.elapsed() >= delay);
    /// # Ok(()) }
    /// ```
    pub fn sync_backend(mut self, backend: Arc<dyn SyncBackend>) -> Self {
        self.own.push(Own::Sync(backend));
        self
    }

    /// Starts the backends.
    ///
    /// One that does not start is left out, with a reason in [`Engine::backends`]; only the thread pool has to.
    ///
    /// # Errors
    /// [`Error::Options`] for a queue depth, capacity or number of threads of 0, for two backends of one name, and for a value
    /// in the environment that makes no sense; [`Error::UnknownBackend`]; [`Error::BackendUnavailable`] when a required one
    /// did not start, or the thread pool cannot have a single thread; [`Error::System`] where there are no descriptors left.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::{Engine, Error, Policy};
    /// let error = Engine::builder().policy(Policy::Prefer(vec!["io-uring".into()])).build().unwrap_err();
    /// assert!(matches!(error, Error::UnknownBackend { .. }));
    /// println!("{error}"); // there is no backend "io-uring"; use one of: ...
    /// assert!(matches!(Engine::builder().threads(0).build(), Err(Error::Options(_))));
    /// # Ok(()) }
    /// ```
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
        let most = self.thread_contexts.unwrap_or_else(contexts_for_this_machine);
        let driver = Driver::new(fork.clone(), Sides::new(most, slow))?;
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
            plans: Shelf::default(),
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

#[cfg(all(test, target_os = "linux", not(polyaio_loom)))]
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
