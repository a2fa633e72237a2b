//! Which backend serves a file's operations now, and why: what [`File::route`](crate::File::route) tells.

use std::fmt;

use crate::router::facts::{Alignment, Facts, FileKind};
use crate::router::learned::{INLINE, Learned};
use crate::router::policy::{Class, Inline, Plans, Settings, Why};

/// The way of one file's operations: for each kind, the backends in the order in which they are asked.
///
/// Displayed, it is one line: `read: kernel-aio (direct I/O), then thread-pool (serves any file); write: ...`.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Why;
/// let route = file.route();
/// // Whatever else is asked before: the thread pool serves any file.
/// assert!(route.write.iter().any(|step| step.reason == Why::ServesAny || step.reason == Why::InlineMemory));
/// println!("{route}");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// Reads: at an offset, or of the stream.
    pub read: Vec<RouteStep>,
    /// Writes.
    pub write: Vec<RouteStep>,
    /// `sync_all` and `sync_data`.
    pub sync: Vec<RouteStep>,
    /// Transfers of a direct file that direct I/O refuses for their alignment; empty where there are none, and where nobody may
    /// serve them.
    pub misaligned: Vec<RouteStep>,
    /// Backends that would come first and are passed over, with the reason: for reads, writes and syncs, each once.
    pub passed: Vec<RouteStep>,
    /// `O_DIRECT` was preferred and refused.
    pub direct_refused: bool,
    /// The rules of direct I/O are enforced in software.
    pub emulated: Option<Alignment>,
}

/// One backend of a route.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let route = file.route();
/// let first = route.sync.first().ok_or("somebody serves it")?;
/// println!("a sync goes to {} first, because: {}", first.backend, first.reason);
/// // Whoever would have come before that is told of as well:
/// assert!(route.passed.iter().all(|step| step.backend != first.backend || step.reason != first.reason));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStep {
    /// The backend's name; `inline` for what completes in the caller's thread, `stream-workers` for the threads that make
    /// the ordinary calls on streams.
    pub backend: &'static str,
    /// Why it is asked, or passed over.
    pub reason: Why,
}

