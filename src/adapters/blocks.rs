//! A file as a sequence of buffers.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Pace;
use crate::error::BufResult;
use crate::file::File;
use crate::future::Op;
use crate::op::Read;
use crate::pool::{BufPool, PooledBuf};

/// The blocks of a file in order, with several reads in flight. Made by [`File::blocks`].
///
/// Each is a buffer of a [`BufPool`] of its own, and goes back to it when it is dropped. Who keeps them all gets more: then a
/// further pool is made.
///
/// A block is shorter than the others at the end of the file, and where the operating system has transferred less; what follows
/// begins where it ended. After the end, or an error, there is nothing more.
///
/// Of a stream, one read at a time takes what is there, and only while [`next`](Self::next) is polled.
///
/// # Errors
/// As [`File::read_at`].
///
/// # Cancel safety
/// A dropped [`next`](Self::next) loses no block. On streams nothing is lost when all of it is dropped, with the exception that
/// [`File::read`] names.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, vec![1; 10_000])?;
/// let engine = polyaio::Engine::new()?;
/// let mut blocks = polyaio::OpenOptions::new().read(true).open(&engine, &path)?.blocks(4096, 8);
/// let mut lengths = Vec::new();
/// engine.block_on(async {
///     while let Some(block) = blocks.next().await {
///         lengths.push(block?.len());
///     }
///     std::io::Result::Ok(())
/// })?;
/// assert_eq!(lengths, [4096, 4096, 1808]);
/// # Ok(()) }
/// ```
pub struct Blocks {
    file: File,
    pace: Pace,
    pool: BufPool,
    reads: VecDeque<State>,
    /// Where the next read begins.
    next: u64,
    over: bool,
}

enum State {
    Flying(Op<Read<PooledBuf>>),
    There(BufResult<usize, PooledBuf>),
}

impl Blocks {
    /// Begins `offset` bytes into the file instead of at its start. On a direct file let it be a multiple of the
    /// [alignment](crate::Facts::alignment), or all blocks are [misaligned](File#direct-i-o).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut rest = Vec::new();
    /// let mut blocks = file.blocks(4096, 2).starting_at(7);
    /// while let Some(block) = engine.block_on(blocks.next()) {
    ///     rest.extend_from_slice(&block?);
    /// }
    /// assert_eq!(rest, b"world");
    /// # Ok(()) }
    /// ```
    pub fn starting_at(mut self, offset: u64) -> Self {
        self.reads.clear();
        self.next = offset;
        self
    }

    /// The next block; `None` after the end, or after an error.
    ///
    /// # Errors
    /// As [`File::read_at`]; nothing more comes after one.
    ///
    /// # Cancel safety
    /// A dropped one loses no block.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut blocks = file.blocks(8, 2);
    /// engine.block_on(async {
    ///     assert_eq!(&blocks.next().await.ok_or("a block")??[..], b"hello, w");
    ///     assert_eq!(&blocks.next().await.ok_or("a shorter one")??[..], b"orld");
    ///     assert!(blocks.next().await.is_none());
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok(()) }
    /// ```
    // Not an iterator: it is awaited.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> impl Future<Output = Option<io::Result<PooledBuf>>> + Send + '_ {
        poll_fn(|context| self.poll(context))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<PooledBuf>>> {
        if self.over {
            return Poll::Ready(None);
        }
        self.start();
        // A read that was just started is sent by its second look.
        self.reads.iter_mut().for_each(|read| read.look(context));
        if matches!(self.reads.front(), Some(State::Flying(_))) {
            return Poll::Pending;
        }
        let Some(State::There(BufResult(result, buffer))) = self.reads.pop_front() else {
            // `start` has started at least one.
            return Poll::Pending;
        };
        let n = match result {
            Ok(n) => n,
            Err(error) => {
                self.end();
                return Poll::Ready(Some(Err(error)));
            }
        };
        if n == 0 {
            self.end();
            return Poll::Ready(None);
        }
        if n < self.pace.block && !self.file.is_stream() {
            self.resume_after(n);
        }
        Poll::Ready(Some(Ok(buffer)))
    }

    /// A block was short: those behind it do not follow it.
    fn resume_after(&mut self, n: usize) {
        let start = self.next - (self.reads.len() as u64 + 1) * self.pace.block as u64;
        self.reads.clear();
        self.next = start + n as u64;
        // Direct transfers stop within a block only where the file does.
        self.over = !n.is_multiple_of(self.pace.unit);
    }

    fn end(&mut self) {
        self.over = true;
        self.reads.clear();
    }

    /// Starts as many reads as there are buffers for, and at least one.
    fn start(&mut self) {
        let stream = self.file.is_stream();
        let most = if stream { 1 } else { self.pace.depth.max(1) };
        while self.reads.len() < most && (self.reads.is_empty() || self.next <= i64::MAX as u64) {
            let buffer = match self.pool.get() {
                Some(buffer) => buffer,
                None if !self.reads.is_empty() => return,
                None => {
                    // The caller keeps them. Waiting for one could be waiting for oneself.
                    self.pool = BufPool::new(self.pool.count(), self.pace.block, self.pace.memory);
                    continue;
                }
            };
            let read = if stream { self.file.read(buffer) } else { self.file.read_at(buffer, self.next) };
            self.next = self.next.saturating_add(self.pace.block as u64);
            let mut state = State::Flying(read);
            if !stream {
                // Queued, and sent with the others.
                state.look(&mut Context::from_waker(Waker::noop()));
            }
            self.reads.push_back(state);
        }
    }
}

impl State {
    fn look(&mut self, context: &mut Context<'_>) {
        if let Self::Flying(read) = self
            && let Poll::Ready(result) = Pin::new(read).poll(context)
        {
            *self = Self::There(result);
        }
    }
}

#[cfg(feature = "futures-io")]
impl futures_core::Stream for Blocks {
    type Item = io::Result<PooledBuf>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl File {
    /// The file's bytes from its start on, as a sequence of buffers of `block_size` bytes (rounded up to what direct I/O asks
    /// of the file) with `depth` reads in flight. 0 means 1, of either.
    ///
    /// # Panics
    /// Panics if `depth + 1` blocks are more than can be allocated.
    ///
    /// # Examples
    /// Four blocks of 1 KiB are in flight while the caller has a look at the one before them.
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut blocks = file.blocks(1024, 4);
    /// let mut bytes = 0;
    /// while let Some(block) = engine.block_on(blocks.next()) {
    ///     bytes += block?.len();
    /// }
    /// assert_eq!(bytes, 12);
    /// # Ok(()) }
    /// ```
    pub fn blocks(self, block_size: usize, depth: usize) -> Blocks {
        let pace = Pace { depth, ..Pace::new(self.facts()).with_block(block_size) };
        let count = if self.is_stream() { 1 } else { depth.max(1) };
        // One more than are in flight: the caller's.
        let pool = BufPool::new(count + 1, pace.block, pace.memory);
        Blocks { file: self, pace, pool, reads: VecDeque::with_capacity(count), next: 0, over: false }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks")
            .field("file", &self.file)
            .field("block_size", &self.pace.block)
            .field("depth", &self.pace.depth)
            .finish_non_exhaustive()
    }
}
