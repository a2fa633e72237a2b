//! What policies and the environment choose.

use polyaio::{AlignedBuf, BufResult, Direct, Engine, Error, Policy, Reason, Why};

use crate::support::{self, Scratch, disk_file_system, kernel_aio, pattern, require};
use crate::tools::Watchdog;
use crate::{BLOCK, INLINE, KERNEL, POOL, POSIX, assert_route, auto, exercise, names, open, prefer, served};

#[test]
fn names_that_nobody_has() {
    let _watchdog = Watchdog::new("routing: names_that_nobody_has");
    for policy in [
        Policy::Prefer(vec!["io-uring".into()]),
        Policy::Prefer(vec![POOL.into(), "io-uring".into()]),
        Policy::Require("io-uring".into()),
    ] {
        let error = Engine::builder().policy(policy).build().expect_err("no such backend");
        let text = error.to_string();
        assert!(text.contains("\"io-uring\""), "{text}");
        let known: Vec<_> = auto().backends().iter().map(|backend| backend.name).collect();
        assert!(known.contains(&POOL));
        known.iter().for_each(|name| assert!(text.contains(name), "{name} is not listed: {text}"));
    }
    assert_eq!("auto".parse(), Ok(Policy::Auto));
    assert_eq!(KERNEL.parse(), Ok(Policy::Prefer(vec![KERNEL.into()])));
    assert_eq!("a,b".parse(), Ok(Policy::Prefer(vec!["a".into(), "b".into()])));
}

/// What did not start is passed over, visibly; required, it is an error that says why. In a process of its own, where a
/// wrong value in the environment keeps kernel AIO from starting.
#[test]
fn what_did_not_start() {
    require!(support::built_with_kernel_aio());
    let _watchdog = Watchdog::new("routing: what_did_not_start");
    let mut command = std::process::Command::new(std::env::current_exe().expect("this test"));
    support::quiet(&mut command);
    command.args(["policy::child_that_lacks_one", "--exact", "--ignored", "--nocapture"]);
    command.env("POLYAIO_KERNEL_AIO_RING", "maybe").env("POLYAIO_TEST_CASE", "lacks");
    support::Watched::start(&mut command).finish().expect_success();
}

/// Not a test by itself: `what_did_not_start` runs it.
#[test]
#[ignore = "the child of what_did_not_start"]
fn child_that_lacks_one() {
    if std::env::var("POLYAIO_TEST_CASE").as_deref() != Ok("lacks") {
        return;
    }
    let engine = prefer(KERNEL);
    let backends = engine.backends();
    let status = backends.iter().find(|backend| backend.name == KERNEL).expect("compiled in");
    assert!(!status.started);
    let reason = status.reason.clone().expect("it says why");
    assert!(reason.contains("POLYAIO_KERNEL_AIO_RING"), "{reason}");
    let scratch = Scratch::new();
    let file = open(&engine, &scratch.path("file"), Direct::Off);
    assert_eq!(engine.stats().fallback(Reason::NotStarted), 1, "once per file");
    let passed = file.route().passed;
    assert!(passed.iter().any(|step| step.backend == KERNEL && matches!(step.reason, Why::NotStarted(_))));
    assert!(file.route().to_string().contains(&reason), "{}", file.route());
    exercise(&engine, &file);
    assert_eq!(engine.stats().fallback(Reason::NotStarted), 1);
    for builder in [
        Engine::builder().policy(Policy::Require(KERNEL.into())),
        Engine::builder().policy(Policy::Prefer(vec![KERNEL.into()])).strict(true),
    ] {
        let error = builder.build().expect_err("it did not start");
        assert!(matches!(error, Error::BackendUnavailable { name: KERNEL, .. }), "{error:?}");
        assert!(error.to_string().contains(&reason), "{error}");
    }
}

