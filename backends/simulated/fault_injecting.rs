//! The same plan of faults, laid over a real backend and real files.

mod held;
mod timer;

use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::held::{Held, Kept};
use self::timer::Timer;
use super::asked::Asked;
use super::faults::{Effect, Fault};
use super::plan::{FaultId, Plan, Verdict};
use super::seeds::{self, ENV_SEED};
use super::trace::{Recorder, Transcript, What};
use crate::backend::{
    Backend, Batch, CancelOutcome, Capabilities, Completions, OpSet, Operation, Refusal, VirtualFile, Wait,
};
use crate::completion::{Errno, Outcome};
use crate::error::Error;
use crate::open::OpenOptions;
use crate::request::{OpKind, RawHandle, Request, RequestId};
use crate::sync::{Mutex, lock};

/// The name of [`FaultInjecting`] in policies and reports, whatever backend it is laid over.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::simulated::{FAULT_INJECTING, FaultInjecting};
/// use polyaio::{Engine, Policy, backends::noop::Noop};
/// let faulty = FaultInjecting::builder(Noop).build()?;
/// // It is not asked before it is named.
/// let engine = Engine::builder().backend(faulty).policy(Policy::Prefer(vec![FAULT_INJECTING.into()])).build()?;
/// assert!(engine.backends().iter().any(|backend| backend.name == FAULT_INJECTING && backend.started));
/// # Ok(()) }
/// ```
pub const FAULT_INJECTING: &str = "fault-injecting";

/// A backend that serves what another one serves, and has faults.
///
/// It is added by [`EngineBuilder::backend`](crate::EngineBuilder::backend) and preferred by its name,
/// [`FAULT_INJECTING`]. What it can do to real files is less than what a simulated disk can do to its own: errors at
/// submission and at completion, short transfers, delays (in real time), a full queue, and lost writes.
///
/// A fault at completion means that the backend below was not asked. Where a policy has other backends behind this one, an
/// error that means "not here" (`EINVAL`, `EOPNOTSUPP` ..., and on direct files `EAGAIN`) sends the request there, visibly:
/// so fallbacks are tested. With a policy that requires the backend it is an error that names the refusal. `EIO`, `ENOSPC` and
/// the like are the program's.
///
/// # Platform
/// Linux, Android.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use polyaio::backends::simulated::{FAULT_INJECTING, Fault, FaultInjecting};
/// use polyaio::backends::thread_pool::{Options, ThreadPool};
/// use polyaio::{Engine, OpenOptions, Policy};
///
/// let pool = ThreadPool::start(Options { threads: 2, queue_bound: 64 })?;
/// let faulty = FaultInjecting::builder(pool).seed(1).fault(Fault::error(libc::EIO).writes().nth(2)).build()?;
/// let engine = Engine::builder().backend(faulty).policy(Policy::Prefer(vec![FAULT_INJECTING.into()])).build()?;
/// let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
/// file.write_all_at(b"one".to_vec(), 0).wait().into_result()?;
/// assert!(file.write_all_at(b"two".to_vec(), 3).wait().0.is_err());
/// assert_eq!(std::fs::read(&path)?, b"one");
/// # Ok(()) }
/// ```
pub struct FaultInjecting<B> {
    inner: B,
    capabilities: Capabilities,
    seed: u64,
    state: Mutex<State>,
    timer: Timer,
}

/// Settings of a [`FaultInjecting`]; made by [`FaultInjecting::builder`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::simulated::{Fault, FaultInjecting};
/// use polyaio::backends::noop::Noop;
/// let faulty = FaultInjecting::builder(Noop)
///     .seed(7)
///     .fault(Fault::error(libc::EINVAL).at_submit().probability(0.01))
///     .faults([Fault::short().every(10), Fault::queue_full().every(7)])
///     .trace_limit(100)
///     .build()?;
/// assert_eq!((faulty.seed(), faulty.trace().events.len()), (7, 0));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "there is no backend before `build`"]
pub struct FaultInjectingBuilder<B> {
    inner: B,
    seed: Option<u64>,
    faults: Vec<Fault>,
    trace_limit: usize,
}

struct State {
    plan: Plan,
    requests: u64,
    held: Held,
    trace: Recorder,
}

/// A hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is done with a request.
enum Fate {
    /// The backend below serves it.
    Below(Request),
    Ended(Request, Outcome),
    Refused(Request, Refusal),
    /// It waits.
    Waits,
}

impl<B> Drop for FaultInjecting<B> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprintln!("the faults came from the seed {seed}: {ENV_SEED}={seed} repeats them where none is set");
        }
    }
}

