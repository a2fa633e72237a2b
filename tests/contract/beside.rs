//! Readers beside writers: what they see is old or new, zeroes where nothing was yet, and never what once lay on the disk.

#[cfg(unix)]
use std::os::fd::AsRawFd as _;
#[cfg(unix)]
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use polyaio::{BufResult, Engine, File, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::direct::has_direct;
use crate::eof::both;
use crate::support::pattern;
use crate::tools::join;

/// What lay where a new file's blocks will be.
const STALE: u8 = 0xA5;

/// A new file of `len` bytes, all of them holes, after another one has left its bytes on the disk.
fn new_file(bed: &Bed, name: &str, len: usize) -> PathBuf {
    let stale = bed.make("stale", &vec![STALE; 64 * BLOCK]);
    std::fs::remove_file(stale).expect("ours");
    let path = bed.make(name, &[]);
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len as u64)).expect("a sparse file");
    path
}

/// Says that it is over when it is dropped, also by a panic: who waits for that must not hang.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Each pair of media, for one who writes and one who reads.
fn pairs(bed: &Bed) -> Vec<(Medium, Medium)> {
    bed.media().flat_map(|writer| bed.media().map(move |reader| (writer, reader))).collect()
}

/// What was read is what will be there in the end, or zeroes.
#[track_caller]
fn assert_written_or_zero(back: &[u8], want: &[u8], what: &str) {
    for (at, (got, want)) in std::iter::zip(back, want).enumerate() {
        assert!(got == want || *got == 0, "{what}: byte {at} is {got:#x}, it can be {want:#x} or 0");
    }
}

/// Reads all of the file over and over, block by block, until the writer is done, and once more.
fn read_meanwhile(engine: &Engine, file: &File, want: &[u8], over: &AtomicBool, what: &str) {
    loop {
        let last = over.load(Ordering::SeqCst);
        let reads = join((0..want.len() / BLOCK).map(|i| file.read_at(buffer(BLOCK), (i * BLOCK) as u64)));
        for (i, BufResult(n, back)) in engine.block_on(reads).into_iter().enumerate() {
            let n = n.expect("readable");
            let want = &want[i * BLOCK..][..n];
            assert_written_or_zero(&back[..n], want, &format!("{what}, block {i}"));
            assert!(!last || (n == BLOCK && back[..] == *want), "{what}: block {i} is written, and is not seen");
        }
        if last {
            return;
        }
    }
}

pub(crate) fn holes_are_filled(bed: &Bed) {
    const BLOCKS: usize = 32;
    for (writing, reading) in pairs(bed) {
        let engine = bed.engine();
        for round in 0..4 {
            let what = format!("{writing:?} writes, {reading:?} reads, round {round}");
            let path = new_file(bed, &format!("{writing:?}-{reading:?}-{round}"), BLOCKS * BLOCK);
            let (writer, reader) = (bed.open(&engine, writing, &path), bed.open(&engine, reading, &path));
            let data = pattern(BLOCKS * BLOCK, round);
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let _ends = Ends(&over);
                scope.spawn(|| read_meanwhile(&engine, &reader, &data, &over, &what));
                // 11 and 32 have no common factor: each block once, in an order that looks random; four at a time.
                let places: Vec<_> = (0..BLOCKS).map(|i| i * 11 % BLOCKS).collect();
                for four in places.chunks(4) {
                    let write = |i: &usize| writer.write_at(filled(&data[i * BLOCK..][..BLOCK]), (i * BLOCK) as u64);
                    for BufResult(n, _) in engine.block_on(join(four.iter().map(write))) {
                        assert_eq!(n.expect("room"), BLOCK, "{what}");
                    }
                }
            });
            bed.assert_file(&path, &data);
        }
        assert_healthy(&engine.stats());
    }
}

#[cfg(unix)]
fn open_to_append(engine: &Engine, medium: Medium, path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(if medium == Medium::Direct { libc::O_DIRECT } else { 0 });
    options.open(engine, path).expect("it is there")
}

#[cfg(unix)]
pub(crate) fn appended(bed: &Bed) {
    const BLOCKS: usize = 48;
    for (writing, reading) in pairs(bed) {
        let what = format!("{writing:?} appends, {reading:?} reads");
        let engine = bed.engine();
        let path = new_file(bed, &format!("{writing:?}-{reading:?}"), 0);
        let (writer, reader) = (open_to_append(&engine, writing, &path), bed.open(&engine, reading, &path));
        let data = pattern(BLOCKS * BLOCK, 7);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            scope.spawn(|| read_meanwhile(&engine, &reader, &data, &over, &what));
            for some in data.chunks(6 * BLOCK) {
                let writes = join(some.chunks(BLOCK).map(|block| writer.write_all_at(filled(block), 0)));
                engine.block_on(writes).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
            }
        });
        bed.assert_file(&path, &data);
        assert_healthy(&engine.stats());
    }
}

