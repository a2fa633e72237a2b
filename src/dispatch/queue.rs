//! Into the queue of a lane, and out of it again.

use super::Core;
use super::inbox::Links;
use crate::memory::MOST_IOVECS;
use crate::request::{ONE_RANGE, Place, Request, RequestId};
use crate::slot::{Below, Slab};

impl Core {
    /// Queues a request for the lane that its trail names. It goes out with the next flush.
    pub(crate) fn enqueue(&self, request: Request) {
        self.enqueue_at(request, 0);
    }

    /// The same for a request that this thread has made just now: in its own side seat, if it has one.
    #[inline]
    pub(crate) fn enqueue_near(&self, request: Request) {
        let side = self.driver.sides.place(self, request.body().trail.backend);
        self.enqueue_at(request, side);
    }

    #[inline]
    fn enqueue_at(&self, mut request: Request, side: u8) {
        let trail = &mut request.body_mut().trail;
        trail.place = Place { backend: trail.backend, side };
        let lane = self.lane(trail.place);
        request.body_mut().step = if lane.capabilities.vectored { MOST_IOVECS as u16 } else { ONE_RANGE };
        lane.pending.push(request, &*self.slab);
        self.driver.announce();
    }

    /// Takes a request out of the queue of the lane where it waits.
    pub(crate) fn withdraw(&self, id: RequestId) -> Option<Request> {
        self.all_lanes().find_map(|lane| lane.pending.withdraw(&*self.slab, |request| request.id() == id))
    }

    /// Requests that wait in one lane.
    #[inline]
    pub(crate) fn waiting_at(&self, place: Place) -> usize {
        self.lane(place).pending.waiting()
    }

    /// Requests that wait in the lanes that this thread looks after.
    pub(crate) fn queued(&self) -> usize {
        let mut sum = 0;
        self.visit_lanes(|lane| sum += lane.pending.waiting());
        sum
    }
}

/// What is in an inbox is known by the place of its slot. It cannot be lost there: it keeps its engine, and that the queue.
#[allow(unsafe_code)]
impl Links<Request> for Slab {
    #[inline]
    fn give_up(&self, request: Request) -> (u32, &Below) {
        let slot = request.give_up(self);
        (slot.index, &slot.below)
    }

    #[inline]
    unsafe fn take_back(&self, number: u32) -> (Request, &Below) {
        // SAFETY: a request was given up that had this slot: it is live, and the caller makes the one request of it.
        unsafe {
            let slot = self.slot_at(number);
            (Request::from_slot(slot), &slot.below)
        }
    }
}
