//! What the crate costs per request, measured on the no-op backend: nanoseconds and allocations through the whole public
//! path, from `write_at` to the result.
//!
//! `cargo bench --bench overhead` prints a line per queue depth. The baseline in the same run is a `pwrite` of the same
//! bytes to `/dev/null`: one system call that does nothing. Then it prints how the cost grows, with the requests in flight and
//! with the open files, and how much memory a request in flight takes beyond its buffer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use polyaio::backends::noop::Noop;
use polyaio::{BufResult, Engine, File, OpenOptions, Policy};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: forwards to the system's allocator and keeps its contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUESTS: usize = 400_000;
const ROUNDS: usize = 5;

type Write = polyaio::Op<polyaio::ops::Write<Box<[u8]>>>;

/// Keeps `depth` writes in flight until `left` are done, to one file after the other.
struct Pump<'a> {
    files: &'a [File],
    next: usize,
    flying: Vec<Option<Write>>,
    left: usize,
}

impl Future for Pump<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut idle = 0;
        for place in &mut this.flying {
            let Some(write) = place else {
                idle += 1;
                continue;
            };
            if let Poll::Ready(BufResult(result, buffer)) = Pin::new(write).poll(context) {
                black_box(result.expect("the no-op backend does not fail"));
                *place = (this.left > 0).then(|| {
                    this.left -= 1;
                    this.next = if this.next + 1 < this.files.len() { this.next + 1 } else { 0 };
                    this.files[this.next].write_at(buffer, 0)
                });
                // A fresh operation wants its first poll.
                context.waker().wake_by_ref();
            }
        }
        if idle == this.flying.len() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Nanoseconds and allocations per request.
fn measure(engine: &Engine, files: &[File], depth: usize) -> (f64, f64) {
    let flying = (0..depth).map(|_| Some(files[0].write_at(vec![0u8; 512].into_boxed_slice(), 0))).collect();
    let pump = Pump { files, next: 0, flying, left: REQUESTS };
    let (allocated, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
    engine.block_on(pump);
    let nanoseconds = start.elapsed().as_nanos() as f64 / REQUESTS as f64;
    (nanoseconds, (ALLOCATIONS.load(Ordering::Relaxed) - allocated) as f64 / REQUESTS as f64)
}

fn baseline() -> f64 {
    let null = std::fs::File::options().write(true).open("/dev/null").expect("/dev/null");
    let buffer = [0u8; 512];
    let start = Instant::now();
    for _ in 0..REQUESTS {
        black_box(null.write_at(&buffer, 0).expect("/dev/null takes everything"));
    }
    start.elapsed().as_nanos() as f64 / REQUESTS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// An engine on the no-op backend.
fn engine() -> Result<Engine, polyaio::Error> {
    let builder = Engine::builder().backend(Arc::new(Noop)).queue_depth(8192);
    builder.policy(Policy::Prefer(vec!["noop".to_owned()])).build()
}

/// Resident memory of this process, in bytes.
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    // SAFETY: the call has no preconditions.
    Some(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64)
}

/// Bytes that the engine takes for each request in flight, beyond the operation and its buffer; and those of the operation.
fn memory() -> Result<(Option<u64>, usize), polyaio::Error> {
    const DEPTH: usize = 4096;
    let engine = engine()?;
    let file = OpenOptions::new().write(true).open(&engine, "/dev/null")?;
    let fly = |depth: usize| {
        let mut all: Vec<_> = (0..depth).map(|_| file.write_at(vec![0u8; 512].into_boxed_slice(), 0)).collect();
        let before = resident();
        let mut after = None;
        engine.block_on(std::future::poll_fn(|context| {
            // None is collected before all were sent: each has its slot.
            all.iter_mut().for_each(|write| drop(black_box(Pin::new(write).poll(context))));
            after = resident();
            Poll::Ready(())
        }));
        Some(after?.saturating_sub(before?) / depth as u64)
    };
    fly(1);
    Ok((fly(DEPTH), size_of::<Write>()))
}

/// Lets this process open so many files, if it may.
fn allow_files(count: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls read and write one structure.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = count + 100;
        limit.rlim_max = limit.rlim_max.max(limit.rlim_cur);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
    }
}

/// Medians of what two settings cost, each with the other in turns, and of the ratio of the second to the first.
fn growth(mut each: impl FnMut(usize) -> f64) -> [f64; 3] {
    let rounds: Vec<[f64; 2]> = (0..3 * ROUNDS).map(|_| [each(0), each(1)]).collect();
    let of = |value: fn(&[f64; 2]) -> f64| median(rounds.iter().map(value).collect());
    [of(|round| round[0]), of(|round| round[1]), of(|round| round[1] / round[0])]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = engine()?;
    let open = || OpenOptions::new().write(true).open(&engine, "/dev/null");
    let mut files = vec![open()?];
    println!("{:>6} {:>10} {:>14} {:>18} {:>10}", "depth", "ns/op", "allocs/op", "pwrite(null) ns", "ratio");
    for depth in [1, 32, 128, 4096] {
        let (mut ours, mut theirs, mut allocations) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            let (nanoseconds, allocated) = measure(&engine, &files, depth);
            ours.push(nanoseconds);
            theirs.push(baseline());
            allocations = allocated;
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{depth:>6} {ours:>10.1} {allocations:>14.5} {theirs:>18.1} {:>10.2}", ours / theirs);
    }
    println!("\n{:<40} {:>10} {:>10} {:>8}", "growth", "from ns", "to ns", "ratio");
    let tell = |what: &str, [from, to, ratio]: [f64; 3]| println!("{what:<40} {from:>10.1} {to:>10.1} {ratio:>8.2}");
    tell("from 32 to 4096 in flight", growth(|at| measure(&engine, &files, [32, 4096][at]).0));
    let (few, many) = (1, 10_000);
    if allow_files(many as u64) {
        while files.len() < many {
            files.push(open()?);
        }
        tell("from 1 to 10000 open files, depth 32", growth(|at| measure(&engine, &files[..[few, many][at]], 32).0));
    } else {
        println!("SKIP from 1 to 10000 open files: no permission to open so many (ulimit -n)");
    }
    match memory()? {
        (Some(held), operation) => println!(
            "\nmemory per request in flight, beyond its buffer: {held} bytes in the engine, {operation} in the operation"
        ),
        (None, _) => println!("SKIP memory per request: no /proc"),
    }
    Ok(())
}
