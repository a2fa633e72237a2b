//! How a simulated disk is made.

use std::path::PathBuf;
use std::time::Duration;

use super::SimulatedDisk;
use super::faults::Fault;
use super::latency::Latency;
use super::seeds;
use crate::error::Error;

/// Settings of a [`SimulatedDisk`]; made by [`SimulatedDisk::builder`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::simulated::{Fault, Latency, SimulatedDisk};
/// use std::time::Duration;
/// // A small disk with large sectors that is slow, and fails one request in ten thousand.
/// let disk = SimulatedDisk::builder()
///     .seed(7)
///     .sector(4096)
///     .capacity(64 << 20)
///     .latency(Latency::exponential(Duration::from_millis(5)))
///     .shuffled(true)
///     .fault(Fault::error(libc::EIO).probability(1e-4))
///     .build()?;
/// assert_eq!((disk.used(), disk.paths().len()), (0, 0), "it is empty");
/// # Ok(()) }
/// ```
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
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let two = [SimulatedDisk::builder().seed(1).build()?, SimulatedDisk::builder().seed(1).build()?];
    /// for disk in &two {
    ///     disk.inject(Fault::bit_rot(1).reads())?;
    ///     disk.put("zeroes", &[0; 4096]);
    ///     # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    ///     OpenOptions::new().read(true).open(&engine, "zeroes")?.read_at(vec![0; 4096], 0).wait().0?;
    /// }
    /// assert_eq!(two[0].read("zeroes"), two[1].read("zeroes"), "the same bit");
    /// # Ok(()) }
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The size of a sector in bytes: a power of two from 512 to 65536. Direct I/O has to be aligned to it, in memory and in
    /// the file, and a torn write is torn between two of them. The default is 512.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use polyaio::Direct;
    /// let disk = SimulatedDisk::builder().sector(4096).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let mut options = OpenOptions::new();
    /// let file = options.write(true).create(true).direct(Direct::Required).open(&engine, "data")?;
    /// assert_eq!(file.alignment().offset, 4096);
    /// assert!(SimulatedDisk::builder().sector(1000).build().is_err(), "no power of two");
    /// # Ok(()) }
    /// ```
    pub fn sector(mut self, bytes: u64) -> Self {
        self.sector = bytes;
        self
    }

    /// Space in bytes. It is taken in pages of 4096 bytes; where there is none left, writes are short, and then fail with
    /// `ENOSPC`. The default is no limit.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let disk = SimulatedDisk::builder().capacity(8192).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
    /// assert_eq!(file.write_at(vec![1; 10_000], 0).wait().0?, 8192, "as much as fits");
    /// assert_eq!(file.write_at("x", 8192).wait().0.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    /// # Ok(()) }
    /// ```
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Requests that each of the disk's backends holds at the most; more wait in the engine. The default is 256.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// // Ten requests of 100 µs, two at a time: five rounds.
    /// let disk = SimulatedDisk::builder().queue_bound(2).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// disk.put("data", &[1; 4096]);
    /// let file = OpenOptions::new().read(true).open(&engine, "data")?;
    /// let before = disk.now();
    /// file.read_many_at((0..10).map(|block| (vec![0; 8], block * 8))).wait();
    /// assert_eq!((disk.now() - before).as_micros(), 500);
    /// # Ok(()) }
    /// ```
    pub fn queue_bound(mut self, requests: usize) -> Self {
        self.queue_bound = requests;
        self
    }

    /// How long transfers and syncs take, in the disk's own time. The default is 100 µs each, and the least is a
    /// nanosecond. Everything else takes a microsecond.
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
    /// let disk = SimulatedDisk::builder().latency(Latency::fixed(Duration::from_secs(3))).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
    /// file.write_all_at("slow", 0).wait().0?;
    /// file.sync_data().wait()?;
    /// assert!(disk.now() >= Duration::from_secs(6), "and no time has passed here");
    /// # Ok(()) }
    /// ```
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// What is due at the same time completes, and takes effect, in a random order instead of that of submission.
    ///
    /// # Examples
    /// Two writes of the same bytes that are in flight together have no order. With this the test finds out:
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let mut wrong = 0;
    /// for seed in 0..20 {
    ///     let disk = SimulatedDisk::builder().seed(seed).shuffled(true).build()?;
    ///     # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    ///     let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
    ///     let mut both = engine.batch();
    ///     for text in ["first", "second"] { both.push(file.write_all_at(text, 0), |written| written.0); }
    ///     for written in engine.block_on(both.all()) { written?; }
    ///     wrong += usize::from(disk.read("data") != Some(b"second".to_vec()));
    /// }
    /// assert!((1..20).contains(&wrong));
    /// # Ok(()) }
    /// ```
    pub fn shuffled(mut self, shuffled: bool) -> Self {
        self.shuffled = shuffled;
        self
    }

    /// Time passes only by [`SimulatedDisk::advance`], so that a program can be watched while it waits. Otherwise the clock
    /// jumps to the next completion as soon as anybody waits for one.
    ///
    /// An engine ends once what is in flight has completed: advance the clock far enough before the last handle is dropped.
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
    /// let disk = SimulatedDisk::builder().manual_clock().build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
    /// let write = file.write_all_at("hello", 0).try_start().map_err(|_| "there is room")?;
    /// engine.turn(0, usize::MAX, None);
    /// assert_eq!(disk.read("data"), Some(vec![]), "it is in flight");
    /// disk.advance(Duration::from_millis(1));
    /// write.wait().0?;
    /// assert_eq!(disk.read("data"), Some(b"hello".to_vec()));
    /// # Ok(()) }
    /// ```
    pub fn manual_clock(mut self) -> Self {
        self.manual = true;
        self
    }

    /// The disk refuses direct I/O, as some file systems do: [`Direct::Required`](crate::Direct::Required) fails with
    /// `EINVAL`, [`Direct::Preferred`](crate::Direct::Preferred) is buffered.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use polyaio::Direct;
    /// let disk = SimulatedDisk::builder().without_direct().build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let mut options = OpenOptions::new();
    /// options.write(true).create(true);
    /// assert!(options.direct(Direct::Required).open(&engine, "data").is_err());
    /// # if !std::env::var("POLYAIO_STRICT").is_ok_and(|strict| strict == "1") {
    /// assert!(!options.direct(Direct::Preferred).open(&engine, "data")?.facts().direct);
    /// # }
    /// # Ok(()) }
    /// ```
    pub fn without_direct(mut self) -> Self {
        self.direct = false;
        self
    }

    /// Serves only the files below this path. Others are left to the next backend. Without it every path is the disk's.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::{Engine, FileKind, OpenOptions, backends::simulated::SimulatedDisk};
    /// # let dir = tempfile::tempdir()?;
    /// let disk = SimulatedDisk::builder().below("/simulated").build()?;
    /// let engine = Engine::builder().backend(disk.backend()).build()?;
    /// let mut options = OpenOptions::new();
    /// options.write(true).create(true);
    /// assert_eq!(options.open(&engine, "/simulated/data")?.facts().kind, FileKind::Virtual);
    /// assert_eq!(options.open(&engine, dir.path().join("data"))?.facts().kind, FileKind::Regular);
    /// # Ok(()) }
    /// ```
    pub fn below(mut self, path: impl Into<PathBuf>) -> Self {
        self.below = Some(path.into());
        self
    }

    /// Adds a fault to the plan.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let disk = SimulatedDisk::builder().fault(Fault::error(libc::EIO).syncs().nth(1)).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
    /// assert!(file.sync_all().wait().is_err() && file.sync_all().wait().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Adds several.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::simulated::{Fault, SimulatedDisk};
    /// let weather = [Fault::short().probability(0.1), Fault::bit_rot(1).writes().probability(0.001)];
    /// let disk = SimulatedDisk::builder().faults(weather).build()?;
    /// # drop(disk);
    /// // What could never strike is an error, and not a test that passes.
    /// let nonsense = SimulatedDisk::builder().faults([Fault::lost_write().reads()]).build();
    /// assert!(nonsense.unwrap_err().to_string().contains("it concerns writes only"));
    /// # Ok(()) }
    /// ```
    pub fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    /// Events that the trace keeps: the last ones. The default is 65 536; 0 keeps none.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let disk = SimulatedDisk::builder().trace_limit(2).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// let file = OpenOptions::new().write(true).create(true).open(&engine, "data")?;
    /// for _ in 0..10 { file.sync_all().wait()?; }
    /// assert_eq!((disk.trace().events.len(), disk.trace().forgotten > 10), (2, true));
    /// # Ok(()) }
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::simulated::{Fault, SimulatedDisk};
    /// let error = SimulatedDisk::builder().fault(Fault::error(libc::EINTR)).build().unwrap_err();
    /// println!("{error}"); // it would be repeated for ever
    /// let disk = SimulatedDisk::builder().build()?;
    /// assert!(disk.is_powered() && disk.paths().is_empty());
    /// # Ok(()) }
    /// ```
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
