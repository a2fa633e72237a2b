//! Random plans for a file's life, against a model that is a `Vec<u8>`.
//!
//! A plan opens a file, reads and writes it in every form and alignment, alone and ten at a time on disjoint ranges, cuts,
//! punches and allocates, syncs, drops and cancels what is in flight, closes and opens again. It is made from a seed, and
//! runs on every configuration of backends and on every file system that there is: each result has to agree with the
//! model, and the same seed ends in the same file everywhere.
//!
//! `POLYAIO_TEST_SEED` names one plan. `POLYAIO_TEST_LONG=1` tries more of them. A plan that fails is made shorter
//! (`proptest`) before it is shown.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// Operations in flight together.
mod flight;
/// The file systems that it is done on.
mod grounds;
/// What the file has to hold, and what may be answered.
mod model;
/// Operations of every kind behind one interface.
mod ops;
/// Where the files are.
mod outside;
/// What is done to a file, from a seed.
mod plan;
/// A plan, step by step.
mod run;
/// Plans from seeds, and the shortest that fails.
mod seeds;
/// The engines that it is done with.
mod setups;
/// Somebody else who looks at the file.
mod witness;

/// Memory that was given back.
mod freed;

use grounds::Ground;
use seeds::exercise;

/// So that late writes into buffers are seen, the kernel's too.
#[global_allocator]
static QUARANTINE: tools::Quarantine = tools::Quarantine::new();

#[test]
fn disk() {
    exercise(Ground::disk());
}

/// The same plans on the simulated disk and on a real one: they end in the same bytes.
#[cfg(feature = "simulated")]
#[test]
fn simulated() {
    exercise(Ground::simulated());
}

#[cfg(unix)]
#[test]
fn without_proc() {
    exercise(Ground::without_proc());
}

#[cfg(unix)]
#[test]
fn memory() {
    exercise(Ground::memory());
}

#[cfg(unix)]
#[test]
fn ramfs() {
    exercise(Ground::ramfs());
}

#[cfg(unix)]
#[test]
fn overlayfs() {
    exercise(Ground::overlayfs());
}

#[cfg(unix)]
#[test]
fn ext4() {
    exercise(Ground::image("ext4", "ext4", 512));
}

#[cfg(unix)]
#[test]
fn large_sectors() {
    exercise(Ground::image("large_sectors", "ext4", 4096));
}

#[cfg(unix)]
#[test]
fn xfs() {
    exercise(Ground::image("xfs", "xfs", 512));
}

#[cfg(unix)]
#[test]
fn btrfs() {
    exercise(Ground::image("btrfs", "btrfs", 512));
}
