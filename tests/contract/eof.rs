//! The end of a file, and holes before it.

use std::io::ErrorKind;

use polyaio::BufResult;

use crate::bed::{BLOCK, Bed, Medium, What, assert_healthy, buffer, filled};
use crate::support::{first_difference, pattern};
use crate::tools::join;

const LEN: usize = 2 * BLOCK + 1808;

pub(crate) fn reads_at_the_end_are_short(bed: &Bed) {
    let data = pattern(LEN, 1);
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        // From, asked for, got.
        let reads = [
            (0, 4 * BLOCK, LEN),
            (BLOCK, 2 * BLOCK, LEN - BLOCK),
            (2 * BLOCK, BLOCK, 1808),
            (3 * BLOCK, BLOCK, 0),
            (1 << 30, BLOCK, 0),
        ];
        for (from, asked, got) in reads {
            let BufResult(n, back) = file.read_at(buffer(asked), from as u64).wait();
            assert_eq!(n.expect("the end is no error"), got, "{medium:?}: {asked} bytes at {from}");
            assert_eq!(back[..got], data[from.min(LEN)..][..got]);
        }
        bed.assert_served(&engine, &[(medium.read(), reads.len() as u64)]);
    }
}

pub(crate) fn exact_reads_past_the_end_say_so(bed: &Bed) {
    for medium in bed.media() {
        for len in [LEN, 3 * BLOCK] {
            let data = pattern(len, 2);
            let engine = bed.engine();
            let file = bed.file(&engine, medium, &format!("{medium:?}-{len}"), &data);
            for (from, asked) in [(0, 4 * BLOCK), (2 * BLOCK, 8 * BLOCK), (3 * BLOCK, BLOCK), (9 * BLOCK, BLOCK)] {
                let BufResult(done, back) = file.read_exact_at(buffer(asked), from as u64).wait();
                assert_eq!(done.expect_err("it ends before").kind(), ErrorKind::UnexpectedEof);
                let there = len.saturating_sub(from);
                assert_eq!(back[..there], data[from.min(len)..], "what was there is in the buffer");
            }
            let BufResult(done, back) = file.read_exact_at(buffer(2 * BLOCK), BLOCK as u64).wait();
            if len == 3 * BLOCK {
                done.expect("just up to the end");
                assert_eq!(first_difference(&back, &data[BLOCK..]), None);
            } else {
                assert_eq!(done.expect_err("it ends before").kind(), ErrorKind::UnexpectedEof);
            }
            assert_healthy(&engine.stats());
        }
    }
}

/// The last block of a direct file is not a whole one: its read is short, and asks for no more.
pub(crate) fn the_tail_of_a_direct_file(bed: &Bed) {
    for medium in bed.media().filter(|medium| *medium == Medium::Direct) {
        for tail in [1, 511, 512, 513, BLOCK - 1] {
            let data = pattern(BLOCK + tail, tail as u64);
            let engine = bed.engine();
            let file = bed.file(&engine, medium, &format!("tail-{tail}"), &data);
            let BufResult(n, back) = file.read_at(buffer(BLOCK), BLOCK as u64).wait();
            assert_eq!(n.expect("readable"), tail);
            assert_eq!(back[..tail], data[BLOCK..]);
            let BufResult(done, back) = file.read_exact_at(buffer(4 * BLOCK), 0).wait();
            assert_eq!(done.expect_err("it ends before").kind(), ErrorKind::UnexpectedEof);
            assert_eq!(first_difference(&back[..data.len()], &data), None);
        }
    }
}

#[cfg(unix)]
pub(crate) fn partly_cached(bed: &Bed) {
    const BLOCKS: usize = 64;
    let data = pattern(BLOCKS * BLOCK, 3);
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for round in 0..4 {
            bed.evict(&path, 0, 0);
            // Some pages come back, not those around them.
            for block in (round..BLOCKS).step_by(5) {
                use std::os::unix::fs::FileExt as _;
                let cached = std::fs::File::open(&path).expect("there");
                cached.read_at(&mut [0; 10], (block * BLOCK) as u64).expect("readable");
            }
            let BufResult(done, back) = file.read_exact_at(buffer(BLOCKS * BLOCK), 0).wait();
            done.expect("it is that long");
            assert_eq!(first_difference(&back, &data), None, "{medium:?}");
            let reads = (0..BLOCKS).map(|block| file.read_exact_at(buffer(BLOCK), (block * BLOCK) as u64));
            for (block, BufResult(done, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
                done.expect("it is that long");
                assert_eq!(back[..], data[block * BLOCK..][..BLOCK]);
            }
        }
        assert_healthy(&engine.stats());
    }
}

/// Whatever the moment, a read has bytes of the file, zeroes where they are being cut off, or less: never an error,
/// never something else.
pub(crate) fn cut_meanwhile(bed: &Bed) {
    const BLOCKS: usize = 16;
    let data = pattern(BLOCKS * BLOCK, 4);
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for round in 0..20 {
            let reads = join((0..BLOCKS).map(|block| file.read_at(buffer(BLOCK), (block * BLOCK) as u64)));
            let cut = file.set_len((round % BLOCKS * BLOCK) as u64);
            let (reads, cut) = engine.block_on(both(reads, cut));
            cut.expect("shorter");
            for (block, BufResult(n, back)) in reads.into_iter().enumerate() {
                let n = n.expect("a shorter file is no error");
                assert!(n == 0 || n == BLOCK, "{medium:?}: whole blocks come and go, not {n} bytes");
                // The kernel zeroes the rest of a large folio while a read copies from it: the two may mix in one block.
                for (at, (got, was)) in std::iter::zip(back.iter(), &data[block * BLOCK..][..n]).enumerate() {
                    assert!(*got == *was || *got == 0, "{medium:?}: byte {at} of block {block} is {got}, it was {was}");
                }
            }
            file.write_all_at(filled(&data), 0).wait().0.expect("room");
        }
        assert_healthy(&engine.stats());
    }
}

pub(crate) async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B> + Unpin) -> (A, B) {
    let mut second = second;
    let mut first = std::pin::pin!(first);
    let (mut a, mut b) = (None, None);
    std::future::poll_fn(move |context| {
        use std::task::Poll;
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(context)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = std::pin::Pin::new(&mut second).poll(context)
        {
            b = Some(value);
        }
        match (a.take(), b.take()) {
            (Some(x), Some(y)) => Poll::Ready((x, y)),
            (x, y) => {
                (a, b) = (x, y);
                Poll::Pending
            }
        }
    })
    .await
}

pub(crate) fn holes_read_as_zeroes(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[]);
        let file = bed.open(&engine, medium, &path);
        let piece = pattern(BLOCK, 5);
        for place in [10, 3, 20] {
            file.write_all_at(filled(&piece), (place * BLOCK) as u64).wait().0.expect("room");
        }
        let BufResult(done, back) = file.read_exact_at(buffer(21 * BLOCK), 0).wait();
        done.expect("it is that long");
        for (place, block) in back.chunks(BLOCK).enumerate() {
            if [3, 10, 20].contains(&place) {
                assert_eq!(block, piece);
            } else {
                assert!(block.iter().all(|byte| *byte == 0), "{medium:?}: block {place} is a hole");
            }
        }
        if medium == Medium::Direct {
            bed.assert_served(&engine, &[(What::DirectGrow, 3), (What::DirectRead, 1)]);
        }
    }
}
