//! Requests into the queue: refused, or with a time at which they will be done.

use std::path::Path;
use std::time::Duration;

use super::Simulated;
use super::asked::Asked;
use super::disk::State;
use super::queue::Entry;
use super::trace::What;
use crate::backend::{Batch, Refusal};
use crate::completion::Errno;
use crate::request::{OpKind, RawHandle, Request};
use crate::sync::lock;

/// What neither transfers nor syncs takes so long.
const QUICK: Duration = Duration::from_micros(1);

impl Simulated {
    pub(super) fn take(&self, batch: &mut Batch<'_>) {
        let mut taken = false;
        let mut refused = Vec::new();
        {
            let mut state = lock(&self.shared.state);
            while state.has_room(self.number) {
                let Some(request) = batch.take() else { break };
                match state.accept(self.number, request) {
                    Ok(()) => taken = true,
                    Err(left) => refused.push(left),
                }
            }
        }
        for (request, refusal) in refused {
            batch.put_back(request, refusal);
        }
        if taken {
            self.shared.bell.ring();
        }
    }
}

impl State {
    fn has_room(&self, queue: u64) -> bool {
        self.queues.get(&queue).is_some_and(|queue| queue.len() < self.settings.queue_bound)
    }

    /// Takes a request, or says why not.
    fn accept(&mut self, queue: u64, request: Request) -> Result<(), (Request, Refusal)> {
        self.requests += 1;
        let number = self.requests;
        let RawHandle::Virtual(file) = request.handle() else {
            return Err((request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP))));
        };
        let (offset, unit) = self.place(file, &request);
        let (kind, length) = (request.kind(), request.length());
        let path = self.open.get(&file).map_or(Path::new(""), |open| &open.path);
        let verdict = self.plan.judge(&Asked { number, kind, path, offset, length, unit });
        let refusal = match verdict.refused {
            Some(errno) => Some((Refusal::Unsupported(errno), Some(errno))),
            None => verdict.queue_full.then_some((Refusal::Busy, None)),
        };
        if let Some((refusal, errno)) = refusal {
            self.note(What::Refused { number, errno, injected: true });
            return Err((request, refusal));
        }
        self.note(What::Asked { number, file, kind, offset, length, injected: verdict.names.clone() });
        let due = self.now.saturating_add(self.latency(&request)).saturating_add(verdict.delay);
        let lot = if self.settings.shuffled { self.ties.next() } else { 0 };
        let power_loss = verdict.power_loss;
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.push((due, lot, number), Entry { request, number, verdict, outcome: None });
        }
        if let Some(mode) = power_loss.filter(|_| self.powered) {
            self.crash(mode);
        }
        Ok(())
    }

    /// Where a request begins, as far as can be told now, and what its parts are multiples of.
    fn place(&self, file: u64, request: &Request) -> (Option<u64>, u64) {
        let Ok(open) = self.opened(file) else { return (request.position(), 1) };
        let offset = match request.kind() {
            OpKind::Write if open.appends || request.appends() => {
                self.inodes.get(&open.inode).map(|inode| inode.current.len())
            }
            OpKind::Read | OpKind::Write => Some(request.position().unwrap_or(open.position)),
            _ => request.position(),
        };
        (offset, open.alignment)
    }

    fn latency(&mut self, request: &Request) -> Duration {
        // What must not wait finds everything in the cache.
        let waits = matches!(request.kind(), OpKind::Read | OpKind::Write | OpKind::SyncAll | OpKind::SyncData);
        let latency = if waits && !request.nowait() { self.settings.latency.draw(&mut self.latencies) } else { QUICK };
        // Time has to pass, also for who asks for one quick thing after the other.
        latency.max(Duration::from_nanos(1))
    }
}
