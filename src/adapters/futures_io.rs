//! The traits of `futures_io` (feature `futures-io`).

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncBufRead, AsyncRead, AsyncSeek, AsyncWrite};

use super::AsyncFile;

impl AsyncRead for AsyncFile {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.cursor().poll_read(context, buf)
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

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cursor().poll_close(context)
    }
}

impl AsyncSeek for AsyncFile {
    fn poll_seek(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: SeekFrom) -> Poll<io::Result<u64>> {
        self.cursor().poll_seek(context, to)
    }
}
