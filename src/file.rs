//! (1) The user's call: what can be done with an open file.

use std::future::IntoFuture as _;
use std::sync::Arc;

use crate::batch::{self, Batch};
use crate::buf::{AlignedBuf, IoBuf, IoBufMut};
use crate::descriptor::OpenFile;
use crate::error::BufResult;
use crate::future::Op;
use crate::how::At;
use crate::metadata::Advice;
use crate::op::{Advise, Control, Len, Read, ReadExact, Write, WriteAll};
#[cfg(unix)]
use crate::os::AsRawFd;
use crate::os::RawFd;
use crate::refused::Busy;
use crate::request::OpKind;
use crate::route::Route;
use crate::router::facts::{Alignment, Facts};

mod position;
mod vectored;

/// An open file of an [`Engine`](crate::Engine): a regular file, a block device, or a stream (pipe, socket, terminal ...).
///
/// Clones refer to the same descriptor, which is closed when the last clone and the last request are gone, or by
/// [`close`](Self::close). All operations return an [`Op`]: a `Send` future for any executor, with
/// [`wait`](Op::wait) for none.
///
/// Operations have no order among themselves, but for three: writes to a file opened for appending, and transfers at the
/// position, happen in the order in which they were first polled; [`sync_all`](Self::sync_all) and
/// [`sync_data`](Self::sync_data) cover every write that was first polled before them.
///
/// # Direct I/O
/// Transfers whose memory, offset or length a file opened with `O_DIRECT` refuses (see [`Facts::alignment`]) are served
/// through the page cache, on a worker, and counted as [`Misaligned`](crate::Reason::Misaligned); on a strict engine they
/// fail with an error that names the alignment. Within one `File` and its clones, direct and misaligned transfers of the same
/// page do not disturb each other. Elsewhere (another `File` of the same path, another process) mixing direct and buffered
/// access is as undefined as open(2) says.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use polyaio::{BufResult, Engine, OpenOptions};
/// let engine = Engine::new()?;
/// let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, &path)?;
/// file.write_all_at("hello, world", 0).wait().0?;
/// file.sync_data().wait()?;
/// let BufResult(n, buf) = file.read_at(vec![0; 100], 7).wait();
/// assert_eq!(&buf[..n?], b"world");
/// file.close().wait()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct File {
    inner: Arc<OpenFile>,
}

impl File {
    pub(crate) fn new(inner: Arc<OpenFile>) -> Self {
        Self { inner }
    }

    pub(crate) fn open_file(&self) -> &Arc<OpenFile> {
        &self.inner
    }

    /// Reads up to the buffer's length (a `Vec`'s capacity) from `offset` bytes into the file on, as `pread(2)`.
    ///
    /// Returns the number of bytes, which may be less than asked for; 0 at the end of the file. The position does not
    /// move. On a stream `offset` must be 0.
    ///
    /// # Errors
    /// `EBADF` not open for reading, or closed; `EINVAL` the offset is beyond `i64::MAX`; `ESPIPE` an offset on a stream;
    /// `EISDIR` a directory; `EIO` the device failed. Others as `pread(2)`. [`Error::explain`](crate::Error::explain) says what
    /// to do about each.
    ///
    /// # Cancel safety
    /// The buffer of a dropped read is freed when the kernel is done with it. See [`Op`].
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
    /// let BufResult(n, buf) = file.read_at(Vec::with_capacity(5), 7).wait();
    /// assert_eq!(&buf[..n?], b"world");
    /// # Ok(()) }
    /// ```
    pub fn read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> Op<Read<B>> {
        self.op(Read { buffer: buf, at: At::offset(offset) })
    }

    /// As [`read_at`](Self::read_at), begun at once if the engine has room for it; else the buffer comes back.
    /// [`Op::try_start`] says what that means, and does the same for every other operation.
    ///
    /// # Errors
    /// [`Busy`] with the buffer. What is wrong with the read is its result.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// match file.try_read_at(vec![0; 5], 7) {
    ///     Ok(read) => assert_eq!(read.wait().1, b"world"),
    ///     Err(busy) => drop(busy.into_inner()), // the buffer
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> Result<Op<Read<B>>, Busy<B>> {
        self.read_at(buf, offset).try_start().map_err(|busy| busy.map(|op| op.into_fresh().buffer))
    }

