//! What a transfer may ask for beyond its bytes: durability, a priority, not to wait.

use crate::future::Op;
use crate::op::Operation;

/// How urgent a transfer is for the kernel's I/O scheduler: `ioprio_set(2)`. Levels are 0 (first) to 7.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Priority;
/// // What nobody waits for gives way to what somebody does, where the disk's scheduler knows priorities.
/// let background = file.read_at(vec![0; 5], 0).priority(Priority::Idle);
/// let urgent = file.read_at(vec![0; 5], 7).priority(Priority::BestEffort(0));
/// assert_eq!((urgent.wait().0?, background.wait().0?), (5, 5));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// When nobody else wants the disk.
    Idle,
    /// The ordinary class; 4 is the level that processes have unless they are niced.
    BestEffort(u8),
    /// Before all others. Needs `CAP_SYS_NICE` or `CAP_SYS_ADMIN`: else `EPERM`.
    Realtime(u8),
}

impl Priority {
    /// As the kernel writes it: class and level. `None` for a level that there is not.
    ///
    /// # Examples
    /// ```
    /// use polyaio::Priority;
    /// // IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 4), what a process has that is not niced.
    /// assert_eq!(Priority::BestEffort(4).to_ioprio(), Some(2 << 13 | 4));
    /// assert_eq!(Priority::BestEffort(8).to_ioprio(), None, "an operation with it fails with EINVAL");
    /// ```
    pub fn to_ioprio(self) -> Option<u16> {
        let (class, level) = match self {
            Self::Realtime(level) => (1, level),
            Self::BestEffort(level) => (2, level),
            Self::Idle => (3, 0),
        };
        (level < 8).then_some(class << 13 | u16::from(level))
    }
}

/// What of a write is durable when it completes.
///
/// # Examples
/// What a backend is asked for, and may answer by the flag of `pwritev2(2)`:
/// ```
/// use polyaio::Durability;
/// let flag = |durability| match durability {
///     Durability::Later => 0,
///     Durability::Data => libc::RWF_DSYNC, // `Op::dsync`
///     _ => libc::RWF_SYNC,                 // `Op::sync`
/// };
/// assert_eq!(flag(Durability::default()), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing, before a sync.
    #[default]
    Later,
    /// Its data, and the metadata that is needed to find it, as with `O_DSYNC`.
    Data,
    /// Its data, and all metadata of the file, as with `O_SYNC`.
    All,
}

/// The same, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// At the end of the file, wherever that is.
    pub(crate) append: bool,
    pub(crate) durability: Durability,
    /// `EAGAIN` is the caller's.
    pub(crate) nowait: bool,
    pub(crate) priority: Option<Priority>,
    /// Nothing is transferred: it is over when something could be.
    pub(crate) look: bool,
}

/// Where a transfer goes, and how. Two words, so that an operation with a buffer's handle of 64 bytes fits into a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    offset: u64,
    positioned: bool,
    pub(crate) how: How,
}

const _: () = assert!(size_of::<At>() == 16);

impl At {
    pub(crate) fn offset(offset: u64) -> Self {
        Self { offset, positioned: true, how: How::default() }
    }

    /// At the file's or stream's own position.
    pub(crate) fn position() -> Self {
        Self { offset: 0, positioned: false, how: How::default() }
    }

    /// Nowhere: nothing is transferred.
    pub(crate) fn look() -> Self {
        Self { how: How { look: true, ..How::default() }, ..Self::position() }
    }

    /// At the end of the file. The position does not move.
    pub(crate) fn end() -> Self {
        Self { how: How { append: true, ..How::default() }, ..Self::offset(0) }
    }

    pub(crate) fn place(self) -> Option<u64> {
        self.positioned.then_some(self.offset)
    }
}

/// Reads and writes, which can be told how. Implemented by this crate only.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{Op, Priority, ops::Transfer};
/// /// Reads and writes alike, with one buffer or several.
/// fn in_background<T: Transfer>(transfer: Op<T>) -> Op<T> {
///     transfer.priority(Priority::Idle)
/// }
/// in_background(file.write_all_at("HELLO", 0)).wait().0?;
/// in_background(file.read_vectored_at([vec![0; 2], vec![0; 3]], 0)).wait().0?;
///
/// /// The buffer alone, where there is no time to wait for a place.
/// fn now_or_never<T: Transfer>(transfer: Op<T>) -> Result<Op<T>, T::Buffer> {
///     transfer.try_start().map_err(|busy| busy.into_buf())
/// }
/// assert!(now_or_never(file.write_at("HELLO", 0)).is_ok_and(|write| write.wait().0.is_ok()));
/// # Ok(()) }
/// ```
pub trait Transfer: Operation {
    /// The buffer, or the list of buffers.
    type Buffer;

    #[doc(hidden)]
    fn how(&mut self) -> &mut How;

    #[doc(hidden)]
    fn into_buffer(self) -> Self::Buffer;
}

/// Transfers that are one call of the operating system. Implemented by this crate only.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{Op, ops::Once};
/// /// Not for the looping ones: `write_all_at` and `read_exact_at` cannot stop half-way for want of patience.
/// fn only_if_quick<T: Once>(transfer: Op<T>) -> Op<T> {
///     transfer.nowait()
/// }
/// if let Err(error) = only_if_quick(file.read_at(vec![0; 5], 0)).wait().0 {
///     // Not in the page cache, or the file system does not know.
///     assert!(matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EOPNOTSUPP)));
/// }
/// # Ok(()) }
/// ```
pub trait Once: Transfer {}

