//! What one thread notes down while it makes requests, and when it stops.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::patterns::{Request, Sequence};

/// The requests of a thread in one round.
pub(crate) struct Source<'a> {
    sequence: Sequence<'a>,
    end: Instant,
    interrupted: &'a dyn Fn() -> bool,
    begun: bool,
    over: bool,
}

impl<'a> Source<'a> {
    /// Requests for `time` from now on, or until `interrupted`.
    pub(crate) fn new(sequence: Sequence<'a>, time: Duration, interrupted: &'a dyn Fn() -> bool) -> Source<'a> {
        Source { sequence, end: Instant::now() + time, interrupted, begun: false, over: false }
    }

    /// The next one to make, at `now`; once there is none, there never is one again. There is one at least, however late the
    /// thread was given its first turn.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Request> {
        if self.over || (self.begun && now >= self.end) || (self.interrupted)() {
            self.over = true;
            return None;
        }
        self.begun = true;
        self.sequence.next()
    }

    /// Ends it: something has failed.
    pub(crate) fn stop(&mut self) {
        self.over = true;
    }

    /// Bytes of each request.
    pub(crate) fn block_size(&self) -> usize {
        self.sequence.block_size()
    }
}

/// The figures of one thread, or of several together.
pub(crate) struct Log {
    pub(crate) requests: u64,
    /// Nanoseconds from the call that makes a request until its result is seen.
    pub(crate) latency: Histogram<u64>,
    /// Nanoseconds inside the calls that make and submit requests, per request submitted in them; each request counts.
    pub(crate) submit: Histogram<u64>,
    /// How often the thread went to sleep in those calls; see [`Log::enter`].
    pub(crate) submit_nvcsw: u64,
    /// Calls that submitted something, and requests in them, where the thread itself knows.
    pub(crate) batches: u64,
    pub(crate) submitted: u64,
    /// When the switches were last counted.
    counted: Instant,
}

/// Counting takes two system calls, some hundred nanoseconds: with this between two counts they are about one percent.
const BETWEEN_COUNTS: Duration = Duration::from_micros(32);

/// A stretch of calls that is being timed.
pub(crate) struct Calls {
    pub(crate) start: Instant,
    switches: Option<i64>,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log {
            requests: 0,
            latency: histogram(),
            submit: histogram(),
            submit_nvcsw: 0,
            batches: 0,
            submitted: 0,
            counted: Instant::now(),
        }
    }

    /// Notes the latency of one request.
    pub(crate) fn done(&mut self, latency: Duration) {
        self.requests += 1;
        self.latency.saturating_record(nanoseconds(latency));
    }

    /// Before calls that make or submit requests. Every call is timed; the thread's voluntary context switches are counted in
    /// one of them every 32 us, which is all of them unless the device is as fast as memory.
    pub(crate) fn enter(&mut self) -> Calls {
        let start = Instant::now();
        if start.duration_since(self.counted) < BETWEEN_COUNTS {
            return Calls { start, switches: None };
        }
        let switches = Some(voluntary_switches());
        Calls { start: Instant::now(), switches }
    }

    /// After them: `requests` were submitted, or served at once. Nothing in between may have waited for completions.
    pub(crate) fn leave(&mut self, calls: Calls, requests: u64) -> Instant {
        let end = Instant::now();
        let requests = requests.max(1);
        self.submit.saturating_record_n(nanoseconds(end - calls.start) / requests, requests);
        if let Some(before) = calls.switches {
            self.submit_nvcsw += (voluntary_switches() - before).max(0) as u64;
            self.counted = end;
        }
        end
    }

    /// Adds what another thread, or another round, has noted.
    pub(crate) fn add(&mut self, other: &Log) {
        self.requests += other.requests;
        // Histograms with the same bounds cannot be too narrow for each other.
        let _ = self.latency.add(&other.latency);
        let _ = self.submit.add(&other.submit);
        self.submit_nvcsw += other.submit_nvcsw;
        self.batches += other.batches;
        self.submitted += other.submitted;
    }
}

/// To three digits, and up to a minute. Its counts lie close together: one round touches a few pages of it.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constants that fit")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How often this thread went to sleep.
fn voluntary_switches() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure, whose zeros are valid as well.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    // `long`, which is not everywhere so long.
    #[allow(clippy::useless_conversion)]
    i64::from(usage.ru_nvcsw)
}
