//! Operations in flight, as an executor would keep them: each has a place with a waker of its own, and is polled when that
//! was called. Nothing is allocated per request, and nothing is polled in vain.
//!
//! Few of them, inside `Engine::block_on`, are all polled whenever the task is, with its waker, as `join_all` does: a poll
//! that finds nothing costs less than a waker that tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use polyaio::{AlignedBuf, BufResult, File, Op, ops};

use super::failed;
use crate::log::{Log, Source};
use crate::patterns::Request;
use crate::scratch;
use crate::text::Failure;

/// So many are polled all together at the most.
const TOGETHER: usize = 128;

/// An operation.
pub(super) enum Flying {
    Read(Op<ops::Read<AlignedBuf>>),
    Write(Op<ops::Write<AlignedBuf>>),
}

impl Flying {
    pub(super) fn begin(file: &File, request: Request, buffer: AlignedBuf) -> Flying {
        match request.write {
            true => Flying::Write(file.write_at(buffer, request.offset)),
            false => Flying::Read(file.read_at(buffer, request.offset)),
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<BufResult<usize, AlignedBuf>> {
        match self {
            Flying::Read(read) => Future::poll(std::pin::Pin::new(read), context),
            Flying::Write(write) => Future::poll(std::pin::Pin::new(write), context),
        }
    }

    pub(super) fn wait(self) -> BufResult<usize, AlignedBuf> {
        match self {
            Flying::Read(read) => read.wait(),
            Flying::Write(write) => write.wait(),
        }
    }
}

/// Which places were woken since they were last polled: a bit each.
struct Board {
    woken: Box<[AtomicU64]>,
    /// The task that polls them has nothing to do, and `task` is to be woken.
    asleep: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Board {
    fn wake(&self, place: usize) {
        let bit = 1 << (place % 64);
        if self.woken[place / 64].fetch_or(bit, Ordering::SeqCst) & bit != 0 {
            // Whoever set it sees to the rest.
            return;
        }
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            task.iter().for_each(Waker::wake_by_ref);
        }
    }

    fn forget(&self, place: usize) {
        self.woken[place / 64].fetch_and(!(1 << (place % 64)), Ordering::SeqCst);
    }

    fn any(&self) -> bool {
        self.woken.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Has the next wake-up of a place wake this task. `false`: there was one already.
    fn sleep(&self, context: &Context<'_>) -> bool {
        {
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if !task.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                *task = Some(context.waker().clone());
            }
        }
        self.asleep.store(true, Ordering::SeqCst);
        // After that, so that a wake-up in between is seen here, or wakes.
        !self.any()
    }
}

struct Bell {
    board: Arc<Board>,
    place: usize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.board.wake(self.place);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.board.wake(self.place);
    }
}

struct Place {
    waker: Waker,
    request: Request,
    start: Instant,
    /// `None` between two operations; then `buffer` is there.
    flying: Option<Flying>,
    buffer: Option<AlignedBuf>,
}

/// The places of one thread.
pub(super) struct Places {
    board: Arc<Board>,
    places: Vec<Place>,
    /// Those without an operation, which want one.
    idle: Vec<usize>,
    /// Those whose operation was begun in this tick, and is on its way.
    fresh: Vec<usize>,
    /// Those whose operation ended in its first poll: for the next tick.
    later: Vec<usize>,
}

impl Places {
    pub(super) fn new(depth: usize, block_size: usize) -> Places {
        let board = Arc::new(Board {
            woken: (0..depth.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            asleep: AtomicBool::new(false),
            task: Mutex::new(None),
        });
        let place = |place| Place {
            waker: Waker::from(Arc::new(Bell { board: board.clone(), place })),
            request: Request { write: false, offset: 0 },
            start: Instant::now(),
            flying: None,
            buffer: Some(scratch::buffer(block_size)),
        };
        let places = (0..depth).map(place).collect();
        let list = || Vec::with_capacity(depth);
        Places { board, places, idle: list(), fresh: list(), later: list() }
    }

    /// Makes the requests of `source`, in all places. `driving`: the thread is inside `Engine::block_on`.
    pub(super) fn flight<'a, 'b>(
        &'a mut self,
        file: &'a File,
        source: &'a mut Source<'b>,
        log: &'a mut Log,
        driving: bool,
    ) -> Flight<'a, 'b> {
        self.idle.clear();
        self.idle.extend(0..self.places.len());
        let live = self.places.len();
        let together = driving && live <= TOGETHER;
        Flight { places: self, file, source, log, driving, together, live, now: Instant::now(), failure: None }
    }
}

/// All operations of a thread, from the first to the last, as one future.
pub(super) struct Flight<'a, 'b> {
    places: &'a mut Places,
    file: &'a File,
    source: &'a mut Source<'b>,
    log: &'a mut Log,
    driving: bool,
    /// All are polled whenever the task is.
    together: bool,
    /// Places that have an operation, or want one.
    live: usize,
    now: Instant,
    failure: Option<Failure>,
}

/// When an operation was begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// In this tick. What ends so soon was served by the caller, and the clock has gone on.
    Begun,
    /// Before. It had ended when the tick began.
    Sent,
}

impl Flight<'_, '_> {
    /// The poll of that future: takes what has ended, begins as much, and submits it.
    pub(super) fn tick(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.places.board.asleep.store(false, Ordering::SeqCst);
        let calls = self.log.enter();
        self.now = calls.start;
        if self.together {
            self.take_all(context);
        } else {
            self.take_woken();
        }
        let requests = self.begin_idle(context);
        self.submit(context);
        self.log.leave(calls, requests);
        std::mem::swap(&mut self.places.idle, &mut self.places.later);
        if self.live == 0 {
            return Poll::Ready(());
        }
        if !self.places.idle.is_empty() || !self.together && !self.places.board.sleep(context) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn take_all(&mut self, context: &mut Context<'_>) {
        for at in 0..self.places.places.len() {
            if self.poll(at, Age::Sent, Some(context)).is_ready() {
                self.places.idle.push(at);
            }
        }
    }

    fn take_woken(&mut self) {
        for word in 0..self.places.board.woken.len() {
            let mut bits = match self.places.board.woken[word].load(Ordering::Relaxed) {
                0 => continue,
                _ => self.places.board.woken[word].swap(0, Ordering::SeqCst),
            };
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if self.poll(at, Age::Sent, None).is_ready() {
                    self.places.idle.push(at);
                }
            }
        }
    }

