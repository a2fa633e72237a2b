//! What transfers may ask for beyond their bytes: the end of the file, durability, a priority, not to wait.

use std::io::Write as _;
#[cfg(unix)]
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use polyaio::{BufResult, Engine, File, OpenOptions, Priority, Reason};

use crate::bed::{BLOCK, Bed, Medium, What, buffer, code, filled};
#[cfg(unix)]
use crate::control::cached_pages;
use crate::support::{self, first_difference, pattern};
use crate::tools::{Census, join, poll_once};

/// Requests that were served otherwise than by the first choice.
fn elsewhere(engine: &Engine) -> u64 {
    let stats = engine.stats();
    // Counted once per file.
    stats.total_fallbacks() - stats.fallback(Reason::PassedOver) - stats.fallback(Reason::NotStarted)
}

/// In order, at the end of a file that was not opened for appending; the position stays, and other writes go on.
#[cfg(unix)]
pub(crate) fn appended_to_any_file(bed: &Bed) {
    let engine = bed.engine();
    let start = pattern(1000, 1);
    let path = bed.make("file", &start);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let data = pattern(200 * 70, 2);
    let appends = data.chunks(70).map(|part| file.append(part.to_vec()));
    let writes = (0..100).map(|i| file.write_all_at(vec![i as u8; 10], i * 10));
    let (appended, written) = engine.block_on(async {
        let appended = join(appends).await;
        (appended, join(writes).await)
    });
    appended.into_iter().chain(written).for_each(|BufResult(done, _)| done.expect("room"));
    let want: Vec<u8> = (0..1000).map(|i| (i / 10) as u8).chain(data.iter().copied()).collect();
    bed.assert_file(&path, &want);
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) }, 0, "the position stays");
    bed.assert_served(&engine, &[(What::Serial, 200), (What::BufferedWrite, 100)]);
    // And to one that was.
    let file = OpenOptions::new().append(true).open(&engine, &path).expect("it is there");
    let appends = data.chunks(70).map(|part| file.append(part.to_vec()));
    engine.block_on(join(appends)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    bed.assert_file(&path, &[want, data].concat());
}

