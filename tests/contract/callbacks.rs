//! Callbacks: one per operation, called by whoever collects, and by nobody else.

use std::cell::Cell;
use std::io::Write as _;
#[cfg(unix)]
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use polyaio::backend::CancelOutcome;
use polyaio::{AlignedBuf, BufResult, Engine, Error, File, IoBuf as _};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, code, filled};
use crate::support::{self, pattern};
use crate::tools::{Answer, Census, HELD, Held, SCRIPTED, Scripted, eventually, lock, poll_once, transfers};

type Done = BufResult<usize, AlignedBuf>;

/// Counts calls.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn value(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[track_caller]
fn assert_closed(error: std::io::Error) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::EngineClosed)), "{error:?}");
}

/// Reads blocks, each with a callback that sends the block's number and what it read.
fn read_blocks(file: &File, blocks: usize, sender: &Sender<(usize, Done)>) {
    for block in 0..blocks {
        let sender = sender.clone();
        let read = file.read_at(buffer(BLOCK), (block * BLOCK) as u64);
        read.on_completion(move |done| sender.send((block, done)).expect("somebody listens")).expect("open");
    }
}

/// Who collects: nobody of the program; its own loop; a wait for something else.
pub(crate) fn each_is_called_once_with_its_result(bed: &Bed) {
    const BLOCKS: usize = 100;
    for medium in bed.media() {
        for who in ["background", "turn", "wait"] {
            let engine = bed.builder().capacity(32).build().expect("an engine");
            if who != "background" {
                engine.notification().expect("a descriptor");
            }
            let data = pattern(BLOCKS * BLOCK, 1);
            let path = bed.make(&format!("{medium:?}-{who}"), &data);
            let file = bed.open(&engine, medium, &path);
            bed.evict(&path, 0, (BLOCKS / 2 * BLOCK) as u64);
            let (sender, receiver) = channel();
            read_blocks(&file, BLOCKS, &sender);
            drop(sender);
            let mut seen = vec![0; BLOCKS];
            let mut check = |(block, BufResult(n, back)): (usize, Done)| {
                assert_eq!(n.expect("readable"), BLOCK);
                assert_eq!(back[..], data[block * BLOCK..][..BLOCK], "block {block}");
                seen[block] += 1;
            };
            let mut left = BLOCKS;
            while left > 0 {
                match who {
                    "background" => {
                        check(receiver.recv().expect("more are to come"));
                        left -= 1;
                    }
                    // Never for ever, though what ended in the caller is nothing that a turn counts.
                    "turn" => _ = engine.turn(1, usize::MAX, None),
                    _ => file.sync_data().wait().expect("on a disk"),
                }
                while let Ok(result) = receiver.try_recv() {
                    check(result);
                    left -= 1;
                }
            }
            assert!(receiver.recv().is_err(), "no callback is left");
            assert_eq!(seen, [1; BLOCKS], "{medium:?}, {who}");
            eventually("each is counted", || engine.stats().notifications.callbacks == BLOCKS as u64);
            assert_healthy(&engine.stats());
            bed.look(&engine);
        }
    }
}

thread_local! {
    /// This thread is inside of a call that must not call callbacks.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn inside<T>(f: impl FnOnce() -> T) -> T {
    INSIDE.set(true);
    let result = f();
    INSIDE.set(false);
    result
}

/// Requests that end inside of `submit`, transfers that end in the caller, streams that are ready: only a turn calls.
pub(crate) fn never_inside_of_what_submits(bed: &Bed) {
    let scripted = Scripted::new(|_, _| Answer::Serve);
    let engine = bed.builder_with(SCRIPTED).backend(scripted).build().expect("an engine");
    let plain = bed.engine();
    for engine in [&engine, &plain] {
        // So that this thread is the only one that collects.
        engine.notification().expect("a descriptor");
        let file = bed.file(engine, Medium::Buffered, "file", &pattern(BLOCK, 2));
        assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
        let (reader, mut writer) = support::pipe();
        writer.write_all(b"x").expect("room");
        let reader = engine.adopt(reader.into()).expect("a pipe");
        let called = Count::default();
        let call = |called: &Count| {
            let called = called.clone();
            move |BufResult(n, _): BufResult<usize, AlignedBuf>| {
                assert!(!INSIDE.get(), "called inside of what submits");
                n.expect("readable");
                called.add();
            }
        };
        inside(|| {
            for _ in 0..100 {
                file.read_at(buffer(BLOCK), 0).on_completion(call(&called)).expect("open");
            }
            reader.read(buffer(1)).on_completion(call(&called)).expect("open");
            // Other things that submit, and collect.
            let mut read = file.read_at(buffer(BLOCK), 0);
            while poll_once(&mut read).is_pending() {}
            drop(file.try_read_at(buffer(BLOCK), 0));
            let mut batch = engine.batch();
            batch.push(file.read_at(buffer(BLOCK), 0), |_| ());
            batch.submit();
            file.sync_all().on_completion(drop).expect("open").cancel();
            drop(batch);
        });
        assert_eq!(called.value(), 0, "called, and nobody has collected");
        while called.value() < 101 {
            engine.turn(1, usize::MAX, None);
        }
    }
}

