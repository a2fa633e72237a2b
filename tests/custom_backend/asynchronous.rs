use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use polyaio::backend::{Batch, CancelOutcome, Capabilities, OpSet, Refusal, Serves, VirtualFile};
use polyaio::{
    Backend, BufResult, Engine, Errno, File, IoBuf as _, Op, OpKind, OpenOptions, Policy, RawHandle, Request, RequestId,
};

use crate::code;
use crate::support::{Scratch, pattern};
use crate::tools::{Begun, Census, Numbers, Watchdog, join, lock, serve};

const BOUND: usize = 32;

/// Holds requests until there are enough of them, or no more to come, and serves them on a thread of its own in an order
/// that looks random. Files that it opened itself read as zeroes.
struct Shuffling {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    requests: Vec<Request>,
    /// It begins when it has so many.
    enough: usize,
    ending: bool,
    order: Vec<Option<u64>>,
    open: BTreeMap<u64, usize>,
}

impl Shuffling {
    fn start(seed: u64, enough: usize) -> Arc<Self> {
        let (requests, order, open) = (Vec::new(), Vec::new(), BTreeMap::new());
        let state = State { requests, enough, ending: false, order, open };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || theirs.run(Numbers::new(seed)));
        Arc::new(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Serves whatever it has from now on.
    fn go(&self) {
        lock(&self.shared.state).enough = 1;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self, mut numbers: Numbers) {
        loop {
            let request = {
                let mut state = lock(&self.state);
                while state.requests.len() < state.enough && !state.ending {
                    state = self.changed.wait(state).expect("nobody panics");
                }
                if state.requests.is_empty() {
                    return;
                }
                // Those that are left do not wait for new ones.
                state.enough = 1;
                let which = numbers.below(state.requests.len());
                let request = state.requests.swap_remove(which);
                state.order.push(request.position());
                request
            };
            // With no lock held: what waits for this end may submit from inside.
            match request.handle() {
                RawHandle::Virtual(number) => self.serve_own(request, number),
                _ => serve(request),
            }
        }
    }

    fn serve_own(&self, mut request: Request, number: u64) {
        match request.kind() {
            OpKind::Read => {
                let length = request.length();
                // SAFETY: a read's memory is written, and not used any more when the request is completed.
                for range in unsafe { request.start() } {
                    // SAFETY: the range may be written until then.
                    unsafe { range.base.write_bytes(0, range.len) };
                }
                request.complete(Ok(length));
            }
            OpKind::Close => {
                *lock(&self.state).open.entry(number).or_default() -= 1;
                request.complete(Ok(0));
            }
            _ => request.complete(Err(Errno(libc::EROFS))),
        }
    }
}

impl Backend for Shuffling {
    fn name(&self) -> &'static str {
        "shuffling"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BOUND);
        capabilities.operations = OpSet::NONE.with(OpKind::Read).with(OpKind::Write).with(OpKind::SyncData);
        capabilities.operations = capabilities.operations.with(OpKind::SyncAll).with(OpKind::Close);
        capabilities.serves = Serves::Seekable;
        capabilities.cancel = true;
        capabilities
    }

    fn open(&self, path: &Path, _options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        let number = path.to_str()?.strip_prefix("shuffling:")?.parse().ok()?;
        *lock(&self.shared.state).open.entry(number).or_default() += 1;
        Some(Ok(VirtualFile { number, alignment: 1 }))
    }

    fn close(&self, number: u64) {
        *lock(&self.shared.state).open.entry(number).or_default() -= 1;
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        let mut state = lock(&self.shared.state);
        while let Some(request) = batch.take() {
            if state.requests.len() == BOUND {
                batch.put_back(request, Refusal::Busy);
                break;
            }
            state.requests.push(request);
        }
        self.shared.changed.notify_all();
    }

    fn cancel(&self, id: RequestId) -> CancelOutcome {
        let request = {
            let mut state = lock(&self.shared.state);
            let at = state.requests.iter().position(|request| request.id() == id);
            at.map(|at| state.requests.swap_remove(at))
        };
        let Some(request) = request else { return CancelOutcome::Unknown };
        request.complete(Err(Errno(libc::ECANCELED)));
        CancelOutcome::Cancelled
    }

    fn shutdown(&self) {
        lock(&self.shared.state).ending = true;
        self.shared.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            thread.join().expect("no panic");
        }
    }
}

const BLOCK: usize = 512;

fn bench(shuffling: &Arc<Shuffling>, data: &[u8]) -> (Scratch, Engine, File) {
    let scratch = Scratch::new();
    let path = scratch.file("file", data);
    let policy = Policy::Prefer(vec!["shuffling".into()]);
    let builder = Engine::builder().backend(shuffling.clone()).policy(policy).strict(false);
    let engine = builder.slow_submit(Duration::MAX).build().expect("an engine");
    let file = OpenOptions::new().read(true).write(true).open(&engine, path).expect("it is there");
    (scratch, engine, file)
}

