//! From the queues to the backends.

use std::sync::Arc;

use super::Core;
use super::completing::{Completing, is_completing};
use super::lane::Lane;
use super::queue::Scratch;
use crate::backend::Batch;
use crate::completion::Errno;
use crate::monitor::Timed;
use crate::request::{RequestId, contain};

impl Core {
    /// Submits what is queued, and what that brings along: requests that go to another lane, or that waited for one that
    /// ended inside `submit`.
    pub(crate) fn flush(&self) {
        self.flush_attending(None);
    }

    /// The same, by a thread that is then going to wait for nothing but `attended`, in [`wait_for`](Self::wait_for).
    pub(crate) fn flush_attending(&self, attended: Option<RequestId>) {
        if self.fork.is_child() {
            return;
        }
        let pass = || self.lanes.iter().filter(|lane| self.flush_lane(lane, attended)).count();
        while pass() > 0 {}
    }

    /// Sleeps until the request is over, where its backend lets the thread that waits do that. `false`: it has not slept.
    pub(crate) fn wait_for(&self, id: RequestId) -> bool {
        !self.fork.is_child() && self.lanes.iter().filter_map(|lane| lane.backend.as_ref()).any(|b| b.wait_for(id))
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
    fn flush_lane(&self, lane: &Lane, attended: Option<RequestId>) -> bool {
        let Some(backend) = &lane.backend else { return false };
        let last_resort = std::ptr::eq(lane, &raw const self.lanes[usize::from(self.pool)]);
        let monitor = (!last_resort && lane.capabilities.may_block).then_some(&lane.monitor);
        let mut any = false;
        while let Some(mut scratch) = lane.next_batch(monitor) {
            any = true;
            let _completing = Completing::enter();
            lane.counters.batches.add(1);
            lane.counters.submitted.add(scratch.batch.len() as u64);
            let Scratch { batch, busy, refused, .. } = &mut scratch;
            let timed = Timed::start(batch, monitor);
            let revocable = lane.capabilities.revocable;
            let mut offer = Batch { slab: &self.slab, queue: batch, refused, busy, revocable, attended };
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
}
