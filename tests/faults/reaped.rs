//! Completions that are reaped: a backend that parks its requests, and gives them back by their ids.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polyaio::backend::{Batch, Capabilities, Completions, Wait};
use polyaio::{Backend, BufResult, Errno, Outcome, Request, RequestId};

use crate::tools::{Begun, Census, Watchdog, eventually, join, lock, park_on, transfers};
use crate::{BLOCK, Bench, prefer};

const RING: &str = "ring";

/// Serves a request when it is submitted and reports it later, by its id, from a "ring" that has to be reaped.
struct Ring {
    notification: OwnedFd,
    done: Mutex<VecDeque<(u64, Outcome)>>,
    /// Reports each completion twice, and ids that never were.
    noisy: bool,
    /// Keeps completions from being seen.
    shut: AtomicBool,
    reaps: AtomicUsize,
    inside: AtomicUsize,
    bound: usize,
}

impl Ring {
    fn new(noisy: bool, bound: usize) -> Arc<Self> {
        // SAFETY: the descriptor is new and nobody else's.
        let notification = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) };
        let (done, shut) = (Mutex::default(), AtomicBool::new(false));
        let (reaps, inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { notification, done, noisy, shut, reaps, inside, bound })
    }

    fn ring(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes are read from `one`.
        unsafe { libc::write(self.notification.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.ring();
    }

    /// Reads or writes at once, and notes the result under the id that `park` gives.
    fn take(&self, mut request: Request) {
        let (fd, position) = (request.descriptor().expect("a real file"), request.position().unwrap_or(0));
        let write = request.kind() == polyaio::OpKind::Write;
        // SAFETY: the memory is used for what the kind says, before the request is parked.
        let range = unsafe { request.start() }[0];
        // SAFETY: the range is valid for its length until the request is complete.
        let n = unsafe {
            if write {
                libc::pwrite(fd, range.base.cast(), range.len, position as libc::off_t)
            } else {
                libc::pread(fd, range.base.cast(), range.len, position as libc::off_t)
            }
        };
        let id = request.park().to_u64();
        lock(&self.done).push_back((id, u64::try_from(n).map_err(|_| Errno::last())));
        self.ring();
    }
}

impl Backend for Ring {
    fn name(&self) -> &'static str {
        RING
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = transfers(self.bound);
        capabilities.operations =
            polyaio::backend::OpSet::NONE.with(polyaio::OpKind::Read).with(polyaio::OpKind::Write);
        capabilities.reaped = true;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while lock(&self.done).len() < self.bound {
            let Some(request) = batch.take() else { return };
            self.take(request);
        }
    }

    fn ready(&self) -> bool {
        !self.shut.load(Ordering::SeqCst) && !lock(&self.done).is_empty()
    }

    fn notification(&self) -> Option<BorrowedFd<'_>> {
        Some(self.notification.as_fd())
    }

    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two threads reap at once");
        self.reaps.fetch_add(1, Ordering::SeqCst);
        let mut count = 0;
        while count < wait.max && !self.shut.load(Ordering::SeqCst) {
            let Some((id, outcome)) = lock(&self.done).pop_front() else { break };
            // SAFETY: `take` has parked it under this id, and its transfer is over.
            let known = unsafe { completions.push(RequestId::from_u64(id), outcome) };
            assert!(known, "a request that is parked");
            if self.noisy {
                for forged in [id, id ^ 1 << 32, id + (1 << 40), 0, u64::MAX, 0xFFFF_FFFF] {
                    // SAFETY: no request is parked under any of these.
                    let known = unsafe { completions.push(RequestId::from_u64(forged), Ok(1 << 20)) };
                    assert!(!known, "{forged:#x}");
                }
            }
            count += 1;
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        count
    }

    fn shutdown(&self) {}
}

fn read_all(bench: &Bench, foreign: bool) {
    let count = bench.data.len() / BLOCK;
    let reads = join((0..count).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64)));
    let results = if foreign { park_on(reads) } else { bench.engine.block_on(reads) };
    for (i, BufResult(n, back)) in results.into_iter().enumerate() {
        assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
    }
}

