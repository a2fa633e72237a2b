//! Who answers for a request.

use std::sync::Arc;

use super::Request;
use crate::completion::{Errno, Outcome};
use crate::os::RawFd;
use crate::router::facts::Alignment;
use crate::settle::{Tally, Witness};
use crate::slot::Slab;

/// Who answers for a request: keeps its descriptor open, and decides what its end means.
pub(crate) trait Owner: Send + Sync {
    /// A backend has answered. Returns what to publish, or nothing when the request needs another step.
    /// What is to be counted of it is added to `tally`.
    fn judge(&self, request: &mut Request, outcome: Outcome, tally: &mut Tally) -> Option<Outcome>;
    /// Queues the next step of a request that `judge` kept.
    fn resubmit(self: Arc<Self>, request: Request);
    /// Who is told once requests were judged, and once they have their results.
    fn witness(&self) -> Option<Arc<dyn Witness>> {
        None
    }
    /// Rules that can be checked only where the request runs.
    fn check(&self, _request: &Request) -> Result<(), Errno> {
        Ok(())
    }
    /// The request is about to close its descriptor.
    fn closing(&self) {}
    /// The slots that the request's slot belongs to.
    fn slab(&self) -> &Arc<Slab>;
    /// The file's buffered twin, opened if need be: may block.
    fn twin(&self) -> Result<RawFd, Errno>;
    /// Closes the twin: the descriptor is about to be closed.
    fn close_twin(&self);
    /// What direct I/O on the file needs.
    fn alignment(&self) -> Option<Alignment>;
    /// A transfer of this class was submitted to a backend on its own; `slow`: that held the caller up.
    fn submitted(&self, class: crate::router::policy::Class, backend: u8, slow: bool) {
        let _ = (class, backend, slow);
    }
    /// Counts something that should never happen.
    fn count_anomaly(&self, anomaly: Anomaly);
    /// Allows a downcast to the one type that implements this.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Misbehaviour of a backend or kernel that was noticed and contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// More bytes were reported than were asked for, or bytes of a request that never started.
    Implausible,
}
