//! Errors of everything but the data path, and [`BufResult`], which gives the buffer back whatever happened.
//!
//! Data-path errors are [`std::io::Error`]s that keep their `raw_os_error`. Where the crate has more to say than the kernel
//! ([`Error::Strict`], [`Error::EngineClosed`], [`Error::Forked`]) the inner error is an [`Error`], which keeps the number.

use std::io;
use std::path::PathBuf;

use crate::completion::Errno;

mod advice;

/// Why an engine or a file could not be made or used. Each kind says what the caller can do.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use polyaio::{Engine, Error, OpenOptions};
/// match OpenOptions::new().read(true).open(&Engine::new()?, &path) {
///     Ok(_) => println!("it is there"),
///     Err(error @ Error::Open { .. }) if error.kind() == std::io::ErrorKind::NotFound => println!("{error}"),
///     Err(other) => return Err(other.into()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open the file; the error number tells why, and the text what to do.
    #[error("cannot open {}: {source}{}", path.display(), after_colon(advice::on_opening(source)))]
    Open {
        /// The file.
        path: PathBuf,
        /// `open(2)`'s error, with its number.
        source: io::Error,
    },

    /// `Direct::Required` (or `Direct::Preferred` on a strict engine), but the file cannot be opened with `O_DIRECT`.
    #[error(
        "{} cannot be opened for direct I/O: its file system ({file_system}) refuses O_DIRECT ({errno}); use \
         Direct::Preferred (not strict) to go on with buffered I/O, or another file system",
        path.display()
    )]
    DirectRefused {
        /// The file.
        path: PathBuf,
        /// Its file system.
        file_system: String,
        /// What `open(2)` answered.
        errno: Errno,
    },

    /// The options contradict each other or have a value that makes no sense.
    #[error("{0}")]
    Options(String),

    /// A backend name that no backend has.
    #[error("there is no backend {name:?}{}; use one of: {}", not_compiled_in(name), known.join(", "))]
    UnknownBackend {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },

    /// `Policy::Require` (or a strict engine) names a backend that did not start.
    #[error("the required backend {name} did not start: {reason}")]
    BackendUnavailable {
        /// The backend.
        name: &'static str,
        /// Why, and what an operator can do.
        reason: String,
    },

    /// The strict engine, or a required backend, refuses what only a fallback could serve. Change the request as the text
    /// says, or the policy.
    #[error("strict: {what}")]
    Strict {
        /// What was wanted, of whom, what was missing, the [`Reason`](crate::Reason) of the fallback that was refused, and
        /// what to do.
        what: String,
        /// What the refusing backend said, where one was asked.
        errno: Option<Errno>,
    },

    /// The engine has been shut down or dropped. Keep it alive for as long as its files are used.
    #[error("the engine of this file has been shut down: keep the `Engine` alive while its files are used")]
    EngineClosed,

    /// The process was forked after the engine was made. Make a new engine in the child.
    #[error("this engine belongs to the parent process and cannot be used after fork: make a new one in the child")]
    Forked,

    /// A system call that the engine needs failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The error, with its number.
        source: io::Error,
    },
}

impl Error {
    /// The operating system's error number behind it, where there is one; on Windows its code, which
    /// [`Errno::of`](crate::Errno::of) an [`io::Error`] translates.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// let error = polyaio::OpenOptions::new().read(true).open(&engine, "/no/such/file").unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    /// # Ok(()) }
    /// ```
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. } | Self::System { source, .. } => source.raw_os_error(),
            Self::DirectRefused { errno, .. } => io::Error::from(*errno).raw_os_error(),
            Self::Strict { errno, .. } => errno.and_then(|errno| io::Error::from(errno).raw_os_error()),
            _ => None,
        }
    }

    /// The nearest [`io::ErrorKind`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// use std::io::ErrorKind;
    /// let options = polyaio::OpenOptions::new();
    /// assert_eq!(options.clone().read(true).open(&engine, "/no/such/file").unwrap_err().kind(), ErrorKind::NotFound);
    /// // Neither read nor write:
    /// assert_eq!(options.open(&engine, "file").unwrap_err().kind(), ErrorKind::InvalidInput);
    /// # Ok(()) }
    /// ```
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Open { source, .. } | Self::System { source, .. } => source.kind(),
            Self::DirectRefused { .. } | Self::BackendUnavailable { .. } | Self::Strict { .. } => {
                io::ErrorKind::Unsupported
            }
            Self::Options(_) | Self::UnknownBackend { .. } => io::ErrorKind::InvalidInput,
            Self::EngineClosed => io::ErrorKind::NotConnected,
            Self::Forked => io::ErrorKind::Other,
        }
    }

    /// An error of an operation, in words for who has to do something about it: what happened, and what to do.
    ///
    /// Errors of operations are the operating system's, with its number and its words: `Bad file descriptor (os error 9)`.
    /// This adds what such a number usually means here. An error that is one of this crate's says so by itself, and is told
    /// as it is.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("greeting");
    /// # std::fs::write(&path, "hello, world")?;
    /// use polyaio::{BufResult, Engine, Error, OpenOptions};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().read(true).open(&engine, &path)?;
    /// let BufResult(written, _) = file.write_at("HELLO", 0).wait();
    /// let error = written.unwrap_err();
    /// assert!(Error::explain(&error).contains("was not opened for this"));
    /// # Ok(()) }
    /// ```
    pub fn explain(error: &io::Error) -> String {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(own) => own.to_string(),
            None => format!("{error}{}", after_colon(advice::on_operating(error))),
        }
    }

    #[cfg(unix)]
    pub(crate) fn system(what: &'static str) -> Self {
        Self::System { what, source: io::Error::last_os_error() }
    }
}

/// What follows a sentence, where there is something.
fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// A remark on a name that other builds of the crate know.
pub(crate) fn not_compiled_in(name: &str) -> &'static str {
    match name {
        "kernel-aio" if cfg!(not(target_os = "linux")) => " on this platform",
        "kernel-aio" if cfg!(not(feature = "kernel-aio")) => " in this build (it has not the feature kernel-aio)",
        "posix-aio" if cfg!(not(feature = "posix-aio")) => " in this build (it has not the feature posix-aio)",
        _ => "",
    }
}

impl From<Error> for io::Error {
    /// Keeps the kind, and this error as the inner one.
    fn from(error: Error) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// The result of an operation on a buffer, and the buffer.
///
/// # Examples
/// ```
/// # use polyaio::BufResult;
/// let BufResult(n, buf) = BufResult(Ok(3), vec![1, 2, 3]);
/// assert_eq!(&buf[..n?], [1, 2, 3]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the operation may have failed"]
pub struct BufResult<T, B>(pub io::Result<T>, pub B);

impl<T, B> BufResult<T, B> {
    /// Drops the buffer on failure, so that `?` can be used.
    ///
    /// # Errors
    /// The operation's own.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let (n, buf) = file.read_at(vec![0; 5], 0).wait().into_result()?;
    /// assert_eq!(&buf[..n], b"hello");
    /// # Ok(()) }
    /// ```
    pub fn into_result(self) -> io::Result<(T, B)> {
        self.0.map(|value| (value, self.1))
    }

    /// Changes the value, not the buffer's.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let result = file.read_at(vec![0; 5], 0).wait().map(|n| n == 5);
    /// assert!(result.0?);
    /// # Ok(()) }
    /// ```
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> BufResult<U, B> {
        BufResult(self.0.map(f), self.1)
    }
}
