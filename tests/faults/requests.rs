//! Requests that are not taken, or taken and broken.

use std::time::Duration;

use polyaio::{BufResult, IoBuf as _, OpKind, Reason};

use crate::support::{assert_file, first_difference, pattern};
use crate::tools::{
    Answer, Begun, Census, HELD, Held, Respawn, SCRIPTED, Scripted, Watchdog, eventually, join, respawn, transfers,
};
use crate::{BLOCK, Bench, code, prefer};

const POOL: &str = "thread-pool";

/// `io_submit` stops where it likes: what is left is offered again, in order, until all of it was taken.
#[test]
fn accepted_in_part() {
    let _watchdog = Watchdog::new("faults: accepted_in_part");
    const COUNT: usize = 40;
    for accepted in 1..12 {
        // Stops after so many, each time; every request is served on a thread of its own.
        let scripted = Scripted::new(move |number, _| match number % (accepted + 1) {
            rest if rest == accepted => Answer::Leave,
            _ => Answer::Elsewhere,
        });
        let bench = Bench::new(&scripted, COUNT);
        let reads = (0..COUNT).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64));
        for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back, bench.data[i * BLOCK..][..BLOCK]);
        }
        let taken = scripted.log().into_iter().filter(|(_, answer)| *answer == Answer::Elsewhere);
        let mut places: Vec<_> = taken.map(|(seen, _)| seen.position.expect("positioned") as usize / BLOCK).collect();
        if bench.engine.stats().fallback(Reason::QueueFull) == 0 {
            assert!(places.is_sorted(), "{accepted} accepted: not in order: {places:?}");
        }
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len() as u64, bench.served(SCRIPTED), "{accepted} accepted: one was served twice");
        assert_eq!(bench.served(SCRIPTED) + bench.served(POOL), COUNT as u64);
        assert!(bench.engine.stats().backends[0].busy > 0);
    }
}

/// With something in flight, what there is no room for waits; it does not go elsewhere.
#[test]
fn no_room_for_all() {
    let _watchdog = Watchdog::new("faults: no_room_for_all");
    const COUNT: usize = 60;
    let held = Held::new(transfers(7));
    let bench = Bench::on(prefer(held.clone(), HELD), COUNT, false);
    let begin = |i| Begun::new(bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64));
    let mut reads: Vec<_> = (0..COUNT).map(begin).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    assert_eq!(held.held(), 7, "exactly its bound");
    let mut left = COUNT;
    while left > 0 {
        assert!(held.release(), "{left} are left, and it has none of them");
        left -= 1;
        assert_eq!(held.held(), left.min(7), "a place that is free is taken at once");
    }
    for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
        assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
    }
    let places: Vec<_> = held.log().iter().map(|seen| seen.position.expect("positioned") as usize / BLOCK).collect();
    assert!(places.is_sorted() && places.len() == COUNT, "{places:?}");
    assert_eq!((bench.served(HELD), bench.engine.stats().total_fallbacks()), (COUNT as u64, 0));
}

/// With nothing in flight no completion will ever make room: the request goes elsewhere instead of waiting for ever.
#[test]
fn no_room_on_an_idle_queue() {
    let _watchdog = Watchdog::new("faults: no_room_on_an_idle_queue");
    for answer in [Answer::Busy, Answer::Leave] {
        let scripted = Scripted::new(move |_, _| answer);
        let bench = Bench::new(&scripted, 8);
        for i in 0..8 {
            let BufResult(n, back) = bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64).wait();
            assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
        }
        let fresh = pattern(8 * BLOCK, 2);
        let writes = fresh.chunks(BLOCK).enumerate();
        let writes = writes.map(|(i, part)| bench.file.write_all_at(part.to_vec(), (i * BLOCK) as u64));
        bench.engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("room"));
        bench.file.sync_all().wait().expect("on a disk");
        assert_file(&bench.path, &fresh);
        let stats = bench.engine.stats();
        assert_eq!(stats.fallback(Reason::QueueFull), 17, "{answer:?}: {stats:#?}");
        assert_eq!((bench.served(SCRIPTED), bench.served_elsewhere(SCRIPTED)), (0, 17));
    }
}

