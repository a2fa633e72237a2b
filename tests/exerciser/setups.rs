//! The engines that every plan runs on.

#[cfg(all(feature = "simulated", target_os = "linux"))]
use std::sync::Arc;
use std::time::Duration;

#[cfg(all(feature = "simulated", target_os = "linux"))]
use polyaio::Backend;
#[cfg(feature = "simulated")]
use polyaio::backends::simulated;
use polyaio::{Engine, Policy};

use crate::outside::Outside;
use crate::plan::Tuning;
use crate::support;
use crate::tools::{Answer, SCRIPTED, Scripted, transfers};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// The defaults, and what the environment says.
    Auto,
    KernelAio,
    PosixAio,
    ThreadPool,
    /// A backend that is correct and unpleasant: short, slow, without room, or it leaves requests to others.
    Rough,
    /// The pool, with faults that the engine makes up for: refusals, short transfers, a full queue, delays.
    #[cfg(all(feature = "simulated", target_os = "linux"))]
    Injecting,
    /// The simulated disk, which has files of its own: on a ground of its own.
    #[cfg(feature = "simulated")]
    Simulated,
}

impl Setup {
    /// Those of files of the operating system.
    pub(crate) const ALL: &[Self] = &[
        Self::Auto,
        Self::KernelAio,
        Self::PosixAio,
        Self::ThreadPool,
        Self::Rough,
        #[cfg(all(feature = "simulated", target_os = "linux"))]
        Self::Injecting,
    ];

    /// Its backend, where there is one.
    pub(crate) fn backend(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::KernelAio => Some("kernel-aio"),
            Self::PosixAio => Some("posix-aio"),
            Self::ThreadPool => Some("thread-pool"),
            Self::Rough => Some(SCRIPTED),
            #[cfg(all(feature = "simulated", target_os = "linux"))]
            Self::Injecting => Some(simulated::FAULT_INJECTING),
            #[cfg(feature = "simulated")]
            Self::Simulated => Some(simulated::NAME),
        }
    }

    /// Where its files are: a new disk each time, where they are on one. What is due there together completes in a random
    /// order.
    pub(crate) fn outside(self) -> Outside {
        match self {
            #[cfg(feature = "simulated")]
            Self::Simulated => {
                let disk = simulated::SimulatedDisk::builder().shuffled(true);
                Outside::Disk(disk.build().expect("nothing is wrong with it"))
            }
            _ => Outside::System,
        }
    }

    /// Whether this machine and this build have it.
    pub(crate) fn available(self) -> Result<(), String> {
        match self {
            Self::KernelAio => support::kernel_aio(),
            Self::PosixAio => support::posix_aio(),
            #[cfg(feature = "simulated")]
            Self::Simulated => Ok(()),
            #[cfg(all(feature = "simulated", target_os = "linux"))]
            Self::Injecting => Ok(()),
            Self::Auto | Self::ThreadPool | Self::Rough => Ok(()),
        }
    }

    /// Transfers may be shorter than what there is, as POSIX allows.
    pub(crate) fn is_short(self) -> bool {
        #[cfg(all(feature = "simulated", target_os = "linux"))]
        if self == Self::Injecting {
            return true;
        }
        self == Self::Rough
    }

    /// `outside`: where its files are.
    pub(crate) fn engine(self, tuning: Tuning, outside: &Outside) -> Engine {
        let mut builder = Engine::builder()
            .queue_depth(tuning.queue_depth)
            .threads(tuning.threads)
            .capacity(tuning.capacity)
            // Who serves must not depend on how busy the machine is.
            .slow_submit(Duration::MAX);
        if self == Self::Rough {
            builder = builder.backend(Scripted::with(transfers(tuning.queue_depth), |number, seen| {
                rough(number as u64, seen.length)
            }));
        }
        #[cfg(all(feature = "simulated", target_os = "linux"))]
        if self == Self::Injecting {
            builder = builder.backend(injecting(tuning));
        }
        if let Some(backend) = outside.backend() {
            builder = builder.backend(backend);
        }
        if let Some(name) = self.backend() {
            builder = builder.policy(Policy::Prefer(vec![name.into()]));
        }
        builder.build().expect("an engine starts on every machine")
    }
}

/// The same faults by chance for each engine.
#[cfg(all(feature = "simulated", target_os = "linux"))]
fn injecting(tuning: Tuning) -> Arc<dyn Backend> {
    use polyaio::backends::simulated::{Fault, FaultInjecting, Latency};
    use polyaio::backends::thread_pool::{Options, ThreadPool};
    let options = Options { threads: tuning.threads, queue_bound: tuning.queue_depth };
    let pool = ThreadPool::start(options).expect("a thread can be had");
    let faults = [
        Fault::error(libc::EINVAL).probability(0.02),
        Fault::error(libc::EOPNOTSUPP).at_submit().probability(0.02),
        Fault::short().probability(0.3),
        Fault::queue_full().probability(0.1),
        Fault::delay(Latency::uniform(Duration::ZERO, Duration::from_micros(500))).probability(0.2),
    ];
    FaultInjecting::builder(pool).seed(1).faults(faults).build().expect("the plan makes sense")
}

const BLOCK: u64 = 4096;

/// What it does with a request, by its number and its length.
fn rough(number: u64, length: u64) -> Answer {
    let mut dice = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    dice ^= dice >> 29;
    match dice % 20 {
        0..=7 => Answer::Serve,
        8..=12 => Answer::Elsewhere,
        // Whole blocks, where it may be direct I/O: that stops nowhere else but at the end of the file.
        13..=16 if length.is_multiple_of(512) && length > BLOCK => {
            Answer::Short(BLOCK * (1 + (dice >> 32) % (length.div_ceil(BLOCK) - 1)))
        }
        13..=16 if !length.is_multiple_of(512) && length > 1 => Answer::Short(1 + (dice >> 32) % (length - 1)),
        17 => Answer::Busy,
        18 => Answer::Leave,
        19 if dice >> 60 == 0 => Answer::Refuse(libc::EINVAL),
        _ => Answer::Serve,
    }
}
