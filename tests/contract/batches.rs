//! Batches: mixed operations, submitted at once, results as they come or all together.

use std::future::IntoFuture as _;

use polyaio::{AlignedBuf, BufResult, Reason};

use crate::bed::{BLOCK, Bed, Medium, What, assert_healthy, buffer, filled};
use crate::support::{self, pattern};
use crate::tools::{Census, HELD, Held, park_on, spawn_park, transfers};

/// What one operation of a batch came to.
enum Result {
    Read(std::io::Result<usize>, AlignedBuf),
    Written(std::io::Result<()>),
    Synced(std::io::Result<()>),
}

pub(crate) fn of_nothing(bed: &Bed) {
    let engine = bed.engine();
    let mut batch = engine.batch::<()>();
    batch.submit();
    assert!(batch.is_empty() && batch.wait_next().is_none());
    assert!(engine.block_on(batch.all()).is_empty());
    assert_eq!(engine.stats().backends.iter().map(|backend| backend.batches).sum::<u64>(), 0);
}

/// Reads, writes and syncs of two files in one batch; each result has its operation's number.
pub(crate) fn of_mixed_operations(bed: &Bed) {
    const BLOCKS: usize = 32;
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(BLOCKS * BLOCK, 1);
        let source_path = bed.make(&format!("{medium:?}-source"), &data);
        let target_path = bed.make(&format!("{medium:?}-target"), &vec![0; BLOCKS * BLOCK]);
        let (source, target) = (bed.open(&engine, medium, &source_path), bed.open(&engine, medium, &target_path));
        bed.evict(&source_path, 0, 0);
        let mut batch = engine.batch();
        for (i, block) in data.chunks(BLOCK).enumerate() {
            let offset = (i * BLOCK) as u64;
            let number = batch.push(source.read_at(buffer(BLOCK), offset), |BufResult(n, back)| Result::Read(n, back));
            assert_eq!(number, 2 * i);
            batch.push(target.write_all_at(filled(block), offset), |BufResult(done, _)| Result::Written(done));
        }
        batch.push(target.sync_all(), Result::Synced);
        assert_eq!(batch.len(), 2 * BLOCKS + 1);
        let mut seen = vec![false; 2 * BLOCKS + 1];
        while let Some((number, result)) = batch.wait_next() {
            assert!(!std::mem::replace(&mut seen[number], true), "operation {number} has ended twice");
            match result {
                Result::Read(n, back) => {
                    assert_eq!(n.expect("readable"), BLOCK);
                    assert_eq!(back[..], data[number / 2 * BLOCK..][..BLOCK], "operation {number}");
                }
                Result::Written(done) => done.expect("room"),
                Result::Synced(done) => {
                    done.expect("a file can be synced");
                    assert_eq!(number, 2 * BLOCKS);
                }
            }
        }
        assert!(batch.is_empty() && seen.into_iter().all(|seen| seen));
        bed.assert_file(&target_path, &data);
        assert_healthy(&engine.stats());
    }
}

/// Up to four times as many as fit in the queue: what completes is what was submitted.
pub(crate) fn of_one_to_four_times_the_queue(bed: &Bed) {
    const DEPTH: usize = 8;
    let data = pattern(4 * DEPTH * BLOCK, 6);
    for medium in bed.media() {
        let engine = bed.builder().queue_depth(DEPTH).threads(2).build().expect("an engine");
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        let mut submitted = 0;
        for size in 1..=4 * DEPTH {
            let mut batch = engine.batch();
            for i in 0..size {
                batch.push(file.write_at(filled(&data[i * BLOCK..][..BLOCK]), (i * BLOCK) as u64), |BufResult(n, _)| n);
            }
            batch.submit();
            let results = engine.block_on(batch.all());
            assert_eq!(results.len(), size, "{medium:?}");
            results.into_iter().for_each(|n| assert_eq!(n.expect("room"), BLOCK));
            submitted += size as u64;
        }
        bed.assert_served(&engine, &[(medium.write(), submitted)]);
        bed.assert_file(&path, &data);
    }
}

/// However many: one call of each backend for up to 256 of them.
pub(crate) fn in_one_submission(bed: &Bed) {
    let engine = bed.engine();
    let data = pattern(200 * BLOCK, 2);
    let path = bed.make("file", &data);
    let medium = bed.media().last().expect("there is one");
    let file = bed.open(&engine, medium, &path);
    bed.evict(&path, 0, 0);
    let mut batch = engine.batch();
    for i in 0..200 {
        batch.push(file.write_all_at(filled(&data[i * BLOCK..][..BLOCK]), (i * BLOCK) as u64), |BufResult(done, _)| {
            done
        });
    }
    batch.submit();
    // Before anything was refused and went elsewhere, this was one call.
    let stats = engine.stats();
    let batches: u64 = stats.backends.iter().map(|backend| backend.batches).sum();
    let detours: u64 = stats.fallback(Reason::WouldBlock) + stats.fallback(Reason::Remembered);
    assert!(batches == 1 || detours > 0, "{stats:#?}");
    for done in engine.block_on(batch.all()) {
        done.expect("room");
    }
    bed.assert_file(&path, &data);
    bed.assert_served(
        &engine,
        &[(if medium == Medium::Direct { What::DirectWrite } else { What::BufferedWrite }, 200)],
    );
}

