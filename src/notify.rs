//! Being told of a result without asking for it: a callback per operation, or a queued signal.
//!
//! An operation with a callback is a [task]: it has the operation, and is its waker. A wake-up puts it into the engine's
//! queue of tasks that somebody has to look after. That is done by whoever collects completions, between two sleeps
//! ([`run`]): outside of every lock, outside of the driver's seat, and never inside of what submits. It polls the operation, so
//! that the transfer on a stream happens just before the callback, and calls the callback with the result.

mod signal;
mod task;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::signal::Signalled;
use self::signal::Unsent;
use self::task::Run;
use crate::backend::CancelOutcome;
use crate::dispatch::{Core, REAP_MAX};
use crate::driver;
use crate::future::Op;
use crate::op::Operation;
use crate::refused::Refused;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// How deep callbacks that wait may lie in each other on one thread, each run by the wait of the one before it.
const DEPTH_MAX: usize = 16;

/// So long what callbacks have queued may wait for the callbacks after them.
const PATIENCE: Duration = Duration::from_micros(50);

/// An operation whose callback is to come; made by [`Op::on_completion`]. Dropping it changes nothing.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let (sender, results) = std::sync::mpsc::channel();
/// let sync = file.sync_all().on_completion(move |synced| sender.send(synced).expect("waited for"))?;
/// drop(sync); // which changes nothing: it is no future
/// results.recv()??;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Callback {
    task: Arc<dyn Run>,
}

impl Callback {
    /// The operation's number: of all that were given a callback or a signal in this process, no two have the same. Never 0.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use std::collections::HashMap;
    /// // What is to be cancelled when its client goes away.
    /// let mut of_client = HashMap::new();
    /// for _ in 0..3 {
    ///     let read = reader.read(vec![0; 4]).on_completion(|_| ())?;
    ///     of_client.insert(read.id(), read);
    /// }
    /// assert_eq!(of_client.len(), 3);
    /// of_client.values().for_each(|read| drop(read.cancel()));
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn id(&self) -> u64 {
        self.task.id()
    }

    /// Wishes the operation cancelled. The callback is called in every case, with a result that agrees with the answer; the
    /// three answers are those of [`Op::cancel`]. Never called inside of this. Waits for nothing but another thread that is
    /// polling the operation at this moment.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::backend::CancelOutcome;
    /// let (sender, results) = std::sync::mpsc::channel();
    /// let read = reader.read(vec![0; 4]).on_completion(move |read| sender.send(read).expect("waited for"))?;
    /// assert_eq!(read.cancel(), CancelOutcome::Cancelled, "nothing was written");
    /// let polyaio::BufResult(result, buffer) = results.recv()?;
    /// assert_eq!((result.unwrap_err().raw_os_error(), buffer.len()), (Some(libc::ECANCELED), 4));
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn cancel(&self) -> CancelOutcome {
        self.task.clone().cancel()
    }
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callback").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Being told without asking.
impl<T: Operation> Op<T> {
    /// Begins the operation, and has `callback` called with its result, once: for code without futures.
    ///
    /// **Where**: on a thread that collects completions of this engine: inside of anybody's
    /// [`Engine::turn`](crate::Engine::turn), [`Engine::block_on`](crate::Engine::block_on) or [`wait`](Self::wait), in the
    /// drop of the engine, or on the engine's background thread, which is started where nobody else collects (not after
    /// [`Engine::notification`](crate::Engine::notification): then only `turn` and the waits do). Never inside of this call,
    /// of a poll, or of anything that submits without waiting. Callbacks of several operations come in no order, and
    /// perhaps on several threads at a time. A callback that computes for long keeps its thread from collecting; others can
    /// collect meanwhile.
    ///
    /// **What it may do**: anything. No lock of the engine is held. Operations that it begins are submitted together with those
    /// of the callbacks around it, and at once where there are none. It may wait; other callbacks are called meanwhile, on
    /// the same thread too (up to 16 in each other). It may drop the last `File`, or the last [`Engine`](crate::Engine),
    /// which then ends on a thread of its own. So do not wait for the engine while holding a lock that a callback takes.
    ///
    /// **Panics** in it end there, as in a waker; they are counted
    /// ([`NotificationStats::panics`](crate::NotificationStats::panics)).
    ///
    /// **The end of the engine**: its drop (or the end of its [`shutdown`](crate::Engine::shutdown)) comes after every callback;
    /// what waited for a stream, or for a place in the engine, is given [`Error::EngineClosed`](crate::Error::EngineClosed).
    /// None is called later. Inside of a callback the drop does not wait.
    ///
    /// **Streams**: the transfer happens just before the callback, on its thread.
    ///
    /// # Errors
    /// [`Refused`], with the operation: the engine has ended, or is the parent process's. The callback is dropped.
    ///
    /// # Panics
    /// Panics where the operation has already returned its result.
    ///
    /// # Cancel safety
    /// Dropping the [`Callback`] does not cancel the operation; [`Callback::cancel`] does.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("greeting");
    /// # std::fs::write(&path, "hello, world")?;
    /// use polyaio::{BufResult, Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().read(true).open(&engine, &path)?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// file.read_at(vec![0; 5], 7).on_completion(move |BufResult(n, buf)| {
    ///     sender.send(n.map(|n| buf[..n].to_vec())).expect("somebody waits");
    /// })?;
    /// assert_eq!(receiver.recv()??, b"world");
    /// # Ok(()) }
    /// ```
    pub fn on_completion<F>(self, callback: F) -> Result<Callback, Refused<Self>>
    where
        F: FnOnce(T::Output) + Send + 'static,
    {
        task::register(self, task::next_id(), callback)
    }
}

/// What an engine has to look after on behalf of callbacks.
#[derive(Default)]
pub(crate) struct Notifications {
    /// Tasks that were woken. Each is in it at most once.
    ready: Mutex<VecDeque<Arc<dyn Run>>>,
    /// Length of `ready`, to be read without the lock.
    count: AtomicUsize,
    /// Callbacks that were registered and have not returned.
    live: AtomicUsize,
    /// Signals for which the kernel had no room.
    pub(crate) unsent: Unsent,
}

impl Notifications {
    fn push(&self, task: Arc<dyn Run>) {
        let mut ready = lock(&self.ready);
        ready.push_back(task);
        self.count.store(ready.len(), Ordering::SeqCst);
    }

