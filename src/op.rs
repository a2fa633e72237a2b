//! (2) A typed operation, and what it returns.
//!
//! Each type here is one operation with its buffer. It knows its [`Shape`], which is all that backends see, and turns the
//! outcome back into what the caller asked for.

use std::io;

use crate::buf::{IoBuf, IoBufMut};
use crate::completion::Outcome;
use crate::error::BufResult;
use crate::how::{At, How};
use crate::memory::{IoVec, Ranges};
use crate::request::{Extra, OpKind};

mod control;
mod vectored;

pub use control::{Advise, Metadata, Open, Ready};
pub use vectored::{ReadExactVectored, ReadVectored, WriteAllVectored, WriteVectored};

/// The erased form of an operation, but for its memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub(crate) kind: OpKind,
    pub(crate) position: Option<u64>,
    /// Bytes of a transfer.
    pub(crate) bytes: u64,
    /// Bytes of a range, of what transfers nothing.
    pub(crate) allocate: u64,
    /// Finish short transfers.
    pub(crate) whole: bool,
    pub(crate) how: How,
}

impl Shape {
    fn transfer(kind: OpKind, at: At, bytes: u64, whole: bool) -> Self {
        Self { kind, position: at.place(), bytes, allocate: 0, whole, how: at.how }
    }

    fn control(kind: OpKind, position: Option<u64>) -> Self {
        Self { kind, position, bytes: 0, allocate: 0, whole: false, how: How::default() }
    }

    /// Bytes to transfer, or those of the range.
    pub(crate) fn length(&self) -> u64 {
        if self.kind.is_transfer() { self.bytes } else { self.allocate }
    }
}

/// An operation on a file; what [`Op`](crate::Op) runs. Implemented by this crate only.
///
/// # Examples
/// To write something for every kind of operation:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{Op, ops::Operation};
/// fn timed<T: Operation>(operation: Op<T>) -> (T::Output, std::time::Duration) {
///     let begin = std::time::Instant::now();
///     (operation.wait(), begin.elapsed())
/// }
/// let (synced, took) = timed(file.sync_data());
/// synced?;
/// let (read, _) = timed(file.read_at(vec![0; 5], 0));
/// println!("{took:?}, {}", read.0?);
/// # Ok(()) }
/// ```
pub trait Operation: sealed::Sealed + Send + 'static {
    /// Whether it is one that the page cache may answer.
    #[doc(hidden)]
    const READS: bool = false;

    /// What it returns.
    type Output: Send + 'static;

    #[doc(hidden)]
    fn shape(&mut self) -> Shape;

    /// Adds the ranges of memory of a transfer. They stay valid, also when the operation is moved, until it is finished.
    #[doc(hidden)]
    fn lend(&mut self, memory: &mut Ranges) {
        let _ = memory;
    }

    /// What only this kind has.
    #[doc(hidden)]
    fn extra(&self) -> Extra {
        Extra::None
    }

    /// What needs neither a slot nor a worker.
    #[doc(hidden)]
    fn at_once(&self) -> Option<Outcome> {
        None
    }

    #[doc(hidden)]
    fn finish(self, result: io::Result<u64>) -> Self::Output;
}

mod sealed {
    pub trait Sealed {}
}

/// Reads at most the buffer's length, at an offset or at the position.
///
/// Made by [`File::read_at`](crate::File::read_at) and [`File::read`](crate::File::read); the example of
/// [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Read<B> {
    pub(crate) buffer: B,
    pub(crate) at: At,
}

/// Reads until the buffer is full.
///
/// Made by [`File::read_exact_at`](crate::File::read_exact_at) and [`File::read_exact`](crate::File::read_exact); the
/// example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct ReadExact<B> {
    pub(crate) buffer: B,
    pub(crate) at: At,
}

/// Writes at most the buffer's length, at an offset or at the position.
///
/// Made by [`File::write_at`](crate::File::write_at) and [`File::write`](crate::File::write); the example of
/// [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Write<B> {
    pub(crate) buffer: B,
    pub(crate) at: At,
}

/// Writes all of the buffer.
///
/// Made by [`File::write_all_at`](crate::File::write_all_at), [`File::write_all`](crate::File::write_all) and
/// [`File::append`](crate::File::append); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct WriteAll<B> {
    pub(crate) buffer: B,
    pub(crate) at: At,
}

