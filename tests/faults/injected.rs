//! Faults by chance over real backends and real files, as `FaultInjecting` lays them: whatever is refused, cut or delayed,
//! the bytes are right in the end, and every fallback is counted.

use std::sync::Arc;
use std::time::Duration;

use polyaio::backends::simulated::{FAULT_INJECTING, Fault, FaultInjecting, Latency};
use polyaio::backends::thread_pool::{self, ThreadPool};
use polyaio::{Backend, BufResult, Direct, Engine, Error, OpenOptions, Reason};

use crate::support::{self, assert_file, pattern};
use crate::tools::{Watchdog, join, poll_once};
use crate::{BLOCK, Bench, prefer};

fn pool() -> ThreadPool {
    ThreadPool::start(thread_pool::Options { threads: 4, queue_bound: 64 }).expect("a thread can be had")
}

/// The backends below, each with whether it is given direct files.
fn below() -> Vec<(&'static str, bool)> {
    [("thread-pool", false), ("kernel-aio", true)]
        .into_iter()
        .filter(|(name, _)| *name != "kernel-aio" || has_kernel())
        .collect()
}

fn has_kernel() -> bool {
    cfg!(feature = "kernel-aio") && support::kernel_aio().is_ok()
}

/// An engine that prefers faults over the named backend, and a file.
fn bench(name: &str, direct: bool, faults: &[Fault]) -> Bench {
    fn over<B: Backend + 'static>(backend: B, faults: &[Fault]) -> Engine {
        let faulty = FaultInjecting::builder(backend).seed(1).faults(faults.iter().cloned()).build();
        prefer(faulty.expect("the plan makes sense"), FAULT_INJECTING)
    }
    let engine = match name {
        #[cfg(feature = "kernel-aio")]
        "kernel-aio" => {
            let options = polyaio::backends::kernel_aio::KernelAio::start(64);
            over(options.expect("it starts elsewhere, too"), faults)
        }
        _ => over(pool(), faults),
    };
    Bench::on(engine, 64, direct)
}

