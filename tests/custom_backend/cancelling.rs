use std::sync::Arc;
use std::task::Poll;
use std::thread;

use polyaio::backend::CancelOutcome;
use polyaio::{BufResult, Engine, File, IoBuf as _, Op, ops};

use crate::code;
use crate::double::{Double, deliver, expected, on};
use crate::tools::{Begun, Census, CountedBuf, Gate, Watchdog, eventually, join, poll_once};

type Read = Op<ops::Read<CountedBuf>>;

/// One thread, which is inside the first of these reads until the gate opens.
struct Busy {
    gate: Arc<Gate>,
    double: Arc<Double>,
    engine: Engine,
    file: File,
    reads: Vec<Begun<Read>>,
}

fn busy(census: &Census, count: u64) -> Busy {
    let gate = Gate::new();
    let theirs = gate.clone();
    let double = Double::new(move |operation| {
        theirs.wait();
        deliver(operation)
    });
    let (engine, file) = on(&double, 1);
    let mut reads: Vec<_> = (0..count).map(|i| Begun::new(file.read_at(census.buffer(64, 0), i))).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    eventually("the first is being executed", || double.count() == 1);
    Busy { gate, double, engine, file, reads }
}

/// What waits for the thread has not begun: it is cancelled, and never executed. What is being executed is not.
#[test]
fn what_waits() {
    let _watchdog = Watchdog::new("custom_backend: what_waits");
    let census = Census::default();
    let Busy { gate, double, engine, file: _file, mut reads } = busy(&census, 9);
    for (i, read) in reads.iter_mut().enumerate().step_by(2) {
        let outcome = read.with_running(Op::cancel).expect("it is running");
        assert_eq!(outcome, if i == 0 { CancelOutcome::Running } else { CancelOutcome::Cancelled });
    }
    gate.open();
    for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
        if i == 0 || i % 2 == 1 {
            assert_eq!((n.expect("it is served"), back.as_slice()), (64, &expected(i as u64, 64)[..]));
        } else {
            assert_eq!(code(n), libc::ECANCELED, "read {i}");
        }
    }
    assert_eq!((double.count(), census.live()), (5, 0));
}

/// What nobody waits for any more is not begun. The buffer of what is being executed is kept until that is over.
#[test]
fn what_is_dropped() {
    let _watchdog = Watchdog::new("custom_backend: what_is_dropped");
    let census = Census::default();
    let Busy { gate, double, engine, file, mut reads } = busy(&census, 9);
    let last = reads.pop();
    drop(reads);
    assert_eq!(census.live(), 9, "the backend may still write into them");
    gate.open();
    assert_eq!(engine.block_on(last.expect("there were nine")).0.expect("it is served"), 64);
    assert_eq!(double.count(), 2, "the first and the last");
    drop((file, engine));
    assert_eq!(census.live(), 0);
}

/// The engine's end waits for everything that it was given, and for nobody who does not come.
#[test]
fn the_engine_is_dropped_in_flight() {
    let _watchdog = Watchdog::new("custom_backend: the_engine_is_dropped_in_flight");
    let census = Census::default();
    let Busy { gate, double, engine, file, mut reads } = busy(&census, 40);
    // A part of them is dropped, the rest is waited for.
    drop(reads.drain(1..11));
    let end = thread::spawn(move || drop(engine));
    // One that is accepted before is dropped, and so never begun.
    let refused = || matches!(poll_once(&mut file.read_at(vec![0; 8], 0)), Poll::Ready(BufResult(Err(_), _)));
    eventually("the engine is closed", refused);
    assert!(!end.is_finished(), "what is being executed is not over");
    gate.open();
    end.join().expect("no panic");
    assert_eq!(double.count(), 30);
    for (i, read) in reads.into_iter().enumerate() {
        let position = if i == 0 { 0 } else { i as u64 + 10 };
        let BufResult(n, back) = crate::tools::park_on(read);
        assert_eq!((n.expect("it was served"), back.as_slice()), (64, &expected(position, 64)[..]));
    }
    assert_eq!(census.live(), 0);
    drop(file);
    let weak = Arc::downgrade(&double);
    drop(double);
    eventually("its threads have let go of the backend", || weak.strong_count() == 0);
}

/// The same from many threads, at any moment: each operation has one end.
#[test]
fn engines_dropped_at_any_moment() {
    let _watchdog = Watchdog::new("custom_backend: engines_dropped_at_any_moment");
    for round in 0..50_usize {
        let census = Census::default();
        let double = Double::new(deliver);
        let (engine, file) = on(&double, 3);
        let users: Vec<_> = (0..4_u64)
            .map(|user| {
                let (file, census) = (file.clone(), census.clone());
                thread::spawn(move || {
                    for i in 0.. {
                        let mut read = Begun::new(file.read_at(census.buffer(16, 0), i));
                        match (i + user) % 3 {
                            0 => drop(read),
                            1 => _ = read.with_running(Op::cancel),
                            _ => match crate::tools::park_on(read) {
                                BufResult(Ok(n), back) => {
                                    assert_eq!((n, back.as_slice()), (16, &expected(i, 16)[..]));
                                }
                                BufResult(Err(_), _) => break,
                            },
                        }
                    }
                })
            })
            .collect();
        eventually("some were served", || double.count() > round);
        drop(engine);
        users.into_iter().for_each(|user| user.join().expect("no panic"));
        drop(file);
        assert_eq!(census.live(), 0);
    }
}
