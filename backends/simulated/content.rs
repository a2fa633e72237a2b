//! The bytes of a file, sparsely: pages that nobody has written are not kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::damage::Marks;
use super::ranges::Ranges;
use crate::backend::Room;

/// The unit of storage, in bytes; also that in which space is taken from the disk.
pub(super) const PAGE: u64 = 4096;

type Page = Arc<[u8; PAGE as usize]>;

/// Length, bytes and space of a file. A clone shares its pages until one of them is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Page>,
    /// Whole pages that take up space, whether or not they were written.
    allocated: Ranges,
    /// What is wrong with it.
    pub(super) marks: Marks,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Space that it takes up on the disk, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        self.allocated.bytes()
    }

    /// So much space a write of this range would take in addition, in bytes.
    pub(super) fn needs(&self, range: Range<u64>) -> u64 {
        let pages = whole_pages(range);
        let there: u64 = self.allocated.within(pages.clone()).map(|part| part.end - part.start).sum();
        pages.end.saturating_sub(pages.start) - there
    }

    /// Hands the bytes of a range to `take`, in order; those behind the end are not there.
    pub(super) fn read(&self, range: Range<u64>, mut take: impl FnMut(Bytes<'_>)) {
        for (page, within) in parts(range.start..range.end.min(self.len)) {
            match self.pages.get(&page) {
                Some(page) => take(Bytes::These(&page[within])),
                None => take(Bytes::Zeroes(within.len())),
            }
        }
    }

    /// Fills the room from `at` on.
    pub(super) fn fill(&self, at: u64, most: u64, room: &mut Room<'_>) {
        self.read(at..at.saturating_add(most), |bytes| match bytes {
            Bytes::These(bytes) => _ = room.append(bytes),
            Bytes::Zeroes(count) => _ = room.fill(0, count),
        });
    }

    /// A copy of a range, up to the end.
    pub(super) fn copy(&self, range: Range<u64>) -> Vec<u8> {
        let mut copy = Vec::new();
        self.read(range, |bytes| match bytes {
            Bytes::These(bytes) => copy.extend_from_slice(bytes),
            Bytes::Zeroes(count) => copy.resize(copy.len() + count, 0),
        });
        copy
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<u8> {
        self.copy(0..self.len)
    }

    /// Writes, and takes the space for it.
    pub(super) fn write(&mut self, at: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = at + data.len() as u64;
        self.put(at, data);
        self.marks.heal(at..end);
        self.allocated.insert(whole_pages(at..end));
        self.len = self.len.max(end);
    }

    /// Changes bytes and nothing else: what lies behind the end, or in a hole, may be changed so too.
    pub(super) fn put(&mut self, at: u64, data: &[u8]) {
        let mut left = data;
        for (number, within) in parts(at..at + data.len() as u64) {
            let (now, rest) = left.split_at(within.len());
            left = rest;
            // A page of zeroes need not be kept.
            if self.pages.contains_key(&number) || now.iter().any(|byte| *byte != 0) {
                let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE as usize]));
                Arc::make_mut(page)[within].copy_from_slice(now);
            }
        }
    }

    /// Takes space for a range, and makes the file at least so long.
    pub(super) fn allocate(&mut self, range: Range<u64>) {
        self.len = self.len.max(range.end);
        self.allocated.insert(whole_pages(range));
    }

    /// Zeroes a range, and gives back the space of the pages that lie in it.
    pub(super) fn punch(&mut self, range: Range<u64>) {
        let (first, last) = (range.start / PAGE, range.end.div_ceil(PAGE));
        // Pages that there are not have nothing to be zeroed, and a hole may be large.
        let touched: Vec<u64> = self.pages.range(first..last.max(first)).map(|(number, _)| *number).collect();
        for number in touched {
            let start = number * PAGE;
            let from = range.start.saturating_sub(start).min(PAGE) as usize;
            let to = range.end.saturating_sub(start).min(PAGE) as usize;
            if (from, to) == (0, PAGE as usize) {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number).filter(|_| from < to) {
                Arc::make_mut(page)[from..to].fill(0);
            }
        }
        self.marks.heal(range.clone());
        let whole = range.start.div_ceil(PAGE)..range.end / PAGE;
        if whole.start < whole.end {
            self.allocated.remove(whole.start * PAGE..whole.end * PAGE);
        }
    }

    /// Cuts it, or makes it longer by zeroes.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len..(u64::MAX / PAGE) * PAGE);
        }
        self.len = len;
    }
}

/// What a read finds.
pub(super) enum Bytes<'a> {
    These(&'a [u8]),
    Zeroes(usize),
}

/// A range of bytes as parts of pages.
fn parts(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let numbers = if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) };
    numbers.map(move |number| {
        let (from, to) = (range.start.max(number * PAGE), range.end.min((number + 1) * PAGE));
        (number, (from - number * PAGE) as usize..(to - number * PAGE) as usize)
    })
}

/// The pages that a range touches, in bytes.
fn whole_pages(range: Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / PAGE * PAGE..range.end.div_ceil(PAGE) * PAGE }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    #[test]
    fn agrees_with_a_vector_of_bytes() {
        let mut rng = Rng::stream(5, 0);
        let (mut content, mut model) = (Content::default(), Vec::<u8>::new());
        for round in 0..3000_u64 {
            let at = rng.below(6 * PAGE);
            let len = [1, 7, 512, PAGE, 2 * PAGE + 3][rng.below(5) as usize];
            let end = (at + len) as usize;
            match rng.below(6) {
                0..=2 => {
                    let data = vec![if rng.below(4) == 0 { 0 } else { round as u8 | 1 }; len as usize];
                    content.write(at, &data);
                    model.resize(model.len().max(end), 0);
                    model[at as usize..end].copy_from_slice(&data);
                }
                3 => {
                    content.punch(at..at + len);
                    let len = model.len();
                    model[len.min(at as usize)..len.min(end)].fill(0);
                }
                4 => {
                    content.set_len(at);
                    model.resize(at as usize, 0);
                }
                _ => {
                    content.allocate(at..at + len);
                    model.resize(model.len().max(end), 0);
                    assert_eq!(content.needs(at..at + len), 0);
                }
            }
            assert_eq!((content.len(), content.all()), (model.len() as u64, model.clone()), "round {round}");
            assert!(content.allocated().is_multiple_of(PAGE));
            assert!(content.pages.keys().all(|page| content.needs(page * PAGE..(page + 1) * PAGE) == 0), "{round}");
        }
    }

    #[test]
    fn clones_do_not_see_later_writes() {
        let mut content = Content::default();
        content.write(0, b"before");
        let earlier = content.clone();
        content.write(0, b"after!");
        assert_eq!((earlier.all(), content.all()), (b"before".to_vec(), b"after!".to_vec()));
    }
}
