//! Into the queue of a lane, and out of it again.

use super::Core;
use crate::memory::MOST_IOVECS;
use crate::request::{ONE_RANGE, Request, RequestId};

impl Core {
    /// Queues a request for the lane that its trail names. It goes out with the next flush.
    pub(crate) fn enqueue(&self, mut request: Request) {
        let lane = &self.lanes[usize::from(request.body().trail.backend)];
        request.body_mut().step = if lane.capabilities.vectored { MOST_IOVECS as u16 } else { ONE_RANGE };
        lane.pending.push(request);
        self.driver.announce();
    }

    /// Takes a request out of the queue of the lane where it waits.
    pub(crate) fn withdraw(&self, id: RequestId) -> Option<Request> {
        self.lanes.iter().find_map(|lane| lane.pending.withdraw(|request| request.id() == id))
    }

    /// Requests that wait in all lanes.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.pending.waiting()).sum()
    }
}
