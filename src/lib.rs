//! Asynchronous file I/O over whatever the machine offers: Linux kernel AIO (`io_submit`), POSIX AIO, or a pool of threads.
//!
//! An [`Engine`] looks at each file that it opens or is given, asks the backend that can serve it without blocking the
//! caller, and falls back by itself, per file and per request. No fallback is silent: each is counted and has a reason.
//! Operations are `Send` futures for any executor, with [`wait`](Op::wait) for none. A buffer moves into its operation and
//! comes back with the result, whatever happened.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! use polyaio::{BufResult, Direct, Engine, OpenOptions};
//!
//! let engine = Engine::new()?;
//! let file = OpenOptions::new().read(true).write(true).create(true).direct(Direct::Preferred).open(&engine, &path)?;
//! engine.block_on(async {
//!     let BufResult(written, buf) = file.write_all_at(file.buffer(4096), 0).await;
//!     written?;
//!     file.sync_data().await?;
//!     let BufResult(n, _buf) = file.read_at(buf, 0).await;
//!     assert_eq!(n?, 4096);
//!     std::io::Result::Ok(())
//! })?;
//! println!("{}", file.route()); // read: kernel-aio (direct I/O), then thread-pool (serves any file); write: ...
//! # Ok(()) }
//! ```
//!
//! # Which backend do I get?
//!
//! | file | `read_at` | `write_at` | syncs |
//! |---|---|---|---|
//! | on a disk, opened with `O_DIRECT` ([`Direct`]) | `kernel-aio` | `kernel-aio`; what makes the file longer: `thread-pool` | `kernel-aio` |
//! | on a disk, through the page cache | what is cached in the caller, else `thread-pool` | `thread-pool` | `kernel-aio` |
//! | in memory (ramfs; tmpfs while no swap is active) | small ones in the caller, else `thread-pool` | the same | `kernel-aio` |
//! | pipe, socket, terminal | when it is ready, in the caller | the same | `thread-pool` |
//!
//! Where `kernel-aio` is not to be had (another system, a container that forbids it, a quota that is spent) `thread-pool` serves
//! in its place. `posix-aio` serves where it is named. To name one: `POLYAIO_BACKEND`, or [`EngineBuilder::policy`]; to
//! make every fallback an error: [`EngineBuilder::strict`]. To see what was chosen, and why: [`File::route`],
//! [`Engine::backends`], [`Engine::stats`], [`Op::traced`].
//!
//! `kernel-aio` is Linux's. FreeBSD, NetBSD and macOS (type-checked, never run) have `thread-pool` and `posix-aio`, Windows has
//! `thread-pool`: [`backends::COMPILED_IN`] lists those of a build. Rust 1.88 or later.
//!
//! # Where to go from here
//!
//! | to | see |
//! |---|---|
//! | open a file, or adopt a descriptor | [`OpenOptions`], [`Engine::adopt`] |
//! | read, write, sync, and more | [`File`] |
//! | align buffers, and use them again | [`File::buffer`], [`AlignedBuf`], [`BufPool`] |
//! | submit many at once | [`Engine::batch`], [`File::read_many_at`] |
//! | wait: any executor, this thread, a loop of your own, a callback | [`Op`], [`Engine::block_on`], [`Engine::turn`], [`Op::on_completion`] |
//! | use the traits of `std::io`, `futures_io` or tokio | [`File::blocking`], `File::into_async` (features `futures-io`, `tokio-io`) |
//! | know what an error means and what to do | [`Error`], [`Error::explain`] |
//! | serve files by a backend of your own | [`backend::SyncBackend`], [`Backend`] |
//!
//! What operations mean, how to choose, every fallback, containers, direct I/O, platforms: the documents in the package's
//! folder `docs/`, of which `docs/README.md` is the list.
//!
//! # Features
//!
//! | feature | default | makes available |
//! |---|---|---|
//! | `kernel-aio`, `posix-aio` | on | the backends of these names; `thread-pool` is always there |
//! | `bytes` | off | `Bytes` and `BytesMut` as buffers |
//! | `futures-io`, `tokio-io` | off | the traits of these crates for files: `File::into_async` |
//! | `tokio` | off | completions are collected by the tokio runtime that is there, instead of a thread of the engine's |
//! | `simulated` | off | a disk in memory for tests, with faults and power failures: `backends::simulated` |
//! | `tracing` | off | events of starts, files, fallbacks and requests |
//!
//! # The flow of one request
//!
//! The modules are declared in the order in which a request passes them; `docs/life-of-a-request.md` walks through it.

#![deny(unsafe_code)]
// On docs.rs, which has the compiler for it: each item shows the feature that it needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(polyaio_loom, allow(dead_code, unused_imports))]

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_vendor = "apple",
    windows
)))]
compile_error!(
    "polyaio builds where there is epoll(7) or kqueue(2): Linux, Android, the BSDs, macOS and iOS; and on Windows. Others are \
     not served; docs/platforms.md has the table"
);

