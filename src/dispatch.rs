//! The heart of an engine: a lane per backend, each with the requests that wait for it.
//!
//! Whoever has queued a request flushes; one thread at a time flushes a lane, the others leave their requests to it.
//! Nothing is locked across a backend's `submit`, and requests are completed outside every lock.

use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::backend::{Backend, Batch, CancelOutcome, Capabilities, Completions, Wait};
use crate::completion::{Errno, Outcome};
use crate::driver::Driver;
use crate::error::Error;
use crate::events::{self, Event};
use crate::fork::ForkGuard;
use crate::monitor::{Monitor, Timed};
use crate::request::{Request, RequestId, Witness, contain};
use crate::router::policy::Settings;
use crate::slot::Slab;
use crate::stats::{BackendCounters, Counter, Counters};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock, try_lock};

/// Requests of one `Backend::submit` at the most: one `io_submit` of 1 853 requests kept its caller for 4 ms.
const BATCH_MAX: usize = 256;
/// Completions of one `Backend::reap` at the most.
pub(crate) const REAP_MAX: usize = 256;

/// What the engine, its files and its threads share.
pub(crate) struct Core {
    pub(crate) slab: Arc<Slab>,
    pub(crate) settings: Settings,
    /// One per candidate of `settings`, in the same order; beyond them, last, the lane of the stream workers, which no policy
    /// knows.
    pub(crate) lanes: Box<[Lane]>,
    pub(crate) driver: Driver,
    pub(crate) counters: Counters,
    pub(crate) state: State,
    /// Requests that were submitted and are not over, but for those that may take for ever.
    pub(crate) unfinished: AtomicUsize,
    /// Requests that are over, with their result published, and reports of streams that are ready.
    pub(crate) ended: Counter,
    /// Told of every end of a request while the engine closes.
    pub(crate) drained: Drained,
    /// Told of the engine's end.
    pub(crate) end: Ended,
    /// The lane of the thread pool, whose answer is the last word.
    pub(crate) pool: u8,
    /// The lane of the stream workers, which make the ordinary calls on streams in the pool's stead.
    pub(crate) stream_workers: u8,
    pub(crate) fork: Arc<ForkGuard>,
}

/// A backend and the requests that wait for it.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// `None`: it did not start.
    pub(crate) backend: Option<Arc<dyn Backend>>,
    pub(crate) capabilities: Capabilities,
    pub(crate) counters: BackendCounters,
    monitor: Monitor,
    queue: Mutex<Queue>,
    /// Length of the queue, to be read without the lock.
    waiting: AtomicUsize,
    /// Requests that the backend has.
    in_flight: AtomicUsize,
    /// The backend was full: the next completion offers the queue again.
    stalled: AtomicBool,
    /// Held by who reaps; keeps the list's memory.
    reaper: Mutex<Vec<(Request, Outcome)>>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    /// A thread is submitting; it looks again before it leaves.
    flushing: bool,
    /// Memory of the lists that a flush needs.
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    /// What the backend had, with these, when they were offered.
    in_flight: usize,
    batch: VecDeque<Request>,
    busy: VecDeque<Request>,
    refused: Vec<(Request, Errno)>,
}

thread_local! {
    /// How many loops that complete requests this thread is in. Inside one, flushing is left to its end.
    static COMPLETING: Cell<usize> = const { Cell::new(0) };
}

/// This thread is in a loop that completes requests.
pub(crate) struct Completing {
    /// Released last.
    _events: events::Hold,
}

impl Completing {
    pub(crate) fn enter() -> Self {
        COMPLETING.set(COMPLETING.get() + 1);
        Self { _events: events::hold() }
    }
}

impl Drop for Completing {
    fn drop(&mut self) {
        COMPLETING.set(COMPLETING.get() - 1);
    }
}

/// Whether this thread is in the middle of completing requests.
pub(crate) fn is_completing() -> bool {
    COMPLETING.get() > 0
}

