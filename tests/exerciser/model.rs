//! What the file has to hold, and what each operation may answer.

use std::io::{self, ErrorKind};
use std::ops::Range;

use crate::ops::{Done, Place, lengths};
use crate::plan::Form;

/// A file as it should be.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) bytes: Vec<u8>,
    pub(crate) position: u64,
    /// Opened for appending.
    pub(crate) append: bool,
    /// The alignment of emulated direct I/O.
    pub(crate) rules: Option<usize>,
}

/// A transfer before it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) read: bool,
    pub(crate) form: Form,
    pub(crate) unit: usize,
    pub(crate) place: Place,
    pub(crate) length: usize,
}

impl Model {
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.bytes.resize(len as usize, 0);
    }

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        // Nothing is written, not even a hole.
        if bytes.is_empty() {
            return;
        }
        let range = at as usize..at as usize + bytes.len();
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        self.bytes[range].copy_from_slice(bytes);
    }

    pub(crate) fn punch(&mut self, range: &Range<u64>) {
        let end = range.end.min(self.len());
        if range.start < end {
            self.bytes[range.start as usize..end as usize].fill(0);
        }
    }

    pub(crate) fn allocate(&mut self, range: &Range<u64>) {
        self.set_len(self.len().max(range.end));
    }

    /// What is in the range, as far as the file reaches.
    pub(crate) fn slice(&self, range: &Range<u64>) -> &[u8] {
        let end = range.end.min(self.len());
        &self.bytes[range.start.min(end) as usize..end as usize]
    }

    /// Whether the rules of emulated direct I/O refuse it: unless it is a read that begins at the end of the file.
    pub(crate) fn refuses(&self, transfer: &Transfer) -> bool {
        let Some(unit) = self.rules else { return false };
        let given = match transfer.place {
            Place::At(at) => at,
            Place::Here => self.position,
            Place::End => 0,
        };
        let appends = !transfer.read && (self.append || transfer.place == Place::End);
        let places = [Some(given), appends.then_some(self.len())];
        // `append` takes one buffer.
        let parts = if transfer.place == Place::End {
            vec![transfer.length]
        } else {
            lengths(transfer.form.parts, transfer.length, transfer.unit)
        };
        let memory = |length: usize| length.is_multiple_of(unit) && transfer.form.shift.is_multiple_of(unit);
        transfer.length > 0
            && (places.into_iter().flatten().any(|place| !place.is_multiple_of(unit as u64))
                || parts.into_iter().any(|length| length > 0 && !memory(length)))
    }
}

/// What a read finds, while others may make the file longer.
pub(crate) struct Reading<'a> {
    pub(crate) form: Form,
    pub(crate) range: Range<u64>,
    /// Length of the file before and after all that is in flight with it.
    pub(crate) lens: Range<u64>,
    /// All that may be there, as far as the file reaches in the end.
    pub(crate) want: &'a [u8],
    /// The rules say no, where it begins before the end.
    pub(crate) refused: bool,
    /// Its count may be smaller than what there is.
    pub(crate) may_be_short: bool,
}

impl Reading<'_> {
    pub(crate) fn check(&self, done: &Done) -> Result<(), String> {
        let length = self.range.end - self.range.start;
        let there = |len: u64| len.saturating_sub(self.range.start).min(length);
        let (mut least, most) = (there(self.lens.start), there(self.lens.end));
        if self.refused && is(&done.result, libc::EINVAL) {
            return if most > 0 { Ok(()) } else { Err("refused at the end of the file".into()) };
        }
        if self.refused {
            if least > 0 {
                return Err(format!("misaligned, and yet {:?}", done.result));
            }
            // Where it was not refused it began at the end.
            return match &done.result {
                Ok(0) => Ok(()),
                Err(error) if self.form.whole && error.kind() == ErrorKind::UnexpectedEof => Ok(()),
                other => Err(format!("misaligned, and yet {other:?}")),
            };
        }
        let n = match &done.result {
            Err(error) if self.form.whole && error.kind() == ErrorKind::UnexpectedEof && least < length => least,
            Ok(n) if self.form.whole && *n == length && most == length => length,
            Ok(n) if !self.form.whole => {
                if self.may_be_short {
                    least = least.min(1);
                }
                if !(least..=most).contains(n) {
                    return Err(format!("{n} bytes; there are {least} to {most}"));
                }
                *n
            }
            other => return Err(format!("{other:?}; there are {least} to {most} bytes")),
        } as usize;
        same(&done.bytes[..n], &self.want[..n], self.range.start)
    }
}

/// What a write has answered; the bytes in its buffers are as they were.
pub(crate) fn check_write(done: &Done, bytes: &[u8], refused: bool, may_be_short: bool) -> Result<(), String> {
    same(&done.bytes, bytes, 0).map_err(|error| format!("its own buffer has changed: {error}"))?;
    match &done.result {
        result if refused && is(result, libc::EINVAL) => Ok(()),
        result if refused => Err(format!("misaligned, and yet {result:?}")),
        Ok(n) if *n == bytes.len() as u64 || may_be_short && (1..bytes.len() as u64).contains(n) => Ok(()),
        other => Err(format!("{other:?} instead of {} bytes", bytes.len())),
    }
}

/// `at` is where both begin in the file.
pub(crate) fn same(have: &[u8], want: &[u8], at: u64) -> Result<(), String> {
    let Some(place) = crate::support::first_difference(have, want) else { return Ok(()) };
    let show = |bytes: &[u8]| format!("{:02x?}", &bytes[place.min(bytes.len())..bytes.len().min(place + 8)]);
    let (have_len, want_len) = (have.len(), want.len());
    let (have, want, place) = (show(have), show(want), at + place as u64);
    Err(format!("byte {place} is {have}, should be {want} ({have_len} bytes, should be {want_len})"))
}

pub(crate) fn is(result: &io::Result<u64>, errno: i32) -> bool {
    result.as_ref().is_err_and(|error| polyaio::Errno::of(error) == Some(polyaio::Errno(errno)))
}
