//! Which requests a fault is about: a request as a fault sees it, and its kind.

use std::ops::Range;
use std::path::Path;

use crate::request::OpKind;

/// A request as a fault sees it.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// let second_page = Fault::error(libc::ENOSPC).when(|asked| asked.offset == Some(4096) && asked.length > 100);
/// disk.inject(second_page)?;
/// assert!(file.write_at(vec![2; 100], 4096).wait().0.is_ok());
/// assert_eq!(file.write_at(vec![2; 101], 4096).wait().0.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
/// # Ok(()) }
/// ```
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
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// // Whatever touches the last byte of the first sector.
    /// disk.inject(Fault::error(libc::EIO).when(|asked| asked.range().is_some_and(|range| range.contains(&511))))?;
    /// assert!(file.read_at(vec![0; 511], 0).wait().0.is_ok());
    /// assert!(file.read_at(vec![0; 512], 0).wait().0.is_err());
    /// assert!(file.sync_all().wait().is_ok(), "it is about no bytes");
    /// # Ok(()) }
    /// ```
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