/// Writes. Implemented by this crate only.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{Op, ops::Writing};
/// fn durable<T: Writing>(write: Op<T>, paranoid: bool) -> Op<T> {
///     if paranoid { write.sync() } else { write.dsync() }
/// }
/// durable(file.append("!"), true).wait().0?;
/// durable(file.write_vectored_at(["HELLO".to_owned(), ", world".to_owned()], 0), false).wait().0?;
/// # Ok(()) }
/// ```
pub trait Writing: Transfer {}

/// How a transfer is done. To be said before it is polled.
impl<T: Transfer> Op<T> {
    /// Gives the transfer a priority of its own, where there is a scheduler to hear of it: in kernel AIO with the request, on
    /// the thread pool by the worker's own priority during the call (two system calls more). A transfer that completes in
    /// the caller, or on a stream, has none.
    ///
    /// # Errors
    /// The operation fails with `EPERM` where the priority needs rights that the process lacks, and with `EINVAL` for a
    /// level above 7.
    ///
    /// # Panics
    /// Panics if the operation was polled before.
    ///
    /// # Platform
    /// Linux; kernel AIO since 4.18 (before, it has no effect there). On other systems it has no effect.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{Engine, OpenOptions, Priority};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
    /// file.write_all_at("in the background, and durable", 0).priority(Priority::Idle).dsync().wait().into_result()?;
    /// # Ok(()) }
    /// ```
    pub fn priority(self, priority: Priority) -> Self {
        self.adjust(|operation| operation.how().priority = Some(priority))
    }
}

/// How a transfer is done that is one call of the operating system.
impl<T: Once> Op<T> {
    /// Fails instead of waiting, as `RWF_NOWAIT`: without a fallback, what would block is the caller's `EAGAIN`. So a read
    /// gets what is in the page cache, and perhaps less than is in the file; a stream gives what it has. The operation
    /// itself is still asynchronous.
    ///
    /// # Errors
    /// The operation fails with `EAGAIN` where it would have to wait: for a disk, for the other end of a stream, or for those
    /// before it on the stream. `EOPNOTSUPP` the file knows no NOWAIT: on Linux a buffered write on most file systems, any
    /// transfer on overlayfs, a FIFO or terminal that is not non-blocking. `EINVAL` it is misaligned: the detour that such
    /// transfers make waits.
    ///
    /// # Panics
    /// Panics if the operation was polled before.
    ///
    /// # Platform
    /// Streams: everywhere. Files: Linux; `EOPNOTSUPP` elsewhere.
    ///
    /// # References
    /// preadv2(2)
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// let error = reader.read(vec![0; 1]).nowait().wait().0.unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "nothing was written yet");
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn nowait(self) -> Self {
        self.adjust(|operation| operation.how().nowait = true)
    }
}

/// What of a write is durable when it completes.
impl<T: Writing> Op<T> {
    /// The write completes when its data is durable, and the metadata that is needed to find it: as if the file were open
    /// with `O_DSYNC` ([`Durability::Data`]). By `RWF_DSYNC`, or by an `fdatasync(2)` after the write where that is missing.
    ///
    /// # Errors
    /// The operation also fails with the errors of [`sync_data`](crate::File::sync_data); the bytes may have been written.
    /// `EOPNOTSUPP` a stream.
    ///
    /// # Panics
    /// Panics if the operation was polled before.
    ///
    /// # References
    /// pwritev2(2)
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.write_all_at("HELLO", 0).dsync().wait().0?; // on the disk, without a sync of the whole file
    /// # Ok(()) }
    /// ```
    pub fn dsync(self) -> Self {
        self.adjust(|operation| operation.how().durability = Durability::Data)
    }

    /// As [`dsync`](Self::dsync), and all metadata of the file: as if it were open with `O_SYNC` ([`Durability::All`],
    /// `RWF_SYNC`).
    ///
    /// # Errors
    /// As [`dsync`](Self::dsync).
    ///
    /// # Panics
    /// Panics if the operation was polled before.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.append("!").sync().wait().0?; // the data, and the file's new length
    /// # Ok(()) }
    /// ```
    pub fn sync(self) -> Self {
        self.adjust(|operation| operation.how().durability = Durability::All)
    }
}

/// Which operations can be told what.
mod transfers {
    use super::{How, Once, Transfer, Writing};
    use crate::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
    use crate::op;

    macro_rules! transfers {
        ($($name:ident<$buffer:ident>($field:ident): $($more:ident),*;)+) => {$(
            impl<B: $buffer> Transfer for op::$name<B> {
                type Buffer = B;

                fn how(&mut self) -> &mut How {
                    &mut self.at.how
                }

                fn into_buffer(self) -> B {
                    self.$field
                }
            }
            $(impl<B: $buffer> $more for op::$name<B> {})*
        )+};
    }

    transfers! {
        Read<IoBufMut>(buffer): Once;
        ReadExact<IoBufMut>(buffer): ;
        Write<IoBuf>(buffer): Once, Writing;
        WriteAll<IoBuf>(buffer): Writing;
        ReadVectored<IoVecBufMut>(buffers): Once;
        ReadExactVectored<IoVecBufMut>(buffers): ;
        WriteVectored<IoVecBuf>(buffers): Once, Writing;
        WriteAllVectored<IoVecBuf>(buffers): Writing;
    }
}
