//! Operations that move no data: opening, metadata, ranges of the disk and of the page cache.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use polyaio::backend::CancelOutcome;
use polyaio::{Advice, BufResult, Engine, Error, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, What, code};
use crate::support::{self, pattern, report_skip};
use crate::tools::{Begun, eventually, join, park_on, poll_once};

pub(crate) fn metadata_of_files(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &pattern(3 * BLOCK + 5, 1));
        std::fs::hard_link(&path, bed.scratch.dir().join(format!("{medium:?} too"))).expect("a second name");
        let file = bed.open(&engine, medium, &path);
        let have = engine.block_on(file.metadata()).expect("it is a file");
        let want = std::fs::metadata(&path).expect("there");
        assert_eq!((have.len, have.blocks, have.block_size), (want.len(), want.blocks(), want.blksize()));
        assert_eq!((have.mode, have.links, have.inode), (want.mode(), 2, want.ino()));
        assert_eq!((have.device, have.special, have.user, have.group), (want.dev(), 0, want.uid(), want.gid()));
        assert_eq!((have.accessed, have.modified), (want.accessed().expect("Linux"), want.modified().expect("Linux")));
        assert!(have.changed >= have.modified && have.changed <= SystemTime::now(), "{have:?}");
        // `std` does not ask for it with every C library.
        assert!(want.created().map_or_else(|_| true, |want| have.created == Some(want)), "{have:?}");
        assert!(have.is_file() && !have.is_dir());
        file.set_len(7).wait().expect("shorter");
        assert_eq!(park_on(file.metadata()).expect("it is a file").len, 7);
        bed.assert_served(&engine, &[(What::Meta, 3)]);
    }
    let engine = bed.engine();
    let dir = OpenOptions::new().read(true).open(&engine, bed.scratch.dir()).expect("a directory");
    assert!(dir.metadata().wait().expect("it is there").is_dir());
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let pipe = reader.metadata().wait().expect("a pipe has some");
    assert!(!pipe.is_file() && pipe.mode & libc::S_IFMT == libc::S_IFIFO);
}

pub(crate) fn holes_are_punched(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let mut data = pattern(64 * BLOCK, 2);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        let before = file.metadata().wait().expect("it is a file");
        match file.punch_hole(8 * BLOCK as u64, 32 * BLOCK as u64).wait() {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                report_skip(bed.name, "the file system punches no holes");
                continue;
            }
            punched => punched.expect("it is open for writing"),
        }
        file.sync_all().wait().expect("on a disk");
        data[8 * BLOCK..40 * BLOCK].fill(0);
        bed.assert_file(&path, &data);
        let after = file.metadata().wait().expect("it is a file");
        assert_eq!(after.len, before.len, "the length stays");
        assert!(after.blocks + 16 * BLOCK as u64 / 512 < before.blocks, "{} blocks of {}", after.blocks, before.blocks);
        file.punch_hole(60 * BLOCK as u64, 100 * BLOCK as u64).wait().expect("beyond the end");
        assert_eq!(file.len().wait().expect("a file"), data.len() as u64);
        assert_eq!(code(file.punch_hole(0, 0).wait()), libc::EINVAL);
        assert_eq!(code(file.punch_hole(u64::MAX, 1).wait()), libc::EINVAL);
        let reading = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
        assert_eq!(code(reading.punch_hole(0, 4096).wait()), libc::EBADF);
    }
}

