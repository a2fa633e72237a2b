//! Cancelling: one of three answers, one result that agrees with it, and the buffer back.

use std::io::Write as _;

use polyaio::backend::CancelOutcome;
use polyaio::{BufResult, File, Op, OpenOptions, ops};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, code, filled};
use crate::support::{self, long_tests, pattern};
use crate::tools::{Begun, Census, CountedBuf, Numbers, join, poll_once};

type Write = Op<ops::Write<CountedBuf>>;

/// What was cancelled in time has not happened and says so; everything else has happened.
fn agrees(outcome: CancelOutcome, n: std::io::Result<usize>) -> bool {
    match (outcome, n) {
        (CancelOutcome::Cancelled, result) => {
            assert_eq!(code(result), libc::ECANCELED);
            false
        }
        (CancelOutcome::Running | CancelOutcome::Done, n) => {
            assert_eq!(n.expect("room"), BLOCK, "{outcome:?}");
            true
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn before_anything_happened(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", b"as it was");
    let file = bed.open(&engine, Medium::Buffered, &path);
    let mut write = file.write_at(vec![0; 9], 0);
    assert_eq!(write.cancel(), CancelOutcome::Cancelled);
    assert_eq!(write.cancel(), CancelOutcome::Cancelled, "twice is as good as once");
    let BufResult(n, back) = write.wait();
    assert_eq!((code(n), back.len()), (libc::ECANCELED, 9));
    let mut cut = file.set_len(0);
    assert_eq!(cut.cancel(), CancelOutcome::Cancelled);
    assert_eq!(code(engine.block_on(cut)), libc::ECANCELED);
    let mut close = file.clone().close();
    assert_eq!(close.cancel(), CancelOutcome::Cancelled);
    assert_eq!(code(close.wait()), libc::ECANCELED);
    assert_eq!(file.len().wait().expect("it is still open"), 9);
    bed.assert_file(&path, b"as it was");
}

/// Half of many are cancelled: the other half does not notice.
pub(crate) fn one_half_leaves_the_other_alone(bed: &Bed) {
    const BLOCKS: usize = 64;
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let mut data = pattern(BLOCKS * BLOCK, 1);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        for round in 0..8 {
            let fill = round as u8 + 1;
            let write = |i: usize| Begun::new(file.write_at(census.buffer(BLOCK, fill), (i * BLOCK) as u64));
            let mut writes: Vec<Begun<Write>> = (0..BLOCKS).map(write).collect();
            if round % 2 == 1 {
                // Sent, now.
                engine.turn(0, usize::MAX, None);
            }
            let half = writes.iter_mut().skip(round % 2).step_by(2);
            let outcomes: Vec<_> = half.map(|write| write.with_running(Op::cancel)).collect();
            let mut outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or(CancelOutcome::Done));
            for (i, BufResult(n, back)) in engine.block_on(join(writes)).into_iter().enumerate() {
                let cancelled = i >= round % 2 && (i - round % 2) % 2 == 0;
                let outcome = if cancelled { outcomes.next().expect("one each") } else { CancelOutcome::Running };
                if agrees(outcome, n) {
                    data[i * BLOCK..][..BLOCK].fill(fill);
                }
                drop(back);
            }
        }
        assert_eq!(census.live(), 0);
        bed.assert_file(&path, &data);
        assert_healthy(&engine.stats());
    }
}

/// Requests of every stage of their life.
pub(crate) fn at_random_moments(bed: &Bed) {
    const BLOCKS: usize = 128;
    let count = if long_tests().is_ok() { 100_000 } else { 6_000 };
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let mut data = vec![0; BLOCKS * BLOCK];
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        let mut numbers = Numbers::new(0x5eed_0001);
        let mut results = 0;
        while results < count {
            let fill = (results % 251 + 1) as u8;
            let write = |i: usize| Begun::new(file.write_at(census.buffer(BLOCK, fill), (i * BLOCK) as u64));
            let mut writes: Vec<_> = (0..BLOCKS).map(|i| (write(i), None)).collect();
            for _ in 0..numbers.below(3) {
                engine.turn(numbers.below(20), usize::MAX, Some(std::time::Duration::from_micros(50)));
            }
            for (write, outcome) in &mut writes {
                if numbers.below(3) != 0 {
                    *outcome = write.with_running(Op::cancel);
                }
                if numbers.below(8) == 0 {
                    engine.turn(0, usize::MAX, None);
                }
            }
            let (writes, outcomes): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
            let ended = engine.block_on(join(writes));
            for (i, (BufResult(n, _), outcome)) in ended.into_iter().zip(outcomes).enumerate() {
                if agrees(outcome.unwrap_or(CancelOutcome::Running), n) {
                    data[i * BLOCK..][..BLOCK].fill(fill);
                }
                results += 1;
            }
        }
        assert_eq!(census.made(), census.freed(), "every buffer comes back, once");
        bed.assert_file(&path, &data);
        assert_healthy(&engine.stats());
    }
}

