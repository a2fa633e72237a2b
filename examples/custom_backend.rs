//! `custom_backend`: a backend that is no part of the crate. It keeps files in memory, sparsely, under paths that begin
//! with `mem:`, and is used through the ordinary API: it only knows how to serve one operation, and the engine does the rest.
//!
//! ```text
//! cargo run --release --example custom_backend -- --slow 5 --depth 64 /etc/services
//! ```
//!
//! Copies each file into memory, many requests in flight, reads it back and compares; syncs; then begins reads and cancels
//! them. Prints who serves the copy, and what was counted. Exit codes: 0, 1 when something failed, 2 for wrong usage.

#[path = "common/output.rs"]
mod output;
#[path = "common/selection.rs"]
mod selection;
#[path = "common/text.rs"]
mod text;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use polyaio::backend::{CancelOutcome, Capabilities, Handle, OpSet, Operation, Room, Serves, SyncBackend, VirtualFile};
use polyaio::{BufResult, Engine, File, Metadata, OpKind, OpenOptions};

use crate::selection::{Selection, Tally};
use crate::text::{Failure, say};

/// Copies files into a backend of its own, which keeps them in memory, and compares.
#[derive(Parser)]
#[command(name = "custom_backend", version)]
struct Args {
    /// Files to copy into memory
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    depth: u16,

    /// Threads that the backend has at the most
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,

    /// Take so many milliseconds for each operation in memory, as a slow device does
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slow: u64,

    #[command(flatten)]
    selection: Selection,
}

// ----- the backend -----------------------------------------------------------------------------------------------------

const PREFIX: &str = "mem:";
const PAGE: usize = 4096;

/// What it holds at the most, waiting and being served: more waits in the engine.
const QUEUE: usize = 256;

/// Files in memory.
#[derive(Default)]
struct Memory {
    files: Mutex<Files>,
    slow: Duration,
}

#[derive(Default)]
struct Files {
    by_name: HashMap<PathBuf, Arc<Mutex<Pages>>>,
    by_number: HashMap<u64, Opened>,
    numbers: u64,
}

#[derive(Clone)]
struct Opened {
    pages: Arc<Mutex<Pages>>,
    append: bool,
}

