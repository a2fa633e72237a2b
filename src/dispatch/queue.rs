//! What waits for a backend, in order, and the one thread that takes it from there.

use std::collections::VecDeque;

use super::Core;
use super::lane::Lane;
use crate::completion::Errno;
use crate::monitor::Monitor;
use crate::request::{Request, RequestId};
use crate::sync::atomic::Ordering;
use crate::sync::lock;

/// Requests of one `Backend::submit` at the most: one `io_submit` of 1 853 requests kept its caller for 4 ms.
const BATCH_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) requests: VecDeque<Request>,
    /// A thread is submitting; it looks again before it leaves.
    flushing: bool,
    /// Memory of the lists that a flush needs.
    scratch: Scratch,
}

#[derive(Default)]
pub(super) struct Scratch {
    /// What the backend had, with these, when they were offered.
    in_flight: usize,
    pub(super) batch: VecDeque<Request>,
    pub(super) busy: VecDeque<Request>,
    pub(super) refused: Vec<(Request, Errno)>,
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

    /// Requests that wait in all lanes.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.load(Ordering::Relaxed)).sum()
    }
}

impl Lane {
    /// Takes the next requests to submit, as the one thread that flushes the lane. What the monitor wants to see alone
    /// comes alone.
    pub(super) fn next_batch(&self, monitor: Option<&Monitor>) -> Option<Scratch> {
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
    pub(super) fn keep_busy(&self, mut scratch: Scratch, progress: bool) -> Option<Request> {
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
