//! The program drives: `turn`, the engine's descriptor in a loop of its own, and waits that end.

use std::io::Write as _;
#[cfg(unix)]
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use polyaio::{BufResult, Engine};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer};
use crate::support::{self, pattern};
use crate::tools::{HELD, Held, eventually, poll_once, transfers};

/// Polls all that is not done yet, with a waker that wakes nobody. Returns how many are left.
fn poll_all<F: Future + Unpin>(futures: &mut Vec<(usize, F)>, mut done: impl FnMut(usize, F::Output)) -> usize {
    let mut context = Context::from_waker(Waker::noop());
    futures.retain_mut(|(number, future)| match Pin::new(future).poll(&mut context) {
        Poll::Ready(output) => {
            done(*number, output);
            false
        }
        Poll::Pending => true,
    });
    futures.len()
}

pub(crate) fn turn_waits_for_as_many_as_it_is_told(bed: &Bed) {
    const READS: usize = 32;
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(READS * BLOCK, 1);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let mut reads: Vec<_> = (0..READS).map(|i| (i, file.read_at(buffer(BLOCK), (i * BLOCK) as u64))).collect();
        let check = |i: usize, BufResult(n, back): BufResult<usize, polyaio::AlignedBuf>| {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back[..], data[i * BLOCK..][..BLOCK], "read {i}");
        };
        let left = poll_all(&mut reads, check);
        let mut ended = 0;
        while ended < left {
            let wanted = (left - ended).min(5);
            let now = engine.turn(wanted, usize::MAX, None);
            assert!(now >= wanted, "{now} of {wanted}");
            ended += now;
        }
        assert_eq!(ended, left, "each once");
        assert_eq!(poll_all(&mut reads, check), 0, "what has ended is there");
        assert_eq!(engine.turn(0, usize::MAX, None), 0, "nothing is left, and nothing is waited for");
        assert_healthy(&engine.stats());
    }
}

pub(crate) fn turn_comes_back_in_time(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut read = reader.read(vec![0; 4]);
    assert!(poll_once(&mut read).is_pending());
    let timeout = Duration::from_millis(30);
    for _ in 0..3 {
        let begin = Instant::now();
        assert_eq!(engine.turn(1, usize::MAX, Some(timeout)), 0);
        assert!(begin.elapsed() >= timeout, "not before its time: {:?}", begin.elapsed());
    }
    assert!(read.wait_timeout(timeout).is_none());
    writer.write_all(b"ping").expect("there is a reader");
    assert!(engine.turn(1, usize::MAX, None) >= 1, "a stream that becomes ready counts");
    let Some(BufResult(n, back)) = read.wait_timeout(Duration::from_secs(20)) else { panic!("it is there") };
    assert_eq!((n.expect("readable"), &back[..]), (4, &b"ping"[..]));
    // The same with the name of who has served it.
    let mut read = reader.read(vec![0; 4]).traced();
    assert!(read.wait_timeout(Duration::from_millis(5)).is_none());
    writer.write_all(b"pong").expect("there is a reader");
    let Some((BufResult(n, back), trace)) = read.wait_timeout(Duration::from_secs(20)) else { panic!("it is there") };
    assert_eq!((n.expect("readable"), &back[..]), (4, &b"pong"[..]));
    // Windows tells of no readiness: a worker waits inside of the call.
    assert_eq!(trace.served_by, if cfg!(windows) { "stream-workers" } else { "inline" });
}

/// A wait that ends leaves its operation, and its buffer, in peace.
pub(crate) fn a_wait_that_ends_ends_nothing_else(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(256 * BLOCK, 2);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for round in 0..30 {
            bed.evict(&path, 0, 0);
            let mut read = file.read_exact_at(buffer(data.len()), 0);
            let back = match read.wait_timeout(Duration::from_micros(round * 10)) {
                Some(BufResult(done, back)) => done.map(|()| back),
                None => read.wait().into_result().map(|((), back)| back),
            };
            assert!(back.expect("readable")[..] == data, "{medium:?}, round {round}");
        }
    }
}

/// Waits until the engine's descriptor is readable.
#[cfg(unix)]
fn readable(engine: &Engine, limit: Duration) -> bool {
    let mut poll =
        libc::pollfd { fd: engine.notification().expect("a descriptor").as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, for the duration of the call.
    unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) == 1 }
}

