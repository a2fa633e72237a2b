//! Pipes, sockets, terminals and the like: who has nothing to say is waited for, by nobody's thread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use polyaio::{BufResult, Engine, File, OpenOptions};

use crate::bed::{BLOCK, Bed, What, assert_healthy, buffer, code};
use crate::support::{self, first_difference, pattern, require};
use crate::tools::{Respawn, join, one_of_many, own_threads, park_on, poll_once, respawn, spawn_park};

fn adopt(engine: &Engine, fd: impl Into<OwnedFd>) -> File {
    engine.adopt(fd.into()).expect("any open descriptor")
}

/// A pipe whose reading end is the engine's.
fn pipe_in(engine: &Engine) -> (File, std::io::PipeWriter) {
    let (reader, writer) = support::pipe();
    (adopt(engine, reader), writer)
}

pub(crate) fn an_empty_pipe_is_waited_for(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = pipe_in(&engine);
    let mut read = reader.read(vec![0; 100]);
    let before = Instant::now();
    assert!(poll_once(&mut read).is_pending());
    assert!(poll_once(&mut read).is_pending());
    assert!(before.elapsed() < Duration::from_secs(5), "the submitter was blocked");
    let write = move || {
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"hello").expect("somebody reads");
        writer
    };
    let writing = std::thread::spawn(write);
    let BufResult(n, back) = read.wait();
    assert_eq!((n.expect("readable"), &back[..5]), (5, &b"hello"[..]));
    let writing = std::thread::spawn({
        let mut writer = writing.join().expect("no panic");
        move || {
            std::thread::sleep(Duration::from_millis(20));
            writer.write_all(b"again").expect("somebody reads");
        }
    });
    let BufResult(n, back) = park_on(reader.read(Vec::with_capacity(3)));
    assert_eq!((n.expect("readable"), &back[..]), (3, &b"aga"[..]));
    writing.join().expect("no panic");
    let BufResult(n, back) = reader.read_at(vec![0; 9], 0).wait();
    assert_eq!((n.expect("an offset of 0 is none"), &back[..2]), (2, &b"in"[..]));
    bed.assert_served(&engine, &[(What::Stream, 3)]);
}

pub(crate) fn the_end_of_a_pipe(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = pipe_in(&engine);
    writer.write_all(b"last words").expect("room");
    drop(writer);
    let BufResult(done, back) = reader.read_exact(vec![0; 20]).wait();
    assert_eq!(done.expect_err("it ends before").kind(), ErrorKind::UnexpectedEof);
    assert_eq!(&back[..10], b"last words", "what was there is in the buffer");
    for _ in 0..3 {
        assert_eq!(reader.read(vec![0; 10]).wait().0.expect("the end is no error"), 0);
    }
    // The end comes to who waits, too.
    let (reader, writer) = pipe_in(&engine);
    let reading = spawn_park(reader.read(vec![0; 10]));
    std::thread::sleep(Duration::from_millis(20));
    drop(writer);
    assert_eq!(reading.join().expect("no panic").0.expect("the end is no error"), 0);
}

pub(crate) fn nobody_reads_any_more(bed: &Bed) {
    let engine = bed.engine();
    let (reader, writer) = support::pipe();
    let writer = adopt(&engine, writer);
    // Into a full pipe, so that it waits when the reader goes.
    let writing = spawn_park(writer.write_all(vec![1; 1 << 20]));
    std::thread::sleep(Duration::from_millis(20));
    drop(reader);
    assert_eq!(code(writing.join().expect("no panic").0), libc::EPIPE);
    assert_eq!(code(writer.write(vec![1]).wait().0), libc::EPIPE);
    let (peer, socket) = support::socket_pair();
    let socket = adopt(&engine, socket);
    drop(peer);
    assert_eq!(code(socket.write(vec![1]).wait().0), libc::EPIPE);
    assert_eq!(socket.read(vec![1]).wait().0.expect("the end is no error"), 0);
}

