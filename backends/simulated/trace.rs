//! What was asked, answered and injected, in order.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::crash::{Crash, CrashReport};
use super::damage::DamageKind;
use crate::completion::Outcome;
use crate::request::OpKind;

/// What happened on a simulated disk: a copy of its trace.
///
/// Displayed, it is one line per event. With the same seed, and one thread that drives the engine, the text is the same
/// byte for byte: there are no addresses, clocks or descriptors of the machine in it.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// let again = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(again.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// // ... the same operations ...
/// assert_eq!(disk.trace().to_string(), again.trace().to_string());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Transcript {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Older events that were forgotten: a disk keeps as many as its builder was told.
    pub forgotten: u64,
}

/// One line of a [`Transcript`].
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// let before = disk.now();
/// file.sync_data().wait()?;
/// let events = disk.trace().events;
/// let asked = events.iter().rfind(|event| matches!(event.what, What::Asked { .. })).ok_or("it was asked")?;
/// assert_eq!(asked.at, before);
/// assert!(events.last().is_some_and(|answered| answered.at > before));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// When, in the disk's own time.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What happened.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// use polyaio::OpKind;
/// file.sync_data().wait()?;
/// file.sync_all().wait()?;
/// // How often does the program sync?
/// let events = disk.trace().events;
/// let sync = |what: &What| matches!(what, What::Asked { kind: OpKind::SyncData | OpKind::SyncAll, .. });
/// assert_eq!(events.iter().filter(|event| sync(&event.what)).count(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// A file was opened, or not.
    Opened {
        /// The file.
        path: PathBuf,
        /// The number by which requests name it.
        outcome: Outcome,
        /// The faults that struck.
        injected: Vec<&'static str>,
    },
    /// A request was submitted, and taken.
    Asked {
        /// Its number.
        number: u64,
        /// The open file.
        file: u64,
        /// What is asked for.
        kind: OpKind,
        /// Where; `None` where it has no place.
        offset: Option<u64>,
        /// How much.
        length: u64,
        /// The faults that strike it.
        injected: Vec<&'static str>,
    },
    /// A request was submitted, and not taken.
    Refused {
        /// Its number.
        number: u64,
        /// With which error; `None`: no room.
        errno: Option<crate::Errno>,
        /// Whether a fault has refused it.
        injected: bool,
    },
    /// A request completed.
    Answered {
        /// Its number.
        number: u64,
        /// With what.
        outcome: Outcome,
    },
    /// Stored bytes were damaged.
    Damaged {
        /// By which request; 0: by the test.
        number: u64,
        /// How.
        kind: DamageKind,
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        range: std::ops::Range<u64>,
    },
    /// The power failed.
    Crashed {
        /// How.
        mode: Crash,
        /// What was left.
        report: CrashReport,
    },
    /// The power came back.
    Reopened,
}

/// Keeps the last events.
#[derive(Debug)]
pub(super) struct Recorder {
    events: VecDeque<Event>,
    limit: usize,
    forgotten: u64,
}

impl Recorder {
    pub(super) fn new(limit: usize) -> Self {
        Self { events: VecDeque::new(), limit, forgotten: 0 }
    }

    pub(super) fn note(&mut self, at: Duration, what: What) {
        if self.events.len() >= self.limit {
            self.forgotten += 1;
            if self.events.pop_front().is_none() {
                return;
            }
        }
        self.events.push_back(Event { at, what });
    }

    pub(super) fn copy(&self) -> Transcript {
        Transcript { events: self.events.iter().cloned().collect(), forgotten: self.forgotten }
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forgotten > 0 {
            writeln!(f, "({} older events are forgotten)", self.forgotten)?;
        }
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:?} {}", self.at, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { path, outcome, injected } => {
                write!(f, "open {}", path.display())?;
                answer(f, *outcome)?;
                injections(f, injected)
            }
            Self::Asked { number, file, kind, offset, length, injected } => {
                write!(f, "#{number} {kind:?} file {file}")?;
                if let Some(offset) = offset {
                    write!(f, " {offset}+{length}")?;
                }
                injections(f, injected)
            }
            Self::Refused { number, errno, injected } => {
                write!(f, "#{number} refused")?;
                match errno {
                    Some(errno) => write!(f, ": error {}", errno.0)?,
                    None => write!(f, ": no room")?,
                }
                if *injected { write!(f, " [injected]") } else { Ok(()) }
            }
            Self::Answered { number, outcome } => {
                write!(f, "#{number}")?;
                answer(f, *outcome)
            }
            Self::Damaged { number, kind, path, range } => {
                write!(f, "#{number} damage: {kind} in {} {}+{}", path.display(), range.start, range.end - range.start)
            }
            Self::Crashed { mode, report } => write!(f, "crash {mode:?}: {report}"),
            Self::Reopened => write!(f, "power is back"),
        }
    }
}

fn answer(f: &mut fmt::Formatter<'_>, outcome: Outcome) -> fmt::Result {
    match outcome {
        Ok(value) => write!(f, " -> {value}"),
        Err(errno) => write!(f, " -> error {}", errno.0),
    }
}

fn injections(f: &mut fmt::Formatter<'_>, names: &[&'static str]) -> fmt::Result {
    if names.is_empty() { Ok(()) } else { write!(f, " [{}]", names.join(", ")) }
}