#[cfg(unix)]
pub(crate) fn a_turn_calls_at_most_as_many_as_it_is_told(bed: &Bed) {
    let engine = bed.engine();
    let notification = engine.notification().expect("a descriptor").as_raw_fd();
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 3));
    let called = Count::default();
    for _ in 0..10 {
        let called = called.clone();
        // Over at once, whoever serves.
        file.read_at(vec![0; 0], 0).on_completion(move |_| called.add()).expect("open");
    }
    for wanted in [3, 6, 9, 10] {
        let mut poll = libc::pollfd { fd: notification, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, for the duration of the call.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1, "there is something to do");
        engine.turn(0, 3, None);
        assert_eq!(called.value(), wanted);
    }
}

/// A callback that begins the next operation, polls one by hand, and waits for a third.
struct Chain {
    engine: Engine,
    file: File,
    data: Vec<u8>,
    next: AtomicUsize,
    right: Count,
    over: Mutex<Sender<()>>,
}

impl Chain {
    fn step(self: Arc<Self>, block: usize, BufResult(n, back): Done) {
        assert_eq!(n.expect("readable"), BLOCK);
        assert_eq!(back[..], self.data[block * BLOCK..][..BLOCK]);
        self.clone().begin(back);
        let mut polled = self.file.read_at(buffer(BLOCK), 0);
        let _ = poll_once(&mut polled);
        if block.is_multiple_of(8) {
            let waited = self.file.read_at(buffer(BLOCK), (block * BLOCK) as u64).wait();
            assert_eq!(waited.1[..], self.data[block * BLOCK..][..BLOCK]);
            self.engine.turn(0, usize::MAX, None);
        }
        self.right.add();
        if self.right.value() == self.data.len() / BLOCK {
            lock(&self.over).send(()).expect("somebody listens");
        }
    }

    fn begin(self: Arc<Self>, buf: AlignedBuf) {
        let block = self.next.fetch_add(1, Ordering::SeqCst);
        if block * BLOCK < self.data.len() {
            let read = self.file.read_at(buf, (block * BLOCK) as u64);
            read.on_completion(move |done| self.step(block, done)).expect("open");
        }
    }
}

pub(crate) fn they_submit_and_poll_and_wait(bed: &Bed) {
    const BLOCKS: usize = 200;
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(BLOCKS * BLOCK, 4);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let (sender, receiver) = channel();
        let (next, right, over) = (AtomicUsize::new(0), Count::default(), Mutex::new(sender));
        let chain = Arc::new(Chain { engine: engine.clone(), file, data, next, right: right.clone(), over });
        for _ in 0..8 {
            chain.clone().begin(buffer(BLOCK));
        }
        drop(chain);
        receiver.recv().expect("all callbacks do their work");
        assert_eq!(right.value(), BLOCKS);
        let stats = engine.stats();
        assert_eq!(stats.notifications.panics, 0, "{stats:#?}");
        assert_healthy(&stats);
    }
}

pub(crate) fn what_panics_takes_nobody_along(bed: &Bed) {
    const READS: usize = 64;
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let data = pattern(READS * BLOCK, 5);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let well = Count::default();
        for i in 0..READS {
            let well = well.clone();
            let read = file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64);
            let callback = move |BufResult(n, back): BufResult<usize, crate::tools::CountedBuf>| {
                assert_eq!((n.expect("readable"), back.as_slice().len()), (BLOCK, BLOCK));
                if i % 2 == 1 {
                    // Not `panic!`: the hook would print what is meant to happen.
                    std::panic::resume_unwind(Box::new("this callback panics"));
                }
                well.add();
            };
            read.on_completion(callback).expect("open");
        }
        eventually("all are called", || engine.stats().notifications.callbacks == READS as u64);
        assert_eq!(engine.stats().notifications.panics, (READS / 2) as u64);
        assert_eq!((well.value(), census.live()), (READS / 2, 0));
        // The engine is none the worse, and nor are its threads.
        assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
        assert_healthy(&engine.stats());
    }
}

