//! The example `aiocp` from outside: what the README promises a stranger, on whatever this machine has.
//!
//! The promises concern the program as it is built and run, so nothing in here uses the library.

#[path = "../support/mod.rs"]
mod support;

/// Running `aiocp` and reading its report.
mod run;

/// Bounds of memory.
mod bounds;
/// Raw block devices.
mod devices;
/// What cannot be copied, and command lines that make no sense.
mod errors;
/// A kernel that refuses, now and then or always.
mod faults;
/// Regular files, on every file system that can be had here.
mod files;
/// Signals, and other ends in the middle.
mod interrupted;
/// The JSON report.
mod report;
/// Time against dd.
mod speed;
/// Pipes, FIFOs, sockets, terminals, standard input and output.
mod streams;
