use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Waker};

use futures::executor::block_on;
use polyaio::{BufPool, BufResult, Direct, Engine, PooledBuf};

use crate::support::{Scratch, pattern, pipe};
use crate::tools::{Begun, Flag, Numbers, Watchdog, eventually, poll_once};

/// Counts what each thread allocates.
struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: forwards to the system's allocator; the counter is a plain number without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: forwarded to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: forwarded to the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn buffers_are_aligned_and_apart() {
    for align in [1, 8, 512, 4096, 1 << 16] {
        let pool = BufPool::new(5, 1000, align);
        let mut buffers: Vec<PooledBuf> = std::iter::from_fn(|| pool.get()).collect();
        assert_eq!((buffers.len(), pool.available(), pool.count()), (5, 0, 5));
        for (fill, buffer) in (1..).zip(&mut buffers) {
            assert_eq!((buffer.len(), buffer.capacity()), (0, 1000));
            buffer.set_len(1000);
            assert!(buffer.iter().all(|byte| *byte == 0), "fresh memory is zeroed");
            assert_eq!(buffer.as_ptr() as usize % align, 0);
            buffer.fill(fill);
        }
        for (fill, buffer) in (1..).zip(&buffers) {
            assert!(buffer.iter().all(|byte| *byte == fill), "buffers overlap at alignment {align}");
        }
        drop(buffers);
        assert_eq!(pool.available(), 5);
        assert!(pool.get().is_some_and(|buffer| buffer.is_empty()), "a buffer that came back is empty");
    }
}

#[test]
fn nonsense_is_refused() {
    for (count, size, align) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 24), (usize::MAX, 4096, 4096), (2, 1 << 62, 1)]
    {
        let made = std::panic::catch_unwind(|| BufPool::new(count, size, align));
        assert!(made.is_err(), "{count} of {size} at {align}");
    }
}

#[test]
fn the_length_is_apart_from_the_capacity() {
    let mut buffer = BufPool::new(1, 8, 8).get().expect("it is new");
    assert_eq!(buffer.append(b"hello"), 5);
    assert_eq!(buffer.append(b"world"), 3, "what fits");
    assert_eq!(buffer.as_slice(), b"hellowor");
    buffer.clear();
    assert!(buffer.is_empty());
    buffer.set_len(2);
    assert_eq!(&polyaio::IoBuf::slice(buffer, 1..)[..], b"e");
    let mut other = BufPool::new(1, 8, 8).get().expect("it is new");
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.set_len(9))).is_err());
}

