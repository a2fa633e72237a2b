//! Bounds, and what is over them: it waits in order, and nothing is lost.

use std::task::Poll;

use polyaio::{BufResult, Engine, Error};

use crate::bed::{BLOCK, Bed, Medium, What, assert_healthy, buffer, filled};
use crate::support::{assert_file, long_tests, pattern, require};
use crate::tools::{HELD, Held, eventually, join, park_on, poll_once, transfers};

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
    const COUNT: usize = 1000;
    const BLOCKS: usize = 250;
    for (depth, threads, capacity) in [(4, 2, 8), (1, 1, 1), (4, 2, 65_536)] {
        for medium in bed.media() {
            let builder = bed.builder().queue_depth(depth).threads(threads).capacity(capacity);
            let engine = builder.build().expect("an engine");
            bed.watch(&engine);
            let data = pattern(BLOCKS * BLOCK, 1);
            let path = bed.make(&format!("{medium:?}-{depth}-{capacity}"), &data);
            let file = bed.open(&engine, medium, &path);
            let reads = join((0..COUNT).map(|i| file.read_at(buffer(BLOCK), (i % BLOCKS * BLOCK) as u64)));
            // From this thread alone, by the engine's own loop and by a foreign one.
            let results = if depth == 1 { park_on(reads) } else { engine.block_on(reads) };
            for (i, BufResult(n, back)) in results.into_iter().enumerate() {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[i % BLOCKS * BLOCK..][..BLOCK]);
            }
            let fresh = pattern(BLOCKS * BLOCK, 2);
            let writes =
                fresh.chunks(BLOCK).enumerate().map(|(i, part)| file.write_at(filled(part), (i * BLOCK) as u64));
            for BufResult(n, _) in engine.block_on(join(writes)) {
                assert_eq!(n.expect("room"), BLOCK);
            }
            assert_file(&path, &fresh);
            bed.assert_served(&engine, &[(medium.read(), COUNT as u64), (medium.write(), BLOCKS as u64)]);
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
    assert_file(&path, &data);
    bed.assert_served(&engine, &[(What::BufferedWrite, 100)]);
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