/// The loop of a program that knows nothing but poll(2): no waker wakes it.
#[cfg(unix)]
pub(crate) fn the_descriptor_tells_when_to_turn(bed: &Bed) {
    const READS: usize = 40;
    for medium in bed.media() {
        let engine = bed.engine();
        engine.notification().expect("a descriptor");
        let data = pattern(READS * BLOCK, 3);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        let (reader, mut writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        for round in 0..20 {
            bed.evict(&path, 0, 0);
            let mut pipe = vec![(0, reader.read_exact(vec![0; 3]))];
            let mut reads: Vec<_> = (0..READS).map(|i| (i, file.read_at(buffer(BLOCK), (i * BLOCK) as u64))).collect();
            let sending = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(round % 3));
                writer.write_all(b"abc").expect("there is a reader");
                writer
            });
            loop {
                let left = poll_all(&mut reads, |i, BufResult(n, back)| {
                    assert_eq!(n.expect("readable"), BLOCK);
                    assert_eq!(back[..], data[i * BLOCK..][..BLOCK], "read {i}");
                });
                let left = left
                    + poll_all(&mut pipe, |_, BufResult(done, back)| {
                        done.expect("readable");
                        assert_eq!(back, b"abc");
                    });
                if left == 0 {
                    break;
                }
                assert!(readable(&engine, Duration::from_secs(20)), "{left} operations, and nobody says anything");
                engine.turn(0, usize::MAX, None);
            }
            writer = sending.join().expect("no panic");
        }
        // What was reported and not collected may come once more; then it is quiet.
        for _ in 0..10 {
            engine.turn(0, usize::MAX, None);
        }
        assert!(!readable(&engine, Duration::ZERO), "nothing is left to do");
        assert_healthy(&engine.stats());
    }
}

/// Polled once, with nobody behind it: the turn sends it and ends it.
pub(crate) fn polled_once_and_only_turned(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(BLOCK, 4));
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        for _ in 0..50 {
            let mut sync = file.sync_data();
            assert!(poll_once(&mut sync).is_pending());
            assert!(engine.turn(1, usize::MAX, None) >= 1);
            assert!(poll_once(&mut sync).is_ready(), "what has ended is there");
        }
    }
}

/// Whoever collects: each of those that wait for an end comes back.
pub(crate) fn turns_on_several_threads(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", &pattern(64 * BLOCK, 5));
    let file = bed.open(&engine, Medium::Buffered, &path);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let mut op = file.sync_data();
                    let mut rounds = 0;
                    while poll_once(&mut op).is_pending() {
                        // Another thread's end counts too: perhaps not ours yet.
                        engine.turn(1, usize::MAX, Some(Duration::from_secs(20)));
                        rounds += 1;
                        assert!(rounds < 10_000, "it never ends");
                    }
                }
            });
        }
    });
    assert_healthy(&engine.stats());
}

/// A waker that turns the engine once more: the turn around it still hears of what ends elsewhere.
pub(crate) fn a_turn_inside_a_turn(bed: &Bed) {
    struct Turns(Engine);
    impl Wake for Turns {
        fn wake(self: Arc<Self>) {
            self.0.turn(0, usize::MAX, None);
        }
    }
    let engine = bed.engine();
    // So that no other thread of ours collects.
    engine.notification().expect("a descriptor");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 6));
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut read = reader.read(vec![0; 1]);
    let waker = Waker::from(Arc::new(Turns(engine.clone())));
    assert!(Pin::new(&mut read).poll(&mut Context::from_waker(&waker)).is_pending());
    let elsewhere = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"x").expect("there is a reader");
        std::thread::sleep(Duration::from_millis(50));
        (file.len().wait().expect("a file has a length"), writer)
    });
    let begin = Instant::now();
    assert!(engine.turn(2, usize::MAX, Some(Duration::from_secs(20))) >= 2, "the pipe, and the length");
    assert!(begin.elapsed() < Duration::from_secs(10), "nobody has told it of the second");
    elsewhere.join().expect("no panic");
    drop(read);
}

