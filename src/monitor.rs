//! Whether submitting holds the caller up: every submission is timed, and what is slow is looked at closely.
//!
//! A backend promises not to block in `submit`, but kernel AIO cannot keep that promise alone (`Capabilities::may_block`): a
//! file system may do synchronously what should be asynchronous (metadata that has to be read, a write that needs blocks, no
//! NOWAIT to say so).
//!
//! Which request of a batch it was cannot be told, and a thread that was preempted, or whose processor a host has lent to
//! another guest, looks slow as well. So a slow batch, unless its thread is known neither to have slept nor to have burned the
//! time, only makes its lane *suspicious*: for a while each transfer is submitted on its own, and counts as slow only where the
//! thread really slept or burned the time. What comes of it is the file's lesson (`router/learned.rs`).

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::os;
use crate::request::{Owner, Request};
use crate::router::policy::Class;
use crate::stats::BackendCounters;
use crate::sync::atomic::{AtomicU32, Ordering};

/// One request on its own that takes longer, and sleeps or computes meanwhile, has held the caller up; unless the engine is
/// told otherwise.
pub(crate) const SLOW: Duration = Duration::from_micros(100);
/// It has computed if that took so many times as long: interrupts, and what a host takes away from its guest, look the same.
const COMPUTES: u32 = 5;
/// A submission of several that takes longer than twice that, and this for each of its requests, is suspicious.
const BATCH_SLOW_EACH: Duration = Duration::from_micros(10);
/// Of so many requests or more it is asked whether the thread has worked all the time: two system calls before them, which cost
/// less than 64 submissions on their own do for nothing, on a busy machine again and again.
const BATCH_ASKED: usize = 8;
/// What each request of a batch uses of the processor by itself, at the most: what the batch uses beyond that one of them may
/// have burned.
const BATCH_USES_EACH: Duration = Duration::from_micros(5);
/// So many submissions are looked at closely after a suspicious one. And of so many it is asked what their thread does, after a
/// slow one of which that was not asked.
const SUSPICIOUS: u32 = 64;
/// In each case so many bytes may take a nanosecond more, or 1 MiB 0.1 ms: what is read or written directly is pinned in
/// memory page by page.
const BYTES_EACH_NANOSECOND: u64 = 10;

/// What is suspected of one lane. One thread at a time submits to it, so that nothing here has to be exact.
pub(crate) struct Monitor {
    /// How long a request may hold its caller up.
    slow: Duration,
    /// Submissions that are still to be looked at closely.
    suspicious: AtomicU32,
    /// Submissions that are still to be asked whether the thread has worked all the time, however few their requests are; one
    /// that is alone is looked at closely.
    asked: AtomicU32,
}

impl Monitor {
    pub(crate) fn new(slow: Duration) -> Self {
        Self { slow, suspicious: AtomicU32::new(0), asked: AtomicU32::new(0) }
    }

    /// Whether the thread of a submission is asked what it uses, however few its requests are.
    fn asks(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    /// Whether a request goes out on its own, to be timed closely.
    pub(crate) fn isolates(&self, request: &Request) -> bool {
        request.body().trail.watched || self.suspicious.load(Ordering::Relaxed) > 0
    }
}

/// A submission under way.
pub(crate) struct Timed {
    requests: usize,
    /// What their size may cost.
    allowance: Duration,
    close: Option<Close>,
    /// What the thread had used before.
    before: Option<Usage>,
    start: Instant,
}

/// What it takes to tell what a submission of one request cost its thread, and whom to tell.
struct Close {
    /// The request may be over, and freed, when its submission returns.
    owner: Arc<dyn Owner>,
    class: Class,
    backend: u8,
    before: Usage,
}

impl Timed {
    /// Begins to time the submission of `batch`.
    pub(crate) fn start(batch: &VecDeque<Request>, monitor: Option<&Monitor>) -> Self {
        let alone = batch.front().filter(|_| batch.len() == 1);
        let watched = alone.filter(|r| r.kind().is_transfer() && monitor.is_some_and(|m| m.asks() || m.isolates(r)));
        let close = watched.map(|request| Close {
            owner: request.owner().clone(),
            class: Class::of(request.kind(), request.position().is_some()),
            backend: request.body().trail.backend,
            before: Usage::now(),
        });
        let bytes = |request: &Request| if request.kind().is_transfer() { request.length() } else { 0 };
        let bytes: u64 = if monitor.is_some() { batch.iter().map(bytes).sum() } else { 0 };
        let allowance = Duration::from_nanos(bytes / BYTES_EACH_NANOSECOND);
        let asks = |monitor: &Monitor| batch.len() >= BATCH_ASKED || monitor.asks();
        let before = monitor.filter(|monitor| close.is_none() && asks(monitor)).map(|_| Usage::now());
        Self { requests: batch.len(), allowance, close, before, start: Instant::now() }
    }

