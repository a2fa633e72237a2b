//! A queued signal per operation. In processes of their own, with the signal blocked in every thread: else it would meet
//! other tests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use polyaio::backend::CancelOutcome;
use polyaio::{AlignedBuf, BufResult, Signalled, ops};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, code};
use crate::support::{self, pattern};
use crate::tools::{Respawn, eventually, respawn_prepared};

type Reads = BTreeMap<u64, (usize, Signalled<ops::Read<AlignedBuf>>)>;

fn signal() -> i32 {
    libc::SIGRTMIN() + 3
}

fn set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the first call fills the set, the second adds a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal());
        set.assume_init()
    }
}

/// Runs the case once more, in a process whose threads all have the signal blocked from the beginning.
fn in_a_process_of_its_own(bed: &Bed) -> Respawn {
    let blocked = |command: &mut std::process::Command| {
        // SAFETY: between fork and exec, sigprocmask is safe to call; the mask is inherited by exec and by all threads.
        unsafe {
            command.pre_exec(|| {
                libc::sigprocmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut());
                Ok(())
            });
        }
    };
    respawn_prepared(bed.name, blocked).checked()
}

/// The next signal's code and number; `None` where none comes in time.
fn take_signal(timeout: Duration) -> Option<(i32, u64)> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
    let timeout = libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    // SAFETY: the structures are read, and `info` is filled where the answer is the signal.
    unsafe {
        match libc::sigtimedwait(&set(), info.as_mut_ptr(), &raw const timeout) {
            taken if taken == signal() => {
                let info = info.assume_init();
                Some((info.si_code, info.si_value().sival_ptr as usize as u64))
            }
            _ => None,
        }
    }
}

const LONG: Duration = Duration::from_secs(40);

fn begin_reads(file: &polyaio::File, count: usize) -> Reads {
    let begin = |block: usize| {
        let read = file.read_at(buffer(BLOCK), (block * BLOCK) as u64).signal_on_completion(signal()).expect("open");
        (read.id(), (block, read))
    };
    (0..count).map(begin).collect()
}

#[track_caller]
fn check(data: &[u8], block: usize, result: BufResult<usize, AlignedBuf>) {
    assert_eq!(result.0.expect("readable"), BLOCK);
    assert_eq!(result.1[..], data[block * BLOCK..][..BLOCK], "block {block}");
}

pub(crate) fn each_carries_its_number(bed: &Bed) {
    const READS: usize = 40;
    let Respawn::Child = in_a_process_of_its_own(bed) else { return };
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(READS * BLOCK, 1);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, (READS / 2 * BLOCK) as u64);
        let mut reads = begin_reads(&file, READS);
        while !reads.is_empty() {
            let (si_code, id) = take_signal(LONG).expect("one signal for each");
            assert_eq!(si_code, libc::SI_ASYNCIO);
            let (block, mut read) = reads.remove(&id).expect("each carries the number of one, once");
            check(&data, block, read.try_take().expect("the result is there when the signal comes"));
            assert!(read.try_take().is_none(), "it was taken");
        }
        // A stream, one that is cancelled, and one that is waited for: a signal each.
        let (reader, mut writer) = support::pipe();
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let mut first = reader.read(vec![0; 5]).signal_on_completion(signal()).expect("open");
        let mut second = reader.read(vec![0; 5]).signal_on_completion(signal()).expect("open");
        assert!(first.try_take().is_none() && second.try_take().is_none());
        assert_eq!(second.cancel(), CancelOutcome::Cancelled);
        assert_eq!(take_signal(LONG).expect("it was cancelled").1, second.id());
        assert_eq!(code(second.try_take().expect("the result").0), libc::ECANCELED);
        writer.write_all(b"12345").expect("room");
        assert_eq!(take_signal(LONG).expect("it is ready").1, first.id());
        assert_eq!(first.try_take().expect("the result").1, b"12345");
        let third = file.read_at(buffer(BLOCK), 0).signal_on_completion(signal()).expect("open");
        let id = third.id();
        check(&data, 0, third.wait());
        assert_eq!(take_signal(LONG).expect("waited for or not").1, id);
        // Dropped, it is not cancelled.
        let id = {
            let dropped = file.sync_all().signal_on_completion(signal()).expect("open");
            dropped.id()
        };
        assert_eq!(take_signal(LONG).expect("dropped or not").1, id);
        assert_eq!(engine.stats().notifications.signals, READS as u64 + 4);
        assert!(take_signal(Duration::ZERO).is_none(), "no more than that");
        assert_healthy(&engine.stats());
    }
}

