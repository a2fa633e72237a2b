//! A directory per test, removed with everything in it.

use std::path::{Path, PathBuf};

use super::machine::on_tmpfs;

/// A fresh directory under Cargo's target directory, hence on the disk: `/tmp` is often memory, which has no direct I/O.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// One that every user can enter, in `/tmp`: a clone may lie in a home directory that is closed to others.
    pub(crate) fn open_to_all() -> Self {
        let scratch = Self::below(&std::env::temp_dir());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let everybody = std::fs::Permissions::from_mode(0o777);
            std::fs::set_permissions(scratch.dir(), everybody).expect("a directory of our own");
        }
        scratch
    }

    /// One in memory: `/dev/shm` is a tmpfs that every user may write to.
    pub(crate) fn in_memory() -> Result<Self, String> {
        let parent = Path::new("/dev/shm");
        on_tmpfs(parent)?;
        let made = tempfile::Builder::new().prefix("polyaio-").tempdir_in(parent);
        made.map(Self).map_err(|error| format!("{}: {error}", parent.display()))
    }

    fn below(parent: &Path) -> Self {
        // Cargo makes it once, when it builds; a cleaned target directory comes back without it.
        std::fs::create_dir_all(parent).expect("a directory for scratch files");
        Self(tempfile::Builder::new().prefix("polyaio-").tempdir_in(parent).expect("a scratch directory"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it; creates nothing.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes `data` to `name` in it.
    pub(crate) fn file(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, data).expect("room for a test file");
        path
    }

    /// The same, and on the disk: a direct read of what is still dirty in the page cache has to wait, and the kernel
    /// refuses to start it where it must not block.
    pub(crate) fn file_on_disk(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.file(name, data);
        // Windows wants the right to write for that.
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        opened.and_then(|file| file.sync_all()).expect("a disk that works");
        path
    }

    /// Makes the directory `name` in it.
    pub(crate) fn subdir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).expect("a fresh directory");
        path
    }
}
