//! Several threads inside `block_on`, each of which may have a context of its own: nobody waits for a thread that does not
//! come back to collect.

use std::sync::mpsc;
use std::time::Duration;

use polyaio::{AlignedBuf, BufResult, Engine, File, Op, ops};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::support::pattern;
use crate::tools::{Begun, eventually, join, park_on};

const BLOCKS: usize = 64;

fn read(file: &File, place: usize) -> Op<ops::Read<AlignedBuf>> {
    file.read_at(buffer(BLOCK), (place * BLOCK) as u64)
}

fn read_all(engine: &Engine, file: &File, data: &[u8]) {
    let results = engine.block_on(join((0..BLOCKS).map(|place| read(file, place))));
    for (place, BufResult(n, back)) in results.into_iter().enumerate() {
        assert_eq!(n.expect("readable"), BLOCK);
        assert_eq!(back[..], data[place * BLOCK..][..BLOCK], "block {place}");
    }
}

/// Contexts of whoever has the most.
fn contexts(engine: &Engine) -> u64 {
    engine.stats().backends.iter().map(|backend| backend.contexts).max().unwrap_or(0)
}

/// An engine on which two threads have run at the same time, and a file on it. Where a backend offers contexts to threads,
/// there are two of them now.
fn crowd(bed: &Bed, medium: Medium, capacity: usize) -> (Engine, File, Vec<u8>) {
    let engine = bed.builder().thread_contexts(2).capacity(capacity).build().expect("an engine");
    bed.watch(&engine);
    let data = pattern(BLOCKS * BLOCK, 5);
    let file = bed.file(&engine, medium, &format!("{medium:?}-{capacity}"), &data);
    read_all(&engine, &file, &data);
    let route = file.route();
    let offers = route.read.first().is_some_and(|step| step.backend == "kernel-aio") && medium == Medium::Direct;
    // Who comes while the other one's requests are in flight gets one.
    eventually("two contexts for two threads", || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| read_all(&engine, &file, &data));
            }
        });
        !offers || contexts(&engine) == 3
    });
    (engine, file, data)
}

/// Runs `begin` inside `block_on` on a thread that then blocks, without returning to its executor, until `other` is done with
/// what it was given.
fn while_it_blocks<T: Send>(engine: &Engine, begin: impl FnOnce() -> T + Send, other: impl FnOnce(T) + Send) {
    let ((given, taken), (done, end)) = (mpsc::channel(), mpsc::channel());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            engine.block_on(async {
                given.send(begin()).expect("somebody takes it");
                end.recv().expect("the other one is done");
            });
        });
        other(taken.recv().expect("it was begun"));
        done.send(()).expect("it waits");
    });
}

pub(crate) fn each_with_a_context_of_its_own(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, data) = crowd(bed, medium, 1000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (engine, file, data) = (&engine, &file, &data);
                scope.spawn(move || {
                    for round in 0..10 {
                        read_all(engine, file, data);
                        let place = thread * 16 + round;
                        let piece = &data[place * BLOCK..][..BLOCK];
                        file.write_all_at(filled(piece), (place * BLOCK) as u64).wait().0.expect("room");
                        if round % 4 == thread {
                            file.sync_data().wait().expect("on a disk");
                        }
                    }
                });
            }
        });
        let stats = engine.stats();
        assert!(stats.backends.iter().all(|backend| backend.in_flight == 0 && backend.waiting == 0), "{stats:?}");
        assert!(contexts(&engine) <= 3, "more than two threads have one");
        assert_healthy(&stats);
    }
}

pub(crate) fn none_where_none_is_wanted(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.builder().thread_contexts(0).build().expect("an engine");
        bed.watch(&engine);
        let data = pattern(BLOCKS * BLOCK, 6);
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..5).for_each(|_| read_all(&engine, &file, &data)));
            }
        });
        assert_eq!(contexts(&engine), 1);
    }
}

pub(crate) fn begun_by_one_that_blocks(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, data) = crowd(bed, medium, 1000);
        let (engine, file, data) = (&engine, &file, &data);
        for polls in [1, 2] {
            let begin = || {
                let mut reads: Vec<_> = (0..8).map(|place| Begun::new(read(file, place))).collect();
                for _ in 1..polls {
                    reads.iter_mut().for_each(|read| _ = read.again());
                }
                reads
            };
            let check = |results: Vec<BufResult<usize, AlignedBuf>>| {
                for (place, BufResult(n, back)) in results.into_iter().enumerate() {
                    assert_eq!(n.expect("readable"), BLOCK);
                    assert_eq!(back[..], data[place * BLOCK..][..BLOCK]);
                }
            };
            bed.evict(&bed.path(&format!("{medium:?}-1000")), 0, 0);
            while_it_blocks(engine, begin, |reads| check(engine.block_on(join(reads))));
            bed.evict(&bed.path(&format!("{medium:?}-1000")), 0, 0);
            while_it_blocks(engine, begin, |reads| check(park_on(join(reads))));
        }
    }
}

