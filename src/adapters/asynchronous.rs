//! The adapter for asynchronous code; its traits are next door.

use std::fmt;

use super::cursor::Cursor;
use super::detached;
use crate::file::File;

/// A [`File`] with a position, for code that is written against the traits of `futures_io` (feature `futures-io`) or
/// `tokio::io` (feature `tokio-io`): read, buffered read, write and seek. Made by [`File::into_async`].
///
/// # Files
/// Reads go ahead of the position, and writes stay behind it, by up to [`depth`](Self::depth) blocks of
/// [`block_size`](Self::block_size) bytes. A window of reads opens with sequential use only. Writes are accepted into a
/// block, which is sent when it is full. A seek, and a read after a write, wait for the writes first.
///
/// The position is the adapter's own, and begins at 0. On a file opened for appending, writes go to the end, and the position
/// follows them.
///
/// An error of a write that was accepted before is reported once, by the next write, flush, close (shutdown) or seek; what
/// was accepted since then is written all the same. A **flush** waits for the writes; it is no sync
/// ([`File::sync_data`]).
///
/// What was read ahead does not change when somebody else writes the file.
///
/// # Direct files
/// Blocks are aligned. What a flush finds of a last block that direct I/O would refuse for its length, and a first one after a
/// seek to an odd place, is served as [misaligned](File#direct-i-o); a strict engine refuses it with an error that names the
/// alignment.
///
/// # Streams
/// Pipes, sockets and terminals have neither: each poll transfers what was asked for and no more, at most a block. A close
/// shuts a socket down for writing, so that the other end sees the end.
///
/// # Cancel safety
/// A dropped read has consumed nothing. A dropped write has accepted nothing (a FIFO's or terminal's may have been written). On
/// streams nothing is lost when the adapter is dropped, with the exception that [`File::read`] names; bytes that a buffered
/// read has not handed out come back from [`into_inner`](Self::into_inner).
///
/// Dropped without a flush, the adapter leaves what it has accepted to the engine, which writes it in the background while it
/// lives; errors are lost. Dropping never blocks.
///
/// # Examples
/// ```
/// # #[cfg(feature = "futures-io")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use futures::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom};
/// use polyaio::{Engine, OpenOptions};
/// let engine = Engine::new()?;
/// let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, &path)?;
/// let mut file = file.into_async().depth(4);
/// futures::executor::block_on(async {
///     file.write_all(b"hello, world").await?;
///     file.seek(SeekFrom::Start(7)).await?;
///     let mut world = String::new();
///     file.read_to_string(&mut world).await?;
///     assert_eq!(world, "world");
///     file.close().await
/// })?;
/// # Ok(()) }
/// # #[cfg(not(feature = "futures-io"))]
/// # fn main() {}
/// ```
pub struct AsyncFile {
    /// `None` only while it is dropped.
    cursor: Option<Cursor>,
    /// A seek that was started.
    #[cfg(feature = "tokio-io")]
    pub(super) seeking: Option<std::io::SeekFrom>,
}

impl AsyncFile {
    pub(super) fn cursor(&mut self) -> &mut Cursor {
        match &mut self.cursor {
            Some(cursor) => cursor,
            None => unreachable!("only the drop takes it"),
        }
    }

    /// Blocks in flight: read ahead of the one that is being used, and written behind the one that is being filled. The
    /// default is 8. 0 reads nothing ahead, and has a block written before the next is begun.
    ///
    /// An adapter whose operations wait in line for a place in the engine
    /// ([`EngineBuilder::capacity`](crate::EngineBuilder::capacity)) has to be polled.
    ///
    /// # Examples
    /// Whoever reads single records at random places has no use for what lies behind them:
    /// ```
    /// # #[cfg(feature = "futures-io")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, vec![0; 1 << 20])?;
    /// # let file = polyaio::OpenOptions::new().read(true).open(&engine, &path)?;
    /// use futures::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
    /// let mut records = file.into_async().depth(0).block_size(512);
    /// engine.block_on(async {
    ///     records.seek(SeekFrom::Start(4096)).await?;
    ///     records.read_exact(&mut [0; 1024]).await
    /// })?;
    /// assert_eq!(engine.stats().served_by().iter().map(|(_, requests)| requests).sum::<u64>(), 2, "two blocks");
    /// # Ok(()) }
    /// # #[cfg(not(feature = "futures-io"))]
    /// # fn main() {}
    /// ```
    pub fn depth(mut self, blocks: usize) -> Self {
        self.cursor().set_depth(blocks);
        self
    }

