//! A thread of the program that runs a future, and collects meanwhile.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::on_exit::OnExit;
use super::parker::Parker;
use super::seat::{part, wait};
use crate::dispatch::Core;
use crate::request::RequestId;
use crate::settle::Deferring;

/// What this thread drives.
#[derive(Clone, Copy)]
pub(super) struct Driving {
    /// The engine that it is inside [`block_on`] of.
    core: *const Core,
    /// The number of its side seat there, and whether this `block_on` has taken it; 0: none.
    side: u8,
    owned: bool,
}

thread_local! {
    static DRIVING: Cell<Driving> = const { Cell::new(Driving { core: std::ptr::null(), side: 0, owned: false }) };
}

impl Driving {
    /// The number of this thread's side seat; 0: none.
    #[inline]
    pub(super) fn side(core: &Core) -> u8 {
        let driving = DRIVING.get();
        if std::ptr::eq(driving.core, core) { driving.side } else { 0 }
    }

    pub(super) fn sit_aside(side: u8, owned: bool) {
        DRIVING.set(Self { side, owned, ..DRIVING.get() });
    }

    /// It sits there no more; the number of the seat, where this `block_on` has taken it.
    pub(super) fn rise() -> Option<u8> {
        let driving = DRIVING.get();
        DRIVING.set(Self { side: 0, owned: false, ..driving });
        driving.owned.then_some(driving.side)
    }
}

/// Whether this thread is inside [`block_on`] of this engine: it will flush and collect before it sleeps.
#[inline]
pub(crate) fn is_driving(core: &Core) -> bool {
    std::ptr::eq(DRIVING.get().core, core)
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
    Parker::with_current(|parker, waker| {
        let mut context = Context::from_waker(waker);
        let outer = DRIVING.replace(Driving { core: Arc::as_ptr(core), side: 0, owned: false });
        let _guard = OnExit(|| {
            core.leave_aside();
            DRIVING.set(outer);
            part(core, parker);
        });
        wait(core, parker, deadline, || match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => Err(awaits(future.as_ref().get_ref())),
        })
    })
}
