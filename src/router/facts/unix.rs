//! Descriptors: fstat(2), fcntl(2), and what Linux adds.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::{Alignment, Facts, FileKind, FileSystem};
use crate::completion::Errno;
use crate::os::{self, AsFd, AsRawFd as _, BorrowedFd, RawFd};

impl Facts {
    /// Asks the operating system.
    ///
    /// # Errors
    /// `EBADF` where the descriptor is not open, or open as a path only.
    pub(crate) fn gather(fd: BorrowedFd<'_>, direct_refused: Option<Errno>) -> Result<Self, Errno> {
        let raw = fd.as_raw_fd();
        let status = fstat(raw)?;
        let flags = status_flags(raw)?;
        if flags & PATH_FLAG != 0 {
            return Err(Errno(libc::EBADF));
        }
        let file_system = file_system(&fd);
        let kind = kind(raw, &status, file_system);
        let access = flags & libc::O_ACCMODE;
        Ok(Self {
            kind,
            direct: flags & DIRECT_FLAG != 0 && matches!(kind, FileKind::Regular | FileKind::Block),
            append: flags & libc::O_APPEND != 0,
            readable: access != libc::O_WRONLY,
            writable: access != libc::O_RDONLY,
            seekable: is_seekable(raw, kind),
            // A device node, a FIFO or a socket only has its name there: devtmpfs would pass for tmpfs.
            file_system: match kind {
                FileKind::Regular | FileKind::Directory => file_system,
                _ => FileSystem::Unknown,
            },
            alignment: alignment(raw, kind, &status),
            direct_refused,
            emulated: None,
            len: match kind {
                FileKind::Regular => u64::try_from(status.st_size).unwrap_or(0),
                _ => 0,
            },
        })
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        const PATH_FLAG: i32 = libc::O_PATH;
        const DIRECT_FLAG: i32 = libc::O_DIRECT;
    } else if #[cfg(any(target_os = "freebsd", target_os = "netbsd"))] {
        const PATH_FLAG: i32 = 0;
        const DIRECT_FLAG: i32 = libc::O_DIRECT;
    } else {
        const PATH_FLAG: i32 = 0;
        const DIRECT_FLAG: i32 = 0;
    }
}

fn fstat(fd: RawFd) -> Result<os::Stat, Errno> {
    let mut status = MaybeUninit::<os::Stat>::uninit();
    // SAFETY: `status` is large enough for fstat(2) to fill, and initialised once the call succeeds.
    unsafe {
        if os::fstat(fd, status.as_mut_ptr()) != 0 {
            return Err(Errno::last());
        }
        Ok(status.assume_init())
    }
}

/// Whether a descriptor has `O_DIRECT` set now.
pub(crate) fn is_direct_now(fd: RawFd) -> bool {
    status_flags(fd).is_ok_and(|flags| flags & DIRECT_FLAG != 0)
}

/// Size of a page of memory in bytes.
pub(crate) fn page_size() -> u64 {
    static SIZE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    // SAFETY: sysconf(3) takes no pointer.
    *SIZE.get_or_init(|| u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(512))
}

/// Length of a regular file in bytes, from memory: for deciding whether a short read has met the end of the file.
pub(crate) fn current_len(fd: RawFd) -> Option<u64> {
    fstat(fd).ok().and_then(|status| u64::try_from(status.st_size).ok())
}

/// Where a file's own position is, in bytes. Waits for a thread that is inside `read(2)` or `write(2)` on the same open file.
pub(crate) fn current_position(fd: RawFd) -> Option<u64> {
    // SAFETY: lseek(2) takes no pointer; from here by 0 it changes nothing.
    u64::try_from(unsafe { os::lseek(fd, 0, libc::SEEK_CUR) }).ok()
}

