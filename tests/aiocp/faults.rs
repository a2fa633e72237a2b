//! A kernel that refuses, now and then or always: the same copy, nothing lost, no hang, and the report says why.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::run::{Report, SIZE, aiocp, one_line, run};
use crate::support::{
    Inject, NOBODY, Scratch, assert_file, built_with_kernel_aio, disk_file_system, example, is_root, kernel_aio,
    partial_submits, pattern, quiet, refuse, require,
};

/// Small blocks and a small depth: many submits, so that a fault from the fifth on has something to hit.
const MANY_SUBMITS: [&str; 6] = ["--direct", "--json", "--block-size", "16KiB", "--depth", "8"];

/// Copies under the fault, checks the copy, and that the fault has happened at least `times`.
#[track_caller]
fn copy_under(fault: &Inject, scratch: &Scratch, times: usize) -> Report {
    let data = pattern(SIZE, 50);
    let (source, destination) = (scratch.file_on_disk("in", &data), scratch.path("out"));
    let mut command = fault.command(example("aiocp"));
    quiet(command.args(MANY_SUBMITS).arg(source).arg(&destination));
    let report = Report::of(run(&mut command));
    assert_file(&destination, &data);
    assert_eq!(report.number("bytes"), SIZE as f64);
    assert!(
        fault.count() >= times,
        "injected {} times, want {times}: nothing was tested\n{}",
        fault.count(),
        fault.log()
    );
    report
}

/// The reason that the report must carry, wherever in it.
#[track_caller]
fn assert_mentions(report: &Report, any_of: &[&str]) {
    let text = report.json.to_string();
    assert!(any_of.iter().any(|word| text.contains(word)), "none of {any_of:?} in {text}");
}

macro_rules! io_setup_refused {
    ($($test:ident: $error:literal, $mentions:expr;)*) => {$(
        #[test]
        fn $test() {
            require!(kernel_aio());
            let scratch = Scratch::new();
            let fault = require!(Inject::new(scratch.dir(), "io_setup", concat!("error=", $error)));
            let report = copy_under(&fault, &scratch, 1);
            report.assert_without_kernel_aio();
            assert_ne!(report.served_by("thread-pool"), 0, "{}", report.json);
            assert_mentions(&report, &$mentions);
            assert_mentions(&report, &["io_setup"]);
        }
    )*};
}

io_setup_refused! {
    without_permission_for_kernel_aio_the_pool_copies: "EPERM", ["EPERM", "not permitted"];
    without_kernel_aio_in_the_kernel_the_pool_copies: "ENOSYS", ["ENOSYS", "not implemented"];
    with_aio_max_nr_spent_the_pool_copies: "EAGAIN", ["aio-max-nr"];
}

#[test]
fn kernel_aio_that_refuses_every_request_is_left_for_the_pool() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let fault = require!(Inject::new(scratch.dir(), "io_submit", "error=EINVAL"));
    let report = copy_under(&fault, &scratch, 1);
    assert_ne!(report.served_by("thread-pool"), 0, "{}", report.json);
    assert_ne!(report.fallbacks(), 0, "no fallback is silent: {}", report.json);
    assert_mentions(&report, &["inval"]);
    // 1 030 blocks of 16 KiB, read and written: most of them must not have asked in vain.
    assert!(fault.count() < 100, "asked {} times: the refusal is not remembered", fault.count());
}

#[test]
fn kernel_aio_that_holds_the_submitter_up_is_left_for_the_pool() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let fault = require!(Inject::new(scratch.dir(), "io_submit", "delay_enter=3000"));
    let data = pattern(SIZE, 51);
    let (source, destination) = (scratch.file_on_disk("in", &data), scratch.path("out"));
    let mut command = fault.command(example("aiocp"));
    quiet(command.args(MANY_SUBMITS).arg(source).arg(&destination));
    command.env("POLYAIO_SLOW_SUBMIT_US", "1000");
    let report = Report::of(run(&mut command));
    assert_file(&destination, &data);
    let slow = report.json["fallbacks"]["slow-submit"].as_u64().unwrap_or(0);
    assert!(slow > 100, "{}", report.json);
    let calls = fault.log().lines().filter(|line| line.contains("io_submit(")).count();
    assert!((4..300).contains(&calls), "{calls} submissions of 3 ms each\n{}", report.json);
}

#[test]
fn kernel_aio_that_refuses_from_the_fifth_submit_on_loses_nothing() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let fault = require!(Inject::new(scratch.dir(), "io_submit", "error=EINVAL:when=5+"));
    let report = copy_under(&fault, &scratch, 1);
    report.assert_kernel_aio_took_part();
    assert_ne!(report.served_by("thread-pool"), 0, "{}", report.json);
    assert_ne!(report.fallbacks(), 0, "no fallback is silent: {}", report.json);
}

/// A full queue is not a refusal: the requests wait for room and are served by kernel AIO after all.
#[test]
fn submission_queue_that_is_full_now_and_then_loses_nothing() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let fault = require!(Inject::new(scratch.dir(), "io_submit", "error=EAGAIN:when=2+3"));
    let report = copy_under(&fault, &scratch, 10);
    report.assert_kernel_aio_took_part();
}

