//! What this machine offers. Each question answers `Err(reason)` in words that a skip can print.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What the operating system has to be asked for.
#[cfg_attr(unix, path = "machine/unix.rs")]
#[cfg_attr(windows, path = "machine/windows.rs")]
mod system;

#[cfg(target_os = "linux")]
pub(crate) use system::NoThreads;
#[cfg(windows)]
pub(crate) use system::is_wine;
pub(crate) use system::{atomic_appends, direct_io, disk_file_system, is_root, kernel_aio, on_tmpfs};

/// The user and group that own nothing.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn root() -> Result<(), String> {
    if is_root() { Ok(()) } else { Err("needs root".into()) }
}

/// The tests that take minutes or gigabytes.
pub(crate) fn long_tests() -> Result<(), String> {
    match std::env::var_os("POLYAIO_TEST_LONG") {
        Some(_) => Ok(()),
        None => Err("long; set POLYAIO_TEST_LONG=1 to run it".into()),
    }
}

/// Finds a program, also where the administrator's programs are and an ordinary user's `PATH` does not look.
pub(crate) fn tool(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

/// `strace`, if it is here and may trace: containers often forbid ptrace.
pub(crate) fn strace() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let look = || {
        let strace = tool("strace")?;
        let traced = Command::new(&strace)
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=io_setup:error=EPERM", "true"])
            .stdin(Stdio::null())
            .output();
        match traced {
            Ok(out) if out.status.success() => Ok(strace),
            Ok(out) => Err(format!("strace cannot trace here: {}", String::from_utf8_lossy(&out.stderr).trim())),
            Err(error) => Err(format!("strace does not start: {error}")),
        }
    };
    FOUND.get_or_init(look).clone()
}

/// What `--backend` takes in this build.
pub(crate) fn backends() -> Vec<&'static str> {
    let mut names = vec!["auto", "thread-pool"];
    if cfg!(feature = "kernel-aio") {
        names.push("kernel-aio");
    }
    if cfg!(feature = "posix-aio") {
        names.push("posix-aio");
    }
    names
}

/// This build has kernel AIO, whatever the kernel says to it.
pub(crate) fn built_with_kernel_aio() -> Result<(), String> {
    if cfg!(feature = "kernel-aio") { Ok(()) } else { Err("built without the feature kernel-aio".into()) }
}

/// Whether this build has POSIX AIO, and serves through this C library.
pub(crate) fn posix_aio() -> Result<(), String> {
    match (cfg!(feature = "posix-aio"), cfg!(all(target_os = "linux", any(target_env = "gnu", target_env = "musl")))) {
        (true, true) => Ok(()),
        (true, false) => Err("POSIX AIO is not served with this C library".into()),
        (false, _) => Err("built without the feature posix-aio".into()),
    }
}

/// For what is so with glibc's POSIX AIO only: threads that serve many requests, and can be kept busy.
pub(crate) fn glibc() -> Result<(), String> {
    if cfg!(all(target_os = "linux", target_env = "gnu")) { Ok(()) } else { Err("about glibc's threads".into()) }
}
