//! System calls that are forbidden for good, as by a container's seccomp profile: the same program gives the same bytes,
//! nothing hangs, and whoever asks is told what was missing.

use std::path::Path;

use polyaio::{AlignedBuf, BackendStatus, BufResult, Direct, Engine, Error, File, OpenOptions, Policy, Reason};

use crate::support::{Scratch, assert_file, direct_io, disk_file_system, kernel_aio, pattern, pipe, refuse, require};
use crate::tools::{Respawn, Watchdog, join, respawn, respawn_prepared};
use crate::{BLOCK, code};

const KERNEL: &str = "kernel-aio";
const POOL: &str = "thread-pool";
/// Which case the child is to look at.
const CASE: &str = "POLYAIO_TEST_CASE";

/// Runs `check` in a child for each of the calls and errors, refused there from its start.
#[track_caller]
fn refused(name: &str, calls: &[(&str, libc::c_long)], errnos: &[i32], check: impl Fn(&str, i32)) {
    let case = std::env::var(CASE).unwrap_or_default();
    for (call, number) in calls {
        for errno in errnos {
            let this = format!("{call} {errno}");
            if !case.is_empty() && case != this {
                continue;
            }
            let _watchdog = Watchdog::new(format!("faults: {name}: {this}"));
            let prepare = |command: &mut std::process::Command| {
                command.env(CASE, &this).env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT");
                // Who serves must not depend on how busy the machine is.
                command.env("POLYAIO_SLOW_SUBMIT_US", "1000000000");
                refuse(command, *number, *errno);
            };
            match respawn_prepared(name, prepare) {
                Respawn::Parent(child) => drop(child.expect_success()),
                Respawn::Child => check(call, *errno),
            }
        }
    }
}

/// What programs do: write, read back, sync, append, copy through a pipe; each with the right bytes.
fn real_program(engine: &Engine, dir: &Path, direct: Direct) -> File {
    let (path, data) = (dir.join(format!("{direct:?}")), pattern(32 * BLOCK, 1));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).direct(direct);
    let file = options.open(engine, &path).unwrap_or_else(|error| panic!("{error}"));
    let writes = data.chunks(BLOCK).enumerate();
    let writes = writes.map(|(i, part)| file.write_all_at(AlignedBuf::copy_from(part, BLOCK), (i * BLOCK) as u64));
    engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("room"));
    file.sync_data().wait().expect("on a disk");
    for _ in 0..3 {
        let reads = (0..32).map(|i| file.read_exact_at(AlignedBuf::zeroed(BLOCK, BLOCK), i * BLOCK as u64));
        for (part, BufResult(done, back)) in data.chunks(BLOCK).zip(engine.block_on(join(reads))) {
            done.expect("it is that long");
            assert_eq!(back[..], *part);
        }
    }
    file.sync_all().wait().expect("on a disk");
    assert_eq!(file.len().wait().expect("a file has a length"), data.len() as u64);
    assert_file(&path, &data);

    let appending = OpenOptions::new().append(true).open(engine, &path).expect("it is there");
    let pieces = (0..8).map(|i| appending.write_all_at(pattern(1000, i), 0));
    engine.block_on(join(pieces)).into_iter().for_each(|result| result.0.expect("room"));
    let appended: Vec<u8> = (0..8).flat_map(|i| pattern(1000, i)).collect();
    assert_file(&path, &[data.clone(), appended].concat());
    file.set_len(data.len() as u64).wait().expect("shorter");

    // More than a pipe holds, so that both ends wait for each other.
    let (reader, writer) = pipe();
    let [reader, writer] = [reader.into(), writer.into()].map(|fd| engine.adopt(fd).expect("a pipe"));
    let stream = pattern(200_000, 3);
    let writing = std::thread::spawn({
        let stream = stream.clone();
        move || writer.write_all(stream).wait().0.expect("it is read")
    });
    let BufResult(done, back) = reader.read_exact(vec![0; stream.len()]).wait();
    done.expect("all of it is written");
    assert_eq!(crate::support::first_difference(&back, &stream), None);
    writing.join().expect("no panic");
    assert_eq!(engine.stats().anomalies, Default::default());
    file
}

fn engine() -> Engine {
    Engine::new().expect("an engine starts on every machine")
}

fn status(engine: &Engine, name: &str) -> BackendStatus {
    engine.backends().into_iter().find(|backend| backend.name == name).expect("compiled in")
}

fn served(engine: &Engine, name: &str) -> u64 {
    engine.stats().served_by().iter().find(|(served, _)| *served == name).map_or(0, |(_, count)| *count)
}

