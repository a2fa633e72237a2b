//! The one seat: who collects, and how the others learn that it is vacant.

use std::sync::Arc;
use std::time::Duration;

use super::Driver;
use super::background::is_driver_thread;
use super::parker::Parker;
use crate::dispatch::Core;
use crate::notify;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

impl Driver {
    /// Sleeps until something happens that may concern this thread. Returns early rather than late.
    pub(super) fn sleep(&self, core: &Arc<Core>, parker: &Arc<Parker>, timeout: Option<Duration>) {
        if core.needs_driving() {
            // A waker that waits, called by who sits: nobody else can drive, and the seat stays taken afterwards.
            let seated = self.has_seat();
            if seated || self.take_seat() {
                // A subscriber that waits for I/O needs the seat.
                let _held = crate::events::hold();
                self.drive(core, parker, timeout);
                if !seated {
                    self.leave_seat(core);
                }
                return;
            }
        }
        self.parked_count.fetch_add(1, Ordering::SeqCst);
        lock(&self.parked).push(parker.clone());
        // Who left the seat, or submitted, before this thread could be nudged: look once more before the sleep.
        parker.park(timeout, || self.is_vacant(core));
        lock(&self.parked).retain(|other| !Arc::ptr_eq(other, parker));
        self.parked_count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether somebody should sit down and nobody does.
    pub(super) fn is_vacant(&self, core: &Core) -> bool {
        core.needs_driving() && self.seat.load(Ordering::SeqCst) == 0
    }

    /// Before a thread goes off to run a future: lets a parked thread take the seat that this one was nudged to take.
    pub(super) fn hand_over(&self, core: &Arc<Core>) {
        if self.parked_count.load(Ordering::SeqCst) > 0 || self.foreign.load(Ordering::SeqCst) {
            self.ensure_driven(core);
        }
    }

    /// A thread of the program goes to do something else: what has a callback still needs somebody who collects.
    pub(super) fn retire(&self, core: &Arc<Core>) {
        self.hand_over(core);
        if core.notifications.live() > 0 && !notify::is_collecting(core) {
            self.ensure_driven_for_callbacks(core);
        }
    }

    /// A callback's time has come: somebody who collects is to look before the next sleep.
    pub(crate) fn summon(&self, core: &Arc<Core>) {
        self.announce();
        match self.seat.load(Ordering::SeqCst) {
            // It looks when it has left the seat.
            seat if seat == thread_mark() => {}
            0 => _ = self.ensure_driven(core),
            // Whoever sleeps there next takes the ring, if this one does not.
            _ => self.doorbell.ring(),
        }
    }

    pub(super) fn take_seat(&self) -> bool {
        self.seat.compare_exchange(0, thread_mark(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether this thread has it.
    fn has_seat(&self) -> bool {
        self.seat.load(Ordering::SeqCst) == thread_mark()
    }

    pub(super) fn leave_seat(&self, core: &Arc<Core>) {
        self.seat.store(0, Ordering::SeqCst);
        #[cfg(feature = "tokio")]
        self.call_reactors(core);
        if !is_driver_thread() {
            self.hand_over(core);
        }
    }

    pub(super) fn nudge_one(&self) -> bool {
        let next = lock(&self.parked).first().cloned();
        next.is_some_and(|parker| {
            parker.nudge();
            true
        })
    }

    /// Sees to it that somebody collects, although the calling thread is not going to wait: a parked thread, or the
    /// background thread where futures are pending that no thread of ours waits for. `false` where it cannot be started.
    pub(crate) fn ensure_driven(&self, core: &Arc<Core>) -> bool {
        let unattended = self.is_vacant(core) && !self.nudge_one();
        let wanted = unattended && self.foreign.load(Ordering::SeqCst) && !self.exported.load(Ordering::SeqCst);
        !wanted || self.start_background(core)
    }
}

/// A number that no other thread has while this one lives. Never 0.
fn thread_mark() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}
