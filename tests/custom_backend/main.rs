//! Backends written outside the crate, as anybody could write them: a safe one that serves one operation at a time, and a
//! whole one with a thread of its own. And the example that shows how.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// A `SyncBackend` that does what a test tells it.
mod double;

/// A whole `Backend`, which answers in an order of its own.
mod asynchronous;
/// Who is cancelled, and who is waited for.
mod cancelling;
/// When a virtual file is closed: once.
mod closing;
/// What becomes of errors, panics and counts that cannot be.
mod errors;
/// The example `custom_backend` as users run it.
mod example;
/// Who is not waited for by a write that goes through the page cache.
mod gates;
/// Who looks for what a backend has done and tells nobody.
mod looking;
/// Beside the backends that come with the crate: policies, fallbacks, strictness.
mod routing;
/// Reads, writes and everything else, on files of the backend's own.
mod serving;
/// One that waits for another engine inside `submit`.
mod within;

/// The error number of a result that must have failed.
#[track_caller]
fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    let error = result.expect_err("it cannot succeed");
    error.raw_os_error().unwrap_or_else(|| panic!("an error without a number: {error:?}"))
}
