//! Requests that are delayed, and those that were.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::completion::Outcome;
use crate::request::{Request, RequestId};

/// A request that waits.
pub(super) struct Kept {
    pub(super) request: Request,
    /// What it ends with, where it is not to be served at all.
    pub(super) outcome: Option<Outcome>,
    /// Bytes that are to be transferred at the most.
    pub(super) short: Option<u64>,
}

#[derive(Default)]
pub(super) struct Held {
    /// By the time at which they may go on, and in the order in which they came.
    waiting: BTreeMap<(Instant, u64), Kept>,
    count: u64,
    /// Those that are going to be offered once more, and pass then; and how short they are to be.
    matured: HashMap<RequestId, Option<u64>>,
}

impl Held {
    /// Keeps a request until then.
    pub(super) fn hold(&mut self, due: Instant, kept: Kept) {
        self.count += 1;
        self.waiting.insert((due, self.count), kept);
    }

    /// When the next one may go on.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Kept> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let kept = first.remove();
        if kept.outcome.is_none() {
            self.matured.insert(kept.request.id(), kept.short);
        }
        Some(kept)
    }

    /// Lets a request pass when it is offered again.
    pub(super) fn let_pass(&mut self, id: RequestId) {
        self.matured.insert(id, None);
    }

    /// Whether a request was judged before, and how short it is to be.
    pub(super) fn take_matured(&mut self, id: RequestId) -> Option<Option<u64>> {
        if self.matured.is_empty() { None } else { self.matured.remove(&id) }
    }

    pub(super) fn has(&self, id: RequestId) -> bool {
        self.waiting.values().any(|kept| kept.request.id() == id)
    }

    /// Gives a request out that waits.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Request> {
        let key = self.waiting.iter().find(|(_, kept)| kept.request.id() == id).map(|(key, _)| *key)?;
        self.waiting.remove(&key).map(|kept| kept.request)
    }
}
