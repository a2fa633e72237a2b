//! Steps: the ordinary calls that a worker makes for a stream that refuses to be asked without blocking.
//!
//! At most one step of each direction runs at a time. It has been *asked for* by the operation that was first in the
//! queue, but does not belong to it: it reads into, or writes from, memory of the stream's, and what it comes to is *left*
//! with the stream, for whoever is first by then. So an operation may be dropped, at any time, without a byte being lost:
//!
//! ```text
//!        begin_step            end_step (once, on the worker)         look (by the first in the queue)
//!  Idle ────────────▶ Running ───────────────────────────────▶ Over ──────────────────────────────────▶ Idle
//!                        └────── not ready after all ──────▶ Idle
//! ```
//!
//! What a read has left is for the next read, also when the one that asked for it is gone: bytes, the end, or an error.
//! What a write has left is for the write that asked only.

use std::sync::Arc;

use super::{Place, Stream, side_of};
use crate::completion::{Errno, Outcome};
use crate::driver::Driver;
use crate::inline::Transfer;
use crate::memory::IoVec;
use crate::request::{OpKind, wake};
use crate::router::fallback::Reason;
use crate::sync::atomic::Ordering;
use crate::sync::lock;
use crate::trace::Trace;

/// An ordinary write of so many bytes to a pipe that is ready does not block (pipe(7)).
const PIPE_BUF: usize = 4096;

/// The most that one step reads: a pipe seldom holds more, and the stream keeps the memory.
const READ_MAX: usize = 64 * 1024;

/// The step of one direction.
#[derive(Default)]
pub(super) enum Step {
    /// There is none.
    #[default]
    Idle,
    /// A worker has it, or will have it. The operation at this place has asked for it.
    Running(Place),
    /// What it came to.
    Over(Left),
}

/// What a step has left behind.
pub(crate) struct Left {
    place: Place,
    /// Of a read: the bytes, those before `taken` having been given away.
    memory: Vec<u8>,
    taken: usize,
    outcome: Outcome,
    /// Who has made the call.
    pub(crate) trace: Trace,
    /// Which backend refused the call, where strictness kept it from going elsewhere.
    pub(crate) refusal: Option<(u8, Reason)>,
}

impl Left {
    /// What it is to the operation that takes it: for a read, moves bytes to `to`.
    ///
    /// # Safety
    /// The ranges may be written to.
    unsafe fn take(&mut self, kind: OpKind, to: &[IoVec]) -> Outcome {
        if kind != OpKind::Read || self.outcome.is_err() {
            return self.outcome;
        }
        let before = self.taken;
        for range in to {
            let rest = &self.memory[self.taken..];
            let count = rest.len().min(range.len);
            // SAFETY: `rest` has `count` bytes, the caller lends as many there; the two are different allocations.
            unsafe { range.base.copy_from_nonoverlapping(rest.as_ptr(), count) };
            self.taken += count;
        }
        Ok((self.taken - before) as u64)
    }

    /// Whether it is for the operation at `place`: because that one has asked for it, or because it was read.
    pub(super) fn is_for(&self, kind: OpKind, place: Place) -> bool {
        self.place == place || kind == OpKind::Read && self.outcome != Err(Errno(libc::ECANCELED))
    }

    pub(super) fn into_memory(self) -> Vec<u8> {
        self.memory
    }

    /// Whether there is something for the next read.
    fn has_more(&self) -> bool {
        self.taken < self.memory.len()
    }
}

/// What a step transfers: its memory, and how much of it.
pub(crate) struct StepMemory {
    pub(crate) memory: Vec<u8>,
    pub(crate) len: usize,
}

impl Stream {
    /// Makes the memory of a step for the operation at `place`, which is first in the queue while there is no step.
    /// [`end_step`](Self::end_step) must follow, whatever becomes of the step.
    ///
    /// # Safety
    /// As [`Transfer::nowait`], for writes.
    pub(crate) unsafe fn begin_step(
        self: &Arc<Self>,
        driver: &Driver,
        place: Place,
        transfer: Transfer<'_>,
    ) -> StepMemory {
        // The driver knows whom to wake when the engine ends. Where it cannot, the step's end will wake.
        let _ = self.register(driver);
        let mut side = lock(&self.sides[side_of(transfer.kind).0]);
        debug_assert!(matches!(side.step, Step::Idle), "one step at a time");
        side.step = Step::Running(place);
        let mut memory = std::mem::take(&mut side.spare);
        drop(side);
        self.holds.fetch_add(1, Ordering::AcqRel);
        memory.clear();
        let most = if transfer.kind == OpKind::Read { READ_MAX } else { PIPE_BUF };
        let len = transfer.memory.iter().fold(0, |sum, range| (range.len.min(most) + sum).min(most));
        memory.reserve_exact(len);
        if transfer.kind == OpKind::Write {
            for range in transfer.memory {
                let part = range.len.min(len - memory.len());
                // SAFETY: the caller lends the range, to be read.
                memory.extend_from_slice(unsafe { std::slice::from_raw_parts(range.base, part) });
            }
        }
        StepMemory { memory, len }
    }

    /// Leaves what a step came to with the stream, and lets the first in the queue look at it. A read that came to
    /// `Ok(n)` has had the first `n` bytes of the memory written.
    ///
    /// # Safety
    /// `memory` is that of [`begin_step`](Self::begin_step), and nobody else uses it any more.
    pub(crate) unsafe fn end_step(
        &self,
        kind: OpKind,
        mut memory: Vec<u8>,
        outcome: Outcome,
        trace: Trace,
        refusal: Option<(u8, Reason)>,
    ) {
        let waker = {
            let mut side = lock(&self.sides[side_of(kind).0]);
            let Step::Running(place) = side.step else { unreachable!("a step ends once") };
            if outcome == Err(Errno(libc::EAGAIN)) {
                side.spare = memory;
                side.step = Step::Idle;
            } else {
                let read = if kind == OpKind::Read { outcome.unwrap_or(0) as usize } else { 0 };
                memory.clear();
                // SAFETY: `read` bytes were written, and no step reads more than was reserved.
                unsafe { memory.set_len(read) };
                side.step = Step::Over(Left { place, memory, taken: 0, outcome, trace, refusal });
            }
            side.queue.front_mut().and_then(|first| first.1.take())
        };
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// Gives what was left to the operation that is first in the queue.
    ///
    /// # Safety
    /// The ranges may be written to, where `kind` is a read.
    pub(crate) unsafe fn take_left(&self, kind: OpKind, mut left: Left, to: &[IoVec]) -> Outcome {
        // SAFETY: forwarded to the caller. No lock is held: touching the caller's memory may take a while.
        let outcome = unsafe { left.take(kind, to) };
        // Nobody has begun a step meanwhile: that is for the first in the queue, who is here.
        let mut side = lock(&self.sides[side_of(kind).0]);
        if left.has_more() {
            side.step = Step::Over(left);
        } else {
            side.spare = left.memory;
        }
        outcome
    }

    /// Gives back what the first in the queue has only looked at.
    pub(crate) fn put_back(&self, kind: OpKind, left: Left) {
        lock(&self.sides[side_of(kind).0]).step = Step::Over(left);
    }

    /// Whether a step of this direction runs.
    pub(crate) fn is_stepping(&self, kind: OpKind) -> bool {
        matches!(lock(&self.sides[side_of(kind).0]).step, Step::Running(_))
    }

    /// A step, or the file itself, needs the descriptor no more; `true` for the last of them. Steps that run when the file
    /// is closed keep its number from being somebody else's.
    pub(crate) fn let_go(&self) -> bool {
        self.holds.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