/// Without its system calls kernel AIO does not start; the reason names the call, and required it is an error.
#[test]
fn without_the_calls_of_kernel_aio_the_pool_serves() {
    if std::env::var_os(CASE).is_none() {
        require!(kernel_aio());
    }
    let calls = [
        ("io_setup", libc::SYS_io_setup),
        ("io_submit", libc::SYS_io_submit),
        ("io_getevents", libc::SYS_io_getevents),
    ];
    let name = "sandbox::without_the_calls_of_kernel_aio_the_pool_serves";
    refused(name, &calls, &[libc::EPERM, libc::ENOSYS], |call, errno| {
        let (engine, scratch) = (engine(), Scratch::new());
        for direct in [Direct::Off, Direct::Preferred] {
            let file = real_program(&engine, scratch.dir(), direct);
            assert!(file.route().passed.iter().any(|step| step.backend == KERNEL), "{}", file.route());
        }
        let why = status(&engine, KERNEL).reason.expect("it says why");
        assert!(!status(&engine, KERNEL).started && served(&engine, KERNEL) == 0);
        let word = if errno == libc::EPERM { "seccomp" } else { "CONFIG_AIO" };
        assert!(why.contains(call) && why.contains(word), "{why}");
        assert!(engine.stats().fallback(Reason::NotStarted) >= 2, "once per file: {:?}", engine.stats().fallbacks);
        for builder in [
            Engine::builder().policy(Policy::Require(KERNEL.into())),
            Engine::builder().policy(Policy::Prefer(vec![KERNEL.into()])).strict(true),
        ] {
            let error = builder.build().expect_err("it cannot start");
            assert!(matches!(error, Error::BackendUnavailable { name: KERNEL, .. }), "{error:?}");
            assert!(error.to_string().contains(call), "it says what was missing: {error}");
        }
    });
}

/// Nothing can be tried without blocking: cached reads go to the pool, streams to a worker; both are seen.
#[test]
fn without_transfers_that_do_not_block_workers_serve() {
    let calls = [("preadv2", libc::SYS_preadv2), ("pwritev2", libc::SYS_pwritev2)];
    let name = "sandbox::without_transfers_that_do_not_block_workers_serve";
    refused(name, &calls, &[libc::EPERM, libc::ENOSYS, libc::EOPNOTSUPP], |call, errno| {
        let (engine, scratch) = (engine(), Scratch::new());
        let file = real_program(&engine, scratch.dir(), Direct::Off);
        let stats = engine.stats();
        assert!(stats.fallback(Reason::NowaitUnsupported) > 0, "{:?}", stats.fallbacks);
        assert_eq!(stats.total_fallbacks(), stats.fallback(Reason::NowaitUnsupported) + not_started(&engine));
        if call == "preadv2" && file.route().passed.iter().any(|step| step.backend == "inline") {
            assert_eq!((stats.inline.requests, stats.inline.misses), (0, 1), "asked once: {stats:#?}");
            assert!(file.route().to_string().contains(&polyaio::Errno(errno).to_string()), "{}", file.route());
        } else {
            // In memory it completes in the caller, by an ordinary call.
            assert!(stats.inline.requests > 0, "{stats:#?}");
        }
        real_program(&engine, scratch.dir(), Direct::Preferred);
        // Alone, so that no stream is counted along: once per file, and not per read.
        let (engine, path) = (self::engine(), scratch.file("cached", &pattern(BLOCK, 1)));
        let file = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
        let inline = file.route().read[0].backend == "inline" && call == "preadv2";
        for _ in 0..3 {
            assert_eq!(file.read_at(vec![0; BLOCK], 0).wait().0.expect("readable"), BLOCK);
        }
        let ended = u64::from(inline && file.route().read[0].backend != "inline");
        assert_eq!(engine.stats().fallback(Reason::NowaitUnsupported), ended);
    });
}

fn not_started(engine: &Engine) -> u64 {
    engine.stats().fallback(Reason::NotStarted)
}

/// What only tells more of a file, or frees what the process would free anyway, is done without.
#[test]
fn without_what_is_not_needed_nothing_changes() {
    let calls = [
        ("statx", libc::SYS_statx),
        ("fstatfs", libc::SYS_fstatfs),
        ("io_destroy", libc::SYS_io_destroy),
        ("lseek", libc::SYS_lseek),
        ("ioctl", libc::SYS_ioctl),
    ];
    let name = "sandbox::without_what_is_not_needed_nothing_changes";
    refused(name, &calls, &[libc::EPERM, libc::ENOSYS], |call, _| {
        let (engine, scratch) = (engine(), Scratch::new());
        real_program(&engine, scratch.dir(), Direct::Off);
        let file = real_program(&engine, scratch.dir(), Direct::Preferred);
        if kernel_aio().is_ok() && disk_file_system(scratch.dir()).is_ok() {
            assert!(file.facts().direct && file.facts().alignment.is_some(), "without {call}: {:?}", file.facts());
            assert!(served(&engine, KERNEL) >= 32, "without {call}: {:?}", engine.stats().served_by());
        }
    });
}

