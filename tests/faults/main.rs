//! What backends can do wrong, or just otherwise: scripted ones, written outside the crate, answer as they are told.
//!
//! Whatever they answer, each request ends once, with the data that it should have, and what happened is counted.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// Wishes to cancel that meet a backend.
mod cancelling;
/// Contexts that threads have of their own.
mod crowds;
/// Errors, and where they lead.
mod errors;
/// Faults by chance over real backends, and who serves what they refuse.
#[cfg(feature = "simulated")]
mod injected;
/// POSIX AIO where the C library has no room.
mod posix;
/// Completions that are reaped: by id, late, unknown.
mod reaped;
/// Requests that are not taken, or taken and broken.
mod requests;
/// Requests that are repeated while the world goes on.
mod retries;
/// System calls that a container's seccomp profile forbids for good.
mod sandbox;
/// Submissions that hold the caller up.
mod slow;
/// Who served what, and what is counted.
mod traces;
/// Files that no kernel knows.
mod virtual_files;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use polyaio::{Backend, Direct, Engine, File, OpenOptions, Policy};

use support::{Scratch, pattern};
use tools::{SCRIPTED, Scripted};

/// An engine that prefers `backend`, a file of so many blocks, and the file's data.
struct Bench {
    engine: Engine,
    file: File,
    data: Vec<u8>,
    path: PathBuf,
    _scratch: Scratch,
}

/// Bytes of a block.
const BLOCK: usize = 4096;

impl Bench {
    fn new(backend: &Arc<Scripted>, blocks: usize) -> Self {
        let engine = prefer(backend.clone(), SCRIPTED);
        Self::on(engine, blocks, false)
    }

    fn on(engine: Engine, blocks: usize, direct: bool) -> Self {
        let scratch = Scratch::new();
        let data = pattern(blocks * BLOCK, 1);
        let path = scratch.file("file", &data);
        std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("on a disk");
        let mut options = OpenOptions::new();
        options.read(true).write(true).direct(if direct { Direct::Preferred } else { Direct::Off });
        let file = options.open(&engine, &path).expect("it is there");
        Self { engine, file, data, path, _scratch: scratch }
    }

    /// How many requests a backend has answered for good.
    fn served(&self, name: &str) -> u64 {
        self.engine.stats().served_by().iter().find(|(served, _)| *served == name).map_or(0, |(_, count)| *count)
    }

    /// How many requests others than `name` have answered: the pool, or the kernel, which is quicker at syncs.
    fn served_elsewhere(&self, name: &str) -> u64 {
        self.engine.stats().served_by().iter().filter(|(served, _)| *served != name).map(|(_, count)| count).sum()
    }
}

/// Scripted backends serve inside `submit`, which is slow where the disk is: they stay all the same.
fn prefer(backend: Arc<dyn Backend>, name: &str) -> Engine {
    let policy = Policy::Prefer(vec![name.to_owned()]);
    let builder = Engine::builder().backend(backend).policy(policy).strict(false);
    builder.slow_submit(Duration::MAX).build().expect("an engine")
}

/// The error number of a result that must have failed.
#[track_caller]
fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    let error = result.expect_err("it cannot succeed");
    error.raw_os_error().unwrap_or_else(|| panic!("an error without a number: {error:?}"))
}
