//! The future side of an operation on a stream: it waits for its turn and for readiness, and transfers in the poll.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::backend::CancelOutcome;
use crate::completion::{Errno, Outcome};
use crate::descriptor::OpenFile;
use crate::driver;
use crate::error::Error;
use crate::events::{self, Event};
use crate::inline::Transfer;
use crate::memory::Ranges;
use crate::op::{Operation, Shape};
use crate::overlap::Pass;
use crate::request::{self, OpKind};
use crate::router::fallback::Reason;
use crate::router::strict::Asking;
use crate::slot::Ticket;
use crate::stream::{Attempt, Place, Stream, Turn};
use crate::trace::Trace;

use super::begin::{acquire, keep_driven};
use super::launch::Launch;
use super::sent::Sent;

/// An operation in the queue of a stream.
pub(super) struct Streaming<T> {
    pub(super) file: Arc<OpenFile>,
    /// `None` after the end.
    operation: Option<T>,
    shape: Shape,
    place: Place,
    /// Bytes transferred so far.
    done: u64,
    /// A worker transfers for it, because the stream refuses to be asked without blocking. Dropped before the worker has
    /// begun, it is cancelled; what it comes to later is left with the stream.
    step: Option<Sent>,
    /// A place in the line for the step's slot.
    ticket: Option<Ticket>,
    /// The place in the queue is given up.
    over: bool,
    /// Who transferred, as far as it has come.
    pub(super) trace: Trace,
}

impl<T> Drop for Streaming<T> {
    fn drop(&mut self) {
        drop(self.step.take());
        self.leave();
    }
}

impl<T> Streaming<T> {
    /// Gives up the place in the queue, and the file.
    fn leave(&mut self) {
        // In a child the place is a copy: a thread of the parent may have held its lock, and who is next is the parent's.
        if mem::replace(&mut self.over, true) || self.file.core.fork.is_child() {
            return;
        }
        if let Some(ticket) = self.ticket.take() {
            self.file.core.slab.forsake(ticket);
        }
        if let Some(stream) = &self.file.stream {
            stream.leave(&self.file.core.driver, self.shape.kind, self.place);
        }
        self.file.end(Pass::None);
    }
}

impl<T: Operation> Streaming<T> {
    pub(super) fn new(file: Arc<OpenFile>, operation: T, shape: Shape, place: Place) -> Self {
        let trace = Trace::of(Trace::NONE);
        Self { file, operation: Some(operation), shape, place, done: 0, step: None, ticket: None, over: false, trace }
    }

    pub(super) fn poll(&mut self, waker: &Waker) -> Poll<io::Result<u64>> {
        let Some(stream) = self.file.stream.clone() else { unreachable!("only streams get here") };
        if self.file.core.fork.is_child() {
            // Before any lock, which a thread of the parent may have held.
            return Poll::Ready(Err(Error::Forked.into()));
        }
        loop {
            // Before what a step has left is taken: a buffer is foreign code, and may panic.
            let memory = self.memory();
            let transfer = self.transfer(&memory);
            let turn = stream.turn(self.shape.kind, self.place, waker);
            if let Turn::Takes(left) = turn {
                self.trace.then(left.trace);
                if self.shape.how.look {
                    stream.put_back(self.shape.kind, left);
                    return Poll::Ready(Ok(0));
                }
                let refusal = left.refusal;
                // SAFETY: the operation lends the rest of its memory.
                let outcome = unsafe { stream.take_left(self.shape.kind, left, transfer.memory) };
                self.step = None;
                match self.progress(outcome, refusal) {
                    Some(result) => return Poll::Ready(result),
                    None => continue,
                }
            }
            if let Err(error) = self.file.core.check() {
                return Poll::Ready(Err(error.into()));
            }
            if self.file.is_closed() {
                return Poll::Ready(self.so_far(Errno(libc::ECANCELED), None));
            }
            if let Turn::Waits = turn {
                if self.shape.how.nowait {
                    return Poll::Ready(Err(Errno(libc::EAGAIN).into()));
                }
                self.keep_driven(&stream, waker);
                return Poll::Pending;
            }
            if self.shape.how.look {
                // What cannot be waited for is always ready.
                let ready = stream.is_ready(self.shape.kind) || !self.wait(&stream, waker)?;
                return if ready { Poll::Ready(Ok(0)) } else { Poll::Pending };
            }
            self.step = None;
            // SAFETY: the operation lends the rest of its memory; the descriptor is open until `end`.
            let attempt = unsafe { stream.attempt(transfer) };
            let counters = &self.file.core.counters;
            let ready = match attempt {
                Attempt::Done(outcome) => {
                    self.trace.then(Trace::of(Trace::INLINE));
                    events::raise_completed(events::is_inside(), || Event::Completed {
                        served_by: Trace::INLINE,
                        kind: self.shape.kind,
                        outcome,
                        nowait: true,
                        fallbacks: Default::default(),
                    });
                    counters.stream_requests.add(1);
                    counters.stream_bytes.add(outcome.unwrap_or(0));
                    match self.progress(outcome, None) {
                        Some(result) => return Poll::Ready(result),
                        None => continue,
                    }
                }
                Attempt::WouldBlock => {
                    counters.stream_misses.add(1);
                    if stream.cannot_be_waited_for(self.shape.kind) {
                        return Poll::Ready(self.so_far(Errno(libc::EAGAIN), None));
                    }
                    false
                }
                Attempt::Refused if self.shape.how.nowait => return Poll::Ready(Err(Errno(libc::EOPNOTSUPP).into())),
                // Where nothing tells of readiness the worker may wait for ever: the driver has to know of the stream, so that
                // the engine's end wakes who waits for the step.
                Attempt::Refused => cfg!(unix) && stream.is_ready(self.shape.kind),
            };
            if self.shape.how.nowait {
                return Poll::Ready(Err(Errno(libc::EAGAIN).into()));
            }
            if !ready && self.wait(&stream, waker)? || !self.start_step(&stream, transfer, waker)? {
                return Poll::Pending;
            }
        }
    }

