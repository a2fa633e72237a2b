//! What an error means: report it, go elsewhere, or ask the same backend differently.
//!
//! The table is that of `docs/design.md` section 5; `docs/backends.md` shows it to users.

use std::fmt;

use crate::completion::Errno;

/// Why something was served otherwise than by the first choice. Counted per engine.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Reason;
/// let before = engine.stats().fallback(Reason::Misaligned);
/// file.read_at(vec![0; 5], 7).wait().0?;
/// assert_eq!(engine.stats().fallback(Reason::Misaligned), before, "this file wants no alignment");
/// assert_eq!(Reason::Misaligned.as_str(), "misaligned");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// The backend that would have been first did not start; counted once per file. Also a transfer on a stream that the
    /// thread pool did, because no stream worker could be started; counted each time.
    NotStarted,
    /// The policy names a backend that does not serve files of this kind; counted once per file.
    PassedOver,
    /// `O_DIRECT` was preferred and refused; counted once per file.
    DirectRefused,
    /// A NOWAIT request would have blocked (`EAGAIN`); repeated blocking.
    WouldBlock,
    /// The file knows no NOWAIT (`EOPNOTSUPP`); asked without it, or elsewhere.
    NowaitUnsupported,
    /// A NOWAIT request failed with `EIO`; repeated blocking.
    NowaitError,
    /// A NOWAIT read said 0 before the end of the file; repeated blocking.
    EarlyEnd,
    /// The backend answered `EINVAL`; tried on the next one.
    Invalid,
    /// The backend answered `EOPNOTSUPP`, `ENOSYS`, `ENOTSUP` or `EPERM` to a call that others may serve.
    Unsupported,
    /// The backend had no room though nothing of ours was in flight there.
    QueueFull,
    /// The first choice was passed over for what it answered to earlier requests; counted per request.
    Remembered,
    /// Direct I/O refuses the request's memory, offset or length: it went through the page cache.
    Misaligned,
    /// Submitting to the backend has held the caller up; the file's requests go elsewhere for a while.
    SlowSubmit,
}

impl Reason {
    /// Every reason, in the order of declaration.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// use polyaio::Reason;
    /// // A column of a monitoring table for each, also for those that have not happened.
    /// let stats = engine.stats();
    /// let columns: Vec<_> = Reason::ALL.iter().map(|reason| (reason.as_str(), stats.fallback(*reason))).collect();
    /// assert_eq!(columns.len(), 13);
    /// # Ok(()) }
    /// ```
    pub const ALL: [Reason; 13] = [
        Self::NotStarted,
        Self::PassedOver,
        Self::DirectRefused,
        Self::WouldBlock,
        Self::NowaitUnsupported,
        Self::NowaitError,
        Self::EarlyEnd,
        Self::Invalid,
        Self::Unsupported,
        Self::QueueFull,
        Self::Remembered,
        Self::Misaligned,
        Self::SlowSubmit,
    ];

    /// The name by which reports call it.
    ///
    /// # Examples
    /// ```
    /// use polyaio::Reason;
    /// assert_eq!(Reason::NowaitUnsupported.as_str(), "nowait-unsupported");
    /// assert!(Reason::ALL.iter().all(|reason| reason.to_string() == reason.as_str()));
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not-started",
            Self::PassedOver => "passed-over",
            Self::DirectRefused => "direct-refused",
            Self::WouldBlock => "would-block",
            Self::NowaitUnsupported => "nowait-unsupported",
            Self::NowaitError => "nowait-error",
            Self::EarlyEnd => "early-end",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::QueueFull => "queue-full",
            Self::Remembered => "remembered",
            Self::Misaligned => "misaligned",
            Self::SlowSubmit => "slow-submit",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of [`Reason`]s: what one request went through. Displayed, they stand in the order of declaration:
/// `would-block, remembered`.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Reason;
/// let (_, trace) = file.len().traced().wait();
/// assert!(trace.fallbacks.is_empty() && !trace.fallbacks.contains(Reason::WouldBlock));
/// for reason in trace.fallbacks.iter() {
///     println!("{reason}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reasons(u16);

impl Reasons {
    /// None.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::Reasons;
    /// let (len, trace) = file.len().traced().wait();
    /// assert_eq!((len?, trace.fallbacks), (12, Reasons::NONE));
    /// assert_eq!(Reasons::default(), Reasons::NONE);
    /// # Ok(()) }
    /// ```
    pub const NONE: Self = Self(0);

