use std::io;
use std::sync::{Arc, Condvar, Mutex};

use polyaio::backend::{Capabilities, Handle, OpSet, Operation, Serves};
use polyaio::{Advice, BufResult, Durability, Metadata, OpKind, OpenOptions, Priority};

use crate::code;
use crate::double::{Double, builder, deliver, expected, on, open};
use crate::support::pattern;
use crate::tools::{Watchdog, join, lock, park_on};

/// Eight operations are executed at once, and end in the reverse order: each has its own result.
#[test]
fn results_in_any_order() {
    const COUNT: u64 = 8;
    let _watchdog = Watchdog::new("custom_backend: results_in_any_order");
    let ended = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
    let theirs = ended.clone();
    let double = Double::new(move |operation| {
        let position = operation.position().expect("an offset");
        let (order, changed) = &*theirs;
        let mut order = lock(order);
        // The last one first.
        while order.len() as u64 != COUNT - 1 - position {
            order = changed.wait(order).expect("nobody panics");
        }
        order.push(position);
        changed.notify_all();
        deliver(operation)
    });
    let (engine, file) = on(&double, COUNT as usize);
    let reads = (0..COUNT).map(|position| file.read_at(Vec::with_capacity(100 + position as usize), position));
    for (position, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
        let length = back.capacity();
        assert_eq!(n.expect("it is served"), length);
        assert_eq!(back, expected(position as u64, length));
    }
    assert_eq!(*lock(&ended.0), (0..COUNT).rev().collect::<Vec<_>>());
    assert_eq!(engine.stats().served_by(), [("double", COUNT)]);
}

/// Any executor, and memory that nobody has initialised: what comes back is what was filled.
#[test]
fn short_transfers() {
    let _watchdog = Watchdog::new("custom_backend: short_transfers");
    let data = Arc::new(Mutex::new(pattern(10_000, 3)));
    let theirs = data.clone();
    let double = Double::new(move |operation| {
        let mut data = lock(&theirs);
        let at = (operation.position().expect("an offset") as usize).min(data.len());
        match operation.kind() {
            // Seven bytes, across whatever ranges of memory.
            OpKind::Read => {
                let end = (at + 7).min(data.len());
                Ok(operation.room().append(&data[at..end]) as u64)
            }
            _ => {
                let bytes: Vec<u8> = operation.data().iter().flat_map(|part| part.iter().copied()).take(9).collect();
                data[at..at + bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len() as u64)
            }
        }
    });
    let (engine, file) = on(&double, 2);
    let BufResult(n, back) = park_on(file.read_at(Vec::with_capacity(100), 5));
    assert_eq!((n.expect("short"), &back[..]), (7, &lock(&data)[5..12]));
    let BufResult(done, back) = file.read_exact_at(Vec::with_capacity(1000), 100).wait();
    done.expect("the engine goes on");
    assert_eq!(back, lock(&data)[100..1100]);
    let BufResult(done, backs) = file.read_exact_vectored_at([vec![0; 3], vec![0; 10], vec![0; 4]], 200).wait();
    done.expect("the engine goes on");
    assert_eq!(backs.concat(), lock(&data)[200..217]);
    let new = pattern(500, 8);
    file.write_all_vectored_at(new.chunks(11).map(<[u8]>::to_vec).collect::<Vec<_>>(), 3000).wait().0.expect("room");
    assert_eq!(lock(&data)[3000..3500], new);
    assert_eq!(file.write_at(vec![1; 100], 0).wait().0.expect("short"), 9);
    let BufResult(done, _) = file.read_exact_at(vec![0; 100], 9_950).wait();
    assert_eq!(done.expect_err("the file ends").kind(), io::ErrorKind::UnexpectedEof);
    assert!(engine.stats().backends[0].short > 100, "{:#?}", engine.stats().backends[0]);
}

/// The ways to fill the memory of a read, and that of each one the caller gets what was put in.
#[test]
fn every_way_to_fill() {
    let _watchdog = Watchdog::new("custom_backend: every_way_to_fill");
    let double = Double::new(|operation| {
        assert!(operation.data().is_empty());
        let mut room = operation.room();
        assert_eq!((room.filled(), room.left()), (0, 40));
        assert_eq!(room.append(b"hello "), 6);
        assert_eq!(room.fill(b'x', 6), 6);
        // Each step up to the end of one range of memory.
        let mut source = &pattern(100, 5)[..];
        while room.left() > 10 {
            assert!(room.read_from(&mut source)? > 0);
        }
        while room.left() > 2 {
            let spare = room.spare();
            assert!(!spare.is_empty());
            spare[0] = b'z';
            room.advance(1);
        }
        for part in room.filled_mut() {
            part.iter_mut().for_each(|byte| *byte ^= 0x55);
        }
        Ok(operation.room().filled() as u64)
    });
    let (_engine, file) = on(&double, 1);
    let lengths = [4, 6, 8, 12, 1, 1, 8];
    let buffers: Vec<Vec<u8>> = lengths.iter().map(|length| Vec::with_capacity(*length)).collect();
    let BufResult(n, backs) = file.read_vectored_at(buffers, 0).wait();
    assert_eq!(n.expect("it is served"), 38);
    let mut want = b"hello xxxxxx".to_vec();
    want.extend_from_slice(&pattern(100, 5)[..18]);
    want.resize(38, b'z');
    want.iter_mut().for_each(|byte| *byte ^= 0x55);
    assert_eq!(backs.concat(), want);
}

