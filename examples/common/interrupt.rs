//! Ctrl-C and its relatives end the program in order: what is in flight is waited for.

#![allow(dead_code, reason = "not every example uses all of it")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::text::{Failure, say};

/// A signal that follows the first one sooner than this is the same wish: `timeout` and `sudo` deliver it to the process and
/// to its group.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Raised once by the first SIGINT, SIGTERM or SIGHUP.
#[derive(Default)]
pub(crate) struct Interrupt {
    raised: AtomicBool,
    first: OnceLock<Instant>,
    sleeper: Mutex<Option<Waker>>,
}

impl Interrupt {
    /// Takes the signals over. A second one, a second later, ends the program at once: for a device that does not answer.
    /// `program` says then in what state that leaves the world; as JSON if it speaks JSON on standard error.
    pub(crate) fn install(program: &'static str, twice: &'static str, json: bool) -> Result<Arc<Interrupt>, Failure> {
        let interrupt = Arc::new(Interrupt::default());
        let raise = interrupt.clone();
        let ignored = ignored_signals();
        ctrlc::set_handler(move || {
            if raise.raise() {
                match json {
                    true => say(serde_json::json!({ "error": twice })),
                    false => say(format_args!("{program}: {twice}")),
                }
                std::process::exit(1);
            }
        })
        .map_err(|error| match error {
            ctrlc::Error::System(error) => {
                Failure::new(format!("cannot start a thread that waits for signals: {error}: raise `ulimit -u`"))
            }
            other => Failure::new(format!("cannot handle signals: {other}")),
        })?;
        ignore(&ignored);
        // Writing beyond `ulimit -f` is an error then, and handled as one, not the end of the program.
        ignore(&[libc::SIGXFSZ]);
        Ok(interrupt)
    }

    /// Whether a signal has come; if not, `context` is woken when one does.
    pub(crate) fn poll_raised(&self, context: &mut Context<'_>) -> bool {
        {
            let mut sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
            if !sleeper.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *sleeper = Some(context.waker().clone());
            }
        }
        // After the waker is in place, so that a signal in between is seen here or wakes.
        self.raised()
    }

    /// Whether a signal has come.
    pub(crate) fn raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Returns whether it was raised before, and long enough ago to be a second wish.
    fn raise(&self) -> bool {
        let before = self.first.get_or_init(Instant::now).elapsed() >= IMPATIENCE;
        self.raised.store(true, Ordering::Release);
        let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        before
    }
}

/// Which of the signals the parent has set to be ignored, as `nohup` does with SIGHUP. `ctrlc` would take them over.
fn ignored_signals() -> Vec<libc::c_int> {
    [libc::SIGHUP, libc::SIGINT, libc::SIGTERM].into_iter().filter(|&signal| ignore(&[signal])).collect()
}

/// Returns whether the last of them was ignored before. One that was not stays so only until `ctrlc` sets its handler.
fn ignore(signals: &[libc::c_int]) -> bool {
    let mut before = false;
    for &signal in signals {
        // SAFETY: SIG_IGN runs no code, and no other thread changes signal dispositions while the program starts.
        before = unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_IGN;
    }
    before
}
