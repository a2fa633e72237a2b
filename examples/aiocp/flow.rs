//! The copy itself: `depth` places, each of which reads a block, writes it, and goes on to the next.
//!
//! This is the read-then-write state machine of libaio's manual page, written as an `async fn` per place. A positioned
//! end has as many requests in flight as there are places. A stream has one at a time, in order: [`Turn`] hands it from
//! place to place, so that the other end still runs ahead or behind by up to `depth` blocks.
//!
//! What ends a copy early (an error, a signal) is noted once. Then every place finishes the positioned request it has
//! in flight and stops; a place that waits for a stream stops at once, for a stream may never answer.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use indicatif::ProgressBar;
use polyaio::{AlignedBuf, BufResult, Engine, IoBuf};

use crate::endpoint::Endpoint;
use crate::interrupt::Interrupt;
use crate::slots::{Board, Slots};
use crate::text::Failure;
use crate::turn::Turn;
use crate::written::Written;

/// One copy from an open source to an open destination.
pub(crate) struct Flow<'a> {
    source: &'a Endpoint,
    destination: &'a Endpoint,
    block_size: usize,
    bar: &'a ProgressBar,
    board: Arc<Board>,
    places: usize,
    claims: RefCell<Claims>,
    reading: Turn,
    writing: Turn,
    written: RefCell<Written>,
    /// Up to where the destination reaches with its padding.
    extent: Cell<u64>,
    failure: RefCell<Option<Failure>>,
}

/// Which blocks are given out.
#[derive(Default)]
struct Claims {
    /// The number of the next block, and its offset.
    sequence: u64,
    offset: u64,
    /// A place looks for what has been added beyond the length that was known. One is enough.
    probing: bool,
    /// Where the source turned out to end.
    end: Option<u64>,
}

#[derive(Clone, Copy)]
struct Block {
    sequence: u64,
    offset: u64,
    len: usize,
    probe: bool,
}

/// Why a place stops before the end.
enum Halt {
    /// It found out what is wrong.
    Failed(Failure),
    /// Somebody else did.
    Told,
}

