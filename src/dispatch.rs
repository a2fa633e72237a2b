//! The heart of an engine: a lane per backend, each with the requests that wait for it.
//!
//! Whoever has queued a request flushes; one thread at a time flushes a lane, the others leave their requests to it.
//! Nothing is locked across a backend's `submit`, and requests are completed outside every lock.

mod completing;
mod flush;
mod inbox;
mod lane;
mod lifetime;
#[cfg(all(test, polyaio_loom))]
mod models;
mod pending;
mod queue;
mod reap;

use std::sync::Arc;

pub(crate) use self::completing::{Completing, is_completing};
pub(crate) use self::lane::Lane;
pub(crate) use self::lifetime::{Drained, Ended, State};
pub(crate) use self::reap::REAP_MAX;
use crate::backend::CancelOutcome;
use crate::driver::Driver;
use crate::error::Error;
use crate::fork::ForkGuard;
use crate::notify::Notifications;
use crate::os::RawFd;
use crate::request::{Place, RequestId};
use crate::router::policy::{Settings, Shelf};
use crate::settle::{self, Tally, Witness};
use crate::slot::Slab;
use crate::stats::{BackendStats, Counter, Counters};
use crate::sync::atomic::{AtomicUsize, Ordering};

/// What the engine, its files and its threads share.
pub(crate) struct Core {
    pub(crate) slab: Arc<Slab>,
    pub(crate) settings: Settings,
    /// The ways of its files.
    pub(crate) plans: Shelf,
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
    /// Callbacks that wait, and those whose time has come.
    pub(crate) notifications: Notifications,
    /// Told of every end of a request while the engine closes.
    pub(crate) drained: Drained,
    /// Told of the engine's end.
    pub(crate) end: Ended,
    /// The lane of the thread pool, whose answer is the last word.
    pub(crate) pool: u8,
    /// The lane of the stream workers, which make the ordinary calls on streams in the pool's stead.
    pub(crate) stream_workers: u8,
    /// Worker threads at the most, as the engine was built.
    pub(crate) threads: usize,
    pub(crate) fork: Arc<ForkGuard>,
}

impl Core {
    /// The lane that a request is in, or was in last.
    #[inline]
    pub(crate) fn lane(&self, place: Place) -> &Lane {
        self.driver.sides.lane(place.side).unwrap_or(&self.lanes[usize::from(place.backend)])
    }

    /// All lanes.
    pub(crate) fn all_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().chain(self.driver.sides.lanes().map(|(_, lane)| lane))
    }

    /// Visits the lanes that this thread looks after: all but those that are the business of one other thread.
    #[inline]
    fn visit_lanes(&self, mut visit: impl FnMut(&Lane)) {
        self.lanes.iter().for_each(&mut visit);
        if self.driver.sides.are_there() {
            self.driver.sides.near(self).for_each(visit);
        }
    }

    /// What a backend has done, in all of its lanes.
    pub(crate) fn backend_stats(&self, backend: usize) -> BackendStats {
        let mut stats = BackendStats { name: self.lanes[backend].name, ..BackendStats::default() };
        self.lanes[backend].add_to(&mut stats);
        let own = self.driver.sides.lanes().filter(|(of, _)| usize::from(*of) == backend);
        own.for_each(|(_, lane)| lane.add_to(&mut stats));
        stats
    }

    /// Asks the backends to stop a request that has begun.
    pub(crate) fn cancel_begun(&self, id: RequestId) -> CancelOutcome {
        let able = self.all_lanes().filter(|lane| lane.capabilities.cancel);
        let outcomes = able.filter_map(|lane| lane.backend.as_ref()).map(|backend| settle::now(|| backend.cancel(id)));
        outcomes.into_iter().find(|outcome| *outcome != CancelOutcome::Unknown).unwrap_or(CancelOutcome::Running)
    }

    /// Whether a thread that sleeps has to sleep in the driver's seat for something to happen.
    pub(crate) fn needs_driving(&self) -> bool {
        // In a child everything that could happen is the parent's.
        !self.fork.is_child()
            && (self.driver.waits_for_streams()
                || self.notifications.is_ready()
                || self.driver.sides.need_driving()
                || self.lanes.iter().any(Lane::needs_reaping))
    }

    /// Tells the backends that a descriptor is about to be closed.
    pub(crate) fn forget(&self, fd: RawFd) {
        if self.fork.is_child() {
            return;
        }
        self.all_lanes().filter_map(|lane| lane.backend.as_ref()).for_each(|backend| backend.forget(fd));
    }

    /// Whether everything that ends by itself has ended, and every callback has returned.
    pub(crate) fn is_idle(&self) -> bool {
        self.unfinished.load(Ordering::SeqCst) == 0 && self.notifications.live() == 0
    }

    /// Whether operations may start.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.fork.is_child() {
            return Err(Error::Forked);
        }
        if self.state.is_open() { Ok(()) } else { Err(Error::EngineClosed) }
    }
}

impl Witness for Core {
    fn judged(&self, tally: &Tally) -> bool {
        let lane = self.lane(tally.place);
        let counters = &lane.counters;
        for (counter, n) in
            [(&counters.requests, tally.requests), (&counters.bytes, tally.bytes), (&counters.errors, tally.errors)]
        {
            if n > 0 {
                counter.add(n);
            }
        }
        let kicks = tally.left > 0 && lane.left(tally.left);
        if tally.finished > 0 {
            // Last, so that the engine is never idle while something that waited for these requests is on its way.
            self.unfinished.fetch_sub(tally.finished, Ordering::SeqCst);
        }
        if !self.state.is_open() {
            self.drained.look();
        }
        kicks
    }

    fn make_way(self: Arc<Self>) {
        self.flush_after_completion();
    }

    fn published(&self, count: u64) {
        self.ended.add_ordered(count);
        self.driver.announce();
    }
}
