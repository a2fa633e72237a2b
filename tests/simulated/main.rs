//! The simulated disk: what it does, what its faults do and do not touch, what a crash leaves, and that all of it can be
//! repeated from a seed.
//!
//! That operations mean the same as on real files is in `tests/contract` and `tests/exerciser`.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// Power failures: what was synced is there, and nothing but what was written.
mod crashes;
/// The disk as a program sees it: bytes, space, sectors, time.
mod disk;
/// Each fault: how often it strikes, what it does, and what it leaves alone.
mod faults;
/// Where faults, crashes and the page cache meet.
mod together;
/// Traces and seeds.
mod traces;
