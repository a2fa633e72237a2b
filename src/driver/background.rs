//! The thread that collects while futures are pending on executors that are not ours.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Driver;
use super::parker::Parker;
use crate::dispatch::{Core, REAP_MAX};
use crate::notify;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::lock;

/// After the background thread could not be started, how long until it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The background thread, once it was needed.
#[derive(Default)]
pub(super) struct Background {
    thread: Option<JoinHandle<()>>,
    parker: Option<Arc<Parker>>,
    stop: Arc<AtomicBool>,
    /// When it could not be started.
    failed: Option<Instant>,
}

thread_local! {
    /// This is a background thread: it sits down again by itself.
    static DRIVER_THREAD: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn is_driver_thread() -> bool {
    DRIVER_THREAD.get()
}

impl Driver {
    /// A future is pending on an executor that is not ours: from now on somebody has to collect at all times.
    /// `false`: nobody does, because no thread can be had.
    pub(crate) fn ensure_driven_for_foreign(&self, core: &Arc<Core>) -> bool {
        #[cfg(all(unix, feature = "tokio"))]
        if self.attend_in_tokio(core) {
            return true;
        }
        self.ensure_driven_for_callbacks(core)
    }

    /// The same for callbacks, which no executor's thread is to call: they may block.
    pub(crate) fn ensure_driven_for_callbacks(&self, core: &Arc<Core>) -> bool {
        if !self.foreign.load(Ordering::SeqCst) {
            self.foreign.store(true, Ordering::SeqCst);
        }
        self.ensure_driven(core)
    }

    /// `false` where no thread can be had; it is tried again after a while.
    pub(super) fn start_background(&self, core: &Arc<Core>) -> bool {
        let mut background = lock(&self.background);
        if background.thread.is_some() || !core.state.is_open() {
            return true;
        }
        if background.failed.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return false;
        }
        let (core, stop) = (Arc::downgrade(core), background.stop.clone());
        let run = move || {
            let parker = Parker::current();
            if let Some(core) = core.upgrade() {
                // Before the first look at `stop`: who sets it afterwards finds the parker here.
                lock(&core.driver.background).parker = Some(parker.clone());
            }
            DRIVER_THREAD.set(true);
            loop {
                // First forget the last wake-up, then look: the next one ends the sleep.
                parker.take_notified();
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // No reference is kept across iterations but this one: the engine's shutdown stops and joins us.
                let Some(core) = core.upgrade() else { break };
                core.flush();
                core.reap(REAP_MAX);
                notify::run(&core, REAP_MAX);
                if !notify::is_due(&core) {
                    core.driver.sleep(&core, &parker, None);
                }
            }
        };
        match std::thread::Builder::new().name("polyaio-driver".into()).spawn(run) {
            Ok(thread) => background.thread = Some(thread),
            Err(_) => background.failed = Some(Instant::now()),
        }
        background.thread.is_some()
    }

    /// Stops the background thread and waits for its end.
    pub(crate) fn stop_background(&self) {
        let (thread, parker) = {
            let mut background = lock(&self.background);
            background.stop.store(true, Ordering::SeqCst);
            (background.thread.take(), background.parker.take())
        };
        if let Some(parker) = parker {
            parker.notify();
        }
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // Its panics were printed; nothing of ours runs there that could panic in a way that matters now.
            let _ = thread.join();
        }
    }
}