/// The last `File`, then the last `Engine`, on whatever thread calls: it does not wait for itself.
pub(crate) fn the_last_handle_dropped_in_one(bed: &Bed) {
    for medium in bed.media() {
        for round in 0..10 {
            let census = Census::default();
            let engine = bed.engine();
            let file = bed.file(&engine, medium, &format!("{medium:?}-{round}"), &pattern(4 * BLOCK, 6));
            let (sender, receiver) = channel();
            let others = Count::default();
            for block in 0..4 {
                let others = others.clone();
                let read = file.read_at(census.buffer(BLOCK, 0), block * BLOCK as u64);
                read.on_completion(move |_| others.add()).expect("open");
            }
            let sync = file.sync_all();
            let callback = move |done: std::io::Result<()>| {
                done.expect("on a disk");
                drop(file);
                drop(engine);
                sender.send(()).expect("somebody listens");
            };
            sync.on_completion(callback).expect("open");
            receiver.recv().expect("the callback comes to its end");
            eventually("the others are called", || others.value() == 4);
            eventually("their buffers are freed", || census.live() == 0);
        }
    }
}

pub(crate) fn all_are_called_before_the_engine_has_ended(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(4).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 7));
    let census = Census::default();
    // It ends, has its place still, and nobody asks for its result.
    let kept = file.try_read_at(census.buffer(BLOCK, 0), 0).expect("there is room");
    let (sender, receiver) = channel();
    // Three are with their backend, five in line.
    for i in 0..8 {
        let sender = sender.clone();
        let read = file.read_at(census.buffer(BLOCK, 0), 0);
        read.on_completion(move |BufResult(n, _)| sender.send((i, n)).expect("somebody listens")).expect("open");
    }
    // Two streams on which nothing will ever come; the second one's operation is behind another one that nobody polls.
    let (first, _writer) = support::pipe();
    let (second, _other_writer) = support::pipe();
    let streams = [first, second].map(|reader| engine.adopt(reader.into()).expect("a pipe"));
    let mut before = streams[1].read(census.buffer(BLOCK, 0));
    assert!(poll_once(&mut before).is_pending());
    for (i, stream) in streams.iter().enumerate() {
        let sender = sender.clone();
        let read = stream.read(census.buffer(BLOCK, 0));
        read.on_completion(move |BufResult(n, _)| sender.send((8 + i, n)).expect("somebody listens")).expect("open");
    }
    drop(sender);
    eventually("they are with their backend", || held.held() == 4);
    assert!(receiver.try_recv().is_err(), "nothing has ended");
    let dropping = std::thread::spawn(move || drop(engine));
    held.open();
    dropping.join().expect("no panic");
    let mut results: Vec<_> = receiver.try_iter().collect();
    assert!(receiver.try_recv().is_err());
    results.sort_by_key(|(i, _)| *i);
    assert_eq!(results.iter().map(|(i, _)| *i).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>(), "each once");
    for (i, result) in results {
        match result {
            Ok(n) => assert!(n == BLOCK && i < 8, "{i}: {n}"),
            Err(error) => {
                assert!(i >= 3, "request {i} was with its backend: {error}");
                assert_closed(error);
            }
        }
    }
    // And none is taken any more: the operation comes back.
    let refused = file.read_at(census.buffer(BLOCK, 0), 0).on_completion(|_| panic!("called after the end"));
    let refused = refused.expect_err("the engine has ended");
    assert!(refused.to_string().contains("shut down"), "{refused}");
    assert_closed(refused.into_inner().wait().0.expect_err("the engine has ended"));
    drop((kept, before));
    assert_eq!(census.live(), 0);
    // The only place is that of a result which nobody takes: who is in line for it does not hold the end up.
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(1).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "other", &pattern(BLOCK, 7));
    let kept = file.try_read_at(buffer(BLOCK), 0).expect("there is room");
    let (sender, receiver) = channel();
    let in_line = file.read_at(buffer(BLOCK), 0);
    in_line.on_completion(move |BufResult(n, _)| sender.send(n).expect("somebody listens")).expect("open");
    held.open();
    drop(engine);
    assert_closed(receiver.try_recv().expect("it was called").expect_err("there was no place"));
    drop(kept);
}

