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

use std::os::fd::{AsFd as _, BorrowedFd};
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
use crate::request::{OpKind, RequestId};
use crate::sync::{Mutex, lock};

/// The name of the disk's backends in policies and reports.
pub const NAME: &str = "simulated";

/// A disk in memory. Clones are the same disk.
///
/// What is done by its own methods is immediate, touched by no fault, and seen by engines at once. Paths are only names:
/// there are no directories.
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
    pub fn seed(&self) -> u64 {
        self.state().seed
    }

    // ----- faults and crashes -----------------------------------------------------------------------------------------

    /// Adds a fault to the plan.
    ///
    /// # Errors
    /// [`Error::Options`] for one that could never strike, or would never end.
    pub fn inject(&self, fault: Fault) -> Result<FaultId, Error> {
        fault.check().map_err(Error::Options)?;
        Ok(self.state().plan.add(fault))
    }

    /// Takes a fault out of the plan. What it has damaged stays so.
    pub fn lift(&self, fault: FaultId) {
        self.state().plan.remove(fault);
    }

    /// Takes all faults out of the plan. What they have damaged stays so.
    pub fn clear_faults(&self) {
        self.state().plan.clear();
    }

    /// How often a fault has struck; `None` where it is not in the plan.
    pub fn struck(&self, fault: FaultId) -> Option<u64> {
        self.state().plan.struck(fault)
    }

    /// The power fails. What is in flight ends with `EIO`; so does everything that is asked of files that are open now, and
    /// opening until the power [is back](Self::reopen). What was synced is kept, and of the rest what `mode` says.
    ///
    /// A file's name is durable once the file was synced. What is kept is decided by the seed, and by how many crashes there
    /// were.
    pub fn crash(&self, mode: Crash) -> CrashReport {
        let report = self.state().crash(mode);
        // What was in flight has ended.
        self.shared.bell.ring();
        report
    }

    /// The power is back: what has survived can be opened. Nothing where it has not failed.
    pub fn reopen(&self) {
        self.state().reopen();
    }

    /// Whether there is power: not after a crash, until [`reopen`](Self::reopen). A fault may have
    /// [taken it away](Fault::power_loss).
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    // ----- files ------------------------------------------------------------------------------------------------------

    /// Gives a file this content, durably. It is made where there is none.
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.state().put(path.as_ref(), bytes);
    }

    /// A file's bytes as programs would see them, also those that cannot be read; `None` where there is no such file.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state().find(path.as_ref()).map(|inode| inode.current.all())
    }

    /// A file's bytes as they would be after [`Crash::LoseUnsynced`]; `None` where there would be no such file.
    pub fn durable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state().find(path.as_ref()).and_then(|inode| inode.durable.as_ref()).map(|content| content.all())
    }

    /// The names of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Removes a name, durably. The file goes once nobody has it open. `false`: there was none.
    pub fn remove(&self, path: impl AsRef<Path>) -> bool {
        self.state().remove(path.as_ref())
    }

    /// Gives a file another name, durably, and takes that from whoever had it. `false`: there is no such file.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> bool {
        self.state().rename(from.as_ref(), to.as_ref())
    }

    /// Space that is taken, in bytes.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    // ----- time and traces --------------------------------------------------------------------------------------------

    /// The disk's own time, from its making on.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// Lets time pass. What is due by then completes once somebody waits for it, or turns.
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.now = state.now.saturating_add(time);
        drop(state);
        self.shared.bell.ring();
    }

    /// Requests that were submitted so far. One that is offered again, because there was no room, counts again.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// What was asked, answered and injected so far.
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