    /// Bytes of a block, at least 1, rounded up to what direct I/O asks of the file. The default is 64 KiB.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "futures-io")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use futures::io::AsyncReadExt;
    /// let mut file = file.into_async().block_size(1 << 20).depth(2); // two large reads in flight
    /// let mut text = String::new();
    /// engine.block_on(file.read_to_string(&mut text))?;
    /// assert_eq!(text, "hello, world");
    /// # Ok(()) }
    /// # #[cfg(not(feature = "futures-io"))]
    /// # fn main() {}
    /// ```
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.cursor().set_block(bytes);
        self
    }

    /// The file, for operations of its own. They know nothing of what is read ahead or written behind.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "futures-io")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use futures::io::AsyncWriteExt;
    /// let mut file = file.into_async();
    /// engine.block_on(async {
    ///     file.write_all(b"HELLO").await?;
    ///     file.flush().await?;                 // what is written behind is not known to the file before
    ///     file.get_ref().sync_data().await     // and a flush is no sync
    /// })?;
    /// assert_eq!(file.get_ref().read_at(vec![0; 5], 0).wait().1, b"HELLO");
    /// # Ok(()) }
    /// # #[cfg(not(feature = "futures-io"))]
    /// # fn main() {}
    /// ```
    pub fn get_ref(&self) -> &File {
        match &self.cursor {
            Some(cursor) => cursor.file(),
            None => unreachable!("only the drop takes it"),
        }
    }

    /// The file, and what was read from a stream and not handed out (nothing of a file). Flush first: what is still to be
    /// written is written in the background, as with a drop.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "futures-io")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use futures::io::{AsyncBufReadExt, AsyncReadExt};
    /// writer.write_all("header\nbody").wait().0?;
    /// let mut reader = reader.into_async();
    /// let mut header = String::new();
    /// engine.block_on(reader.read_line(&mut header))?;
    /// let (reader, mut body) = reader.into_inner(); // the pipe, and what was read with the header
    /// drop(writer);
    /// engine.block_on(reader.into_async().read_to_end(&mut body))?;
    /// assert_eq!((header.as_str(), &body[..]), ("header\n", &b"body"[..]));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "futures-io"))]
    /// # fn main() {}
    /// ```
    pub fn into_inner(mut self) -> (File, Vec<u8>) {
        let cursor = self.cursor();
        (cursor.file().clone(), cursor.leftover().to_vec())
    }
}

impl Drop for AsyncFile {
    fn drop(&mut self) {
        if let Some(cursor) = self.cursor.take().filter(|cursor| !cursor.is_written()) {
            detached::finish(cursor);
        }
    }
}

impl File {
    /// An adapter with a position, for code that uses the traits of `futures_io` or `tokio::io`.
    ///
    /// # Examples
    /// Code that knows nothing of this crate, in any executor:
    /// ```
    /// # #[cfg(feature = "futures-io")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use futures::io::{AsyncBufReadExt, AsyncRead, BufReader};
    /// async fn first_line(source: impl AsyncRead + Unpin) -> std::io::Result<String> {
    ///     let mut line = String::new();
    ///     BufReader::new(source).read_line(&mut line).await?;
    ///     Ok(line)
    /// }
    /// assert_eq!(futures::executor::block_on(first_line(file.into_async()))?, "hello, world");
    /// # Ok(()) }
    /// # #[cfg(not(feature = "futures-io"))]
    /// # fn main() {}
    /// ```
    #[cfg_attr(docsrs, doc(cfg(any(feature = "futures-io", feature = "tokio-io"))))]
    pub fn into_async(self) -> AsyncFile {
        AsyncFile {
            cursor: Some(Cursor::new(self)),
            #[cfg(feature = "tokio-io")]
            seeking: None,
        }
    }
}

impl fmt::Debug for AsyncFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFile").field("file", self.get_ref()).finish_non_exhaustive()
    }
}
