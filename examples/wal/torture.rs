//! The log on a disk that misbehaves: one seed is one life of a log, with power failures, errors and bit rot in it.
//!
//! What must hold each time that the log was opened anew:
//!
//! - every record that was committed is there, in order, with the bytes that were appended;
//! - nothing is there that was not handed to a commit; there are no gaps;
//! - what recovery has returned once stays;
//! - damage is an error. Only in the last commit it may look like a commit that was torn, and shorten the log by that.
//!
//! A log that was told of a failure refuses to go on. And where nothing was injected, nothing fails.

use std::fmt;
use std::io;
use std::time::Duration;

use polyaio::backends::simulated::{Crash, Fault, FaultId, Latency, SimulatedDisk, Transcript};
use polyaio::{Direct, Engine, OpKind, OpenOptions, Policy};

use crate::log::{Bug, Log, LogError};
use crate::record::Record;

const PATH: &str = "wal.log";

/// The end of a seed, for who counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commits: u64,
    pub(crate) recoveries: u64,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) damages: u64,
    pub(crate) requests: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.recoveries += other.recoveries;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.damages += other.damages;
        self.requests += other.requests;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commits, recoveries, crashes, faults, damages, requests } = self;
        write!(
            f,
            "{commits} commits, {recoveries} recoveries, {crashes} power failures, {faults} injected faults, \
             {damages} damaged sectors, {requests} requests"
        )
    }
}

/// Why a seed did not come to its end.
#[derive(Debug)]
pub(crate) enum End {
    Broken(Box<Broken>),
    /// There is no engine: descriptors or threads are spent.
    NotBegun(polyaio::Error),
}

/// The log has broken a promise.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) seed: u64,
    pub(crate) promise: String,
    /// What was done to the log, a line for each step.
    pub(crate) story: Vec<String>,
    /// What the disk has seen.
    pub(crate) trace: Transcript,
}

/// Runs one seed.
///
/// # Errors
/// [`End::Broken`]: the log has a bug. The same seed shows it again, with the same words. [`End::NotBegun`].
pub(crate) fn run(seed: u64, bug: Option<Bug>) -> Result<Tally, End> {
    let mut life = Life::new(seed, bug).map_err(End::NotBegun)?;
    let lived = life.live();
    life.tally.requests = life.disk.requests();
    match lived {
        Ok(()) => Ok(life.tally),
        Err(promise) => {
            Err(End::Broken(Box::new(Broken { seed, promise, story: life.story, trace: life.disk.trace() })))
        }
    }
}

struct Life {
    disk: SimulatedDisk,
    engine: Engine,
    dice: Dice,
    direct: Direct,
    /// There is an end to the disk, and `ENOSPC` is nobody's fault.
    limited: bool,
    bug: Option<Bug>,
    /// What was handed to commits, oldest first.
    records: Vec<Vec<u8>>,
    /// How many of them have to be there.
    committed: usize,
    /// How many there were before each of the commits.
    commits: Vec<usize>,
    /// Faults that are in the disk's plan now.
    armed: Vec<FaultId>,
    story: Vec<String>,
    tally: Tally,
}

impl Life {
    fn new(seed: u64, bug: Option<Bug>) -> Result<Self, polyaio::Error> {
        let mut dice = Dice(seed);
        let direct = if dice.one_in(2) { Direct::Required } else { Direct::Off };
        let limited = dice.one_in(4);
        let latency = Latency::uniform(Duration::from_micros(20), Duration::from_millis(20));
        let capacity = if limited { 4096 * (4 + dice.below(40)) } else { u64::MAX };
        let sector = [512, 512, 4096][dice.below(3) as usize];
        let disk = SimulatedDisk::builder().seed(seed).sector(sector).latency(latency).capacity(capacity);
        let disk = disk.shuffled(dice.one_in(2)).build()?;
        let engine = engine(&disk)?;
        let story =
            vec![format!("a disk with sectors of {sector} bytes, {direct:?} of direct I/O, limited: {limited}")];
        let (records, commits, armed, tally) = (Vec::new(), Vec::new(), Vec::new(), Tally::default());
        Ok(Self { disk, engine, dice, direct, limited, bug, records, committed: 0, commits, armed, story, tally })
    }

