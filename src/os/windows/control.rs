//! What is asked of a handle, and done with it, besides transfers.
//!
//! # References
//! The functions' pages in the Win32 documentation; for rights and modes NtQueryInformationFile, whose answers are
//! `FILE_ACCESS_INFORMATION` and `FILE_MODE_INFORMATION`

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::ffi;
use super::{Offset, RawFd};
use crate::completion::Errno;

/// What a handle refers to, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileType {
    /// On a disk: a file, a directory, a volume.
    Disk,
    /// A console, a serial line, `NUL`.
    Character,
    /// A pipe or a socket.
    Pipe,
}

/// # Errors
/// `EBADF` where the handle is not open.
pub(crate) fn kind(fd: RawFd) -> Result<FileType, Errno> {
    // SAFETY: takes no pointer.
    match unsafe { ffi::GetFileType(fd) } {
        ffi::FILE_TYPE_DISK => Ok(FileType::Disk),
        ffi::FILE_TYPE_CHAR => Ok(FileType::Character),
        ffi::FILE_TYPE_PIPE => Ok(FileType::Pipe),
        _ => Err(Errno(libc::EBADF)),
    }
}

pub(crate) fn is_console(fd: RawFd) -> bool {
    let mut mode = 0;
    // SAFETY: `mode` has room for the answer.
    unsafe { ffi::GetConsoleMode(fd, &raw mut mode) != 0 }
}

/// One of the numbers of NtQueryInformationFile.
fn query(fd: RawFd, class: i32) -> Option<u32> {
    let (mut status, mut answer) = (ffi::IoStatus::default(), 0_u32);
    // SAFETY: both have room for what is written, which is over when the call returns: these classes never wait.
    let code = unsafe { ffi::NtQueryInformationFile(fd, &raw mut status, (&raw mut answer).cast(), 4, class) };
    (code >= 0).then_some(answer)
}

/// What a handle was opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// Whatever is written goes to the end of the file.
    pub(crate) append_only: bool,
    /// All its rights.
    pub(super) mask: u32,
}

/// `None` where the system does not tell.
pub(crate) fn access(fd: RawFd) -> Option<Access> {
    let mask = query(fd, ffi::FILE_ACCESS_INFORMATION)?;
    let has = |right| mask & right != 0;
    Some(Access {
        reads: has(ffi::FILE_READ_DATA),
        writes: has(ffi::FILE_WRITE_DATA | ffi::FILE_APPEND_DATA),
        append_only: has(ffi::FILE_APPEND_DATA) && !has(ffi::FILE_WRITE_DATA),
        mask,
    })
}

/// `FILE_MODE_INFORMATION`.
pub(super) fn mode(fd: RawFd) -> Option<u32> {
    query(fd, ffi::FILE_MODE_INFORMATION)
}

/// Whether it was opened with `FILE_FLAG_NO_BUFFERING`.
pub(crate) fn is_unbuffered(fd: RawFd) -> bool {
    mode(fd).is_some_and(|mode| mode & ffi::FILE_NO_INTERMEDIATE_BUFFERING != 0)
}

/// As fsync(2). Needs the right to write.
///
/// # Safety
/// None: it takes no memory.
pub(crate) unsafe fn fsync(fd: RawFd) -> c_int {
    // SAFETY: takes no pointer.
    posix(unsafe { ffi::FlushFileBuffers(fd) })
}

/// As ftruncate(2).
///
/// # Safety
/// None: it takes no memory.
pub(crate) unsafe fn ftruncate(fd: RawFd, length: Offset) -> c_int {
    // SAFETY: the class's information is an `i64`, which is there for the call.
    posix(unsafe {
        ffi::SetFileInformationByHandle(
            fd,
            ffi::FILE_END_OF_FILE_INFO,
            (&raw const length).cast(),
            size_of::<i64>() as u32,
        )
    })
}

/// As lseek(2).
///
/// # Safety
/// None: it takes no memory.
pub(crate) unsafe fn lseek(fd: RawFd, offset: Offset, whence: c_int) -> Offset {
    let mut position = 0;
    // SAFETY: `position` has room for the answer. The numbers of `whence` are those of FILE_BEGIN and FILE_CURRENT.
    match unsafe { ffi::SetFilePointerEx(fd, offset, &raw mut position, whence as u32) } {
        0 => -1,
        _ => position,
    }
}

/// As close(2).
///
/// # Safety
/// The handle is the caller's to close.
pub(crate) unsafe fn close(fd: RawFd) -> c_int {
    // SAFETY: forwarded to the caller.
    posix(unsafe { ffi::CloseHandle(fd) })
}

/// The C library's 0 for what succeeded, and -1 for what did not.
fn posix(succeeded: i32) -> c_int {
    if succeeded != 0 { 0 } else { -1 }
}

/// Length of a file in bytes.
pub(crate) fn length(fd: RawFd) -> Result<u64, Errno> {
    let mut size = 0;
    // SAFETY: `size` has room for the answer.
    match unsafe { ffi::GetFileSizeEx(fd, &raw mut size) } {
        0 => Err(Errno::last()),
        _ => u64::try_from(size).map_err(|_| Errno(libc::EOVERFLOW)),
    }
}

