//! What this machine offers. Each question answers `Err(reason)` in words that a skip can print.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The user and group that own nothing.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

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
    match (cfg!(feature = "posix-aio"), cfg!(any(target_env = "gnu", target_env = "musl"))) {
        (true, true) => Ok(()),
        (true, false) => Err("POSIX AIO is not served with this C library".into()),
        (false, _) => Err("built without the feature posix-aio".into()),
    }
}

/// For what is so with glibc's POSIX AIO only: threads that serve many requests, and can be kept busy.
pub(crate) fn glibc() -> Result<(), String> {
    if cfg!(target_env = "gnu") { Ok(()) } else { Err("about glibc's threads".into()) }
}

/// Whether the kernel gives out an AIO context, and this build would use it.
pub(crate) fn kernel_aio() -> Result<(), String> {
    built_with_kernel_aio()?;
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel writes one context number through the pointer, which outlives the call.
    let set_up = unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) };
    if set_up != 0 {
        return Err(format!("no kernel AIO here: io_setup: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the context was made above, is known to nobody else, and has nothing in flight.
    unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    Ok(())
}

/// `dir` is on a file system with real direct I/O, where the automatic route of an aligned request is kernel AIO.
pub(crate) fn disk_file_system(dir: &Path) -> Result<(), String> {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    let magic = magic(dir)?;
    if magic == EXT4 || magic == XFS {
        direct_io(dir)
    } else {
        Err(format!("{} is not on ext4 or XFS (magic {magic:#x})", dir.display()))
    }
}

pub(crate) fn on_tmpfs(dir: &Path) -> Result<(), String> {
    const TMPFS: u64 = 0x0102_1994;
    let magic = magic(dir)?;
    if magic == TMPFS { Ok(()) } else { Err(format!("{} is not a tmpfs (magic {magic:#x})", dir.display())) }
}

/// A file in `dir` can be opened with `O_DIRECT`.
pub(crate) fn direct_io(dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let probe = dir.join(".direct-probe");
    let opened =
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT).open(&probe);
    // Some file systems create the file and then refuse the flag.
    let _ = std::fs::remove_file(&probe);
    opened.map(drop).map_err(|error| format!("no direct I/O in {}: {error}", dir.display()))
}

fn magic(path: &Path) -> Result<u64, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the name is a C string, and the kernel fills the whole structure when it answers 0.
    if unsafe { libc::statfs(name.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(format!("statfs {}: {}", path.display(), std::io::Error::last_os_error()));
    }
    // SAFETY: filled, see above.
    let facts = unsafe { facts.assume_init() };
    // The field's type differs between libcs; magics are 32 bits, some with the top one set.
    #[allow(clippy::unnecessary_cast)]
    Ok(facts.f_type as u32 as u64)
}
