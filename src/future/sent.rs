//! The future side of a request that is on its way: poll, cancel, and leave.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::backend::CancelOutcome;
use crate::completion::{Last, Outcome, Revoked};
use crate::descriptor::OpenFile;
use crate::dispatch::REAP_MAX;
use crate::driver;
use crate::error::Error;
use crate::op::Operation;
use crate::request::{self, Place, RequestId};
use crate::router::strict::Asking;
use crate::slot::Slot;
use crate::trace::Trace;

use super::begin::keep_driven;
use super::gathering::Gathering;

/// So many requests queued by one thread are submitted without waiting for the end of the tick.
const FLUSH_AT: usize = 64;

/// The future side of a request.
pub(super) struct Sent {
    pub(super) slot: NonNull<Slot>,
    pub(super) flush: Flush,
    /// The waker of the poll that has begun it is registered, and that poll has not returned.
    pub(super) expected: bool,
    /// The lane that was to have it first.
    pub(super) place: Place,
}

/// How far the future has seen to it that its request leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// It is queued, and the first poll has not returned: the rest of the tick may bring company.
    Due,
    /// The first poll has returned. The second flushes, or the drop.
    Yielded,
    /// It was flushed.
    Done,
}

// SAFETY: it is the one future side of the slot, which is `Sync`; what the slot holds is `Send`.
unsafe impl Send for Sent {}

impl Sent {
    /// Submits what is queued, if that is much.
    pub(super) fn flush_many(&self) {
        // SAFETY: the future side has not left.
        let core = &unsafe { self.file() }.core;
        if core.waiting_at(self.place) >= FLUSH_AT {
            core.flush();
        }
    }

    /// The file of the request.
    ///
    /// # Safety
    /// The slot is ours, and not freed.
    #[inline]
    pub(super) unsafe fn file(&self) -> &OpenFile {
        // SAFETY: forwarded to the caller.
        unsafe { file_of(&self.slot) }
    }

    /// The result. The operation may be collected afterwards.
    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<io::Result<u64>> {
        // SAFETY: the future side has not left, so that the slot lives.
        if unsafe { self.file() }.core.fork.is_child() {
            // It will never end here: the parent has the kernel's completion and all threads. This process has a copy of the
            // slot that nobody else knows.
            return Poll::Ready(Err(Error::Forked.into()));
        }
        self.poll_outcome(waker).map(|outcome| {
            // SAFETY: as above, and the request is done.
            let body = unsafe { self.slot.as_ref().ended() };
            // SAFETY: as above.
            outcome.map_err(|errno| unsafe { self.file() }.explain(errno, body.trail.refusal(), &Asking::of_body(body)))
        })
    }

    /// Who served it.
    ///
    /// # Safety
    /// `poll` has returned the result.
    pub(super) unsafe fn trace(&self) -> Trace {
        // SAFETY: the future side has not left, so that the slot lives.
        let (slot, file) = unsafe { (self.slot.as_ref(), self.file()) };
        if file.core.fork.is_child() {
            // The request is not over: it is the parent's, and so are its fields.
            return Trace::of(Trace::NONE);
        }
        // SAFETY: the request is done, for `poll` has returned its result.
        let trail = unsafe { slot.ended() }.trail;
        Trace { served_by: file.core.lanes[usize::from(trail.backend)].name, fallbacks: trail.reasons }
    }

    fn poll_outcome(&mut self, waker: &Waker) -> Poll<Outcome> {
        // SAFETY: the future side has not left, so that the slot lives.
        let completion = unsafe { &self.slot.as_ref().completion };
        if let Some(outcome) = completion.peek() {
            return Poll::Ready(outcome);
        }
        let expected = std::mem::take(&mut self.expected);
        let slot = self.slot;
        // SAFETY: as above. The slot keeps its file, and that the engine, whatever a waker does meanwhile: it is freed after
        // the future side has left.
        let core = &unsafe { file_of(&slot) }.core;
        let driving = driver::is_driving(core);
        if !expected {
            core.driver.sides.share_with_me(core, self.place.side);
        }
        if self.flush == Flush::Due && (Gathering::is_for(core) || core.waiting_at(self.place) < FLUSH_AT) {
            // Come back, and submit everything that was queued meanwhile in one go. Who gathers flushes once all are queued, and
            // a thread that drives the engine before it sleeps.
            self.flush = Flush::Yielded;
            if !driving && !Gathering::is_for(core) {
                request::wake_by_ref(waker);
            }
            return if expected { Poll::Pending } else { completion.poll(waker) };
        }
        if !driving || self.flush != Flush::Done {
            core.flush();
            self.flush = Flush::Done;
        }
        if completion.poll(waker).is_pending() {
            core.reap(REAP_MAX);
        }
        // Again, and not only peeked at: whoever completed it meanwhile has used up the waker.
        let result = completion.poll(waker);
        if result.is_pending() && !driving {
            keep_driven(core, waker);
        }
        result
    }

