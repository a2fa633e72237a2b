//! Transfers that direct I/O refuses for their alignment: who may serve them, and what they must not run beside.

use super::*;

impl OpenFile {
    /// Whether direct I/O refuses a transfer, as far as is known.
    #[inline]
    pub(super) fn is_misaligned(&self, kind: OpKind, position: Option<u64>, memory: &[IoVec]) -> bool {
        let Some(alignment) = self.facts.alignment.filter(|_| self.facts.direct && self.descriptor().is_some()) else {
            return false;
        };
        // An append has no offset before it happens.
        let position = position.filter(|_| kind == OpKind::Read || !self.facts.append);
        !memory.iter().all(|iovec| alignment.admits(iovec.base, iovec.len, position))
    }

    /// Whether what is misaligned may go through the page cache.
    pub(super) fn may_divert(&self, class: Class) -> bool {
        let pool = self.core.pool;
        !self.core.settings.strict && self.plans[class as usize].steps.iter().any(|step| step.backend == pool)
    }

    /// What a strict engine says of a misaligned transfer.
    pub(super) fn misaligned(&self, shape: &Shape, memory: &[IoVec]) -> Error {
        let Shape { kind, position, .. } = shape;
        let addresses: Vec<_> = memory.iter().map(|range| range.base).collect();
        let at = position.map_or_else(String::new, |position| format!(" at offset {position}"));
        let needed = self.facts.alignment.map_or_else(|| "unknown".to_owned(), |alignment| alignment.to_string());
        let what = format!(
            "direct I/O refuses this {kind:?} of {} bytes{at} with memory at {addresses:?}: the file needs multiples of {needed}; \
             allocate with `File::buffer`, or allow the fallback through the page cache (misaligned)",
            shape.length()
        );
        Error::Strict { what, errno: Some(Errno(libc::EINVAL)) }
    }

    /// Sends a request through the page cache. Returns whether another one was let go by that, which has to be flushed.
    pub(super) fn divert(&self, request: &mut Request) -> bool {
        self.core.counters.fallback(Reason::Misaligned);
        let body = request.body_mut();
        body.trail.reasons.insert(Reason::Misaligned);
        body.trail.strict = None;
        if !body.quiet {
            self.raise_fallback(Reason::Misaligned, None, "direct", self.core.pool, body.kind);
        }
        body.misaligned = true;
        body.nowait = false;
        body.trail.backend = self.core.pool;
        body.trail.refused = None;
        // It is another request for the gate, which it has to pass anew.
        self.take_back(&mut body.trail.pass)
    }

    /// Whether the last word was `EINVAL` because the descriptor is direct, whatever is known of its alignment: facts may be
    /// missing, or `O_DIRECT` was set by fcntl(2) meanwhile.
    pub(super) fn is_refused_as_direct(&self, request: &Request, class: Class) -> bool {
        let Some(fd) = self.descriptor().filter(|_| request.kind().is_transfer() && !request.is_misaligned()) else {
            return false;
        };
        let on_disk = matches!(self.facts.kind, FileKind::Regular | FileKind::Block);
        on_disk && self.may_divert(class) && (self.facts.direct || facts::is_direct_now(fd))
    }

    /// Whether an operation touches what others may have to be kept apart from.
    #[inline]
    pub(super) fn may_overlap(&self, kind: OpKind) -> bool {
        kind.is_transfer() && matches!(self.facts.kind, FileKind::Regular | FileKind::Block)
    }

    /// Whether it is a write through the page cache beside direct I/O.
    #[inline]
    pub(super) fn is_cached_write(request: &Request) -> bool {
        request.kind() == OpKind::Write && request.is_misaligned()
    }

    /// The bytes that a transfer touches, for the gate of overlapping requests.
    pub(super) fn footprint(&self, request: &Request) -> Footprint {
        let write = request.kind() == OpKind::Write;
        let cached_write = Self::is_cached_write(request);
        let Some(position) = request.place().filter(|_| !(write && self.facts.append)) else {
            return Footprint { bytes: 0..u64::MAX, cached_write };
        };
        let page = facts::page_size().max(self.facts.alignment.map_or(1, |alignment| alignment.offset as u64));
        // Of all its steps.
        let length = request.body().memory.bytes();
        let end = position.saturating_add(length);
        // What makes the file longer may have to write whole blocks, and cut the file again.
        let extends = cached_write && !self.extent.reach(OpKind::Write, Some(position), length).within;
        let end = if extends { u64::MAX } else { end.checked_next_multiple_of(page).unwrap_or(u64::MAX) };
        Footprint { bytes: position - position % page..end, cached_write }
    }
}
