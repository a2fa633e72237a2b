//! `sync_all` and `sync_data` cover every write that was submitted before them, and wait for no other.
//!
//! A backend of our own holds the writes back; the syncs go to the backend of the configuration.

use std::sync::Arc;

use polyaio::backend::{Capabilities, OpSet};
use polyaio::{Engine, File, OpKind, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, What, code, filled};
use crate::support::pattern;
use crate::tools::{HELD, Held, eventually, join, poll_once};

/// An engine whose writes wait until they are released.
fn held_writes(bed: &Bed) -> (Engine, Arc<Held>) {
    let mut capabilities = Capabilities::new(1024);
    capabilities.operations = OpSet::NONE.with(OpKind::Write);
    let held = Held::new(capabilities);
    (bed.builder_with(HELD).backend(held.clone()).build().expect("an engine"), held)
}

fn write(file: &File, place: usize) -> polyaio::Op<polyaio::ops::WriteAll<polyaio::AlignedBuf>> {
    file.write_all_at(filled(&[place as u8; BLOCK]), (place * BLOCK) as u64)
}

pub(crate) fn covers_every_write_before_it(bed: &Bed) {
    for medium in bed.media() {
        for data_only in [false, true] {
            let (engine, held) = held_writes(bed);
            let file = bed.file(&engine, medium, &format!("{medium:?}-{data_only}"), &[0; 8 * BLOCK]);
            let mut writes: Vec<_> = (0..8).map(|place| write(&file, place)).collect();
            writes.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
            let mut sync = if data_only { file.sync_data() } else { file.sync_all() };
            assert!(poll_once(&mut sync).is_pending(), "eight writes are on their way");
            eventually("all writes are with their backend", || {
                assert!(poll_once(&mut sync).is_pending(), "a sync passed the writes before it");
                held.held() == 8
            });
            // In any order of completion: the sync waits for the last of them.
            for left in (0..8).rev() {
                assert!(if left % 2 == 0 { held.release() } else { held.release_last() });
                assert!(left == 0 || poll_once(&mut sync).is_pending(), "{left} writes are still on their way");
            }
            sync.wait().expect("on a disk");
            engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("room"));
        }
    }
}

pub(crate) fn does_not_wait_for_later_writes(bed: &Bed) {
    let (engine, held) = held_writes(bed);
    let path = bed.make("file", &[0; 4 * BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let (mut first, mut sync) = (write(&file, 1), file.sync_all());
    assert!(poll_once(&mut first).is_pending());
    assert!(poll_once(&mut sync).is_pending());
    let mut later: Vec<_> = (2..4).map(|place| write(&file, place)).collect();
    later.iter_mut().for_each(|write| assert!(poll_once(write).is_pending()));
    eventually("all writes are with their backend", || {
        assert!(poll_once(&mut first).is_pending());
        held.held() == 3
    });
    assert!(held.release(), "the first");
    sync.wait().expect("on a disk");
    first.wait().0.expect("room");
    assert_eq!(held.held(), 2, "the later ones are still on their way");
    held.open();
    engine.block_on(join(later)).into_iter().for_each(|result| result.0.expect("room"));
}

pub(crate) fn two_at_once_and_none_before(bed: &Bed) {
    let (engine, held) = held_writes(bed);
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; 4 * BLOCK]);
    let other = bed.file(&engine, Medium::Buffered, "other", &[0; BLOCK]);
    file.sync_all().wait().expect("nothing to wait for");
    let mut first = write(&file, 0);
    assert!(poll_once(&mut first).is_pending());
    let mut syncs = [file.sync_all(), file.sync_data()];
    syncs.iter_mut().for_each(|sync| assert!(poll_once(sync).is_pending()));
    let mut second = write(&file, 1);
    assert!(poll_once(&mut second).is_pending());
    let mut last = file.sync_all();
    assert!(poll_once(&mut last).is_pending());
    other.sync_all().wait().expect("another file's writes are not its business");
    eventually("both writes are with their backend", || poll_once(&mut first).is_pending() && held.held() == 2);
    assert!(held.release_last(), "the second write does not end the wait for the first");
    second.wait().0.expect("room");
    assert!(syncs.iter_mut().all(|sync| poll_once(sync).is_pending()) && poll_once(&mut last).is_pending());
    assert!(held.release());
    first.wait().0.expect("room");
    syncs.into_iter().chain([last]).for_each(|sync| sync.wait().expect("on a disk"));
    held.open();
    // A write that fails does not hold a sync back either.
    let mut failing = file.write_all_at(filled(&[1; BLOCK]), i64::MAX as u64 - BLOCK as u64);
    let failed = poll_once(&mut failing);
    file.sync_all().wait().expect("on a disk");
    if failed.is_pending() {
        // Windows leaves the number to the file system.
        let too_far = code(failing.wait().0);
        assert!(too_far == libc::EFBIG || cfg!(windows), "{too_far}");
    }
}

#[cfg(unix)]
pub(crate) fn of_a_file_opened_synchronous(bed: &Bed) {
    for medium in bed.media() {
        for flag in [libc::O_SYNC, libc::O_DSYNC] {
            let engine = bed.engine();
            let path = bed.make(&format!("{medium:?}-{flag:x}"), &[0; 4 * BLOCK]);
            let direct = if medium == Medium::Direct { libc::O_DIRECT } else { 0 };
            let mut options = OpenOptions::new();
            options.write(true).read(true).custom_flags(flag | direct);
            let file = options.open(&engine, &path).expect("it is there");
            let data = pattern(4 * BLOCK, 1);
            file.write_all_at(filled(&data), 0).wait().0.expect("room");
            file.sync_all().wait().expect("on a disk");
            bed.assert_file(&path, &data);
            if medium == Medium::Buffered {
                bed.assert_served(&engine, &[(What::BufferedWrite, 1), (What::Sync, 1)]);
            }
        }
    }
}
