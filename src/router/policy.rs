//! The choice of backends for a file: a pure function of its facts, the kind of operation and the engine's settings.
//!
//! The table that it implements is in `docs/backends.md`; the test at the end checks the same table, cell by cell.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::{Capabilities, Serves};
use crate::error::Error;
use crate::request::OpKind;
use crate::router::facts::{Facts, FileKind, FileSystem};
use crate::sync::{Mutex, try_lock};

/// Which backends an engine uses, and in which order.
///
/// Names are those of [`Engine::backends`](crate::Engine::backends): `kernel-aio`, `posix-aio`, `thread-pool`, and those
/// of backends that were added to the builder. Parsed from a string it is `auto`, or a name or several with commas
/// between, which means [`Prefer`](Self::Prefer). Whether there are such backends is seen when an engine is built.
///
/// # Examples
/// ```
/// use polyaio::Policy;
/// assert_eq!("auto".parse(), Ok(Policy::Auto));
/// assert_eq!("posix-aio,thread-pool".parse(), Ok(Policy::Prefer(vec!["posix-aio".into(), "thread-pool".into()])));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// The fastest that can serve the file without blocking the submitter.
    #[default]
    Auto,
    /// These first, in this order; then as [`Auto`](Self::Auto), visibly.
    Prefer(Vec<String>),
    /// This one, or an error. Operations that no asynchronous interface has (`set_len`, `len`, `close`, ...) run on the
    /// thread pool all the same.
    Require(String),
}

impl FromStr for Policy {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || text.split(',').map(str::to_owned).collect();
        Ok(if text == "auto" { Self::Auto } else { Self::Prefer(names()) })
    }
}

/// Operations that are routed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Class {
    /// Reads at an offset.
    Read,
    /// Writes at an offset.
    Write,
    /// `sync_all` and `sync_data`.
    Sync,
    /// Transfers at the file's or stream's own position.
    Position,
    /// Everything that moves no data.
    Meta,
}

impl Class {
    pub(crate) const COUNT: usize = 5;
    pub(crate) const ALL: [Class; Self::COUNT] = [Self::Read, Self::Write, Self::Sync, Self::Position, Self::Meta];

    pub(crate) fn of(kind: OpKind, positioned: bool) -> Self {
        match kind {
            OpKind::Read | OpKind::Write if !positioned => Self::Position,
            OpKind::Read => Self::Read,
            OpKind::Write => Self::Write,
            OpKind::SyncAll | OpKind::SyncData => Self::Sync,
            _ => Self::Meta,
        }
    }

    /// The operations that a backend must offer to serve the class.
    fn kinds(self) -> &'static [OpKind] {
        match self {
            Self::Read => &[OpKind::Read],
            Self::Write => &[OpKind::Write],
            Self::Sync => &[OpKind::SyncAll, OpKind::SyncData],
            Self::Position => &[OpKind::Read, OpKind::Write],
            Self::Meta => &[
                OpKind::SetLen,
                OpKind::Allocate,
                OpKind::Len,
                OpKind::Close,
                OpKind::SyncRange,
                OpKind::PunchHole,
                OpKind::Advise,
                OpKind::Metadata,
            ],
        }
    }
}

