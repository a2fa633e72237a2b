//! The traits of `tokio::io` (feature `tokio-io`).

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use super::AsyncFile;

impl AsyncRead for AsyncFile {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let cursor = self.cursor();
        let bytes = ready!(cursor.poll_fill(context, buf.remaining()))?;
        let n = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..n]);
        cursor.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for AsyncFile {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().cursor().poll_fill(context, usize::MAX)
    }

    fn consume(mut self: Pin<&mut Self>, amt: usize) {
        self.cursor().consume(amt);
    }
}

impl AsyncWrite for AsyncFile {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cursor().poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cursor().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cursor().poll_close(context)
    }
}

impl AsyncSeek for AsyncFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        if self.seeking.is_some() {
            return Err(io::Error::other("another seek is under way: complete it first"));
        }
        self.seeking = Some(position);
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let Some(position) = self.seeking else { return Poll::Ready(Ok(self.cursor().position())) };
        let sought = ready!(self.cursor().poll_seek(context, position));
        self.seeking = None;
        Poll::Ready(sought)
    }
}