/// All that moves no data gets there, with what belongs to it.
#[test]
fn every_operation() {
    let _watchdog = Watchdog::new("custom_backend: every_operation");
    let double = Double::new(|operation| {
        assert!(matches!(operation.handle(), Handle::Virtual(1)), "{:?}", operation.handle());
        assert_eq!((operation.room().left(), operation.data().len()), (0, 0));
        let (position, length) = (operation.position(), operation.length());
        match operation.kind() {
            OpKind::Len => return Ok(12_345),
            OpKind::SetLen => assert_eq!(position, Some(77)),
            OpKind::Allocate | OpKind::PunchHole => assert_eq!((position, length), (Some(10), 20)),
            OpKind::Advise => assert_eq!((operation.advice(), length), (Some(Advice::WillNeed), 20)),
            OpKind::Metadata => operation.answer_metadata(Metadata::of_length(99)),
            OpKind::SyncAll | OpKind::SyncData | OpKind::SyncRange => {}
            other => return Err(io::Error::other(format!("{other:?}"))),
        }
        Ok(0)
    });
    let (engine, file) = on(&double, 1);
    assert_eq!(file.len().wait().expect("a length"), 12_345);
    file.set_len(77).wait().expect("it says so");
    file.allocate(10, 20).wait().expect("it says so");
    file.punch_hole(10, 20).wait().expect("it says so");
    file.advise(10, 20, Advice::WillNeed).wait().expect("it says so");
    assert_eq!(file.metadata().wait().expect("it says so").len, 99);
    file.sync_all().wait().expect("it says so");
    file.sync_data().wait().expect("it says so");
    file.sync_range(10, 20).wait().expect("it says so");
    assert_eq!((double.count(), engine.stats().served_by()), (9, vec![("double", 9)]));
}

/// What a transfer may ask for beyond its bytes reaches those who say that they honour it, and no others.
#[test]
fn flags() {
    let _watchdog = Watchdog::new("custom_backend: flags");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = seen.clone();
    let execute = move |operation: &mut Operation<'_>| {
        let flags = (operation.durability(), operation.priority(), operation.nowait(), operation.appends());
        lock(&theirs).push(flags);
        Ok(operation.length())
    };
    let mut capabilities = Capabilities::new(8);
    capabilities.serves = Serves::OwnFiles;
    let plain = Double::named("plain", capabilities, |operation| Ok(operation.length()));
    (capabilities.durable, capabilities.priorities) = (true, true);
    (capabilities.nowait, capabilities.appends) = (true, true);
    let able = Double::named("able", capabilities, execute);
    let engine = builder(1).sync_backend(Arc::new(able)).sync_backend(Arc::new(plain)).build().expect("an engine");
    let file = OpenOptions::new().write(true).open(&engine, "able:").expect("always");
    file.write_at(vec![1; 10], 0).dsync().wait().0.expect("it says so");
    file.write_at(vec![1; 10], 0).priority(Priority::Idle).wait().0.expect("it says so");
    file.write_at(vec![1; 10], 0).nowait().wait().0.expect("it says so");
    file.append(vec![1; 10]).wait().0.expect("it says so");
    let later = Durability::Later;
    let want = [
        (Durability::Data, None, false, false),
        (later, Some(Priority::Idle), false, false),
        (later, None, true, false),
        (later, None, false, true),
    ];
    assert_eq!(*lock(&seen), want);
    let file = OpenOptions::new().write(true).open(&engine, "plain:").expect("always");
    assert_eq!(code(file.write_at(vec![1; 10], 0).dsync().wait().0), libc::ENOTSUP);
    assert_eq!(code(file.append(vec![1; 10]).wait().0), libc::ENOTSUP);
}

