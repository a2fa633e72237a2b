//! Streams that know no non-blocking transfer (FIFOs, terminals): workers transfer there, in memory of the stream's own.
//! Whoever goes away meanwhile takes nothing along.

use std::fs::File as StdFile;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use polyaio::backend::CancelOutcome;
use polyaio::{BufResult, Engine, Error, File, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, What, assert_healthy, buffer, code};
use crate::support::{self, Pty, first_difference, pattern, require};
use crate::tools::{HELD, Held, Respawn, eventually, join, own_threads, poll_once, respawn, spawn_park, transfers};

const WORKERS: &str = "stream-workers";

/// Nothing here waits for so long, unless it waits for a worker that is stuck: the terminal lets go after 25.5 s.
const PROMPT: Duration = Duration::from_secs(22);

/// A FIFO whose reading end is the engine's.
fn fifo_in(bed: &Bed, engine: &Engine) -> (File, StdFile) {
    idle_fifo(bed, engine, 0)
}

/// A FIFO whose writing end is the engine's.
fn fifo_out(bed: &Bed, engine: &Engine) -> (File, StdFile) {
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let reader = support::fifo_reader(&path);
    (OpenOptions::new().write(true).open(engine, &path).expect("it has a reader"), reader)
}

fn idle_fifo(bed: &Bed, engine: &Engine, number: usize) -> (File, StdFile) {
    let path = support::fifo(bed.scratch.dir(), &format!("fifo-{number}"));
    let writer = support::open_fifo_writer(&path);
    (OpenOptions::new().read(true).open(engine, &path).expect("it has a writer"), writer)
}

/// The terminal as the engine's, and its other end.
fn adopt(engine: &Engine, pty: Pty) -> (File, StdFile) {
    (engine.adopt(pty.slave).expect("a terminal"), pty.master)
}

/// An engine whose steps begin and end when the test says so.
fn held_engine(bed: &Bed) -> (Engine, std::sync::Arc<Held>) {
    let held = Held::new(transfers(100));
    (bed.builder_with(HELD).backend(held.clone()).build().expect("an engine"), held)
}

/// A read of the terminal that keeps a worker: there is one byte, and it waits for two.
fn stuck_read(engine: &Engine) -> Result<(File, StdFile), String> {
    let pty = support::pty()?;
    pty.reads_wait_for(2);
    let (terminal, mut master) = adopt(engine, pty);
    master.write_all(b"1").expect("room");
    Ok((terminal, master))
}

/// Waits until a worker is inside `read(2)` of this descriptor.
fn wait_for_worker(fd: i32) {
    let call = format!("{} {fd:#x} ", libc::SYS_read);
    eventually("a worker reads it", || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
        let mut calls = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("syscall")).ok());
        calls.any(|doing| doing.starts_with(&call))
    });
}

fn prompt<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let value = f();
    assert!(begin.elapsed() < PROMPT, "{what} took {:?}", begin.elapsed());
    value
}

/// Small numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

pub(crate) fn what_a_dropped_read_has_asked_for_is_left_to_the_next(bed: &Bed) {
    let (engine, held) = held_engine(bed);
    let (reader, mut writer) = fifo_in(bed, &engine);
    writer.write_all(b"abcdefgh").expect("room");
    let mut first = reader.read(vec![0; 5]);
    let mut second = reader.read(vec![0; 3]);
    assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
    assert_eq!((held.held(), held.log()[0].length), (1, 5), "as much as the first has asked for");
    drop(first);
    assert!(poll_once(&mut second).is_pending());
    assert_eq!(held.held(), 1, "one step at a time: the second waits for the first one's");
    let second = spawn_park(second);
    assert!(held.release());
    let BufResult(n, back) = second.join().expect("no panic");
    assert_eq!((n.expect("readable"), &back[..]), (3, &b"abc"[..]));
    // What is left comes without a further step.
    let BufResult(n, back) = reader.read(vec![0; 3]).wait();
    assert_eq!((n.expect("readable"), &back[..2]), (2, &b"de"[..]));
    assert_eq!(held.log().len(), 1);
    held.open();
    let BufResult(n, back) = reader.read(vec![0; 100]).wait();
    assert_eq!((n.expect("readable"), &back[..3]), (3, &b"fgh"[..]));
    assert_healthy(&engine.stats());
}

