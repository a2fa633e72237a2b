//! From the backends back: what has completed.

use std::sync::Arc;

use super::Core;
use super::completing::{Completing, is_completing};
use super::lane::Lane;
use crate::backend::{Completions, Wait};
use crate::events::{self, Event};
use crate::request::complete_all;
use crate::settle;
use crate::sync::try_lock;

/// Completions of one `Backend::reap` at the most.
pub(crate) const REAP_MAX: usize = 256;

impl Core {
    /// Completes what is there, at most `max`, without waiting. Returns how many.
    pub(crate) fn reap(self: &Arc<Self>, max: usize) -> usize {
        if self.fork.is_child() || max == 0 {
            return 0;
        }
        let reap = |sum: usize, lane: &Lane| {
            let ready = lane.needs_reaping() && lane.backend.as_ref().is_some_and(|backend| backend.ready());
            let room = (max - sum).min(REAP_MAX);
            sum + if ready && room > 0 { self.reap_lane(lane, Wait::poll(room)) } else { 0 }
        };
        self.near_lanes().fold(0, reap)
    }

    fn reap_lane(self: &Arc<Self>, lane: &Lane, wait: Wait) -> usize {
        let Some(backend) = &lane.backend else { return 0 };
        let (mut claimed, unknown) = {
            // Somebody else reaps already: what is there is theirs.
            let Some(mut reaper) = try_lock(&lane.reaper) else { return 0 };
            let mut claimed = std::mem::take(&mut *reaper);
            let mut completions = Completions { slab: &self.slab, claimed: &mut claimed, unknown: 0 };
            lane.counters.reaps.add(1);
            settle::now(|| backend.reap(wait, &mut completions));
            let unknown = completions.unknown;
            (claimed, unknown)
        };
        if unknown > 0 {
            self.counters.unknown_ids.add(unknown);
            events::raise(|| Event::Anomaly { what: "completions of requests that are not in flight", count: unknown });
        }
        let count = claimed.len();
        {
            let _completing = Completing::enter();
            complete_all(&mut claimed);
        }
        if let Some(mut reaper) = try_lock(&lane.reaper)
            && reaper.capacity() < claimed.capacity()
        {
            *reaper = claimed;
        }
        if count > 0 && !is_completing() {
            self.flush();
        }
        count
    }

    /// Whether [`reap`](Self::reap) would find something.
    pub(crate) fn has_completions(&self) -> bool {
        let ready = |lane: &Lane| lane.needs_reaping() && lane.backend.as_ref().is_some_and(|backend| backend.ready());
        !self.fork.is_child() && self.near_lanes().any(ready)
    }
}
