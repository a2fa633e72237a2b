//! Dropped, forgotten and outlived: futures, files, engines. Memory is freed once, and not too early; nothing hangs.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use polyaio::{BufResult, Direct, Engine, Error, File};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::support::{self, pattern};
#[cfg(unix)]
use crate::tools::own_threads;
use crate::tools::{
    Begun, Census, HELD, Held, eventually, join, one_of_many, park_on, poll_once, spawn_park, transfers,
};

pub(crate) fn polled_once_and_dropped_by_the_hundreds(bed: &Bed) {
    const BLOCKS: usize = 64;
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &pattern(BLOCKS * BLOCK, 1));
        for round in 0..20 {
            let begin = |i| Begun::new(file.read_at(census.buffer(BLOCK, 0), (i % BLOCKS * BLOCK) as u64));
            let mut reads: Vec<_> = (0..100).map(begin).collect();
            // Some are dropped unsent, some in flight, some done; in another order each time.
            reads.iter_mut().skip(round * 5).for_each(|read| _ = read.again());
            while !reads.is_empty() {
                drop(reads.swap_remove(round % reads.len()));
            }
        }
        assert_eq!(census.made(), 2000);
        eventually("all buffers are freed while the engine lives", || {
            // Somebody has to reap: any operation does.
            file.len().wait().expect("a file has a length");
            file.read_at(buffer(BLOCK), 0).wait().0.expect("readable");
            census.live() == 0
        });
        bed.look(&engine);
        drop(engine);
        assert_eq!(census.freed(), 2000);
    }
}

pub(crate) fn dropped_unpolled_does_nothing(bed: &Bed) {
    let census = Census::default();
    let engine = bed.engine();
    let path = bed.make("file", b"as it was");
    let file = bed.open(&engine, Medium::Buffered, &path);
    drop(file.write_at(census.buffer(100, 1), 0));
    drop(file.set_len(0));
    drop(file.clone().close());
    drop(file.sync_all());
    assert_eq!((census.made(), census.live()), (1, 0));
    bed.assert_served(&engine, &[]);
    bed.assert_file(&path, b"as it was");
    assert_eq!(file.read_at(vec![0; 9], 0).wait().1, b"as it was");
}

/// `mem::forget` may leak: a buffer, a slot, a place in a queue. It must not free what the kernel writes into, and the
/// engine must still end.
pub(crate) fn forgotten(bed: &Bed) {
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &pattern(64 * BLOCK, 2));
        for i in 0..64 {
            let mut read = file.read_at(census.buffer(BLOCK, 0), i * BLOCK as u64);
            let _ = poll_once(&mut read);
            std::mem::forget(read);
        }
        std::mem::forget(file.read_at(census.buffer(BLOCK, 0), 0));
        let (reader, _writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let mut read = reader.read(census.buffer(BLOCK, 0));
        assert!(poll_once(&mut read).is_pending());
        std::mem::forget(read);
        assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("the others are well"), BLOCK);
        drop((file, reader, engine));
        assert!(census.freed() <= 66);
    }
}

