//! Transfers of several buffers at once.

use super::File;
use crate::buf::{IoVecBuf, IoVecBufMut};
use crate::future::Op;
use crate::how::At;
use crate::op::{ReadExactVectored, ReadVectored, WriteAllVectored, WriteVectored};

/// Several buffers, one after the other, in one transfer.
impl File {
    /// Reads from `offset` into several buffers, one after the other, as `preadv(2)`: each is full before the next has
    /// anything. Returns the number of bytes of all together, which may be less than asked for; 0 at the end of the file.
    ///
    /// `buffers` is a `Vec`, an array or a boxed slice of buffers, or whatever implements [`IoVecBufMut`]. Any number will
    /// do: up to 8 need no allocation. One call of the operating system takes 1024 (`IOV_MAX`), so that more are transferred
    /// in part; the [looping form](Self::read_exact_vectored_at) goes on. Empty buffers are left out. Direct I/O demands the
    /// alignment of each buffer.
    ///
    /// A backend that takes one buffer at a time (POSIX AIO) is given one after the other.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    ///
    /// # Cancel safety
    /// As [`read_at`](Self::read_at).
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
    /// let BufResult(n, [head, tail]) = file.read_vectored_at([vec![0; 5], vec![0; 9]], 0).wait();
    /// assert_eq!((n?, &head[..], &tail[..7]), (12, &b"hello"[..], &b", world"[..]));
    /// # Ok(()) }
    /// ```
    pub fn read_vectored_at<B: IoVecBufMut>(&self, buffers: B, offset: u64) -> Op<ReadVectored<B>> {
        self.op(ReadVectored { buffers, at: At::offset(offset) })
    }

    /// Writes several buffers, one after the other, at `offset`, as `pwritev(2)`. Returns the number of bytes, which may be
    /// less than asked for. See [`read_vectored_at`](Self::read_vectored_at) for what buffers may be, and how many.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
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
    /// let n = file.write_vectored_at(["HELLO", ", ", "WORLD"], 0).wait().0?;
    /// assert_eq!((n, &std::fs::read(&path)?[..]), (12, &b"HELLO, WORLD"[..]));
    /// # Ok(()) }
    /// ```
    pub fn write_vectored_at<B: IoVecBuf>(&self, buffers: B, offset: u64) -> Op<WriteVectored<B>> {
        self.op(WriteVectored { buffers, at: At::offset(offset) })
    }

    /// Reads from `offset` until all of the buffers are full, however many calls of the operating system it takes.
    ///
    /// # Errors
    /// As [`read_exact_at`](Self::read_exact_at).
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
    /// let BufResult(done, [head, tail]) = file.read_exact_vectored_at([vec![0; 5], vec![0; 7]], 0).wait();
    /// done?;
    /// assert_eq!((&head[..], &tail[..]), (&b"hello"[..], &b", world"[..]));
    /// # Ok(()) }
    /// ```
    pub fn read_exact_vectored_at<B: IoVecBufMut>(&self, buffers: B, offset: u64) -> Op<ReadExactVectored<B>> {
        self.op(ReadExactVectored { buffers, at: At::offset(offset) })
    }

    /// Writes all of the buffers at `offset`, however many calls of the operating system it takes.
    ///
    /// # Errors
    /// As [`write_all_at`](Self::write_all_at).
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
    /// let lines: Vec<String> = (0..2000).map(|line| format!("{line}\n")).collect();
    /// let len = lines.iter().map(String::len).sum::<usize>() as u64;
    /// file.write_all_vectored_at(lines, 0).wait().0?;
    /// assert_eq!(file.len().wait()?, len);
    /// # Ok(()) }
    /// ```
    pub fn write_all_vectored_at<B: IoVecBuf>(&self, buffers: B, offset: u64) -> Op<WriteAllVectored<B>> {
        self.op(WriteAllVectored { buffers, at: At::offset(offset) })
    }

    /// Reads at the position into several buffers, and moves it, as `readv(2)`; from a socket as `recvmsg(2)`. See
    /// [`read`](Self::read) and [`read_vectored_at`](Self::read_vectored_at).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    /// As [`read`](Self::read).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::BufResult;
    /// writer.write_all("ping").wait().0?;
    /// let BufResult(n, [first, rest]) = reader.read_vectored([vec![0; 1], vec![0; 10]]).wait();
    /// assert_eq!((n?, &first[..], &rest[..3]), (4, &b"p"[..], &b"ing"[..]));
    /// # Ok(()) }
    /// ```
    pub fn read_vectored<B: IoVecBufMut>(&self, buffers: B) -> Op<ReadVectored<B>> {
        self.op(ReadVectored { buffers, at: At::position() })
    }

    /// Writes several buffers at the position, and moves it, as `writev(2)`; to a socket as `sendmsg(2)`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    /// As [`write`](Self::write).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// assert_eq!(writer.write_vectored(["pi", "ng"]).wait().0?, 4);
    /// assert_eq!(reader.read_exact(vec![0; 4]).wait().1, b"ping");
    /// # Ok(()) }
    /// ```
    pub fn write_vectored<B: IoVecBuf>(&self, buffers: B) -> Op<WriteVectored<B>> {
        self.op(WriteVectored { buffers, at: At::position() })
    }

    /// Reads at the position until all of the buffers are full.
    ///
    /// # Errors
    /// As [`read_exact`](Self::read_exact).
    ///
    /// # Cancel safety
    /// As [`read_exact`](Self::read_exact).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::BufResult;
    /// writer.write_all("ping").wait().0?;
    /// let BufResult(done, [first, rest]) = reader.read_exact_vectored([vec![0; 1], vec![0; 3]]).wait();
    /// done?;
    /// assert_eq!((&first[..], &rest[..]), (&b"p"[..], &b"ing"[..]));
    /// # Ok(()) }
    /// ```
    pub fn read_exact_vectored<B: IoVecBufMut>(&self, buffers: B) -> Op<ReadExactVectored<B>> {
        self.op(ReadExactVectored { buffers, at: At::position() })
    }

    /// Writes all of the buffers at the position; nobody else's write of this file comes in between.
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    ///
    /// # Cancel safety
    /// As [`write_all`](Self::write_all).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// writer.write_all_vectored(["pi", "ng"]).wait().0?;
    /// assert_eq!(reader.read_exact(vec![0; 4]).wait().1, b"ping");
    /// # Ok(()) }
    /// ```
    pub fn write_all_vectored<B: IoVecBuf>(&self, buffers: B) -> Op<WriteAllVectored<B>> {
        self.op(WriteAllVectored { buffers, at: At::position() })
    }
}
