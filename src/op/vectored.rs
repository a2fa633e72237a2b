//! Reads into, and writes from, several buffers.

use std::io;

use super::{Operation, Shape, filled_up, sealed, written_out};
use crate::buf::{IoVecBuf, IoVecBufMut};
use crate::error::BufResult;
use crate::how::At;
use crate::memory::{IoVec, Ranges};
use crate::request::OpKind;

/// Reads into several buffers, one after the other, at most what fits.
///
/// Made by [`File::read_vectored_at`](crate::File::read_vectored_at) and
/// [`File::read_vectored`](crate::File::read_vectored); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct ReadVectored<B> {
    pub(crate) buffers: B,
    pub(crate) at: At,
}

/// Reads until several buffers are full.
///
/// Made by [`File::read_exact_vectored_at`](crate::File::read_exact_vectored_at) and
/// [`File::read_exact_vectored`](crate::File::read_exact_vectored); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct ReadExactVectored<B> {
    pub(crate) buffers: B,
    pub(crate) at: At,
}

/// Writes several buffers, one after the other, perhaps not all.
///
/// Made by [`File::write_vectored_at`](crate::File::write_vectored_at) and
/// [`File::write_vectored`](crate::File::write_vectored); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct WriteVectored<B> {
    pub(crate) buffers: B,
    pub(crate) at: At,
}

/// Writes all of several buffers.
///
/// Made by [`File::write_all_vectored_at`](crate::File::write_all_vectored_at) and
/// [`File::write_all_vectored`](crate::File::write_all_vectored); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct WriteAllVectored<B> {
    pub(crate) buffers: B,
    pub(crate) at: At,
}

fn total(ranges: impl Iterator<Item = IoVec>) -> u64 {
    ranges.fold(0, |sum, range| sum.saturating_add(range.len as u64))
}

/// Notes what was read. The outcome is trusted: it was checked against the request's length.
#[allow(unsafe_code)]
fn filled<B: IoVecBufMut>(buffers: &mut B, result: &io::Result<u64>) {
    if let Ok(n) = result {
        debug_assert!(*n <= total(buffers.ranges_mut()), "more was read than fits");
        // SAFETY: the operating system, or the backend, has written so many bytes, into one buffer after the other; a count
        // beyond the request's length never gets here (`Request::complete`).
        unsafe { buffers.set_init(*n as usize) }
    }
}

impl<B: IoVecBufMut> sealed::Sealed for ReadVectored<B> {}
impl<B: IoVecBufMut> Operation for ReadVectored<B> {
    const READS: bool = true;

    type Output = BufResult<usize, B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Read, self.at, total(self.buffers.ranges_mut()), false)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.extend(self.buffers.ranges_mut());
    }

    fn finish(mut self, result: io::Result<u64>) -> Self::Output {
        filled(&mut self.buffers, &result);
        BufResult(result.map(|n| n as usize), self.buffers)
    }
}

impl<B: IoVecBufMut> sealed::Sealed for ReadExactVectored<B> {}
impl<B: IoVecBufMut> Operation for ReadExactVectored<B> {
    const READS: bool = true;

    type Output = BufResult<(), B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Read, self.at, total(self.buffers.ranges_mut()), true)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.extend(self.buffers.ranges_mut());
    }

    fn finish(mut self, result: io::Result<u64>) -> Self::Output {
        let wanted = total(self.buffers.ranges_mut());
        filled(&mut self.buffers, &result);
        BufResult(filled_up(result, wanted), self.buffers)
    }
}

impl<B: IoVecBuf> sealed::Sealed for WriteVectored<B> {}
impl<B: IoVecBuf> Operation for WriteVectored<B> {
    type Output = BufResult<usize, B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Write, self.at, total(self.buffers.ranges()), false)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.extend(self.buffers.ranges());
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        BufResult(result.map(|n| n as usize), self.buffers)
    }
}

impl<B: IoVecBuf> sealed::Sealed for WriteAllVectored<B> {}
impl<B: IoVecBuf> Operation for WriteAllVectored<B> {
    type Output = BufResult<(), B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Write, self.at, total(self.buffers.ranges()), true)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.extend(self.buffers.ranges());
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        let wanted = total(self.buffers.ranges());
        BufResult(written_out(result, wanted), self.buffers)
    }
}
