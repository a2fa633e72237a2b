//! The first poll of an operation: what can be done at once, and a slot for what cannot.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::completion::{Errno, Expected};
use crate::descriptor::OpenFile;
use crate::dispatch::{Core, REAP_MAX};
use crate::driver;
use crate::events::{self, Event};
use crate::memory::Ranges;
use crate::op::{Operation, Shape};
use crate::overlap::Pass;
use crate::request::{self, OpKind};
use crate::router::policy::Class;
use crate::slot::{Slot, Ticket};
use crate::trace::Trace;

use super::launch::Launch;
use super::streaming::Streaming;
use super::{Fresh, Stage};

/// How the first poll ended.
pub(super) enum Begun<O> {
    /// The result, and who is to be named for it. The stage is over.
    Over(O, &'static str),
    /// It has begun, and is to be polled: the request is on its way, or it is in a stream's queue.
    OnItsWay,
    /// It is in line for a slot, and the waker is registered.
    Waits,
    /// Nothing has happened: there is no slot, and nobody who would wait for one.
    Busy,
}

/// The first poll of what is [`Fresh`](Stage::Fresh): everything that needs no backend, then the request. Comes back while it
/// waits for a slot, for which it gets in line with `waker`; without a waker it never does.
///
/// In place: what moves from place to place as a whole, just written part by part, is waited for by the processor.
pub(super) fn begin<T: Operation>(stage: &mut Stage<T>, waker: Option<&Waker>) -> Begun<T::Output> {
    let Stage::Fresh(Fresh { file, operation, ticket, done }) = stage else { return Begun::OnItsWay };
    if ticket.is_some() && waker.is_none() {
        // It has begun, and keeps its place.
        return Begun::Waits;
    }
    let (mut shape, mut memory) = (operation.shape(), Ranges::default());
    // Such a file appends anyway, in its own order.
    shape.how.append &= !file.facts.append;
    operation.lend(&mut memory);
    let (mut reserved, mut pass) = (None, Pass::None);
    if ticket.is_none() {
        let refused = match file.core.check() {
            Err(error) => Some(Err(error.into())),
            Ok(()) => file.validate(&shape, memory.left()).map(|outcome| outcome.map_err(io::Error::from)),
        };
        let refused = refused.or_else(|| operation.at_once().map(|outcome| outcome.map_err(io::Error::from)));
        if let Some(result) = refused {
            return over(stage, result, Trace::NONE);
        }
        if waker.is_none() && is_irrevocable(file, &shape) {
            let Poll::Ready(slot) = acquire(&file.core, ticket, None) else { return Begun::Busy };
            reserved = Some(NonNull::from(slot));
        }
        let Some(entered) = enter(file, &shape) else {
            give_back(file, reserved);
            return over(stage, Err(Errno(libc::EBADF).into()), Trace::NONE);
        };
        pass = entered;
    } else if let Err(error) = file.core.check() {
        // Its turn might never come: the slots may be those of operations that nobody looks after any more.
        forsake(file, shape.kind, ticket.take());
        return over(stage, Err(error.into()), Trace::NONE);
    }
    if ticket.is_none() && shape.kind.is_transfer() {
        if let Some(stream) = &file.stream {
            if let Err(error) = file.allows_streams(&shape) {
                file.end(pass);
                return over(stage, Err(error), Trace::NONE);
            }
            let place = stream.enter(shape.kind);
            if let Some(Fresh { file, operation, .. }) = stage.take_fresh() {
                *stage = Stage::Streaming(Streaming::new(file, operation, shape, place));
            }
            return Begun::OnItsWay;
        }
        // SAFETY: `operation` lends its memory for the call.
        match unsafe { file.inline(&shape, memory.left()) } {
            // A looping write goes on where this one stopped.
            Some(Ok(n)) if shape.whole && shape.kind == OpKind::Write && n > 0 && n < shape.length() => *done = n,
            Some(outcome) => {
                give_back(file, reserved);
                file.end(pass);
                return over(stage, outcome.map_err(io::Error::from), Trace::INLINE);
            }
            None => {}
        }
    }
    let at_once = || if ticket.is_none() { file.core.slab.try_acquire().map(NonNull::from) } else { None };
    let slot = match reserved.or_else(at_once) {
        Some(slot) => slot,
        None => {
            // The last slot may be that of a cached write, which must not wait for who waits for the slot.
            file.give_back(&mut pass);
            // It is counted already if it is in line.
            let undo = ticket.is_none().then(|| Undo { file, slot: None, kind: shape.kind, pass });
            let acquired = acquire(&file.core, ticket, waker);
            mem::forget(undo);
            match acquired {
                Poll::Ready(slot) => NonNull::from(slot),
                Poll::Pending if waker.is_none() => {
                    leave(file, shape.kind, pass);
                    return Begun::Busy;
                }
                Poll::Pending => return Begun::Waits,
            }
        }
    };
    let first = file.first_step(&shape, memory.left(), Class::of(shape.kind, shape.position.is_some()));
    let first = match &first {
        Ok(first) => first,
        Err(_) => {
            give_back(file, Some(slot));
            leave(file, shape.kind, pass);
            return over(stage, first.map(|_| 0), Trace::NONE);
        }
    };
    let gate = file.gate(&shape, first.in_turn);
    let launch = Launch { shape: &shape, done: *done, first, gate, pass, expected: waker.and_then(expect) };
    // SAFETY: file and operation move out of the stage, which is written over without a drop, first by one that has none.
    // `file` keeps the slab, and moves into the slot that was just acquired there.
    unsafe {
        let (file, operation) = (ptr::read(file), ptr::read(operation));
        ptr::write(stage, Stage::Over);
        ptr::write(stage, Stage::Sent(launch.send(file, slot, operation)));
    }
    Begun::OnItsWay
}

/// Takes back, where foreign code (a waker, a buffer) panics, what has begun: nobody would ever end it. Forgotten otherwise.
pub(super) struct Undo<'a> {
    pub(super) file: &'a OpenFile,
    /// With what was put into it so far.
    pub(super) slot: Option<NonNull<Slot>>,
    pub(super) kind: OpKind,
    pub(super) pass: Pass,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // SAFETY: the slot is the slab's, which the file keeps; it was acquired, and nobody else knows of it.
            unsafe { slot.as_ref().clear() };
        }
        give_back(self.file, self.slot);
        leave(self.file, self.kind, self.pass);
    }
}

