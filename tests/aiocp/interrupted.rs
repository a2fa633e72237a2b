//! Signals in the middle: the destination is cut to what was copied, a prefix of the source without holes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::run::{SIZE, aiocp, one_line, run};
use crate::support::{
    Finished, Inject, Scratch, Watched, disk_file_system, example, fifo, first_difference, handles_signal, is_drained,
    kernel_aio, open_fifo_writer, pattern, quiet, require,
};

/// Fails in order, whichever way a signal is reported: an exit code of its own, or death by the very signal.
#[track_caller]
fn assert_interrupted(finished: &Finished) {
    assert_ne!(finished.code(), Some(0), "interrupted, and says that it is complete: {finished}");
    assert!(finished.stderr.lines().filter(|line| !line.trim().is_empty()).count() <= 1, "{finished}");
}

/// The file holds the beginning of `data`, at least `at_least` bytes of it.
#[track_caller]
fn assert_prefix(path: &Path, data: &[u8], at_least: usize) -> usize {
    let have = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(have.len() <= data.len(), "{} bytes of {}", have.len(), data.len());
    assert_eq!(first_difference(&have, &data[..have.len()]), None, "no prefix, though of {} bytes", have.len());
    assert!(have.len() >= at_least, "{} bytes were copied, {} are left", at_least, have.len());
    have.len()
}

/// The source is a pipe that never ends, so the middle lasts as long as we like.
fn interrupt_a_stream(signal: libc::c_int, options: &[&str]) {
    let scratch = Scratch::new();
    let data = pattern(6 << 20, 70);
    let destination = scratch.path("out");
    let mut watched = Watched::start(aiocp(options).arg("-").arg(&destination).stdin(Stdio::piped()));
    let mut stdin = watched.stdin();
    // Returns when all but a pipe's capacity of it has been read: it is running, and its signal handlers are in place.
    stdin.write_all(&data).expect("a reader");
    watched.signal(signal);
    let finished = watched.finish();
    drop(stdin);
    assert_interrupted(&finished);
    // What was in flight when the signal came need not be there: 32 blocks of 64 KiB, and the pipe's capacity, at most
    // 1 MiB if it was enlarged.
    assert_prefix(&destination, &data, (6 << 20) - (3 << 20));
}

/// What the destination held before is no part of the copy.
#[test]
fn sigint_cuts_a_destination_that_was_longer() {
    let scratch = Scratch::new();
    let data = pattern(6 << 20, 73);
    let destination = scratch.file("out", &pattern(8 << 20, 74));
    let mut watched = Watched::start(aiocp(["-"]).arg(&destination).stdin(Stdio::piped()));
    let mut stdin = watched.stdin();
    stdin.write_all(&data).expect("a reader");
    watched.signal(libc::SIGINT);
    let finished = watched.finish();
    drop(stdin);
    assert_interrupted(&finished);
    assert_prefix(&destination, &data, 1);
}

#[test]
fn sigint_cuts_the_copy_of_a_stream() {
    interrupt_a_stream(libc::SIGINT, &[]);
}

#[test]
fn sigterm_cuts_the_copy_of_a_stream() {
    interrupt_a_stream(libc::SIGTERM, &[]);
}

#[test]
fn sigint_cuts_the_direct_copy_of_a_stream() {
    interrupt_a_stream(libc::SIGINT, &["--direct"]);
}

/// Nobody has opened the other end, and nobody will.
#[test]
fn sigint_ends_the_wait_for_a_fifo() {
    let scratch = Scratch::new();
    let (source, destination) = (fifo(scratch.dir(), "fifo"), scratch.path("out"));
    let mut watched = Watched::start(&mut aiocp([&source, &destination]));
    watched.until("handling SIGINT", |id| handles_signal(id, libc::SIGINT).then_some(()));
    watched.signal(libc::SIGINT);
    assert_interrupted(&watched.finish());
}

