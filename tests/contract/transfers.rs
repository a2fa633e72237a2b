//! Reads and writes.

#[cfg(unix)]
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use polyaio::{BufResult, File, IoBuf as _};

use crate::bed::{BLOCK, Bed, Medium, What, allocate, buffer, filled};
use crate::support::{first_difference, long_tests, pattern, require};
use crate::tools::{join, park_on};

pub(crate) fn what_is_written_is_read_by_any_executor(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[0; 8 * BLOCK]);
        let file = bed.open(&engine, medium, &path);
        let data = pattern(8 * BLOCK, 1);
        let (first, second) = data.split_at(4 * BLOCK);
        let BufResult(n, back) = file.write_at(filled(first), 0).wait();
        assert_eq!((n.expect("room"), &back[..]), (first.len(), first), "the buffer comes back as it was");
        engine.block_on(async {
            let BufResult(done, _) = file.write_all_at(filled(second), 4 * BLOCK as u64).await;
            done.expect("room");
        });
        let BufResult(n, back) = park_on(file.read_at(buffer(8 * BLOCK), 0));
        assert_eq!(n.expect("readable"), data.len());
        assert_eq!(first_difference(&back, &data), None);
        let BufResult(done, back) = engine.block_on(file.read_exact_at(buffer(BLOCK), 3 * BLOCK as u64));
        done.expect("it is that long");
        assert_eq!(back[..], data[3 * BLOCK..4 * BLOCK]);
        park_on(file.sync_all()).expect("on a disk");
        bed.assert_served(&engine, &[(medium.write(), 2), (medium.read(), 2), (What::Sync, 1)]);
        bed.assert_file(&path, &data);
    }
}

pub(crate) fn results_match_their_requests(bed: &Bed) {
    const BLOCKS: usize = 64;
    let data = pattern(BLOCKS * BLOCK, 2);
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        // 37 and 64 have no common factor: every block is read several times, in an order that looks random.
        let places: Vec<_> = (0..300).map(|i| i * 37 % BLOCKS).collect();
        let reads = places.iter().map(|place| file.read_at(buffer(BLOCK), (place * BLOCK) as u64));
        let results = engine.block_on(join(reads));
        for (place, BufResult(n, back)) in places.iter().zip(results) {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back[..], data[place * BLOCK..][..BLOCK], "{medium:?}: the data of another request");
        }
        bed.assert_served(&engine, &[(medium.read(), 300)]);
    }
}

pub(crate) fn sizes_mixed_in_one_batch(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let mut want = pattern(1 << 20, 3);
        let path = bed.make(&format!("{medium:?}"), &want);
        let file = bed.open(&engine, medium, &path);
        let sizes = [1, 8, 2, 32, 1, 16, 4, 64].map(|blocks: usize| blocks * BLOCK);
        let mut at = 0;
        let mut writes = Vec::new();
        for (seed, size) in sizes.into_iter().enumerate() {
            let piece = pattern(size, 100 + seed as u64);
            want[at..at + size].copy_from_slice(&piece);
            writes.push(file.write_at(filled(&piece), at as u64));
            at += size;
        }
        let counts: Vec<_> =
            engine.block_on(join(writes)).into_iter().map(|BufResult(n, _)| n.expect("room")).collect();
        assert_eq!(counts, sizes, "bytes, and those of the right request");
        bed.assert_served(&engine, &[(medium.write(), sizes.len() as u64)]);
        bed.assert_file(&path, &want);
    }
}

pub(crate) fn large_requests(bed: &Bed) {
    const SIZE: usize = 1 << 20;
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &[]);
        allocate(&file, 0, 8 * SIZE as u64);
        let data = pattern(8 * SIZE, 4);
        let writes = data.chunks(SIZE).enumerate().map(|(i, part)| file.write_all_at(filled(part), (i * SIZE) as u64));
        for BufResult(done, _) in engine.block_on(join(writes)) {
            done.expect("room");
        }
        let BufResult(done, back) = file.read_exact_at(buffer(8 * SIZE), 0).wait();
        done.expect("it is that long");
        assert_eq!(first_difference(&back, &data), None);
        // A buffered read of 8 MiB in one piece may be short and go on: who reads it is not asked here.
        assert_eq!(file.len().wait().expect("a file has a length"), 8 * SIZE as u64);
    }
}

/// One read of more than 32 bits of bytes: a count that wraps would show.
pub(crate) fn more_than_two_gigabytes(bed: &Bed) {
    require!(long_tests());
    const LEN: u64 = (4 << 30) + 2 * BLOCK as u64;
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[]);
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(LEN)).expect("a sparse file");
        let file = bed.open(&engine, medium, &path);
        file.write_all_at(filled(&[7; BLOCK]), LEN - BLOCK as u64).wait().0.expect("room");
        let BufResult(done, back) = file.read_exact_at(buffer(LEN as usize), 0).wait();
        done.expect("it is that long");
        assert!(back[..LEN as usize - BLOCK].iter().all(|byte| *byte == 0), "a hole");
        assert!(back[LEN as usize - BLOCK..].iter().all(|byte| *byte == 7), "the last block");
        drop(file);
        std::fs::remove_file(&path).expect("ours");
    }
}

