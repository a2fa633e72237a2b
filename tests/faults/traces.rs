//! What can be seen of requests: who served each, by which fallbacks, and what is counted.

use polyaio::backend::{Capabilities, Serves};
use polyaio::{AlignedBuf, BackendStats, BufResult, Engine, OpenOptions, Policy, Reason, Trace};

use crate::support::{Scratch, direct_io, fifo, pipe, require};
use crate::tools::{Answer, HELD, Held, SCRIPTED, Scripted, Seen, Watchdog, poll_once, transfers};
use crate::{BLOCK, Bench, prefer};

const POOL: &str = "thread-pool";

fn honours_nowait() -> Capabilities {
    let mut capabilities = transfers(256);
    capabilities.serves = Serves::Direct;
    capabilities.nowait = true;
    capabilities
}

fn nowait_bench(script: impl Fn(usize, Seen) -> Answer + Send + Sync + 'static) -> Bench {
    let scripted = Scripted::with(honours_nowait(), script);
    let policy = Policy::Prefer(vec![SCRIPTED.into(), POOL.into()]);
    let engine = Engine::builder().backend(scripted).policy(policy).strict(false).build().expect("an engine");
    Bench::on(engine, 8, true)
}

fn stats(engine: &Engine, name: &str) -> BackendStats {
    engine.stats().backends.into_iter().find(|backend| backend.name == name).expect("it is there")
}

fn block() -> AlignedBuf {
    AlignedBuf::zeroed(BLOCK, BLOCK)
}

#[test]
fn a_trace_names_who_served() {
    let _watchdog = Watchdog::new("faults: a_trace_names_who_served");
    let bench = Bench::new(&Scripted::new(|_, _| Answer::Elsewhere), 2);
    let (BufResult(n, _), trace) = bench.engine.block_on(bench.file.read_at(block(), 0).traced());
    assert_eq!(n.expect("readable"), BLOCK);
    assert_eq!((trace.served_by, trace.fallbacks.is_empty(), trace.to_string()), (SCRIPTED, true, SCRIPTED.into()));
    // What the backend does not offer is the pool's from the start: no fallback.
    let (len, trace) = bench.file.len().traced().wait();
    assert_eq!((len.expect("it has one"), trace.to_string()), (2 * BLOCK as u64, POOL.into()));
}

#[test]
fn a_trace_has_each_fallback() {
    let _watchdog = Watchdog::new("faults: a_trace_has_each_fallback");
    let cases = [
        (Answer::Refuse(libc::EINVAL), Reason::Invalid),
        (Answer::Fail(libc::EINVAL), Reason::Invalid),
        (Answer::Fail(libc::EPERM), Reason::Unsupported),
        (Answer::Busy, Reason::QueueFull),
    ];
    for (answer, reason) in cases {
        let bench = Bench::new(&Scripted::new(move |_, _| answer), 1);
        let (BufResult(n, _), trace) = bench.file.read_at(block(), 0).traced().wait();
        assert_eq!(n.expect("the pool's"), BLOCK);
        assert_eq!(trace.served_by, POOL, "{answer:?}");
        assert_eq!(trace.fallbacks.iter().collect::<Vec<_>>(), [reason], "{answer:?}");
        assert_eq!(trace.to_string(), format!("thread-pool ({reason})"));
        assert_eq!(bench.engine.stats().fallback(reason), 1);
    }
}

/// The second request's trace says that the first one's answer decided.
#[test]
fn a_trace_says_what_was_remembered() {
    let _watchdog = Watchdog::new("faults: a_trace_says_what_was_remembered");
    let bench = Bench::new(&Scripted::new(|_, _| Answer::Fail(libc::ENOSYS)), 1);
    let trace = |_| bench.file.read_at(block(), 0).traced().wait().1.to_string();
    let traces: Vec<_> = (0..3).map(trace).collect();
    assert_eq!(traces, ["thread-pool (unsupported)", "thread-pool (remembered)", "thread-pool (remembered)"]);
}

#[test]
fn a_trace_adds_up_what_one_request_went_through() {
    let _watchdog = Watchdog::new("faults: a_trace_adds_up_what_one_request_went_through");
    require!(direct_io(Scratch::new().dir()));
    // The flag is not known, and without it the answer is EINVAL.
    let script = |_, seen: Seen| Answer::Fail(if seen.nowait { libc::EOPNOTSUPP } else { libc::EINVAL });
    let bench = nowait_bench(script);
    let (BufResult(n, _), trace) = bench.file.read_at(block(), 0).traced().wait();
    assert_eq!(n.expect("the pool's"), BLOCK);
    assert!(trace.fallbacks.contains(Reason::NowaitUnsupported) && trace.fallbacks.contains(Reason::Invalid));
    assert_eq!(trace.to_string(), "thread-pool (nowait-unsupported, invalid)");
}

