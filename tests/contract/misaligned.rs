//! What direct I/O refuses for the alignment of memory, offset or length is served all the same, byte for byte, and
//! counted.

#[cfg(unix)]
use std::os::fd::AsRawFd as _;
use std::path::Path;

use polyaio::{AlignedBuf, BufResult, Direct, Engine, Error, File, IoBuf as _, OpenOptions, Reason};

use crate::bed::{BLOCK, Bed, Medium, What, assert_healthy, buffer, filled, number};
use crate::direct::has_direct;
#[cfg(unix)]
use crate::support::LoopDevice;
use crate::support::{first_difference, pattern, report_skip, root};
use crate::tools::{Numbers, join};
#[cfg(unix)]
use crate::tools::{errno, exit_now};

/// A buffer of `len` bytes, `shift` bytes beside an aligned address.
fn beside(len: usize, shift: usize) -> polyaio::Slice<AlignedBuf> {
    buffer(shift + len).slice(shift..shift + len)
}

fn beside_with(data: &[u8], shift: usize) -> polyaio::Slice<AlignedBuf> {
    let mut whole = buffer(shift + data.len());
    whole[shift..].copy_from_slice(data);
    whole.slice(shift..shift + data.len())
}

fn unit(file: &File) -> usize {
    file.facts().alignment.expect("ext4 and XFS say").offset
}

/// Memory, offset and length, each alone and all together, inside the file; the aligned ones beside them are well.
pub(crate) fn in_each_way(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let mut data = pattern(8 * BLOCK, 2);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Direct, &path);
    let unit = unit(&file);
    assert!(file.route().to_string().contains("misaligned: thread-pool (through the page cache)"), "{}", file.route());
    let mut misaligned = 0;
    for (shift, offset, length) in [(1, 0, BLOCK), (0, unit / 2, BLOCK), (0, 0, unit - 1), (3, 5, 7), (1, unit, 1)] {
        let context = format!("memory + {shift}, offset {offset}, length {length}");
        let whole = join((0..8).map(|i| file.read_at(buffer(BLOCK), (i * BLOCK) as u64)));
        let odd = file.read_at(beside(length, shift), offset as u64);
        let (BufResult(n, part), whole) = engine.block_on(async { (odd.await, whole.await) });
        assert_eq!(n.unwrap_or_else(|error| panic!("{context}: {error}")), length, "{context}");
        assert_eq!(part[..], data[offset..offset + length], "{context}");
        for (i, BufResult(n, back)) in whole.into_iter().enumerate() {
            assert_eq!(n.expect("aligned"), BLOCK, "{context}");
            assert_eq!(back[..], data[i * BLOCK..][..BLOCK], "{context}");
        }
        let piece = pattern(length, 50 + offset as u64);
        file.write_all_at(beside_with(&piece, shift), offset as u64).wait().0.expect("room");
        data[offset..offset + length].copy_from_slice(&piece);
        misaligned += 2;
        assert_eq!(engine.stats().fallback(Reason::Misaligned), misaligned, "{context}: each is counted once");
    }
    bed.assert_file(&path, &data);
    assert_healthy(&engine.stats());
}

/// A cached write and a direct one to the same page, at the same time, to bytes of their own: neither is lost.
pub(crate) fn beside_direct_requests_in_the_same_pages(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    const PAGES: usize = 8;
    let engine = bed.engine();
    let mut data = pattern(PAGES * BLOCK, 7);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Direct, &path);
    let unit = unit(&file);
    if unit == BLOCK {
        return report_skip(bed.name, "a page is one unit of direct I/O here");
    }
    for round in 0..60u64 {
        // Even units directly, a part of each odd one through the cache.
        let units = (0..data.len() / unit).map(|i| (i, pattern(unit, round * 1000 + i as u64)));
        let mut writes = Vec::new();
        for (i, piece) in units {
            let from = i * unit;
            let to = if i % 2 == 0 { from..from + unit } else { from + 3..from + unit - 5 };
            data[to.clone()].copy_from_slice(&piece[..to.len()]);
            let aligned = i % 2 == 0;
            let buffer = if aligned { filled(&piece).slice(..) } else { beside_with(&piece[..to.len()], 1) };
            writes.push(file.write_all_at(buffer, to.start as u64));
        }
        for BufResult(done, _) in engine.block_on(join(writes)) {
            done.expect("room");
        }
        let BufResult(n, back) = file.read_at(buffer(data.len()), 0).wait();
        assert_eq!(n.expect("readable"), data.len());
        assert_eq!(first_difference(&back, &data), None, "round {round}: one of two disjoint writes is lost");
    }
    bed.evict(&path, 0, 0);
    bed.assert_file(&path, &data);
    assert_healthy(&engine.stats());
}

