//! `adder`: writes consecutive integers in blocks of 4 KiB, reads them back out of order through many requests in
//! flight, and checks every block and the sum. A block that is lost, doubled or misplaced does not add up.
//!
//! ```text
//! cargo run --release --example adder -- --file /mnt/adder.dat --blocks 100000 --concurrent 256 --direct
//! ```
//!
//! Completions are consumed in rounds, as with `io_getevents(min_nr, nr)`: each waits for `--min-nr` of them and takes
//! at most `--max-nr`. Exit codes: 0 when it adds up, 1 when it does not or something failed, 2 for wrong usage.

#[path = "common/output.rs"]
mod output;
#[path = "common/selection.rs"]
mod selection;
#[path = "common/slots.rs"]
mod slots;
#[path = "common/text.rs"]
mod text;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Instant;

use clap::{CommandFactory, Parser, error::ErrorKind};
use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, FileKind, OpenOptions};
use serde_json::{Value, json};

use crate::selection::{Selection, Tally};
use crate::slots::{Board, Slots, Task};
use crate::text::{Failure, say};

const BLOCK: usize = 4096;
const INTEGERS_PER_BLOCK: u64 = (BLOCK / size_of::<u64>()) as u64;

/// 256 GiB: the order of the blocks is kept in memory, 8 bytes each.
const LARGEST: u64 = 1 << 26;

/// Writes consecutive integers, reads them back out of order, and checks that they add up.
#[derive(Parser)]
#[command(name = "adder", version)]
struct Args {
    /// The file to write; it is removed in the end
    #[arg(long, default_value = "adder.dat")]
    file: PathBuf,

    /// Blocks of 4 KiB, 512 integers each
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=LARGEST))]
    blocks: u64,

    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    concurrent: u16,

    /// Completions that a round waits for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    min_nr: u16,

    /// Completions that a round takes at most
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    max_nr: u16,

    #[command(flatten)]
    selection: Selection,

    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    direct: bool,

    /// The order in which blocks are read: the same for the same seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Leave the file there
    #[arg(long)]
    keep: bool,

    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.min_nr > args.max_nr {
        let line = "--min-nr must not be larger than --max-nr: a round could never take what it waits for";
        Args::command().error(ErrorKind::ValueValidation, line).exit();
    }
    let done = start(&args).and_then(|(engine, file)| {
        let summed = write_and_sum(&args, &engine, &file);
        // A device that --force made it write to is not its own to remove.
        let removable = !args.keep && file.facts().kind == FileKind::Regular;
        let removed = if removable { std::fs::remove_file(&args.file) } else { Ok(()) };
        let closed = engine.block_on(file.close());
        summed?;
        removed.map_err(|error| Failure::of(format_args!("cannot remove {}", args.file.display()), &error))?;
        closed.map_err(|error| Failure::of(format_args!("cannot close {}", args.file.display()), &error))?;
        Ok(())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("adder: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start(args: &Args) -> Result<(Engine, File), Failure> {
    let depth = usize::from(args.concurrent);
    let engine = selection::start(args.selection.builder().queue_depth(depth))?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).direct(match (args.direct, args.selection.strict()) {
        (false, _) => Direct::Off,
        (true, false) => Direct::Preferred,
        (true, true) => Direct::Required,
    });
    match args.force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let file = options.open(&engine, &args.file).map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let advice = if exists { ": --force overwrites it, if you mean that" } else { "" };
        Failure::new(format!("{}{advice}", Failure::of_library(error).line))
    })?;
    Ok((engine, file))
}

fn write_and_sum(args: &Args, engine: &Engine, file: &File) -> Result<(), Failure> {
    let started = Instant::now();
    let failed =
        |doing: &str, error: io::Error| Failure::of(format_args!("cannot {doing} {}", args.file.display()), &error);
    // Room first: direct writes that extend the file would not be asynchronous. A file system may decline.
    let _ = engine.block_on(file.allocate(0, args.blocks * BLOCK as u64));
    let write = Work { file, action: Action::Write };
    run_rounds(args, engine, &write, 0..args.blocks).map_err(|error| failed("write", error))?;
    engine.block_on(file.sync_all()).map_err(|error| failed("sync", error))?;
    let written = Tally::of(engine);
    let read = Work { file, action: Action::Read };
    let sum = run_rounds(args, engine, &read, shuffled(args.blocks, args.seed).into_iter());
    let sum = sum.map_err(|error| failed("read", error))?;
    let count = u128::from(args.blocks) * u128::from(INTEGERS_PER_BLOCK);
    let expected = count * (count - 1) / 2;
    if sum != expected {
        return Err(Failure::new(format!("the sum is {sum} and should be {expected}: blocks were lost or doubled")));
    }
    let seconds = started.elapsed().as_secs_f64();
    let outcome = Outcome { sum, integers: count, written, total: Tally::of(engine), seconds };
    output::print(if args.json { outcome.json(file).to_string() } else { outcome.text() })
}

