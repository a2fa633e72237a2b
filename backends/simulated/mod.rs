//! A disk in memory, with the faults that real storage has: for tests of programs that use this crate.
//!
//! A [`SimulatedDisk`] holds files by name. [`SimulatedDisk::backend`] makes a [`Backend`] of it, which an engine is given
//! as any other that was made elsewhere; no other line of the program under test changes. Time is the disk's own, and does
//! not pass while nobody waits; all chance comes from a seed, so that a run of one thread can be repeated byte for byte.
//!
//! | file | what |
//! |---|---|
//! | `options.rs`, `seeds.rs` | how a disk is made, and where its seed comes from |
//! | `faults.rs`, `asked.rs`, `plan.rs` | what goes wrong, with which requests, and when |
//! | `latency.rs`, `rng.rs` | how long things take; the dice |
//! | `disk.rs` | the state: names, open files, time |
//! | `inode.rs`, `content.rs`, `ranges.rs`, `damage.rs` | one file: what is seen, what is durable, the bytes, what is damaged |
//! | `submit.rs`, `queue.rs`, `reap.rs`, `serve.rs` | a request: taken, in flight, due, done |
//! | `crash.rs`, `trace.rs` | power failures; what has happened |
//! | `abi.rs` | the one descriptor that it needs |
//! | `fault_injecting.rs` | the same faults over a real backend and real files: [`FaultInjecting`] |
//!
//! # Examples
//! A program that syncs loses nothing when the power fails:
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use polyaio::backends::simulated::{Crash, SimulatedDisk};
//! use polyaio::{Engine, OpenOptions};
//!
//! let disk = SimulatedDisk::builder().seed(7).build()?;
//! let engine = Engine::builder().backend(disk.backend()).build()?;
//! let file = OpenOptions::new().write(true).create(true).open(&engine, "log")?;
//! file.write_all_at(b"synced".to_vec(), 0).wait().into_result()?;
//! file.sync_data().wait()?;
//! file.write_all_at(b", and more".to_vec(), 6).wait().into_result()?;
//!
//! disk.crash(Crash::LoseUnsynced);
//! assert_eq!(file.len().wait().unwrap_err().raw_os_error(), Some(libc::EIO));
//! disk.reopen();
//! assert_eq!(disk.read("log"), Some(b"synced".to_vec()));
//! # Ok(()) }
//! ```

mod abi;
mod asked;
mod content;
mod crash;
mod damage;
mod disk;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod fault_injecting;
mod faults;
mod inode;
mod latency;
mod options;
mod plan;
mod queue;
mod ranges;
mod reap;
mod rng;
mod seeds;
mod serve;
mod submit;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::asked::Asked;
pub use self::crash::{Crash, CrashReport};
pub use self::damage::{Damage, DamageKind};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use self::fault_injecting::{FAULT_INJECTING, FaultInjecting, FaultInjectingBuilder};
pub use self::faults::Fault;
pub use self::latency::Latency;
pub use self::options::SimulatedDiskBuilder;
pub use self::plan::FaultId;
pub use self::seeds::{ENV_SEED, for_seeds};
pub use self::trace::{Event, Transcript, What};

use self::abi::Bell;
use self::disk::State;
use self::queue::Queue;
use crate::backend::{Backend, Batch, CancelOutcome, Capabilities, Completions, OpSet, Serves, VirtualFile, Wait};
use crate::completion::Errno;
use crate::error::Error;
use crate::open::OpenOptions;
use crate::os::{AsFd as _, BorrowedFd};
use crate::request::{OpKind, RequestId};
use crate::sync::{Mutex, lock};

/// The name of the disk's backends in policies and reports.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::simulated::{NAME, SimulatedDisk};
/// use polyaio::{Engine, OpenOptions, Policy};
/// let disk = SimulatedDisk::builder().build()?;
/// // Nobody else moves data: neither another backend nor, for what is small, the caller.
/// let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
/// let (written, trace) = file.write_all_at("hello", 0).traced().wait();
/// assert_eq!((written.0?, trace.served_by), ((), NAME));
/// # Ok(()) }
/// ```
pub const NAME: &str = "simulated";

/// A disk in memory. Clones are the same disk.
///
/// What is done by its own methods is immediate, touched by no fault, and seen by engines at once. Paths are only names:
/// there are no directories.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// // The test has the disk in its hands, the program has an engine.
/// disk.put("settings", b"verbose = true");
/// let settings = OpenOptions::new().read(true).open(&engine, "settings")?;
/// assert_eq!(settings.len().wait()?, 14);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SimulatedDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    bell: Bell,
}

