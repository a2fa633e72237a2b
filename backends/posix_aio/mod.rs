//! POSIX AIO through the C library: `aio_read`, `aio_write`, `aio_fsync`, `lio_listio`.
//!
//! On Linux it is the C library that serves them, on threads of its own: glibc one at a time per descriptor, so that a file's
//! requests are spread over duplicates of its descriptor; musl on a thread for each. FreeBSD's, NetBSD's and macOS' are their
//! kernels'. One thread waits for all of them at a cost that does not grow with their number. It is there for those who
//! name it.
//!
//! | file | what |
//! |---|---|
//! | `library.rs` | what the C libraries do differently |
//! | `abi.rs` | their functions, and control blocks |
//! | `probe.rs` | what the machine allows, or the reason why not |
//! | `submit.rs` | from a batch to the seats |
//! | `seats.rs` | which request goes to the C library when, and through which descriptor; cancelling |
//! | `seats/send.rs` | handing requests over, several in one call |
//! | `duplicates.rs` | the descriptors of each file |
//! | `suspend.rs` | where the reaper sleeps, and how it is woken: three ways, in `suspend/` |
//! | `reap.rs` | the thread that ends requests |
//!
//! Four rules hold it together:
//! - *Control blocks never move*: they lie in one table, and each is sent, asked and collected under one lock.
//! - *Few are at the C library, all others wait here*: whatever the queue depth, its lists stay short.
//! - *A control block that somebody sleeps on is not used again*: the reaper sleeps on those of the seats, and a thread that
//!   waits for nothing but one request on that one's.
//! - *Duplicates live as long as their descriptor*: closing one any earlier would drop the process's `fcntl` locks.
//!
//! # Examples
//! It serves where it is named:
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
//! # let path = dir.path().join("data");
//! use polyaio::{Engine, Error, OpenOptions, Policy, backends::posix_aio};
//! let engine = match Engine::builder().policy(Policy::Prefer(vec![posix_aio::NAME.into()])).build() {
//!     Ok(engine) => engine,
//!     Err(Error::BackendUnavailable { reason, .. }) => return Ok(println!("{reason}")),
//!     Err(other) => return Err(other.into()),
//! };
//! let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
//! let (written, trace) = file.write_all_at("hello", 0).traced().wait();
//! written.0?;
//! println!("served by {trace}");
//! assert!(file.route().write.iter().any(|step| step.backend == posix_aio::NAME));
//! # Ok(()) }
//! ```

mod abi;
mod duplicates;
mod library;
mod probe;
mod reap;
mod seats;
mod submit;
mod suspend;
#[cfg(all(test, not(polyaio_loom), target_os = "linux", any(target_env = "gnu", target_env = "musl")))]
mod tests;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use probe::{NotStarted, Options};

use crate::backend::{Backend, Batch, CancelOutcome, Capabilities, OpSet, Refusal, Serves};
use crate::completion::Errno;
use crate::request::{OpKind, RequestId};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, lock};
use library::Library;
use probe::Limits;
use seats::{Leaving, Seats};
use suspend::{Bell, Phase};

/// The name of this backend in policies and reports.
///
/// # Examples
/// ```
/// # use polyaio::backends::{COMPILED_IN, posix_aio};
/// // Where the platform's C library has none that can be used, the name is known all the same, and why it does not start.
/// # #[cfg(target_os = "linux")]
/// assert!(COMPILED_IN.contains(&posix_aio::NAME));
/// ```
pub const NAME: &str = "posix-aio";

