//! The queue before a backend: who submits what, once, in order, whatever the backend has room for.
//!
//! One thread at a time flushes; the others leave what they have queued to it, for it looks again before it leaves. A
//! backend that is full gives back what it did not take. From then on the queue is *stalled*: the next request that leaves
//! the backend makes whoever ends it flush. Where none is left in there that could, the queue is offered again at once, or
//! its first request goes elsewhere.
//!
//! `models.rs` has loom run this under every interleaving: it knows nothing of requests and backends.

use std::collections::VecDeque;

use crate::completion::Errno;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// Requests of one `Backend::submit` at the most: one `io_submit` of 1 853 requests kept its caller for 4 ms.
const BATCH_MAX: usize = 256;

/// What waits for a backend, and how much the backend has.
pub(super) struct Pending<T> {
    queue: Mutex<Queue<T>>,
    /// Length of the queue, to be read without the lock.
    waiting: AtomicUsize,
    /// Two counters that move together, a half of the word each: requests that the backend has (the lower half), and those
    /// that are *present*: that wait, or that the backend has. A request is present from its way in to its way out, so that
    /// no look falls between two counters while it moves from one to the other, and perhaps back.
    load: AtomicU64,
    /// The backend was full: the next completion offers the queue again.
    stalled: AtomicBool,
}

/// In the word of `Pending::load`: one request that is present, and one that the backend has.
const PRESENT: u64 = 1 << 32;
const IN_FLIGHT: u64 = 1;

#[inline]
fn in_flight(load: u64) -> usize {
    (load & (PRESENT - 1)) as usize
}

struct Queue<T> {
    requests: VecDeque<T>,
    /// A thread is submitting; it looks again before it leaves.
    flushing: bool,
    /// Memory of the lists that a flush needs, while nobody flushes.
    scratch: Option<Box<Scratch<T>>>,
}

/// One submission: what is offered, and what comes back.
pub(super) struct Scratch<T> {
    /// What the backend had, with these, when they were offered.
    in_flight: usize,
    /// What the backend may take, in order. What is left in here it had no room for.
    pub(super) batch: VecDeque<T>,
    /// What it had no room for, before what is left in `batch`.
    pub(super) busy: VecDeque<T>,
    /// What it cannot serve.
    pub(super) refused: Vec<(T, Errno)>,
}

/// The backend behind a queue, or a model of one.
pub(super) trait Submit<T> {
    /// Kept while a batch is submitted, and what comes back is ended.
    type Held;

    /// There is a batch.
    fn begin(&self, scratch: &Scratch<T>) -> Self::Held;

    /// Whether a request goes out on its own.
    fn isolates(&self, request: &T) -> bool;

    /// Notes whether a request counts as one that the backend has: [`Pending::left`] counts those only.
    fn mark(&self, request: &mut T, counted: bool);

    /// Offers a batch to the backend.
    fn submit(&self, scratch: &mut Scratch<T>);

    /// There was no room for some.
    fn was_busy(&self);

    /// Ends a request that the backend does not take, or hands it to another one.
    fn end(&self, request: T, errno: Errno);
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        let queue = Queue { requests: VecDeque::new(), flushing: false, scratch: None };
        Self {
            queue: Mutex::new(queue),
            waiting: AtomicUsize::new(0),
            load: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        }
    }
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self { in_flight: 0, batch: VecDeque::new(), busy: VecDeque::new(), refused: Vec::new() }
    }
}

impl<T> Pending<T> {
    /// Puts a request at the end of the queue. Whoever does that flushes afterwards, or sees to it that somebody does.
    #[inline]
    pub(super) fn push(&self, request: T) {
        let mut queue = lock(&self.queue);
        self.load.fetch_add(PRESENT, Ordering::SeqCst);
        queue.requests.push_back(request);
        self.count_waiting(&queue);
    }

    /// Takes out a request that waits.
    pub(super) fn withdraw(&self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        if self.waiting() == 0 {
            return None;
        }
        let mut queue = lock(&self.queue);
        let at = queue.requests.iter().position(is_it)?;
        let request = queue.requests.remove(at);
        self.count_waiting(&queue);
        self.load.fetch_sub(PRESENT, Ordering::SeqCst);
        request
    }

    /// Notes how many wait. Needs no order of its own: who has queued something flushes after that, and who flushes looks
    /// again after it has held the lock last.
    fn count_waiting(&self, queue: &Queue<T>) {
        self.waiting.store(queue.requests.len(), Ordering::Relaxed);
    }