/// Also of what failed; and of what no backend was asked for.
#[test]
fn a_trace_of_errors() {
    let _watchdog = Watchdog::new("faults: a_trace_of_errors");
    let script = |number, _| Answer::Fail(if number == 0 { libc::ENOSPC } else { libc::EINVAL });
    let bench = Bench::new(&Scripted::new(script), 1);
    let (BufResult(n, _), trace) = bench.file.write_at(block(), 0).traced().wait();
    assert_eq!((n.expect_err("no space").raw_os_error(), trace.to_string()), (Some(libc::ENOSPC), SCRIPTED.into()));
    let writes_nothing = OpenOptions::new().read(true).open(&bench.engine, &bench.path).expect("it is there");
    let (BufResult(n, _), trace) = writes_nothing.write_at(block(), 0).traced().wait();
    assert_eq!((n.expect_err("read-only").raw_os_error(), trace.served_by), (Some(libc::EBADF), Trace::NONE));
    let clone = bench.file.clone();
    let (closed, trace) = bench.file.close().traced().wait();
    closed.expect("it was open");
    assert_eq!(trace.served_by, POOL);
    let (len, trace) = clone.len().traced().wait();
    assert_eq!((len.expect_err("closed").raw_os_error(), trace.served_by), (Some(libc::EBADF), Trace::NONE));
}

/// What completes in the caller has no backend; the first read fills the page cache.
#[test]
fn a_trace_of_the_inline_path() {
    let _watchdog = Watchdog::new("faults: a_trace_of_the_inline_path");
    let engine = Engine::builder().policy(Policy::Auto).strict(false).build().expect("an engine");
    let bench = Bench::on(engine, 1, false);
    let before = bench.engine.stats().inline.requests;
    let traces = (0..2).map(|_| bench.file.read_at(block(), 0).traced().wait().1.served_by);
    let traces: Vec<_> = traces.collect();
    let inline = bench.engine.stats().inline.requests - before;
    assert_eq!(traces.iter().filter(|name| **name == Trace::INLINE).count() as u64, inline, "{traces:?}");
    assert!(traces.iter().all(|name| [Trace::INLINE, POOL].contains(name)), "{traces:?}");
}

/// A pipe is read in the caller; a FIFO refuses to be asked without blocking, and a worker does it.
#[test]
fn a_trace_of_streams() {
    let _watchdog = Watchdog::new("faults: a_trace_of_streams");
    let engine = Engine::builder().policy(Policy::Auto).strict(false).build().expect("an engine");
    let (reader, writer) = pipe();
    let (reader, writer) = (engine.adopt(reader.into()), engine.adopt(writer.into()));
    let (BufResult(n, _), trace) = writer.expect("a pipe").write_all("hello").traced().wait();
    n.expect("room");
    assert_eq!(trace.to_string(), Trace::INLINE);
    let (BufResult(n, _), trace) = reader.expect("a pipe").read(vec![0; 5]).traced().wait();
    assert_eq!((n.expect("there"), trace.to_string()), (5, Trace::INLINE.into()));

    let scratch = Scratch::new();
    let path = fifo(scratch.dir(), "fifo");
    let both = std::fs::File::options().read(true).write(true).open(path).expect("both sides");
    let both = engine.adopt(both.into()).expect("a FIFO");
    let before = engine.stats().fallback(Reason::NowaitUnsupported);
    let (BufResult(n, _), trace) = both.write_all("hello").traced().wait();
    n.expect("room");
    let steps = engine.stats().fallback(Reason::NowaitUnsupported) - before;
    // Kernels that know NOWAIT for FIFOs exist.
    let want = if steps == 0 { Trace::INLINE } else { "stream-workers (nowait-unsupported)" };
    assert_eq!(trace.to_string(), want);
}

#[test]
fn nowait_hits_and_misses_are_counted() {
    let _watchdog = Watchdog::new("faults: nowait_hits_and_misses_are_counted");
    require!(direct_io(Scratch::new().dir()));
    let script = |number, _| match number {
        0 | 1 => Answer::Fail(libc::EAGAIN),
        2 => Answer::Refuse(libc::EAGAIN),
        3 => Answer::Fail(libc::EIO),
        _ => Answer::Elsewhere,
    };
    let bench = nowait_bench(script);
    (0..8).for_each(|i| assert_eq!(bench.file.read_at(block(), i * BLOCK as u64).wait().0.expect("served"), BLOCK));
    let (scripted, pool) = (stats(&bench.engine, SCRIPTED), stats(&bench.engine, POOL));
    assert_eq!((scripted.nowait_hits, scripted.nowait_misses), (4, 3), "{scripted:?}");
    assert_eq!((pool.nowait_hits, pool.nowait_misses), (0, 0), "asked to block: {pool:?}");
}

