//! Which requests of one file must not run side by side.
//!
//! A write through the page cache (see `twin.rs`) and a direct request to the same page lose each other's bytes, although
//! they may want different ones: the page is written back as a whole. So a cached write waits for the requests in flight
//! that touch its pages, and later ones that touch them wait for it.
//!
//! A file that never sees a cached write pays two atomic additions per request: ranges are tracked from the first one on,
//! and that one waits for everything that was in flight untracked.

use std::collections::VecDeque;
use std::ops::Range;

use crate::request::{Request, RequestId};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// The gate of one file.
#[derive(Default)]
pub(crate) struct Overlap {
    /// Requests that run untracked.
    untracked: AtomicUsize,
    /// A cached write has been there: every request is tracked from now on.
    tracking: AtomicBool,
    ranges: Mutex<Ranges>,
}

/// What the gate remembers with a request that it let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It has not passed.
    #[default]
    None,
    /// It is counted.
    Untracked,
    /// Its range is tracked under this number.
    Tracked(u64),
}

/// The bytes that a request touches, in whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) bytes: Range<u64>,
    /// It changes them in the page cache.
    pub(crate) cached_write: bool,
}

impl Footprint {
    fn conflicts(&self, other: &Self) -> bool {
        let apart = self.bytes.end <= other.bytes.start || other.bytes.end <= self.bytes.start;
        (self.cached_write || other.cached_write) && !apart
    }
}

#[derive(Default)]
struct Ranges {
    running: Vec<(u64, Footprint)>,
    /// In the order of arrival. None of them is passed by a later one that conflicts with it.
    waiting: VecDeque<(Footprint, Request)>,
    next: u64,
}

impl Overlap {
    /// Hands `request` to `release` once nothing in flight conflicts with it: now, or in a later call of
    /// [`ended`](Self::ended). Others that may go meanwhile are handed over as well. `footprint` is asked for where ranges are
    /// tracked.
    pub(crate) fn admit(
        &self,
        mut request: Request,
        cached_write: bool,
        footprint: impl FnOnce(&Request) -> Footprint,
        mut release: impl FnMut(Request),
    ) {
        let mut last = false;
        if !cached_write && !self.tracking.load(Ordering::SeqCst) {
            self.untracked.fetch_add(1, Ordering::SeqCst);
            if !self.tracking.load(Ordering::SeqCst) {
                request.body_mut().trail.pass = Pass::Untracked;
                return release(request);
            }
            // A cached write may have seen the count in between and wait for it.
            last = self.untracked.fetch_sub(1, Ordering::SeqCst) == 1;
        }
        let footprint = footprint(&request);
        debug_assert_eq!(footprint.cached_write, cached_write);
        let ready = {
            let mut ranges = lock(&self.ranges);
            if cached_write {
                // Before the count is read below: whoever passes untracked afterwards sees this.
                self.tracking.store(true, Ordering::SeqCst);
            }
            ranges.waiting.push_back((footprint, request));
            // What waits already is in nobody's way less than before: the new one alone is to be looked at.
            let from = if last { 0 } else { ranges.waiting.len() - 1 };
            self.promote(&mut ranges, from, |_| true)
        };
        ready.into_iter().for_each(release);
    }

    /// Notes that a request has ended, or is going to be admitted anew; hands what waited for it to `release`.
    pub(crate) fn ended(&self, pass: Pass, release: impl FnMut(Request)) {
        let ready = match pass {
            Pass::None => return,
            Pass::Untracked => {
                let last = self.untracked.fetch_sub(1, Ordering::SeqCst) == 1;
                if !last || !self.tracking.load(Ordering::SeqCst) {
                    return;
                }
                self.promote(&mut lock(&self.ranges), 0, |_| true)
            }
            Pass::Tracked(number) => {
                let mut ranges = lock(&self.ranges);
                let Some(at) = ranges.running.iter().position(|(other, _)| *other == number) else { return };
                let (_, gone) = ranges.running.swap_remove(at);
                self.promote(&mut ranges, 0, |footprint| footprint.conflicts(&gone))
            }
        };
        ready.into_iter().for_each(release);
    }

    /// Takes out a request that waits, and hands those to `release` that it was in the way of.
    pub(crate) fn withdraw(&self, id: RequestId, release: impl FnMut(Request)) -> Option<Request> {
        if !self.tracking.load(Ordering::SeqCst) {
            return None;
        }
        let (request, ready) = {
            let mut ranges = lock(&self.ranges);
            let at = ranges.waiting.iter().position(|(_, request)| request.id() == id)?;
            let (gone, request) = ranges.waiting.remove(at)?;
            (request, self.promote(&mut ranges, at, |footprint| footprint.conflicts(&gone)))
        };
        ready.into_iter().for_each(release);
        Some(request)
    }

