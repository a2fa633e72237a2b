//! Adapters to the traits that other people's code uses, on top of the public operations.
//!
//! [`BlockingFile`] has those of `std::io`, `AsyncFile` those of `futures_io` and `tokio::io`; both are thin shells over one
//! [`Cursor`](cursor::Cursor): a position, a window of reads ahead of it, a queue of writes behind it. [`Blocks`] hands out
//! buffers instead.

mod blocking;
mod blocks;
mod cursor;
mod streams;
mod wakers;
mod window;
mod writes;

cfg_if::cfg_if! {
    if #[cfg(any(feature = "futures-io", feature = "tokio-io"))] {
        mod asynchronous;
        mod detached;
        mod shutdown;
        pub use asynchronous::AsyncFile;
    }
}
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "tokio-io")]
mod tokio_io;

pub use blocking::BlockingFile;
pub use blocks::Blocks;

use crate::buf::AlignedBuf;
use crate::router::facts::Facts;

/// Bytes of a block, unless the adapter is told otherwise.
const DEFAULT_BLOCK: usize = 64 << 10;
/// Blocks in flight, unless the adapter is told otherwise.
const DEFAULT_DEPTH: usize = 8;
/// What memory is aligned to where the file does not ask for more: pages are copied best whole.
const PAGE: usize = 4096;

/// How far to go ahead and stay behind, in which steps.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Bytes of a block, a multiple of `unit`.
    block: usize,
    depth: usize,
    /// What offsets and lengths have to be multiples of, in bytes: 1 where the file is not direct.
    unit: usize,
    /// What memory is aligned to.
    memory: usize,
}

impl Pace {
    fn new(facts: &Facts) -> Self {
        let (unit, memory) = match (facts.direct, facts.alignment) {
            (true, Some(alignment)) => (alignment.offset.max(1), alignment.memory.max(PAGE)),
            _ => (1, PAGE),
        };
        let pace = Self { block: unit, depth: DEFAULT_DEPTH, unit, memory };
        pace.with_block(DEFAULT_BLOCK)
    }

    /// Rounded up to what the file asks for.
    fn with_block(self, bytes: usize) -> Self {
        let block = bytes.max(1).checked_next_multiple_of(self.unit).unwrap_or(self.unit);
        Self { block, ..self }
    }
}

/// Blocks that wait to be used again.
#[derive(Debug, Default)]
struct Spare(Vec<AlignedBuf>);

impl Spare {
    fn take(&mut self, pace: &Pace) -> AlignedBuf {
        self.0.pop().filter(|block| block.len() == pace.block).unwrap_or_else(|| pace.zeroed())
    }

    fn put(&mut self, block: AlignedBuf, pace: &Pace) {
        // Others are tails, or from before the block size was changed.
        if block.len() == pace.block && self.0.len() < pace.depth + 2 {
            self.0.push(block);
        }
    }
}

impl Pace {
    fn zeroed(&self) -> AlignedBuf {
        AlignedBuf::zeroed(self.block, self.memory)
    }
}
