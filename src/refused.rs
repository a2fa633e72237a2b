//! What comes back of an operation that was not taken: the value itself, so that it can be tried again.

use std::fmt;
use std::io;

use crate::error::Error;
use crate::future::Op;
use crate::how::Transfer;

/// The engine has no room now: what a `try_` call gives back, a buffer or an operation.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("greeting");
/// # std::fs::write(&path, "hello, world")?;
/// use polyaio::{BufResult, Engine, OpenOptions};
/// let engine = Engine::new()?;
/// let file = OpenOptions::new().read(true).open(&engine, &path)?;
/// let BufResult(n, buf) = match file.try_read_at(vec![0; 5], 7) {
///     Ok(read) => read.wait(),
///     // Later, elsewhere, or (here) in line all the same.
///     Err(busy) => file.read_at(busy.into_inner(), 7).wait(),
/// };
/// assert_eq!(&buf[..n?], b"world");
/// # Ok(()) }
/// ```
#[must_use = "it has what was given to the call"]
pub struct Busy<V> {
    inner: V,
}

impl<V> Busy<V> {
    pub(crate) fn new(inner: V) -> Self {
        Self { inner }
    }

    /// What was given to the call, as it was: the buffer, or the operation, which can be tried again, awaited, or dropped.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::builder().capacity(1).build()?);
    /// # let path = dir.path().join("data");
    /// # let file = polyaio::OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// # let holder = file.sync_all().try_start().map_err(|_| "room for one")?;
    /// let busy = file.try_write_at("HELLO", 0).err().ok_or("the one place is taken")?;
    /// let text: &str = busy.into_inner(); // of `try_write_at` it is the buffer
    /// let busy = file.write_all_at(text, 0).try_start().err().ok_or("still")?;
    /// let write = busy.into_inner();      // of `try_start` it is the operation
    /// holder.wait()?;
    /// write.wait().0?;
    /// # Ok(()) }
    /// ```
    pub fn into_inner(self) -> V {
        self.inner
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(V) -> U) -> Busy<U> {
        Busy { inner: f(self.inner) }
    }
}

impl<T: Transfer> Busy<Op<T>> {
    /// The buffer (or the list of buffers) of the operation.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::builder().capacity(1).build()?);
    /// # let path = dir.path().join("data");
    /// # let file = polyaio::OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// # let holder = file.sync_all().try_start().map_err(|_| "room for one")?;
    /// let busy = file.append("a line, not worth waiting for\n").try_start().err().ok_or("the one place is taken")?;
    /// assert!(busy.into_buf().starts_with("a line"));
    /// # holder.wait()?;
    /// # Ok(()) }
    /// ```
    pub fn into_buf(self) -> T::Buffer {
        self.inner.into_fresh().into_buffer()
    }
}

impl<V> fmt::Debug for Busy<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Busy(..)")
    }
}

impl<V> fmt::Display for Busy<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the engine holds as many operations as it has capacity for: try again when one has ended")
    }
}

impl<V> std::error::Error for Busy<V> {}

/// An operation whose end cannot be told in the way that was asked for. Nothing has happened to it.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// drop(engine);
/// let refused = file.len().on_completion(|_| unreachable!("it never began")).err().ok_or("its engine has ended")?;
/// println!("{}", refused.error());
/// drop(refused.into_inner()); // the operation
/// # Ok(()) }
/// ```
#[must_use = "it has the operation"]
pub struct Refused<V> {
    /// An operation has its buffer's handle in it, which makes it large.
    inner: Box<V>,
    error: io::Error,
}

impl<V> Refused<V> {
    pub(crate) fn new(inner: V, error: impl Into<io::Error>) -> Self {
        Self { inner: Box::new(inner), error: error.into() }
    }

    /// Why: an [`Error::EngineClosed`], an [`Error::Forked`], or `EINVAL` for a number that is no real-time signal's.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let refused = file.sync_all().signal_on_completion(0).err().ok_or("0 is no signal")?;
    /// assert_eq!(refused.error().raw_os_error(), Some(libc::EINVAL));
    /// # drop(engine);
    /// # Ok(()) }
    /// ```
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The operation, as it was.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let refused = file.sync_all().signal_on_completion(0).err().ok_or("0 is no signal")?;
    /// refused.into_inner().wait()?; // then without being told
    /// # Ok(()) }
    /// ```
    pub fn into_inner(self) -> V {
        *self.inner
    }
}

impl<V> fmt::Debug for Refused<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<V> fmt::Display for Refused<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<V> std::error::Error for Refused<V> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(|error| error as _)
    }
}

impl<V> From<Refused<V>> for io::Error {
    /// Drops the operation.
    fn from(refused: Refused<V>) -> Self {
        refused.error
    }
}