#[test]
fn who_waited_first_is_served_first() {
    let pool = BufPool::new(1, 8, 8);
    let held = pool.get();
    let flags = [Flag::new(), Flag::new(), Flag::new()];
    let mut lines = [pool.acquire(), pool.acquire(), pool.acquire()];
    for (line, flag) in lines.iter_mut().zip(&flags) {
        let waker = Waker::from(flag.clone());
        assert!(std::pin::Pin::new(line).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held);
    let wakes = || flags.each_ref().map(|flag| flag.wakes());
    assert_eq!(wakes(), [1, 0, 0], "one buffer wakes one");
    assert!(pool.get().is_none() && pool.available() == 0, "it is not a newcomer's");
    assert!(poll_once(&mut pool.acquire()).is_pending());
    let [first, second, mut third] = lines;
    // One leaves before its turn, one with the buffer in hand.
    drop(second);
    drop(first);
    assert_eq!(wakes(), [1, 0, 1]);
    assert!(poll_once(&mut third).is_ready());
    assert_eq!(pool.available(), 1);
}

#[test]
fn buffers_come_back_from_abandoned_requests() {
    let _watchdog = Watchdog::new("pool::buffers_come_back_from_abandoned_requests");
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts everywhere");
    let file = crate::open(&engine, &scratch.file("data", &pattern(1 << 16, 1)), Direct::Preferred);
    let pool = BufPool::new(4, 4096, 4096);
    for _ in 0..50 {
        let mut reads: Vec<_> = std::iter::from_fn(|| pool.get()).map(|buffer| file.read_at(buffer, 0)).collect();
        // Some are dropped unsent, some in flight.
        let mut reads: Vec<_> = reads.drain(..).map(Begun::new).collect();
        reads.iter_mut().take(2).for_each(|read| _ = read.again());
        drop(reads);
        eventually("somebody reaps what was dropped", || {
            file.len().wait().expect("a file has a length");
            pool.available() == 4
        });
    }
    let (reader, _writer) = pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut read = reader.read(pool.get().expect("all are back"));
    assert!(poll_once(&mut read).is_pending());
    drop(read);
    assert_eq!(pool.available(), 4);
}

#[test]
fn buffers_outlive_their_pool() {
    let pool = BufPool::new(2, 4096, 4096);
    let (mut a, b) = (pool.get().expect("it is new"), pool.get().expect("two"));
    drop(pool);
    drop(b);
    a.set_len(4096);
    a.fill(7);
    let a = std::thread::spawn(move || a).join().expect("it only moves");
    assert!(a.iter().all(|byte| *byte == 7));
}

#[test]
fn reads_and_writes_keep_to_length_and_capacity() {
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts everywhere");
    let file = crate::open(&engine, &scratch.path("data"), Direct::Off);
    let pool = BufPool::new(1, 4096, 4096);
    let mut buffer = pool.get().expect("it is new");
    buffer.append(b"hello");
    let BufResult(n, buffer) = file.write_at(buffer, 0).wait();
    assert_eq!(n.expect("room"), 5);
    drop(buffer);
    let BufResult(n, buffer) = file.read_at(pool.get().expect("it is back"), 0).wait();
    assert_eq!((n.expect("readable"), buffer.as_slice()), (5, &b"hello"[..]));
}

#[test]
fn the_steady_state_allocates_nothing() {
    let pool = BufPool::new(4, 512, 512);
    let round = || {
        let held: [_; 4] = std::array::from_fn(|_| pool.get());
        let mut line = pool.acquire();
        assert!(poll_once(&mut line).is_pending());
        drop(held);
        assert!(poll_once(&mut line).is_ready());
    };
    round();
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| round());
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

/// Nobody gets a buffer that somebody has; nobody waits for ever; all come back.
#[test]
fn four_threads_and_three_buffers() {
    let _watchdog = Watchdog::new("pool::four_threads_and_three_buffers");
    let pool = BufPool::new(3, 64, 64);
    let barrier = Arc::new(std::sync::Barrier::new(4));
    let work = |thread: u8| {
        let (pool, barrier) = (pool.clone(), barrier.clone());
        std::thread::spawn(move || {
            let mut numbers = Numbers::new(u64::from(thread) + 1);
            barrier.wait();
            for _ in 0..20_000 {
                let mut line = pool.acquire();
                let polled = poll_once(&mut line);
                if polled.is_pending() && numbers.below(4) == 0 {
                    // Leaves the line, perhaps with a buffer handed to it.
                    continue;
                }
                let mut buffer = match polled {
                    std::task::Poll::Ready(buffer) => buffer,
                    std::task::Poll::Pending => block_on(line),
                };
                buffer.set_len(64);
                buffer.fill(thread);
                if numbers.below(64) == 0 {
                    std::thread::yield_now();
                }
                assert!(buffer.iter().all(|byte| *byte == thread), "two have the same buffer");
            }
        })
    };
    let threads: Vec<_> = (0..4).map(work).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no two have the same buffer"));
    assert_eq!(pool.available(), 3);
}

#[cfg(feature = "bytes")]
#[test]
fn bytes_and_bytes_mut() {
    use bytes::{Bytes, BytesMut};
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts everywhere");
    let file = crate::open(&engine, &scratch.path("data"), Direct::Off);
    let data = Bytes::from(pattern(10_000, 1));
    let half = data.slice(5_000..);
    file.write_all_at(data.clone(), 0).wait().0.expect("room");
    file.write_all_at(half, 10_000).wait().0.expect("room");
    file.write_all_at(Bytes::from_static(b"end"), 15_000).wait().0.expect("room");
    let mut whole = BytesMut::with_capacity(20_000);
    whole.extend_from_slice(b"head");
    // What was split off shares the allocation, and must not be touched.
    let mut rest = whole.split_off(4);
    let room = rest.capacity();
    assert!(room >= 15_003);
    let BufResult(n, read) = file.read_at(rest, 0).wait();
    assert_eq!((n.expect("readable"), read.len()), (15_003, 15_003));
    assert_eq!((&read[..10_000], &read[10_000..15_000], &read[15_000..]), (&data[..], &data[5_000..], &b"end"[..]));
    assert_eq!(whole, b"head"[..]);
    rest = read;
    let BufResult(n, read) = file.read_at(rest, 15_000).wait();
    assert_eq!((n.expect("readable"), read.len()), (3, 15_003), "the length never shrinks");
}
