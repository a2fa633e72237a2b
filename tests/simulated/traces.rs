//! Traces and seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use polyaio::backends::simulated::{Crash, ENV_SEED, Fault, Latency, SimulatedDisk, for_seeds};

use crate::disk::{engine, open};
use crate::tools::{Watchdog, join};

/// A program of some length on a disk with everything that chance decides.
fn run(seed: u64) -> SimulatedDisk {
    let builder = SimulatedDisk::builder().seed(seed).shuffled(true).queue_bound(8);
    let builder = builder
        .latency(Latency::spikes(Duration::from_micros(10), Duration::from_millis(5), 0.1))
        .fault(Fault::error(libc::EIO).probability(0.02))
        .fault(Fault::short().probability(0.05))
        .fault(Fault::delay(Latency::exponential(Duration::from_micros(80))).probability(0.2))
        .fault(Fault::bit_rot(1).probability(0.02))
        .fault(Fault::misdirected().probability(0.02))
        .fault(Fault::lost_write().probability(0.02))
        .fault(Fault::queue_full().probability(0.05))
        .fault(Fault::failed_sync(libc::EIO).probability(0.1));
    let disk = builder.build().expect("it makes sense");
    for round in 0..3 {
        let engine = engine(&disk);
        let (one, other) = (open(&engine, "one"), open(&engine, "other"));
        engine.block_on(async {
            for step in 0..5_u64 {
                let writes = (0..20).map(|i| one.write_at(vec![i as u8; 700], (i * 37 + step) % 64 * 700));
                _ = futures::join!(
                    join(writes),
                    other.write_all_at(vec![step as u8; 5000], step * 5000),
                    one.sync_data()
                );
                let reads = (0..20).map(|i| one.read_at(vec![0; 600], i * 600));
                join(reads).await;
            }
        });
        if round == 1 {
            disk.crash(Crash::Torn);
            disk.reopen();
        }
    }
    disk
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let _watchdog = Watchdog::new("the_same_seed_gives_the_same_trace");
    let traces: Vec<_> = (0..20).map(|seed| (run(seed), run(seed))).collect();
    for (one, again) in &traces {
        assert_eq!(one.trace().to_string(), again.trace().to_string(), "seed {}", one.seed());
        assert_eq!((one.read("one"), one.read("other")), (again.read("one"), again.read("other")));
        assert_eq!((one.now(), one.damage()), (again.now(), again.damage()));
    }
    let text = traces[0].0.trace().to_string();
    assert_ne!(text, traces[1].0.trace().to_string(), "another seed is another run");
    for name in ["short", "delay", "bit-rot", "misdirected", "lost-write", "error", "crash Torn", "refused: no room"] {
        assert!(text.contains(name), "{name} is not told of:\n{text}");
    }
    assert!(text.lines().count() > 600, "what was asked, and what was answered:\n{text}");
}

/// Nothing of the process is in it: addresses, clocks, the order of a hash table.
#[test]
fn the_same_seed_in_another_process() {
    const CHILD: &str = "POLYAIO_TEST_TRACE_CHILD";
    let trace = run(11).trace().to_string();
    if let Some(path) = std::env::var_os(CHILD) {
        return std::fs::write(path, trace).expect("a directory of our parent's");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trace");
    let mut child = Command::new(std::env::current_exe().expect("Linux tells"));
    let output = child.args(["--exact", "traces::the_same_seed_in_another_process"]).env(CHILD, &path).output();
    assert!(output.expect("it runs").status.success());
    assert_eq!(std::fs::read_to_string(&path).expect("it has written"), trace);
}

/// What one fault does leaves the dice of the others alone.
#[test]
fn one_more_fault_changes_nothing_of_the_others() {
    let struck = |more: bool| {
        let disk = SimulatedDisk::builder().seed(3).build().expect("it makes sense");
        let first = disk.inject(Fault::error(libc::EIO).writes().probability(0.3)).expect("it makes sense");
        if more {
            disk.inject(Fault::bit_rot(1).probability(0.5)).expect("it makes sense");
        }
        let engine = engine(&disk);
        let file = open(&engine, "a");
        let failed: Vec<bool> = (0..200).map(|i| file.write_at(vec![1; 10], i * 10).wait().0.is_err()).collect();
        (failed, disk.struck(first))
    };
    assert_eq!(struck(false), struck(true));
}

#[test]
fn a_trace_has_a_bound() {
    let disk = SimulatedDisk::builder().trace_limit(10).build().expect("it makes sense");
    let engine = engine(&disk);
    let file = open(&engine, "a");
    (0..100).for_each(|i| _ = file.write_at(vec![1; 10], i).wait());
    let trace = disk.trace();
    assert_eq!((trace.events.len(), trace.forgotten), (10, 1 + 2 * 100 - 10));
    assert!(trace.to_string().starts_with("(191 older events"));
}

/// In a process of its own: the environment is the process's.
#[test]
fn a_failing_seed_is_printed_and_repeated() {
    const CHILD: &str = "POLYAIO_TEST_SEED_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let mut seeds = Vec::new();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            for_seeds(0..100, |seed| {
                seeds.push(seed);
                let disk = SimulatedDisk::builder().build().expect("it makes sense");
                assert!(seed != 42, "the disk has the seed {}", disk.seed());
            });
        }));
        println!("ran {seeds:?}; failed: {}", failed.is_err());
        return;
    }
    let run = |seed: Option<&str>| {
        let mut child = Command::new(std::env::current_exe().expect("Linux tells"));
        child.args(["--exact", "traces::a_failing_seed_is_printed_and_repeated", "--nocapture"]).env(CHILD, "1");
        match seed {
            Some(seed) => child.env(ENV_SEED, seed),
            None => child.env_remove(ENV_SEED),
        };
        let output = child.output().expect("it runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let first = run(None);
    assert!(first.contains("POLYAIO_SIMULATED_SEED=42 repeats it"), "{first}");
    let again = run(Some("42"));
    assert!(again.contains("ran [42]; failed: true") && again.contains("the disk has the seed 42"), "{again}");
    let other = run(Some("7"));
    assert!(other.contains("ran [7]; failed: false"), "{other}");
    let wrong = run(Some("seven"));
    assert!(wrong.contains("it must be a number"), "{wrong}");
}
