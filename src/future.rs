//! (7) The future of an operation: poll, wait, drop; back to the user.
//!
//! Nothing happens before the first poll. From then on the buffer is in the slot, or, for streams, with the future until
//! the transfer, so that dropping the future is always sound: the slot is freed when the request is over.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::backend::CancelOutcome;
use crate::completion::{Errno, Last, Outcome, Revoked};
use crate::descriptor::{First, OpenFile};
use crate::dispatch::{Core, REAP_MAX};
use crate::driver;
use crate::error::Error;
use crate::events::{self, Event};
use crate::inline::Transfer;
use crate::op::{Operation, Shape};
use crate::request::{self, Body, IoVec, OpKind, Ranges, Request, Trail};
use crate::router::fallback::Reason;
use crate::router::policy::Class;
use crate::router::strict::Asking;
use crate::slot::{Slot, Ticket};
use crate::stream::{Attempt, Place, StepMemory, Stream, Turn};
use crate::trace::{Trace, Traced};

/// So many requests queued by one thread are submitted without waiting for the end of the tick.
const FLUSH_AT: usize = 64;

/// An operation on its way; a future, with [`wait`](Self::wait) for code without an executor.
///
/// # Cancel safety
/// Dropping it before the first poll does nothing at all. Later, a request that was not sent is removed; one that was
/// sent goes on by itself, its result is lost, and its buffer is freed when the kernel is done with it. A read or write of
/// a stream that is dropped has transferred nothing, or (the looping kinds) the part that it had already transferred; on
/// FIFOs and terminals see [`File::read`](crate::File::read) and [`File::write`](crate::File::write).
#[must_use = "nothing happens before an operation is awaited or waited for"]
pub struct Op<T: Operation> {
    stage: Stage<T>,
}

enum Stage<T: Operation> {
    /// Nothing has happened, but perhaps for a place in the line for a slot.
    Fresh {
        file: Arc<OpenFile>,
        operation: T,
        ticket: Option<Ticket>,
        /// Bytes that were written in the caller, before there was no slot for the rest.
        done: u64,
    },
    /// The request is on its way.
    Sent(Sent),
    /// It waits for a stream.
    Streaming(Streaming<T>),
    /// It was cancelled before anything happened.
    Cancelled(T),
    Over,
}

// Nothing in an operation is pinned: requests point into buffers, which do not move with their handles.
impl<T: Operation> Unpin for Op<T> {}

/// The future side of a request.
struct Sent {
    slot: NonNull<Slot>,
    flush: Flush,
}

/// How far the future has seen to it that its request leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// It is queued, and the first poll has not returned: the rest of the tick may bring company.
    Due,
    /// The first poll has returned. The second flushes, or the drop.
    Yielded,
    /// It was flushed.
    Done,
}

// SAFETY: it is the one future side of the slot, which is `Sync`; what the slot holds is `Send`.
unsafe impl Send for Sent {}

/// An operation in the queue of a stream.
struct Streaming<T> {
    file: Arc<OpenFile>,
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
    trace: Trace,
}

impl<T: Operation> Op<T> {
    pub(crate) fn new(file: Arc<OpenFile>, operation: T) -> Self {
        Self { stage: Stage::Fresh { file, operation, ticket: None, done: 0 } }
    }

    /// Changes what has not begun.
    ///
    /// # Panics
    /// Panics where it has.
    pub(crate) fn adjust(mut self, change: impl FnOnce(&mut T)) -> Self {
        match &mut self.stage {
            Stage::Fresh { operation, ticket: None, .. } => change(operation),
            _ => panic!("an operation is told how before it is polled"),
        }
        self
    }

    /// Runs the operation to its end on this thread, collecting completions meanwhile. For code without an executor.
    ///
    /// Inside an async function use `.await`: this blocks the thread.
    ///
    /// # Panics
    /// Panics where the operation has already returned its result.
    pub fn wait(mut self) -> T::Output {
        match (self.core(), self.cancelled()) {
            (Some(core), None) => driver::block_on(&core, self),
            (_, Some(output)) => output,
            (None, None) => unreachable!("only a cancelled operation needs no engine"),
        }
    }