    fn pop(&self) -> Option<Arc<dyn Run>> {
        let mut ready = lock(&self.ready);
        let task = ready.pop_front();
        self.count.store(ready.len(), Ordering::SeqCst);
        task
    }

    /// Whether some task waits for somebody who looks after it.
    pub(crate) fn is_ready(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Callbacks that were registered and have not returned.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// After the last callback: what was woken once too often goes.
    pub(crate) fn end(&self) {
        let left = std::mem::take(&mut *lock(&self.ready));
        self.count.store(0, Ordering::SeqCst);
        drop(left);
        self.unsent.retry();
    }
}

thread_local! {
    /// How many calls of [`run`] this thread is inside.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The engine of the innermost.
    static RUNNING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

struct Running {
    outer: *const Core,
}

impl Running {
    fn enter(core: &Core) -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self { outer: RUNNING.replace(core) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        RUNNING.set(self.outer);
    }
}

/// Whether this thread is inside of a callback, or of its operation's poll.
fn is_running(core: &Core) -> bool {
    std::ptr::eq(RUNNING.get(), core)
}

/// Whether this thread is going to look after tasks before it sleeps.
pub(crate) fn is_collecting(core: &Core) -> bool {
    is_running(core) || driver::is_driving(core)
}

/// Whether [`run`] would find something to do on this thread.
pub(crate) fn is_due(core: &Core) -> bool {
    core.notifications.is_ready() && DEPTH.get() < DEPTH_MAX && !core.fork.is_child()
}

/// Looks after the tasks that are ready, at most `max`: for who collects, between two sleeps. Returns how many callbacks were
/// called.
pub(crate) fn run(core: &Arc<Core>, max: usize) -> usize {
    if core.fork.is_child() {
        return 0;
    }
    core.notifications.unsent.retry();
    if !is_due(core) {
        return 0;
    }
    let running = Running::enter(core);
    // What becomes ready meanwhile is for the next call, so that the caller gets to do something else.
    let most = core.notifications.count.load(Ordering::SeqCst).min(max).min(REAP_MAX);
    let mut called = 0;
    let mut flushed = Instant::now();
    for _ in 0..most {
        if core.fork.is_child() {
            // A callback has forked: the others are the parent's.
            break;
        }
        let Some(task) = core.notifications.pop() else { break };
        called += usize::from(task.run());
        if core.queued() > 0 && flushed.elapsed() > PATIENCE {
            core.flush();
            flushed = Instant::now();
        }
    }
    drop(running);
    core.flush();
    called
}