pub(crate) fn other_numbers_are_refused(bed: &Bed) {
    let engine = bed.engine();
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 2));
    for number in [0, -1, libc::SIGKILL, libc::SIGUSR1, libc::SIGRTMIN() - 1, libc::SIGRTMAX() + 1] {
        let refused = file.read_at(buffer(BLOCK), 0).signal_on_completion(number);
        let refused = refused.expect_err("it is no real-time signal");
        assert_eq!(refused.error().raw_os_error(), Some(libc::EINVAL), "{number}");
        check(&pattern(BLOCK, 2), 0, refused.into_inner().wait());
    }
}

/// Sets the soft limit of queued signals, which all processes of the user count against. Returns what it was.
fn limit_pending(limit: libc::rlim_t) -> libc::rlim_t {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is filled by the first call, and read during the second.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut now), 0);
        let before = std::mem::replace(&mut now.rlim_cur, limit);
        assert_eq!(libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const now), 0);
        before
    }
}

/// The kernel has no room for a signal: it comes later, when anything that tries again happens, and nothing is lost.
pub(crate) fn a_full_queue_loses_none(bed: &Bed) {
    const READS: usize = 30;
    let Respawn::Child = in_a_process_of_its_own(bed) else { return };
    let engine = bed.engine();
    let data = pattern(READS * BLOCK, 3);
    let file = bed.file(&engine, Medium::Buffered, "file", &data);
    for (round, again) in ["a result is taken", "somebody collects", "another one ends"].into_iter().enumerate() {
        let before = engine.stats().notifications.signals;
        let limit = limit_pending(0);
        let mut reads = begin_reads(&file, READS);
        eventually("all have ended", || engine.stats().notifications.signals == before + READS as u64);
        eventually("all wait", || engine.stats().notifications.signals_waiting == READS as u64);
        assert!(take_signal(Duration::ZERO).is_none(), "there is no room for one");
        limit_pending(limit);
        match round {
            0 => {
                let (_, (block, read)) = reads.iter_mut().next().expect("thirty");
                check(&data, *block, read.try_take().expect("the result does not wait for the signal"));
            }
            1 => _ = engine.turn(0, usize::MAX, None),
            _ => {
                let (id, last) = begin_reads(&file, 1).pop_first().expect("one");
                reads.insert(id, last);
            }
        }
        while !reads.is_empty() {
            let (_, id) = take_signal(LONG).unwrap_or_else(|| panic!("{} are lost, though {again}", reads.len()));
            let (block, mut read) = reads.remove(&id).expect("each once");
            if let Some(result) = read.try_take() {
                check(&data, block, result);
            }
        }
        assert_eq!(engine.stats().notifications.signals_waiting, 0);
        assert!(take_signal(Duration::ZERO).is_none(), "no more than that");
    }
}

pub(crate) fn the_engine_ends_before_they_are_taken(bed: &Bed) {
    let Respawn::Child = in_a_process_of_its_own(bed) else { return };
    let engine = bed.engine();
    let data = pattern(8 * BLOCK, 4);
    let file = bed.file(&engine, Medium::Buffered, "file", &data);
    assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
    bed.look(&engine);
    let mut reads = begin_reads(&file, 8);
    drop(engine);
    while !reads.is_empty() {
        let (_, id) = take_signal(Duration::ZERO).expect("all were queued before the drop has returned");
        let (block, read) = reads.remove(&id).expect("each once");
        check(&data, block, read.wait());
    }
    let refused = file.read_at(buffer(BLOCK), 0).signal_on_completion(signal()).expect_err("the engine has ended");
    assert!(refused.error().to_string().contains("shut down"), "{refused}");
}
