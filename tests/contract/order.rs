//! The order that requests keep, where they keep one.

use polyaio::{BufResult, Direct, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, What, filled};
use crate::support::pattern;
use crate::tools::{Begun, join};

pub(crate) fn appended_in_the_order_of_submission(bed: &Bed) {
    const COUNT: usize = 300;
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[]);
        let mut options = OpenOptions::new();
        options.append(true).direct(if medium == Medium::Direct { Direct::Required } else { Direct::Off });
        let file = options.open(&engine, &path).expect("it is there");
        // Large and small ones, so that a late small one could overtake. Direct ones have no small ones.
        let unit = if medium == Medium::Direct { BLOCK } else { 1 };
        let pieces: Vec<_> =
            (0..COUNT).map(|i| pattern(unit * if i % 7 == 0 { 20 } else { 1 + i % 3 }, i as u64)).collect();
        let writes = pieces.iter().map(|piece| file.write_all_at(filled(piece), 0));
        for BufResult(done, _) in engine.block_on(join(writes)) {
            done.expect("room");
        }
        bed.assert_file(&path, &pieces.concat());
        bed.assert_served(&engine, &[(What::Append, COUNT as u64)]);
    }
}

pub(crate) fn appending_ignores_the_offset(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", b"begin ");
    let file = OpenOptions::new().append(true).read(true).open(&engine, &path).expect("it is there");
    assert_eq!(file.write_at("middle ", 0).wait().0.expect("room"), 7);
    assert_eq!(file.write("end",).wait().0.expect("room"), 3);
    let BufResult(n, back) = file.read_at(Vec::with_capacity(6), 6).wait();
    assert_eq!((n.expect("readable"), &back[..]), (6, &b"middle"[..]), "reads do not");
    bed.assert_file(&path, b"begin middle end");
}

/// A request that nobody waits for any more gives its turn to the next, whether it ran or not.
pub(crate) fn serial_requests_do_not_wait_for_a_dropped_one(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", &[]);
    let file = OpenOptions::new().append(true).open(&engine, &path).expect("it is there");
    for _ in 0..50 {
        // A worker that still submits for the last round may send the first of them at once, and it may be over here.
        let dropped: Vec<_> = (0..10).map(|_| Begun::new(file.write_all_at(vec![b'a'; 10], 0))).collect();
        let last = file.write_all_at(vec![b'b'; 10], 0);
        drop(dropped);
        last.wait().0.expect("room");
    }
    let written = bed.read(&path);
    assert!(written.chunks(10).all(|piece| piece == [b'a'; 10] || piece == [b'b'; 10]), "whole pieces");
    assert_eq!(written.iter().filter(|byte| **byte == b'b').count(), 500, "each that was waited for");
}

pub(crate) fn the_file_is_as_long_as_its_last_write(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[]);
        let file = bed.open(&engine, medium, &path);
        engine.block_on(async {
            for round in 0..4 {
                let writes = (0..16).map(|i| {
                    let (file, path) = (file.clone(), path.clone());
                    // From the back, so that most of them do not lengthen the file.
                    let at = ((round * 16 + 15 - i) * BLOCK) as u64;
                    Box::pin(async move {
                        file.write_all_at(filled(&[i as u8; BLOCK]), at).await.0.expect("room");
                        let len = bed.len(&path);
                        assert!(len >= at + BLOCK as u64, "{medium:?}: {len} bytes after a write up to {at} + a block");
                    })
                });
                join(writes).await;
            }
        });
        assert_eq!(file.len().wait().expect("a file has a length"), 64 * BLOCK as u64);
        if medium == Medium::Buffered {
            bed.assert_served(&engine, &[(What::BufferedWrite, 64), (What::Meta, 1)]);
        }
    }
}
