//! Reads ahead of the position: consecutive blocks, the first of which holds it.
//!
//! The window opens with one block and doubles with each that was used up, so that random access reads nothing ahead. The
//! end of the file is told only by a read that was started for the purpose: what was read ahead may be older than the data.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::{Pace, Spare};
use crate::buf::AlignedBuf;
use crate::error::BufResult;
use crate::file::File;
use crate::future::Op;
use crate::op::Read;

#[derive(Default)]
pub(super) struct Window {
    blocks: VecDeque<Block>,
    /// Blocks to read beyond the first.
    ahead: usize,
    /// Reads that nobody wants any more, on their way to an end.
    stale: Vec<Op<Read<AlignedBuf>>>,
}

struct Block {
    start: u64,
    /// Bytes asked for.
    span: usize,
    /// It was started because its first byte was wanted, and none has been used.
    wanted: bool,
    state: State,
}

enum State {
    Flying(Op<Read<AlignedBuf>>),
    There(AlignedBuf, usize),
    Failed(io::Error),
}

impl Window {
    /// The bytes from `position` on, as a range of [`bytes`](Self::bytes); empty at the end of the file.
    pub(super) fn poll_fill(
        &mut self,
        file: &File,
        position: u64,
        pace: &Pace,
        spare: &mut Spare,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Range<usize>>> {
        loop {
            let Some(first) = self.blocks.front() else {
                ready!(self.poll_stale(pace, spare, context));
                self.start(file, position - position % pace.unit as u64, true, pace, spare);
                continue;
            };
            if !(first.start..first.end()).contains(&position) {
                self.leave(position, pace, spare);
                continue;
            }
            self.open(file, pace, spare, context);
            // Not empty: `open` only adds.
            let Some(first) = self.blocks.front_mut() else { continue };
            let skip = (position - first.start) as usize;
            match &first.state {
                State::Flying(_) => return Poll::Pending,
                State::There(_, len) if *len > skip => {
                    first.wanted = false;
                    return Poll::Ready(Ok(skip..*len));
                }
                State::There(..) => {
                    let ends = first.wanted;
                    self.discard(pace, spare);
                    if ends {
                        return Poll::Ready(Ok(0..0));
                    }
                }
                State::Failed(_) => {
                    let failed = self.blocks.pop_front().map(|first| first.state);
                    self.discard(pace, spare);
                    if let Some(State::Failed(error)) = failed {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    /// A part of the first block.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        match self.blocks.front() {
            Some(Block { state: State::There(buffer, _), .. }) => &buffer[range],
            _ => &[],
        }
    }

    /// Forgets everything that was read ahead.
    pub(super) fn discard(&mut self, pace: &Pace, spare: &mut Spare) {
        self.ahead = 0;
        for block in self.blocks.drain(..) {
            match block.state {
                State::Flying(mut read) => {
                    // Whatever it answers: the read is polled to its end, and gives its buffer back.
                    read.cancel();
                    self.stale.push(read);
                }
                State::There(buffer, _) => spare.put(buffer, pace),
                State::Failed(_) => {}
            }
        }
    }

    /// The position is not in the first block: on to the next, or everything anew.
    fn leave(&mut self, position: u64, pace: &Pace, spare: &mut Spare) {
        let whole = |first: &Block| matches!(first.state, State::There(_, len) if len == first.span);
        if !self.blocks.front().is_some_and(|first| first.end() == position && whole(first)) {
            return self.discard(pace, spare);
        }
        if let Some(Block { state: State::There(buffer, _), .. }) = self.blocks.pop_front() {
            spare.put(buffer, pace);
        }
        self.ahead = (self.ahead * 2).max(1).min(pace.depth);
    }

    /// Starts as many reads as the window has room for, and looks at those under way.
    fn open(&mut self, file: &File, pace: &Pace, spare: &mut Spare, context: &mut Context<'_>) {
        let flying = self.blocks.front().is_some_and(|first| matches!(first.state, State::Flying(_)));
        let before = self.blocks.len();
        while self.blocks.len() <= self.ahead {
            let Some(last) = self.blocks.back() else { break };
            // A short block is the last of the file, as far as is known.
            let (next, short) = (last.end(), last.is_short());
            if short || next.checked_add(pace.block as u64).is_none_or(|end| end > i64::MAX as u64) {
                break;
            }
            self.start(file, next, false, pace, spare);
        }
        if flying || self.blocks.len() > before {
            // The first look after its start also sends what was started.
            self.blocks.iter_mut().for_each(|block| block.look(context));
        }
    }

    fn start(&mut self, file: &File, start: u64, wanted: bool, pace: &Pace, spare: &mut Spare) {
        let state = State::Flying(file.read_at(spare.take(pace), start));
        let mut block = Block { start, span: pace.block, wanted, state };
        // Queued now, and sent together with the others by the look that follows.
        block.look(&mut Context::from_waker(Waker::noop()));
        self.blocks.push_back(block);
    }

    /// Reads that were given up keep their memory: not more of them than the window has blocks.
    fn poll_stale(&mut self, pace: &Pace, spare: &mut Spare, context: &mut Context<'_>) -> Poll<()> {
        self.stale.retain_mut(|read| match Pin::new(read).poll(context) {
            Poll::Ready(BufResult(_, buffer)) => {
                spare.put(buffer, pace);
                false
            }
            Poll::Pending => true,
        });
        if self.stale.len() > pace.depth + 1 { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Block {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.span as u64)
    }

    fn is_short(&self) -> bool {
        match &self.state {
            State::Flying(_) => false,
            State::There(_, len) => *len < self.span,
            State::Failed(_) => true,
        }
    }

    fn look(&mut self, context: &mut Context<'_>) {
        if let State::Flying(read) = &mut self.state
            && let Poll::Ready(BufResult(result, buffer)) = Pin::new(read).poll(context)
        {
            self.state = match result {
                Ok(len) => State::There(buffer, len),
                Err(error) => State::Failed(error),
            };
        }
    }
}