    /// As [`wait`](Self::wait), for at most `timeout`. `None`: the time is over, and the operation goes on. It keeps its
    /// buffer, and can be waited for again, awaited, or dropped.
    ///
    /// # Panics
    /// Panics where the operation has already returned its result.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// let engine = polyaio::Engine::new()?;
    /// let (reader, writer) = std::io::pipe()?;
    /// let reader = engine.adopt(reader.into())?;
    /// let mut read = reader.read(vec![0; 4]);
    /// assert!(read.wait_timeout(Duration::from_millis(1)).is_none(), "nobody has written");
    /// std::io::Write::write_all(&mut &writer, b"ping")?;
    /// assert_eq!(read.wait().into_result()?.1, b"ping");
    /// # Ok(()) }
    /// ```
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<T::Output> {
        let deadline = Instant::now().checked_add(timeout);
        match self.core() {
            Some(core) => driver::block_on_until(&core, self, deadline),
            None => self.cancelled(),
        }
    }

    /// Wishes the operation cancelled. It still has to be awaited (or waited for) for its result and its buffer, which come
    /// back in every case:
    ///
    /// - [`Cancelled`](CancelOutcome::Cancelled): it has done nothing, and its result is `ECANCELED`. A looping operation on a
    ///   stream may have transferred a part before. A read of a stream can always be cancelled: what a worker reads for it is
    ///   left to the next read.
    /// - [`Running`](CancelOutcome::Running): too late. It goes on, and its result is what it would have been.
    /// - [`Done`](CancelOutcome::Done): the result is there.
    ///
    /// An operation that waits for its turn (an append behind others) is `Cancelled` at once, but comes back only when its
    /// turn comes. A close that was sent is `Running`. In the child of a fork the answer is `Unknown`. Never blocks.
    pub fn cancel(&mut self) -> CancelOutcome {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Fresh { file, mut operation, ticket, .. } => {
                if let Some(ticket) = ticket {
                    file.core.slab.forsake(ticket);
                    leave(&file, operation.shape().kind);
                }
                self.stage = Stage::Cancelled(operation);
                CancelOutcome::Cancelled
            }
            Stage::Streaming(streaming) => {
                let outcome = streaming.cancel();
                let over = outcome == CancelOutcome::Cancelled;
                self.stage = if over { Stage::Cancelled(streaming.end()) } else { Stage::Streaming(streaming) };
                outcome
            }
            Stage::Sent(sent) => {
                let outcome = sent.cancel();
                self.stage = Stage::Sent(sent);
                outcome
            }
            stage @ Stage::Cancelled(_) => {
                self.stage = stage;
                CancelOutcome::Cancelled
            }
            Stage::Over => CancelOutcome::Done,
        }
    }

    /// The engine; `None` for an operation that needs it no more.
    pub(crate) fn core(&self) -> Option<Arc<Core>> {
        match &self.stage {
            Stage::Fresh { file, .. } | Stage::Streaming(Streaming { file, .. }) => Some(file.core.clone()),
            // SAFETY: the slot is ours, and its owner is set until it is freed.
            Stage::Sent(sent) => Some(unsafe { sent.file() }.core.clone()),
            Stage::Cancelled(_) => None,
            Stage::Over => panic!("waited for after its result was returned"),
        }
    }

    pub(crate) fn cancelled(&mut self) -> Option<T::Output> {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Cancelled(operation) => Some(operation.finish(Err(Errno(libc::ECANCELED).into()))),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    /// The same operation, which also tells who served it and which fallbacks it went through. Costs nothing where it is
    /// not used.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{BufResult, Engine, OpenOptions, Reason};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// let (BufResult(written, _), trace) = file.write_all_at("hello", 0).traced().wait();
    /// written?;
    /// println!("served by {trace}");
    /// if trace.fallbacks.contains(Reason::WouldBlock) {
    ///     println!("allocate the space beforehand");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn traced(self) -> Traced<T> {
        Traced::new(self)
    }
}

impl<T: Operation> Future for Op<T> {
    type Output = T::Output;

    /// # Panics
    /// Panics when polled after it has returned its result.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T::Output> {
        self.poll_with(context.waker(), None)
    }
}

