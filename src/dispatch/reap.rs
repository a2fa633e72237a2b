//! From the backends back: what has completed.

use std::cell::Cell;
use std::sync::Arc;

use super::Core;
use super::completing::{Completing, is_completing};
use super::lane::Lane;
use crate::backend::{Completions, Wait};
use crate::completion::Answer;
use crate::events::{self, Event};
use crate::request::{Request, complete_all_of};
use crate::settle;
use crate::sync::try_lock;

/// Completions of one `Backend::reap` at the most.
pub(crate) const REAP_MAX: usize = 256;

thread_local! {
    /// Memory of the list of what a backend gives back. Empty between two uses.
    static CLAIMED: Cell<Vec<(Request, Answer)>> = const { Cell::new(Vec::new()) };
}

impl Core {
    /// Completes what is there, at most `max`, without waiting. Returns how many.
    pub(crate) fn reap(self: &Arc<Self>, max: usize) -> usize {
        if self.fork.is_child() || max == 0 {
            return 0;
        }
        let mut sum = 0;
        self.visit_lanes(|lane| {
            let room = (max - sum).min(REAP_MAX);
            if room > 0 && lane.has_completions() {
                sum += self.reap_lane(lane, Wait::poll(room));
            }
        });
        sum
    }

    fn reap_lane(self: &Arc<Self>, lane: &Lane, wait: Wait) -> usize {
        let Some(backend) = &lane.backend else { return 0 };
        let mut claimed = CLAIMED.try_with(Cell::take).unwrap_or_default();
        let mut completions = Completions { slab: &self.slab, claimed: &mut claimed, unknown: 0 };
        // Otherwise somebody else reaps already, and what is there is theirs.
        if let Some(_reaper) = try_lock(&lane.reaper) {
            lane.counters.reaps.add_alone(1);
            settle::now(|| backend.reap(wait, &mut completions));
        }
        let unknown = completions.unknown;
        if unknown > 0 {
            self.counters.unknown_ids.add(unknown);
            events::raise(|| Event::Anomaly { what: "completions of requests that are not in flight", count: unknown });
        }
        let count = claimed.len();
        if count > 0 {
            {
                let _completing = Completing::enter();
                complete_all_of(self, &mut claimed);
            }
            if !is_completing() {
                self.flush();
            }
        }
        let _ = CLAIMED.try_with(|place| place.set(claimed));
        count
    }

    /// Whether [`reap`](Self::reap) would find something.
    pub(crate) fn has_completions(&self) -> bool {
        let mut any = false;
        if !self.fork.is_child() {
            self.visit_lanes(|lane| any = any || lane.has_completions());
        }
        any
    }
}