/// Why a backend is, or is not, in a plan.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Why;
/// for step in file.route().passed {
///     match step.reason {
///         // Only these say that something could be done about it.
///         Why::NotStarted(reason) => println!("{}: {reason}", step.backend),
///         Why::Demoted(errno) => println!("{}: answered {errno}", step.backend),
///         reason => println!("{} is not for this: {reason}", step.backend),
///     }
/// }
/// assert_eq!(Why::ServesAny.to_string(), "serves any file");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The file is direct: the kernel's own asynchronous path serves it.
    Direct,
    /// The kernel syncs on a thread of its own.
    KernelSync,
    /// Buffered, but only what is in the page cache (`RWF_NOWAIT`).
    CacheHits,
    /// Completed in the caller, from the page cache.
    InlinePageCache,
    /// Completed in the caller: the file lies in memory.
    InlineMemory,
    /// The backend serves any file.
    ServesAny,
    /// The backend serves what has offsets.
    ServesSeekable,
    /// The backend opened the file itself.
    OwnFile,
    /// Direct I/O refuses its alignment: it goes through the page cache.
    ThroughPageCache,
    /// Waits for readiness, then transfers.
    Stream,
    /// The stream refuses transfers that do not block: a worker does one after readiness.
    StreamRefusesNowait,
    /// No: a buffered file would block the submitter.
    BufferedWouldBlock,
    /// No: appending writes always extend the file, which would block the submitter.
    AppendWouldBlock,
    /// No: the file lies in memory, so that the submitter itself would copy.
    MemoryIsSynchronous,
    /// No: the other end of a stream decides when it completes.
    StreamWouldBlock,
    /// No: the backend does not offer the operation.
    NotOffered,
    /// No: the file is another backend's own, or the backend serves only its own.
    NotItsFile,
    /// No: it did not start.
    NotStarted(Arc<str>),
    /// No: it was refused at run time, with this error, often enough to be remembered.
    Demoted(crate::completion::Errno),
    /// No, for a while: submitting to it has held the caller up.
    SlowSubmit,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(reason) => write!(f, "not started: {reason}"),
            Self::Demoted(errno) => write!(f, "refused this file: {errno}"),
            fixed => f.write_str(fixed.text()),
        }
    }
}

impl Why {
    fn text(&self) -> &'static str {
        match self {
            Self::Direct => "direct I/O",
            Self::KernelSync => "the kernel syncs asynchronously",
            Self::CacheHits => "page-cache hits only",
            Self::InlinePageCache => "page-cache hits complete in the caller",
            Self::InlineMemory => "the file lies in memory",
            Self::ServesAny => "serves any file",
            Self::ServesSeekable => "serves files with offsets",
            Self::OwnFile => "opened by this backend",
            Self::ThroughPageCache => "through the page cache",
            Self::Stream => "waits for readiness, then transfers",
            Self::StreamRefusesNowait => "where the stream knows no non-blocking transfer",
            Self::BufferedWouldBlock => "a buffered file would block the submitter",
            Self::AppendWouldBlock => "appending always extends the file, which would block the submitter",
            Self::MemoryIsSynchronous => "a file in memory would be copied by the submitter",
            Self::StreamWouldBlock => "a stream would block the submitter",
            Self::NotOffered => "does not offer this operation",
            Self::NotItsFile => "did not open this file itself",
            Self::NotStarted(_) => "not started",
            Self::Demoted(_) => "refused this file",
            Self::SlowSubmit => "submitting to it has held the caller up: it rests for a while",
        }
    }
}

/// A backend as the policy sees it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) capabilities: Capabilities,
    /// Part of the automatic order; others are used only when they are named.
    pub(crate) automatic: bool,
    /// Why it cannot be used.
    pub(crate) missing: Option<Arc<str>>,
}

/// The engine's side of the decision.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) candidates: Vec<Candidate>,
    /// Indices into `candidates` in the order of preference.
    pub(crate) order: Vec<u8>,
    /// So many of `order` were named by the policy.
    pub(crate) named: usize,
    /// Only what was named may transfer data.
    pub(crate) required: bool,
    pub(crate) strict: bool,
    /// Swap is in use, so that tmpfs may have to read from it.
    pub(crate) swap: bool,
}

