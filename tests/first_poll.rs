//! What the first poll of an operation leaves behind, however it ends: nothing that others wait for.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, RawWakerVTable, Waker};
use std::time::{Duration, Instant};

use polyaio::{Direct, Engine, File, IoBuf, IoBufMut, OpenOptions};
use support::{Scratch, direct_io, pattern, require};

/// What hangs is over then; nothing here takes that long.
const LONG: Duration = Duration::from_secs(20);

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn open(engine: &Engine, scratch: &Scratch) -> File {
    let path = scratch.file("file", &pattern(1 << 20, 7));
    OpenOptions::new().read(true).write(true).open(engine, path).expect("it is there")
}

/// A direct file of which some transfers are misaligned.
fn open_direct(engine: &Engine, scratch: &Scratch) -> Result<File, String> {
    direct_io(scratch.dir())?;
    let path = scratch.file("file", &pattern(1 << 20, 7));
    let open = OpenOptions::new().read(true).write(true).direct(Direct::Required).open(engine, path);
    let file = open.map_err(|error| error.to_string())?;
    let aligned = file.facts().alignment.is_some_and(|alignment| alignment.offset > 100);
    if aligned { Ok(file) } else { Err("direct I/O needs no alignment here".to_owned()) }
}

/// A buffer that does something when it is asked for its address the second time, which is when its operation is sent.
struct Asked<F> {
    bytes: Vec<u8>,
    times: usize,
    then: F,
}

impl<F> Asked<F> {
    /// Of 100 bytes that no direct I/O takes.
    fn new(then: F) -> Self {
        Self { bytes: vec![0; 101], times: 0, then }
    }
}

// SAFETY: the vector's memory stays where it is, and as long as it is.
unsafe impl<F: Send + 'static> IoBuf for Asked<F> {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes[1..].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.len() - 1
    }
}

// SAFETY: as above.
unsafe impl<F: FnMut() + Send + 'static> IoBufMut for Asked<F> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.times += 1;
        if self.times == 2 {
            (self.then)();
        }
        self.bytes[1..].as_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.bytes.len() - 1
    }

    unsafe fn set_init(&mut self, _count: usize) {}
}

/// It is polled first, and then waited for: it is counted once, and the file stays open.
#[test]
fn what_is_in_line_can_be_waited_for() {
    let (engine, scratch) = (Engine::builder().capacity(1).build().expect("an engine"), Scratch::new());
    let file = open(&engine, &scratch);
    let mut first = file.sync_all();
    assert!(poll(&mut first).is_pending());
    let mut syncs = file.sync_all();
    let mut reads = file.read_at(vec![0; 16], 0);
    assert!(poll(&mut syncs).is_pending());
    // In the page cache or not.
    let over = poll(&mut reads).is_ready();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        syncs.wait().expect("it syncs");
    });
    if !over {
        reads.wait().0.expect("it reads");
    }
    file.write_at("hello", 0).wait().0.expect("the file is open");
    file.close().wait().expect("nobody else is there");
}