/// An operation without a buffer, and without a value.
///
/// Made by [`File::sync_all`](crate::File::sync_all), [`File::set_len`](crate::File::set_len) and
/// [`File::close`](crate::File::close), among others; the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Control {
    pub(crate) kind: OpKind,
    pub(crate) position: Option<u64>,
    pub(crate) length: u64,
}

/// Asks for the length.
///
/// Made by [`File::len`](crate::File::len); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Len;

fn into_memory<B: IoBufMut>(buffer: &mut B) -> IoVec {
    IoVec { base: buffer.stable_mut_ptr(), len: buffer.bytes_total() }
}

fn from_memory<B: IoBuf>(buffer: &B) -> IoVec {
    // Only ever read from: requests of kind `Write` promise it.
    IoVec { base: buffer.stable_ptr().cast_mut(), len: buffer.bytes_init() }
}

/// Notes what was read. The outcome is trusted: it was checked against the request's length.
#[allow(unsafe_code)]
fn filled<B: IoBufMut>(buffer: &mut B, result: &io::Result<u64>) {
    if let Ok(n) = result {
        debug_assert!(*n <= buffer.bytes_total() as u64, "more was read than fits");
        // SAFETY: the operating system, or the backend, has written so many bytes from the buffer's start on; a count
        // beyond the request's length never gets here (`Request::complete`).
        unsafe { buffer.set_init(*n as usize) }
    }
}

/// The result of a read of all or nothing.
fn filled_up(result: io::Result<u64>, wanted: u64) -> io::Result<()> {
    match result? {
        n if n == wanted => Ok(()),
        n => {
            let what = format!("the file ended after {n} of the {wanted} bytes");
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
        }
    }
}

/// The result of a write of all or nothing.
fn written_out(result: io::Result<u64>, wanted: u64) -> io::Result<()> {
    match result? {
        n if n == wanted => Ok(()),
        n => {
            let what = format!("nothing more could be written after {n} of the {wanted} bytes");
            Err(io::Error::new(io::ErrorKind::WriteZero, what))
        }
    }
}

impl<B: IoBufMut> sealed::Sealed for Read<B> {}
impl<B: IoBufMut> Operation for Read<B> {
    const READS: bool = true;

    type Output = BufResult<usize, B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Read, self.at, self.buffer.bytes_total() as u64, false)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.push(into_memory(&mut self.buffer));
    }

    fn finish(mut self, result: io::Result<u64>) -> Self::Output {
        filled(&mut self.buffer, &result);
        BufResult(result.map(|n| n as usize), self.buffer)
    }
}

impl<B: IoBufMut> sealed::Sealed for ReadExact<B> {}
impl<B: IoBufMut> Operation for ReadExact<B> {
    const READS: bool = true;

    type Output = BufResult<(), B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Read, self.at, self.buffer.bytes_total() as u64, true)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.push(into_memory(&mut self.buffer));
    }

    fn finish(mut self, result: io::Result<u64>) -> Self::Output {
        filled(&mut self.buffer, &result);
        let wanted = self.buffer.bytes_total() as u64;
        BufResult(filled_up(result, wanted), self.buffer)
    }
}

impl<B: IoBuf> sealed::Sealed for Write<B> {}
impl<B: IoBuf> Operation for Write<B> {
    type Output = BufResult<usize, B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Write, self.at, self.buffer.bytes_init() as u64, false)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.push(from_memory(&self.buffer));
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        BufResult(result.map(|n| n as usize), self.buffer)
    }
}

impl<B: IoBuf> sealed::Sealed for WriteAll<B> {}
impl<B: IoBuf> Operation for WriteAll<B> {
    type Output = BufResult<(), B>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(OpKind::Write, self.at, self.buffer.bytes_init() as u64, true)
    }

    fn lend(&mut self, memory: &mut Ranges) {
        memory.push(from_memory(&self.buffer));
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        let wanted = self.buffer.bytes_init() as u64;
        BufResult(written_out(result, wanted), self.buffer)
    }
}

impl sealed::Sealed for Control {}
impl Operation for Control {
    type Output = io::Result<()>;

    fn shape(&mut self) -> Shape {
        Shape { allocate: self.length, ..Shape::control(self.kind, self.position) }
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        result.map(|_| ())
    }
}

impl sealed::Sealed for Len {}
impl Operation for Len {
    type Output = io::Result<u64>;

    fn shape(&mut self) -> Shape {
        Shape::control(OpKind::Len, None)
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        result
    }
}