    /// One step after the other, each with a log that was opened and is well.
    fn live(&mut self) -> Result<(), String> {
        let mut log = self.recover()?;
        for _ in 0..12 + self.dice.below(20) {
            log = match self.dice.below(16) {
                0..10 => self.commit(log)?,
                10..12 => self.power_failure(log)?,
                12..14 => self.restart(log)?,
                14 => self.bit_rot(log)?,
                _ => self.unreadable(log)?,
            };
        }
        self.restart(log).map(drop)
    }

    // ----- steps ------------------------------------------------------------------------------------------------------

    /// A commit, in half of the cases with a fault in its way.
    fn commit(&mut self, mut log: Log) -> Result<Log, String> {
        let count = 1 + self.dice.below(5) as usize;
        self.take(&mut log, count)?;
        let faults = if self.dice.one_in(2) { self.commit_faults() } else { Vec::new() };
        self.arm(faults);
        self.commits.push(self.committed);
        let outcome = self.engine.block_on(log.commit());
        let injected = self.disarm();
        self.tell(format_args!("commit of {count} records: {outcome:?}"));
        match outcome {
            Ok(last) => {
                self.tally.commits += 1;
                self.committed = self.records.len();
                expect(last as usize == self.committed, || format!("the last record is said to be {last}"))?;
                if self.disk.is_powered() { Ok(log) } else { self.recover() }
            }
            Err(error) => {
                let full = self.limited && is(&error, libc::ENOSPC);
                expect(injected || full, || format!("a commit failed, and nothing was injected: {error}"))?;
                self.assert_refuses(&mut log)?;
                drop(log);
                if self.disk.is_powered() && self.dice.one_in(2) {
                    self.crash();
                }
                self.recover()
            }
        }
    }

    /// The power fails while nothing is in flight; records that were not handed to a commit may be in memory.
    fn power_failure(&mut self, mut log: Log) -> Result<Log, String> {
        let taken = self.take_without_commit(&mut log)?;
        self.crash();
        let outcome = self.engine.block_on(log.commit());
        outcome.expect_or("a commit without power", |outcome| outcome.is_ok() && taken > 0)?;
        self.recover()
    }

    /// The program ends and is started again.
    fn restart(&mut self, mut log: Log) -> Result<Log, String> {
        self.take_without_commit(&mut log)?;
        self.engine.block_on(log.close()).map_err(|error| format!("the log could not be closed: {error}"))?;
        self.tell(format_args!("closed"));
        self.recover()
    }

    /// A stored bit flips while the log is closed.
    fn bit_rot(&mut self, log: Log) -> Result<Log, String> {
        self.engine.block_on(log.close()).map_err(|error| format!("the log could not be closed: {error}"))?;
        let length = self.disk.read(PATH).map_or(0, |bytes| bytes.len() as u64);
        if length == 0 {
            return self.recover();
        }
        let (offset, bit) = (self.dice.below(length), self.dice.below(8) as u8);
        self.disk.flip_bit(PATH, offset, bit);
        self.tally.damages += 1;
        let opened = self.open();
        self.tell(format_args!("bit {bit} of byte {offset} flipped: {}", found(&opened)));
        match opened {
            Err(LogError::Corrupt { .. } | LogError::NotALog) => {
                self.disk.flip_bit(PATH, offset, bit);
                self.recover()
            }
            Err(error) => Err(format!("after bit rot: {error}")),
            Ok((log, records)) => {
                // Taken for a torn commit, if it was the last one.
                self.committed = self.commits.last().copied().unwrap_or(0);
                self.compare(&records)?;
                Ok(log)
            }
        }
    }

    /// A sector cannot be read any more.
    fn unreadable(&mut self, log: Log) -> Result<Log, String> {
        self.engine.block_on(log.close()).map_err(|error| format!("the log could not be closed: {error}"))?;
        let Some(bytes) = self.disk.read(PATH).filter(|bytes| !bytes.is_empty()) else { return self.recover() };
        let offset = self.dice.below(bytes.len() as u64);
        self.disk.spoil(PATH, offset..offset + 1);
        self.tally.damages += 1;
        let opened = self.open();
        self.tell(format_args!("the sector of byte {offset} is unreadable: {}", found(&opened)));
        match opened {
            Err(error) if is(&error, libc::EIO) => {
                // A copy is brought back.
                self.disk.put(PATH, &bytes);
                self.recover()
            }
            Err(error) => Err(format!("with an unreadable sector: {error}")),
            Ok(_) => Err(format!("the log was opened, though its byte {offset} cannot be read")),
        }
    }

