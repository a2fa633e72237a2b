//! What most authors of a backend want: a function that serves one operation and may block, without a line of unsafe code.

use std::io;
use std::path::Path;

use super::{Capabilities, Operation, VirtualFile};
use crate::completion::{Errno, Outcome};
use crate::open::OpenOptions;
use crate::os;
use crate::request::{OpKind, RawHandle, Request};

/// Serves one operation at a time on a thread that it may block: a [`Backend`](super::Backend) for those who need no
/// completions, no batches and no unsafe code.
///
/// [`EngineBuilder::sync_backend`](crate::EngineBuilder::sync_backend) runs it on threads of its own, which are started as
/// they are needed; [`Threaded`](crate::backends::thread_pool::Threaded) is the [`Backend`](super::Backend) that does so.
/// What is asked of every backend is done there: the bound of the queue, exactly one completion, cancelling, the end.
///
/// - [`execute`](Self::execute) is called by several threads at once, in any order. What has an order (syncs after the writes
///   before them, appends) is kept by the engine: such an operation is handed out once those before it are over.
/// - A panic in it is contained: the operation fails with `EIO`, and the thread goes on.
/// - As long as an operation waits for a thread it can be cancelled, or is dropped where nobody waits for it; then `execute`
///   is never called for it. Once called, it is waited for.
/// - The engine's end waits for what it has been given. There is no method for the end: what has to happen then belongs into
///   `Drop`, which may run on one of the threads, just after the engine has ended.
///
/// # Examples
/// A file of zeroes that nobody has to store:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{io, path::Path, sync::Arc};
/// use polyaio::backend::{Capabilities, OpSet, Operation, Serves, SyncBackend, VirtualFile};
/// use polyaio::{Engine, OpKind, OpenOptions};
///
/// struct Zeroes;
///
/// impl SyncBackend for Zeroes {
///     fn name(&self) -> &'static str {
///         "zeroes"
///     }
///
///     fn capabilities(&self) -> Capabilities {
///         let mut capabilities = Capabilities::new(64);
///         capabilities.operations = OpSet::NONE.with(OpKind::Read).with(OpKind::Len);
///         capabilities.serves = Serves::OwnFiles;
///         capabilities
///     }
///
///     fn open(&self, path: &Path, _options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
///         (path == Path::new("zeroes:")).then_some(Ok(VirtualFile { number: 1, alignment: 1 }))
///     }
///
///     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
///         match operation.kind() {
///             OpKind::Read => Ok(operation.room().fill(0, usize::MAX) as u64),
///             OpKind::Len => Ok(u64::MAX),
///             _ => Err(io::ErrorKind::Unsupported.into()),
///         }
///     }
/// }
///
/// let engine = Engine::builder().sync_backend(Arc::new(Zeroes)).build()?;
/// let file = OpenOptions::new().read(true).open(&engine, "zeroes:")?;
/// let (n, buffer) = file.read_at(vec![1; 5], 1 << 40).wait().into_result()?;
/// assert_eq!((n, &buffer[..]), (5, &[0; 5][..]));
/// # Ok(()) }
/// ```
pub trait SyncBackend: Send + Sync {
    /// The name by which policies (and `POLYAIO_BACKEND`) select it and reports call it.
    fn name(&self) -> &'static str;

    /// What it can do. Asked once, when it is started.
    ///
    /// [`queue_bound`](Capabilities::queue_bound) is how many operations it is given at the most, waiting and being served.
    /// [`cancel`](Capabilities::cancel), [`revocable`](Capabilities::revocable) and [`reaped`](Capabilities::reaped) are not
    /// asked for. [`OpKind::Close`] need not be among the operations, and [`OpKind::Open`] is the thread pool's.
    fn capabilities(&self) -> Capabilities;

    /// Opens `path` as a file that no kernel knows.
    ///
    /// `None` (the default) leaves the path to the next backend, and in the end to the operating system. Called on the thread
    /// that opens the file, before `open(2)` is. The engine keeps the access mode: a file that was opened for reading is
    /// never asked to write. To create and to cut the file, as the options say, is up to the backend.
    fn open(&self, path: &Path, options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        let _ = (path, options);
        None
    }

    /// Closes a file that [`open`](Self::open) made: once, after all its operations.
    ///
    /// Called on a thread of the backend for [`File::close`](crate::File::close), which then returns its error; otherwise by
    /// whoever lets go of the file last, on any thread, perhaps after the engine's end, and the error is lost.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::{io, path::Path, sync::{Arc, Mutex}};
    /// # use polyaio::backend::{Capabilities, OpSet, Operation, Serves, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// #[derive(Default)]
    /// struct Counted(Mutex<i64>);
    ///
    /// impl SyncBackend for Counted {
    ///     fn open(&self, _path: &Path, _options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    ///         *self.0.lock().unwrap() += 1;
    ///         Some(Ok(VirtualFile { number: 7, alignment: 1 }))
    ///     }
    ///
    ///     fn close(&self, number: u64) -> io::Result<()> {
    ///         *self.0.lock().unwrap() -= 1;
    ///         if number == 7 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    ///     }
    ///     // ...
    /// #   fn name(&self) -> &'static str { "counted" }
    /// #   fn capabilities(&self) -> Capabilities { Capabilities::new(1) }
    /// #   fn execute(&self, _: &mut Operation<'_>) -> io::Result<u64> { Err(io::ErrorKind::Unsupported.into()) }
    /// }
    ///
    /// let files = Arc::new(Counted::default());
    /// let engine = Engine::builder().sync_backend(files.clone()).build()?;
    /// let file = OpenOptions::new().read(true).open(&engine, "any")?;
    /// assert_eq!(file.close().wait().unwrap_err().raw_os_error(), Some(libc::ENOSPC), "as of a delayed write");
    /// drop(OpenOptions::new().read(true).open(&engine, "any")?); // nobody hears of the error
    /// assert_eq!(*files.0.lock().unwrap(), 0);
    /// # Ok(()) }
    /// ```
    fn close(&self, number: u64) -> io::Result<()> {
        let _ = number;
        Ok(())
    }

