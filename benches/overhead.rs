//! What the crate costs per request, measured on the no-op backend: nanoseconds and allocations through the whole public
//! path, from `write_at` to the result.
//!
//! `cargo bench --bench overhead` prints a line per queue depth. The baseline in the same run is a `pwrite` of the same
//! bytes to `/dev/null`: one system call that does nothing.

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

/// Keeps `depth` writes in flight until `left` are done.
struct Pump<'a> {
    file: &'a File,
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
                    this.file.write_at(buffer, 0)
                });
                // A fresh operation wants its first poll.
                context.waker().wake_by_ref();
            }
        }
        if idle == this.flying.len() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Nanoseconds and allocations per request.
fn measure(engine: &Engine, file: &File, depth: usize) -> (f64, f64) {
    let flying = (0..depth).map(|_| Some(file.write_at(vec![0u8; 512].into_boxed_slice(), 0))).collect();
    let pump = Pump { file, flying, left: REQUESTS };
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = Engine::builder().backend(Arc::new(Noop)).queue_depth(8192);
    let engine = builder.policy(Policy::Prefer(vec!["noop".to_owned()])).build()?;
    let file = OpenOptions::new().write(true).open(&engine, "/dev/null")?;
    println!("{:>6} {:>10} {:>14} {:>18} {:>10}", "depth", "ns/op", "allocs/op", "pwrite(null) ns", "ratio");
    for depth in [1, 32, 128, 4096] {
        let (mut ours, mut theirs, mut allocations) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            let (nanoseconds, allocated) = measure(&engine, &file, depth);
            ours.push(nanoseconds);
            theirs.push(baseline());
            allocations = allocated;
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{depth:>6} {ours:>10.1} {allocations:>14.5} {theirs:>18.1} {:>10.2}", ours / theirs);
    }
    Ok(())
}
