//! A thread of the program that runs a future, and collects meanwhile.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::on_exit::OnExit;
use super::parker::Parker;
use super::seat::{part, wait};
use crate::dispatch::Core;
use crate::request::RequestId;
use crate::settle::Deferring;

thread_local! {
    /// The engine that this thread is inside [`block_on`] of.
    static DRIVING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// Whether this thread is inside [`block_on`] of this engine: it will flush and collect before it sleeps.
pub(crate) fn is_driving(core: &Core) -> bool {
    std::ptr::eq(DRIVING.get(), core)
}

/// Runs a future to its end on this thread, collecting completions meanwhile.
pub(crate) fn block_on<F: Future>(core: &Arc<Core>, future: F) -> F::Output {
    block_on_one(core, future, |_| None)
}

/// The same for a future that is woken by the end of one request at a time, and by nothing else, as far as `awaits` names it:
/// its backend may have the thread sleep for just that.
pub(crate) fn block_on_one<F: Future>(
    core: &Arc<Core>,
    future: F,
    awaits: impl Fn(&F) -> Option<RequestId>,
) -> F::Output {
    match run(core, future, None, awaits) {
        Some(output) => output,
        None => unreachable!("there is no deadline"),
    }
}

/// As [`block_on`], until `deadline`: `None` when it has passed.
pub(crate) fn block_on_until<F: Future>(core: &Arc<Core>, future: F, deadline: Option<Instant>) -> Option<F::Output> {
    run(core, future, deadline, |_| None)
}

fn run<F: Future>(
    core: &Arc<Core>,
    future: F,
    deadline: Option<Instant>,
    awaits: impl Fn(&F) -> Option<RequestId>,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let _waiting = Deferring::wait();
    let parker = Parker::current();
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let outer = DRIVING.replace(Arc::as_ptr(core));
    let _guard = OnExit(|| {
        DRIVING.set(outer);
        part(core, &parker);
    });
    wait(core, &parker, deadline, || match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(awaits(future.as_ref().get_ref())),
    })
}
