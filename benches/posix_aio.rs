//! POSIX AIO as this crate uses it, beside glibc's as a program would use it plainly: one descriptor, and `aio_suspend` on
//! everything in flight. Random direct reads of 4 KiB from one file, both in one run, alternating; and raw kernel AIO as a
//! third, which shows what the device gives at that depth: more than that nobody can have.
//!
//! `cargo bench --bench posix_aio [-- [DIRECTORY] [DEPTH]...]` prints a line per queue depth; the file is made in `/var/tmp`
//! unless told otherwise. Both sides take turns, many short ones, and the ratio is the median of those of neighbours: what
//! else the machine does meets both. Exits with 0 and a note where there is no direct I/O.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, Policy};
use raw::{Event, Iocb, RawContext};

#[path = "raw/mod.rs"]
mod raw;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 32 * 1024;
const ROUND: Duration = Duration::from_millis(150);
const ROUNDS: usize = 25;

/// Requests per second; processor time and sleeps (voluntary context switches, of all threads) per request.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    cpu_us: f64,
    sleeps: f64,
}

/// Runs `step`, which completes some requests, until the time is up.
fn measure(mut step: impl FnMut() -> u64) -> Figures {
    let (begin, (cpu, sleeps)) = (Instant::now(), usage());
    let mut count = 0;
    while begin.elapsed() < ROUND {
        count += step();
    }
    let (rate, count) = (count as f64 / begin.elapsed().as_secs_f64(), count as f64);
    let (cpu_after, sleeps_after) = usage();
    let cpu_us = (cpu_after - cpu).as_secs_f64() * 1e6 / count;
    Figures { rate, cpu_us, sleeps: (sleeps_after - sleeps) as f64 / count }
}

/// User and system time of the process, and how often its threads went to sleep.
fn usage() -> (Duration, u64) {
    // SAFETY: zeroes are values of the structure, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    (time(usage.ru_utime) + time(usage.ru_stime), usage.ru_nvcsw as u64)
}

/// The next place to read: the same for both sides.
struct Places(u64);

impl Places {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % BLOCKS * BLOCK as u64
    }
}

/// glibc, plainly.
fn plain(file: &std::fs::File, depth: usize) -> Figures {
    let mut places = Places(1);
    let mut buffers: Vec<_> = (0..depth).map(|_| AlignedBuf::zeroed(BLOCK, BLOCK)).collect();
    // SAFETY: a structure of numbers and pointers.
    let mut blocks: Box<[libc::aiocb]> = (0..depth).map(|_| unsafe { std::mem::zeroed() }).collect();
    let mut send = |block: &mut libc::aiocb, buffer: &mut AlignedBuf| {
        block.aio_fildes = file.as_raw_fd();
        block.aio_buf = buffer.as_mut_ptr().cast();
        block.aio_nbytes = BLOCK;
        block.aio_offset = places.next() as libc::off_t;
        block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        // SAFETY: block and buffer stay in their places until the request is over, which is waited for below.
        assert_eq!(unsafe { libc::aio_read(block) }, 0);
    };
    for (block, buffer) in blocks.iter_mut().zip(&mut buffers) {
        send(block, buffer);
    }
    let list: Vec<*const libc::aiocb> = blocks.iter().map(|block| &raw const *block).collect();
    let figures = measure(|| {
        let mut count = 0;
        // SAFETY: all blocks are in flight and stay in their places.
        unsafe { libc::aio_suspend(list.as_ptr(), depth as i32, std::ptr::null()) };
        for (block, buffer) in blocks.iter_mut().zip(&mut buffers) {
            // SAFETY: the block is in flight.
            if unsafe { libc::aio_error(block) } != libc::EINPROGRESS {
                // SAFETY: it is over, and asked once.
                assert_eq!(unsafe { libc::aio_return(block) }, BLOCK as isize);
                send(block, buffer);
                count += 1;
            }
        }
        count
    });
    for block in &mut blocks {
        // SAFETY: in flight.
        while unsafe { libc::aio_error(block) } == libc::EINPROGRESS {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    figures
}

/// Kernel AIO by hand: what the device gives. `None` where the kernel has no context to give.
fn device(file: &std::fs::File, depth: usize) -> Option<Figures> {
    let context = RawContext::try_new(depth).ok()?;
    let mut places = Places(1);
    let mut buffers: Vec<_> = (0..depth).map(|_| AlignedBuf::zeroed(BLOCK, BLOCK)).collect();
    let iocb = |(number, buffer): (usize, &mut AlignedBuf)| Iocb {
        data: number as u64,
        opcode: raw::PREAD,
        fildes: file.as_raw_fd() as u32,
        buf: buffer.as_mut_ptr() as u64,
        nbytes: BLOCK as u64,
        ..Iocb::default()
    };
    let mut iocbs: Vec<Iocb> = buffers.iter_mut().enumerate().map(iocb).collect();
    let mut idle: Vec<usize> = (0..depth).collect();
    let mut events = vec![Event::default(); depth];
    let mut step = |sends: bool| {
        if sends && !idle.is_empty() {
            idle.iter().for_each(|number| iocbs[*number].offset = places.next() as i64);
            let pointers: Vec<*mut Iocb> = idle.drain(..).map(|number| &raw mut iocbs[number]).collect();
            // SAFETY: iocbs and buffers stay in their places until the events have come, which are waited for below.
            unsafe { context.submit(&pointers) }.expect("room");
        }
        if idle.len() == depth {
            return 0;
        }
        let got = context.wait(&mut events, None);
        assert!(events[..got].iter().all(|event| event[2] == BLOCK as u64));
        idle.extend(events[..got].iter().map(|event| event[0] as usize));
        got as u64
    };
    let figures = measure(|| step(true));
    while step(false) > 0 {}
    Some(figures)
}

type Read = polyaio::Op<polyaio::ops::Read<AlignedBuf>>;

/// Keeps its reads in flight; ready with the number of those that completed.
struct Pump<'a> {
    file: &'a File,
    places: &'a mut Places,
    flying: &'a mut [Read],
}

impl Future for Pump<'_> {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let Pump { file, places, flying } = &mut *self;
        let mut count = 0;
        for read in flying.iter_mut() {
            // At great depths a queue is sent in the first poll, and a read may be over by its end.
            while let Poll::Ready(BufResult(n, buffer)) = Pin::new(&mut *read).poll(context) {
                assert_eq!(n.expect("readable"), BLOCK);
                *read = file.read_at(buffer, places.next());
                count += 1;
            }
        }
        if count > 0 { Poll::Ready(count) } else { Poll::Pending }
    }
}

