//! Whether a buffered read is worth a try in the caller: what is in the page cache is asked for before it is read.
//!
//! `preadv2(2)` with `RWF_NOWAIT` does not wait for a page that is missing, but it starts to read it, and what the kernel
//! reads ahead with it, before it says `EAGAIN`: tens of microseconds to milliseconds of the caller's time, and it may sleep
//! for memory, metadata or room in the device's queue. `cachestat(2)` (Linux 6.5) tells what is cached and starts nothing.
//!
//! So a file begins *cold*: the range of a read is looked up first. After a run of hits it is *warm*: reads are tried without
//! asking, because the question costs half as much as the read itself. The first miss makes it cold again.
//!
//! Reading ahead does not only begin at a page that is missing. The kernel marks a page of what it has read ahead, and who
//! reads that page starts the next stretch, though everything that was asked for is there. The mark lies no further before
//! the end of what is cached than one stretch of the device is long. So a read that goes on where others have left off also
//! looks up the page that lies so far ahead. If it is not there, the read, and the reading ahead, are a worker's.

#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use crate::completion::Errno;
use crate::os::RawFd;
use crate::router::facts;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// So many hits in a row make a file warm; of reads in sequence, those of twice what is read ahead.
const HITS: u64 = 32;
/// A read that begins at most so many bytes after the end of the last one goes on where that has left off.
const IN_SEQUENCE: u64 = 128 * 1024;
/// Without `cachestat(2)` a miss lets so many reads pass the page cache by, at the most.
const SKIP_MAX: u32 = 64;
/// What Linux reads ahead unless a device says otherwise, in bytes.
const READ_AHEAD: u64 = 128 * 1024;

/// What the reads of one file have met in the page cache so far. All of it is a matter of speed only, and need not be exact.
pub(crate) struct Warmth {
    /// What is read ahead at once, in bytes.
    read_ahead: u64,
    /// Earned by hits since the last miss, in bytes; [`Self::enough`] of it is warm.
    credit: AtomicU64,
    /// Where the last read ended that was asked for while the file was cold.
    last_end: AtomicU64,
    /// `cachestat(2)` does not answer: an older kernel, a seccomp filter, a file that only others may write.
    mute: AtomicBool,
    /// Then so many reads are not tried,
    skip: AtomicU32,
    /// and so many were not after the last miss.
    skipped: AtomicU32,
}

impl Warmth {
    /// A cold file.
    pub(crate) fn new(fd: Option<RawFd>) -> Self {
        Self {
            read_ahead: fd.and_then(facts::device).map_or(READ_AHEAD, read_ahead),
            credit: AtomicU64::new(0),
            last_end: AtomicU64::new(u64::MAX),
            mute: AtomicBool::new(false),
            skip: AtomicU32::new(0),
            skipped: AtomicU32::new(0),
        }
    }

    /// Whether to try a read of `len` bytes in the caller, and what a [`hit`](Self::hit) earns then. Starts no I/O.
    pub(crate) fn look(&self, fd: RawFd, position: u64, len: u64, file_len: u64) -> Option<u64> {
        if self.credit.load(Ordering::Relaxed) >= self.enough() {
            return Some(0);
        }
        if self.mute.load(Ordering::Relaxed) {
            let skip = self.skip.load(Ordering::Relaxed);
            self.skip.store(skip.saturating_sub(1), Ordering::Relaxed);
            return (skip == 0).then_some(self.share());
        }
        let last_end = self.last_end.swap(position.saturating_add(len), Ordering::Relaxed);
        // Nothing is cached behind the end. If the file is longer than we know, its new end was written just now.
        let end = position.saturating_add(len).min(file_len);
        if position >= end {
            return Some(self.share());
        }
        let in_sequence = position.checked_sub(last_end).is_some_and(|gap| gap <= IN_SEQUENCE);
        let ahead = end.saturating_add(self.read_ahead.max(len)).min(file_len);
        let answer = match cached(fd, position, end - position) {
            // The page that the mark cannot be further ahead of; at the end of the file there is nothing to read ahead.
            Ok(true) if in_sequence && ahead > end => cached(fd, ahead - 1, 1),
            answer => answer,
        };
        match answer {
            Ok(true) if in_sequence && ahead < file_len => Some(len.min(self.share())),
            Ok(true) => Some(self.share()),
            Ok(false) => None,
            Err(_) => {
                self.mute.store(true, Ordering::Relaxed);
                Some(self.share())
            }
        }
    }

