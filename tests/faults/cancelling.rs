//! A wish to cancel that meets a backend: at once, late, too late, never heard of. One result each, and it agrees.

use std::sync::Arc;
use std::time::Duration;

use polyaio::backend::CancelOutcome;
use polyaio::{BufResult, Op, ops};

use crate::tools::{Begun, Cancelling, Census, CountedBuf, HELD, Held, Watchdog, transfers};
use crate::{BLOCK, Bench, code, prefer};

type Read = Op<ops::Read<CountedBuf>>;

const READS: usize = 8;

/// Reads that a backend holds which can cancel.
fn held(census: &Census) -> (Arc<Held>, Bench, Vec<Begun<Read>>) {
    let mut capabilities = transfers(64);
    capabilities.cancel = true;
    let held = Held::new(capabilities);
    let bench = Bench::on(prefer(held.clone(), HELD), READS, false);
    let begin = |i: usize| Begun::new(bench.file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
    let mut reads: Vec<_> = (0..READS).map(begin).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    assert_eq!(held.held(), READS);
    (held, bench, reads)
}

fn cancel(read: &mut Begun<Read>) -> CancelOutcome {
    read.with_running(Op::cancel).expect("it is held")
}

/// Takes the results of all: `cancelled` with `ECANCELED`, the others with their data.
fn finish(bench: &Bench, reads: Vec<Begun<Read>>, cancelled: impl Fn(usize) -> bool) {
    for (i, read) in reads.into_iter().enumerate() {
        let BufResult(n, back) = bench.engine.block_on(read);
        if cancelled(i) {
            assert_eq!(code(n), libc::ECANCELED, "read {i}");
        } else {
            assert_eq!(n.expect("readable"), BLOCK, "read {i}");
            assert_eq!(polyaio::IoBuf::as_slice(&back), &bench.data[i * BLOCK..][..BLOCK], "read {i}");
        }
    }
}

#[test]
fn at_once() {
    let _watchdog = Watchdog::new("faults: cancelled at_once");
    let census = Census::default();
    let (held, bench, mut reads) = held(&census);
    held.cancelling(Cancelling::AtOnce);
    for read in reads.iter_mut().step_by(2) {
        assert_eq!(cancel(read), CancelOutcome::Cancelled);
    }
    assert_eq!(held.held(), READS / 2);
    held.open();
    finish(&bench, reads, |i| i % 2 == 0);
    assert_eq!(census.live(), 0);
}

/// "Cancelled" is no "the buffer is free": it comes back with the result, whenever that is.
#[test]
fn late() {
    let _watchdog = Watchdog::new("faults: cancelled late");
    let census = Census::default();
    let (held, bench, mut reads) = held(&census);
    held.cancelling(Cancelling::Late);
    for read in reads.iter_mut().step_by(2) {
        assert_eq!(cancel(read), CancelOutcome::Cancelled);
    }
    held.open();
    // Some are dropped meanwhile: their buffers wait for the backend as well.
    drop(reads.remove(6));
    assert_eq!(census.live(), READS, "nothing was given back yet, but to those who have not looked");
    let first = reads.remove(0).with_running(|read| read.wait_timeout(Duration::from_millis(5)).is_none());
    assert_eq!(first, Some(true), "its end has not come");
    assert_eq!(held.end_cancelled(), READS / 2);
    let places = [1, 2, 3, 4, 5, 7];
    for (i, read) in places.into_iter().zip(reads) {
        let BufResult(n, _) = bench.engine.block_on(read);
        if i % 2 == 0 { assert_eq!(code(n), libc::ECANCELED) } else { assert_eq!(n.expect("readable"), BLOCK) }
    }
    assert_eq!(census.live(), 0);
}

#[test]
fn too_late_or_unheard_of() {
    let _watchdog = Watchdog::new("faults: cancelled too_late_or_unheard_of");
    for how in [Cancelling::Running, Cancelling::Unknown] {
        let census = Census::default();
        let (held, bench, mut reads) = held(&census);
        held.cancelling(how);
        for read in &mut reads {
            assert_eq!(cancel(read), CancelOutcome::Running, "{how:?}: it has begun, and goes on");
        }
        held.open();
        finish(&bench, reads, |_| false);
        assert_eq!(census.live(), 0);
    }
}

/// It ends while it is being cancelled.
#[test]
fn done_meanwhile() {
    let _watchdog = Watchdog::new("faults: cancelled done_meanwhile");
    let census = Census::default();
    let (held, bench, mut reads) = held(&census);
    held.cancelling(Cancelling::Done);
    for read in &mut reads {
        assert_eq!(cancel(read), CancelOutcome::Done);
        assert_eq!(cancel(read), CancelOutcome::Done, "and it stays so");
    }
    finish(&bench, reads, |_| false);
    assert_eq!(census.live(), 0);
}

/// What waits in the engine for room never reaches the backend.
#[test]
fn in_the_queue_before_the_backend() {
    let _watchdog = Watchdog::new("faults: cancelled in_the_queue_before_the_backend");
    let census = Census::default();
    let held = Held::new(transfers(2));
    let bench = Bench::on(prefer(held.clone(), HELD), READS, false);
    let begin = |i: usize| Begun::new(bench.file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
    let mut reads: Vec<_> = (0..READS).map(begin).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    assert_eq!(held.held(), 2);
    for read in reads.iter_mut().skip(4) {
        assert_eq!(cancel(read), CancelOutcome::Cancelled);
    }
    assert_eq!(cancel(&mut reads[0]), CancelOutcome::Running, "the backend has it");
    held.open();
    finish(&bench, reads, |i| i >= 4);
    assert_eq!((held.log().len(), census.live()), (4, 0));
}

/// "Cancelled" means that nothing has happened: of what is transferred in steps that is true of the first one only.
#[test]
fn in_the_middle_of_steps() {
    let _watchdog = Watchdog::new("faults: cancelled in_the_middle_of_steps");
    for how in [Cancelling::AtOnce, Cancelling::Late] {
        let mut capabilities = transfers(64);
        (capabilities.cancel, capabilities.vectored) = (true, false);
        let held = Held::new(capabilities);
        let bench = Bench::on(prefer(held.clone(), HELD), 4, false);
        held.cancelling(how);
        let lists = || [vec![0; BLOCK], vec![0; BLOCK], vec![0; BLOCK]];
        let mut once = Begun::new(bench.file.read_vectored_at(lists(), 0));
        let mut whole = Begun::new(bench.file.read_exact_vectored_at(lists(), 0));
        assert!(once.again() && whole.again());
        // The first steps of both are over, and the second ones wait.
        assert!(held.release() && held.release());
        assert_eq!((held.held(), held.log().len()), (2, 4));
        for outcome in [once.with_running(Op::cancel), whole.with_running(Op::cancel)] {
            assert_eq!(outcome, Some(CancelOutcome::Running), "{how:?}");
        }
        held.open();
        assert_eq!(held.end_cancelled(), 0, "{how:?}: it was not asked");
        let (BufResult(n, back), BufResult(done, whole)) = bench.engine.block_on(async { (once.await, whole.await) });
        assert_eq!(n.expect("readable"), 3 * BLOCK, "{how:?}");
        done.expect("readable");
        assert_eq!(
            (back.concat(), whole.concat()),
            (bench.data[..3 * BLOCK].to_vec(), bench.data[..3 * BLOCK].to_vec())
        );
    }
}

/// The same where the backend has seen the wish before the first step was over, and stops the second one for it.
#[test]
fn between_two_steps() {
    let _watchdog = Watchdog::new("faults: cancelled between_two_steps");
    let mut capabilities = transfers(64);
    (capabilities.cancel, capabilities.vectored) = (true, false);
    let held = Held::new(capabilities);
    let bench = Bench::on(prefer(held.clone(), HELD), 4, false);
    held.cancelling(Cancelling::Rest);
    let mut read = Begun::new(bench.file.read_exact_vectored_at([vec![0; BLOCK], vec![0; BLOCK]], 0));
    assert!(read.again());
    assert_eq!(read.with_running(Op::cancel), Some(CancelOutcome::Running), "a part of it has happened");
    held.open();
    let BufResult(done, back) = bench.engine.block_on(read);
    done.expect("what was stopped goes on");
    assert_eq!(back.concat(), bench.data[..2 * BLOCK]);
}
