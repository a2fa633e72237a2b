//! (7) The future of an operation: poll, wait, drop; back to the user.
//!
//! Nothing happens before the first poll. From then on the buffer is in the slot, or, for streams, with the future until
//! the transfer, so that dropping the future is always sound: the slot is freed when the request is over.

#![allow(unsafe_code)]

mod begin;
mod gathering;
mod launch;
mod sent;
mod streaming;

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::backend::CancelOutcome;
use crate::completion::Errno;
use crate::descriptor::OpenFile;
use crate::dispatch::Core;
use crate::driver;
use crate::events;
use crate::op::Operation;
use crate::refused::Busy;
use crate::request::RequestId;
use crate::slot::Ticket;
use crate::trace::{Trace, Traced};

pub(crate) use begin::keep_driven;
pub(crate) use gathering::Gathering;

use begin::{Begun, begin, forsake};
use sent::Sent;
use streaming::Streaming;

/// An operation on its way; a future, with [`wait`](Self::wait) for code without an executor.
///
/// # Cancel safety
/// Dropping it before the first poll does nothing at all. Later, a request that was not sent is removed; one that was
/// sent goes on by itself, its result is lost, and its buffer is freed when the kernel is done with it. A read or write of
/// a stream that is dropped has transferred nothing, or (the looping kinds) the part that it had already transferred; on
/// FIFOs and terminals see [`File::read`](crate::File::read) and [`File::write`](crate::File::write).
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::BufResult;
/// let read = file.read_at(vec![0; 5], 0);        // nothing has happened yet
/// let BufResult(n, buf) = read.wait();           // or `read.await`, in any executor
/// assert_eq!((n?, &buf[..]), (5, &b"hello"[..]));
/// # Ok(()) }
/// ```
#[must_use = "nothing happens before an operation is awaited or waited for"]
pub struct Op<T: Operation> {
    stage: Stage<T>,
}

/// There is no slot for it.
struct NoRoom;

/// Of which nothing has happened, but perhaps for a place in the line for a slot.
struct Fresh<T> {
    file: Arc<OpenFile>,
    operation: T,
    ticket: Option<Ticket>,
    /// Bytes that were written in the caller, before there was no slot for the rest.
    done: u64,
}

enum Stage<T: Operation> {
    /// Nothing has happened.
    Fresh(Fresh<T>),
    /// The request is on its way.
    Sent(Sent),
    /// It waits for a stream.
    Streaming(Streaming<T>),
    /// It was cancelled before anything happened.
    Cancelled(Arc<Core>, T),
    /// It is over, and nobody has its result; and who is to be named for that.
    Ended(Arc<Core>, T::Output, &'static str),
    Over,
}

// Nothing in an operation is pinned: requests point into buffers, which do not move with their handles.
impl<T: Operation> Unpin for Op<T> {}

impl<T: Operation> Op<T> {
    pub(crate) fn new(file: Arc<OpenFile>, operation: T) -> Self {
        Self { stage: Stage::Fresh(Fresh { file, operation, ticket: None, done: 0 }) }
    }

