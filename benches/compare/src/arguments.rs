//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// polyaio beside other crates, fio, and raw loops; writes docs/benchmarks.md.
#[derive(Parser)]
pub(crate) struct Args {
    /// A scratch file on the disk to be measured; it is made, and removed in the end. Others are put beside it
    #[arg(long, value_name = "PATH", default_value = "/var/tmp/polyaio-compare")]
    pub(crate) file: PathBuf,

    /// A block device for the jobs on a disk as fast as memory, such as /dev/zram0; what is on it is lost
    #[arg(long, value_name = "PATH")]
    pub(crate) device: Option<PathBuf>,

    /// MiB of each file that are used
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) size_mib: u64,

    /// How long each contender is measured in each round
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub(crate) seconds: f64,

    /// How often it is each contender's turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Only the jobs with these names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) jobs: Vec<String>,

    /// Where benchmarks.md is, and plots go
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"))]
    pub(crate) out: PathBuf,

    /// One run of one crate, as JSON: how this program calls itself
    #[arg(long, hide = true)]
    pub(crate) worker: Option<String>,
}

impl Args {
    /// The options that differ from their defaults, to be shown beside the figures.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("--seconds {} --rounds {} --size-mib {}", self.seconds, self.rounds, self.size_mib);
        if let Some(device) = &self.device {
            shown += &format!(" --device {}", device.display());
        }
        if !self.jobs.is_empty() {
            shown += &format!(" --jobs {}", self.jobs.join(","));
        }
        shown
    }
}