    /// Notes how long it took. `monitor`: `None` for the last resort, for which there is nobody else.
    pub(crate) fn end(self, monitor: Option<&Monitor>, counters: &BackendCounters) {
        let wall = self.start.elapsed();
        let requests = u32::try_from(self.requests.max(1)).unwrap_or(u32::MAX);
        counters.submit_ns.add_many(saturating_nanoseconds(wall) / u64::from(requests), u64::from(requests));
        counters.batch_sizes.add_many(u64::from(requests), 1);
        let Some(monitor) = monitor else { return };
        let limit = monitor.slow.saturating_add(self.allowance);
        let mut suspects = false;
        if let Some(close) = self.close {
            count_down(&monitor.asked, false);
            suspects = wall > limit && close.before.has_worked(limit.saturating_mul(COMPUTES));
            close.owner.submitted(close.class, close.backend, suspects);
            if suspects {
                counters.slow_submits.add_alone(1);
            }
        } else {
            let is_slow = wall > limit.saturating_add(monitor.slow).saturating_add(BATCH_SLOW_EACH * requests);
            match self.before {
                Some(before) if is_slow => {
                    let uses = self.allowance.saturating_add(BATCH_USES_EACH * requests);
                    suspects = before.has_worked(monitor.slow.saturating_mul(COMPUTES).saturating_add(uses));
                }
                _ => count_down(&monitor.asked, is_slow),
            }
        }
        count_down(&monitor.suspicious, suspects);
    }
}

/// Begins to count anew, or goes on.
fn count_down(left: &AtomicU32, anew: bool) {
    let now = left.load(Ordering::Relaxed);
    let next = if anew { SUSPICIOUS } else { now.saturating_sub(1) };
    if next != now {
        left.store(next, Ordering::Relaxed);
    }
}

fn saturating_nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What this thread has used up to a moment.
struct Usage {
    /// How often it went to sleep by itself.
    sleeps: libc::c_long,
    /// CPU time.
    cpu: Duration,
}

impl Usage {
    fn now() -> Self {
        Self { sleeps: sleeps(), cpu: os::thread_time() }
    }

    /// Whether the thread has slept since, or computed for longer than `time`: it was not just preempted.
    fn has_worked(&self, time: Duration) -> bool {
        sleeps() > self.sleeps || os::thread_time().saturating_sub(self.cpu) > time
    }
}

/// How often this thread went to sleep by itself.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sleeps() -> libc::c_long {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage(2) fills the structure; all zeroes is a value of it, should it fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nvcsw
}

/// Not known per thread: CPU time alone decides.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sleeps() -> libc::c_long {
    0
}

#[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
mod tests {
    use super::*;
    use crate::request::OpKind;
    use crate::testing::{Bench, PATIENCE, one_of_many};

    /// Whether a submission of so many requests, which was on its way for a second, makes its lane suspicious; `before`: what its
    /// thread had used.
    fn suspects(monitor: &Monitor, requests: usize, before: Option<Usage>) -> bool {
        let Some(start) = Instant::now().checked_sub(Duration::from_secs(1)) else {
            panic!("the machine runs since just now")
        };
        let timed = Timed { requests, allowance: Duration::ZERO, close: None, before, start };
        timed.end(Some(monitor), &BackendCounters::default());
        monitor.suspicious.load(Ordering::Relaxed) > 0
    }

