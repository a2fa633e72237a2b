//! Errors, and where they lead: to the next backend, back to the same one, or to the caller.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use polyaio::backend::{Capabilities, Serves};
use polyaio::{BufResult, Engine, Error, OpKind, Policy, Reason, Why};

use crate::support::{Scratch, assert_file, direct_io, pattern, require};
use crate::tools::{Answer, SCRIPTED, Scripted, Seen, Watchdog, join, transfers};
use crate::{BLOCK, Bench, code};

const POOL: &str = "thread-pool";

/// Honours NOWAIT, and serves direct files only: what kernel AIO says of itself.
fn like_kernel_aio() -> Capabilities {
    let mut capabilities = transfers(256);
    capabilities.serves = Serves::Direct;
    capabilities.nowait = true;
    capabilities
}

fn read_all(bench: &Bench) {
    let count = bench.data.len() / BLOCK;
    let reads = (0..count).map(|i| bench.file.read_at(polyaio::AlignedBuf::zeroed(BLOCK, BLOCK), (i * BLOCK) as u64));
    for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
        assert_eq!(n.expect("readable"), BLOCK);
        assert_eq!(back[..], bench.data[i * BLOCK..][..BLOCK], "block {i}");
    }
}

/// The kernel refuses one request of a batch, wherever it is: only that one goes elsewhere.
#[test]
fn one_of_a_batch_is_refused() {
    let _watchdog = Watchdog::new("faults: one_of_a_batch_is_refused");
    const COUNT: usize = 20;
    for refused in [0, COUNT / 2, COUNT - 1] {
        for answer in [Answer::Refuse(libc::EINVAL), Answer::Fail(libc::EINVAL)] {
            let at = (refused * BLOCK) as u64;
            let script = move |_, seen: Seen| if seen.position == Some(at) { answer } else { Answer::Elsewhere };
            let scripted = Scripted::new(script);
            let bench = Bench::new(&scripted, COUNT);
            read_all(&bench);
            assert_eq!((bench.served(SCRIPTED), bench.served(POOL)), (COUNT as u64 - 1, 1), "{refused}, {answer:?}");
            assert_eq!(bench.engine.stats().fallback(Reason::Invalid), 1);
            // Once may be the request's fault: it is asked again.
            read_all(&bench);
            assert_eq!((bench.served(SCRIPTED), bench.served(POOL)), (2 * COUNT as u64 - 2, 2));
        }
    }
}

/// `EINVAL` that is always right: after a few confirmations nobody asks again, for this file and operation.
#[test]
fn einval_is_remembered_after_a_few() {
    let _watchdog = Watchdog::new("faults: einval_is_remembered_after_a_few");
    for answer in [Answer::Refuse(libc::EINVAL), Answer::Fail(libc::EINVAL)] {
        let scripted =
            Scripted::new(move |_, seen| if seen.kind == polyaio::OpKind::Read { answer } else { Answer::Serve });
        let bench = Bench::new(&scripted, 4);
        for _ in 0..20 {
            assert_eq!(bench.file.read_at(vec![0; BLOCK], 0).wait().0.expect("elsewhere"), BLOCK);
        }
        assert_eq!(scripted.log().len(), 3, "asked until it was sure");
        let stats = bench.engine.stats();
        assert_eq!((stats.fallback(Reason::Invalid), bench.served(POOL)), (3, 20));
        let route = bench.file.route();
        assert_eq!(route.read[0].backend, POOL);
        let passed = route.passed.iter().find(|step| step.backend == SCRIPTED).expect("it says why");
        assert!(matches!(passed.reason, Why::Demoted(errno) if errno.0 == libc::EINVAL), "{route}");
        // Another operation, and another file, know nothing of it.
        assert_eq!(bench.file.write_at(vec![0; BLOCK], 0).wait().0.expect("room"), BLOCK);
        assert_eq!(bench.served(SCRIPTED), 1);
        let other = polyaio::OpenOptions::new().read(true).open(&bench.engine, &bench.path).expect("it is there");
        assert_eq!(other.read_at(vec![0; BLOCK], 0).wait().0.expect("elsewhere"), BLOCK);
        assert_eq!(scripted.log().len(), 5);
    }
}

