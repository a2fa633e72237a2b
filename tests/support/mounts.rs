//! Mounts that cannot outlive their test.
//!
//! The thread that mounts first leaves for a mount namespace of its own. What it starts sees the mounts, nobody else
//! does, and the kernel removes them with the last process in there: also when the test panics or is killed.

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::machine::root;

/// A mounted file system. Unmounted on drop, so declare it after the [`Scratch`](super::Scratch) that it lies in.
pub(crate) struct Mount {
    target: PathBuf,
}

impl Mount {
    /// Mounts `source` on `target`, which it creates.
    pub(crate) fn new(source: &CStr, target: &Path, kind: &str, options: &str) -> Result<Self, String> {
        root()?;
        std::fs::create_dir(target).map_err(|error| format!("{}: {error}", target.display()))?;
        Self::over(source, target, kind, options)
    }

    /// The same, over a directory that is there.
    fn over(source: &CStr, target: &Path, kind: &str, options: &str) -> Result<Self, String> {
        root()?;
        enter_namespace().map_err(|error| format!("no mount namespace of our own: {error}"))?;
        let c_target = CString::new(target.as_os_str().as_bytes()).expect("a path without NUL");
        let c_kind = CString::new(kind).expect("a name without NUL");
        let c_options = CString::new(options).expect("options without NUL");
        // SAFETY: all four are C strings that outlive the call.
        let mounted =
            unsafe { libc::mount(source.as_ptr(), c_target.as_ptr(), c_kind.as_ptr(), 0, c_options.as_ptr().cast()) };
        if mounted != 0 {
            return Err(format!("mount -t {kind}: {}", io::Error::last_os_error()));
        }
        Ok(Self { target: target.to_owned() })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.target
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = CString::new(self.target.as_os_str().as_bytes()).expect("a path without NUL");
        // Detached, not busy-waited: a process that a failed test left behind must not keep us from cleaning up.
        // SAFETY: the target is a C string that outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

pub(crate) fn tmpfs(target: &Path, options: &str) -> Result<Mount, String> {
    Mount::new(c"tmpfs", target, "tmpfs", options)
}

/// Covers `/proc`, for this thread and those that it starts.
pub(crate) fn hide_proc() -> Result<Mount, String> {
    Mount::over(c"tmpfs", Path::new("/proc"), "tmpfs", "")
}

/// The file system that refuses `O_DIRECT`; tmpfs accepts it since 6.6.
pub(crate) fn ramfs(target: &Path) -> Result<Mount, String> {
    Mount::new(c"ramfs", target, "ramfs", "")
}

/// Layers in `dir`, mounted on `dir/overlay`.
pub(crate) fn overlayfs(dir: &Path) -> Result<Mount, String> {
    for layer in ["lower", "upper", "work"] {
        std::fs::create_dir(dir.join(layer)).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let dir_name = dir.display();
    let layers = format!("lowerdir={dir_name}/lower,upperdir={dir_name}/upper,workdir={dir_name}/work");
    Mount::new(c"overlay", &dir.join("overlay"), "overlay", &layers)
}

fn enter_namespace() -> io::Result<()> {
    thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
    if ENTERED.get() {
        return Ok(());
    }
    // SAFETY: affects this thread and what it starts; the strings are literals.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Otherwise our mounts would travel back to the namespace that we came from.
        let private = libc::MS_REC | libc::MS_PRIVATE;
        if libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    ENTERED.set(true);
    Ok(())
}