/// Who only waits for readiness finds what is left, and leaves it there; the end of a terminal too. Several buffers are
/// filled from it as from the stream.
pub(crate) fn what_is_left_is_ready(bed: &Bed) {
    let (engine, held) = held_engine(bed);
    let (reader, mut writer) = fifo_in(bed, &engine);
    writer.write_all(b"abcde").expect("room");
    let mut dropped = reader.read(vec![0; 5]);
    assert!(poll_once(&mut dropped).is_pending());
    drop(dropped);
    let mut readable = reader.readable();
    assert!(poll_once(&mut readable).is_pending(), "it is the step's turn");
    let readable = spawn_park(readable);
    assert!(held.release());
    readable.join().expect("no panic").expect("there is something");
    reader.readable().wait().expect("nothing was taken");
    let BufResult(n, back) = reader.read_vectored([vec![0; 2], vec![0; 1], vec![0; 9]]).wait();
    assert_eq!(
        (n.expect("readable"), &back[0][..], &back[1][..], &back[2][..2]),
        (5, &b"ab"[..], &b"c"[..], &b"de"[..])
    );
    assert_eq!(held.log().len(), 1);
    let pty = require!(support::pty());
    pty.reads_lines();
    let (terminal, mut master) = adopt(&engine, pty);
    master.write_all(&[4]).expect("room");
    let mut dropped = terminal.read(vec![0; 100]);
    assert!(poll_once(&mut dropped).is_pending());
    drop(dropped);
    assert!(held.release());
    terminal.readable().wait().expect("the end");
    assert_eq!(terminal.read(vec![0; 100]).wait().0.expect("the end is no error"), 0, "and it is still there");
}

/// A terminal says it once only.
pub(crate) fn the_end_of_a_terminal_is_left_too(bed: &Bed) {
    let pty = require!(support::pty());
    pty.reads_lines();
    let (engine, held) = held_engine(bed);
    let (terminal, mut master) = adopt(&engine, pty);
    master.write_all(&[4]).expect("room");
    let mut dropped = terminal.read(vec![0; 100]);
    eventually("the terminal is ready", || poll_once(&mut dropped).is_pending() && held.held() == 1);
    drop(dropped);
    held.open();
    assert_eq!(terminal.read(vec![0; 100]).wait().0.expect("the end is no error"), 0);
    let mut next = terminal.read(vec![0; 100]);
    assert!(poll_once(&mut next).is_pending(), "the end is over");
    master.write_all(b"a line\n").expect("room");
    let BufResult(n, back) = next.wait();
    assert_eq!((n.expect("readable"), &back[..7]), (7, &b"a line\n"[..]));
}

pub(crate) fn a_dropped_write_is_written_once(bed: &Bed) {
    let (engine, held) = held_engine(bed);
    let (writer, mut reader) = fifo_out(bed, &engine);
    let mut first = writer.write(vec![1; 5000]);
    assert!(poll_once(&mut first).is_pending());
    assert_eq!((held.held(), held.log()[0].length), (1, 4096), "no more than what does not block");
    drop(first);
    let second = spawn_park(writer.write_all(vec![2; 5000]));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(held.held(), 1, "one step at a time");
    held.open();
    second.join().expect("no panic").0.expect("room");
    let mut back = vec![0; 4096 + 5000];
    reader.read_exact(&mut back).expect("readable");
    assert!(back[..4096].iter().all(|byte| *byte == 1) && back[4096..].iter().all(|byte| *byte == 2));
    assert!(support::is_drained(&reader), "once");
}