impl<T: Operation> Op<T> {
    /// As `poll`; fills `trace` in when it returns the result.
    pub(crate) fn poll_with(&mut self, waker: &Waker, trace: Option<&mut Trace>) -> Poll<T::Output> {
        let _held = events::hold();
        let tell = |result| {
            if let Some(trace) = trace {
                *trace = result;
            }
        };
        loop {
            match mem::replace(&mut self.stage, Stage::Over) {
                Stage::Fresh { file, operation, ticket, done } => match begin(file, operation, ticket, done, waker) {
                    Begun::Over(output, served_by) => {
                        tell(Trace::of(served_by));
                        return Poll::Ready(output);
                    }
                    Begun::Stays(stage) => {
                        self.stage = stage;
                        return Poll::Pending;
                    }
                    Begun::Goes(stage) => self.stage = stage,
                },
                Stage::Sent(mut sent) => {
                    let Poll::Ready(outcome) = sent.poll(waker) else {
                        self.stage = Stage::Sent(sent);
                        return Poll::Pending;
                    };
                    // SAFETY: the request is over, and the slot was made for this operation.
                    let operation = unsafe {
                        tell(sent.trace());
                        sent.collect::<T>()
                    };
                    return Poll::Ready(operation.finish(outcome));
                }
                Stage::Streaming(mut streaming) => {
                    let Poll::Ready(result) = streaming.poll(waker) else {
                        self.stage = Stage::Streaming(streaming);
                        return Poll::Pending;
                    };
                    tell(streaming.trace);
                    let operation = streaming.end();
                    return Poll::Ready(operation.finish(result));
                }
                Stage::Cancelled(operation) => {
                    return Poll::Ready(operation.finish(Err(Errno(libc::ECANCELED).into())));
                }
                Stage::Over => panic!("polled after its result was returned"),
            }
        }
    }
}

impl<T: Operation> Drop for Op<T> {
    fn drop(&mut self) {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Fresh { file, mut operation, ticket: Some(ticket), .. } => {
                file.core.slab.forsake(ticket);
                leave(&file, operation.shape().kind);
            }
            // What has begun leaves by itself.
            Stage::Fresh { ticket: None, .. } | Stage::Sent(_) | Stage::Streaming(_) => {}
            Stage::Cancelled(_) | Stage::Over => {}
        }
    }
}

