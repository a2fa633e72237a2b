//! What submitting costs the caller: microseconds inside any call of the crate, on the caller's thread, per request, and
//! whether the thread was put to sleep there.
//!
//! `cargo bench --bench submit` prints a line per kind of request, at depth 32. A call is one `block_on` that polls each
//! operation and then each once more, which never waits: the second round submits what the first has queued, and collects.
//! Waiting for completions is another call, which is not timed. The files lie in `POLYAIO_BENCH_DIR`, or in Cargo's target
//! directory; that must be a disk, and gets cold between the rounds.
//!
//! `slept` is how often the thread went to sleep in those calls, `preempted` in how many of them it was preempted, and `p99.9*`
//! leaves those out.
//!
//! The baseline is the same file-extending writes by `io_submit` itself, 32 in a call, without NOWAIT. The last two lines tell
//! how quiet the machine is: what it costs to wake a thread, and what is added to 3 us of nothing.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, OpenOptions};
use raw::{Iocb, PWRITE, RawContext};

#[path = "raw/mod.rs"]
mod raw;

const DEPTH: usize = 32;
const BLOCK: usize = 4096;
const REQUESTS: usize = 16_384;

type Transfer = Pin<Box<dyn Future<Output = AlignedBuf>>>;

/// What the calls have cost.
#[derive(Default)]
struct Costs {
    calls: Vec<Call>,
}

/// One call.
#[derive(Clone, Copy)]
struct Call {
    /// For each request that it submitted, or served.
    time: Duration,
    requests: usize,
    /// How often the thread went to sleep in it.
    slept: i64,
    /// The thread was preempted in it: the time is not all ours.
    preempted: bool,
}

impl Costs {
    fn add(&mut self, time: Duration, requests: usize, before: &Switches) {
        let (requests, now) = (requests.max(1), Switches::now());
        self.calls.push(Call {
            time: time / requests as u32,
            requests,
            slept: now.voluntary - before.voluntary,
            preempted: now.involuntary > before.involuntary,
        });
    }

    /// Microseconds that the share `q` of the requests did not exceed.
    fn quantile(&self, q: f64, preempted: bool) -> f64 {
        let mut sorted: Vec<&Call> = self.calls.iter().filter(|call| preempted || !call.preempted).collect();
        sorted.sort_unstable_by_key(|call| call.time);
        let all: usize = sorted.iter().map(|call| call.requests).sum();
        let wanted = (all as f64 * q).ceil() as usize;
        let mut seen = 0;
        let at = sorted.iter().find(|call| {
            seen += call.requests;
            seen >= wanted
        });
        at.map_or(0.0, |call| call.time.as_nanos() as f64 / 1000.0)
    }

    fn print(&self, name: &str, served: &str) {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|q| self.quantile(q, true));
        let alone = self.quantile(0.999, false);
        let slept: i64 = self.calls.iter().map(|call| call.slept).sum();
        let (preempted, calls) = (self.calls.iter().filter(|call| call.preempted).count(), self.calls.len());
        println!(
            "{name:<34} {p50:>7.2} {p99:>7.2} {p999:>7.2} {max:>8.2} {alone:>8.2} {slept:>6} {preempted:>5}/{calls:<6} {served}"
        );
    }
}

/// How often this thread was switched away from.
struct Switches {
    /// It went to sleep.
    voluntary: i64,
    /// It was preempted.
    involuntary: i64,
}

impl Switches {
    fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the call fills the structure.
        let usage = unsafe {
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
            usage.assume_init()
        };
        // `long`, which is not everywhere so long.
        #[allow(clippy::useless_conversion)]
        let (voluntary, involuntary) = (i64::from(usage.ru_nvcsw), i64::from(usage.ru_nivcsw));
        Self { voluntary, involuntary }
    }
}

