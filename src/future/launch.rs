//! From an operation to a queued request: the slot is filled, and its memory lent.

#![allow(unsafe_code)]

use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::completion::Expected;
use crate::descriptor::{First, OpenFile};
use crate::events;
use crate::memory::IoVec;
use crate::op::{Operation, Shape};
use crate::request::{Body, OpKind, Place, Request, Trail};
use crate::slot::Slot;
use crate::stream::StepMemory;

use super::begin::Undo;
use super::sent::{Flush, Sent};

/// A request about to be made.
pub(super) struct Launch<'a> {
    pub(super) shape: &'a Shape,
    /// Bytes that are transferred already.
    pub(super) done: u64,
    pub(super) first: &'a First,
    pub(super) gate: crate::order::Class,
    /// What it has passed at its begin.
    pub(super) pass: crate::overlap::Pass,
    /// Whom to wake; `None`: a later poll says so.
    pub(super) expected: Option<Expected>,
}

impl Launch<'_> {
    /// Makes the request and queues it.
    ///
    /// # Safety
    /// The slot was acquired from the slab of the file's engine, and nobody else uses it.
    #[inline(always)]
    pub(super) unsafe fn send<T: Operation>(self, file: Arc<OpenFile>, slot: NonNull<Slot>, operation: T) -> Sent {
        let shape = self.shape;
        let &First { backend, nowait, reasons, .. } = self.first;
        // SAFETY: the file keeps the slab. It moves into the slot, and stays there until both sides have left; we are the
        // future side.
        let slot = unsafe { slot.as_ref() };
        let undo = Undo { file: &file, slot: Some(NonNull::from(slot)), kind: shape.kind, pass: self.pass };
        // SAFETY: the slot is activated and not started: its cells are ours. The memory is asked for where the operation lies
        // from now on; `done` is at most its length.
        let request = unsafe {
            let extra = operation.extra();
            let mut operation = slot.store(operation);
            slot.body.with_mut(|body| {
                let body: &mut Body = &mut *body;
                body.kind = shape.kind;
                body.handle = file.handle;
                body.position = shape.position.map(|position| position + self.done);
                body.length = shape.allocate;
                body.extra = extra;
                body.memory.clear();
                operation.as_mut().lend(&mut body.memory);
                body.memory.advance(self.done);
                body.whole = shape.whole;
                body.nowait = nowait || shape.how.nowait;
                body.how = shape.how;
                body.stream = false;
                body.misaligned = false;
                body.started = false;
                body.quiet = events::is_inside();
                body.done = self.done;
                body.trail = Trail { backend, gate: self.gate, pass: self.pass, reasons, ..Trail::default() };
            });
            mem::forget(undo);
            slot.set_owner(file);
            Request::from_slot(slot)
        };
        let expected = self.expected.is_some();
        if let Some(whom) = self.expected {
            slot.completion.expect(whom);
        }
        if shape.kind == OpKind::Close {
            // It is past the point of no return: no operation begins any more.
            request.begin();
        }
        if self.done > 0 {
            // Too late to say that nothing has happened: the caller has written the beginning.
            request.begin();
            slot.completion.begin_rest();
        }
        let mut sent =
            Sent { slot: NonNull::from(slot), flush: Flush::Due, expected, place: Place { backend, side: 0 } };
        // SAFETY: the future side has not left.
        let file = unsafe { sent.file() };
        let side = file.core.driver.sides.place(&file.core, backend);
        file.submit(request, self.first);
        sent.place.side = side;
        sent
    }

    /// Makes the request of a stream's step and sends it: one ordinary transfer from or to the stream's own memory, which
    /// the owner takes out of the slot at the request's end.
    pub(super) fn step(file: &Arc<OpenFile>, slot: &Slot, kind: OpKind, step: StepMemory, first: &First) -> Sent {
        // SAFETY: the slot is activated and not started: both cells are ours. The vector's memory stays where it is.
        let request = unsafe {
            let base = slot.store(step.memory).as_mut().as_mut_ptr();
            slot.body.with_mut(|body| {
                let body: &mut Body = &mut *body;
                let trail = Trail { backend: first.backend, reasons: first.reasons, ..Trail::default() };
                let quiet = events::is_inside();
                *body = Body { kind, handle: file.handle, stream: true, quiet, trail, ..Body::default() };
                body.memory.push(IoVec { base, len: step.len });
            });
            slot.set_owner(file.clone());
            Request::from_slot(slot)
        };
        let sent = Sent { slot: NonNull::from(slot), flush: Flush::Done, expected: false, place: Place::default() };
        file.submit(request, first);
        file.core.flush();
        sent
    }
}