/// Feeds `data` in pieces of all sizes.
fn feed(mut writer: StdFile, data: Vec<u8>) -> std::thread::JoinHandle<StdFile> {
    std::thread::spawn(move || {
        let (mut dice, mut rest) = (Dice(7), &data[..]);
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((1 + dice.roll(300)).min(rest.len()));
            writer.write_all(piece).expect("somebody reads");
            rest = left;
            if dice.roll(8) == 0 {
                std::thread::sleep(Duration::from_micros(dice.roll(300) as u64));
            }
        }
        writer
    })
}

/// Reads it all, with many reads that are dropped at any time. Returns what came, and how many were dropped unfinished.
fn read_and_drop(reader: &File, len: usize) -> (Vec<u8>, usize) {
    let (mut dice, mut back, mut dropped) = (Dice(3), Vec::new(), 0);
    while back.len() < len {
        let mut read = reader.read(vec![0; 1 + dice.roll(250)]);
        let patience = dice.roll(4);
        let mut result = None;
        for round in 0..patience {
            if let std::task::Poll::Ready(BufResult(n, piece)) = poll_once(&mut read) {
                result = Some((n, piece));
                break;
            }
            if round > 0 {
                std::thread::sleep(Duration::from_micros(dice.roll(100) as u64));
            }
        }
        match result {
            Some((n, piece)) => back.extend_from_slice(&piece[..n.expect("readable")]),
            None if dice.roll(3) == 0 => {
                let BufResult(n, piece) = read.wait();
                back.extend_from_slice(&piece[..n.expect("readable")]);
            }
            None => {
                drop(read);
                dropped += 1;
            }
        }
    }
    (back, dropped)
}

pub(crate) fn reads_dropped_at_random_lose_nothing(bed: &Bed) {
    const LEN: usize = 300_000;
    let engine = bed.engine();
    let mut streams = vec![fifo_in(bed, &engine)];
    match support::pty() {
        Ok(pty) => streams.push(adopt(&engine, pty)),
        Err(why) => support::report_skip(bed.name, &why),
    }
    for (seed, (reader, writer)) in streams.into_iter().enumerate() {
        let data = pattern(LEN, seed as u64);
        let feeding = feed(writer, data.clone());
        let (back, dropped) = read_and_drop(&reader, LEN);
        assert_eq!(first_difference(&back, &data), None, "after {dropped} drops");
        assert!(dropped > 200, "only {dropped} reads were dropped");
        // Kept until here: a terminal whose other end is closed forgets what was not read.
        drop(feeding.join().expect("no panic"));
    }
    let stats = engine.stats();
    assert!(stats.served_by().iter().any(|(name, _)| *name == WORKERS), "{stats:#?}");
    assert_healthy(&stats);
}

/// A write that is dropped is written whole, in part or not at all: but what arrives is in order, and once.
pub(crate) fn writes_dropped_at_random_stay_in_order(bed: &Bed) {
    let engine = bed.engine();
    let (writer, mut reader) = fifo_out(bed, &engine);
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).expect("readable");
        all
    });
    let (mut dice, mut whole) = (Dice(11), Vec::new());
    for number in 0..3000_u32 {
        // One piece is one step, so that it comes whole or not at all.
        let mut write = writer.write_all(number.to_ne_bytes().to_vec());
        let pending = (0..dice.roll(3)).all(|_| poll_once(&mut write).is_pending());
        if !pending {
            whole.push(number);
        } else if dice.roll(3) == 0 {
            write.wait().0.expect("somebody reads");
            whole.push(number);
        }
    }
    drop(writer);
    drop(engine);
    let all = reading.join().expect("no panic");
    let numbers: Vec<_> = all.chunks(4).map(|n| u32::from_ne_bytes(n.try_into().expect("whole"))).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "out of order, or twice");
    let lost: Vec<_> = whole.iter().filter(|n| numbers.binary_search(n).is_err()).collect();
    assert!(lost.is_empty(), "said to be written, and did not arrive: {lost:?}");
    assert!(whole.len() < 2900, "hardly one was dropped");
}