/// What `try_start` has begun goes out with the next wait, also where that is over at once.
#[test]
fn a_wait_sends_what_was_started() {
    let (engine, scratch) = (Engine::new().expect("an engine"), Scratch::new());
    let file = open(&engine, &scratch);
    file.read_at(vec![0; 16], 4096).wait().0.expect("it reads");
    let started = file.write_at("hello", 0).try_start().map_err(|_| "busy").expect("there is room");
    let begin = Instant::now();
    let is_there = || std::fs::read(scratch.path("file")).expect("it is there").starts_with(b"hello");
    while !is_there() {
        assert!(begin.elapsed() < LONG, "`try_start`: its request goes out with the next `wait`");
        file.read_at(vec![0; 16], 4096).wait().0.expect("it reads");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(started);
}

/// A read lets the first write through the page cache go when it turns out that it has to go that way itself. It was only
/// started: nobody polls it.
#[test]
fn who_is_started_sends_the_write_that_it_lets_go() {
    let (engine, scratch) = (Engine::new().expect("an engine"), Scratch::new());
    let file = require!(open_direct(&engine, &scratch));
    let (go, going) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let writer = {
        let file = file.clone();
        std::thread::spawn(move || {
            going.recv().expect("the other thread is there");
            file.write_at(vec![1_u8; 100], (512 << 10) + 3).wait().0.expect("it writes");
            let _ = done.send(());
        })
    };
    let meanwhile = move || {
        go.send(()).expect("the other thread is there");
        // It is the write's turn to get in line behind this read.
        std::thread::sleep(Duration::from_millis(100));
    };
    let read = file.read_at(Asked::new(meanwhile), 3);
    let read = read.try_start().map_err(|_| "busy").expect("there is room");
    let written = is_done.recv_timeout(LONG);
    read.wait().0.expect("it reads");
    writer.join().expect("no panic");
    written.expect("the write was let go, and not sent");
}

/// A buffer that panics leaves neither its slot nor what it has passed.
#[test]
fn a_buffer_that_panics_leaves_nothing() {
    let (engine, scratch) = (Engine::builder().capacity(1).build().expect("an engine"), Scratch::new());
    let file = require!(open_direct(&engine, &scratch));
    let mut read = file.read_at(Asked::new(|| panic!("a buffer's")), 3);
    assert!(catch_unwind(AssertUnwindSafe(|| _ = poll(&mut read))).is_err());
    drop(read);
    let mut write = file.write_at(vec![1_u8; 100], (512 << 10) + 3);
    match write.wait_timeout(LONG) {
        Some(written) => assert_eq!(written.0.expect("it writes"), 100),
        None => {
            std::mem::forget((write, file, engine));
            panic!("a write waits for a read that has never begun");
        }
    }
    file.close().wait().expect("nobody else is there");
}

/// Nor does a waker that panics when it is to be kept, in the line for a slot. The operation may be polled again.
#[test]
fn a_waker_that_panics_leaves_nothing() {
    static TABLE: RawWakerVTable = RawWakerVTable::new(|_| panic!("a waker's"), |_| {}, |_| {}, |_| {});
    let (engine, scratch) = (Engine::builder().capacity(1).build().expect("an engine"), Scratch::new());
    let file = open(&engine, &scratch);
    let mut first = file.sync_all();
    assert!(poll(&mut first).is_pending());
    let mut second = file.sync_all();
    // SAFETY: the functions use no data.
    let waker = unsafe { Waker::new(std::ptr::null(), &TABLE) };
    let again = || _ = Pin::new(&mut second).poll(&mut Context::from_waker(&waker));
    assert!(catch_unwind(AssertUnwindSafe(again)).is_err());
    first.wait().expect("it syncs");
    second.wait().expect("it syncs");
    let mut close = file.close();
    if close.wait_timeout(LONG).is_none() {
        std::mem::forget((close, engine));
        panic!("a close waits for an operation that is over");
    }
}

/// Turns an engine in a destructor, at its thread's end.
struct AtEnd {
    engine: Engine,
    begins: mpsc::Sender<()>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.begins.send(()).expect("somebody waits for it");
        self.engine.turn(1, usize::MAX, Some(LONG * 2));
    }
}

/// What a thread sleeps on in a destructor is its own, whoever comes after it.
#[test]
fn a_turn_in_a_destructor_is_woken() {
    thread_local!(static AT_END: std::cell::RefCell<Option<AtEnd>> = const { std::cell::RefCell::new(None) });
    let (engine, scratch) = (Engine::new().expect("an engine"), Scratch::new());
    let file = open(&engine, &scratch);
    let (begins, has_begun) = mpsc::channel();
    let turning = {
        let engine = engine.clone();
        std::thread::spawn(move || {
            let theirs = engine.clone();
            AT_END.with(|at_end| *at_end.borrow_mut() = Some(AtEnd { engine: theirs, begins }));
            // After this the destructor of what the thread sleeps on comes first.
            engine.block_on(async {});
        })
    };
    has_begun.recv().expect("it begins");
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    let other = std::thread::spawn(move || engine.block_on(async { file.sync_all().await }));
    other.join().expect("no panic").expect("it syncs");
    turning.join().expect("no panic");
    assert!(begin.elapsed() < LONG, "it was not woken: {:?}", begin.elapsed());
}