/// What went through the page cache is on the disk when the write is over: the next direct request to the same page does
/// not have to wait for it, and kernel AIO serves it.
pub(crate) fn written_back_at_once(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let path = bed.make("file", &[0; 4 * BLOCK]);
    let file = bed.open(&engine, Medium::Direct, &path);
    for i in 0..20 {
        file.write_all_at(beside_with(&[i; 50], 1), 5).wait().0.expect("room");
        let BufResult(done, back) = file.read_exact_at(buffer(BLOCK), 0).wait();
        done.expect("it is that long");
        assert_eq!(
            (back[4], &back[5..55], back[55]),
            (if i == 0 { 0 } else { i - 1 }, &[i; 50][..], if i == 0 { 0 } else { i - 1 })
        );
        file.write_all_at(filled(&[i; BLOCK]), 0).wait().0.expect("room");
    }
    bed.assert_served(&engine, &[(What::Misaligned, 20), (What::DirectRead, 20), (What::DirectWrite, 20)]);
}

/// Ten at a time, reads and writes, aligned or not, of bytes that do not overlap but lie in the same pages.
pub(crate) fn at_random_against_a_model(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    const TEN: usize = 10;
    let engine = bed.engine();
    let mut data = pattern(40 * BLOCK, 9);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Direct, &path);
    let unit = unit(&file);
    let mut numbers = Numbers::new(0x1234_5678_9abc_def1);
    for round in 0..60u64 {
        // Ten cuts make ten disjoint ranges.
        let mut cuts: Vec<usize> = (0..2 * TEN).map(|_| numbers.below(data.len())).collect();
        cuts.sort_unstable();
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for pair in cuts.chunks(2) {
            let (mut from, mut to) = (pair[0], pair[1]);
            if numbers.below(2) == 0 {
                (from, to) = (from.next_multiple_of(unit), to / unit * unit);
            }
            if from >= to {
                continue;
            }
            let shift = numbers.below(3);
            if numbers.below(2) == 0 {
                reads.push((from, to, file.read_exact_at(beside(to - from, shift), from as u64)));
            } else {
                let piece = pattern(to - from, round << 20 | from as u64);
                data[from..to].copy_from_slice(&piece);
                writes.push(file.write_all_at(beside_with(&piece, shift), from as u64));
            }
        }
        let (ranges, reads): (Vec<_>, Vec<_>) = reads.into_iter().map(|(from, to, op)| (from..to, op)).unzip();
        let (reads, writes) = engine.block_on(async {
            let writes = join(writes);
            let reads = join(reads);
            (reads.await, writes.await)
        });
        for (range, BufResult(done, back)) in ranges.into_iter().zip(reads) {
            done.expect("it is that long");
            assert_eq!(first_difference(&back, &data[range.clone()]), None, "round {round}: {range:?}");
        }
        writes.into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    }
    bed.assert_file(&path, &data);
    bed.evict(&path, 0, 0);
    bed.assert_file(&path, &data);
    assert!(engine.stats().fallback(Reason::Misaligned) > 100, "{:?}", engine.stats());
    assert_healthy(&engine.stats());
}

/// Reads across the end are short, and a write makes the file just as long as it says.
pub(crate) fn at_the_end_of_the_file(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let mut data = pattern(BLOCK + 100, 3);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Direct, &path);
    let end = data.len();
    for (offset, length, want) in [(end - 7, 100, 7), (end, 10, 0), (end + 5, 10, 0), (end - BLOCK, 2 * BLOCK, BLOCK)] {
        let BufResult(n, back) = file.read_at(beside(length, 1), offset as u64).wait();
        assert_eq!(n.expect("no error"), want, "{length} bytes at {offset}");
        assert_eq!(back[..want], data[offset.min(end)..][..want]);
    }
    let BufResult(done, _) = file.read_exact_at(beside(200, 1), end as u64 - 100).wait();
    assert_eq!(done.expect_err("it ends before").kind(), std::io::ErrorKind::UnexpectedEof);
    // Across the end, and beyond it: a hole lies between.
    for (offset, length) in [(end - 3, 10), (end + 1000, 33), (3 * BLOCK + 1, 2 * BLOCK)] {
        let piece = pattern(length, offset as u64);
        file.write_all_at(beside_with(&piece, 1), offset as u64).wait().0.expect("room");
        data.resize(data.len().max(offset + length), 0);
        data[offset..offset + length].copy_from_slice(&piece);
        assert_eq!(file.len().wait().expect("a length"), data.len() as u64);
        bed.assert_file(&path, &data);
    }
    // A direct read finds all of it.
    let blocks = data.len().next_multiple_of(BLOCK);
    let BufResult(n, back) = file.read_at(buffer(blocks), 0).wait();
    assert_eq!(n.expect("readable"), data.len());
    assert_eq!(first_difference(&back[..data.len()], &data), None);
    assert_healthy(&engine.stats());
}

