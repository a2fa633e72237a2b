//! What a file has taught the router since it was opened: backends that refuse it, and what they answered.
//!
//! Everything here only speeds up the next choice: a stale read costs one more detour, never a wrong result.

use crate::completion::Errno;
use crate::router::policy::Class;
use crate::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// So many `EINVAL`s that went well elsewhere demote a backend for a file and class.
const CONFIRMATIONS: u32 = 3;
/// After so many NOWAIT refusals in a row, without one acceptance, the backend rests for a file and class.
const NOWAIT_MISSES: u32 = 64;
/// It is passed over for so many requests; then one more refusal sends it to rest again, and one acceptance ends that.
const REST: u32 = 1024;

/// A submission that held the caller up weighs so much,
const SLOW: u32 = 8;
/// and at this sum the backend rests for a file and class. One that did not hold up takes 1 away.
const SLOW_LIMIT: u32 = 24;
/// It rests for so many requests, for twice as many the next time,
const SLOW_REST: u32 = 64;
/// and no longer after so many times. What is slow for a moment is soon back, and what stays slow is asked ever more rarely.
const SLOW_DOUBLINGS: u32 = 4;
/// What is left of the sum after the rest: one more slow one, and it rests again.
const PROBATION: u32 = SLOW_LIMIT - SLOW;

/// After so many refusals in a row, writes that make the file longer begin elsewhere.
const GROWTH_MISSES: u32 = 4;
/// Every so many of them the backend is asked all the same: blocks may have been reserved beyond the end meanwhile.
const GROWTH_RETRY: u32 = 256;

/// The number of the inline path, where lessons are kept per backend. No backend has it.
pub(crate) const INLINE: u8 = 31;

/// Lessons per class of operation.
#[derive(Default)]
pub(crate) struct Learned {
    classes: [Lessons; Class::COUNT],
    /// What the inline path was answered when it ended; 0 while it has not.
    inline: AtomicI32,
    /// NOWAIT refusals of writes that make the file longer, since the last acceptance.
    growth_misses: AtomicU32,
    /// Such writes that began elsewhere for it.
    growth_skipped: AtomicU32,
}

/// Backends that are passed over for one request, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PassedOver {
    /// For what they answered.
    pub(crate) refused: u32,
    /// For how long they held the caller up.
    pub(crate) slow: u32,
}

#[derive(Default)]
struct Lessons {
    /// Backends that are passed over, a bit each.
    demoted: AtomicU32,
    /// What the last demoted one answered.
    errno: AtomicI32,
    /// Backends that are asked without NOWAIT, a bit each.
    without_nowait: AtomicU32,
    /// `EINVAL`s that went well elsewhere.
    confirmed: AtomicU32,
    /// NOWAIT refusals since the last acceptance.
    misses: AtomicU32,
    /// Backends that rest, a bit each, for `rest` more requests.
    resting: AtomicU32,
    rest: AtomicU32,
    /// How slow the last slow backend is: its number and its sum, as [`Score`] lays them out.
    slow_score: AtomicU32,
    /// Backends that rest because they are slow, a bit each, for `slow_rest` more requests.
    slow_resting: AtomicU32,
    slow_rest: AtomicU32,
    /// Rests since it was last cleared.
    slow_rests: AtomicU32,
}

/// The sum of one backend's slow submissions. One backend is kept in mind at a time: a second slow one takes its place, so
/// that it costs the first one's score, which then has to be earned anew.
#[derive(Clone, Copy)]
struct Score(u32);

impl Score {
    fn new(backend: u8, sum: u32) -> Self {
        Self(u32::from(backend) << 16 | sum)
    }

    #[inline]
    fn of(self, backend: u8) -> u32 {
        if self.0 >> 16 == u32::from(backend) { self.0 & 0xffff } else { 0 }
    }
}

impl Learned {
    #[inline]
    fn of(&self, class: Class) -> &Lessons {
        &self.classes[class as usize]
    }

    /// Backends that are passed over for good, a bit each.
    pub(crate) fn demoted(&self, class: Class) -> u32 {
        self.of(class).demoted.load(Ordering::Relaxed)
    }

    /// Backends that are passed over for the next request, a bit each.
    pub(crate) fn passed_over(&self, class: Class) -> PassedOver {
        let lessons = self.of(class);
        let demoted = lessons.demoted.load(Ordering::Relaxed);
        PassedOver {
            refused: demoted | rest(&lessons.rest, &lessons.resting),
            slow: rest(&lessons.slow_rest, &lessons.slow_resting),
        }
    }

    /// Whether there is no lesson by which a request would begin elsewhere than at the first of the plan.
    #[inline]
    pub(crate) fn is_blank(&self, class: Class) -> bool {
        let lessons = self.of(class);
        let any = [&lessons.demoted, &lessons.rest, &lessons.slow_rest];
        any.into_iter().all(|lesson| lesson.load(Ordering::Relaxed) == 0)
            && self.growth_misses.load(Ordering::Relaxed) == 0
    }

