//! The system calls of what moves no data: ranges of the disk and of the page cache, metadata.

#![allow(unsafe_code)]

use super::abi;
use crate::completion::{Errno, Outcome};
#[cfg(unix)]
use crate::metadata::time;
use crate::metadata::{Advice, Metadata};
#[cfg(windows)]
use crate::os;
use crate::os::{Offset, RawFd};
use crate::request::Request;

fn range(request: &Request) -> Result<(Offset, Offset), Errno> {
    let number = |n: u64| Offset::try_from(n).map_err(|_| Errno(libc::EINVAL));
    Ok((number(request.position().unwrap_or(0))?, number(request.length())?))
}

/// Asks the kernel, and answers the request.
pub(super) fn metadata(fd: RawFd, request: &Request) -> Outcome {
    request.answer_metadata(sys::metadata(fd)?);
    Ok(0)
}

pub(super) fn advise(fd: RawFd, request: &Request) -> Outcome {
    let (from, length) = range(request)?;
    sys::advise(fd, from, length, request.advice().unwrap_or(Advice::Normal))
}

pub(super) fn punch_hole(fd: RawFd, request: &Request) -> Outcome {
    let (from, length) = range(request)?;
    sys::punch_hole(fd, from, length)
}

pub(super) fn sync_range(fd: RawFd, request: &Request) -> Outcome {
    let (from, length) = range(request)?;
    sys::sync_range(fd, from, length)
}

/// What `fstat(2)` says.
// The fields' types differ between platforms.
#[cfg(unix)]
#[allow(clippy::unnecessary_cast)]
fn from_stat(fd: RawFd) -> Result<Metadata, Errno> {
    let stat = abi::status(fd)?;
    let moment = |seconds: i64, nanoseconds: i64| time(seconds, u32::try_from(nanoseconds).unwrap_or(0));
    #[cfg(not(target_os = "netbsd"))]
    let [accessed, modified, changed] = [stat.st_atime_nsec, stat.st_mtime_nsec, stat.st_ctime_nsec];
    #[cfg(target_os = "netbsd")]
    let [accessed, modified, changed] = [stat.st_atimensec, stat.st_mtimensec, stat.st_ctimensec];
    Ok(Metadata {
        blocks: stat.st_blocks as u64,
        block_size: stat.st_blksize as u64,
        mode: stat.st_mode as u32,
        links: stat.st_nlink as u64,
        inode: stat.st_ino as u64,
        device: stat.st_dev as u64,
        special: stat.st_rdev as u64,
        user: stat.st_uid,
        group: stat.st_gid,
        accessed: moment(stat.st_atime as i64, accessed as i64),
        modified: moment(stat.st_mtime as i64, modified as i64),
        changed: moment(stat.st_ctime as i64, changed as i64),
        ..Metadata::of_length(stat.st_size as u64)
    })
}

/// What GetFileInformationByHandle says. Of who may do what there is one bit that is known elsewhere too.
#[cfg(windows)]
fn from_status(fd: RawFd) -> Result<Metadata, Errno> {
    let status = os::status(fd)?;
    let kind = if status.directory { libc::S_IFDIR | 0o111 } else { libc::S_IFREG };
    let permissions = if status.read_only { 0o444 } else { 0o666 };
    Ok(Metadata {
        blocks: status.allocated.div_ceil(512),
        mode: kind as u32 | permissions,
        links: u64::from(status.links),
        inode: status.index,
        device: u64::from(status.volume),
        accessed: status.accessed,
        modified: status.modified,
        changed: status.changed,
        created: Some(status.created),
        ..Metadata::of_length(status.len)
    })
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod sys {
            use std::mem::MaybeUninit;

            use super::{Advice, Errno, Metadata, Offset, Outcome, RawFd, abi, from_stat, time};
            use crate::os;

            /// `statx(2)`, which also knows when the file was made; `fstat(2)` where there is none (before Linux 4.11) or a
            /// filter forbids it.
            pub(super) fn metadata(fd: RawFd) -> Result<Metadata, Errno> {
                let mut answer = MaybeUninit::<libc::statx>::zeroed();
                let (empty, flags, mask) = (c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS | libc::STATX_BTIME);
                // SAFETY: the path is a C string, and `answer` has room for what is written.
                let call = || unsafe { libc::syscall(libc::SYS_statx, fd, empty, flags, mask, answer.as_mut_ptr()) as isize };
                match abi::retry(call) {
                    Ok(_) => {}
                    Err(Errno(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => return from_stat(fd),
                    Err(errno) => return Err(errno),
                }
                // SAFETY: the kernel has filled it, and all zeroes would be valid too.
                let stat = unsafe { answer.assume_init() };
                let moment = |at: libc::statx_timestamp| time(at.tv_sec, at.tv_nsec);
                Ok(Metadata {
                    blocks: stat.stx_blocks,
                    block_size: u64::from(stat.stx_blksize),
                    mode: u32::from(stat.stx_mode),
                    links: u64::from(stat.stx_nlink),
                    inode: stat.stx_ino,
                    device: libc::makedev(stat.stx_dev_major, stat.stx_dev_minor),
                    special: libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
                    user: stat.stx_uid,
                    group: stat.stx_gid,
                    accessed: moment(stat.stx_atime),
                    modified: moment(stat.stx_mtime),
                    changed: moment(stat.stx_ctime),
                    created: (stat.stx_mask & libc::STATX_BTIME != 0).then(|| moment(stat.stx_btime)),
                    ..Metadata::of_length(stat.stx_size)
                })
            }

            pub(super) fn advise(fd: RawFd, from: Offset, length: Offset, advice: Advice) -> Outcome {
                let advice = match advice {
                    Advice::Normal => libc::POSIX_FADV_NORMAL,
                    Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
                    Advice::Random => libc::POSIX_FADV_RANDOM,
                    Advice::NoReuse => libc::POSIX_FADV_NOREUSE,
                    Advice::WillNeed => libc::POSIX_FADV_WILLNEED,
                    Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
                };
                // Returns the error instead of setting `errno`.
                // SAFETY: takes no pointer.
                match unsafe { os::posix_fadvise(fd, from, length, advice) } {
                    0 => Ok(0),
                    errno => Err(Errno(errno)),
                }
            }

            pub(super) fn punch_hole(fd: RawFd, from: Offset, length: Offset) -> Outcome {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                // SAFETY: takes no pointer.
                abi::retry(|| unsafe { os::fallocate(fd, mode, from, length) } as isize)
            }

            pub(super) fn sync_range(fd: RawFd, from: Offset, length: Offset) -> Outcome {
                const ALL: libc::c_uint =
                    libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
                // SAFETY: takes no pointer.
                abi::retry(|| unsafe { libc::sync_file_range(fd, from, length, ALL) } as isize)
            }
        }
    } else {
        mod sys {
            use super::{Advice, Errno, Offset, Outcome, RawFd, abi};

            #[cfg(unix)]
            pub(super) use super::from_stat as metadata;
            #[cfg(windows)]
            pub(super) use super::from_status as metadata;

            pub(super) fn advise(_: RawFd, _: Offset, _: Offset, _: Advice) -> Outcome {
                Err(Errno(libc::EOPNOTSUPP))
            }

            pub(super) fn punch_hole(_: RawFd, _: Offset, _: Offset) -> Outcome {
                Err(Errno(libc::EOPNOTSUPP))
            }

            pub(super) fn sync_range(fd: RawFd, _: Offset, _: Offset) -> Outcome {
                abi::sync_data(fd)
            }
        }
    }
}
