//! The feature `tracing` is off: nothing is looked up, built or kept.

use std::path::Path;

use super::Event;
use crate::descriptor::OpenFile;
use crate::dispatch::Core;

/// Holds nothing back.
pub(crate) struct Hold;

#[inline(always)]
pub(crate) fn hold() -> Hold {
    Hold
}

#[inline(always)]
pub(crate) fn is_inside() -> bool {
    false
}

#[inline(always)]
pub(crate) fn raise(_event: impl FnOnce() -> Event) {}

#[inline(always)]
pub(crate) fn raise_completed(_quiet: bool, _event: impl FnOnce() -> Event) {}

#[inline(always)]
pub(crate) fn engine_started(_core: &Core) {}

#[inline(always)]
pub(crate) fn file_opened(_file: &OpenFile, _path: Option<&Path>) {}

#[inline(always)]
pub(crate) fn shutdown(_what: &'static str) {}
