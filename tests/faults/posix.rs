//! POSIX AIO where the C library has no room, no threads, or other things to do.

use std::process::Command;

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use polyaio::{BufResult, Engine, Policy, Reason};

use crate::support::{NoThreads, Scratch, Watched, glibc, posix_aio, quiet, require, scarce_aio};
use crate::tools::{Respawn, Watchdog, join, respawn};
use crate::{BLOCK, Bench};

const POSIX: &str = "posix-aio";
const POOL: &str = "thread-pool";
const COUNT: usize = 300;
const ACCEPT: &str = "POLYAIO_TEST_SHIM_ACCEPT";

/// Every request ends, served by whom there is room.
#[test]
fn no_room_in_the_c_library() {
    let _watchdog = Watchdog::new("faults: no_room_in_the_c_library");
    require!(posix_aio());
    require!(glibc());
    let scratch = Scratch::new();
    let shim = require!(scarce_aio(scratch.dir()));
    for accepted in ["0", "1", "5"] {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        quiet(&mut command);
        command.args(["posix::child_without_room", "--exact", "--ignored", "--nocapture"]);
        command.env("LD_PRELOAD", &shim).env(ACCEPT, accepted);
        Watched::start(&mut command).finish().expect_success();
    }
}

/// Not a test by itself: `no_room_in_the_c_library` runs it.
#[test]
#[ignore = "the child of no_room_in_the_c_library"]
fn child_without_room() {
    let Ok(accepted) = std::env::var(ACCEPT) else { return };
    let engine = Engine::builder().policy(Policy::Prefer(vec![POSIX.into()])).build().expect("an engine");
    let bench = Bench::on(engine, COUNT, false);
    for _ in 0..3 {
        let reads = (0..COUNT).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64));
        for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
        }
    }
    let stats = bench.engine.stats();
    assert_eq!(bench.served(POSIX) + bench.served(POOL), 3 * COUNT as u64, "{stats:#?}");
    let elsewhere = stats.fallback(Reason::QueueFull) + stats.fallback(Reason::Unsupported);
    if accepted == "0" {
        assert_eq!((bench.served(POSIX), elsewhere), (0, 3 * COUNT as u64), "{stats:#?}");
    } else {
        assert!(
            bench.served(POSIX) > 0 && bench.served(POOL) <= elsewhere + stats.fallback(Reason::Remembered),
            "{stats:#?}"
        );
    }
    assert_eq!(stats.anomalies, Default::default());
}

fn engine() -> Engine {
    Engine::builder().policy(Policy::Require(POSIX.into())).build().expect("an engine")
}

/// A caller that is held up, for a lock of the C library, says nothing about its file: nothing goes elsewhere for that.
#[test]
fn submissions_never_look_slow() {
    let _watchdog = Watchdog::new("faults: submissions_never_look_slow");
    require!(posix_aio());
    // Whatever takes any time is slow.
    let builder = Engine::builder().policy(Policy::Prefer(vec![POSIX.into()])).slow_submit(Duration::ZERO);
    let bench = Bench::on(builder.build().expect("an engine"), 64, false);
    for i in 0..200 {
        assert_eq!(bench.file.read_at(vec![0; BLOCK], (i % 64 * BLOCK) as u64).wait().0.expect("readable"), BLOCK);
    }
    let stats = bench.engine.stats();
    assert_eq!((bench.served(POSIX), stats.fallback(Reason::SlowSubmit)), (200, 0), "{stats:#?}");
    let slow: u64 = stats.backends.iter().map(|backend| backend.slow_submits).sum();
    assert_eq!((slow, bench.file.route().to_string().contains("held")), (0, false), "{stats:#?}");
}

/// The C library gets no thread but its first one. Who had one started for each completion would wait for ever.
#[test]
fn one_thread_is_enough_for_all_completions() {
    let _watchdog = Watchdog::new("faults: one_thread_is_enough_for_all_completions");
    require!(posix_aio());
    require!(glibc());
    if let Respawn::Parent(child) = respawn("posix::one_thread_is_enough_for_all_completions") {
        child.expect_success();
        return;
    }
    let bench = Bench::on(engine(), COUNT, false);
    assert_eq!(bench.file.read_at(vec![0; BLOCK], 0).wait().0.expect("readable"), BLOCK);
    let _no_threads = NoThreads::begin();
    let reads = (0..COUNT).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64));
    for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
        assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
    }
    assert_eq!(bench.served(POSIX), 1 + COUNT as u64, "{:#?}", bench.engine.stats());
}

/// No clock of the C library's is relied on: a wait ends in time, while the program has all its threads wait for pipes.
#[test]
fn a_wait_ends_in_time_where_no_thread_is_free() {
    let _watchdog = Watchdog::new("faults: a_wait_ends_in_time_where_no_thread_is_free");
    require!(posix_aio());
    require!(glibc());
    if let Respawn::Parent(child) = respawn("posix::a_wait_ends_in_time_where_no_thread_is_free") {
        child.expect_success();
        return;
    }
    let mut pipes: Vec<_> = (0..40).map(|_| std::io::pipe().expect("a pipe")).collect();
    let mut bytes = vec![0u8; pipes.len()];
    // SAFETY: a structure of numbers and pointers.
    let mut blocks: Vec<libc::aiocb> = pipes.iter().map(|_| unsafe { std::mem::zeroed() }).collect();
    for ((block, byte), (pipe, _)) in blocks.iter_mut().zip(&mut bytes).zip(&pipes) {
        (block.aio_fildes, block.aio_buf, block.aio_nbytes) = (pipe.as_raw_fd(), (&raw mut *byte).cast(), 1);
        block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        // SAFETY: block and byte stay in their places until they are over, at the end.
        assert_eq!(unsafe { libc::aio_read(block) }, 0);
    }
    let bench = Bench::on(engine(), 4, false);
    let mut reads: Vec<_> = (0..4).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64)).collect();
    for read in &mut reads {
        let begin = Instant::now();
        assert!(read.wait_timeout(Duration::from_millis(50)).is_none(), "no thread is free");
        let took = begin.elapsed();
        assert!((Duration::from_millis(50)..Duration::from_secs(20)).contains(&took), "{took:?}");
    }
    pipes.iter_mut().for_each(|(_, writer)| writer.write_all(b"x").expect("room in the pipe"));
    reads.into_iter().for_each(|read| assert_eq!(read.wait().0.expect("readable"), BLOCK));
    for block in &blocks {
        // SAFETY: in flight, or over and not yet asked for its result.
        while unsafe { libc::aio_error(block) } == libc::EINPROGRESS {
            std::thread::yield_now();
        }
    }
}
