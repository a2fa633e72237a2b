//! The file systems that plans run on.

#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;

#[cfg(unix)]
use crate::support::Mount;
use crate::support::{self, Scratch};

/// There is nothing to mount.
#[cfg(windows)]
struct Mount;

/// A directory on a file system, which goes with it.
pub(crate) struct Ground {
    pub(crate) name: &'static str,
    dir: PathBuf,
    pub(crate) direct: bool,
    pub(crate) punches: bool,
    pub(crate) allocates: bool,
    /// Files can be opened a second time. Where not, direct I/O refuses for good what is misaligned and has no offset.
    pub(crate) twins: bool,
    /// Files are opened for buffered I/O only, whatever the plan says: where those of the simulated disk are among them,
    /// which refuses what is misaligned.
    pub(crate) plain: bool,
    // In this order: the mount lies in the directory.
    _mount: Option<Mount>,
    _scratch: Scratch,
}

impl Ground {
    /// Where the tests were built: a disk, mostly.
    pub(crate) fn disk() -> Result<Self, String> {
        let scratch = Scratch::new();
        Self::new("disk", scratch.dir().to_owned(), None, scratch)
    }

    /// The same, and as many files on the simulated disk.
    #[cfg(feature = "simulated")]
    pub(crate) fn simulated() -> Result<Self, String> {
        Ok(Self { name: "simulated", plain: true, ..Self::disk()? })
    }

    fn new(name: &'static str, dir: PathBuf, mount: Option<Mount>, scratch: Scratch) -> Result<Self, String> {
        let direct = support::direct_io(&dir).is_ok();
        #[cfg(unix)]
        let [allocates, punches] = [can(&dir, 0)?, can(&dir, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)?];
        #[cfg(windows)]
        let [allocates, punches] = [false; 2];
        Ok(Self { name, dir, direct, punches, allocates, twins: true, plain: false, _mount: mount, _scratch: scratch })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Those that have to be mounted, and those in memory.
#[cfg(unix)]
impl Ground {
    /// The same without `/proc`, where what is misaligned goes through a buffer, block by block.
    pub(crate) fn without_proc() -> Result<Self, String> {
        let scratch = Scratch::new();
        let mount = support::hide_proc()?;
        let ground = Self::new("without_proc", scratch.dir().to_owned(), Some(mount), scratch)?;
        Ok(Self { twins: false, ..ground })
    }

    pub(crate) fn memory() -> Result<Self, String> {
        let scratch = Scratch::in_memory()?;
        Self::new("memory", scratch.dir().to_owned(), None, scratch)
    }

    pub(crate) fn ramfs() -> Result<Self, String> {
        let scratch = Scratch::new();
        let mount = support::ramfs(&scratch.path("ramfs"))?;
        Self::new("ramfs", mount.dir().to_owned(), Some(mount), scratch)
    }

    pub(crate) fn overlayfs() -> Result<Self, String> {
        let scratch = Scratch::new();
        let mount = support::overlayfs(scratch.dir())?;
        Self::new("overlayfs", mount.dir().to_owned(), Some(mount), scratch)
    }

    /// A loop device with a file system of `kind`, and sectors of so many bytes.
    pub(crate) fn image(name: &'static str, kind: &str, sector: u32) -> Result<Self, String> {
        let scratch = Scratch::new();
        let mount = support::image_with_sectors(scratch.dir(), kind, sector)?;
        Self::new(name, mount.dir().to_owned(), Some(mount), scratch)
    }
}

/// What `fallocate(2)` says to `mode`.
#[cfg(unix)]
fn can(dir: &Path, mode: libc::c_int) -> Result<bool, String> {
    use std::os::fd::AsRawFd as _;
    let file = tempfile::tempfile_in(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    // SAFETY: takes no pointer.
    let answer = unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, 4096) };
    match (answer, std::io::Error::last_os_error()) {
        (0, _) => Ok(true),
        (_, error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        (_, error) => Err(format!("fallocate in {}: {error}", dir.display())),
    }
}