#[cfg(unix)]
fn readable_bytes(reader: &impl std::os::fd::AsRawFd) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes an int to `bytes`.
    assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes
}

#[cfg(unix)]
pub(crate) fn streams_transfer_just_before(bed: &Bed) {
    let engine = bed.engine();
    // So that this thread is the only one that collects.
    engine.notification().expect("a descriptor");
    let (reader, mut writer) = support::pipe();
    let watched = reader.try_clone().expect("a duplicate");
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let (sender, receiver) = channel();
    let read = |sender: &Sender<_>| {
        let (sender, watched) = (sender.clone(), watched.try_clone().expect("a duplicate"));
        reader
            .read(vec![0; 3])
            .on_completion(move |BufResult(n, back)| {
                let left = readable_bytes(&watched);
                sender.send((n.map(|n| back[..n].to_vec()), left)).expect("somebody listens");
            })
            .expect("open")
    };
    // In the order of the calls. The handles of the first two are dropped: that cancels nothing.
    drop(read(&sender));
    drop(read(&sender));
    let third = read(&sender);
    engine.turn(0, usize::MAX, None);
    writer.write_all(b"abcdef").expect("room");
    assert_eq!((readable_bytes(&watched), receiver.try_recv().is_err()), (6, true), "nobody has collected");
    let mut results = Vec::new();
    while results.len() < 2 {
        engine.turn(1, usize::MAX, None);
        results.extend(receiver.try_iter());
    }
    let results: Vec<_> = results.into_iter().map(|(result, left)| (result.expect("readable"), left)).collect();
    assert_eq!(results, [(b"abc".to_vec(), 3), (b"def".to_vec(), 0)]);
    // Cancelled, it has taken nothing; its callback comes all the same, and not from inside.
    assert_eq!(third.cancel(), CancelOutcome::Cancelled);
    assert!(receiver.try_recv().is_err(), "nobody has collected");
    writer.write_all(b"ghi").expect("room");
    engine.turn(1, usize::MAX, None);
    let (result, left) = receiver.try_recv().expect("it was called");
    assert_eq!((code(result), left), (libc::ECANCELED, 3));
    assert_eq!(third.cancel(), CancelOutcome::Done);
    assert_eq!(reader.read(vec![0; 3]).wait().1, b"ghi");
    // The end of a stream, and its close.
    drop(read(&sender));
    let close = reader.clone().close();
    close.wait().expect("it closes");
    while receiver.try_recv().map(|(result, _)| code(result)) != Ok(libc::ECANCELED) {
        engine.turn(1, usize::MAX, None);
    }
}