    /// Notes that a read was served from the page cache.
    pub(crate) fn hit(&self, earned: u64) {
        if earned > 0 {
            let credit = self.credit.load(Ordering::Relaxed);
            self.credit.store(credit + earned, Ordering::Relaxed);
        }
        if self.skipped.load(Ordering::Relaxed) > 0 {
            self.skipped.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that a read was not, or was not tried.
    pub(crate) fn miss(&self) {
        self.credit.store(0, Ordering::Relaxed);
        if self.mute.load(Ordering::Relaxed) && self.skip.load(Ordering::Relaxed) == 0 {
            let skip = (self.skipped.load(Ordering::Relaxed) * 2).clamp(1, SKIP_MAX);
            self.skipped.store(skip, Ordering::Relaxed);
            self.skip.store(skip, Ordering::Relaxed);
        }
    }

    /// The credit that makes a file warm.
    fn enough(&self) -> u64 {
        2 * self.read_ahead
    }

    /// What one hit of many earns.
    fn share(&self) -> u64 {
        self.enough().div_ceil(HITS)
    }
}

/// What the device of a file reads ahead in bytes.
fn read_ahead(device: (u32, u32)) -> u64 {
    /// The devices asked for so far: there are few, and a file is opened more often than a device is told otherwise.
    // `std`'s lock, not the crate's: no model needs to explore it.
    static KNOWN: Mutex<Vec<((u32, u32), u64)>> = Mutex::new(Vec::new());
    const KNOWN_MAX: usize = 16;

    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, bytes)) = known.iter().find(|(other, _)| *other == device) {
        return *bytes;
    }
    let bytes = facts::read_ahead(device).unwrap_or(READ_AHEAD);
    if known.len() == KNOWN_MAX {
        known.remove(0);
    }
    known.push((device, bytes));
    bytes
}

cfg_if::cfg_if! {
    // The number is the same on all architectures but these, which count from elsewhere.
    if #[cfg(all(
        any(target_os = "linux", target_os = "android"),
        not(any(target_arch = "mips", target_arch = "mips64", target_arch = "mips32r6", target_arch = "mips64r6"))
    ))] {
        /// Whether all pages of a range are in the page cache: present, dirty or not, perhaps still being read.
        ///
        /// # Errors
        /// `ENOSYS` before Linux 6.5; `EPERM` from a seccomp filter, and (since 6.15) where the caller could not write to the
        /// file; `EOPNOTSUPP` on hugetlbfs.
        fn cached(fd: RawFd, position: u64, len: u64) -> Result<bool, Errno> {
            const SYS_CACHESTAT: libc::c_long = 451;
            /// `struct cachestat_range` of `linux/mman.h`. A length of 0 would mean "to the end".
            #[repr(C)]
            struct Range {
                position: u64,
                len: u64,
            }
            /// `struct cachestat`: pages.
            #[repr(C)]
            #[derive(Default)]
            struct Stat {
                cached: u64,
                dirty: u64,
                writeback: u64,
                evicted: u64,
                recently_evicted: u64,
            }
            let range = Range { position, len: len.max(1) };
            let mut stat = Stat::default();
            // SAFETY: the call reads `range` and fills `stat`, both of the layout that it knows.
            let (answer, page) = unsafe {
                (
                    libc::syscall(SYS_CACHESTAT, fd, &raw const range, &raw mut stat, 0),
                    libc::sysconf(libc::_SC_PAGESIZE),
                )
            };
            if answer != 0 {
                return Err(Errno::last());
            }
            let page = u64::try_from(page).unwrap_or(4096).max(1);
            let last = range.position.saturating_add(range.len - 1);
            Ok(stat.cached > last / page - range.position / page)
        }
    } else {
        fn cached(_fd: RawFd, _position: u64, _len: u64) -> Result<bool, Errno> {
            Err(Errno(libc::ENOSYS))
        }
    }
}