impl<'a> Flow<'a> {
    /// Prepares a copy in blocks of `block_size` bytes with up to `depth` of them in flight.
    pub(crate) fn new(
        source: &'a Endpoint,
        destination: &'a Endpoint,
        block_size: usize,
        depth: usize,
        bar: &'a ProgressBar,
    ) -> Flow<'a> {
        // A small file needs fewer places: one per block, and one that looks for its end.
        let blocks = source.len.div_ceil(block_size as u64).saturating_add(1);
        let places = if source.positioned { usize::try_from(blocks).map_or(depth, |n| n.min(depth)) } else { depth };
        Flow {
            source,
            destination,
            block_size,
            bar,
            board: Board::new(places),
            places,
            claims: RefCell::default(),
            reading: Turn::default(),
            writing: Turn::default(),
            written: RefCell::default(),
            extent: Cell::new(0),
            failure: RefCell::new(None),
        }
    }

    /// Copies until the source ends, somebody interrupts, or something fails. No request is in flight afterwards, but
    /// perhaps one that waits for a stream and was dropped. Takes its buffers from `spare` and returns them there.
    pub(crate) fn run(
        &self,
        engine: &Engine,
        interrupt: &Interrupt,
        spare: &mut Vec<AlignedBuf>,
    ) -> Result<(), Failure> {
        let mut slots = Slots::new(self.board.clone());
        let alignment = self.source.memory_alignment.max(self.destination.memory_alignment).max(PAGE);
        for place in 0..self.places {
            let fits = |buffer: &AlignedBuf| buffer.as_ptr().addr().is_multiple_of(alignment);
            let buffer = spare.pop().filter(fits);
            let buffer = buffer.unwrap_or_else(|| AlignedBuf::zeroed(self.block_size, alignment));
            slots.start(place, Box::pin(self.occupy(buffer)));
        }
        engine.block_on(std::future::poll_fn(|context| {
            if interrupt.poll_raised(context) {
                self.stop(Failure::new("interrupted"));
            }
            slots.poll_woken(context, |_, buffer| spare.extend(buffer));
            if slots.live() == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        match self.failure.borrow().as_ref() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Bytes copied without a gap, from the start.
    pub(crate) fn copied(&self) -> u64 {
        self.written.borrow().prefix()
    }

    /// How far the destination was written, padding included.
    pub(crate) fn extent(&self) -> u64 {
        self.extent.get()
    }

    /// The life of one place. Gives the buffer back, unless a stream's request took it along.
    async fn occupy(&self, buffer: AlignedBuf) -> Option<AlignedBuf> {
        match self.carry_blocks(buffer).await {
            Ok(buffer) => Some(buffer),
            Err(Halt::Told) => None,
            Err(Halt::Failed(failure)) => {
                self.stop(failure);
                None
            }
        }
    }

    async fn carry_blocks(&self, mut buffer: AlignedBuf) -> Result<AlignedBuf, Halt> {
        loop {
            if self.stopped() {
                return Err(Halt::Told);
            }
            let block;
            (block, buffer) = match self.source.positioned {
                true => self.read_positioned(buffer).await?,
                false => self.read_stream(buffer).await?,
            };
            let Some(block) = block else {
                return Ok(buffer);
            };
            buffer = match self.destination.positioned {
                true => self.write_positioned(block, buffer).await?,
                false => self.write_stream(block, buffer).await?,
            };
        }
    }

    /// The next block of the known length, then, one at a time, those that may have been added to it since.
    fn claim(&self) -> Option<Block> {
        let mut claims = self.claims.borrow_mut();
        let left = self.source.len.saturating_sub(claims.offset);
        let probe = left == 0;
        // A device does not grow.
        if claims.end.is_some() || (probe && (claims.probing || self.source.is_block())) {
            return None;
        }
        claims.probing |= probe;
        let whole = self.block_size as u64;
        // The minimum is at most a block.
        let len = if self.source.is_block() { left.min(whole) as usize } else { self.block_size };
        let block = Block { sequence: claims.sequence, offset: claims.offset, len, probe };
        claims.sequence += 1;
        claims.offset += len as u64;
        Some(block)
    }

    async fn read_positioned(&self, mut buffer: AlignedBuf) -> Result<(Option<Block>, AlignedBuf), Halt> {
        let Some(mut block) = self.claim() else {
            return Ok((None, buffer));
        };
        let mut filled = 0;
        while filled < block.len {
            // A short read is continued, for direct I/O from the last place that is aligned. Only a read that brings
            // nothing new is the end of the file.
            let from = filled - filled % self.source.unit;
            let reading = self.source.file.read_at(buffer.slice(from..block.len), block.offset + from as u64);
            let BufResult(result, slice) = reading.await;
            buffer = slice.into_inner();
            let reached = from + result.map_err(|error| self.cannot_read(&error))?;
            if reached <= filled {
                break;
            }
            filled = reached;
        }
        let mut claims = self.claims.borrow_mut();
        if filled < block.len {
            let end = block.offset + filled as u64;
            claims.end = Some(claims.end.map_or(end, |other| other.min(end)));
        }
        if block.probe {
            claims.probing = false;
        }
        block.len = filled;
        Ok((Some(block), buffer))
    }

    async fn read_stream(&self, mut buffer: AlignedBuf) -> Result<(Option<Block>, AlignedBuf), Halt> {
        let sequence = {
            let mut claims = self.claims.borrow_mut();
            claims.sequence += 1;
            claims.sequence - 1
        };
        self.unless_stopped(self.reading.wait(sequence)).await?;
        let mut filled = 0;
        let mut ended = self.claims.borrow().end.is_some();
        while !ended && filled < self.block_size {
            let reading = self.source.file.read(buffer.slice(filled..self.block_size));
            let BufResult(result, slice) = self.unless_stopped(reading).await?;
            buffer = slice.into_inner();
            let count = result.map_err(|error| self.cannot_read(&error))?;
            filled += count;
            ended = count == 0;
            // From stream to stream everything goes on as it comes: somebody may wait for it.
            if !self.destination.positioned {
                break;
            }
        }
        let mut claims = self.claims.borrow_mut();
        let block = Block { sequence, offset: claims.offset, len: filled, probe: false };
        claims.offset += filled as u64;
        if ended {
            claims.end = Some(claims.offset);
        }
        drop(claims);
        self.reading.pass_on();
        Ok((if filled == 0 { None } else { Some(block) }, buffer))
    }

    async fn write_positioned(&self, block: Block, mut buffer: AlignedBuf) -> Result<AlignedBuf, Halt> {
        let unit = self.destination.unit;
        let mut whole = block.len.next_multiple_of(self.destination.padding(self.block_size));
        if whole != block.len {
            if self.destination.is_block() {
                // What follows the copy on a device is not ours.
                whole = block.len - block.len % unit;
                self.write_last_sector(&buffer[whole..block.len], block.offset + whole as u64).await?;
            } else {
                // What follows it in a file is cut off in the end.
                buffer[block.len..whole].fill(0);
            }
        }
        if whole != 0 {
            let BufResult(result, slice) =
                self.destination.file.write_all_at(buffer.slice(0..whole), block.offset).await;
            buffer = slice.into_inner();
            result.map_err(|error| self.cannot_write(&error))?;
        }
        self.extent.set(self.extent.get().max(block.offset + whole as u64));
        self.arrived(block);
        Ok(buffer)
    }

    /// Puts the start of a sector in front of the rest of it.
    async fn write_last_sector(&self, start: &[u8], offset: u64) -> Result<(), Halt> {
        if offset >= self.destination.len {
            let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(self.cannot_write(&full).into());
        }
        let sector = AlignedBuf::zeroed(self.destination.unit, self.destination.memory_alignment);
        let BufResult(result, mut sector) = self.destination.file.read_exact_at(sector, offset).await;
        result.map_err(|error| self.cannot_write(&error))?;
        sector[..start.len()].copy_from_slice(start);
        let BufResult(result, _) = self.destination.file.write_all_at(sector, offset).await;
        result.map_err(|error| Halt::from(self.cannot_write(&error)))
    }

    async fn write_stream(&self, block: Block, mut buffer: AlignedBuf) -> Result<AlignedBuf, Halt> {
        // An empty block takes its turn too, for the blocks after it wait for theirs.
        self.unless_stopped(self.writing.wait(block.sequence)).await?;
        // A file that shrinks and grows again while it is read leaves blocks behind its end.
        let beyond = self.claims.borrow().end.is_some_and(|end| block.offset >= end);
        if block.len != 0 && !beyond {
            let writing = self.destination.file.write_all(buffer.slice(0..block.len));
            let BufResult(result, slice) = self.unless_stopped(writing).await?;
            buffer = slice.into_inner();
            result.map_err(|error| self.cannot_write(&error))?;
            self.arrived(block);
        }
        self.writing.pass_on();
        Ok(buffer)
    }

    fn arrived(&self, block: Block) {
        if block.len != 0 {
            self.written.borrow_mut().add(block.offset, block.len as u64);
            self.bar.inc(block.len as u64);
        }
    }

    /// Notes why the copy ends, and has every place look. The first reason is the one that counts.
    fn stop(&self, failure: Failure) {
        if !self.stopped() {
            *self.failure.borrow_mut() = Some(failure);
            self.board.wake_all();
        }
    }

    fn stopped(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Waits for what may never come; the request is dropped then, which withdraws it.
    async fn unless_stopped<T>(&self, waiting: impl Future<Output = T>) -> Result<T, Halt> {
        let mut waiting = pin!(waiting);
        std::future::poll_fn(|context| match self.stopped() {
            true => Poll::Ready(Err(Halt::Told)),
            false => waiting.as_mut().poll(context).map(Ok),
        })
        .await
    }

    fn cannot_read(&self, error: &std::io::Error) -> Failure {
        Failure::of(format_args!("cannot read {}", self.source.name("standard input")), error)
    }

    fn cannot_write(&self, error: &std::io::Error) -> Failure {
        Failure::of(format_args!("cannot write {}", self.destination.name("standard output")), error)
    }
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Halt {
        Halt::Failed(failure)
    }
}

/// Good for any buffered request; direct I/O may ask for more.
const PAGE: usize = 4096;
