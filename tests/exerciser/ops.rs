//! Operations of every kind behind one interface, and the memory that they are given.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use polyaio::backend::CancelOutcome;
use polyaio::ops::Operation;
use polyaio::{AlignedBuf, BufResult, File, IoBuf as _, Op, Slice};

use crate::plan::{Act, Form, Parts};

/// Where a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(u64),
    /// The position.
    Here,
    /// The end of the file.
    End,
}

/// What an operation has come to.
pub(crate) struct Done {
    /// A count of bytes, a length, or 0.
    pub(crate) result: io::Result<u64>,
    /// All bytes of the buffers that came back, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// Bytes around the buffers were changed.
    pub(crate) beside: bool,
}

/// An operation that was made.
pub(crate) trait Running: Send {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Done>;
    fn cancel(&mut self) -> CancelOutcome;
}

struct Mapped<T: Operation, F> {
    op: Op<T>,
    map: F,
}

impl<T: Operation, F: Fn(T::Output) -> Done + Send> Running for Mapped<T, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Done> {
        Pin::new(&mut self.op).poll(context).map(&self.map)
    }

    fn cancel(&mut self) -> CancelOutcome {
        self.op.cancel()
    }
}

fn running<T: Operation + Send + 'static>(
    op: Op<T>,
    map: impl Fn(T::Output) -> Done + Send + 'static,
) -> Box<dyn Running> {
    Box::new(Mapped { op, map })
}

// ----- memory ----------------------------------------------------------------------------------------------------------

type Buffer = Slice<AlignedBuf>;

/// Bytes behind each buffer that nobody may change; `shift` bytes before it are such too.
const GUARD: usize = 32;
const UNTOUCHED: u8 = 0xa5;

/// A buffer, `shift` bytes beside an aligned address.
fn buffer(shift: usize, bytes: &[u8]) -> Buffer {
    let mut whole = AlignedBuf::zeroed(shift + bytes.len() + GUARD, 4096);
    whole.fill(UNTOUCHED);
    whole[shift..shift + bytes.len()].copy_from_slice(bytes);
    whole.slice(shift..shift + bytes.len())
}

/// The lengths of the buffers that `length` bytes are spread over.
pub(crate) fn lengths(parts: Parts, length: usize, unit: usize) -> Vec<usize> {
    let Parts::List(count) = parts else { return vec![length] };
    let mut lengths = Vec::with_capacity(count);
    let mut left = length / unit;
    for i in 0..count - 1 {
        // Uneven, and every fifth one empty.
        let share = if i % 5 == 3 { 0 } else { (left / (count - i)).max(1) * (1 + i % 3) };
        lengths.push(share.min(left));
        left -= share.min(left);
    }
    lengths.push(left);
    lengths.into_iter().map(|share| share * unit).collect()
}

fn buffers(form: Form, unit: usize, bytes: &[u8]) -> Vec<Buffer> {
    let mut rest = bytes;
    let cut = |length| {
        let (part, behind) = rest.split_at(length);
        rest = behind;
        buffer(form.shift, part)
    };
    lengths(form.parts, bytes.len(), unit).into_iter().map(cut).collect()
}

fn done(result: io::Result<u64>, back: Vec<Buffer>) -> Done {
    let (mut bytes, mut beside) = (Vec::new(), false);
    for part in back {
        let length = part.len();
        bytes.extend_from_slice(&part);
        let shift = part.stable_ptr().addr() % 4096;
        let whole = part.into_inner();
        let guards = whole[..shift].iter().chain(&whole[shift + length..]);
        beside |= { guards }.any(|byte| *byte != UNTOUCHED);
    }
    Done { result, bytes, beside }
}

fn transferred(BufResult(result, back): BufResult<usize, Buffer>) -> Done {
    done(result.map(|n| n as u64), vec![back])
}

fn transferred_list(BufResult(result, back): BufResult<usize, Vec<Buffer>>) -> Done {
    done(result.map(|n| n as u64), back)
}

fn finished(BufResult(result, back): BufResult<(), Buffer>) -> Done {
    let length = back.len() as u64;
    done(result.map(|()| length), vec![back])
}

fn finished_list(BufResult(result, back): BufResult<(), Vec<Buffer>>) -> Done {
    let length = back.iter().map(|part| part.len() as u64).sum();
    done(result.map(|()| length), back)
}

fn answered(result: io::Result<u64>) -> Done {
    done(result, Vec::new())
}

// ----- making them -----------------------------------------------------------------------------------------------------

/// What reads find in their buffers beforehand.
const BLANK: u8 = 0x5a;

pub(crate) fn read(file: &File, form: Form, unit: usize, place: Place, length: usize) -> Box<dyn Running> {
    let mut list = buffers(form, unit, &vec![BLANK; length]);
    match (form.parts, form.whole, place) {
        (Parts::One, false, Place::At(at)) => running(file.read_at(list.remove(0), at), transferred),
        (Parts::One, true, Place::At(at)) => running(file.read_exact_at(list.remove(0), at), finished),
        (Parts::One, false, _) => running(file.read(list.remove(0)), transferred),
        (Parts::One, true, _) => running(file.read_exact(list.remove(0)), finished),
        (_, false, Place::At(at)) => running(file.read_vectored_at(list, at), transferred_list),
        (_, true, Place::At(at)) => running(file.read_exact_vectored_at(list, at), finished_list),
        (_, false, _) => running(file.read_vectored(list), transferred_list),
        (_, true, _) => running(file.read_exact_vectored(list), finished_list),
    }
}

pub(crate) fn write(file: &File, form: Form, unit: usize, place: Place, bytes: &[u8]) -> Box<dyn Running> {
    if place == Place::End {
        return running(file.append(buffer(form.shift, bytes)), finished);
    }
    let mut list = buffers(form, unit, bytes);
    match (form.parts, form.whole, place) {
        (Parts::One, false, Place::At(at)) => running(file.write_at(list.remove(0), at), transferred),
        (Parts::One, true, Place::At(at)) => running(file.write_all_at(list.remove(0), at), finished),
        (Parts::One, false, _) => running(file.write(list.remove(0)), transferred),
        (Parts::One, true, _) => running(file.write_all(list.remove(0)), finished),
        (_, false, Place::At(at)) => running(file.write_vectored_at(list, at), transferred_list),
        (_, true, Place::At(at)) => running(file.write_all_vectored_at(list, at), finished_list),
        (_, false, _) => running(file.write_vectored(list), transferred_list),
        (_, true, _) => running(file.write_all_vectored(list), finished_list),
    }
}

/// Whatever transfers nothing.
pub(crate) fn control(file: &File, act: Act, from: u64, length: u64) -> Box<dyn Running> {
    let nothing = |result: io::Result<()>| answered(result.map(|()| 0));
    match act {
        Act::Punch => running(file.punch_hole(from, length), nothing),
        Act::Allocate => running(file.allocate(from, length), nothing),
        Act::SyncAll => running(file.sync_all(), nothing),
        Act::SyncData => running(file.sync_data(), nothing),
        Act::SyncRange => running(file.sync_range(0, 0), nothing),
        Act::Len => running(file.len(), answered),
        Act::Metadata => running(file.metadata(), |result| answered(result.map(|metadata| metadata.len))),
        Act::Read(_) | Act::Write(_) => unreachable!("transfers have buffers"),
    }
}
