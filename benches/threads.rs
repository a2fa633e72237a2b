//! What it costs to share an engine: threads that read one file through one engine, against the same threads with an engine
//! each, and with a raw context of kernel AIO each.
//!
//! `cargo bench --bench threads` prints a line per number of threads, queue depth and way: thousands of requests per second
//! of all threads together, microseconds of CPU time per request, and both as ratios to the raw contexts. Every thread is
//! in a `block_on` of its own and keeps `depth` random reads of 4 KiB in flight. The ways alternate in short rounds; printed
//! are medians of the ratios of each round.
//!
//! The file is made in `POLYAIO_BENCH_DIR`, or in Cargo's target directory, and read with `O_DIRECT`. `POLYAIO_BENCH_FILE`
//! names one that is there, or a block device, which is only read: `echo 1G > /sys/block/zram0/disksize` makes a disk as
//! fast as memory of `/dev/zram0`, and `echo 1 > /sys/block/zram0/reset` ends it. With `POLYAIO_BENCH_WAY='2 32 1'` two threads
//! at depth 32 do nothing but share an engine (0: raw contexts, 2: an engine each), for a profiler.

use std::error::Error;
use std::fs::File as StdFile;
use std::future::poll_fn;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use polyaio::{AlignedBuf, BufResult, Engine, File, ops};
use raw::{BLOCK, Blocks, Iocb, RawContext, cpu_time, file_to_read, median};

#[path = "raw/mod.rs"]
mod raw;

/// Reads that one thread has in flight at the most.
const DEPTH_MAX: usize = 32;
const ROUNDS: usize = 15;
/// So long a round should take on a machine that has nothing else to do.
const ROUND: Duration = Duration::from_millis(60);

/// What one thread has done in a round.
#[derive(Clone, Copy, Default)]
struct Work {
    requests: usize,
    wall: Duration,
    cpu: Duration,
}

/// What all threads have done in a round.
#[derive(Clone, Copy)]
struct Sum {
    /// Requests per second.
    rate: f64,
    /// Seconds of CPU time per request.
    cpu: f64,
}

impl Sum {
    fn of(work: &[Work]) -> Self {
        let requests: usize = work.iter().map(|work| work.requests).sum();
        let rate = work.iter().map(|work| work.requests as f64 / work.wall.as_secs_f64()).sum();
        let cpu: f64 = work.iter().map(|work| work.cpu.as_secs_f64()).sum();
        Self { rate, cpu: cpu / requests as f64 }
    }
}

// ----- through the engine ---------------------------------------------------------------------------------------------

/// The waker of one operation, as an executor has one for each task.
struct Bell {
    rung: AtomicBool,
    thread: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::SeqCst)
            && let Some(waker) = &*self.thread.lock().expect("nobody panics in here")
        {
            waker.wake_by_ref();
        }
    }
}

struct Place {
    bell: Arc<Bell>,
    waker: Waker,
    read: Option<polyaio::Op<ops::Read<AlignedBuf>>>,
}

/// `requests` reads through an engine, `depth` at a time.
fn by_engine(engine: &Engine, file: &File, blocks: &mut Blocks, depth: usize, requests: usize) {
    let thread = Arc::new(Mutex::new(None));
    let mut left = requests;
    let place = |_| {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), thread: thread.clone() });
        left -= 1;
        let read = file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), blocks.next_offset());
        Place { waker: bell.clone().into(), bell, read: Some(read) }
    };
    let mut places: Vec<Place> = (0..depth.min(requests)).map(place).collect();
    let mut flying = places.len();
    engine.block_on(poll_fn(|context| {
        {
            let mut thread = thread.lock().expect("nobody panics in here");
            if !thread.as_ref().is_some_and(|known: &Waker| known.will_wake(context.waker())) {
                *thread = Some(context.waker().clone());
            }
        }
        for place in &mut places {
            if !place.bell.rung.load(Ordering::SeqCst) {
                continue;
            }
            place.bell.rung.store(false, Ordering::SeqCst);
            while let Some(read) = &mut place.read
                && let Poll::Ready(BufResult(n, buffer)) = Pin::new(read).poll(&mut Context::from_waker(&place.waker))
            {
                assert_eq!(n.expect("readable"), BLOCK);
                place.read = if left > 0 {
                    left -= 1;
                    Some(file.read_at(buffer, blocks.next_offset()))
                } else {
                    flying -= 1;
                    None
                };
            }
        }
        if flying == 0 { Poll::Ready(()) } else { Poll::Pending }
    }));
}