    // ----- what steps are made of -------------------------------------------------------------------------------------

    /// Hands records to the log.
    fn take(&mut self, log: &mut Log, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let payload = self.dice.payload();
            let sequence = log.append(&payload).map_err(|error| format!("a record was refused: {error}"))?;
            self.records.push(payload);
            let want = self.records.len();
            expect(sequence as usize == want, || format!("record {want} was numbered {sequence}"))?;
        }
        Ok(())
    }

    /// The same, for records of which nobody should ever hear again.
    fn take_without_commit(&mut self, log: &mut Log) -> Result<usize, String> {
        let count = self.dice.below(3) as usize;
        self.take(log, count)?;
        self.records.truncate(self.committed);
        Ok(count)
    }

    fn crash(&mut self) {
        let mode = self.dice.mode();
        let report = self.disk.crash(mode);
        self.tell(format_args!("crash, {mode:?}: {report}"));
    }

    /// Opens the log as often as it takes, and sees whether the promises were kept. What is injected may fail an attempt, and
    /// nothing else.
    fn recover(&mut self) -> Result<Log, String> {
        const ATTEMPTS: u32 = 4;
        for attempt in 1..=ATTEMPTS {
            if !self.disk.is_powered() {
                self.tally.crashes += 1;
                self.disk.reopen();
            }
            let disturbed = attempt < ATTEMPTS && self.dice.one_in(4);
            let faults = if disturbed { self.recovery_faults() } else { Vec::new() };
            self.arm(faults);
            let opened = self.open();
            let injected = self.disarm();
            self.tally.recoveries += 1;
            self.tell(format_args!("recovery: {}", found(&opened)));
            match opened {
                Ok((log, records)) => {
                    self.compare(&records)?;
                    return Ok(log);
                }
                Err(error @ LogError::Corrupt { .. }) => return Err(format!("nothing is damaged, but: {error}")),
                Err(error) if !injected => return Err(format!("recovery failed, and nothing was injected: {error}")),
                Err(_) => {}
            }
        }
        Err("recovery never succeeded".to_owned())
    }

    fn open(&mut self) -> Result<(Log, Vec<Record>), LogError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).direct(self.direct);
        let file = options.open(&self.engine, PATH);
        let file = file.map_err(|error| LogError::Io { doing: "open", source: error.into() })?;
        self.engine.block_on(Log::open(file, self.bug))
    }

    /// Whether these are the records that have to be there; from now on all of them have to be.
    fn compare(&mut self, found: &[Record]) -> Result<(), String> {
        for (number, (record, want)) in (1..).zip(found.iter().zip(&self.records)) {
            expect(record.sequence == number, || format!("record {number} is numbered {}", record.sequence))?;
            expect(record.payload == *want, || format!("record {number} is not what was appended"))?;
        }
        let (have, committed, appended) = (found.len(), self.committed, self.records.len());
        expect(have >= committed, || format!("record {} was committed, and is not there", have + 1))?;
        expect(have <= appended, || format!("record {} was never handed to a commit", appended + 1))?;
        self.records.truncate(have);
        self.committed = have;
        self.commits.retain(|before| *before < have);
        Ok(())
    }

    /// After a failure, a log does nothing.
    fn assert_refuses(&mut self, log: &mut Log) -> Result<(), String> {
        let appended = log.append(b"after a failure");
        appended.expect_or("an append after a failed commit", |r| !matches!(r, Err(LogError::Broken)))?;
        let committed = self.engine.block_on(log.commit());
        committed.expect_or("a commit after a failed commit", |r| !matches!(r, Err(LogError::Broken)))
    }

    // ----- faults -----------------------------------------------------------------------------------------------------

    fn commit_faults(&mut self) -> Vec<Fault> {
        let mode = self.dice.mode();
        let errno = if self.dice.one_in(2) { libc::EIO } else { libc::ENOSPC };
        let short = Fault::short().writes().times(1);
        match self.dice.below(13) {
            0 => vec![Fault::error(errno).writes()],
            1 => vec![Fault::error(errno).writes().at_submit()],
            2 => vec![short.times(3)],
            3 => vec![short, Fault::error(errno).writes().nth(2)],
            4 => vec![short, Fault::power_loss(mode).writes().nth(2)],
            5 => vec![Fault::power_loss(mode).writes()],
            6 | 7 => vec![Fault::power_loss(mode).syncs()],
            8 => vec![Fault::error(libc::EIO).syncs().times(1)],
            9 => vec![Fault::failed_sync(libc::EIO).times(1)],
            10 | 11 => vec![Fault::failed_sync(libc::EIO).cached().times(1)],
            _ => vec![Fault::queue_full().times(1), Fault::stall(Duration::from_secs(30)).times(1)],
        }
    }

    fn recovery_faults(&mut self) -> Vec<Fault> {
        let mode = self.dice.mode();
        match self.dice.below(9) {
            0 => vec![Fault::error(libc::EIO).kind(OpKind::Open)],
            1 => vec![Fault::error(libc::EIO).reads()],
            2 => vec![Fault::short().reads().times(2)],
            3 => vec![Fault::error(libc::EIO).writes()],
            4 => vec![Fault::error(libc::EIO).kind(OpKind::SetLen)],
            5 => vec![Fault::failed_sync(libc::EIO)],
            6 => vec![Fault::failed_sync(libc::EIO).cached()],
            7 => vec![Fault::power_loss(mode).writes()],
            _ => vec![Fault::power_loss(mode).syncs()],
        }
    }

    fn arm(&mut self, faults: Vec<Fault>) {
        let disk = &self.disk;
        let inject = |fault| disk.inject(fault).unwrap_or_else(|error| panic!("a fault that makes no sense: {error}"));
        self.armed = faults.into_iter().map(inject).collect();
    }

    /// Takes the faults back. Returns whether one of them has struck.
    fn disarm(&mut self) -> bool {
        let struck: u64 = self.armed.drain(..).filter_map(|id| self.disk.struck(id)).sum();
        self.disk.clear_faults();
        self.tally.faults += struck;
        struck > 0
    }

    fn tell(&mut self, line: fmt::Arguments<'_>) {
        self.story.push(line.to_string());
    }
}