/// The bytes of a file. Pages of zeroes are not kept.
#[derive(Default)]
struct Pages {
    length: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl SyncBackend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(QUEUE);
        capabilities.serves = Serves::OwnFiles;
        let transfers = OpSet::NONE.with(OpKind::Read).with(OpKind::Write);
        let lengths = transfers.with(OpKind::Len).with(OpKind::SetLen).with(OpKind::PunchHole).with(OpKind::Metadata);
        capabilities.operations = lengths.with(OpKind::SyncAll).with(OpKind::SyncData);
        capabilities
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        let name = Path::new(path.to_str()?.strip_prefix(PREFIX)?);
        let mut files = lock(&self.files);
        let known = files.by_name.contains_key(name);
        if known && options.creates_new() {
            return Some(Err(io::ErrorKind::AlreadyExists.into()));
        }
        if !known && !options.creates() && !options.creates_new() {
            return Some(Err(io::ErrorKind::NotFound.into()));
        }
        let pages = files.by_name.entry(name.to_owned()).or_default().clone();
        if options.truncates() {
            lock(&pages).cut(0);
        }
        files.numbers += 1;
        let number = files.numbers;
        files.by_number.insert(number, Opened { pages, append: options.appends() });
        Some(Ok(VirtualFile { number, alignment: 1 }))
    }

    fn close(&self, number: u64) -> io::Result<()> {
        lock(&self.files).by_number.remove(&number);
        Ok(())
    }

    fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
        std::thread::sleep(self.slow);
        let Handle::Virtual(number) = operation.handle() else { return Err(io::ErrorKind::Unsupported.into()) };
        let opened = lock(&self.files).by_number.get(&number).cloned();
        let Opened { pages, append } = opened.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let mut pages = lock(&pages);
        let at = match (operation.kind(), operation.position()) {
            (OpKind::Write, _) if append => pages.length,
            // It keeps no position.
            (OpKind::Read | OpKind::Write, None) => return Err(io::ErrorKind::NotSeekable.into()),
            (_, position) => position.unwrap_or(0),
        };
        match operation.kind() {
            OpKind::Read => Ok(pages.read(at, operation.room())),
            OpKind::Write => Ok(operation.data().iter().fold(0, |done, part| done + pages.write(at + done, part))),
            OpKind::Len => Ok(pages.length),
            OpKind::SetLen => {
                pages.cut(at);
                Ok(0)
            }
            OpKind::PunchHole => {
                pages.punch(at, operation.length());
                Ok(0)
            }
            OpKind::Metadata => {
                operation.answer_metadata(Metadata::of_length(pages.length));
                Ok(0)
            }
            // Memory is as durable as it gets.
            OpKind::SyncAll | OpKind::SyncData => Ok(0),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Pages {
    /// Fills the room up to the end of the file; returns how many bytes there were.
    fn read(&self, at: u64, mut room: Room<'_>) -> u64 {
        let end = self.length.min(at.saturating_add(room.left() as u64));
        for (page, within, count) in parts(at, end) {
            match self.pages.get(&page) {
                Some(page) => room.append(&page[within..within + count]),
                None => room.fill(0, count),
            };
        }
        room.filled() as u64
    }

    fn write(&mut self, at: u64, data: &[u8]) -> u64 {
        let end = at + data.len() as u64;
        let mut left = data;
        for (page, within, count) in parts(at, end) {
            let (now, rest) = left.split_at(count);
            left = rest;
            if self.pages.contains_key(&page) || now.iter().any(|byte| *byte != 0) {
                let bytes = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
                bytes[within..within + count].copy_from_slice(now);
            }
        }
        self.length = self.length.max(end);
        data.len() as u64
    }

    fn punch(&mut self, at: u64, length: u64) {
        let end = self.length.min(at.saturating_add(length));
        // Pages that there are not have nothing to be punched, and a hole may be large.
        let touched: Vec<u64> = self.pages.range(at / PAGE as u64..=end / PAGE as u64).map(|(page, _)| *page).collect();
        for number in touched {
            let start = number * PAGE as u64;
            let from = at.saturating_sub(start).min(PAGE as u64) as usize;
            let to = end.saturating_sub(start).min(PAGE as u64) as usize;
            if let Some(page) = self.pages.get_mut(&number).filter(|_| from < to) {
                page[from..to].fill(0);
                if page.iter().all(|byte| *byte == 0) {
                    self.pages.remove(&number);
                }
            }
        }
    }

    fn cut(&mut self, length: u64) {
        self.punch(length, u64::MAX);
        self.length = length;
    }
}

/// A range of bytes as parts of pages: the page's number, where in it, how many bytes.
fn parts(at: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let page = PAGE as u64;
    (at / page..end.div_ceil(page)).filter(move |_| at < end).map(move |number| {
        let (from, to) = (at.max(number * page), end.min((number + 1) * page));
        (number, (from % page) as usize, (to - from) as usize)
    })
}

/// A panic while it was held, of which there should be none, has left nothing half done that matters to others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ----- the program -----------------------------------------------------------------------------------------------------

/// Bytes of a request.
const BLOCK: u64 = 64 * 1024;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("custom_backend: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let memory = Arc::new(Memory { slow: Duration::from_millis(args.slow), ..Memory::default() });
    let builder = args.selection.builder().threads(usize::from(args.threads)).sync_backend(memory.clone());
    let engine = selection::start(builder)?;
    for path in &args.files {
        let source = OpenOptions::new().read(true).open(&engine, path).map_err(Failure::of_library)?;
        let name = format!("{PREFIX}{}", path.display());
        let mut options = OpenOptions::new();
        let target = options.read(true).write(true).create(true).truncate(true).open(&engine, &name);
        let target = target.map_err(Failure::of_library)?;
        let failed = |error| Failure::of(format_args!("cannot copy {} to {name}", path.display()), &error);
        let length = engine.block_on(copy(&source, &target, usize::from(args.depth))).map_err(failed)?;
        let kept = lock(&memory.files).by_name.values().map(|file| lock(file).pages.len() * PAGE).sum::<usize>();
        output::print(format_args!("{name}: {length} bytes, read back the same; {kept} bytes of memory in all"))?;
        output::print(format_args!("  {}", target.route()))?;
        let (cancelled, begun) = cancel(&engine, &target, usize::from(args.depth)).map_err(failed)?;
        output::print(format_args!("  of {begun} reads {cancelled} were cancelled in time"))?;
        target.close().wait().map_err(failed)?;
    }
    for backend in engine.stats().backends.iter().filter(|backend| backend.requests > 0) {
        let (requests, bytes) = (backend.requests, backend.bytes);
        let (batches, full) = (backend.batches, backend.busy);
        let counted = format_args!("{requests} requests, {bytes} bytes, {batches} batches, queue full {full} times");
        output::print(format_args!("{}: {counted}", backend.name))?;
    }
    say(Tally::of(&engine));
    Ok(())
}

/// Copies the source block by block, reads each block back, and compares it. Returns the length.
async fn copy(source: &File, target: &File, depth: usize) -> io::Result<u64> {
    if source.is_stream() {
        return Err(io::Error::other("it has no offsets: name a file"));
    }
    let length = source.len().await?;
    let block = |number: u64| async move {
        let at = number * BLOCK;
        let count = BLOCK.min(length - at) as usize;
        let BufResult(read, data) = source.read_exact_at(vec![0; count], at).await;
        read?;
        let BufResult(written, data) = target.write_all_at(data, at).await;
        written?;
        let BufResult(read, back) = target.read_exact_at(vec![0; count], at).await;
        read?;
        if back == data { Ok(()) } else { Err(io::Error::other(format!("other bytes came back from offset {at}"))) }
    };
    let blocks = stream::iter(0..length.div_ceil(BLOCK)).map(block);
    blocks.buffer_unordered(depth).try_collect::<()>().await?;
    target.sync_data().await?;
    let copied = target.len().await?;
    if copied == length { Ok(length) } else { Err(io::Error::other(format!("the copy has {copied} bytes"))) }
}

/// Begins reads and cancels them. What still waits for a thread is cancelled; what is being executed goes on. Returns how
/// many were cancelled, of how many.
fn cancel(engine: &Engine, file: &File, count: usize) -> io::Result<(usize, usize)> {
    let mut reads: Vec<_> = (0..count).map(|_| file.read_at(vec![0; 1], 0)).collect();
    // Each is polled once; what that has queued is sent.
    engine.block_on(async { reads.iter_mut().for_each(|read| _ = futures::FutureExt::now_or_never(read)) });
    let outcomes: Vec<_> = reads.iter_mut().map(|read| read.cancel()).collect();
    for (read, outcome) in reads.into_iter().zip(&outcomes) {
        let BufResult(result, _) = read.wait();
        let cancelled = result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ECANCELED));
        match (outcome, result) {
            (CancelOutcome::Cancelled, _) if cancelled => {}
            (CancelOutcome::Cancelled, other) => {
                return Err(io::Error::other(format!("cancelled, and then {other:?}")));
            }
            (_, result) => _ = result?,
        }
    }
    let cancelled = outcomes.iter().filter(|outcome| **outcome == CancelOutcome::Cancelled).count();
    Ok((cancelled, count))
}