pub(crate) fn offsets_of_streams(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = pipe_in(&engine);
    writer.write_all(b"x").expect("room");
    assert_eq!(code(reader.read_at(vec![0; 4], 1).wait().0), libc::ESPIPE);
    assert_eq!(reader.read_at(vec![0; 4], 0).wait().0.expect("readable"), 1, "nothing was taken");
    let writer = adopt(&engine, writer);
    assert_eq!(code(writer.write_at(vec![0; 4], 4096).wait().0), libc::ESPIPE);
    assert_eq!(writer.write_at(vec![0; 4], 0).wait().0.expect("room"), 4);
    assert!(reader.is_stream() && writer.is_stream());
    bed.assert_served(&engine, &[(What::Stream, 2)]);
}

pub(crate) fn reads_complete_in_order(bed: &Bed) {
    const COUNT: usize = 500;
    let engine = bed.engine();
    let (reader, mut writer) = pipe_in(&engine);
    let data = pattern(COUNT * 16, 1);
    let sent = data.clone();
    let writing = std::thread::spawn(move || {
        for (i, piece) in sent.chunks(40).enumerate() {
            writer.write_all(piece).expect("somebody reads");
            if i % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let reads = engine.block_on(join((0..COUNT).map(|_| reader.read_exact(vec![0; 16]))));
    let mut back = Vec::new();
    for BufResult(done, piece) in reads {
        done.expect("it is that long");
        back.extend(piece);
    }
    assert_eq!(first_difference(&back, &data), None, "each read got the piece of its place in the queue");
    writing.join().expect("no panic");
    bed.assert_served(&engine, &[(What::Stream, engine.stats().streams.requests)]);
}

/// A looping write keeps the head of its queue until it is finished: nobody's comes in between.
pub(crate) fn writes_of_many_tasks_stay_whole(bed: &Bed) {
    const LEN: usize = 100_000;
    let engine = bed.engine();
    let (mut reader, writer) = support::pipe();
    let writer = adopt(&engine, writer);
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).expect("readable");
        all
    });
    let tasks: Vec<_> = (0..8).map(|i| spawn_park(writer.write_all(vec![i as u8; LEN]))).collect();
    tasks.into_iter().for_each(|task| task.join().expect("no panic").0.expect("somebody reads"));
    drop(writer);
    let all = reading.join().expect("no panic");
    assert_eq!(all.len(), 8 * LEN);
    let mut seen: Vec<u8> = all.chunks(LEN).map(|piece| piece[0]).collect();
    assert!(all.chunks(LEN).all(|piece| piece.iter().all(|byte| *byte == piece[0])), "pieces are mixed");
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
}

pub(crate) fn more_than_a_pipe_holds(bed: &Bed) {
    let engine = bed.engine();
    let (reader, writer) = support::pipe();
    let (reader, writer) = (adopt(&engine, reader), adopt(&engine, writer));
    let data = pattern(3 << 20, 2);
    let writing = writer.write_all(data.clone());
    // Both ends on one thread: neither may block the other.
    let reading = async {
        let mut all = Vec::new();
        while all.len() < data.len() {
            let BufResult(n, piece) = reader.read(vec![0; 50_000]).await;
            all.extend_from_slice(&piece[..n.expect("readable")]);
        }
        all
    };
    let writing = async {
        writing.await.0.expect("somebody reads");
        Vec::new()
    };
    let both: [std::pin::Pin<Box<dyn Future<Output = Vec<u8>>>>; 2] = [Box::pin(reading), Box::pin(writing)];
    let all = engine.block_on(join(both)).swap_remove(0);
    assert_eq!(first_difference(&all, &data), None);
    assert_healthy(&engine.stats());
}

pub(crate) fn fifos(bed: &Bed) {
    let engine = bed.engine();
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let mut writer = support::open_fifo_writer(&path);
    let reader = OpenOptions::new().read(true).open(&engine, &path).expect("it has a writer");
    let mut read = reader.read(vec![0; 10]);
    assert!(poll_once(&mut read).is_pending());
    let writing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"first").expect("room");
        writer
    });
    let BufResult(n, back) = read.wait();
    assert_eq!((n.expect("readable"), &back[..5]), (5, &b"first"[..]));
    let mut writer = writing.join().expect("no panic");
    writer.write_all(b"second").expect("room");
    let BufResult(done, back) = reader.read_exact(vec![0; 6]).wait();
    done.expect("it is there");
    assert_eq!(&back[..], b"second");
    drop(writer);
    assert_eq!(reader.read(vec![0; 6]).wait().0.expect("the end is no error"), 0);
    bed.assert_served(&engine, &[(What::Tty, 3)]);
    // Writing: more than it holds, while nobody reads yet.
    let mut other_end = support::open_fifo_writer(&path);
    let writer = OpenOptions::new().write(true).open(&engine, &path).expect("it has a reader");
    let data = pattern(200_000, 3);
    let writing = spawn_park(writer.write_all(data.clone()));
    let mut back = vec![0; data.len()];
    other_end.read_exact(&mut back).expect("readable");
    writing.join().expect("no panic").0.expect("somebody reads");
    assert_eq!(first_difference(&back, &data), None);
}

