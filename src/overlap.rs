//! Which requests of one file must not run side by side.
//!
//! A write through the page cache (see `twin.rs`) and a direct request to the same page lose each other's bytes, although
//! they may want different ones: the page is written back as a whole. So a cached write waits for the requests in flight
//! that touch its pages, and later ones that touch them wait for it.
//!
//! A file that never sees a cached write pays nothing for that: an operation is counted anyway (`counts.rs`), and counted as an
//! untracked transfer by the same addition and subtraction. Ranges are tracked from the first cached write on, and that one
//! waits for everything that was in flight untracked.
//!
//! So nothing may be counted as untracked while it waits for what may wait for a cached write: for a slot, which that write
//! may hold, or for its turn in the order gate, where that write may be before it. Such an operation gives its pass back, or
//! takes none at its begin, and is admitted when it is sent.

use std::collections::VecDeque;
use std::ops::Range;

use crate::counts::Counts;
use crate::request::Request;
use crate::sync::{Mutex, lock};

/// The gate of one file. The models have other requests.
pub(crate) struct Overlap<T = Request> {
    ranges: Mutex<Ranges<T>>,
}

/// What passes the gate.
pub(crate) trait Passes {
    /// Remembers how.
    fn pass(&mut self, pass: Pass);
}

impl Passes for Request {
    fn pass(&mut self, pass: Pass) {
        self.body_mut().trail.pass = pass;
    }
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

struct Ranges<T> {
    running: Vec<(u64, Footprint)>,
    /// In the order of arrival. None of them is passed by a later one that conflicts with it.
    waiting: VecDeque<(Footprint, T)>,
    next: u64,
}

impl<T> Default for Overlap<T> {
    fn default() -> Self {
        Self { ranges: Mutex::new(Ranges { running: Vec::new(), waiting: VecDeque::new(), next: 0 }) }
    }
}

impl<T: Passes> Overlap<T> {
    /// Hands `request` to `release` once nothing in flight conflicts with it: now, or in a later call of
    /// [`ended`](Self::ended). Others that may go meanwhile are handed over as well. `footprint` is asked for where ranges are
    /// tracked.
    pub(crate) fn admit(
        &self,
        counts: &Counts,
        mut request: T,
        cached_write: bool,
        footprint: impl FnOnce(&T) -> Footprint,
        mut release: impl FnMut(T),
    ) {
        let mut last = false;
        if !cached_write && !counts.is_tracking() {
            if counts.enter() {
                request.pass(Pass::Untracked);
                return release(request);
            }
            // A cached write may have seen the count in between and wait for it.
            last = counts.leave();
        }
        let footprint = footprint(&request);
        debug_assert_eq!(footprint.cached_write, cached_write);
        let ready = {
            let mut ranges = lock(&self.ranges);
            if cached_write {
                // Before the count is read below, in the same word: who is counted afterwards sees this. Who sees it and is
                // the last to be counted out waits for the lock, and finds what is left to wait here.
                counts.track();
            }
            ranges.waiting.push_back((footprint, request));
            // What waits already is in nobody's way less than before: the new one alone is to be looked at.
            let from = if last { 0 } else { ranges.waiting.len() - 1 };
            promote(counts, &mut ranges, from, |_| true)
        };
        ready.into_iter().for_each(release);
    }

    /// Notes that a request is going to be admitted anew, or that its operation goes on without a pass; hands what waited for
    /// it to `release`.
    pub(crate) fn give_back(&self, counts: &Counts, pass: Pass, release: impl FnMut(T)) {
        self.ended(counts, pass, pass == Pass::Untracked && counts.leave(), release);
    }

    /// Notes that a request has ended; hands what waited for it to `release`. `last`: it was counted out as the last one that
    /// ran untracked.
    #[inline]
    pub(crate) fn ended(&self, counts: &Counts, pass: Pass, last: bool, release: impl FnMut(T)) {
        let ready = match pass {
            Pass::Untracked if last => promote(counts, &mut lock(&self.ranges), 0, |_| true),
            Pass::None | Pass::Untracked => return,
            Pass::Tracked(number) => {
                let mut ranges = lock(&self.ranges);
                let Some(at) = ranges.running.iter().position(|(other, _)| *other == number) else { return };
                let (_, gone) = ranges.running.swap_remove(at);
                promote(counts, &mut ranges, 0, |footprint| footprint.conflicts(&gone))
            }
        };
        ready.into_iter().for_each(release);
    }

