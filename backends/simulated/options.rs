//! How a simulated disk is made.

use std::path::PathBuf;
use std::time::Duration;

use super::SimulatedDisk;
use super::faults::Fault;
use super::latency::Latency;
use super::seeds;
use crate::error::Error;

/// Settings of a [`SimulatedDisk`]; made by [`SimulatedDisk::builder`].
#[derive(Clone, Debug)]
#[must_use = "there is no disk before `build`"]
pub struct SimulatedDiskBuilder {
    pub(super) seed: Option<u64>,
    pub(super) sector: u64,
    pub(super) capacity: u64,
    pub(super) queue_bound: usize,
    pub(super) latency: Latency,
    pub(super) shuffled: bool,
    pub(super) manual: bool,
    pub(super) direct: bool,
    pub(super) below: Option<PathBuf>,
    pub(super) faults: Vec<Fault>,
    pub(super) trace_limit: usize,
}

impl SimulatedDiskBuilder {
    pub(super) fn new() -> Self {
        Self {
            seed: None,
            sector: 512,
            capacity: u64::MAX,
            queue_bound: 256,
            latency: Latency::fixed(Duration::from_micros(100)),
            shuffled: false,
            manual: false,
            direct: true,
            below: None,
            faults: Vec::new(),
            trace_limit: 65_536,
        }
    }

    /// What all chance comes from. Without it the seed is that of the environment variable `POLYAIO_SIMULATED_SEED`, and
    /// without that a random one; [`SimulatedDisk::seed`] tells which.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The size of a sector in bytes: a power of two from 512 to 65536. Direct I/O has to be aligned to it, in memory and in
    /// the file, and a torn write is torn between two of them. The default is 512.
    pub fn sector(mut self, bytes: u64) -> Self {
        self.sector = bytes;
        self
    }

    /// Space in bytes. It is taken in pages of 4096 bytes; where there is none left, writes are short, and then fail with
    /// `ENOSPC`. The default is no limit.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Requests that each of the disk's backends holds at the most; more wait in the engine. The default is 256.
    pub fn queue_bound(mut self, requests: usize) -> Self {
        self.queue_bound = requests;
        self
    }

    /// How long transfers and syncs take, in the disk's own time. The default is 100 µs each, and the least is a
    /// nanosecond. Everything else takes a microsecond.
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// What is due at the same time completes, and takes effect, in a random order instead of that of submission.
    pub fn shuffled(mut self, shuffled: bool) -> Self {
        self.shuffled = shuffled;
        self
    }

    /// Time passes only by [`SimulatedDisk::advance`], so that a program can be watched while it waits. Otherwise the clock
    /// jumps to the next completion as soon as anybody waits for one.
    ///
    /// An engine ends once what is in flight has completed: advance the clock far enough before the last handle is dropped.
    pub fn manual_clock(mut self) -> Self {
        self.manual = true;
        self
    }

    /// The disk refuses direct I/O, as some file systems do: [`Direct::Required`](crate::Direct::Required) fails with
    /// `EINVAL`, [`Direct::Preferred`](crate::Direct::Preferred) is buffered.
    pub fn without_direct(mut self) -> Self {
        self.direct = false;
        self
    }

    /// Serves only the files below this path. Others are left to the next backend. Without it every path is the disk's.
    pub fn below(mut self, path: impl Into<PathBuf>) -> Self {
        self.below = Some(path.into());
        self
    }

    /// Adds a fault to the plan.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds several.
    pub fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    /// Events that the trace keeps: the last ones. The default is 65 536; 0 keeps none.
    pub fn trace_limit(mut self, events: usize) -> Self {
        self.trace_limit = events;
        self
    }

    /// Makes the disk, which is empty.
    ///
    /// # Errors
    /// [`Error::Options`] for a sector size or queue bound that makes no sense, for a fault that could never strike or would
    /// never end, and for a value of `POLYAIO_SIMULATED_SEED` that is no number; [`Error::System`] where there are no
    /// descriptors left.
    pub fn build(self) -> Result<SimulatedDisk, Error> {
        if !self.sector.is_power_of_two() || !(512..=65_536).contains(&self.sector) {
            let sector = self.sector;
            return Err(Error::Options(format!(
                "a sector of {sector} bytes: it must be a power of two from 512 to 65536"
            )));
        }
        if self.queue_bound == 0 {
            return Err(Error::Options("queue bound is 0: it must be at least 1".to_owned()));
        }
        self.faults.iter().try_for_each(Fault::check).map_err(Error::Options)?;
        let seed = self.seed.map_or_else(seeds::of_environment, Ok)?;
        SimulatedDisk::new(self, seed)
    }
}