pub(crate) fn terminals(bed: &Bed) {
    let mut pty = require!(support::pty());
    let engine = bed.engine();
    let terminal = adopt(&engine, pty.slave);
    let mut read = terminal.read(vec![0; 100]);
    assert!(poll_once(&mut read).is_pending());
    pty.master.write_all(b"typed").expect("room");
    let BufResult(n, back) = read.wait();
    assert_eq!((n.expect("readable"), &back[..5]), (5, &b"typed"[..]));
    terminal.write_all("shown").wait().0.expect("room");
    let mut shown = [0; 5];
    pty.master.read_exact(&mut shown).expect("readable");
    assert_eq!(&shown, b"shown");
    bed.assert_served(&engine, &[(What::Tty, 2)]);
}

pub(crate) fn sockets_both_ways(bed: &Bed) {
    const LEN: usize = 1 << 20;
    let engine = bed.engine();
    let (ours, mut theirs) = support::socket_pair();
    let ours = adopt(&engine, ours);
    let echo = std::thread::spawn(move || {
        let mut data = vec![0; LEN];
        theirs.read_exact(&mut data).expect("readable");
        theirs.write_all(&data).expect("room");
    });
    // The read waits while the write of the same descriptor goes on.
    let data = pattern(LEN, 4);
    let reading = spawn_park(ours.read_exact(vec![0; LEN]));
    park_on(ours.write_all(data.clone())).0.expect("somebody reads");
    let BufResult(done, back) = reading.join().expect("no panic");
    done.expect("all of it comes back");
    assert_eq!(first_difference(&back, &data), None);
    echo.join().expect("no panic");
    // Datagrams keep their bounds.
    let (left, right) = std::os::unix::net::UnixDatagram::pair().expect("a socket pair");
    let right = adopt(&engine, right);
    left.send(b"one").and_then(|_| left.send(b"three")).expect("room");
    for size in [3, 5] {
        assert_eq!(right.read(vec![0; 100]).wait().0.expect("readable"), size);
    }
}

pub(crate) fn events_and_timers(bed: &Bed) {
    let engine = bed.engine();
    // SAFETY: the descriptor is new and nobody else's; -1 would fail the assertion in `from_raw_fd`.
    let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    let signal = event.try_clone().expect("a duplicate");
    let event = adopt(&engine, event);
    let mut read = event.read(vec![0; 8]);
    assert!(poll_once(&mut read).is_pending());
    std::fs::File::from(signal).write_all(&5_u64.to_ne_bytes()).expect("room");
    let BufResult(n, back) = read.wait();
    assert_eq!((n.expect("readable"), &back[..]), (8, &5_u64.to_ne_bytes()[..]));
    assert_eq!(event.write(7_u64.to_ne_bytes().to_vec()).wait().0.expect("room"), 8);
    assert_eq!(event.read(vec![0; 8]).wait().1, 7_u64.to_ne_bytes());
    assert_eq!(code(event.read(vec![0; 7]).wait().0), libc::EINVAL, "eventfd(2): a buffer of less than 8 bytes");
    // SAFETY: as above.
    let timer = unsafe { OwnedFd::from_raw_fd(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)) };
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_sec: 0, tv_nsec: 30_000_000 } };
    // SAFETY: `spec` is read during the call.
    let set = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let begin = Instant::now();
    let BufResult(n, back) = adopt(&engine, timer).read(vec![0; 8]).wait();
    assert_eq!((n.expect("readable"), &back[..]), (8, &1_u64.to_ne_bytes()[..]));
    assert!(begin.elapsed() > Duration::from_millis(5), "it was waited for");
}