// (1) The user's call.
mod engine;
mod file;
mod metadata;
mod open;
mod opening;
// The buffers it lends, (2) the typed operation, (3) its erased form and the memory that it lives in.
mod buf;
#[cfg(feature = "bytes")]
mod bytes;
mod how;
mod memory;
mod op;
mod pool;
mod request;
mod settle;
mod slot;
// What it runs against, in which order, and what can be done at once in the caller's thread.
mod counts;
mod descriptor;
mod emulated;
mod extent;
mod inline;
mod order;
mod overlap;
mod stream;
mod twin;
mod warmth;
// (4) Which backend serves it.
mod route;
mod router;
// (5) The queue before the backend, the contract, and the backends themselves.
pub mod backend;
#[path = "../backends/mod.rs"]
pub mod backends;
mod dispatch;
mod monitor;
// (6) The end of a request, and (7) its way back to the user.
pub mod batch;
mod completion;
mod driver;
mod future;
mod notify;
mod refused;
mod trace;
// What other people's code calls, and which calls (1).
mod adapters;
// Beside the flow.
mod error;
mod events;
#[cfg(unix)]
mod fork;
#[cfg(windows)]
#[path = "os/windows/fork.rs"]
mod fork;
mod os;
mod stats;
mod sync;
#[cfg(all(test, not(polyaio_loom)))]
mod testing;

#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
pub use adapters::AsyncFile;
pub use adapters::{BlockingFile, Blocks};
pub use backend::Backend;
pub use batch::Batch;
pub use buf::{AlignedBuf, IoBuf, IoBufMut, IoVecBuf, IoVecBufMut, Slice};
pub use completion::{Errno, Outcome};
pub use engine::{BackendStatus, Engine, EngineBuilder, Shutdown};
pub use error::{BufResult, Error};
pub use file::File;
pub use future::Op;
pub use how::{Durability, Priority};
pub use memory::IoVec;
pub use metadata::{Advice, Metadata};
pub use notify::{Callback, Signalled};
pub use open::{Direct, OpenOptions};
pub use pool::{Acquire, BufPool, PooledBuf};
pub use refused::{Busy, Refused};
pub use request::{OpKind, RawHandle, Request, RequestId};
pub use route::{Route, RouteStep};
pub use router::facts::{Alignment, Facts, FileKind, FileSystem};
pub use router::fallback::{Reason, Reasons};
pub use router::policy::{Policy, Why};
pub use stats::{Anomalies, BackendStats, Histogram, InlineStats, NotificationStats, Stats};
pub use trace::{Trace, Traced};

/// The operations that [`Op`] runs: the types in the signatures of [`File`]'s methods.
///
/// # Examples
/// Of use where an operation has to have a name: in a struct, or as what a function returns.
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{AlignedBuf, BufResult, File, Op, ops};
/// /// A header and its body, asked for together.
/// struct Record {
///     header: Op<ops::ReadExact<Vec<u8>>>,
///     body: Op<ops::Read<AlignedBuf>>,
/// }
/// fn record(file: &File) -> Record {
///     Record { header: file.read_exact_at(vec![0; 5], 0), body: file.read_at(AlignedBuf::zeroed(512, 512), 5) }
/// }
/// let Record { header, body } = record(&file);
/// assert_eq!(header.wait().1, b"hello");
/// let BufResult(n, body) = body.wait();
/// assert_eq!(&body[..n?], b", world");
///
/// // And the types of the rest:
/// let write: Op<ops::Write<&str>> = file.write_at("HELLO", 0);
/// let write_all: Op<ops::WriteAll<String>> = file.append("!".to_owned());
/// let (sync, len): (Op<ops::Control>, Op<ops::Len>) = (file.sync_all(), file.len());
/// let (metadata, ready): (Op<ops::Metadata>, Op<ops::Ready>) = (file.metadata(), file.readable());
/// let advise: Op<ops::Advise> = file.advise(0, 0, polyaio::Advice::Random);
/// let open: Op<ops::Open> = polyaio::OpenOptions::new().read(true).open_async(&engine, &path);
/// # write.wait().0?; write_all.wait().0?; sync.wait()?; len.wait()?; metadata.wait()?; ready.wait()?; advise.wait()?;
/// # open.wait()?;
/// // With several buffers each:
/// let read: Op<ops::ReadVectored<[Vec<u8>; 2]>> = file.read_vectored_at([vec![0; 1], vec![0; 2]], 0);
/// let exact: Op<ops::ReadExactVectored<[Vec<u8>; 1]>> = file.read_exact_vectored_at([vec![0; 3]], 0);
/// let write: Op<ops::WriteVectored<[&str; 2]>> = file.write_vectored_at(["a", "b"], 0);
/// let all: Op<ops::WriteAllVectored<[&str; 2]>> = file.write_all_vectored_at(["c", "d"], 2);
/// # read.wait().0?; exact.wait().0?; write.wait().0?; all.wait().0?;
/// # Ok(()) }
/// ```
pub mod ops {
    pub use crate::how::{Once, Transfer, Writing};
    pub use crate::op::{Advise, Metadata, Open, Ready};
    pub use crate::op::{Control, Len, Operation, Read, ReadExact, Write, WriteAll};
    pub use crate::op::{ReadExactVectored, ReadVectored, WriteAllVectored, WriteVectored};
}

/// The examples of the README and of the documents, as tests. `tests/documented.rs` checks that none is missing.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/choosing-a-backend.md")]
    struct ChoosingABackend;
    #[doc = include_str!("../docs/containers.md")]
    struct Containers;
    #[doc = include_str!("../docs/design.md")]
    struct Design;
    #[doc = include_str!("../docs/direct-io.md")]
    struct DirectIo;
    #[doc = include_str!("../docs/fallback.md")]
    struct Fallback;
    #[cfg(feature = "simulated")]
    #[doc = include_str!("../docs/simulated-disk.md")]
    struct SimulatedDisk;
}
