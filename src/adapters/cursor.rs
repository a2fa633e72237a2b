//! What the adapters have in common: a file, a position of its own, and the bytes before and behind it.

use std::future::Future as _;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::streams::Streaming;
use super::wakers::{Side, Wakers};
use super::window::Window;
use super::writes::Writes;
use super::{Pace, Spare};
use crate::file::File;
use crate::future::Op;
use crate::op::Len;
use crate::os;

pub(super) struct Cursor {
    file: File,
    pace: Pace,
    position: u64,
    window: Window,
    writes: Writes,
    spare: Spare,
    streaming: Streaming,
    /// Written to the end of a file opened for appending: where the position is, only the file knows.
    appended: bool,
    len: Option<Op<Len>>,
    wakers: Arc<Wakers>,
    /// The same, as operations take it.
    waker: Waker,
}

impl Cursor {
    pub(super) fn new(file: File) -> Self {
        let wakers = Arc::new(Wakers::default());
        Self {
            pace: Pace::new(file.facts()),
            file,
            position: 0,
            window: Window::default(),
            writes: Writes::default(),
            spare: Spare::default(),
            streaming: Streaming::default(),
            appended: false,
            len: None,
            waker: wakers.clone().into(),
            wakers,
        }
    }

    pub(super) fn set_depth(&mut self, blocks: usize) {
        self.pace.depth = blocks;
    }

    pub(super) fn set_block(&mut self, bytes: usize) {
        self.pace = self.pace.with_block(bytes);
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    #[cfg(feature = "tokio-io")]
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What was read from a stream and not handed out.
    pub(super) fn leftover(&self) -> &[u8] {
        self.streaming.leftover()
    }

    /// Nothing that was accepted is still to be written.
    pub(super) fn is_written(&self) -> bool {
        self.writes.is_idle()
    }

    /// Copies what comes next; 0 at the end, and for an empty `buffer`.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let bytes = ready!(self.poll_fill(context, buffer.len()))?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Poll::Ready(Ok(n))
    }

    /// What comes next, without going there; empty at the end. From a stream `want` bytes are read at most, and a block.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>, want: usize) -> Poll<io::Result<&[u8]>> {
        if self.file.is_stream() {
            return self.streaming.poll_fill(&self.file, want.min(self.pace.block), context);
        }
        let filled = self.on(Side::Reader, context, Self::poll_window);
        Poll::Ready(ready!(filled).map(|range| self.window.bytes(range)))
    }

    /// The first `n` bytes of what was filled are used.
    pub(super) fn consume(&mut self, n: usize) {
        if self.file.is_stream() {
            self.streaming.consume(n);
        } else {
            self.position += n as u64;
        }
    }

    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.file.is_stream() {
            return self.streaming.poll_write(&self.file, data, self.pace.block, context);
        }
        if !self.file.facts().writable {
            // Now, and not when the block is sent.
            return Poll::Ready(Err(os::error_of(libc::EBADF)));
        }
        self.on(Side::Writer, context, |this, context| {
            // Either ahead or behind, never both: nothing is read while it is being written.
            this.window.discard(&this.pace, &mut this.spare);
            let Self { writes, file, pace, spare, .. } = this;
            let n = ready!(writes.poll_accept(file, this.position, data, pace, spare, context))?;
            this.position += n as u64;
            this.appended = this.file.facts().append;
            Poll::Ready(Ok(n))
        })
    }

    /// Waits until everything that was accepted is written, and reports the first error since the last report.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on(Side::Writer, context, |this, context| {
            ready!(this.poll_drain(context));
            Poll::Ready(this.writes.take_error().map_or(Ok(()), Err))
        })
    }

    /// As [`poll_flush`](Self::poll_flush); then the other end of a socket is told that nothing more comes.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(super) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        Poll::Ready(super::shutdown::writing(&self.file))
    }

    /// Waits for the writes, and moves. On an error the position stays.
    pub(super) fn poll_seek(&mut self, context: &mut Context<'_>, to: SeekFrom) -> Poll<io::Result<u64>> {
        if self.file.is_stream() {
            return Poll::Ready(Err(os::error_of(libc::ESPIPE)));
        }
        self.on(Side::Reader, context, |this, context| {
            ready!(this.poll_settled(context))?;
            if let Some(error) = this.writes.take_error() {
                return Poll::Ready(Err(error));
            }
            let target = match to {
                SeekFrom::Start(offset) => Some(offset),
                SeekFrom::Current(distance) => this.position.checked_add_signed(distance),
                SeekFrom::End(distance) => ready!(this.poll_len(context))?.checked_add_signed(distance),
            };
            let Some(target) = target.filter(|target| *target <= i64::MAX as u64) else {
                let what = "a position before the file's first byte, or beyond the largest offset";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, what)));
            };
            if target != this.position {
                this.window.discard(&this.pace, &mut this.spare);
                this.position = target;
            }
            Poll::Ready(Ok(target))
        })
    }

    fn poll_window(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Range<usize>>> {
        ready!(self.poll_settled(context))?;
        let Self { window, file, pace, spare, .. } = self;
        window.poll_fill(file, self.position, pace, spare, context)
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { writes, file, pace, spare, .. } = self;
        writes.poll_drain(file, pace, spare, context)
    }

    /// Waits for the writes, after which the position is known and the file can be read. Their errors are kept.
    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context));
        if self.appended {
            self.position = ready!(self.poll_len(context))?;
            self.appended = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_len(&mut self, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let len = self.len.get_or_insert_with(|| self.file.len());
        let len = ready!(Pin::new(len).poll(context));
        self.len = None;
        Poll::Ready(len)
    }

    /// Polls operations on behalf of one side's task.
    fn on<T>(
        &mut self,
        side: Side,
        context: &mut Context<'_>,
        poll: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.wakers.wait(side, context.waker());
        let waker = self.waker.clone();
        let polled = poll(self, &mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.wakers.done(side);
        }
        polled
    }
}