/// Appends that wait for their turn, syncs that wait for writes: what is cancelled leaves the order of the others.
pub(crate) fn what_waits_for_its_turn(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("log", &[]);
    let log = OpenOptions::new().append(true).open(&engine, &path).expect("there");
    let mut expected = Vec::new();
    for round in 0..30u8 {
        let mut appends: Vec<_> = (0..20).map(|i| (i, log.write_at(vec![round * 7 + i; 10], 0))).collect();
        appends.iter_mut().for_each(|(_, append)| _ = poll_once(append));
        let mut sync = log.sync_data();
        let _ = poll_once(&mut sync);
        let outcomes: Vec<_> = appends
            .iter_mut()
            .map(|(i, append)| if *i % 3 == 1 { append.cancel() } else { CancelOutcome::Running })
            .collect();
        let synced = if round % 2 == 0 { sync.cancel() } else { CancelOutcome::Running };
        match (synced, sync.wait()) {
            (CancelOutcome::Cancelled, result) => assert_eq!(code(result), libc::ECANCELED),
            (_, result) => result.expect("a file can be synced"),
        }
        for ((i, append), outcome) in appends.into_iter().zip(outcomes) {
            match (outcome, append.wait().0) {
                (CancelOutcome::Cancelled, n) => assert_eq!(code(n), libc::ECANCELED),
                (_, n) => {
                    assert_eq!(n.expect("room"), 10);
                    expected.extend([round * 7 + i; 10]);
                }
            }
        }
    }
    bed.assert_file(&path, &expected);
    assert_healthy(&engine.stats());
}

/// A read that waits for a stream stops waiting, and what comes later is for others.
pub(crate) fn a_read_that_waits(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    for _ in 0..50 {
        let mut first = reader.read(buffer(4));
        let mut second = reader.read(buffer(4));
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
        assert_eq!(first.cancel(), CancelOutcome::Cancelled);
        let BufResult(n, back) = first.wait();
        assert_eq!((code(n), back.len()), (libc::ECANCELED, 4));
        writer.write_all(b"ping").expect("there is a reader");
        let BufResult(n, back) = second.wait();
        assert_eq!((n.expect("readable"), &back[..]), (4, &b"ping"[..]));
    }
}

/// In the line for a place, because the engine holds no more.
pub(crate) fn in_the_line_for_a_place(bed: &Bed) {
    let engine = bed.builder().capacity(2).build().expect("an engine");
    bed.watch(&engine);
    let path = bed.make("file", &[0; 8 * BLOCK]);
    let file: File = bed.open(&engine, Medium::Buffered, &path);
    let write = |i: usize| file.write_at(filled(&[7; BLOCK]), (i * BLOCK) as u64);
    let mut writes: Vec<_> = (0..8).map(|i| Begun::new(write(i))).collect();
    let outcome = writes[5].with_running(Op::cancel).expect("it cannot be over: there is room for two");
    assert_eq!(outcome, CancelOutcome::Cancelled);
    for (i, BufResult(n, _)) in engine.block_on(join(writes)).into_iter().enumerate() {
        if i == 5 { assert_eq!(code(n), libc::ECANCELED) } else { assert_eq!(n.expect("room"), BLOCK) }
    }
    let mut expected = vec![7; 8 * BLOCK];
    expected[5 * BLOCK..6 * BLOCK].fill(0);
    bed.assert_file(&path, &expected);
}

/// What was closed stays closed, and what is done is done.
pub(crate) fn too_late(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", &[0; BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let mut sync = file.sync_all();
    assert!(poll_once(&mut sync).is_pending());
    engine.turn(1, usize::MAX, None);
    assert_eq!(sync.cancel(), CancelOutcome::Done);
    sync.wait().expect("it was done");
    let mut close = file.clone().close();
    assert!(poll_once(&mut close).is_pending());
    assert_eq!(close.cancel(), CancelOutcome::Running);
    close.wait().expect("closed");
    assert_eq!(code(file.read_at(vec![0; 1], 0).wait().0), libc::EBADF);
}
