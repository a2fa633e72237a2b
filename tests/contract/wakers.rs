//! Executors, wakers, threads: whoever polls, whoever wakes, whoever waits.

use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::Duration;

use polyaio::{AlignedBuf, BufResult, File, Op};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::support::{self, pattern};
use crate::tools::{
    Begun, Census, Flag, HELD, Held, Oneshot, PanickingWaker, eventually, join, one_of_many, park_on, poll_once,
    spawn_park, transfers,
};
#[cfg(unix)]
use crate::tools::{Respawn, respawn, stays_asleep};

/// Polls with this waker.
fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn read(file: &File, place: usize) -> Op<polyaio::ops::Read<AlignedBuf>> {
    file.read_at(buffer(BLOCK), (place * BLOCK) as u64)
}

/// `block_on` sleeps in the kernel for completions, and must hear of everything else too.
pub(crate) fn a_message_from_another_thread(bed: &Bed) {
    let engine = bed.engine();
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut idle = reader.read(vec![0; 10]);
    for round in 0..20 {
        // Alone; with a stream that is waited for, so that it sleeps in the kernel; with a request on its way.
        if round == 10 {
            assert!(poll_once(&mut idle).is_pending());
        }
        let message = Oneshot::new();
        let sender = message.clone();
        let sending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(round % 5));
            sender.send(round);
        });
        assert_eq!(engine.block_on(message), round);
        sending.join().expect("no panic");
    }
}

pub(crate) fn begun_here_and_finished_elsewhere(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(64 * BLOCK, 1);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        for polls in [1, 2] {
            // Here is inside of `block_on`, whose thread would have collected them.
            let reads = engine.block_on(async {
                let mut reads: Vec<_> = (0..64).map(|place| Begun::new(read(&file, place))).collect();
                for _ in 1..polls {
                    reads.iter_mut().for_each(|read| _ = read.again());
                }
                reads
            });
            let elsewhere: Vec<_> = reads.into_iter().map(spawn_park).collect();
            for (place, task) in elsewhere.into_iter().enumerate() {
                let BufResult(n, back) = task.join().expect("no panic");
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[place * BLOCK..][..BLOCK]);
            }
        }
        // And the other way round.
        let mut sync = file.sync_all();
        assert!(poll_once(&mut sync).is_pending());
        engine.block_on(sync).expect("on a disk");
    }
}

pub(crate) fn polled_once_and_driven_by_others(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(8 * BLOCK, 2));
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let flag = Flag::new();
        let waker = Waker::from(flag.clone());
        let mut write = file.write_at(filled(&[1; BLOCK]), 0);
        assert!(poll_with(&mut write, &waker).is_pending());
        let mut sync = file.sync_all();
        assert!(poll_with(&mut sync, &waker).is_pending());
        // Nobody polls these two again; somebody else works on.
        eventually("a waker is called for each, beside the wake that brings it to the kernel", || {
            file.len().wait().expect("a file has a length");
            flag.wakes() >= 4
        });
        assert!(matches!(poll_once(&mut write), Poll::Ready(BufResult(Ok(BLOCK), _))));
        assert!(matches!(poll_once(&mut sync), Poll::Ready(Ok(()))));
    }
}

/// In a process of its own: what its threads do is counted.
#[cfg(unix)]
pub(crate) fn engine_threads_sleep_when_idle(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; 64 * BLOCK]);
    let writes = join((0..64).map(|i| file.write_at(filled(&[1; BLOCK]), i * BLOCK as u64)));
    park_on(writes).into_iter().for_each(|BufResult(n, _)| assert_eq!(n.expect("room"), BLOCK));
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    // On a foreign executor, so that a background thread waits for the stream; and on the engine's own.
    let mut reads: Vec<_> = (0..3).map(|_| reader.read(vec![0; 10])).collect();
    reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
    // At first some may be on their way to sleep.
    one_of_many("half a second of nothing", || stays_asleep(Duration::from_millis(500)));
}