/// POSIX AIO serves what has offsets, when it is named and not otherwise; streams never get there.
#[test]
fn posix_aio_by_name() {
    require!(support::posix_aio());
    let _watchdog = Watchdog::new("routing: posix_aio_by_name");
    let scratch = Scratch::new();
    for direct in [Direct::Off, Direct::Preferred] {
        let file = open(&auto(), &scratch.path("auto"), direct);
        let route = file.route();
        let all = route.read.iter().chain(&route.write).chain(&route.sync).chain(&route.passed);
        assert!(all.clone().all(|step| step.backend != POSIX), "not unless it is named: {route}");
        let engine = prefer(POSIX);
        let file = open(&engine, &scratch.path("named"), direct);
        let route = file.route();
        for steps in [&route.read, &route.write, &route.sync] {
            assert_eq!(names(steps)[0], POSIX, "{route}");
        }
        exercise(&engine, &file);
        // 16 writes, a sync, 3 reads.
        assert_eq!(engine.stats().served_by(), [(POSIX, 20)], "{:#?}", engine.stats());
        assert_eq!(engine.stats().total_fallbacks(), u64::from(file.facts().direct != (direct != Direct::Off)));
    }
    let engine = Engine::builder().policy(Policy::Require(POSIX.into())).build().expect("it is there");
    let file = open(&engine, &scratch.path("required"), Direct::Off);
    assert_route(&file, &[POSIX], &[POSIX], &[POSIX]);
    exercise(&engine, &file);
    let engine = prefer(POSIX);
    let (reader, _writer) = support::pipe();
    let pipe = engine.adopt(reader.into()).expect("a pipe");
    assert!(!pipe.route().to_string().starts_with("read: posix"), "{}", pipe.route());
    assert!(names(&pipe.route().sync).iter().all(|name| *name != POSIX), "{}", pipe.route());
}

/// `Require`: that one, or an error that names what was wanted. Never somebody else, for data.
#[test]
fn a_required_backend() {
    let _watchdog = Watchdog::new("routing: a_required_backend");
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let engine = Engine::builder().policy(Policy::Require(KERNEL.into())).build().expect("it is there");
    let path = scratch.file("direct", &pattern(4 * BLOCK, 1));
    // A direct read waits until dirty pages are written back: that is not what is looked at here.
    std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("on a disk");
    let file = open(&engine, &path, Direct::Required);
    assert_route(&file, &[KERNEL], &[KERNEL], &[KERNEL]);
    let BufResult(done, _) = file.read_exact_at(AlignedBuf::zeroed(4 * BLOCK, BLOCK), 0).wait();
    done.expect("the kernel serves this");
    assert_eq!(file.len().wait().expect("the pool's, all the same"), 4 * BLOCK as u64);
    let buffered = open(&engine, &scratch.path("buffered"), Direct::Off);
    let BufResult(n, buffer) = buffered.write_at(vec![7; 100], 0).wait();
    let error = n.expect_err("nobody may");
    assert_eq!((buffer.len(), std::fs::read(scratch.path("buffered")).expect("there").len()), (100, 0));
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::Strict { .. })), "{error:?}");
    assert!(
        error.to_string().contains("Write") && error.to_string().contains("a buffered file would block"),
        "{error}"
    );
    assert_eq!(served(&engine, POOL), 1, "len, and nothing else: {:?}", engine.stats());

    let engine = Engine::builder().policy(Policy::Require(POOL.into())).build().expect("always there");
    let file = open(&engine, &scratch.path("direct"), Direct::Required);
    exercise(&engine, &file);
    assert_eq!(engine.stats().served_by().iter().map(|(name, _)| *name).collect::<Vec<_>>(), [POOL]);
}