/// A hundred threads, an engine each. The kernel must be done before memory goes. Under a memory checker this shows more than it does here.
pub(crate) fn engines_dropped_in_flight(bed: &Bed) {
    let data = pattern(32 * BLOCK, 3);
    let census = Census::default();
    let path = bed.make("file", &data);
    bed.evict(&path, 0, 0);
    let once = |thread: usize| {
        let engine = bed.builder().queue_depth(16).threads(2).build().expect("an engine");
        let medium = bed.media().nth(thread % 2).unwrap_or(Medium::Buffered);
        let file = open_quietly(bed, &engine, medium, &path);
        assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
        bed.look(&engine);
        let begin = |i| Begun::new(file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
        let reads: Vec<_> = (0..32).map(begin).collect();
        match thread % 3 {
            // The futures go before the engine, after it, or are asked what became of them.
            0 => drop((reads, engine, file)),
            1 => drop((engine, reads, file)),
            _ => {
                drop(engine);
                for (i, BufResult(n, back)) in park_on(join(reads)).into_iter().enumerate() {
                    assert_eq!(n.expect("it was submitted before"), BLOCK);
                    assert_eq!(polyaio::IoBuf::as_slice(&back), &data[i * BLOCK..][..BLOCK]);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..100).for_each(|thread| _ = scope.spawn(move || once(thread))));
    assert_eq!((census.made(), census.live()), (100 * 32, 0));
}

/// As `Bed::open`, without touching the page cache.
fn open_quietly(bed: &Bed, engine: &Engine, medium: Medium, path: &std::path::Path) -> File {
    let mut options = polyaio::OpenOptions::new();
    options.read(true).direct(if medium == Medium::Direct { Direct::Required } else { Direct::Off });
    options.open(engine, path).unwrap_or_else(|error| panic!("{}: {error}", bed.name))
}

pub(crate) fn files_dropped_in_flight(bed: &Bed) {
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let data = pattern(8 * BLOCK, 4);
        let path = bed.make(&format!("{medium:?}"), &data);
        for _ in 0..20 {
            let file = open_quietly(bed, &engine, medium, &path);
            let begin = |i| Begun::new(file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
            let reads: Vec<_> = (0..8).map(begin).collect();
            drop(file);
            // The numbers go to other files at once: whoever still used one would read zeroes.
            let _others: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/zero").expect("/dev/zero")).collect();
            for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(polyaio::IoBuf::as_slice(&back), &data[i * BLOCK..][..BLOCK]);
            }
        }
        assert_eq!(census.live(), 0);
        assert_healthy(&engine.stats());
    }
}

/// Drops what it holds when it is woken.
struct DropsOnWake<T: Send>(std::sync::Mutex<Option<T>>);

impl<T: Send> Wake for DropsOnWake<T> {
    fn wake(self: Arc<Self>) {
        drop(crate::tools::lock(&self.0).take());
    }
}

impl<T: Send + 'static> DropsOnWake<T> {
    fn waker(value: T) -> (Arc<Self>, Waker) {
        let this = Arc::new(Self(std::sync::Mutex::new(Some(value))));
        (this.clone(), Waker::from(this))
    }

    fn is_gone(&self) -> bool {
        crate::tools::lock(&self.0).is_none()
    }
}

/// The waker is called by a worker, by the background thread, or by who reaps: none of them may wait for itself.
pub(crate) fn engine_dropped_in_a_waker(bed: &Bed) {
    for medium in bed.media() {
        for round in 0..10 {
            let engine = bed.engine();
            let file = bed.file(&engine, medium, &format!("{medium:?}-{round}"), &pattern(64 * BLOCK, 5));
            file.sync_data().wait().expect("a file can be synced");
            bed.look(&engine);
            // A sync is never served inside the submission, so that its waker is called elsewhere.
            let mut sync = file.sync_all();
            let mut write = file.write_at(filled(&[1; BLOCK]), 0);
            let (dropper, waker) = DropsOnWake::waker(engine);
            let mut context = Context::from_waker(&waker);
            // The engine wakes a future that it wants to be polled again: only the later waker drops it.
            let _ = poll_once(&mut sync);
            let _ = poll_once(&mut write);
            let mut pinned = std::pin::Pin::new(&mut sync);
            let result = pinned.as_mut().poll(&mut context);
            drop(waker);
            if result.is_pending() {
                eventually("the waker is called", || dropper.is_gone());
                park_on(sync).expect("it was submitted before");
            }
            drop((write, file, dropper));
        }
    }
}

pub(crate) fn last_file_dropped_in_a_waker(bed: &Bed) {
    for medium in bed.media() {
        for round in 0..10 {
            let engine = bed.engine();
            let path = bed.make(&format!("{medium:?}-{round}"), &pattern(4 * BLOCK, 6));
            let file = bed.open(&engine, medium, &path);
            file.sync_data().wait().expect("a file can be synced");
            bed.look(&engine);
            let mut sync = file.sync_all();
            let _ = poll_once(&mut sync);
            let (dropper, waker) = DropsOnWake::waker((file, engine));
            let result = std::pin::Pin::new(&mut sync).poll(&mut Context::from_waker(&waker));
            drop(waker);
            if result.is_pending() {
                eventually("the waker is called", || dropper.is_gone());
                park_on(sync).expect("it was submitted before");
            }
        }
    }
}

/// A future that wants to be polled again wakes its waker inside the poll. Who drops the engine there must not wait in there
/// for what is in flight.
pub(crate) fn engine_dropped_in_a_waker_inside_a_poll(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &[3; BLOCK]);
    let mut read = file.read_at(buffer(BLOCK), 0);
    let (dropper, waker) = DropsOnWake::waker(engine);
    assert!(std::pin::Pin::new(&mut read).poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(dropper.is_gone(), "the first poll asks for a second");
    eventually("it is with its backend", || held.held() == 1);
    held.open();
    assert_eq!(park_on(read).0.expect("it was submitted before"), BLOCK);
}

pub(crate) fn engine_dropped_while_operations_wait_in_line(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(2).build().expect("an engine");
    let census = Census::default();
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; BLOCK]);
    let mut reads: Vec<_> = (0..6).map(|_| file.read_at(census.buffer(BLOCK, 9), 0)).collect();
    eventually("two are with their backend, the others in line", || {
        reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
        held.held() == 2
    });
    let dropping = std::thread::spawn(move || drop(engine));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!dropping.is_finished(), "it drains what is in flight");
    held.open();
    dropping.join().expect("no panic");
    for (i, BufResult(n, _)) in park_on(join(reads)).into_iter().enumerate() {
        match n {
            Ok(n) => assert_eq!(n, BLOCK),
            Err(error) => assert!(i >= 2, "request {i} was with its backend: {error}"),
        }
    }
    assert_eq!((census.made(), census.live()), (6, 0));
}