    /// Whether the set has `reason`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::Reason;
    /// let (read, trace) = file.read_at(vec![0; 12], 0).traced().wait();
    /// read.0?;
    /// if trace.fallbacks.contains(Reason::WouldBlock) {
    ///     println!("it was not in the page cache");
    /// }
    /// assert!(!trace.fallbacks.contains(Reason::Misaligned));
    /// # Ok(()) }
    /// ```
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & 1 << reason as u16 != 0
    }

    /// Whether there is none.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let (synced, trace) = file.sync_all().traced().wait();
    /// synced?;
    /// println!("{}", if trace.fallbacks.is_empty() { "by the first choice" } else { "by a detour" });
    /// # Ok(()) }
    /// ```
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The reasons, in the order of declaration.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use std::collections::HashMap;
    /// let mut counts = HashMap::new();
    /// for _ in 0..10 {
    ///     let (_, trace) = file.read_at(vec![0; 12], 0).traced().wait();
    ///     trace.fallbacks.iter().for_each(|reason| *counts.entry(reason).or_insert(0_u64) += 1);
    /// }
    /// assert!(counts.iter().all(|(reason, count)| engine.stats().fallback(*reason) >= *count));
    /// # Ok(()) }
    /// ```
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    pub(crate) fn insert(&mut self, reason: Reason) {
        self.0 |= 1 << reason as u16;
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

// One bit each.
const _: () = assert!(Reason::ALL.len() <= u16::BITS as usize);

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, reason) in self.iter().enumerate() {
            write!(f, "{}{reason}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What to do with a request that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is the request's own error.
    Report,
    /// Ask the next backend of the plan.
    Next { reason: Reason, memory: Memory },
    /// Ask the same backend without NOWAIT, from now on.
    WithoutNowait,
}

/// What a fallback teaches about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Nothing: the next request is asked as before.
    Forget,
    /// The backend does not serve this class of operation on this file.
    Demote,
    /// The same, once what it refused has succeeded elsewhere: a few requests after `EINVAL`, one after another error.
    Confirm,
    /// The file does not know NOWAIT.
    NoFlag,
    /// NOWAIT was refused: the file may refuse it for good.
    NowaitMiss,
}

/// How a request was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) nowait: bool,
    /// A direct read, or a direct write to blocks that the file has, as far as is known.
    pub(crate) mapped: bool,
    /// The backend blocks threads of its own: it is the last resort.
    pub(crate) last_resort: bool,
}

/// Decides.
pub(crate) fn action(errno: Errno, asked: Asked) -> Action {
    let next = |reason, memory| Action::Next { reason, memory };
    // What a thread with the plain system call was told is the truth about the request.
    if asked.last_resort {
        return Action::Report;
    }
    match errno.0 {
        libc::EAGAIN if asked.nowait => next(Reason::WouldBlock, Memory::NowaitMiss),
        libc::EIO if asked.nowait => next(Reason::NowaitError, Memory::Forget),
        // Reads, and overwrites, go on without the flag; what needs new blocks would block.
        libc::EOPNOTSUPP if asked.nowait && asked.mapped => Action::WithoutNowait,
        libc::EOPNOTSUPP if asked.nowait => next(Reason::NowaitUnsupported, Memory::NoFlag),
        libc::EINVAL => next(Reason::Invalid, Memory::Confirm),
        libc::EOPNOTSUPP | libc::ENOSYS => next(Reason::Unsupported, Memory::Demote),
        // A seccomp profile refuses the call, or the file the transfer: one that is sealed or has become immutable.
        libc::EPERM => next(Reason::Unsupported, Memory::Confirm),
        // ENOTSUP is another number on some systems.
        e if e == libc::ENOTSUP => next(Reason::Unsupported, Memory::Demote),
        _ => Action::Report,
    }
}
