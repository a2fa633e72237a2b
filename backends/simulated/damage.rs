//! What is damaged: a mark on the bytes, until they are written anew.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::ranges::Ranges;

/// Damage that was done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The request that it was done to, as traces count them; 0: the test itself has done it.
    pub number: u64,
    /// What was done.
    pub kind: DamageKind,
    /// The file.
    pub path: PathBuf,
    /// Where, in bytes.
    pub range: Range<u64>,
}

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// It cannot be read.
    LatentError,
    /// Bits have flipped.
    BitRot,
    /// Somebody else's bytes were written here.
    Misdirected,
    /// What was written here is not here, though the write has succeeded.
    LostWrite,
    /// What was written here was lost by a sync that failed.
    LostSync,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LatentError => "latent error",
            Self::BitRot => "bit rot",
            Self::Misdirected => "misdirected write",
            Self::LostWrite => "lost write",
            Self::LostSync => "lost by a sync",
        })
    }
}

/// Damage as the content of a file keeps it: what is written anew is whole again, in that version of the content.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) number: u64,
    pub(super) kind: DamageKind,
    pub(super) bytes: Ranges,
}

/// Damage of one version of a file's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Vec<Mark>);

impl Marks {
    pub(super) fn add(&mut self, number: u64, kind: DamageKind, range: Range<u64>) {
        let same = self.0.iter_mut().find(|mark| (mark.number, mark.kind) == (number, kind));
        match same {
            Some(mark) => mark.bytes.insert(range),
            None => {
                let mut bytes = Ranges::default();
                bytes.insert(range);
                self.0.push(Mark { number, kind, bytes });
            }
        }
    }

    /// These bytes were written anew.
    pub(super) fn heal(&mut self, range: Range<u64>) {
        if self.0.is_empty() {
            return;
        }
        self.0.iter_mut().for_each(|mark| mark.bytes.remove(range.clone()));
        self.0.retain(|mark| mark.bytes.bytes() > 0);
    }

    /// The first range that cannot be read and touches this one.
    pub(super) fn unreadable(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let latent = self.0.iter().filter(|mark| mark.kind == DamageKind::LatentError);
        latent.flat_map(move |mark| mark.bytes.within(range.clone()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, DamageKind, Range<u64>)> {
        self.0.iter().flat_map(|mark| mark.bytes.iter().map(|range| (mark.number, mark.kind, range)))
    }
}