#[cfg(unix)]
pub(crate) fn engine_dropped_while_streams_wait(bed: &Bed) {
    let engine = bed.engine();
    let census = Census::default();
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let waiting = spawn_park(reader.read(census.buffer(100, 0)));
    // A FIFO's read sits on a worker once it is ready; here it only waits.
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let _fifo_writer = support::open_fifo_writer(&path);
    let fifo = polyaio::OpenOptions::new().read(true).open(&engine, &path).expect("it has a writer");
    let waiting_too = spawn_park(fifo.read(census.buffer(100, 0)));
    std::thread::sleep(Duration::from_millis(20));
    // If it waited for an idle stream, it would wait until the watchdog comes.
    drop(engine);
    for task in [waiting, waiting_too] {
        assert_closed(task.join().expect("no panic").0);
    }
    assert_eq!((census.made(), census.live()), (2, 0));
}

#[track_caller]
fn assert_closed<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.expect_err("its engine is gone");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::EngineClosed)), "{error:?}");
    assert!(error.to_string().contains("keep the `Engine` alive"), "it says what to do: {error}");
}

pub(crate) fn files_outlive_their_engine(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &pattern(BLOCK, 7));
        let unpolled = file.read_at(buffer(BLOCK), 0);
        let another = engine.clone();
        drop(engine);
        assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("a clone is left"), BLOCK);
        bed.look(&another);
        drop(another);
        assert_closed(unpolled.wait().0);
        let BufResult(n, back) = file.write_at(filled(&[1; BLOCK]), 0).wait();
        assert_eq!(back.len(), BLOCK, "the buffer comes back");
        assert_closed(n);
        assert_closed(park_on(file.read_exact_at(buffer(BLOCK), 0)).0);
        assert_closed(file.sync_all().wait());
        assert_closed(file.len().wait());
        assert!(file.facts().readable && !file.route().to_string().is_empty(), "what is known is still known");
        assert_closed(file.close().wait());
    }
}

/// In a process of its own: other tests have threads too.
#[cfg(unix)]
pub(crate) fn threads_end_with_the_engine(bed: &Bed) {
    if let crate::tools::Respawn::Parent(child) = crate::tools::respawn(bed.name) {
        child.expect_success();
        return;
    }
    one_of_many("all threads are gone in a tenth of a second", || {
        let engine = bed.engine();
        let file = bed.file(&engine, Medium::Buffered, "file", &[0; 64 * BLOCK]);
        let writes = join((0..64).map(|i| file.write_at(filled(&[1; BLOCK]), i * BLOCK as u64)));
        park_on(writes).into_iter().for_each(|BufResult(n, _)| assert_eq!(n.expect("room"), BLOCK));
        // What is over at once needs no thread; this is never over.
        let (reader, _writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let mut read = reader.read(vec![0; 1]);
        assert!(poll_once(&mut read).is_pending());
        assert!(!own_threads().is_empty());
        bed.look(&engine);
        let begin = Instant::now();
        drop(engine);
        eventually("all threads are gone", || own_threads().is_empty());
        let took = begin.elapsed();
        if took < Duration::from_millis(100) { Ok(()) } else { Err(format!("it took {took:?}")) }
    });
    let engine = bed.engine();
    park_on(engine.shutdown());
    eventually("all threads are gone", || own_threads().is_empty());
}

/// `io_submit`'s requests belong to the process, not to the thread that submitted them.
pub(crate) fn the_submitting_thread_ends(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(64 * BLOCK, 8);
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        let submit = {
            let file = file.clone();
            move || {
                let reads = (0..64).map(|i| Begun::new(file.read_at(buffer(BLOCK), i * BLOCK as u64)));
                let mut reads: Vec<_> = reads.collect();
                reads.iter_mut().for_each(|read| _ = read.again());
                reads
            }
        };
        let left = std::thread::spawn(submit).join().expect("no panic");
        for (i, BufResult(n, back)) in engine.block_on(join(left)).into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
        }
    }
}