/// What only one call can do is that call's own error, and says nothing about the file's other operations.
#[test]
fn without_fallocate_allocation_alone_fails() {
    let name = "sandbox::without_fallocate_allocation_alone_fails";
    refused(name, &[("fallocate", libc::SYS_fallocate)], &[libc::EPERM, libc::ENOSYS], |_, errno| {
        let (engine, scratch) = (engine(), Scratch::new());
        let file = real_program(&engine, scratch.dir(), Direct::Preferred);
        let before = engine.stats().total_fallbacks();
        for _ in 0..5 {
            assert_eq!(code(file.allocate(0, 1 << 20).wait()), errno);
        }
        assert_eq!(engine.stats().total_fallbacks(), before);
        assert_eq!(file.len().wait().expect("the pool serves it still"), 32 * BLOCK as u64);
        real_program(&engine, scratch.dir(), Direct::Preferred);
    });
}

/// A kernel that refuses `RWF_NOWAIT` in `io_submit` is asked without; one that refuses everything is left.
#[test]
fn refused_after_the_start_it_is_left_visibly() {
    let _watchdog = Watchdog::new("faults: refused_after_the_start_it_is_left_visibly");
    let name = "sandbox::refused_after_the_start_it_is_left_visibly";
    for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL] {
        let prepare = |command: &mut std::process::Command| {
            command.env(CASE, errno.to_string()).env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT");
            command.env("POLYAIO_SLOW_SUBMIT_US", "1000000000");
        };
        let case = std::env::var(CASE).unwrap_or_default();
        if !case.is_empty() && case != errno.to_string() {
            continue;
        }
        let Respawn::Child = respawn_prepared(name, prepare).checked() else { continue };
        let scratch = Scratch::new();
        require!(kernel_aio());
        require!(direct_io(scratch.dir()));
        let engine = engine();
        let mut options = OpenOptions::new();
        let path = scratch.file("file", &pattern(8 * BLOCK, 1));
        let file = options.read(true).write(true).direct(Direct::Required).open(&engine, &path).expect("direct");
        crate::support::refuse_here(libc::SYS_io_submit, errno).expect("a filter");
        for round in 0..10 {
            let fresh = pattern(BLOCK, round);
            file.write_all_at(AlignedBuf::copy_from(&fresh, BLOCK), 0).wait().0.expect("the pool writes it");
            let BufResult(done, back) = file.read_exact_at(AlignedBuf::zeroed(BLOCK, BLOCK), 0).wait();
            done.expect("the pool reads it");
            assert_eq!(back[..], fresh);
            file.sync_all().wait().expect("on a disk");
        }
        let stats = engine.stats();
        let (reason, times) = match errno {
            libc::EINVAL => (Reason::Invalid, 3),
            _ => (Reason::Unsupported, 1),
        };
        assert_eq!((stats.fallback(reason), served(&engine, KERNEL)), (3 * times, 0), "{stats:#?}");
        assert_eq!(stats.fallback(Reason::Remembered), 30 - 3 * times, "{stats:#?}");
        assert_eq!(served(&engine, POOL), 30);
        assert!(file.route().to_string().contains(&polyaio::Errno(errno).to_string()), "{}", file.route());
    }
}

/// Descriptors that have run out are said to have, everywhere, and nobody takes that for "not supported".
#[test]
fn out_of_descriptors_is_an_error_that_says_so() {
    let _watchdog = Watchdog::new("faults: out_of_descriptors_is_an_error_that_says_so");
    let name = "sandbox::out_of_descriptors_is_an_error_that_says_so";
    let Respawn::Child = respawn(name).checked() else { return };
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(BLOCK, 1));
    let mut options = OpenOptions::new();
    options.read(true).write(true).direct(Direct::Preferred);
    let emfile = |error: Error| {
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        assert!(error.to_string().contains("Too many open files"), "{error}");
    };
    let (mut without_engine, mut without_file) = (0, 0);
    // From too few for an engine to enough for a file.
    for room in 0..24 {
        let first_free =
            std::fs::File::open("/").map(|file| std::os::fd::AsRawFd::as_raw_fd(&file)).expect("a descriptor");
        limit_descriptors(first_free as u64 + room);
        match Engine::builder().policy(Policy::Auto).build() {
            Err(error) => {
                emfile(error);
                without_engine += 1;
            }
            Ok(engine) => {
                for status in engine.backends().iter().filter(|status| !status.started && status.name == KERNEL) {
                    let why = status.reason.as_deref().unwrap_or_default();
                    println!("with room for {room} descriptors: {why}");
                }
                match options.open(&engine, &path) {
                    Err(error) => {
                        emfile(error);
                        without_file += 1;
                    }
                    Ok(file) => {
                        assert_eq!(file.facts().direct_refused, None);
                        let BufResult(n, _) = file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), 0).wait();
                        assert_eq!(n.expect("readable"), BLOCK);
                    }
                }
            }
        }
        limit_descriptors(1024);
    }
    assert!(without_engine > 0 && without_file > 0, "{without_engine} and {without_file}: not what is to be looked at");
}

fn limit_descriptors(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: 1024 };
    // SAFETY: reads the structure during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}