/// What is in the batch is not polled by who takes it over: its results come by themselves, if anybody collects them.
pub(crate) fn a_batch_of_one_that_blocks(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, data) = crowd(bed, medium, 1000);
        let (engine, file) = (&engine, &file);
        let begin = || {
            bed.evict(&bed.path(&format!("{medium:?}-1000")), 0, 0);
            let mut batch = engine.batch();
            for place in 0..8 {
                batch.push(read(file, place), |BufResult(n, back)| (n.expect("readable"), back));
            }
            batch.submit();
            batch
        };
        let check = |results: Vec<(usize, AlignedBuf)>| {
            assert_eq!(results.len(), 8);
            for (place, (n, back)) in results.into_iter().enumerate() {
                assert_eq!((n, &back[..]), (BLOCK, &data[place * BLOCK..][..BLOCK]));
            }
        };
        while_it_blocks(engine, begin, |mut batch| check(engine.block_on(batch.all())));
        while_it_blocks(engine, begin, |mut batch| check(park_on(batch.all())));
    }
}

pub(crate) fn a_sync_behind_a_write_of_one_that_blocks(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, data) = crowd(bed, medium, 1000);
        let file = &file;
        let begin = || {
            let writes = (0..4).map(|at| file.write_all_at(filled(&data[at * BLOCK..][..BLOCK]), (at * BLOCK) as u64));
            writes.map(Begun::new).collect::<Vec<_>>()
        };
        while_it_blocks(&engine, begin, |writes| {
            file.sync_all().wait().expect("on a disk");
            engine.block_on(join(writes)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
        });
        while_it_blocks(&engine, begin, |writes| {
            park_on(file.sync_all()).expect("on a disk");
            drop(writes);
        });
    }
}

pub(crate) fn room_that_one_holds_who_blocks(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, data) = crowd(bed, medium, 2);
        let file = &file;
        for round in 0..10 {
            let begin = || {
                bed.evict(&bed.path(&format!("{medium:?}-2")), 0, 0);
                let mut reads: Vec<_> = (0..2).map(|place| Begun::new(read(file, place))).collect();
                // They are sent, and left to themselves.
                reads.iter_mut().for_each(|read| _ = read.again());
            };
            while_it_blocks(&engine, begin, |()| {
                let BufResult(n, back) = if round % 2 == 0 { read(file, 3).wait() } else { park_on(read(file, 3)) };
                assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &data[3 * BLOCK..][..BLOCK]));
            });
        }
    }
}

pub(crate) fn turned_by_another(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, _) = crowd(bed, medium, 1000);
        let file = &file;
        engine.turn(0, 0, Some(Duration::ZERO));
        let begin = || {
            let mut sync = Begun::new(file.sync_all());
            sync.again();
            sync
        };
        while_it_blocks(&engine, begin, |mut sync| {
            eventually("the end of the sync", || {
                engine.turn(1, 100, Some(Duration::from_secs(10)));
                !sync.again()
            });
        });
    }
}

pub(crate) fn ended_by_another(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, _) = crowd(bed, medium, 1000);
        let begin = || {
            let mut writes: Vec<_> =
                (0..4).map(|at| Begun::new(file.write_all_at(filled(&[9; BLOCK]), (at * BLOCK) as u64))).collect();
            writes.iter_mut().for_each(|write| _ = write.again());
            writes
        };
        let end = engine.clone();
        while_it_blocks(&engine, begin, |writes| {
            park_on(end.shutdown());
            for write in writes {
                let BufResult(done, _) = park_on(write);
                done.expect("it was in flight");
            }
        });
    }
}

pub(crate) fn left_in_flight(bed: &Bed) {
    for medium in bed.media() {
        let (engine, file, data) = crowd(bed, medium, 1000);
        for round in 0..10 {
            bed.evict(&bed.path(&format!("{medium:?}-1000")), 0, 0);
            let mut left = Begun::Over(None);
            std::thread::scope(|scope| {
                // Begun and left behind inside of `block_on`, on a thread that ends.
                let begin = || engine.block_on(async { left = Begun::new(read(&file, round)) });
                scope.spawn(begin);
            });
            let BufResult(n, back) = if round % 2 == 0 { engine.block_on(left) } else { park_on(left) };
            assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &data[round * BLOCK..][..BLOCK]));
        }
        // The same without anybody who polls what was left.
        for _ in 0..10 {
            bed.evict(&bed.path(&format!("{medium:?}-1000")), 0, 0);
            let mut batch = engine.batch();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    engine.block_on(async {
                        (0..8).for_each(|place| _ = batch.push(read(&file, place), |BufResult(n, _)| n));
                        batch.submit();
                    });
                });
            });
            let lengths = engine.block_on(batch.all());
            assert!(lengths.len() == 8 && lengths.iter().all(|n| matches!(n, Ok(BLOCK))), "{lengths:?}");
        }
    }
}
