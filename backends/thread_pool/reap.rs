//! How jobs end, and how the pool does.
//!
//! The pool completes by itself: each worker turns the result of its system call into the request's outcome and calls
//! the waker, with no lock held and nothing of its own half done. So there is nothing to collect for
//! [`Backend::reap`](crate::backend::Backend::reap).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Shared, worker};
use crate::completion::{Errno, Outcome};
use crate::request::Request;
use crate::sync::{Condvar, Mutex, lock};

/// Serves a request and completes it; a panic, of whatever part, ends here.
pub(super) fn finish(shared: &Shared, mut request: Request) {
    if request.is_abandoned() {
        // Nobody waits for it: dropped unstarted, it is cancelled.
        shared.queue.release();
        contain(|| drop(request));
        return;
    }
    let streaming = request.is_stream().then(|| StreamCount::new(&shared.loops));
    let outcome = outcome_of(&mut request, &shared.trade.serve);
    drop(streaming);
    // Before `complete`, which tells the engine that there is room: it may submit from inside.
    shared.queue.release();
    contain(|| request.complete(outcome));
}

/// What a call comes to. It is synchronous: when it is over, by return or by panic, nobody has pointers into the
/// request's memory any more, so that the request can be completed either way.
pub(super) fn outcome_of(request: &mut Request, call: impl FnOnce(&mut Request) -> Outcome) -> Outcome {
    contain(|| call(request)).unwrap_or(Err(Errno(libc::EIO)))
}

/// Calls `f`; `None` if it panicked, which the panic hook has reported.
fn contain<R>(f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => Some(result),
        Err(panic) => {
            // Its destructor is foreign code that could panic once more.
            std::mem::forget(panic);
            None
        }
    }
}

/// Takes no more, finishes what is queued, waits for the workers to leave, and lets their threads end.
///
/// Not waited for: workers inside a request on a stream, which may last for ever. They leave when their call returns;
/// all that they use until then is kept alive by their request and by their own reference to the pool. On a thread of
/// the pool nobody is waited for: the thread cannot wait for itself, and must not wait for another that may be here too.
pub(super) fn shutdown(shared: &Shared) {
    shared.queue.close();
    shared.rest.close();
    // Its destructor only hangs up on the threads.
    let threads = lock(&shared.staff).disband();
    drop(threads);
    if worker::is_own_thread(shared) {
        return;
    }
    shared.loops.wait();
    // Only where all that are left are stuck in streams: what is queued behind them is handed back as cancelled.
    while let Some(request) = shared.queue.drain() {
        contain(|| drop(request));
    }
}

/// Counts the workers' loops.
#[derive(Default)]
pub(super) struct Loops {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    /// Loops that were started and have not ended.
    running: usize,
    /// Of these, inside a system call on a stream.
    streaming: usize,
}

impl Loops {
    /// How many run.
    pub(super) fn running(&self) -> usize {
        lock(&self.counts).running
    }

    /// How many are inside a system call on a stream.
    #[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
    pub(super) fn streaming(&self) -> usize {
        lock(&self.counts).streaming
    }

    /// Waits until none is left but those that are inside a stream's call.
    fn wait(&self) {
        let mut counts = lock(&self.counts);
        while counts.running > counts.streaming {
            counts = self.changed.wait(counts).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
        self.changed.notify_all();
    }
}

/// Counts a loop for as long as it lives.
pub(super) struct LoopCount(Arc<Shared>);

impl LoopCount {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.loops.change(|counts| counts.running += 1);
        Self(shared.clone())
    }
}

impl Drop for LoopCount {
    fn drop(&mut self) {
        self.0.loops.change(|counts| counts.running -= 1);
    }
}

/// Counts a stream's call for as long as it lasts.
struct StreamCount<'a>(&'a Loops);

impl<'a> StreamCount<'a> {
    fn new(loops: &'a Loops) -> Self {
        loops.change(|counts| counts.streaming += 1);
        Self(loops)
    }
}

impl Drop for StreamCount<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| counts.streaming -= 1);
    }
}
