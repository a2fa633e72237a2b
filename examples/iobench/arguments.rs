//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};

use crate::engines::EngineName;
use crate::patterns::Pattern;
use crate::sizes::{check_memory, parse_bytes, parse_depth};
use crate::text::Failure;

/// Measures what a request costs, by each engine in turn, and by loops that were written by hand for comparison.
///
/// The file is made where it is not there, and kept: the next run uses it again. What iobench did not make itself it reads
/// only, unless --force is given.
#[derive(Parser)]
#[command(name = "iobench", version)]
pub(crate) struct Args {
    /// A file, or a block device
    #[arg(long, value_name = "PATH")]
    pub(crate) file: PathBuf,

    /// How much of it is used: a number of bytes, or one with K, KiB, M, MiB, G or GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub(crate) size: u64,

    /// Who serves, in turn
    #[arg(long, value_name = "ENGINE", value_enum, value_delimiter = ',', required = true)]
    pub(crate) engine: Vec<EngineName>,

    /// What is done
    #[arg(long, value_enum)]
    pub(crate) pattern: Pattern,

    /// Bytes per request, a multiple of 512
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = parse_block)]
    pub(crate) block_size: usize,

    /// Requests in flight, of each thread
    #[arg(long, value_name = "N", default_value = "32", value_parser = parse_depth)]
    pub(crate) depth: usize,

    /// Threads that make requests; they share one engine
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,

    /// How long each engine is measured in each round
    #[arg(long, value_name = "S", default_value = "3", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,

    /// How often it is each engine's turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,

    /// Bypass the page cache (O_DIRECT)
    #[arg(long)]
    pub(crate) direct: bool,

    /// Who polls the operations, and collects completions
    #[arg(long, value_enum, default_value = "caller")]
    pub(crate) executor: Executor,

    /// Print an array with one JSON object per engine, and no table
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw throughput, CPU time and latency
    #[arg(long, value_name = "SVG")]
    pub(crate) plot: Option<PathBuf>,

    /// Overwrite a file or a device that iobench did not make
    #[arg(long)]
    pub(crate) force: bool,
}

/// How the operations of the library are driven. The loops by hand have nothing to choose.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// The thread that makes requests: Engine::block_on, and Op::wait at depth 1
    Caller,
    /// The engine's own thread, for an executor that knows nothing of it
    Background,
    /// The reactor of a tokio runtime with one thread; needs the feature `tokio`
    Tokio,
}

impl Executor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Executor::Caller => "caller",
            Executor::Background => "background",
            Executor::Tokio => "tokio",
        }
    }
}

/// Reads the command line; what is wrong with it ends the program with exit code 2.
pub(crate) fn parse() -> Args {
    let args = Args::parse();
    if let Err(failure) = check_together(&args) {
        Args::command().error(ErrorKind::ValueValidation, failure.line).exit();
    }
    args
}

/// What no single argument shows.
fn check_together(args: &Args) -> Result<(), Failure> {
    let twice = args.engine.iter().enumerate().find(|(at, engine)| args.engine[..*at].contains(engine));
    if let Some((_, engine)) = twice {
        return Err(Failure::new(format!("the engine {} is named twice", engine.name())));
    }
    if args.block_size as u64 > args.size {
        return Err(Failure::new(format!("--size {} has no room for a block of {}", args.size, args.block_size)));
    }
    if let Some(plot) = &args.plot {
        let directory = plot.parent().filter(|parent| !parent.as_os_str().is_empty());
        if *plot == args.file || plot.is_dir() || directory.is_some_and(|directory| !directory.is_dir()) {
            return Err(Failure::new(format!(
                "--plot {}: name a new file in a directory that is there",
                plot.display()
            )));
        }
    }
    if args.executor == Executor::Tokio && !cfg!(feature = "tokio") {
        let line = "--executor tokio: built without tokio; build it with: \
                    cargo run --release --features tokio --example iobench -- ...";
        return Err(Failure::new(line));
    }
    let in_flight = args.depth * usize::from(args.threads);
    if args.engine.contains(&EngineName::RawThreads) && in_flight > MOST_THREADS {
        let line =
            format!("raw-threads would start {in_flight} threads: lower --depth or --threads ({MOST_THREADS} in all)");
        return Err(Failure::new(line));
    }
    check_memory(args.block_size, in_flight).map_err(Failure::new)
}

/// Of `raw-threads`, which has one for each request in flight.
const MOST_THREADS: usize = 4096;

/// What fits a file offset.
const LARGEST: u64 = 1 << 62;

fn parse_size(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("of 0 bytes nothing can be read".to_string()),
        bytes if bytes <= LARGEST => Ok(bytes),
        _ => Err("no file is so large".to_string()),
    }
}

/// More than a disk takes at once.
const LARGEST_BLOCK: u64 = 64 << 20;

fn parse_block(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        0 => Err("a block of 0 bytes transfers nothing".to_string()),
        bytes if bytes % 512 != 0 => Err("it must be a multiple of 512 bytes, the sector of disks".to_string()),
        bytes if bytes <= LARGEST_BLOCK => Ok(bytes as usize),
        _ => Err("a block is at most 64MiB".to_string()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("it must be between 0.001 and 86400".to_string()),
        Err(_) => Err(format!("`{text}` is not a number of seconds: write for example 3 or 0.5")),
    }
}
