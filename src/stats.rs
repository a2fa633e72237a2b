//! What an engine has done, counted.

use crate::router::fallback::Reason;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A counter that orders nothing.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// As [`add`](Self::add), for a counter that one thread at a time adds to, each after the one before it.
    #[inline]
    pub(crate) fn add_alone(&self, n: u64) {
        self.0.store(self.value() + n, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// As [`add`](Self::add), for a counter that somebody sleeps on.
    #[inline]
    pub(crate) fn add_ordered(&self, n: u64) {
        self.0.fetch_add(n, Ordering::SeqCst);
    }

    pub(crate) fn ordered_value(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts values by their size; orders nothing, allocates nothing.
#[derive(Default)]
pub(crate) struct Distribution {
    buckets: [Counter; Histogram::BUCKETS],
    most: AtomicU64,
}

impl Distribution {
    /// Counts `value`, `times` times. As with [`Counter::add_alone`], one thread at a time does.
    pub(crate) fn add_many(&self, value: u64, times: u64) {
        self.buckets[Histogram::bucket(value)].add_alone(times);
        if self.most.load(Ordering::Relaxed) < value {
            self.most.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|at| self.buckets[at].value()),
            most: self.most.load(Ordering::Relaxed),
        }
    }
}

/// Counters of one backend.
#[derive(Default)]
pub(crate) struct BackendCounters {
    pub(crate) requests: Counter,
    pub(crate) bytes: Counter,
    pub(crate) errors: Counter,
    pub(crate) batches: Counter,
    pub(crate) submitted: Counter,
    pub(crate) busy: Counter,
    pub(crate) nowait_hits: Counter,
    pub(crate) nowait_misses: Counter,
    pub(crate) short: Counter,
    pub(crate) reaps: Counter,
    pub(crate) submit_ns: Distribution,
    pub(crate) batch_sizes: Distribution,
    pub(crate) slow_submits: Counter,
}

/// Counters of the engine.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) inline_requests: Counter,
    pub(crate) inline_bytes: Counter,
    pub(crate) inline_misses: Counter,
    pub(crate) stream_requests: Counter,
    pub(crate) stream_bytes: Counter,
    pub(crate) stream_misses: Counter,
    pub(crate) implausible: Counter,
    pub(crate) unknown_ids: Counter,
    pub(crate) undriven: Counter,
    pub(crate) callbacks: Counter,
    pub(crate) callback_panics: Counter,
    pub(crate) signals: Counter,
    fallbacks: [Counter; Reason::ALL.len()],
}

impl Counters {
    pub(crate) fn fallback(&self, reason: Reason) {
        self.fallbacks[reason as usize].add(1);
    }

    pub(crate) fn fallbacks(&self) -> Vec<(Reason, u64)> {
        let all = Reason::ALL.into_iter().map(|reason| (reason, self.fallbacks[reason as usize].value()));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// A snapshot of an engine's counters since its start; made by [`Engine::stats`](crate::Engine::stats).
///
/// The counters are read one after the other: while requests are in flight they may disagree by those.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// file.write_all_at("HELLO", 0).wait().0?;
/// let stats = engine.stats();
/// for backend in &stats.backends {
///     println!("{}: {} requests, {} bytes, {} errors", backend.name, backend.requests, backend.bytes, backend.errors);
/// }
/// println!("in the caller: {}, fallbacks: {}", stats.inline.requests, stats.total_fallbacks());
/// assert_eq!(stats.anomalies, Default::default(), "nothing misbehaves");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Per backend, in the order of registration; the last entry, `stream-workers`, are the threads that make the ordinary
    /// calls on streams that refuse to be asked without blocking. They belong to the engine, and no policy names them.
    pub backends: Vec<BackendStats>,
    /// Requests that completed in the caller's thread: page-cache hits, files in memory.
    pub inline: InlineStats,
    /// Transfers on streams, done by the caller after readiness.
    pub streams: InlineStats,
    /// How often something was served otherwise than by the first choice; reasons that occurred.
    pub fallbacks: Vec<(Reason, u64)>,
    /// Misbehaviour that was noticed and contained; all 0 in a healthy process.
    pub anomalies: Anomalies,
    /// Callbacks and signals.
    pub notifications: NotificationStats,
}

/// Who was told of an end without asking.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let (sender, results) = std::sync::mpsc::channel();
/// file.sync_all().on_completion(move |synced| sender.send(synced).expect("waited for"))?;
/// results.recv()??;
/// let told = engine.stats().notifications;
/// assert_eq!((told.panics, told.signals_waiting), (0, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotificationStats {
    /// Callbacks that were called, those of signals among them.
    pub callbacks: u64,
    /// Callbacks that panicked.
    pub panics: u64,
    /// Operations that ended with a signal, whether or not it could be queued at once.
    pub signals: u64,
    /// Signals for which the kernel has no room now.
    pub signals_waiting: u64,
}

impl Stats {
    /// Requests completed per backend (`stream-workers` among them), and `inline` for those that completed in the
    /// caller; only what is not 0.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.sync_all().wait()?;
    /// println!("{:?}", engine.stats().served_by());
    /// # Ok(()) }
    /// ```
    pub fn served_by(&self) -> Vec<(&'static str, u64)> {
        let backends = self.backends.iter().map(|backend| (backend.name, backend.requests));
        let inline = std::iter::once(("inline", self.inline.requests + self.streams.requests));
        backends.chain(inline).filter(|(_, count)| *count > 0).collect()
    }

    /// How often `reason` occurred.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// use polyaio::{Direct, OpenOptions, Reason};
    /// let mut options = OpenOptions::new();
    /// let file = options.write(true).create(true).direct(Direct::Preferred).open(&engine, &path)?;
    /// let refused = file.facts().direct_refused.is_some();
    /// assert_eq!(engine.stats().fallback(Reason::DirectRefused), u64::from(refused), "once for the file");
    /// # Ok(()) }
    /// ```
    pub fn fallback(&self, reason: Reason) -> u64 {
        self.fallbacks.iter().find(|(r, _)| *r == reason).map_or(0, |(_, count)| *count)
    }

    /// All fallbacks together.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// assert_eq!(engine.stats().total_fallbacks(), engine.stats().fallbacks.iter().map(|(_, count)| count).sum::<u64>());
    /// # drop(file);
    /// # Ok(()) }
    /// ```
    pub fn total_fallbacks(&self) -> u64 {
        self.fallbacks.iter().map(|(_, count)| count).sum()
    }
}

/// Counters of one backend.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// file.sync_data().wait()?;
/// for backend in engine.stats().backends.iter().filter(|backend| backend.batches > 0) {
///     println!("{}: {} requests per submission", backend.name, backend.submitted / backend.batches);
///     assert_eq!((backend.in_flight, backend.waiting), (0, 0));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendStats {
    /// The backend.
    pub name: &'static str,
    /// Requests whose final answer came from it.
    pub requests: u64,
    /// Bytes transferred.
    pub bytes: u64,
    /// Requests that ended with an error.
    pub errors: u64,
    /// Calls of [`Backend::submit`](crate::backend::Backend::submit).
    pub batches: u64,
    /// Requests offered in them.
    pub submitted: u64,
    /// Submissions of which something was left because there was no room.
    pub busy: u64,
    /// Requests asked with NOWAIT that it served.
    pub nowait_hits: u64,
    /// Requests asked with NOWAIT that it refused with `EAGAIN`, because they would have blocked.
    pub nowait_misses: u64,
    /// Transfers that came back short: some bytes, and fewer than asked for. The end of a file is one cause.
    pub short: u64,
    /// Calls of [`Backend::reap`](crate::backend::Backend::reap).
    pub reaps: u64,
    /// Requests that it holds now.
    pub in_flight: u64,
    /// Requests that wait for it now: queued and not yet offered, or left because there was no room.
    pub waiting: u64,
    /// How long the submissions held their callers up: nanoseconds of wall time per request, each request of a batch
    /// counted with its share. On a busy machine it contains the time for which the caller was preempted.
    pub submit_ns: Histogram,
    /// How many requests each submission offered.
    pub batch_sizes: Histogram,
    /// Transfers, submitted on their own after a slow submission, that have held the caller up once more: its thread slept, or
    /// computed for long.
    pub slow_submits: u64,
    /// Instances of it that are there: 0 where it did not start, and more than 1 where threads have some of their own
    /// ([`EngineBuilder::thread_contexts`](crate::EngineBuilder::thread_contexts)).
    pub contexts: u64,
}