/// Once the program has asked for the descriptor, those that wait still drive for themselves, one after the other.
pub(crate) fn who_waits_takes_the_seat_though_the_program_could(bed: &Bed) {
    let engine = bed.engine();
    engine.notification().expect("a descriptor");
    let wait = |engine: &Engine| {
        let (reader, writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let task = std::thread::spawn(move || reader.read(vec![0; 1]).wait().0.expect("readable"));
        std::thread::sleep(Duration::from_millis(50));
        (task, writer)
    };
    let (first, mut to_first) = wait(&engine);
    let (second, mut to_second) = wait(&engine);
    to_first.write_all(b"1").expect("there is a reader");
    assert_eq!(first.join().expect("no panic"), 1);
    to_second.write_all(b"2").expect("there is a reader");
    eventually("the second one drives now", || second.is_finished());
}

/// How often the handler below was called.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// Interrupts a thread of this process many times over, each time as soon as the last signal has arrived.
#[cfg(unix)]
fn interrupt(thread: i32) {
    for _ in 0..20 {
        let before = SIGNALS.load(Ordering::SeqCst);
        // SAFETY: takes no pointer; the thread lives, and the signal has a handler.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR2) };
        assert_eq!(sent, 0);
        eventually("the signal has arrived", || SIGNALS.load(Ordering::SeqCst) > before);
    }
}

/// Whoever waits for two is not satisfied with one and a handful of signals; nor is a time over before its end.
#[cfg(unix)]
pub(crate) fn signals_end_no_wait_early(bed: &Bed) {
    // SAFETY: the handler changes one atomic number, which is safe in a signal. No SA_RESTART: calls answer EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_signal as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
    }
    let held = Held::new(transfers(10));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(2 * BLOCK, 7));
    let mut reads: Vec<_> = (0..2).map(|i| file.read_at(buffer(BLOCK), i * BLOCK as u64)).collect();
    eventually("both are with their backend", || {
        reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
        held.held() == 2
    });
    let (both, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // SAFETY: takes nothing.
            tell.send(unsafe { libc::gettid() }).expect("somebody listens");
            assert!(engine.turn(2, usize::MAX, None) >= 2);
            assert!(both.load(Ordering::SeqCst), "it came back before the second was over");
            let limit = Duration::from_millis(30);
            let (reader, _writer) = support::pipe();
            let reader = engine.adopt(reader.into()).expect("a pipe");
            let mut read = reader.read(vec![0; 1]);
            assert!(poll_once(&mut read).is_pending());
            let begin = Instant::now();
            assert_eq!(engine.turn(1, usize::MAX, Some(limit)), 0);
            assert!(begin.elapsed() >= limit, "turn: {:?}", begin.elapsed());
            let begin = Instant::now();
            assert!(read.wait_timeout(limit).is_none() && begin.elapsed() >= limit, "wait: {:?}", begin.elapsed());
            over.store(true, Ordering::SeqCst);
            // It lives until nobody interrupts it any more.
            told_to_end(&over);
        });
        let thread = told.recv().expect("it tells");
        interrupt(thread);
        assert!(held.release());
        interrupt(thread);
        both.store(true, Ordering::SeqCst);
        assert!(held.release());
        while !over.load(Ordering::SeqCst) {
            interrupt(thread);
        }
        over.store(false, Ordering::SeqCst);
        waiting.join().expect("no panic");
    });
    for BufResult(n, _) in reads.into_iter().map(polyaio::Op::wait) {
        assert_eq!(n.expect("readable"), BLOCK);
    }
}

/// Waits until the flag is taken back.
fn told_to_end(flag: &AtomicBool) {
    eventually("the other side has ended too", || !flag.load(Ordering::SeqCst));
}

/// Turns until the engine's descriptor has nothing to report.
#[cfg(unix)]
#[track_caller]
fn assert_quiet(engine: &Engine) {
    // What was reported and not collected may come once more; then it is quiet.
    for _ in 0..10 {
        engine.turn(0, usize::MAX, None);
    }
    assert!(!readable(engine, Duration::ZERO), "it reports something, and there is nothing");
}

/// Requests in flight and streams that wait are no news; an end is, and data.
#[cfg(unix)]
pub(crate) fn the_descriptor_is_silent_until_something_ends(bed: &Bed) {
    let held = Held::new(transfers(10));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    engine.notification().expect("a descriptor");
    assert_quiet(&engine);
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 8));
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    for round in 0..5 {
        let (mut first, mut second) = (file.read_at(buffer(BLOCK), 0), file.read_at(buffer(BLOCK), 0));
        let mut stream = reader.read(vec![0; 4]);
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
        assert!(readable(&engine, Duration::from_secs(20)), "they want to be submitted");
        assert!(poll_once(&mut stream).is_pending());
        eventually("both are with their backend", || {
            engine.turn(0, usize::MAX, None);
            held.held() == 2
        });
        assert_quiet(&engine);
        assert!(held.release());
        assert!(readable(&engine, Duration::from_secs(20)), "round {round}: the first has ended");
        engine.turn(0, usize::MAX, None);
        assert!(poll_once(&mut first).is_ready() && poll_once(&mut second).is_pending());
        assert_quiet(&engine);
        writer.write_all(b"data").expect("room");
        assert!(readable(&engine, Duration::from_secs(20)), "round {round}: the stream has data");
        engine.turn(0, usize::MAX, None);
        assert!(poll_once(&mut stream).is_ready());
        assert_quiet(&engine);
        assert!(held.release());
        assert!(readable(&engine, Duration::from_secs(20)), "round {round}: the second has ended");
        engine.turn(0, usize::MAX, None);
        assert!(poll_once(&mut second).is_ready());
    }
    assert_quiet(&engine);
    assert_healthy(&engine.stats());
}