/// Appends of any length, in the order of their submission.
pub(crate) fn appended(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let path = bed.make("file", &[]);
    let file = OpenOptions::new().append(true).direct(Direct::Required).open(&engine, &path).expect("direct");
    let lengths = [BLOCK, 1, 511, 512, 513, BLOCK, 4095, 4097];
    let pieces: Vec<_> = (0..40).map(|i| pattern(lengths[i % lengths.len()], i as u64)).collect();
    let writes = pieces.iter().enumerate().map(|(i, piece)| file.write_all_at(beside_with(piece, i % 2), 0));
    for BufResult(done, _) in engine.block_on(join(writes)) {
        done.expect("room");
    }
    file.sync_data().wait().expect("a file can be synced");
    bed.assert_file(&path, &pieces.concat());
    assert_healthy(&engine.stats());
}

/// At the position of the descriptor, which moves by what was transferred.
#[cfg(unix)]
pub(crate) fn at_the_position(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let mut data = pattern(3 * BLOCK, 11);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Direct, &path);
    let mut at = 0;
    for length in [BLOCK, 100, 1, 4000] {
        let BufResult(n, back) = file.read(beside(length, length % 2)).wait();
        assert_eq!(n.expect("readable"), length, "at {at}");
        assert_eq!(back[..], data[at..at + length], "at {at}");
        at += length;
    }
    for length in [333, 3] {
        let piece = pattern(length, at as u64);
        file.write_all(beside_with(&piece, 1)).wait().0.expect("room");
        data[at..at + length].copy_from_slice(&piece);
        at += length;
    }
    // SAFETY: takes no pointer, and moves nothing.
    assert_eq!(unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) }, at as libc::off_t);
    bed.assert_file(&path, &data);
    assert_healthy(&engine.stats());
}

/// Takes a lock of the whole file, as fcntl(2) gives them: one per process and file.
#[cfg(unix)]
fn lock_file(fd: i32) -> bool {
    let mut lock: libc::flock = whole_file();
    // SAFETY: the kernel reads the structure during the call.
    unsafe { libc::fcntl(fd, libc::F_SETLK, &raw mut lock) == 0 }
}

#[cfg(unix)]
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Whether another process finds the file locked.
#[cfg(unix)]
fn is_locked_for_others(path: &Path) -> bool {
    let file = std::fs::File::options().write(true).open(path).expect("there");
    // SAFETY: the child makes system calls only, and leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: error {}", errno()),
        0 => exit_now(i32::from(!lock_file(file.as_raw_fd()))),
        child => {
            let mut status = 0;
            // SAFETY: the kernel writes one int; the child is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            // Ours is another descriptor of the file: its closing would drop the lock that is asked about.
            std::mem::forget(file);
            libc::WEXITSTATUS(status) == 1
        }
    }
}

/// Closing any descriptor of a file drops the process's locks on it: the twin's goes with its file, not before, nor after.
#[cfg(unix)]
pub(crate) fn locks_outlive_the_twin(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let path = bed.make("file", &pattern(4 * BLOCK, 5));
    {
        let engine = bed.engine();
        let file = bed.open(&engine, Medium::Direct, &path);
        assert!(lock_file(file.as_raw_fd()), "fcntl: error {}", errno());
        for i in 0..50 {
            file.write_all_at(beside_with(&[i; 100], 1), 77).wait().0.expect("room");
            file.read_at(beside(100, 1), 77).wait().0.expect("readable");
        }
        assert!(is_locked_for_others(&path), "while the file is open");
        let clone = file.clone();
        file.close().wait().expect("closed");
        let plain = std::fs::File::options().write(true).open(&path).expect("there");
        assert!(lock_file(plain.as_raw_fd()), "fcntl: error {}", errno());
        drop((clone, engine));
        assert!(is_locked_for_others(&path), "the twin was closed with its file, not with the last handle");
    }
    assert!(!is_locked_for_others(&path), "nothing is left open");
}

