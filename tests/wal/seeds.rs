use std::future::Future as _;
use std::task::{Context, Poll, Waker};

use clap::ValueEnum as _;
use polyaio::backends::simulated::{Crash, ENV_SEED, Fault, SimulatedDisk, for_seeds};
use polyaio::{Engine, File, OpenOptions, Policy};

use crate::log::{Bug, Log, LogError};
use crate::support::long_tests;
use crate::torture::{Broken, End, run};

/// What a seed has broken, if anything.
fn broken(seed: u64, bug: Option<Bug>) -> Option<Box<Broken>> {
    match run(seed, bug) {
        Ok(_) => None,
        Err(End::Broken(broken)) => Some(broken),
        Err(End::NotBegun(error)) => panic!("no engine: {error}"),
    }
}

#[test]
fn promises_are_kept() {
    let seeds: u64 = if long_tests().is_ok() { 10_000 } else { 400 };
    let check = |seed| {
        if let Some(broken) = broken(seed, None) {
            panic!("seed {seed}: {}\n{}\n{}", broken.promise, broken.story.join("\n"), broken.trace);
        }
    };
    // One that is named is run once.
    let jobs = if std::env::var_os(ENV_SEED).is_some() { 1 } else { 2 };
    std::thread::scope(|scope| {
        for job in 0..jobs {
            scope.spawn(move || for_seeds((1 + job..=seeds).step_by(jobs as usize), check));
        }
    });
}

/// Without its sync, and with each of the other bugs, a log does not live long.
#[test]
fn every_bug_is_found() {
    for bug in Bug::value_variants() {
        let found = (1..=50).find_map(|seed| broken(seed, Some(*bug)));
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found by 50 seeds"));
        println!("{bug:?} is found by seed {}: {}", found.seed, found.promise);
        assert!(!found.story.is_empty() && !found.trace.events.is_empty());
    }
}

/// The same seed fails with the same words, after the same steps, and the disk has seen the same.
#[test]
fn a_failing_seed_is_replayed() {
    for bug in Bug::value_variants() {
        let first = (1..=50).find_map(|seed| broken(seed, Some(*bug))).expect("a seed that fails");
        for _ in 0..3 {
            let again = broken(first.seed, Some(*bug)).expect("it fails again");
            assert_eq!((&again.promise, &again.story), (&first.promise, &first.story), "{bug:?}");
            assert_eq!(again.trace.to_string(), first.trace.to_string(), "{bug:?}");
        }
    }
}

/// A disk without chance, its engine, and an empty log.
fn fresh() -> (SimulatedDisk, Engine, Log) {
    let disk = SimulatedDisk::builder().seed(1).build().expect("the settings make sense");
    let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require("simulated".into()));
    let engine = engine.build().expect("an engine starts on every machine");
    let log = engine.block_on(Log::open(open(&engine), None)).expect("nothing is there to be wrong").0;
    (disk, engine, log)
}

fn open(engine: &Engine) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(engine, "log").expect("there is power")
}

fn payloads(engine: &Engine) -> Vec<Vec<u8>> {
    let (_, records) = engine.block_on(Log::open(open(engine), None)).expect("nothing is wrong with it");
    records.into_iter().map(|record| record.payload).collect()
}

/// However many records a commit has, it is one write and one sync.
#[test]
fn a_commit_is_one_write_and_one_sync() {
    let (disk, engine, mut log) = fresh();
    for number in 0..1000_u32 {
        log.append(&number.to_le_bytes()).expect("it is well");
    }
    let before = disk.requests();
    assert_eq!(engine.block_on(log.commit()).expect("it is well"), 1000);
    assert_eq!(disk.requests() - before, 2);
    assert_eq!(engine.block_on(log.commit()).expect("it is well"), 1000);
    assert_eq!(disk.requests() - before, 2, "there was nothing to commit");
    disk.crash(Crash::LoseUnsynced);
    disk.reopen();
    assert_eq!(payloads(&engine).len(), 1000);
}

/// fsyncgate: the next sync succeeds and the data is not there. Nobody asks for it.
#[test]
fn a_failed_sync_is_final() {
    let (disk, engine, mut log) = fresh();
    log.append(b"kept").expect("it is well");
    engine.block_on(log.commit()).expect("it is well");
    disk.inject(Fault::failed_sync(libc::EIO).cached().times(1)).expect("it makes sense");
    log.append(b"uncertain").expect("it is well");
    let failed = engine.block_on(log.commit());
    assert!(matches!(failed, Err(LogError::Io { doing: "sync", .. })), "{failed:?}");
    let before = disk.requests();
    assert!(matches!(log.append(b"more"), Err(LogError::Broken)));
    assert!(matches!(engine.block_on(log.commit()), Err(LogError::Broken)));
    assert_eq!(disk.requests(), before, "it does not try");
    drop(log);
    // The page cache has it, and the disk has not; once recovery has returned it, it is there.
    assert_eq!(payloads(&engine), [&b"kept"[..], b"uncertain"]);
    disk.crash(Crash::LoseUnsynced);
    disk.reopen();
    assert_eq!(payloads(&engine), [&b"kept"[..], b"uncertain"]);
}

/// A commit that nobody waits for any more has failed.
#[test]
fn a_commit_that_was_dropped_is_final() {
    let (_disk, engine, mut log) = fresh();
    log.append(b"half").expect("it is well");
    {
        let mut commit = std::pin::pin!(log.commit());
        let begun = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(begun, Poll::Pending), "a write takes its time");
    }
    assert!(matches!(engine.block_on(log.commit()), Err(LogError::Broken)));
}