impl Settings {
    /// Checks a policy's names and makes the order of preference.
    pub(crate) fn new(candidates: Vec<Candidate>, policy: &Policy, strict: bool, swap: bool) -> Result<Self, Error> {
        let find = |name: &String| match candidates.iter().position(|c| c.name == name) {
            Some(index) => Ok(index as u8),
            None => {
                Err(Error::UnknownBackend { name: name.clone(), known: candidates.iter().map(|c| c.name).collect() })
            }
        };
        let (mut named, required) = match policy {
            Policy::Auto => (Vec::new(), false),
            Policy::Prefer(names) => (names.iter().map(find).collect::<Result<Vec<_>, _>>()?, strict),
            Policy::Require(name) => (vec![find(name)?], true),
        };
        if required
            && let Some(missing) = named.iter().map(|n| &candidates[usize::from(*n)]).find(|c| c.missing.is_some())
        {
            let reason = missing.missing.as_deref().unwrap_or_default().to_owned();
            return Err(Error::BackendUnavailable { name: missing.name, reason });
        }
        // Named twice it is asked once, where it stands first.
        let mut seen = 0_u32;
        named.retain(|index| {
            let first = seen & 1 << index == 0;
            seen |= 1 << index;
            first
        });
        let count = named.len();
        let mut order = named;
        for (index, candidate) in candidates.iter().enumerate() {
            if candidate.automatic && !order.contains(&(index as u8)) {
                order.push(index as u8);
            }
        }
        Ok(Self { required: required && count > 0, candidates, order, named: count, strict, swap })
    }

    /// Whether a backend that the policy names does not serve the data of a file.
    pub(crate) fn passes_over_a_named_one(&self, facts: &Facts, plans: &Plans) -> bool {
        let concerned = |class: &Class| match class {
            Class::Read => facts.readable && !facts.is_stream(),
            Class::Write => facts.writable && !facts.is_stream(),
            Class::Position => facts.is_stream(),
            Class::Sync | Class::Meta => false,
        };
        let named = &self.order[..self.named];
        let passed = |(backend, why): &(u8, Why)| named.contains(backend) && !matches!(why, Why::NotStarted(_));
        Class::ALL.iter().filter(|class| concerned(class)).any(|class| plans[*class as usize].passed.iter().any(passed))
    }

    fn automatic(&self) -> bool {
        self.named == 0
    }
}

/// One backend of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) backend: u8,
    /// Ask it to refuse what would block.
    pub(crate) nowait: bool,
    pub(crate) why: Why,
}

/// What may complete in the caller's thread, before any backend is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Inline {
    /// Nothing.
    #[default]
    Never,
    /// A read of at most so many bytes of what is in the page cache (`preadv2` with `RWF_NOWAIT`).
    PageCache(usize),
    /// Transfers of at most this many bytes: the file is memory.
    Memory(usize),
}

/// The backends for one class of operation on one file, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) inline: Inline,
    pub(crate) steps: Vec<Step>,
    /// Backends that come before the first step in the order of preference, and why they are passed over.
    pub(crate) passed: Vec<(u8, Why)>,
}

/// Those for all classes.
pub(crate) type Plans = [Plan; Class::COUNT];

/// The plans of the files of an engine. Most have the same, and share them: they take less memory, and stay in the
/// processor's cache however many files there are.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<Vec<Arc<Plans>>>);

impl Shelf {
    /// So many different ones are kept. They depend on kinds of files, not on files.
    const MOST: usize = 64;

    /// The same plans, shared with other files.
    pub(crate) fn share(&self, plans: Plans) -> Arc<Plans> {
        let Some(mut kept) = try_lock(&self.0) else { return Arc::new(plans) };
        if let Some(same) = kept.iter().find(|kept| ***kept == plans) {
            return same.clone();
        }
        let plans = Arc::new(plans);
        if kept.len() < Self::MOST {
            kept.push(plans.clone());
        }
        plans
    }
}

/// The largest transfer that is done in the caller on a file that is memory.
pub(crate) const INLINE_MEMORY_MAX: usize = 64 * 1024;

/// The largest read from the page cache that is done in the caller: about 0.1 ms of copying. What is longer would hold the
/// caller up, and the hop to a thread costs little beside it.
pub(crate) const INLINE_CACHE_MAX: usize = 1024 * 1024;

