//! The one seat: who collects, and how the others learn that it is vacant.
//!
//! No wake-up is lost, because both sides announce themselves before they look, with a sequentially consistent fence in
//! between. Who goes to sleep says where it sleeps, and then looks: at its own news, at what is in flight, at the seat.
//! Who leaves the seat, or has submitted something, says so, and then looks who sleeps. Who was nudged and goes off to run
//! a future instead of sitting down looks once more, as if it had left the seat (`hand_over`).
//!
//! `models.rs` has loom run this under every interleaving: it knows nothing of the engine and of the kernel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Driver;
use super::background::is_driver_thread;
use super::doorbell::{Bell, Doorbell};
use super::parker::Parker;
use crate::dispatch::Core;
use crate::notify;
use crate::request::RequestId;
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, lock, thread_mark};

/// Who has the seat, and who sleeps without it.
pub(super) struct Seat<B = Doorbell> {
    /// Who has it: the thread's mark; 0 while it is vacant.
    holder: AtomicUsize,
    /// Threads that sleep without the seat.
    parked: Mutex<Vec<Arc<Parker<B>>>>,
    /// At least as many as are in `parked`.
    parked_count: AtomicUsize,
}

/// What is driven from the seat: an engine, or a model of one.
pub(super) trait Driven {
    /// What ends the sleep in the seat.
    type Bell: Bell;

    fn seat(&self) -> &Seat<Self::Bell>;

    /// Whether a thread that sleeps has to sleep in the seat for something to happen.
    fn needs_driving(&self) -> bool;

    /// Whether a thread that has nothing to collect had better stay in the seat than sleep elsewhere: what is submitted next
    /// then finds it there, and nobody has to wake it for that.
    fn stays(&self) -> bool {
        false
    }

    /// Submits what is queued. The thread is then going to wait for nothing but `attended`, if that is named.
    fn flush(&self, attended: Option<RequestId>);

    /// Sleeps for one request only, where its backend lends itself to that. `false`: it has not slept.
    fn wait_for(&self, id: RequestId) -> bool {
        let _ = id;
        false
    }

    /// Completes what is there.
    fn reap(&self);

    /// A round of [`wait`] begins.
    fn settle(&self) {}

    /// Sleeps without the seat, until the thread is woken, unless `unless` says so.
    fn rest(&self, parker: &Parker<Self::Bell>, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        parker.park(timeout, unless);
    }

    /// Calls callbacks whose time has come.
    fn call_back(&self) {}

    /// Whether callbacks are to be called before the next sleep.
    fn has_callbacks(&self) -> bool {
        false
    }

    /// The thread goes off to do something else: what has callbacks still needs somebody who collects.
    fn retire(&self) {}

    /// Sleeps in the seat until something happens that may concern the thread, and completes what is there.
    fn drive(&self, parker: &Parker<Self::Bell>, timeout: Option<Duration>);

    /// The seat was left.
    fn vacated(&self) {}

    /// Whether futures are pending that no thread of ours waits for.
    fn is_foreign(&self) -> bool;

    /// Nobody sits, and nobody is parked: starts the background thread, if that is wanted. `false` where it cannot be had.
    fn attend(&self) -> bool;
}

impl<B: Bell> Seat<B> {
    pub(super) fn new() -> Self {
        Self { holder: AtomicUsize::new(0), parked: Mutex::new(Vec::new()), parked_count: AtomicUsize::new(0) }
    }