impl Lane {
    /// `slow`: so long a request may hold its submitter up.
    pub(crate) fn new(
        name: &'static str,
        backend: Option<Arc<dyn Backend>>,
        capabilities: Capabilities,
        slow: Duration,
    ) -> Self {
        Self {
            name,
            backend,
            capabilities,
            counters: BackendCounters::default(),
            monitor: Monitor::new(slow),
            queue: Mutex::new(Queue::default()),
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
            reaper: Mutex::new(Vec::new()),
        }
    }

    /// Whether somebody has to reap for a request of this lane to complete.
    fn needs_reaping(&self) -> bool {
        // A request is in at least one of the two at any time: it is counted in before it is counted out.
        self.capabilities.reaped && self.in_flight.load(Ordering::SeqCst) + self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Requests that the backend has now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that wait for it now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Notes that the backend is rid of a request. Returns whether the queue waits for just that.
    pub(crate) fn left(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.stalled.load(Ordering::SeqCst) && self.stalled.swap(false, Ordering::SeqCst)
    }
}

impl Core {
    /// Queues a request for the lane that its trail names. It goes out with the next flush.
    pub(crate) fn enqueue(&self, mut request: Request) {
        let lane = &self.lanes[usize::from(request.body().trail.backend)];
        request.body_mut().single = !lane.capabilities.vectored;
        let mut queue = lock(&lane.queue);
        queue.requests.push_back(request);
        lane.waiting.store(queue.requests.len(), Ordering::SeqCst);
        drop(queue);
        self.driver.announce();
    }

    /// Takes a request out of the queue of the lane where it waits.
    pub(crate) fn withdraw(&self, id: RequestId) -> Option<Request> {
        self.lanes.iter().find_map(|lane| {
            if lane.waiting.load(Ordering::SeqCst) == 0 {
                return None;
            }
            let mut queue = lock(&lane.queue);
            let at = queue.requests.iter().position(|request| request.id() == id)?;
            let request = queue.requests.remove(at);
            lane.waiting.store(queue.requests.len(), Ordering::SeqCst);
            request
        })
    }

    /// Asks the backends to stop a request that has begun.
    pub(crate) fn cancel_begun(&self, id: RequestId) -> CancelOutcome {
        let able = self.lanes.iter().filter(|lane| lane.capabilities.cancel);
        let outcomes = able.filter_map(|lane| lane.backend.as_ref()).map(|backend| backend.cancel(id));
        outcomes.into_iter().find(|outcome| *outcome != CancelOutcome::Unknown).unwrap_or(CancelOutcome::Running)
    }

    /// Requests that wait in all lanes.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.load(Ordering::Relaxed)).sum()
    }

    /// Submits what is queued, and what that brings along: requests that go to another lane, or that waited for one that
    /// ended inside `submit`.
    pub(crate) fn flush(&self) {
        if self.fork.is_child() {
            return;
        }
        let pass = || self.lanes.iter().filter(|lane| self.flush_lane(lane)).count();
        while pass() > 0 {}
    }

    /// Flushes on behalf of a completion: at the end of the loop that completes, or now. Nobody may be waiting on this
    /// thread, so that somebody has to be found who reaps.
    pub(crate) fn flush_after_completion(self: &Arc<Self>) {
        if !is_completing() {
            self.flush();
            self.driver.ensure_driven(self);
        }
    }

