//! Submitting never blocks: the calls that submit do not put their thread to sleep, and do not do its I/O.
//!
//! Times are not to be trusted on a busy machine; context switches and started I/O are.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::task::Poll;

use polyaio::{AlignedBuf, BufResult, Direct, Engine};

use crate::support::{Scratch, disk_file_system, kernel_aio, pattern, require};
use crate::tools::{Begun, Respawn, Watchdog, join, one_of_many, own_threads, respawn};
use crate::{BLOCK, INLINE, auto, open, served};

const DEPTH: usize = 32;
const ROUNDS: usize = 32;

/// What this thread has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    /// It went to sleep so often.
    slept: i64,
    /// It made the kernel read so many blocks of 512 bytes from a disk.
    read: i64,
}

impl Done {
    fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the call fills the structure.
        let usage = unsafe {
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
            usage.assume_init()
        };
        Self { slept: usage.ru_nvcsw as _, read: usage.ru_inblock as _ }
    }

    fn since(before: Self) -> Self {
        let now = Self::now();
        Self { slept: now.slept - before.slept, read: now.read - before.read }
    }
}

/// Whether the kernel counts I/O per thread, and tells what is cached without reading it.
fn counts_reads(cold: &Path) -> Result<(), String> {
    use std::io::Read as _;
    const SYS_CACHESTAT: libc::c_long = 451;
    // SAFETY: without memory to read or write it is a fault, wherever there is such a call.
    let answer = unsafe { libc::syscall(SYS_CACHESTAT, 0, 0, 0, 0) };
    if answer == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        return Err("no cachestat(2): Linux 6.5 has it".into());
    }
    evict(cold);
    let before = Done::now();
    let mut file = std::fs::File::open(cold).expect("it is there");
    file.read_exact(&mut [0; BLOCK]).expect("readable");
    match Done::since(before).read {
        0 => Err("the kernel does not count I/O per thread, or the file does not leave the page cache".into()),
        _ => Ok(()),
    }
}

fn evict(path: &Path) {
    let file = std::fs::File::open(path).expect("it is there");
    file.sync_all().expect("a disk that works");
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

/// Runs `DEPTH` operations at a time; what the thread has done in the calls that submit them.
fn rounds<F>(engine: &Engine, mut make: impl FnMut(usize) -> F) -> Done
where
    F: Future<Output = BufResult<usize, AlignedBuf>> + Unpin,
{
    let mut done = Done::default();
    for round in 0..ROUNDS {
        let mut operations: Vec<_> = (0..DEPTH).map(|i| Some(make(round * DEPTH + i))).collect();
        let before = Done::now();
        // The first poll queues, the second submits and collects; neither waits.
        let mut begun = engine.block_on(poll_fn(|_| {
            let mut begun: Vec<_> = operations.iter_mut().filter_map(Option::take).map(Begun::new).collect();
            begun.iter_mut().for_each(|operation| {
                operation.again();
            });
            Poll::Ready(begun)
        }));
        let Done { slept, read } = Done::since(before);
        (done.slept, done.read) = (done.slept + slept, done.read + read);
        for BufResult(n, _) in engine.block_on(join(begun.drain(..))) {
            assert_eq!(n.expect("it works"), BLOCK);
        }
    }
    done
}

/// Neither in one of many attempts: a lock that a preempted thread holds can put anybody to sleep, and so can a page of the
/// program that the kernel has to read again, for want of memory.
#[track_caller]
fn assert_awake(mut attempt: impl FnMut() -> Done) {
    one_of_many("submitting without a sleep, and without a read", || {
        let done = attempt();
        if done == Done::default() { Ok(()) } else { Err(format!("{done:?} for {} requests", DEPTH * ROUNDS)) }
    });
}

#[test]
fn writes_that_make_a_file_longer_keep_their_caller_awake() {
    let _watchdog = Watchdog::new("routing: writes_that_make_a_file_longer_keep_their_caller_awake");
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    assert_awake(|| {
        let engine = auto();
        let path = scratch.path("grows");
        let file = open(&engine, &path, Direct::Required);
        let done = rounds(&engine, |i| file.write_at(AlignedBuf::copy_from(&[7; BLOCK], BLOCK), (i * BLOCK) as u64));
        std::fs::remove_file(&path).expect("it is there");
        // What the file system reads to make room is not looked at.
        Done { read: 0, ..done }
    });
}

/// The file system lets writes that make a file longer wait for each other: they take turns before, and occupy no worker each.
#[test]
fn writes_that_make_a_file_longer_take_turns() {
    let name = "submit::writes_that_make_a_file_longer_take_turns";
    if let Respawn::Parent(child) = respawn(name) {
        child.expect_success();
        return;
    }
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    require!(kernel_aio());
    // A worker that is preempted after its request's end is busy still: then one more is right.
    one_of_many("a few workers for writes that wait for each other", || {
        let workers = grow_by_turns(&scratch.path("grows"));
        if workers < 8 { Ok(()) } else { Err(format!("{workers} workers")) }
    });
}

/// Makes a new file longer, by many writes at once; how many workers there are at the end.
fn grow_by_turns(path: &Path) -> usize {
    let engine = auto();
    let file = open(&engine, path, Direct::Required);
    let write = |i: usize| file.write_all_at(AlignedBuf::copy_from(&[i as u8; BLOCK], BLOCK), (i * BLOCK) as u64);
    // The first few are refused, which the file remembers.
    (0..8).for_each(|i| write(i).wait().0.expect("room"));
    for BufResult(done, _) in engine.block_on(join((8..264).map(write))) {
        done.expect("room");
    }
    let workers = own_threads().into_iter().filter(|name| name == "polyaio-worker").count();
    let written = std::fs::read(path).expect("there");
    assert!((0..264).all(|i| written[i * BLOCK..][..BLOCK] == [i as u8; BLOCK]) && written.len() == 264 * BLOCK);
    std::fs::remove_file(path).expect("it is there");
    workers
}

/// The kernel begins to read what is missing in whoever asks for it, even where it must not wait for it.
#[test]
fn cold_reads_are_begun_by_others() {
    let _watchdog = Watchdog::new("routing: cold_reads_are_begun_by_others");
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let blocks = 4 * DEPTH * ROUNDS;
    let path = scratch.file_on_disk("cold", &pattern(blocks * BLOCK, 1));
    require!(counts_reads(&path));
    let scattered = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) as usize % blocks;
    let places: [&dyn Fn(usize) -> usize; 2] = [&scattered, &|i| i];
    for place in places {
        assert_awake(|| {
            evict(&path);
            let engine = auto();
            let file = open(&engine, &path, Direct::Off);
            let done = rounds(&engine, |i| file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), (place(i) * BLOCK) as u64));
            let stats = engine.stats();
            assert!(stats.inline.misses > 0, "it was not cold: {stats:#?}");
            done
        });
    }
    // Once it is cached, it is read in the caller all the same.
    one_of_many("all by the caller, unless some of it has left the cache again", || {
        let engine = auto();
        let file = open(&engine, &path, Direct::Off);
        std::fs::read(&path).expect("readable");
        rounds(&engine, |i| file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), (i * BLOCK) as u64));
        if served(&engine, INLINE) == (DEPTH * ROUNDS) as u64 { Ok(()) } else { Err(format!("{:#?}", engine.stats())) }
    });
}
