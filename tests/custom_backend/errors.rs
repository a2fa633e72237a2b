use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use polyaio::{BufResult, OpKind};

use crate::code;
use crate::double::{Double, deliver, expected, on};
use crate::tools::{Watchdog, join};

/// Panics as told, without the message that the hook would print.
fn panics() -> ! {
    std::panic::resume_unwind(Box::new("this backend panics"))
}

/// Who waits is told; the one thread that there is goes on, and what was half read is not shown.
#[test]
fn panics_are_contained() {
    let _watchdog = Watchdog::new("custom_backend: panics_are_contained");
    let double = Double::new(|operation| match operation.position() {
        Some(position) if position % 3 == 1 => panics(),
        Some(position) if position % 3 == 2 => {
            operation.room().append(b"half of it");
            panics()
        }
        None if operation.kind() == OpKind::Len => panics(),
        _ => deliver(operation),
    });
    let (engine, file) = on(&double, 1);
    let reads = (0..60).map(|i| file.read_at(Vec::with_capacity(100), i));
    for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
        if i % 3 == 0 {
            assert_eq!((n.expect("it is served"), &back), (back.capacity(), &expected(i as u64, back.capacity())));
        } else {
            assert_eq!((code(n), back.len()), (libc::EIO, 0), "read {i}");
        }
    }
    assert_eq!(code(file.len().wait()), libc::EIO);
    assert_eq!(double.count(), 61, "once each");
    let stats = engine.stats();
    assert_eq!((stats.backends[0].requests, stats.backends[0].errors, stats.total_fallbacks()), (61, 41, 0));
}

/// Errors with a number keep it, those with a kind get the kind's, and nobody else is asked: the file is not theirs.
#[test]
fn errors_are_reported() {
    let _watchdog = Watchdog::new("custom_backend: errors_are_reported");
    let errors: [(fn() -> io::Error, i32); 8] = [
        (|| io::Error::from_raw_os_error(libc::ENOSPC), libc::ENOSPC),
        (|| io::Error::from_raw_os_error(libc::EINVAL), libc::EINVAL),
        (|| io::Error::from_raw_os_error(libc::EOPNOTSUPP), libc::EOPNOTSUPP),
        (|| io::Error::from_raw_os_error(libc::EPERM), libc::EPERM),
        (|| io::Error::new(io::ErrorKind::PermissionDenied, "in words"), libc::EACCES),
        (|| io::ErrorKind::Unsupported.into(), libc::EOPNOTSUPP),
        (|| io::Error::other("in words"), libc::EIO),
        (|| io::Error::from_raw_os_error(-7), libc::EIO),
    ];
    let double = Double::new(move |operation| Err(errors[operation.position().expect("an offset") as usize].0()));
    let (engine, file) = on(&double, 2);
    for (i, (_, number)) in errors.iter().enumerate() {
        let BufResult(result, back) = file.read_at(vec![9; 10], i as u64).wait();
        assert_eq!((code(result), back), (*number, vec![9; 10]), "error {i}");
        assert_eq!(code(file.write_all_at(vec![9; 10], i as u64).wait().0), *number, "error {i}");
    }
    let stats = engine.stats();
    assert_eq!((stats.backends[0].errors, stats.total_fallbacks()), (16, 0));
}

/// As a call that was interrupted is made once more.
#[test]
fn interrupted_ones_are_repeated() {
    let _watchdog = Watchdog::new("custom_backend: interrupted_ones_are_repeated");
    let calls = AtomicUsize::new(0);
    let double = Double::new(move |operation| {
        operation.room().append(b"something, and then not");
        if calls.fetch_add(1, Ordering::SeqCst) < 3 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(9) }
    });
    let (_engine, file) = on(&double, 1);
    let BufResult(n, back) = file.read_at(Vec::with_capacity(100), 0).wait();
    assert_eq!((n.expect("in the end"), &back[..]), (9, &b"something"[..]));
    assert_eq!(double.count(), 4);
}

/// A count larger than the request; and one of bytes that nobody has put in: memory that was never written is not shown.
#[test]
fn counts_that_cannot_be() {
    let _watchdog = Watchdog::new("custom_backend: counts_that_cannot_be");
    let double = Double::new(|operation| {
        let length = operation.length();
        match (operation.kind(), operation.position()) {
            (OpKind::Read, Some(0)) => Ok(length),
            (OpKind::Read, Some(1)) => {
                operation.room().append(b"four");
                Ok(5)
            }
            (OpKind::Read, Some(2)) => {
                operation.room().fill(7, 100);
                Ok(u64::MAX)
            }
            // Filled, but not advanced over.
            (OpKind::Read, Some(3)) => {
                operation.room().spare().fill(7);
                Ok(1)
            }
            (OpKind::Write, Some(0)) => Ok(length + 1),
            // Fewer than were filled is a short read.
            (OpKind::Read, _) => {
                operation.room().append(b"four");
                Ok(3)
            }
            _ => Ok(length),
        }
    });
    let (engine, file) = on(&double, 1);
    for position in 0..4 {
        let BufResult(result, back) = file.read_at(Vec::with_capacity(100), position).wait();
        assert_eq!((code(result), back.len()), (libc::EIO, 0), "at {position}");
        assert_eq!(engine.stats().anomalies.implausible, position + 1);
    }
    assert_eq!(code(file.write_at(vec![1; 10], 0).wait().0), libc::EIO);
    assert_eq!(engine.stats().anomalies.implausible, 5);
    let BufResult(n, back) = file.read_at(Vec::with_capacity(100), 4).wait();
    assert_eq!((n.expect("short"), &back[..]), (3, &b"fou"[..]));
    assert_eq!(file.write_at(vec![1; 10], 4).wait().0.expect("it says so"), 10);
    assert_eq!(engine.stats().anomalies.implausible, 5);
}