/// A request that everybody refuses is wrong itself: that teaches nothing about the backend.
#[test]
fn einval_of_a_wrong_request() {
    let _watchdog = Watchdog::new("faults: einval_of_a_wrong_request");
    let scripted = Scripted::new(|_, seen| match seen.kind {
        polyaio::OpKind::SyncAll => Answer::Refuse(libc::EINVAL),
        _ => Answer::Serve,
    });
    let bench = Bench::new(&scripted, 1);
    let (reader, _writer) = crate::support::pipe();
    let pipe = bench.engine.adopt(reader.into()).expect("a pipe");
    for _ in 0..10 {
        assert_eq!(code(pipe.sync_all().wait()), libc::EINVAL, "the pool's own fsync(2)");
    }
    assert_eq!(scripted.log().len(), 10, "never demoted");
}

/// "Not here" is certain: nobody asks a second time.
#[test]
fn not_supported_is_remembered_at_once() {
    let _watchdog = Watchdog::new("faults: not_supported_is_remembered_at_once");
    for errno in [libc::EOPNOTSUPP, libc::ENOSYS, libc::EPERM] {
        for answer in [Answer::Refuse(errno), Answer::Fail(errno)] {
            let scripted = Scripted::new(move |_, _| answer);
            let bench = Bench::new(&scripted, 4);
            for _ in 0..5 {
                assert_eq!(bench.file.read_at(vec![0; BLOCK], 0).wait().0.expect("elsewhere"), BLOCK);
                bench.file.sync_all().wait().expect("on a disk");
            }
            assert_eq!(scripted.log().len(), 2, "once per kind: {answer:?}");
            let stats = bench.engine.stats();
            assert_eq!((stats.fallback(Reason::Unsupported), bench.served_elsewhere(SCRIPTED)), (2, 10), "{answer:?}");
        }
    }
}

/// `EPERM` may be a sandbox's, or the file's own: then everybody says so, and nobody is passed over for it.
#[test]
fn not_permitted_by_the_file_itself() {
    let _watchdog = Watchdog::new("faults: not_permitted_by_the_file_itself");
    let bench_of = |answer| {
        let scripted = Scripted::new(move |_, seen| if seen.kind == OpKind::Write { answer } else { Answer::Serve });
        (scripted.clone(), Bench::new(&scripted, 1))
    };
    for answer in [Answer::Fail(libc::EPERM), Answer::Refuse(libc::EPERM), Answer::Serve] {
        let (scripted, bench) = bench_of(answer);
        let sealed = bench.engine.adopt(sealed_file()).expect("a file");
        for _ in 0..6 {
            assert_eq!(code(sealed.write_at(vec![1; 10], 0).wait().0), libc::EPERM, "{answer:?}");
        }
        assert_eq!(scripted.log().len(), 6, "asked each time: {answer:?}");
        assert!(sealed.route().write[0].backend == SCRIPTED, "{}", sealed.route());
    }
}

/// A file in memory that nobody may write any more.
fn sealed_file() -> OwnedFd {
    // SAFETY: the name is a C string, the descriptor is new and nobody else's, the seals are plain numbers.
    unsafe {
        let fd =
            OwnedFd::from_raw_fd(libc::memfd_create(c"sealed".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING));
        assert_eq!(libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE), 0);
        fd
    }
}

/// An interrupted call says nothing about anybody: the same is asked again, and the caller never sees it.
#[test]
fn interrupted_is_asked_again() {
    let _watchdog = Watchdog::new("faults: interrupted_is_asked_again");
    for answer in [Answer::Fail(libc::EINTR), Answer::Refuse(libc::EINTR)] {
        let scripted = Scripted::new(move |number, _| if number % 3 == 2 { Answer::Serve } else { answer });
        let bench = Bench::new(&scripted, 4);
        read_all(&bench);
        bench.file.write_all_at(bench.data.clone(), 0).wait().0.expect("room");
        bench.file.sync_all().wait().expect("on a disk");
        assert_file(&bench.path, &bench.data);
        let stats = bench.engine.stats();
        assert_eq!((stats.total_fallbacks(), bench.served(SCRIPTED), bench.served(POOL)), (0, 6, 0), "{answer:?}");
        assert_eq!(scripted.log().len(), 18);
    }
}

