//! What the integration tests share: what this machine offers, scratch space, mounts, processes under a watchdog.
//!
//! Each test binary uses the part it needs, so unused parts are no defect.
#![allow(dead_code, unused_imports)]

/// Making the kernel refuse: `strace` injections, and submits that are accepted in part.
#[cfg(unix)]
mod faults;
/// Loop devices and file system images.
#[cfg(unix)]
mod images;
/// What this machine offers: root, tools, kernel AIO, file systems.
mod machine;
/// Mounts that cannot outlive their test.
#[cfg(unix)]
mod mounts;
/// Data that can be told apart: every seed, and every place in it, is different.
mod pattern;
/// Running a program under a watchdog.
#[cfg(unix)]
mod process;
/// A directory per test, removed with everything in it.
mod scratch;
/// Skips with a printed reason; `require!`.
mod skip;
/// Pipes, FIFOs, socket pairs, terminals.
#[cfg(unix)]
mod streams;

#[cfg(unix)]
pub(crate) use faults::{Inject, partial_submits, refuse, refuse_here, scarce_aio};
#[cfg(unix)]
pub(crate) use images::{LoopDevice, image, image_with_sectors};
#[cfg(target_os = "linux")]
pub(crate) use machine::NoThreads;
#[cfg(windows)]
pub(crate) use machine::is_wine;
pub(crate) use machine::{
    NOBODY, atomic_appends, backends, built_with_kernel_aio, direct_io, disk_file_system, glibc, is_root, kernel_aio,
    long_tests, posix_aio, root, strace, tool,
};
#[cfg(unix)]
pub(crate) use mounts::{Mount, hide_proc, overlayfs, ramfs, tmpfs};
pub(crate) use pattern::{
    assert_bytes, assert_file, assert_same_files, first_difference, pattern, sha256_hex, write_pattern,
};
#[cfg(unix)]
pub(crate) use process::{Finished, Watched, example, feed, handles_signal, quiet};
pub(crate) use scratch::Scratch;
pub(crate) use skip::{report_skip, require, take_skipped};
#[cfg(unix)]
pub(crate) use streams::{
    Pty, fifo, fifo_reader, has_data, is_drained, open_fifo_writer, pty, socket_pair, try_fifo_writer,
};

pub(crate) fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    std::io::pipe().expect("a pipe")
}