/// The backend. Starts its one thread, `polyaio-posix`, with the first request; the C library starts its own as it needs
/// them. glibc: at most 20 for the whole process, which end when they were idle for a second. musl: one for each request, at
/// most 64 for each engine. (They have the name of the thread that was the first to need them, which may be
/// `polyaio-posix`.)
///
/// # Platform
/// Linux with glibc or musl. FreeBSD, NetBSD and macOS, where it was never run; macOS serves 16 requests per process. On
/// Linux it does not start in a child of `fork(2)` whose parent has used it: the C library's threads stay behind.
///
/// It is asked for no sync on macOS, and for no [`SyncAll`](OpKind::SyncAll) on NetBSD, where `aio_fsync(3)` does less. With
/// musl and on macOS it leaves writes to descriptors with `O_APPEND`, as they would move the position.
///
/// # References
/// `aio(7)`
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backend::{Backend, OpSet};
/// use polyaio::{OpKind, backends::posix_aio::PosixAio};
/// match PosixAio::start(64) {
///     Ok(backend) => {
///         let can: OpSet = backend.capabilities().operations;
///         assert!(can.contains(OpKind::Read) && can.contains(OpKind::SyncAll) && !can.contains(OpKind::Allocate));
///     }
///     Err(refused) => println!("{refused}"),
/// }
/// # Ok(()) }
/// ```
pub struct PosixAio {
    shared: Arc<Shared>,
    /// Who made it. A child of `fork(2)` has no threads, and locks that nobody may ever unlock.
    process: u32,
    /// The engine that it serves; 0 before its first call.
    engine: AtomicU64,
}

/// What the reaper and submitters have in common.
struct Shared {
    state: Mutex<State>,
    /// Ends [`Phase::Idle`].
    woken: Condvar,
    limits: Limits,
}

struct State {
    seats: Seats,
    bell: Bell,
    phase: Phase,
    /// [`Backend::shutdown`] was called: no request gets in any more.
    closing: bool,
    /// The reaper, from the first request on.
    thread: Option<JoinHandle<()>>,
}

impl PosixAio {
    /// Room for `queue_depth` requests; with glibc, spread over up to 16 descriptors per file. Starts nothing yet.
    ///
    /// # Errors
    /// `ENOSYS`: no POSIX AIO here that could be served. `ECHILD`: a child of `fork(2)` whose parent has used it. `EAGAIN`: the
    /// C library takes one request at a time. `EINVAL`: a depth of 0. The reason says what to do.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::posix_aio::PosixAio;
    /// assert_eq!(PosixAio::start(0).err().ok_or("no depth")?.errno.0, libc::EINVAL);
    /// # Ok(()) }
    /// ```
    pub fn start(queue_depth: usize) -> Result<Self, NotStarted> {
        Self::with_options(Options { queue_depth, spread: library::GLIBC.seats })
    }

    /// As [`start`](Self::start), with everything said.
    ///
    /// # Errors
    /// As [`start`](Self::start); `EINVAL` for a spread of 0, too.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::posix_aio::{Options, PosixAio};
    /// // For a database of one file: more descriptors would only be more threads.
    /// if let Err(refused) = PosixAio::with_options(Options { queue_depth: 32, spread: 4 }) {
    ///     println!("{refused}");
    /// }
    /// assert!(PosixAio::with_options(Options { queue_depth: 32, spread: 0 }).is_err());
    /// # Ok(()) }
    /// ```
    pub fn with_options(options: Options) -> Result<Self, NotStarted> {
        Self::on(library::HERE, options)
    }

    /// On another library than the one of this build, for tests: one that is like it in what it calls.
    fn on(library: Option<&'static Library>, options: Options) -> Result<Self, NotStarted> {
        let limits = probe::look(library, options)?;
        let bell = Bell::new(limits.library.waking).map_err(probe::no_bell)?;
        let seats = Seats::new(limits, bell.called());
        let state = State { seats, bell, phase: Phase::Awake, closing: false, thread: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new(), limits });
        Ok(Self { shared, process: std::process::id(), engine: AtomicU64::new(0) })
    }

    /// Whether it serves this engine: the first that calls. Another one's ids are the same numbers.
    fn serves(&self, engine: u64) -> bool {
        match self.engine.compare_exchange(0, engine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(bound) => bound == engine,
        }
    }

    fn is_child(&self) -> bool {
        self.process != std::process::id()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Lets the reaper know of what it does not watch yet.
    fn alert(&mut self, shared: &Shared) {
        if self.seats.seat_was_taken() && !self.hears_all() {
            self.wake(shared);
        }
    }

    /// Whether the reaper is told of each end, also of what it does not know.
    fn hears_all(&self) -> bool {
        self.bell.called().is_some()
    }

    /// Ends the reaper's sleep, wherever it sleeps.
    fn wake(&mut self, shared: &Shared) {
        match self.phase {
            Phase::Awake => {}
            Phase::Idle => shared.woken.notify_one(),
            Phase::Suspended => {
                if !self.bell.ring() {
                    // It is rung again for whatever comes next.
                    return;
                }
            }
        }
        self.phase = Phase::Awake;
    }

    /// For the reaper: it is awake.
    fn wake_up(&mut self) {
        self.phase = Phase::Awake;
        self.bell.settle(&mut self.seats);
    }

    /// Whether the reaper has nothing to wait for.
    fn is_idle(&self) -> bool {
        // At the end it waits for all, also for those that others wait for.
        // Where it is told of each end it has one place to sleep.
        if self.closing { self.seats.flights() == 0 } else { self.seats.unattended() == 0 && !self.hears_all() }
    }

    /// For who has ended requests: sends what there is room for, also where the bell hangs; so it is taken down before.
    fn fill(&mut self, leaving: &mut Leaving) {
        let Self { seats, bell, .. } = self;
        if seats.wants_closed() {
            bell.release(seats);
        }
        seats.fill(leaving, None);
    }

    /// For the reaper: it has listed what it is going to sleep on.
    fn fall_asleep(&mut self) {
        self.seats.seat_was_taken();
        self.phase = Phase::Suspended;
    }
}

