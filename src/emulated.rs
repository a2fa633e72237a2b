//! Direct I/O emulated: the rules of `O_DIRECT`, enforced in software on a buffered file.
//!
//! They are checked before a request exists, as everything that every backend would have to check; but for transfers at
//! the file's position and appended ones, whose place is known only where they run: to look the position up may wait for
//! whoever is inside `read(2)` on the same open file, and the caller must not. Those are checked by [`Request::check`].
//!
//! [`Direct::Emulated`](crate::Direct::Emulated) has the rules; `tests/contract/emulated.rs` compares them with devices.

use crate::completion::{Errno, Outcome};
use crate::descriptor::OpenFile;
use crate::memory::IoVec;
use crate::op::Shape;
use crate::os::RawFd;
use crate::request::{OpKind, Request};
use crate::router::facts::{self, FileKind};

impl OpenFile {
    /// What the rules say to a transfer that is not empty. `None`: it may go on.
    pub(crate) fn ruled_out(&self, shape: &Shape, memory: &[IoVec]) -> Option<Outcome> {
        let rules = self.facts.emulated?;
        let mut ranges = memory.iter();
        if !shape.kind.is_transfer() || ranges.all(|range| rules.admits(range.base, range.len, shape.position)) {
            return None;
        }
        match (shape.kind, shape.position) {
            // It may be at the end, where everything is fine.
            (OpKind::Read, None) => None,
            (OpKind::Read, Some(position)) if self.cached_end().is_some_and(|end| position >= end) => Some(Ok(0)),
            _ => Some(Err(Errno(libc::EINVAL))),
        }
    }

    /// The rules for a request whose place in the file was not known before.
    pub(crate) fn check_where_it_runs(&self, request: &Request) -> Result<(), Errno> {
        let (Some(rules), Some(fd)) = (self.facts.emulated, self.descriptor()) else { return Ok(()) };
        let appends = request.kind() == OpKind::Write && (self.facts.append || request.appends());
        // A rest need not be aligned: a device never stops within a block, but the page cache may.
        if request.body().done > 0 || (request.position().is_some() && !appends) {
            return Ok(());
        }
        let ranges = request.ranges_before_cut();
        let admitted = |place| ranges.iter().all(|range| rules.admits(range.base, range.len, place));
        let position = request.position().or_else(|| facts::current_position(fd));
        let end = self.current_end(fd);
        // XFS looks at both places.
        let aligned = admitted(position) && (!appends || admitted(end));
        let at_the_end =
            request.kind() == OpKind::Read && position.is_some_and(|position| end.is_some_and(|end| position >= end));
        if aligned || at_the_end { Ok(()) } else { Err(Errno(libc::EINVAL)) }
    }

    /// The end of the file in bytes.
    fn current_end(&self, fd: RawFd) -> Option<u64> {
        if self.facts.kind == FileKind::Block { facts::device_len(fd) } else { facts::current_len(fd) }
    }

    /// The same, for the caller's thread, which must not wait for a server.
    fn cached_end(&self) -> Option<u64> {
        let fd = self.descriptor()?;
        if self.facts.kind == FileKind::Block { facts::device_len(fd) } else { facts::cached_len(fd) }
    }
}
