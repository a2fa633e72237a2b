//! The queue before a backend: who submits what, once, in order, whatever the backend has room for.
//!
//! Who comes goes into the inbox (`inbox.rs`), without a lock. Whoever flushes *gathers*: it takes the lock, and puts those in
//! the inbox behind those that wait from before. One thread at a time flushes; the others leave what they have queued to it, for
//! it looks again after it has said that it flushes no more. A backend that is full gives back what it did not take. From then on
//! the queue is *stalled*: the next request that leaves the backend makes whoever ends it flush. Where none is left in there that
//! could, the queue is offered again at once, or its first request goes elsewhere.
//!
//! `models.rs` has loom run this under every interleaving: it knows nothing of requests and backends.

#![allow(unsafe_code)]

use std::collections::VecDeque;

use super::inbox::{Inbox, Links, Seen};
use crate::completion::Errno;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, UnsafeCell, lock};

/// Requests of one `Backend::submit` at the most: one `io_submit` of 1 853 requests kept its caller for 4 ms.
const BATCH_MAX: usize = 256;

/// What waits for a backend, and how much the backend has.
pub(super) struct Pending<T> {
    /// Those that have come, and how many are *present*: in there, or gathered, of which some wait and the backend has the
    /// others. One word has them all: a request is in it from its way in to its way out.
    inbox: Inbox,
    /// Those that were gathered and wait.
    queue: Mutex<VecDeque<T>>,
    /// Length of the queue, to be read without the lock. Changed by who has it.
    queued: AtomicUsize,
    /// The backend was full: the next completion offers the queue again.
    stalled: AtomicBool,
    /// Memory of the lists that a flush needs, while nobody flushes. It belongs to who flushes.
    scratch: UnsafeCell<Option<Box<Scratch<T>>>>,
}

