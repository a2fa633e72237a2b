//! Backends whose `submit` holds the caller up: the files that it happens to go elsewhere for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polyaio::{BufResult, Engine, File, OpKind, OpenOptions, Policy, Reason, Why};

use crate::support::Scratch;
use crate::tools::{Answer, SCRIPTED, Scripted, Watchdog, join};
use crate::{BLOCK, Bench};

const POOL: &str = "thread-pool";
/// For so many requests a slow backend rests, and for twice as many the next time, as `docs/backends.md` says.
const REST: usize = 64;
/// So many are served slowly until it does: of the first one nobody has asked what its thread did meanwhile.
const UNTIL_REST: usize = 4;

/// A backend that sleeps inside `submit` for reads below 1 MiB, for as long as `slow` says so. It transfers nothing: a disk
/// that is busy would hold up what is meant to be fast.
fn sleeper(slow: &Arc<AtomicBool>) -> Arc<Scripted> {
    let slow = slow.clone();
    Scripted::new(move |_, seen| {
        if slow.load(Ordering::SeqCst) && seen.kind == OpKind::Read && seen.position < Some(1 << 20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Answer::Pretend
    })
}

/// An engine that prefers the backend and looks how long it takes, and a file of so many blocks.
fn bench(backend: &Arc<Scripted>, strict: bool, blocks: usize) -> Bench {
    let policy = Policy::Prefer(vec![SCRIPTED.to_owned()]);
    let builder = Engine::builder().backend(backend.clone()).policy(policy).strict(strict);
    Bench::on(builder.slow_submit(Duration::from_micros(100)).build().expect("an engine"), blocks, false)
}

#[track_caller]
fn read(file: &File, count: usize, at: u64) {
    for _ in 0..count {
        let BufResult(n, _) = file.read_at(vec![0; BLOCK], at).wait();
        assert_eq!(n.expect("readable"), BLOCK);
    }
}

#[track_caller]
fn assert_first(file: &File, reads: &str, passed: bool) {
    let route = file.route();
    assert_eq!(route.read[0].backend, reads, "{route}");
    let slow = route.passed.iter().any(|step| step.backend == SCRIPTED && step.reason == Why::SlowSubmit);
    assert_eq!(slow, passed, "{route}");
}

#[test]
fn what_holds_the_caller_up_is_routed_around_for_a_while() {
    let _watchdog = Watchdog::new("faults: what_holds_the_caller_up_is_routed_around_for_a_while");
    let slow = Arc::new(AtomicBool::new(true));
    let scripted = sleeper(&slow);
    let bench = bench(&scripted, false, 4);
    let counted = || bench.engine.stats().fallback(Reason::SlowSubmit) as usize;

    read(&bench.file, UNTIL_REST - 1, 0);
    assert_first(&bench.file, SCRIPTED, false);
    read(&bench.file, 1, 0);
    assert_first(&bench.file, POOL, true);
    assert_eq!((bench.served(SCRIPTED) as usize, counted()), (UNTIL_REST, 0));
    let stats = bench.engine.stats().backends.remove(0);
    assert_eq!(stats.slow_submits as usize, UNTIL_REST - 1);
    assert_eq!((stats.submit_ns.count(), stats.batch_sizes.max()), (UNTIL_REST as u64, 1));
    assert!(stats.submit_ns.quantile(0.0) >= Some(2_000_000), "{:?}", stats.submit_ns);

    read(&bench.file, REST, 0);
    assert_eq!((bench.served(SCRIPTED) as usize, counted()), (UNTIL_REST, REST));
    assert_eq!(bench.served(POOL) as usize, REST);
    // After the rest one request tries it again, and is enough, although nobody suspects the backend any more.
    const FAST: usize = 100;
    for _ in 0..FAST {
        bench.file.write_at(vec![1; BLOCK], 0).wait().0.expect("room");
    }
    read(&bench.file, 1, 0);
    assert_eq!(bench.served(SCRIPTED) as usize, UNTIL_REST + FAST + 1);
    read(&bench.file, 2 * REST, 0);
    assert_eq!((bench.served(SCRIPTED) as usize, counted()), (UNTIL_REST + FAST + 1, 3 * REST));

    // Meanwhile it got better: fast ones clear it.
    slow.store(false, Ordering::SeqCst);
    read(&bench.file, 100, 0);
    assert_eq!((bench.served(SCRIPTED) as usize, counted()), (UNTIL_REST + FAST + 101, 3 * REST));
    assert_first(&bench.file, SCRIPTED, false);
    assert_eq!(bench.engine.stats().total_fallbacks() as usize, counted(), "nothing else was remembered");
}

#[test]
fn what_is_fast_on_the_same_backend_stays_there() {
    let _watchdog = Watchdog::new("faults: what_is_fast_on_the_same_backend_stays_there");
    let scripted = sleeper(&Arc::new(AtomicBool::new(true)));
    let bench = bench(&scripted, false, 512);
    let scratch = Scratch::new();
    let path = scratch.file("other", &[7; 16 * BLOCK]);
    let other = OpenOptions::new().read(true).write(true).open(&bench.engine, path).expect("it is there");
    let before = bench.served(POOL);
    for round in 0..20 {
        // Slow here, fast there: of the same lane, and mostly in the same batch.
        let (slow, fast) = (vec![0; BLOCK], vec![0; BLOCK]);
        let reads =
            [bench.file.read_at(slow, 0), bench.file.read_at(fast.clone(), 1 << 20), other.read_at(fast, 1 << 20)];
        for BufResult(n, _) in bench.engine.block_on(join(reads)) {
            n.expect("readable");
        }
        other.write_at(vec![round; BLOCK], 0).wait().0.expect("room");
        bench.file.write_at(vec![round; BLOCK], 0).wait().0.expect("room");
    }
    assert_first(&bench.file, POOL, true);
    assert_first(&other, SCRIPTED, false);
    assert_eq!(bench.file.route().write[0].backend, SCRIPTED, "writes of the same file are fast");
    let (slow, pool) = (bench.engine.stats().fallback(Reason::SlowSubmit), bench.served(POOL) - before);
    assert_eq!(slow, pool, "only the reads of the one file");
    assert!((20..40).contains(&slow), "{slow} of its 40 reads");
}

/// What it serves is served: being slow is no error, and strictness only forbids the detour.
#[test]
fn a_strict_engine_keeps_a_slow_backend() {
    let _watchdog = Watchdog::new("faults: a_strict_engine_keeps_a_slow_backend");
    let scripted = sleeper(&Arc::new(AtomicBool::new(true)));
    let bench = bench(&scripted, true, 4);
    read(&bench.file, 20, 0);
    assert_eq!((bench.served(SCRIPTED), bench.engine.stats().total_fallbacks()), (20, 0));
    assert_eq!(bench.engine.stats().backends[0].slow_submits, 19, "it is told all the same");
    assert_first(&bench.file, SCRIPTED, false);
}

/// A long batch takes its time, and a thread may be preempted in it: a suspicion alone changes nothing.
#[test]
fn a_suspicion_ends_by_itself() {
    let _watchdog = Watchdog::new("faults: a_suspicion_ends_by_itself");
    // Slow once, among many.
    let scripted = Scripted::new(|number, _| {
        if number == 5 {
            std::thread::sleep(Duration::from_millis(3));
        }
        Answer::Pretend
    });
    let bench = bench(&scripted, false, 4);
    for _ in 0..10 {
        let reads = (0..16).map(|_| bench.file.read_at(vec![0; BLOCK], 0));
        bench.engine.block_on(join(reads)).into_iter().for_each(|BufResult(n, _)| assert_eq!(n.expect("there"), BLOCK));
    }
    let batches = scripted.batches();
    let alone = batches.iter().skip(1).take_while(|len| **len == 1).count();
    assert_eq!((batches[0], alone), (16, 64), "{batches:?}");
    assert!(batches.len() > 65, "back to long batches: {batches:?}");
    assert_eq!((bench.served(SCRIPTED), bench.engine.stats().total_fallbacks()), (160, 0));
}