pub(crate) fn buffers_of_every_kind(bed: &Bed) {
    let engine = bed.engine();
    let file = bed.file(&engine, Medium::Buffered, "file", b"0123456789");
    let written = [
        file.write_at("ab", 0).wait().0,
        file.write_at(b"cd".as_slice(), 2).wait().0,
        file.write_at(String::from("ef"), 4).wait().0,
        file.write_at(Arc::<[u8]>::from(*b"gh"), 6).wait().0,
        file.write_at(b"xijx".to_vec().slice(1..3), 8).wait().0,
    ];
    assert!(written.into_iter().all(|n| n.expect("room") == 2));
    let BufResult(n, vec) = file.read_at(Vec::with_capacity(10), 0).wait();
    assert_eq!((n.expect("readable"), &vec[..]), (10, &b"abcdefghij"[..]), "a Vec has what was read, and no more");
    let BufResult(n, vec) = file.read_at(vec![b'-'; 12], 5).wait();
    assert_eq!((n.expect("readable"), &vec[..]), (5, &b"fghij-------"[..]), "a Vec never shrinks");
    let BufResult(n, part) = file.read_at(vec![b'-'; 8].slice(2..5), 1).wait();
    assert_eq!((n.expect("readable"), &part.into_inner()[..]), (3, &b"--bcd---"[..]), "a slice bounds the read");
    let BufResult(n, array) = file.read_at(Box::new([0; 4]), 6).wait();
    assert_eq!((n.expect("readable"), *array), (4, *b"ghij"));
    let boxed: Box<[u8]> = vec![0; 3].into();
    let BufResult(done, boxed) = file.read_exact_at(boxed, 0).wait();
    done.expect("it is that long");
    assert_eq!(*boxed, *b"abc");
    bed.assert_served(&engine, &[(What::BufferedWrite, 5), (What::CachedRead, 5)]);
}

pub(crate) fn a_write_changes_its_range_only(bed: &Bed) {
    let before = pattern(5 * BLOCK + 100, 5);
    let engine = bed.engine();
    let path = bed.make("file", &before);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let mut want = before;
    for (at, len) in [(0, 1), (BLOCK - 1, 2), (2 * BLOCK + 10, 700), (4 * BLOCK, BLOCK), (5 * BLOCK + 99, 1)] {
        let piece = pattern(len, at as u64);
        want[at..at + len].copy_from_slice(&piece);
        assert_eq!(file.write_at(piece, at as u64).wait().0.expect("room"), len);
    }
    bed.assert_file(&path, &want);
    bed.assert_served(&engine, &[(What::BufferedWrite, 5)]);
}

#[cfg(unix)]
pub(crate) fn positioned_requests_never_move_the_position(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &pattern(4 * BLOCK, 6));
        // SAFETY: takes no pointer.
        let moved = unsafe { libc::lseek(file.as_raw_fd(), 77, libc::SEEK_SET) };
        assert_eq!(moved, 77);
        file.read_at(buffer(BLOCK), BLOCK as u64).wait().0.expect("readable");
        file.write_at(filled(&[1; BLOCK]), 2 * BLOCK as u64).wait().0.expect("room");
        file.read_exact_at(buffer(2 * BLOCK), 0).wait().0.expect("readable");
        file.write_all_at(filled(&[2; BLOCK]), 0).wait().0.expect("room");
        file.sync_data().wait().expect("on a disk");
        assert_eq!(position(&file), 77, "{medium:?}");
    }
}

#[cfg(unix)]
pub(crate) fn requests_at_the_position_move_it_in_order(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[0; 64 * BLOCK]);
        let file = bed.open(&engine, medium, &path);
        let data = pattern(64 * BLOCK, 7);
        let writes = data.chunks(BLOCK).map(|block| file.write_all(filled(block)));
        for BufResult(done, _) in engine.block_on(join(writes)) {
            done.expect("room");
        }
        assert_eq!(position(&file), data.len() as i64);
        bed.assert_file(&path, &data);
        // SAFETY: takes no pointer.
        unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) };
        let reads = engine.block_on(join((0..64).map(|_| file.read(buffer(BLOCK)))));
        let back: Vec<u8> =
            reads.into_iter().flat_map(|BufResult(n, block)| block[..n.expect("readable")].to_vec()).collect();
        assert_eq!(first_difference(&back, &data), None, "{medium:?}: in the order of their first poll");
        let BufResult(n, _) = file.read(buffer(BLOCK)).wait();
        assert_eq!(n.expect("the end is no error"), 0);
        bed.assert_served(&engine, &[(What::Serial, 64 + 64 + 1)]);
    }
}

pub(crate) fn metadata(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(3 * BLOCK, 8));
        let file = bed.open(&engine, medium, &path);
        let len = || file.len().wait().expect("a file has a length");
        assert_eq!(len(), 3 * BLOCK as u64);
        file.set_len(5000).wait().expect("shorter");
        assert_eq!(len(), 5000);
        file.set_len(2 * BLOCK as u64).wait().expect("longer");
        let BufResult(n, back) = file.read_at(buffer(2 * BLOCK), 0).wait();
        assert_eq!(n.expect("readable"), 2 * BLOCK);
        assert!(back[5000..].iter().all(|byte| *byte == 0), "what set_len adds is zeroes");
        if !allocate(&file, BLOCK as u64, 3 * BLOCK as u64) {
            continue;
        }
        assert_eq!(len(), 4 * BLOCK as u64);
        assert_eq!(bed.len(&path), 4 * BLOCK as u64);
    }
}

#[cfg(unix)]
fn position(file: &File) -> i64 {
    // SAFETY: takes no pointer.
    unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) }
}