/// A write past the end beside an allocation before it: whichever the file's length is taken from first, it ends with the
/// longer one, and the allocated range is zeroes.
#[cfg(unix)]
pub(crate) fn appended_beside_an_allocation(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        for round in 0..24 {
            let path = new_file(bed, &format!("{medium:?}-{round}"), 0);
            let file = bed.open(&engine, medium, &path);
            let data = pattern(BLOCK, round);
            let write = file.write_all_at(filled(&data), BLOCK as u64);
            let allocate = file.allocate(0, BLOCK as u64);
            let (written, allocated) = if round % 2 == 0 {
                engine.block_on(both(write, allocate))
            } else {
                let (allocated, written) = engine.block_on(both(allocate, write));
                (written, allocated)
            };
            allocated.expect("room");
            written.0.expect("room");
            assert_eq!(file.len().wait().expect("a file has a length"), 2 * BLOCK as u64, "{medium:?}, round {round}");
            bed.assert_file(&path, &[vec![0; BLOCK], data].concat());
        }
        assert_healthy(&engine.stats());
    }
}

/// All blocks over and over with the number of the cycle. Who reads through the page cache sees no number smaller than the
/// last cycle that was over before, and none larger than the last one that had begun.
#[cfg(unix)]
pub(crate) fn rewritten_in_cycles(bed: &Bed) {
    const BLOCKS: usize = 8;
    for writing in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{writing:?}"), &[0; BLOCKS * BLOCK]);
        let (writer, reader) = (bed.open(&engine, writing, &path), bed.open(&engine, Medium::Buffered, &path));
        let (begun, ended, passes) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let over = AtomicBool::new(false);
        let read = |pass: usize| {
            let before = ended.load(Ordering::SeqCst);
            let mut back = buffer(BLOCKS * BLOCK);
            if pass.is_multiple_of(2) {
                let plain = std::fs::File::open(&path).expect("there");
                plain.read_exact_at(&mut back, 0).expect("it is that long");
            } else {
                let BufResult(done, all) = reader.read_exact_at(back, 0).wait();
                done.expect("it is that long");
                back = all;
            }
            let after = begun.load(Ordering::SeqCst);
            for (at, byte) in back.iter().enumerate() {
                let cycle = usize::from(*byte);
                assert!(
                    (before..=after).contains(&cycle),
                    "{writing:?}: byte {at} is of cycle {cycle}, not {before} to {after}"
                );
            }
        };
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    read(passes.fetch_add(1, Ordering::SeqCst));
                }
            });
            let mut cycle = 0;
            // As long as it takes until somebody was there to read.
            while cycle < 30 || (passes.load(Ordering::SeqCst) < 10 && cycle < 250) {
                cycle += 1;
                begun.store(cycle, Ordering::SeqCst);
                let write = |i| writer.write_all_at(filled(&[cycle as u8; BLOCK]), (i * BLOCK) as u64);
                let writes = engine.block_on(join((0..BLOCKS).map(write)));
                writes.into_iter().for_each(|BufResult(done, _)| done.expect("room"));
                ended.store(cycle, Ordering::SeqCst);
            }
        });
        (0..2).for_each(read);
        assert_healthy(&engine.stats());
    }
}

/// `O_DIRECT` comes and goes by fcntl(2) while requests of whole blocks are on their way: they are served either way.
#[cfg(unix)]
pub(crate) fn direct_comes_and_goes(bed: &Bed) {
    const BLOCKS: usize = 16;
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    for opened in bed.media() {
        let path = bed.make(&format!("{opened:?}"), &[0; BLOCKS * BLOCK]);
        let file = bed.open(&engine, opened, &path);
        let (over, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
        let toggle = || {
            // SAFETY: these commands take no pointer.
            unsafe {
                let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
                assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags ^ libc::O_DIRECT), 0);
            }
            turns.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
        };
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    toggle();
                }
            });
            let mut round = 0;
            while round < 20 || (turns.load(Ordering::SeqCst) < 20 && round < 1000) {
                round += 1;
                let data = pattern(BLOCKS * BLOCK, round);
                let write = |i: usize| file.write_all_at(filled(&data[i * BLOCK..][..BLOCK]), (i * BLOCK) as u64);
                let writes = engine.block_on(join((0..BLOCKS).map(write)));
                writes.into_iter().for_each(|BufResult(done, _)| done.expect("a whole block"));
                let reads = join((0..BLOCKS).map(|i| file.read_at(buffer(BLOCK), (i * BLOCK) as u64)));
                for (i, BufResult(n, back)) in engine.block_on(reads).into_iter().enumerate() {
                    assert_eq!(n.expect("a whole block"), BLOCK);
                    assert_eq!(back[..], data[i * BLOCK..][..BLOCK], "{opened:?}, round {round}, block {i}");
                }
            }
        });
        assert_healthy(&engine.stats());
    }
}
