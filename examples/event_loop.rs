//! `event_loop`: a program with a loop of its own. One thread waits in `epoll_wait` for a timer and for the engine's
//! descriptor; when that is readable it takes a turn, and looks at its reads.
//!
//! ```text
//! cargo run --release --example event_loop -- --direct /var/log/large.log
//! ```
//!
//! Prints the length of each file and the sum of its bytes; with `--tick` also how far it is, from the same loop.
//! Exit codes: 0, 1 when something failed, 2 for wrong usage.

#[path = "common/output.rs"]
mod output;
#[path = "common/selection.rs"]
mod selection;
#[path = "common/text.rs"]
mod text;

use std::future::Future as _;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};

use clap::Parser;
use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, Op, OpenOptions, ops};

use crate::selection::{Selection, Tally};
use crate::text::{Failure, say};

const BLOCK: usize = 64 * 1024;

/// Sums the bytes of files, many reads at a time, from an epoll loop.
#[derive(Parser)]
#[command(name = "event_loop", version)]
struct Args {
    /// Files to read
    #[arg(required = true)]
    files: Vec<PathBuf>,

    /// Reads in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    depth: u16,

    /// Say how far it is every so many milliseconds, on standard error
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    tick: Option<u32>,

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
            say(format_args!("event_loop: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let engine = selection::start(args.selection.builder())?;
    let mut events = Loop::new(&engine, args.tick).map_err(|error| Failure::of("cannot wait for events", &error))?;
    for path in &args.files {
        let direct = if args.direct { Direct::Preferred } else { Direct::Off };
        let opened = OpenOptions::new().read(true).direct(direct).open(&engine, path);
        let file = opened.map_err(Failure::of_library)?;
        let (length, sum) = events.sum(&file, path, usize::from(args.depth))?;
        output::print(format!("{}: {length} bytes, sum {sum}", path.display()))?;
    }
    say(Tally::of(&engine));
    Ok(())
}

/// A read in flight: its number, which is its place in the file in blocks, and the operation.
type InFlight = (u64, Op<ops::Read<AlignedBuf>>);

/// The program's loop.
struct Loop<'a> {
    engine: &'a Engine,
    epoll: OwnedFd,
    timer: OwnedFd,
}

const ENGINE: u64 = 0;
const TIMER: u64 = 1;

impl<'a> Loop<'a> {
    fn new(engine: &'a Engine, tick: Option<u32>) -> io::Result<Self> {
        let notification = engine.notification().map_err(io::Error::from)?;
        let milliseconds = i64::from(tick.unwrap_or(0));
        let period = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
        let every = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the descriptors are new and nobody else's; `every` is read during the call.
        let (epoll, timer) = unsafe {
            let epoll = owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            let timer = owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK))?;
            check(libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const every, std::ptr::null_mut()))?;
            (epoll, timer)
        };
        for (fd, which) in [(notification.as_raw_fd(), ENGINE), (timer.as_raw_fd(), TIMER)] {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: which };
            // SAFETY: `event` is read during the call.
            check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
        }
        Ok(Self { engine, epoll, timer })
    }

    /// Length and sum of the bytes of a file.
    fn sum(&mut self, file: &File, path: &Path, depth: usize) -> Result<(u64, u64), Failure> {
        let failed = |error| Failure::of(format_args!("cannot read {}", path.display()), &error);
        if file.is_stream() {
            return Err(Failure::new(format!("{} has no offsets: name a file", path.display())));
        }
        let length = file.len().wait().map_err(failed)?;
        let mut reads: Vec<InFlight> = Vec::new();
        let (mut next, mut so_far, mut sum) = (0, 0, 0);
        loop {
            while reads.len() < depth && next * (BLOCK as u64) < length {
                reads.push((next, file.read_at(file.buffer(BLOCK), next * BLOCK as u64)));
                next += 1;
            }
            // A waker that wakes nobody: the descriptor tells when to look again.
            let mut context = Context::from_waker(Waker::noop());
            let (mut over, mut failure) = (false, None);
            reads.retain_mut(|(block, read)| match Pin::new(read).poll(&mut context) {
                Poll::Pending => true,
                Poll::Ready(BufResult(Ok(n), data)) => {
                    so_far += n as u64;
                    sum += data[..n].iter().map(|byte| u64::from(*byte)).sum::<u64>();
                    if (n as u64) < (length - *block * BLOCK as u64).min(BLOCK as u64) {
                        failure = Some(io::Error::other("it became shorter meanwhile"));
                    }
                    over = true;
                    false
                }
                Poll::Ready(BufResult(Err(error), _)) => {
                    failure = Some(error);
                    false
                }
            });
            if let Some(error) = failure {
                return Err(failed(error));
            }
            if so_far >= length {
                return Ok((so_far, sum));
            }
            // What has just ended makes room for more, before anything is waited for.
            if !over && self.wait().map_err(failed)? {
                say(format_args!("{}: {so_far} of {length} bytes, {} reads in flight", path.display(), reads.len()));
            }
        }
    }

    /// Waits for the next event; whether it is time to say something.
    fn wait(&mut self) -> io::Result<bool> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        // SAFETY: the kernel fills at most two entries.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), 2, -1) };
        let count = match check(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => count? as usize,
        };
        let mut tick = false;
        for event in &events[..count] {
            match event.u64 {
                ENGINE => _ = self.engine.turn(0, usize::MAX, None),
                _ => {
                    let mut expirations = 0u64;
                    // SAFETY: eight bytes are written to `expirations`.
                    unsafe { libc::read(self.timer.as_raw_fd(), (&raw mut expirations).cast(), 8) };
                    tick = true;
                }
            }
        }
        Ok(tick)
    }
}

fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// # Safety
/// The descriptor, if it is one, is new and nobody else's.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: forwarded to the caller.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
