//! A set of bytes, as ranges that neither overlap nor touch.

use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// Begin to end.
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Ranges {
    /// How many bytes there are in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(begin, end)| *begin..*end)
    }

    /// The parts of `range` that are in the set.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.ranges.range(..range.start).next_back().map_or(range.start, |(begin, _)| *begin);
        let near = self.ranges.range(first.min(range.end)..range.end);
        near.map(move |(begin, end)| range.start.max(*begin)..range.end.min(*end)).filter(|part| !part.is_empty())
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // What it touches becomes a part of it.
        let (mut begin, mut end) = (range.start, range.end);
        let near = self.ranges.range(..=range.end).rev().take_while(|(_, end)| **end >= range.start);
        let near: Vec<u64> = near.map(|(begin, _)| *begin).collect();
        for other in near {
            if let Some(other_end) = self.ranges.remove(&other) {
                self.bytes -= other_end - other;
                (begin, end) = (begin.min(other), end.max(other_end));
            }
        }
        self.ranges.insert(begin, end);
        self.bytes += end - begin;
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        let parts: Vec<_> = self.within(range).collect();
        for part in parts {
            let Some((&begin, &end)) = self.ranges.range(..=part.start).next_back() else { continue };
            self.ranges.remove(&begin);
            if begin < part.start {
                self.ranges.insert(begin, part.start);
            }
            if part.end < end {
                self.ranges.insert(part.end, end);
            }
            self.bytes -= part.end - part.start;
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    #[test]
    fn agrees_with_a_set_of_numbers() {
        let mut rng = Rng::stream(3, 0);
        let (mut set, mut model) = (Ranges::default(), std::collections::BTreeSet::new());
        for round in 0..5000 {
            let begin = rng.below(100);
            let range = begin..begin + rng.below(12);
            match rng.below(3) {
                0 => {
                    set.remove(range.clone());
                    range.clone().for_each(|byte| _ = model.remove(&byte));
                }
                _ => {
                    set.insert(range.clone());
                    model.extend(range.clone());
                }
            }
            let have: Vec<u64> = set.iter().flatten().collect();
            assert_eq!(have, model.iter().copied().collect::<Vec<_>>(), "round {round}, {range:?}");
            assert_eq!(set.bytes(), model.len() as u64);
            let apart = set.iter().zip(set.iter().skip(1)).all(|(one, next)| one.end < next.start);
            assert!(apart, "{set:?}");
            let probe = rng.below(100)..rng.below(110);
            let want: Vec<u64> = model.iter().copied().filter(|byte| probe.contains(byte)).collect();
            assert_eq!(set.within(probe).flatten().collect::<Vec<_>>(), want);
            if rng.below(50) == 0 {
                (set, model) = Default::default();
            }
        }
    }
}