    /// Registers a waker, and leaves the queue to the caller. `false`: the result is there.
    pub(super) fn watch(&mut self, waker: &Waker) -> bool {
        // SAFETY: the future side has not left, so that the slot lives, and its owner is set.
        let (slot, file) = unsafe { (self.slot.as_ref(), self.file()) };
        if file.core.fork.is_child() {
            return false;
        }
        if self.flush == Flush::Due {
            self.flush = Flush::Yielded;
        }
        // By the waker that it was begun with.
        if std::mem::take(&mut self.expected) {
            !slot.completion.is_done()
        } else {
            slot.completion.poll(waker).is_pending()
        }
    }

    /// The request.
    pub(super) fn id(&self) -> RequestId {
        // SAFETY: the future side has not left, so that the slot lives.
        unsafe { self.slot.as_ref() }.id()
    }

    pub(super) fn cancel(&self) -> CancelOutcome {
        // SAFETY: the future side has not left, so that the slot lives, and its owner is set.
        let (slot, file) = unsafe { (self.slot.as_ref(), self.file()) };
        if file.core.fork.is_child() {
            return CancelOutcome::Unknown;
        }
        match slot.completion.revoke() {
            Revoked::Done => CancelOutcome::Done,
            Revoked::Begun if !slot.completion.ask() => CancelOutcome::Running,
            Revoked::Begun => match file.core.cancel_begun(slot.id()) {
                // It was the rest that was stopped, and it goes on (`OpenFile::failed`): a part has happened.
                CancelOutcome::Cancelled if slot.completion.is_partly_done() => CancelOutcome::Running,
                outcome => outcome,
            },
            Revoked::InTime => {
                file.withdraw(slot.id());
                CancelOutcome::Cancelled
            }
        }
    }

    /// Takes the operation back. What is left to do is to drop this.
    ///
    /// # Safety
    /// `poll` has returned the result, the request was made for a `T`, and this is called once.
    #[inline]
    pub(super) unsafe fn take<T: Operation>(&mut self) -> T {
        // It is not in the queue any more.
        self.flush = Flush::Done;
        // SAFETY: the request is done, so that the payload is ours; the caller says what it is.
        unsafe { self.slot.as_ref().take::<T>() }
    }

    #[inline]
    fn leave(&self) {
        // SAFETY: the future side has not left, so that the slot lives.
        if unsafe { self.slot.as_ref() }.completion.leave() == Last::Yes {
            // SAFETY: we were told that we are the last owner.
            unsafe { request::free(self.slot) };
        }
    }
}

/// The file of a request.
///
/// # Safety
/// The caller is the future side, and has not left.
#[inline]
unsafe fn file_of(slot: &NonNull<Slot>) -> &OpenFile {
    // SAFETY: we are the future side, and have not left; `Launch::send` has set the owner.
    let owner = unsafe { slot.as_ref().owner() };
    debug_assert!(owner.as_any().is::<OpenFile>(), "a sent request has an open file as its owner");
    // SAFETY: `Launch` makes every `Sent`, and sets an `OpenFile` as the owner.
    unsafe { &*Arc::as_ptr(owner).cast::<OpenFile>() }
}

/// Leaves the request to itself: the operation was dropped, or a waker panicked in its poll.
impl Drop for Sent {
    fn drop(&mut self) {
        if self.flush == Flush::Done {
            return self.leave();
        }
        // SAFETY: the future side has not left.
        let core = unsafe { self.file() }.core.clone();
        self.leave();
        // It may be in the queue: the flush removes it, and sends the others whose flush it may have been.
        core.flush();
    }
}