/// The environment chooses where the builder does not. In a process of its own.
#[test]
fn chosen_by_the_environment() {
    let _watchdog = Watchdog::new("routing: chosen_by_the_environment");
    use std::os::unix::ffi::OsStrExt as _;
    let run = |backend: &str, strict: Option<&str>, case: &str| {
        let strict = strict.map(|strict| std::ffi::OsStr::from_bytes(strict.as_bytes()));
        run_child(std::ffi::OsStr::from_bytes(backend.as_bytes()), strict, case);
    };
    run(POOL, None, "pool");
    run("auto", Some("0"), "auto");
    run("", Some(""), "auto");
    run(POOL, Some("1"), "strict");
    // Several are an order.
    run(&format!("{POOL},{POOL}"), None, "pool");
    if support::built_with_kernel_aio().is_ok() {
        run(&format!("{POOL},{KERNEL}"), None, "pool");
        run(&format!("{KERNEL},{POOL}"), Some("0"), "kernel, pool");
    }
    for wrong in
        ["io-uring", "KERNEL-AIO", "Auto", " ", "thread-pool ", "thread_pool", "thread-pool,", ",", "auto,thread-pool"]
    {
        run(wrong, None, "unknown");
    }
    run_child(std::ffi::OsStr::from_bytes(b"thread-pool\xff"), None, "unknown");
    for wrong in ["maybe", "true", "yes", "TRUE", " 1", "2", "-1"] {
        run(POOL, Some(wrong), "wrong strict");
    }
    run_child(POOL.as_ref(), Some(std::ffi::OsStr::from_bytes(b"\xff")), "wrong strict");
    let mut command = std::process::Command::new(std::env::current_exe().expect("this test"));
    command.args(["policy::child_of_the_environment", "--exact", "--ignored", "--nocapture"]);
    support::quiet(&mut command);
    command.env("POLYAIO_TEST_CASE", "slow").env("POLYAIO_SLOW_SUBMIT_US", "soon");
    support::Watched::start(&mut command).finish().expect_success();
}

fn run_child(backend: &std::ffi::OsStr, strict: Option<&std::ffi::OsStr>, case: &str) {
    let mut command = std::process::Command::new(std::env::current_exe().expect("this test"));
    support::quiet(&mut command);
    command.args(["policy::child_of_the_environment", "--exact", "--ignored", "--nocapture"]);
    command.env("POLYAIO_BACKEND", backend).env("POLYAIO_TEST_CASE", case);
    strict.map(|strict| command.env("POLYAIO_STRICT", strict));
    support::Watched::start(&mut command).finish().expect_success();
}

/// Not a test by itself: `chosen_by_the_environment` runs it.
#[test]
#[ignore = "the child of chosen_by_the_environment"]
fn child_of_the_environment() {
    let case = std::env::var("POLYAIO_TEST_CASE").unwrap_or_default();
    let engine = Engine::new();
    let scratch = Scratch::new();
    match (case.as_str(), engine) {
        ("pool" | "strict", Ok(engine)) => {
            let file = open(&engine, &scratch.path("file"), Direct::Off);
            exercise(&engine, &file);
            assert_eq!(engine.stats().served_by().iter().map(|(name, _)| *name).collect::<Vec<_>>(), [POOL]);
            let others = file.route().sync.len() - 1;
            assert!(case != "strict" || others == 0, "strict means nobody else: {}", file.route());
            assert!(case == "strict" || others > 0 || kernel_aio().is_err(), "{}", file.route());
        }
        ("auto", Ok(engine)) => {
            let file = open(&engine, &scratch.path("file"), Direct::Off);
            assert_eq!(names(&file.route().read)[0], INLINE);
        }
        ("kernel, pool", Ok(engine)) => {
            let file = open(&engine, &scratch.path("file"), Direct::Off);
            exercise(&engine, &file);
            assert_eq!(served(&engine, INLINE), 0, "who is named is asked: {}", file.route());
            assert!(kernel_aio().is_err() || names(&file.route().sync) == [KERNEL, POOL], "{}", file.route());
        }
        ("unknown", Err(error)) => {
            let text = error.to_string();
            for word in ["POLYAIO_BACKEND", "auto", POOL] {
                assert!(text.contains(word), "{word} is not listed: {text}");
            }
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
        ("wrong strict", Err(error)) => {
            let text = error.to_string();
            let value = format!("{:?}", std::env::var_os("POLYAIO_STRICT").expect("set"));
            assert!(text.contains("POLYAIO_STRICT") && text.contains(&value) && text.contains("0 or 1"), "{text}");
        }
        ("slow", Err(error)) => {
            let text = error.to_string();
            assert!(text.contains("POLYAIO_SLOW_SUBMIT_US") && text.contains("soon"), "{text}");
        }
        ("", _) => {}
        (case, other) => panic!("{case}: {other:?}"),
    }
}