/// The same through the crate.
fn ours(engine: &Engine, file: &File, depth: usize) -> Figures {
    let mut places = Places(1);
    let mut flying: Vec<_> =
        (0..depth).map(|_| file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), places.next())).collect();
    measure(|| engine.block_on(Pump { file, places: &mut places, flying: &mut flying }))
}

/// The same at depth 1, as a program would write it.
fn ours_waiting(file: &File) -> Figures {
    let mut places = Places(1);
    let mut spare = Some(AlignedBuf::zeroed(BLOCK, BLOCK));
    measure(|| {
        let BufResult(n, buffer) = file.read_at(spare.take().expect("it came back"), places.next()).wait();
        assert_eq!(n.expect("readable"), BLOCK);
        spare = Some(buffer);
        1
    })
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    figures[figures.len() / 2]
}

fn make(path: &Path) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::File::create(path)?;
    for _ in 0..BLOCKS / 256 {
        file.write_all(&[7; 256 * BLOCK])?;
    }
    file.sync_all()?;
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let directory = arguments.iter().find(|argument| argument.parse::<usize>().is_err());
    let mut depths: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if depths.is_empty() {
        depths = vec![1, 2, 4, 8, 16, 32, 128];
    }
    let path = Path::new(directory.map_or("/var/tmp", String::as_str)).join(format!("polyaio-{}", std::process::id()));
    let direct = make(&path);
    let engine = Engine::builder().policy(Policy::Require("posix-aio".into())).build()?;
    let file = polyaio::OpenOptions::new().read(true).direct(Direct::Required).open(&engine, &path);
    std::fs::remove_file(&path)?;
    let (Ok(direct), Ok(file)) = (direct, file) else {
        println!("skipped: no direct I/O at {}", path.display());
        return Ok(());
    };
    println!("{:>6} {:^43} {:^21} {:^19}", "", "requests per second", "µs of CPU/request", "sleeps/request");
    let head = ["depth", "plain", "ours", "ratio", "device", "of that", "plain", "ours", "plain", "ours"];
    println!("{}", head.map(|name| format!("{name:>8}")).join(" "));
    for depth in depths {
        let (mut theirs, mut mine, mut most) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(plain(&direct, depth));
            mine.push(if depth == 1 { ours_waiting(&file) } else { ours(&engine, &file, depth) });
            most.extend(device(&direct, depth));
        }
        let mut ratios: Vec<f64> = mine.iter().zip(&theirs).map(|(mine, theirs)| mine.rate / theirs.rate).collect();
        ratios.sort_by(f64::total_cmp);
        let (theirs, mine, ratio) = (median(theirs), median(mine), ratios[ROUNDS / 2]);
        let device = if most.is_empty() { f64::NAN } else { median(most).rate };
        let rates = format!("{depth:>8} {:>8.0} {:>8.0} {ratio:>8.2}", theirs.rate, mine.rate);
        let rates = format!("{rates} {device:>8.0} {:>8.2}", mine.rate / device);
        println!("{rates} {:>8.1} {:>8.1} {:>8.2} {:>8.2}", theirs.cpu_us, mine.cpu_us, theirs.sleeps, mine.sleeps);
    }
    Ok(())
}
