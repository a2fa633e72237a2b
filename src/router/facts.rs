//! What is known of a descriptor: gathered once, when it is opened or adopted.

#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::completion::Errno;
use crate::open::OpenOptions;
use crate::os;

/// What kind of thing a descriptor refers to.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
/// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
/// use polyaio::FileKind;
/// assert_eq!((reader.facts().kind, writer.facts().kind), (FileKind::Pipe, FileKind::Pipe));
/// assert_eq!(FileKind::Fifo.to_string(), "fifo");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    Block,
    /// A directory: only `sync`, `len` and `close` make sense.
    Directory,
    /// An anonymous pipe.
    Pipe,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A terminal, real or pseudo.
    Tty,
    /// Any other character device, such as `/dev/zero`.
    CharDevice,
    /// An eventfd, timerfd, inotify or another descriptor without a file.
    Anonymous,
    /// A file that only its backend knows.
    Virtual,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Regular => "regular",
            Self::Block => "block",
            Self::Directory => "directory",
            Self::Pipe => "pipe",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Tty => "tty",
            Self::CharDevice => "char",
            Self::Anonymous => "anonymous",
            Self::Virtual => "virtual",
        })
    }
}

/// The file system that a descriptor lies on.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::FileSystem;
/// match file.facts().file_system {
///     FileSystem::Tmpfs | FileSystem::Ramfs => println!("in memory: nothing to be gained by O_DIRECT"),
///     FileSystem::Overlay => println!("in a container, perhaps"),
///     other => println!("on {other}"),
/// }
/// assert_eq!(FileSystem::Xfs.to_string(), "xfs");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileSystem {
    /// ext2, ext3 or ext4: they share one magic number.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// tmpfs: memory, and swap where some is active.
    Tmpfs,
    /// ramfs: memory only. Refuses `O_DIRECT`.
    Ramfs,
    /// overlayfs: what containers see.
    Overlay,
    /// NFS.
    Nfs,
    /// FUSE.
    Fuse,
    /// Another one, by its `f_type`.
    Other(u64),
    /// It could not be found out, or the descriptor lies on none.
    Unknown,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Ramfs => "ramfs",
            Self::Overlay => "overlay",
            Self::Nfs => "nfs",
            Self::Fuse => "fuse",
            Self::Other(magic) => return write!(f, "{magic:#x}"),
            Self::Unknown => "unknown",
        };
        f.pad(name)
    }
}

/// What direct I/O on a file has to be a multiple of.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use polyaio::{Direct, Engine, OpenOptions};
/// let mut options = OpenOptions::new();
/// options.write(true).create(true).direct(Direct::Emulated { alignment: 4096 });
/// let alignment = options.open(&Engine::new()?, &path)?.alignment();
/// let buf = polyaio::AlignedBuf::zeroed(8192, 4096);
/// assert!(alignment.admits(buf.as_ptr(), 8192, Some(4096)));
/// assert!(!alignment.admits(buf.as_ptr(), 8000, Some(4096)));
/// assert!(!alignment.admits(buf.as_ptr(), 8192, Some(512)));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alignment {
    /// Addresses of buffers, in bytes.
    pub memory: usize,
    /// File offsets and lengths, in bytes.
    pub offset: usize,
}

impl Alignment {
    /// Nothing is demanded.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::Alignment;
    /// assert_eq!(file.alignment(), Alignment::NONE, "it goes through the page cache");
    /// assert!(Alignment::NONE.admits(std::ptr::null(), 3, Some(1)));
    /// # Ok(()) }
    /// ```
    pub const NONE: Self = Self { memory: 1, offset: 1 };

    /// What is taken for granted where direct I/O is offered and nobody says what it needs: a page, which is what btrfs
    /// wants and more than NFS does. No more than a multiple of what is needed, on all sectors of up to that size.
    fn assumed() -> Self {
        let page = page_size().max(4096) as usize;
        Self { memory: page, offset: page }
    }

