//! How one thread can sleep until a request of kernel AIO is over, and what each way costs: the figures behind
//! `docs/decisions/0021-one-way-to-sleep.md`. No line of the engine runs in it.
//!
//! `cargo bench --bench sleep` prints, per queue depth and way, microseconds per request, microseconds of CPU time per request,
//! and both as ratios to plain `io_getevents`. The ways alternate in short rounds; printed are medians.
//!
//! - *io_getevents*: nothing can end the sleep but a completion.
//! - *with a poll armed*: the same, with an `IOCB_CMD_POLL` on an eventfd in the same context, so that other threads can end
//!   the sleep.
//! - *armed, and signalled*: each request signals an eventfd as well (`IOCB_FLAG_RESFD`), as it must where another thread may
//!   come to wait for it.
//! - *epoll, and the ring*: what the engine does. Each request signals an eventfd, the sleep is in `epoll_wait`, and events are
//!   read from the ring in memory.
//!
//! At the end of a round the armed poll is cancelled by `io_cancel`, and the bench checks what that answers: `EINPROGRESS`, and
//! an event.
//!
//! The file is chosen as for `cargo bench --bench threads`.

use std::error::Error;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use polyaio::AlignedBuf;
use raw::{BLOCK, Blocks, Event, Iocb, RawContext, cpu_time, file_to_read, median};

#[path = "raw/mod.rs"]
mod raw;

const ROUNDS: usize = 31;
const DEPTH_MAX: usize = 32;
/// `IOCB_CMD_POLL`; since Linux 4.18.
const POLL: u16 = 5;
/// `IOCB_FLAG_RESFD`.
const RESFD: u32 = 1;
/// `data` of the poll.
const OF_POLL: u64 = u64::MAX;
/// A kernel that has not answered by then never will.
static PATIENCE: libc::timespec = libc::timespec { tv_sec: 60, tv_nsec: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    name: &'static str,
    armed: bool,
    signalled: bool,
    epoll: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "io_getevents", armed: false, signalled: false, epoll: false },
    Way { name: "with a poll armed", armed: true, signalled: false, epoll: false },
    Way { name: "armed, and signalled", armed: true, signalled: true, epoll: false },
    Way { name: "epoll, and the ring", armed: false, signalled: true, epoll: true },
];

/// A context, and what can end the sleep of who waits for it.
struct Bed {
    file: File,
    blocks: u64,
    context: RawContext,
    /// Signalled by completions.
    completions: OwnedFd,
    /// Signalled by nobody: what other threads would ring.
    bell: OwnedFd,
    epoll: OwnedFd,
}

/// Seconds, and seconds of CPU time, per request, of each way.
type Round = [(f64, f64); WAYS.len()];

