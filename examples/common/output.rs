//! Standard output, which may be full or a pipe that nobody reads.

use std::fmt;
use std::io::{self, Write};

use crate::text::Failure;

/// Prints one line, where `println!` would panic.
pub(crate) fn print(line: impl fmt::Display) -> Result<(), Failure> {
    let written = io::stdout().write_all(format!("{line}\n").as_bytes());
    written.and_then(|()| io::stdout().flush()).map_err(|error| Failure::of("cannot write standard output", &error))
}
