//! How far a file reaches, as far as its engine knows: up to where writes do not make it longer, and up to where they need no
//! new blocks.
//!
//! Both only decide which backend a write is offered to first: others may cut the file, or make holes in it.

use crate::os::RawFd;
use crate::request::{OpKind, RawHandle};
use crate::router::facts::{self, Facts, FileKind};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// So many writes that a worker has served, until the file's mapping is asked for again.
const LOOK_EVERY: u32 = 32;

/// How far a transfer reaches; a read is both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// It does not make the file longer.
    pub(crate) within: bool,
    /// It needs no new blocks: no hole is filled either.
    pub(crate) mapped: bool,
}

/// How far a file reaches.
pub(crate) struct Extent {
    /// It is at least so long, in bytes: writes within do not extend it.
    len: AtomicU64,
    /// It has blocks of its own up to here, in bytes: writes below are overwrites of what is there.
    mapped: AtomicU64,
    /// Writes after which `mapped` could have been asked for.
    looks: AtomicU32,
}

impl Extent {
    pub(crate) fn new(facts: &Facts, handle: RawHandle) -> Self {
        let (len, mapped) = match (facts.kind, handle) {
            (FileKind::Block, _) => (u64::MAX, u64::MAX),
            // For direct I/O only: nobody else asks.
            (FileKind::Regular, RawHandle::Descriptor(fd)) if facts.direct && facts.writable => {
                (facts.len, facts::mapped_len(fd))
            }
            _ => (facts.len, 0),
        };
        Self { len: AtomicU64::new(len), mapped: AtomicU64::new(mapped), looks: AtomicU32::new(0) }
    }

    /// The file is at least so long, in bytes.
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// How far a request reaches.
    #[inline]
    pub(crate) fn reach(&self, kind: OpKind, position: Option<u64>, length: u64) -> Reach {
        let below = |len: &AtomicU64| {
            kind != OpKind::Write || position.is_some_and(|p| p + length <= len.load(Ordering::Relaxed))
        };
        Reach { within: below(&self.len), mapped: below(&self.mapped) }
    }

    /// Notes that the file has bytes, in blocks of its own, from `position` to `end`.
    pub(crate) fn extend(&self, position: u64, end: u64) {
        // Read first: most writes lie within, and a load is cheaper.
        if self.len() < end {
            self.len.fetch_max(end, Ordering::Relaxed);
        }
        let mapped = self.mapped.load(Ordering::Relaxed);
        if mapped < end && position <= mapped {
            self.mapped.fetch_max(end, Ordering::Relaxed);
        }
    }

    /// Notes that the file's length was set. What was cut off has no blocks any more, and what was added has none yet.
    pub(crate) fn cut(&self, len: u64) {
        self.len.store(len, Ordering::Relaxed);
        self.mapped.fetch_min(len, Ordering::Relaxed);
    }

    /// Notes that a hole was made at `position`: writes there need new blocks.
    pub(crate) fn punch(&self, position: u64) {
        self.mapped.fetch_min(position, Ordering::Relaxed);
    }

    /// Writes that end in another order than that of their places leave `mapped` behind: asks the file system now and then.
    /// For threads that may block.
    pub(crate) fn look(&self, fd: RawFd) {
        if self.mapped.load(Ordering::Relaxed) < self.len()
            && self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY)
        {
            self.mapped.fetch_max(facts::mapped_len(fd), Ordering::Relaxed);
        }
    }
}