    /// Moves what may run to the running ones: of those that wait, from the place `from` on, the `concerned` ones. The others
    /// wait for something else. Many may wait, and this is done on the caller's thread: each is compared with all before it
    /// only where it may really have become free.
    fn promote(&self, ranges: &mut Ranges, from: usize, concerned: impl Fn(&Footprint) -> bool) -> Vec<Request> {
        let untracked = self.untracked.load(Ordering::SeqCst) > 0;
        let (mut ready, mut at) = (Vec::new(), from);
        while let Some((footprint, _)) = ranges.waiting.get(at) {
            let before = ranges.waiting.iter().take(at).map(|(other, _)| other);
            let mut others = ranges.running.iter().map(|(_, other)| other).chain(before);
            let waits = !concerned(footprint)
                || footprint.cached_write && untracked
                || others.any(|other| other.conflicts(footprint));
            if waits {
                at += 1;
                continue;
            }
            let Some((footprint, mut request)) = ranges.waiting.remove(at) else { break };
            ranges.next += 1;
            request.body_mut().trail.pass = Pass::Tracked(ranges.next);
            ranges.running.push((ranges.next, footprint));
            ready.push(request);
        }
        ready
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;
    use crate::request::OpKind;
    use crate::testing::Bench;

    /// Admits a request of a range of bytes; returns what is let pass.
    fn admit(gate: &Overlap, bench: &Bench, bytes: Range<u64>, cached_write: bool) -> Vec<Pass> {
        let (request, pending) = bench.request(OpKind::SyncAll, -1, None, Vec::new());
        drop(pending);
        let mut passed = Vec::new();
        let footprint = |_: &Request| Footprint { bytes, cached_write };
        gate.admit(request, cached_write, footprint, |request| passed.push(request.body().trail.pass));
        passed
    }

    fn end(gate: &Overlap, pass: Pass) -> Vec<Pass> {
        let mut passed = Vec::new();
        gate.ended(pass, |request| passed.push(request.body().trail.pass));
        passed
    }

    #[test]
    fn nothing_is_tracked_before_the_first_cached_write() {
        let (gate, bench) = (Overlap::default(), Bench::new());
        assert_eq!(admit(&gate, &bench, 0..4096, false), [Pass::Untracked]);
        assert_eq!(admit(&gate, &bench, 0..4096, false), [Pass::Untracked]);
        assert!(end(&gate, Pass::Untracked).is_empty());
        assert!(lock(&gate.ranges).running.is_empty());
    }

    #[test]
    fn the_first_cached_write_waits_for_everything() {
        let (gate, bench) = (Overlap::default(), Bench::new());
        admit(&gate, &bench, 0..4096, false);
        admit(&gate, &bench, 8192..12288, false);
        assert!(admit(&gate, &bench, 1 << 20..1 << 21, true).is_empty(), "whatever the ranges in flight are");
        assert!(end(&gate, Pass::Untracked).is_empty());
        assert_eq!(end(&gate, Pass::Untracked), [Pass::Tracked(1)]);
    }

    #[test]
    fn only_overlapping_pages_wait_and_in_order() {
        let (gate, bench) = (Overlap::default(), Bench::new());
        assert_eq!(admit(&gate, &bench, 0..4096, true), [Pass::Tracked(1)]);
        assert_eq!(admit(&gate, &bench, 4096..8192, false), [Pass::Tracked(2)], "a neighbour");
        assert!(admit(&gate, &bench, 0..8192, false).is_empty(), "the write's page");
        assert!(admit(&gate, &bench, 4096..8192, true).is_empty(), "waits for the second, and is behind the third");
        assert!(admit(&gate, &bench, 4096..8192, false).is_empty(), "behind the fourth");
        assert_eq!(admit(&gate, &bench, 8192..9000, true), [Pass::Tracked(3)], "apart from all");
        assert!(end(&gate, Pass::Tracked(2)).is_empty(), "the third is still before the fourth");
        assert_eq!(end(&gate, Pass::Tracked(1)), [Pass::Tracked(4)]);
        assert_eq!(end(&gate, Pass::Tracked(4)), [Pass::Tracked(5)], "the write alone");
        assert_eq!(end(&gate, Pass::Tracked(5)), [Pass::Tracked(6)]);
    }

    #[test]
    fn requests_that_change_no_page_do_not_wait_for_each_other() {
        let (gate, bench) = (Overlap::default(), Bench::new());
        let write = admit(&gate, &bench, 0..u64::MAX, true);
        end(&gate, write[0]);
        assert_eq!(admit(&gate, &bench, 0..4096, false).len(), 1);
        assert_eq!(admit(&gate, &bench, 0..4096, false).len(), 1, "direct requests are the user's own affair");
    }

    /// The caller's thread admits: a crowd that waits must not be gone through pair by pair.
    #[test]
    fn a_crowd_that_waits_holds_nobody_up() {
        const CROWD: u64 = 2000;
        let (gate, bench) = (Overlap::default(), Bench::new());
        let begin = crate::testing::thread_time();
        // Each wants a page of the one before it.
        let pages = |i: u64| i * 4096..(i + 2) * 4096;
        let passed: usize = (0..CROWD).map(|i| admit(&gate, &bench, pages(i), true).len()).sum();
        assert_eq!(passed, 1);
        // It takes a tenth of a second of this thread's own time; pair by pair it would be minutes.
        let took = crate::testing::thread_time() - begin;
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
        let mut pass = Pass::Tracked(1);
        for _ in 1..CROWD {
            let next = end(&gate, pass);
            assert_eq!(next.len(), 1, "one at a time");
            pass = next[0];
        }
        assert!(end(&gate, pass).is_empty());
        let ranges = lock(&gate.ranges);
        assert!(ranges.running.is_empty() && ranges.waiting.is_empty());
    }
}