/// A panic in a waker reaches neither the engine's threads nor the requests beside it.
pub(crate) fn wakers_that_panic(bed: &Bed) {
    for medium in bed.media() {
        let census = Census::default();
        let panicking = Arc::new(PanickingWaker::default());
        let waker = Waker::from(panicking.clone());
        let engine = bed.engine();
        let data = pattern(64 * BLOCK, 3);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        for _ in 0..5 {
            let well = (0..64).map(|place| read(&file, place)).collect::<Vec<_>>();
            // Inside of `block_on` a first poll wakes nobody, so that only completions meet the waker that panics.
            let (reads, results) = engine.block_on(async {
                let begin = |i| Begun::with(file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64), &waker);
                let reads: Vec<_> = (0..64).map(begin).collect();
                (reads, join(well).await)
            });
            for (i, BufResult(n, back)) in results.into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
            }
            for (i, read) in reads.into_iter().enumerate() {
                let BufResult(n, back) = park_on(read);
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(polyaio::IoBuf::as_slice(&back), &data[i * BLOCK..][..BLOCK]);
            }
        }
        assert!(medium == Medium::Buffered || panicking.wakes() > 0, "nobody was woken");
        assert_eq!(census.live(), 0);
        // A panic in the first poll is the poller's own; the engine is none the worse.
        let mut write = file.write_at(census.buffer(BLOCK, 1), 0);
        let _ = catch_unwind(AssertUnwindSafe(|| poll_with(&mut write, &waker)));
        drop(write);
        assert_eq!(read(&file, 1).wait().0.expect("readable"), BLOCK);
        drop(file);
        drop(engine);
        assert_eq!(census.live(), 0, "the buffer of the poll that panicked");
    }
}

/// What a [`touchy`] waker does.
#[derive(Default)]
struct Touchy {
    panics_when_cloned: AtomicBool,
    panics_when_dropped: AtomicBool,
    wakes: AtomicUsize,
}

/// A waker that panics where others do not: in its clone, in its drop.
fn touchy(state: &Arc<Touchy>) -> Waker {
    fn of(data: *const ()) -> ManuallyDrop<Arc<Touchy>> {
        // SAFETY: made of an `Arc` by `raw`; borrowed for as long as the waker lives, or dropped with it.
        ManuallyDrop::new(unsafe { Arc::from_raw(data.cast()) })
    }
    fn clone(data: *const ()) -> RawWaker {
        if of(data).panics_when_cloned.load(Ordering::SeqCst) {
            // Not `panic!`: the hook would print what is meant to happen.
            resume_unwind(Box::new("a clone that panics"));
        }
        raw(&of(data))
    }
    fn wake(data: *const ()) {
        wake_by_ref(data);
        end(data);
    }
    fn wake_by_ref(data: *const ()) {
        of(data).wakes.fetch_add(1, Ordering::SeqCst);
    }
    fn end(data: *const ()) {
        let state = ManuallyDrop::into_inner(of(data));
        if state.panics_when_dropped.load(Ordering::SeqCst) {
            resume_unwind(Box::new("a drop that panics"));
        }
    }
    fn raw(state: &Arc<Touchy>) -> RawWaker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, end);
        RawWaker::new(Arc::into_raw(state.clone()).cast(), &TABLE)
    }
    // SAFETY: the table keeps one count of the `Arc` for each waker, and the state can be used from any thread.
    unsafe { Waker::from_raw(raw(state)) }
}

