//! What there is not, and what there always is.

use std::path::Path;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn GetModuleHandleA(name: *const std::ffi::c_char) -> *mut std::ffi::c_void;
    fn GetProcAddress(module: *mut std::ffi::c_void, name: *const std::ffi::c_char) -> *const ();
}

/// Not the system itself.
pub(crate) fn is_wine() -> bool {
    // SAFETY: both names are C strings, and every process has the module.
    unsafe { !GetProcAddress(GetModuleHandleA(c"ntdll.dll".as_ptr()), c"wine_get_version".as_ptr()).is_null() }
}

/// The system finds the end of a file and writes there in one step, whoever else appends.
pub(crate) fn atomic_appends() -> Result<(), String> {
    if is_wine() {
        Err("wine looks for the end of a file, and writes there when others may have done so".into())
    } else {
        Ok(())
    }
}

/// Administrators are not what is meant by that.
pub(crate) fn is_root() -> bool {
    false
}

pub(crate) fn kernel_aio() -> Result<(), String> {
    Err("kernel AIO is Linux'".into())
}

/// Where the automatic route of an aligned request is kernel AIO: nowhere.
pub(crate) fn disk_file_system(_dir: &Path) -> Result<(), String> {
    kernel_aio()
}

pub(crate) fn on_tmpfs(_dir: &Path) -> Result<(), String> {
    Err("there is no tmpfs".into())
}

/// A file in `dir` can be opened with `FILE_FLAG_NO_BUFFERING`, and says that it was.
pub(crate) fn direct_io(dir: &Path) -> Result<(), String> {
    let probe = dir.join(".direct-probe");
    let engine = polyaio::Engine::new().map_err(|error| error.to_string())?;
    let mut options = polyaio::OpenOptions::new();
    options.write(true).create(true).direct(polyaio::Direct::Required);
    let opened = options.open(&engine, &probe).map(|file| file.facts().direct);
    let _ = std::fs::remove_file(&probe);
    match opened {
        Ok(true) => Ok(()),
        // So does wine.
        Ok(false) => Err(format!("no direct I/O in {}: the system ignores the flag", dir.display())),
        Err(error) => Err(format!("no direct I/O in {}: {error}", dir.display())),
    }
}