/// The engine keeps the access mode, the order of what is appended, and which operations there are.
#[test]
fn as_it_was_opened() {
    let _watchdog = Watchdog::new("custom_backend: as_it_was_opened");
    let log = Arc::new(Mutex::new(Vec::new()));
    let theirs = log.clone();
    let mut capabilities = Capabilities::new(64);
    capabilities.serves = Serves::OwnFiles;
    capabilities.operations = OpSet::NONE.with(OpKind::Read).with(OpKind::Write);
    let double = Arc::new(Double::named("double", capabilities, move |operation| {
        if operation.kind() == OpKind::Write {
            lock(&theirs).extend_from_slice(&operation.data()[0]);
        }
        Ok(if operation.kind() == OpKind::Write { operation.length() } else { 0 })
    }));
    let (engine, _file) = on(&double, 8);
    let reader = OpenOptions::new().read(true).open(&engine, "double:").expect("always");
    assert_eq!(code(reader.write_at(vec![1; 10], 0).wait().0), libc::EBADF);
    let writer = OpenOptions::new().write(true).open(&engine, "double:").expect("always");
    assert_eq!(code(writer.read_at(vec![1; 10], 0).wait().0), libc::EBADF);
    assert_eq!(double.count(), 0, "nobody asked the backend");
    assert_eq!(code(writer.len().wait()), libc::ENOTSUP, "it says that it cannot");
    OpenOptions::new().open(&engine, "double:").expect_err("neither for reading nor for writing");
    OpenOptions::new().read(true).truncate(true).open(&engine, "double:").expect_err("nor cut by who only reads");
    let appender = OpenOptions::new().append(true).open(&engine, "double:").expect("always");
    let writes = (0..200_u8).map(|i| appender.write_all_at(vec![i; 3], 0));
    engine.block_on(join(writes)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    assert_eq!(*lock(&log), (0..200).flat_map(|i| [i; 3]).collect::<Vec<_>>());
}

/// More than it says that it can hold waits, and is served all the same; a pool of one, and of several.
#[test]
fn far_above_its_bound() {
    let _watchdog = Watchdog::new("custom_backend: far_above_its_bound");
    for (bound, threads) in [(1, 1), (2, 1), (3, 4), (0, 1)] {
        let mut capabilities = Capabilities::new(bound);
        capabilities.serves = Serves::OwnFiles;
        let inside = Arc::new(Mutex::new((0_usize, 0_usize)));
        let theirs = inside.clone();
        let double = Arc::new(Double::named("double", capabilities, move |operation| {
            {
                let mut inside = lock(&theirs);
                inside.0 += 1;
                inside.1 = inside.0.max(inside.1);
            }
            let result = deliver(operation);
            lock(&theirs).0 -= 1;
            result
        }));
        let (engine, file) = on(&double, threads);
        assert_eq!(engine.backends()[0].capabilities.expect("it started").queue_bound, bound.max(1));
        let reads = (0..300).map(|i| file.read_at(Vec::with_capacity(64), i));
        for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!(n.expect("it is served"), back.capacity());
            assert_eq!(back, expected(i as u64, back.capacity()));
        }
        assert!(lock(&inside).1 <= bound.max(1).min(threads), "{} at once of {bound}, {threads}", lock(&inside).1);
        assert!(engine.stats().backends[0].busy > 0);
    }
}

/// A sync is handed out after the writes before it, though the backend knows of no order.
#[test]
fn syncs_cover_the_writes_before_them() {
    let _watchdog = Watchdog::new("custom_backend: syncs_cover_the_writes_before_them");
    let written = Arc::new(Mutex::new(0_u64));
    let theirs = written.clone();
    let double = Double::new(move |operation| match operation.kind() {
        OpKind::Write => {
            std::thread::yield_now();
            *lock(&theirs) += 1;
            Ok(operation.length())
        }
        _ => {
            assert_eq!(*lock(&theirs) % 32, 0, "a sync among the writes");
            Ok(0)
        }
    });
    let (engine, file) = on(&double, 4);
    for round in 1..=10 {
        let mut batch = engine.batch();
        for i in 0..32 {
            batch.push(file.write_at(vec![1; 8], i * 8), |BufResult(n, _)| n.map(drop));
        }
        batch.push(file.sync_data(), |synced| synced);
        engine.block_on(batch.all()).into_iter().for_each(|result| result.expect("in order"));
        assert_eq!(*lock(&written), round * 32);
    }
}

/// One that serves two engines has threads in each, and files of both.
#[test]
fn on_two_engines() {
    let _watchdog = Watchdog::new("custom_backend: on_two_engines");
    let double = Double::new(deliver);
    let settings = builder(2).sync_backend(double.clone());
    let engines = [settings.clone().build().expect("one"), settings.build().expect("another")];
    let files: Vec<_> = engines.iter().map(open).collect();
    drop(engines);
    let engines = [on(&double, 1), on(&double, 1)];
    for (i, (engine, file)) in engines.iter().enumerate() {
        let BufResult(n, back) = engine.block_on(file.read_at(vec![0; 8], i as u64));
        assert_eq!((n.expect("it is served"), back), (8, expected(i as u64, 8)));
    }
    assert!(files.iter().all(|file| file.read_at(vec![0; 8], 0).wait().0.is_err()), "their engines have ended");
}
