//! Backends written outside the crate, as anybody could: they answer as a test tells them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use polyaio::backend::{Batch, CancelOutcome, Capabilities, OpSet, Refusal};
use polyaio::{Backend, Errno, OpKind, Outcome, Request, RequestId};

use self::system::perform;

/// What a [`Scripted`] backend does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Serve it, inside `submit`.
    Serve,
    /// Serve it, on a thread that is nobody's.
    Elsewhere,
    /// Transfer so many bytes at the most, and leave zeroes in the rest of a read's memory.
    Short(u64),
    /// Complete it with this error, nothing transferred.
    Fail(i32),
    /// Leave it to others, with this error.
    Refuse(i32),
    /// No room.
    Busy,
    /// Stop here: this one and what is behind it stay in the batch.
    Leave,
    /// Serve it, and report so many bytes more than were asked for.
    Boast(u64),
    /// Report all bytes as transferred without having touched the memory.
    Lie,
    /// The same, with the memory asked for, so that it is believed: no disk that is busy can hold it up.
    Pretend,
    /// Drop it.
    Drop,
    /// Give out its memory, then drop it.
    StartAndDrop,
    /// Panic, with it in hand.
    Panic,
}

/// What a backend has seen of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: OpKind,
    pub(crate) position: Option<u64>,
    pub(crate) length: u64,
    pub(crate) segments: usize,
    pub(crate) nowait: bool,
}

impl Seen {
    pub(crate) fn of(request: &Request) -> Self {
        let (kind, position) = (request.kind(), request.position());
        let (length, segments) = (request.length(), request.segments());
        Self { kind, position, length, segments, nowait: request.nowait() }
    }
}

type Script = dyn Fn(usize, Seen) -> Answer + Send + Sync;

/// Answers each request as a script says.
pub(crate) struct Scripted {
    capabilities: Capabilities,
    script: Box<Script>,
    log: Mutex<Vec<(Seen, Answer)>>,
    batches: Mutex<Vec<usize>>,
}

/// The name of [`Scripted`].
pub(crate) const SCRIPTED: &str = "scripted";

impl Scripted {
    /// `script` is given the number of the request, counted from 0 over all batches, and the request.
    pub(crate) fn new(script: impl Fn(usize, Seen) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Self::with(transfers(1024), script)
    }

    pub(crate) fn with(
        capabilities: Capabilities,
        script: impl Fn(usize, Seen) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { capabilities, script: Box::new(script), log: Mutex::default(), batches: Mutex::default() })
    }

    pub(crate) fn log(&self) -> Vec<(Seen, Answer)> {
        lock(&self.log).clone()
    }

    /// How long each batch was.
    pub(crate) fn batches(&self) -> Vec<usize> {
        lock(&self.batches).clone()
    }

    /// Answers the next request; `false` ends the batch.
    fn answer(&self, batch: &mut Batch<'_>) -> bool {
        let Some(request) = batch.take() else { return false };
        let seen = Seen::of(&request);
        let answer = {
            let mut log = lock(&self.log);
            let answer = (self.script)(log.len(), seen);
            log.push((seen, answer));
            answer
        };
        match answer {
            Answer::Serve => serve(request),
            Answer::Elsewhere => drop(std::thread::spawn(move || serve(request))),
            Answer::Short(most) => short(request, most),
            Answer::Fail(errno) => request.complete(Err(Errno(errno))),
            Answer::Refuse(errno) => batch.put_back(request, Refusal::Unsupported(Errno(errno))),
            Answer::Busy => batch.put_back(request, Refusal::Busy),
            Answer::Leave => {
                batch.put_back(request, Refusal::Busy);
                return false;
            }
            Answer::Boast(more) => boast(request, more),
            Answer::Lie => {
                let length = request.length();
                request.complete(Ok(length));
            }
            Answer::Pretend => pretend(request),
            Answer::Drop => drop(request),
            Answer::StartAndDrop => start_and_drop(request),
            // Not `panic!`: the hook would print what is meant to happen.
            Answer::Panic => std::panic::resume_unwind(Box::new("this backend panics")),
        }
        true
    }
}

impl Backend for Scripted {
    fn name(&self) -> &'static str {
        SCRIPTED
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        lock(&self.batches).push(batch.len());
        while self.answer(batch) {}
    }

    fn shutdown(&self) {}
}

/// Reads, writes and syncs of any file; the rest is left to the pool.
pub(crate) fn transfers(bound: usize) -> Capabilities {
    let mut capabilities = Capabilities::new(bound);
    capabilities.operations =
        OpSet::NONE.with(OpKind::Read).with(OpKind::Write).with(OpKind::SyncAll).with(OpKind::SyncData);
    capabilities
}

/// Keeps requests until it is told to serve them.
pub(crate) struct Held {
    capabilities: Capabilities,
    state: Mutex<HeldState>,
    changed: Condvar,
}

#[derive(Default)]
struct HeldState {
    /// Serve at once.
    open: bool,
    requests: VecDeque<Request>,
    log: Vec<Seen>,
    served: usize,
    /// What it says to a wish to cancel.
    cancelling: Cancelling,
    /// Requests that it has cancelled, and has not ended yet.
    cancelled: Vec<Request>,
}

/// What [`Held`] does with a wish to cancel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cancelling {
    /// It knows of no request.
    #[default]
    Unknown,
    /// Too late.
    Running,
    /// Ends the request from within the call.
    AtOnce,
    /// Ends it when [`Held::end_cancelled`] is called.
    Late,
    /// It had just ended by itself.
    Done,
    /// It had just ended by itself, and what the engine sends of the same request thereupon is ended from within the call.
    Rest,
}

/// The name of [`Held`].
pub(crate) const HELD: &str = "held";

