//! The program drives: `turn`, the engine's descriptor in a loop of its own, and waits that end.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use polyaio::{BufResult, Engine};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, evict};
use crate::support::{self, pattern};
use crate::tools::{eventually, poll_once};

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
        evict(&path, 0, 0);
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
}

/// A wait that ends leaves its operation, and its buffer, in peace.
pub(crate) fn a_wait_that_ends_ends_nothing_else(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(256 * BLOCK, 2);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for round in 0..30 {
            evict(&path, 0, 0);
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
fn readable(engine: &Engine, limit: Duration) -> bool {
    let mut poll =
        libc::pollfd { fd: engine.notification().expect("a descriptor").as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, for the duration of the call.
    unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) == 1 }
}

/// The loop of a program that knows nothing but poll(2): no waker wakes it.
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
            evict(&path, 0, 0);
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
        evict(&path, 0, 0);
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
