//! A backend that does nothing: the reference for authors of backends, and the baseline for what everything else costs.
//!
//! It shows the least that a backend has to do: say what it can, and end every request that it takes. A policy that
//! prefers `"noop"` measures the crate's own overhead: whatever time a request takes is not the disk's.
//!
//! # Examples
//! What does a request cost that does nothing?
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
//! # let path = dir.path().join("data");
//! use polyaio::backends::noop::{NAME, Noop};
//! use polyaio::{Engine, OpenOptions, Policy};
//! let policy = Policy::Require(NAME.into());
//! let engine = Engine::builder().backend(std::sync::Arc::new(Noop)).policy(policy).build()?;
//! let file = OpenOptions::new().write(true).create(true).open(&engine, &path)?;
//! let begin = std::time::Instant::now();
//! for _ in 0..1000 { file.write_at("nowhere", 0).wait().0?; }
//! println!("{:?} each", begin.elapsed() / 1000);
//! assert_eq!(std::fs::read(&path)?, b"", "nothing has happened");
//! # Ok(()) }
//! ```

#![allow(unsafe_code)]

use crate::backend::{Backend, Batch, Capabilities, OpSet, Refusal};
use crate::completion::Errno;
use crate::request::{OpKind, Request};

/// The name of this backend in policies and reports.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use polyaio::{Engine, Policy, backends::noop::{NAME, Noop}};
/// // It has to be added: no engine starts it by itself.
/// assert!(Engine::builder().policy(Policy::Prefer(vec![NAME.into()])).build().is_err());
/// Engine::builder().backend(std::sync::Arc::new(Noop)).policy(Policy::Prefer(vec![NAME.into()])).build()?;
/// # Ok(()) }
/// ```
pub const NAME: &str = "noop";

/// What it takes. Not the file's length, which it does not know, and not `Close`, which would leak the descriptor: these
/// are left to a backend that really does them.
const OPERATIONS: OpSet = OpSet::NONE
    .with(OpKind::Read)
    .with(OpKind::Write)
    .with(OpKind::SyncAll)
    .with(OpKind::SyncData)
    .with(OpKind::SetLen)
    .with(OpKind::Allocate);

/// Completes every request inside [`submit`](Backend::submit) with its full length, without touching the file.
///
/// Writes go nowhere, syncs sync nothing. Reads deliver zeroes: a read that reports `n` bytes promises that `n` bytes of
/// memory are initialised, and the buffer may have been a `Vec`'s bare capacity. The filling is the one cost here that
/// grows with the length (some tens of nanoseconds for 4 KiB): measure overhead with writes or with short reads.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # use polyaio::{Engine, OpenOptions, Policy, backends::noop::{NAME, Noop}};
/// let policy = Policy::Require(NAME.into());
/// let engine = Engine::builder().backend(std::sync::Arc::new(Noop)).policy(policy).build()?;
/// let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, &path)?;
/// let (n, zeroes) = file.read_at(vec![1; 8], 1 << 40).wait().into_result()?;
/// assert_eq!((n, zeroes), (8, vec![0; 8]), "of an empty file");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

impl Backend for Noop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { operations: OPERATIONS, ..Capabilities::new(usize::MAX) }
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(request) = batch.take() {
            match request.kind() {
                OpKind::Read | OpKind::Write => pretend(request),
                kind if OPERATIONS.contains(kind) => request.complete(Ok(0)),
                _ => batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP))),
            }
        }
    }

    fn shutdown(&self) {}
}

fn pretend(mut request: Request) {
    let (kind, length) = (request.kind(), request.length());
    // SAFETY: the memory of a `Read` is written, a `Write`'s is not touched, and nothing is used any more when the request
    // is completed below. A request that reports bytes must have started.
    let ranges = unsafe { request.start() };
    if kind == OpKind::Read {
        for range in ranges {
            // SAFETY: the request keeps the range valid for writes of its length until it is complete.
            unsafe { range.base.write_bytes(0, range.len) };
        }
    }
    request.complete(Ok(length));
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[test]
    fn completes_inside_submit_with_the_full_length() {
        let bench = Bench::new();
        let (read, read_end) = bench.request(OpKind::Read, -1, Some(7), vec![0xff; 4096]);
        let (write, write_end) = bench.request(OpKind::Write, -1, None, vec![1; 10]);
        let (sync, sync_end) = bench.request(OpKind::SyncAll, -1, None, Vec::new());
        let left = bench.submit(&Noop, [read, write, sync]);
        assert!(left.refused.is_empty() && left.busy.is_empty());
        assert_eq!(read_end.peek(), Some(Ok(4096)));
        let (_, buffer) = read_end.finish(|| unreachable!("it is complete"));
        assert_eq!(buffer, vec![0; 4096]);
        assert_eq!(write_end.finish(|| unreachable!("it is complete")), (Ok(10), vec![1; 10]));
        assert_eq!(sync_end.peek(), Some(Ok(0)));
    }

    #[test]
    fn leaves_what_it_cannot_pretend() {
        let bench = Bench::new();
        let (close, _close_end) = bench.request(OpKind::Close, -1, None, Vec::new());
        let (len, _len_end) = bench.request(OpKind::Len, -1, None, Vec::new());
        let (write, write_end) = bench.request(OpKind::Write, -1, None, vec![1; 10]);
        let left = bench.submit(&Noop, [close, len, write]);
        assert_eq!(left.refused.len(), 2);
        assert!(left.refused.iter().all(|(_, errno)| *errno == Errno(libc::EOPNOTSUPP)));
        assert!(!Noop.capabilities().operations.contains(OpKind::Close));
        assert_eq!(write_end.peek(), Some(Ok(10)), "what follows is served");
    }
}
