//! Begins and ends of operations, as a file's gates are told of them.

use super::*;
use crate::counts::Closed;

impl OpenFile {
    /// Notes the begin of an operation that uses the handle; [`end`](Self::end) must follow. What cannot have to wait in the
    /// order gate passes that of overlapping requests by the same step, unless ranges are tracked: see `overlap.rs`.
    #[inline]
    pub(crate) fn begin(&self, shape: &Shape) -> Result<Pass, Closed> {
        let begun = self.counts.begin(self.may_overlap(shape.kind) && !self.gate(shape, false).may_wait());
        let mut pass = if begun.untracked { Pass::Untracked } else { Pass::None };
        if begun.closed {
            self.end(pass);
            return Err(Closed);
        }
        if begun.tracking {
            self.give_back(&mut pass);
        }
        Ok(pass)
    }

    /// Gives the pass of an operation back that may have to wait for others, which may wait for it. It is admitted anew when it
    /// is sent.
    #[inline]
    pub(crate) fn give_back(&self, pass: &mut Pass) {
        if *pass != Pass::None && self.take_back(pass) {
            self.core.flush_after_completion();
        }
    }

    /// The same, where a flush follows anyway. Returns whether another request was let go.
    pub(super) fn take_back(&self, pass: &mut Pass) -> bool {
        let mut released = false;
        self.overlap.give_back(&self.counts, std::mem::take(pass), |next| {
            self.core.enqueue(next);
            released = true;
        });
        released
    }

    /// Notes the end of an operation that [`begin`](Self::begin) began, and that no request has become of.
    pub(crate) fn end(&self, pass: Pass) {
        let mut released = false;
        let close = self.count_out(pass, |next| {
            self.core.enqueue(next);
            released = true;
        });
        if let Some(close) = close {
            self.close(close);
            released = true;
        }
        if released {
            self.core.flush_after_completion();
        }
    }

    /// Counts an operation out, and hands to `release` what waited for its pass. Returns the close that waited for it, to be
    /// submitted now.
    #[inline]
    pub(super) fn count_out(&self, pass: Pass, release: impl FnMut(Request)) -> Option<Request> {
        let ended = self.counts.end(pass == Pass::Untracked);
        self.overlap.ended(&self.counts, pass, ended.writes, release);
        if ended.close { self.order.take_close() } else { None }
    }

    /// Whether the file is closed, or being closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.counts.is_closed()
    }
}