impl Backend for PosixAio {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.shared.limits.bound);
        let Library { sync_all, sync_data, .. } = self.shared.limits.library;
        let syncs = [(*sync_all, OpKind::SyncAll), (*sync_data, OpKind::SyncData)];
        let syncs = syncs.into_iter().filter(|(does, _)| *does).map(|(_, kind)| kind);
        capabilities.operations = syncs.fold(OpSet::NONE.with(OpKind::Read).with(OpKind::Write), OpSet::with);
        capabilities.serves = Serves::Seekable;
        capabilities.vectored = false;
        capabilities.cancel = true;
        // For a lock of the C library at the most, which it holds for moments, or for a thread of its to start: no file has to
        // do with that.
        capabilities.may_block = false;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        // Not in a child of `fork(2)`: there the engine does not get here.
        if !self.serves(batch.engine()) {
            while let Some(request) = batch.take() {
                batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP)));
            }
            return;
        }
        submit::submit(&self.shared, batch);
    }

    fn wait_for(&self, id: RequestId) -> bool {
        reap::wait_for(&self.shared, id)
    }

    fn cancel(&self, id: RequestId) -> CancelOutcome {
        if self.is_child() {
            return CancelOutcome::Unknown;
        }
        let mut done = Vec::new();
        let outcome = {
            let mut state = self.shared.lock();
            let State { seats, bell, .. } = &mut *state;
            // It may hang where something is going to be taken back and sent again. The reaper wakes: it has to look again
            // in any case.
            bell.release(seats);
            let outcome = seats.cancel(id, &mut done);
            state.wake(&self.shared);
            outcome
        };
        reap::finish(&mut done);
        outcome
    }

    /// Closes the duplicates of the descriptor.
    fn forget(&self, fd: RawFd) {
        if self.is_child() {
            return;
        }
        let duplicates = {
            let mut state = self.shared.lock();
            let State { seats, bell, .. } = &mut *state;
            let duplicates = seats.files.forget(fd);
            let is_its = |line| line == fd || duplicates.as_ref().is_some_and(|duplicates| duplicates.contains(line));
            if duplicates.is_some() && bell.hangs_at(is_its) {
                bell.take_down(seats);
            }
            duplicates
        };
        drop(duplicates);
    }

    fn degraded(&self) -> Option<String> {
        let errno = self.shared.lock().seats.files.refused?;
        Some(format!(
            "POSIX AIO serves a file through fewer descriptors than it would use: a duplicate was refused: {errno}; raise \
             the limit of open files (`ulimit -n`)"
        ))
    }

    fn shutdown(&self) {
        if !self.is_child() {
            reap::stop(&self.shared);
        }
    }
}

impl Drop for PosixAio {
    fn drop(&mut self) {
        if self.is_child() {
            // The lock may be held for ever, and the threads are the parent's.
            std::mem::forget(self.shared.clone());
            return;
        }
        self.shutdown();
        // Of files that nobody has forgotten: the engine is gone, and its descriptors with it.
        let duplicates = self.shared.lock().seats.files.forget_all();
        drop(duplicates);
    }
}

impl std::fmt::Debug for PosixAio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PosixAio").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