/// The flags of a write's meaning go over to the twin, and `O_DIRECT` does not.
#[cfg(unix)]
pub(crate) fn the_twin_is_as_synchronous_as_its_file(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let path = bed.make("file", &pattern(BLOCK, 5));
    for flag in [libc::O_SYNC, libc::O_DSYNC, 0] {
        let engine = bed.engine();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).direct(Direct::Required).custom_flags(flag | libc::O_NOATIME);
        let file = options.open(&engine, &path).expect("direct");
        file.write_all_at(beside_with(b"odd", 1), 3).wait().0.expect("room");
        let twins: Vec<i32> = descriptors_of(&path).into_iter().filter(|fd| *fd != file.as_raw_fd()).collect();
        assert_eq!(twins.len(), 1, "{twins:?}");
        // SAFETY: F_GETFL takes no pointer.
        let flags = |fd| unsafe { libc::fcntl(fd, libc::F_GETFL) };
        assert_eq!(flags(twins[0]), flags(file.as_raw_fd()) & !libc::O_DIRECT, "twin of a file with flag {flag:#o}");
        drop((file, engine));
        assert_eq!(descriptors_of(&path), [], "the twin ends with its file");
    }
}

fn descriptors_of(path: &Path) -> Vec<i32> {
    let all = std::fs::read_dir("/proc/self/fd").expect("/proc");
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|target| target == path)).collect()
}

/// Where the file cannot be opened a second time, whole blocks go through a buffer.
#[cfg(unix)]
pub(crate) fn without_proc(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    if let Err(why) = root() {
        return report_skip(bed.name, &why);
    }
    let mut data = pattern(3 * BLOCK + 1000, 21);
    let path = bed.make("file", &data);
    hide_proc();
    // Its threads are this one's children, and see what it sees.
    let engine = bed.engine();
    let file = bed.open(&engine, Medium::Direct, &path);
    assert!(!Path::new("/proc/self/fd").exists(), "/proc is hidden");
    for (offset, length) in [(1, 10), (BLOCK - 5, 10), (0, 700), (513, 2 * BLOCK), (3 * BLOCK + 990, 10)] {
        let BufResult(n, back) = file.read_at(beside(length, 1), offset as u64).wait();
        assert_eq!(n.unwrap_or_else(|error| panic!("{length} at {offset}: {error}")), length);
        assert_eq!(back[..], data[offset..offset + length], "{length} bytes at {offset}");
    }
    let BufResult(n, _) = file.read_at(beside(5000, 1), data.len() as u64 - 9).wait();
    assert_eq!(n.expect("readable"), 9, "short at the end");
    for (offset, length) in [(1, 10), (BLOCK - 5, 10), (100, 2 * BLOCK), (data.len() - 3, 50), (5 * BLOCK + 7, 1)] {
        let piece = pattern(length, offset as u64);
        let done = file.write_all_at(beside_with(&piece, 1), offset as u64).wait().0;
        done.unwrap_or_else(|error| panic!("{length} at {offset}: {error}"));
        data.resize(data.len().max(offset + length), 0);
        data[offset..offset + length].copy_from_slice(&piece);
        bed.assert_file(&path, &data);
    }
    // Many at once, next to each other.
    let pieces: Vec<_> = (0..64).map(|i| (i * 97 + 1, pattern(97, 900 + i as u64))).collect();
    let writes = pieces.iter().map(|(at, piece)| file.write_all_at(beside_with(piece, 1), *at as u64));
    engine.block_on(join(writes)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    pieces.iter().for_each(|(at, piece)| data[*at..at + 97].copy_from_slice(piece));
    bed.assert_file(&path, &data);
    // More than goes through the buffer at a time.
    let large = pattern((2 << 20) + 77, 3);
    file.write_all_at(beside_with(&large, 1), 33).wait().0.expect("room");
    data.resize(33 + large.len(), 0);
    data[33..].copy_from_slice(&large);
    bed.assert_file(&path, &data);
    let BufResult(done, back) = file.read_exact_at(beside(large.len(), 1), 33).wait();
    done.expect("it is that long");
    assert_eq!(first_difference(&back, &large), None);
    assert_healthy(&engine.stats());
}

/// Covers `/proc` for this thread and those that it starts.
#[cfg(unix)]
fn hide_proc() {
    // SAFETY: affects this thread and what it starts; the strings are literals.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "unshare: error {}", errno());
        let (none, tmpfs) = (c"none".as_ptr(), c"tmpfs".as_ptr());
        let private =
            libc::mount(none, c"/".as_ptr(), std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE, std::ptr::null());
        assert_eq!(private, 0, "mount: error {}", errno());
        assert_eq!(libc::mount(tmpfs, c"/proc".as_ptr(), tmpfs, 0, std::ptr::null()), 0, "mount: error {}", errno());
    }
}