/// A panic in the clone or in the drop of a waker is at most its caller's. On threads that are not, it ends where it began;
/// nothing is lost, and the engine goes on.
#[cfg(unix)]
pub(crate) fn wakers_that_panic_when_cloned_or_dropped(bed: &Bed) {
    let census = Census::default();
    let held = Held::new(transfers(10));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 1));
    let (reader, writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    for what in ["cloned", "dropped", "replaced", "woken"] {
        let state = Arc::new(Touchy::default());
        let waker = touchy(&state);
        let mut read = file.read_at(census.buffer(BLOCK, 0), 0);
        let mut stream = reader.read(census.buffer(1, 0));
        state.panics_when_cloned.store(what == "cloned", Ordering::SeqCst);
        // The first poll asks for a second one, which submits.
        for _ in 0..if what == "cloned" { 1 } else { 2 } {
            let first = catch_unwind(AssertUnwindSafe(|| poll_with(&mut read, &waker).is_pending()));
            let second = catch_unwind(AssertUnwindSafe(|| poll_with(&mut stream, &waker).is_pending()));
            assert!(what == "cloned" || first.is_ok_and(|pending| pending) && second.is_ok_and(|pending| pending));
        }
        state.panics_when_dropped.store(what != "cloned", Ordering::SeqCst);
        if what == "replaced" {
            let _ = catch_unwind(AssertUnwindSafe(|| poll_once(&mut read)));
            let _ = catch_unwind(AssertUnwindSafe(|| poll_once(&mut stream)));
        }
        if what == "woken" {
            let before = state.wakes.load(Ordering::SeqCst);
            (&writer).write_all(b"x").expect("room");
            eventually("both are woken, and nobody is unwound", || {
                file.len().wait().expect("a file has a length");
                held.release();
                state.wakes.load(Ordering::SeqCst) >= before + 2
            });
            state.panics_when_dropped.store(false, Ordering::SeqCst);
            assert_eq!(read.wait().0.expect("readable"), BLOCK);
            assert_eq!(stream.wait().0.expect("readable"), 1);
        } else {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(read)));
            let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
        }
        state.panics_when_dropped.store(false, Ordering::SeqCst);
        drop(waker);
        while held.release() {}
        // The next ones find everything as it should be.
        let mut next = file.read_at(census.buffer(BLOCK, 0), 0);
        eventually("the next one is with its backend", || {
            assert!(poll_once(&mut next).is_pending());
            held.held() == 1
        });
        assert!(held.release());
        assert_eq!(next.wait().0.expect("readable"), BLOCK, "{what}");
        let again = spawn_park(reader.read(census.buffer(1, 0)));
        (&writer).write_all(b"y").expect("room");
        assert_eq!(again.join().expect("no panic").0.expect("readable"), 1, "{what}");
    }
    eventually("all buffers are freed", || {
        file.len().wait().expect("a file has a length");
        held.release();
        census.live() == 0
    });
}

pub(crate) fn the_last_waker_is_the_one_that_counts(bed: &Bed) {
    let held = Held::new(transfers(10));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &[1; BLOCK]);
    let flags = [Flag::new(), Flag::new(), Flag::new()];
    let mut read = read(&file, 0);
    for flag in &flags {
        assert!(poll_with(&mut read, &Waker::from(flag.clone())).is_pending());
        assert!(poll_with(&mut read, &Waker::from(flag.clone())).is_pending());
    }
    let before = flags.each_ref().map(|flag| flag.wakes());
    assert!(held.release());
    let after = flags.each_ref().map(|flag| flag.wakes());
    assert_eq!(after, [before[0], before[1], before[2] + 1]);
    assert!(poll_once(&mut read).is_ready());
    assert_eq!(flags.each_ref().map(|flag| flag.wakes()), after, "and nobody is woken after the end");
}

/// Starts a request from inside of a waker, as an executor does that polls on the spot.
struct StartsNext {
    file: File,
    started: Mutex<Vec<Op<polyaio::ops::Read<AlignedBuf>>>>,
}

impl Wake for StartsNext {
    fn wake(self: Arc<Self>) {
        let mut next = read(&self.file, 1);
        for _ in 0..3 {
            if poll_once(&mut next).is_ready() {
                next = read(&self.file, 1);
            }
        }
        crate::tools::lock(&self.started).push(next);
    }
}

pub(crate) fn waking_starts_the_next_request(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(64 * BLOCK, 4));
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let starter = Arc::new(StartsNext { file: file.clone(), started: Mutex::default() });
        let waker = Waker::from(starter.clone());
        let begin = async { (0..64).map(|place| Begun::with(read(&file, place), &waker)).collect::<Vec<_>>() };
        let first = engine.block_on(begin);
        drop(waker);
        for BufResult(n, _) in engine.block_on(join(first)) {
            assert_eq!(n.expect("readable"), BLOCK);
        }
        let started = std::mem::take(&mut *crate::tools::lock(&starter.started));
        let wanted = pattern(64 * BLOCK, 4)[BLOCK..2 * BLOCK].to_vec();
        for op in started {
            let BufResult(n, back) = op.wait();
            assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &wanted[..]));
        }
        assert_healthy(&engine.stats());
    }
}