/// A punched hole is a change that a sync covers, and a range is synced after the writes before it.
pub(crate) fn in_order_with_writes(bed: &Bed) {
    let engine = bed.engine();
    let data = pattern(64 * BLOCK, 3);
    let path = bed.make("file", &[0; 64 * BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let mut writes = Vec::new();
    for (i, block) in data.chunks(BLOCK).enumerate() {
        writes.push(Begun::new(file.write_all_at(block.to_vec(), (i * BLOCK) as u64)));
    }
    // It is behind the writes: what all of them do is done when it is. (Their results may be there a moment later.)
    file.sync_range(0, 0).wait().expect("on a disk");
    bed.assert_file(&path, &data);
    for write in &mut writes {
        let outcome = write.with_running(polyaio::Op::cancel);
        assert_ne!(outcome, Some(CancelOutcome::Cancelled), "submitted before the sync, and not begun after it");
    }
    engine.block_on(join(writes)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    let mut punches: Vec<_> = (0..20).map(|i| Begun::new(file.punch_hole(i * BLOCK as u64, BLOCK as u64))).collect();
    file.sync_data().wait().expect("on a disk");
    let synced = bed.read(&path);
    for punch in &mut punches {
        let outcome = punch.with_running(polyaio::Op::cancel);
        assert_ne!(outcome, Some(CancelOutcome::Cancelled), "a sync covers what was punched before");
    }
    // Not every file system punches holes.
    if engine.block_on(join(punches)).iter().all(Result::is_ok) {
        assert!(synced[..20 * BLOCK].iter().all(|byte| *byte == 0), "a sync covers what was punched before");
    }
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    assert_eq!(code(reader.sync_range(0, 10).wait()), libc::ESPIPE);
    assert_eq!(code(file.sync_range(1 << 63, 10).wait()), libc::EINVAL);
}

/// What is not needed leaves the page cache, and what is needed soon comes into it.
pub(crate) fn advice_is_heard(bed: &Bed) {
    let engine = bed.engine();
    let len = 64 * BLOCK as u64;
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(len as usize, 4));
    for advice in [Advice::Normal, Advice::Sequential, Advice::Random, Advice::NoReuse] {
        file.advise(0, 0, advice).wait().expect("a regular file");
    }
    let cached = || cached_pages(&file, len as usize);
    let Ok(all) = cached() else { return report_skip(bed.name, "mincore(2) does not tell") };
    file.advise(0, 0, Advice::DontNeed).wait().expect("a regular file");
    let Ok(none) = cached() else { return };
    if support::disk_file_system(bed.scratch.dir()).is_ok() {
        assert!(all == 64 && none == 0, "{all} pages were cached, {none} are");
        file.advise(16 * BLOCK as u64, 8 * BLOCK as u64, Advice::WillNeed).wait().expect("a regular file");
        eventually("the range is fetched", || cached().is_ok_and(|pages| pages >= 8));
    }
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    assert_eq!(code(reader.advise(0, 0, Advice::Normal).wait()), libc::ESPIPE);
    assert_eq!(code(file.advise(u64::MAX, 1, Advice::Normal).wait()), libc::EINVAL);
}

/// How many pages of a file are in the page cache.
pub(crate) fn cached_pages(file: &polyaio::File, len: usize) -> Result<usize, std::io::Error> {
    let mut pages = vec![0u8; len.div_ceil(BLOCK)];
    // SAFETY: a mapping of our own, of the file's length, which nothing touches; `pages` has a byte for each of its pages.
    unsafe {
        let fd = file.as_raw_fd();
        let base = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let answer = libc::mincore(base, len, pages.as_mut_ptr().cast());
        let error = std::io::Error::last_os_error();
        libc::munmap(base, len);
        if answer != 0 {
            return Err(error);
        }
    }
    Ok(pages.iter().filter(|page| **page & 1 == 1).count())
}

pub(crate) fn opened_elsewhere(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.path("file");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    let file = engine.block_on(options.open_async(&engine, &path)).expect("there is none yet");
    file.write_all_at("hello", 0).wait().0.expect("room");
    let again = park_on(options.open_async(&engine, &path)).expect_err("there is one now");
    assert!(
        matches!(&again, Error::Open { path: p, source } if *p == path && source.raw_os_error() == Some(libc::EEXIST))
    );
    let missing = OpenOptions::new().read(true).open_async(&engine, bed.path("none")).wait();
    let missing = missing.expect_err("there is none");
    assert!(
        matches!(&missing, Error::Open { source, .. } if source.raw_os_error() == Some(libc::ENOENT)),
        "{missing:?}"
    );
    let nothing = OpenOptions::new().open_async(&engine, &path).wait().expect_err("neither read nor write");
    assert!(matches!(nothing, Error::Options(_)), "{nothing:?}");
    let opens = (0..100).map(|_| OpenOptions::new().read(true).open_async(&engine, &path));
    for file in engine.block_on(join(opens)) {
        let file = file.expect("it is there");
        assert_eq!(file.read_at(vec![0; 9], 0).wait().0.expect("readable"), 5);
        file.close().wait().expect("open");
    }
    let mut cancelled = OpenOptions::new().write(true).truncate(true).open_async(&engine, &path);
    assert_eq!(cancelled.cancel(), CancelOutcome::Cancelled);
    assert!(
        matches!(cancelled.wait(), Err(Error::Open { source, .. }) if source.raw_os_error() == Some(libc::ECANCELED))
    );
    bed.assert_file(&path, b"hello");
    drop(engine.clone().shutdown());
    let late = OpenOptions::new().read(true).open_async(&engine, &path).wait().expect_err("the engine is closed");
    assert!(matches!(late, Error::EngineClosed), "{late:?}");
}

/// What a dropped open has opened, or is about to open, is closed.
pub(crate) fn a_dropped_open_closes(bed: &Bed) {
    let path = bed.make("file", b"x");
    let open = |engine: &Engine| OpenOptions::new().read(true).open_async(engine, &path);
    let engine = bed.engine();
    open(&engine).wait().expect("it is there").close().wait().expect("open");
    for round in 0..100 {
        let mut opening = open(&engine);
        for _ in 0..round % 4 {
            if let std::task::Poll::Ready(file) = poll_once(&mut opening) {
                drop(file);
                break;
            }
            std::thread::yield_now();
        }
    }
    eventually("no descriptor of the file is left", || {
        engine.turn(0, usize::MAX, None);
        descriptors_of(&path) == 0
    });
    let mut opening = open(&engine);
    // A backend that never blocks opens its own files at once.
    let opened = poll_once(&mut opening);
    assert!(opened.is_pending() || bed.opens_at_once());
    drop(opened);
    drop(engine);
    drop(opening);
    assert_eq!(descriptors_of(&path), 0, "after the engine's end");
}

fn descriptors_of(path: &std::path::Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("Linux has it");
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).filter(|target| target == path).count()
}
