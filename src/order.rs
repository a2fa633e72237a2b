//! The order that a file's requests keep among themselves.
//!
//! Requests have no order, with three exceptions that no kernel gives by itself on every path, so that the engine does:
//!
//! - [`Class::Serial`]: writes to an `O_APPEND` file, and transfers at the file position, run one at a time, in the order
//!   of their submission. A looping request keeps its turn until it is finished. Writes that make the file longer on the
//!   pool take turns with them: that is no promise, but saves a worker each, which would wait for the others' inode lock.
//! - [`Class::Barrier`]: `sync_all` and `sync_data` wait for every write submitted before them, and for no other.
//! - [`Class::Last`]: `close` waits for everything in flight, which is counted in `counts.rs`.
//!
//! Writes are counted in *epochs*: a barrier ends the current epoch and waits until its epoch and all before it are empty.
//! As long as no barrier comes in between a write takes no lock (`epochs.rs`).

mod epochs;

use std::collections::VecDeque;

use crate::counts::{Closing, Counts};
use crate::request::{Request, RequestId};
use crate::sync::{Mutex, lock};
use epochs::{Barriers, Epochs};

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

impl Class {
    /// Whether the gate may keep a request of the class until others have ended.
    #[inline]
    pub(crate) fn may_wait(self) -> bool {
        !matches!(self, Self::Free | Self::Write)
    }
}

/// The gate of one file.
#[derive(Default)]
pub(crate) struct Order {
    epochs: Epochs,
    gate: Mutex<Gate>,
    close: Closing<Request>,
}

#[derive(Default)]
struct Gate {
    barriers: Barriers<Request>,
    /// A serial request is running.
    busy: bool,
    serial: VecDeque<Request>,
}

impl Order {
    /// Lets a request pass, or keeps it until its turn.
    #[inline]
    pub(crate) fn admit(&self, mut request: Request, counts: &Counts) -> Option<Request> {
        match request.body().trail.gate {
            Class::Free => Some(request),
            Class::Write => {
                request.body_mut().trail.epoch = self.epochs.count();
                Some(request)
            }
            Class::Serial => {
                request.body_mut().trail.epoch = self.epochs.count();
                let mut gate = lock(&self.gate);
                if gate.busy {
                    gate.serial.push_back(request);
                    return None;
                }
                gate.busy = true;
                Some(request)
            }
            Class::Barrier => lock(&self.gate).barriers.wait(&self.epochs, request),
            Class::Last => self.close.wait(counts, request),
        }
    }

    /// Takes out the close, where [`Counts::end`] says that it waits for nobody else.
    pub(crate) fn take_close(&self) -> Option<Request> {
        self.close.take()
    }

    /// Takes out a barrier that waits. (What waits for its turn among serial requests stays there until it comes.)
    pub(crate) fn withdraw(&self, id: RequestId) -> Option<Request> {
        lock(&self.gate).barriers.withdraw(|request| request.id() == id)
    }

    /// Notes that a request has ended; hands what waited for it to `release`.
    #[inline]
    pub(crate) fn ended(&self, class: Class, epoch: u64, mut release: impl FnMut(Request)) {
        if !matches!(class, Class::Write | Class::Serial) {
            return;
        }
        let counted = self.epochs.count_down(epoch);
        if counted && class == Class::Write {
            return;
        }
        let (next, mut free) = {
            let mut gate = lock(&self.gate);
            let next = if class == Class::Serial { gate.next_serial() } else { None };
            (next, if counted { VecDeque::new() } else { gate.barriers.count_down(epoch) })
        };
        next.into_iter().for_each(&mut release);
        free.drain(..).for_each(release);
    }
}

impl Gate {
    fn next_serial(&mut self) -> Option<Request> {
        let next = self.serial.pop_front();
        self.busy = next.is_some();
        next
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;
    use crate::counts::Closed;
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
        order.admit(request(bench, class), &Counts::default()).map(|request| (class, request.body().trail.epoch))
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
        let (order, counts, bench) = (Order::default(), Counts::default(), Bench::new());
        assert!(!counts.begin(false).closed, "the file is open");
        assert!(!counts.begin(true).closed, "the file is open");
        counts.close().expect("the first close");
        assert_eq!(counts.close(), Err(Closed));
        assert!(order.admit(request(&bench, Class::Last), &counts).is_none(), "two operations are in flight");
        assert!(counts.begin(true).closed);
        assert!(!counts.end(true).close);
        assert!(!counts.end(true).close);
        assert!(counts.end(false).close, "the last end takes the close");
        assert!(order.take_close().is_some());
        assert!(order.take_close().is_none(), "once");
    }
}
