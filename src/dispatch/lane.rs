//! One backend: what it can do, what it has, and what waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::pending::Pending;
use crate::backend::{Backend, Capabilities};
use crate::completion::Outcome;
use crate::monitor::Monitor;
use crate::request::Request;
use crate::stats::BackendCounters;
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
    /// Held by who reaps; keeps the list's memory.
    pub(super) reaper: Mutex<Vec<(Request, Outcome)>>,
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
            reaper: Mutex::new(Vec::new()),
        }
    }

    /// Whether somebody has to reap for a request of this lane to complete.
    pub(super) fn needs_reaping(&self) -> bool {
        self.capabilities.reaped && !self.pending.is_empty()
    }

    /// Requests that the backend has now.
    pub(crate) fn in_flight(&self) -> usize {
        self.pending.in_flight()
    }

    /// Requests that wait for it now.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.waiting()
    }

    /// Notes that the backend is rid of some requests. Returns whether the queue waits for just that.
    pub(crate) fn left(&self, count: u32) -> bool {
        self.pending.left(count)
    }
}
