//! A fixed number of places for futures in flight, polled only when they were woken.
//!
//! This is all the executor that the examples need: `engine.block_on` drives the completions, and a place whose
//! request completed is polled again. A place that waits costs nothing, so a depth of 1 000 is as cheap per request as
//! one of 4.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future in a place. It is boxed once when it starts, not once per request.
pub(crate) type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Which places were woken since they were last polled. The wakers of all places point here.
pub(crate) struct Board {
    woken: Mutex<Woken>,
    places: Vec<AtomicBool>,
}

/// Bounded by the number of places: a place is listed once, however often it is woken.
struct Woken {
    places: Vec<usize>,
    /// The task that polls the places; `None` while it is polling them and will look by itself.
    sleeper: Option<Waker>,
}

impl Board {
    /// A board for `count` places.
    pub(crate) fn new(count: usize) -> Arc<Board> {
        let woken = Woken { places: Vec::with_capacity(count), sleeper: None };
        let places = (0..count).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Board { woken: Mutex::new(woken), places })
    }

    /// Has every place polled again, for news that concern them all.
    #[allow(dead_code, reason = "not every example has such news")]
    pub(crate) fn wake_all(&self) {
        for place in 0..self.places.len() {
            self.wake(place);
        }
    }

    fn wake(&self, place: usize) {
        if self.places[place].swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = self.lock();
        woken.places.push(place);
        let sleeper = woken.sleeper.take();
        drop(woken);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Woken> {
        // Nothing panics while it is held, and the list is valid after every step.
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct PlaceWaker {
    board: Arc<Board>,
    place: usize,
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.board.wake(self.place);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.board.wake(self.place);
    }
}

/// The places of a [`Board`], with the futures in them.
pub(crate) struct Slots<'a, T> {
    board: Arc<Board>,
    tasks: Vec<Option<Task<'a, T>>>,
    wakers: Vec<Waker>,
    /// The list being worked off. It changes places with the board's, so that neither allocates again.
    round: Vec<usize>,
    live: usize,
}

impl<'a, T> Slots<'a, T> {
    /// Empty places.
    pub(crate) fn new(board: Arc<Board>) -> Slots<'a, T> {
        let count = board.places.len();
        let waker = |place| Waker::from(Arc::new(PlaceWaker { board: board.clone(), place }));
        let wakers = (0..count).map(waker).collect();
        let tasks = (0..count).map(|_| None).collect();
        Slots { board, tasks, wakers, round: Vec::with_capacity(count), live: 0 }
    }

    /// Puts `task` into an empty place; it runs from the next [`Slots::poll_woken`] on.
    pub(crate) fn start(&mut self, place: usize, task: Task<'a, T>) {
        debug_assert!(self.tasks[place].is_none(), "place {place} is taken");
        self.tasks[place] = Some(task);
        self.live += 1;
        self.board.wake(place);
    }

    /// How many places are taken.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Polls every place that was woken, once, and reports those that finished. Arranges for `context` to be woken
    /// when there is more to poll.
    pub(crate) fn poll_woken(&mut self, context: &mut Context<'_>, mut finished: impl FnMut(usize, T)) {
        let mut round = std::mem::take(&mut self.round);
        {
            let mut woken = self.board.lock();
            woken.sleeper = None;
            std::mem::swap(&mut woken.places, &mut round);
        }
        for place in round.drain(..) {
            // Before the poll: a wake during it must list the place again. A swap and not a store, so that what a waker
            // did before it found the place listed already is seen by this poll.
            self.board.places[place].swap(false, Ordering::AcqRel);
            let Some(task) = &mut self.tasks[place] else {
                continue;
            };
            if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(&self.wakers[place])) {
                self.tasks[place] = None;
                self.live -= 1;
                finished(place, output);
            }
        }
        self.round = round;
        let mut woken = self.board.lock();
        if woken.places.is_empty() {
            woken.sleeper = Some(context.waker().clone());
        } else {
            // One wake for the round, not one per place: a whole batch reaches the engine together.
            drop(woken);
            context.waker().wake_by_ref();
        }
    }
}