pub(crate) fn cancelled_by_the_handle(bed: &Bed) {
    let held = Held::new(transfers(1));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(1).build().expect("an engine");
    let path = bed.make("file", &[0; BLOCK]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let (sender, receiver) = channel();
    let handles: Vec<_> = (1..4)
        .map(|i| {
            let sender = sender.clone();
            let write = file.write_at(filled(&[i; BLOCK]), 0);
            let callback = move |BufResult(n, _)| sender.send((i, n)).expect("somebody listens");
            write.on_completion(callback).expect("open")
        })
        .collect();
    let ids: std::collections::BTreeSet<_> = handles.iter().map(|handle| handle.id()).collect();
    assert!(ids.len() == 3 && !ids.contains(&0), "{ids:?}");
    eventually("one is with the backend", || held.held() == 1);
    assert_eq!(handles[0].cancel(), CancelOutcome::Running, "it has begun");
    assert_eq!(handles[1].cancel(), CancelOutcome::Cancelled);
    let (i, result) = receiver.recv().expect("it was cancelled");
    assert_eq!((i, code(result)), (2, libc::ECANCELED));
    assert_eq!(handles[1].cancel(), CancelOutcome::Done);
    held.open();
    let mut rest: Vec<_> = (0..2).map(|_| receiver.recv().expect("they are served")).collect();
    rest.sort_by_key(|(i, _)| *i);
    for ((i, result), wanted) in rest.into_iter().zip([1, 3]) {
        assert_eq!((i, result.expect("room")), (wanted, BLOCK));
    }
    assert_eq!(handles[0].cancel(), CancelOutcome::Done);
    assert!(!held.log().is_empty() && held.served() == 2, "the cancelled one has not run");
}

pub(crate) fn from_several_threads(bed: &Bed) {
    const THREADS: usize = 4;
    const EACH: usize = 200;
    for medium in bed.media() {
        let engine = bed.builder().capacity(16).queue_depth(8).build().expect("an engine");
        let data = pattern(16 * BLOCK, 8);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        bed.evict(&path, 0, 0);
        let census = Census::default();
        let (called, cancelled) = (Count::default(), Count::default());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (file, data, census) = (&file, Arc::new(data.clone()), &census);
                let (called, cancelled, engine) = (&called, &cancelled, &engine);
                scope.spawn(move || {
                    for i in 0..EACH {
                        let block = (thread + i) % 16;
                        let (called, stopped, data) = (called.clone(), cancelled.clone(), data.clone());
                        let read = file.read_at(census.buffer(BLOCK, 0), (block * BLOCK) as u64);
                        let callback = move |BufResult(n, back): BufResult<usize, crate::tools::CountedBuf>| {
                            match n {
                                Ok(n) => {
                                    assert_eq!(n, BLOCK);
                                    assert_eq!(back.as_slice(), &data[block * BLOCK..][..BLOCK]);
                                }
                                Err(error) => {
                                    // Of what was cancelled when the engine had ended already, that is what is said.
                                    let cancelled = polyaio::Errno::of(&error) == Some(polyaio::Errno(libc::ECANCELED));
                                    assert!(cancelled || error.kind() == std::io::ErrorKind::NotConnected, "{error:?}");
                                    stopped.add();
                                }
                            }
                            called.add();
                        };
                        let handle = read.on_completion(callback).expect("open");
                        match i % 10 {
                            3 => _ = handle.cancel(),
                            5 => _ = engine.turn(0, usize::MAX, None),
                            7 => _ = file.len().wait().expect("a length"),
                            _ => {}
                        }
                    }
                });
            }
        });
        let stats = engine.stats();
        assert_healthy(&stats);
        bed.look(&engine);
        let counted = (engine.clone(), engine);
        drop(counted);
        assert_eq!(called.value(), THREADS * EACH, "all before the drop has returned");
        drop(file);
        assert_eq!((census.made(), census.live()), (THREADS * EACH, 0));
        println!("{medium:?}: {} cancelled", cancelled.value());
    }
}

/// Operations that were polled, begun, cancelled, or have ended before they are given their callback.
pub(crate) fn begun_before(bed: &Bed) {
    let engine = bed.engine();
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 9));
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let (sender, receiver) = channel();
    let send = |what: &'static str| {
        let sender: Sender<_> = sender.clone();
        move |BufResult(n, _): BufResult<usize, Vec<u8>>| sender.send((what, n)).expect("somebody listens")
    };
    let mut polled = file.write_at(vec![1; BLOCK], 0);
    assert!(poll_once(&mut polled).is_pending());
    polled.on_completion(send("polled")).expect("open");
    let begun = file.try_write_at(vec![1; BLOCK], 0).expect("there is room");
    begun.on_completion(send("begun")).expect("open");
    file.try_read_at(Vec::new(), 0).expect("it needs no room").on_completion(send("ended")).expect("open");
    let mut cancelled = file.read_at(vec![0; BLOCK], 0);
    assert_eq!(cancelled.cancel(), CancelOutcome::Cancelled);
    cancelled.on_completion(send("cancelled")).expect("open");
    let mut stream = reader.read(vec![0; 10]);
    assert!(poll_once(&mut stream).is_pending());
    stream.on_completion(send("stream")).expect("open");
    writer.write_all(b"12345").expect("room");
    let mut results: Vec<_> = (0..5).map(|_| receiver.recv().expect("each is called")).collect();
    results.sort_by_key(|(what, _)| *what);
    let results: Vec<_> = results
        .into_iter()
        .map(|(what, n)| (what, n.map_err(|e| polyaio::Errno::of(&e).map(|errno| errno.0))))
        .collect();
    let wanted = [
        ("begun", Ok(BLOCK)),
        ("cancelled", Err(Some(libc::ECANCELED))),
        ("ended", Ok(0)),
        ("polled", Ok(BLOCK)),
        ("stream", Ok(5)),
    ];
    assert_eq!(results, wanted);
}
