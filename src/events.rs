//! Events for the `tracing` crate: what the engine decides, as it decides it. Without the feature `tracing` every function
//! here is empty.
//!
//! Targets: `polyaio::engine` (starts, ends, anomalies), `polyaio::file` (opened files, lessons), `polyaio::request`
//! (fallbacks, ends of requests). The fields are listed in `docs/backends.md`.
//!
//! A subscriber is foreign code: it may block, panic, and use the engine itself. So an event is *raised* where something
//! happens and *delivered* where nothing is half done: a [`Hold`] keeps it back while the thread polls an operation, completes
//! requests, submits, or sits in the driver's seat. Panics are contained. What a subscriber does with the engine on
//! the delivering thread raises no events, and neither do the requests that it begins there, whoever ends them: it would go
//! on for ever.

use crate::completion::{Errno, Outcome};
use crate::request::OpKind;
use crate::router::fallback::{Reason, Reasons};
use crate::router::policy::Class;

/// Something that happened.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nobody reads it"))]
pub(crate) enum Event {
    /// Something is served otherwise than by the first choice; `kind` is that of a request, nothing for a whole file.
    Fallback { reason: Reason, errno: Option<Errno>, from: &'static str, to: &'static str, kind: Option<OpKind> },
    /// A file passes a backend over from now on.
    Demoted { backend: &'static str, class: Class, errno: Errno },
    /// A file passes a backend over for a while.
    Resting { backend: &'static str, class: Class, reason: Reason },
    /// An operation, or a step of one on a stream, is over.
    Completed { served_by: &'static str, kind: OpKind, outcome: Outcome, nowait: bool, fallbacks: Reasons },
    /// A backend works below what was asked for.
    Degraded { backend: &'static str, reason: String },
    /// Something that should not happen.
    Anomaly { what: &'static str, count: u64 },
}

cfg_if::cfg_if! {
    if #[cfg(feature = "tracing")] {
        mod delivery;
        pub(crate) use delivery::{Hold, engine_started, file_opened, hold, is_inside, raise, raise_completed, shutdown};
    } else {
        mod nothing;
        pub(crate) use nothing::{Hold, engine_started, file_opened, hold, is_inside, raise, raise_completed, shutdown};
    }
}