/// A stream that has gone silent.
#[test]
fn sigterm_ends_the_wait_for_data() {
    let scratch = Scratch::new();
    let (source, destination) = (fifo(scratch.dir(), "fifo"), scratch.path("out"));
    let mut writer = open_fifo_writer(&source);
    let mut watched = Watched::start(&mut aiocp([&source, &destination]));
    writer.write_all(b"first").expect("room in the FIFO");
    watched.until("reading", |_| is_drained(&writer).then_some(()));
    watched.signal(libc::SIGTERM);
    assert_interrupted(&watched.finish());
    assert_prefix(&destination, b"first", 0);
}

/// File to file is too quick to be caught by hand: strace delivers the signal with a chosen request.
fn interrupt_at_submit(signal: &str, number: usize) {
    let scratch = Scratch::new();
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    let how = format!("signal={signal}:when={number}");
    let fault = require!(Inject::new(scratch.dir(), "io_submit", &how));
    let data = pattern(SIZE, 71);
    let (source, destination) = (scratch.file("in", &data), scratch.path("out"));
    let mut command = fault.command(example("aiocp"));
    quiet(command.args(["--direct", "--block-size", "4KiB", "--depth", "4"]).args([&source, &destination]));
    let finished = run(&mut command);
    assert!(fault.count() > 0, "no signal was delivered\n{}", fault.log());
    assert_interrupted(&finished);
    let left = assert_prefix(&destination, &data, 0);
    assert!(left < SIZE, "4 KiB blocks, request {number} of thousands: it cannot have been complete");
}

#[test]
fn sigint_cuts_the_copy_of_a_file() {
    interrupt_at_submit("SIGINT", 200);
}

#[test]
fn sigterm_cuts_the_copy_of_a_file() {
    interrupt_at_submit("SIGTERM", 50);
}

#[test]
fn sigint_at_the_first_request_leaves_a_prefix() {
    interrupt_at_submit("SIGINT", 1);
}

/// Not a signal, but the same promise: a request that fails in the middle cuts as well.
fn fail_in_the_middle(calls: &str) {
    let scratch = Scratch::new();
    let fault = require!(Inject::new(scratch.dir(), calls, "error=EIO:when=20+"));
    let data = pattern(SIZE, 72);
    let (source, destination) = (scratch.file("in", &data), scratch.path("out"));
    let mut command = fault.command(example("aiocp"));
    command.args(["--backend", "thread-pool", "--depth", "4", "--block-size", "4KiB"]);
    quiet(command.args([&source, &destination]));
    let finished = run(&mut command).expect_code(1);
    assert!(one_line(&finished).contains("nput/output error"), "{finished}");
    let left = assert_prefix(&destination, &data, 0);
    assert!(left < SIZE, "requests failed, and nothing is missing");
}

#[test]
fn failing_write_cuts_the_copy() {
    fail_in_the_middle("pwrite64,pwritev,pwritev2");
}

#[test]
fn failing_read_cuts_the_copy() {
    fail_in_the_middle("pread64,preadv,preadv2");
}

/// `timeout 5 aiocp ...` and Ctrl-C under `sudo` deliver a signal twice: to the process, and to its group. That is one
/// request to stop, not an impatient user.
#[test]
fn signal_that_arrives_twice_at_once_cuts_as_well() {
    let scratch = Scratch::new();
    let data = pattern(6 << 20, 75);
    let destination = scratch.path("out");
    let mut watched = Watched::start(aiocp(["-"]).arg(&destination).stdin(Stdio::piped()));
    let mut stdin = watched.stdin();
    stdin.write_all(&data).expect("a reader");
    // Two kinds, because two of one kind become one while the first is pending.
    watched.signal(libc::SIGTERM);
    watched.signal(libc::SIGINT);
    let finished = watched.finish();
    drop(stdin);
    assert_interrupted(&finished);
    assert_prefix(&destination, &data, 3 << 20);
    assert!(!finished.stderr.contains("left as it is"), "{finished}");
}