/// A block device has an alignment and a page cache too.
#[cfg(unix)]
pub(crate) fn on_a_block_device(bed: &Bed) {
    let device = match LoopDevice::new(bed.scratch.dir(), "disk", 1 << 20) {
        Ok(device) => device,
        Err(why) => return report_skip(bed.name, &why),
    };
    let engine = bed.engine();
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).direct(Direct::Required).open(&engine, device.path()).expect("direct");
    let mut data = vec![0; 1 << 20];
    for (offset, length) in [(0, BLOCK), (5, 7), (4090, 20), (512, 512), ((1 << 20) - 3, 3)] {
        let piece = pattern(length, offset as u64);
        file.write_all_at(beside_with(&piece, 1), offset as u64).wait().0.expect("room");
        data[offset..offset + length].copy_from_slice(&piece);
    }
    let BufResult(done, back) = file.read_exact_at(buffer(1 << 20), 0).wait();
    done.expect("it is that long");
    assert_eq!(first_difference(&back, &data), None);
    assert!(engine.stats().fallback(Reason::Misaligned) >= 5);
    assert_healthy(&engine.stats());
}

/// `O_DIRECT` may be set, and taken away, by fcntl(2) while the file is open: what is known of it is then out of date.
#[cfg(unix)]
pub(crate) fn direct_since_it_was_opened(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine = bed.engine();
    let mut data = pattern(4 * BLOCK, 8);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Buffered, &path);
    for round in 0..6u64 {
        bed.evict(&path, 0, 0);
        // SAFETY: these commands take no pointer.
        unsafe {
            let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
            assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags ^ libc::O_DIRECT), 0, "error {}", errno());
        }
        for (offset, length, shift) in [(0, BLOCK, 0), (13, 1000, 1), (BLOCK, BLOCK, 1)] {
            let piece = pattern(length, round * 100 + offset as u64);
            file.write_all_at(beside_with(&piece, shift), offset as u64).wait().0.expect("room");
            data[offset..offset + length].copy_from_slice(&piece);
            let BufResult(done, back) = file.read_exact_at(beside(length, shift), offset as u64).wait();
            done.expect("it is that long");
            assert_eq!(back[..], piece, "round {round}: {length} bytes at {offset}");
        }
    }
    bed.assert_file(&path, &data);
    assert_healthy(&engine.stats());
}

/// No detour without leave: the error says what the file needs.
pub(crate) fn strict_engines_say_what_is_needed(bed: &Bed) {
    if !has_direct(bed) {
        return;
    }
    let engine: Engine = match bed.builder().strict(true).build() {
        Ok(engine) => engine,
        Err(error) => return report_skip(bed.name, &error.to_string()),
    };
    let path = bed.make("file", &pattern(4 * BLOCK, 1));
    let file = bed.open(&engine, Medium::Direct, &path);
    let alignment = file.facts().alignment.expect("ext4 and XFS say");
    for (shift, offset, length) in [(1, 0, BLOCK), (0, 1, BLOCK), (0, 0, 1)] {
        let BufResult(n, back) = file.read_at(beside(length, shift), offset).wait();
        assert_eq!(back.len(), length, "the buffer comes back");
        let error = n.expect_err("a strict engine takes no detour");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let Some(inner @ Error::Strict { .. }) = inner else { panic!("{error:?}") };
        assert_eq!(number(inner), Some(libc::EINVAL));
        let text = error.to_string();
        let needed = [format!("memory {} B", alignment.memory), format!("offset and length {} B", alignment.offset)];
        assert!(needed.iter().all(|part| text.contains(part)) && text.contains("File::buffer"), "{text}");
        let BufResult(n, _) = file.write_at(beside(length, shift), offset).wait();
        n.expect_err("nor does a write");
    }
    let BufResult(n, _) = file.read_at(buffer(BLOCK), 0).wait();
    assert_eq!(n.expect("aligned"), BLOCK);
    assert_eq!(engine.stats().total_fallbacks(), 0, "{:?}", engine.stats());
}