/// `EAGAIN` with nothing in flight: no completion will ever come to trigger the retry.
#[test]
fn submission_queue_that_is_always_full_makes_progress() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let fault = require!(Inject::new(scratch.dir(), "io_submit", "error=EAGAIN"));
    let report = copy_under(&fault, &scratch, 1);
    assert_ne!(report.served_by("thread-pool"), 0, "{}", report.json);
}

#[test]
fn interrupted_waits_lose_nothing() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    // Whichever of them the library waits in; a wait that does not happen is none that can be interrupted.
    let waits = "io_getevents,io_pgetevents,epoll_wait,epoll_pwait,poll,ppoll";
    let fault = require!(Inject::new(scratch.dir(), waits, "error=EINTR:when=1+2"));
    copy_under(&fault, &scratch, 1).assert_kernel_aio_took_part();
}

/// A kernel whose ring is not the known one (Valgrind's is not either): completions come by system call.
#[test]
fn completions_by_system_call_make_the_same_copy() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let data = pattern(SIZE, 54);
    let (source, destination) = (scratch.file_on_disk("in", &data), scratch.path("out"));
    let mut command = aiocp(["--direct", "--json"]);
    command.env("POLYAIO_KERNEL_AIO_RING", "0");
    let report = Report::of(run(command.arg(source).arg(&destination)));
    assert_file(&destination, &data);
    report.assert_kernel_aio_carried(SIZE);
}

/// The kernel takes one request of each batch and leaves the rest: every one of them must be offered again.
#[test]
fn submits_that_are_accepted_in_part_lose_nothing() {
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let shim = require!(partial_submits(scratch.dir()));
    let acted = scratch.path("acted");
    let data = pattern(SIZE, 51);
    let (source, destination) = (scratch.file_on_disk("in", &data), scratch.path("out"));
    let mut command = aiocp(MANY_SUBMITS);
    command.env("LD_PRELOAD", shim).env("POLYAIO_TEST_SHIM_LOG", &acted);
    let report = Report::of(run(command.arg(source).arg(&destination)));
    assert_file(&destination, &data);
    // Also with a static C library, or a library that makes its system calls by itself.
    require!(acted.exists().then_some(()).ok_or_else(|| "the shim was never asked".to_string()));
    let blocks = 2 * (SIZE / (16 << 10)) as u64;
    let served = report.served_by("kernel-aio");
    assert!(served * 10 >= blocks * 9, "a partial acceptance is no refusal: {served} of {blocks}: {}", report.json);
}

/// The same without `strace`, so that it is tested everywhere: what a container's seccomp profile does.
#[test]
fn sandbox_that_forbids_kernel_aio_gets_the_pool() {
    let scratch = Scratch::new();
    let on_disk = kernel_aio().is_ok() && disk_file_system(scratch.dir()).is_ok();
    let setup = [libc::EPERM, libc::ENOSYS, libc::EAGAIN].map(|errno| (libc::SYS_io_setup, errno));
    let submit = [libc::EINVAL, libc::ENOSYS, libc::EAGAIN].map(|errno| (libc::SYS_io_submit, errno));
    for (call, errno) in [setup, submit].concat() {
        let data = pattern(SIZE, 53);
        let (source, destination) = (scratch.file_on_disk("in", &data), scratch.path("out"));
        let mut command = aiocp(MANY_SUBMITS);
        refuse(&mut command, call, errno);
        let report = Report::of(run(command.arg(source).arg(&destination)));
        assert_file(&destination, &data);
        report.assert_without_kernel_aio();
        // Where nobody would have asked, there is nothing to report either.
        if call == libc::SYS_io_setup && built_with_kernel_aio().is_ok() {
            assert_mentions(&report, &["io_setup"]);
        } else if on_disk {
            let why = report.fallbacks() > 0 || report.json.to_string().contains("io_submit");
            assert!(why, "refused with {errno}, and no fallback is silent: {}", report.json);
        }
    }
}

/// Threads that cannot be created make a smaller pool, not a failure: what an ordinary user's limit does.
#[test]
fn threads_that_cannot_be_created_are_done_without() {
    // Everybody may look: the program runs as another user when we are root, for whom there is no limit.
    let scratch = Scratch::open_to_all();
    let program = scratch.path("aiocp");
    std::fs::copy(example("aiocp"), &program).expect("room for the program");
    let data = pattern(SIZE, 52);
    let source = scratch.file("in", &data);
    for limit in 1..=8 {
        let destination = scratch.path(&format!("out{limit}"));
        let mut command = Command::new(&program);
        quiet(command.args(["--backend", "thread-pool"]).args([&source, &destination]));
        limit_threads(&mut command, limit);
        let finished = run(&mut command);
        // The main thread, the one that ctrlc waits for signals in, and one to copy. With fewer, and for an ordinary
        // user, who has other threads too, saying so is right. Hanging or panicking is not.
        if finished.code() == Some(0) || (is_root() && limit > 3) {
            finished.expect_success();
            assert_file(&destination, &data);
        } else {
            assert_eq!(finished.code(), Some(1), "{finished}");
            one_line(&finished);
        }
    }
}

fn limit_threads(command: &mut Command, limit: libc::rlim_t) {
    if is_root() {
        // A user of whom nothing else runs, so that all threads that count are the program's.
        let nobody_else = 0x4000_0000 + std::process::id();
        command.uid(nobody_else).gid(NOBODY);
    }
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    let set = move || {
        // SAFETY: the kernel reads the structure during the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, on memory that was copied before the fork.
    unsafe { command.pre_exec(set) };
}