#[test]
fn reaped_by_whoever_waits() {
    let _watchdog = Watchdog::new("faults: reaped_by_whoever_waits");
    for bound in [1, 3, 1000] {
        let ring = Ring::new(false, bound);
        let bench = Bench::on(prefer(ring.clone(), RING), 64, false);
        (0..10).for_each(|round| read_all(&bench, round % 2 == 0));
        assert_eq!((bench.served(RING), bench.engine.stats().total_fallbacks()), (640, 0), "bound {bound}");
        assert!(ring.reaps.load(Ordering::SeqCst) > 0);
    }
}

/// A future that wakes itself in each poll keeps its thread from ever sleeping, and not from collecting.
#[test]
fn reaped_by_one_that_never_sleeps() {
    let _watchdog = Watchdog::new("faults: reaped_by_one_that_never_sleeps");
    let ring = Ring::new(false, 100);
    let bench = Bench::on(prefer(ring.clone(), RING), 4, false);
    ring.shut.store(true, Ordering::SeqCst);
    // What is in a batch is polled again when it is woken, and at no other time.
    let mut batch = bench.engine.batch();
    batch.push(bench.file.read_at(vec![0; BLOCK], 0), |BufResult(n, _)| n.expect("readable"));
    let (mut all, mut polls) = (std::pin::pin!(batch.all()), 0);
    let results = bench.engine.block_on(std::future::poll_fn(|context| {
        polls += 1;
        if polls == 3 {
            ring.open();
        }
        context.waker().wake_by_ref();
        all.as_mut().poll(context)
    }));
    assert_eq!(results, [BLOCK]);
}

/// Ids that are stale, doubled or made up are counted, and touch nobody's request.
#[test]
fn unknown_ids_are_ignored() {
    let _watchdog = Watchdog::new("faults: unknown_ids_are_ignored");
    let bench = Bench::on(prefer(Ring::new(true, 100), RING), 32, false);
    (0..10).for_each(|round| read_all(&bench, round % 2 == 0));
    let stats = bench.engine.stats();
    assert_eq!(bench.served(RING), 320);
    assert_eq!((stats.anomalies.unknown_ids, stats.anomalies.implausible), (320 * 6, 0));
}

/// Several threads wait; one at a time reaps, for all of them.
#[test]
fn one_reaper_at_a_time() {
    let _watchdog = Watchdog::new("faults: one_reaper_at_a_time");
    let bench = Bench::on(prefer(Ring::new(false, 16), RING), 32, false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let bench = &bench;
            scope.spawn(move || (0..20).for_each(|round| read_all(bench, (thread + round) % 3 == 0)));
        }
    });
    assert_eq!(bench.served(RING), 4 * 20 * 32);
}

/// Abandoned while parked: the slot keeps the buffer until the id comes back.
#[test]
fn abandoned_while_parked() {
    let _watchdog = Watchdog::new("faults: abandoned_while_parked");
    let census = Census::default();
    let ring = Ring::new(false, 100);
    let bench = Bench::on(prefer(ring.clone(), RING), 16, false);
    ring.shut.store(true, Ordering::SeqCst);
    let begin = |i| Begun::new(bench.file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
    let mut reads: Vec<_> = (0..16).map(begin).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    drop(reads);
    assert_eq!(census.live(), 16, "the device may still write into them");
    ring.open();
    // Nobody waits any more: whoever does the next thing reaps.
    eventually("all buffers are freed", || {
        read_all(&bench, false);
        census.live() == 0
    });
}

/// The engine's end waits for what is parked.
#[test]
fn the_end_waits_for_what_is_parked() {
    let _watchdog = Watchdog::new("faults: the_end_waits_for_what_is_parked");
    let census = Census::default();
    let ring = Ring::new(false, 100);
    let Bench { engine, file, .. } = Bench::on(prefer(ring.clone(), RING), 16, false);
    ring.shut.store(true, Ordering::SeqCst);
    let mut read = Begun::new(file.read_at(census.buffer(BLOCK, 0), 0));
    assert!(read.again());
    let dropping = std::thread::spawn(move || drop(engine));
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert!(!dropping.is_finished());
    ring.open();
    dropping.join().expect("no panic");
    assert_eq!(park_on(read).0.expect("readable"), BLOCK);
    drop(file);
    assert_eq!(census.live(), 0);
}