    /// Serves one operation, blocking the thread as long as it takes.
    ///
    /// Returns how many bytes were transferred (0 is the end of the file; fewer than asked for are a short transfer, which
    /// the engine finishes where the caller asked for all or nothing), for [`OpKind::Len`] the length, and 0 for the rest.
    /// More than was asked for, or more than a read has put into [`Operation::room`], becomes `EIO` and is counted
    /// ([`Anomalies::implausible`](crate::Anomalies::implausible)).
    ///
    /// # Errors
    /// What the caller is told: the error number, where the error has one; else the one that belongs to its
    /// [`kind`](io::Error::kind), or `EIO`. A text beside it is lost. For operations on a descriptor some errors mean "not
    /// here": `EOPNOTSUPP` ([`Unsupported`](io::ErrorKind::Unsupported)), `ENOSYS`, `EINVAL` and `EPERM` send the operation
    /// to the next backend, visibly, so that they must not be answered after a part was transferred: that is a short transfer.
    /// `EINTR` has it executed once more.
    fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64>;
}

/// Serves a request by a backend. `call`: the ordinary system call.
pub(crate) fn serve(backend: &dyn SyncBackend, request: &mut Request, call: fn(&mut Request) -> Outcome) -> Outcome {
    match (request.kind(), request.handle()) {
        (OpKind::Close, RawHandle::Virtual(number)) => close(backend, number).map(|()| 0),
        // They go to the thread pool, which knows what else there is to be closed.
        (OpKind::Close, RawHandle::Descriptor(_)) => Err(Errno(libc::EOPNOTSUPP)),
        _ => {
            if request.kind().is_transfer() {
                request.check()?;
            }
            let mut operation = Operation::new(request, call);
            let result = backend.execute(&mut operation);
            operation.settle(result)
        }
    }
}

/// Closes a virtual file. It is closed whatever it answers: what would have the engine try once more becomes `EIO`.
fn close(backend: &dyn SyncBackend, number: u64) -> Result<(), Errno> {
    backend.close(number).map_err(|error| match errno(&error) {
        Errno(libc::EINTR | libc::ECANCELED) => Errno(libc::EIO),
        errno => errno,
    })
}

/// The number of an error, or the one that says the same as its kind.
pub(super) fn errno(error: &io::Error) -> Errno {
    use io::ErrorKind as Kind;
    let number = match error.kind() {
        _ if os::number_of(error).is_some_and(|number| number > 0) => os::number_of(error).unwrap_or(libc::EIO),
        Kind::NotFound => libc::ENOENT,
        Kind::PermissionDenied => libc::EACCES,
        Kind::AlreadyExists => libc::EEXIST,
        Kind::WouldBlock => libc::EAGAIN,
        Kind::NotADirectory => libc::ENOTDIR,
        Kind::IsADirectory => libc::EISDIR,
        Kind::ReadOnlyFilesystem => libc::EROFS,
        Kind::StaleNetworkFileHandle => os::ESTALE,
        Kind::InvalidInput => libc::EINVAL,
        Kind::TimedOut => libc::ETIMEDOUT,
        Kind::StorageFull | Kind::WriteZero => libc::ENOSPC,
        Kind::NotSeekable => libc::ESPIPE,
        Kind::QuotaExceeded => os::EDQUOT,
        Kind::FileTooLarge => libc::EFBIG,
        Kind::ResourceBusy => libc::EBUSY,
        Kind::Deadlock => libc::EDEADLK,
        Kind::Interrupted => libc::EINTR,
        Kind::Unsupported => libc::EOPNOTSUPP,
        Kind::OutOfMemory => libc::ENOMEM,
        Kind::BrokenPipe => libc::EPIPE,
        Kind::ConnectionRefused => libc::ECONNREFUSED,
        Kind::ConnectionReset => libc::ECONNRESET,
        Kind::ConnectionAborted => libc::ECONNABORTED,
        Kind::NotConnected => libc::ENOTCONN,
        Kind::HostUnreachable => libc::EHOSTUNREACH,
        Kind::NetworkUnreachable => libc::ENETUNREACH,
        Kind::NetworkDown => libc::ENETDOWN,
        _ => libc::EIO,
    };
    Errno(number)
}

#[cfg(all(test, unix, not(polyaio_loom)))]
mod tests {
    use super::*;

    /// What the operating system calls so by its number is called so by its kind.
    #[test]
    fn kinds_have_the_number_that_has_their_kind() {
        for number in 1..200 {
            let kind = io::Error::from_raw_os_error(number).kind();
            assert_eq!(errno(&io::Error::from_raw_os_error(number)), Errno(number));
            let again = errno(&io::Error::new(kind, "in words"));
            let same = io::Error::from_raw_os_error(again.0).kind() == kind;
            assert!(same || again == Errno(libc::EIO), "{number}: {kind:?} became {again:?}");
        }
        assert_eq!(errno(&io::ErrorKind::UnexpectedEof.into()), Errno(libc::EIO));
        assert_eq!(errno(&io::Error::from_raw_os_error(0)), Errno(libc::EIO));
        assert_eq!(errno(&io::Error::from_raw_os_error(-5)), Errno(libc::EIO));
    }
}