    /// What a wish to cancel meets. Whatever a worker reads is for the next read; what it writes is written.
    pub(super) fn cancel(&self) -> CancelOutcome {
        if self.file.core.fork.is_child() {
            return CancelOutcome::Unknown;
        }
        match &self.step {
            Some(step) if self.shape.kind == OpKind::Write => match step.cancel() {
                // The step is done; the operation has not taken note of it.
                CancelOutcome::Done => CancelOutcome::Running,
                outcome => outcome,
            },
            _ => CancelOutcome::Cancelled,
        }
    }

    /// A step may be with a backend whose completions somebody has to collect.
    fn keep_driven(&self, stream: &Stream, waker: &Waker) {
        if stream.is_stepping(self.shape.kind) && !driver::is_driving(&self.file.core) {
            keep_driven(&self.file.core, waker);
        }
    }

    /// Asks to be woken when the stream is ready; `false` where it always is.
    fn wait(&mut self, stream: &Arc<Stream>, waker: &Waker) -> io::Result<bool> {
        let core = &self.file.core;
        if let Some(ticket) = self.ticket.take() {
            // It was ready when it got in line, and is not any more: the room is for others meanwhile.
            core.slab.forsake(ticket);
        }
        let waits = match stream.wait(&core.driver, self.shape.kind, self.place, waker) {
            // It is no longer watched, because it is being closed.
            Err(_) if self.file.is_closed() => return Err(Errno(libc::ECANCELED).into()),
            waits => waits?,
        };
        // A close, or the engine's end, may have woken everyone before this waker was there.
        if self.file.is_closed() || core.check().is_err() {
            request::wake_by_ref(waker);
        }
        if waits && !driver::is_driving(core) {
            keep_driven(core, waker);
        }
        Ok(waits)
    }

    /// What is left to transfer. Asked for anew each time: the operation may have moved.
    fn memory(&mut self) -> Ranges {
        let mut memory = Ranges::default();
        if let Some(operation) = &mut self.operation {
            operation.lend(&mut memory);
        }
        memory.advance(self.done);
        memory
    }

    fn transfer<'a>(&self, memory: &'a Ranges) -> Transfer<'a> {
        let fd = self.file.descriptor().unwrap_or(-1);
        Transfer { kind: self.shape.kind, fd, position: None, memory: memory.left() }
    }

    /// Adds an outcome up; the result, when that is all.
    fn progress(&mut self, outcome: Outcome, refusal: Option<(u8, Reason)>) -> Option<io::Result<u64>> {
        match outcome {
            Err(errno) => Some(self.so_far(errno, refusal)),
            Ok(n) => {
                self.done += n;
                let over = n == 0 || !self.shape.whole || self.done == self.shape.length();
                over.then_some(Ok(self.done))
            }
        }
    }

    fn so_far(&self, errno: Errno, refusal: Option<(u8, Reason)>) -> io::Result<u64> {
        if self.done > 0 && !self.shape.whole {
            return Ok(self.done);
        }
        Err(self.file.explain(errno, refusal, &Asking::of(&self.shape)))
    }

    /// One ordinary transfer on a worker. `false` while there is no slot for it.
    fn start_step(&mut self, stream: &Arc<Stream>, transfer: Transfer<'_>, waker: &Waker) -> io::Result<bool> {
        let mut first = self.file.first_for_stream(&self.shape)?;
        first.reasons.insert(Reason::NowaitUnsupported);
        let core = self.file.core.clone();
        let Poll::Ready(slot) = acquire(&core, &mut self.ticket, Some(waker)) else { return Ok(false) };
        core.counters.fallback(Reason::NowaitUnsupported);
        self.file.raise_fallback(Reason::NowaitUnsupported, None, Trace::INLINE, first.backend, self.shape.kind);
        // SAFETY: the operation lends the rest of its memory; it is first, and there is no step. The step ends by its request.
        let memory = unsafe { stream.begin_step(&core.driver, self.place, transfer) };
        self.step = Some(Launch::step(&self.file, slot, self.shape.kind, memory, &first));
        Ok(true)
    }

    /// Takes the operation out, after its end.
    pub(super) fn end(mut self) -> T {
        self.leave();
        match self.operation.take() {
            Some(operation) => operation,
            None => unreachable!("it ends once"),
        }
    }
}