/// A backend of a disk: what one engine has of it.
struct Simulated {
    shared: Arc<Shared>,
    number: u64,
    capabilities: Capabilities,
}

impl SimulatedDisk {
    /// Settings to start from: sectors of 512 bytes, no faults, every path.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::simulated::{Fault, SimulatedDisk};
    /// let disk = SimulatedDisk::builder().seed(42).fault(Fault::lost_write().nth(100)).build()?;
    /// assert_eq!(disk.seed(), 42);
    /// # Ok(()) }
    /// ```
    pub fn builder() -> SimulatedDiskBuilder {
        SimulatedDiskBuilder::new()
    }

    fn new(settings: SimulatedDiskBuilder, seed: u64) -> Result<Self, Error> {
        let bell = Bell::new().map_err(|source| Error::System { what: "eventfd", source })?;
        Ok(Self { shared: Arc::new(Shared { state: Mutex::new(State::new(settings, seed)), bell }) })
    }

    /// The disk for one engine: [`EngineBuilder::backend`](crate::EngineBuilder::backend). Each engine needs one of its own;
    /// they share the files, the clock and the faults.
    ///
    /// It opens every path (or those [below](SimulatedDiskBuilder::below) its own), whatever the policy says.
    /// [`Policy::Require("simulated")`](crate::Policy::Require) makes sure that nothing else is transferred by anybody.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::simulated::SimulatedDisk;
    /// use polyaio::{Engine, OpenOptions};
    /// let disk = SimulatedDisk::builder().build()?;
    /// let (first, second) = (disk.backend(), disk.backend());
    /// let (first, second) = (Engine::builder().backend(first).build()?, Engine::builder().backend(second).build()?);
    /// OpenOptions::new().write(true).create(true).open(&first, "data")?.write_all_at("shared", 0).wait().0?;
    /// assert_eq!(OpenOptions::new().read(true).open(&second, "data")?.len().wait()?, 6);
    /// # Ok(()) }
    /// ```
    pub fn backend(&self) -> Arc<dyn Backend> {
        let mut state = lock(&self.shared.state);
        let number = state.number();
        state.queues.insert(number, Queue::default());
        let capabilities = Capabilities {
            // Opening is asked by `open`.
            operations: OpKind::ALL.iter().filter(|kind| **kind != OpKind::Open).fold(OpSet::NONE, |s, k| s.with(*k)),
            serves: Serves::OwnFiles,
            nowait: true,
            durable: true,
            priorities: true,
            appends: true,
            cancel: true,
            reaped: true,
            may_block: false,
            ..Capabilities::new(state.settings.queue_bound)
        };
        Arc::new(Simulated { shared: self.shared.clone(), number, capabilities })
    }

    /// What all chance comes from.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backends::simulated::SimulatedDisk;
    /// let disk = SimulatedDisk::builder().build()?; // of the environment, or random
    /// let again = SimulatedDisk::builder().seed(disk.seed()).build()?;
    /// assert_eq!(again.seed(), disk.seed());
    /// # Ok(()) }
    /// ```
    pub fn seed(&self) -> u64 {
        self.state().seed
    }

    // ----- faults and crashes -----------------------------------------------------------------------------------------

    /// Adds a fault to the plan.
    ///
    /// # Errors
    /// [`Error::Options`] for one that could never strike, or would never end.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let worn = disk.inject(Fault::latent_error().reads().range(0..512))?;
    /// assert!(file.read_at(vec![0; 1], 0).wait().0.is_err());
    /// assert_eq!(disk.struck(worn), Some(1));
    /// assert!(disk.inject(Fault::error(libc::EIO).probability(2.0)).is_err(), "not a probability");
    /// # Ok(()) }
    /// ```
    pub fn inject(&self, fault: Fault) -> Result<FaultId, Error> {
        fault.check().map_err(Error::Options)?;
        Ok(self.state().plan.add(fault))
    }