/// Writes all of it anew, half in flight together, reads it back, and compares.
fn work(bench: &Bench, salt: u64) {
    let data = pattern(64 * BLOCK, salt);
    let block = |at: usize| {
        let mut buffer = bench.file.buffer(BLOCK);
        buffer.copy_from_slice(&data[at * BLOCK..][..BLOCK]);
        bench.file.write_all_at(buffer, (at * BLOCK) as u64)
    };
    let written = bench.engine.block_on(join((0..64).map(block)));
    written.into_iter().for_each(|done| done.0.expect("room"));
    bench.file.sync_data().wait().expect("on a disk");
    let reads = (0..64).map(|at| bench.file.read_exact_at(bench.file.buffer(BLOCK), (at * BLOCK) as u64));
    for (at, BufResult(done, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
        done.expect("it is that long");
        assert_eq!(back[..BLOCK], data[at * BLOCK..][..BLOCK], "block {at}");
    }
    assert_file(&bench.path, &data);
    assert_eq!(bench.engine.stats().anomalies, Default::default());
}

/// With all that may go wrong without being the request's own error, nothing is lost.
#[test]
fn whatever_is_refused_is_served() {
    let _watchdog = Watchdog::new("faults: whatever_is_refused_is_served");
    for (name, direct) in below() {
        let storm = [
            Fault::error(libc::EINVAL).probability(0.05),
            Fault::error(libc::EINVAL).at_submit().probability(0.05),
            Fault::short().probability(0.2),
            Fault::queue_full().probability(0.1),
            Fault::delay(Latency::uniform(Duration::ZERO, Duration::from_millis(2))).probability(0.2),
        ];
        let bench = bench(name, direct, &storm);
        for round in 0..8 {
            work(&bench, round);
        }
        let stats = bench.engine.stats();
        assert!(stats.fallback(Reason::Invalid) + stats.fallback(Reason::Remembered) > 0, "{name}: {stats:#?}");
        assert!(bench.served(FAULT_INJECTING) > 0, "{name}: {stats:#?}");
    }
}

/// Without faults, or with ones that never strike, the backend below serves, and nobody else.
#[test]
fn nothing_happens_with_probability_0() {
    for (name, direct) in below() {
        let never =
            [Fault::error(libc::EIO), Fault::short(), Fault::lost_write(), Fault::stall(Duration::from_secs(999))];
        let bench = bench(name, direct, &never.map(|fault| fault.probability(0.0)));
        work(&bench, 1);
        let stats = bench.engine.stats();
        let fallbacks: u64 = Reason::ALL.iter().filter(|r| **r != Reason::WouldBlock).map(|r| stats.fallback(*r)).sum();
        assert_eq!(fallbacks, 0, "{name}: {stats:#?}");
        // What the kernel refuses because it would block is the pool's.
        assert!(bench.served(FAULT_INJECTING) + stats.fallback(Reason::WouldBlock) > 100, "{name}: {stats:#?}");
    }
}

/// "Not here" goes on to the next backend, and is remembered; the request's own error is reported, and nothing was done.
#[test]
fn errors_lead_where_they_should() {
    for at_submit in [false, true] {
        let fault = |errno| if at_submit { Fault::error(errno).at_submit() } else { Fault::error(errno) };
        for (errno, reason) in [(libc::EOPNOTSUPP, Reason::Unsupported), (libc::EINVAL, Reason::Invalid)] {
            let bench = bench("thread-pool", false, &[fault(errno).writes()]);
            work(&bench, 5);
            let stats = bench.engine.stats();
            assert!(stats.fallback(reason) > 0, "{stats:#?}");
            assert!(stats.fallback(reason) + stats.fallback(Reason::Remembered) >= 64, "each is counted: {stats:#?}");
        }
        for errno in [libc::EIO, libc::ENOSPC, libc::EROFS] {
            let bench = bench("thread-pool", false, &[fault(errno).writes().times(1)]);
            let BufResult(done, back) = bench.file.write_all_at(vec![9; BLOCK], 0).wait();
            assert_eq!((done.expect_err("injected").raw_os_error(), back), (Some(errno), vec![9; BLOCK]));
            assert_file(&bench.path, &bench.data);
            assert_eq!(bench.engine.stats().fallback(Reason::Invalid), 0);
            work(&bench, 6);
        }
    }
}

#[test]
fn short_transfers_are_finished_where_all_is_wanted() {
    for (name, direct) in below() {
        let bench = bench(name, direct, &[Fault::short_to(512).reads().every(2)]);
        let read = |whole: bool| {
            let buffer = bench.file.buffer(2 * BLOCK);
            if whole {
                let BufResult(done, back) = bench.file.read_exact_at(buffer, 0).wait();
                (done.map(|()| 2 * BLOCK).expect("it is that long"), back)
            } else {
                let BufResult(done, back) = bench.file.read_at(buffer, 0).wait();
                (done.expect("readable"), back)
            }
        };
        let counts: Vec<_> = (0..4).map(|_| read(false).0).collect();
        assert_eq!(counts, [2 * BLOCK, 512, 2 * BLOCK, 512], "{name}");
        for _ in 0..4 {
            let (_, back) = read(true);
            assert_eq!(back[..], bench.data[..2 * BLOCK], "{name}");
        }
    }
    // In the middle of several buffers.
    let bench = bench("thread-pool", false, &[Fault::short_to(700).times(1)]);
    let parts = vec![vec![0; 300], vec![0; 300], vec![0; 300]];
    let BufResult(n, _) = bench.file.read_vectored_at(parts.clone(), 0).wait();
    assert_eq!(n.expect("readable"), 700);
    let BufResult(done, back) = bench.file.read_exact_vectored_at(parts, 0).wait();
    done.expect("it is that long");
    assert_eq!(back.concat(), bench.data[..900]);
}

/// Nothing else is held up by what is delayed, and it can be cancelled as long as it waits.
#[test]
fn delays_hold_up_one_request() {
    let _watchdog = Watchdog::new("faults: delays_hold_up_one_request");
    for (name, direct) in below() {
        let bench = bench(name, direct, &[Fault::stall(Duration::from_secs(100_000)).reads().nth(1)]);
        let mut stalled = bench.file.read_at(bench.file.buffer(BLOCK), 0);
        assert!(poll_once(&mut stalled).is_pending());
        bench.engine.turn(0, usize::MAX, None);
        work(&bench, 3);
        assert!(poll_once(&mut stalled).is_pending());
        assert_eq!(stalled.cancel(), polyaio::backend::CancelOutcome::Cancelled);
        assert_eq!(stalled.wait().0.expect_err("cancelled").raw_os_error(), Some(libc::ECANCELED));
        // One that ends by itself, waited for in the kernel.
        let slow = Fault::stall(Duration::from_millis(30));
        let bench = self::bench(name, direct, &[slow]);
        let begin = std::time::Instant::now();
        bench.file.read_at(bench.file.buffer(BLOCK), 0).wait().0.expect("readable");
        assert!(begin.elapsed() >= Duration::from_millis(30));
    }
}

#[test]
fn lost_writes_report_success() {
    let bench = bench("thread-pool", false, &[Fault::lost_write().path("/").nth(1)]);
    assert_eq!(bench.file.write_at(vec![1; 100], 0).wait().0.expect("nobody notices"), 100);
    assert_file(&bench.path, &bench.data);
    assert_eq!(bench.file.write_at(vec![1; 100], 0).wait().0.expect("room"), 100);
    let want = [&[1; 100][..], &bench.data[100..]].concat();
    assert_file(&bench.path, &want);
}

/// What cannot be done to real files is refused where the plan is made, and says what to use instead.
#[test]
fn what_cannot_be_done_to_real_files() {
    let cannot = [
        Fault::latent_error(),
        Fault::bit_rot(1),
        Fault::misdirected(),
        Fault::failed_sync(libc::EIO),
        Fault::power_loss(polyaio::backends::simulated::Crash::Torn),
    ];
    let injecting: Arc<_> = FaultInjecting::builder(pool()).build().expect("there is no fault in it");
    for fault in cannot {
        let built = FaultInjecting::builder(pool()).fault(fault.clone()).build();
        assert!(matches!(&built, Err(Error::Options(text)) if text.contains("cannot be done to real files")));
        assert!(injecting.inject(fault).is_err());
    }
    injecting.shutdown();
}

/// Each of them, over each backend and on direct files too: nobody else answers in its stead.
#[test]
fn the_devices_errors_reach_the_program() {
    for (name, direct) in below() {
        for at_submit in [false, true] {
            for errno in [libc::EIO, libc::ENOSPC, libc::EROFS] {
                let fault = if at_submit { Fault::error(errno).at_submit() } else { Fault::error(errno) };
                let bench = bench(name, direct, &[fault.reads(), Fault::error(errno).writes()]);
                let BufResult(read, buffer) = bench.file.read_at(bench.file.buffer(BLOCK), 0).wait();
                assert_eq!(read.expect_err("each fails").raw_os_error(), Some(errno), "{name}, at submit: {at_submit}");
                let write = bench.file.write_at(buffer, 0).wait().0;
                assert_eq!(write.expect_err("each fails").raw_os_error(), Some(errno), "{name}");
            }
        }
    }
}

/// A fault that has a range leaves everything else alone.
#[test]
fn losses_stay_within_their_range() {
    for (name, direct) in below() {
        let lost = Fault::lost_write().range(0..BLOCK as u64);
        let bench = bench(name, direct, &[lost]);
        let before = std::fs::read(&bench.path).expect("it is there");
        let block = |count: usize| {
            let mut buffer = bench.file.buffer(count * BLOCK);
            buffer.fill(0xaa);
            buffer
        };
        assert_eq!(bench.file.write_at(block(1), 0).wait().0.expect("it reports success"), BLOCK);
        assert_eq!(std::fs::read(&bench.path).expect("it is there"), before, "{name}: lost");
        // More than the range: not lost.
        bench.file.write_all_at(block(2), 0).wait().0.expect("room");
        assert!(
            std::fs::read(&bench.path).expect("it is there")[..2 * BLOCK].iter().all(|byte| *byte == 0xaa),
            "{name}"
        );
    }
}

/// The rules that a file emulates are asked of what the program wants, not of the part of it that is transferred first.
#[test]
fn what_is_cut_keeps_the_rules_of_an_emulated_file() {
    let _watchdog = Watchdog::new("faults: what_is_cut_keeps_the_rules_of_an_emulated_file");
    let faulty = FaultInjecting::builder(pool()).seed(1).faults([Fault::short().every(2)]).build();
    let engine = prefer(faulty.expect("the plan makes sense"), FAULT_INJECTING);
    let scratch = support::Scratch::new();
    let path = scratch.path("file");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).direct(Direct::Emulated { alignment: BLOCK });
    let file = options.open(&engine, &path).expect("it can be made");
    let data = pattern(16 * BLOCK, 7);
    // Where they go is known only where they run.
    for block in data.chunks(2 * BLOCK) {
        let mut buffer = file.buffer(block.len());
        buffer.copy_from_slice(block);
        file.append(buffer).wait().0.expect("it is aligned");
    }
    for block in data.chunks(2 * BLOCK) {
        let BufResult(done, back) = file.read_exact(file.buffer(block.len())).wait();
        done.expect("it is aligned");
        assert!(back[..block.len()] == *block);
    }
    assert_file(&path, &data);
    for _ in 0..4 {
        let odd = file.append(vec![0; BLOCK + 1]).wait().0;
        assert_eq!(odd.expect_err("it is not").raw_os_error(), Some(libc::EINVAL));
    }
    assert!(engine.stats().backends.iter().map(|backend| backend.short).sum::<u64>() >= 8, "{:#?}", engine.stats());
}
