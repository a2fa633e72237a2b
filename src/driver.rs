//! Who reaps: the thread that waits, or a background thread where a foreign executor does.
//!
//! Completions of kernels, and readiness of streams, have to be collected by somebody. One thread at a time has the
//! driver's *seat*: it sleeps in `epoll_wait`, on the BSDs and macOS in `kevent`, on Windows in `WaitForMultipleObjects`, on
//!
//! - the backends' notification descriptors (an eventfd that kernel AIO signals with each completion),
//! - the streams somebody waits for, and
//! - the *doorbell*, an eventfd or the like that wakers ring when what the sleeper waits for happens elsewhere.
//!
//! A program with an event loop of its own can poll that descriptor ([`Driver::export`]) and take the seat for moments
//! ([`turn()`]).
//!
//! The others park, and are woken by their own wakers. Who leaves the seat while there is still something to collect
//! nudges one of them to take it. The background thread is started when a future is pending on an executor that is not
//! ours, and sits down whenever nobody else does. With the feature `tokio` a task does the same in tokio's runtimes, woken
//! by their reactor.

mod background;
mod block_on;
mod doorbell;
#[cfg(all(test, polyaio_loom))]
mod models;
mod on_exit;
mod outside;
mod parker;
#[cfg(all(unix, feature = "tokio"))]
mod reactor;
mod seat;
mod selector;
mod sharing;
mod side;
mod sleep;
mod streams;
mod turn;

use std::sync::{Arc, OnceLock, Weak};

use self::background::Background;
pub(crate) use self::block_on::{block_on, block_on_one, block_on_until, is_driving};
use self::doorbell::Doorbell;
use self::outside::Outside;
use self::parker::Parker;
pub(crate) use self::parker::lasting;
use self::seat::Seat;
use self::selector::Selector;
pub(crate) use self::selector::{FAILED, READABLE, WRITABLE};
pub(crate) use self::side::Sides;
pub(crate) use self::turn::turn;
use crate::error::Error;
use crate::fork::ForkGuard;
use crate::os::AsFd as _;
use crate::stream::Stream;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize};

/// The part of an engine that sleeps and wakes.
pub(crate) struct Driver {
    /// An epoll instance is shared with children of this process: they must not touch what we are registered for.
    fork: Arc<ForkGuard>,
    selector: Selector,
    doorbell: Arc<Doorbell>,
    seat: Seat,
    /// Where threads sit that run futures at the same time.
    pub(crate) sides: Sides,
    /// A future was pending on an executor that is not ours.
    foreign: AtomicBool,
    /// Streams by their number in what the selector tells.
    streams: Mutex<Vec<Weak<Stream>>>,
    /// How many directions of streams somebody waits for.
    waits: AtomicUsize,
    background: Mutex<Background>,
    /// tokio's runtimes that collect in the background thread's stead.
    #[cfg(all(unix, feature = "tokio"))]
    reactors: reactor::Reactors,
    /// Threads inside [`turn()`], which every completion may concern.
    turning: Mutex<Vec<Arc<Parker>>>,
    /// As many as are in `turning`.
    turners: AtomicUsize,
    /// What the program polls, once it has asked for it: from then on it drives.
    outside: OnceLock<Outside>,
    /// `outside` is there.
    exported: AtomicBool,
    /// The program was rung for, and has not come yet.
    rung: AtomicBool,
}

impl Driver {
    /// # Errors
    /// [`Error::System`] where there are no more descriptors (`EMFILE`, `ENFILE`).
    pub(crate) fn new(fork: Arc<ForkGuard>, sides: Sides) -> Result<Self, Error> {
        let driver = Self {
            fork,
            selector: Selector::new()?,
            doorbell: Arc::new(Doorbell::new()?),
            seat: Seat::new(),
            sides,
            foreign: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
            waits: AtomicUsize::new(0),
            background: Mutex::new(Background::default()),
            #[cfg(all(unix, feature = "tokio"))]
            reactors: reactor::Reactors::default(),
            turning: Mutex::new(Vec::new()),
            turners: AtomicUsize::new(0),
            outside: OnceLock::new(),
            exported: AtomicBool::new(false),
            rung: AtomicBool::new(false),
        };
        driver.watch(driver.doorbell.as_fd())?;
        Ok(driver)
    }
}