/// Finishes the operation of a stage that is still fresh.
fn over<T: Operation>(stage: &mut Stage<T>, result: io::Result<u64>, by: &'static str) -> Begun<T::Output> {
    match stage.take_fresh() {
        Some(fresh) => Begun::Over(fresh.operation.finish(result), by),
        None => unreachable!("it is taken once, at the end"),
    }
}

/// Whom to wake. `None`, where the waker panics: the poll does it again, and lets that through.
#[inline]
fn expect(waker: &Waker) -> Option<Expected> {
    if let Some(lasting) = driver::lasting(waker) {
        return Some(Expected::Lasting(lasting));
    }
    let mut mine = None;
    request::contain(|| mine = Some(waker.clone()));
    mine.map(Expected::Waker)
}

/// Whether an operation cannot be taken back once it has begun, so that it needs its slot beforehand: a close refuses all
/// others from then on, and a looping write may have written a part in the caller. On a stream only the close takes a slot.
fn is_irrevocable(file: &OpenFile, shape: &Shape) -> bool {
    let looping = shape.whole && shape.kind == OpKind::Write;
    shape.kind == OpKind::Close || (looping && file.stream.is_none())
}

/// Puts back a slot of the file's engine that was acquired, and not used.
fn give_back(file: &OpenFile, reserved: Option<NonNull<Slot>>) {
    if let Some(slot) = reserved {
        // SAFETY: the slot is the slab's, which the file keeps.
        file.core.slab.put_back(unsafe { slot.as_ref() });
    }
}

/// Gives up a place in the line for a slot, and the operation that had it.
pub(super) fn forsake(file: &OpenFile, kind: OpKind, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket
        && !file.core.fork.is_child()
    {
        file.core.slab.forsake(ticket);
        leave(file, kind, Pass::None);
    }
}

/// Notes the begin of an operation; `None` where the file is closed.
fn enter(file: &OpenFile, shape: &Shape) -> Option<Pass> {
    if shape.kind == OpKind::Close {
        let first = file.counts.close().is_ok();
        if first && let Some(stream) = &file.stream {
            stream.wake_all();
        }
        return first.then_some(Pass::None);
    }
    file.begin(shape).ok()
}

pub(super) fn leave(file: &OpenFile, kind: OpKind, pass: Pass) {
    if kind != OpKind::Close {
        file.end(pass);
    }
}

/// A slot, or a place in the line for one; without a waker only the slot.
pub(super) fn acquire<'a>(core: &'a Arc<Core>, ticket: &mut Option<Ticket>, waker: Option<&Waker>) -> Poll<&'a Slot> {
    let Some(waker) = waker else { return try_acquire(core) };
    let slot = core.slab.poll_acquire(ticket, waker);
    if slot.is_pending() {
        // Room comes with completions: see to it that they are collected.
        core.driver.sides.share_all(core);
        core.flush();
        if !driver::is_driving(core) {
            keep_driven(core, waker);
        }
        // The engine's end may have let the line look before this one was in it.
        if !core.state.is_open() {
            request::wake_by_ref(waker);
        }
    }
    slot
}

/// A slot, if one is free and nobody waits for it.
fn try_acquire(core: &Arc<Core>) -> Poll<&Slot> {
    let slot = core.slab.try_acquire().or_else(|| {
        // Who tries again and again, and does nothing else, shall find room in the end.
        core.driver.sides.share_all(core);
        core.flush();
        core.reap(REAP_MAX);
        core.slab.try_acquire()
    });
    slot.map_or(Poll::Pending, Poll::Ready)
}

/// Sees to it that somebody collects while a future is pending on an executor that is not ours. Where no thread can be had
/// for that, the future itself comes back, again and again, until one can.
pub(crate) fn keep_driven(core: &Arc<Core>, waker: &Waker) {
    if !core.driver.ensure_driven_for_foreign(core) {
        if core.counters.undriven.value() == 0 {
            events::raise(|| Event::Anomaly { what: "no thread can be had to collect completions", count: 1 });
        }
        core.counters.undriven.add(1);
        // Who comes back need not come back to the operation that is over.
        core.reap(REAP_MAX);
        request::wake_by_ref(waker);
    }
}