/// A queue that is full for a while, with and without others in flight: nothing is lost, nothing is done twice.
#[test]
fn now_and_then_no_room() {
    let _watchdog = Watchdog::new("faults: now_and_then_no_room");
    let scripted = Scripted::new(|number, _| match number % 5 {
        0 | 3 => Answer::Busy,
        1 => Answer::Elsewhere,
        _ => Answer::Serve,
    });
    let bench = Bench::new(&scripted, 64);
    for round in 0..20 {
        let fresh = pattern(64 * BLOCK, round);
        let writes = fresh.chunks(BLOCK).enumerate();
        let writes = writes.map(|(i, part)| bench.file.write_all_at(part.to_vec(), (i * BLOCK) as u64));
        bench.engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("room"));
        assert_file(&bench.path, &fresh);
    }
    assert_eq!(bench.served(SCRIPTED) + bench.served(POOL), 20 * 64);
}

/// What is transferred ends within a buffer, at its end, or in the next one: the rest goes on from there.
#[test]
fn short_transfers_go_on_within_a_buffer() {
    let _watchdog = Watchdog::new("faults: short_transfers_go_on_within_a_buffer");
    let lengths = [100, 1, 0, 4096, 30, 30, 30, 1000, 5, 2000, 900];
    for most in [7, 30, 100, 101, 4096] {
        let scripted = Scripted::new(move |_, _| Answer::Short(most));
        let bench = Bench::new(&scripted, 8);
        let into: Vec<_> = lengths.iter().map(|len| vec![0xEE; *len]).collect();
        let BufResult(done, back) = bench.file.read_exact_vectored_at(into, 1000).wait();
        done.expect("it is that long");
        assert!(back.iter().map(Vec::len).eq(lengths), "each is as long as it was");
        let total: usize = lengths.iter().sum();
        assert_eq!(first_difference(&back.concat(), &bench.data[1000..1000 + total]), None, "{most} bytes at a time");
        let fresh = pattern(total, 2);
        let mut rest = &fresh[..];
        let pieces = lengths.map(|len| rest.split_off(..len).expect("that long").to_vec());
        bench.file.write_all_vectored_at(pieces, 500).wait().0.expect("room");
        assert_eq!(first_difference(&std::fs::read(&bench.path).expect("there")[500..500 + total], &fresh), None);
        let steps = scripted.log();
        assert!(steps.iter().any(|(seen, _)| seen.segments > 1) && steps.iter().all(|(seen, _)| seen.length > 0));
        // Others are short, and say so.
        let BufResult(n, _) = bench.file.read_vectored_at([vec![0; 2000], vec![0; 2000]], 0).wait();
        assert_eq!(n.expect("readable") as u64, most.min(4000));
    }
}

/// A backend that takes one range at a time is given one after the other, until one is transferred in part.
#[test]
fn one_range_at_a_time() {
    let _watchdog = Watchdog::new("faults: one_range_at_a_time");
    let mut capabilities = transfers(16);
    capabilities.vectored = false;
    let scripted = Scripted::with(capabilities, |_, _| Answer::Elsewhere);
    let bench = Bench::new(&scripted, 4);
    let BufResult(n, back) = bench.file.read_vectored_at([vec![0; 10], vec![0; 0], vec![0; 20], vec![0; 7]], 5).wait();
    assert_eq!((n.expect("readable"), &back.concat()[..]), (37, &bench.data[5..42]));
    let log = scripted.log().into_iter().map(|(seen, _)| (seen.segments, seen.position, seen.length));
    assert_eq!(log.collect::<Vec<_>>(), [(1, Some(5), 10), (1, Some(15), 20), (1, Some(35), 7)]);
    let end = bench.data.len() as u64 - 15;
    let BufResult(n, _) = bench.file.read_vectored_at([vec![0; 10], vec![0; 10], vec![0; 10]], end).wait();
    assert_eq!((n.expect("readable"), scripted.log().len()), (15, 5), "not asked for what is behind the end");
    assert_eq!((bench.served(SCRIPTED), bench.engine.stats().total_fallbacks()), (2, 0));
}

