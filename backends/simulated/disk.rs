//! The state of a disk: its files by name, the open ones by number, what is in flight, and the time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::asked::Asked;
use super::content::Content;
use super::crash::{self, Crash, CrashReport};
use super::damage::Damage;
use super::inode::{Change, Inode};
use super::options::SimulatedDiskBuilder;
use super::plan::{Plan, Verdict};
use super::queue::Queue;
use super::rng::Rng;
use super::trace::{Recorder, What};
use crate::backend::VirtualFile;
use crate::completion::Errno;
use crate::open::{Direct, OpenOptions};
use crate::os;
use crate::request::OpKind;

/// Streams of the seed. Those of faults begin far above.
const LATENCIES: u64 = 0;
const TIES: u64 = 1;
const CRASHES: u64 = 1 << 16;

pub(super) struct State {
    pub(super) settings: SimulatedDiskBuilder,
    pub(super) seed: u64,
    pub(super) now: Duration,
    pub(super) powered: bool,
    /// Files that were opened before the last crash are of an earlier one.
    pub(super) epoch: u64,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) open: BTreeMap<u64, OpenInode>,
    /// Of inodes, open files and backends: none is ever used twice.
    numbers: u64,
    /// Requests that were submitted, counted.
    pub(super) requests: u64,
    /// Changes that were made, counted.
    changes: u64,
    pub(super) plan: Plan,
    pub(super) latencies: Rng,
    pub(super) ties: Rng,
    /// By the number of the backend.
    pub(super) queues: BTreeMap<u64, Queue>,
    pub(super) trace: Recorder,
}

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct OpenInode {
    pub(super) inode: u64,
    /// As it was opened.
    pub(super) path: PathBuf,
    pub(super) writable: bool,
    pub(super) appends: bool,
    /// Opened with `O_DSYNC` or `O_SYNC`.
    pub(super) durable: bool,
    /// What transfers have to be multiples of; 1 where nothing is demanded.
    pub(super) alignment: u64,
    /// Where the next transfer without an offset goes.
    pub(super) position: u64,
    pub(super) epoch: u64,
}