    /// Begins an operation in each idle place; how many.
    fn begin_idle(&mut self, context: &mut Context<'_>) -> u64 {
        let mut begun = 0;
        while let Some(at) = self.places.idle.pop() {
            let Some(request) = self.source.next(self.now) else {
                self.live -= 1;
                continue;
            };
            begun += 1;
            let place = &mut self.places.places[at];
            let Some(buffer) = place.buffer.take() else { unreachable!("place {at} is idle") };
            (place.request, place.start) = (request, self.now);
            place.flying = Some(Flying::begin(self.file, request, buffer));
            match self.poll(at, Age::Begun, Some(context)) {
                Poll::Ready(()) => self.places.later.push(at),
                Poll::Pending => self.places.fresh.push(at),
            }
        }
        begun
    }

    /// The second poll of what was begun submits all that was queued. A thread that drives the engine needs one for all: it
    /// is what `block_on` would do before it sleeps. Elsewhere each operation has asked for its own.
    fn submit(&mut self, context: &mut Context<'_>) {
        let again = if self.driving { self.places.fresh.len().min(1) } else { self.places.fresh.len() };
        for _ in 0..again {
            let Some(at) = self.places.fresh.pop() else { break };
            self.places.board.forget(at);
            if self.poll(at, Age::Begun, Some(context)).is_ready() {
                self.places.later.push(at);
            }
        }
        self.places.fresh.clear();
    }

    /// With the task's waker, where all are polled together.
    fn poll(&mut self, at: usize, age: Age, task: Option<&mut Context<'_>>) -> Poll<()> {
        let place = &mut self.places.places[at];
        // Woken by an operation that has ended meanwhile.
        let Some(flying) = &mut place.flying else { return Poll::Pending };
        let ended = match task {
            Some(task) if self.together => flying.poll(task),
            _ => flying.poll(&mut Context::from_waker(&place.waker)),
        };
        ended.map(|ended| {
            if age == Age::Begun {
                self.now = Instant::now();
            }
            self.end(at, ended);
        })
    }

    fn end(&mut self, at: usize, BufResult(result, buffer): BufResult<usize, AlignedBuf>) {
        let place = &mut self.places.places[at];
        place.flying = None;
        match result {
            Ok(n) if n == buffer.len() => self.log.done(self.now - place.start),
            other => {
                self.source.stop();
                self.failure.get_or_insert(failed(place.request, other));
            }
        }
        place.buffer = Some(buffer);
    }

    pub(super) fn result(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}
