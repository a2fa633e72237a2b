//! Buffers that come back, and the adapters to other people's traits. What needs a Cargo feature is compiled with it:
//! `cargo test --all-features --test adapters` runs everything.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// `Blocks`.
mod blocks;
/// What is dropped unfinished.
#[cfg(all(feature = "futures-io", feature = "tokio-io"))]
mod drops;
/// Writes that fail after they were accepted.
mod errors;
/// How far ahead and behind.
mod pace;
/// `BufPool`, and the buffers of the crate `bytes`.
mod pool;
/// Random reads, writes and seeks against a vector.
mod random;
/// Pipes and sockets.
mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use polyaio::{Backend, Direct, Engine, File, OpenOptions, Policy};

/// Adapters go to other threads and tasks, and are polled in place.
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
const _: () = {
    const fn movable<T: Send + Unpin + 'static>() {}
    movable::<polyaio::AsyncFile>();
    movable::<polyaio::Blocks>();
    movable::<polyaio::BlockingFile>();
};

/// Opens for reading and writing; creates the file where there is none.
fn open(engine: &Engine, path: &Path, direct: Direct) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).direct(direct);
    options.open(engine, path).unwrap_or_else(|error| panic!("{error}"))
}

/// An engine whose transfers go to `backend`, however busy the machine is.
fn engine_with(backend: Arc<dyn Backend>) -> Engine {
    let policy = Policy::Prefer(vec![backend.name().to_owned()]);
    let builder = Engine::builder().backend(backend).policy(policy).slow_submit(Duration::MAX);
    builder.build().expect("an engine starts everywhere")
}
