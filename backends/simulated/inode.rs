//! A file: what programs see, what is durable, and the changes in between.

use std::ops::Range;
use std::sync::Arc;

use super::content::Content;
use super::damage::DamageKind;

/// A change of a file that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The file was made.
    Create,
    Write {
        at: u64,
        data: Arc<[u8]>,
    },
    SetLen(u64),
    Punch(Range<u64>),
    Allocate(Range<u64>),
    /// Nothing but a mark.
    Mark {
        number: u64,
        kind: DamageKind,
        range: Range<u64>,
    },
}

impl Change {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Create => {}
            Self::Write { at, data } => content.write(*at, data),
            Self::SetLen(len) => content.set_len(*len),
            Self::Punch(range) => content.punch(range.clone()),
            Self::Allocate(range) => content.allocate(range.clone()),
            Self::Mark { number, kind, range } => content.marks.add(*number, *kind, range.clone()),
        }
    }

    /// What is left of it when the bytes of `range` are overwritten.
    fn without(self, range: &Range<u64>) -> Vec<Self> {
        let around = |own: Range<u64>| {
            [own.start..own.end.min(range.start), own.start.max(range.end)..own.end]
                .into_iter()
                .filter(|r| !r.is_empty())
        };
        match self {
            Self::Write { at, data } => {
                let part = |r: Range<u64>| Arc::from(&data[(r.start - at) as usize..(r.end - at) as usize]);
                around(at..at + data.len() as u64).map(|r| Self::Write { at: r.start, data: part(r) }).collect()
            }
            Self::Punch(own) => around(own).map(Self::Punch).collect(),
            Self::Mark { number, kind, range: own } => {
                around(own).map(|range| Self::Mark { number, kind, range }).collect()
            }
            other => vec![other],
        }
    }
}

/// A file, whatever its name.
#[derive(Debug, Default)]
pub(super) struct Inode {
    /// As programs see it.
    pub(super) current: Content,
    /// As it is on the disk; `None`: it was never synced, and is not there.
    pub(super) durable: Option<Content>,
    /// From the one to the other, in order, with the number of the change among all of the disk.
    pub(super) pending: Vec<(u64, Change)>,
    /// When it was changed last, in the disk's own time.
    pub(super) modified: std::time::Duration,
}

impl Inode {
    pub(super) fn change(&mut self, number: u64, change: Change) {
        change.apply(&mut self.current);
        self.pending.push((number, change));
    }

    /// Makes all changes durable.
    pub(super) fn sync(&mut self) {
        let durable = self.durable.get_or_insert_default();
        self.pending.drain(..).for_each(|(_, change)| change.apply(durable));
    }

    /// Makes a write durable, and none of the changes before it but for the file's being there.
    pub(super) fn sync_write(&mut self, number: u64, at: u64, data: Arc<[u8]>) {
        let range = at..at + data.len() as u64;
        let change = Change::Write { at, data };
        if self.pending.iter().any(|(_, change)| matches!(change, Change::SetLen(_))) {
            // The order of lengths and bytes matters: all of it.
            self.change(number, change);
            return self.sync();
        }
        change.apply(&mut self.current);
        let durable = self.durable.get_or_insert_default();
        change.apply(durable);
        let earlier = std::mem::take(&mut self.pending).into_iter();
        let earlier = earlier.filter(|(_, change)| !matches!(change, Change::Create));
        self.pending =
            earlier.flat_map(|(number, change)| change.without(&range).into_iter().map(move |c| (number, c))).collect();
    }

    /// Forgets the changes, but for the file's being there: a sync has failed. `cached`: reads still see them. `number` is of
    /// the request whose fault it is.
    pub(super) fn lose(&mut self, number: u64, cached: bool) {
        let (kept, lost): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|(_, change)| matches!(change, Change::Create));
        self.pending = kept;
        if !cached {
            self.current = self.durable.clone().unwrap_or_default();
        }
        for (_, change) in lost {
            if let Change::Write { at, data } = change {
                let range = at..at + data.len() as u64;
                self.current.marks.add(number, DamageKind::LostSync, range.clone());
                if let Some(durable) = &mut self.durable {
                    durable.marks.add(number, DamageKind::LostSync, range);
                }
            }
        }
    }

    /// Changes stored bytes behind everybody's back, in every version of the file that has them.
    pub(super) fn flip(&mut self, at: u64, bit: u8) {
        for content in std::iter::once(&mut self.current).chain(&mut self.durable) {
            let [byte] = content.copy(at..at + 1)[..] else { continue };
            content.put(at, &[byte ^ 1 << bit]);
        }
        // Also in what becomes durable later.
        for (_, change) in &mut self.pending {
            if let Change::Write { at: begin, data } = change
                && let Some(index) = at.checked_sub(*begin).filter(|index| *index < data.len() as u64)
            {
                Arc::make_mut(data)[index as usize] ^= 1 << bit;
            }
        }
    }

    /// Marks every version.
    pub(super) fn mark(&mut self, number: u64, kind: DamageKind, range: Range<u64>) {
        for content in std::iter::once(&mut self.current).chain(&mut self.durable) {
            content.marks.add(number, kind, range.clone());
        }
        // The changes before it must not heal it when they become durable.
        if let Some((change, _)) = self.pending.last() {
            self.pending.push((*change, Change::Mark { number, kind, range }));
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    fn write(inode: &mut Inode, number: u64, at: u64, data: &[u8]) {
        inode.change(number, Change::Write { at, data: data.into() });
    }

    fn durable(inode: &Inode) -> Option<Vec<u8>> {
        inode.durable.as_ref().map(Content::all)
    }

    #[test]
    fn nothing_is_durable_before_a_sync() {
        let mut inode = Inode::default();
        inode.change(0, Change::Create);
        write(&mut inode, 1, 0, b"abc");
        assert_eq!((inode.current.all(), durable(&inode)), (b"abc".to_vec(), None));
        inode.sync();
        write(&mut inode, 2, 1, b"X");
        assert_eq!((inode.current.all(), durable(&inode)), (b"aXc".to_vec(), Some(b"abc".to_vec())));
    }

    /// A durable write takes nothing of the earlier ones along, and is not undone by them later.
    #[test]
    fn a_durable_write_stands_alone() {
        let mut inode = Inode::default();
        inode.change(0, Change::Create);
        write(&mut inode, 1, 0, b"111111");
        write(&mut inode, 2, 4, b"2222");
        inode.sync_write(3, 3, b"333"[..].into());
        assert_eq!(inode.current.all(), b"11133322");
        assert_eq!(durable(&inode), Some(b"\0\0\x00333".to_vec()));
        inode.sync();
        assert_eq!(durable(&inode), Some(b"11133322".to_vec()));
    }

    #[test]
    fn what_a_failed_sync_loses() {
        for cached in [false, true] {
            let mut inode = Inode::default();
            inode.change(0, Change::Create);
            write(&mut inode, 1, 0, b"old");
            inode.sync();
            write(&mut inode, 2, 1, b"new!");
            inode.lose(9, cached);
            let seen: &[u8] = if cached { b"onew!" } else { b"old" };
            assert_eq!((&inode.current.all()[..], durable(&inode)), (seen, Some(b"old".to_vec())));
            inode.sync();
            assert_eq!(durable(&inode), Some(b"old".to_vec()), "the next sync knows nothing of it");
            let marks: Vec<_> = inode.current.marks.iter().collect();
            assert_eq!(marks, [(9, DamageKind::LostSync, 1..5)]);
            write(&mut inode, 3, 0, b"again");
            assert_eq!(inode.current.marks.iter().count(), 0, "written anew");
        }
    }
}