    /// Whether there was something to submit.
    fn flush_lane(&self, lane: &Lane) -> bool {
        let Some(backend) = &lane.backend else { return false };
        let last_resort = std::ptr::eq(lane, &raw const self.lanes[usize::from(self.pool)]);
        let monitor = (!last_resort).then_some(&lane.monitor);
        let mut any = false;
        while let Some(mut scratch) = lane.next_batch(monitor) {
            any = true;
            let _completing = Completing::enter();
            lane.counters.batches.add(1);
            lane.counters.submitted.add(scratch.batch.len() as u64);
            let Scratch { batch, busy, refused, .. } = &mut scratch;
            let timed = Timed::start(batch, monitor);
            let revocable = lane.capabilities.revocable;
            let mut offer = Batch { slab: &self.slab, queue: batch, refused, busy, revocable };
            let served = contain(|| backend.submit(&mut offer));
            timed.end(monitor, &lane.counters);
            if served {
                busy.append(batch);
            } else {
                // It panicked, and will again: what it has left is for others.
                refused.extend(batch.drain(..).map(|request| (request, Errno(libc::ENOSYS))));
            }
            let rejected = std::mem::take(refused);
            let overflow = lane.keep_busy(scratch, !rejected.is_empty());
            for (request, errno) in rejected {
                request.complete(Err(errno));
            }
            if let Some(request) = overflow {
                // Nothing is in flight, so that no completion will ever make room: go elsewhere.
                request.complete(Err(Errno(libc::EAGAIN)));
            }
        }
        any
    }

    /// Completes what is there, at most `max`, without waiting. Returns how many.
    pub(crate) fn reap(self: &Arc<Self>, max: usize) -> usize {
        if self.fork.is_child() || max == 0 {
            return 0;
        }
        let reap = |sum: usize, lane: &Lane| {
            let ready = lane.needs_reaping() && lane.backend.as_ref().is_some_and(|backend| backend.ready());
            let room = (max - sum).min(REAP_MAX);
            sum + if ready && room > 0 { self.reap_lane(lane, Wait::poll(room)) } else { 0 }
        };
        self.lanes.iter().fold(0, reap)
    }

    fn reap_lane(self: &Arc<Self>, lane: &Lane, wait: Wait) -> usize {
        let Some(backend) = &lane.backend else { return 0 };
        let (mut claimed, unknown) = {
            // Somebody else reaps already: what is there is theirs.
            let Some(mut reaper) = try_lock(&lane.reaper) else { return 0 };
            let mut claimed = std::mem::take(&mut *reaper);
            let mut completions = Completions { slab: &self.slab, claimed: &mut claimed, unknown: 0 };
            lane.counters.reaps.add(1);
            backend.reap(wait, &mut completions);
            let unknown = completions.unknown;
            (claimed, unknown)
        };
        if unknown > 0 {
            self.counters.unknown_ids.add(unknown);
            events::raise(|| Event::Anomaly { what: "completions of requests that are not in flight", count: unknown });
        }
        let count = claimed.len();
        {
            let _completing = Completing::enter();
            for (request, outcome) in claimed.drain(..) {
                request.complete(outcome);
            }
        }
        if let Some(mut reaper) = try_lock(&lane.reaper)
            && reaper.capacity() < claimed.capacity()
        {
            *reaper = claimed;
        }
        if count > 0 && !is_completing() {
            self.flush();
        }
        count
    }

    /// Whether a thread that sleeps has to sleep in the driver's seat for something to happen.
    pub(crate) fn needs_driving(&self) -> bool {
        // In a child everything that could happen is the parent's.
        !self.fork.is_child() && (self.driver.waits_for_streams() || self.lanes.iter().any(Lane::needs_reaping))
    }

    /// Whether [`reap`](Self::reap) would find something.
    pub(crate) fn has_completions(&self) -> bool {
        let ready = |lane: &Lane| lane.needs_reaping() && lane.backend.as_ref().is_some_and(|backend| backend.ready());
        !self.fork.is_child() && self.lanes.iter().any(ready)
    }

    /// Tells the backends that a descriptor is about to be closed.
    pub(crate) fn forget(&self, fd: RawFd) {
        if self.fork.is_child() {
            return;
        }
        self.lanes.iter().filter_map(|lane| lane.backend.as_ref()).for_each(|backend| backend.forget(fd));
    }

    /// Whether everything that ends by itself has ended.
    pub(crate) fn is_idle(&self) -> bool {
        self.unfinished.load(Ordering::SeqCst) == 0
    }

    /// Whether operations may start.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.fork.is_child() {
            return Err(Error::Forked);
        }
        if self.state.is_open() { Ok(()) } else { Err(Error::EngineClosed) }
    }
}

