//! What has arrived at the destination, in whatever order.

use std::collections::BTreeMap;

/// The written ranges beyond the first gap, and where that gap is.
#[derive(Default)]
pub(crate) struct Written {
    /// Everything below it has been written.
    prefix: u64,
    /// Start to end, disjoint and not adjacent: there are no more of them than blocks in flight.
    beyond: BTreeMap<u64, u64>,
}

impl Written {
    /// Notes the block of `len` bytes at `offset`. Blocks do not overlap.
    pub(crate) fn add(&mut self, offset: u64, len: u64) {
        let (mut start, mut end) = (offset, offset + len);
        if let Some((&before, &its_end)) = self.beyond.range(..offset).next_back()
            && its_end == offset
        {
            self.beyond.remove(&before);
            start = before;
        }
        if let Some(its_end) = self.beyond.remove(&end) {
            end = its_end;
        }
        if start == self.prefix {
            self.prefix = end;
        } else {
            self.beyond.insert(start, end);
        }
    }

    /// The length of what was copied without a gap, from the start.
    pub(crate) fn prefix(&self) -> u64 {
        self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_at_the_first_gap() {
        let mut written = Written::default();
        for (offset, prefix, ranges) in [(3, 0, 1), (1, 0, 2), (2, 0, 1), (0, 4, 0), (5, 4, 1), (4, 6, 0)] {
            written.add(offset, 1);
            assert_eq!((written.prefix(), written.beyond.len()), (prefix, ranges), "after {offset}");
        }
    }
}
