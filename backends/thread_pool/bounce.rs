//! Misaligned transfers without a second descriptor: whole blocks through a buffer of our own.
//!
//! A write reads the blocks that it covers in part, and writes all of them back; what it had to write beyond the end of the
//! file is cut off again. This is not atomic: the engine keeps the transfers of its own file away from the range; changes of
//! its length, and others, have to be kept away by their users, as open(2) says of direct I/O.

#![allow(unsafe_code)]

use super::abi;
use crate::buf::AlignedBuf;
use crate::completion::{Errno, Outcome};
use crate::how::Durability;
use crate::memory::IoVec;
use crate::os::{self, RawFd};
use crate::request::{OpKind, Request};

/// Bytes that go through the buffer at a time.
const MOST: u64 = 1 << 20;
/// Where the alignment is not known.
const BLOCK: usize = 4096;

/// Serves one misaligned transfer at an offset. May be short.
///
/// # Errors
/// `EINVAL` for transfers at the position, for appends, and for partial blocks that cannot be read; else the system calls'.
pub(super) fn serve(fd: RawFd, request: &mut Request) -> Outcome {
    // Where it ends up is not known before.
    let Some(position) = request.place() else { return Err(Errno(libc::EINVAL)) };
    let alignment = request.alignment();
    let (memory, block) = alignment.map_or((BLOCK, BLOCK), |a| (a.memory.max(1), a.offset.max(1)));
    let length = request.length().min(MOST);
    let span = Span::new(position, length, block as u64).ok_or(Errno(libc::EINVAL))?;
    let mut buffer = AlignedBuf::zeroed(span.bytes(), memory.next_power_of_two());
    let (write, durability) = (request.kind() == OpKind::Write, request.durability());
    // SAFETY: the copies below use the memory for what the kind says, and are over when this function returns.
    let iovecs = unsafe { request.start() };
    if !write {
        return read_blocks(fd, &span, &mut buffer, iovecs);
    }
    let written = write_blocks(fd, &span, &mut buffer, iovecs)?;
    match durability {
        Durability::Later => {}
        Durability::Data => _ = abi::sync_data(fd)?,
        Durability::All => _ = abi::sync_all(fd)?,
    }
    Ok(written)
}

/// A range of bytes, and the blocks around it.
struct Span {
    /// First byte of the first block.
    from: u64,
    /// First byte after the last block.
    to: u64,
    /// Where the range begins, counted from `from`.
    head: usize,
    length: usize,
    block: u64,
}

impl Span {
    /// `None` where it reaches beyond the largest offset.
    fn new(position: u64, length: u64, block: u64) -> Option<Self> {
        let end = position.checked_add(length)?;
        let to = end.checked_next_multiple_of(block).filter(|to| *to <= i64::MAX as u64)?;
        let from = position - position % block;
        Some(Self { from, to, head: (position - from) as usize, length: length as usize, block })
    }

    fn bytes(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// First byte after the range.
    fn end(&self) -> u64 {
        self.from + (self.head + self.length) as u64
    }
}

fn read_blocks(fd: RawFd, span: &Span, buffer: &mut AlignedBuf, iovecs: &[IoVec]) -> Outcome {
    let n = pread(fd, buffer, span.from)?;
    let got = n.saturating_sub(span.head).min(span.length);
    let mut source = &buffer[span.head..span.head + got];
    for iovec in iovecs {
        let (part, rest) = source.split_at(source.len().min(iovec.len));
        // SAFETY: `part` is at most as long as the memory that the iovec describes, which is ours to write.
        unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), iovec.base, part.len()) };
        source = rest;
    }
    Ok(got as u64)
}

fn write_blocks(fd: RawFd, span: &Span, buffer: &mut AlignedBuf, iovecs: &[IoVec]) -> Outcome {
    if os::is_append(fd) != Some(false) {
        return Err(Errno(libc::EINVAL));
    }
    let regular = abi::is_regular(fd)?;
    let before = abi::length(fd)?;
    keep_neighbours(fd, span, buffer, before)?;
    let mut target = &mut buffer[span.head..span.head + span.length];
    for iovec in iovecs {
        let (part, rest) = target.split_at_mut(target.len().min(iovec.len));
        // SAFETY: `part` is at most as long as the memory that the iovec describes, which is ours to read.
        unsafe { std::ptr::copy_nonoverlapping(iovec.base, part.as_mut_ptr(), part.len()) };
        target = rest;
    }
    let wrote = pwrite(fd, buffer, span.from)?;
    let end = span.end().min(span.from + wrote as u64).max(before);
    let padded = span.from + wrote as u64;
    if regular && padded > end && abi::length(fd)? == padded {
        // What filled the last block up is not part of the file; unless somebody has set another length meanwhile.
        abi::truncate(fd, end)?;
    }
    Ok(wrote.saturating_sub(span.head).min(span.length) as u64)
}

/// Reads what is in the first and in the last block beside the range.
fn keep_neighbours(fd: RawFd, span: &Span, buffer: &mut AlignedBuf, length: u64) -> Result<(), Errno> {
    let block = span.block as usize;
    let last = span.bytes() - block;
    let head = span.head > 0;
    let tail = span.end() < span.to && span.end() < length && (last > 0 || !head);
    for (at, wanted) in [(0, head), (last, tail)] {
        if wanted && span.from + (at as u64) < length {
            pread(fd, &mut buffer[at..at + block], span.from + at as u64)
                .map_err(|errno| if errno.0 == libc::EBADF { Errno(libc::EINVAL) } else { errno })?;
        }
    }
    Ok(())
}

/// Reads until the slice is full, the file ends, or a block was cut short: that is its end too.
fn pread(fd: RawFd, into: &mut [u8], from: u64) -> Result<usize, Errno> {
    let call = || {
        // SAFETY: the slice may be written, all of it.
        unsafe { os::pread(fd, into.as_mut_ptr().cast(), into.len(), from as os::Offset) as isize }
    };
    abi::retry(call).map(|n| n as usize)
}

fn pwrite(fd: RawFd, data: &[u8], from: u64) -> Result<usize, Errno> {
    // SAFETY: the slice may be read, all of it.
    let call = || unsafe { os::pwrite(fd, data.as_ptr().cast(), data.len(), from as os::Offset) as isize };
    abi::retry(call).map(|n| n as usize)
}
