//! Ctrl-C and its relatives end a campaign after the seed that it is at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::text::Failure;

/// Is raised by SIGINT, SIGTERM and SIGHUP.
pub(crate) fn install() -> Result<Arc<AtomicBool>, Failure> {
    let raised = Arc::new(AtomicBool::new(false));
    let raise = raised.clone();
    // A seed takes milliseconds: nobody has to interrupt twice.
    let installed = ctrlc::set_handler(move || raise.store(true, Ordering::Relaxed));
    installed.map_err(|error| Failure::new(format!("cannot handle signals: {error}")))?;
    Ok(raised)
}