/// Looping operations are finished, whatever is transferred at a time. What arrived beyond the count does not count: the
/// rest of each read's memory is zeroed.
#[test]
fn short_transfers_are_finished() {
    let _watchdog = Watchdog::new("faults: short_transfers_are_finished");
    for most in [1, 7, 4095, 4096, 10_000] {
        let scripted = Scripted::new(move |_, _| Answer::Short(most));
        let bench = Bench::new(&scripted, 8);
        let len = if most == 1 { 500 } else { 8 * BLOCK };
        let BufResult(done, back) = bench.file.read_exact_at(vec![0xEE; len], 0).wait();
        done.expect("it is that long");
        assert_eq!(first_difference(&back, &bench.data[..len]), None, "{most} bytes at a time");
        let fresh = pattern(len, 2);
        let BufResult(done, _) = bench.file.write_all_at(fresh.clone(), 0).wait();
        done.expect("room");
        assert_eq!(first_difference(&std::fs::read(&bench.path).expect("there")[..len], &fresh), None);
        let steps = scripted.log().len();
        assert_eq!(steps, 2 * len.div_ceil(most as usize), "each step asks for the rest");
        // Others are short, and say so.
        let BufResult(n, _) = bench.file.read_at(vec![0; 4 * BLOCK], 0).wait();
        assert_eq!(n.expect("readable"), (4 * BLOCK).min(most as usize));
        // In the middle of the file, and past its end.
        let at = bench.data.len() - 100;
        let BufResult(done, back) = bench.file.read_exact_at(vec![0; 200], at as u64).wait();
        assert_eq!(done.expect_err("it ends before").kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(back[..100], std::fs::read(&bench.path).expect("there")[at..]);
    }
}

/// The same in the middle of a buffer, on a file opened for appending and at the position.
#[test]
fn short_transfers_in_order() {
    let _watchdog = Watchdog::new("faults: short_transfers_in_order");
    let scripted = Scripted::new(|_, _| Answer::Short(1000));
    let bench = Bench::new(&scripted, 0);
    let file = polyaio::OpenOptions::new().append(true).open(&bench.engine, &bench.path).expect("it is there");
    let pieces: Vec<_> = (0..20).map(|i| pattern(3333, i)).collect();
    let writes = pieces.iter().map(|piece| file.write_all_at(piece.clone().slice(1..), 0));
    bench.engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("room"));
    let want: Vec<u8> = pieces.iter().flat_map(|piece| &piece[1..]).copied().collect();
    assert_file(&bench.path, &want);
    let reads = bench.engine.block_on(join((0..20).map(|_| bench.file.read_exact(vec![0; 3332]))));
    let back: Vec<u8> =
        reads.into_iter().flat_map(|BufResult(done, piece)| done.map(|()| piece).expect("there")).collect();
    assert_eq!(first_difference(&back, &want), None);
}

/// A count larger than the request would make uninitialised memory readable.
#[test]
fn too_many_bytes_are_an_error() {
    let _watchdog = Watchdog::new("faults: too_many_bytes_are_an_error");
    for answer in [Answer::Boast(1), Answer::Boast(u64::MAX - 100_000), Answer::Lie] {
        let scripted = Scripted::new(move |number, _| if number % 2 == 0 { answer } else { Answer::Serve });
        let bench = Bench::new(&scripted, 4);
        let BufResult(n, back) = bench.file.read_at(Vec::with_capacity(100), 0).wait();
        assert_eq!((code(n), back.len()), (libc::EIO, 0), "{answer:?}");
        assert_eq!(bench.file.read_at(Vec::with_capacity(100), 0).wait().0.expect("an honest answer"), 100);
        assert_eq!(code(bench.file.write_all_at(vec![1; 100], 0).wait().0), libc::EIO);
        bench.file.sync_all().wait().expect("on a disk");
        let stats = bench.engine.stats();
        assert_eq!((stats.anomalies.implausible, stats.total_fallbacks()), (2, 0), "{stats:#?}");
        assert_eq!(stats.backends[0].errors, 2);
    }
}

#[test]
fn completed_by_anybody_at_any_time() {
    let _watchdog = Watchdog::new("faults: completed_by_anybody_at_any_time");
    let scripted = Scripted::new(|number, _| if number % 3 == 0 { Answer::Serve } else { Answer::Elsewhere });
    let bench = Bench::new(&scripted, 64);
    for round in 0..20 {
        let reads = join((0..64).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64)));
        let results = if round % 2 == 0 { bench.engine.block_on(reads) } else { crate::tools::park_on(reads) };
        for (i, BufResult(n, back)) in results.into_iter().enumerate() {
            assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
        }
    }
    assert_eq!((bench.served(SCRIPTED), bench.engine.stats().total_fallbacks()), (20 * 64, 0));
}

/// A request that was not started may be dropped: it is cancelled, and the buffer comes back.
#[test]
fn dropped_by_the_backend() {
    let _watchdog = Watchdog::new("faults: dropped_by_the_backend");
    let census = Census::default();
    let scripted = Scripted::new(|number, _| if number % 2 == 0 { Answer::Drop } else { Answer::Serve });
    let bench = Bench::new(&scripted, 8);
    for _ in 0..4 {
        let BufResult(n, back) = bench.file.read_at(census.buffer(BLOCK, 5), 0).wait();
        assert_eq!(code(n), libc::ECANCELED);
        assert!(back.as_slice().iter().all(|byte| *byte == 5));
        assert_eq!(bench.file.read_at(census.buffer(BLOCK, 0), 0).wait().0.expect("readable"), BLOCK);
    }
    assert_eq!((census.made(), census.live()), (8, 0));
    assert_eq!(bench.engine.stats().total_fallbacks(), 0, "the backend's wish is not somebody else's work");
}