/// The waker of one operation.
struct Bell {
    rung: AtomicBool,
    /// Who waits for any of them.
    waiting: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        let waiting = self.waiting.lock().expect("nobody panics in here").take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A place for one operation after the other, as a task of an executor is.
struct Place {
    bell: Arc<Bell>,
    waker: Waker,
    transfer: Option<Transfer>,
}

impl Place {
    /// Polls; the buffer, if that was its end.
    fn poll(&mut self) -> Option<AlignedBuf> {
        self.bell.rung.store(false, Ordering::SeqCst);
        let transfer = self.transfer.as_mut()?;
        let Poll::Ready(buffer) = transfer.as_mut().poll(&mut Context::from_waker(&self.waker)) else { return None };
        self.transfer = None;
        Some(buffer)
    }
}

/// Keeps `DEPTH` operations of `next` in flight until there are none left; times every call but those that wait.
fn run(engine: &Engine, mut next: impl FnMut(AlignedBuf) -> Option<Transfer>) -> Costs {
    let waiting = Arc::new(Mutex::new(None));
    let place = |_| {
        let bell = Arc::new(Bell { rung: AtomicBool::new(false), waiting: waiting.clone() });
        let transfer = next(AlignedBuf::copy_from(&[7; BLOCK], BLOCK));
        Place { waker: bell.clone().into(), bell, transfer }
    };
    let mut places: Vec<Place> = (0..DEPTH).map(place).collect();
    let mut costs = Costs::default();
    // Those whose operation was not polled yet.
    let mut fresh: Vec<usize> = (0..DEPTH).collect();
    let mut later: Vec<usize> = Vec::with_capacity(DEPTH);
    while places.iter().any(|place| place.transfer.is_some()) {
        let (before, start) = (Switches::now(), Instant::now());
        let mut sent = 0;
        engine.block_on(poll_fn(|_| {
            for (at, place) in places.iter_mut().enumerate() {
                if place.bell.rung.load(Ordering::SeqCst)
                    && let Some(buffer) = place.poll()
                {
                    place.transfer = next(buffer);
                    fresh.push(at);
                }
            }
            sent = fresh.len();
            // The first poll queues, and the second submits.
            for _ in 0..2 {
                fresh.retain(|at| match places[*at].poll() {
                    Some(buffer) => {
                        places[*at].transfer = next(buffer);
                        later.push(*at);
                        false
                    }
                    None => places[*at].transfer.is_some(),
                });
            }
            Poll::Ready(())
        }));
        costs.add(start.elapsed(), sent, &before);
        fresh.clear();
        std::mem::swap(&mut fresh, &mut later);
        engine.block_on(poll_fn(|context| {
            *waiting.lock().expect("nobody panics in here") = Some(context.waker().clone());
            let rung = places.iter().any(|place| place.bell.rung.load(Ordering::SeqCst));
            let over = places.iter().all(|place| place.transfer.is_none());
            if rung || over || !fresh.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
    costs
}

fn write(file: &File, buffer: AlignedBuf, block: usize) -> Transfer {
    let write = file.write_at(buffer, (block * BLOCK) as u64);
    Box::pin(async {
        let BufResult(n, buffer) = write.await;
        assert_eq!(n.expect("room"), BLOCK);
        buffer
    })
}

fn read(file: &File, buffer: AlignedBuf, block: usize) -> Transfer {
    let read = file.read_at(buffer, (block * BLOCK) as u64);
    Box::pin(async {
        let BufResult(n, buffer) = read.await;
        assert_eq!(n.expect("readable"), BLOCK);
        buffer
    })
}

/// A number that tells nothing about the next one.
fn scattered(i: usize) -> usize {
    (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) as usize
}

fn evict(path: &Path) {
    let file = std::fs::File::open(path).expect("it is there");
    file.sync_all().expect("a disk that works");
    // SAFETY: takes no pointer.
    let answer = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(answer, 0);
}

/// A file of the bench, larger than what is read of it in a round, and cold.
fn cold_file(dir: &Path) -> std::io::Result<PathBuf> {
    let path = dir.join("data");
    let data: Vec<u8> = (0..4 * REQUESTS * BLOCK).map(|i| (i / BLOCK) as u8).collect();
    std::fs::write(&path, data)?;
    evict(&path);
    Ok(path)
}

fn open(path: &Path, direct: Direct) -> Result<(Engine, File), polyaio::Error> {
    let engine = Engine::new()?;
    let file = OpenOptions::new().read(true).write(true).create(true).direct(direct).open(&engine, path)?;
    Ok((engine, file))
}

/// Who served how many.
fn served(engine: &Engine) -> String {
    let stats = engine.stats();
    let by = stats.served_by().into_iter().map(|(name, count)| format!("{name} {count}"));
    let why = stats.fallbacks.iter().map(|(reason, count)| format!("{reason} {count}"));
    by.chain(why).collect::<Vec<_>>().join(", ")
}

/// Numbers below `REQUESTS`, one after the other, each as an operation.
fn each(mut make: impl FnMut(AlignedBuf, usize) -> Transfer) -> impl FnMut(AlignedBuf) -> Option<Transfer> {
    let mut count = 0;
    move |buffer| {
        count += 1;
        (count <= REQUESTS).then(|| make(buffer, count - 1))
    }
}

fn measure(dir: &Path) -> Result<(), Box<dyn Error>> {
    let data = cold_file(dir)?;
    let blocks = 4 * REQUESTS;

    let (engine, file) = open(&dir.join("grows"), Direct::Required)?;
    run(&engine, each(|buffer, i| write(&file, buffer, i))).print("extending direct writes", &served(&engine));

    let (engine, file) = open(&data, Direct::Off)?;
    let costs = run(&engine, each(|buffer, i| read(&file, buffer, scattered(i) % blocks)));
    costs.print("cold buffered reads, random", &served(&engine));

    evict(&data);
    let (engine, file) = open(&data, Direct::Off)?;
    run(&engine, each(|buffer, i| read(&file, buffer, i))).print("cold buffered reads, in sequence", &served(&engine));

    let (engine, file) = open(&data, Direct::Off)?;
    run(&engine, each(|buffer, i| read(&file, buffer, i))).print("cached buffered reads", &served(&engine));

    evict(&data);
    let (engine, file) = open(&data, Direct::Required)?;
    let costs = run(&engine, each(|buffer, i| read(&file, buffer, scattered(i) % blocks)));
    costs.print("direct reads", &served(&engine));

    let (engine, file) = open(&data, Direct::Required)?;
    let costs = run(&engine, each(|buffer, i| write(&file, buffer, scattered(i) % blocks)));
    costs.print("direct overwrites", &served(&engine));

    baseline(&dir.join("raw"))?.print("raw io_submit, extending writes", "");
    wakes().print("a thread unparked, and nothing else", "");
    nothing().print("3 us of nothing", "");
    Ok(())
}

/// What it costs to wake a sleeping thread, on this machine, now: who hands a request to a worker cannot cost less.
fn wakes() -> Costs {
    let over = Arc::new(AtomicBool::new(false));
    let sleeper = {
        let over = over.clone();
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                std::thread::park();
            }
        })
    };
    let costs = paced(|| sleeper.thread().unpark());
    over.store(true, Ordering::SeqCst);
    sleeper.thread().unpark();
    sleeper.join().expect("it does not panic");
    costs
}

/// What the machine itself adds: interrupts, other programs, the host.
fn nothing() -> Costs {
    paced(|| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(3) {
            std::hint::spin_loop();
        }
    })
}

/// Times a piece of work, again and again, with pauses.
fn paced(work: impl Fn()) -> Costs {
    let mut costs = Costs::default();
    for _ in 0..REQUESTS {
        let (before, start) = (Switches::now(), Instant::now());
        work();
        costs.add(start.elapsed(), 1, &before);
        std::thread::sleep(Duration::from_micros(50));
    }
    costs
}

/// The extending writes by the system call alone.
fn baseline(path: &Path) -> Result<Costs, Box<dyn Error>> {
    /// Enough to see what it is: they take their time.
    const WRITES: usize = 4096;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).custom_flags(libc::O_DIRECT).open(path)?;
    let buffer = AlignedBuf::copy_from(&[7; BLOCK], BLOCK);
    let mut costs = Costs::default();
    let context = RawContext::try_new(DEPTH)?;
    for first in (0..WRITES).step_by(DEPTH) {
        let mut iocbs: Vec<Iocb> = (first..first + DEPTH)
            .map(|block| Iocb {
                opcode: PWRITE,
                fildes: file.as_raw_fd() as u32,
                buf: buffer.as_ptr() as u64,
                nbytes: BLOCK as u64,
                offset: (block * BLOCK) as i64,
                ..Iocb::default()
            })
            .collect();
        let pointers: Vec<*mut Iocb> = iocbs.iter_mut().map(|iocb| iocb as *mut Iocb).collect();
        let (before, start) = (Switches::now(), Instant::now());
        // SAFETY: what the iocbs point at outlives their completions, which are waited for before the next round.
        let submitted = unsafe { context.submit(&pointers) };
        let time = start.elapsed();
        costs.add(time, DEPTH, &before);
        assert_eq!(submitted?, 1);
        let (mut events, mut got) = ([[0u64; 4]; DEPTH], 0);
        while got < DEPTH {
            got += context.wait(&mut events[got..], None);
        }
        assert!(events.iter().all(|event| event[2] == BLOCK as u64));
    }
    Ok(costs)
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::var_os("POLYAIO_BENCH_DIR").unwrap_or(env!("CARGO_TARGET_TMPDIR").into());
    let dir = tempfile::Builder::new().prefix("polyaio-submit-").tempdir_in(parent)?;
    println!(
        "{:<34} {:>7} {:>7} {:>7} {:>8} {:>8} {:>6} {:>12} served by, and why not otherwise",
        "us per request", "p50", "p99", "p99.9", "max", "p99.9*", "slept", "preempted"
    );
    measure(dir.path())
}
