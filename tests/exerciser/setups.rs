//! The engines that every plan runs on.

use std::time::Duration;

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
    /// The simulated disk, which has files of its own: on a ground of its own.
    #[cfg(feature = "simulated")]
    Simulated,
}

impl Setup {
    /// Those of files of the operating system.
    pub(crate) const ALL: [Self; 5] = [Self::Auto, Self::KernelAio, Self::PosixAio, Self::ThreadPool, Self::Rough];

    /// Its backend, where there is one.
    pub(crate) fn backend(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::KernelAio => Some("kernel-aio"),
            Self::PosixAio => Some("posix-aio"),
            Self::ThreadPool => Some("thread-pool"),
            Self::Rough => Some(SCRIPTED),
            #[cfg(feature = "simulated")]
            Self::Simulated => Some(polyaio::backends::simulated::NAME),
        }
    }

    /// Where its files are: a new disk each time, where they are on one. What is due there together completes in a random
    /// order.
    pub(crate) fn outside(self) -> Outside {
        match self {
            #[cfg(feature = "simulated")]
            Self::Simulated => {
                let disk = polyaio::backends::simulated::SimulatedDisk::builder().shuffled(true);
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
            Self::Auto | Self::ThreadPool | Self::Rough => Ok(()),
        }
    }

    /// Transfers may be shorter than what there is, as POSIX allows.
    pub(crate) fn is_short(self) -> bool {
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
        if let Some(backend) = outside.backend() {
            builder = builder.backend(backend);
        }
        if let Some(name) = self.backend() {
            builder = builder.policy(Policy::Prefer(vec![name.into()]));
        }
        builder.build().expect("an engine starts on every machine")
    }
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