/// Each goes to where the file ends then, whoever has made it longer.
pub(crate) fn appended_by_several(bed: &Bed) {
    const COUNT: usize = 100;
    if let Err(why) = support::atomic_appends() {
        return support::report_skip(bed.name, &why);
    }
    let engine = bed.engine();
    let path = bed.make("file", &[]);
    let files = [bed.open(&engine, Medium::Buffered, &path), bed.open(&engine, Medium::Buffered, &path)];
    let record = |i: usize| [vec![i as u8; 99], vec![b'\n']].concat();
    let appends = (0..2 * COUNT).map(|i| files[i % 2].append(record(i)));
    engine.block_on(join(appends)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    let back = bed.read(&path);
    let records: Vec<_> = back.chunks(100).map(|record| record[0] as usize).collect();
    assert_eq!(back.len(), 2 * COUNT * 100, "none went over another one");
    assert!(back.chunks(100).all(|have| have == record(have[0] as usize)), "each in one piece");
    for of in 0..2 {
        let own: Vec<_> = records.iter().filter(|i| **i % 2 == of).collect();
        assert!(own.len() == COUNT && own.is_sorted(), "those of one `File` are in order");
    }
}

pub(crate) fn appended_past_the_page_cache(bed: &Bed) {
    if !bed.media().any(|medium| medium == Medium::Direct) {
        return;
    }
    let engine = bed.engine();
    let path = bed.make("file", &pattern(BLOCK, 3));
    let file = bed.open(&engine, Medium::Direct, &path);
    let blocks = pattern(8 * BLOCK, 4);
    let appends = blocks.chunks(BLOCK).map(|block| file.append(filled(block)));
    engine.block_on(join(appends)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    // What is misaligned, too.
    file.append(b"odd".to_vec()).wait().0.expect("room");
    file.append(vec![7; 100]).dsync().wait().0.expect("room");
    bed.evict(&path, 0, 0);
    bed.assert_file(&path, &[&pattern(BLOCK, 3)[..], &blocks, b"odd", &[7; 100]].concat());
    let misaligned = engine.stats().fallback(Reason::Misaligned);
    assert!(misaligned >= 2 && elsewhere(&engine) == misaligned, "{:#?}", engine.stats());
}

pub(crate) fn what_cannot_be_appended(bed: &Bed) {
    let engine = bed.engine();
    let (_reader, writer) = support::pipe();
    let writer = engine.adopt(writer.into()).expect("a pipe");
    let BufResult(done, back) = writer.append(vec![1; 5]).wait();
    assert_eq!((code(done), back), (libc::ESPIPE, vec![1; 5]));
    let path = bed.make("file", b"x");
    let file = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
    assert_eq!(code(file.append(vec![1; 5]).wait().0), libc::EBADF);
    assert_eq!(code(writer.write(vec![1; 5]).dsync().wait().0), libc::EOPNOTSUPP, "nothing of it is ever durable");
    bed.assert_file(&path, b"x");
}

/// What is on the disk can leave the page cache at once; so much that is not cannot.
#[cfg(unix)]
pub(crate) fn durable_when_complete(bed: &Bed) {
    const LEN: usize = 4 << 20;
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(LEN, 5);
        for sync in [false, true] {
            let path = bed.make(&format!("{medium:?} {sync}"), &[]);
            let file = bed.open(&engine, medium, &path);
            file.allocate(0, LEN as u64).wait().expect("room");
            if sync {
                let blocks: Vec<_> = data.chunks(64 * BLOCK).map(filled).collect();
                file.write_all_vectored_at(blocks, 0).sync().wait().0.expect("room");
            } else {
                file.write_all_at(filled(&data), 0).dsync().wait().0.expect("room");
            }
            if medium == Medium::Buffered && support::disk_file_system(bed.scratch.dir()).is_ok() {
                // SAFETY: takes no pointer.
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
                assert_eq!(cached_pages(&file, LEN).unwrap_or(0), 0, "sync: {sync}: not all of it is on the disk");
            }
            bed.assert_file(&path, &data);
        }
        bed.assert_served_as_told(&engine, &[(medium.write(), 2), (What::Meta, 2)]);
        assert_eq!(elsewhere(&engine), 0, "{medium:?}: {:#?}", engine.stats());
    }
}

pub(crate) fn priorities(bed: &Bed) {
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let data = pattern(8 * BLOCK, 6);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for priority in [Priority::Idle, Priority::BestEffort(0), Priority::BestEffort(7)] {
            file.write_all_at(filled(&data), 0).priority(priority).wait().0.expect("anybody may");
            let BufResult(done, back) = file.read_exact_at(buffer(8 * BLOCK), 0).priority(priority).wait();
            done.expect("anybody may");
            assert_eq!(first_difference(&back, &data), None);
        }
        bed.assert_served_as_told(&engine, &[(medium.write(), 3), (medium.read(), 3)]);
        let BufResult(n, back) = file.write_at(census.buffer(BLOCK, 1), 0).priority(Priority::Realtime(2)).wait();
        drop(back);
        match n {
            Ok(n) => assert_eq!(n, BLOCK, "with the rights for it"),
            refused => assert_eq!(code(refused), libc::EPERM),
        }
        let BufResult(n, back) = file.read_at(census.buffer(BLOCK, 1), 0).priority(Priority::BestEffort(8)).wait();
        assert_eq!(code(n), libc::EINVAL);
        drop(back);
        assert_eq!((census.made(), census.live()), (2, 0));
        // A refusal says nothing about the file.
        file.read_at(buffer(BLOCK), 0).wait().0.expect("readable");
        // Where nothing is served in its caller, a buffered read is one more of those that are not.
        let unserved = u64::from(cfg!(windows) && medium == Medium::Buffered && engine.stats().total_fallbacks() > 0);
        assert!(elsewhere(&engine) <= unserved, "{medium:?}: {:#?}", engine.stats());
    }
}

/// The kernel starts to fetch it all the same, and has it before it looks, where the disk is quick or the thread is preempted
/// just then. That happens to the plain system call as well: who refuses less than that does not ask for it.
#[cfg(unix)]
fn what_is_cold_is_refused(bed: &Bed, file: &File, path: &Path, data: &[u8], certain: bool) {
    const AT: usize = 32 * BLOCK;
    let (mut plainly, deadline) = (0, Instant::now() + Duration::from_secs(60));
    loop {
        bed.evict(path, 0, 0);
        let BufResult(n, back) = file.read_at(buffer(BLOCK), AT as u64).nowait().wait();
        assert_eq!(back.len(), BLOCK);
        match n {
            Ok(n) => assert_eq!(back[..n], data[AT..][..n]),
            Err(error) => return assert!(!certain || error.raw_os_error() == Some(libc::EAGAIN), "{error}"),
        }
        if !certain {
            return;
        }
        bed.evict(path, 0, 0);
        plainly += usize::from(is_refused_by_the_kernel(path, AT));
        assert!(plainly < 25, "read each time, while the system call was refused {plainly} times");
        if Instant::now() > deadline {
            return support::report_skip(bed.name, "what is on the disk only: the disk is too quick");
        }
    }
}

