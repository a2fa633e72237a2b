//! Events for `tracing`: what the engine decides is told, with its fields, and listening breaks nothing.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// A subscriber written by hand.
mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use polyaio::backend::{Batch, Capabilities, Serves};
use polyaio::{AlignedBuf, Backend, BufResult, Direct, Engine, File, OpenOptions, Policy};
use tracing::Level;

use recorder::Recorder;
use support::{Scratch, direct_io, pattern, pipe, require};
use tools::{Answer, Respawn, SCRIPTED, Scripted, Watchdog, join, park_on, respawn, transfers};

const BLOCK: usize = 4096;
const POOL: &str = "thread-pool";

/// An engine that prefers a backend which answers like this, and a file of eight blocks.
fn scripted(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (Engine, File, Scratch) {
    with(transfers(256), Direct::Off, answer)
}

fn with(
    capabilities: Capabilities,
    direct: Direct,
    answer: impl Fn(usize) -> Answer + Send + Sync + 'static,
) -> (Engine, File, Scratch) {
    let backend = Scripted::with(capabilities, move |number, _| answer(number));
    let policy = Policy::Prefer(vec![SCRIPTED.into(), POOL.into()]);
    // Who serves must not depend on how busy the machine is.
    let builder = Engine::builder().backend(backend).policy(policy).strict(false).slow_submit(Duration::MAX);
    let engine = builder.build().expect("an engine");
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(8 * BLOCK, 1));
    let file = OpenOptions::new().read(true).write(true).direct(direct).open(&engine, path).expect("it is there");
    (engine, file, scratch)
}

fn auto() -> Engine {
    Engine::builder().policy(Policy::Auto).strict(false).slow_submit(Duration::MAX).build().expect("an engine")
}

fn block() -> AlignedBuf {
    AlignedBuf::zeroed(BLOCK, BLOCK)
}

/// Works below what was asked for.
struct Poor;

impl Backend for Poor {
    fn name(&self) -> &'static str {
        "poor"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(1)
    }

    fn submit(&self, _: &mut Batch<'_>) {}

    fn degraded(&self) -> Option<String> {
        Some("it has little".into())
    }

    fn shutdown(&self) {}
}

#[test]
fn the_start_and_the_end_of_an_engine() {
    let _watchdog = Watchdog::new("events: the_start_and_the_end_of_an_engine");
    let recorder = Recorder::start();
    let engine = Engine::builder().policy(Policy::Auto).backend(Arc::new(Poor)).build().expect("an engine");
    let started = recorder.one("engine started");
    assert_eq!((started.level, started.target.as_str()), (Level::DEBUG, "polyaio::engine"));
    for status in engine.backends() {
        assert_eq!(started.get("backends").split(", ").any(|name| name == status.name), status.started, "{started:?}");
    }
    let poor = recorder.one("backend degraded");
    assert_eq!((poor.level, poor.get("backend"), poor.get("reason")), (Level::WARN, "poor", "it has little"));
    drop(engine);
    let last: Vec<_> = recorder.seen().iter().rev().take(2).map(|seen| seen.name().to_owned()).collect();
    assert_eq!(last, ["engine has ended", "engine shuts down"]);
}

/// A warning where it was wanted; and each file that does without it is a fallback.
#[test]
fn a_backend_that_does_not_start() {
    let _watchdog = Watchdog::new("events: a_backend_that_does_not_start");
    require!(support::built_with_kernel_aio());
    // For this thread, which is the test's alone.
    require!(support::refuse_here(libc::SYS_io_setup, libc::EPERM).map_err(|error| error.to_string()));
    let recorder = Recorder::start();
    let policy = Policy::Prefer(vec!["kernel-aio".into()]);
    let engine = Engine::builder().policy(policy).strict(false).build().expect("an engine starts on every machine");
    let status = engine.backends().into_iter().find(|backend| backend.name == "kernel-aio").expect("compiled in");
    let reason = status.reason.filter(|_| !status.started).expect("it cannot start");
    let missing = recorder.named("backend did not start");
    let missing = missing.iter().find(|seen| seen.get("backend") == "kernel-aio").expect("it is told");
    assert_eq!((missing.level, missing.get("reason")), (Level::WARN, reason.as_str()));
    let scratch = Scratch::new();
    let _file = OpenOptions::new().read(true).open(&engine, scratch.file("file", b"data")).expect("it is there");
    let fallback = recorder.one("fallback");
    assert_eq!((fallback.get("reason"), fallback.get("from")), ("not-started", "kernel-aio"));
    assert!(!fallback.get("to").is_empty() && fallback.get("kind").is_empty(), "{fallback:?}");
}