    /// Requests that the backend has now.
    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        in_flight(self.load.load(Ordering::Relaxed))
    }

    /// Requests that wait for it now.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether nothing waits and the backend has nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.load.load(Ordering::SeqCst) < PRESENT
    }

    /// Notes that the backend is rid of some requests. Returns whether the queue waits for just that: then the caller
    /// flushes.
    #[inline]
    pub(super) fn left(&self, count: u32) -> bool {
        self.load.fetch_sub(u64::from(count) * (PRESENT + IN_FLIGHT), Ordering::SeqCst);
        self.stalled.load(Ordering::SeqCst) && self.stalled.swap(false, Ordering::SeqCst)
    }

    /// Submits what waits, unless another thread is at it. Returns whether there was something.
    pub(super) fn flush(&self, backend: &impl Submit<T>) -> bool {
        let mut any = false;
        while let Some(mut scratch) = self.next_batch(backend) {
            any = true;
            let _held = backend.begin(&scratch);
            backend.submit(&mut scratch);
            let Scratch { batch, busy, refused, .. } = &mut *scratch;
            if !batch.is_empty() {
                busy.append(batch);
            }
            let refused = std::mem::take(refused);
            let overflow = self.keep_busy(backend, scratch, !refused.is_empty());
            for (request, errno) in refused {
                backend.end(request, errno);
            }
            if let Some(request) = overflow {
                // Nothing is in flight, so that no completion will ever make room: go elsewhere.
                backend.end(request, Errno(libc::EAGAIN));
            }
        }
        any
    }

    /// Takes the next requests to submit, as the one thread that flushes. What is isolated comes alone.
    fn next_batch(&self, backend: &impl Submit<T>) -> Option<Box<Scratch<T>>> {
        if self.waiting() == 0 {
            return None;
        }
        let mut queue = lock(&self.queue);
        if queue.flushing || queue.requests.is_empty() || self.stalled.load(Ordering::SeqCst) {
            return None;
        }
        queue.flushing = true;
        let mut scratch = queue.scratch.take().unwrap_or_default();
        let together = |request: &&T| !backend.isolates(request);
        let together = queue.requests.iter().take(BATCH_MAX).take_while(together).count().max(1);
        if together == queue.requests.len() {
            // Both lists keep their memory.
            std::mem::swap(&mut queue.requests, &mut scratch.batch);
        } else {
            scratch.batch.extend(queue.requests.drain(..together));
        }
        scratch.batch.iter_mut().for_each(|request| backend.mark(request, true));
        let offered = scratch.batch.len();
        scratch.in_flight = in_flight(self.load.fetch_add(IN_FLIGHT * offered as u64, Ordering::SeqCst)) + offered;
        self.count_waiting(&queue);
        Some(scratch)
    }

    /// Puts back what the backend had no room for, and ends the flush. Returns a request that no completion would ever
    /// make room for.
    fn keep_busy(&self, backend: &impl Submit<T>, mut scratch: Box<Scratch<T>>, progress: bool) -> Option<T> {
        let mut queue = lock(&self.queue);
        queue.flushing = false;
        let left = scratch.busy.len();
        let mut overflow = None;
        if left > 0 {
            backend.was_busy();
            scratch.busy.iter_mut().for_each(|request| backend.mark(request, false));
            self.waiting.store(queue.requests.len() + left, Ordering::Relaxed);
            // From here on a completion kicks the queue; one that came before shows as progress. Swapped and not stored, so
            // that this and what completions swap have one order that loom knows, too; on x86 they are the same instruction.
            self.stalled.swap(true, Ordering::SeqCst);
            let before = in_flight(self.load.fetch_sub(IN_FLIGHT * left as u64, Ordering::SeqCst));
            let in_flight = before - left;
            let progress = progress || before != scratch.in_flight;
            if progress || in_flight == 0 {
                self.stalled.swap(false, Ordering::SeqCst);
            }
            if in_flight == 0 && !progress {
                overflow = scratch.busy.pop_front();
                self.load.fetch_sub(if overflow.is_some() { PRESENT } else { 0 }, Ordering::SeqCst);
            }
            while let Some(request) = scratch.busy.pop_back() {
                queue.requests.push_front(request);
            }
            self.count_waiting(&queue);
        }
        queue.scratch = Some(scratch);
        overflow
    }
}