/// Chooses.
pub(crate) fn plan(facts: &Facts, own: Option<u8>, class: Class, settings: &Settings) -> Plan {
    let mut plan = Plan { inline: inline(facts, class, settings), ..Plan::default() };
    for (rank, &index) in settings.order.iter().enumerate() {
        let candidate = &settings.candidates[usize::from(index)];
        let named = rank < settings.named;
        // Nobody but the pool closes a file or changes its length: requiring a backend is about the data.
        if settings.required && !named && class != Class::Meta {
            continue;
        }
        match fit(facts, own == Some(index), class, candidate, named) {
            Ok((nowait, why)) => plan.steps.push(Step { backend: index, nowait, why }),
            Err(why) if plan.steps.is_empty() => plan.passed.push((index, why)),
            Err(_) => {}
        }
    }
    // A virtual file's backend need not be in the order of preference.
    if let Some(own) = own
        && plan.steps.is_empty()
        && offers(&settings.candidates[usize::from(own)].capabilities, class)
    {
        plan.steps.push(Step { backend: own, nowait: false, why: Why::OwnFile });
    }
    plan
}

fn offers(capabilities: &Capabilities, class: Class) -> bool {
    let mut kinds = class.kinds().iter().map(|kind| capabilities.operations.contains(*kind));
    // Metadata is a mixed bag: a backend may offer a part of it.
    if class == Class::Meta { kinds.any(|offered| offered) } else { kinds.all(|offered| offered) }
}

/// Whether a backend serves the class of operation on a file without ever blocking the submitter.
fn fit(facts: &Facts, own: bool, class: Class, candidate: &Candidate, named: bool) -> Result<(bool, Why), Why> {
    let capabilities = &candidate.capabilities;
    if let Some(reason) = &candidate.missing {
        return Err(Why::NotStarted(reason.clone()));
    }
    if !offers(capabilities, class) {
        return Err(Why::NotOffered);
    }
    if facts.kind == FileKind::Virtual {
        return if own { Ok((false, Why::OwnFile)) } else { Err(Why::NotItsFile) };
    }
    match capabilities.serves {
        Serves::OwnFiles => Err(Why::NotItsFile),
        Serves::Any if facts.is_stream() && class == Class::Position => Ok((false, Why::Stream)),
        Serves::Any => Ok((false, Why::ServesAny)),
        _ if facts.is_stream() || class == Class::Position => Err(Why::StreamWouldBlock),
        Serves::Seekable => Ok((false, Why::ServesSeekable)),
        Serves::Direct => fit_direct(facts, class, capabilities.nowait, named),
    }
}

/// As [`fit`], for a backend that is asynchronous for direct I/O only.
fn fit_direct(facts: &Facts, class: Class, nowait: bool, named: bool) -> Result<(bool, Why), Why> {
    let on_device = matches!(facts.kind, FileKind::Regular | FileKind::Block);
    match class {
        Class::Sync if on_device => Ok((false, Why::KernelSync)),
        Class::Read | Class::Write if matches!(facts.file_system, FileSystem::Tmpfs | FileSystem::Ramfs) => {
            Err(Why::MemoryIsSynchronous)
        }
        Class::Write if facts.append => Err(Why::AppendWouldBlock),
        Class::Read | Class::Write if facts.direct => Ok((nowait, Why::Direct)),
        // Only on demand: the inline path is cheaper, and misses cost a detour.
        Class::Read if named && nowait && on_device => Ok((true, Why::CacheHits)),
        _ => Err(Why::BufferedWouldBlock),
    }
}

fn inline(facts: &Facts, class: Class, settings: &Settings) -> Inline {
    let memory = match facts.file_system {
        FileSystem::Ramfs => true,
        FileSystem::Tmpfs => !settings.swap,
        _ => false,
    };
    match class {
        // A policy that names a backend wants that backend.
        _ if !settings.automatic() || facts.kind != FileKind::Regular => Inline::Never,
        Class::Read if memory => Inline::Memory(INLINE_MEMORY_MAX),
        Class::Write if memory && !facts.append => Inline::Memory(INLINE_MEMORY_MAX),
        Class::Read if !facts.direct => Inline::PageCache(INLINE_CACHE_MAX),
        _ => Inline::Never,
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod table;
