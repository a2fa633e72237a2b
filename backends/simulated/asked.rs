//! Which requests a fault is about: a request as a fault sees it, and its kind.

use std::ops::Range;
use std::path::Path;

use crate::request::OpKind;

/// A request as a fault sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// Its number: requests are counted from 1, each time that they are submitted.
    pub number: u64,
    /// What is asked for; [`OpKind::Open`] where a file is opened.
    pub kind: OpKind,
    /// The file. Empty where it is not known (a descriptor without a name).
    pub path: &'a Path,
    /// Where it begins, in bytes: the end of the file for what is appended, the file's position for what has no offset; the
    /// new length of [`OpKind::SetLen`]. `None` for what has no place, and where it is not known.
    pub offset: Option<u64>,
    /// Bytes to transfer, or of the range.
    pub length: u64,
    /// What a part of it has to be a multiple of, in bytes.
    pub(super) unit: u64,
}

impl Asked<'_> {
    /// The bytes that it is about, where it is about some.
    pub fn range(&self) -> Option<Range<u64>> {
        let sized = !matches!(self.kind, OpKind::SetLen | OpKind::Open | OpKind::Close) && self.length > 0;
        self.offset.filter(|_| sized).map(|offset| offset..offset.saturating_add(self.length))
    }
}

/// Which kinds of requests a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    All,
    Reads,
    Writes,
    Syncs,
    Only(OpKind),
}

impl Kinds {
    pub(super) fn contain(self, kind: OpKind) -> bool {
        match self {
            // To be opened is not what "every request" means.
            Self::All => kind != OpKind::Open,
            _ => self.may_be(kind),
        }
    }

    pub(super) fn may_be(self, kind: OpKind) -> bool {
        match self {
            Self::All => true,
            Self::Reads => kind == OpKind::Read,
            Self::Writes => kind == OpKind::Write,
            Self::Syncs => matches!(kind, OpKind::SyncAll | OpKind::SyncData),
            Self::Only(only) => kind == only,
        }
    }
}