    /// Takes out a request that waits, and hands those to `release` that it was in the way of.
    pub(crate) fn withdraw(&self, counts: &Counts, is: impl Fn(&T) -> bool, release: impl FnMut(T)) -> Option<T> {
        if !counts.is_tracking() {
            return None;
        }
        let (request, ready) = {
            let mut ranges = lock(&self.ranges);
            let at = ranges.waiting.iter().position(|(_, request)| is(request))?;
            let (gone, request) = ranges.waiting.remove(at)?;
            (request, promote(counts, &mut ranges, at, |footprint| footprint.conflicts(&gone)))
        };
        ready.into_iter().for_each(release);
        Some(request)
    }
}

/// Moves what may run to the running ones: of those that wait, from the place `from` on, the `concerned` ones. The others
/// wait for something else. Many may wait, and this is done on the caller's thread: each is compared with all before it
/// only where it may really have become free.
fn promote<T: Passes>(
    counts: &Counts,
    ranges: &mut Ranges<T>,
    from: usize,
    concerned: impl Fn(&Footprint) -> bool,
) -> Vec<T> {
    let untracked = counts.has_untracked();
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
        request.pass(Pass::Tracked(ranges.next));
        ranges.running.push((ranges.next, footprint));
        ready.push(request);
    }
    ready
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;
    use crate::request::OpKind;
    use crate::testing::Bench;

    #[derive(Default)]
    struct Gate {
        counts: Counts,
        overlap: Overlap,
    }

    /// Admits a request of a range of bytes; returns what is let pass.
    fn admit(gate: &Gate, bench: &Bench, bytes: Range<u64>, cached_write: bool) -> Vec<Pass> {
        let (request, pending) = bench.request(OpKind::SyncAll, -1, None, Vec::new());
        drop(pending);
        let mut passed = Vec::new();
        let footprint = |_: &Request| Footprint { bytes, cached_write };
        gate.counts.begin(false);
        gate.overlap.admit(&gate.counts, request, cached_write, footprint, |request| {
            passed.push(request.body().trail.pass);
        });
        passed
    }

    fn end(gate: &Gate, pass: Pass) -> Vec<Pass> {
        let mut passed = Vec::new();
        let last = gate.counts.end(pass == Pass::Untracked).writes;
        gate.overlap.ended(&gate.counts, pass, last, |request| passed.push(request.body().trail.pass));
        passed
    }

    #[test]
    fn nothing_is_tracked_before_the_first_cached_write() {
        let (gate, bench) = (Gate::default(), Bench::new());
        assert_eq!(admit(&gate, &bench, 0..4096, false), [Pass::Untracked]);
        assert_eq!(admit(&gate, &bench, 0..4096, false), [Pass::Untracked]);
        assert!(end(&gate, Pass::Untracked).is_empty());
        assert!(lock(&gate.overlap.ranges).running.is_empty());
    }

    #[test]
    fn the_first_cached_write_waits_for_everything() {
        let (gate, bench) = (Gate::default(), Bench::new());
        admit(&gate, &bench, 0..4096, false);
        admit(&gate, &bench, 8192..12288, false);
        assert!(admit(&gate, &bench, 1 << 20..1 << 21, true).is_empty(), "whatever the ranges in flight are");
        assert!(end(&gate, Pass::Untracked).is_empty());
        assert_eq!(end(&gate, Pass::Untracked), [Pass::Tracked(1)]);
    }

    #[test]
    fn only_overlapping_pages_wait_and_in_order() {
        let (gate, bench) = (Gate::default(), Bench::new());
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
        let (gate, bench) = (Gate::default(), Bench::new());
        let write = admit(&gate, &bench, 0..u64::MAX, true);
        end(&gate, write[0]);
        assert_eq!(admit(&gate, &bench, 0..4096, false).len(), 1);
        assert_eq!(admit(&gate, &bench, 0..4096, false).len(), 1, "direct requests are the user's own affair");
    }

    /// The caller's thread admits: a crowd that waits must not be gone through pair by pair.
    #[test]
    fn a_crowd_that_waits_holds_nobody_up() {
        const CROWD: u64 = 2000;
        let (gate, bench) = (Gate::default(), Bench::new());
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
        let ranges = lock(&gate.overlap.ranges);
        assert!(ranges.running.is_empty() && ranges.waiting.is_empty());
    }
}