/// The request's own errors are reported as they are, and nobody else is asked.
#[test]
fn errors_of_the_request_are_reported() {
    let _watchdog = Watchdog::new("faults: errors_of_the_request_are_reported");
    let own = [
        libc::EBADF,
        libc::EFAULT,
        libc::EIO,
        libc::ENOSPC,
        libc::EFBIG,
        libc::EROFS,
        libc::EDQUOT,
        libc::ENOMEM,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::EACCES,
        libc::EAGAIN,
        libc::ETIMEDOUT,
    ];
    // Also where the backend did not take the request: for want of memory nobody else is asked.
    let ways = own.map(|errno| [Answer::Fail(errno), Answer::Refuse(errno)]);
    for (errno, answer) in own.iter().zip(ways).flat_map(|(errno, ways)| ways.map(|way| (*errno, way))) {
        let script = move |number, _| if number == 2 { answer } else { Answer::Elsewhere };
        let bench = Bench::new(&Scripted::new(script), 5);
        let reads = (0..5).map(|i| bench.file.read_at(vec![0; BLOCK], i * BLOCK as u64));
        for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!(back.len(), BLOCK);
            if i == 2 {
                assert_eq!(code(n), errno);
            } else {
                assert_eq!(n.expect("its neighbours are well"), BLOCK);
            }
        }
        let stats = bench.engine.stats();
        assert_eq!((stats.total_fallbacks(), stats.backends[0].errors, bench.served(POOL)), (0, 1, 0), "{stats:#?}");
    }
}

/// A sync that fails says so, and does not keep the next one from its turn.
#[test]
fn a_failed_sync_is_reported() {
    let _watchdog = Watchdog::new("faults: a_failed_sync_is_reported");
    let bench =
        Bench::new(&Scripted::new(|number, _| if number == 1 { Answer::Fail(libc::EIO) } else { Answer::Serve }), 1);
    let mut write = bench.file.write_at(vec![1; 100], 0);
    assert!(crate::tools::poll_once(&mut write).is_pending());
    assert_eq!(code(bench.file.sync_all().wait()), libc::EIO);
    assert_eq!(write.wait().0.expect("room"), 100);
    bench.file.sync_all().wait().expect("on a disk");
}

/// Parts of a looping transfer have landed when the rest fails: the error counts, and nothing is repeated.
#[test]
fn an_error_after_a_part() {
    let _watchdog = Watchdog::new("faults: an_error_after_a_part");
    let script = |number, _| if number == 0 { Answer::Short(1000) } else { Answer::Fail(libc::ENOSPC) };
    let scripted = Scripted::new(script);
    let bench = Bench::new(&scripted, 1);
    assert_eq!(code(bench.file.write_all_at(vec![7; 3000], 0).wait().0), libc::ENOSPC);
    assert_eq!(scripted.log().len(), 2);
    let mut want = bench.data.clone();
    want[..1000].fill(7);
    assert_file(&bench.path, &want);
    // And when it goes on elsewhere, it goes on where it was.
    let script = |number, _| if number == 0 { Answer::Short(1000) } else { Answer::Fail(libc::EINVAL) };
    let bench = Bench::new(&Scripted::new(script), 1);
    let fresh = pattern(3000, 9);
    bench.file.write_all_at(fresh.clone(), 100).wait().0.expect("room");
    let mut want = bench.data.clone();
    want[100..3100].copy_from_slice(&fresh);
    assert_file(&bench.path, &want);
    assert_eq!(bench.engine.stats().fallback(Reason::Invalid), 1);
}