pub(crate) fn devices_that_are_always_ready(bed: &Bed) {
    let engine = bed.engine();
    let open = |path| OpenOptions::new().read(true).write(true).open(&engine, path).expect("every system has it");
    let (zero, null) = (open("/dev/zero"), open("/dev/null"));
    let BufResult(done, back) = zero.read_exact(vec![1; 100_000]).wait();
    done.expect("it never ends");
    assert!(back.iter().all(|byte| *byte == 0));
    assert_eq!(zero.read_at(vec![1; 10], 0).wait().0.expect("readable"), 10);
    assert_eq!(null.read(vec![1; 10]).wait().0.expect("the end is no error"), 0);
    null.write_all(vec![1; 100_000]).wait().0.expect("room");
    null.write_all_at(vec![1; 10], 0).wait().0.expect("room");
}

pub(crate) fn a_dropped_read_takes_nothing(bed: &Bed) {
    let engine = bed.engine();
    let (reader, mut writer) = pipe_in(&engine);
    for round in 0..20 {
        let mut dropped: Vec<_> = (0..10).map(|_| reader.read(vec![0; 2])).collect();
        dropped.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
        if round % 2 == 0 {
            // Ready, and the engine may have seen it: but nobody has polled since.
            writer.write_all(b"data").expect("room");
            std::thread::sleep(Duration::from_millis(1));
            drop(dropped);
        } else {
            drop(dropped);
            writer.write_all(b"data").expect("room");
        }
        let BufResult(n, back) = reader.read(vec![0; 100]).wait();
        assert_eq!((n.expect("readable"), &back[..4]), (4, &b"data"[..]));
    }
    // The head of the queue goes: the next one's turn comes, and its waker is called.
    let mut first = reader.read(vec![0; 2]);
    assert!(poll_once(&mut first).is_pending());
    let second = spawn_park(reader.read(vec![0; 2]));
    std::thread::sleep(Duration::from_millis(20));
    drop(first);
    writer.write_all(b"ab").expect("room");
    assert_eq!(second.join().expect("no panic").1, b"ab");
}

pub(crate) fn idle_pipes_leave_the_disk_alone(bed: &Bed) {
    const IDLE: usize = 200;
    let engine = bed.builder().threads(2).build().expect("an engine");
    let pipes: Vec<_> = (0..IDLE).map(|_| pipe_in(&engine)).collect();
    let mut reads: Vec<_> = pipes.iter().map(|(reader, _)| reader.read(vec![0; 10])).collect();
    reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
    for medium in bed.media() {
        let data = pattern(64 * BLOCK, 5);
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        let disk = (0..200).map(|i| file.read_at(buffer(BLOCK), (i % 64 * BLOCK) as u64));
        for (i, BufResult(n, back)) in engine.block_on(join(disk)).into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back[..], data[i % 64 * BLOCK..][..BLOCK]);
        }
        file.sync_all().wait().expect("on a disk");
    }
    // They are all still there, and each gets its own.
    let mut writers: Vec<_> = pipes.into_iter().map(|(_, writer)| writer).collect();
    for (i, writer) in writers.iter_mut().enumerate().rev() {
        writer.write_all(&(i as u32).to_ne_bytes()).expect("room");
    }
    for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
        assert_eq!((n.expect("readable"), &back[..4]), (4, &(i as u32).to_ne_bytes()[..]));
    }
    assert_healthy(&engine.stats());
}

