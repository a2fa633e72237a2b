//! Faults: what goes wrong, and when.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::asked::{Asked, Kinds};
use super::crash::Crash;
use super::latency::Latency;
use crate::completion::Errno;
use crate::request::OpKind;

/// One fault of a plan: an effect, and the conditions on which it strikes. All of them must hold.
///
/// Made by what it does, then narrowed down. A request is first compared with what the fault is about (the kind of request,
/// [`path`](Self::path), [`range`](Self::range), [`when`](Self::when)); of those that match, the counters ([`nth`](Self::nth),
/// [`every`](Self::every), [`after`](Self::after), [`times`](Self::times)) pick some, and [`probability`](Self::probability)
/// some of these. Without conditions it strikes each request that it can concern.
///
/// The dice of a fault are its own: another fault in the plan, or another disk, changes nothing about when it strikes.
///
/// # Examples
/// ```
/// use polyaio::backends::simulated::{Fault, Latency};
/// use std::time::Duration;
///
/// // One read in a hundred fails.
/// let weak = Fault::error(libc::EIO).reads().probability(0.01);
/// // The third write to the log is torn off after 512 bytes.
/// let short = Fault::short_to(512).path("wal.log").nth(3).writes();
/// // Syncs take their time.
/// let slow = Fault::delay(Latency::exponential(Duration::from_millis(20))).syncs();
/// // Writes behind the first mebibyte find the disk full.
/// let full = Fault::error(libc::ENOSPC).writes().when(|asked| asked.offset.is_some_and(|offset| offset >= 1 << 20));
/// ```
#[derive(Clone)]
#[must_use = "a fault does nothing before it is in a plan"]
pub struct Fault {
    pub(super) effect: Effect,
    pub(super) kinds: Kinds,
    pub(super) path: Option<PathBuf>,
    pub(super) range: Option<Range<u64>>,
    pub(super) when: Option<Arc<When>>,
    pub(super) nth: Option<u64>,
    pub(super) every: Option<u64>,
    pub(super) after: u64,
    pub(super) times: u64,
    pub(super) probability: f64,
}

