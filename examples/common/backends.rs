//! The state of the engine's backends.

use polyaio::{BackendStatus, Engine};
use serde_json::{Value, json};

/// Which backends run, and why the others do not.
pub(crate) fn json(engine: &Engine) -> Value {
    let backends = engine.backends();
    let entry = |status: &BackendStatus| {
        json!({
            "name": status.name,
            "started": status.started,
            "reason": status.reason,
        })
    };
    backends.iter().map(entry).collect()
}