// ----- by hand --------------------------------------------------------------------------------------------------------

/// The same reads by `io_submit` and `io_getevents`.
fn by_hand(context: &RawContext, fd: RawFd, blocks: &mut Blocks, depth: usize, requests: usize) {
    let depth = depth.min(requests);
    let buffers: Vec<AlignedBuf> = (0..depth).map(|_| AlignedBuf::zeroed(BLOCK, BLOCK)).collect();
    let mut iocbs = vec![Iocb::default(); depth];
    let mut idle: Vec<usize> = (0..depth).collect();
    let mut pointers: Vec<*mut Iocb> = Vec::with_capacity(depth);
    let mut events = vec![[0u64; 4]; depth];
    let (mut sent, mut done) = (0, 0);
    // SAFETY: buffers and iocbs outlive the requests, all of which are waited for; the events have room for as many as are
    // asked for.
    unsafe {
        while done < requests {
            pointers.clear();
            while sent < requests
                && let Some(at) = idle.pop()
            {
                iocbs[at] = Iocb {
                    data: at as u64,
                    fildes: fd as u32,
                    buf: buffers[at].as_ptr() as u64,
                    nbytes: BLOCK as u64,
                    offset: blocks.next_offset() as i64,
                    ..Iocb::default()
                };
                pointers.push(&raw mut iocbs[at]);
                sent += 1;
            }
            context.submit(&pointers).unwrap_or_else(|error| panic!("io_submit: {error}"));
            let got = context.wait(&mut events, None);
            for event in &events[..got] {
                assert_eq!(event[2], BLOCK as u64);
                idle.push(event[0] as usize);
                done += 1;
            }
        }
    }
}

// ----- rounds ---------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Raw,
    Shared,
    Each,
}

const WAYS: [(Way, &str); 3] =
    [(Way::Raw, "a raw context each"), (Way::Shared, "one engine"), (Way::Each, "an engine each")];

/// What is read, and by which engines.
struct Bed {
    path: PathBuf,
    raw: StdFile,
    blocks: u64,
    engines: Vec<(Engine, File)>,
    /// Made before the rounds: the end of one takes milliseconds.
    contexts: Vec<RawContext>,
    /// Of the next thread's sequence of blocks.
    seed: AtomicUsize,
}

impl Bed {
    fn open(path: &Path) -> std::io::Result<StdFile> {
        StdFile::options().read(true).custom_flags(libc::O_DIRECT).open(path)
    }

    fn new(path: &Path) -> Result<Self, Box<dyn Error>> {
        let mut raw = Self::open(path)?;
        let blocks = raw.seek(SeekFrom::End(0))? / BLOCK as u64;
        let engine = |_| -> Result<_, Box<dyn Error>> {
            let engine = Engine::new()?;
            let file = engine.adopt(Self::open(path)?.into())?;
            Ok((engine, file))
        };
        let engines = (0..2).map(engine).collect::<Result<_, _>>()?;
        let contexts = (0..2).map(|_| RawContext::new(DEPTH_MAX)).collect();
        Ok(Self { path: path.to_owned(), raw, blocks, engines, contexts, seed: AtomicUsize::new(1) })
    }

