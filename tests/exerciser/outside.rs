//! Where the files are: how they are made and looked at behind the back of the engine.

use std::path::Path;
use std::sync::Arc;

use polyaio::Backend;
#[cfg(feature = "simulated")]
use polyaio::backends::simulated::SimulatedDisk;

/// Where the files are.
#[derive(Clone)]
pub(crate) enum Outside {
    /// In the operating system's file systems.
    System,
    /// On a simulated disk, which has them for itself.
    #[cfg(feature = "simulated")]
    Disk(SimulatedDisk),
}

impl Outside {
    /// What an engine needs to know of them.
    pub(crate) fn backend(&self) -> Option<Arc<dyn Backend>> {
        match self {
            Self::System => None,
            #[cfg(feature = "simulated")]
            Self::Disk(disk) => Some(disk.backend()),
        }
    }

    /// Makes an empty file.
    pub(crate) fn make(&self, path: &Path) -> Result<(), String> {
        match self {
            Self::System => std::fs::write(path, b"").map_err(|error| format!("{}: {error}", path.display())),
            #[cfg(feature = "simulated")]
            Self::Disk(disk) => {
                disk.put(path, b"");
                Ok(())
            }
        }
    }

    /// All bytes of a file. Its pages leave the cache afterwards, where direct requests would be refused for them.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match self {
            Self::System => {
                let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
                evict(path).map(|()| bytes)
            }
            #[cfg(feature = "simulated")]
            Self::Disk(disk) => disk.read(path).ok_or_else(|| format!("{}: not there", path.display())),
        }
    }
}

#[cfg(unix)]
fn evict(path: &Path) -> Result<(), String> {
    use std::os::fd::AsRawFd as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.sync_data().map_err(|error| error.to_string())?;
    // SAFETY: takes no pointer.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(format!("posix_fadvise: error {errno}")),
    }
}

/// There is no such call, and nothing that would be refused.
#[cfg(windows)]
fn evict(_path: &Path) -> Result<(), String> {
    Ok(())
}