    /// Reads at many places, submitted together: each buffer from its offset on, as [`read_at`](Self::read_at). The results
    /// come in the order of the ranges, once all are there.
    ///
    /// # Cancel safety
    /// The buffers of a dropped future are freed when the kernel is done with them.
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
    /// let words = file.read_many_at([(vec![0; 5], 0), (vec![0; 5], 7)]).wait();
    /// let words: Vec<_> = words.into_iter().map(|BufResult(n, word)| (n.unwrap(), word)).collect();
    /// assert_eq!(words, [(5, b"hello".to_vec()), (5, b"world".to_vec())]);
    /// # Ok(()) }
    /// ```
    pub fn read_many_at<B: IoBufMut>(
        &self,
        ranges: impl IntoIterator<Item = (B, u64)>,
    ) -> batch::All<BufResult<usize, B>> {
        let mut batch = Batch::new(self.inner.core.clone());
        for (buf, offset) in ranges {
            batch.push(self.read_at(buf, offset), |result| result);
        }
        batch.into_future()
    }

    /// Writes up to the buffer's length at `offset` bytes into the file, as `pwrite(2)`.
    ///
    /// Returns the number of bytes, which may be less than asked for. A file opened for appending ignores the offset. The
    /// position does not move. On a stream `offset` must be 0.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at), and `ENOSPC` the disk is full, `EFBIG` the file would be too large, `EPIPE` nobody
    /// reads the other end.
    ///
    /// # Cancel safety
    /// A dropped write that was sent goes on. See [`Op`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::BufResult;
    /// let BufResult(n, text) = file.write_at("HELLO", 0).wait();
    /// assert_eq!((n?, text), (5, "HELLO"));
    /// assert_eq!(std::fs::read(&path)?, b"HELLO, world");
    /// # Ok(()) }
    /// ```
    pub fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> Op<Write<B>> {
        self.op(Write { buffer: buf, at: At::offset(offset) })
    }

