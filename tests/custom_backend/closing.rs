use std::io;
use std::sync::Arc;

use polyaio::Policy;
use polyaio::backend::{CancelOutcome, Capabilities, Serves};

use crate::code;
use crate::double::{Double, builder, deliver, on, open};
use crate::tools::{Begun, Gate, Watchdog, eventually, lock};

fn closing(close: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static) -> Arc<Double> {
    let mut capabilities = Capabilities::new(64);
    capabilities.serves = Serves::OwnFiles;
    Arc::new(Double::named("double", capabilities, deliver).closing(close))
}

/// By a close, with clones or without; by the last handle; by the last request. With whichever policy.
#[test]
fn once() {
    let _watchdog = Watchdog::new("custom_backend: closed once");
    for policy in [Policy::Auto, Policy::Prefer(vec!["double".into()]), Policy::Prefer(vec!["thread-pool".into()])] {
        for strict in [false, true] {
            let double = closing(|_| Ok(()));
            let builder = builder(2).sync_backend(double.clone()).policy(policy.clone()).strict(strict);
            let engine = match builder.build() {
                // That one must not serve anybody's data but its own.
                Err(error) => panic!("{error}"),
                Ok(engine) => engine,
            };
            let closed = || lock(&double.closed).clone();
            open(&engine).close().wait().expect("it says so");
            assert_eq!(closed(), [1]);
            let file = open(&engine);
            let clone = file.clone();
            drop(file);
            assert_eq!(closed(), [1]);
            clone.close().wait().expect("it says so");
            assert_eq!(closed(), [1, 2]);
            let file = open(&engine);
            let clone = file.clone();
            file.close().wait().expect("it says so");
            drop(clone);
            assert_eq!(closed(), [1, 2, 3]);
            drop(open(&engine));
            assert_eq!(closed(), [1, 2, 3, 4]);
            drop((open(&engine), engine));
            assert_eq!(closed(), [1, 2, 3, 4, 5]);
        }
    }
}

/// After everything that the file was asked for, also by who has gone.
#[test]
fn after_the_last_request() {
    let _watchdog = Watchdog::new("custom_backend: closed after_the_last_request");
    for explicitly in [false, true] {
        let gate = Gate::new();
        let theirs = gate.clone();
        let double = Double::new(move |operation| {
            theirs.wait();
            deliver(operation)
        });
        let (engine, file) = on(&double, 4);
        let mut read = Begun::new(file.read_at(vec![0; 8], 0));
        assert!(read.again(), "the gate is closed");
        eventually("it is being executed", || double.count() == 1);
        let mut close = file.close();
        if explicitly {
            let mut close = Begun::new(close);
            assert!(close.again(), "the read is not over");
            gate.open();
            engine.block_on(close).expect("it says so");
        } else {
            // Cancelled before it was sent: the handle was dropped with it.
            assert_eq!(close.cancel(), CancelOutcome::Cancelled);
            assert_eq!(code(engine.block_on(close)), libc::ECANCELED);
            drop(read);
            assert!(lock(&double.closed).is_empty(), "the read is being executed");
            gate.open();
            drop(engine);
        }
        assert_eq!(*lock(&double.closed), [1]);
    }
}

/// It is closed whatever it answers: nobody calls again, not for the errors either that have anything else repeated.
#[test]
fn whatever_it_answers() {
    let _watchdog = Watchdog::new("custom_backend: closed whatever_it_answers");
    let number = |error: i32| move |_| Err(io::Error::from_raw_os_error(error));
    for (error, told) in [
        (libc::ENOSPC, libc::ENOSPC),
        (libc::EINTR, libc::EIO),
        (libc::ECANCELED, libc::EIO),
        (libc::EAGAIN, libc::EAGAIN),
        (libc::EINVAL, libc::EINVAL),
        (libc::EOPNOTSUPP, libc::EOPNOTSUPP),
    ] {
        let double = closing(number(error));
        let (engine, file) = on(&double, 1);
        assert_eq!(code(file.close().wait()), told);
        drop((open(&engine), engine));
        assert_eq!(*lock(&double.closed), [1, 2], "error {error}");
    }
    let double = closing(|_| std::panic::resume_unwind(Box::new("this backend panics")));
    let (engine, file) = on(&double, 1);
    assert_eq!(code(file.close().wait()), libc::EIO);
    drop((open(&engine), engine));
    assert_eq!(*lock(&double.closed), [1, 2]);
}

/// A file that outlives its engine is closed all the same.
#[test]
fn after_the_engine() {
    let _watchdog = Watchdog::new("custom_backend: closed after_the_engine");
    let double = closing(|_| Ok(()));
    let (engine, file) = on(&double, 1);
    drop(engine);
    file.clone().close().wait().expect_err("the engine has ended");
    assert!(lock(&double.closed).is_empty(), "there is another handle");
    drop(file);
    assert_eq!(*lock(&double.closed), [1]);
}
