//! What a backend can do, as data.

use crate::request::OpKind;

/// A set of [`OpKind`]s.
///
/// # Examples
/// ```
/// use polyaio::{OpKind, backend::OpSet};
/// let syncs = OpSet::NONE.with(OpKind::SyncAll).with(OpKind::SyncData);
/// assert!(syncs.contains(OpKind::SyncData) && !syncs.contains(OpKind::Read));
/// assert_eq!(format!("{syncs:?}"), "{SyncAll, SyncData}");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OpSet(u16);

impl OpSet {
    /// Every kind.
    ///
    /// # Examples
    /// ```
    /// use polyaio::{OpKind, backend::OpSet};
    /// assert!(OpKind::ALL.iter().all(|kind| OpSet::ALL.contains(*kind)), "those of later versions, too");
    /// ```
    pub const ALL: Self = Self(u16::MAX);
    /// No kind.
    ///
    /// # Examples
    /// ```
    /// use polyaio::{OpKind, backend::OpSet};
    /// let all_but_open = OpKind::ALL.into_iter().filter(|kind| *kind != OpKind::Open).fold(OpSet::NONE, OpSet::with);
    /// assert!(all_but_open.contains(OpKind::Metadata) && !all_but_open.contains(OpKind::Open));
    /// ```
    pub const NONE: Self = Self(0);

    /// This set and `kind`.
    ///
    /// # Examples
    /// ```
    /// use polyaio::{OpKind, backend::OpSet};
    /// const TRANSFERS: OpSet = OpSet::NONE.with(OpKind::Read).with(OpKind::Write);
    /// assert_eq!(TRANSFERS.with(OpKind::Read), TRANSFERS);
    /// ```
    #[must_use]
    pub const fn with(self, kind: OpKind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    /// Whether `kind` is in the set.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// use polyaio::OpKind;
    /// let all = engine.backends();
    /// let mut can = all.iter().filter_map(|backend| Some((backend.name, backend.capabilities?.operations)));
    /// assert!(can.any(|(name, operations)| name == "thread-pool" && operations.contains(OpKind::SyncAll)));
    /// # Ok(()) }
    /// ```
    pub const fn contains(self, kind: OpKind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

impl std::fmt::Debug for OpSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(OpKind::ALL.iter().filter(|kind| self.contains(**kind))).finish()
    }
}

/// What a backend can do, as data.
///
/// # Examples
/// ```
/// use polyaio::OpKind;
/// use polyaio::backend::{Capabilities, OpSet, Serves};
/// // Reads of files of its own, answered by a kernel that wants one range at a time.
/// let mut can = Capabilities::new(128);
/// can.operations = OpSet::NONE.with(OpKind::Read);
/// can.serves = Serves::OwnFiles;
/// can.vectored = false;
/// can.reaped = true;
/// assert!(!can.operations.contains(OpKind::Write) && can.queue_bound == 128);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Operations it accepts. [`OpKind::Open`] is the thread pool's, and so is [`OpKind::Close`] of descriptors: others are
    /// asked to close virtual files only. Some go together, and a backend that has but one of them is asked for none: the two
    /// syncs; and, for transfers at the position, reads and writes.
    pub operations: OpSet,
    /// Which files it serves without ever blocking the submitter.
    pub serves: Serves,
    /// Whether a request may have more than one range of memory.
    pub vectored: bool,
    /// Whether [`Request::nowait`](crate::Request::nowait) is honoured.
    pub nowait: bool,
    /// Whether [`Request::durability`](crate::Request::durability) is honoured. Requests that ask for some are not
    /// offered otherwise.
    pub durable: bool,
    /// Whether [`Request::priority`](crate::Request::priority) is honoured. Requests that have one are not offered otherwise.
    pub priorities: bool,
    /// Whether [`Request::appends`](crate::Request::appends) is honoured. Requests that do are not offered otherwise.
    pub appends: bool,
    /// Whether [`Backend::cancel`](super::Backend::cancel) can stop a request that has begun.
    pub cancel: bool,
    /// Whether it asks [`Request::is_abandoned`](crate::Request::is_abandoned) just before it starts each request, and
    /// drops those that are: they can then be cancelled as long as they wait in the backend. Otherwise a request counts
    /// as begun once it was [taken](super::Batch::take).
    pub revocable: bool,
    /// Whether completions have to be collected by [`Backend::reap`](super::Backend::reap).
    pub reaped: bool,
    /// Whether a file may make [`Backend::submit`](super::Backend::submit) block all the same. Then each submission is
    /// timed, and a file whose requests hold their caller up begins elsewhere for a while.
    pub may_block: bool,
    /// How many requests it holds at the most; more are `Busy`.
    pub queue_bound: usize,
}

impl Capabilities {
    /// A backend that serves every operation on any descriptor and completes by itself, `queue_bound` requests at a time.
    ///
    /// # Examples
    /// ```
    /// use polyaio::backend::{Capabilities, OpSet, Serves};
    /// let can = Capabilities::new(64);
    /// assert_eq!((can.operations, can.serves, can.vectored, can.may_block), (OpSet::ALL, Serves::Any, true, true));
    /// assert!(!can.nowait && !can.durable && !can.priorities && !can.appends, "who honours these has to say so");
    /// ```
    pub const fn new(queue_bound: usize) -> Self {
        Self {
            operations: OpSet::ALL,
            serves: Serves::Any,
            vectored: true,
            nowait: false,
            durable: false,
            priorities: false,
            appends: false,
            cancel: false,
            revocable: false,
            reaped: false,
            may_block: true,
            queue_bound,
        }
    }
}

/// The files that a backend serves without blocking the submitter.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = polyaio::Engine::new()?;
/// use polyaio::backend::Serves;
/// for backend in engine.backends() {
///     let Some(can) = backend.capabilities else { continue };
///     println!("{} serves {}", backend.name, match can.serves {
///         Serves::Any => "any descriptor",
///         Serves::Seekable => "what has offsets",
///         Serves::Direct => "files opened with O_DIRECT",
///         _ => "files of its own",
///     });
/// }
/// # let mut all = engine.backends().into_iter().filter_map(|backend| backend.capabilities);
/// # assert!(all.any(|can| can.serves == Serves::Any));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Serves {
    /// Any descriptor: it blocks threads of its own.
    Any,
    /// Seekable files, direct or not.
    Seekable,
    /// Regular files and block devices opened with `O_DIRECT`; others only with `RWF_NOWAIT`.
    Direct,
    /// Only the virtual files that it opened itself.
    OwnFiles,
}