    /// One round: each of `threads` makes `requests` reads.
    fn round(&self, way: Way, threads: usize, depth: usize, requests: usize) -> Sum {
        // No blocks that another way has just brought into some cache of the device.
        let seed = self.seed.fetch_add(threads, Ordering::Relaxed);
        let barrier = &Barrier::new(threads);
        let run = move |number: usize| {
            let mut blocks = Blocks::new(seed + number, self.blocks);
            barrier.wait();
            let (cpu, start) = (cpu_time(), Instant::now());
            let (engine, file) = &self.engines[if way == Way::Each { number } else { 0 }];
            match way {
                Way::Raw => by_hand(&self.contexts[number], self.raw.as_raw_fd(), &mut blocks, depth, requests),
                _ => by_engine(engine, file, &mut blocks, depth, requests),
            }
            Work { requests, wall: start.elapsed(), cpu: cpu_time() - cpu }
        };
        let work: Vec<Work> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panics")).collect()
        });
        Sum::of(&work)
    }

    fn measure(&self, threads: usize, depth: usize) {
        // How many that are in `ROUND`; the first round is not counted, and warms up.
        let rate = WAYS.map(|(way, _)| self.round(way, threads, depth, 512).rate)[0];
        let requests = ((rate * ROUND.as_secs_f64()) as usize / threads).clamp(512, 50_000);
        let mut rounds = Vec::new();
        for number in 0..ROUNDS {
            let mut round = [Sum { rate: 0.0, cpu: 0.0 }; WAYS.len()];
            // Each way is the first once in so many rounds.
            for at in (0..WAYS.len()).map(|at| (at + number) % WAYS.len()) {
                round[at] = self.round(WAYS[at].0, threads, depth, requests);
            }
            rounds.push(round);
        }
        for (at, (_, name)) in WAYS.iter().enumerate() {
            let of = |what: &dyn Fn(&[Sum; WAYS.len()]) -> f64| median(rounds.iter().map(what).collect());
            println!(
                "{threads:>7} {depth:>6} {name:<20} {:>9.1} {:>9.2} {:>9.3} {:>9.3}",
                of(&|round| round[at].rate) / 1e3,
                of(&|round| round[at].cpu) * 1e6,
                of(&|round| round[at].rate / round[0].rate),
                of(&|round| round[at].cpu / round[0].cpu),
            );
        }
    }
}

impl Bed {
    /// Rounds of one way only, for a profiler: threads, depth, and the number of the way, such as `2 32 1`.
    fn only(&self, way: &str) -> Result<(), Box<dyn Error>> {
        let numbers: Vec<usize> = way.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [threads, depth, way] = numbers[..] else { return Err("three numbers, such as 2 32 1".into()) };
        let rounds: Vec<Sum> = (0..ROUNDS).map(|_| self.round(WAYS[way].0, threads, depth, 20_000)).collect();
        let of = |what: fn(&Sum) -> f64| median(rounds.iter().map(what).collect());
        println!("{} {:.1} k/s {:.2} us", WAYS[way].1, of(|sum| sum.rate) / 1e3, of(|sum| sum.cpu) * 1e6);
        println!("{:?}", self.engines[0].0.stats());
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (_open, path) = file_to_read()?;
    let bed = Bed::new(&path)?;
    println!("{}: {}", bed.path.display(), bed.engines[0].1.route());
    println!("{:>7} {:>6} {:<20} {:>9} {:>9} {:>9} {:>9}", "threads", "depth", "", "k/s", "CPU us", "x rate", "x CPU");
    if let Some(way) = std::env::var_os("POLYAIO_BENCH_WAY") {
        return bed.only(&way.to_string_lossy());
    }
    for (threads, depth) in [(2, DEPTH_MAX), (1, DEPTH_MAX), (2, 1), (1, 1)] {
        bed.measure(threads, depth);
    }
    for (name, count) in bed.engines[0].0.stats().served_by() {
        println!("the first engine: {name} has served {count}");
    }
    Ok(())
}
