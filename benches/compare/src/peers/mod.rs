//! The other crates. Each has `depth` tasks on one thread, and each task makes one request after the other, in a buffer of its
//! own: as a program would that knows the crate.

use crate::results::Measured;
use crate::worker::Setting;

/// `blocking`: a pool of threads for any executor.
mod blocking;
/// `compio`: io_uring.
mod compio;
/// `io-uring`, by hand: what the kernel's other interface can do.
mod raw_uring;
/// `tokio`: `fs`, and `spawn_blocking`.
mod tokio;
/// `tokio-uring`: io_uring in tokio.
mod tokio_uring;

/// What they are called in the tables.
pub(crate) const NAMES: [&str; 6] =
    ["tokio spawn_blocking", "tokio::fs", "blocking", "compio", "tokio-uring", "raw io_uring"];

pub(crate) fn run(setting: &Setting) -> Result<Measured, String> {
    match setting.peer.as_str() {
        "tokio spawn_blocking" => tokio::spawn_blocking(setting),
        "tokio::fs" => tokio::fs(setting),
        "blocking" => blocking::run(setting),
        "compio" => compio::run(setting),
        "tokio-uring" => tokio_uring::run(setting),
        "raw io_uring" => raw_uring::run(setting),
        other => Err(format!("nobody is called {other}")),
    }
}
