//! The order that a file's requests keep among themselves.
//!
//! Requests have no order, with three exceptions that no kernel gives by itself on every path, so that the engine does:
//!
//! - [`Class::Serial`]: writes to an `O_APPEND` file, and transfers at the file position, run one at a time, in the order
//!   of their submission. A looping request keeps its turn until it is finished. Writes that make the file longer on the
//!   pool take turns with them: that is no promise, but saves a worker each, which would wait for the others' inode lock.
//! - [`Class::Barrier`]: `sync_all` and `sync_data` wait for every write submitted before them, and for no other.
//! - [`Class::Last`]: `close` waits for everything in flight.
//!
//! Writes are counted in *epochs*: a barrier ends the current epoch and waits until its epoch and all before it are empty.

use std::collections::VecDeque;

use crate::request::{Request, RequestId};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// What the gate has to do for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing: reads at an offset, metadata.
    #[default]
    Free,
    /// Count it: a write at an offset.
    Write,
    /// One at a time.
    Serial,
    /// Wait for the writes before it.
    Barrier,
    /// Wait for everything.
    Last,
}

/// The gate of one file.
#[derive(Default)]
pub(crate) struct Order {
    /// Operations that may use the handle: requests, and transfers in the caller.
    in_flight: AtomicUsize,
    /// A close was asked for.
    closed: AtomicBool,
    /// The close waits in `gate`.
    closing: AtomicBool,
    gate: Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    /// Unfinished writes of the current epoch.
    writes: usize,
    /// Its number.
    epoch: u64,
    /// Unfinished writes of the epochs before it, oldest first. The oldest has some.
    before: VecDeque<usize>,
    /// Barriers, each with the epoch that it waits for.
    barriers: VecDeque<(u64, Request)>,
    /// A serial request is running.
    busy: bool,
    serial: VecDeque<Request>,
    close: Option<Request>,
}

/// The handle is closed, or being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Order {
    /// Notes the begin of an operation that uses the handle; [`end`](Self::end) must follow.
    #[inline]
    pub(crate) fn begin(&self) -> Result<(), Closed> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) { Err(Closed) } else { Ok(()) }
    }

    /// Refuses every operation from here on. One caller succeeds, and submits the request that closes.
    pub(crate) fn begin_close(&self) -> Result<(), Closed> {
        if self.closed.swap(true, Ordering::SeqCst) { Err(Closed) } else { Ok(()) }
    }

    /// Notes the end of an operation. Returns the close that waited for it, to be submitted now.
    #[must_use]
    #[inline]
    pub(crate) fn end(&self) -> Option<Request> {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        (before == 1 && self.closing.load(Ordering::SeqCst)).then(|| lock(&self.gate).close.take()).flatten()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Lets a request pass, or keeps it until its turn.
    #[inline]
    pub(crate) fn admit(&self, mut request: Request) -> Option<Request> {
        match request.body().trail.gate {
            Class::Free => Some(request),
            Class::Write => {
                let epoch = lock(&self.gate).count_write();
                request.body_mut().trail.epoch = epoch;
                Some(request)
            }
            Class::Serial => {
                let mut gate = lock(&self.gate);
                request.body_mut().trail.epoch = gate.count_write();
                if gate.busy {
                    gate.serial.push_back(request);
                    return None;
                }
                gate.busy = true;
                Some(request)
            }
            Class::Barrier => {
                let mut gate = lock(&self.gate);
                let Some(epoch) = gate.end_epoch() else { return Some(request) };
                gate.barriers.push_back((epoch, request));
                None
            }
            Class::Last => {
                lock(&self.gate).close = Some(request);
                self.closing.store(true, Ordering::SeqCst);
                // Whoever finds nothing in flight first takes the close: this check or the last `end`.
                (self.in_flight.load(Ordering::SeqCst) == 0).then(|| lock(&self.gate).close.take()).flatten()
            }
        }
    }

    /// Takes out a barrier that waits. (What waits for its turn among serial requests stays there until it comes.)
    pub(crate) fn withdraw(&self, id: RequestId) -> Option<Request> {
        let mut gate = lock(&self.gate);
        let at = gate.barriers.iter().position(|(_, request)| request.id() == id)?;
        gate.barriers.remove(at).map(|(_, request)| request)
    }

    /// Notes that a request has ended; hands what waited for it to `release`.
    #[inline]
    pub(crate) fn ended(&self, class: Class, epoch: u64, mut release: impl FnMut(Request)) {
        if !matches!(class, Class::Write | Class::Serial) {
            return;
        }
        let (next, mut free) = {
            let mut gate = lock(&self.gate);
            let next = if class == Class::Serial { gate.next_serial() } else { None };
            (next, gate.count_end(epoch))
        };
        next.into_iter().for_each(&mut release);
        free.drain(..).for_each(release);
    }
}

impl Gate {
    fn count_write(&mut self) -> u64 {
        self.writes += 1;
        self.epoch
    }

