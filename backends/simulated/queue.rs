//! What is in flight of one backend, in the order in which it will be done.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::disk::State;
use super::inode::Change;
use super::plan::Verdict;
use crate::backend::Operation;
use crate::completion::{Errno, Outcome};
use crate::request::{OpKind, RawHandle, Request, RequestId};

/// When, then by lot (0 where there is none), then in the order of submission.
pub(super) type Turn = (Duration, u64, u64);

/// Requests of one backend.
#[derive(Default)]
pub(super) struct Queue(BTreeMap<Turn, Entry>);

/// A request in flight.
pub(super) struct Entry {
    pub(super) request: Request,
    pub(super) number: u64,
    pub(super) verdict: Verdict,
    /// What it ends with, where that is known already: it is not served any more.
    pub(super) outcome: Option<Outcome>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, turn: Turn, entry: Entry) {
        self.0.insert(turn, entry);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.0.first_key_value().map(|(turn, _)| turn.0)
    }

    /// The next one that is due by then.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Entry> {
        let first = self.0.first_entry().filter(|first| first.key().0 <= now);
        first.map(|first| first.remove())
    }

    /// Has a request that is not served yet end by `outcome` as soon as somebody looks. `false`: it is not here.
    pub(super) fn end(&mut self, id: RequestId, now: Duration, outcome: Outcome) -> bool {
        let found = self.0.iter().find(|(_, entry)| entry.request.id() == id).map(|(turn, _)| *turn);
        let Some(mut entry) = found.and_then(|turn| self.0.remove(&turn)) else { return false };
        let fresh = entry.outcome.is_none();
        entry.outcome.get_or_insert(outcome);
        self.0.insert((now, 0, entry.number), entry);
        fresh
    }

    /// Has all of them end by `outcome`.
    fn end_all(&mut self, now: Duration, outcome: Outcome) -> u64 {
        let entries = std::mem::take(&mut self.0);
        let count = entries.len() as u64;
        for mut entry in entries.into_values() {
            entry.outcome.get_or_insert(outcome);
            self.0.insert((now, 0, entry.number), entry);
        }
        count
    }

    /// What the writes in flight would write, in their order.
    fn writes(&mut self) -> Vec<(u64, Option<u64>, bool, Vec<u8>)> {
        let writes = self.0.values_mut().filter(|entry| {
            entry.outcome.is_none() && entry.request.kind() == OpKind::Write && !entry.verdict.refuses_to_write()
        });
        let data = |entry: &mut Entry| {
            let RawHandle::Virtual(number) = entry.request.handle() else { return None };
            let (position, appends) = (entry.request.position(), entry.request.appends());
            let most = entry.verdict.short.map_or(usize::MAX, |short| short as usize);
            let operation = Operation::new(&mut entry.request, |_| Err(Errno(libc::EBADF)));
            let data = operation.data().iter().flat_map(|part| part.iter().copied()).take(most).collect();
            // SAFETY: the operation, and what it has lent, is gone.
            unsafe { entry.request.retract() };
            Some((number, position, appends, data))
        };
        writes.filter_map(data).collect()
    }
}

impl State {
    /// Ends what is in flight with `EIO`; returns how many that are. `half`: writes have perhaps begun, and are changes like
    /// others.
    pub(super) fn cut_off(&mut self, half: bool) -> u64 {
        let now = self.now;
        let mut count = 0;
        let mut writes = Vec::new();
        for queue in self.queues.values_mut() {
            if half {
                writes.extend(queue.writes());
            }
            count += queue.end_all(now, Err(Errno(libc::EIO)));
        }
        for (number, position, appends, data) in writes {
            let Ok(open) = self.opened(number).cloned() else { continue };
            let end = self.inode(open.inode).current.len();
            let at = if open.appends || appends { end } else { position.unwrap_or(open.position) };
            let fits = |bytes: u64| bytes.is_multiple_of(open.alignment);
            if !fits(data.len() as u64) || !(fits(at) || open.appends) {
                continue;
            }
            // What would have been refused has not begun either.
            let Ok(length) = self.may_write(&open, at, data.len() as u64) else { continue };
            let data = &data[..length as usize];
            self.change(open.inode, Change::Write { at, data: data.into() }, false);
        }
        count
    }
}
