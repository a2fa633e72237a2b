//! From the queues to the backends.

use std::sync::Arc;

use super::Core;
use super::completing::{Completing, is_completing};
use super::lane::Lane;
use super::pending::{Scratch, Submit};
use crate::backend::{Backend, Batch};
use crate::completion::Errno;
use crate::monitor::{Monitor, Timed};
use crate::request::{Request, contain};
use crate::slot::Slab;

impl Core {
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
        lane.pending.flush(&Submission { slab: &self.slab, lane, backend: backend.as_ref(), monitor })
    }
}

/// How a lane's requests get to its backend.
struct Submission<'a> {
    slab: &'a Slab,
    lane: &'a Lane,
    backend: &'a dyn Backend,
    /// `None`: there is nobody else.
    monitor: Option<&'a Monitor>,
}

impl Submit<Request> for Submission<'_> {
    type Held = Completing;

    fn begin(&self, scratch: &Scratch<Request>) -> Completing {
        let completing = Completing::enter();
        self.lane.counters.batches.add(1);
        self.lane.counters.submitted.add(scratch.batch.len() as u64);
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
        let mut offer = Batch { slab: self.slab, queue: batch, refused, busy, revocable };
        let served = contain(|| self.backend.submit(&mut offer));
        timed.end(self.monitor, &self.lane.counters);
        if !served {
            // It panicked, and will again: what it has left is for others.
            refused.extend(batch.drain(..).map(|request| (request, Errno(libc::ENOSYS))));
        }
    }

    fn was_busy(&self) {
        self.lane.counters.busy.add(1);
    }

    fn end(&self, request: Request, errno: Errno) {
        request.complete(Err(errno));
    }
}
