//! Short runs under Valgrind: no byte is read that was not written, none that was freed, and no memory is lost.
//!
//! Not kernel AIO: Valgrind 3.19 takes the completion ring, which the kernel maps, for memory that is not there, and crashes
//! itself on what `io_getevents` returns. Nothing is suppressed. What is only "possibly lost" is no error: those are the stacks of threads that have not
//! quite ended, or that the C library keeps.

#[path = "support/mod.rs"]
mod support;

use std::process::Command;
use std::time::Duration;

use support::{Scratch, Watched, direct_io, example, long_tests, posix_aio, quiet, require, tool};

/// What Valgrind ends with, where it has found something.
const FOUND: &str = "99";
/// It is slower by a factor of fifty, and the machine may have other things to do.
const LIMIT: Duration = Duration::from_secs(600);

/// Writes, reads and compares blocks of a file by `backend`, under Valgrind.
fn clean(valgrind: &std::path::Path, backend: &str, blocks: &str, more: &[&str]) {
    let scratch = Scratch::new();
    let mut command = Command::new(valgrind);
    quiet(&mut command);
    command.args(["--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]);
    command.arg(format!("--error-exitcode={FOUND}")).arg(example("adder"));
    command
        .args(["--backend", backend, "--strict", "--blocks", blocks, "--file"])
        .arg(scratch.path("adder"))
        .args(more);
    let out = Watched::start_with_limit(&mut command, LIMIT).finish().expect_success();
    assert!(out.stderr.contains("ERROR SUMMARY: 0 errors"), "{}", out.stderr);
}

#[test]
fn posix_aio_is_clean() {
    require!(posix_aio());
    let valgrind = require!(tool("valgrind"));
    clean(&valgrind, "posix-aio", "20", &[]);
}

#[test]
fn the_backends_by_threads_are_clean_buffered_and_direct() {
    require!(long_tests());
    let valgrind = require!(tool("valgrind"));
    let scratch = Scratch::new();
    require!(direct_io(scratch.dir()));
    for backend in ["posix-aio", "thread-pool"] {
        if support::backends().contains(&backend) {
            clean(&valgrind, backend, "500", &[]);
            clean(&valgrind, backend, "500", &["--direct"]);
        }
    }
}