    /// Whether direct I/O accepts a transfer of `len` bytes at `address` in memory, and at `position` in the file
    /// (`None`: where the file's own position is, which is not looked at).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let block = polyaio::Alignment { memory: 512, offset: 4096 };
    /// let buffer = polyaio::AlignedBuf::zeroed(8192, 512);
    /// assert!(block.admits(buffer.as_ptr(), 4096, None));
    /// assert!(!block.admits(buffer.as_ptr(), 512, None), "too short");
    /// assert!(!block.admits(buffer[1..].as_ptr(), 4096, None), "an odd address");
    /// # Ok(()) }
    /// ```
    pub fn admits(&self, address: *const u8, len: usize, position: Option<u64>) -> bool {
        is_multiple(address.addr() as u64, self.memory)
            && is_multiple(len as u64, self.offset)
            && position.is_none_or(|position| is_multiple(position, self.offset))
    }
}

/// Whether a number is a multiple of an alignment. Asked several times for each request: a division is left to alignments
/// that are no powers of two, and there are none but in theory.
fn is_multiple(number: u64, alignment: usize) -> bool {
    let alignment = alignment.max(1) as u64;
    match alignment.is_power_of_two() {
        true => number & (alignment - 1) == 0,
        false => number.is_multiple_of(alignment),
    }
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory {} B, offset and length {} B", self.memory, self.offset)
    }
}

/// Facts about a descriptor.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::FileKind;
/// assert_eq!(file.facts().kind, FileKind::Regular);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// What it refers to.
    pub kind: FileKind,
    /// Opened with `O_DIRECT`.
    pub direct: bool,
    /// Opened with `O_APPEND`.
    pub append: bool,
    /// Open for reading.
    pub readable: bool,
    /// Open for writing.
    pub writable: bool,
    /// Has offsets. What has none is a stream.
    pub seekable: bool,
    /// Where it lies.
    pub file_system: FileSystem,
    /// What direct I/O needs; `None` where it is not offered or cannot be found out.
    pub alignment: Option<Alignment>,
    /// `O_DIRECT` was wished for, and refused with this error.
    pub direct_refused: Option<Errno>,
    /// The rules of direct I/O are enforced in software, with this alignment: [`Direct::Emulated`](crate::Direct::Emulated).
    pub emulated: Option<Alignment>,
    /// Length in bytes when the facts were gathered; 0 for streams.
    pub len: u64,
}

impl Facts {
    /// Whether it carries data but has no offsets: a pipe, socket, terminal or the like.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let directory = polyaio::OpenOptions::new().read(true).open(&engine, dir.path())?;
    /// assert!(!file.facts().is_stream() && !directory.facts().is_stream());
    /// # Ok(()) }
    /// ```
    pub fn is_stream(&self) -> bool {
        !self.seekable && self.kind != FileKind::Directory
    }

    /// What transfers of this file must be multiples of: see [`File::alignment`](crate::File::alignment).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// assert_eq!(file.facts().transfer_alignment(), file.alignment());
    /// // Different from what direct I/O would need:
    /// println!("{:?}", file.facts().alignment);
    /// # Ok(()) }
    /// ```
    pub fn transfer_alignment(&self) -> Alignment {
        let in_memory = matches!(self.file_system, FileSystem::Tmpfs | FileSystem::Ramfs);
        let real = match self.alignment {
            _ if !self.direct => Alignment::NONE,
            Some(alignment) => alignment,
            None if in_memory => Alignment::NONE,
            None => Alignment::assumed(),
        };
        // Of two powers of two the larger one is a multiple of both.
        self.emulated.map_or(real, |emulated| Alignment {
            memory: real.memory.max(emulated.memory),
            offset: real.offset.max(emulated.offset),
        })
    }

    /// The same, with the rules of direct I/O enforced in software, where it is a file that could have them.
    pub(crate) fn emulating(mut self, rules: Option<Alignment>) -> Self {
        let could = matches!(self.kind, FileKind::Regular | FileKind::Block | FileKind::Virtual);
        self.emulated = rules.filter(|_| could);
        self
    }

    /// Facts of a file that only its backend knows.
    pub(crate) fn of_virtual(alignment: usize) -> Self {
        Self {
            kind: FileKind::Virtual,
            direct: alignment > 1,
            append: false,
            readable: true,
            writable: true,
            seekable: true,
            file_system: FileSystem::Unknown,
            alignment: (alignment > 1).then_some(Alignment { memory: alignment, offset: alignment }),
            direct_refused: None,
            emulated: None,
            len: 0,
        }
    }

    /// The same, with the access that a virtual file was opened for.
    pub(crate) fn opened_with(self, options: &OpenOptions) -> Self {
        let writable = options.writes() || options.appends();
        Self { readable: options.reads(), writable, append: options.appends(), ..self }
    }

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