#[test]
fn a_file_that_is_opened() {
    let _watchdog = Watchdog::new("events: a_file_that_is_opened");
    let recorder = Recorder::start();
    let engine = auto();
    let scratch = Scratch::new();
    let path = scratch.file("file", b"data");
    let file = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
    let opened = recorder.one("file opened");
    assert_eq!((opened.level, opened.target.as_str()), (Level::DEBUG, "polyaio::file"));
    assert_eq!((opened.get("path"), opened.get("kind")), (path.to_str().expect("plain"), "regular"));
    assert_eq!((opened.get("route"), opened.get("direct")), (file.route().to_string().as_str(), "false"));
    let (reader, _writer) = pipe();
    let _pipe = engine.adopt(reader.into()).expect("a pipe");
    let adopted = recorder.named("file opened").remove(1);
    assert_eq!((adopted.get("path"), adopted.get("kind")), ("", "pipe"));
    assert!(adopted.get("fd").parse::<i32>().is_ok_and(|fd| fd > 2), "{adopted:?}");
}

#[test]
fn fallbacks_lessons_and_ends() {
    let _watchdog = Watchdog::new("events: fallbacks_lessons_and_ends");
    let recorder = Recorder::start();
    let (_engine, file, _scratch) = scripted(|_| Answer::Fail(libc::ENOSYS));
    assert_eq!(file.read_at(vec![0; 100], 0).wait().0.expect("the pool's"), 100);
    let fallback = recorder.one("fallback");
    assert_eq!((fallback.level, fallback.target.as_str()), (Level::DEBUG, "polyaio::request"));
    let fields = ["reason", "errno", "from", "to", "kind"].map(|field| fallback.get(field).to_owned());
    assert_eq!(fields, ["unsupported", &libc::ENOSYS.to_string(), SCRIPTED, POOL, "Read"]);
    let demoted = recorder.one("backend demoted for a file");
    assert_eq!((demoted.level, demoted.get("backend"), demoted.get("class")), (Level::INFO, SCRIPTED, "Read"));
    let end = recorder.one("request completed");
    assert_eq!((end.level, end.get("served_by"), end.get("kind")), (Level::TRACE, POOL, "Read"));
    assert_eq!((end.get("bytes"), end.get("errno"), end.get("fallbacks")), ("100", "", "unsupported"));
    // What was learnt is told once; what follows from it each time.
    assert_eq!(file.read_at(vec![0; 100], 0).wait().0.expect("the pool's"), 100);
    assert_eq!(recorder.named("backend demoted for a file").len(), 1);
    assert_eq!(recorder.named("fallback")[1].get("reason"), "remembered");
}

#[test]
fn an_end_with_an_error() {
    let _watchdog = Watchdog::new("events: an_end_with_an_error");
    let recorder = Recorder::start();
    let (_engine, file, _scratch) = scripted(|_| Answer::Fail(libc::ENOSPC));
    file.write_at(vec![0; 100], 0).wait().0.expect_err("no space");
    let end = recorder.one("request completed");
    let errno = libc::ENOSPC.to_string();
    assert_eq!((end.get("served_by"), end.get("errno"), end.get("bytes")), (SCRIPTED, errno.as_str(), ""));
    assert!(recorder.named("fallback").is_empty());
}

