//! The engine: owns the backends, and ends them.

mod builder;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use builder::EngineBuilder;

use crate::backend::Capabilities;
use crate::backends;
use crate::batch::Batch;
use crate::descriptor::OpenFile;
use crate::dispatch::{self, Core, Lane};
use crate::driver;
use crate::error::Error;
use crate::events;
use crate::file::File;
use crate::future::Op;
use crate::op;
use crate::open::OpenOptions;
use crate::opening::{self, Opening};
use crate::os::{self, BorrowedFd, OwnedFd};
use crate::request;
use crate::router::policy::Candidate;
use crate::stats::{Anomalies, InlineStats, NotificationStats, Stats};

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
    /// `thread-pool`, or several in their order with commas between: [`Policy::Prefer`](crate::Policy::Prefer).
    /// `POLYAIO_STRICT` is `0` (the default, also where it is empty) or `1`: what is preferred is required, so that the
    /// engine fails where one of the named did not start. `POLYAIO_SLOW_SUBMIT_US` is the number for
    /// [`EngineBuilder::slow_submit`] in microseconds. Names are written as they are shown, without spaces; anything
    /// else is an error.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::Engine;
    /// let engine = Engine::new()?;
    /// // What was chosen shows in each file's route, and in what was counted; whether a backend is there at all, here:
    /// for missing in engine.backends().iter().filter(|backend| !backend.started) {
    ///     eprintln!("{}: {}", missing.name, missing.reason.as_deref().unwrap_or_default());
    /// }
    /// assert!(engine.backends().iter().any(|backend| backend.started));
    /// # Ok(()) }
    /// ```
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// Settings to start from.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::Engine;
    /// // What the builder is told counts, whatever the environment says.
    /// let engine = Engine::builder().strict(false).threads(2).build()?;
    /// assert!(engine.set_threads(3).is_err(), "2 is the most");
    /// # Ok(()) }
    /// ```
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// Takes over any open descriptor: a file, a pipe, a socket, standard input ... It is closed with the [`File`].
    ///
    /// The descriptor's flags are not changed.
    ///
    /// # Errors
    /// [`Error::System`] with `EBADF` for a descriptor opened with `O_PATH`; [`Error::EngineClosed`], [`Error::Forked`].
    ///
    /// # Platform
    /// Windows: an `OwnedHandle`. A file that was not opened for overlapped I/O is opened once more, with the same rights and at
    /// the same position, and the given handle is closed, with the locks that it holds. Where others do not let the file be
    /// opened, the given handle is used, and each transfer moves its position.
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
        let file = OpenFile::adopt(self.core().clone(), os::adopt(fd), None, None)?;
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
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let other = polyaio::OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("other"))?;
    /// // Operations of several files and kinds, one submission.
    /// let mut batch = engine.batch();
    /// batch.push(file.write_all_at("HELLO", 0), |written| written.0);
    /// batch.push(other.write_all_at("WORLD", 0), |written| written.0);
    /// batch.push(file.sync_data(), |synced| synced);
    /// for result in engine.block_on(batch.all()) { result?; }
    /// # Ok(()) }
    /// ```
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
    ///
    /// # Platform
    /// Windows: an event, signalled while there is something to do. It does not tell of a backend that has a
    /// [notification](crate::Backend::notification) of its own: wait for that as well.
    ///
    /// # Examples
    /// `poll(2)` here stands for the program's own loop; `examples/event_loop.rs` is a whole one.
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use std::{future::Future, os::fd::AsRawFd, pin::Pin, task::{Context, Poll, Waker}};
    /// let notification = engine.notification()?.as_raw_fd();
    /// let mut sync = file.sync_all();
    /// let mut context = Context::from_waker(Waker::noop());
    /// while Pin::new(&mut sync).poll(&mut context).is_pending() {
    ///     let mut watched = [libc::pollfd { fd: notification, events: libc::POLLIN, revents: 0 }];
    ///     // SAFETY: one structure, which stays where it is during the call.
    ///     unsafe { libc::poll(watched.as_mut_ptr(), 1, -1) };
    ///     engine.turn(0, usize::MAX, None);
    /// }
    /// # Ok(()) }
    /// ```
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
        let backends = core.all_lanes().filter_map(|lane| lane.backend.as_ref());
        backends.for_each(|backend| backend.set_threads(threads));
        Ok(())
    }

    /// The backends, in the order of registration: which started, and why others did not.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// let backends = engine.backends();
    /// let pool = backends.last().ok_or("there is at least one")?;
    /// assert!(pool.name == "thread-pool" && pool.started, "which serves whatever others do not");
    /// # Ok(()) }
    /// ```
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
    #[cfg(all(unix, feature = "tokio"))]
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
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Shutdown;
/// let shutdown: Shutdown = engine.shutdown();            // it has begun, whether or not it is awaited
/// let error = file.len().wait().unwrap_err();
/// println!("{error}");                                   // "... keep the `Engine` alive while its files are used"
/// futures::executor::block_on(shutdown);                 // in any executor: the engine needs no help to end
/// # Ok(()) }
/// ```
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