/// More requests than it holds, which end in an order that is not theirs: each has its own data.
#[test]
fn in_any_order() {
    const COUNT: usize = 8 * BOUND;
    let _watchdog = Watchdog::new("custom_backend: asynchronous in_any_order");
    for seed in 1..5 {
        let shuffling = Shuffling::start(seed, BOUND);
        let data = pattern(COUNT * BLOCK, seed);
        let (_scratch, engine, file) = bench(&shuffling, &data);
        let reads = (0..COUNT).map(|i| file.read_at(Vec::with_capacity(BLOCK), (i * BLOCK) as u64));
        for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(back, data[i * BLOCK..][..BLOCK], "block {i}");
        }
        let order = lock(&shuffling.shared.state).order.clone();
        assert!(order.len() == COUNT && !order.is_sorted(), "{order:?}");
        assert_eq!(
            (engine.stats().served_by(), engine.stats().total_fallbacks()),
            (vec![("shuffling", COUNT as u64)], 0)
        );
        assert!(engine.stats().backends[0].busy > 0);
    }
}

/// It knows of no order; the engine does.
#[test]
fn a_sync_after_the_writes_before_it() {
    let _watchdog = Watchdog::new("custom_backend: asynchronous a_sync_after_the_writes_before_it");
    let shuffling = Shuffling::start(7, 1);
    let (_scratch, engine, file) = bench(&shuffling, &[]);
    for round in 1..=10 {
        let mut batch = engine.batch();
        for i in 0..16 {
            batch.push(file.write_all_at(vec![round; BLOCK], i * BLOCK as u64), |BufResult(done, _)| done);
        }
        batch.push(file.sync_data(), |done| done);
        engine.block_on(batch.all()).into_iter().for_each(|done| done.expect("room"));
        let order = std::mem::take(&mut lock(&shuffling.shared.state).order);
        assert_eq!((order.len(), order.last()), (17, Some(&None)), "the sync is the last: {order:?}");
    }
}

/// It can stop what it has not begun: one result each, that agrees with what was said.
#[test]
fn cancelled() {
    let _watchdog = Watchdog::new("custom_backend: asynchronous cancelled");
    let shuffling = Shuffling::start(3, usize::MAX);
    let data = pattern(BOUND * BLOCK, 1);
    let (_scratch, engine, file) = bench(&shuffling, &data);
    let census = Census::default();
    let begin = |i: usize| Begun::new(file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
    let mut reads: Vec<_> = (0..BOUND).map(begin).collect();
    reads.iter_mut().for_each(|read| assert!(read.again()));
    for read in reads.iter_mut().step_by(3) {
        assert_eq!(read.with_running(Op::cancel), Some(CancelOutcome::Cancelled));
    }
    shuffling.go();
    for (i, BufResult(n, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
        if i % 3 == 0 {
            assert_eq!(code(n), libc::ECANCELED);
        } else {
            assert_eq!((n.expect("readable"), back.as_slice()), (BLOCK, &data[i * BLOCK..][..BLOCK]));
        }
    }
    assert_eq!(census.live(), 0);
}

/// The engine's end waits for what it has, and joins its thread.
#[test]
fn dropped_in_flight() {
    let _watchdog = Watchdog::new("custom_backend: asynchronous dropped_in_flight");
    for seed in 1..20 {
        let shuffling = Shuffling::start(seed, 1);
        let (_scratch, engine, file) = bench(&shuffling, &pattern(BOUND * BLOCK, 1));
        let census = Census::default();
        let begin = |i: usize| Begun::new(file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
        let mut reads: Vec<_> = (0..BOUND).map(begin).collect();
        reads.iter_mut().for_each(|read| _ = read.again());
        drop(reads.drain(..BOUND / 2));
        drop((engine, file));
        assert!(lock(&shuffling.thread).is_none(), "it was shut down");
        for BufResult(n, _) in crate::tools::park_on(join(reads)) {
            assert_eq!(n.expect("it was in flight"), BLOCK);
        }
        assert_eq!(census.live(), 0);
    }
}

/// Files of its own beside those of the operating system, whose descriptors the pool closes: it has been offered no close
/// of those.
#[test]
fn files_of_both_kinds() {
    let _watchdog = Watchdog::new("custom_backend: asynchronous files_of_both_kinds");
    let shuffling = Shuffling::start(5, 1);
    let (_scratch, engine, file) = bench(&shuffling, &pattern(BLOCK, 1));
    let own = OpenOptions::new().read(true).write(true).open(&engine, "shuffling:7").expect("always");
    let BufResult(n, back) = own.read_at(Vec::with_capacity(100), 0).wait();
    assert_eq!((n.expect("zeroes"), &back), (back.capacity(), &vec![0; back.capacity()]));
    assert_eq!(code(own.write_at(vec![1], 0).wait().0), libc::EROFS);
    let forgotten = OpenOptions::new().read(true).open(&engine, "shuffling:8").expect("always");
    own.close().wait().expect("it says so");
    drop(forgotten);
    assert_eq!(lock(&shuffling.shared.state).open, [(7, 0), (8, 0)].into());
    file.close().wait().expect("the pool does it");
    let served = engine.stats().served_by();
    assert_eq!(served, [("shuffling", 3), ("thread-pool", 1)]);
}