type When = dyn Fn(&Asked<'_>) -> bool + Send + Sync;

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Effect {
    Error { errno: Errno, at_submit: bool },
    Short(Option<u64>),
    Delay(Latency),
    QueueFull,
    LatentError,
    BitRot(u32),
    Misdirected,
    LostWrite,
    FailedSync { errno: Errno, cached: bool },
    PowerLoss(Crash),
}

impl Fault {
    const fn new(effect: Effect, kinds: Kinds) -> Self {
        Self {
            effect,
            kinds,
            path: None,
            range: None,
            when: None,
            nth: None,
            every: None,
            after: 0,
            times: u64::MAX,
            probability: 1.0,
        }
    }

    // ----- effects ----------------------------------------------------------------------------------------------------

    /// Nothing is done, and the request completes with this error number, such as `libc::EIO`; with
    /// [`at_submit`](Self::at_submit) it is refused where it is submitted. Concerns every request, and opening where
    /// [`kind`](Self::kind) says [`OpKind::Open`].
    ///
    /// `EINTR` is refused when the plan is built: the engine would repeat the request for ever.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::ENOSPC).writes())?;
    /// let polyaio::BufResult(result, buffer) = file.write_at("no room", 0).wait();
    /// assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    /// assert_eq!(buffer, "no room", "it comes back all the same");
    /// # Ok(()) }
    /// ```
    pub const fn error(errno: i32) -> Self {
        Self::new(Effect::Error { errno: Errno(errno), at_submit: false }, Kinds::All)
    }

    /// The error is the answer to the submission, as `io_submit(2)` refuses a request, and not a completion.
    ///
    /// # Examples
    /// To the caller it is the same error; the trace tells the difference.
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).at_submit().times(1))?;
    /// assert!(file.len().wait().is_err());
    /// let refused = |event: &Event| matches!(event.what, What::Refused { injected: true, .. });
    /// assert!(disk.trace().events.last().is_some_and(refused));
    /// # Ok(()) }
    /// ```
    pub const fn at_submit(mut self) -> Self {
        if let Effect::Error { at_submit, .. } = &mut self.effect {
            *at_submit = true;
        }
        self
    }

    /// A transfer stops somewhere before its end: after at least one byte, and at a multiple of the alignment of a direct file.
    /// Transfers that are too short for that are not concerned.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::short().times(1))?;
    /// let n = file.write_at(vec![2; 1000], 0).wait().0?;
    /// assert!((1..1000).contains(&n));
    /// // A program that loops, or lets the engine do it, loses nothing.
    /// disk.inject(Fault::short().times(3))?;
    /// file.write_all_at(vec![2; 1000], 0).wait().0?;
    /// # Ok(()) }
    /// ```
    pub const fn short() -> Self {
        Self::new(Effect::Short(None), Kinds::All)
    }

    /// The same, after so many bytes (rounded down to the alignment). Those that are not longer are not concerned.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::short_to(700).reads())?;
    /// assert_eq!(file.read_at(vec![0; 1000], 0).wait().0?, 700);
    /// assert_eq!(file.read_at(vec![0; 600], 0).wait().0?, 600, "that is not too long");
    /// # Ok(()) }
    /// ```
    pub const fn short_to(bytes: u64) -> Self {
        Self::new(Effect::Short(Some(bytes)), Kinds::All)
    }

    /// It takes longer by this.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let (before, minute) = (disk.now(), std::time::Duration::from_secs(60));
    /// disk.inject(Fault::delay(Latency::fixed(minute)).syncs())?;
    /// file.sync_data().wait()?; // which takes no minute of yours
    /// assert!(disk.now() - before >= minute);
    /// # Ok(()) }
    /// ```
    pub const fn delay(by: Latency) -> Self {
        Self::new(Effect::Delay(by), Kinds::All)
    }

    /// It stands still for so long.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let hour = std::time::Duration::from_secs(3600);
    /// disk.inject(Fault::stall(hour).reads().nth(2))?;
    /// let (first, second) = (file.read_at(vec![0; 1], 0), file.read_at(vec![0; 1], 0));
    /// first.wait().0?;
    /// let before = disk.now();
    /// second.wait().0?;
    /// assert!(disk.now() - before >= hour);
    /// # Ok(()) }
    /// ```
    pub const fn stall(time: Duration) -> Self {
        Self::delay(Latency::fixed(time))
    }

    /// There is no room for it now. The engine offers it again once another request has completed; where none is in flight
    /// that could, others have filled the queue, and the caller is told `EAGAIN` (or another backend serves it).
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::queue_full().times(1))?;
    /// let alone = file.read_at(vec![0; 1], 0).wait().0;
    /// assert_eq!(alone.unwrap_err().raw_os_error(), Some(libc::EAGAIN), "nothing is in flight that could make room");
    /// # Ok(()) }
    /// ```
    pub const fn queue_full() -> Self {
        Self::new(Effect::QueueFull, Kinds::All)
    }

    /// A sector cannot be read any more, until it is written anew as a whole: one in the range of a read (which then fails
    /// with `EIO`), or one of those that a write has just written. It also fails writes that cover a part of it.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::latent_error().reads().range(512..1024).times(1))?;
    /// assert_eq!(file.read_at(vec![0; 4096], 0).wait().0.unwrap_err().raw_os_error(), Some(libc::EIO));
    /// assert!(file.read_at(vec![0; 512], 512).wait().0.is_err(), "it stays so");
    /// file.write_all_at(vec![2; 512], 512).wait().0?;
    /// assert!(file.read_at(vec![0; 4096], 0).wait().0.is_ok(), "until it is written anew");
    /// # Ok(()) }
    /// ```
    pub const fn latent_error() -> Self {
        Self::new(Effect::LatentError, Kinds::All)
    }

    /// So many bits of what is stored flip, in the range of a read (before it is read) or of a write (once it is written).
    /// They stay so until they are written anew.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::bit_rot(1).reads().times(1))?;
    /// let (_, rotten) = file.read_at(vec![0; 4096], 0).wait().into_result()?;
    /// assert_eq!(rotten.iter().map(|byte| (byte ^ 1).count_ones()).sum::<u32>(), 1, "one bit of all these ones");
    /// assert_eq!(disk.damage()[0].kind, DamageKind::BitRot);
    /// # Ok(()) }
    /// ```
    pub const fn bit_rot(bits: u32) -> Self {
        Self::new(Effect::BitRot(bits), Kinds::All)
    }

    /// A transfer goes to another place of the same file, a number of sectors away: a read answers what is stored there, a
    /// write overwrites that, and leaves its own place as it was. It reports success. Not where the file has no other place
    /// of that size.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::misdirected().writes().times(1))?;
    /// assert_eq!(file.write_at(vec![2; 512], 0).wait().0?, 512, "it reports success");
    /// let stored = disk.read("data").ok_or("it is there")?;
    /// assert!(stored[..512] == [1; 512] && stored.contains(&2), "and has gone somewhere else");
    /// # Ok(()) }
    /// ```
    pub const fn misdirected() -> Self {
        Self::new(Effect::Misdirected, Kinds::All)
    }

    /// A write reports success and has written nothing.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::lost_write())?;
    /// assert_eq!(file.write_at("gone", 0).wait().0?, 4);
    /// assert_eq!(file.read_at(vec![0; 4], 0).wait().1, [1; 4]);
    /// # Ok(()) }
    /// ```
    pub const fn lost_write() -> Self {
        Self::new(Effect::LostWrite, Kinds::Writes)
    }

    /// A sync fails with this error number, and what it should have made durable is gone: reads see again what was durable
    /// before. The next sync knows nothing of it.
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
    /// file.write_all_at("new", 0).wait().0?;
    /// disk.inject(Fault::failed_sync(libc::EIO).times(1))?;
    /// assert!(file.sync_data().wait().is_err());
    /// assert_eq!(file.read_at(vec![0; 3], 0).wait().1, [1; 3], "what was durable before");
    /// # Ok(()) }
    /// ```
    pub const fn failed_sync(errno: i32) -> Self {
        Self::new(Effect::FailedSync { errno: Errno(errno), cached: false }, Kinds::Syncs)
    }

    /// The same, but reads still see the new data, as from a page cache that takes its pages for clean. The disk never gets
    /// it, and the next sync succeeds: that is how ext4 and XFS behave.
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
    /// file.write_all_at("new", 0).wait().0?;
    /// disk.inject(Fault::failed_sync(libc::EIO).cached().times(1))?;
    /// assert!(file.sync_data().wait().is_err());
    /// // Nothing to be seen, and the second sync succeeds ...
    /// assert_eq!(file.read_at(vec![0; 3], 0).wait().1, b"new");
    /// file.sync_data().wait()?;
    /// disk.crash(Crash::LoseUnsynced);
    /// disk.reopen();
    /// // ... but the disk has never got it.
    /// assert_eq!(disk.read("data"), Some(vec![1; 4096]));
    /// # Ok(()) }
    /// ```
    pub const fn cached(mut self) -> Self {
        if let Effect::FailedSync { cached, .. } = &mut self.effect {
            *cached = true;
        }
        self
    }

    /// The power fails when the request is submitted, before it is served: as
    /// [`SimulatedDisk::crash`](super::SimulatedDisk::crash). The request is in flight by then.
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
    /// disk.inject(Fault::power_loss(Crash::KeepAll).writes().nth(2))?;
    /// assert!(file.write_all_at("first", 0).wait().0.is_ok());
    /// assert!(file.write_all_at("second", 0).wait().0.is_err() && !disk.is_powered());
    /// # Ok(()) }
    /// ```
    pub const fn power_loss(mode: Crash) -> Self {
        Self::new(Effect::PowerLoss(mode), Kinds::All)
    }

    // ----- conditions -------------------------------------------------------------------------------------------------

    /// Reads only.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).reads())?;
    /// assert!(file.read_at(vec![0; 1], 0).wait().0.is_err() && file.write_at("x", 0).wait().0.is_ok());
    /// # Ok(()) }
    /// ```
    pub const fn reads(mut self) -> Self {
        self.kinds = Kinds::Reads;
        self
    }

    /// Writes only.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).writes())?;
    /// // `set_len` and the like are no writes: see `kind`.
    /// assert!(file.append("x").wait().0.is_err() && file.set_len(0).wait().is_ok());
    /// # Ok(()) }
    /// ```
    pub const fn writes(mut self) -> Self {
        self.kinds = Kinds::Writes;
        self
    }

    /// `sync_all` and `sync_data` only.
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
    /// assert!(file.sync_data().wait().is_err() && file.sync_all().wait().is_err());
    /// # Ok(()) }
    /// ```
    pub const fn syncs(mut self) -> Self {
        self.kinds = Kinds::Syncs;
        self
    }

    /// Requests of this kind only.
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
    /// disk.inject(Fault::error(libc::EMFILE).kind(OpKind::Open))?;
    /// disk.inject(Fault::error(libc::EFBIG).kind(OpKind::SetLen))?;
    /// assert!(OpenOptions::new().read(true).open(&engine, "data").is_err());
    /// assert_eq!(file.set_len(1 << 40).wait().unwrap_err().raw_os_error(), Some(libc::EFBIG));
    /// # Ok(()) }
    /// ```
    pub const fn kind(mut self, kind: OpKind) -> Self {
        self.kinds = Kinds::Only(kind);
        self
    }

    /// This file only, or the files below this directory.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.put("wal/1", b"");
    /// disk.inject(Fault::error(libc::EIO).path("wal"))?;
    /// let log = OpenOptions::new().write(true).open(&engine, "wal/1")?;
    /// assert!(log.write_at("x", 0).wait().0.is_err() && file.write_at("x", 0).wait().0.is_ok());
    /// # Ok(()) }
    /// ```
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(super::disk::plain(path.as_ref()));
        self
    }

    /// Requests that touch this range of the file, in bytes. What is damaged lies within it.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let fault = disk.inject(Fault::bit_rot(3).writes().range(1024..2048))?;
    /// file.write_all_at(vec![2; 1024], 0).wait().0?;
    /// assert_eq!(disk.struck(fault), Some(0), "that touches no byte of it");
    /// file.write_all_at(vec![2; 4096], 0).wait().0?;
    /// assert!(disk.damage().iter().all(|damage| damage.range.start >= 1024 && damage.range.end <= 2048));
    /// # Ok(()) }
    /// ```
    pub const fn range(mut self, range: Range<u64>) -> Self {
        self.range = Some(range);
        self
    }

    /// Requests for which this holds. It is called under the disk's lock, and must not use the disk.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::short_to(10).when(|asked| asked.number.is_multiple_of(2)))?;
    /// let mut lengths = Vec::new();
    /// for _ in 0..4 { lengths.push(file.read_at(vec![0; 20], 0).wait().0?); }
    /// assert!(lengths == [10, 20, 10, 20] || lengths == [20, 10, 20, 10]);
    /// # Ok(()) }
    /// ```
    pub fn when(mut self, condition: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(condition));
        self
    }

    /// The n-th of those that match, counted from 1, and no other.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).reads().nth(3))?;
    /// let failed: Vec<_> = (0..5).map(|_| file.read_at(vec![0; 1], 0).wait().0.is_err()).collect();
    /// assert_eq!(failed, [false, false, true, false, false]);
    /// # Ok(()) }
    /// ```
    pub const fn nth(mut self, n: u64) -> Self {
        self.nth = Some(n);
        self
    }

    /// Every n-th of those that match.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).reads().every(2))?;
    /// let failed: Vec<_> = (0..5).map(|_| file.read_at(vec![0; 1], 0).wait().0.is_err()).collect();
    /// assert_eq!(failed, [false, true, false, true, false]);
    /// # Ok(()) }
    /// ```
    pub const fn every(mut self, n: u64) -> Self {
        self.every = Some(n);
        self
    }

    /// Not the first `n` of those that match.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).reads().after(3))?;
    /// let failed: Vec<_> = (0..5).map(|_| file.read_at(vec![0; 1], 0).wait().0.is_err()).collect();
    /// assert_eq!(failed, [false, false, false, true, true]);
    /// # Ok(()) }
    /// ```
    pub const fn after(mut self, n: u64) -> Self {
        self.after = n;
        self
    }

    /// At most so often.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// disk.inject(Fault::error(libc::EIO).reads().after(1).times(2))?;
    /// let failed: Vec<_> = (0..5).map(|_| file.read_at(vec![0; 1], 0).wait().0.is_err()).collect();
    /// assert_eq!(failed, [false, true, true, false, false]);
    /// # Ok(()) }
    /// ```
    pub const fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    /// With this probability, from 0 (never) to 1 (always).
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// let fault = disk.inject(Fault::error(libc::EIO).reads().probability(0.5))?;
    /// let failed = (0..100).filter(|_| file.read_at(vec![0; 1], 0).wait().0.is_err()).count();
    /// // About a half; the same ones whenever the disk has this seed.
    /// assert!((20..80).contains(&failed) && disk.struck(fault) == Some(failed as u64));
    /// # Ok(()) }
    /// ```
    pub const fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    // ----- what becomes of it -----------------------------------------------------------------------------------------

    /// What is wrong with it, in words for who has written the plan.
    pub(super) fn check(&self) -> Result<(), String> {
        let what = self.effect.name();
        let wrong = |why: String| Err(format!("a fault of the plan ({what}): {why}"));
        if !(0.0..=1.0).contains(&self.probability) {
            return wrong(format!("its probability is {}: it must be from 0 to 1", self.probability));
        }
        if self.nth == Some(0) || self.every == Some(0) {
            return wrong("requests are counted from 1".to_owned());
        }
        if self.range.as_ref().is_some_and(Range::is_empty) {
            return wrong("its range is empty".to_owned());
        }
        match self.effect {
            Effect::Error { errno, .. } | Effect::FailedSync { errno, .. } if !(1..4096).contains(&errno.0) => {
                wrong(format!("{} is no error number", errno.0))
            }
            Effect::Error { errno: Errno(libc::EINTR), .. } | Effect::FailedSync { errno: Errno(libc::EINTR), .. } => {
                wrong("EINTR is never seen: the engine would repeat the request for ever".to_owned())
            }
            Effect::Short(Some(0)) => wrong("a short transfer has at least one byte".to_owned()),
            Effect::BitRot(0) => wrong("no bit would flip".to_owned()),
            Effect::LostWrite if !self.kinds.may_be(OpKind::Write) => wrong("it concerns writes only".to_owned()),
            Effect::FailedSync { .. }
                if !self.kinds.may_be(OpKind::SyncAll) && !self.kinds.may_be(OpKind::SyncData) =>
            {
                wrong("it concerns syncs only".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether it is about such a request at all.
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        self.effect.concerns(asked)
            && self.kinds.contain(asked.kind)
            && self.path.as_ref().is_none_or(|path| asked.path.starts_with(path))
            && self.range.as_ref().is_none_or(|range| {
                asked.range().is_some_and(|asked| asked.start < range.end && range.start < asked.end)
            })
            && self.when.as_ref().is_none_or(|when| when(asked))
    }
}

impl Effect {
    /// What traces call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Error { at_submit: false, .. } => "error",
            Self::Error { at_submit: true, .. } => "error-at-submit",
            Self::Short(_) => "short",
            Self::Delay(_) => "delay",
            Self::QueueFull => "queue-full",
            Self::LatentError => "latent-error",
            Self::BitRot(_) => "bit-rot",
            Self::Misdirected => "misdirected",
            Self::LostWrite => "lost-write",
            Self::FailedSync { cached: false, .. } => "failed-sync",
            Self::FailedSync { cached: true, .. } => "failed-sync-cached",
            Self::PowerLoss(_) => "power-loss",
        }
    }

    /// Whether the request is not even taken.
    pub(super) fn refuses(&self) -> bool {
        matches!(self, Self::QueueFull | Self::Error { at_submit: true, .. })
    }

    /// Whether it could be done to such a request.
    fn concerns(&self, asked: &Asked<'_>) -> bool {
        let transfers = asked.kind.is_transfer() && asked.length > 0;
        match self {
            Self::Error { .. } => true,
            Self::Delay(_) | Self::QueueFull | Self::PowerLoss(_) => asked.kind != OpKind::Open,
            Self::Short(None) => transfers && asked.length > asked.unit,
            Self::Short(Some(bytes)) => transfers && asked.length > *bytes && *bytes >= asked.unit,
            Self::LatentError | Self::BitRot(_) | Self::Misdirected => transfers,
            Self::LostWrite => transfers && asked.kind == OpKind::Write,
            Self::FailedSync { .. } => matches!(asked.kind, OpKind::SyncAll | OpKind::SyncData),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("effect", &self.effect)
            .field("kinds", &self.kinds)
            .field("path", &self.path)
            .field("range", &self.range)
            .field("when", &self.when.is_some())
            .field("nth", &self.nth)
            .field("every", &self.every)
            .field("after", &self.after)
            .field("times", &self.times)
            .field("probability", &self.probability)
            .finish()
    }
}