/// A regular file has blocks of its own up to here, in bytes: all of it, or (where there must be holes) unknown, which is 0.
/// Blocks reserved beyond the end can make up for holes in the count, so that this is what is likely, and no more.
pub(crate) fn mapped_len(fd: RawFd) -> u64 {
    let Ok(status) = fstat(fd) else { return 0 };
    let len = u64::try_from(status.st_size).unwrap_or(0);
    // The unit of `st_blocks` is 512 bytes, whatever the file system's is.
    let allocated = u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512);
    if allocated >= len { len } else { 0 }
}

/// Major and minor number of the device, or of the file system without one, that a regular file lies on.
pub(crate) fn device(fd: RawFd) -> Option<(u32, u32)> {
    let status = fstat(fd).ok()?;
    // Their types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    Some((libc::major(status.st_dev) as u32, libc::minor(status.st_dev) as u32))
}

/// What is read ahead on a device in bytes, as the system says.
pub(crate) fn read_ahead((major, minor): (u32, u32)) -> Option<u64> {
    // A disk, a partition of one, a file system of another kind.
    let places = [
        format!("/sys/dev/block/{major}:{minor}/queue"),
        format!("/sys/dev/block/{major}:{minor}/../queue"),
        format!("/sys/class/bdi/{major}:{minor}"),
    ];
    let read =
        |place: &String| std::fs::read_to_string(format!("{place}/read_ahead_kb")).ok()?.trim().parse::<u64>().ok();
    places.iter().find_map(read).map(|kib| kib.saturating_mul(1024))
}

fn status_flags(fd: RawFd) -> Result<i32, Errno> {
    // SAFETY: F_GETFL takes no pointer.
    match unsafe { libc::fcntl(fd, libc::F_GETFL) } {
        -1 => Err(Errno::last()),
        flags => Ok(flags),
    }
}

fn kind(fd: RawFd, status: &os::Stat, file_system: FileSystem) -> FileKind {
    match status.st_mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFBLK => FileKind::Block,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFIFO if file_system == FileSystem::Other(PIPE_MAGIC) => FileKind::Pipe,
        libc::S_IFIFO => FileKind::Fifo,
        // SAFETY: isatty(3) takes no pointer.
        libc::S_IFCHR if unsafe { libc::isatty(fd) } == 1 => FileKind::Tty,
        libc::S_IFCHR => FileKind::CharDevice,
        _ => FileKind::Anonymous,
    }
}

/// `PIPEFS_MAGIC` of `linux/magic.h`.
const PIPE_MAGIC: u64 = 0x5049_5045;

