//! Transfers at the position: of streams, and of files that are shared with others by it.

use super::File;
use crate::buf::{IoBuf, IoBufMut};
use crate::future::Op;
use crate::how::At;
use crate::op::{Read, ReadExact, Ready, Write, WriteAll};
use crate::request::OpKind;

/// Streams, and transfers at the file's position, which they move.
impl File {
    /// Reads at the position, and moves it: for streams, and for files that are shared with others by their position.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at); `ECANCELED` the file was closed while the stream was waited for.
    ///
    /// # Cancel safety
    /// A dropped read of a stream loses nothing: it has taken nothing from the stream. From a FIFO or terminal a worker may
    /// be reading for it (at most as much as was asked for, and 64 KiB); what that reads is kept for the file's next reads,
    /// and is gone with the file. A dropped read at a file's position may have moved it.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::BufResult;
    /// writer.write_all("ping").wait().0?;
    /// drop(writer);
    /// let BufResult(n, buf) = reader.read(vec![0; 16]).wait();
    /// assert_eq!(&buf[..n?], b"ping");
    /// let BufResult(n, _) = reader.read(buf).wait();
    /// assert_eq!(n?, 0, "the other end is closed");
    /// # Ok(()) }
    /// ```
    pub fn read<B: IoBufMut>(&self, buf: B) -> Op<Read<B>> {
        self.op(Read { buffer: buf, at: At::position() })
    }

    /// Writes at the position, and moves it. See [`read`](Self::read).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at); `ECANCELED` the file was closed while the stream was waited for. On a FIFO or
    /// terminal a part may have been written all the same.
    ///
    /// # Cancel safety
    /// A dropped write to a stream has written nothing, or (to a FIFO or terminal, where a worker may be writing for it) at
    /// most 4096 bytes, before the next write's.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// assert_eq!(writer.write("ping").wait().0?, 4);
    /// assert_eq!(reader.read_exact(vec![0; 4]).wait().1, b"ping");
    /// # Ok(()) }
    /// ```
    pub fn write<B: IoBuf>(&self, buf: B) -> Op<Write<B>> {
        self.op(Write { buffer: buf, at: At::position() })
    }

    /// Reads at the position until the buffer is full.
    ///
    /// # Errors
    /// As [`read_exact_at`](Self::read_exact_at).
    ///
    /// # Cancel safety
    /// A dropped one may have taken a part of the bytes from the stream, which is gone with the buffer: use
    /// [`read`](Self::read) where that matters.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::BufResult;
    /// writer.write_all("ping, pong").wait().0?;
    /// let BufResult(done, word) = reader.read_exact(vec![0; 4]).wait();
    /// done?;
    /// assert_eq!(word, b"ping");
    /// # Ok(()) }
    /// ```
    pub fn read_exact<B: IoBufMut>(&self, buf: B) -> Op<ReadExact<B>> {
        self.op(ReadExact { buffer: buf, at: At::position() })
    }

    /// Writes all of the buffer at the position; nobody else's write of this file comes in between.
    ///
    /// # Errors
    /// As [`write_all_at`](Self::write_all_at).
    ///
    /// # Cancel safety
    /// A dropped one may have written a part.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::BufResult;
    /// // More than a pipe holds: both ends go on as the other one does.
    /// let (written, read) = (writer.write_all(vec![7; 200_000]), reader.read_exact(vec![0; 200_000]));
    /// let writing = std::thread::spawn(move || written.wait().0);
    /// let BufResult(done, buf) = read.wait();
    /// done?;
    /// assert_eq!(buf, [7; 200_000]);
    /// writing.join().unwrap()?;
    /// # Ok(()) }
    /// ```
    pub fn write_all<B: IoBuf>(&self, buf: B) -> Op<WriteAll<B>> {
        self.op(WriteAll { buffer: buf, at: At::position() })
    }

    /// Completes when the next read has something to do: there is data, the stream has ended, or it has failed. Takes
    /// nothing. It stands in line with the reads of this file, so that those before it have had their share. What has
    /// offsets is ready at once.
    ///
    /// # Errors
    /// `EBADF` not open for reading, or closed; `EISDIR` a directory; `ECANCELED` the file was closed meanwhile.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::io::{Read, Write};
    /// let engine = polyaio::Engine::new()?;
    /// let (mut reader, mut writer) = std::io::pipe()?;
    /// let watched = engine.adopt(reader.try_clone()?.into())?;
    /// writer.write_all(b"ping")?;
    /// watched.readable().wait()?;
    /// let mut buffer = [0; 4];
    /// reader.read_exact(&mut buffer)?;
    /// # Ok(()) }
    /// ```
    pub fn readable(&self) -> Op<Ready> {
        self.op(Ready { direction: OpKind::Read })
    }

    /// As [`readable`](Self::readable), for writes: there is room, or nobody reads any more.
    ///
    /// # Errors
    /// As [`readable`](Self::readable); `EBADF` not open for writing.
    ///
    /// # Cancel safety
    /// As [`readable`](Self::readable).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// writer.writable().wait()?;
    /// drop(reader);
    /// writer.writable().wait()?; // nobody reads any more: a write has that to say
    /// # Ok(()) }
    /// ```
    pub fn writable(&self) -> Op<Ready> {
        self.op(Ready { direction: OpKind::Write })
    }
}
