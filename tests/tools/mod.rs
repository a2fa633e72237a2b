//! What the suites of the engine share: a watchdog, futures polled by hand, buffers that are counted, children.
//!
//! Each test binary uses the part it needs, so unused parts are no defect.
#![allow(dead_code, unused_imports)]

/// Backends that tests write: one that answers as it is told, one that holds what it gets.
mod backends;
/// Buffers whose end is counted.
mod counted;
/// Numbers that look random and are the same on every run.
mod numbers;
/// Freed memory that is watched.
mod quarantine;
/// Running the test binary once more, for what ends or forks a process.
#[cfg(unix)]
mod respawn;
/// Futures without a runtime: polled once, joined, parked for.
mod tasks;
/// A test that hangs ends the run with its name.
mod watchdog;

pub(crate) use backends::{Answer, Cancelling, Gate, HELD, Held, SCRIPTED, Scripted, Seen, lock, serve, transfers};
pub(crate) use counted::{Census, CountedBuf};
pub(crate) use numbers::Numbers;
pub(crate) use quarantine::Quarantine;
#[cfg(unix)]
pub(crate) use respawn::{
    Respawn, errno, exit_now, own_threads, respawn, respawn_beside, respawn_by, respawn_prepared, stays_asleep,
};
pub(crate) use tasks::{Begun, Flag, Oneshot, PanickingWaker, join, park_on, poll_once, spawn_park};
pub(crate) use watchdog::{Watchdog, eventually, one_of_many};