/// Dropping a request whose memory was given out ends the process: nothing else would be sound.
#[test]
fn dropped_after_the_start() {
    let _watchdog = Watchdog::new("faults: dropped_after_the_start");
    if let Respawn::Parent(child) = respawn("requests::dropped_after_the_start") {
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{child}");
        assert!(child.stderr.contains("dropped RequestId(") && child.stderr.contains("Aborting"), "{child}");
        return;
    }
    // An abort that is meant leaves no core file.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads the structure during the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let bench = Bench::new(&Scripted::new(|_, _| Answer::StartAndDrop), 1);
    let result = bench.file.read_at(vec![0; BLOCK], 0).wait();
    unreachable!("memory was handed out twice: {result:?}");
}

/// A panic inside of `submit`: the request in hand is cancelled, the others go elsewhere, the submitter is well.
#[test]
fn a_backend_that_panics() {
    let _watchdog = Watchdog::new("faults: a_backend_that_panics");
    let census = Census::default();
    let scripted = Scripted::new(|number, _| if number == 3 { Answer::Panic } else { Answer::Serve });
    let bench = Bench::new(&scripted, 16);
    let reads = (0..16).map(|i| bench.file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
    for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
        if i == 3 {
            assert_eq!(code(n), libc::ECANCELED);
        } else {
            assert_eq!((n.expect("readable"), back.as_slice()), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
        }
    }
    assert_eq!((bench.served_elsewhere(SCRIPTED), census.live()), (12, 0), "what was left in the batch");
    assert_eq!(bench.file.read_at(vec![0; BLOCK], 0).wait().0.expect("the engine is none the worse"), BLOCK);
}

/// The engine's end waits for what a backend holds, also where nobody waits for the result.
#[test]
fn the_engine_ends_while_a_backend_holds_requests() {
    let _watchdog = Watchdog::new("faults: the_engine_ends_while_a_backend_holds_requests");
    let census = Census::default();
    let held = Held::new(transfers(100));
    let bench = Bench::on(prefer(held.clone(), HELD), 8, false);
    let begin = |i| Begun::new(bench.file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
    let mut reads: Vec<_> = (0..8).map(begin).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    assert_eq!(held.held(), 8);
    // Half of them are abandoned: their buffers stay with the backend.
    reads.truncate(4);
    assert_eq!(census.live(), 8);
    let Bench { engine, file, data, .. } = bench;
    let dropping = std::thread::spawn(move || drop(engine));
    std::thread::sleep(Duration::from_millis(30));
    assert!(!dropping.is_finished(), "requests are in flight");
    while held.release_last() {}
    dropping.join().expect("no panic");
    for (i, BufResult(n, back)) in crate::tools::park_on(join(reads)).into_iter().enumerate() {
        assert_eq!((n.expect("readable"), back.as_slice()), (BLOCK, &data[i * BLOCK..][..BLOCK]));
    }
    drop(file);
    eventually("all buffers are freed", || census.live() == 0);
}

/// What a backend is offered: the operation as it was asked for, in one piece.
#[test]
fn what_a_backend_sees() {
    let _watchdog = Watchdog::new("faults: what_a_backend_sees");
    let scripted = Scripted::new(|_, _| Answer::Serve);
    let bench = Bench::new(&scripted, 4);
    bench.file.read_at(vec![0; 100], 50).wait().0.expect("readable");
    bench.file.write_at(vec![0; 10], 7).wait().0.expect("room");
    bench.file.sync_data().wait().expect("on a disk");
    bench.file.read(vec![0; 3]).wait().0.expect("readable");
    // Not offered: its capabilities do not have these.
    bench.file.len().wait().expect("a file has a length");
    bench.file.set_len(BLOCK as u64).wait().expect("shorter");
    bench.file.read_at(Vec::new(), 0).wait().0.expect("nothing");
    let seen: Vec<_> =
        scripted.log().iter().map(|(seen, _)| (seen.kind, seen.position, seen.length, seen.nowait)).collect();
    let want = [
        (OpKind::Read, Some(50), 100, false),
        (OpKind::Write, Some(7), 10, false),
        (OpKind::SyncData, None, 0, false),
        (OpKind::Read, None, 3, false),
    ];
    assert_eq!(seen, want);
    assert_eq!((bench.served(SCRIPTED), bench.served(POOL)), (4, 2));
}
