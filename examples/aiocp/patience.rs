//! Opening what may take for ever: a FIFO opens when its other side does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use polyaio::Engine;

use crate::interrupt::Interrupt;
use crate::text::Failure;

#[derive(Default)]
struct Opened {
    result: Option<io::Result<OwnedFd>>,
    sleeper: Option<Waker>,
}

/// Runs `open` on a thread of its own, so that a signal can end the wait.
///
/// The thread is left behind then, in a system call that nothing but the end of the process ends.
pub(crate) fn open_patiently(
    engine: &Engine,
    interrupt: &Interrupt,
    open: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
) -> Result<io::Result<OwnedFd>, Failure> {
    let opened = Arc::new(Mutex::new(Opened::default()));
    let theirs = opened.clone();
    let opener = move || {
        let result = open();
        let mut opened = theirs.lock().unwrap_or_else(PoisonError::into_inner);
        opened.result = Some(result);
        if let Some(sleeper) = opened.sleeper.take() {
            sleeper.wake();
        }
    };
    let started = thread::Builder::new().name("aiocp-open".to_string()).spawn(opener);
    started.map_err(|error| Failure::of("cannot start a thread to open a FIFO or socket", &error))?;
    engine.block_on(std::future::poll_fn(|context| {
        if interrupt.poll_raised(context) {
            return Poll::Ready(Err(Failure::new("interrupted before the other side was opened")));
        }
        let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = opened.result.take() {
            return Poll::Ready(Ok(result));
        }
        opened.sleeper = Some(context.waker().clone());
        Poll::Pending
    }))
}
