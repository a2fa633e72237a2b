use polyaio::{Direct, Engine, Reason};

use crate::support::{Scratch, direct_io, pattern, pipe, report_skip};
use crate::tools::{Held, Watchdog, park_on, poll_once, transfers};

const BLOCK: usize = 4096;

#[test]
fn blocks_come_in_order_and_whole() {
    let _watchdog = Watchdog::new("blocks::blocks_come_in_order_and_whole");
    let scratch = Scratch::new();
    let mut media = vec![Direct::Off];
    match direct_io(scratch.dir()) {
        Ok(()) => media.push(Direct::Required),
        Err(why) => report_skip("blocks::blocks_come_in_order_and_whole", &format!("the direct half: {why}")),
    }
    let engine = Engine::new().expect("an engine starts everywhere");
    for direct in media {
        for len in [0, 1, BLOCK, 10 * BLOCK, 10 * BLOCK + 1, 100_000] {
            let data = pattern(len, 1);
            let path = scratch.file(&format!("{direct:?}-{len}"), &data);
            for depth in [0, 1, 8, 50] {
                let file = crate::open(&engine, &path, direct);
                let mut blocks = file.blocks(BLOCK, depth).starting_at(0);
                let mut read = Vec::new();
                while let Some(block) = park_on(blocks.next()) {
                    let block = block.expect("readable");
                    assert_eq!(block.len(), BLOCK.min(len - read.len()));
                    read.extend_from_slice(&block);
                }
                assert!(read == data, "{direct:?}: {len} bytes at depth {depth}");
                assert!(park_on(blocks.next()).is_none(), "it stays at its end");
            }
        }
    }
    assert_eq!(engine.stats().fallback(Reason::Misaligned), 0, "at the end of a direct file neither");
}

#[test]
fn who_keeps_all_blocks_gets_all() {
    let scratch = Scratch::new();
    let data = pattern(30 * BLOCK, 1);
    let engine = Engine::new().expect("an engine starts everywhere");
    let file = crate::open(&engine, &scratch.file("file", &data), Direct::Off);
    let mut blocks = file.blocks(BLOCK, 4).starting_at(BLOCK as u64);
    let mut kept = Vec::new();
    while let Some(block) = engine.block_on(blocks.next()) {
        kept.push(block.expect("readable"));
    }
    assert!(kept.iter().map(|block| block.as_slice()).collect::<Vec<_>>().concat() == data[BLOCK..]);
}

#[test]
fn so_many_are_in_flight_as_were_asked_for() {
    for depth in [1, 4] {
        let scratch = Scratch::new();
        let data = pattern(30 * BLOCK, 1);
        let held = Held::new(transfers(100));
        let engine = crate::engine_with(held.clone());
        let mut blocks = crate::open(&engine, &scratch.file("file", &data), Direct::Off).blocks(BLOCK, depth);
        let mut read = Vec::new();
        for _ in 0..30 {
            assert!(poll_once(&mut blocks.next()).is_pending());
            assert!(held.held() <= depth);
            if read.len() < (30 - depth) * BLOCK {
                assert_eq!(held.held(), depth);
            }
            held.release();
            read.extend_from_slice(&park_on(blocks.next()).expect("a block").expect("readable"));
        }
        assert!(read == data);
        held.open();
        assert!(park_on(blocks.next()).is_none());
    }
}

#[test]
fn blocks_of_a_pipe_take_nothing_that_nobody_gets() {
    let engine = Engine::new().expect("an engine starts everywhere");
    let (mut reader, mut writer) = pipe();
    let end = engine.adopt(reader.try_clone().expect("a descriptor").into()).expect("a pipe");
    let mut blocks = end.blocks(4, 8);
    assert!(poll_once(&mut blocks.next()).is_pending());
    std::io::Write::write_all(&mut writer, b"abcdefgh").expect("room");
    assert_eq!(park_on(blocks.next()).expect("data").expect("readable").as_slice(), b"abcd");
    drop(blocks);
    drop(writer);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).expect("readable");
    assert_eq!(rest, "efgh");
}

#[cfg(feature = "futures-io")]
#[test]
fn blocks_are_a_stream() {
    use futures::TryStreamExt as _;
    let scratch = Scratch::new();
    let data = pattern(10 * BLOCK + 5, 1);
    let engine = Engine::new().expect("an engine starts everywhere");
    let blocks = crate::open(&engine, &scratch.file("file", &data), Direct::Off).blocks(BLOCK, 3);
    let all = futures::executor::block_on(blocks.try_collect::<Vec<_>>()).expect("readable");
    assert!(all.len() == 11 && all.iter().map(|block| block.as_slice()).collect::<Vec<_>>().concat() == data);
}
