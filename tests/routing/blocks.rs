//! Writes that need new blocks, which would block the submitter: what makes a file longer, and what fills a hole.

use std::path::Path;

use polyaio::{AlignedBuf, Direct, Engine, File, Reason};

use crate::support::{Scratch, disk_file_system, kernel_aio, overlayfs, require};
use crate::tools::{Watchdog, one_of_many};
use crate::{BLOCK, KERNEL, POOL, auto, open, served};

/// What a block is filled with.
fn mark(block: usize) -> u8 {
    (block % 251) as u8 + 1
}

fn write(file: &File, block: usize) {
    let data = AlignedBuf::copy_from(&[mark(block); BLOCK], BLOCK);
    file.write_all_at(data, (block * BLOCK) as u64).wait().0.expect("room");
}

/// Who serves a write of this block. The kernel may say of any that it would block, for a moment: then it is asked again.
#[track_caller]
fn assert_writer(engine: &Engine, file: &File, block: usize, by: &str) {
    let counts = || (served(engine, by), engine.stats().fallback(Reason::WouldBlock));
    one_of_many(&format!("block {block} by {by}"), || {
        let (before, refused) = counts();
        write(file, block);
        let stats = format!("{:#?}", engine.stats());
        if counts().0 == before + 1 {
            return Ok(());
        }
        assert!(by == KERNEL && counts().1 > refused, "block {block}, not by {by}: {stats}");
        Err(stats)
    });
}

/// A file of so many blocks, on the disk.
fn dense(path: &Path, blocks: usize) {
    std::fs::write(path, vec![1; blocks * BLOCK]).expect("room");
    std::fs::File::open(path).and_then(|file| file.sync_all()).expect("a disk that works");
}

/// Each refusal is a detour: what is always refused is not asked for, but for now and then.
#[test]
fn writes_that_make_a_file_longer_are_not_asked_for_in_vain() {
    let _watchdog = Watchdog::new("routing: writes_that_make_a_file_longer_are_not_asked_for_in_vain");
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let engine = auto();
    let file = open(&engine, &scratch.path("file"), Direct::Required);
    (0..600).for_each(|block| write(&file, block));
    let stats = engine.stats();
    // The first four, and two of the rest: one in 256.
    assert_eq!((stats.fallback(Reason::WouldBlock), stats.fallback(Reason::Remembered)), (6, 594), "{stats:#?}");
    assert_eq!(served(&engine, POOL), 600);
    (0..16).for_each(|block| assert_writer(&engine, &file, block, KERNEL));
    let data = std::fs::read(scratch.path("file")).expect("written just now");
    assert!(data.chunks(BLOCK).enumerate().all(|(block, part)| part.iter().all(|byte| *byte == mark(block))));
}

/// Where no flag tells what would block, only writes to blocks that the file surely has are submitted.
#[test]
fn without_nowait_only_overwrites_are_submitted() {
    let _watchdog = Watchdog::new("routing: without_nowait_only_overwrites_are_submitted");
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let mount = require!(overlayfs(scratch.dir()));
    let engine = auto();
    dense(&mount.path("dense"), 16);
    let file = open(&engine, &mount.path("dense"), Direct::Required);
    (0..16).for_each(|block| assert_writer(&engine, &file, block, KERNEL));
    assert_eq!(engine.stats().fallback(Reason::NowaitUnsupported), 1, "overlayfs knows no NOWAIT");
    // Made longer: a hole within the file.
    file.set_len(32 * BLOCK as u64).wait().expect("room");
    assert_writer(&engine, &file, 20, POOL);
    assert_writer(&engine, &file, 16, POOL);
    assert_writer(&engine, &file, 16, KERNEL);
    assert_writer(&engine, &file, 17, POOL);
    // Cut, and made longer again.
    file.set_len(8 * BLOCK as u64).wait().expect("shorter");
    file.set_len(32 * BLOCK as u64).wait().expect("room");
    assert_writer(&engine, &file, 10, POOL);
    assert_writer(&engine, &file, 7, KERNEL);
    // Reserved.
    file.allocate(0, 32 * BLOCK as u64).wait().expect("room");
    assert_writer(&engine, &file, 31, KERNEL);
}

/// A file that has holes when it is opened is not trusted, from the first write on.
#[test]
fn without_nowait_holes_are_filled_by_the_pool() {
    let _watchdog = Watchdog::new("routing: without_nowait_holes_are_filled_by_the_pool");
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let mount = require!(overlayfs(scratch.dir()));
    dense(&mount.path("sparse"), 1);
    std::fs::File::options()
        .write(true)
        .open(mount.path("sparse"))
        .and_then(|file| file.set_len(256 * BLOCK as u64))
        .expect("room");
    let engine = auto();
    let file = open(&engine, &mount.path("sparse"), Direct::Required);
    (1..256).rev().for_each(|block| assert_writer(&engine, &file, block, POOL));
    assert_eq!(served(&engine, KERNEL), 0);
    assert_eq!(engine.stats().fallback(Reason::NowaitUnsupported), 255);
    // Filled from the end on, which tells nothing about the beginning; but the file system knows, and is asked now and then.
    (0..64).for_each(|block| write(&file, block % 2));
    assert_writer(&engine, &file, 200, KERNEL);
}
