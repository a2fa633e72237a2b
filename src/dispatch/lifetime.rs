//! Whether an engine is open, and who waits for its end.

use std::task::{Poll, Waker};

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, lock};

/// Whether an engine is open.
pub(crate) struct State(AtomicU8);

impl State {
    pub(crate) fn open() -> Self {
        Self(AtomicU8::new(0))
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    /// Closes; `true` for the one caller that did it.
    pub(crate) fn close(&self) -> bool {
        self.0.swap(1, Ordering::SeqCst) == 0
    }
}

/// Who waits for the engine to drain.
#[derive(Default)]
pub(crate) struct Drained(Mutex<Option<Waker>>);

impl Drained {
    /// Asks to be woken at the next end of a request.
    pub(crate) fn register(&self, waker: &Waker) {
        let old = lock(&self.0).replace(waker.clone());
        drop(old);
    }

    /// Lets who waits look again.
    pub(crate) fn look(&self) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            crate::request::wake(waker);
        }
    }
}

/// Who waits for the engine's end.
#[derive(Default)]
pub(crate) struct Ended(Mutex<(bool, Vec<Waker>)>);

impl Ended {
    pub(crate) fn end(&self) {
        let wakers = {
            let mut state = lock(&self.0);
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(crate::request::wake);
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let mut state = lock(&self.0);
        if state.0 {
            return Poll::Ready(());
        }
        if !state.1.iter().any(|known| known.will_wake(&waker)) {
            state.1.push(waker);
        }
        Poll::Pending
    }
}
