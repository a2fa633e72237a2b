//! What is known of a descriptor: gathered once, when it is opened or adopted.

use std::fmt;

use crate::completion::Errno;
use crate::open::OpenOptions;

cfg_if::cfg_if! {
    if #[cfg(unix)] {
        mod unix;
        use self::unix as system;
    } else {
        mod windows;
        use self::windows as system;
    }
}

pub(crate) use self::system::{
    cached_len, current_len, current_position, device, device_len, file_system, is_direct_now, mapped_len,
    never_waits_to_write, page_size, read_ahead, swap_is_active,
};

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
}