    /// Backends that rest because they are slow, a bit each.
    pub(crate) fn slow(&self, class: Class) -> u32 {
        let lessons = self.of(class);
        if lessons.slow_rest.load(Ordering::Relaxed) > 0 { lessons.slow_resting.load(Ordering::Relaxed) } else { 0 }
    }

    /// Whether a backend has been slow lately, so that its submissions are looked at one by one.
    #[inline]
    pub(crate) fn on_probation(&self, class: Class, backend: u8) -> bool {
        Score(self.of(class).slow_score.load(Ordering::Relaxed)).of(backend) > 0
    }

    /// Notes whether a submission of one request has held the caller up. `true`: a rest begins.
    pub(crate) fn submitted(&self, class: Class, backend: u8, slow: bool) -> bool {
        let lessons = self.of(class);
        let score = &lessons.slow_score;
        // One thread flushes a lane at a time: nobody else writes, but for the lane of another backend.
        let before = Score(score.load(Ordering::Relaxed)).of(backend);
        if !slow {
            if before > 0 {
                score.store(Score::new(backend, before - 1).0, Ordering::Relaxed);
            }
            if before == 1 {
                lessons.slow_rests.store(0, Ordering::Relaxed);
            }
            return false;
        }
        let mut sum = before + SLOW;
        let rests = sum >= SLOW_LIMIT;
        if rests {
            sum = PROBATION;
            let others = self.slow(class);
            lessons.slow_resting.store(others | 1 << backend, Ordering::Relaxed);
            let rests = lessons.slow_rests.load(Ordering::Relaxed).min(SLOW_DOUBLINGS);
            lessons.slow_rests.store(rests + 1, Ordering::Relaxed);
            lessons.slow_rest.store(SLOW_REST << rests, Ordering::Relaxed);
        }
        score.store(Score::new(backend, sum).0, Ordering::Relaxed);
        rests
    }