#[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    const KIB: u64 = 1024;

    /// A file that was written just now, all of it in the page cache, unless the kernel cannot tell.
    fn fresh(len: u64) -> Option<std::fs::File> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![1; len as usize]).expect("room");
        match cached(file.as_raw_fd(), 0, len) {
            Ok(all) => {
                assert!(all, "it was written just now");
                Some(file)
            }
            Err(errno) => {
                eprintln!("SKIP: cachestat: {errno}");
                None
            }
        }
    }

    fn cold(read_ahead: u64) -> Warmth {
        Warmth { read_ahead, ..Warmth::new(None) }
    }

    #[test]
    fn ranges_are_counted_in_pages_that_they_touch() {
        let Some(file) = fresh(8192) else { return };
        let fd = file.as_raw_fd();
        for (position, len, all) in [(0, 1, true), (4095, 2, true), (8191, 1, true), (8191, 2, false), (8192, 1, false)]
        {
            assert_eq!(cached(fd, position, len), Ok(all), "{len} at {position}");
        }
        file.set_len(1 << 20).expect("room");
        assert_eq!(cached(fd, 4096, 8192), Ok(false), "a hole is not cached");
    }

    #[test]
    fn hits_in_a_row_make_a_file_warm_and_a_miss_cold() {
        let Some(file) = fresh(8192) else { return };
        let (warmth, fd) = (cold(128 * KIB), file.as_raw_fd());
        // What is not there, 1 MiB further on, tells whether it is asked for.
        let asks = |warmth: &Warmth| warmth.look(fd, 1024 * KIB, 4096, 2048 * KIB).is_none();
        for hit in 0..HITS {
            assert!(asks(&warmth), "cold before hit {hit}");
            let earned = warmth.look(fd, 0, 4096, 2048 * KIB).expect("it is cached");
            warmth.hit(earned);
        }
        assert!(!asks(&warmth), "warm");
        warmth.miss();
        assert!(asks(&warmth), "cold again");
    }

    #[test]
    fn reads_in_sequence_leave_reading_ahead_to_others() {
        let Some(file) = fresh(256 * KIB) else { return };
        let fd = file.as_raw_fd();
        // The file goes on, uncached, behind the first 256 KiB, as after the kernel has read ahead.
        file.set_len(1024 * KIB).expect("room");
        let warmth = cold(128 * KIB);
        let read = |position: u64| warmth.look(fd, position * KIB, 4 * KIB, 1024 * KIB).is_some();
        let tried = (0..64).map(|i| read(4 * i)).take_while(|tried| *tried).count();
        assert_eq!(tried, 32, "as long as more is cached ahead than is read ahead at once");
        assert!(!(33..64).any(|i| read(4 * i)), "from there on a mark may lie anywhere");
        assert!(read(0) && read(248), "not in sequence");
        let warmth = cold(128 * KIB);
        assert!((0..64).all(|i| warmth.look(fd, 4 * i * KIB, 4 * KIB, 256 * KIB).is_some()), "to the end of the file");
    }

    #[test]
    fn where_nothing_can_be_asked_misses_are_avoided_longer_and_longer() {
        let warmth = cold(128 * KIB);
        assert_eq!(warmth.look(-1, 0, 4096, 8192), Some(warmth.share()), "EBADF: it does not answer");
        let mut waits = Vec::new();
        for _ in 0..9 {
            warmth.miss();
            let skipped = (0..1000).take_while(|_| warmth.look(-1, 0, 4096, 8192).is_none()).count();
            waits.push(skipped);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        warmth.hit(warmth.share());
        warmth.miss();
        assert!(warmth.look(-1, 0, 4096, 8192).is_none() && warmth.look(-1, 0, 4096, 8192).is_some(), "a hit forgives");
    }
}