    /// The oldest epoch that has unfinished writes; the current one where none has.
    fn oldest(&self) -> u64 {
        self.epoch - self.before.len() as u64
    }

    /// Ends the current epoch, for a barrier; `None` when no write is unfinished.
    fn end_epoch(&mut self) -> Option<u64> {
        if self.writes == 0 && self.before.is_empty() {
            return None;
        }
        // Without a write since the last barrier this one waits for the same epoch.
        if self.writes > 0 {
            self.before.push_back(std::mem::take(&mut self.writes));
            self.epoch += 1;
        }
        Some(self.epoch - 1)
    }

    /// Counts a write down; returns the barriers that it was the last to hold back.
    fn count_end(&mut self, epoch: u64) -> VecDeque<Request> {
        if epoch == self.epoch {
            self.writes -= 1;
            // None waits for the current epoch.
            return VecDeque::new();
        }
        let at = (epoch - self.oldest()) as usize;
        self.before[at] -= 1;
        while self.before.front() == Some(&0) {
            self.before.pop_front();
        }
        if self.barriers.is_empty() {
            return VecDeque::new();
        }
        let oldest = self.oldest();
        let reached = self.barriers.iter().take_while(|(waits_for, _)| *waits_for < oldest).count();
        // Draining nothing allocates nothing.
        self.barriers.drain(..reached).map(|(_, request)| request).collect()
    }

    fn next_serial(&mut self) -> Option<Request> {
        let next = self.serial.pop_front();
        self.busy = next.is_some();
        next
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;
    use crate::request::OpKind;
    use crate::testing::Bench;

    /// Makes requests of a class; what the gate lets pass is cancelled at once, which is all that these tests need.
    fn request(bench: &Bench, class: Class) -> Request {
        let (mut request, pending) = bench.request(OpKind::SyncAll, -1, None, Vec::new());
        drop(pending);
        request.body_mut().trail.gate = class;
        request
    }

    fn admit(order: &Order, bench: &Bench, class: Class) -> Option<(Class, u64)> {
        order.admit(request(bench, class)).map(|request| (class, request.body().trail.epoch))
    }

    fn released(order: &Order, ended: (Class, u64)) -> usize {
        let mut count = 0;
        order.ended(ended.0, ended.1, |_| count += 1);
        count
    }

    #[test]
    fn a_barrier_waits_for_the_writes_before_it_and_for_no_other() {
        let (order, bench) = (Order::default(), Bench::new());
        let first = admit(&order, &bench, Class::Write).expect("writes pass");
        let second = admit(&order, &bench, Class::Write).expect("writes pass");
        assert!(admit(&order, &bench, Class::Barrier).is_none(), "two writes are unfinished");
        let later = admit(&order, &bench, Class::Write).expect("a barrier holds no write back");
        assert!(admit(&order, &bench, Class::Barrier).is_none());
        assert_eq!(released(&order, later), 0, "the later write alone frees nobody: the earlier ones are unfinished");
        assert_eq!(released(&order, first), 0);
        assert_eq!(released(&order, second), 2, "both barriers are free");
        assert!(admit(&order, &bench, Class::Barrier).is_some(), "nothing is unfinished");
    }

    #[test]
    fn barriers_without_a_write_between_wait_for_the_same_writes() {
        let (order, bench) = (Order::default(), Bench::new());
        let write = admit(&order, &bench, Class::Write).expect("writes pass");
        assert!(admit(&order, &bench, Class::Barrier).is_none());
        assert!(admit(&order, &bench, Class::Barrier).is_none());
        assert_eq!(released(&order, write), 2);
    }

    #[test]
    fn serial_requests_go_one_at_a_time() {
        let (order, bench) = (Order::default(), Bench::new());
        let first = admit(&order, &bench, Class::Serial).expect("nobody is before it");
        assert!(admit(&order, &bench, Class::Serial).is_none());
        assert!(admit(&order, &bench, Class::Barrier).is_none(), "covers both, also the one that waits");
        let mut next = Vec::new();
        order.ended(first.0, first.1, |request| next.push(request.body().trail.epoch));
        assert_eq!(next.len(), 1, "the second write's turn, not the barrier's");
        assert_eq!(released(&order, (Class::Serial, next[0])), 1, "now the barrier");
        assert!(admit(&order, &bench, Class::Serial).is_some());
    }

    #[test]
    fn a_close_comes_last_and_once() {
        let (order, bench) = (Order::default(), Bench::new());
        order.begin().expect("the file is open");
        order.begin().expect("the file is open");
        order.begin_close().expect("the first close");
        assert_eq!(order.begin_close(), Err(Closed));
        assert!(order.admit(request(&bench, Class::Last)).is_none(), "two operations are in flight");
        assert_eq!(order.begin(), Err(Closed));
        assert!(order.end().is_none());
        assert!(order.end().is_none());
        assert!(order.end().is_some(), "the last end takes the close");
    }
}
