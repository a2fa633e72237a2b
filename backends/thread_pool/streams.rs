//! The stream workers: a small pool of their own for the ordinary calls on streams, which may last for ever.
//!
//! A stream that refuses to be asked without blocking (a FIFO, a terminal) is transferred by an ordinary call once it is
//! ready. If somebody else is faster the call sleeps, and with it its worker. Those workers must not be the disk's. They
//! are started with the first such call: an engine that never makes one has no thread more.

use std::sync::Arc;
use std::time::Instant;

use super::{Options, ThreadPool, Trade, worker};
use crate::backend::{Backend, Batch, Capabilities, OpSet, Refusal};
use crate::completion::Errno;
use crate::request::OpKind;
use crate::sync::{Mutex, lock};

/// The name by which reports call it. Policies do not know it.
pub(crate) const NAME: &str = "stream-workers";

/// Threads at the most. What is ready beyond them waits for one.
const THREADS: usize = 4;

/// The name that `ps -L`, `top -H` and debuggers show.
const THREAD_NAME: &str = "polyaio-stream";

/// What a request is refused with while not one thread can be had: it was not begun, and somebody else may serve it.
/// Neither `read(2)` nor `write(2)` answers it.
pub(crate) const NO_WORKER: Errno = Errno(libc::ENOSYS);

/// A [`ThreadPool`] that starts with the first request.
pub(crate) struct StreamWorkers {
    bound: usize,
    state: Mutex<State>,
}

enum State {
    /// Nobody has asked for it.
    Asleep,
    Started(Arc<ThreadPool>),
    /// Not one thread could be had, at this time. It is tried again after a while.
    Failed(Instant),
    Closed,
}

impl StreamWorkers {
    /// Holds `bound` requests at the most.
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, state: Mutex::new(State::Asleep) }
    }

    /// The pool, started if need be.
    ///
    /// # Errors
    /// [`NO_WORKER`]; `ECANCELED` after the shutdown.
    fn pool(&self) -> Result<Arc<ThreadPool>, Errno> {
        // Held while the first thread is created: who comes second would have to wait for it anyway.
        let mut state = lock(&self.state);
        match &*state {
            State::Started(pool) => return Ok(pool.clone()),
            State::Failed(at) if at.elapsed() < worker::RETRY_AFTER => return Err(NO_WORKER),
            State::Asleep | State::Failed(_) => {}
            State::Closed => return Err(Errno(libc::ECANCELED)),
        }
        let options = Options { threads: THREADS, queue_bound: self.bound };
        match ThreadPool::start_with(options, Trade::system_calls(NAME, THREAD_NAME)) {
            Ok(pool) => {
                let pool = Arc::new(pool);
                *state = State::Started(pool.clone());
                Ok(pool)
            }
            Err(_) => {
                *state = State::Failed(Instant::now());
                Err(NO_WORKER)
            }
        }
    }
}

impl Backend for StreamWorkers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let operations = OpSet::NONE.with(OpKind::Read).with(OpKind::Write);
        Capabilities { operations, revocable: true, ..Capabilities::new(self.bound) }
    }

    /// Does not block, but for the first request of all, which starts the first thread.
    fn submit(&self, batch: &mut Batch<'_>) {
        match self.pool() {
            Ok(pool) => pool.submit(batch),
            Err(errno) => {
                while let Some(request) = batch.take() {
                    batch.put_back(request, Refusal::Unsupported(errno));
                }
            }
        }
    }

    /// As the pool's: workers inside a call are not waited for.
    fn shutdown(&self) {
        let before = std::mem::replace(&mut *lock(&self.state), State::Closed);
        if let State::Started(pool) = before {
            pool.shutdown();
        }
    }
}
