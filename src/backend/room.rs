//! The memory of a read, for those who write no unsafe code: filled from its beginning, and counted.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use crate::memory::IoVec;

/// How far the memory of a read is filled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    /// In all.
    pub(super) bytes: usize,
    /// The range that is filled next, and how many bytes of it are filled.
    range: usize,
    within: usize,
    /// So many bytes of that range, after those, are initialised.
    initialised: usize,
}

/// The memory of a read: filled from its beginning, in any number of steps.
#[derive(Debug)]
pub struct Room<'a> {
    pub(super) ranges: &'a [IoVec],
    pub(super) filled: &'a mut Filled,
}

impl Room<'_> {
    /// Bytes that were put into it.
    pub fn filled(&self) -> usize {
        self.filled.bytes
    }

    /// Bytes that there is still room for.
    pub fn left(&self) -> usize {
        let after: usize = self.ranges[self.filled.range..].iter().map(|range| range.len).sum();
        after - self.filled.within
    }

    /// Copies as many of the bytes as there is room for; returns how many.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        // SAFETY: the same bytes, of which nobody has to know that they are initialised.
        let bytes: &[MaybeUninit<u8>] = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) };
        self.put(bytes.len(), |place, at| place.copy_from_slice(&bytes[at..][..place.len()]))
    }

    /// Puts `byte` in, `count` times or as often as there is room for; returns how often.
    pub fn fill(&mut self, byte: u8, count: usize) -> usize {
        self.put(count, |place, _| place.fill(MaybeUninit::new(byte)))
    }

    /// What comes next, as bytes: all that is left of the present range of memory, empty when there is no room. What was
    /// never written is zeroed first, which costs some tens of nanoseconds for 4 KiB. [`advance`](Self::advance) tells how
    /// much of it was used.
    pub fn spare(&mut self) -> &mut [u8] {
        let known = self.filled.initialised;
        // SAFETY: bytes are initialised here, and none the other way round.
        let spare = unsafe { self.spare_uninit() };
        let (base, len) = (spare.as_mut_ptr().cast::<u8>(), spare.len());
        spare[known..].fill(MaybeUninit::new(0));
        self.filled.initialised = len;
        // SAFETY: all of it is initialised, the memory is the read's until it is complete, and we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(base, len) }
    }

    /// Notes that the first `count` bytes of [`spare`](Self::spare) are part of the result.
    ///
    /// # Panics
    /// Panics if `count` is larger than what `spare` has last returned.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.filled.initialised, "{count} bytes of {}", self.filled.initialised);
        // SAFETY: so many are initialised.
        unsafe { self.step_over(count) }
    }

    /// Reads from `reader`, once, into the present range of memory; returns how many bytes came. 0 also where there is no room.
    ///
    /// # Errors
    /// The reader's.
    pub fn read_from(&mut self, reader: &mut (impl io::Read + ?Sized)) -> io::Result<usize> {
        let spare = self.spare();
        if spare.is_empty() {
            return Ok(0);
        }
        let count = reader.read(spare)?;
        self.advance(count);
        Ok(count)
    }

    /// What was filled, in order, to be changed in place: decoded, say.
    pub fn filled_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let Filled { range, within, .. } = *self.filled;
        let length =
            move |(index, whole): (usize, &IoVec)| (whole.base, if index < range { whole.len } else { within });
        let parts = self.ranges.iter().enumerate().take(range + 1).map(length).filter(|(_, len)| *len > 0);
        // SAFETY: these bytes were filled, which initialises them; the ranges overlap nowhere (`IoVecBufMut`), and we are
        // borrowed mutably as long as the slices live.
        parts.map(|(base, len)| unsafe { std::slice::from_raw_parts_mut(base, len) })
    }

    /// As [`spare`](Self::spare), for system calls that are told where to write: nothing is zeroed.
    ///
    /// # Safety
    /// Bytes are written to it, and nothing else: what is initialised stays so.
    pub unsafe fn spare_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let Some(range) = self.ranges.get(self.filled.range) else { return &mut [] };
        let within = self.filled.within;
        // SAFETY: `within` is less than the length of the range, which may be written until the read is complete.
        unsafe { std::slice::from_raw_parts_mut(range.base.add(within).cast(), range.len - within) }
    }

    /// Notes that `count` more bytes are filled.
    ///
    /// # Safety
    /// They were written, in order: the first `count` bytes of [`spare_uninit`](Self::spare_uninit).
    ///
    /// # Panics
    /// Panics if there is no room for so many.
    pub unsafe fn assume_filled(&mut self, count: usize) {
        // SAFETY: forwarded to the caller.
        unsafe { self.step_over(count) }
    }

    /// Fills up to `count` bytes, range by range; `write` initialises all that it is given, and is told how many bytes
    /// were filled before.
    fn put(&mut self, count: usize, mut write: impl FnMut(&mut [MaybeUninit<u8>], usize)) -> usize {
        let mut done = 0;
        while done < count {
            // SAFETY: `write` initialises.
            let spare = unsafe { self.spare_uninit() };
            let step = spare.len().min(count - done);
            if step == 0 {
                break;
            }
            write(&mut spare[..step], done);
            // SAFETY: written just now.
            unsafe { self.step_over(step) };
            done += step;
        }
        done
    }

    /// # Safety
    /// The next `count` bytes, through all ranges, were written.
    pub(super) unsafe fn step_over(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let range = self.ranges.get(self.filled.range).expect("no more bytes than there is room for");
            let step = left.min(range.len - self.filled.within);
            self.filled.within += step;
            self.filled.initialised = self.filled.initialised.saturating_sub(step);
            self.filled.bytes += step;
            left -= step;
            if self.filled.within == range.len {
                (self.filled.range, self.filled.within, self.filled.initialised) = (self.filled.range + 1, 0, 0);
            }
        }
    }
}
