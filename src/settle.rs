//! How requests end: judged first, all of a batch, and then published.
//!
//! A request that ends is *judged* by its owner (done, or another step), counted out of its engine, and *published*: its
//! future has the result, and its waker is called. For requests that end together each of the three is done for all of them
//! before the next: what is counted once for all costs little for each, and who has a result finds it counted.
//!
//! What a backend completes inside its `submit` waits until that has returned. What the engine itself ends does not: that
//! may be inside another engine's backend, which waits for it there.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::completion::{Answer, Outcome};
use crate::request::{Owner, Place, Request};

/// What is to be counted of requests of one lane that were judged.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The lane that had them.
    pub(crate) place: Place,
    /// Requests that a backend has served, of which so many ended with an error.
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// Bytes that they have transferred.
    pub(crate) bytes: u64,
    /// Requests that the lane is rid of.
    pub(crate) left: u32,
    /// Requests that are over, of those that end by themselves.
    pub(crate) finished: usize,
}

impl Tally {
    fn of(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// What it has come to; goes on from nothing.
    pub(crate) fn take(&mut self) -> Self {
        let place = self.place;
        std::mem::replace(self, Self::of(place))
    }

    /// Counts a request that was served.
    #[inline]
    pub(crate) fn serve(&mut self, outcome: Outcome, transfer: bool) {
        self.requests += 1;
        match outcome {
            Ok(n) if transfer => self.bytes += n,
            Ok(_) => {}
            Err(_) => self.errors += 1,
        }
    }
}

/// The engine, as those see it who end its requests.
pub(crate) trait Witness: Send + Sync {
    /// Requests were judged, and are going to be published. `true`: something waits for just that, and
    /// [`make_way`](Self::make_way) is to be called.
    fn judged(&self, tally: &Tally) -> bool;

    /// Submits what waited for the room of those that were judged.
    fn make_way(self: Arc<Self>);

    /// So many requests have their results, and their wakers were called.
    fn published(&self, count: u64);
}

thread_local! {
    /// This thread is in a backend's `submit`: what ends meanwhile waits.
    static DEFERS: Cell<bool> = const { Cell::new(false) };
    /// What has ended meanwhile.
    static ENDED: RefCell<Vec<(Request, Answer)>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, requests that end on this thread wait for [`settle_deferred`].
pub(crate) struct Deferring {
    outer: bool,
}

impl Deferring {
    #[inline]
    pub(crate) fn enter() -> Self {
        Self { outer: DEFERS.replace(true) }
    }

    /// What ends is seen at once: it may be waited for by a waker, or by whoever is inside a `submit`.
    #[inline]
    fn suspend() -> Self {
        Self { outer: DEFERS.replace(false) }
    }

    /// The thread is going to wait: inside a backend's `submit` too, which may use an engine of its own, what has ended
    /// there has to be seen.
    pub(crate) fn wait() -> Self {
        let waiting = Self::suspend();
        if waiting.outer {
            settle_deferred();
        }
        waiting
    }
}

impl Drop for Deferring {
    fn drop(&mut self) {
        DEFERS.set(self.outer);
    }
}

/// Ends a request: now, or, inside a backend's `submit`, soon.
#[inline]
pub(crate) fn end(request: Request, answer: Answer) {
    let mut ended = Some((request, answer));
    if DEFERS.get() {
        // Without the list, at a thread's end, they end at once.
        let _ = ENDED.try_with(|list| list.borrow_mut().extend(ended.take()));
    }
    if let Some((request, answer)) = ended {
        settle_one(request, answer);
    }
}

/// Lets requests end at once, on a thread that may be inside another engine's `submit` too: for what is no answer of the
/// backend that submits there.
pub(crate) fn now<T>(ends: impl FnOnce() -> T) -> T {
    let _suspended = Deferring::suspend();
    ends()
}

/// Ends what a backend's `submit` has completed.
pub(crate) fn settle_deferred() {
    let take = |list: &RefCell<Vec<_>>| std::mem::take(&mut *list.borrow_mut());
    let Ok(mut ended) = ENDED.try_with(take) else { return };
    if ended.is_empty() {
        return;
    }
    settle(&mut ended);
    let _ = ENDED.try_with(|list| {
        let mut list = list.borrow_mut();
        if list.capacity() == 0 {
            // It keeps its memory.
            *list = ended;
        }
    });
}

fn settle_one(mut request: Request, answer: Answer) {
    // Not the owner itself: who has the result may drop the file, and its descriptor is closed then and there.
    let witness = request.owner().witness();
    let mut tally = Tally::of(request.body().trail.place);
    let verdict = request.judge(answer.into(), &mut tally);
    tell(witness.as_ref(), &tally);
    match verdict {
        Some(outcome) => {
            request.publish(outcome.into());
            if let Some(witness) = witness {
                witness.published(1);
            }
        }
        None => resubmit(request),
    }
}

/// Ends requests of one engine, or of several; empties the list.
pub(crate) fn settle(ended: &mut Vec<(Request, Answer)>) {
    while let Some((first, _)) = ended.first() {
        let slab = Arc::as_ptr(first.owner().slab());
        let is_same = |(request, _): &&(Request, Answer)| std::ptr::eq(Arc::as_ptr(request.owner().slab()), slab);
        let witness = first.owner().witness();
        let count = ended.iter().take_while(is_same).count();
        if count == ended.len() {
            settle_of(witness.as_ref(), ended);
        } else {
            settle_of(witness.as_ref(), &mut ended.drain(..count).collect());
        }
    }
}

/// Ends requests of one engine; empties the list.
pub(crate) fn settle_of<W: Witness + ?Sized>(engine: Option<&Arc<W>>, ended: &mut Vec<(Request, Answer)>) {
    let _suspended = Deferring::suspend();
    let Some((first, _)) = ended.first() else { return };
    let mut tally = Tally::of(first.body().trail.place);
    let goes_on = |(request, answer): &mut (Request, Answer)| {
        let place = request.body().trail.place;
        if place != tally.place {
            tell(engine, &tally);
            tally = Tally::of(place);
        }
        match request.judge((*answer).into(), &mut tally) {
            Some(verdict) => {
                *answer = verdict.into();
                false
            }
            None => true,
        }
    };
    ended.extract_if(.., goes_on).for_each(|(request, _)| resubmit(request));
    tell(engine, &tally);
    let count = ended.len() as u64;
    ended.drain(..).for_each(|(request, answer)| request.publish(answer));
    if let Some(engine) = engine {
        engine.published(count);
    }
}

fn tell<W: Witness + ?Sized>(engine: Option<&Arc<W>>, tally: &Tally) {
    if let Some(engine) = engine
        && engine.judged(tally)
    {
        engine.clone().make_way();
    }
}

/// Sends a request on its next step.
fn resubmit(request: Request) {
    // A reference of our own: the request may end, and be freed, on another thread meanwhile.
    let owner: Arc<dyn Owner> = request.owner().clone();
    owner.resubmit(request);
}
