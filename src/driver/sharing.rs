//! Whether a side seat is its owner's business alone, or of whoever drives too, and who is told of its completions.
//!
//! Who shares a seat says so, and then has the driver's selector told of its completions. The owner, before it sleeps
//! there, has it told no more, and then looks again whether somebody has shared it meanwhile. `models.rs` has loom run this
//! under every interleaving.

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, lock};

/// The state of one side seat. `ask` of each function has the driver's selector tell of completions, or not.
pub(super) struct Sharing {
    /// Whoever drives collects here too.
    shared: AtomicBool,
    /// What the driver's selector was asked for last. Who changes it has the lock until the selector knows of it: of two
    /// that change it at once the last one has its way in both.
    told: Mutex<bool>,
}

impl Sharing {
    /// Not shared; `told`, where the selector watches it already.
    pub(super) fn new(told: bool) -> Self {
        Self { shared: AtomicBool::new(false), told: Mutex::new(told) }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }

    /// Lets whoever drives collect here too.
    pub(super) fn share(&self, ask: impl FnOnce(bool)) {
        if !self.shared.swap(true, Ordering::SeqCst) {
            self.tell(true, ask);
        }
    }

    /// The owner is here: ends that where nothing is left to collect. Nobody else adds to its lane.
    pub(super) fn settle(&self, is_empty: impl FnOnce() -> bool) {
        if self.is_shared() && is_empty() {
            self.shared.store(false, Ordering::SeqCst);
        }
    }

    /// The owner is going to sleep here: the driver's seat need not be told, unless it is shared. It may have been because
    /// the owner has sat there before.
    pub(super) fn turn_away(&self, ask: impl Fn(bool)) {
        if !self.is_shared() {
            self.tell(false, &ask);
            if self.is_shared() {
                // Somebody has shared it in between.
                self.tell(true, &ask);
            }
        }
    }

    /// Whether the driver's seat is to be told of completions.
    pub(super) fn tell(&self, told: bool, ask: impl FnOnce(bool)) {
        let mut now = lock(&self.told);
        if *now != told {
            ask(told);
            *now = told;
        }
    }
}