/// How the first poll ended.
enum Begun<T: Operation> {
    /// The result, and who is to be named for it.
    Over(T::Output, &'static str),
    /// Poll the new stage.
    Goes(Stage<T>),
    /// The waker is registered.
    Stays(Stage<T>),
}

/// The first poll: everything that needs no backend, then the request. Comes back while it waits for a slot.
fn begin<T: Operation>(
    file: Arc<OpenFile>,
    mut operation: T,
    mut ticket: Option<Ticket>,
    mut done: u64,
    waker: &Waker,
) -> Begun<T> {
    let (mut shape, mut memory) = (operation.shape(), Ranges::default());
    // Such a file appends anyway, in its own order.
    shape.how.append &= !file.facts.append;
    operation.lend(&mut memory);
    if ticket.is_none() {
        let refused = match file.core.check() {
            Err(error) => Some(Err(error.into())),
            Ok(()) => file.validate(&shape, memory.left()).map(|outcome| outcome.map_err(io::Error::from)),
        };
        if let Some(result) = refused {
            return Begun::Over(operation.finish(result), Trace::NONE);
        }
        if !enter(&file, shape.kind) {
            return Begun::Over(operation.finish(Err(Errno(libc::EBADF).into())), Trace::NONE);
        }
    }
    if ticket.is_none() && shape.kind.is_transfer() {
        if let Some(stream) = &file.stream {
            if let Err(error) = file.allows_streams(&shape) {
                file.end();
                return Begun::Over(operation.finish(Err(error)), Trace::NONE);
            }
            let place = stream.enter(shape.kind);
            return Begun::Goes(Stage::Streaming(Streaming::new(file, operation, shape, place)));
        }
        // SAFETY: `operation` lends its memory for the call.
        match unsafe { file.inline(&shape, memory.left()) } {
            // A looping write goes on where this one stopped.
            Some(Ok(n)) if shape.whole && shape.kind == OpKind::Write && n > 0 && n < shape.length() => done = n,
            Some(outcome) => {
                file.end();
                return Begun::Over(operation.finish(outcome.map_err(io::Error::from)), Trace::INLINE);
            }
            None => {}
        }
    }
    let slot = match acquire(&file.core, &mut ticket, waker) {
        Poll::Ready(slot) => slot,
        Poll::Pending => return Begun::Stays(Stage::Fresh { file: file.clone(), operation, ticket, done }),
    };
    let first = match file.first_step(&shape, memory.left(), Class::of(shape.kind, shape.position.is_some())) {
        Ok(first) => first,
        Err(error) => {
            file.core.slab.put_back(slot);
            leave(&file, shape.kind);
            return Begun::Over(operation.finish(Err(error)), Trace::NONE);
        }
    };
    let gate = file.gate(&shape, first);
    let launch = Launch { shape, memory, done, first, gate };
    Begun::Goes(Stage::Sent(launch.send(&file, slot, operation)))
}

thread_local! {
    /// The engine for which this thread queues requests without sending them.
    static GATHERING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// While it lives, first polls on this thread queue their requests for one engine and leave it to the caller to flush.
pub(crate) struct Gathering {
    outer: *const Core,
}

impl Gathering {
    pub(crate) fn enter(core: &Core) -> Self {
        Self { outer: GATHERING.replace(core) }
    }

    fn is_for(core: &Core) -> bool {
        std::ptr::eq(GATHERING.get(), core)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        GATHERING.set(self.outer);
    }
}

/// A slot, or a place in the line for one.
fn acquire<'a>(core: &'a Arc<Core>, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<&'a Slot> {
    let slot = core.slab.poll_acquire(ticket, waker);
    if slot.is_pending() {
        // Room comes with completions: see to it that they are collected.
        core.flush();
        if !driver::is_driving(core) {
            keep_driven(core, waker);
        }
    }
    slot
}

/// Sees to it that somebody collects while a future is pending on an executor that is not ours. Where no thread can be had
/// for that, the future itself comes back, again and again, until one can.
pub(crate) fn keep_driven(core: &Arc<Core>, waker: &Waker) {
    if !core.driver.ensure_driven_for_foreign(core) {
        if core.counters.undriven.value() == 0 {
            events::raise(|| Event::Anomaly { what: "no thread can be had to collect completions", count: 1 });
        }
        core.counters.undriven.add(1);
        request::wake_by_ref(waker);
    }
}

/// Notes the begin of an operation; `false` where the file is closed.
fn enter(file: &OpenFile, kind: OpKind) -> bool {
    if kind == OpKind::Close {
        let first = file.order.begin_close().is_ok();
        if first && let Some(stream) = &file.stream {
            stream.wake_all();
        }
        return first;
    }
    let open = file.order.begin().is_ok();
    if !open {
        file.end();
    }
    open
}

fn leave(file: &OpenFile, kind: OpKind) {
    if kind != OpKind::Close {
        file.end();
    }
}

/// A request about to be made.
struct Launch {
    shape: Shape,
    /// Where to put the ranges of memory.
    memory: Ranges,
    /// Bytes that are transferred already.
    done: u64,
    first: First,
    gate: crate::order::Class,
}

impl Launch {
    /// Makes the request and queues it.
    fn send<T: Operation>(mut self, file: &Arc<OpenFile>, slot: &Slot, operation: T) -> Sent {
        let shape = self.shape;
        let First { backend, nowait, reasons, .. } = self.first;
        // SAFETY: the slot is activated and not started: both cells are ours. The memory is asked for anew, because the
        // operation has moved into the slot; `done` is at most its length.
        let request = unsafe {
            self.memory.clear();
            let extra = operation.extra();
            slot.store(operation).as_mut().lend(&mut self.memory);
            self.memory.advance(self.done);
            slot.body.with_mut(|body| {
                let body: &mut Body = &mut *body;
                body.kind = shape.kind;
                body.handle = file.handle;
                body.position = shape.position.map(|position| position + self.done);
                body.length = shape.allocate;
                body.extra = extra;
                body.memory = self.memory;
                body.whole = shape.whole;
                body.nowait = nowait || shape.how.nowait;
                body.how = shape.how;
                body.stream = false;
                body.misaligned = false;
                body.started = false;
                body.quiet = events::is_inside();
                body.done = self.done;
                body.trail = Trail { backend, gate: self.gate, reasons, ..Trail::default() };
            });
            slot.set_owner(file.clone());
            Request::from_slot(slot)
        };
        if shape.kind == OpKind::Close {
            // It is past the point of no return: no operation begins any more.
            request.begin();
        }
        let sent = Sent { slot: NonNull::from(slot), flush: Flush::Due };
        file.submit(request);
        sent
    }