/// How values are distributed, to a power of two.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = polyaio::Engine::new()?;
/// for backend in engine.stats().backends {
///     let submit = &backend.submit_ns;
///     println!("{}: {} requests, p99 below {:?} ns", backend.name, submit.count(), submit.quantile(0.99));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The first counts zeroes, number n values of n bits, the last one all that are larger, too.
    buckets: [u64; Self::BUCKETS],
    most: u64,
}

impl Histogram {
    const BUCKETS: usize = 32;

    fn bucket(value: u64) -> usize {
        ((u64::BITS - value.leading_zeros()) as usize).min(Self::BUCKETS - 1)
    }

    /// Counts what the other one has counted, too.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, more)| *sum += more);
        self.most = self.most.max(other.most);
    }

    /// How many values were counted.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.sync_data().wait()?;
    /// let backends = engine.stats().backends;
    /// assert!(backends.iter().all(|backend| backend.batch_sizes.count() == backend.batches));
    /// # Ok(()) }
    /// ```
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The largest value; 0 where there is none.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// # file.sync_data().wait()?;
    /// for backend in engine.stats().backends {
    ///     println!("{}: at most {} requests in one submission", backend.name, backend.batch_sizes.max());
    ///     assert!(backend.batch_sizes.max() <= backend.submitted);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn max(&self) -> u64 {
        self.most
    }

    /// A value that at least the share `q` (0 to 1, else the nearer of the two) of all values does not exceed: less
    /// than twice the smallest such value, and at most [`max`](Self::max). `None` where nothing was counted.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.sync_data().wait()?;
    /// for backend in engine.stats().backends {
    ///     let [median, most] = [0.5, 1.0].map(|q| backend.submit_ns.quantile(q));
    ///     assert!(median <= most && most.is_some() == (backend.submit_ns.count() > 0));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        // Rounded up to a whole value, and to one at least.
        let wanted = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        self.buckets().find_map(|(bound, more)| {
            seen += more;
            (seen >= wanted).then_some(bound)
        })
    }

    /// The buckets that have counted something, smallest values first: the largest value that belongs there, or that was
    /// counted at all, and how many were counted.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.sync_data().wait()?;
    /// for backend in engine.stats().backends {
    ///     for (ns, requests) in backend.submit_ns.buckets() {
    ///         println!("{}: up to {ns} ns: {requests}", backend.name);
    ///     }
    ///     assert_eq!(backend.submit_ns.buckets().map(|(_, n)| n).sum::<u64>(), backend.submit_ns.count());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let bound = |at: usize| if at == Self::BUCKETS - 1 { u64::MAX } else { (1 << at) - 1 };
        let all = self.buckets.iter().enumerate().map(move |(at, count)| (bound(at).min(self.most), *count));
        all.filter(|(_, count)| *count > 0)
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.buckets()).finish()
    }
}

