//! The feature `tokio`: in tokio's runtimes its reactor collects, and no thread of the engine's is there for that.

mod support;
mod tools;

use std::future::Future as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, OpenOptions};
use tokio::runtime::{Builder, Runtime};

use support::{Scratch, pattern};
use tools::{Oneshot, Respawn, Watchdog, eventually, join, own_threads, park_on, poll_once, respawn};

const BLOCK: usize = 4096;
const BLOCKS: usize = 256;

fn of_one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn of_two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A file of blocks that begin with their numbers, open for direct reads where there are such.
fn blocks(engine: &Engine, path: &Path) -> File {
    let data: Vec<u8> = (0..BLOCKS).flat_map(|block| [block as u8; BLOCK]).collect();
    std::fs::write(path, data).expect("there is room");
    OpenOptions::new().read(true).direct(Direct::Preferred).open(engine, path).expect("it is there")
}

/// Reads them all, `depth` at a time, and looks at each.
async fn read_all(file: &File, depth: usize) {
    for first in (0..BLOCKS).step_by(depth) {
        let numbers = first..BLOCKS.min(first + depth);
        let reads = numbers.clone().map(|block| file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), (block * BLOCK) as u64));
        for (block, BufResult(n, buf)) in numbers.zip(join(reads).await) {
            assert_eq!((n.expect("a read"), buf[0], buf[BLOCK - 1]), (BLOCK, block as u8, block as u8));
        }
    }
}

fn is_driver(name: &String) -> bool {
    name == "polyaio-driver"
}

/// Whether the engine's own thread collects in this process, with what it says otherwise.
fn has_driver() -> bool {
    own_threads().iter().any(is_driver)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// Reads of a file and of a socket that is written later, in either kind of runtime, and nobody else collects.
#[test]
fn the_reactor_collects_in_the_threads_stead() {
    let Respawn::Child = respawn("the_reactor_collects_in_the_threads_stead").checked() else { return };
    let (_watchdog, scratch) = (Watchdog::new("tokio: in the thread's stead"), Scratch::new());
    let engine = Engine::new().expect("an engine");
    let file = blocks(&engine, &scratch.path("blocks"));
    for runtime in [of_one_thread(), of_two_threads()] {
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        let socket = engine.adopt(theirs.into()).expect("a socket");
        runtime.block_on(async {
            for depth in [1, 7, 64, BLOCKS] {
                read_all(&file, depth).await;
            }
            let waiting = tokio::spawn(async move { socket.read(vec![0; 8]).await });
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::io::Write::write_all(&mut &mine, b"eight by").expect("it is open");
            let (n, buf) = waiting.await.expect("no panic").into_result().expect("a read");
            assert_eq!((n, &*buf), (8, &b"eight by"[..]));
        });
        assert!(!has_driver(), "{:?}", own_threads());
    }
}

/// Several runtimes, plain threads and `block_on` at once: each read ends.
#[test]
fn everybody_at_once() {
    let (_watchdog, scratch) = (Watchdog::new("tokio: everybody at once"), Scratch::new());
    let rounds = if std::env::var_os("POLYAIO_TEST_LONG").is_some() { 200 } else { 6 };
    let engine = Engine::builder().queue_depth(32).build().expect("an engine");
    let file = blocks(&engine, &scratch.path("blocks"));
    std::thread::scope(|scope| {
        for build in [of_one_thread as fn() -> Runtime, of_two_threads] {
            let file = file.clone();
            scope.spawn(move || {
                for _ in 0..rounds {
                    let tasks = (0..4).map(|depth| {
                        let file = file.clone();
                        async move { read_all(&file, 1 << depth).await }
                    });
                    let runtime = build();
                    let tasks: Vec<_> = tasks.map(|task| runtime.spawn(task)).collect();
                    runtime.block_on(async {
                        for task in tasks {
                            task.await.expect("no panic");
                        }
                    });
                }
            });
        }
        scope.spawn(|| (0..rounds).for_each(|_| engine.block_on(read_all(&file, 5))));
        scope.spawn(|| (0..rounds).for_each(|_| park_on(Box::pin(read_all(&file, 3)))));
    });
}

/// A runtime that has gone takes nobody with it: another one, and then none, go on.
#[test]
fn a_runtime_that_ends_is_not_relied_on() {
    let Respawn::Child = respawn("a_runtime_that_ends_is_not_relied_on").checked() else { return };
    let (_watchdog, scratch) = (Watchdog::new("tokio: a runtime that ends"), Scratch::new());
    let engine = Engine::new().expect("an engine");
    let file = blocks(&engine, &scratch.path("blocks"));
    for round in 0..20 {
        let runtime = if round % 2 == 0 { of_one_thread() } else { of_two_threads() };
        runtime.block_on(read_all(&file, 16));
        assert!(round > 0 || !has_driver(), "{:?}", own_threads());
        // Reads in flight that nobody waits for any more. The engine does not know that: they may bring its thread along.
        let mut left = runtime.block_on(async {
            let mut reads: Vec<_> = (0..32).map(|i| file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), i * 4096)).collect();
            reads.iter_mut().for_each(|read| drop(poll_once(read)));
            reads
        });
        drop(runtime);
        drop(left.split_off(16));
    }
    park_on(Box::pin(read_all(&file, 16)));
}

