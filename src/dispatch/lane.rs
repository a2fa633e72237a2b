//! One backend: what it can do, what it has, and what waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::pending::Pending;
use crate::backend::{Backend, Capabilities};
use crate::monitor::Monitor;
use crate::request::Request;
use crate::stats::{BackendCounters, BackendStats};
use crate::sync::Mutex;

/// A backend and the requests that wait for it.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// `None`: it did not start.
    pub(crate) backend: Option<Arc<dyn Backend>>,
    pub(crate) capabilities: Capabilities,
    pub(crate) counters: BackendCounters,
    pub(super) monitor: Monitor,
    /// Requests that wait for it, and how many it has.
    pub(super) pending: Pending<Request>,
    /// Held by who reaps.
    pub(super) reaper: Mutex<()>,
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
            pending: Pending::default(),
            reaper: Mutex::new(()),
        }
    }

    /// Whether somebody has to reap for a request of this lane to complete.
    #[inline]
    pub(crate) fn needs_reaping(&self) -> bool {
        self.capabilities.reaped && !self.pending.is_empty()
    }

    /// Whether reaping would find something.
    #[inline]
    pub(crate) fn has_completions(&self) -> bool {
        self.needs_reaping() && self.backend.as_ref().is_some_and(|backend| backend.ready())
    }

    /// Whether it has no request, neither waiting nor in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Requests that the backend has now.
    pub(crate) fn in_flight(&self) -> usize {
        self.pending.in_flight()
    }

    /// Requests that wait for it now.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.pending.waiting()
    }

    /// Adds what was done here.
    pub(crate) fn add_to(&self, stats: &mut BackendStats) {
        let counters = &self.counters;
        for (sum, counter) in [
            (&mut stats.requests, &counters.requests),
            (&mut stats.bytes, &counters.bytes),
            (&mut stats.errors, &counters.errors),
            (&mut stats.batches, &counters.batches),
            (&mut stats.submitted, &counters.submitted),
            (&mut stats.busy, &counters.busy),
            (&mut stats.nowait_hits, &counters.nowait_hits),
            (&mut stats.nowait_misses, &counters.nowait_misses),
            (&mut stats.short, &counters.short),
            (&mut stats.reaps, &counters.reaps),
            (&mut stats.slow_submits, &counters.slow_submits),
        ] {
            *sum += counter.value();
        }
        stats.in_flight += self.in_flight() as u64;
        stats.waiting += self.waiting() as u64;
        stats.submit_ns.merge(&counters.submit_ns.snapshot());
        stats.batch_sizes.merge(&counters.batch_sizes.snapshot());
        stats.contexts += u64::from(self.backend.is_some());
    }

    /// Notes that the backend is rid of some requests. Returns whether the queue waits for just that.
    #[inline]
    pub(crate) fn left(&self, count: u32) -> bool {
        self.pending.left(count)
    }
}