/// In a process of its own: threads and descriptors are counted per process.
pub(crate) fn a_thousand_idle_pipes_cost_the_disk_nothing(bed: &Bed) {
    const IDLE: usize = 1000;
    const ROUNDS: usize = 5;
    const THREADS: usize = 8;
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    require!(descriptors(2 * IDLE as u64 + 100));
    let engine = bed.builder().threads(THREADS).build().expect("an engine");
    let Some(medium) = bed.media().last() else { unreachable!("buffered is always there") };
    let data = pattern(64 * BLOCK, 6);
    let file = bed.file(&engine, medium, "file", &data);
    let pipes: Vec<_> = (0..IDLE).map(|_| pipe_in(&engine)).collect();
    let mut rounds = 0;
    let mut round = || {
        rounds += 1;
        let begin = Instant::now();
        let reads = (0..500).map(|i| file.read_at(buffer(BLOCK), (i % 64 * BLOCK) as u64));
        for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back[..], data[i % 64 * BLOCK..][..BLOCK]);
        }
        begin.elapsed()
    };
    // Somebody has to wait for streams all the while: that costs a thread, however many there are.
    let (idle, _writer) = pipe_in(&engine);
    let mut one = idle.read(vec![0; 10]);
    assert!(poll_once(&mut one).is_pending());
    round();
    one_of_many("as quick with a thousand idle reads", || {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            without.push(round());
            let mut reads: Vec<_> = pipes.iter().map(|(reader, _)| reader.read(vec![0; 10])).collect();
            reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
            with.push(round());
        }
        // The disk's, and one that waits for all the pipes.
        assert!(own_threads().len() <= THREADS + 1 + bed.reapers(), "{:?}", own_threads());
        without.sort_unstable();
        with.sort_unstable();
        let (without, with) = (without[ROUNDS / 2], with[ROUNDS / 2]);
        if with < without * 2 { Ok(()) } else { Err(format!("{with:?} with them, {without:?} without")) }
    });
    bed.assert_served(&engine, &[(medium.read(), 500 * rounds)]);
}

/// Lets this process have so many descriptors.
fn descriptors(wanted: u64) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is written through the pointer, and read from it, during the calls.
    let set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_cur.max(wanted.min(limit.rlim_max));
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    if set == 0 && limit.rlim_cur >= wanted {
        Ok(())
    } else {
        Err(format!("RLIMIT_NOFILE allows {} descriptors of {wanted}", limit.rlim_max))
    }
}

/// Nothing of the engine's lies in wait for the data any more: who reads next, by whatever means, gets it.
pub(crate) fn a_dropped_wait_is_really_over(bed: &Bed) {
    let engine = bed.engine();
    let fifo = support::fifo(bed.scratch.dir(), "fifo");
    let fifo_writer = support::open_fifo_writer(&fifo);
    let (pipe, pipe_writer) = support::pipe();
    let (socket, peer) = support::socket_pair();
    let mut table: Vec<(OwnedFd, std::fs::File)> = vec![
        (support::fifo_reader(&fifo).into(), fifo_writer),
        (pipe.into(), OwnedFd::from(pipe_writer).into()),
        (socket.into(), OwnedFd::from(peer).into()),
    ];
    match support::pty() {
        Ok(pty) => table.push((pty.slave, pty.master)),
        Err(why) => support::report_skip(bed.name, &why),
    }
    for (fd, mut other_end) in table {
        let mut plain = std::fs::File::from(fd.try_clone().expect("a duplicate"));
        let file = adopt(&engine, fd);
        for _ in 0..10 {
            // On an executor of its own, so that the engine's thread waits for readiness.
            let mut reads: Vec<_> = (0..3).map(|_| file.read(vec![0; 100])).collect();
            reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
            std::thread::sleep(Duration::from_millis(1));
            drop(reads);
            let reading = std::thread::spawn(move || {
                let mut back = [0; 4];
                plain.read_exact(&mut back).expect("readable");
                assert_eq!(&back, b"data");
                plain
            });
            other_end.write_all(b"data").expect("room");
            plain = reading.join().expect("no panic");
        }
    }
    bed.assert_served(&engine, &[]);
}

/// The caller's choice of `O_NONBLOCK` is left alone, and changes nothing in what operations mean.
pub(crate) fn descriptors_that_do_not_block(bed: &Bed) {
    let engine = bed.engine();
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let mut writer = support::open_fifo_writer(&path);
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&engine, &path).expect("a FIFO");
    let mut read = reader.read(vec![0; 10]);
    assert!(poll_once(&mut read).is_pending(), "not EAGAIN");
    writer.write_all(b"data").expect("room");
    assert_eq!(read.wait().0.expect("readable"), 4);
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_GETFL) };
    assert_ne!(flags & libc::O_NONBLOCK, 0);
    let (blocking, _writer) = pipe_in(&engine);
    assert!(poll_once(&mut blocking.read(vec![0; 10])).is_pending());
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(blocking.as_raw_fd(), libc::F_GETFL) };
    assert_eq!(flags & libc::O_NONBLOCK, 0, "it is shared with other processes");
}
