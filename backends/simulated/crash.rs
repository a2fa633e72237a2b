//! Power failures: what of the changes that were not synced is there afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::content::{Bytes, Content};
use super::inode::{Change, Inode};
use super::rng::Rng;

/// What a crash leaves of what was not synced. What was synced is there in each case.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// file.sync_data().wait()?;
/// file.write_all_at(vec![2; 1024], 0).wait().0?;
/// // Two sectors were written: both, one, or none is on the disk.
/// let report = disk.crash(Crash::Torn);
/// disk.reopen();
/// let stored = disk.read("data").ok_or("its name was synced")?;
/// assert!(stored[..1024].chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
/// assert_eq!(report.stale_sectors, stored[..1024].chunks(512).filter(|sector| sector[0] == 1).count() as u64);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Crash {
    /// Nothing. A file that was never synced does not exist.
    LoseUnsynced,
    /// A prefix, of a random length: the changes of all files up to some moment, in the order in which they happened.
    KeepPrefix,
    /// The first so many changes.
    KeepFirst(u64),
    /// Each sector has, independently of all others, any of the contents that it has had since the last sync; so has the
    /// length of each file. Writes in flight take part.
    Torn,
    /// Everything: only the program dies, as by `SIGKILL`, and the page cache survives.
    KeepAll,
}

/// What a crash has done.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// file.sync_data().wait()?;
/// for text in ["one", "two", "three"] { file.append(text).wait().0?; }
/// let report = disk.crash(Crash::KeepFirst(2));
/// assert_eq!((report.unsynced, report.kept, report.lost_files), (3, 2, 0));
/// println!("{report}");
/// disk.reopen();
/// assert!(disk.read("data").is_some_and(|bytes| bytes.ends_with(b"onetwo")));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashReport {
    /// Changes (writes, new lengths, new files ...) that were not durable.
    pub unsynced: u64,
    /// Those of them that are there as a whole. Of [`Crash::Torn`] it is not known: 0.
    pub kept: u64,
    /// Sectors that [`Crash::Torn`] has left as they were before the last of their changes.
    pub stale_sectors: u64,
    /// Files that do not exist any more.
    pub lost_files: u64,
    /// Requests that were in flight, and end with `EIO`.
    pub in_flight: u64,
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unsynced, kept, stale_sectors, lost_files, in_flight } = self;
        write!(
            f,
            "of {unsynced} changes {kept} kept, {stale_sectors} sectors stale, {lost_files} files lost, {in_flight} in flight"
        )
    }
}

/// Leaves of the files what the crash leaves. A file that is lost has no durable content afterwards.
pub(super) fn strike<'a>(
    mode: Crash,
    files: impl Iterator<Item = &'a mut Inode>,
    sector: u64,
    dice: &mut Rng,
) -> CrashReport {
    let mut files: Vec<_> = files.collect();
    let mut report = CrashReport { unsynced: files.iter().map(|f| f.pending.len() as u64).sum(), ..Default::default() };
    if mode == Crash::KeepAll {
        // Only the program dies: the page cache is as it was, and what was not durable is not durable now.
        report.kept = report.unsynced;
        return report;
    }
    match mode {
        Crash::KeepAll | Crash::LoseUnsynced => keep(&mut files, 0, &mut report),
        Crash::KeepPrefix => keep(&mut files, dice.below(report.unsynced + 1), &mut report),
        Crash::KeepFirst(count) => keep(&mut files, count, &mut report),
        Crash::Torn => {
            for file in &mut files {
                report.stale_sectors += tear(file, sector, dice);
            }
        }
    }
    for file in files {
        report.lost_files += u64::from(file.durable.is_none());
        file.pending.clear();
        file.current = file.durable.clone().unwrap_or_default();
    }
    report
}