    /// Whether a write that makes the file longer had better begin elsewhere than where NOWAIT would be refused.
    pub(crate) fn refuses_growth(&self) -> bool {
        self.growth_misses.load(Ordering::Relaxed) >= GROWTH_MISSES
            && !(self.growth_skipped.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(GROWTH_RETRY)
    }

    /// NOWAIT was accepted, or refused, for a write that makes the file longer.
    pub(crate) fn grew(&self, accepted: bool) {
        // Two refusals at once may count as one.
        let misses = self.growth_misses.load(Ordering::Relaxed);
        let misses = if accepted { 0 } else { (misses + 1).min(GROWTH_MISSES) };
        self.growth_misses.store(misses, Ordering::Relaxed);
    }

    /// What the last demoted backend answered.
    pub(crate) fn errno(&self, class: Class) -> Errno {
        Errno(self.of(class).errno.load(Ordering::Relaxed))
    }

    /// Passes a backend over from now on.
    pub(crate) fn demote(&self, class: Class, backend: u8, errno: Errno) {
        self.of(class).errno.store(errno.0, Ordering::Relaxed);
        self.of(class).demoted.fetch_or(1 << backend, Ordering::Relaxed);
    }

    /// A request that `backend` refused has succeeded elsewhere.
    pub(crate) fn confirm(&self, class: Class, backend: u8, errno: Errno) {
        // Only `EINVAL` may still be about the request.
        let enough = if errno.0 == libc::EINVAL { CONFIRMATIONS } else { 1 };
        if self.of(class).confirmed.fetch_add(1, Ordering::Relaxed) + 1 >= enough {
            self.demote(class, backend, errno);
        }
    }

    /// Whether a backend may be asked with NOWAIT.
    #[inline]
    pub(crate) fn nowait(&self, class: Class, backend: u8) -> bool {
        self.of(class).without_nowait.load(Ordering::Relaxed) & 1 << backend == 0
    }

    /// The file does not know NOWAIT.
    pub(crate) fn without_nowait(&self, class: Class, backend: u8) {
        self.of(class).without_nowait.fetch_or(1 << backend, Ordering::Relaxed);
    }

    /// Ends the inline path. `true` for the one caller that did it.
    pub(crate) fn end_inline(&self, errno: Errno) -> bool {
        self.without_nowait(Class::Read, INLINE);
        self.inline.compare_exchange(0, errno.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Why the inline path has ended.
    pub(crate) fn inline_errno(&self) -> Option<Errno> {
        Some(self.inline.load(Ordering::Relaxed)).filter(|errno| *errno != 0).map(Errno)
    }

    /// NOWAIT was accepted.
    pub(crate) fn nowait_hit(&self, class: Class) {
        let misses = &self.of(class).misses;
        if misses.load(Ordering::Relaxed) != 0 {
            misses.store(0, Ordering::Relaxed);
        }
    }

    /// NOWAIT was refused. A backend of which every answer is a refusal is a detour: it rests for a while. Returns whether
    /// that begins now.
    pub(crate) fn nowait_miss(&self, class: Class, backend: u8) -> bool {
        let lessons = self.of(class);
        if lessons.misses.fetch_add(1, Ordering::Relaxed) + 1 >= NOWAIT_MISSES {
            lessons.resting.store(1 << backend, Ordering::Relaxed);
            return lessons.rest.swap(REST, Ordering::Relaxed) == 0;
        }
        false
    }
}

/// Who rests, for one more request.
fn rest(left: &AtomicU32, who: &AtomicU32) -> u32 {
    // Several threads may count one request; how long the rest is does not matter to the letter.
    match left.load(Ordering::Relaxed) {
        0 => 0,
        rest => {
            left.store(rest - 1, Ordering::Relaxed);
            who.load(Ordering::Relaxed)
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_few_confirmations_demote() {
        let learned = Learned::default();
        for _ in 1..CONFIRMATIONS {
            learned.confirm(Class::Read, 0, Errno(libc::EINVAL));
        }
        assert_eq!(learned.demoted(Class::Read), 0);
        learned.confirm(Class::Read, 0, Errno(libc::EINVAL));
        assert_eq!((learned.demoted(Class::Read), learned.demoted(Class::Write)), (1, 0));
    }

    #[test]
    fn one_acceptance_keeps_nowait() {
        let learned = Learned::default();
        for _ in 0..10 * NOWAIT_MISSES {
            learned.nowait_miss(Class::Write, 0);
            learned.nowait_hit(Class::Write);
        }
        assert_eq!(learned.passed_over(Class::Write), PassedOver::default());
    }

    #[test]
    fn refusals_alone_send_a_backend_to_rest_and_it_is_tried_again() {
        let learned = Learned::default();
        for _ in 0..NOWAIT_MISSES {
            learned.nowait_miss(Class::Write, 0);
        }
        for _ in 0..REST {
            assert_eq!((learned.passed_over(Class::Write).refused, learned.demoted(Class::Write)), (1, 0));
        }
        assert_eq!(learned.passed_over(Class::Write), PassedOver::default(), "it is asked once more");
        learned.nowait_miss(Class::Write, 0);
        assert_eq!(learned.passed_over(Class::Write).refused, 1, "and rests again");
        learned.nowait_hit(Class::Write);
        learned.nowait_miss(Class::Read, 0);
        assert_eq!(learned.passed_over(Class::Read), PassedOver::default());
    }

    #[test]
    fn slow_submissions_send_a_backend_to_rest_and_one_more_sends_it_back() {
        let learned = Learned::default();
        let over = |backends| PassedOver { refused: 0, slow: backends };
        for _ in 0..2 {
            learned.submitted(Class::Read, 3, true);
        }
        assert!(learned.on_probation(Class::Read, 3) && !learned.on_probation(Class::Read, 2));
        assert_eq!(learned.passed_over(Class::Read), over(0), "twice may be chance");
        learned.submitted(Class::Read, 3, true);
        assert_eq!((learned.slow(Class::Read), learned.slow(Class::Write)), (1 << 3, 0));
        for rest in [64, 128, 256, 512, 1024, 1024] {
            for _ in 0..rest {
                assert_eq!(learned.passed_over(Class::Read), over(1 << 3));
            }
            assert_eq!(
                (learned.passed_over(Class::Read), learned.slow(Class::Read)),
                (over(0), 0),
                "it is tried again"
            );
            learned.submitted(Class::Read, 3, true);
        }
        for _ in 0..PROBATION {
            learned.submitted(Class::Read, 3, false);
        }
        assert!(!learned.on_probation(Class::Read, 3), "fast ones clear it");
        (0..1024).for_each(|_| assert_eq!(learned.passed_over(Class::Read), over(1 << 3)));
        (0..3).for_each(|_| _ = learned.submitted(Class::Read, 3, true));
        (0..64).for_each(|_| assert_eq!(learned.passed_over(Class::Read), over(1 << 3)));
        assert_eq!(learned.passed_over(Class::Read), over(0), "as at the first time");
    }

    #[test]
    fn now_and_then_a_slow_submission_is_no_habit() {
        let learned = Learned::default();
        for _ in 0..100 {
            learned.submitted(Class::Write, 0, true);
            (0..SLOW).for_each(|_| _ = learned.submitted(Class::Write, 0, false));
        }
        assert_eq!(learned.slow(Class::Write), 0);
    }

    #[test]
    fn growth_that_is_refused_begins_elsewhere_and_is_asked_for_now_and_then() {
        let learned = Learned::default();
        for _ in 0..GROWTH_MISSES {
            assert!(!learned.refuses_growth());
            learned.grew(false);
        }
        let asked = (0..2 * GROWTH_RETRY).filter(|_| !learned.refuses_growth()).count();
        assert_eq!(asked, 2);
        learned.grew(true);
        assert!(!learned.refuses_growth(), "one acceptance ends it");
    }
}
