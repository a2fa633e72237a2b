//! The example `wal`: its log on the simulated disk, on real files, and as users run it.
//!
//! `POLYAIO_TEST_LONG=1` runs 10 000 seeds instead of some hundreds; `POLYAIO_SIMULATED_SEED` names one.

#[path = "../support/mod.rs"]
mod support;

// The example's own parts; what only its command line uses is not used here.
#[allow(dead_code)]
#[path = "../../examples/wal/log.rs"]
mod log;
#[path = "../../examples/wal/record.rs"]
mod record;
#[allow(dead_code)]
#[path = "../../examples/wal/torture.rs"]
mod torture;

/// The program, as users run it.
#[cfg(unix)]
mod commands;
/// The log on real files, served by whoever serves them.
mod files;
/// The format: what a flipped bit, a missing end and a wrong place do to it.
mod format;
/// Seeds on the simulated disk, with and without bugs.
mod seeds;
