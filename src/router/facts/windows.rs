//! Handles: what the system tells of each, and of the file behind it.

use super::{Alignment, Facts, FileKind, FileSystem};
use crate::completion::Errno;
use crate::os::{self, AsFd, AsRawFd as _, BorrowedFd, FileType, RawFd, SEEK_CUR};

pub(crate) use crate::os::page_size;

impl Facts {
    /// Asks the operating system.
    ///
    /// # Errors
    /// `EBADF` where the handle is not open.
    pub(crate) fn gather(fd: BorrowedFd<'_>, direct_refused: Option<Errno>) -> Result<Self, Errno> {
        let raw = fd.as_raw_fd();
        let kind = kind(raw)?;
        // Old consoles do not tell: a transfer will.
        let access = os::access(raw);
        let direct = is_direct_now(raw) && matches!(kind, FileKind::Regular | FileKind::Block);
        Ok(Self {
            kind,
            direct,
            append: kind == FileKind::Regular && access.is_some_and(|access| access.append_only),
            readable: access.is_none_or(|access| access.reads),
            writable: access.is_none_or(|access| access.writes),
            seekable: matches!(kind, FileKind::Regular | FileKind::Block),
            file_system: FileSystem::Unknown,
            alignment: os::sector_size(raw).filter(|_| direct).map(|size| Alignment { memory: size, offset: size }),
            direct_refused,
            emulated: None,
            len: if kind == FileKind::Regular { os::length(raw).unwrap_or(0) } else { 0 },
        })
    }
}

fn kind(fd: RawFd) -> Result<FileKind, Errno> {
    Ok(match os::kind(fd)? {
        FileType::Disk => match os::status(fd) {
            Ok(status) if status.directory => FileKind::Directory,
            Ok(_) => FileKind::Regular,
            // A volume, or a whole disk.
            Err(_) => FileKind::Block,
        },
        FileType::Character if os::is_console(fd) => FileKind::Tty,
        FileType::Character => FileKind::CharDevice,
        FileType::Pipe => FileKind::Pipe,
    })
}

/// Whether a handle is for unbuffered I/O.
pub(crate) fn is_direct_now(fd: RawFd) -> bool {
    os::is_unbuffered(fd)
}

/// Length of a regular file in bytes.
pub(crate) fn current_len(fd: RawFd) -> Option<u64> {
    os::length(fd).ok()
}

/// The same: nothing tells whether a server would have to be asked.
pub(crate) fn cached_len(fd: RawFd) -> Option<u64> {
    current_len(fd)
}

/// Where a file's own position is, in bytes.
#[allow(unsafe_code)]
pub(crate) fn current_position(fd: RawFd) -> Option<u64> {
    // SAFETY: from here by 0: it takes no memory, and changes nothing.
    u64::try_from(unsafe { os::lseek(fd, 0, SEEK_CUR) }).ok()
}

/// A regular file has blocks of its own up to here, in bytes; where it must have holes, unknown, which is 0.
pub(crate) fn mapped_len(fd: RawFd) -> u64 {
    os::status(fd).map_or(0, |status| if status.allocated >= status.len { status.len } else { 0 })
}

/// There are no numbers by which a device's reading ahead could be asked for.
pub(crate) fn device(_fd: RawFd) -> Option<(u32, u32)> {
    None
}

pub(crate) fn read_ahead(_device: (u32, u32)) -> Option<u64> {
    None
}

/// The name of a file system decides nothing here.
pub(crate) fn file_system(_fd: &impl AsFd) -> FileSystem {
    FileSystem::Unknown
}

pub(crate) fn never_waits_to_write(_fd: RawFd, _kind: FileKind) -> bool {
    false
}

/// Length of a volume or disk in bytes: not asked for.
pub(crate) fn device_len(_fd: RawFd) -> Option<u64> {
    None
}

/// Nothing is known to lie in memory.
pub(crate) fn swap_is_active() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(file: &impl AsFd) -> Facts {
        Facts::gather(file.as_fd(), None).expect("the handle is open")
    }

    #[test]
    fn kinds_are_told_apart() {
        let file = tempfile::tempfile().expect("a temporary file");
        let regular = facts(&file);
        assert!(regular.kind == FileKind::Regular && regular.seekable && regular.readable && regular.writable);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        assert!(facts(&reader).kind == FileKind::Pipe && facts(&reader).is_stream() && !facts(&reader).writable);
        assert!(!facts(&writer).readable && !facts(&writer).append);
        let null = std::fs::File::open("NUL").expect("it is everywhere");
        assert_eq!(facts(&null).kind, FileKind::CharDevice);
    }

    #[test]
    fn rights_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data");
        let mut options = std::fs::OpenOptions::new();
        let appended = options.append(true).create(true).open(&path).expect("it is made");
        assert!(facts(&appended).append && facts(&appended).writable && !facts(&appended).readable);
        let read = std::fs::File::open(&path).expect("it is there");
        assert!(!facts(&read).append && !facts(&read).writable && facts(&read).readable);
    }
}