/// Whether preadv2(2) with RWF_NOWAIT would block.
#[cfg(unix)]
fn is_refused_by_the_kernel(path: &Path, at: usize) -> bool {
    let file = std::fs::File::open(path).expect("it is there");
    let mut memory = [0_u8; BLOCK];
    let range = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: BLOCK };
    let (low, high) = (at as libc::c_long, 0 as libc::c_long);
    // By its number, as not every C library has it. SAFETY: the range is memory of ours, which outlives the call.
    let n =
        unsafe { libc::syscall(libc::SYS_preadv2, file.as_raw_fd(), &raw const range, 1, low, high, libc::RWF_NOWAIT) };
    n == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

/// What is there comes, what is not is the caller's affair: nothing is repeated elsewhere.
#[cfg(unix)]
pub(crate) fn not_waited_for(bed: &Bed) {
    let certain = support::disk_file_system(bed.scratch.dir()).is_ok();
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(64 * BLOCK, 7);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        if medium == Medium::Buffered {
            what_is_cold_is_refused(bed, &file, &path, &data, certain);
            bed.read(&path);
        }
        let BufResult(n, back) = file.read_at(buffer(BLOCK), 5 * BLOCK as u64).nowait().wait();
        match n {
            Ok(n) => assert_eq!(back[..n], data[5 * BLOCK..][..n]),
            Err(error) => {
                assert!(!certain && error.raw_os_error() == Some(libc::EOPNOTSUPP), "{medium:?}: {error}");
            }
        }
        // A hole needs blocks, which have to be waited for.
        file.set_len(128 * BLOCK as u64).wait().expect("longer");
        let BufResult(n, back) = file.write_at(filled(&[1; BLOCK]), 100 * BLOCK as u64).nowait().wait();
        assert_eq!(back.len(), BLOCK);
        match n {
            Ok(n) => assert!(medium == Medium::Buffered && n == BLOCK, "{medium:?}"),
            refused => assert!(matches!(code(refused), libc::EAGAIN | libc::EOPNOTSUPP)),
        }
        assert_eq!(elsewhere(&engine), 0, "{medium:?}: {:#?}", engine.stats());
        if medium == Medium::Direct && file.alignment().offset > 1 {
            assert_eq!(code(file.read_at(vec![0; 5], 1).nowait().wait().0), libc::EINVAL);
        }
    }
}

#[cfg(unix)]
pub(crate) fn streams_are_not_waited_for(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = support::pipe();
    let (mut peer, socket) = support::socket_pair();
    let streams = [reader.into(), socket.into()].map(|fd: std::os::fd::OwnedFd| engine.adopt(fd).expect("a stream"));
    for (file, writer) in streams.iter().zip([&mut writer as &mut dyn std::io::Write, &mut peer]) {
        let BufResult(n, back) = file.read(vec![0; 10]).nowait().wait();
        assert_eq!((code(n), back.len()), (libc::EAGAIN, 10));
        writer.write_all(b"hello").expect("room");
        let BufResult(n, back) = file.read(vec![0; 10]).nowait().wait();
        assert_eq!((n.expect("it is there"), &back[..5]), (5, &b"hello"[..]));
        let mut first = file.read(vec![0; 10]);
        assert!(poll_once(&mut first).is_pending());
        writer.write_all(b"again").expect("room");
        assert_eq!(code(file.read(vec![0; 10]).nowait().wait().0), libc::EAGAIN, "it is another one's turn");
        assert_eq!(first.wait().0.expect("readable"), 5);
    }
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let mut both = support::open_fifo_writer(&path);
    both.write_all(b"hello").expect("room");
    let fifo = engine.adopt(support::fifo_reader(&path).into()).expect("a FIFO");
    assert_eq!(code(fifo.read(vec![0; 10]).nowait().wait().0), libc::EOPNOTSUPP);
}

pub(crate) fn told_too_late(bed: &Bed) {
    let engine = bed.engine();
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let mut read = reader.read(vec![0; 10]);
    assert!(poll_once(&mut read).is_pending());
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(read.nowait())));
    let message = *told.expect_err("it was polled").downcast::<&str>().expect("a literal");
    assert!(message.contains("before it is polled"), "{message}");
}