/// Reads two bytes, and says when it waits for them; on a thread that has entered a runtime, without being a task of it.
fn read_beside(socket: &File, waits: &Sender<()>) -> Vec<u8> {
    let mut read = socket.read(vec![0; 2]);
    // Twice: from the second time on the thread knows the runtime.
    (0..2).for_each(|_| assert!(poll_once(&mut read).is_pending()));
    let mut waits = Some(waits);
    let read = park_on(std::future::poll_fn(|context| {
        let poll = Pin::new(&mut read).poll(context);
        waits.take().into_iter().for_each(|waits| waits.send(()).expect("somebody listens"));
        poll
    }));
    read.into_result().expect("a read").1
}

/// Who waits beside a runtime goes on waiting when that ends: its waker is not the runtime's.
#[test]
fn who_waits_longer_than_the_runtime_lives_is_not_left_alone() {
    let Respawn::Child = respawn("who_waits_longer_than_the_runtime_lives_is_not_left_alone").checked() else { return };
    let _watchdog = Watchdog::new("tokio: longer than the runtime");
    for ends_meanwhile in [true, false] {
        let engine = Engine::new().expect("an engine");
        let runtime = of_two_threads();
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        let socket = engine.adopt(theirs.into()).expect("a socket");
        let ((waits, waiting), (go_on, next), handle) = (channel(), channel(), runtime.handle().clone());
        let reader = std::thread::spawn(move || {
            let _inside = handle.enter();
            let first = read_beside(&socket, &waits);
            waits.send(()).expect("somebody listens");
            next.recv().expect("it is told");
            [first, read_beside(&socket, &waits)].concat()
        });
        let write = |bytes| std::io::Write::write_all(&mut &mine, bytes).expect("it is open");
        waiting.recv().expect("it waits");
        let mut runtime = Some(runtime);
        drop(runtime.take_if(|_| ends_meanwhile));
        write(b"ok");
        waiting.recv().expect("it has read");
        drop(runtime);
        go_on.send(()).expect("it waits");
        waiting.recv().expect("it waits");
        write(b"!!");
        assert_eq!(reader.join().expect("no panic"), b"ok!!");
    }
}

/// A runtime that is kept, and does not run, collects nothing: futures elsewhere have their own.
#[test]
fn a_runtime_that_stands_still_holds_nobody_up() {
    let Respawn::Child = respawn("a_runtime_that_stands_still_holds_nobody_up").checked() else { return };
    let (_watchdog, scratch) = (Watchdog::new("tokio: a runtime that stands still"), Scratch::new());
    let engine = Engine::new().expect("an engine");
    let file = blocks(&engine, &scratch.path("blocks"));
    let idle = of_one_thread();
    idle.block_on(read_all(&file, 16));
    park_on(Box::pin(read_all(&file, 16)));
    of_one_thread().block_on(read_all(&file, 16));
    engine.block_on(read_all(&file, 16));
    drop(idle);
    park_on(Box::pin(read_all(&file, 16)));
}

