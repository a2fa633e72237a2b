//! `callbacks`: checksums of the blocks of a file, without futures and without a loop. Each read's callback begins the next
//! read, then computes the checksum of its own block; so many are on their way at a time.
//!
//! ```text
//! cargo run --release --example callbacks -- --direct --depth 32 /var/log/large.log
//! ```
//!
//! Prints for each file its length and the CRC-32 over its blocks in order (that of the file, as `cksum --algorithm=crc32b`
//! has it, with `--blocks` also each block's own), and on standard error the rate, beside that of a plain loop of reads with
//! `--compare`. Exit codes: 0, 1 when something failed, 2 for wrong usage.

#[path = "common/output.rs"]
mod output;
#[path = "common/selection.rs"]
mod selection;
#[path = "common/text.rs"]
mod text;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, OpenOptions};

use crate::selection::{Selection, Tally};
use crate::text::{Failure, say};

/// Checksums of the blocks of files, read by callbacks that begin the next read.
#[derive(Parser)]
#[command(name = "callbacks", version)]
struct Args {
    /// Files to read
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// Reads in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    depth: u16,

    /// Block size in KiB
    #[arg(long, value_name = "KIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..=16384))]
    block: u32,

    /// Print the checksum of each block too
    #[arg(long)]
    blocks: bool,

    /// Read each file once more by a plain loop, and compare checksums and rates
    #[arg(long)]
    compare: bool,

    #[command(flatten)]
    selection: Selection,

    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    direct: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("callbacks: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let engine = selection::start(args.selection.builder())?;
    let size = args.block as usize * 1024;
    for path in &args.files {
        let failed = |error| Failure::of(format_args!("cannot read {}", path.display()), &error);
        let begin = Instant::now();
        let sums = read(&engine, path, args, size)?;
        rate("callbacks", &sums, begin);
        if args.compare {
            let begin = Instant::now();
            let plain = read_plainly(path, size).map_err(failed)?;
            rate("plain reads", &plain, begin);
            if plain != sums {
                return Err(Failure::new(format!("{} has other checksums when read plainly", path.display())));
            }
        }
        if args.blocks {
            for (number, block) in sums.iter().enumerate() {
                output::print(format!(
                    "{}: block {number}, {} bytes, crc32 {:08x}",
                    path.display(),
                    block.len,
                    block.crc
                ))?;
            }
        }
        let whole = sums.iter().fold(Sum::default(), |whole, block| whole.then(*block));
        output::print(format!("{}: {} bytes, crc32 {:08x}", path.display(), whole.len, whole.crc))?;
    }
    say(Tally::of(&engine));
    Ok(())
}

/// The checksums of a file's blocks, in order.
fn read(engine: &Engine, path: &Path, args: &Args, size: usize) -> Result<Vec<Sum>, Failure> {
    let failed = |error| Failure::of(format_args!("cannot read {}", path.display()), &error);
    let direct = if args.direct { Direct::Preferred } else { Direct::Off };
    let file = OpenOptions::new().read(true).direct(direct).open(engine, path).map_err(Failure::of_library)?;
    if file.is_stream() {
        return Err(Failure::new(format!("{} has no offsets: name a file", path.display())));
    }
    let length = file.len().wait().map_err(failed)?;
    let blocks = length.div_ceil(size as u64);
    let (sender, receiver) = channel();
    let reader = Arc::new(Reader { file, length, size, next: AtomicU64::new(0), results: Mutex::new(sender) });
    for _ in 0..u64::from(args.depth).min(blocks) {
        let buffer = reader.file.buffer(size);
        reader.clone().begin(buffer);
    }
    // From here on the callbacks have it: the channel ends with the last of them.
    drop(reader);
    collect(&receiver, blocks).map_err(failed)
}

fn collect(receiver: &Receiver<io::Result<(u64, Sum)>>, blocks: u64) -> io::Result<Vec<Sum>> {
    let mut sums = vec![Sum::default(); blocks as usize];
    let mut seen = 0;
    for result in receiver {
        let (block, sum) = result?;
        sums[block as usize] = sum;
        seen += 1;
    }
    if seen == blocks { Ok(sums) } else { Err(io::Error::other("a callback did not come to its end")) }
}

/// What the callbacks of one file share.
struct Reader {
    file: File,
    length: u64,
    size: usize,
    /// The block that nobody has begun.
    next: AtomicU64,
    results: Mutex<Sender<io::Result<(u64, Sum)>>>,
}

impl Reader {
    /// Begins the read of the next block, if there is one.
    fn begin(self: Arc<Self>, buffer: AlignedBuf) {
        let block = self.next.fetch_add(1, Ordering::Relaxed);
        let offset = block * self.size as u64;
        if offset >= self.length {
            return;
        }
        let reader = self.clone();
        let read = self.file.read_at(buffer, offset);
        if let Err(refused) = read.on_completion(move |done| reader.completed(block, done)) {
            self.report(Err(refused.into()));
        }
    }