impl Held {
    pub(crate) fn new(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self { capabilities, state: Mutex::default(), changed: Condvar::new() })
    }

    /// What it says to wishes to cancel from now on. Its capabilities have to say that it can.
    pub(crate) fn cancelling(&self, how: Cancelling) {
        lock(&self.state).cancelling = how;
    }

    /// Ends what it has cancelled; returns how many.
    pub(crate) fn end_cancelled(&self) -> usize {
        let cancelled = std::mem::take(&mut lock(&self.state).cancelled);
        let count = cancelled.len();
        cancelled.into_iter().for_each(|request| request.complete(Err(Errno(libc::ECANCELED))));
        count
    }

    /// Everything that it was given, in order.
    pub(crate) fn log(&self) -> Vec<Seen> {
        lock(&self.state).log.clone()
    }

    /// How many it holds now.
    pub(crate) fn held(&self) -> usize {
        lock(&self.state).requests.len()
    }

    /// How many have ended.
    pub(crate) fn served(&self) -> usize {
        lock(&self.state).served
    }

    /// Serves the oldest; `false` where there is none.
    pub(crate) fn release(&self) -> bool {
        let request = lock(&self.state).requests.pop_front();
        request.is_some_and(|request| {
            lock(&self.state).served += 1;
            serve(request);
            true
        })
    }

    /// Ends the oldest with an error, untouched; `false` where there is none.
    pub(crate) fn fail(&self, errno: i32) -> bool {
        let request = lock(&self.state).requests.pop_front();
        request.is_some_and(|request| {
            request.complete(Err(Errno(errno)));
            true
        })
    }

    /// Serves the newest; `false` where there is none.
    pub(crate) fn release_last(&self) -> bool {
        let request = lock(&self.state).requests.pop_back();
        request.is_some_and(|request| {
            lock(&self.state).served += 1;
            serve(request);
            true
        })
    }

    /// Serves all that it holds, and from now on at once.
    pub(crate) fn open(&self) {
        lock(&self.state).open = true;
        while self.release() {}
    }
}

impl Backend for Held {
    fn name(&self) -> &'static str {
        HELD
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(request) = batch.take() {
            let mut state = lock(&self.state);
            if state.requests.len() >= self.capabilities.queue_bound {
                drop(state);
                batch.put_back(request, Refusal::Busy);
                return;
            }
            state.log.push(Seen::of(&request));
            if state.open {
                state.served += 1;
                drop(state);
                serve(request);
            } else {
                state.requests.push_back(request);
            }
            self.changed.notify_all();
        }
    }

    fn cancel(&self, id: RequestId) -> CancelOutcome {
        let (how, request) = {
            let mut state = lock(&self.state);
            let at = state.requests.iter().position(|request| request.id() == id);
            let takes = !matches!(state.cancelling, Cancelling::Unknown | Cancelling::Running);
            let request = at.filter(|_| takes).and_then(|at| state.requests.remove(at));
            (state.cancelling, request)
        };
        match (how, request) {
            (Cancelling::Running, _) => CancelOutcome::Running,
            (Cancelling::AtOnce, Some(request)) => {
                request.complete(Err(Errno(libc::ECANCELED)));
                CancelOutcome::Cancelled
            }
            (Cancelling::Late, Some(request)) => {
                lock(&self.state).cancelled.push(request);
                CancelOutcome::Cancelled
            }
            (Cancelling::Rest, Some(request)) => {
                serve(request);
                let mut state = lock(&self.state);
                let at = state.requests.iter().position(|request| request.id() == id);
                let rest = at.and_then(|at| state.requests.remove(at));
                drop(state);
                rest.expect("there is a rest").complete(Err(Errno(libc::ECANCELED)));
                CancelOutcome::Cancelled
            }
            (Cancelling::Done, Some(request)) => {
                lock(&self.state).served += 1;
                serve(request);
                CancelOutcome::Done
            }
            _ => CancelOutcome::Unknown,
        }
    }

    fn shutdown(&self) {}
}

/// A signal between threads: closed until it is opened.
#[derive(Default)]
pub(crate) struct Gate(Mutex<bool>, Condvar);

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn open(&self) {
        *lock(&self.0) = true;
        self.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut open = lock(&self.0);
        while !*open {
            open = self.1.wait(open).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

/// Serves a request by the plain system call, and completes it.
pub(crate) fn serve(mut request: Request) {
    let outcome = perform(&mut request, u64::MAX);
    request.complete(outcome);
}

fn short(mut request: Request, most: u64) {
    let outcome = perform(&mut request, most);
    if request.kind() == OpKind::Read {
        let mut skip = outcome.unwrap_or(0) as usize;
        // SAFETY: the memory of a read is written; the request completes below.
        for range in unsafe { request.start() } {
            let within = skip.min(range.len);
            skip -= within;
            // SAFETY: `within` lies in the range, which is valid until the request is complete.
            unsafe { range.base.add(within).write_bytes(0, range.len - within) };
        }
    }
    request.complete(outcome);
}

fn boast(mut request: Request, more: u64) {
    let outcome = perform(&mut request, u64::MAX);
    let length = request.length();
    request.complete(outcome.map(|_| length + more));
}

fn pretend(mut request: Request) {
    // SAFETY: nobody uses the memory.
    let _ = unsafe { request.start() };
    let length = request.length();
    request.complete(Ok(length));
}

fn start_and_drop(mut request: Request) {
    // SAFETY: nobody uses the memory.
    let _ = unsafe { request.start() };
    drop(request);
}

/// The plain system call of a request.
#[cfg_attr(unix, path = "backends/unix.rs")]
#[cfg_attr(windows, path = "backends/windows.rs")]
mod system;

/// A test that failed while it held the lock has been reported already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