impl Bed {
    fn new(file: File, blocks: u64) -> Self {
        // SAFETY: the calls take one pointer, to an event that outlives them, and the descriptors that they return are new.
        unsafe {
            let eventfd = || OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK));
            let (completions, bell) = (eventfd(), eventfd());
            let epoll = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
            for fd in [&completions, &bell] {
                let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
                let added = libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event);
                assert_eq!(added, 0);
            }
            Self { file, blocks, context: RawContext::new(DEPTH_MAX + 1), completions, bell, epoll }
        }
    }

    fn submit(&self, iocbs: &[*mut Iocb]) {
        // SAFETY: the caller's iocbs are alive, and so is what they point at until their events have come.
        unsafe { self.context.submit(iocbs) }.unwrap_or_else(|error| panic!("io_submit: {error}"));
    }

    fn sleep_in_getevents(&self, events: &mut [Event]) -> usize {
        self.context.wait(events, Some(&PATIENCE))
    }

    /// Looks at the ring, sleeps if it is empty, and looks again.
    fn sleep_in_epoll(&self, events: &mut [Event]) -> usize {
        let got = self.take(events);
        if got > 0 {
            return got;
        }
        let mut woken = [libc::epoll_event { events: 0, u64: 0 }; 8];
        // SAFETY: the kernel fills at most eight entries.
        unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), woken.as_mut_ptr(), 8, 60_000) };
        self.take(events)
    }

    fn take(&self, events: &mut [Event]) -> usize {
        // SAFETY: this thread is the only one that has the context.
        unsafe { self.context.take(events) }
    }

    fn arm(&self, poll: &mut Iocb) {
        *poll = Iocb {
            data: OF_POLL,
            opcode: POLL,
            fildes: self.bell.as_raw_fd() as u32,
            buf: libc::POLLIN as u64,
            ..Iocb::default()
        };
        self.submit(&[&raw mut *poll]);
    }

    /// Ends the armed poll.
    fn disarm(&self, poll: &mut Iocb) {
        let mut event: Event = [0; 4];
        // SAFETY: the iocb is at the address that it was submitted from, which is what the kernel knows it by.
        let answer = unsafe { libc::syscall(libc::SYS_io_cancel, self.context.0, &raw mut *poll, &raw mut event) };
        let error = std::io::Error::last_os_error();
        assert_eq!((answer, error.raw_os_error()), (-1, Some(libc::EINPROGRESS)), "io_cancel of a poll: {error}");
        let got = self.sleep_in_getevents(std::slice::from_mut(&mut event));
        assert_eq!((got, event[0]), (1, OF_POLL), "and an event");
    }

    /// `requests` reads, `depth` at a time: time and CPU time of each, in seconds.
    fn round(&self, way: Way, depth: usize, requests: usize, seed: usize) -> (f64, f64) {
        let buffers: Vec<AlignedBuf> = (0..depth).map(|_| AlignedBuf::zeroed(BLOCK, BLOCK)).collect();
        let mut blocks = Blocks::new(seed, self.blocks);
        let (flags, resfd) = if way.signalled { (RESFD, self.completions.as_raw_fd() as u32) } else { (0, 0) };
        let fd: RawFd = self.file.as_raw_fd();
        let (mut iocbs, mut poll) = (vec![Iocb::default(); depth], Iocb::default());
        let mut idle: Vec<usize> = (0..depth).collect();
        let mut pointers: Vec<*mut Iocb> = Vec::with_capacity(depth);
        let mut events = vec![[0u64; 4]; depth];
        let (mut sent, mut done) = (0, 0);
        if way.armed {
            self.arm(&mut poll);
        }
        let (cpu, start) = (cpu_time(), Instant::now());
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
                    flags,
                    resfd,
                    ..Iocb::default()
                };
                pointers.push(&raw mut iocbs[at]);
                sent += 1;
            }
            self.submit(&pointers);
            let got = if way.epoll { self.sleep_in_epoll(&mut events) } else { self.sleep_in_getevents(&mut events) };
            for event in &events[..got] {
                assert_eq!(event[2], BLOCK as u64);
                idle.push(event[0] as usize);
                done += 1;
            }
        }
        let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
        if way.armed {
            self.disarm(&mut poll);
        }
        let each = |time: Duration| time.as_secs_f64() / requests as f64;
        (each(wall), each(cpu))
    }

    fn measure(&self, depth: usize, requests: usize) {
        let mut rounds = Vec::new();
        for number in 0..ROUNDS {
            let mut round: Round = [(0.0, 0.0); WAYS.len()];
            for at in (0..WAYS.len()).map(|at| (at + number) % WAYS.len()) {
                round[at] = self.round(WAYS[at], depth, requests, depth * 1000 + number * WAYS.len() + at + 1);
            }
            rounds.push(round);
        }
        for (at, way) in WAYS.iter().enumerate() {
            let of = |what: &dyn Fn(&Round) -> f64| median(rounds.iter().map(what).collect());
            println!(
                "{depth:>6} {:<22} {:>9.2} {:>9.2} {:>9.3} {:>9.3}",
                way.name,
                of(&|round| round[at].0) * 1e6,
                of(&|round| round[at].1) * 1e6,
                of(&|round| round[at].0 / round[0].0),
                of(&|round| round[at].1 / round[0].1),
            );
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (_open, path) = file_to_read()?;
    let mut file = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path)?;
    let blocks = file.seek(SeekFrom::End(0))? / BLOCK as u64;
    let bed = Bed::new(file, blocks);
    println!("{:>6} {:<22} {:>9} {:>9} {:>9} {:>9}", "depth", path.display(), "us", "CPU us", "x time", "x CPU");
    bed.measure(1, 500);
    bed.measure(DEPTH_MAX, 4000);
    Ok(())
}
