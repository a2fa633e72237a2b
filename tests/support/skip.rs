//! Skips that are seen.
//!
//! libtest hides what a passing test prints, and a hidden skip looks like a pass. It captures the print macros only,
//! so the reason goes to standard error's descriptor itself.

use std::cell::Cell;
use std::io::Write as _;

thread_local! {
    /// The test of this thread has skipped something.
    static SKIPPED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has skipped something since it was last asked.
pub(crate) fn take_skipped() -> bool {
    SKIPPED.take()
}

/// Prints `SKIP <test>: <why>`, past libtest's capture. `function` is where, in case the test's name is not known.
///
/// # Panics
/// If `POLYAIO_TEST_NO_SKIP` is set: a machine that is known to have everything must not skip anything.
pub(crate) fn report_skip(function: &str, why: &str) {
    SKIPPED.set(true);
    // libtest names each thread after its test, unless it runs them all on the main thread.
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main");
    let binary = function.split("::").next().unwrap_or_default();
    let test = name.map_or_else(|| function.to_owned(), |name| format!("{binary}::{name}"));
    let line = format!("SKIP {test}: {why}\n");
    // One write, so that the lines of tests in parallel do not mix. A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert!(std::env::var_os("POLYAIO_TEST_NO_SKIP").is_none(), "skipped under POLYAIO_TEST_NO_SKIP: {why}");
}

/// The value of a `Result<T, String>`; or the test ends here, skipped, and the reason is printed.
///
/// For what a *machine* may lack. What the library may lack is an assertion.
#[allow(unused_macros, reason = "not every binary lacks something")]
macro_rules! require {
    ($have:expr) => {
        match $have {
            Ok(value) => value,
            Err(why) => {
                // A function's type name is the only place where the name of the test around it can be read.
                fn here() {}
                let name = ::std::any::type_name_of_val(&here);
                let name = name.strip_suffix("::here").unwrap_or(name);
                $crate::support::report_skip(name, &why);
                return;
            }
        }
    };
}

pub(crate) use require;