pub(crate) fn reads_complete_in_order(bed: &Bed) {
    const COUNT: usize = 500;
    let engine = bed.engine();
    let (reader, writer) = fifo_in(bed, &engine);
    let data = pattern(COUNT * 16, 1);
    let feeding = feed(writer, data.clone());
    let mut back = Vec::new();
    for BufResult(done, piece) in engine.block_on(join((0..COUNT).map(|_| reader.read_exact(vec![0; 16])))) {
        done.expect("it is that long");
        back.extend(piece);
    }
    assert_eq!(first_difference(&back, &data), None, "each read got the piece of its place in the queue");
    feeding.join().expect("no panic");
    let requests = engine.stats().backends.iter().find(|backend| backend.name == WORKERS).map_or(0, |b| b.requests);
    bed.assert_served(&engine, &[(What::Tty, requests)]);
}

pub(crate) fn writes_of_many_tasks_stay_whole(bed: &Bed) {
    const LEN: usize = 100_000;
    let engine = bed.engine();
    let (writer, mut reader) = fifo_out(bed, &engine);
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
    assert!(all.chunks(LEN).all(|piece| piece.iter().all(|byte| *byte == piece[0])), "pieces are mixed");
    let mut seen: Vec<u8> = all.chunks(LEN).map(|piece| piece[0]).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_healthy(&engine.stats());
}

/// More workers' calls that do not end than there are workers: nobody but streams needs those. In a process of its own:
/// threads are counted per process.
pub(crate) fn stuck_workers_leave_the_disk_alone(bed: &Bed) {
    const STUCK: usize = 10;
    const BLOCKS: usize = 20;
    const ROUNDS: usize = 25;
    require!(support::pty());
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.builder().threads(2).build().expect("an engine");
    let data = pattern(BLOCKS * BLOCK, 5);
    let file = bed.file(&engine, Medium::Buffered, "file", &data);
    file.sync_all().wait().expect("on a disk");
    let workers = || own_threads().iter().filter(|name| *name == "polyaio-stream").count();
    assert_eq!(workers(), 0, "nobody needs them yet");
    let mut terminals: Vec<_> = (0..STUCK).map(|_| stuck_read(&engine).expect("one was to be had")).collect();
    // Others only wait, and need nobody.
    let idle: Vec<_> = (0..200).map(|i| idle_fifo(bed, &engine, i)).collect();
    let mut waiting: Vec<_> = idle.iter().map(|(reader, _)| reader.read(vec![0; 100])).collect();
    waiting.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
    let reads: Vec<_> = terminals.iter().map(|(terminal, _)| spawn_park(terminal.read(vec![0; 100]))).collect();
    eventually("all of them are at work", || workers() == 4);
    prompt("disk I/O", || {
        for round in 0..ROUNDS {
            let at = round % BLOCKS * BLOCK;
            assert_eq!(file.len().wait().expect("a file has a length"), data.len() as u64);
            assert_eq!(file.write_at(data[at..][..BLOCK].to_vec(), at as u64).wait().0.expect("room"), BLOCK);
            let BufResult(n, back) = file.read(buffer(BLOCK)).wait();
            assert_eq!(n.expect("readable"), if round < BLOCKS { BLOCK } else { 0 });
            assert!(round >= BLOCKS || back[..] == data[at..][..BLOCK]);
        }
    });
    assert_eq!(workers(), 4, "a bounded set");
    let threads = own_threads();
    assert!(threads.len() <= 4 + 2 + 1 + bed.reapers(), "{threads:?}");
    assert!(reads.iter().all(|read| !read.is_finished()), "they were stuck all the while");
    for (_, master) in &mut terminals {
        master.write_all(b"2").expect("room");
    }
    for read in reads {
        let BufResult(n, back) = read.join().expect("no panic");
        assert_eq!((n.expect("readable"), &back[..2]), (2, &b"12"[..]));
    }
    bed.assert_served(
        &engine,
        &[
            (What::Tty, STUCK as u64),
            (What::Meta, ROUNDS as u64),
            (What::BufferedWrite, ROUNDS as u64),
            (What::Serial, ROUNDS as u64),
            (What::Sync, 1),
        ],
    );
}