/// Counters of what completes in the caller's thread.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let read = file.read_at(vec![0; 12], 0).wait().0?;
/// let inline = engine.stats().inline;
/// // From the page cache, without a request; unless that was a miss, or is switched off by the policy.
/// assert!(inline.requests <= 1 && inline.bytes == inline.requests * read as u64);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InlineStats {
    /// Requests served.
    pub requests: u64,
    /// Bytes transferred.
    pub bytes: u64,
    /// Attempts that would have blocked, or that were not made because the page cache is known not to have what is asked for.
    pub misses: u64,
}

/// Counters of things that should not happen.
///
/// # Examples
/// What a test, or a health check, asks at the end:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = polyaio::Engine::new()?;
/// use polyaio::Anomalies;
/// assert_eq!(engine.stats().anomalies, Anomalies::default(), "a backend or a kernel misbehaves");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Anomalies {
    /// Completions with more bytes than were asked for, or of requests that never started; reported as `EIO`.
    pub implausible: u64,
    /// Completions of requests that are not in flight; ignored.
    pub unknown_ids: u64,
    /// Polls of futures on other executors while no thread could be had to collect completions for them: each future then
    /// polls itself, which costs CPU time. Raise the limit on threads (`RLIMIT_NPROC`, `pids.max`).
    pub undriven: u64,
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_bounds_its_values() {
        let distribution = Distribution::default();
        assert_eq!((distribution.snapshot().quantile(0.5), distribution.snapshot().count()), (None, 0));
        for value in [0, 1, 2, 3, 1000, u64::MAX] {
            distribution.add_many(value, 2);
        }
        let histogram = distribution.snapshot();
        assert_eq!((histogram.count(), histogram.max()), (12, u64::MAX));
        let bounds: Vec<_> = histogram.buckets().collect();
        assert_eq!(bounds, [(0, 2), (1, 2), (3, 4), (1023, 2), (u64::MAX, 2)]);
        assert_eq!(histogram.quantile(0.0), Some(0));
        assert_eq!(histogram.quantile(0.5), Some(3));
        assert_eq!(histogram.quantile(8.5 / 12.0), Some(1023), "the ninth of twelve");
        assert_eq!(histogram.quantile(1.0), Some(u64::MAX));
    }

    #[test]
    fn no_bound_exceeds_the_largest_value() {
        let distribution = Distribution::default();
        distribution.add_many(600, 1);
        assert_eq!(distribution.snapshot().quantile(0.5), Some(600));
    }
}