#[test]
fn a_backend_that_rests() {
    let _watchdog = Watchdog::new("events: a_backend_that_rests");
    require!(direct_io(Scratch::new().dir()));
    let recorder = Recorder::start();
    let mut capabilities = transfers(256);
    (capabilities.serves, capabilities.nowait) = (Serves::Direct, true);
    let (_engine, file, _scratch) = with(capabilities, Direct::Required, |_| Answer::Fail(libc::EAGAIN));
    (0..200).for_each(|_| assert_eq!(file.read_at(block(), 0).wait().0.expect("the pool's"), BLOCK));
    let rests = recorder.one("backend rests for a file");
    assert_eq!((rests.level, rests.get("backend"), rests.get("reason")), (Level::INFO, SCRIPTED, "would-block"));
}

#[test]
fn anomalies() {
    let _watchdog = Watchdog::new("events: anomalies");
    let recorder = Recorder::start();
    let (engine, file, _scratch) = scripted(|_| Answer::Boast(1));
    file.read_at(vec![0; 100], 0).wait().0.expect_err("implausible");
    assert_eq!(engine.stats().anomalies.implausible, 1);
    assert_eq!(recorder.one("anomaly").level, Level::ERROR);
}

/// The inline path and streams raise an event for each transfer, as the statistics count them.
#[test]
fn what_completes_in_the_caller() {
    let _watchdog = Watchdog::new("events: what_completes_in_the_caller");
    let recorder = Recorder::start();
    let engine = auto();
    let (reader, writer) = pipe();
    let (reader, writer) = (engine.adopt(reader.into()), engine.adopt(writer.into()));
    writer.expect("a pipe").write_all("hello").wait().0.expect("room");
    reader.expect("a pipe").read(vec![0; 5]).wait().0.expect("there");
    let ends: Vec<_> = recorder.named("request completed").iter().map(|end| end.get("served_by").to_owned()).collect();
    assert_eq!((ends.as_slice(), engine.stats().streams.requests), (&["inline".into(), "inline".into()][..], 2));
}

/// Each answer, by this thread, by a worker and by nobody's thread: everything ends as it would without a listener.
fn exercise(engine: &Engine, file: &File, direct: &File) {
    for round in 0..3 {
        let writes = (0..8).map(|i| file.write_at(pattern(BLOCK, i), i * BLOCK as u64));
        engine.block_on(join(writes)).into_iter().for_each(|result| assert_eq!(result.0.expect("room"), BLOCK));
        // Another executor: the engine's own thread collects.
        let reads = (0..8).map(|i| direct.read_at(block(), i * BLOCK as u64));
        park_on(join(reads)).into_iter().for_each(|result| assert_eq!(result.0.expect("readable"), BLOCK));
        file.sync_data().wait().expect("on a disk");
        for i in 0..8 {
            let BufResult(n, back) = file.read_at(vec![0; BLOCK], i * BLOCK as u64).wait();
            assert_eq!((n.expect("readable"), back), (BLOCK, pattern(BLOCK, i)), "round {round}");
        }
    }
}

fn answers(number: usize) -> Answer {
    [Answer::Serve, Answer::Elsewhere, Answer::Fail(libc::EINVAL), Answer::Refuse(libc::EINVAL)][number % 4]
}

/// With a backend that answers in all ways, and with what this machine has.
fn everywhere(mut test: impl FnMut(&Engine, &File, &File, &Scratch)) {
    let (engine, file, scratch) = scripted(answers);
    test(&engine, &file, &file, &scratch);
    let engine = auto();
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(8 * BLOCK, 1));
    let open = |direct| OpenOptions::new().read(true).write(true).direct(direct).open(&engine, &path);
    let (file, direct) = (open(Direct::Off).expect("it is there"), open(Direct::Preferred).expect("it is there"));
    test(&engine, &file, &direct, &scratch);
}

#[test]
fn a_subscriber_that_panics_breaks_nothing() {
    let _watchdog = Watchdog::new("events: a_subscriber_that_panics_breaks_nothing");
    let recorder = Recorder::start();
    // Not `panic!`: the hook would print what is meant.
    recorder.hook(|_| std::panic::resume_unwind(Box::new("this subscriber always panics")));
    everywhere(|engine, file, direct, _| {
        exercise(engine, file, direct);
        assert_eq!(engine.stats().anomalies, Default::default());
    });
    tools::eventually("it goes on listening", || recorder.named("request completed").len() > 100);
}

