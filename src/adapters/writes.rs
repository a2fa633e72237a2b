//! Writes behind the position: a block that is being filled, and full ones on their way.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::{PAGE, Pace, Spare};
use crate::buf::{AlignedBuf, IoBuf as _, Slice};
use crate::error::BufResult;
use crate::file::File;
use crate::future::Op;
use crate::op::WriteAll;
use crate::os;

#[derive(Default)]
pub(super) struct Writes {
    filling: Option<Filling>,
    flying: VecDeque<Op<WriteAll<Slice<AlignedBuf>>>>,
    /// The first that went wrong, until it is reported.
    error: Option<io::Error>,
}

struct Filling {
    block: AlignedBuf,
    start: u64,
    len: usize,
    /// Bytes after which it is sent.
    limit: usize,
}

impl Writes {
    /// Takes the beginning of `data`, as soon as there is room for it; reports an earlier error instead.
    pub(super) fn poll_accept(
        &mut self,
        file: &File,
        position: u64,
        data: &[u8],
        pace: &Pace,
        spare: &mut Spare,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.filling.is_none() {
            let room = self.poll_flying(pace.depth, pace, spare, context);
            if self.error.is_none() {
                ready!(room);
            }
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        if position >= i64::MAX as u64 {
            return Poll::Ready(Err(os::error_of(libc::EFBIG)));
        }
        let filling = self.filling.get_or_insert_with(|| Filling {
            block: spare.take(pace),
            start: position,
            len: 0,
            limit: limit(position, pace),
        });
        let n = data.len().min(filling.limit - filling.len);
        filling.block[filling.len..filling.len + n].copy_from_slice(&data[..n]);
        filling.len += n;
        if filling.len == filling.limit {
            self.send(file, pace);
            // Looked at twice, and it is sent.
            let _ = self.poll_flying(pace.depth, pace, spare, context);
        }
        Poll::Ready(Ok(n))
    }

    /// Sends what is there and waits for everything. Errors are kept for [`take_error`](Self::take_error).
    pub(super) fn poll_drain(
        &mut self,
        file: &File,
        pace: &Pace,
        spare: &mut Spare,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        self.send(file, pace);
        self.poll_flying(0, pace, spare, context)
    }

    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Nothing that was accepted is still to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.filling.is_none() && self.flying.is_empty()
    }

    /// Waits until at most `most` writes are on their way.
    fn poll_flying(&mut self, most: usize, pace: &Pace, spare: &mut Spare, context: &mut Context<'_>) -> Poll<()> {
        let mut at = 0;
        while let Some(write) = self.flying.get_mut(at) {
            let Poll::Ready(BufResult(result, part)) = Pin::new(write).poll(context) else {
                at += 1;
                continue;
            };
            self.flying.remove(at);
            spare.put(part.into_inner(), pace);
            if let Err(error) = result {
                self.error.get_or_insert(error);
            }
        }
        if self.flying.len() > most { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Starts to write what is in the block.
    fn send(&mut self, file: &File, pace: &Pace) {
        let Some(Filling { block, start, len, .. }) = self.filling.take() else { return };
        let whole = if start.is_multiple_of(pace.unit as u64) { len - len % pace.unit } else { len };
        if whole == len || whole == 0 {
            return self.start(file, block, len, start);
        }
        // The end of a direct file's last block goes another way than its aligned beginning.
        let tail = AlignedBuf::copy_from(&block[whole..len], pace.memory);
        self.start(file, block, whole, start);
        self.start(file, tail, len - whole, start + whole as u64);
    }

    fn start(&mut self, file: &File, block: AlignedBuf, len: usize, start: u64) {
        let mut write = file.write_all_at(block.slice(..len), start);
        let polled = Pin::new(&mut write).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(BufResult(Err(error), _)) = polled {
            self.error.get_or_insert(error);
        } else if polled.is_pending() {
            self.flying.push_back(write);
        }
    }
}

/// Bytes of the block that begins at `position`: a short one where that makes the next begin well.
fn limit(position: u64, pace: &Pace) -> usize {
    let odd = |unit: usize| (position % unit as u64) as usize;
    match odd(pace.unit) {
        0 => pace.block - odd(PAGE.min(pace.block)).min(pace.block - pace.unit),
        odd => pace.unit - odd,
    }
}
