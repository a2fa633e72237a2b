//! All at once, from several threads; and random requests against a model.

use std::io::Write as _;
use std::time::{Duration, Instant};

use polyaio::{BufResult, Engine};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::support::{self, first_difference, long_tests, pattern};
use crate::tools::{join, park_on};

fn duration() -> Duration {
    if long_tests().is_ok() { Duration::from_secs(60) } else { Duration::from_millis(1200) }
}

/// Disk and pipes, direct and buffered: each thread has a file of its own, so that it knows what it must read.
fn work(bed: &Bed, engine: &Engine, thread: usize, until: Instant) {
    const BLOCKS: usize = 32;
    let media: Vec<_> = bed.media().collect();
    let medium = media[thread % media.len()];
    let mut data = pattern(BLOCKS * BLOCK, thread as u64);
    let file = bed.file(engine, medium, &format!("thread-{thread}"), &data);
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut rounds = 0;
    // Who starves stays here until the watchdog comes.
    while Instant::now() < until || rounds <= 5 {
        rounds += 1;
        let place = rounds * 7 % BLOCKS;
        let piece = pattern(BLOCK, (thread * 1_000_000 + rounds) as u64);
        data[place * BLOCK..][..BLOCK].copy_from_slice(&piece);
        let step = async {
            file.write_all_at(filled(&piece), (place * BLOCK) as u64).await.0.expect("room");
            if rounds % 16 == 0 {
                file.sync_data().await.expect("on a disk");
            }
            // The pipe is empty when it is asked: the data comes from the thread beside it, or from here.
            let waiting = reader.read_exact(vec![0; 8]);
            writer.write_all(&rounds.to_ne_bytes()).expect("room");
            let BufResult(done, back) = waiting.await;
            done.expect("it is there");
            assert_eq!(back, rounds.to_ne_bytes());
            join((0..BLOCKS).map(|i| file.read_at(buffer(BLOCK), (i * BLOCK) as u64))).await
        };
        let results = if rounds % 5 == 4 { park_on(step) } else { engine.block_on(step) };
        for (i, BufResult(n, back)) in results.into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(first_difference(&back, &data[i * BLOCK..][..BLOCK]), None, "thread {thread}, round {rounds}");
        }
    }
}

pub(crate) fn four_threads_on_one_engine(bed: &Bed) {
    let engine = bed.builder().queue_depth(32).threads(3).build().expect("an engine");
    bed.watch(&engine);
    let until = Instant::now() + duration();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = &engine;
            scope.spawn(move || work(bed, engine, thread, until));
        }
    });
    assert_healthy(&engine.stats());
}

/// A generator that is the same everywhere: the same seed must end in the same file on every backend.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// The file as it should be: writes on disjoint ranges, several in flight; reads; cuts; syncs; reopened now and then.
pub(crate) fn random_requests_against_a_model(bed: &Bed) {
    const MOST: usize = 64;
    let rounds = if long_tests().is_ok() { 20_000 } else { 150 };
    for medium in bed.media() {
        // Direct requests are whole blocks; others are anything.
        let unit = if medium == Medium::Direct { BLOCK } else { 97 };
        let mut random = Random(0x5EED_0000 + unit as u64);
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[]);
        let mut file = bed.open(&engine, medium, &path);
        let mut model: Vec<u8> = Vec::new();
        for round in 0..rounds {
            match random.below(10) {
                0 => {
                    let len = random.below(MOST) * unit;
                    file.set_len(len as u64).wait().expect("room");
                    model.resize(len, 0);
                }
                1 => file.sync_all().wait().expect("on a disk"),
                2 => {
                    drop(file);
                    file = bed.open(&engine, medium, &path);
                }
                3..=6 => write_some(&engine, &file, unit, &mut random, &mut model, round),
                _ => read_some(&engine, &file, unit, &mut random, &model),
            }
        }
        assert_eq!(file.len().wait().expect("a file has a length"), model.len() as u64);
        bed.assert_file(&path, &model);
        assert_healthy(&engine.stats());
    }
}

/// Up to ten writes at once, on ranges that do not overlap.
fn write_some(
    engine: &Engine,
    file: &polyaio::File,
    unit: usize,
    random: &mut Random,
    model: &mut Vec<u8>,
    round: usize,
) {
    let mut at = random.below(16) * unit;
    let mut writes = Vec::new();
    for i in 0..1 + random.below(10) {
        let len = (1 + random.below(4)) * unit;
        let piece = pattern(len, (round * 100 + i) as u64);
        if model.len() < at + len {
            model.resize(at + len, 0);
        }
        model[at..at + len].copy_from_slice(&piece);
        writes.push(file.write_all_at(filled(&piece), at as u64));
        at += len + random.below(3) * unit;
    }
    for BufResult(done, _) in engine.block_on(join(writes)) {
        done.expect("room");
    }
}

fn read_some(engine: &Engine, file: &polyaio::File, unit: usize, random: &mut Random, model: &[u8]) {
    let reads: Vec<_> = (0..10).map(|_| (random.below(64) * unit, (1 + random.below(8)) * unit)).collect();
    let ops = reads.iter().map(|(at, len)| file.read_at(buffer(*len), *at as u64));
    for ((at, len), BufResult(n, back)) in reads.iter().zip(engine.block_on(join(ops))) {
        let want = &model[(*at).min(model.len())..(at + len).min(model.len())];
        let n = n.expect("readable");
        assert!(n <= want.len() && (n > 0 || want.is_empty()), "{n} of {} bytes at {at}", want.len());
        assert_eq!(first_difference(&back[..n], &want[..n]), None, "at {at}");
    }
}