/// What has landed is never written again, whatever the rest is told: a file that is appended to would show it.
#[test]
fn a_part_that_landed_is_never_repeated() {
    let _watchdog = Watchdog::new("faults: a_part_that_landed_is_never_repeated");
    let elsewhere = [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::EPERM];
    for (errno, goes_on) in elsewhere.map(|e| (e, true)).into_iter().chain([(libc::EIO, false), (libc::ENOSPC, false)])
    {
        for rest in [Answer::Fail(errno), Answer::Refuse(errno)] {
            let script = move |number, _| if number == 0 { Answer::Short(1000) } else { rest };
            let bench = Bench::new(&Scripted::new(script), 0);
            let file = polyaio::OpenOptions::new().append(true).open(&bench.engine, &bench.path).expect("it is there");
            let data = pattern(3000, 9);
            let BufResult(done, _) = file.write_all_at(data.clone(), 0).wait();
            if goes_on {
                done.expect("the pool writes the rest");
                assert_file(&bench.path, &data);
            } else {
                assert_eq!(code(done), errno);
                assert_file(&bench.path, &data[..1000]);
            }
        }
    }
    // One that may be short is short: the rest is the caller's.
    let scripted = Scripted::new(|number, _| if number == 0 { Answer::Short(1000) } else { Answer::Serve });
    let bench = Bench::new(&scripted, 0);
    assert_eq!(bench.file.write_at(pattern(3000, 9), 0).wait().0.expect("room"), 1000);
    assert_eq!(scripted.log().len(), 1);
    // The same of what is told that the rest would block, or failed without blocking.
    require!(direct_io(Scratch::new().dir()));
    for errno in [libc::EAGAIN, libc::EIO, libc::EOPNOTSUPP] {
        let script = move |number, seen: Seen| match number {
            0 => Answer::Short(BLOCK as u64),
            _ if seen.nowait => Answer::Fail(errno),
            _ => Answer::Serve,
        };
        let (scripted, bench) = nowait_bench(script);
        let fresh = pattern(4 * BLOCK, 9);
        bench.file.write_all_at(polyaio::AlignedBuf::copy_from(&fresh, BLOCK), 0).wait().0.expect("room");
        assert_eq!(std::fs::read(&bench.path).expect("there")[..4 * BLOCK], fresh);
        let seen = scripted.log();
        assert!(seen.iter().skip(1).all(|(seen, _)| seen.position == Some(BLOCK as u64)), "{errno}: {seen:?}");
    }
}

/// A direct file, whose first choice is asked with NOWAIT. Without direct I/O such a backend is not asked at all.
fn nowait_bench(script: impl Fn(usize, Seen) -> Answer + Send + Sync + 'static) -> (Arc<Scripted>, Bench) {
    let scripted = Scripted::with(like_kernel_aio(), script);
    let policy = Policy::Prefer(vec![SCRIPTED.into(), POOL.into()]);
    // It waits for the disk inside `submit`, which is not what is tested.
    let builder = Engine::builder().backend(scripted.clone()).policy(policy).strict(false).slow_submit(Duration::MAX);
    (scripted, Bench::on(builder.build().expect("an engine"), 8, true))
}

/// What a NOWAIT request is told is not the last word: it is repeated blocking.
#[test]
fn nowait_is_repeated() {
    let _watchdog = Watchdog::new("faults: nowait_is_repeated");
    require!(direct_io(Scratch::new().dir()));
    for (errno, reason) in [(libc::EAGAIN, Reason::WouldBlock), (libc::EIO, Reason::NowaitError)] {
        for answer in [Answer::Fail(errno), Answer::Refuse(errno)] {
            let script = move |number, _| if number % 2 == 0 { answer } else { Answer::Elsewhere };
            let (scripted, bench) = nowait_bench(script);
            read_all(&bench);
            assert!(scripted.log().iter().all(|(seen, _)| seen.nowait), "asked with NOWAIT");
            let stats = bench.engine.stats();
            assert_eq!((stats.fallback(reason), bench.served(SCRIPTED), bench.served(POOL)), (4, 4, 4), "{answer:?}");
        }
    }
}