    /// Makes the request of a stream's step and sends it: one ordinary transfer from or to the stream's own memory, which
    /// the owner takes out of the slot at the request's end.
    fn step(file: &Arc<OpenFile>, slot: &Slot, kind: OpKind, step: StepMemory, first: First) -> Sent {
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
        let sent = Sent { slot: NonNull::from(slot), flush: Flush::Done };
        file.submit(request);
        file.core.flush();
        sent
    }
}

impl Sent {
    /// The file of the request.
    ///
    /// # Safety
    /// The slot is ours, and not freed.
    unsafe fn file(&self) -> &OpenFile {
        // SAFETY: we are the future side, and have not left; `Launch::send` has set the owner.
        let owner = unsafe { self.slot.as_ref().owner() };
        match owner.as_any().downcast_ref::<OpenFile>() {
            Some(file) => file,
            None => unreachable!("a sent request has an open file as its owner"),
        }
    }

    /// The result. The operation may be collected afterwards.
    fn poll(&mut self, waker: &Waker) -> Poll<io::Result<u64>> {
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
    unsafe fn trace(&self) -> Trace {
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
        // SAFETY: as above. The reference keeps the engine alive, whatever a waker does meanwhile.
        let core = unsafe { self.file() }.core.clone();
        let driving = driver::is_driving(&core);
        if self.flush == Flush::Due && Gathering::is_for(&core) {
            // Who gathers flushes, once all are queued.
            self.flush = Flush::Yielded;
            return completion.poll(waker);
        }
        if self.flush == Flush::Due && core.queued() < FLUSH_AT {
            // Come back, and submit everything that was queued meanwhile in one go. A thread that drives the engine flushes
            // by itself.
            self.flush = Flush::Yielded;
            if !driving {
                request::wake_by_ref(waker);
            }
            return completion.poll(waker);
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
            keep_driven(&core, waker);
        }
        result
    }

    fn cancel(&self) -> CancelOutcome {
        // SAFETY: the future side has not left, so that the slot lives, and its owner is set.
        let (slot, file) = unsafe { (self.slot.as_ref(), self.file()) };
        if file.core.fork.is_child() {
            return CancelOutcome::Unknown;
        }
        match slot.completion.revoke() {
            Revoked::Done => CancelOutcome::Done,
            Revoked::Begun => file.core.cancel_begun(slot.id()),
            Revoked::InTime => {
                file.withdraw(slot.id());
                CancelOutcome::Cancelled
            }
        }
    }

    /// Takes the operation back and frees the slot.
    ///
    /// # Safety
    /// `poll` has returned the result, and the request was made for a `T`.
    unsafe fn collect<T: Operation>(self) -> T {
        // SAFETY: the request is done, so that the payload is ours; the caller says what it is.
        let operation = unsafe { self.slot.as_ref().take::<T>() };
        self.depart();
        operation
    }

    fn depart(self) {
        self.leave();
        mem::forget(self);
    }

    fn leave(&self) {
        // SAFETY: the future side has not left, so that the slot lives.
        if unsafe { self.slot.as_ref() }.completion.leave() == Last::Yes {
            // SAFETY: we were told that we are the last owner.
            unsafe { request::free(self.slot) };
        }
    }
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
        self.file.end();
    }
}

impl<T: Operation> Streaming<T> {
    fn new(file: Arc<OpenFile>, operation: T, shape: Shape, place: Place) -> Self {
        let trace = Trace::of(Trace::NONE);
        Self { file, operation: Some(operation), shape, place, done: 0, step: None, ticket: None, over: false, trace }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<io::Result<u64>> {
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
            if self.file.order.is_closed() {
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
                Attempt::Refused => stream.is_ready(self.shape.kind),
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
    fn cancel(&self) -> CancelOutcome {
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
            Err(_) if self.file.order.is_closed() => return Err(Errno(libc::ECANCELED).into()),
            waits => waits?,
        };
        // A close, or the engine's end, may have woken everyone before this waker was there.
        if self.file.order.is_closed() || core.check().is_err() {
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
        let Poll::Ready(slot) = acquire(&core, &mut self.ticket, waker) else { return Ok(false) };
        core.counters.fallback(Reason::NowaitUnsupported);
        self.file.raise_fallback(Reason::NowaitUnsupported, None, Trace::INLINE, first.backend, self.shape.kind);
        // SAFETY: the operation lends the rest of its memory; it is first, and there is no step. The step ends by its request.
        let memory = unsafe { stream.begin_step(&core.driver, self.place, transfer) };
        self.step = Some(Launch::step(&self.file, slot, self.shape.kind, memory, first));
        Ok(true)
    }

    /// Takes the operation out, after its end.
    fn end(mut self) -> T {
        self.leave();
        match self.operation.take() {
            Some(operation) => operation,
            None => unreachable!("it ends once"),
        }
    }
}
