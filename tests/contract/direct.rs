//! `O_DIRECT` beside the page cache.

use polyaio::{BufResult, Reason};

use crate::bed::{BLOCK, Bed, Medium, What, allocate, assert_healthy, buffer, filled};
use crate::support::pattern;
use crate::tools::join;

pub(crate) fn has_direct(bed: &Bed) -> bool {
    bed.media().any(|medium| medium == Medium::Direct)
}

pub(crate) fn is_coherent_with_buffered(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let path = bed.make("file", &pattern(16 * BLOCK, 1));
    let (direct, buffered) = (bed.open(&engine, Medium::Direct, &path), bed.open(&engine, Medium::Buffered, &path));
    for round in 0..16 {
        let place = (round * 5 % 16 * BLOCK) as u64;
        let (writer, reader) = if round % 2 == 0 { (&direct, &buffered) } else { (&buffered, &direct) };
        let piece = pattern(BLOCK, 100 + round as u64);
        writer.write_all_at(filled(&piece), place).wait().0.expect("room");
        let BufResult(n, back) = reader.read_at(buffer(BLOCK), place).wait();
        assert_eq!(n.expect("readable"), BLOCK);
        assert_eq!(back[..], piece, "round {round}: what one has written the other reads");
        assert_eq!(bed.read(&path)[place as usize..][..BLOCK], piece, "round {round}: and so does everybody else");
    }
    assert_healthy(&engine.stats());
}

/// Writes of the smallest unit, each by itself, many at once: none changes its neighbour.
pub(crate) fn blocks_side_by_side(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let path = bed.make("file", &[0; 16 * BLOCK]);
    let file = bed.open(&engine, Medium::Direct, &path);
    let unit = file.facts().alignment.expect("ext4 and XFS say").offset;
    let data = pattern(16 * BLOCK, 3);
    let writes = data.chunks(unit).enumerate().map(|(i, part)| file.write_all_at(filled(part), (i * unit) as u64));
    for BufResult(done, _) in engine.block_on(join(writes)) {
        done.expect("room");
    }
    bed.assert_served(&engine, &[(What::DirectWrite, (data.len() / unit) as u64)]);
    bed.assert_file(&path, &data);
}

/// What makes the file longer would block the submitter: it is served elsewhere, and counted. What does not is not.
pub(crate) fn overwrites_and_what_makes_a_file_longer(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let path = bed.make("file", &[0; 4 * BLOCK]);
    let file = bed.open(&engine, Medium::Direct, &path);
    for i in 0..8 {
        file.write_all_at(filled(&[i as u8; BLOCK]), i * BLOCK as u64).wait().0.expect("room");
    }
    bed.assert_served(&engine, &[(What::DirectWrite, 4), (What::DirectGrow, 4)]);
    let asked = engine.stats().fallback(Reason::WouldBlock);
    if !allocate(&file, 0, 16 * BLOCK as u64) {
        return;
    }
    let before = engine.stats();
    for i in 8..16 {
        file.write_all_at(filled(&[i as u8; BLOCK]), i * BLOCK as u64).wait().0.expect("room");
    }
    let after = engine.stats();
    assert_eq!(after.fallback(Reason::WouldBlock), asked, "reserved, it is not longer");
    let served =
        |stats: &polyaio::Stats, name| stats.served_by().iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| *n);
    if served(&before, "kernel-aio") > 0 {
        assert_eq!(served(&after, "kernel-aio") - served(&before, "kernel-aio"), 8);
    }
    assert_eq!(bed.len(&path), 16 * BLOCK as u64);
}
