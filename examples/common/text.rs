//! Errors as one line that says what to do.

use std::fmt;
use std::io::{self, Write};

/// Why the program ends, as a line without its prefix.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) line: String,
    /// The command line is wrong, not the world: exit code 2.
    pub(crate) usage: bool,
}

impl Failure {
    /// Something went wrong while running. It stays one line, whatever a path contains.
    pub(crate) fn new(line: impl Into<String>) -> Failure {
        Failure { line: line.into().replace('\n', " "), usage: false }
    }

    /// The operating system said no to `what`.
    pub(crate) fn of(what: impl fmt::Display, error: &io::Error) -> Failure {
        let advice = advice(error);
        let colon = if advice.is_empty() { "" } else { ": " };
        Failure::new(format!("{what}: {error}{colon}{advice}"))
    }

    /// The library said no. Its own errors say what to do; the operating system's are given the advice that all get.
    pub(crate) fn of_library(error: polyaio::Error) -> Failure {
        match error {
            polyaio::Error::Open { path, source } => {
                Failure::of(format_args!("cannot open {}", path.display()), &source)
            }
            other => Failure::new(other.to_string()),
        }
    }

    /// 2 for wrong usage, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}

/// What the user can do about it, where that is more than what the error already says.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::*;
    match error.kind() {
        NotFound => "check the path",
        PermissionDenied => "check the permissions, or run it as a user who has them",
        StorageFull => "the disk or device is full, free some space or choose another destination",
        QuotaExceeded => "free some of your quota or choose another destination",
        ReadOnlyFilesystem => "choose a destination on a writable file system",
        FileTooLarge => "raise `ulimit -f` or choose a file system for larger files",
        BrokenPipe => "the reader of the pipe is gone",
        IsADirectory => "name a file",
        NotADirectory => "a part of the path is a file, check the path",
        ExecutableFileBusy => "the program is running, stop it first",
        ResourceBusy => "something else is using it, for example a mount",
        _ => match error.raw_os_error() {
            Some(libc::EIO) => "the device or its driver failed, look at the kernel log (dmesg)",
            Some(libc::EMFILE | libc::ENFILE) => "too many open files, raise `ulimit -n`",
            Some(libc::ENXIO) => "nothing is behind this file, is its other side open?",
            _ => "",
        },
    }
}

/// Prints one line to standard error. A closed or full standard error is not worth a panic, and there is nobody left
/// to tell.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
