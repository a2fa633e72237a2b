//! Running `aiocp` and reading its report.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Finished, Watched, example, quiet};

/// The usual size: many blocks, and an odd tail that no direct request can end with.
pub(crate) const SIZE: usize = (8 << 20) + 123;
/// The default block size of `aiocp`.
pub(crate) const BLOCK: usize = 64 << 10;

/// `aiocp ARGS...`, with what it prints kept, and nothing on its standard input.
pub(crate) fn aiocp<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    let mut command = Command::new(example("aiocp"));
    command.args(args);
    quiet(&mut command);
    command
}

/// Runs it to its end.
pub(crate) fn run(command: &mut Command) -> Finished {
    Watched::start(command).finish()
}

/// `aiocp OPTIONS... --json SOURCE DESTINATION` to its successful end.
#[track_caller]
pub(crate) fn copy(options: &[&str], source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Report {
    let mut command = aiocp(options);
    command.arg("--json").arg(source.as_ref()).arg(destination.as_ref());
    Report::of(run(&mut command))
}

/// The JSON object of a copy that went well.
pub(crate) struct Report {
    pub(crate) json: Value,
}

impl Report {
    #[track_caller]
    pub(crate) fn of(finished: Finished) -> Self {
        let finished = finished.expect_success();
        match serde_json::from_str(&finished.stderr) {
            Ok(json @ Value::Object(_)) => Self { json },
            other => panic!("standard error is not one JSON object: {other:?}\n{finished}"),
        }
    }

    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().unwrap_or_else(|| panic!("`{name}` is not a number in {}", self.json))
    }

    /// How many requests `name` has served: a backend, or `inline`.
    pub(crate) fn served_by(&self, name: &str) -> u64 {
        self.json["served_by"].get(name).map_or(0, |count| count.as_u64().expect("a count"))
    }

    pub(crate) fn served_in_all(&self) -> u64 {
        let served_by = self.json["served_by"].as_object().expect("an object");
        served_by.values().map(|count| count.as_u64().expect("a count")).sum()
    }

    pub(crate) fn fallbacks(&self) -> u64 {
        let fallbacks = self.json["fallbacks"].as_object().expect("an object");
        fallbacks.values().map(|count| count.as_u64().expect("a count")).sum()
    }

    /// Kernel AIO carried the copy: nearly every aligned block was read and written by it. A few may go elsewhere: the
    /// kernel may refuse to start one without blocking at any time (and then the pool repeats it).
    #[track_caller]
    pub(crate) fn assert_kernel_aio_carried(&self, bytes: usize) {
        let blocks = 2 * (bytes / BLOCK) as u64;
        let served = self.served_by("kernel-aio");
        assert!(served * 10 >= blocks * 9, "{served} of {blocks} blocks by kernel AIO: {}", self.json);
    }

    /// Kernel AIO has served as many blocks as one direction has: the reads, where not all writes can be its own.
    #[track_caller]
    pub(crate) fn assert_kernel_aio_carried_half(&self, bytes: usize) {
        let blocks = (bytes / BLOCK) as u64;
        let served = self.served_by("kernel-aio");
        assert!(served * 10 >= blocks * 9, "{served} by kernel AIO, {blocks} blocks: {}", self.json);
    }

    /// Kernel AIO has served some of the data: more than a sync of either end.
    #[track_caller]
    pub(crate) fn assert_kernel_aio_took_part(&self) {
        assert!(self.served_by("kernel-aio") > 2, "{}", self.json);
    }

    /// Kernel AIO carried no data. A sync of either end may be its own on any file system.
    #[track_caller]
    pub(crate) fn assert_kernel_aio_synced_at_most(&self) {
        assert!(self.served_by("kernel-aio") <= 2, "{}", self.json);
        assert!(self.served_in_all() > 2, "somebody must have copied: {}", self.json);
    }

    /// Nothing went to kernel AIO.
    #[track_caller]
    pub(crate) fn assert_without_kernel_aio(&self) {
        assert_eq!(self.served_by("kernel-aio"), 0, "{}", self.json);
        assert_ne!(self.served_in_all(), 0, "somebody must have copied: {}", self.json);
    }

    /// One end of the copy: `source` or `destination`.
    pub(crate) fn end(&self, name: &str) -> &Value {
        &self.json[name]
    }
}

/// One line, as every error is that is not about usage; returns it.
#[track_caller]
pub(crate) fn one_line(finished: &Finished) -> &str {
    let mut lines = finished.stderr.lines().filter(|line| !line.trim().is_empty());
    let line = lines.next().unwrap_or_else(|| panic!("no error message: {finished}"));
    assert_eq!(lines.next(), None, "more than one line: {finished}");
    line
}

/// Fails with exit code 1 and one line that has `says` in it.
#[track_caller]
pub(crate) fn expect_error(command: &mut Command, says: &str) -> Finished {
    let finished = run(command).expect_code(1);
    let line = one_line(&finished);
    assert!(line.to_lowercase().contains(&says.to_lowercase()), "`{says}` is not in: {line}");
    finished
}

/// Is refused as wrong usage, with `says` in the explanation.
#[track_caller]
pub(crate) fn expect_usage_error(command: &mut Command, says: &str) {
    let finished = run(command).expect_code(2);
    assert!(finished.stderr.contains(says), "`{says}` is not in: {finished}");
}