fn is_seekable(fd: RawFd, kind: FileKind) -> bool {
    match kind {
        FileKind::Block | FileKind::Virtual => true,
        // Some have no offsets, and their readers wait: `trace_pipe` of tracefs, or what FUSE makes.
        // SAFETY: lseek(2) takes no pointer; from here by 0 it changes nothing.
        FileKind::Regular => unsafe { os::lseek(fd, 0, libc::SEEK_CUR) >= 0 || Errno::last().0 != libc::ESPIPE },
        // SAFETY: as above.
        FileKind::CharDevice => unsafe { os::lseek(fd, 0, libc::SEEK_CUR) >= 0 },
        _ => false,
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        /// The file system of a descriptor, by fstatfs(2).
        pub(crate) fn file_system(fd: &impl AsFd) -> FileSystem {
            let mut info = MaybeUninit::<libc::statfs>::uninit();
            // SAFETY: `info` is large enough for fstatfs(2) to fill, and initialised once the call succeeds.
            let magic = unsafe {
                if libc::fstatfs(fd.as_fd().as_raw_fd(), info.as_mut_ptr()) != 0 {
                    return FileSystem::Unknown;
                }
                // The magic numbers have 32 bits; the field's width and sign differ between platforms.
                u64::from(info.assume_init().f_type as u32)
            };
            match magic {
                0xEF53 => FileSystem::Ext4,
                0x5846_5342 => FileSystem::Xfs,
                0x9123_683E => FileSystem::Btrfs,
                0x0102_1994 => FileSystem::Tmpfs,
                0x8584_58F6 => FileSystem::Ramfs,
                0x794C_7630 => FileSystem::Overlay,
                0x6969 => FileSystem::Nfs,
                0x6573_5546 => FileSystem::Fuse,
                other => FileSystem::Other(other),
            }
        }

        /// Whether it is one of those that take writes at any time, though poll(2) never calls them writable: the kernel's
        /// log (`/dev/kmsg`), and a fanotify group, which is told decisions.
        pub(crate) fn never_waits_to_write(fd: RawFd, kind: FileKind) -> bool {
            match kind {
                FileKind::CharDevice => fstat(fd).is_ok_and(|status| status.st_rdev == libc::makedev(1, 11)),
                FileKind::Anonymous => std::fs::read_link(format!("/proc/self/fd/{fd}"))
                    .is_ok_and(|name| name.as_os_str() == "anon_inode:[fanotify]"),
                _ => false,
            }
        }

        /// What direct I/O needs: `STATX_DIOALIGN`, else what XFS says, else the device's logical block size.
        fn alignment(fd: RawFd, kind: FileKind, status: &os::Stat) -> Option<Alignment> {
            if !matches!(kind, FileKind::Regular | FileKind::Block) {
                return None;
            }
            statx_alignment(fd).unwrap_or_else(|| {
                xfs_alignment(fd).or_else(|| block_size(status, kind).map(|size| Alignment { memory: size, offset: size }))
            })
        }

        /// As [`current_len`], but never waits for a server: what the kernel has in memory.
        pub(crate) fn cached_len(fd: RawFd) -> Option<u64> {
            statx(fd, libc::AT_STATX_DONT_SYNC, libc::STATX_SIZE).map_or_else(|| current_len(fd), |answer| Some(answer.size))
        }

        /// Length of a block device in bytes.
        pub(crate) fn device_len(fd: RawFd) -> Option<u64> {
            /// `_IOR(0x12, 114, size_t)`.
            const BLKGETSIZE64: libc::c_ulong = ((size_of::<usize>() as libc::c_ulong) << 16) | 0x8000_1272;
            let mut bytes = 0u64;
            // SAFETY: the kernel writes one `u64` to where the pointer points.
            let answer = unsafe { libc::ioctl(fd, BLKGETSIZE64 as _, &raw mut bytes) };
            (answer == 0).then_some(bytes)
        }

        /// `struct statx` of `linux/stat.h`, as far as it is used; 256 bytes in all.
        #[repr(C)]
        struct Statx {
            mask: u32,
            _blksize_to_ino: [u8; 0x28 - 4],
            size: u64,
            _before: [u8; 0x98 - 0x30],
            dio_mem_align: u32,
            dio_offset_align: u32,
            _after: [u8; 256 - 0xA0],
        }

        /// `None` before Linux 4.11, and where a filter forbids it.
        fn statx(fd: RawFd, flags: libc::c_int, mask: u32) -> Option<Statx> {
            let mut answer = MaybeUninit::<Statx>::zeroed();
            // SAFETY: `answer` has the 256 bytes that statx(2) may fill; all bit patterns are valid for its fields.
            unsafe {
                let empty = c"".as_ptr();
                let flags = flags | libc::AT_EMPTY_PATH;
                let result = libc::syscall(libc::SYS_statx, fd, empty, flags, mask, answer.as_mut_ptr());
                (result == 0).then(|| answer.assume_init())
            }
        }

        /// `None`: the kernel does not say (before 6.1, or this file system). `Some(None)`: no direct I/O here.
        fn statx_alignment(fd: RawFd) -> Option<Option<Alignment>> {
            const STATX_DIOALIGN: u32 = 0x2000;
            let answer = statx(fd, 0, STATX_DIOALIGN)?;
            (answer.mask & STATX_DIOALIGN != 0).then(|| {
                (answer.dio_offset_align != 0).then_some(Alignment {
                    memory: answer.dio_mem_align as usize,
                    offset: answer.dio_offset_align as usize,
                })
            })
        }

        fn xfs_alignment(fd: RawFd) -> Option<Alignment> {
            /// `struct dioattr` of xfs_fs.h.
            #[repr(C)]
            #[derive(Default)]
            struct DioAttr {
                mem: u32,
                miniosz: u32,
                maxiosz: u32,
            }
            /// `_IOR('X', 30, struct dioattr)`.
            const XFS_IOC_DIOINFO: u64 = 0x800C_581E;
            let mut attr = DioAttr::default();
            // SAFETY: `attr` is what this ioctl fills; other file systems answer ENOTTY and touch nothing.
            let answer = unsafe { libc::ioctl(fd, XFS_IOC_DIOINFO as _, &raw mut attr) };
            (answer == 0 && attr.mem > 0 && attr.miniosz > 0)
                .then_some(Alignment { memory: attr.mem as usize, offset: attr.miniosz as usize })
        }

        /// Logical block size in bytes of the device that is, or holds, the file.
        fn block_size(status: &os::Stat, kind: FileKind) -> Option<usize> {
            let device = if kind == FileKind::Block { status.st_rdev } else { status.st_dev };
            let (major, minor) = (libc::major(device), libc::minor(device));
            // A partition has no queue of its own: its disk's is one level up.
            ["queue", "../queue"].iter().find_map(|queue| {
                let path = format!("/sys/dev/block/{major}:{minor}/{queue}/logical_block_size");
                std::fs::read_to_string(path).ok()?.trim().parse().ok()
            })
        }
    } else {
        pub(crate) fn file_system(_fd: &impl AsFd) -> FileSystem {
            FileSystem::Unknown
        }

        pub(crate) fn never_waits_to_write(_fd: RawFd, _kind: FileKind) -> bool {
            false
        }

        fn alignment(_fd: RawFd, _kind: FileKind, _status: &os::Stat) -> Option<Alignment> {
            None
        }

        pub(crate) fn cached_len(fd: RawFd) -> Option<u64> {
            current_len(fd)
        }

        pub(crate) fn device_len(_fd: RawFd) -> Option<u64> {
            None
        }
    }
}

