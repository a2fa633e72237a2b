//! What is damaged: a mark on the bytes, until they are written anew.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::SimulatedDisk;
use super::disk::plain;
use super::inode::Inode;
use super::ranges::Ranges;
use super::trace::{Event, What};

/// Damage that was done to a file.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// disk.inject(Fault::misdirected().writes().nth(1))?;
/// file.write_all_at(vec![2; 512], 0).wait().0?;
/// // A program that verifies checksums should have found just these:
/// for damage in disk.damage() {
///     println!("{:?}: bytes {:?} ({}, by request {})", damage.path, damage.range, damage.kind, damage.number);
/// }
/// assert!(disk.damage().iter().any(|damage| damage.kind == DamageKind::Misdirected));
/// # Ok(()) }
/// ```
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
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// disk.flip_bit("data", 100, 7);
/// disk.spoil("data", 512..513);
/// let kinds: Vec<_> = disk.damage().iter().map(|damage| (damage.kind, damage.range.clone())).collect();
/// assert_eq!(kinds, [(DamageKind::BitRot, 100..101), (DamageKind::LatentError, 512..1024)]);
/// # Ok(()) }
/// ```
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

/// Damage by the test's own hand, and what there is of it.
impl SimulatedDisk {
    /// Flips a bit (0 to 7) of a stored byte, as [bit rot](super::Fault::bit_rot) does. `false`: there is no such byte.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// assert!(disk.flip_bit("data", 10, 7) && !disk.flip_bit("data", 4096, 0));
    /// assert_eq!(file.read_at(vec![0; 1], 10).wait().1, [0x81]);
    /// # Ok(()) }
    /// ```
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> bool {
        self.harm(path.as_ref(), DamageKind::BitRot, offset..offset.saturating_add(1), |inode| {
            inode.flip(offset, bit % 8);
        })
    }

    /// Makes the sectors that a range touches unreadable, as [latent errors](super::Fault::latent_error) do. `false`: the range is
    /// not in the file.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// assert!(disk.spoil("data", 600..601));
    /// assert!(file.read_at(vec![0; 512], 0).wait().0.is_ok());
    /// assert!(file.read_at(vec![0; 1], 512).wait().0.is_err(), "all of its sector");
    /// # Ok(()) }
    /// ```
    pub fn spoil(&self, path: impl AsRef<Path>, range: Range<u64>) -> bool {
        let sector = self.state().settings.sector;
        let end = range.end.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
        let whole = range.start / sector * sector..end;
        self.harm(path.as_ref(), DamageKind::LatentError, whole, |_| {})
    }

    fn harm(&self, path: &Path, kind: DamageKind, range: Range<u64>, harm: impl FnOnce(&mut Inode)) -> bool {
        let mut state = self.state();
        let found = state.find(path).is_some_and(|inode| range.start < inode.current.len() && !range.is_empty());
        if !found {
            return false;
        }
        let number = state.names.iter().find(|(name, _)| *name == &plain(path)).map_or(0, |(_, inode)| *inode);
        let inode = state.inode(number);
        harm(inode);
        inode.mark(0, kind, range.clone());
        state.note(What::Damaged { number: 0, kind, path: path.to_owned(), range });
        true
    }

    /// What is damaged now, and was not written anew since. After a crash it is that of what has survived.
    ///
    /// A misdirected read damages nothing; traces tell of it.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.flip_bit("data", 0, 0);
    /// assert_eq!(disk.damage().len(), 1);
    /// file.write_all_at(vec![1; 512], 0).wait().0?;
    /// assert_eq!((disk.damage().len(), disk.damage_log().len()), (0, 1), "it was, and is no more");
    /// # Ok(()) }
    /// ```
    pub fn damage(&self) -> Vec<Damage> {
        self.state().damage()
    }

    /// All damage that was ever done, as far as the [trace](super::SimulatedDiskBuilder::trace_limit) reaches back.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.spoil("data", 0..1);
    /// file.write_all_at(vec![2; 512], 0).wait().0?;
    /// let log = disk.damage_log();
    /// assert_eq!((log[0].kind, log[0].range.clone(), log[0].number), (DamageKind::LatentError, 0..512, 0));
    /// # Ok(()) }
    /// ```
    pub fn damage_log(&self) -> Vec<Damage> {
        let damage = |event: Event| match event.what {
            What::Damaged { number, kind, path, range } => Some(Damage { number, kind, path, range }),
            _ => None,
        };
        self.trace().events.into_iter().filter_map(damage).collect()
    }
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