    /// Changes what has not begun.
    ///
    /// # Panics
    /// Panics where it has.
    pub(crate) fn adjust(mut self, change: impl FnOnce(&mut T)) -> Self {
        match &mut self.stage {
            Stage::Fresh(Fresh { operation, ticket: None, .. }) => change(operation),
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
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// assert_eq!(file.len().wait()?, 12);
    /// # Ok(()) }
    /// ```
    pub fn wait(mut self) -> T::Output {
        if let Stage::Fresh(Fresh { file, ticket: None, .. }) = &self.stage
            && T::READS
            && file.reads_in_the_caller()
        {
            // What is over at once needs nobody who drives. What was started before it goes out all the same.
            file.core.flush();
            let _held = events::hold();
            if let Begun::Over(output, _) = begin(&mut self.stage, None) {
                return output;
            }
        }
        match (self.core(), self.over()) {
            (Some(core), None) => driver::block_on_one(&core, &mut self, |op| op.awaits()),
            (_, Some((output, _))) => output,
            (None, None) => unreachable!("only an operation that is over needs no engine"),
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
            None => self.over().map(|(output, _)| output),
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
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::{BufResult, backend::CancelOutcome};
    /// let mut read = reader.read(vec![0; 16]);
    /// assert!(read.wait_timeout(std::time::Duration::from_millis(1)).is_none(), "nothing was written");
    /// assert_eq!(read.cancel(), CancelOutcome::Cancelled);
    /// let BufResult(result, buf) = read.wait();
    /// assert_eq!((result.unwrap_err().raw_os_error(), buf.len()), (Some(libc::ECANCELED), 16));
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn cancel(&mut self) -> CancelOutcome {
        match mem::replace(&mut self.stage, Stage::Over) {
            // A part has happened, and the rest is in line for a slot.
            stage @ Stage::Fresh(Fresh { done: 1.., .. }) => {
                self.stage = stage;
                CancelOutcome::Running
            }
            Stage::Fresh(Fresh { file, mut operation, ticket, .. }) => {
                if let Some(ticket) = ticket {
                    forsake(&file, operation.shape().kind, Some(ticket));
                }
                self.stage = Stage::Cancelled(file.core.clone(), operation);
                CancelOutcome::Cancelled
            }
            Stage::Streaming(streaming) => {
                let outcome = streaming.cancel();
                self.stage = match outcome {
                    CancelOutcome::Cancelled => Stage::Cancelled(streaming.file.core.clone(), streaming.end()),
                    _ => Stage::Streaming(streaming),
                };
                outcome
            }
            Stage::Sent(sent) => {
                let outcome = sent.cancel();
                self.stage = Stage::Sent(sent);
                outcome
            }
            stage @ Stage::Cancelled(..) => {
                self.stage = stage;
                CancelOutcome::Cancelled
            }
            stage @ (Stage::Ended(..) | Stage::Over) => {
                self.stage = stage;
                CancelOutcome::Done
            }
        }
    }

    /// Begins the operation now, if the engine has room for it: as a first poll does, but it never gets in line.
    ///
    /// An operation that was begun is an ordinary one, to be awaited or waited for; its order among others (appends, syncs,
    /// streams) is that of this call. What completes in the caller has completed. Its request goes out with the next poll of
    /// any operation, [`wait`](Self::wait), [`Engine::turn`](crate::Engine::turn), or once 64 are queued for one backend.
    /// Never blocks, and keeps no waker.
    ///
    /// What needs no room is never busy: a page-cache hit, an operation that fails a check (its result is the error), and a
    /// transfer on a stream, which takes a place in the stream's own queue. An operation that was polled before has begun,
    /// and comes back as it is.
    ///
    /// # Errors
    /// [`Busy`], with the operation as it was: the engine holds as many operations as its
    /// [`capacity`](crate::EngineBuilder::capacity), or others are in line for a place. Completions that are there were
    /// collected.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// match file.append("a line\n").try_start() {
    ///     Ok(append) => append.wait().into_result()?.0,
    ///     Err(busy) => println!("dropped {:?}", busy.into_buf()),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_start(mut self) -> Result<Self, Busy<Self>> {
        match self.begin(None) {
            Ok(()) => Ok(self),
            Err(NoRoom) => Err(Busy::new(self)),
        }
    }

    /// The first poll's work for what has not begun. Without a waker it never gets in line.
    fn begin(&mut self, waker: Option<&Waker>) -> Result<(), NoRoom> {
        let _held = events::hold();
        let Stage::Fresh(fresh) = &self.stage else { return Ok(()) };
        let core = fresh.file.core.clone();
        match begin(&mut self.stage, waker) {
            Begun::Over(output, served_by) => self.stage = Stage::Ended(core, output, served_by),
            Begun::OnItsWay => {
                if let Stage::Sent(sent) = &self.stage {
                    sent.flush_many();
                }
            }
            Begun::Waits => {}
            Begun::Busy => return Err(NoRoom),
        }
        Ok(())
    }

    /// Begins the operation, and leaves its result where it is. `true`: `waker` is woken once it has to be polled. What is
    /// queued, the caller flushes.
    pub(crate) fn launch(&mut self, waker: &Waker) -> bool {
        let Ok(()) = self.begin(Some(waker)) else { unreachable!("with a waker it gets in line") };
        match &mut self.stage {
            Stage::Fresh(_) => true,
            Stage::Sent(sent) => sent.watch(waker),
            // Streams transfer in the poll that returns the result.
            Stage::Streaming(_) | Stage::Cancelled(..) | Stage::Ended(..) | Stage::Over => false,
        }
    }

    /// The request that it waits for, if that is all.
    pub(crate) fn awaits(&self) -> Option<RequestId> {
        match &self.stage {
            Stage::Sent(sent) => Some(sent.id()),
            _ => None,
        }
    }

    /// The engine; `None` for an operation that needs it no more.
    pub(crate) fn core(&self) -> Option<Arc<Core>> {
        match &self.stage {
            Stage::Cancelled(..) | Stage::Ended(..) => None,
            _ => Some(self.home()),
        }
    }

    /// The engine, whether or not it is needed.
    pub(crate) fn home(&self) -> Arc<Core> {
        match &self.stage {
            Stage::Fresh(Fresh { file, .. }) | Stage::Streaming(Streaming { file, .. }) => file.core.clone(),
            // SAFETY: the slot is ours, and its owner is set until it is freed.
            Stage::Sent(sent) => unsafe { sent.file() }.core.clone(),
            Stage::Cancelled(core, _) | Stage::Ended(core, ..) => core.clone(),
            Stage::Over => panic!("waited for after its result was returned"),
        }
    }

    /// The result of what is over without having to be polled, and who is to be named for it.
    pub(crate) fn over(&mut self) -> Option<(T::Output, &'static str)> {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Cancelled(_, operation) => Some((operation.finish(Err(Errno(libc::ECANCELED).into())), Trace::NONE)),
            Stage::Ended(_, output, served_by) => Some((output, served_by)),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    /// The operation itself, of which nothing has begun.
    pub(crate) fn into_fresh(mut self) -> T {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Fresh(Fresh { operation, ticket: None, done: 0, .. }) => operation,
            _ => unreachable!("it has begun"),
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
        let tell = |result: &mut dyn FnMut() -> Trace| {
            if let Some(trace) = trace {
                *trace = result();
            }
        };
        if let Stage::Fresh(_) = &self.stage {
            match begin(&mut self.stage, Some(waker)) {
                Begun::Over(output, served_by) => {
                    tell(&mut || Trace::of(served_by));
                    return Poll::Ready(output);
                }
                Begun::Waits => return Poll::Pending,
                Begun::OnItsWay => {}
                Begun::Busy => unreachable!("with a waker it gets in line"),
            }
        }
        match &mut self.stage {
            Stage::Sent(sent) => {
                let Poll::Ready(outcome) = sent.poll(waker) else { return Poll::Pending };
                // SAFETY: the request is over, and the slot was made for this operation.
                let operation = unsafe {
                    tell(&mut || sent.trace());
                    sent.take::<T>()
                };
                // Leaves the slot.
                self.stage = Stage::Over;
                Poll::Ready(operation.finish(outcome))
            }
            Stage::Streaming(streaming) => {
                let Poll::Ready(result) = streaming.poll(waker) else { return Poll::Pending };
                tell(&mut || streaming.trace);
                let Stage::Streaming(streaming) = mem::replace(&mut self.stage, Stage::Over) else {
                    unreachable!("it was just polled")
                };
                Poll::Ready(streaming.end().finish(result))
            }
            Stage::Cancelled(..) | Stage::Ended(..) => {
                let Some((output, served_by)) = self.over() else { unreachable!("it is over") };
                tell(&mut || Trace::of(served_by));
                Poll::Ready(output)
            }
            Stage::Fresh(_) => unreachable!("it has begun"),
            Stage::Over => panic!("polled after its result was returned"),
        }
    }
}

impl<T: Operation> Stage<T> {
    /// Takes out what has not begun. In its place, for the rest of a stage is large and moves at each step otherwise.
    fn take_fresh(&mut self) -> Option<Fresh<T>> {
        let Self::Fresh(fresh) = self else { return None };
        // SAFETY: it is read once, and where it was read from is written over without a drop.
        unsafe {
            let fresh = ptr::read(fresh);
            ptr::write(self, Self::Over);
            Some(fresh)
        }
    }
}

impl<T: Operation> Drop for Op<T> {
    fn drop(&mut self) {
        // What has begun leaves by itself.
        if let Stage::Fresh(Fresh { file, operation, ticket: Some(ticket), .. }) = &mut self.stage {
            forsake(file, operation.shape().kind, Some(*ticket));
        }
    }
}
