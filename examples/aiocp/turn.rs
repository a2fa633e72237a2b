//! Whose turn it is: keeps a stream in order while many blocks are in flight.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Numbers are served one after the other, each exactly once. At most one waiter per place of the copy.
#[derive(Default)]
pub(crate) struct Turn {
    now: Cell<u64>,
    waiting: RefCell<Vec<(u64, Waker)>>,
}

impl Turn {
    /// Waits until all lower numbers have been passed on.
    pub(crate) async fn wait(&self, number: u64) {
        poll_fn(|context| {
            if self.now.get() == number {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            match waiting.iter_mut().find(|(waiter, _)| *waiter == number) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => waiting.push((number, context.waker().clone())),
            }
            Poll::Pending
        })
        .await;
    }

    /// The holder of the turn is done: the next number's turn.
    pub(crate) fn pass_on(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        let mut waiting = self.waiting.borrow_mut();
        if let Some(at) = waiting.iter().position(|(waiter, _)| *waiter == now) {
            let (_, waker) = waiting.swap_remove(at);
            drop(waiting);
            waker.wake();
        }
    }
}