    /// The callback. The next read is on its way before this block's checksum is computed.
    fn completed(self: Arc<Self>, block: u64, BufResult(n, buffer): BufResult<usize, AlignedBuf>) {
        let wanted = (self.length - block * self.size as u64).min(self.size as u64);
        match n {
            Ok(n) if n as u64 == wanted => {
                // Its memory is needed until the checksum is known.
                self.clone().begin(self.file.buffer(self.size));
                self.report(Ok((block, Sum::of(&buffer[..n]))));
            }
            Ok(_) => self.report(Err(io::Error::other("it became shorter meanwhile"))),
            Err(error) => self.report(Err(error)),
        }
    }

    fn report(&self, result: io::Result<(u64, Sum)>) {
        // Nobody listens any more once an earlier block has failed.
        let _ = self.results.lock().unwrap_or_else(PoisonError::into_inner).send(result);
    }
}

fn read_plainly(path: &Path, size: usize) -> io::Result<Vec<Sum>> {
    let mut file = std::fs::File::open(path)?;
    let mut sums = Vec::new();
    let mut block = Vec::with_capacity(size);
    loop {
        block.clear();
        file.by_ref().take(size as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(sums);
        }
        sums.push(Sum::of(&block));
    }
}

fn rate(what: &str, sums: &[Sum], begin: Instant) {
    let (seconds, bytes) = (begin.elapsed().as_secs_f64(), sums.iter().map(|sum| sum.len).sum::<u64>());
    let rate = bytes as f64 / 1e6 / seconds.max(1e-9);
    say(format_args!("{what}: {bytes} bytes in {seconds:.3} s, {rate:.0} MB/s"));
}

/// CRC-32 (that of zip and Ethernet) of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    len: u64,
    crc: u32,
}

/// The polynomial, lowest bit first.
const POLYNOMIAL: u32 = 0xEDB8_8320;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

impl Sum {
    fn of(data: &[u8]) -> Self {
        let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
        Self { len: data.len() as u64, crc: !data.iter().fold(!0, step) }
    }

    /// That of both, one after the other: the first one's, moved on by as many zero bytes as the second is long, and the
    /// second one's. Moving on is a linear map of the 32 bits; it is squared for each bit of the length.
    fn then(self, other: Self) -> Self {
        // One zero bit moves the register by one place.
        let mut map: [u32; 32] = std::array::from_fn(|bit| if bit == 0 { POLYNOMIAL } else { 1 << (bit - 1) });
        let (mut bits, mut crc) = (other.len * 8, self.crc);
        while bits > 0 {
            if bits & 1 == 1 {
                crc = apply(&map, crc);
            }
            map = map.map(|column| apply(&map, column));
            bits >>= 1;
        }
        Self { len: self.len + other.len, crc: crc ^ other.crc }
    }
}

fn apply(map: &[u32; 32], bits: u32) -> u32 {
    map.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).fold(0, |sum, (_, column)| sum ^ column)
}
