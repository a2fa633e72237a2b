//! One backend: what it can do, what it has, and what waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::queue::Queue;
use crate::backend::{Backend, Capabilities};
use crate::completion::Outcome;
use crate::monitor::Monitor;
use crate::request::Request;
use crate::stats::BackendCounters;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A backend and the requests that wait for it.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// `None`: it did not start.
    pub(crate) backend: Option<Arc<dyn Backend>>,
    pub(crate) capabilities: Capabilities,
    pub(crate) counters: BackendCounters,
    pub(super) monitor: Monitor,
    pub(super) queue: Mutex<Queue>,
    /// Length of the queue, to be read without the lock.
    pub(super) waiting: AtomicUsize,
    /// Requests that the backend has.
    pub(super) in_flight: AtomicUsize,
    /// The backend was full: the next completion offers the queue again.
    pub(super) stalled: AtomicBool,
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
            queue: Mutex::new(Queue::default()),
            waiting: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
            reaper: Mutex::new(Vec::new()),
        }
    }

    /// Whether somebody has to reap for a request of this lane to complete.
    pub(super) fn needs_reaping(&self) -> bool {
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