/// What is done to a block.
struct Work<'a> {
    file: &'a File,
    action: Action,
}

#[derive(Clone, Copy)]
enum Action {
    Write,
    Read,
}

impl<'a> Work<'a> {
    /// The request for `block`; its result is the sum of the integers in it.
    fn request(&self, block: u64, mut buffer: AlignedBuf) -> Task<'a, BufResult<u128, AlignedBuf>> {
        let (file, offset) = (self.file, block * BLOCK as u64);
        match self.action {
            Action::Write => {
                fill(&mut buffer, block);
                Box::pin(async move {
                    let BufResult(result, buffer) = file.write_all_at(buffer, offset).await;
                    BufResult(result.map(|()| 0), buffer)
                })
            }
            Action::Read => Box::pin(async move {
                let BufResult(result, buffer) = file.read_exact_at(buffer, offset).await;
                let checked = result.and_then(|()| check(&buffer, block));
                BufResult(checked, buffer)
            }),
        }
    }
}

fn fill(buffer: &mut [u8], block: u64) {
    for (value, bytes) in (block * INTEGERS_PER_BLOCK..).zip(buffer.chunks_exact_mut(size_of::<u64>())) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

fn check(buffer: &[u8], block: u64) -> io::Result<u128> {
    let mut sum = 0;
    for (expected, bytes) in (block * INTEGERS_PER_BLOCK..).zip(buffer.chunks_exact(size_of::<u64>())) {
        let mut value = [0; size_of::<u64>()];
        value.copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        if value != expected {
            return Err(io::Error::other(format!("block {block} holds {value} where {expected} was written")));
        }
        sum += u128::from(value);
    }
    Ok(sum)
}

/// Works through `order` with `--concurrent` requests in flight, and consumes their completions in rounds.
fn run_rounds(args: &Args, engine: &Engine, work: &Work<'_>, mut order: impl Iterator<Item = u64>) -> io::Result<u128> {
    // The minimum is at most the first of them.
    let depth = u64::from(args.concurrent).min(args.blocks) as usize;
    let mut slots = Slots::new(Board::new(depth));
    for (place, block) in order.by_ref().take(depth).enumerate() {
        slots.start(place, work.request(block, AlignedBuf::zeroed(BLOCK, BLOCK)));
    }
    let mut sum = 0;
    let mut failure = None;
    // At most one entry per place: a place is started again only when its completion was consumed.
    let mut completed = VecDeque::with_capacity(depth);
    while slots.live() + completed.len() != 0 {
        engine.block_on(std::future::poll_fn(|context| {
            slots.poll_woken(context, |place, result| completed.push_back((place, result)));
            let enough = usize::from(args.min_nr).min(slots.live() + completed.len());
            if completed.len() >= enough { Poll::Ready(()) } else { Poll::Pending }
        }));
        let taken = completed.len().min(usize::from(args.max_nr));
        for (place, BufResult(result, buffer)) in completed.drain(..taken) {
            match result {
                Ok(part) => sum += part,
                Err(error) => failure = failure.or(Some(error)),
            }
            // After a failure, what is in flight is still waited for.
            if failure.is_none()
                && let Some(block) = order.next()
            {
                slots.start(place, work.request(block, buffer));
            }
        }
    }
    failure.map_or(Ok(sum), Err)
}

/// Every block once, in an order that only the seed decides (Fisher and Yates, with splitmix64).
fn shuffled(blocks: u64, seed: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..blocks).collect();
    let mut state = seed;
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut random = state;
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^= random >> 31;
        // The remainder is at most `last`, an index.
        order.swap(last, (random % (last as u64 + 1)) as usize);
    }
    order
}

struct Outcome {
    sum: u128,
    integers: u128,
    /// What served the writes.
    written: Tally,
    /// What served everything.
    total: Tally,
    seconds: f64,
}

impl Outcome {
    fn text(&self) -> String {
        let requests: u64 = self.total.served_by.values().sum();
        format!(
            "sum of {} integers: {}, as it should be\n{requests} requests in {:.3} s\nwriting: {}\nreading: {}",
            self.integers,
            self.sum,
            self.seconds,
            self.written,
            self.total.since(&self.written),
        )
    }

    fn json(&self, file: &File) -> Value {
        // Too large for an integer that every JSON reader takes, from eight million blocks on.
        let sum = u64::try_from(self.sum).map_or_else(|_| json!(self.sum.to_string()), |sum| json!(sum));
        json!({
            "sum": sum,
            // At most 2^26 blocks of 2^9.
            "integers": self.integers as u64,
            "requests": self.total.served_by.values().sum::<u64>(),
            "direct": file.facts().direct,
            "seconds": self.seconds,
            "served_by": self.total.served_by,
            "fallbacks": self.total.fallbacks,
        })
    }
}
