//! How a path becomes a descriptor: [`OpenOptions`], and what becomes of `O_DIRECT`.

use std::path::Path;

use crate::completion::Errno;
use crate::error::Error;
use crate::future::Op;
use crate::os::{self, OwnedFd};
use crate::router::facts::Alignment;

/// Whether a file is opened for direct I/O (`O_DIRECT`), past the page cache.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// use polyaio::{Direct, Error, OpenOptions};
/// let mut options = OpenOptions::new();
/// match options.write(true).create(true).direct(Direct::Required).open(&engine, &path) {
///     Ok(file) => assert!(file.facts().direct && file.alignment().offset >= 1),
///     Err(Error::DirectRefused { file_system, .. }) => println!("{file_system} has none"),
///     Err(other) => return Err(other.into()),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direct {
    /// Through the page cache.
    #[default]
    Off,
    /// Direct where the file system accepts it, else through the page cache. Which it became, and why, is in
    /// [`File::facts`](crate::File::facts) and [`File::route`](crate::File::route), and is counted. On a strict engine as
    /// [`Required`](Self::Required).
    Preferred,
    /// Direct, or [`Error::DirectRefused`].
    Required,
    /// Through the page cache, on any file system, but with the rules of direct I/O: what a device would refuse as
    /// misaligned fails with `EINVAL`, before a byte has moved. For tests of programs that will meet a device later.
    ///
    /// The rules are the strictest that there are, those of XFS and of block devices:
    ///
    /// - The memory's address, the length and the offset of a transfer must be multiples of `alignment`: else `EINVAL`.
    /// - Without an offset it is the file's position that counts. What is appended must be aligned by the offset or position,
    ///   though it is ignored, and by the length that the file has: nothing can be appended to a file of an odd length.
    /// - A transfer of no bytes, and a read at the end of the file or behind it, is 0 bytes, however misaligned.
    /// - A read that crosses the end must be aligned too; it returns what there is.
    ///
    /// The rest of a looping operation ([`write_all_at`](crate::File::write_all_at)) is not checked again: a device never
    /// stops within a block, but the page cache may.
    ///
    /// Where a file system, or a kernel, is more lenient, it is not imitated: ext4 ignores the offset of what is appended;
    /// Linux 6.18 overlooks an address where the transfer stays within a page; ext4 and XFS do not look at what lies in
    /// holes, or behind the last block; btrfs and NFS refuse nothing; many devices want less of the address than of the
    /// offset. Nor is it where it is worse: a device may have written the first blocks of what it then refuses, and a direct
    /// read leaves zeroes in the buffer behind the end of the file.
    ///
    /// [`Facts::emulated`](crate::Facts::emulated) and [`File::route`](crate::File::route) say that it is emulated;
    /// otherwise the file is served as the buffered one that it is. It has no effect on what is neither a regular file nor
    /// a block device. Where the end of a file that only its backend knows is, is not known here: a misaligned read of it is
    /// refused wherever it begins.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{BufResult, Direct, Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let mut options = OpenOptions::new();
    /// let file = options.write(true).create(true).direct(Direct::Emulated { alignment: 4096 }).open(&engine, &path)?;
    /// let BufResult(refused, _) = file.write_all_at(vec![0; 100], 0).wait();
    /// assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    /// let BufResult(written, _) = file.write_all_at(file.buffer(100), 0).wait();
    /// written?;
    /// # Ok(()) }
    /// ```
    Emulated {
        /// What addresses, offsets and lengths must be multiples of, in bytes: a power of two.
        alignment: usize,
    },
}

/// Options for opening a file: `std::fs::OpenOptions`, with [`Direct`] added.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use polyaio::{Direct, Engine, OpenOptions};
/// let engine = Engine::new()?;
/// let file = OpenOptions::new().read(true).write(true).create(true).direct(Direct::Preferred).open(&engine, &path)?;
/// println!("{}", file.route());
/// # Ok(()) }
/// ```
///
/// What was asked for, as a [backend](crate::backend::Backend::open) with files of its own has to know it:
/// ```
/// use polyaio::OpenOptions;
/// let mut options = OpenOptions::new();
/// options.write(true).create(true).truncate(true);
/// assert!(!options.reads() && options.writes() && !options.appends());
/// assert!(options.creates() && !options.creates_new() && options.truncates());
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) mode: u32,
    pub(crate) custom_flags: os::CustomFlags,
    pub(crate) direct: Direct,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// One setter for each switch that `std` has too.
macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, $name: bool) -> &mut Self {
            self.$name = $name;
            self
        }
    )+};
}

/// And one that tells it, for backends that open files of their own.
macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident: $field:ident),+ $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> bool {
            self.$field
        }
    )+};
}

impl OpenOptions {
    /// Everything off; mode 0o666 (less the umask) for files that are created.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let refused = polyaio::OpenOptions::new().open(&polyaio::Engine::new()?, "data");
    /// assert!(refused.unwrap_err().to_string().contains("at least one of read, write and append"));
    /// # Ok(()) }
    /// ```
    pub const fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            custom_flags: 0,
            direct: Direct::Off,
        }
    }

    switches! {
        /// Opens for reading.
        ///
        /// # Examples
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
        /// # let path = dir.path().join("data");
        /// # std::fs::write(&path, "hello, world")?;
        /// let file = polyaio::OpenOptions::new().read(true).open(&engine, &path)?;
        /// let error = file.write_at("HELLO", 0).wait().0.unwrap_err();
        /// assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        /// # Ok(()) }
        /// ```
        read,
        /// Opens for writing.
        ///
        /// # Examples
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
        /// # let path = dir.path().join("data");
        /// # std::fs::write(&path, "hello, world")?;
        /// let file = polyaio::OpenOptions::new().write(true).open(&engine, &path)?;
        /// file.write_all_at("HELLO", 0).wait().0?; // what is there stays, but for these bytes
        /// assert_eq!(std::fs::read(&path)?, b"HELLO, world");
        /// # Ok(()) }
        /// ```
        write,
        /// Opens for appending: each write goes to the end of the file, whatever its offset (`O_APPEND`).
        ///
        /// # Examples
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
        /// # let path = dir.path().join("data");
        /// # std::fs::write(&path, "hello, world")?;
        /// let file = polyaio::OpenOptions::new().append(true).open(&engine, &path)?;
        /// file.write_all_at("!", 0).wait().0?;
        /// assert_eq!(std::fs::read(&path)?, b"hello, world!");
        /// # Ok(()) }
        /// ```
        append,
        /// Cuts the file to length 0.
        ///
        /// # Examples
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
        /// # let path = dir.path().join("data");
        /// # std::fs::write(&path, "hello, world")?;
        /// let file = polyaio::OpenOptions::new().write(true).truncate(true).open(&engine, &path)?;
        /// assert_eq!(file.len().wait()?, 0);
        /// let mut options = polyaio::OpenOptions::new();
        /// assert!(options.read(true).truncate(true).open(&engine, &path).is_err(), "only to be read");
        /// # Ok(()) }
        /// ```
        truncate,
        /// Creates the file where there is none.
        ///
        /// # Examples
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
        /// # let path = dir.path().join("data");
        /// let mut options = polyaio::OpenOptions::new();
        /// assert_eq!(options.write(true).open(&engine, &path).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        /// options.create(true).open(&engine, &path)?;
        /// options.open(&engine, &path)?; // it is there: nothing happens to it
        /// # Ok(()) }
        /// ```
        create,
        /// Creates the file, and fails with `EEXIST` where there is one.
        ///
        /// # Examples
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
        /// # let path = dir.path().join("data");
        /// // Of several who try, one gets it.
        /// let mut options = polyaio::OpenOptions::new();
        /// options.write(true).create_new(true).open(&engine, &path)?;
        /// assert_eq!(options.open(&engine, &path).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        /// # Ok(()) }
        /// ```
        create_new,
    }

    /// Permission bits of a file that is created, before the umask.
    ///
    /// # Platform
    /// Without effect on Windows.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use std::os::unix::fs::PermissionsExt;
    /// let engine = polyaio::Engine::new()?;
    /// polyaio::OpenOptions::new().write(true).create(true).mode(0o600).open(&engine, &path)?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    /// # Ok(()) }
    /// ```
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Further `O_*` flags for `open(2)`; access mode bits are ignored.
    ///
    /// # Platform
    /// On Windows a `u32` of CreateFile's `FILE_FLAG_*` and `FILE_ATTRIBUTE_*`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello")?;
    /// # std::os::unix::fs::symlink(&path, dir.path().join("link"))?;
    /// let (engine, link) = (polyaio::Engine::new()?, dir.path().join("link"));
    /// let refused = polyaio::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&engine, link);
    /// assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    /// # Ok(()) }
    /// ```
    pub fn custom_flags(&mut self, flags: os::CustomFlags) -> &mut Self {
        self.custom_flags = flags;
        self
    }

    /// Whether to open for direct I/O.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{Direct, Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let file = OpenOptions::new().write(true).create(true).direct(Direct::Preferred).open(&engine, &path)?;
    /// println!("{}", if file.facts().direct { "past the page cache" } else { "through it: O_DIRECT was refused" });
    /// # Ok(()) }
    /// ```
    pub fn direct(&mut self, direct: Direct) -> &mut Self {
        self.direct = direct;
        self
    }

    /// What was asked for with [`direct`](Self::direct).
    ///
    /// # Examples
    /// ```
    /// use polyaio::{Direct, OpenOptions};
    /// let mut options = OpenOptions::new();
    /// assert_eq!(options.direct_mode(), Direct::Off);
    /// assert_eq!(options.direct(Direct::Required).direct_mode(), Direct::Required);
    /// ```
    pub fn direct_mode(&self) -> Direct {
        self.direct
    }

    answers! {
        /// Whether to open for reading: [`read`](Self::read).
        reads: read,
        /// Whether to open for writing: [`write`](Self::write).
        writes: write,
        /// Whether to open for appending: [`append`](Self::append).
        appends: append,
        /// Whether to cut the file: [`truncate`](Self::truncate).
        truncates: truncate,
        /// Whether to create the file where there is none: [`create`](Self::create).
        creates: create,
        /// Whether to create the file, and nothing else: [`create_new`](Self::create_new).
        creates_new: create_new,
    }

    /// Opens `path` for use with `engine`.
    ///
    /// `open(2)` is called on this thread; [`open_async`](Self::open_async) calls it elsewhere. A FIFO without a peer therefore
    /// waits for one; give `O_NONBLOCK` in [`custom_flags`](Self::custom_flags), or open it elsewhere and
    /// [`adopt`](crate::Engine::adopt) it.
    ///
    /// # Errors
    /// [`Error::Open`] with `open(2)`'s error number, [`Error::DirectRefused`], [`Error::Options`] for options that
    /// contradict each other and for an emulated alignment that is no power of two, [`Error::EngineClosed`] and
    /// [`Error::Forked`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// use polyaio::{Engine, Error, OpenOptions};
    /// let error = OpenOptions::new().read(true).open(&Engine::new()?, &path).unwrap_err();
    /// assert!(matches!(error, Error::Open { .. }));
    /// assert!(error.to_string().contains("check the path"));
    /// # Ok(()) }
    /// ```
    pub fn open(&self, engine: &crate::Engine, path: impl AsRef<Path>) -> Result<crate::File, Error> {
        engine.open(self, path.as_ref())
    }

    /// Opens `path` without blocking this thread: `open(2)`, and what has to be asked of the descriptor, runs on a worker.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::Open`] with `ECANCELED` where it was cancelled.
    ///
    /// # Cancel safety
    /// What a dropped open has opened is closed, and stays created or cut, as the options say. One that waits on a FIFO for a
    /// peer occupies a worker, and holds up the engine's end, until there is one: give `O_NONBLOCK` in
    /// [`custom_flags`](Self::custom_flags).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello")?;
    /// use polyaio::{Engine, OpenOptions};
    /// let engine = Engine::new()?;
    /// let file = engine.block_on(async { OpenOptions::new().read(true).open_async(&engine, &path).await })?;
    /// assert_eq!(file.metadata().wait()?.len, 5);
    /// file.close().wait()?;
    /// # Ok(()) }
    /// ```
    pub fn open_async(&self, engine: &crate::Engine, path: impl AsRef<Path>) -> Op<crate::ops::Open> {
        engine.open_later(self.clone(), path.as_ref().to_owned())
    }

    /// The rules to enforce in software.
    pub(crate) fn emulated(&self) -> Result<Option<Alignment>, Error> {
        let Direct::Emulated { alignment } = self.direct else { return Ok(None) };
        if !alignment.is_power_of_two() {
            let what =
                format!("direct I/O cannot be emulated with an alignment of {alignment}: it must be a power of two");
            return Err(Error::Options(what));
        }
        if os::custom(self.custom_flags) & os::O_DIRECT != 0 {
            return Err(Error::Options("emulated direct I/O and O_DIRECT contradict each other".into()));
        }
        Ok(Some(Alignment { memory: alignment, offset: alignment }))
    }

    /// The flags of `open(2)`, without `O_DIRECT`; or what is wrong with the options.
    pub(crate) fn flags(&self) -> Result<os::Flags, Error> {
        let access = match (self.read, self.write || self.append) {
            (true, false) => os::O_RDONLY,
            (false, true) => os::O_WRONLY,
            (true, true) => os::O_RDWR,
            (false, false) => return Err(Error::Options("set at least one of read, write and append".into())),
        };
        let writes = self.write || self.append;
        if !writes && (self.truncate || self.create || self.create_new) {
            return Err(Error::Options("truncate, create and create_new need write or append".into()));
        }
        if self.append && self.truncate && !self.create_new {
            return Err(Error::Options("append and truncate contradict each other".into()));
        }
        let creation = match (self.create_new, self.create) {
            (true, _) => os::O_CREAT | os::O_EXCL,
            (false, true) => os::O_CREAT,
            (false, false) => 0,
        };
        let append = if self.append { os::O_APPEND } else { 0 };
        let truncate = if self.truncate && !self.create_new { os::O_TRUNC } else { 0 };
        Ok(access | creation | append | truncate | os::O_CLOEXEC | os::custom(self.custom_flags))
    }

    /// `open(2)`, as the options say. The error number comes along when `O_DIRECT` was wished for and refused.
    ///
    /// `strict`: what is preferred is required.
    pub(crate) fn open_descriptor(&self, path: &Path, strict: bool) -> Result<(OwnedFd, Option<Errno>), Error> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let flags = self.flags()?;
        let open = |flags| os::open(path, flags, self.mode);
        if matches!(self.direct, Direct::Off | Direct::Emulated { .. }) {
            return open(flags).map(|fd| (fd, None)).map_err(failed);
        }
        // The kernel refuses O_DIRECT after it has made the file.
        let required = self.direct == Direct::Required || strict;
        let existed = !required || path.symlink_metadata().is_ok();
        match open(flags | os::O_DIRECT) {
            Ok(fd) => Ok((fd, None)),
            Err(error) if os::number_of(&error) == Some(libc::EINVAL) => {
                // EINVAL may mean other flags too: only when the same open succeeds without O_DIRECT was that the cause.
                // An O_CREAT|O_EXCL has made the file by the time O_DIRECT is refused: do not trip over it.
                let refused = Errno(libc::EINVAL);
                if required {
                    // A look only: nothing is created or cut for an open that is going to fail.
                    let fd = open(flags & !(os::O_CREAT | os::O_EXCL | os::O_TRUNC)).map_err(|_| failed(error))?;
                    let file_system = crate::router::facts::file_system(&fd).to_string();
                    if !existed {
                        // What is left of it otherwise is an empty file: no harm, and nothing to report beside the refusal.
                        let _ = std::fs::remove_file(path);
                    }
                    return Err(Error::DirectRefused { path: path.to_owned(), file_system, errno: refused });
                }
                let retry = if self.create_new { flags & !os::O_EXCL } else { flags };
                let fd = open(retry).map_err(failed)?;
                Ok((fd, Some(refused)))
            }
            Err(error) => Err(failed(error)),
        }
    }
}
