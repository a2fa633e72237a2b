//! Bounds, and what is over them: it waits in order, and nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use polyaio::{BufResult, Engine, Error, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, What, assert_healthy, buffer, filled};
#[cfg(unix)]
use crate::support::{fifo, open_fifo_writer, try_fifo_writer};
use crate::support::{long_tests, pattern, require};
use crate::tools::{Begun, HELD, Held, Numbers, eventually, join, park_on, poll_once, transfers};
#[cfg(unix)]
use crate::tools::{Respawn, own_threads, respawn};

pub(crate) fn nothing_is_not_enough(bed: &Bed) {
    let text = |result: Result<Engine, Error>| match result {
        Err(Error::Options(text)) => text,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(text(bed.builder().queue_depth(0).build()), "queue depth is 0: it must be at least 1");
    assert_eq!(text(bed.builder().threads(0).build()), "threads is 0: it must be at least 1");
    assert_eq!(text(bed.builder().capacity(0).build()), "capacity is 0: it must be at least 1");
}

pub(crate) fn far_above_the_queue_depth(bed: &Bed) {
    let (count, blocks) = if long_tests().is_ok() { (1000, 250) } else { (300, 60) };
    for (depth, threads, capacity) in [(4, 2, 8), (1, 1, 1), (4, 2, 65_536)] {
        for medium in bed.media() {
            let builder = bed.builder().queue_depth(depth).threads(threads).capacity(capacity);
            let engine = builder.build().expect("an engine");
            bed.watch(&engine);
            let data = pattern(blocks * BLOCK, 1);
            let path = bed.make(&format!("{medium:?}-{depth}-{capacity}"), &data);
            let file = bed.open(&engine, medium, &path);
            let reads = join((0..count).map(|i| file.read_at(buffer(BLOCK), (i % blocks * BLOCK) as u64)));
            // From this thread alone, by the engine's own loop and by a foreign one.
            let results = if depth == 1 { park_on(reads) } else { engine.block_on(reads) };
            for (i, BufResult(n, back)) in results.into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[i % blocks * BLOCK..][..BLOCK]);
            }
            let fresh = pattern(blocks * BLOCK, 2);
            let writes =
                fresh.chunks(BLOCK).enumerate().map(|(i, part)| file.write_at(filled(part), (i * BLOCK) as u64));
            for BufResult(n, _) in engine.block_on(join(writes)) {
                assert_eq!(n.expect("room"), BLOCK);
            }
            bed.assert_file(&path, &fresh);
            bed.assert_served(&engine, &[(medium.read(), count as u64), (medium.write(), blocks as u64)]);
        }
    }
}

/// Over the capacity, operations get their turn in the order of their first poll.
pub(crate) fn the_line_is_served_in_order(bed: &Bed) {
    const COUNT: usize = 40;
    let held = Held::new(transfers(3));
    let builder = bed.builder_with(HELD).backend(held.clone()).capacity(5);
    let engine = builder.build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; COUNT * BLOCK]);
    let mut writes: Vec<_> = (0..COUNT).map(|i| Some(file.write_at(filled(&[1; BLOCK]), (i * BLOCK) as u64))).collect();
    let mut left = COUNT;
    let mut rounds = 0;
    while left > 0 {
        for write in writes.iter_mut().filter(|write| write.is_some()) {
            let running = write.as_mut().expect("filtered");
            if let Poll::Ready(BufResult(n, _)) = poll_once(running) {
                assert_eq!(n.expect("room"), BLOCK);
                (*write, left) = (None, left - 1);
            }
        }
        assert!(held.held() <= 3, "more than the backend has room for");
        // One at a time; the first rounds let the line grow.
        rounds += 1;
        if rounds > 3 {
            held.release();
        }
    }
    let places: Vec<_> = held.log().iter().map(|seen| seen.position.expect("positioned") as usize / BLOCK).collect();
    assert_eq!(places, (0..COUNT).collect::<Vec<_>>());
    // Who leaves the line holds up nobody.
    let mut writes: Vec<_> = (0..COUNT).map(|_| file.write_at(filled(&[1; BLOCK]), 0)).collect();
    writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
    let last = writes.pop().expect("forty");
    drop(writes);
    held.open();
    assert_eq!(last.wait().0.expect("room"), BLOCK);
    eventually("nothing is left behind", || {
        held.open();
        held.held() == 0
    });
}

