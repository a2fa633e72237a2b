//! From the queues to the backends.

use std::sync::Arc;

use super::Core;
use super::completing::{Completing, is_completing};
use super::lane::Lane;
use super::pending::{Scratch, Submit};
use crate::backend::{Backend, Batch};
use crate::completion::Errno;
use crate::monitor::{Monitor, Timed};
use crate::request::{Request, RequestId, contain};
use crate::settle::{self, Deferring, settle_deferred};
use crate::slot::Slab;

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
        loop {
            let mut any = false;
            self.visit_lanes(|lane| any |= self.flush_lane(lane, attended));
            if !any {
                break;
            }
        }
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
    #[inline]
    fn flush_lane(&self, lane: &Lane, attended: Option<RequestId>) -> bool {
        lane.waiting() > 0 && self.flush_waiting(lane, attended)
    }

    fn flush_waiting(&self, lane: &Lane, attended: Option<RequestId>) -> bool {
        let Some(backend) = &lane.backend else { return false };
        let last_resort = std::ptr::eq(lane, &raw const self.lanes[usize::from(self.pool)]);
        let monitor = (!last_resort && lane.capabilities.may_block).then_some(&lane.monitor);
        let slab = &*self.slab;
        lane.pending.flush(slab, &Submission { slab, lane, backend: backend.as_ref(), monitor, attended })
    }
}

/// How a lane's requests get to its backend.
struct Submission<'a> {
    slab: &'a Slab,
    lane: &'a Lane,
    backend: &'a dyn Backend,
    /// `None`: there is nobody else.
    monitor: Option<&'a Monitor>,
    /// What the submitting thread is going to wait for.
    attended: Option<RequestId>,
}

impl Submit<Request> for Submission<'_> {
    type Held = Completing;

    fn begin(&self, scratch: &Scratch<Request>) -> Completing {
        let completing = Completing::enter();
        // One thread at a time flushes a lane.
        self.lane.counters.batches.add_alone(1);
        self.lane.counters.submitted.add_alone(scratch.batch.len() as u64);
        completing
    }

    fn isolates(&self, request: &Request) -> bool {
        self.monitor.is_some_and(|monitor| monitor.isolates(request))
    }

    fn mark(&self, request: &mut Request, counted: bool) {
        request.body_mut().trail.counted = counted;
    }

    fn submit(&self, scratch: &mut Scratch<Request>) {
        let Scratch { batch, busy, refused, .. } = scratch;
        let timed = Timed::start(batch, self.monitor);
        let revocable = self.lane.capabilities.revocable;
        let mut offer = Batch { slab: self.slab, queue: batch, refused, busy, revocable, attended: self.attended };
        let served = contain(|| {
            let _deferring = Deferring::enter();
            self.backend.submit(&mut offer);
        });
        timed.end(self.monitor, &self.lane.counters);
        settle_deferred();
        if !served {
            // It panicked, and will again: what it has left is for others.
            refused.extend(batch.drain(..).map(|request| (request, Errno(libc::ENOSYS))));
        }
    }

    fn was_busy(&self) {
        self.lane.counters.busy.add_alone(1);
    }

    fn end(&self, request: Request, errno: Errno) {
        settle::now(|| request.complete(Err(errno)));
    }
}
