//! What the operating system says of a file, and what a program may say of its plans with it.

#[cfg(unix)]
use std::time::Duration;
use std::time::SystemTime;

// The type bits of a mode; the same numbers on every Unix, though not of the same width.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// What is known of a file: [`File::metadata`](crate::File::metadata).
///
/// It can be asked for on files of any kind. What a file system does not keep is 0, or `None`.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let metadata = file.metadata().wait()?;
/// println!("{} bytes, {:o}", metadata.len, metadata.mode);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// Length in bytes; of a block device 0, see [`File::len`](crate::File::len).
    pub len: u64,
    /// Space that the file takes up on the disk, in units of 512 bytes.
    pub blocks: u64,
    /// The size of transfers that the file system likes best, in bytes.
    pub block_size: u64,
    /// Type and permission bits, as `st_mode` of stat(3type).
    pub mode: u32,
    /// Names that the file has.
    pub links: u64,
    /// Its number in the file system.
    pub inode: u64,
    /// The device that holds it, as `st_dev`.
    pub device: u64,
    /// The device that it is, as `st_rdev`; 0 where it is none.
    pub special: u64,
    /// Numeric id of its owner.
    pub user: u32,
    /// Numeric id of its group.
    pub group: u32,
    /// When it was last read, as far as the mount keeps it.
    pub accessed: SystemTime,
    /// When its data was last changed.
    pub modified: SystemTime,
    /// When its data or its metadata was last changed.
    pub changed: SystemTime,
    /// When it was made; `None` where the file system, or the kernel, does not say.
    pub created: Option<SystemTime>,
}

impl Metadata {
    /// Nothing but a length: where a backend knows no more.
    ///
    /// # Examples
    /// ```
    /// let metadata = polyaio::Metadata::of_length(1000);
    /// assert_eq!((metadata.len, metadata.blocks, metadata.created), (1000, 2, None));
    /// assert!(!metadata.is_file() && !metadata.is_dir(), "there is no mode to tell it by");
    /// ```
    pub fn of_length(len: u64) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        Self {
            len,
            blocks: len.div_ceil(512),
            block_size: 4096,
            mode: 0,
            links: 0,
            inode: 0,
            device: 0,
            special: 0,
            user: 0,
            group: 0,
            accessed: epoch,
            modified: epoch,
            changed: epoch,
            created: None,
        }
    }

    /// Whether it is a regular file.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// assert!(!reader.metadata().wait()?.is_file(), "a pipe");
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn is_file(&self) -> bool {
        self.mode & TYPE == REGULAR
    }

    /// Whether it is a directory.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// let file = polyaio::OpenOptions::new().read(true).open(&engine, dir.path())?;
    /// assert!(file.metadata().wait()?.is_dir());
    /// # Ok(()) }
    /// ```
    pub fn is_dir(&self) -> bool {
        self.mode & TYPE == DIRECTORY
    }
}

/// A point in time from seconds and nanoseconds since 1970; both count forwards, also before.
#[cfg(unix)]
pub(crate) fn time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let point = match seconds {
        ..0 => SystemTime::UNIX_EPOCH.checked_sub(whole),
        _ => SystemTime::UNIX_EPOCH.checked_add(whole),
    };
    let point = point.and_then(|point| point.checked_add(Duration::from_nanos(nanoseconds.into())));
    point.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What a program is going to do with a range of a file: [`File::advise`](crate::File::advise).
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::Advice;
/// // Of what was read once, and will not be read again, nothing need stay in memory.
/// file.advise(0, 0, Advice::Sequential).wait()?;
/// let (_, text) = file.read_at(vec![0; 12], 0).wait().into_result()?;
/// file.advise(0, 0, Advice::DontNeed).wait()?;
/// assert_eq!(text, b"hello, world");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing special (`POSIX_FADV_NORMAL`).
    Normal,
    /// Read it from front to back: read ahead further (`POSIX_FADV_SEQUENTIAL`).
    Sequential,
    /// Read it in no order: do not read ahead (`POSIX_FADV_RANDOM`).
    Random,
    /// Read it once (`POSIX_FADV_NOREUSE`).
    NoReuse,
    /// Read it soon: begin to fetch it into the page cache (`POSIX_FADV_WILLNEED`).
    WillNeed,
    /// Not use it for a while: clean pages leave the page cache. Sync what was written first (`POSIX_FADV_DONTNEED`).
    DontNeed,
}

#[cfg(all(test, unix, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_forwards() {
        assert_eq!(time(0, 5), SystemTime::UNIX_EPOCH + Duration::from_nanos(5));
        assert_eq!(time(-1, 999_999_999), SystemTime::UNIX_EPOCH - Duration::from_nanos(1));
        // Whether there are such times depends on the system; that they panic does not.
        let _ = (time(i64::MIN, 0), time(i64::MAX, u32::MAX));
    }
}