// SAFETY: `scratch` is used by the one thread that flushes: the inbox says who that is, acquired and released.
unsafe impl<T: Send> Sync for Pending<T> {}

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
        Self {
            inbox: Inbox::new(),
            queue: Mutex::new(VecDeque::new()),
            queued: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
            scratch: UnsafeCell::new(None),
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
    pub(super) fn push(&self, request: T, links: &impl Links<T>) {
        self.inbox.push(request, links);
    }

    /// Takes out a request that waits.
    pub(super) fn withdraw(&self, links: &impl Links<T>, is_it: impl Fn(&T) -> bool) -> Option<T> {
        if self.waiting() == 0 {
            return None;
        }
        let mut queue = lock(&self.queue);
        self.gather(&mut queue, links, false);
        let at = queue.iter().position(is_it)?;
        let request = queue.remove(at);
        self.count_queued(&queue);
        self.inbox.leave(1);
        request
    }

    /// Notes how many wait of those gathered. See [`waiting`](Self::waiting).
    fn count_queued(&self, queue: &VecDeque<T>) {
        self.queued.store(queue.len(), Ordering::Relaxed);
    }

    /// Puts those in the inbox at the end of the queue, the one that came first before the others, and, for who is going to
    /// flush, notes that. `None`: nobody waits, or somebody else flushes.
    #[inline]
    fn gather(&self, queue: &mut VecDeque<T>, links: &impl Links<T>, flushes: bool) -> Option<Seen> {
        let before = queue.len();
        let mut seen = self.inbox.look();
        loop {
            let all = before + seen.arrived();
            if all == 0 || flushes && seen.is_flushing() {
                return None;
            }
            // Before they leave the inbox: who finds it empty finds them here.
            self.queued.store(all, Ordering::Relaxed);
            let taken = self.inbox.take(seen, flushes, links, |request| match before {
                0 => queue.push_front(request),
                _ => queue.push_back(request),
            });
            match taken {
                Ok(now) => {
                    if before > 0 {
                        // The last came first.
                        (before..all)
                            .zip((before..all).rev())
                            .take((all - before) / 2)
                            .for_each(|(a, b)| queue.swap(a, b));
                    }
                    return Some(now);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Requests that the backend has now.
    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        let gathered = self.inbox.look().gathered();
        gathered.saturating_sub(self.queued.load(Ordering::Relaxed))
    }

    /// Requests that wait for it now; for a moment, while they are gathered, perhaps twice as many.
    ///
    /// Never 0 where one waits that was queued by this thread, or before something that this thread has seen: who finds the
    /// inbox empty sees what was `queued` just before it was emptied. And the look at the inbox is sequentially consistent: of
    /// one that queues and then finds the queue stalled, and one that ends that and then looks here, the latter sees the former.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        let arrived = self.inbox.look().arrived();
        arrived + self.queued.load(Ordering::Relaxed)
    }

    /// Whether nothing waits and the backend has nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.look().is_empty()
    }

    /// Notes that the backend is rid of some requests. Returns whether the queue waits for just that: then the caller
    /// flushes.
    #[inline]
    pub(super) fn left(&self, count: u32) -> bool {
        self.inbox.leave(count);
        self.stalled.load(Ordering::SeqCst) && self.stalled.swap(false, Ordering::SeqCst)
    }

    /// Submits what waits, unless another thread is at it. Returns whether there was something.
    pub(super) fn flush(&self, links: &impl Links<T>, backend: &impl Submit<T>) -> bool {
        let mut any = false;
        while let Some(mut scratch) = self.next_batch(links, backend) {
            any = true;
            let _held = backend.begin(&scratch);
            backend.submit(&mut scratch);
            let Scratch { batch, busy, refused, .. } = &mut *scratch;
            if !batch.is_empty() {
                busy.append(batch);
            }
            let refused = std::mem::take(refused);
            let overflow = if busy.is_empty() {
                self.end_flush(scratch);
                None
            } else {
                self.keep_busy(backend, scratch, !refused.is_empty())
            };
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
    fn next_batch(&self, links: &impl Links<T>, backend: &impl Submit<T>) -> Option<Box<Scratch<T>>> {
        // Who has queued something finds it here, or it was taken: by who submits it, or who has left it in the queue, counted.
        if self.waiting() == 0 {
            return None;
        }
        let mut queue = lock(&self.queue);
        if self.stalled.load(Ordering::SeqCst) {
            return None;
        }
        // Who finds somebody flushing leaves what it has queued: that one says later, in the same word, that it has ended, and
        // then sees it.
        let now = self.gather(&mut queue, links, true)?;
        // SAFETY: we flush from now on.
        let scratch = self.scratch.with_mut(|scratch| unsafe { (*scratch).take() });
        let mut scratch = scratch.unwrap_or_default();
        let together = |request: &&T| !backend.isolates(request);
        let together = queue.iter().take(BATCH_MAX).take_while(together).count().max(1);
        if together == queue.len() {
            // Both lists keep their memory.
            std::mem::swap(&mut *queue, &mut scratch.batch);
        } else {
            scratch.batch.extend(queue.drain(..together));
        }
        scratch.batch.iter_mut().for_each(|request| backend.mark(request, true));
        scratch.in_flight = now.gathered() - queue.len();
        self.count_queued(&queue);
        Some(scratch)
    }

    /// Ends the flush.
    fn end_flush(&self, scratch: Box<Scratch<T>>) {
        // SAFETY: we flush until the next line.
        self.scratch.with_mut(|place| unsafe { *place = Some(scratch) });
        self.inbox.end_flush();
    }

    /// Puts back what the backend had no room for, and ends the flush. Returns a request that no completion would ever
    /// make room for.
    fn keep_busy(&self, backend: &impl Submit<T>, mut scratch: Box<Scratch<T>>, progress: bool) -> Option<T> {
        let mut queue = lock(&self.queue);
        let left = scratch.busy.len();
        let mut overflow = None;
        backend.was_busy();
        scratch.busy.iter_mut().for_each(|request| backend.mark(request, false));
        self.queued.store(queue.len() + left, Ordering::Relaxed);
        // From here on a completion kicks the queue; one that came before shows as progress. Swapped and not stored, so
        // that this and what completions swap have one order that loom knows, too; on x86 they are the same instruction.
        self.stalled.swap(true, Ordering::SeqCst);
        let before = self.inbox.look_behind().gathered() - queue.len();
        let in_flight = before - left;
        let progress = progress || before != scratch.in_flight;
        if progress || in_flight == 0 {
            self.stalled.swap(false, Ordering::SeqCst);
        }
        if in_flight == 0 && !progress {
            overflow = scratch.busy.pop_front();
            self.inbox.leave(u32::from(overflow.is_some()));
        }
        while let Some(request) = scratch.busy.pop_back() {
            queue.push_front(request);
        }
        self.count_queued(&queue);
        // Who makes room meanwhile, and finds somebody flushing, is seen, too: that was with the lock, and so is the next look.
        self.end_flush(scratch);
        overflow
    }
}