impl<B: Backend> FaultInjecting<B> {
    /// Settings to start from: no faults.
    ///
    /// # Examples
    /// Over the backend whose fallbacks are to be tested:
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "kernel-aio")] {
    /// use polyaio::backends::{kernel_aio::KernelAio, simulated::{Fault, FaultInjecting}};
    /// // Where kernel AIO does not start there is nothing to be tested.
    /// if let Ok(kernel_aio) = KernelAio::start(64) {
    ///     FaultInjecting::builder(kernel_aio).fault(Fault::error(libc::EAGAIN).at_submit().reads()).build()?;
    /// }
    /// # }
    /// # Ok(()) }
    /// ```
    pub fn builder(inner: B) -> FaultInjectingBuilder<B> {
        FaultInjectingBuilder { inner, seed: None, faults: Vec::new(), trace_limit: 65_536 }
    }

    /// What all chance comes from.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backends::{noop::Noop, simulated::FaultInjecting};
    /// let faulty = FaultInjecting::builder(Noop).build()?;
    /// println!("repeat it with {}", faulty.seed());
    /// assert_eq!(FaultInjecting::builder(Noop).seed(faulty.seed()).build()?.seed(), faulty.seed());
    /// # Ok(()) }
    /// ```
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a fault to the plan.
    ///
    /// # Errors
    /// [`Error::Options`] for one that could never strike, and for one that cannot be done to real files.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy};
    /// # use polyaio::backends::{noop::Noop, simulated::{FAULT_INJECTING, Fault, FaultInjecting}};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # let faulty = FaultInjecting::builder(Noop).build()?;
    /// # let policy = Policy::Prefer(vec![FAULT_INJECTING.into()]);
    /// # let engine = Engine::builder().backend(faulty.clone()).policy(policy).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let refused = faulty.inject(Fault::error(libc::ENOSPC).writes())?;
    /// assert_eq!(file.write_at("HELLO", 0).wait().0.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    /// assert_eq!(faulty.struck(refused), Some(1));
    /// assert!(faulty.inject(Fault::bit_rot(1)).is_err(), "that cannot be done to a real file");
    /// # Ok(()) }
    /// ```
    pub fn inject(&self, fault: Fault) -> Result<FaultId, Error> {
        check(&fault)?;
        Ok(lock(&self.state).plan.add(fault))
    }

    /// Takes all faults out of the plan.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy};
    /// # use polyaio::backends::{noop::Noop, simulated::{FAULT_INJECTING, Fault, FaultInjecting}};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # let faulty = FaultInjecting::builder(Noop).build()?;
    /// # let policy = Policy::Prefer(vec![FAULT_INJECTING.into()]);
    /// # let engine = Engine::builder().backend(faulty.clone()).policy(policy).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// faulty.inject(Fault::error(libc::EIO))?;
    /// assert!(file.sync_all().wait().is_err());
    /// faulty.clear_faults();
    /// assert!(file.sync_all().wait().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn clear_faults(&self) {
        lock(&self.state).plan.clear();
    }

    /// How often a fault has struck; `None` where it is not in the plan.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy};
    /// # use polyaio::backends::{noop::Noop, simulated::{FAULT_INJECTING, Fault, FaultInjecting}};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # let faulty = FaultInjecting::builder(Noop).build()?;
    /// # let policy = Policy::Prefer(vec![FAULT_INJECTING.into()]);
    /// # let engine = Engine::builder().backend(faulty.clone()).policy(policy).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let short = faulty.inject(Fault::short().writes().nth(1))?;
    /// file.write_all_at("HELLO", 0).wait().0?;
    /// assert_eq!(faulty.struck(short), Some(1), "and the engine has written the rest");
    /// # Ok(()) }
    /// ```
    pub fn struck(&self, fault: FaultId) -> Option<u64> {
        lock(&self.state).plan.struck(fault)
    }

    /// What was asked and injected so far; not when, and what the backend below has answered is not known here.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy};
    /// # use polyaio::backends::{noop::Noop, simulated::{FAULT_INJECTING, Fault, FaultInjecting}};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # let faulty = FaultInjecting::builder(Noop).build()?;
    /// # let policy = Policy::Prefer(vec![FAULT_INJECTING.into()]);
    /// # let engine = Engine::builder().backend(faulty.clone()).policy(policy).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// # use polyaio::backends::simulated::What;
    /// file.write_all_at("HELLO", 3).wait().0?;
    /// let trace = faulty.trace();
    /// assert!(matches!(trace.events[0].what, What::Asked { offset: Some(3), length: 5, .. }), "{trace}");
    /// # Ok(()) }
    /// ```
    pub fn trace(&self) -> Transcript {
        lock(&self.state).trace.copy()
    }

    /// Decides about a request.
    fn decide(&self, mut request: Request) -> Fate {
        let mut state = lock(&self.state);
        if let Some(short) = state.held.take_matured(request.id()) {
            if let Some(bytes) = short {
                request.cut(bytes);
            }
            return Fate::Below(request);
        }
        state.requests += 1;
        let number = state.requests;
        let path = if state.plan.asks_for_paths() { path(&request) } else { PathBuf::new() };
        let (kind, offset, length) = (request.kind(), request.place(), request.length());
        let unit = unit(&request);
        let verdict = state.plan.judge(&Asked { number, kind, path: &path, offset, length, unit });
        // The engine would ask the pool whether a NOWAIT request is meant so: there it would have no fault.
        if verdict.error.or(verdict.refused) == Some(Errno(libc::EIO)) {
            request.insist();
        }
        let refusal = match verdict.refused {
            Some(errno) => Some((Refusal::Unsupported(errno), Some(errno))),
            None => verdict.queue_full.then_some((Refusal::Busy, None)),
        };
        if let Some((refusal, errno)) = refusal {
            state.trace.note(Duration::ZERO, What::Refused { number, errno, injected: true });
            return Fate::Refused(request, refusal);
        }
        let file = match request.handle() {
            RawHandle::Descriptor(fd) => fd.unsigned_abs().into(),
            RawHandle::Virtual(number) => number,
        };
        let injected = verdict.names.clone();
        state.trace.note(Duration::ZERO, What::Asked { number, file, kind, offset, length, injected });
        let short = verdict.short;
        if let Some(bytes) = short {
            request.cut(bytes);
        }
        let outcome = outcome(&mut request, &verdict);
        if !verdict.delay.is_zero() {
            // A stall for ever is one for as long as can be said.
            let due = Instant::now().checked_add(verdict.delay).unwrap_or_else(|| Instant::now() + FOR_EVER);
            state.held.hold(due, Kept { request, outcome, short });
            self.timer.set(state.held.next());
            return Fate::Waits;
        }
        match outcome {
            Some(outcome) => Fate::Ended(request, outcome),
            None => Fate::Below(request),
        }
    }
}

