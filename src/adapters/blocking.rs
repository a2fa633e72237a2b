//! The adapter for code without futures: the traits of `std::io`.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::task::{Context, Poll};

use super::cursor::Cursor;
use crate::driver;
use crate::file::File;

/// A [`File`] with a position, for blocking code: [`Read`], [`BufRead`], [`Write`] and [`Seek`]. Made by
/// [`File::blocking`].
///
/// # Files
/// Reads go ahead of the position, and writes stay behind it, by up to [`depth`](Self::depth) blocks of
/// [`block_size`](Self::block_size) bytes, so that the device works while the caller does. A window of reads opens with
/// sequential use only. Writes are accepted into a block, which is sent when it is full. A seek, and a read after a write, wait
/// for the writes first.
///
/// The position is the adapter's own, and begins at 0. On a file opened for appending, writes go to the end, and the position
/// follows them. What was read ahead does not change when somebody else writes the file.
///
/// An error of a write that was accepted before is reported once, by the next write, flush or seek; what was accepted since
/// then is written all the same. A **flush** waits for the writes; it is no sync ([`File::sync_data`]).
///
/// Dropped without a flush, it writes and waits as `std::io::BufWriter` does; errors are lost.
///
/// # Direct files
/// Blocks are aligned. What a flush finds of a last block that direct I/O would refuse for its length, and a first one after a
/// seek to an odd place, is served as [misaligned](File#direct-i-o); a strict engine refuses it with an error that names the
/// alignment.
///
/// # Streams
/// Pipes, sockets and terminals have neither: each call transfers what was asked for and no more, at most a block. What
/// [`BufRead`] has read and not handed out comes back from [`into_inner`](Self::into_inner). They cannot be sought (`ESPIPE`).
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use std::io::{BufRead, Seek, Write};
/// let engine = polyaio::Engine::new()?;
/// let file = polyaio::OpenOptions::new().read(true).write(true).create(true).open(&engine, &path)?;
/// let mut file = file.blocking().depth(4);
/// for i in 0..1000 {
///     writeln!(file, "line {i}")?;
/// }
/// file.rewind()?;
/// assert_eq!(file.lines().last().transpose()?.as_deref(), Some("line 999"));
/// # Ok(()) }
/// ```
pub struct BlockingFile {
    cursor: Cursor,
}

impl BlockingFile {
    /// Blocks in flight: read ahead of the one that is being used, and written behind the one that is being filled. The
    /// default is 8. 0 reads nothing ahead, and has a block written before the next is begun.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// use std::io::Read;
    /// std::fs::write(&path, vec![7; 1 << 20])?;
    /// let file = polyaio::OpenOptions::new().read(true).open(&engine, &path)?;
    /// let mut sum = 0;
    /// for byte in file.blocking().depth(2).bytes() { sum += u64::from(byte?); } // two blocks ahead of this loop
    /// assert_eq!(sum, 7 << 20);
    /// # Ok(()) }
    /// ```
    pub fn depth(mut self, blocks: usize) -> Self {
        self.cursor.set_depth(blocks);
        self
    }

    /// Bytes of a block, at least 1, rounded up to what direct I/O asks of the file. The default is 64 KiB.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use std::io::BufRead;
    /// let mut file = file.blocking().block_size(8);
    /// assert_eq!(file.fill_buf()?, b"hello, w", "a block at a time");
    /// # Ok(()) }
    /// ```
    pub fn block_size(mut self, bytes: usize) -> Self {
        self.cursor.set_block(bytes);
        self
    }

    /// The file, for operations of its own. They know nothing of what is read ahead or written behind.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use std::io::Write;
    /// let mut file = file.blocking();
    /// file.write_all(b"HELLO")?;
    /// assert_eq!(std::fs::read(&path)?, b"hello, world", "not yet");
    /// file.flush()?;
    /// file.get_ref().sync_data().wait()?; // a flush is no sync
    /// assert_eq!(std::fs::read(&path)?, b"HELLO, world");
    /// # Ok(()) }
    /// ```
    pub fn get_ref(&self) -> &File {
        self.cursor.file()
    }

    /// The file, and what was read from a stream and not handed out (nothing of a file). Waits for the writes; flush first to
    /// hear of their errors.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use std::io::BufRead;
    /// writer.write_all("header\nbody").wait().0?;
    /// let mut reader = reader.blocking();
    /// let mut header = String::new();
    /// reader.read_line(&mut header)?;
    /// let (_reader, rest) = reader.into_inner();
    /// assert_eq!((header.as_str(), &rest[..]), ("header\n", &b"body"[..]), "nothing is lost");
    /// # Ok(()) }
    /// ```
    pub fn into_inner(self) -> (File, Vec<u8>) {
        (self.cursor.file().clone(), self.cursor.leftover().to_vec())
    }

    fn run<T>(&mut self, mut poll: impl FnMut(&mut Cursor, &mut Context<'_>) -> Poll<T>) -> T {
        let file = self.cursor.file().clone();
        driver::block_on(&file.open_file().core, poll_fn(|context| poll(&mut self.cursor, context)))
    }
}

impl Read for BlockingFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.run(|cursor, context| cursor.poll_read(context, buf))
    }
}

impl BufRead for BlockingFile {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.run(|cursor, context| cursor.poll_fill(context, usize::MAX).map_ok(<[u8]>::is_empty))? {
            return Ok(&[]);
        }
        // It is there now: a second look gives it without waiting.
        match self.cursor.poll_fill(&mut Context::from_waker(std::task::Waker::noop()), usize::MAX) {
            Poll::Ready(bytes) => bytes,
            Poll::Pending => Ok(&[]),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.cursor.consume(amount);
    }
}

impl Write for BlockingFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.run(|cursor, context| cursor.poll_write(context, buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.run(Cursor::poll_flush)
    }
}

impl Seek for BlockingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.run(|cursor, context| cursor.poll_seek(context, to))
    }
}

impl Drop for BlockingFile {
    fn drop(&mut self) {
        if !self.cursor.is_written() {
            // As with `BufWriter`: who wants to hear of it flushes.
            let _ = self.flush();
        }
    }
}

impl File {
    /// An adapter with a position, for code that uses the traits of `std::io`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use std::io::{Read, Seek, SeekFrom};
    /// let mut file = file.blocking(); // anything that takes `impl Read + Seek`
    /// file.seek(SeekFrom::End(-5))?;
    /// let mut word = String::new();
    /// file.read_to_string(&mut word)?;
    /// assert_eq!(word, "world");
    /// # Ok(()) }
    /// ```
    pub fn blocking(self) -> BlockingFile {
        BlockingFile { cursor: Cursor::new(self) }
    }
}

impl fmt::Debug for BlockingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingFile").field("file", self.get_ref()).finish_non_exhaustive()
    }
}