/// It writes a log through the same engine, into a file that others append to as well, and waits for each line. Whatever
/// thread an event is delivered on, nothing is half done there that the line could need; and the lines raise no events.
#[test]
fn a_subscriber_that_uses_the_engine_breaks_nothing() {
    let _watchdog = Watchdog::new("events: a_subscriber_that_uses_the_engine_breaks_nothing");
    let recorder = Recorder::start();
    everywhere(|engine, file, direct, scratch| {
        recorder.clear();
        let path = scratch.path("log");
        let log = OpenOptions::new().append(true).create(true).open(engine, &path).expect("room");
        let lines = Arc::new(AtomicUsize::new(0));
        let (mine, count, again, at) = (log.clone(), lines.clone(), engine.clone(), path.clone());
        let (before, collected) = (recorder.seen().len(), direct.clone());
        recorder.hook(move |seen| {
            if seen.target == "polyaio::request" {
                // Opened anew: that is no event either.
                drop(OpenOptions::new().read(true).open(&again, &at).expect("it is there"));
                // What has to be collected needs the driver's seat.
                assert_eq!(collected.read_at(block(), 0).wait().0.expect("readable"), BLOCK);
                mine.write_all(format!("{}\n", seen.name())).wait().0.expect("room");
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        exercise(engine, file, direct);
        // In line with the subscriber's own: the gate of the file is free when an event is delivered.
        let appends = (0..8).map(|_| log.write_all("another\n"));
        engine.block_on(join(appends)).into_iter().for_each(|result| result.0.expect("room"));
        log.sync_all().wait().expect("on a disk");
        // What was completed last may still be told on another thread.
        let requests =
            || recorder.seen().split_off(before).iter().filter(|seen| seen.target == "polyaio::request").count();
        tools::eventually("each event has its line", || requests() == lines.load(Ordering::SeqCst));
        let opened = recorder.named("file opened").len();
        assert_eq!(opened, 1, "the log, and not what the subscriber opened");
        // That was so, perhaps, before the last one was told.
        tools::eventually("the log has them all", || {
            let text = std::fs::read_to_string(&path).expect("a log");
            text.lines().count() == requests() + 8
        });
        assert!(requests() > 50, "{}", requests());
        // The hook holds the engine.
        recorder.clear();
    });
}

/// A thread that cannot be created while the engine runs makes a smaller pool, which is told. In a process of its own, as a
/// user who has no other threads.
#[test]
fn a_pool_that_cannot_grow() {
    const NAME: &str = "a_pool_that_cannot_grow";
    require!(support::root());
    if let Respawn::Parent(child) = respawn(NAME) {
        child.expect_success();
        return;
    }
    let recorder = Recorder::start();
    let policy = Policy::Require(POOL.into());
    let engine = Engine::builder().policy(policy).threads(8).build().expect("with its first thread");
    let file = std::fs::File::open(std::env::current_exe().expect("this test")).expect("it is there");
    let file = engine.adopt(file.into()).expect("a file");
    let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: changes this process's credentials and limits only.
    let changed = unsafe {
        let user = 1_000_000 + libc::getpid().unsigned_abs();
        libc::setresgid(user, user, user) == 0
            && libc::setresuid(user, user, user) == 0
            && libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) == 0
    };
    assert!(changed, "{}", std::io::Error::last_os_error());
    assert_eq!(file.read_at(vec![0; 100], 0).wait().0.expect("one thread is enough"), 100);
    let degraded = recorder.one("backend degraded");
    assert_eq!((degraded.level, degraded.get("backend")), (Level::WARN, POOL));
    let reason = degraded.get("reason");
    assert!(reason.contains("RLIMIT_NPROC") || reason.contains("pids.max"), "{reason}");
}