/// Refused now and then, NOWAIT is kept; refused always, the detour ends.
#[test]
fn nowait_is_given_up_when_it_is_always_refused() {
    let _watchdog = Watchdog::new("faults: nowait_is_given_up_when_it_is_always_refused");
    require!(direct_io(Scratch::new().dir()));
    let (scripted, bench) = nowait_bench(|_, _| Answer::Fail(libc::EAGAIN));
    (0..50).for_each(|_| read_all(&bench));
    let asked = scripted.log().len();
    assert!((64..200).contains(&asked), "asked {asked} times of 400");
    let script = |number, _| if number % 50 == 49 { Answer::Serve } else { Answer::Fail(libc::EAGAIN) };
    let (scripted, bench) = nowait_bench(script);
    (0..50).for_each(|_| read_all(&bench));
    assert_eq!(scripted.log().len(), 400, "one in fifty is enough to go on");
}

/// What makes a file longer is refused by every file system: that is no reason to leave the overwrites to the pool.
#[test]
fn nowait_is_not_judged_by_what_extends_the_file() {
    let _watchdog = Watchdog::new("faults: nowait_is_not_judged_by_what_extends_the_file");
    require!(direct_io(Scratch::new().dir()));
    let script = |_, seen: Seen| match seen.position {
        Some(at) if seen.kind == OpKind::Write && at >= 8 * BLOCK as u64 => Answer::Fail(libc::EAGAIN),
        _ => Answer::Serve,
    };
    let (_, bench) = nowait_bench(script);
    let write = |block: usize| {
        let data = polyaio::AlignedBuf::zeroed(BLOCK, BLOCK);
        bench.file.write_all_at(data, (block * BLOCK) as u64).wait().0.expect("room");
    };
    (8..208).for_each(write);
    let skipped = bench.engine.stats().fallback(Reason::Remembered);
    assert_eq!((bench.engine.stats().fallback(Reason::WouldBlock) + skipped, bench.served(POOL)), (200, 200));
    (0..8).for_each(write);
    assert_eq!((bench.served(SCRIPTED), bench.engine.stats().fallback(Reason::Remembered)), (8, skipped));
}

/// The file knows no NOWAIT: the same backend is asked without it, where that cannot block.
#[test]
fn nowait_is_left_out_where_it_is_not_known() {
    let _watchdog = Watchdog::new("faults: nowait_is_left_out_where_it_is_not_known");
    require!(direct_io(Scratch::new().dir()));
    let script = |_, seen: Seen| if seen.nowait { Answer::Fail(libc::EOPNOTSUPP) } else { Answer::Serve };
    let (scripted, bench) = nowait_bench(script);
    (0..4).for_each(|_| read_all(&bench));
    assert_eq!((bench.served(SCRIPTED), bench.served(POOL)), (32, 0));
    let with = scripted.log().iter().filter(|(seen, _)| seen.nowait).count();
    assert!(with <= 8, "asked with NOWAIT {with} times, though the first answer was clear");
    assert_eq!(bench.engine.stats().fallback(Reason::NowaitUnsupported), with as u64);
    // What makes the file longer would block without NOWAIT: to the pool.
    let before = scripted.log().len();
    let block = polyaio::AlignedBuf::zeroed(BLOCK, BLOCK);
    assert_eq!(bench.file.write_at(block, 8 * BLOCK as u64).wait().0.expect("room"), BLOCK);
    assert_eq!(bench.served(POOL), 1);
    let asked = scripted.log().split_off(before);
    assert!(asked.iter().all(|(seen, _)| seen.nowait), "never asked in a way that blocks: {asked:?}");
}

/// 0 bytes before the end of the file: old kernels say that of NOWAIT reads.
#[test]
fn an_early_end_is_not_believed() {
    let _watchdog = Watchdog::new("faults: an_early_end_is_not_believed");
    require!(direct_io(Scratch::new().dir()));
    let (_, bench) = nowait_bench(|number, _| if number % 2 == 0 { Answer::Short(0) } else { Answer::Serve });
    read_all(&bench);
    assert_eq!(bench.engine.stats().fallback(Reason::EarlyEnd), 4);
    let end = bench.data.len() as u64;
    let BufResult(n, _) = bench.file.read_at(polyaio::AlignedBuf::zeroed(BLOCK, BLOCK), end).wait();
    assert_eq!(n.expect("the real end"), 0);
    assert_eq!(bench.engine.stats().fallback(Reason::EarlyEnd), 4);
}