impl State {
    pub(super) fn new(mut settings: SimulatedDiskBuilder, seed: u64) -> Self {
        let plan = Plan::new(seed, std::mem::take(&mut settings.faults));
        let trace = Recorder::new(settings.trace_limit);
        Self {
            settings,
            seed,
            now: Duration::ZERO,
            powered: true,
            epoch: 0,
            names: BTreeMap::new(),
            inodes: BTreeMap::new(),
            open: BTreeMap::new(),
            numbers: 0,
            requests: 0,
            changes: 0,
            plan,
            latencies: Rng::stream(seed, LATENCIES),
            ties: Rng::stream(seed, TIES),
            queues: BTreeMap::new(),
            trace,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn note(&mut self, what: What) {
        self.trace.note(self.now, what);
    }

    /// The fastest way to a file: the inode of an open one; `EIO` where the power has failed since.
    pub(super) fn opened(&self, number: u64) -> Result<&OpenInode, Errno> {
        match self.open.get(&number) {
            Some(open) if self.powered && open.epoch == self.epoch => Ok(open),
            Some(_) => Err(Errno(libc::EIO)),
            None => Err(Errno(libc::EBADF)),
        }
    }

    pub(super) fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.entry(number).or_default()
    }

    /// Changes a file; `durable`: a write that is durable at once.
    pub(super) fn change(&mut self, inode: u64, change: Change, durable: bool) {
        self.changes += 1;
        let (number, now) = (self.changes, self.now);
        let inode = self.inode(inode);
        inode.modified = now;
        match change {
            Change::Write { at, data } if durable => inode.sync_write(number, at, data),
            change => inode.change(number, change),
        }
    }

    /// Space that is taken, in bytes.
    pub(super) fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.current.allocated()).sum()
    }

    // ----- names ------------------------------------------------------------------------------------------------------

    /// Whether a path is the disk's.
    pub(super) fn serves(&self, path: &Path) -> bool {
        self.settings.below.as_ref().is_none_or(|below| plain(path).starts_with(plain(below)))
    }

    /// Opens a file for an engine.
    pub(super) fn open(&mut self, path: &Path, options: &OpenOptions) -> io::Result<VirtualFile> {
        let path = plain(path);
        let asked = Asked { number: 0, kind: OpKind::Open, path: &path, offset: None, length: 0, unit: 1 };
        let Verdict { error, refused, names, .. } = self.plan.judge(&asked);
        let opened = match error.or(refused) {
            Some(errno) => Err(errno),
            None => self.open_plain(&path, options),
        };
        let outcome = opened.map(|file| file.number);
        self.note(What::Opened { path, outcome, injected: names });
        opened.map_err(io::Error::from)
    }

    fn open_plain(&mut self, path: &Path, options: &OpenOptions) -> Result<VirtualFile, Errno> {
        if !self.powered {
            return Err(Errno(libc::EIO));
        }
        let wants_direct = os::custom(options.custom_flags) & os::O_DIRECT != 0 || options.direct == Direct::Required;
        if wants_direct && !self.settings.direct {
            return Err(Errno(libc::EINVAL));
        }
        let inode = match self.names.get(path) {
            Some(_) if options.creates_new() => return Err(Errno(libc::EEXIST)),
            Some(inode) => *inode,
            None if options.creates() || options.creates_new() => self.create(path),
            None => return Err(Errno(libc::ENOENT)),
        };
        if options.truncates() && self.inode(inode).current.len() > 0 {
            self.change(inode, Change::SetLen(0), false);
        }
        let direct = self.settings.direct && (wants_direct || options.direct == Direct::Preferred);
        let alignment = if direct { self.settings.sector } else { 1 };
        let number = self.number();
        let open = OpenInode {
            inode,
            path: path.to_owned(),
            writable: options.writes() || options.appends(),
            appends: options.appends(),
            durable: os::custom(options.custom_flags) & os::O_SYNCED != 0,
            alignment,
            position: 0,
            epoch: self.epoch,
        };
        self.open.insert(number, open);
        Ok(VirtualFile { number, alignment: alignment as usize })
    }

    fn create(&mut self, path: &Path) -> u64 {
        let inode = self.number();
        self.names.insert(path.to_owned(), inode);
        self.change(inode, Change::Create, false);
        inode
    }

    /// Forgets an open file.
    pub(super) fn close(&mut self, number: u64) {
        if let Some(open) = self.open.remove(&number) {
            self.reclaim(open.inode);
        }
    }

    /// Forgets a file that has neither a name nor a user.
    fn reclaim(&mut self, inode: u64) {
        let named = self.names.values().any(|other| *other == inode);
        if !named && !self.open.values().any(|open| open.inode == inode) {
            self.inodes.remove(&inode);
        }
    }

    /// The file of that name.
    pub(super) fn find(&self, path: &Path) -> Option<&Inode> {
        self.names.get(&plain(path)).and_then(|inode| self.inodes.get(inode))
    }

    /// Gives a file this content, durably. It is made where there is none.
    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let path = plain(path);
        let number = match self.names.get(&path) {
            Some(inode) => *inode,
            None => self.create(&path),
        };
        let mut content = Content::default();
        content.write(0, bytes);
        let inode = self.inode(number);
        inode.pending.clear();
        inode.durable = Some(content.clone());
        inode.current = content;
    }

    pub(super) fn remove(&mut self, path: &Path) -> bool {
        let removed = self.names.remove(&plain(path));
        removed.into_iter().for_each(|inode| self.reclaim(inode));
        removed.is_some()
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> bool {
        let (from, to) = (plain(from), plain(to));
        let Some(inode) = self.names.remove(&from) else { return false };
        let replaced = self.names.insert(to, inode).filter(|other| *other != inode);
        replaced.into_iter().for_each(|inode| self.reclaim(inode));
        true
    }

    // ----- damage and crashes -----------------------------------------------------------------------------------------

    /// What is damaged now, by path.
    pub(super) fn damage(&self) -> Vec<Damage> {
        let of = |(path, inode): (&PathBuf, &u64)| {
            let marks = self.inodes.get(inode).map(|inode| &inode.current.marks);
            let damage = |(number, kind, range)| Damage { number, kind, path: path.clone(), range };
            marks.map(|marks| marks.iter().map(damage).collect::<Vec<_>>()).unwrap_or_default()
        };
        self.names.iter().flat_map(of).collect()
    }

    /// The power fails.
    pub(super) fn crash(&mut self, mode: Crash) -> CrashReport {
        let in_flight = self.cut_off(mode == Crash::Torn);
        self.epoch += 1;
        let mut dice = Rng::stream(self.seed, CRASHES + self.epoch);
        let sector = self.settings.sector;
        let mut report = crash::strike(mode, self.inodes.values_mut(), sector, &mut dice);
        report.in_flight = in_flight;
        if mode != Crash::KeepAll {
            let lost = |inode: &u64| self.inodes.get(inode).is_none_or(|inode| inode.durable.is_none());
            self.names.retain(|_, inode| !lost(inode));
            self.inodes.retain(|_, inode| inode.durable.is_some());
        }
        self.powered = false;
        self.note(What::Crashed { mode, report });
        report
    }

    pub(super) fn reopen(&mut self) {
        if !self.powered {
            self.powered = true;
            self.note(What::Reopened);
        }
    }
}

/// The path without what says nothing: `./` and doubled slashes.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