/// Some at a time, with more pushed meanwhile, on an executor that knows nothing of the engine.
pub(crate) fn pushed_while_others_run(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(100 * BLOCK, 3);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let census = Census::default();
        let mut batch = engine.batch();
        let push = |batch: &mut polyaio::Batch<usize>, i: usize| {
            batch.push(file.read_at(census.buffer(BLOCK, 0), (i % 100 * BLOCK) as u64), |BufResult(n, _)| {
                n.expect("readable")
            })
        };
        (0..10).for_each(|i| _ = push(&mut batch, i));
        let mut ended = 0;
        while let Some((_, n)) = park_on(batch.next()) {
            assert_eq!(n, BLOCK);
            ended += 1;
            if ended + batch.len() < 300 {
                push(&mut batch, ended);
            }
        }
        assert_eq!((ended, census.live()), (300, 0));
    }
}

/// A `next` that is dropped loses no result, and a batch that is dropped no memory.
pub(crate) fn dropped_half_way(bed: &Bed) {
    let census = Census::default();
    let engine = bed.engine();
    let path = bed.make("file", &pattern(64 * BLOCK, 4));
    let file = bed.open(&engine, Medium::Buffered, &path);
    for round in 0..20 {
        bed.evict(&path, 0, 0);
        let mut batch = engine.batch();
        for i in 0..64 {
            batch.push(file.read_at(census.buffer(BLOCK, 0), i * BLOCK as u64), |BufResult(n, _)| n.expect("readable"));
        }
        let mut ended = 0;
        for _ in 0..round {
            let mut next = std::pin::pin!(batch.next());
            if let std::task::Poll::Ready(Some(_)) = crate::tools::poll_once(&mut next) {
                ended += 1;
            }
        }
        if round % 2 == 0 {
            while batch.wait_next().is_some() {
                ended += 1;
            }
            assert_eq!(ended, 64, "round {round}");
        }
    }
    bed.look(&engine);
    drop((file, engine));
    assert_eq!(census.live(), 0);
}

pub(crate) fn many_reads_at_once(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(128 * BLOCK, 5);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let ranges = || (0..128).rev().map(|i| (buffer(BLOCK), (i * BLOCK) as u64));
        let check = |results: Vec<BufResult<usize, AlignedBuf>>| {
            assert_eq!(results.len(), 128);
            for (i, BufResult(n, back)) in (0..128).rev().zip(results) {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[i * BLOCK..][..BLOCK], "block {i}");
            }
        };
        check(file.read_many_at(ranges()).wait());
        check(engine.block_on(file.read_many_at(ranges())));
        let reads = file.read_many_at(ranges().collect::<Vec<_>>());
        check(spawn_park(reads.into_future()).join().expect("no panic"));
    }
}

/// Streams and other engines' files may be in a batch as well.
pub(crate) fn of_streams_and_strangers(bed: &Bed) {
    use std::io::Write as _;
    let (engine, other) = (bed.engine(), bed.engine());
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let path = bed.make("file", b"data");
    let strange = bed.open(&other, Medium::Buffered, &path);
    let mut batch = engine.batch();
    batch.push(reader.read_exact(vec![0; 4]), |BufResult(done, back)| done.map(|()| back));
    batch.push(strange.read_exact_at(vec![0; 4], 0), |BufResult(done, back)| done.map(|()| back));
    batch.push(strange.sync_all(), |done| done.map(|()| Vec::new()));
    let sending = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        writer.write_all(b"ping").expect("there is a reader");
    });
    let results: Vec<_> = engine.block_on(batch.all()).into_iter().map(|result| result.expect("readable")).collect();
    assert_eq!(results, [b"ping".to_vec(), b"data".to_vec(), Vec::new()]);
    sending.join().expect("no panic");
}

/// What is pushed while results wait to be asked for goes out with the next question, not after them.
pub(crate) fn pushed_while_results_wait(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 4));
    let mut batch = engine.batch();
    for _ in 0..2 {
        batch.push(file.read_at(buffer(BLOCK), 0), |BufResult(n, _)| n);
    }
    batch.submit();
    assert_eq!(held.held(), 2);
    held.release();
    held.release();
    assert!(matches!(batch.wait_next(), Some((_, Ok(BLOCK)))));
    batch.push(file.read_at(buffer(BLOCK), 0), |BufResult(n, _)| n);
    assert!(matches!(batch.wait_next(), Some((_, Ok(BLOCK)))));
    assert_eq!(held.held(), 1, "it was submitted meanwhile");
    held.open();
    assert!(matches!(batch.wait_next(), Some((2, Ok(BLOCK)))));
}