/// Without the runtime's I/O driver the engine's thread collects as usual.
#[test]
fn a_runtime_without_its_reactor_gets_the_thread() {
    let Respawn::Child = respawn("a_runtime_without_its_reactor_gets_the_thread").checked() else { return };
    let (_watchdog, scratch) = (Watchdog::new("tokio: without its reactor"), Scratch::new());
    let engine = Engine::new().expect("an engine");
    let (mine, theirs) = UnixStream::pair().expect("a pair");
    let socket = engine.adopt(theirs.into()).expect("a socket");
    let file = blocks(&engine, &scratch.path("blocks"));
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    // tokio answers by a panic, which the engine catches.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match info.payload_as_str() {
        Some(message) if message.contains("IO is disabled") => eprintln!("as it should: {message}"),
        _ => usual(info),
    }));
    runtime.block_on(async {
        read_all(&file, 16).await;
        let mut read = socket.read(vec![0; 2]);
        assert!(poll_once(&mut read).is_pending());
        std::io::Write::write_all(&mut &mine, b"ok").expect("it is open");
        assert_eq!(read.await.into_result().expect("a read").1, b"ok");
    });
    assert!(has_driver(), "{:?}", own_threads());
}

/// The engine's end, from inside and outside of a runtime, leaves no descriptor and no thread.
#[test]
fn the_end_of_the_engine_leaves_nothing() {
    let Respawn::Child = respawn("the_end_of_the_engine_leaves_nothing").checked() else { return };
    let (_watchdog, scratch) = (Watchdog::new("tokio: the end of the engine"), Scratch::new());
    let runtime = of_two_threads();
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    let before = descriptors();
    for awaited in [true, false] {
        let engine = Engine::new().expect("an engine");
        let file = Arc::new(blocks(&engine, &scratch.path("blocks")));
        let reader = file.clone();
        let task = runtime.spawn(async move { read_all(&reader, 16).await });
        runtime.block_on(task).expect("no panic");
        drop(file);
        match awaited {
            true => runtime.block_on(engine.shutdown()),
            false => drop(engine),
        }
        eventually("all threads are gone", || own_threads().is_empty());
        eventually("all descriptors are closed", || descriptors() == before);
    }
}

/// The bytes that arrive in many small parts, each a report of its own.
#[test]
fn no_report_of_a_stream_is_missed() {
    let (_watchdog, data) = (Watchdog::new("tokio: reports of a stream"), pattern(20_000, 3));
    let engine = Engine::new().expect("an engine");
    for runtime in [of_one_thread(), of_two_threads()] {
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        let socket = engine.adopt(theirs.into()).expect("a socket");
        let sent = data.clone();
        let writer = std::thread::spawn(move || {
            sent.chunks(7).for_each(|part| std::io::Write::write_all(&mut &mine, part).expect("it is open"));
        });
        let read = runtime.block_on(async { socket.read_exact(vec![0; 20_000]).await });
        assert!(read.into_result().expect("all of it").1 == data);
        writer.join().expect("no panic");
    }
}

/// Writes to a stream from inside the driver's seat, and stays there for a while.
struct Meanwhile {
    stream: UnixStream,
    done: Oneshot<()>,
}

impl Wake for Meanwhile {
    fn wake(self: Arc<Self>) {
        std::io::Write::write_all(&mut &self.stream, b"!").expect("it is open");
        // Nothing depends on it: it gives the runtime the time to find the seat taken.
        std::thread::sleep(Duration::from_millis(30));
        self.done.send(());
    }
}

/// What becomes ready while a thread has the driver's seat, which then leaves it, and nobody sits down any more.
#[test]
fn what_was_found_in_a_taken_seat_is_not_missed() {
    let _watchdog = Watchdog::new("tokio: in a taken seat");
    let engine = Engine::new().expect("an engine");
    let pair = || {
        let (mine, theirs) = UnixStream::pair().expect("a pair");
        (mine, engine.adopt(theirs.into()).expect("a socket"))
    };
    for _ in 0..5 {
        let ((first, first_read), (second, second_read)) = (pair(), pair());
        let (done, runtime) = (Oneshot::new(), of_two_threads());
        let waiting = runtime.spawn(async move { second_read.read(vec![0; 1]).await });
        let waker = Waker::from(Arc::new(Meanwhile { stream: second, done: done.clone() }));
        let mut read = first_read.read(vec![0; 1]);
        {
            let _inside = runtime.enter();
            assert!(Pin::new(&mut read).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            std::io::Write::write_all(&mut &first, b"?").expect("it is open");
        });
        engine.block_on(done);
        let read = runtime.block_on(waiting).expect("no panic");
        assert_eq!(read.into_result().expect("a byte").1, b"!");
        writer.join().expect("no panic");
    }
}