impl Lane {
    /// Takes the next requests to submit, as the one thread that flushes the lane. What the monitor wants to see alone
    /// comes alone.
    fn next_batch(&self, monitor: Option<&Monitor>) -> Option<Scratch> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut queue = lock(&self.queue);
        if queue.flushing || queue.requests.is_empty() || self.stalled.load(Ordering::SeqCst) {
            return None;
        }
        queue.flushing = true;
        let mut scratch = std::mem::take(&mut queue.scratch);
        let together = |request: &&Request| monitor.is_none_or(|monitor| !monitor.isolates(request));
        let together = queue.requests.iter().take(BATCH_MAX).take_while(together).count().max(1);
        if together == queue.requests.len() {
            // Both lists keep their memory.
            std::mem::swap(&mut queue.requests, &mut scratch.batch);
        } else {
            scratch.batch.extend(queue.requests.drain(..together));
        }
        scratch.batch.iter_mut().for_each(|request| request.body_mut().trail.counted = true);
        let offered = scratch.batch.len();
        // Counted in here before they are counted out below.
        scratch.in_flight = self.in_flight.fetch_add(offered, Ordering::SeqCst) + offered;
        self.waiting.store(queue.requests.len(), Ordering::SeqCst);
        Some(scratch)
    }

    /// Puts back what the backend had no room for, and ends the flush. Returns a request that no completion would ever
    /// make room for.
    fn keep_busy(&self, mut scratch: Scratch, progress: bool) -> Option<Request> {
        let mut queue = lock(&self.queue);
        queue.flushing = false;
        let left = scratch.busy.len();
        let mut overflow = None;
        if left > 0 {
            self.counters.busy.add(1);
            for request in scratch.busy.iter_mut() {
                request.body_mut().trail.counted = false;
            }
            self.waiting.store(queue.requests.len() + left, Ordering::SeqCst);
            // From here on a completion kicks the queue; one that came before shows as progress.
            self.stalled.store(true, Ordering::SeqCst);
            let before = self.in_flight.fetch_sub(left, Ordering::SeqCst);
            let in_flight = before - left;
            let progress = progress || before != scratch.in_flight;
            if progress || in_flight == 0 {
                self.stalled.store(false, Ordering::SeqCst);
            }
            if in_flight == 0 && !progress {
                overflow = scratch.busy.pop_front();
            }
            while let Some(request) = scratch.busy.pop_back() {
                queue.requests.push_front(request);
            }
            self.waiting.store(queue.requests.len(), Ordering::SeqCst);
        }
        queue.scratch = scratch;
        overflow
    }
}

impl Witness for Core {
    fn published(&self) {
        self.ended.add_ordered(1);
        self.driver.announce();
    }
}

/// Whether an engine is open.
pub(crate) struct State(AtomicU8);

impl State {
    pub(crate) fn open() -> Self {
        Self(AtomicU8::new(0))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    /// Closes; `true` for the one caller that did it.
    pub(crate) fn close(&self) -> bool {
        self.0.swap(1, Ordering::SeqCst) == 0
    }
}

/// Who waits for the engine to drain.
#[derive(Default)]
pub(crate) struct Drained(Mutex<Option<Waker>>);

impl Drained {
    /// Asks to be woken at the next end of a request.
    pub(crate) fn register(&self, waker: &Waker) {
        let old = lock(&self.0).replace(waker.clone());
        drop(old);
    }

    /// Lets who waits look again.
    pub(crate) fn look(&self) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            crate::request::wake(waker);
        }
    }
}

/// Who waits for the engine's end.
#[derive(Default)]
pub(crate) struct Ended(Mutex<(bool, Vec<Waker>)>);

impl Ended {
    pub(crate) fn end(&self) {
        let wakers = {
            let mut state = lock(&self.0);
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(crate::request::wake);
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let mut state = lock(&self.0);
        if state.0 {
            return Poll::Ready(());
        }
        if !state.1.iter().any(|known| known.will_wake(&waker)) {
            state.1.push(waker);
        }
        Poll::Pending
    }
}
