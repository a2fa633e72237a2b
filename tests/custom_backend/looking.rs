use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use polyaio::backend::{Backend, Batch, Capabilities, Completions, OpSet, Wait};
use polyaio::{Engine, File, OpKind, OpenOptions, Policy, Request};

#[cfg(target_os = "linux")]
use crate::support::NoThreads;
use crate::support::Scratch;
use crate::tools::Watchdog;
#[cfg(target_os = "linux")]
use crate::tools::{Respawn, respawn};

/// What it has is over when somebody looks, once the test lets it be. It tells nobody: who has submitted has to look.
#[derive(Default)]
struct Lazy {
    requests: Mutex<VecDeque<Request>>,
    over: AtomicBool,
}

impl Lazy {
    fn requests(&self) -> std::sync::MutexGuard<'_, VecDeque<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Lazy {
    fn name(&self) -> &'static str {
        "lazy"
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::new(1024);
        can.operations = OpSet::NONE.with(OpKind::SyncAll).with(OpKind::SyncData);
        can.reaped = true;
        can
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        self.requests().extend(std::iter::from_fn(|| batch.take()));
    }

    fn ready(&self) -> bool {
        self.over.load(Ordering::SeqCst) && !self.requests().is_empty()
    }

    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        let mut requests = self.requests();
        let count = requests.len().min(wait.max);
        requests.drain(..count).for_each(|request| completions.finish(request, Ok(0)));
        count
    }

    fn shutdown(&self) {
        // What nobody looks for any more is cancelled.
        self.requests().clear();
    }
}

struct Bed {
    lazy: Arc<Lazy>,
    file: File,
    engine: Engine,
    _scratch: Scratch,
}

fn bed(capacity: usize) -> Bed {
    let (lazy, scratch) = (Arc::new(Lazy::default()), Scratch::new());
    let builder = Engine::builder().backend(lazy.clone()).policy(Policy::Prefer(vec!["lazy".to_owned()]));
    let engine = builder.capacity(capacity).build().expect("an engine");
    let path = scratch.file("file", b"content");
    let file = OpenOptions::new().read(true).write(true).open(&engine, path).expect("it is there");
    lazy.over.store(true, Ordering::SeqCst);
    Bed { lazy, file, engine, _scratch: scratch }
}

/// By an executor that is not ours, and has nothing else to do.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn what_another_one_has_submitted_by_its_drop_is_looked_for() {
    let _watchdog = Watchdog::new("custom_backend: what_another_one_has_submitted_by_its_drop_is_looked_for");
    let bed = bed(64);
    let (mut one, mut other) = (bed.file.sync_all(), bed.file.sync_all());
    assert!(poll(&mut one).is_pending() && poll(&mut other).is_pending());
    drop(other);
    assert_eq!(bed.lazy.requests().len(), 2, "both were submitted");
    assert!(poll(&mut one).is_ready());
}

#[test]
fn what_one_without_a_slot_has_submitted_is_looked_for() {
    let _watchdog = Watchdog::new("custom_backend: what_one_without_a_slot_has_submitted_is_looked_for");
    let bed = bed(2);
    let mut operations = [bed.file.sync_all(), bed.file.sync_all()];
    assert!(operations.iter_mut().all(|operation| poll(operation).is_pending()));
    let mut third = bed.file.sync_all();
    // The background thread is started for it, and may be first.
    let _ = poll(&mut third);
    assert!(operations.iter_mut().all(|operation| poll(operation).is_ready()));
    assert!(poll(&mut third).is_pending() && poll(&mut third).is_ready());
}

#[test]
fn what_was_started_without_a_poll_is_looked_for() {
    let _watchdog = Watchdog::new("custom_backend: what_was_started_without_a_poll_is_looked_for");
    let bed = bed(1024);
    // So many are submitted by the last of them.
    let mut operations: Vec<_> = (0..64).map(|_| bed.file.sync_all().try_start().expect("there is room")).collect();
    assert_eq!(bed.lazy.requests().len(), 64);
    assert!(poll(&mut operations[9]).is_pending(), "it waits for company, as each does at first");
    assert!(poll(&mut operations[9]).is_ready());
    assert!(operations.iter_mut().enumerate().all(|(at, operation)| at == 9 || poll(operation).is_ready()));
}

#[test]
fn who_waits_for_no_time_at_all_looks() {
    let _watchdog = Watchdog::new("custom_backend: who_waits_for_no_time_at_all_looks");
    let bed = bed(64);
    bed.lazy.over.store(false, Ordering::SeqCst);
    let mut operation = bed.file.sync_all();
    assert!(operation.wait_timeout(Duration::ZERO).is_none());
    assert_eq!(bed.lazy.requests().len(), 1);
    bed.lazy.over.store(true, Ordering::SeqCst);
    assert!(operation.wait_timeout(Duration::ZERO).is_some());
}

/// A batch on an executor that is not ours, where the background thread cannot be started: whoever polls has to look, though what
/// it polls are not the operations.
#[cfg(target_os = "linux")]
#[test]
fn a_batch_ends_where_no_thread_can_be_had() {
    let _watchdog = Watchdog::new("custom_backend: a_batch_ends_where_no_thread_can_be_had");
    if let Respawn::Parent(child) = respawn("looking::a_batch_ends_where_no_thread_can_be_had") {
        child.expect_success();
        return;
    }
    let bed = bed(64);
    let _no_threads = NoThreads::begin();
    for rounds in 1..4 {
        let mut batch = bed.engine.batch();
        for _ in 0..9 {
            batch.push(bed.file.sync_all(), |result| result.expect("it has ended"));
        }
        bed.lazy.over.store(false, Ordering::SeqCst);
        let mut all = std::pin::pin!(batch.all());
        assert!((0..3).all(|_| poll(&mut all).is_pending()));
        bed.lazy.over.store(true, Ordering::SeqCst);
        assert!(poll(&mut all).is_ready() || poll(&mut all).is_ready(), "nobody has looked");
        let lone = (0..9).map(|_| bed.file.sync_all());
        futures::executor::block_on(futures::future::try_join_all(lone)).expect("they have ended");
        assert_eq!(bed.engine.stats().backends[0].requests, 18 * rounds);
    }
}