/// An engine on the disk: the one line in which a program on a real one is different.
fn engine(disk: &SimulatedDisk) -> Result<Engine, polyaio::Error> {
    let builder = Engine::builder().backend(disk.backend()).policy(Policy::Require("simulated".into()));
    // One request at a time: thousands of engines, made one after the other, need not be large.
    builder.capacity(16).queue_depth(1).threads(1).build()
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

trait ExpectOr: fmt::Debug + Sized {
    /// Says what must not have happened.
    fn expect_or(self, what: &str, wrong: impl FnOnce(&Self) -> bool) -> Result<(), String> {
        expect(!wrong(&self), || format!("{what}: {self:?}"))
    }
}

impl<T: fmt::Debug> ExpectOr for Result<T, LogError> {}

fn is(error: &LogError, errno: i32) -> bool {
    matches!(error, LogError::Io { source, .. } if io::Error::raw_os_error(source) == Some(errno))
}

fn found(opened: &Result<(Log, Vec<Record>), LogError>) -> String {
    match opened {
        Ok((_, records)) => format!("{} records", records.len()),
        Err(error) => error.to_string(),
    }
}

/// The numbers of a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn mode(&mut self) -> Crash {
        match self.below(8) {
            0 => Crash::LoseUnsynced,
            1 => Crash::KeepPrefix,
            2 => Crash::KeepFirst(self.below(4)),
            3 => Crash::KeepAll,
            _ => Crash::Torn,
        }
    }

    /// Mostly short, sometimes longer than a block; sometimes zeroes, as what was never written.
    fn payload(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0..4 => self.below(64),
            4..7 => self.below(3000),
            _ => self.below(12_000),
        };
        let mut payload = vec![0; length as usize];
        if !self.one_in(8) {
            payload.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]));
        }
        payload
    }
}