pub(crate) fn block_on_within_block_on(bed: &Bed) {
    let (outer, inner) = (bed.engine(), bed.engine());
    for medium in bed.media() {
        let path = bed.make(&format!("{medium:?}"), &pattern(8 * BLOCK, 5));
        let (file, other) = (bed.open(&outer, medium, &path), bed.open(&inner, medium, &path));
        for _ in 0..20 {
            bed.evict(&path, 0, 0);
            outer.block_on(async {
                let pending: Vec<_> = (0..8).map(|place| Begun::new(read(&file, place))).collect();
                // The same engine, and another one, on the same thread's stack.
                assert_eq!(read(&file, 0).wait().0.expect("readable"), BLOCK);
                assert_eq!(inner.block_on(read(&other, 1)).0.expect("readable"), BLOCK);
                for BufResult(n, _) in join(pending).await {
                    assert_eq!(n.expect("readable"), BLOCK);
                }
            });
        }
    }
}

extern "C" fn ignore(_: libc::c_int) {}

/// Every sleep and every system call is interrupted, a thousand times a second. In a process of its own.
#[cfg(unix)]
pub(crate) fn a_signal_storm(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let tick = libc::timeval { tv_sec: 0, tv_usec: 700 };
    let timer = libc::itimerval { it_interval: tick, it_value: tick };
    // SAFETY: the handler does nothing, which is safe in a signal; the structures are read during the calls. No
    // SA_RESTART: calls answer EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
    for medium in bed.media() {
        let engine = bed.builder().queue_depth(8).build().expect("an engine");
        bed.watch(&engine);
        let data = pattern(64 * BLOCK, 6);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        let (reader, mut writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        for round in 0..20 {
            bed.evict(&path, 0, 0);
            let reads = join((0..64).map(|place| read(&file, place)));
            let (results, n) = engine.block_on(async {
                let results = reads.await;
                writer.write_all(b"12345").expect("room");
                (results, reader.read_exact(vec![0; 5]).await.0)
            });
            n.expect("it is there");
            for (i, BufResult(n, back)) in results.into_iter().enumerate() {
                assert_eq!(n.expect("interrupted calls are repeated"), BLOCK, "round {round}");
                assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
            }
            file.write_all_at(filled(&data), 0).wait().0.expect("room");
            file.sync_data().wait().expect("on a disk");
        }
        assert_healthy(&engine.stats());
    }
}

/// Its thread has the driver's seat already.
pub(crate) fn a_waker_that_waits(bed: &Bed) {
    struct Waits(polyaio::Engine, File, AtomicBool);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            if !self.2.swap(true, Ordering::SeqCst) {
                let (reader, writer) = support::pipe();
                let reader = self.0.adopt(reader.into()).expect("a pipe");
                let writing = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    (&writer).write_all(b"x").expect("there is a reader");
                });
                assert_eq!(reader.read(vec![0; 1]).wait().0.expect("readable"), 1);
                writing.join().expect("no panic");
                self.1.read_at(buffer(BLOCK), 0).wait().0.expect("readable");
            }
        }
    }
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &pattern(BLOCK, 1));
        let (reader, writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let mut read = reader.read(vec![0; 1]);
        let waits = Arc::new(Waits(engine.clone(), file, AtomicBool::new(false)));
        let waker = Waker::from(waits.clone());
        assert!(poll_with(&mut read, &waker).is_pending());
        (&writer).write_all(b"x").expect("there is a reader");
        while !waits.2.load(Ordering::SeqCst) {
            engine.turn(1, usize::MAX, None);
        }
        assert_eq!(read.wait().0.expect("readable"), 1);
    }
}