/// What a NOWAIT transfer would have waited for is waited for: short counts in the middle of a file are nobody's wish.
#[test]
fn what_stops_half_way_goes_on() {
    let _watchdog = Watchdog::new("faults: what_stops_half_way_goes_on");
    require!(direct_io(Scratch::new().dir()));
    let half = BLOCK as u64;
    let (scripted, bench) = nowait_bench(move |_, _| Answer::Short(half));
    let (size, end) = (2 * BLOCK, bench.data.len());
    let BufResult(n, back) = bench.file.read_at(polyaio::AlignedBuf::zeroed(size, BLOCK), 0).wait();
    assert_eq!(n.expect("readable"), size);
    assert_eq!(back[..], bench.data[..size]);
    let new = pattern(size, 9);
    let write = bench.file.write_at(polyaio::AlignedBuf::copy_from(&new, BLOCK), 0);
    assert_eq!(write.wait().0.expect("room"), size);
    assert_file(&bench.path, &[&new, &bench.data[size..]].concat());
    assert_eq!((scripted.log().len(), bench.served(POOL)), (2, 2), "each was begun by one and ended by the other");
    assert_eq!(bench.engine.stats().fallback(Reason::WouldBlock), 2);
    // The end of the file is an end, and whoever does not want to wait is told how far it went.
    let tail = bench.file.read_at(polyaio::AlignedBuf::zeroed(size, BLOCK), (end - BLOCK) as u64);
    assert_eq!(tail.wait().0.expect("readable"), BLOCK);
    let told = bench.file.read_at(polyaio::AlignedBuf::zeroed(size, BLOCK), 0).nowait();
    assert_eq!(told.wait().0.expect("readable"), BLOCK);
    assert_eq!(bench.engine.stats().fallback(Reason::WouldBlock), 2);
}

/// What a strict engine's refusal says, and the number that it keeps.
#[track_caller]
fn strict<T: std::fmt::Debug>(result: std::io::Result<T>) -> (String, Option<i32>) {
    let error = result.expect_err("nobody may");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner @ Error::Strict { errno, .. }) => {
            assert_eq!(inner.raw_os_error(), errno.map(|errno| errno.0));
            (error.to_string(), inner.raw_os_error())
        }
        other => panic!("not strict: {other:?}"),
    }
}

fn strict_engine(scripted: Arc<Scripted>, policy: Policy) -> Engine {
    Engine::builder().backend(scripted).policy(policy).strict(true).build().expect("an engine")
}

/// Strict: what only a fallback could serve is an error, and nothing is served elsewhere in silence.
#[test]
fn strict_engines_do_not_fall_back() {
    let _watchdog = Watchdog::new("faults: strict_engines_do_not_fall_back");
    let scripted = Scripted::new(|number, _| match number {
        0 => Answer::Refuse(libc::EINVAL),
        1 => Answer::Fail(libc::EOPNOTSUPP),
        2 => Answer::Busy,
        _ => Answer::Serve,
    });
    let policy = Policy::Prefer(vec![SCRIPTED.into()]);
    let engine = Engine::builder().backend(scripted).policy(policy).strict(true).build().expect("an engine");
    let bench = Bench::on(engine, 2, false);
    assert_eq!(strict(bench.file.read_at(vec![0; BLOCK], 0).wait().0).1, Some(libc::EINVAL));
    assert_eq!(strict(bench.file.write_at(vec![0; BLOCK], 0).wait().0).1, Some(libc::EOPNOTSUPP));
    let full = bench.file.sync_all().wait().expect_err("there is no room").to_string();
    assert!(full.contains("full") || full.contains("room"), "it says what was missing: {full}");
    let stats = bench.engine.stats();
    assert_eq!((stats.total_fallbacks(), bench.served(POOL)), (0, 0), "{stats:#?}");
    // What no asynchronous interface has runs on the pool all the same.
    assert_eq!(bench.file.len().wait().expect("a file has a length"), 2 * BLOCK as u64);
}