/// Nobody waits for the worker; and its descriptor's number is nobody else's before it is done.
pub(crate) fn a_file_closes_while_a_worker_is_stuck(bed: &Bed) {
    let engine = bed.engine();
    let (terminal, mut master) = require!(stuck_read(&engine));
    let number = terminal.as_raw_fd();
    let waiting = spawn_park(terminal.read(vec![7; 100]));
    wait_for_worker(number);
    prompt("the close", || terminal.close().wait().expect("a terminal"));
    let BufResult(n, back) = waiting.join().expect("no panic");
    assert_eq!((code(n), &back[..]), (libc::ECANCELED, &[7; 100][..]));
    let name = || std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    assert!(name().starts_with("/dev/pts"), "its number could be somebody else's: {:?}", name());
    let own = name();
    master.write_all(b"2").expect("room");
    // Another test's thread may have been given the number, but not for this terminal, which nobody can open again.
    eventually("the worker has closed it", || name() != own);
}

/// In a process of its own: threads are counted per process.
pub(crate) fn the_engine_ends_while_a_worker_is_stuck(bed: &Bed) {
    require!(support::pty());
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let engine = bed.engine();
    let (terminal, mut master) = stuck_read(&engine).expect("one was to be had");
    let number = terminal.as_raw_fd();
    let waiting = spawn_park(terminal.read(vec![0; 100]));
    wait_for_worker(number);
    prompt("the end", || drop(engine));
    let error = prompt("the read", || waiting.join()).expect("no panic").0.expect_err("its engine is gone");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::EngineClosed)), "{error:?}");
    drop(terminal);
    // SAFETY: takes no pointer.
    let is_open = || unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    assert!(is_open(), "the worker has it");
    eventually("the others are gone", || own_threads() == ["polyaio-stream"]);
    master.write_all(b"2").expect("room");
    eventually("it is closed, and the thread is gone", || !is_open() && own_threads().is_empty());
}

/// All workers are stuck, and somebody else takes what there was: the next free one does not wait for more.
pub(crate) fn what_is_not_ready_any_more_is_waited_for(bed: &Bed) {
    let engine = bed.engine();
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let (terminal, master) = require!(stuck_read(&engine));
        let waiting = spawn_park(terminal.read(vec![0; 100]));
        wait_for_worker(terminal.as_raw_fd());
        stuck.push((waiting, master));
    }
    let (reader, mut other) = fifo_in(bed, &engine);
    other.write_all(b"gone").expect("room");
    let mut read = reader.read(vec![0; 100]);
    assert!(poll_once(&mut read).is_pending());
    other.read_exact(&mut [0; 4]).expect("it was there");
    for (waiting, mut master) in stuck {
        master.write_all(b"2").expect("room");
        waiting.join().expect("no panic").0.expect("readable");
    }
    eventually("a worker has looked", || engine.stats().streams.misses == 1);
    other.write_all(b"data").expect("room");
    let BufResult(n, back) = read.wait();
    assert_eq!((n.expect("readable"), &back[..4]), (4, &b"data"[..]));
}

/// A read can be cancelled at any time, for its bytes stay with the stream; a write that is with a worker cannot.
pub(crate) fn cancelled_while_a_worker_has_it(bed: &Bed) {
    let engine = bed.engine();
    let (terminal, mut master) = require!(stuck_read(&engine));
    let number = terminal.as_raw_fd();
    let mut read = terminal.read(vec![7; 100]);
    assert!(poll_once(&mut read).is_pending());
    wait_for_worker(number);
    assert_eq!(read.cancel(), CancelOutcome::Cancelled);
    let BufResult(n, back) = prompt("a cancelled read", || read.wait());
    assert_eq!((code(n), &back[..]), (libc::ECANCELED, &[7; 100][..]));
    master.write_all(b"2").expect("room");
    let BufResult(n, back) = terminal.read(vec![0; 100]).wait();
    assert_eq!((n.expect("readable"), &back[..2]), (2, &b"12"[..]));
    let (engine, held) = held_engine(bed);
    let (writer, mut reader) = fifo_out(bed, &engine);
    let mut write = writer.write(b"data".to_vec());
    assert!(poll_once(&mut write).is_pending());
    assert_eq!((held.held(), write.cancel()), (1, CancelOutcome::Running));
    held.open();
    assert_eq!(write.wait().0.expect("room"), 4);
    let mut back = [0; 4];
    reader.read_exact(&mut back).expect("readable");
    assert_eq!(&back, b"data");
}

