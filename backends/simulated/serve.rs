//! One request, done.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use super::damage::DamageKind;
use super::disk::{OpenInode, State};
use super::faults::Effect;
use super::inode::Change;
use super::plan::{Harm, Verdict};
use super::queue::Entry;
use super::trace::What;
use crate::backend::Operation;
use crate::completion::{Errno, Outcome};
use crate::how::Durability;
use crate::metadata::Metadata;
use crate::request::{OpKind, RawHandle, Request};

const REGULAR: u32 = 0o100_644;

/// No file is longer, in bytes: an exbibyte.
const LONGEST: u64 = 1 << 60;

impl State {
    /// Does what a request asks for, as far as its faults let it.
    pub(super) fn serve(&mut self, entry: &mut Entry) -> Outcome {
        let Entry { request, number, verdict, .. } = entry;
        let RawHandle::Virtual(file) = request.handle() else { return Err(Errno(libc::EOPNOTSUPP)) };
        if request.kind() == OpKind::Close {
            // It is closed whatever else it answers.
            self.close(file);
            return verdict.error.map_or(Ok(0), Err);
        }
        let open = self.opened(file)?.clone();
        if let Some(errno) = verdict.error {
            return Err(errno);
        }
        match request.kind() {
            OpKind::Read | OpKind::Write => self.transfer(&open, file, request, *number, verdict),
            OpKind::SyncAll | OpKind::SyncData => self.sync(&open, *number, verdict),
            kind => self.control(&open, kind, request),
        }
    }

    fn sync(&mut self, open: &OpenInode, number: u64, verdict: &Verdict) -> Outcome {
        match verdict.failed_sync {
            None => {
                self.inode(open.inode).sync();
                Ok(0)
            }
            Some((errno, cached)) => {
                let before = self.inode(open.inode).pending.clone();
                self.inode(open.inode).lose(number, cached);
                for (_, change) in before {
                    if let Change::Write { at, data } = change {
                        self.note_damage(open, number, DamageKind::LostSync, at..at + data.len() as u64);
                    }
                }
                Err(errno)
            }
        }
    }

    /// What moves no data.
    fn control(&mut self, open: &OpenInode, kind: OpKind, request: &Request) -> Outcome {
        let position = request.position().unwrap_or(0);
        let range = position..position.saturating_add(request.length());
        match kind {
            OpKind::Len => Ok(self.inode(open.inode).current.len()),
            // Each kind has its own word: that of ftruncate(2), and that of fallocate(2).
            OpKind::SetLen if !open.writable || position > i64::MAX as u64 => Err(Errno(libc::EINVAL)),
            OpKind::Allocate | OpKind::PunchHole if !open.writable => Err(Errno(libc::EBADF)),
            OpKind::Allocate | OpKind::PunchHole if range.is_empty() || range.end > i64::MAX as u64 => {
                Err(Errno(libc::EINVAL))
            }
            OpKind::SetLen if position > LONGEST => Err(Errno(libc::EFBIG)),
            OpKind::Allocate if range.end > LONGEST => Err(Errno(libc::EFBIG)),
            OpKind::SetLen => {
                self.change(open.inode, Change::SetLen(position), false);
                Ok(0)
            }
            OpKind::Allocate => {
                if self.inode(open.inode).current.needs(range.clone()) > self.room() {
                    return Err(Errno(libc::ENOSPC));
                }
                self.change(open.inode, Change::Allocate(range), false);
                Ok(0)
            }
            OpKind::PunchHole => {
                let end = range.end.min(self.inode(open.inode).current.len());
                if range.start < end {
                    self.change(open.inode, Change::Punch(range.start..end), false);
                }
                Ok(0)
            }
            // Nothing is durable by it, and nothing is known of the future.
            OpKind::SyncRange | OpKind::Advise => Ok(0),
            OpKind::Metadata => {
                request.answer_metadata(self.metadata(open));
                Ok(0)
            }
            _ => Err(Errno(libc::EOPNOTSUPP)),
        }
    }

    fn metadata(&mut self, open: &OpenInode) -> Metadata {
        let sector = self.settings.sector;
        let linked = self.names.values().any(|inode| *inode == open.inode);
        let inode = self.inode(open.inode);
        let modified = SystemTime::UNIX_EPOCH + inode.modified;
        Metadata {
            blocks: inode.current.allocated() / 512,
            block_size: sector.max(4096),
            mode: REGULAR,
            links: u64::from(linked),
            inode: open.inode,
            modified,
            changed: modified,
            ..Metadata::of_length(inode.current.len())
        }
    }