impl Route {
    /// `refuses`: whether a stream's reads, and its writes, have turned out to need a worker. `in_stead`: which backend the
    /// stream workers stand in for, and their name.
    pub(crate) fn new(
        facts: &Facts,
        settings: &Settings,
        plans: &Plans,
        learned: &Learned,
        refuses: [bool; 2],
        in_stead: (u8, &'static str),
    ) -> Self {
        let builder = Builder { settings, plans, learned, in_stead };
        let (read, write) = if facts.is_stream() {
            (builder.stream(refuses[0]), builder.stream(refuses[1]))
        } else {
            (builder.steps(Class::Read), builder.steps(Class::Write))
        };
        Self {
            read: if facts.readable { read } else { Vec::new() },
            write: if facts.writable { write } else { Vec::new() },
            sync: builder.steps(Class::Sync),
            misaligned: builder.misaligned(facts),
            passed: builder.passed_over(facts),
            direct_refused: facts.direct_refused.is_some(),
            emulated: facts.emulated,
        }
    }
}

struct Builder<'a> {
    settings: &'a Settings,
    plans: &'a Plans,
    learned: &'a Learned,
    in_stead: (u8, &'static str),
}

impl Builder<'_> {
    fn name(&self, backend: u8) -> &'static str {
        self.settings.candidates[usize::from(backend)].name
    }

    fn stream(&self, refuses: bool) -> Vec<RouteStep> {
        let inline = (!refuses).then_some(RouteStep { backend: "inline", reason: Why::Stream });
        let (pool, workers) = (self.name(self.in_stead.0), self.in_stead.1);
        let worker = self.steps(Class::Position).into_iter().take(1).map(|step| RouteStep {
            backend: if step.backend == pool { workers } else { step.backend },
            reason: Why::StreamRefusesNowait,
        });
        inline.into_iter().chain(worker).collect()
    }

    fn steps(&self, class: Class) -> Vec<RouteStep> {
        let plan = &self.plans[class as usize];
        let inline = match plan.inline {
            Inline::PageCache(_) if self.learned.nowait(class, INLINE) => Some(Why::InlinePageCache),
            Inline::Memory(_) => Some(Why::InlineMemory),
            _ => None,
        };
        let out = self.learned.demoted(class) | self.slow(class);
        let kept = plan.steps.iter().filter(|step| out & 1 << step.backend == 0);
        let backends = kept.map(|step| RouteStep { backend: self.name(step.backend), reason: step.why.clone() });
        inline.into_iter().map(|reason| RouteStep { backend: "inline", reason }).chain(backends).collect()
    }

    /// Backends that rest because they are slow, a bit each. None does where there is no other, or none may be used.
    fn slow(&self, class: Class) -> u32 {
        let slow = self.learned.slow(class);
        let out = self.learned.demoted(class) | slow;
        let others = self.plans[class as usize].steps.iter().any(|step| out & 1 << step.backend == 0);
        if others && !self.settings.strict { slow } else { 0 }
    }

    fn misaligned(&self, facts: &Facts) -> Vec<RouteStep> {
        let demands = facts.direct && facts.kind != FileKind::Virtual && facts.alignment.is_some();
        let class = if facts.readable { Class::Read } else { Class::Write };
        let steps = self.plans[class as usize].steps.iter().filter(|_| demands && !self.settings.strict);
        // Only the last resort does that, which comes last.
        let pool = steps.filter(|step| step.why == Why::ServesAny).map(|step| self.name(step.backend)).next_back();
        pool.into_iter().map(|backend| RouteStep { backend, reason: Why::ThroughPageCache }).collect()
    }

    /// For all that the file can do, without repetitions.
    fn passed_over(&self, facts: &Facts) -> Vec<RouteStep> {
        let transfers: &[Class] = match (facts.is_stream(), facts.readable, facts.writable) {
            (true, ..) => &[Class::Position],
            (false, true, true) => &[Class::Read, Class::Write],
            (false, true, false) => &[Class::Read],
            (false, false, _) => &[Class::Write],
        };
        let mut all: Vec<RouteStep> = Vec::new();
        for step in transfers.iter().chain([&Class::Sync]).flat_map(|class| self.passed(*class)) {
            if !all.contains(&step) {
                all.push(step);
            }
        }
        all
    }

    fn passed(&self, class: Class) -> Vec<RouteStep> {
        let plan = &self.plans[class as usize];
        let unfit = plan.passed.iter().map(|(backend, why)| (*backend, why.clone()));
        let demoted = self.learned.demoted(class);
        let errno = self.learned.errno(class);
        let refused = plan.steps.iter().filter(|step| demoted & 1 << step.backend != 0);
        let refused = refused.map(|step| (step.backend, Why::Demoted(errno)));
        let ended = self.learned.inline_errno().filter(|_| matches!(plan.inline, Inline::PageCache(_)));
        let ended = ended.map(|errno| RouteStep { backend: "inline", reason: Why::Demoted(errno) });
        let slow = self.slow(class) & !demoted;
        let slow = plan.steps.iter().filter(move |step| slow & 1 << step.backend != 0);
        let slow = slow.map(|step| (step.backend, Why::SlowSubmit));
        let backends = unfit.chain(refused).chain(slow);
        let backends = backends.map(|(backend, reason)| RouteStep { backend: self.name(backend), reason });
        ended.into_iter().chain(backends).collect()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [("read", &self.read, ", then "), ("write", &self.write, ", then "), ("sync", &self.sync, ", then ")];
        let passed = [("misaligned", &self.misaligned, ", then "), ("passed over", &self.passed, ", ")];
        let mut separator = "";
        for (title, steps, between) in parts.into_iter().chain(passed) {
            if steps.is_empty() {
                continue;
            }
            write!(f, "{separator}{title}: ")?;
            separator = "; ";
            for (index, step) in steps.iter().enumerate() {
                let between = if index == 0 { "" } else { between };
                write!(f, "{between}{} ({})", step.backend, step.reason)?;
            }
        }
        if self.direct_refused {
            write!(f, "{separator}O_DIRECT was refused by the file system: buffered")?;
            separator = "; ";
        }
        if let Some(emulated) = self.emulated {
            write!(f, "{separator}direct I/O emulated with {} bytes", emulated.offset)?;
        }
        Ok(())
    }
}