/// A write that waits for a worker is cancelled in time.
pub(crate) fn cancelled_before_a_worker_has_it(bed: &Bed) {
    let engine = bed.engine();
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let (terminal, master) = require!(stuck_read(&engine));
        let waiting = spawn_park(terminal.read(vec![0; 100]));
        wait_for_worker(terminal.as_raw_fd());
        stuck.push((waiting, master));
    }
    let (writer, mut reader) = fifo_out(bed, &engine);
    let mut write = writer.write(b"not this".to_vec());
    assert!(poll_once(&mut write).is_pending());
    assert_eq!(write.cancel(), CancelOutcome::Cancelled);
    assert_eq!(code(prompt("a cancelled write", || write.wait()).0), libc::ECANCELED);
    let write = spawn_park(writer.write(b"but this".to_vec()));
    for (waiting, mut master) in stuck {
        master.write_all(b"2").expect("room");
        waiting.join().expect("no panic").0.expect("readable");
    }
    assert_eq!(write.join().expect("no panic").0.expect("room"), 8);
    let mut back = [0; 8];
    reader.read_exact(&mut back).expect("readable");
    assert_eq!(&back, b"but this");
}

/// All workers are stuck: what waits for one can still be called off.
pub(crate) fn one_that_has_not_begun_is_cancelled(bed: &Bed) {
    let engine = bed.engine();
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let (terminal, master) = require!(stuck_read(&engine));
        let waiting = spawn_park(terminal.read(vec![0; 100]));
        wait_for_worker(terminal.as_raw_fd());
        stuck.push((waiting, terminal, master));
    }
    let (reader, mut writer) = fifo_in(bed, &engine);
    writer.write_all(b"data").expect("room");
    let mut read = reader.read(vec![0; 100]);
    assert!(poll_once(&mut read).is_pending());
    drop(read);
    for (waiting, _, master) in &mut stuck {
        master.write_all(b"2").expect("room");
        eventually("its worker is free", || waiting.is_finished());
    }
    // Whatever the workers were asked for, they have had time for it.
    for (_, terminal, master) in &mut stuck {
        master.write_all(b"34").expect("room");
        assert_eq!(terminal.read(vec![0; 100]).wait().0.expect("readable"), 2);
    }
    assert!(support::has_data(&writer), "nothing was taken");
    let BufResult(n, back) = reader.read(vec![0; 100]).wait();
    assert_eq!((n.expect("readable"), &back[..4]), (4, &b"data"[..]));
}

/// It was ready when it got in line for room, and is idle when the room comes: the room is for others.
pub(crate) fn who_waits_for_the_stream_holds_no_place_in_line(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(1).build().expect("an engine");
    let disk = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 9));
    let (fifo, mut writer) = fifo_in(bed, &engine);
    let mut first = disk.read_at(buffer(BLOCK), 0);
    eventually("it has the only slot", || poll_once(&mut first).is_pending() && held.held() == 1);
    writer.write_all(b"x").expect("room");
    let mut step = fifo.read(vec![0; 1]);
    assert!(poll_once(&mut step).is_pending(), "it waits in line");
    let mut third = disk.read_at(buffer(BLOCK), 0);
    assert!(poll_once(&mut third).is_pending(), "behind it");
    // Somebody else is faster.
    writer.read_exact(&mut [0]).expect("it is there");
    held.open();
    eventually("the first is served", || poll_once(&mut first).is_ready());
    assert!(poll_once(&mut step).is_pending(), "there is nothing to read");
    eventually("the disk does not wait for the stream", || poll_once(&mut third).is_ready());
    writer.write_all(b"y").expect("room");
    assert_eq!(step.wait().1, b"y");
}
