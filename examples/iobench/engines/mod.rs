//! Who serves: the library with one of its backends preferred, and the loops by hand.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::ValueEnum;

use crate::log::{Log, Source};
use crate::patterns::Request;
use crate::text::Failure;

/// `io_submit` and the ring, by hand.
pub(crate) mod kernel_aio;
/// The library.
pub(crate) mod library;
/// Operations in flight, polled when they were woken.
mod places;
/// `pread` and `pwrite`, by hand.
pub(crate) mod positioned;

/// What `--engine` takes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// polyaio: whatever suits the file
    Auto,
    /// polyaio: Linux kernel AIO
    KernelAio,
    /// polyaio: POSIX AIO
    PosixAio,
    /// polyaio: threads that call pread and pwrite
    ThreadPool,
    /// By hand: io_submit, and the completion ring in memory
    RawKernelAio,
    /// By hand: one thread that calls pread and pwrite, whatever the depth
    RawPread,
    /// By hand: as many such threads as the depth
    RawThreads,
}

impl EngineName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            EngineName::Auto => "auto",
            EngineName::KernelAio => "kernel-aio",
            EngineName::PosixAio => "posix-aio",
            EngineName::ThreadPool => "thread-pool",
            EngineName::RawKernelAio => "raw-kernel-aio",
            EngineName::RawPread => "raw-pread",
            EngineName::RawThreads => "raw-threads",
        }
    }

    /// Whether it is a loop by hand.
    pub(crate) fn is_raw(self) -> bool {
        matches!(self, EngineName::RawKernelAio | EngineName::RawPread | EngineName::RawThreads)
    }

    /// The backend that is to serve; `None` where whoever serves is right.
    pub(crate) fn wanted(self) -> Option<&'static str> {
        if self == EngineName::Auto { None } else { Some(self.name()) }
    }
}

/// One thread's part of an engine.
pub(crate) trait Worker: Send {
    /// Makes requests until there are none left, and waits for all of them.
    fn run(&mut self, source: &mut Source, log: &mut Log) -> Result<(), Failure>;
}

/// Opens the file for a loop by hand.
pub(crate) fn open_raw(path: &Path, write: bool, direct: bool) -> Result<File, Failure> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let opened = File::options().read(true).write(write).custom_flags(flags).open(path);
    opened.map_err(|error| Failure::of(format_args!("cannot open {}", path.display()), &error))
}

/// Why a request has not transferred its block.
pub(crate) fn failed(request: Request, result: io::Result<usize>) -> Failure {
    let doing = if request.write { "write" } else { "read" };
    match result {
        Ok(n) => Failure::new(format!("short {doing} at byte {}: {n} bytes", request.offset)),
        Err(error) => Failure::of(format_args!("cannot {doing} at byte {}", request.offset), &error),
    }
}