    pub(super) fn take(&self) -> bool {
        self.holder.compare_exchange(0, thread_mark(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether this thread has it.
    fn is_mine(&self) -> bool {
        self.holder.load(Ordering::SeqCst) == thread_mark()
    }

    fn is_vacant(&self) -> bool {
        self.holder.load(Ordering::SeqCst) == 0
    }

    fn nudge_one(&self) -> bool {
        let next = lock(&self.parked).first().cloned();
        next.is_some_and(|parker| {
            parker.nudge();
            true
        })
    }
}

/// Sleeps until something happens that may concern this thread. Returns early rather than late.
pub(super) fn sleep<D: Driven>(driven: &D, parker: &Arc<Parker<D::Bell>>, timeout: Option<Duration>) {
    let seat = driven.seat();
    // Who sleeps without the seat would take it.
    if driven.needs_driving() || driven.stays() && seat.parked_count.load(Ordering::SeqCst) == 0 {
        // A waker that waits, called by who sits: nobody else can drive, and the seat stays taken afterwards.
        let seated = seat.is_mine();
        if seated || seat.take() {
            // A subscriber that waits for I/O needs the seat.
            let _held = crate::events::hold();
            driven.drive(parker, timeout);
            if !seated {
                leave(driven);
            }
            return;
        }
    }
    seat.parked_count.fetch_add(1, Ordering::SeqCst);
    lock(&seat.parked).push(parker.clone());
    // Who left the seat, or submitted, before this thread could be nudged: look once more before the sleep.
    driven.rest(parker, timeout, || is_vacant(driven));
    lock(&seat.parked).retain(|other| !Arc::ptr_eq(other, parker));
    seat.parked_count.fetch_sub(1, Ordering::SeqCst);
}

/// Whether somebody should sit down and nobody does.
fn is_vacant<D: Driven>(driven: &D) -> bool {
    driven.needs_driving() && driven.seat().is_vacant()
}

/// Leaves the seat to whoever needs it.
pub(super) fn leave<D: Driven>(driven: &D) {
    driven.seat().holder.store(0, Ordering::SeqCst);
    driven.vacated();
    if !is_driver_thread() {
        hand_over(driven);
    }
}

/// Before a thread goes off to run a future: lets a parked thread take the seat that this one was nudged to take.
pub(super) fn hand_over<D: Driven>(driven: &D) {
    // Pairs with the fence of `Parker::park`: who is not counted yet will see that the seat is vacant.
    fence(Ordering::SeqCst);
    if driven.seat().parked_count.load(Ordering::SeqCst) > 0 || driven.is_foreign() {
        ensure_driven(driven);
    }
}

/// Sees to it that somebody collects, although the calling thread is not going to wait: a parked thread, or the
/// background thread where futures are pending that no thread of ours waits for. `false` where it cannot be started.
pub(super) fn ensure_driven<D: Driven>(driven: &D) -> bool {
    // Pairs with the fence of `Parker::park`: who is not in the list yet will see what was submitted.
    fence(Ordering::SeqCst);
    !is_vacant(driven) || driven.seat().nudge_one() || driven.attend()
}

/// Polls until the end, or until `deadline`, and collects meanwhile. What is pending may name the one request that it waits
/// for. The caller then [parts](part).
pub(super) fn wait<D: Driven, T>(
    driven: &D,
    parker: &Arc<Parker<D::Bell>>,
    deadline: Option<Instant>,
    mut poll: impl FnMut() -> Result<T, Option<RequestId>>,
) -> Option<T> {
    let mut restless = false;
    loop {
        parker.take_notified();
        driven.settle();
        let awaited = match poll() {
            Ok(output) => return Some(output),
            Err(awaited) => awaited,
        };
        if parker.is_notified() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // A future that wakes itself in each poll.
            return None;
        }
        if parker.is_notified() && std::mem::replace(&mut restless, true) {
            // Woken in each poll, as by itself: what it waits for has to go out, and to come in, all the same.
            driven.flush(None);
            driven.reap();
        }
        while !parker.is_notified() {
            restless = false;
            driven.flush(awaited);
            driven.reap();
            driven.call_back();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            // Who waits for one request need not sit: others who want the seat taken sit down, or are nudged to.
            let rests = !parker.is_notified() && !driven.has_callbacks();
            if rests && !awaited.is_some_and(|id| driven.wait_for(id)) {
                sleep(driven, parker, left);
            }
        }
        // Also where the future is woken again and again.
        driven.call_back();
        hand_over(driven);
    }
}

/// After a wait, however it has ended.
pub(super) fn part<D: Driven>(driven: &D, parker: &Parker<D::Bell>) {
    // What was polled in here relied on this thread to flush, and on somebody to collect.
    driven.flush(None);
    hand_over(driven);
    driven.retire();
    // A wake-up that an outer `block_on` of this thread waits for may have been taken by this one: let it look.
    parker.notify();
}

impl Driven for Arc<Core> {
    type Bell = Doorbell;

    fn seat(&self) -> &Seat {
        &self.driver.seat
    }

    fn needs_driving(&self) -> bool {
        Core::needs_driving(self)
    }

    fn stays(&self) -> bool {
        // With an executor that is not ours this thread is woken by completions alone, round by round. A program that drives
        // has what it polls told by the same events.
        is_driver_thread() && !self.driver.exported.load(Ordering::SeqCst) && !self.fork.is_child()
    }

    fn flush(&self, attended: Option<RequestId>) {
        self.flush_attending(attended);
    }

    fn wait_for(&self, id: RequestId) -> bool {
        Core::wait_for(self, id)
    }

    fn reap(&self) {
        Core::reap(self, crate::dispatch::REAP_MAX);
    }

    fn call_back(&self) {
        notify::run(self, crate::dispatch::REAP_MAX);
    }

    fn has_callbacks(&self) -> bool {
        notify::is_due(self)
    }

    fn retire(&self) {
        if self.notifications.live() > 0 && !notify::is_collecting(self) {
            self.driver.ensure_driven_for_callbacks(self);
        }
    }

    fn settle(&self) {
        self.settle_aside();
    }

    fn rest(&self, parker: &Parker, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        self.patiently(timeout, |timeout| Core::rest(self, parker, timeout, unless));
    }

    fn drive(&self, parker: &Parker, timeout: Option<Duration>) {
        self.patiently(timeout, |timeout| self.driver.drive(self, parker, timeout));
    }

    #[cfg(all(unix, feature = "tokio"))]
    fn vacated(&self) {
        self.driver.call_reactors(self);
    }

    fn is_foreign(&self) -> bool {
        self.driver.foreign.load(Ordering::SeqCst)
    }

    fn attend(&self) -> bool {
        let wanted = self.is_foreign() && !self.driver.exported.load(Ordering::SeqCst);
        !wanted || self.driver.start_background(self)
    }
}

impl Driver {
    /// As [`sleep`].
    pub(super) fn sleep(&self, core: &Arc<Core>, parker: &Arc<Parker>, timeout: Option<Duration>) {
        sleep(core, parker, timeout);
    }

    pub(super) fn take_seat(&self) -> bool {
        self.seat.take()
    }

    /// As [`leave`].
    pub(super) fn leave_seat(&self, core: &Arc<Core>) {
        leave(core);
    }

    /// As [`hand_over`], and for callbacks too.
    pub(super) fn retire(&self, core: &Arc<Core>) {
        hand_over(core);
        core.retire();
    }

    /// A callback's time has come: somebody who collects is to look before the next sleep.
    pub(crate) fn summon(&self, core: &Arc<Core>) {
        self.announce();
        if self.seat.is_vacant() {
            self.ensure_driven(core);
        } else if !self.seat.is_mine() {
            // Whoever sleeps there next takes the ring, if this one does not. The thread itself looks when it has left.
            self.doorbell.ring();
        }
    }

    /// As [`ensure_driven`].
    pub(crate) fn ensure_driven(&self, core: &Arc<Core>) -> bool {
        ensure_driven(core)
    }
}
