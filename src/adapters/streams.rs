//! Pipes, sockets, terminals: one transfer at a time in each direction, of what was asked for and no more. A transfer
//! happens in the poll that returns it, so that an adapter which is dropped has taken nothing that it did not hand out, but
//! for what [`leftover`](Streaming::leftover) gives back.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::backend::CancelOutcome;
use crate::buf::{IoBuf as _, Slice};
use crate::error::BufResult;
use crate::file::File;
use crate::future::Op;
use crate::op::{Read, Write};

#[derive(Default)]
pub(super) struct Streaming {
    reading: Option<Op<Read<Slice<Vec<u8>>>>>,
    /// Read, and used up to `used`.
    buffer: Vec<u8>,
    used: usize,
    writing: Option<Writing>,
    /// Memory for the next write.
    idle: Arc<Vec<u8>>,
}

struct Writing {
    op: Op<Write<Arc<Vec<u8>>>>,
    data: Arc<Vec<u8>>,
}

impl Streaming {
    /// Bytes that were read and not handed out: at most `want`, unless an earlier call wanted more. Empty at the end.
    pub(super) fn poll_fill(&mut self, file: &File, want: usize, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.used == self.buffer.len() {
            let reading = self.reading.get_or_insert_with(|| {
                self.used = 0;
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.clear();
                buffer.reserve(want);
                file.read(buffer.slice(..want))
            });
            let BufResult(result, part) = ready!(Pin::new(reading).poll(context));
            self.reading = None;
            self.buffer = part.into_inner();
            self.used = 0;
            match result {
                Ok(n) => self.buffer.truncate(n),
                Err(error) => {
                    self.buffer.clear();
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(&self.buffer[self.used..]))
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.used = self.buffer.len().min(self.used + n);
    }

    /// What was read and not handed out.
    pub(super) fn leftover(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Writes the beginning of `data`, at most `most` bytes.
    pub(super) fn poll_write(
        &mut self,
        file: &File,
        data: &[u8],
        most: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Some(writing) = &mut self.writing else {
                let data = self.lend(&data[..data.len().min(most)]);
                self.writing = Some(Writing { op: file.write(data.clone()), data });
                continue;
            };
            // A caller who was told to wait may come back with other data. Nothing of the old has been written.
            let same = data.starts_with(&writing.data);
            let revoked = !same && writing.op.cancel() == CancelOutcome::Cancelled;
            let BufResult(result, _) = ready!(Pin::new(&mut writing.op).poll(context));
            if let Some(writing) = self.writing.take() {
                self.idle = writing.data;
            }
            if same {
                return Poll::Ready(result);
            }
            // A worker had begun (a FIFO, a terminal): the old data was written, its error is the file's.
            if let (false, Err(error)) = (revoked, result) {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn lend(&mut self, data: &[u8]) -> Arc<Vec<u8>> {
        let mut memory = std::mem::take(&mut self.idle);
        match Arc::get_mut(&mut memory) {
            Some(memory) => {
                memory.clear();
                memory.extend_from_slice(data);
            }
            None => memory = Arc::new(data.to_vec()),
        }
        memory
    }
}