    /// Space that is left, in bytes.
    fn room(&self) -> u64 {
        self.settings.capacity.saturating_sub(self.used())
    }

    // ----- transfers --------------------------------------------------------------------------------------------------

    fn transfer(
        &mut self,
        open: &OpenInode,
        file: u64,
        request: &mut Request,
        number: u64,
        verdict: &mut Verdict,
    ) -> Outcome {
        let writes = request.kind() == OpKind::Write;
        let end = self.inode(open.inode).current.len();
        let at = match request.position() {
            _ if writes && (open.appends || request.appends()) => end,
            position => position.unwrap_or(open.position),
        };
        let unit = open.alignment;
        let ranges = request.iovecs();
        let placed = at.is_multiple_of(unit) || (writes && open.appends);
        let fits = |len: usize| (len as u64).is_multiple_of(unit);
        if !placed || ranges.iter().any(|range| !fits(range.len) || !fits(range.base.addr())) {
            return Err(Errno(libc::EINVAL));
        }
        let length = request.length().min(verdict.short.unwrap_or(u64::MAX));
        let durable = open.durable || request.durability() != Durability::Later;
        let positioned = request.position().is_some();
        let appended = request.appends();
        let mut operation = Operation::new(request, |_| Err(Errno(libc::EBADF)));
        let outcome = if writes {
            self.write(open, &operation, at, length, number, verdict, durable)
        } else {
            self.read(open, &mut operation, at, length, number, verdict)
        };
        let outcome = operation.settle(outcome.map_err(Into::into));
        if let (Ok(count), false, false) = (outcome, positioned, appended)
            && let Some(open) = self.open.get_mut(&file)
        {
            open.position = at + count;
        }
        outcome
    }

    fn read(
        &mut self,
        open: &OpenInode,
        operation: &mut Operation<'_>,
        at: u64,
        length: u64,
        number: u64,
        verdict: &mut Verdict,
    ) -> Outcome {
        let end = self.inode(open.inode).current.len();
        let range = at..at.saturating_add(length).min(end);
        let mut from = at;
        for harm in &mut verdict.harms {
            if harm.effect == Effect::Misdirected {
                from = self.astray(open, &range, harm).unwrap_or(from);
            } else {
                self.damage_stored(open, range.clone(), number, harm);
            }
        }
        let range = from..from + range.end.saturating_sub(at);
        let content = &self.inode(open.inode).current;
        if content.marks.unreadable(range.clone()).next().is_some() {
            return Err(Errno(libc::EIO));
        }
        let mut room = operation.room();
        content.fill(range.start, range.end.saturating_sub(range.start), &mut room);
        Ok(room.filled() as u64)
    }

    #[allow(clippy::too_many_arguments)] // They are those of the request.
    fn write(
        &mut self,
        open: &OpenInode,
        operation: &Operation<'_>,
        at: u64,
        length: u64,
        number: u64,
        verdict: &mut Verdict,
        durable: bool,
    ) -> Outcome {
        let length = self.may_write(open, at, length)?;
        let mut to = at;
        let mut lost = false;
        for harm in &mut verdict.harms {
            match harm.effect {
                Effect::Misdirected => to = self.astray(open, &(at..at + length), harm).unwrap_or(to),
                Effect::LostWrite => lost |= harm.within.start <= at && at + length <= harm.within.end,
                _ => {}
            }
        }
        self.check_edges(open, to..to + length)?;
        if lost || to != at {
            // Its own place stays as it was.
            let range = at..at + length;
            self.change(open.inode, Change::Mark { number, kind: DamageKind::LostWrite, range: range.clone() }, false);
            self.note_damage(open, number, DamageKind::LostWrite, range);
        }
        if !lost {
            let data: Vec<u8> =
                operation.data().iter().flat_map(|part| part.iter().copied()).take(length as usize).collect();
            self.change(open.inode, Change::Write { at: to, data: Arc::from(data) }, durable);
        }
        if !lost && to != at {
            let range = to..to + length;
            self.change(
                open.inode,
                Change::Mark { number, kind: DamageKind::Misdirected, range: range.clone() },
                false,
            );
            self.note_damage(open, number, DamageKind::Misdirected, range);
        }
        for harm in &mut verdict.harms {
            self.damage_stored(open, at..at + length, number, harm);
        }
        Ok(length)
    }