/// What the system keeps of a file.
pub(crate) struct Status {
    /// The volume's serial number.
    pub(crate) volume: u32,
    /// The file's number on the volume.
    pub(crate) index: u64,
    pub(crate) directory: bool,
    pub(crate) read_only: bool,
    /// Bytes.
    pub(crate) len: u64,
    /// Bytes that it takes up on the disk.
    pub(crate) allocated: u64,
    pub(crate) links: u32,
    pub(crate) created: SystemTime,
    pub(crate) accessed: SystemTime,
    pub(crate) modified: SystemTime,
    pub(crate) changed: SystemTime,
}

/// # Errors
/// `EOPNOTSUPP`, `EINVAL` for what is no file or directory; `EBADF`.
pub(crate) fn status(fd: RawFd) -> Result<Status, Errno> {
    let information = information(fd)?;
    let len = joined([information.size_low, information.size_high]);
    let written = joined(information.written);
    let basic: Option<ffi::BasicInfo> = further(fd, ffi::FILE_BASIC_INFO);
    let standard: Option<ffi::StandardInfo> = further(fd, ffi::FILE_STANDARD_INFO);
    Ok(Status {
        volume: information.volume,
        index: joined([information.index_low, information.index_high]),
        directory: information.attributes & ffi::FILE_ATTRIBUTE_DIRECTORY != 0,
        read_only: information.attributes & ffi::FILE_ATTRIBUTE_READONLY != 0,
        len,
        allocated: standard.map_or(len, |standard| u64::try_from(standard.allocated).unwrap_or(0)),
        links: information.links,
        created: time(joined(information.created)),
        accessed: time(joined(information.accessed)),
        modified: time(written),
        changed: time(
            basic.and_then(|basic| u64::try_from(basic.changed).ok()).filter(|at| *at > 0).unwrap_or(written),
        ),
    })
}

fn information(fd: RawFd) -> Result<ffi::FileInformation, Errno> {
    let mut information = ffi::FileInformation::default();
    // SAFETY: `information` has room for the answer.
    match unsafe { ffi::GetFileInformationByHandle(fd, &raw mut information) } {
        0 => Err(Errno::last()),
        _ => Ok(information),
    }
}

/// A class of GetFileInformationByHandleEx, with its own structure.
fn further<T: Copy + Default>(fd: RawFd, class: i32) -> Option<T> {
    let mut answer = T::default();
    let room = (&raw mut answer).cast::<c_void>();
    // SAFETY: the size is that of the structure, which only has numbers.
    (unsafe { ffi::GetFileInformationByHandleEx(fd, class, room, size_of::<T>() as u32) } != 0).then_some(answer)
}

fn joined([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A point in time from units of 100 ns since 1601.
fn time(units: u64) -> SystemTime {
    /// 1970.
    const EPOCH: u64 = 116_444_736_000_000_000;
    let span = |units: u64| Duration::new(units / 10_000_000, (units % 10_000_000) as u32 * 100);
    let point = match units.checked_sub(EPOCH) {
        Some(after) => SystemTime::UNIX_EPOCH.checked_add(span(after)),
        None => SystemTime::UNIX_EPOCH.checked_sub(span(EPOCH - units)),
    };
    point.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What the addresses, offsets and lengths of unbuffered transfers are multiples of, in bytes: a sector of the volume. `None`
/// where nobody says.
pub(crate) fn sector_size(fd: RawFd) -> Option<usize> {
    let (mut status, mut volume) = (ffi::IoStatus::default(), ffi::VolumeSize::default());
    let (room, size) = ((&raw mut volume).cast(), size_of::<ffi::VolumeSize>() as u32);
    // SAFETY: both have room for what is written, which is over when the call returns.
    let code =
        unsafe { ffi::NtQueryVolumeInformationFile(fd, &raw mut status, room, size, ffi::FILE_FS_SIZE_INFORMATION) };
    Some(volume.bytes_per_sector as usize).filter(|size| code >= 0 && size.is_power_of_two())
}

/// Size of a page of memory in bytes.
pub(crate) fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let mut information = MaybeUninit::<ffi::SystemInfo>::zeroed();
        // SAFETY: there is room for the answer, and zeroes would be one.
        let information = unsafe {
            ffi::GetSystemInfo(information.as_mut_ptr());
            information.assume_init()
        };
        u64::from(information.page_size).max(512)
    })
}

/// CPU time of this thread, as far as the timer's tick tells.
pub(crate) fn thread_time() -> Duration {
    // Each is a FILETIME, in units of 100 ns.
    let (mut created, mut ended, mut kernel, mut user) = (0, 0, 0, 0);
    // SAFETY: there is room for all four; the handle of the current thread need not be closed.
    unsafe {
        let thread = ffi::GetCurrentThread();
        ffi::GetThreadTimes(thread, &raw mut created, &raw mut ended, &raw mut kernel, &raw mut user);
    }
    Duration::from_nanos((kernel + user).saturating_mul(100))
}