/// Each refusal says what was wanted, of whom, what came of it, and which fallback was refused.
#[test]
fn strict_refusals_say_which_fallback_is_missing() {
    let _watchdog = Watchdog::new("faults: strict_refusals_say_which_fallback_is_missing");
    let cases = [
        (Answer::Refuse(libc::EINVAL), Reason::Invalid, libc::EINVAL),
        (Answer::Fail(libc::EINVAL), Reason::Invalid, libc::EINVAL),
        (Answer::Fail(libc::EOPNOTSUPP), Reason::Unsupported, libc::EOPNOTSUPP),
        (Answer::Refuse(libc::ENOSYS), Reason::Unsupported, libc::ENOSYS),
        (Answer::Fail(libc::EPERM), Reason::Unsupported, libc::EPERM),
        (Answer::Busy, Reason::QueueFull, libc::EAGAIN),
    ];
    for (answer, reason, errno) in cases {
        // Preferred and strict; required; and strict, with others behind it.
        let (prefer, require) = (Policy::Prefer(vec![SCRIPTED.into()]), Policy::Require(SCRIPTED.into()));
        for (policy, strictly) in [(prefer, true), (require, false)] {
            let scripted = Scripted::new(move |_, _| answer);
            let builder = Engine::builder().backend(scripted.clone()).policy(policy.clone()).strict(strictly);
            let bench = Bench::on(builder.build().expect("an engine"), 2, false);
            // Over and over: what it answered once is no reason to ask somebody else.
            for _ in 0..5 {
                let BufResult(n, back) = bench.file.read_at(vec![0; BLOCK], 4096).wait();
                assert_eq!(back.len(), BLOCK, "the buffer comes back");
                let (text, number) = strict(n);
                assert_eq!(number, Some(errno), "{text}");
                for part in
                    ["Read of 4096 bytes at 4096", SCRIPTED, reason.as_str(), &polyaio::Errno(errno).to_string()]
                {
                    assert!(text.contains(part), "{part} is not in: {text}");
                }
                assert!(reason != Reason::Invalid || !text.contains("misaligned"), "the file is buffered: {text}");
            }
            let stats = bench.engine.stats();
            assert_eq!((scripted.log().len(), stats.total_fallbacks(), bench.served(POOL)), (5, 0, 0), "{policy:?}");
        }
    }
}

/// The same for what NOWAIT was told, on a direct file.
#[test]
fn strict_refusals_of_nowait() {
    let _watchdog = Watchdog::new("faults: strict_refusals_of_nowait");
    require!(direct_io(Scratch::new().dir()));
    let block = || polyaio::AlignedBuf::zeroed(BLOCK, BLOCK);
    let bench = |answer| {
        let scripted = Scripted::with(like_kernel_aio(), move |_, _| answer);
        Bench::on(strict_engine(scripted, Policy::Prefer(vec![SCRIPTED.into()])), 8, true)
    };
    let cases = [
        (Answer::Fail(libc::EAGAIN), Reason::WouldBlock, Some(libc::EAGAIN)),
        (Answer::Fail(libc::EIO), Reason::NowaitError, Some(libc::EIO)),
        (Answer::Short(0), Reason::EarlyEnd, None),
        (Answer::Fail(libc::EINVAL), Reason::Invalid, Some(libc::EINVAL)),
    ];
    for (answer, reason, errno) in cases {
        let bench = bench(answer);
        for _ in 0..100 {
            let (text, number) = strict(bench.file.read_at(block(), 0).wait().0);
            assert!(text.contains(reason.as_str()) && text.contains(SCRIPTED), "{text}");
            assert_eq!(number, errno, "{text}");
            if reason == Reason::Invalid {
                let alignment = bench.file.facts().alignment.expect("a direct file has one");
                assert!(text.contains("cannot serve") && text.contains(&alignment.to_string()), "{text}");
            }
        }
        assert_eq!(bench.engine.stats().total_fallbacks(), 0, "{answer:?}");
    }
    // What extends the file may not be asked without NOWAIT.
    let bench = bench(Answer::Fail(libc::EOPNOTSUPP));
    for _ in 0..3 {
        let (text, number) = strict(bench.file.write_at(block(), 8 * BLOCK as u64).wait().0);
        assert!(text.contains(Reason::NowaitUnsupported.as_str()), "{text}");
        assert_eq!(number, Some(libc::EOPNOTSUPP), "{text}");
    }
}