    /// As [`write_at`](Self::write_at), begun at once if the engine has room for it; else the buffer comes back.
    /// [`Op::try_start`] says what that means, and does the same for every other operation.
    ///
    /// # Errors
    /// [`Busy`] with the buffer. What is wrong with the write is its result.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// match file.try_write_at("HELLO", 0) {
    ///     Ok(write) => assert_eq!(write.wait().0?, 5),
    ///     Err(busy) => println!("later: {}", busy.into_inner()),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_write_at<B: IoBuf>(&self, buf: B, offset: u64) -> Result<Op<Write<B>>, Busy<B>> {
        self.write_at(buf, offset).try_start().map_err(|busy| busy.map(|op| op.into_fresh().buffer))
    }

    /// Reads from `offset` until the buffer is full (a `Vec`: its capacity).
    ///
    /// # Errors
    /// [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof) where the file ends before; the bytes that were there are in
    /// the buffer. Others as [`read_at`](Self::read_at).
    ///
    /// # Cancel safety
    /// As [`read_at`](Self::read_at).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::BufResult;
    /// let BufResult(done, word) = file.read_exact_at(vec![0; 5], 7).wait();
    /// done?;
    /// assert_eq!(word, b"world");
    /// let BufResult(done, _) = file.read_exact_at(vec![0; 100], 7).wait();
    /// assert_eq!(done.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    /// # Ok(()) }
    /// ```
    pub fn read_exact_at<B: IoBufMut>(&self, buf: B, offset: u64) -> Op<ReadExact<B>> {
        self.op(ReadExact { buffer: buf, at: At::offset(offset) })
    }

    /// Writes all of the buffer at `offset`.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at); a part may have been written. [`WriteZero`](std::io::ErrorKind::WriteZero) where
    /// the file takes nothing more without saying why.
    ///
    /// # Cancel safety
    /// As [`write_at`](Self::write_at).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.write_all_at(b"everybody".to_vec(), 7).wait().0?;
    /// assert_eq!(std::fs::read(&path)?, b"hello, everybody");
    /// # Ok(()) }
    /// ```
    pub fn write_all_at<B: IoBuf>(&self, buf: B, offset: u64) -> Op<WriteAll<B>> {
        self.op(WriteAll { buffer: buf, at: At::offset(offset) })
    }

    /// Writes all of the buffer at the end of the file, wherever that is; the position does not move. Appends of one `File`
    /// happen in the order in which they were first polled, and nobody's write comes in between one, unless it is too long
    /// for one call of the system and others write to the file by other means.
    ///
    /// # Errors
    /// As [`write_all_at`](Self::write_all_at). `EOPNOTSUPP` the file was not [opened for
    /// appending](crate::OpenOptions::append), and the kernel (before Linux 4.16) or the file cannot append all the same;
    /// `ESPIPE` a stream, which has no end.
    ///
    /// # Cancel safety
    /// As [`write_at`](Self::write_at).
    ///
    /// # Platform
    /// Files that were not opened for appending: Linux, by `RWF_APPEND`.
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
    /// file.append("!").wait().0?;
    /// assert_eq!(std::fs::read(&path)?, b"hello, world!");
    /// # Ok(()) }
    /// ```
    pub fn append<B: IoBuf>(&self, buf: B) -> Op<WriteAll<B>> {
        self.op(WriteAll { buffer: buf, at: At::end() })
    }

    /// Makes data and metadata durable, as `fsync(2)`: those of every write that was submitted before, also of writes that
    /// are still in flight.
    ///
    /// # Errors
    /// `EIO` data could not be written back; it may be lost. `EINVAL` the descriptor knows no sync (a pipe, a socket).
    ///
    /// # Cancel safety
    /// One that was sent goes on when it is dropped. See [`Op`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let (written, synced) = engine.block_on(async {
    ///     let write = file.write_all_at("HELLO", 0);
    ///     (write.await.0, file.sync_all().await)
    /// });
    /// written?;
    /// synced?;
    /// # Ok(()) }
    /// ```
    pub fn sync_all(&self) -> Op<Control> {
        self.control(OpKind::SyncAll, None, 0)
    }

    /// As [`sync_all`](Self::sync_all), but only the metadata that is needed to find the data, as `fdatasync(2)`.
    ///
    /// # Errors
    /// As [`sync_all`](Self::sync_all).
    ///
    /// # Cancel safety
    /// One that was sent goes on when it is dropped. See [`Op`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.write_all_at("HELLO", 0).wait().0?;
    /// file.sync_data().wait()?;
    /// # Ok(()) }
    /// ```
    pub fn sync_data(&self) -> Op<Control> {
        self.control(OpKind::SyncData, None, 0)
    }

    /// Cuts or extends the file to `len` bytes, as `ftruncate(2)`. What is added reads as zeroes.
    ///
    /// # Errors
    /// `EINVAL` the file is not regular, or not open for writing; `EFBIG`, `ENOSPC`. Others as `ftruncate(2)`.
    ///
    /// # Cancel safety
    /// One that was sent goes on when it is dropped. See [`Op`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.set_len(5).wait()?;
    /// assert_eq!(std::fs::read(&path)?, b"hello");
    /// # Ok(()) }
    /// ```
    pub fn set_len(&self, len: u64) -> Op<Control> {
        self.control(OpKind::SetLen, Some(len), 0)
    }

    /// Reserves `len` bytes of disk space from `offset` on, as `fallocate(2)`: the file becomes at least so long, and
    /// direct writes there are asynchronous.
    ///
    /// # Errors
    /// `EOPNOTSUPP` the file system cannot; `ENOSPC`; `EINVAL` for a length of 0. Others as `fallocate(2)`.
    ///
    /// # Cancel safety
    /// One that was sent goes on when it is dropped. See [`Op`].
    ///
    /// # Platform
    /// Linux; FreeBSD by `posix_fallocate(2)`; `EOPNOTSUPP` elsewhere.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// match file.allocate(0, 1 << 20).wait() {
    ///     Ok(()) => assert_eq!(file.len().wait()?, 1 << 20),
    ///     Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn allocate(&self, offset: u64, len: u64) -> Op<Control> {
        self.control(OpKind::Allocate, Some(offset), len)
    }

    /// Writes the data of `len` bytes from `offset` on (0: of all from there to the end) back to the disk, as
    /// `sync_file_range(2)`: the data of every write that was submitted before.
    ///
    /// **It makes nothing durable by itself.** No metadata is written: not the file's length, not where the data lies on the
    /// disk; and the disk's own cache is not flushed. After a crash, bytes that were appended, or written into holes or
    /// allocated space, may be gone whatever this call has said. It is for spreading the work of a later
    /// [`sync_data`](Self::sync_data) out, and for database files whose blocks were all written and synced before.
    ///
    /// # Errors
    /// `EIO` data could not be written back; `ENOSPC`; `ESPIPE` a stream.
    ///
    /// # Cancel safety
    /// One that was sent goes on when it is dropped. See [`Op`].
    ///
    /// # Platform
    /// On systems other than Linux it is [`sync_data`](Self::sync_data).
    ///
    /// # References
    /// sync_file_range(2)
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.write_all_at("HELLO", 0).wait().0?;
    /// file.sync_range(0, 5).wait()?;  // the disk begins now ...
    /// file.sync_data().wait()?;       // ... and has less to do here
    /// # Ok(()) }
    /// ```
    pub fn sync_range(&self, offset: u64, len: u64) -> Op<Control> {
        self.control(OpKind::SyncRange, Some(offset), len)
    }

    /// Gives the disk space of `len` bytes from `offset` on back: they read as zeroes. The file's length stays. A sync that
    /// is submitted later covers it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` the file system cannot; `EINVAL` for a length of 0; `EBADF` not open for writing; `ESPIPE` or `ENODEV` a
    /// stream.
    ///
    /// # Cancel safety
    /// One that was sent goes on when it is dropped. See [`Op`].
    ///
    /// # Platform
    /// Linux; `EOPNOTSUPP` elsewhere.
    ///
    /// # References
    /// fallocate(2), `FALLOC_FL_PUNCH_HOLE`
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// match file.punch_hole(0, 5).wait() {
    ///     Ok(()) => assert_eq!(std::fs::read(&path)?, b"\0\0\0\0\0, world"),
    ///     Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn punch_hole(&self, offset: u64, len: u64) -> Op<Control> {
        self.control(OpKind::PunchHole, Some(offset), len)
    }

    /// Tells the kernel what the program is going to do with `len` bytes from `offset` on (0: with all from there to the
    /// end), as `posix_fadvise(2)`. It changes nothing but speed.
    ///
    /// # Errors
    /// `ESPIPE` a stream.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped; the kernel may have been told.
    ///
    /// # Platform
    /// Linux; `EOPNOTSUPP` elsewhere.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// file.advise(0, 0, polyaio::Advice::Sequential).wait()?;
    /// # Ok(()) }
    /// ```
    pub fn advise(&self, offset: u64, len: u64, advice: Advice) -> Op<Advise> {
        self.op(Advise { advice, offset, length: len })
    }

    /// What is known of the file: length, space on the disk, times and so on, as `statx(2)`.
    ///
    /// # Errors
    /// Those of `statx(2)`; `EOPNOTSUPP` a backend's own file of which it tells nothing.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    ///
    /// # Platform
    /// `fstat(2)`, without the time of creation, where there is no `statx(2)`: other systems, Linux before 4.11.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let metadata = file.metadata().wait()?;
    /// assert!(metadata.is_file());
    /// assert_eq!(metadata.len, 12);
    /// # Ok(()) }
    /// ```
    pub fn metadata(&self) -> Op<crate::op::Metadata> {
        self.op(crate::op::Metadata::default())
    }

    /// Length in bytes: of a file, or of a block device.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
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
    // A file's length costs a system call, and there is no sensible `is_empty`.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> Op<Len> {
        self.op(Len)
    }

    /// Closes the file for all clones, after the requests in flight; transfers that wait for a stream end with `ECANCELED`.
    /// Operations that start later fail with `EBADF`.
    ///
    /// A worker that is inside a call on a FIFO or terminal may be there for ever, and is not waited for: the descriptor is
    /// closed when its call returns, and what `close(2)` says then is not reported.
    ///
    /// # Errors
    /// Those of `close(2)`, such as an `EIO` of delayed writes (NFS); the descriptor is closed all the same. `EBADF` where
    /// it was closed before.
    ///
    /// # Cancel safety
    /// Once polled, the file closes even if the operation is dropped.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let clone = file.clone();
    /// file.close().wait()?;
    /// let error = clone.len().wait().unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    /// # Ok(()) }
    /// ```
    pub fn close(self) -> Op<Control> {
        Op::new(self.inner, Control { kind: OpKind::Close, position: None, length: 0 })
    }

    /// Which backend serves each kind of operation now, and why. Changes as the file teaches the router.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let route = file.route();
    /// println!("{route}");
    /// for step in &route.read {
    ///     println!("reads: {}, because: {}", step.backend, step.reason);
    /// }
    /// for step in &route.passed {
    ///     println!("not {}: {}", step.backend, step.reason);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn route(&self) -> Route {
        self.inner.route()
    }

    /// What is known of the descriptor.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let facts = file.facts();
    /// assert!(facts.readable && facts.writable && !facts.direct);
    /// println!("{:?} on {}", facts.kind, facts.file_system);
    /// # Ok(()) }
    /// ```
    pub fn facts(&self) -> &Facts {
        &self.inner.facts
    }

    /// What transfers of this file must be multiples of: the addresses of memory, and offsets and lengths.
    ///
    /// Of a file opened for direct I/O that is what the file system says: `statx(2)` with `STATX_DIOALIGN` (Linux 6.1), else
    /// `XFS_IOC_DIOINFO`, else the logical block size of the device. Where nobody says (btrfs, NFS, FUSE) a page is assumed,
    /// of at least 4096 bytes. Of an emulated one it is the alignment that was asked for. It is 1 and 1 where nothing is
    /// demanded: of a file that goes through the page cache, of a stream, and of a direct file on tmpfs.
    ///
    /// # References
    /// open(2), statx(2), ioctl_xfs_fsgetxattr(2)
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{Direct, Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let mut options = OpenOptions::new();
    /// let buffered = options.write(true).create(true).open(&engine, &path)?;
    /// assert_eq!(buffered.alignment().offset, 1);
    /// let strict = options.direct(Direct::Emulated { alignment: 4096 }).open(&engine, &path)?;
    /// assert_eq!((strict.alignment().memory, strict.alignment().offset), (4096, 4096));
    /// # Ok(()) }
    /// ```
    pub fn alignment(&self) -> Alignment {
        self.inner.facts.transfer_alignment()
    }

    /// A buffer of zeroes that fits this file: at an address that it accepts, and of `len` bytes, rounded up to what
    /// lengths must be multiples of ([`alignment`](Self::alignment)). For a file that demands nothing it has just `len`
    /// bytes.
    ///
    /// # Panics
    /// As [`AlignedBuf::zeroed`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// use polyaio::{BufResult, Direct, Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().read(true).direct(Direct::Preferred).open(&engine, &path)?;
    /// let buffer = file.buffer(100);
    /// assert!(buffer.len() >= 100 && buffer.len().is_multiple_of(file.alignment().offset));
    /// let BufResult(n, buffer) = file.read_at(buffer, 0).wait();
    /// assert_eq!(&buffer[..n?], b"hello, world");
    /// # Ok(()) }
    /// ```
    pub fn buffer(&self, len: usize) -> AlignedBuf {
        let Alignment { memory, offset } = self.alignment();
        // What is too long by then is refused as what was too long before.
        let len = len.checked_next_multiple_of(offset.max(1)).unwrap_or(usize::MAX);
        AlignedBuf::zeroed(len, memory.max(align_of::<u64>()).next_power_of_two())
    }

    /// Whether it has no offsets: a pipe, socket, terminal or the like.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// assert!(reader.is_stream());
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn is_stream(&self) -> bool {
        self.inner.facts.is_stream()
    }

    /// What the operating system knows it by; -1 where it does not, or not any more.
    fn raw(&self) -> RawFd {
        if self.inner.is_closed() { -1 } else { self.inner.descriptor().unwrap_or(-1) }
    }

    fn control(&self, kind: OpKind, position: Option<u64>, length: u64) -> Op<Control> {
        self.op(Control { kind, position, length })
    }

    fn op<T: crate::op::Operation>(&self, operation: T) -> Op<T> {
        Op::new(self.inner.clone(), operation)
    }
}

#[cfg(unix)]
impl AsRawFd for File {
    /// The descriptor, for system calls that this crate does not offer; -1 for a virtual or closed file.
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsRawHandle for File {
    /// The handle, for calls that this crate does not offer; `INVALID_HANDLE_VALUE` for a virtual or closed file.
    fn as_raw_handle(&self) -> std::os::windows::io::RawHandle {
        self.raw() as std::os::windows::io::RawHandle
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File")
            .field("handle", &self.inner.handle)
            .field("facts", &self.inner.facts)
            .finish_non_exhaustive()
    }
}