/// Whether swap is in use, so that tmpfs is not all memory. Unknown counts as yes.
pub(crate) fn swap_is_active() -> bool {
    match std::fs::read_to_string("/proc/swaps") {
        Ok(swaps) => swaps.lines().count() > 1,
        Err(_) => true,
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn facts(file: &impl AsFd) -> Facts {
        Facts::gather(file.as_fd(), None).expect("the descriptor is open")
    }

    #[test]
    fn kinds_are_told_apart() {
        let file = tempfile::tempfile().expect("a temporary file");
        let regular = facts(&file);
        assert!(regular.kind == FileKind::Regular && regular.seekable && regular.readable && regular.writable);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        assert!(facts(&reader).kind == FileKind::Pipe && facts(&reader).is_stream() && !facts(&reader).writable);
        assert!(!facts(&writer).readable);
        let (socket, _peer) = UnixStream::pair().expect("a socket pair");
        assert_eq!(facts(&socket).kind, FileKind::Socket);
        let zero = std::fs::File::open("/dev/zero").expect("/dev/zero");
        assert_eq!(facts(&zero).kind, FileKind::CharDevice);
        let directory = std::fs::File::open("/").expect("/");
        assert!(facts(&directory).kind == FileKind::Directory && !facts(&directory).seekable);
    }

    #[test]
    fn a_device_node_does_not_lie_in_memory() {
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        assert_eq!(facts(&null).file_system, FileSystem::Unknown, "not devtmpfs, which has the number of tmpfs");
    }

    #[test]
    fn a_path_descriptor_is_refused() {
        use std::os::fd::FromRawFd as _;
        // Not by `std`, which leaves the flag out with musl: there it counts as a mode of access.
        // SAFETY: a C string; the descriptor is new.
        let path = unsafe {
            let fd = libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            std::os::fd::OwnedFd::from_raw_fd(fd)
        };
        assert_eq!(Facts::gather(path.as_fd(), None), Err(Errno(libc::EBADF)));
    }
}
