//! The backends that come with the crate, in their order of preference.
//!
//! Each is a folder with the same file names, so that two can be read side by side: `abi.rs` (what it calls), `probe.rs`
//! (can it start here), `submit.rs`, `reap.rs`, and `mod.rs` (the [`Backend`] itself).
//!
//! # Examples
//! An engine starts them by itself. To name one, to see which a build has, and which have started:
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let engine = polyaio::Engine::new()?;
//! use polyaio::backends::{COMPILED_IN, thread_pool};
//! let engine = polyaio::Engine::builder().policy(polyaio::Policy::Prefer(vec![thread_pool::NAME.into()])).build()?;
//! for backend in engine.backends() {
//!     assert!(COMPILED_IN.contains(&backend.name) && (backend.started || backend.name != thread_pool::NAME));
//! }
//! # Ok(()) }
//! ```

use std::sync::Arc;

use crate::backend::{Backend, Capabilities, SyncBackend};
use crate::error::Error;

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", feature = "kernel-aio"))] {
        // Rustdoc does not see the condition.
        #[cfg_attr(docsrs, doc(cfg(all(target_os = "linux", feature = "kernel-aio"))))]
        pub mod kernel_aio;
    }
}
mod compiled_in;
pub mod noop;
cfg_if::cfg_if! {
    if #[cfg(not(feature = "posix-aio"))] {
        fn start_posix_aio(_queue_depth: usize, _idle: bool) -> Option<Registered> {
            None
        }
    } else if #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd", target_os = "macos"))] {
        // Rustdoc does not see the condition.
        #[cfg_attr(
            docsrs,
            doc(cfg(all(
                any(target_os = "linux", target_os = "freebsd", target_os = "netbsd", target_os = "macos"),
                feature = "posix-aio"
            )))
        )]
        pub mod posix_aio;

        /// Not part of the automatic order: on Linux it is a thread pool too, the C library's, and elsewhere it was never
        /// run.
        fn start_posix_aio(queue_depth: usize, idle: bool) -> Option<Registered> {
            Some(match (!idle).then(|| posix_aio::PosixAio::start(queue_depth)) {
                Some(Ok(backend)) => started(backend, false),
                Some(Err(refused)) => missing(posix_aio::NAME, refused.reason, false),
                None => missing(posix_aio::NAME, NOTHING_TO_DO.to_owned(), false),
            })
        }
    } else {
        fn start_posix_aio(_queue_depth: usize, _idle: bool) -> Option<Registered> {
            let reason = "POSIX AIO is not served on this system; use thread-pool or auto";
            Some(missing("posix-aio", reason.to_owned(), false))
        }
    }
}
#[cfg(feature = "simulated")]
pub mod simulated;
pub mod thread_pool;

pub use compiled_in::COMPILED_IN;

/// The backend that serves everything, and whose answer is the last word.
pub(crate) const LAST_RESORT: &str = thread_pool::NAME;

/// The small pool that makes the ordinary calls on streams; see [`stream_workers`].
pub(crate) const STREAM_WORKERS: &str = thread_pool::streams::NAME;

/// Why a backend was not started.
#[cfg_attr(any(windows, not(any(feature = "kernel-aio", feature = "posix-aio"))), allow(dead_code))]
const NOTHING_TO_DO: &str = "the policy requires a backend that has files of its own";

/// Names of all threads that the crate starts begin with it.
pub(crate) const THREAD_PREFIX: &str = "polyaio-";

/// A backend that was started, or the reason why not.
pub(crate) struct Registered {
    pub(crate) name: &'static str,
    pub(crate) capabilities: Capabilities,
    pub(crate) backend: Result<Arc<dyn Backend>, String>,
    /// Part of the automatic order.
    pub(crate) automatic: bool,
}

/// Starts what is compiled in, best first. `idle`: the policy leaves nothing to what serves files of the operating system, so
/// that only the thread pool is started.
///
/// # Errors
/// [`Error::BackendUnavailable`] when the thread pool, which everything falls back on, cannot have a single thread.
pub(crate) fn start(queue_depth: usize, threads: usize, capacity: usize, idle: bool) -> Result<Vec<Registered>, Error> {
    let mut all = Vec::new();
    #[cfg(all(target_os = "linux", feature = "kernel-aio"))]
    all.push(match (!idle).then(|| kernel_aio::KernelAio::start(queue_depth)) {
        Some(Ok(backend)) => started(backend, true),
        Some(Err(refused)) => missing(kernel_aio::NAME, refused.reason, true),
        None => missing(kernel_aio::NAME, NOTHING_TO_DO.to_owned(), true),
    });
    all.extend(start_posix_aio(queue_depth, idle));
    let options = thread_pool::Options { threads, queue_bound: capacity };
    let pool = thread_pool::ThreadPool::start(options)
        .map_err(|refused| Error::BackendUnavailable { name: LAST_RESORT, reason: refused.reason })?;
    all.push(started(pool, true));
    Ok(all)
}

/// The workers of streams. They have a lane of their own, are no candidate for any policy, and start no thread before they
/// are needed.
pub(crate) fn stream_workers(capacity: usize) -> Arc<dyn Backend> {
    Arc::new(thread_pool::streams::StreamWorkers::new(capacity))
}

/// Starts threads for a backend that was made elsewhere.
pub(crate) fn start_threaded(backend: Arc<dyn SyncBackend>, threads: usize) -> Registered {
    let name = backend.name();
    match thread_pool::Threaded::start(backend, threads) {
        Ok(backend) => started(backend, false),
        Err(refused) => missing(name, refused.reason, false),
    }
}

fn started(backend: impl Backend + 'static, automatic: bool) -> Registered {
    let capabilities = backend.capabilities();
    Registered { name: backend.name(), capabilities, backend: Ok(Arc::new(backend)), automatic }
}

fn missing(name: &'static str, reason: String, automatic: bool) -> Registered {
    Registered { name, capabilities: Capabilities::new(1), backend: Err(reason), automatic }
}