    /// So much of a write the file may have.
    pub(super) fn may_write(&mut self, open: &OpenInode, at: u64, length: u64) -> Outcome {
        if at >= LONGEST && length > 0 {
            return Err(Errno(libc::EFBIG));
        }
        self.fitting(open, at, length.min(LONGEST.saturating_sub(at)))
    }

    /// So much of a write there is space for.
    fn fitting(&mut self, open: &OpenInode, at: u64, length: u64) -> Outcome {
        let room = self.room();
        let content = &self.inode(open.inode).current;
        if content.needs(at..at + length) <= room {
            return Ok(length);
        }
        let unit = open.alignment.max(1);
        let (mut fits, mut fails) = (0, length.div_ceil(unit));
        while fails - fits > 1 {
            let middle = fits + (fails - fits) / 2;
            if content.needs(at..at + middle * unit) <= room { fits = middle } else { fails = middle }
        }
        if fits == 0 { Err(Errno(libc::ENOSPC)) } else { Ok(fits * unit) }
    }

    /// A sector that cannot be read can only be written as a whole.
    fn check_edges(&mut self, open: &OpenInode, range: Range<u64>) -> Result<(), Errno> {
        let sector = self.settings.sector;
        let (begin, end) = (range.start / sector * sector, range.end.next_multiple_of(sector));
        let marks = &self.inode(open.inode).current.marks;
        let partly = marks.unreadable(begin..range.start).next().is_some();
        if partly || marks.unreadable(range.end..end).next().is_some() { Err(Errno(libc::EIO)) } else { Ok(()) }
    }

    // ----- damage -----------------------------------------------------------------------------------------------------

    /// Another place of the file, of the same size and at a distance of whole sectors, within what may be touched.
    fn astray(&mut self, open: &OpenInode, range: &Range<u64>, harm: &mut Harm) -> Option<u64> {
        let (sector, end) = (self.settings.sector, self.inode(open.inode).current.len());
        let length = range.end.saturating_sub(range.start);
        let (low, high) = (harm.within.start, harm.within.end.min(end).checked_sub(length)?);
        // Places at which it could begin: its own, and those at whole sectors from it.
        let before = range.start.checked_sub(low)? / sector;
        let first = range.start - before * sector;
        // How many there are; behind the last one it would leave the file.
        let places = if first > high { 0 } else { (high - first) / sector + 1 };
        // Its own is left out: what makes the file longer has none among them.
        let others = places - u64::from(before < places);
        if others == 0 || length == 0 {
            return None;
        }
        let place = harm.dice.below(others);
        Some(first + (place + u64::from(place >= before)) * sector)
    }

    /// Damages what is stored in a range, and nothing outside of it.
    fn damage_stored(&mut self, open: &OpenInode, range: Range<u64>, number: u64, harm: &mut Harm) {
        let end = self.inode(open.inode).current.len();
        let range = range.start.max(harm.within.start)..range.end.min(harm.within.end).min(end);
        if range.is_empty() {
            return;
        }
        match harm.effect {
            Effect::BitRot(bits) => {
                for _ in 0..bits {
                    let at = range.start + harm.dice.below(range.end - range.start);
                    let bit = harm.dice.below(8) as u8;
                    let inode = self.inode(open.inode);
                    inode.flip(at, bit);
                    inode.mark(number, DamageKind::BitRot, at..at + 1);
                    self.note_damage(open, number, DamageKind::BitRot, at..at + 1);
                }
            }
            Effect::LatentError => {
                let sector = self.settings.sector;
                // Sectors that lie in what may be touched as a whole; the last one of a file may be cut.
                let (low, high) = (harm.within.start.div_ceil(sector), harm.within.end / sector);
                let (first, last) = ((range.start / sector).max(low), range.end.div_ceil(sector).min(high));
                if first < last {
                    let begin = (first + harm.dice.below(last - first)) * sector;
                    self.inode(open.inode).mark(number, DamageKind::LatentError, begin..begin + sector);
                    self.note_damage(open, number, DamageKind::LatentError, begin..begin + sector);
                }
            }
            _ => {}
        }
    }

    fn note_damage(&mut self, open: &OpenInode, number: u64, kind: DamageKind, range: Range<u64>) {
        self.note(What::Damaged { number, kind, path: open.path.clone(), range });
    }
}