/// Keeps the first `count` changes of all files.
fn keep(files: &mut [&mut Inode], count: u64, report: &mut CrashReport) {
    let mut numbers: Vec<u64> = files.iter().flat_map(|file| file.pending.iter().map(|(number, _)| *number)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let count = count.min(numbers.len() as u64);
    // A durable write may have split one into several of the same number.
    let limit = numbers.get(count as usize).copied().unwrap_or(u64::MAX);
    for file in files {
        for (_, change) in file.pending.drain(..).filter(|(number, _)| *number < limit) {
            change.apply(file.durable.get_or_insert_default());
            report.kept += 1;
        }
    }
}

/// What one sector goes through.
#[derive(Clone)]
enum Step {
    Bytes(u64, Vec<u8>),
    Zeroes(Range<u64>),
}

/// Gives each sector one of its contents. Returns how many have not got the last.
fn tear(file: &mut Inode, sector: u64, dice: &mut Rng) -> u64 {
    if file.pending.is_empty() {
        return 0;
    }
    // The coin is tossed in any case, so that other files' dice do not depend on it.
    let named = dice.chance(0.5);
    if file.durable.is_none() && !named {
        return 0;
    }
    let durable = file.durable.get_or_insert_default();
    let mut lengths = vec![durable.len()];
    let mut sectors: BTreeMap<u64, Vec<(u64, Step)>> = BTreeMap::new();
    let mut marks = Vec::new();
    let mut after = durable.clone();
    for (change_number, change) in file.pending.drain(..) {
        match &change {
            Change::Write { at, data } => split(*at..*at + data.len() as u64, sector, |number, part| {
                let bytes = data[(part.start - at) as usize..(part.end - at) as usize].to_vec();
                sectors.entry(number).or_default().push((change_number, Step::Bytes(part.start, bytes)));
            }),
            Change::Punch(range) => zero(&after, range.clone(), sector, change_number, &mut sectors),
            Change::SetLen(len) => zero(&after, *len..after.len(), sector, change_number, &mut sectors),
            Change::Mark { .. } => marks.push(change.clone()),
            Change::Create | Change::Allocate(_) => {}
        }
        change.apply(&mut after);
        lengths.push(after.len());
    }
    let mut stale = 0;
    for steps in sectors.into_values() {
        // What one change does to a sector is done as a whole.
        let changes: Vec<_> = steps.chunk_by(|one, next| one.0 == next.0).collect();
        let kept = dice.below(changes.len() as u64 + 1);
        stale += u64::from(kept < changes.len() as u64);
        for (_, step) in changes[..kept as usize].concat() {
            match step {
                Step::Bytes(at, bytes) => durable.write(at, &bytes),
                Step::Zeroes(range) => durable.write(range.start, &vec![0; (range.end - range.start) as usize]),
            }
        }
    }
    marks.iter().for_each(|mark| mark.apply(durable));
    let length = lengths[dice.below(lengths.len() as u64) as usize];
    durable.set_len(length);
    stale
}

/// The parts of a range that may hold other bytes than zeroes become zero: a hole may be large.
fn zero(content: &Content, range: Range<u64>, sector: u64, change: u64, sectors: &mut BTreeMap<u64, Vec<(u64, Step)>>) {
    let mut at = range.start;
    content.read(range, |bytes| {
        let count = match bytes {
            Bytes::Zeroes(count) => count,
            Bytes::These(bytes) => {
                split(at..at + bytes.len() as u64, sector, |number, part| {
                    sectors.entry(number).or_default().push((change, Step::Zeroes(part)));
                });
                bytes.len()
            }
        };
        at += count as u64;
    });
}

/// A range as parts of sectors.
fn split(range: Range<u64>, sector: u64, mut each: impl FnMut(u64, Range<u64>)) {
    for number in range.start / sector..range.end.div_ceil(sector) {
        each(number, range.start.max(number * sector)..range.end.min((number + 1) * sector));
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn file(synced: &[u8], changes: &[(u64, &[u8])]) -> Inode {
        let mut inode = Inode::default();
        inode.change(0, Change::Create);
        inode.change(1, Change::Write { at: 0, data: synced.into() });
        inode.sync();
        for (number, (at, data)) in changes.iter().enumerate() {
            inode.change(2 + number as u64, Change::Write { at: *at, data: (*data).into() });
        }
        inode
    }

    fn after(mode: Crash, seed: u64) -> (Vec<u8>, CrashReport) {
        let mut inode = file(b"........", &[(0, b"aaaa"), (2, b"bbbb"), (6, b"cccc")]);
        let report = strike(mode, std::iter::once(&mut inode), 2, &mut Rng::stream(seed, 0));
        assert_eq!(inode.pending.is_empty(), mode != Crash::KeepAll);
        (inode.current.all(), report)
    }

    #[test]
    fn nothing_or_all_or_so_many() {
        let states = [&b"........"[..], b"aaaa....", b"aabbbb..", b"aabbbbcccc"];
        assert_eq!(after(Crash::LoseUnsynced, 1).0, states[0]);
        assert_eq!(after(Crash::KeepAll, 1).0, states[3]);
        for (count, state) in states.iter().enumerate() {
            let (bytes, report) = after(Crash::KeepFirst(count as u64), 1);
            assert_eq!((&bytes[..], report.kept, report.unsynced), (*state, count as u64, 3));
        }
        let prefixes: BTreeSet<_> = (0..100).map(|seed| after(Crash::KeepPrefix, seed).0).collect();
        assert_eq!(prefixes, states.iter().map(|state| state.to_vec()).collect());
    }

    /// Each sector of two bytes by itself, any of its contents and no other; any of the lengths.
    #[test]
    fn torn_by_sector() {
        let outcomes: BTreeSet<_> = (0..20_000).map(|seed| after(Crash::Torn, seed).0).collect();
        let mut want = BTreeSet::new();
        for a in ["..", "aa"] {
            for b in ["..", "aa", "bb"] {
                for c in ["..", "bb"] {
                    for d in ["..", "cc"] {
                        for e in ["", "\0\0", "cc"] {
                            want.insert([a, b, c, d, e].concat().into_bytes());
                        }
                    }
                }
            }
        }
        assert_eq!(outcomes, want);
    }

    #[test]
    fn a_file_that_was_never_synced() {
        let made = || {
            let mut inode = Inode::default();
            inode.change(0, Change::Create);
            inode
        };
        let strike = |mode, seed| {
            let mut inode = made();
            let report = strike(mode, std::iter::once(&mut inode), 512, &mut Rng::stream(seed, 0));
            assert_eq!(report.lost_files, u64::from(inode.durable.is_none() && mode != Crash::KeepAll));
            inode.durable.is_some()
        };
        assert!(
            !strike(Crash::LoseUnsynced, 1) && !strike(Crash::KeepAll, 1),
            "what was not durable is not durable now"
        );
        assert!(strike(Crash::KeepFirst(1), 1));
        assert!((0..50).any(|seed| strike(Crash::Torn, seed)) && (0..50).any(|seed| !strike(Crash::Torn, seed)));
    }
}