    /// Takes a fault out of the plan. What it has damaged stays so.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let full = disk.inject(Fault::error(libc::ENOSPC).writes())?;
    /// assert!(file.write_at("x", 0).wait().0.is_err());
    /// disk.lift(full); // somebody has made room
    /// assert!(file.write_at("x", 0).wait().0.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn lift(&self, fault: FaultId) {
        self.state().plan.remove(fault);
    }

    /// Takes all faults out of the plan. What they have damaged stays so.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let torn = disk.inject(Fault::bit_rot(1).reads().times(1))?;
    /// file.read_at(vec![0; 4096], 0).wait().0?;
    /// disk.clear_faults();
    /// assert_eq!((disk.struck(torn), disk.damage().len()), (None, 1), "the bit stays flipped");
    /// # Ok(()) }
    /// ```
    pub fn clear_faults(&self) {
        self.state().plan.clear();
    }

    /// How often a fault has struck; `None` where it is not in the plan.
    ///
    /// # Examples
    /// A test that passes because nothing went wrong proves nothing:
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let fault = disk.inject(Fault::short().reads().nth(3))?;
    /// for _ in 0..5 { file.read_exact_at(vec![0; 100], 0).wait().0?; }
    /// assert_eq!(disk.struck(fault), Some(1), "the program was put to the test");
    /// # Ok(()) }
    /// ```
    pub fn struck(&self, fault: FaultId) -> Option<u64> {
        self.state().plan.struck(fault)
    }

    /// The power fails. What is in flight ends with `EIO`; so does everything that is asked of files that are open now, and
    /// opening until the power [is back](Self::reopen). What was synced is kept, and of the rest what `mode` says.
    ///
    /// A file's name is durable once the file was synced. What is kept is decided by the seed, and by how many crashes there
    /// were.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// file.sync_all().wait()?;
    /// file.write_all_at("not synced", 0).wait().0?;
    /// let report = disk.crash(Crash::LoseUnsynced);
    /// assert_eq!((report.unsynced, report.kept), (1, 0));
    /// assert!(file.len().wait().is_err(), "the file was open");
    /// disk.reopen();
    /// assert_eq!(disk.read("data"), Some(vec![1; 4096]));
    /// # Ok(()) }
    /// ```
    pub fn crash(&self, mode: Crash) -> CrashReport {
        let report = self.state().crash(mode);
        // What was in flight has ended.
        self.shared.bell.ring();
        report
    }

    /// The power is back: what has survived can be opened. Nothing where it has not failed.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// file.sync_all().wait()?;
    /// disk.crash(Crash::KeepAll);
    /// assert!(OpenOptions::new().read(true).open(&engine, "data").is_err(), "there is no power");
    /// disk.reopen();
    /// let again = OpenOptions::new().read(true).open(&engine, "data")?;
    /// assert!(again.len().wait()? == 4096 && file.len().wait().is_err(), "the old handle stays dead");
    /// # Ok(()) }
    /// ```
    pub fn reopen(&self) {
        self.state().reopen();
    }

    /// Whether there is power: not after a crash, until [`reopen`](Self::reopen). A fault may have
    /// [taken it away](Fault::power_loss).
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::power_loss(Crash::Torn).writes().nth(2))?;
    /// for n in 0.. {
    ///     if file.append("record").wait().0.is_err() {
    ///         assert!(!disk.is_powered() && n == 1);
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    // ----- files ------------------------------------------------------------------------------------------------------

    /// Gives a file this content, durably. It is made where there is none.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.put("old-format", b"v1\n");
    /// disk.crash(Crash::LoseUnsynced);
    /// disk.reopen();
    /// assert_eq!(disk.read("old-format"), Some(b"v1\n".to_vec()), "as if it had always been there");
    /// # Ok(()) }
    /// ```
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.state().put(path.as_ref(), bytes);
    }

    /// A file's bytes as programs would see them, also those that cannot be read; `None` where there is no such file.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// file.write_all_at("hello", 0).wait().0?;
    /// disk.spoil("data", 0..5);
    /// assert!(file.read_at(vec![0; 5], 0).wait().0.is_err());
    /// assert!(disk.read("data").is_some_and(|bytes| bytes.starts_with(b"hello")));
    /// assert_eq!(disk.read("no such file"), None);
    /// # Ok(()) }
    /// ```
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state().find(path.as_ref()).map(|inode| inode.current.all())
    }

    /// A file's bytes as they would be after [`Crash::LoseUnsynced`]; `None` where there would be no such file.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// assert_eq!(disk.durable("data"), None, "not even its name");
    /// file.sync_data().wait()?;
    /// file.set_len(0).wait()?;
    /// assert_eq!((disk.read("data"), disk.durable("data")), (Some(vec![]), Some(vec![1; 4096])));
    /// # Ok(()) }
    /// ```
    pub fn durable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state().find(path.as_ref()).and_then(|inode| inode.durable.as_ref()).map(|content| content.all())
    }

    /// The names of all files, sorted.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.put("./log//2", b"");
    /// disk.put("log/1", b"");
    /// let names: Vec<_> = disk.paths().iter().map(|path| path.display().to_string()).collect();
    /// assert_eq!(names, ["data", "log/1", "log/2"]);
    /// # Ok(()) }
    /// ```
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Removes a name, durably. The file goes once nobody has it open. `false`: there was none.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// assert!(disk.remove("data") && !disk.remove("data"));
    /// assert_eq!(file.len().wait()?, 4096, "who has it open still has it");
    /// assert!(OpenOptions::new().read(true).open(&engine, "data").is_err());
    /// # Ok(()) }
    /// ```
    pub fn remove(&self, path: impl AsRef<Path>) -> bool {
        self.state().remove(path.as_ref())
    }

    /// Gives a file another name, durably, and takes that from whoever had it. `false`: there is no such file.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// // What a program does that replaces a file: write another one, sync it, rename it.
    /// let new = OpenOptions::new().write(true).create(true).open(&engine, "data.new")?;
    /// new.write_all_at("replaced", 0).wait().0?;
    /// new.sync_all().wait()?;
    /// assert!(disk.rename("data.new", "data"));
    /// assert_eq!((disk.durable("data"), disk.paths().len()), (Some(b"replaced".to_vec()), 1));
    /// # Ok(()) }
    /// ```
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> bool {
        self.state().rename(from.as_ref(), to.as_ref())
    }

    /// Space that is taken, in bytes.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let before = disk.used();
    /// file.write_all_at("x", 1 << 30).wait().0?;
    /// assert_eq!(disk.used() - before, 4096, "files are sparse");
    /// # Ok(()) }
    /// ```
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    // ----- time and traces --------------------------------------------------------------------------------------------

    /// The disk's own time, from its making on.
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
    /// std::thread::sleep(std::time::Duration::from_millis(1)); // which is nothing to the disk
    /// assert_eq!(disk.now(), before);
    /// file.sync_all().wait()?;
    /// assert_eq!((disk.now() - before).as_micros(), 100);
    /// # Ok(()) }
    /// ```
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// Lets time pass. What is due by then completes once somebody waits for it, or turns.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use std::time::Duration;
    /// let before = disk.now();
    /// disk.advance(Duration::from_secs(3600)); // the program was idle for an hour
    /// assert_eq!(disk.now() - before, Duration::from_secs(3600));
    /// # Ok(()) }
    /// ```
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.now = state.now.saturating_add(time);
        drop(state);
        self.shared.bell.ring();
    }

    /// Requests that were submitted so far. One that is offered again, because there was no room, counts again.
    ///
    /// # Examples
    /// How many requests does it take? Then the power can fail at each of them:
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let requests = disk.requests();
    /// file.append("record").wait().0?;
    /// file.sync_data().wait()?;
    /// assert_eq!(disk.requests() - requests, 2);
    /// # Ok(()) }
    /// ```
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// What was asked, answered and injected so far.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).syncs())?;
    /// let _ = file.sync_all().wait();
    /// println!("{}", disk.trace()); // what a test prints when it fails
    /// let struck = |event: &Event| matches!(&event.what, What::Asked { injected, .. } if !injected.is_empty());
    /// assert_eq!(disk.trace().events.iter().filter(|event| struck(event)).count(), 1);
    /// # Ok(()) }
    /// ```
    pub fn trace(&self) -> Transcript {
        self.state().trace.copy()
    }

    fn state(&self) -> crate::sync::MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("SimulatedDisk")
            .field("seed", &state.seed)
            .field("now", &state.now)
            .field("files", &state.names.len())
            .field("requests", &state.requests)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = lock(&self.state).seed;
            eprintln!("the simulated disk had the seed {seed}: {ENV_SEED}={seed} repeats it where none is set");
        }
    }
}

impl Backend for Simulated {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Option<std::io::Result<VirtualFile>> {
        let mut state = lock(&self.shared.state);
        state.serves(path).then(|| state.open(path, options))
    }

    fn close(&self, number: u64) {
        lock(&self.shared.state).close(number);
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        self.take(batch);
    }

    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        self.collect(wait, completions)
    }

    fn ready(&self) -> bool {
        self.has_due()
    }

    fn notification(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.bell.as_fd())
    }

    /// What is not done yet is never done.
    fn cancel(&self, id: RequestId) -> CancelOutcome {
        let mut state = lock(&self.shared.state);
        let now = state.now;
        let found = state.queues.get_mut(&self.number).map(|queue| queue.end(id, now, Err(Errno(libc::ECANCELED))));
        drop(state);
        match found {
            Some(true) => {
                self.shared.bell.ring();
                CancelOutcome::Cancelled
            }
            _ => CancelOutcome::Unknown,
        }
    }

    fn shutdown(&self) {
        // The engine has drained; what is left of one that was leaked ends outside of the lock.
        let queue = lock(&self.shared.state).queues.remove(&self.number);
        drop(queue);
    }
}