    /// What a thread had used that has not slept since, and computed for `time`.
    fn used(time: Duration) -> Usage {
        Usage { sleeps: libc::c_long::MAX, cpu: os::thread_time().saturating_sub(time) }
    }

    /// Has this thread use so much that there is something to subtract from.
    fn compute() {
        let start = Instant::now();
        while os::thread_time() < SLOW * 20 && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_batch_is_suspicious_where_its_thread_has_worked_all_the_time() {
        compute();
        let suspects_of_many = |before| suspects(&Monitor::new(SLOW), 32, Some(before));
        // Wherever the second went, it was not this thread that has used it: another thread had the processor, or another guest.
        one_of_many("lost the processor, and nothing else", || {
            if suspects_of_many(Usage::now()) { Err("it is suspicious".into()) } else { Ok(()) }
        });
        assert!(suspects_of_many(Usage { sleeps: -1, ..Usage::now() }), "it has slept");
        // What 32 requests use, and one of them that would be slow alone, with a little more, as time goes on.
        let most = SLOW * COMPUTES + BATCH_USES_EACH * 32;
        assert!(suspects_of_many(used(most)), "one of them has computed");
        one_of_many("has computed as many do", || {
            if suspects_of_many(used(most - SLOW)) { Err("it is suspicious".into()) } else { Ok(()) }
        });
    }

    #[test]
    fn few_are_asked_after_the_first_that_was_slow() {
        let monitor = Monitor::new(SLOW);
        assert!(!monitor.asks());
        assert!(!suspects(&monitor, 1, None), "nobody has asked what its thread did meanwhile");
        assert!(monitor.asks());
        assert!(suspects(&monitor, 1, Some(Usage { sleeps: -1, ..Usage::now() })));
        for _ in 0..SUSPICIOUS {
            assert!(monitor.asks());
            let timed =
                Timed { requests: 1, allowance: Duration::MAX, close: None, before: None, start: Instant::now() };
            timed.end(Some(&monitor), &BackendCounters::default());
        }
        assert!(!monitor.asks(), "it was not slow again");
        assert_eq!(monitor.suspicious.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_is_alone_and_fast_is_not_looked_at_for_ever() {
        // Longer than anything in here takes, also where an emulator computes.
        let (bench, monitor) = (Bench::new(), Monitor::new(SLOW * 1000));
        assert!(!suspects(&monitor, 1, None));
        for left in (0..SUSPICIOUS).rev() {
            let (request, pending) = bench.request(OpKind::Read, -1, Some(0), vec![0; 8]);
            let batch = VecDeque::from([request]);
            let timed = Timed::start(&batch, Some(&monitor));
            assert!(timed.close.is_some(), "it is looked at closely");
            timed.end(Some(&monitor), &BackendCounters::default());
            assert_eq!(monitor.asked.load(Ordering::Relaxed), left);
            drop((batch, pending));
        }
        let (request, _pending) = bench.request(OpKind::Read, -1, Some(0), vec![0; 8]);
        assert!(Timed::start(&VecDeque::from([request]), Some(&monitor)).close.is_none());
    }

    #[test]
    fn sleeping_and_computing_count_and_a_moment_does_not() {
        // What a host takes away from its guest in between looks like computing.
        one_of_many("nothing has happened", || {
            let before = Usage::now();
            if before.has_worked(SLOW) { Err("it has worked".into()) } else { Ok(()) }
        });
        let before = Usage::now();
        std::thread::sleep(Duration::from_millis(1));
        assert!(before.has_worked(SLOW), "it has slept");
        let before = Usage { sleeps: libc::c_long::MAX, ..Usage::now() };
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !before.has_worked(SLOW) {
            std::hint::spin_loop();
        }
        assert!(before.has_worked(SLOW), "it has computed");
    }
}