#[test]
fn short_transfers_are_counted() {
    let _watchdog = Watchdog::new("faults: short_transfers_are_counted");
    let bench = Bench::new(&Scripted::new(|_, _| Answer::Short(1000)), 1);
    bench.file.write_all_at(vec![1; 2500], 0).wait().0.expect("in three steps");
    assert_eq!(stats(&bench.engine, SCRIPTED).short, 2, "the last step is not short");
    assert_eq!(bench.file.read_at(vec![0; 1000], 0).wait().0.expect("all"), 1000);
    assert_eq!(bench.file.read_at(vec![0; 1001], 0).wait().0.expect("a part"), 1000);
    assert_eq!(stats(&bench.engine, SCRIPTED).short, 3);
    // The end of the file is no transfer.
    assert_eq!(bench.file.read_at(vec![0; 10], BLOCK as u64).wait().0.expect("the end"), 0);
    assert_eq!(stats(&bench.engine, SCRIPTED).short, 3);
}

/// What a backend holds now, and what waits because it has no room.
#[test]
fn requests_in_flight_and_waiting_are_seen() {
    let _watchdog = Watchdog::new("faults: requests_in_flight_and_waiting_are_seen");
    let held = Held::new(transfers(3));
    let bench = Bench::on(prefer(held.clone(), HELD), 1, false);
    let mut reads: Vec<_> = (0..5).map(|_| bench.file.read_at(vec![0; 1], 0)).collect();
    (0..2).for_each(|_| reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending())));
    let now = stats(&bench.engine, HELD);
    assert_eq!((now.in_flight, now.waiting), (3, 2), "{now:?}");
    assert!(now.busy > 0 && now.requests == 0, "{now:?}");
    held.open();
    reads.into_iter().for_each(|read| assert_eq!(read.wait().0.expect("readable"), 1));
    let now = stats(&bench.engine, HELD);
    assert_eq!((now.in_flight, now.waiting, now.requests), (0, 0, 5), "{now:?}");
}

/// A trace is no different from an operation: it may be dropped half-way.
#[test]
fn a_traced_operation_can_be_dropped() {
    let _watchdog = Watchdog::new("faults: a_traced_operation_can_be_dropped");
    let held = Held::new(transfers(3));
    let bench = Bench::on(prefer(held.clone(), HELD), 1, false);
    let mut read = bench.file.read_at(vec![0; 1], 0).traced();
    (0..2).for_each(|_| assert!(poll_once(&mut read).is_pending()));
    drop(read);
    held.open();
    assert_eq!(bench.file.read_at(vec![0; 1], 0).traced().wait().1.served_by, HELD);
    assert_eq!(held.served(), 2, "what was sent goes on");
}

/// A misaligned direct transfer goes through the page cache, and its trace says so.
#[test]
fn a_trace_of_a_misaligned_transfer() {
    let _watchdog = Watchdog::new("faults: a_trace_of_a_misaligned_transfer");
    require!(direct_io(Scratch::new().dir()));
    let engine = Engine::builder().policy(Policy::Auto).strict(false).build().expect("an engine");
    let bench = Bench::on(engine, 2, true);
    let (BufResult(n, back), trace) = bench.file.read_at(vec![0; 100], 7).traced().wait();
    assert_eq!((n.expect("the twin's"), &back[..]), (100, &bench.data[7..107]));
    assert_eq!(trace.to_string(), "thread-pool (misaligned)");
}

/// What was cancelled before it began was nobody's.
#[test]
fn a_trace_of_a_cancelled_operation() {
    let _watchdog = Watchdog::new("faults: a_trace_of_a_cancelled_operation");
    let bench = Bench::new(&Scripted::new(|_, _| Answer::Serve), 1);
    let mut read = bench.file.read_at(vec![0; 1], 0).traced();
    assert_eq!(read.cancel(), polyaio::backend::CancelOutcome::Cancelled);
    let (BufResult(n, back), trace) = read.wait();
    assert_eq!((n.expect_err("cancelled").raw_os_error(), back.len()), (Some(libc::ECANCELED), 1));
    assert_eq!((trace.served_by, trace.fallbacks.is_empty()), (Trace::NONE, true));
}
