//! What became of one request: who served it, and by which fallbacks. Asked for with [`Op::traced`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::backend::CancelOutcome;
use crate::future::Op;
use crate::op::Operation;
use crate::router::fallback::Reasons;

/// Who served one request, and which fallbacks it went through. Also known of requests that failed.
///
/// Displayed, it is the name, with the reasons behind it: `thread-pool (would-block)`.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let (read, trace) = file.read_at(vec![0; 5], 0).traced().wait();
/// read.0?;
/// println!("{trace}"); // `inline`, or `thread-pool (would-block)`, say
/// assert_ne!(trace.served_by, polyaio::Trace::NONE);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The name of the backend whose answer is the result; [`INLINE`](Self::INLINE) for what completed in the caller's
    /// thread, streams included; [`NONE`](Self::NONE) for what was refused before any backend was asked.
    ///
    /// The name says who was asked last: a request that its backend dropped, or had no room for, names it as well. Of a
    /// looping transfer that went on elsewhere, and of the steps of a looping transfer on a stream, the last one counts.
    pub served_by: &'static str,
    /// Why it was served otherwise than by the first choice; empty where it was not. What is counted once per file
    /// (`not-started`, `passed-over`, `direct-refused`) is no fallback of a request: see
    /// [`File::route`](crate::File::route).
    pub fallbacks: Reasons,
}

impl Trace {
    /// It completed in the caller's thread.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::Trace;
    /// let (written, trace) = writer.write("ping").traced().wait();
    /// assert_eq!((written.0?, trace.served_by), (4, Trace::INLINE), "there is room in the pipe");
    /// # drop(reader);
    /// # Ok(()) }
    /// ```
    pub const INLINE: &'static str = "inline";
    /// No backend was asked: the request was refused by a check (a closed file or engine, an access mode, an offset), was
    /// for 0 bytes, or is one that the policy lets nobody serve.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::Trace;
    /// let (read, trace) = file.read_at(vec![0; 5], u64::MAX).traced().wait();
    /// assert_eq!((read.0.unwrap_err().raw_os_error(), trace.served_by), (Some(libc::EINVAL), Trace::NONE));
    /// # Ok(()) }
    /// ```
    pub const NONE: &'static str = "none";

    pub(crate) const fn of(served_by: &'static str) -> Self {
        Self { served_by, fallbacks: Reasons::NONE }
    }

    /// Adds a later step of the same operation.
    pub(crate) fn then(&mut self, step: Self) {
        self.served_by = step.served_by;
        self.fallbacks.extend(step.fallbacks);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fallbacks.is_empty() {
            true => f.write_str(self.served_by),
            false => write!(f, "{} ({})", self.served_by, self.fallbacks),
        }
    }
}

/// An operation that also tells who served it; made by [`Op::traced`].
///
/// # Cancel safety
/// As [`Op`].
///
/// # Examples
/// A future too: its output is that of the operation, and the trace.
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let (text, trace) = engine.block_on(async {
///     let (read, trace) = file.read_at(vec![0; 12], 0).traced().await;
///     (read.1, trace)
/// });
/// assert_eq!(text, b"hello, world");
/// println!("{trace}");
/// # Ok(()) }
/// ```
#[must_use = "nothing happens before an operation is awaited or waited for"]
pub struct Traced<T: Operation> {
    op: Op<T>,
}

impl<T: Operation> Traced<T> {
    pub(crate) fn new(op: Op<T>) -> Self {
        Self { op }
    }

    /// As [`Op::wait`].
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
    /// let (synced, trace) = file.sync_all().traced().wait();
    /// synced?;
    /// assert_ne!(trace.served_by, polyaio::Trace::INLINE, "syncs block: never in the caller");
    /// # Ok(()) }
    /// ```
    pub fn wait(mut self) -> (T::Output, Trace) {
        match (self.op.core(), self.op.over()) {
            (Some(core), None) => crate::driver::block_on_one(&core, self, |traced| traced.op.awaits()),
            (_, Some((output, served_by))) => (output, Trace::of(served_by)),
            (None, None) => unreachable!("only an operation that is over needs no engine"),
        }
    }

    /// As [`Op::wait_timeout`]: `None` when the time is over, and the operation goes on.
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
    /// let mut read = reader.read(vec![0; 4]).traced();
    /// assert!(read.wait_timeout(Duration::from_millis(1)).is_none(), "nobody has written");
    /// std::io::Write::write_all(&mut &writer, b"ping")?;
    /// let (result, trace) = read.wait();
    /// assert_eq!((result.into_result()?.1, trace.served_by), (b"ping".to_vec(), "inline"));
    /// # Ok(()) }
    /// ```
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<(T::Output, Trace)> {
        let deadline = Instant::now().checked_add(timeout);
        match self.op.core() {
            Some(core) => crate::driver::block_on_until(&core, self, deadline),
            None => self.op.over().map(|(output, served_by)| (output, Trace::of(served_by))),
        }
    }

    /// As [`Op::cancel`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::{Trace, backend::CancelOutcome};
    /// let mut read = reader.read(vec![0; 4]).traced();
    /// assert_eq!(read.cancel(), CancelOutcome::Cancelled);
    /// let (result, trace) = read.wait();
    /// assert_eq!(result.0.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    /// assert_eq!(trace.served_by, Trace::NONE, "it had not begun");
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn cancel(&mut self) -> CancelOutcome {
        self.op.cancel()
    }
}

impl<T: Operation> Future for Traced<T> {
    type Output = (T::Output, Trace);

    /// # Panics
    /// Panics when polled after it has returned its result.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut trace = Trace::of(Trace::NONE);
        self.op.poll_with(context.waker(), Some(&mut trace)).map(|output| (output, trace))
    }
}