/// What a request ends with without having been served; `None`: it is to be served.
fn outcome(request: &mut Request, verdict: &Verdict) -> Option<Outcome> {
    if let Some(errno) = verdict.error {
        return Some(Err(errno));
    }
    // The one harm that can be done.
    let length = request.length();
    let lost = verdict.harms.iter().any(|harm| {
        // Without a range it is all the same where it goes.
        harm.within == (0..u64::MAX)
            || request.place().is_some_and(|at| harm.within.start <= at && at + length <= harm.within.end)
    });
    lost.then(|| {
        // The memory is asked for, so that the count is believed.
        Operation::new(request, |_| Err(Errno(libc::EBADF))).settle(Ok(length))
    })
}

/// What a part of a transfer is a multiple of.
fn unit(request: &Request) -> u64 {
    let unit = request.alignment().map_or(1, |alignment| alignment.offset.max(1) as u64);
    if request.length().is_multiple_of(unit) { unit } else { 1 }
}

/// The name of the file behind a descriptor.
fn path(request: &Request) -> PathBuf {
    let link = request.descriptor().map(|fd| format!("/proc/self/fd/{fd}"));
    link.and_then(|link| std::fs::read_link(link).ok()).unwrap_or_default()
}

fn check(fault: &Fault) -> Result<(), Error> {
    fault.check().map_err(Error::Options)?;
    let instead = match fault.effect {
        Effect::LatentError | Effect::BitRot(_) | Effect::Misdirected => "use a simulated disk",
        Effect::FailedSync { .. } => "use `Fault::error(..).syncs()`, which loses nothing, or a simulated disk",
        Effect::PowerLoss(_) => "use a simulated disk, or end the process",
        _ => return Ok(()),
    };
    Err(Error::Options(format!(
        "a fault of the plan ({}): it cannot be done to real files; {instead}",
        fault.effect.name()
    )))
}

impl<B: Backend> FaultInjectingBuilder<B> {
    /// What all chance comes from. Without it as of a [simulated disk](super::SimulatedDiskBuilder::seed).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Adds a fault to the plan.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds several.
    pub fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    /// Events that the trace keeps: the last ones. The default is 65 536; 0 keeps none.
    pub fn trace_limit(mut self, events: usize) -> Self {
        self.trace_limit = events;
        self
    }