pub(crate) fn one_thread_serves_a_hundred(bed: &Bed) {
    let engine = bed.builder().threads(1).build().expect("an engine");
    bed.watch(&engine);
    let path = bed.make("file", &[0; 100 * BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let data = pattern(100 * BLOCK, 3);
    let writes = data.chunks(BLOCK).enumerate().map(|(i, part)| file.write_at(filled(part), (i * BLOCK) as u64));
    for BufResult(n, _) in park_on(join(writes)) {
        assert_eq!(n.expect("room"), BLOCK);
    }
    bed.assert_file(&path, &data);
    bed.assert_served(&engine, &[(What::BufferedWrite, 100)]);
}

/// The pool's threads that are inside open(2). In a process of its own: other tests have such threads too.
#[cfg(unix)]
fn opening() -> usize {
    // Newer machines have one of them only; where there are both, a C library takes the one or the other.
    let opens = [
        format!("{} ", libc::SYS_openat),
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        format!("{} ", libc::SYS_open),
    ];
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let reads =
        |task: &std::fs::DirEntry, file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
    let tasks = tasks.filter(|task| reads(task, "comm").trim() == "polyaio-worker");
    let is_one = |call: String| opens.iter().any(|number| call.starts_with(number));
    tasks.filter(|task| is_one(reads(task, "syscall"))).count()
}

/// More threads and fewer, while all of them are inside calls that last: nobody opens these FIFOs for writing yet.
#[cfg(unix)]
pub(crate) fn the_pool_is_resized(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.builder().threads(4).build().expect("an engine");
    for (wrong, words) in [(0, "threads is 0: it must be at least 1"), (5, "threads is 5: "), (9, "at most 4")] {
        let refused = engine.set_threads(wrong);
        assert!(matches!(&refused, Err(Error::Options(text)) if text.contains(words)), "{refused:?}");
    }
    engine.set_threads(2).expect("fewer");
    let paths: Vec<_> = (0..10).map(|i| fifo(bed.scratch.dir(), &format!("fifo-{i}"))).collect();
    let open = |path| Begun::new(OpenOptions::new().read(true).open_async(&engine, path));
    let mut opens: Vec<_> = paths.iter().map(open).collect();
    opens.iter_mut().for_each(|open| assert!(open.again(), "nobody writes yet"));
    engine.turn(0, usize::MAX, None);
    let exactly = |count: usize, what: &str| {
        eventually(what, || opening() == count);
        // One too many would begin at once.
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(opening(), count, "{what}");
    };
    // The writers of those that somebody opens: their calls return.
    let release = || paths.iter().filter_map(|path| try_fifo_writer(path)).collect::<Vec<_>>();
    exactly(2, "two of ten have a thread");
    engine.set_threads(4).expect("as many as it was built with");
    exactly(4, "two more, though the first two are stuck");
    engine.set_threads(1).expect("fewer");
    exactly(4, "what runs is not stopped");
    let mut writers = release();
    assert_eq!(writers.len(), 4);
    exactly(1, "four have ended, and one has begun");
    engine.set_threads(3).expect("more");
    exactly(3, "two are back");
    // From now on nobody waits for a writer.
    writers.extend(paths.iter().map(|path| open_fifo_writer(path)));
    for opened in engine.block_on(join(opens)) {
        opened.expect("there is a writer");
    }
    assert!(own_threads().iter().filter(|name| *name == "polyaio-worker").count() <= 4);
    drop(engine);
    eventually("all threads are gone", || own_threads().is_empty());
}

/// The number changes all the while: no request is lost, and the engine ends.
pub(crate) fn the_pool_is_resized_at_work(bed: &Bed) {
    let engine = bed.builder().threads(6).build().expect("an engine");
    let data = pattern(64 * BLOCK, 4);
    let path = bed.make("file", &[0; 64 * BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut numbers = Numbers::new(7);
            while !over.load(Ordering::SeqCst) {
                engine.set_threads(1 + numbers.below(6)).expect("within bounds");
                std::thread::yield_now();
            }
        });
        for _ in 0..20 {
            let writes =
                data.chunks(BLOCK).enumerate().map(|(i, part)| file.write_at(filled(part), (i * BLOCK) as u64));
            let lens = join((0..64).map(|_| file.len()));
            for BufResult(n, _) in engine.block_on(join(writes)) {
                assert_eq!(n.expect("room"), BLOCK);
            }
            park_on(lens).into_iter().for_each(|len| assert_eq!(len.expect("a length"), 64 * BLOCK as u64));
        }
        over.store(true, Ordering::SeqCst);
    });
    bed.assert_file(&path, &data);
    bed.assert_served(&engine, &[(What::BufferedWrite, 20 * 64), (What::Meta, 20 * 64)]);
    let other = engine.clone();
    drop((engine, file));
    other.set_threads(1).expect("it is open");
    park_on(other.shutdown());
}

/// A dozen engines with something in flight in each: none has another one's completions, and each has its own backend.
pub(crate) fn a_dozen_engines(bed: &Bed) {
    const READS: usize = 16;
    for medium in bed.media() {
        let engines: Vec<_> = (0..12u64)
            .map(|i| {
                let engine = bed.builder().queue_depth(READS).threads(1).build().expect("an engine");
                let data = pattern(READS * BLOCK, i);
                let file = bed.file(&engine, medium, &format!("{medium:?}-{i}"), &data);
                (engine, file, data)
            })
            .collect();
        let begin = |file: &polyaio::File| {
            let begin = |i: usize| Begun::new(file.read_at(buffer(BLOCK), (i * BLOCK) as u64));
            let mut reads: Vec<_> = (0..READS).map(begin).collect();
            reads.iter_mut().for_each(|read| _ = read.again());
            reads
        };
        let reads: Vec<_> = engines.iter().map(|(_, file, _)| begin(file)).collect();
        for ((engine, _, data), reads) in engines.iter().zip(reads).rev() {
            for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
            }
            bed.assert_served(engine, &[(medium.read(), READS as u64)]);
        }
    }
}

pub(crate) fn a_million_small_requests(bed: &Bed) {
    require!(long_tests());
    const BLOCKS: usize = 1024;
    for medium in bed.media() {
        let engine = bed.builder().capacity(512).build().expect("an engine");
        bed.watch(&engine);
        let path = bed.make(&format!("{medium:?}"), &[0; BLOCKS * BLOCK]);
        let file = bed.open(&engine, medium, &path);
        let mut data = Vec::new();
        for round in 0..500 {
            data = pattern(BLOCKS * BLOCK, round);
            let writes =
                data.chunks(BLOCK).enumerate().map(|(i, part)| file.write_at(filled(part), (i * BLOCK) as u64));
            for BufResult(n, _) in engine.block_on(join(writes)) {
                assert_eq!(n.expect("room"), BLOCK);
            }
        }
        for _ in 0..500 {
            let reads = join((0..BLOCKS).map(|i| file.read_at(buffer(BLOCK), (i * BLOCK) as u64)));
            for (i, BufResult(n, back)) in engine.block_on(reads).into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[i * BLOCK..][..BLOCK]);
            }
        }
        assert_healthy(&engine.stats());
    }
}