/// Strict, and nobody is named: the first of the plan serves, or nobody, also after it has said no to NOWAIT.
#[test]
fn strict_engines_pass_nobody_over() {
    let _watchdog = Watchdog::new("faults: strict_engines_pass_nobody_over");
    require!(direct_io(Scratch::new().dir()));
    let script = |_, seen: Seen| if seen.nowait { Answer::Fail(libc::EOPNOTSUPP) } else { Answer::Serve };
    let scripted = Scripted::with(like_kernel_aio(), script);
    let policy = Policy::Prefer(vec![SCRIPTED.into(), POOL.into()]);
    let bench = Bench::on(strict_engine(scripted, policy), 8, true);
    let block = || polyaio::AlignedBuf::zeroed(BLOCK, BLOCK);
    // The same backend, asked otherwise.
    assert_eq!(bench.file.write_at(block(), 0).wait().0.expect("without NOWAIT"), BLOCK);
    for _ in 0..3 {
        let BufResult(n, back) = bench.file.write_at(block(), 8 * BLOCK as u64).wait();
        let (text, number) = strict(n);
        assert!(text.contains(Reason::NowaitUnsupported.as_str()) && text.contains(SCRIPTED), "{text}");
        assert_eq!((number, back.len()), (Some(libc::EOPNOTSUPP), BLOCK));
    }
    assert_eq!(bench.served(POOL), 0, "{:?}", bench.engine.stats());
    // Nothing is learnt that would pass it over.
    let scripted = Scripted::new(|_, _| Answer::Fail(libc::ENOSYS));
    let policy = Policy::Prefer(vec![SCRIPTED.into(), POOL.into()]);
    let bench = Bench::on(strict_engine(scripted.clone(), policy), 8, false);
    for asked in 1..5 {
        assert_eq!(strict(bench.file.read_at(vec![0; BLOCK], 0).wait().0).1, Some(libc::ENOSYS));
        assert_eq!((scripted.log().len(), bench.file.route().read[0].backend), (asked, SCRIPTED));
    }
    assert_eq!(bench.served(POOL), 0, "{:?}", bench.engine.stats());
}

/// The request's own errors are the kernel's, in a strict engine too.
#[test]
fn strict_engines_report_the_requests_own_errors() {
    let _watchdog = Watchdog::new("faults: strict_engines_report_the_requests_own_errors");
    for errno in [libc::EBADF, libc::ENOSPC, libc::EIO, libc::EFBIG, libc::ENOMEM, libc::EAGAIN] {
        let scripted = Scripted::new(move |_, _| Answer::Fail(errno));
        let bench = Bench::on(strict_engine(scripted, Policy::Prefer(vec![SCRIPTED.into()])), 1, false);
        assert_eq!(code(bench.file.read_at(vec![0; BLOCK], 0).wait().0), errno);
        assert_eq!(bench.engine.stats().backends[0].errors, 1);
    }
}

/// A backend that offers no syncs, required: the error says what was wanted, and of whom.
#[test]
fn required_but_not_offered() {
    let _watchdog = Watchdog::new("faults: required_but_not_offered");
    let mut capabilities = transfers(16);
    capabilities.operations = polyaio::backend::OpSet::NONE.with(polyaio::OpKind::Read);
    let scripted = Scripted::with(capabilities, |_, _| Answer::Serve);
    let policy = Policy::Require(SCRIPTED.into());
    let engine = Engine::builder().backend(scripted).policy(policy).build().expect("an engine");
    let bench = Bench::on(engine, 1, false);
    assert_eq!(bench.file.read_at(vec![0; BLOCK], 0).wait().0.expect("readable"), BLOCK);
    let BufResult(n, back) = bench.file.write_at(vec![3; BLOCK], 0).wait();
    let error = n.expect_err("nobody may");
    assert_eq!(back, vec![3; BLOCK], "the buffer comes back");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::Strict { .. })), "{error:?}");
    assert!(error.to_string().contains("Write") && error.to_string().contains(SCRIPTED), "{error}");
}