    /// Makes the backend.
    ///
    /// # Errors
    /// [`Error::Options`] for a fault that makes no sense, or that cannot be done to real files, and for a value of
    /// `POLYAIO_SIMULATED_SEED` that is no number; [`Error::System`] where there are no descriptors left.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::{noop::Noop, simulated::{Fault, FaultInjecting}};
    /// let faulty = FaultInjecting::builder(Noop).fault(Fault::lost_write().nth(3)).build()?;
    /// let program_has = faulty.clone(); // for `EngineBuilder::backend`; the test keeps the other
    /// # drop(program_has);
    /// let error = FaultInjecting::builder(Noop).fault(Fault::latent_error()).build().unwrap_err();
    /// println!("{error}");
    /// # Ok(()) }
    /// ```
    pub fn build(self) -> Result<Arc<FaultInjecting<B>>, Error> {
        self.faults.iter().try_for_each(check)?;
        let seed = self.seed.map_or_else(seeds::of_environment, Ok)?;
        let timer = Timer::new(self.inner.notification())
            .map_err(|source| Error::System { what: "the timer of the faults", source })?;
        let below = self.inner.capabilities();
        // Opening and closing are the thread pool's own.
        let operations =
            OpKind::ALL.into_iter().filter(|kind| below.operations.contains(*kind) && *kind != OpKind::Open);
        let operations = operations.fold(OpSet::NONE, OpSet::with);
        let capabilities = Capabilities { operations, cancel: true, reaped: true, ..below };
        let plan = Plan::new(seed, self.faults);
        let state = State { plan, requests: 0, held: Held::default(), trace: Recorder::new(self.trace_limit) };
        Ok(Arc::new(FaultInjecting { inner: self.inner, capabilities, seed, state: Mutex::new(state), timer }))
    }
}

impl<B: Backend> Backend for FaultInjecting<B> {
    fn name(&self) -> &'static str {
        FAULT_INJECTING
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Option<std::io::Result<VirtualFile>> {
        self.inner.open(path, options)
    }

    fn close(&self, number: u64) {
        self.inner.close(number);
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        let mut below = std::collections::VecDeque::new();
        while let Some(request) = batch.take() {
            // Nothing is done any more to what nobody waits for.
            if batch.revocable && request.is_abandoned() {
                continue;
            }
            match self.decide(request) {
                Fate::Below(request) => below.push_back(request),
                // Outside of the lock: wakers run in there.
                Fate::Ended(request, outcome) => request.complete(outcome),
                Fate::Refused(request, refusal) => batch.put_back(request, refusal),
                Fate::Waits => {}
            }
        }
        if below.is_empty() {
            return;
        }
        let mut busy = std::collections::VecDeque::new();
        self.inner.submit(&mut Batch {
            slab: batch.slab,
            queue: &mut below,
            refused: batch.refused,
            busy: &mut busy,
            revocable: batch.revocable,
            attended: batch.attended,
        });
        // What was judged is not judged once more.
        let mut state = lock(&self.state);
        for request in busy.into_iter().chain(below) {
            state.held.let_pass(request.id());
            batch.busy.push_back(request);
        }
    }

    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        self.timer.silence();
        let mut count = 0;
        {
            let mut state = lock(&self.state);
            let now = Instant::now();
            while count < wait.max
                && let Some(kept) = state.held.pop(now)
            {
                count += 1;
                // Offered again: by then it has waited.
                completions.finish(kept.request, kept.outcome.unwrap_or(Err(Errno(libc::EINTR))));
            }
            self.timer.set(state.held.next());
        }
        let below = self.inner.capabilities().reaped && count < wait.max;
        let left = Wait { min: wait.min.saturating_sub(count), max: wait.max - count, timeout: wait.timeout };
        count + if below { self.inner.reap(left, completions) } else { 0 }
    }

    fn ready(&self) -> bool {
        let state = lock(&self.state);
        if let Some(due) = state.held.next() {
            if due <= Instant::now() {
                return true;
            }
            // Who looks is going to sleep, perhaps, and may have taken the timer's news a moment too early: there are to be
            // others.
            self.timer.set(Some(due));
        }
        drop(state);
        self.inner.capabilities().reaped && self.inner.ready()
    }

    fn notification(&self) -> Option<BorrowedFd<'_>> {
        Some(self.timer.descriptor())
    }

    fn wait_for(&self, id: RequestId) -> bool {
        !lock(&self.state).held.has(id) && self.inner.wait_for(id)
    }

    fn cancel(&self, id: RequestId) -> CancelOutcome {
        let held = lock(&self.state).held.take(id);
        match held {
            Some(request) => {
                request.complete(Err(Errno(libc::ECANCELED)));
                CancelOutcome::Cancelled
            }
            None if self.inner.capabilities().cancel => self.inner.cancel(id),
            None => CancelOutcome::Unknown,
        }
    }

    fn forget(&self, fd: RawFd) {
        self.inner.forget(fd);
    }

    fn degraded(&self) -> Option<String> {
        self.inner.degraded()
    }

    fn set_threads(&self, threads: usize) {
        self.inner.set_threads(threads);
    }

    fn shutdown(&self) {
        self.inner.shutdown();
    }
}

impl<B: Backend> std::fmt::Debug for FaultInjecting<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultInjecting")
            .field("over", &self.inner.name())
            .field("seed", &self.seed)
            .field("requests", &lock(&self.state).requests)
            .finish_non_exhaustive()
    }
}
