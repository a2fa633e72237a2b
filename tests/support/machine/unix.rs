//! What only system calls can tell.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::built_with_kernel_aio;

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
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

/// The system finds the end of a file and writes there in one step, whoever else appends.
pub(crate) fn atomic_appends() -> Result<(), String> {
    Ok(())
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

/// While it lives, no thread can be had in this process, which is a test's own: root is not held to the limit, and is nobody.
#[cfg(target_os = "linux")]
pub(crate) struct NoThreads(());

#[cfg(target_os = "linux")]
impl NoThreads {
    pub(crate) fn begin() -> Self {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is read during the call; the others take numbers.
        unsafe {
            assert_eq!(libc::setrlimit(libc::RLIMIT_NPROC, &raw const none), 0);
            assert!(!is_root() || libc::setresuid(super::NOBODY, super::NOBODY, 0) == 0);
        }
        std::thread::Builder::new().spawn(|| ()).expect_err("no thread is to be had");
        Self(())
    }
}

#[cfg(target_os = "linux")]
impl Drop for NoThreads {
    fn drop(&mut self) {
        // SAFETY: takes numbers. Root again, if it was: the scratch directory is its own.
        unsafe { libc::setresuid(u32::MAX, 0, u32::MAX) };
    }
}
