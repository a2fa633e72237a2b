//! The blocking system calls behind each kind of request.
//!
//! One step, one system call: what is short stays short, and what fails is reported as the kernel said it. Finishing
//! transfers and trying elsewhere is the engine's part. Only `EINTR` ends here, by calling again.

#![allow(unsafe_code)]

use std::ptr;

use super::{control, flagged, misaligned};
use crate::completion::{Errno, Outcome};
use crate::how::How;
use crate::memory::IoVec;
use crate::os::{self, Offset, RawFd};
use crate::request::{OpKind, Request};

/// The most that one transfer moves: Linux stops there by itself, the BSDs and macOS refuse more with `EINVAL`.
const MOST_BYTES: usize = 0x7fff_f000;

const _: () = {
    assert!(size_of::<IoVec>() == size_of::<os::iovec>());
    assert!(align_of::<IoVec>() == align_of::<os::iovec>());
};

/// Serves one request on the calling thread, blocking it.
///
/// # Errors
/// The system call's own. `EAGAIN` for a transfer on a stream that is not ready any more; `EBADF` for a virtual handle; `EINVAL` for an offset or length beyond `i64`; `EOPNOTSUPP` where
/// the platform has no such call.
///
/// # References
/// pread(2), readv(2), fsync(2), ftruncate(2), fallocate(2), fstat(2), close(2)
pub(super) fn serve(request: &mut Request) -> Outcome {
    if let Some(opening) = request.opening() {
        return opening.run();
    }
    let Some(fd) = request.descriptor() else { return Err(Errno(libc::EBADF)) };
    let position = request.position();
    match request.kind() {
        OpKind::Read | OpKind::Write if request.is_misaligned() => misaligned::serve(fd, request),
        OpKind::Read | OpKind::Write => transfer(fd, position, request),
        OpKind::SyncAll => sys::sync_all(fd),
        OpKind::SyncData => sys::sync_data(fd),
        OpKind::SetLen => truncate(fd, position.unwrap_or(0)),
        OpKind::Allocate => sys::allocate(fd, offset(position.unwrap_or(0))?, offset(request.length())?),
        OpKind::Len => length(fd),
        OpKind::SyncRange => control::sync_range(fd, request),
        OpKind::PunchHole => control::punch_hole(fd, request),
        OpKind::Advise => control::advise(fd, request),
        OpKind::Metadata => control::metadata(fd, request),
        // It has no handle yet, and was served above.
        OpKind::Open => Err(Errno(libc::EINVAL)),
        OpKind::Close => {
            // Just before the descriptor: never later, when it would take locks along that are not its own.
            request.close_twin();
            request.announce_close();
            close(fd)
        }
    }
}

/// One read or write on `fd`, which need not be the request's own descriptor.
pub(super) fn transfer(fd: RawFd, position: Option<u64>, request: &mut Request) -> Outcome {
    let position = position.map(offset).transpose()?;
    request.check()?;
    let write = request.kind() == OpKind::Write;
    let how = How { nowait: request.nowait(), ..request.how() };
    // SAFETY: the system calls below use the memory for what the kind says, and are over when this function returns; the
    // caller completes the request afterwards.
    let iovecs = unsafe { request.start() };
    let call = Call { write, position, iovecs: window(iovecs) };
    // SAFETY: the ranges are valid until the request is complete, as `Request::start` promises.
    unsafe { if how == How::default() { plain(fd, call) } else { flagged::transfer(fd, call, how) } }
}

/// A transfer for one system call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) write: bool,
    /// `None`: at the file's own position.
    pub(super) position: Option<Offset>,
    pub(super) iovecs: &'a [IoVec],
}

/// The ordinary system call.
///
/// # Safety
/// The ranges may be used for what the call says until it is over.
pub(super) unsafe fn plain(fd: RawFd, call: Call<'_>) -> Outcome {
    let Call { write, position, iovecs } = call;
    if let [] | [_] = iovecs {
        let (base, len) = iovecs.first().map_or((ptr::null_mut(), 0), |v| (v.base.cast(), v.len.min(MOST_BYTES)));
        // SAFETY: `base` is valid for `len` bytes, as the caller says.
        return retry(|| unsafe {
            match (write, position) {
                (false, Some(at)) => os::pread(fd, base, len, at),
                (false, None) => os::read(fd, base, len),
                (true, Some(at)) => os::pwrite(fd, base, len, at),
                (true, None) => os::write(fd, base, len),
            }
        });
    }
    // `IoVec` is laid out as `struct iovec`, and a request has few enough of them for any `IOV_MAX`.
    let (list, count) = (iovecs.as_ptr().cast::<os::iovec>(), iovecs.len() as libc::c_int);
    // SAFETY: the list and every range that it names are valid, as the caller says.
    retry(|| unsafe {
        match (write, position) {
            (false, Some(at)) => os::preadv(fd, list, count, at),
            (false, None) => os::readv(fd, list, count),
            (true, Some(at)) => os::pwritev(fd, list, count, at),
            (true, None) => os::writev(fd, list, count),
        }
    })
}

/// As many of the ranges as one call may move; at least the first, which [`plain`] then cuts. Linux cuts by itself, also
/// within a range: a transfer that ended before that one would be shorter than there is need, and than it is elsewhere.
fn window(iovecs: &[IoVec]) -> &[IoVec] {
    if cfg!(any(target_os = "linux", target_os = "android", windows)) {
        return iovecs;
    }
    let mut room = MOST_BYTES;
    let fit = iovecs.iter().take_while(|v| room.checked_sub(v.len).map(|left| room = left).is_some()).count();
    &iovecs[..fit.max(1).min(iovecs.len())]
}

/// Closes the descriptor. Whatever the error, it is closed afterwards (POSIX leaves `EINTR` open; Linux and the BSDs
/// always close), so that it must never be tried twice: the number may be another file's by then.
fn close(fd: RawFd) -> Outcome {
    // SAFETY: the request owns the descriptor that it asks to close.
    if unsafe { os::close(fd) } == 0 {
        return Ok(0);
    }
    match Errno::last() {
        Errno(libc::EINTR) => Ok(0),
        errno => Err(errno),
    }
}

fn offset(number: u64) -> Result<Offset, Errno> {
    Offset::try_from(number).map_err(|_| Errno(libc::EINVAL))
}

/// Calls until the call was not interrupted.
pub(super) fn retry(mut call: impl FnMut() -> isize) -> Outcome {
    loop {
        // Negative, and −1 by the manual, is an error.
        if let Ok(n) = u64::try_from(call()) {
            return Ok(n);
        }
        match Errno::last() {
            Errno(libc::EINTR) => {}
            errno => return Err(errno),
        }
    }
}

pub(super) fn truncate(fd: RawFd, length: u64) -> Outcome {
    let length = offset(length)?;
    // SAFETY: touches no memory of ours.
    retry(|| unsafe { os::ftruncate(fd, length) } as isize)
}

/// Length in bytes of a file or block device.
pub(super) fn length(fd: RawFd) -> Outcome {
    sys::length(fd)
}

/// As `fsync(2)`.
pub(super) fn sync_all(fd: RawFd) -> Outcome {
    sys::sync_all(fd)
}

/// As `fdatasync(2)`.
pub(super) fn sync_data(fd: RawFd) -> Outcome {
    sys::sync_data(fd)
}

cfg_if::cfg_if! {
    if #[cfg(unix)] {
        /// Whether the length of what is behind a descriptor can be changed.
        pub(super) fn is_regular(fd: RawFd) -> Result<bool, Errno> {
            status(fd).map(|status| status.st_mode & libc::S_IFMT == libc::S_IFREG)
        }

        /// The status of the file behind a descriptor.
        pub(super) fn status(fd: RawFd) -> Result<os::Stat, Errno> {
            let mut stat = std::mem::MaybeUninit::<os::Stat>::uninit();
            // SAFETY: `stat` has room for what is written.
            retry(|| unsafe { os::fstat(fd, stat.as_mut_ptr()) } as isize)?;
            // SAFETY: `fstat` succeeded and has filled it.
            Ok(unsafe { stat.assume_init() })
        }
    } else {
        /// Whether the length of what is behind a handle can be changed: not that of a volume, which is no file.
        pub(super) fn is_regular(fd: RawFd) -> Result<bool, Errno> {
            Ok(os::status(fd).is_ok_and(|status| !status.directory))
        }
    }
}

// Where platforms differ.
cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod sys {
            use super::{Errno, Offset, Outcome, RawFd, os, retry, status};

            /// ioctl_list(2): the size of a block device in bytes, as a `u64`.
            const BLKGETSIZE64: libc::Ioctl = libc::_IOR::<libc::size_t>(0x12, 114);

            pub(super) fn sync_all(fd: RawFd) -> Outcome {
                // SAFETY: touches no memory of ours.
                retry(|| unsafe { libc::fsync(fd) } as isize)
            }

            pub(super) fn sync_data(fd: RawFd) -> Outcome {
                // SAFETY: touches no memory of ours.
                retry(|| unsafe { libc::fdatasync(fd) } as isize)
            }

            pub(super) fn allocate(fd: RawFd, from: Offset, length: Offset) -> Outcome {
                // `fallocate` and not `posix_fallocate`, which writes zeroes where the file system cannot: the caller is
                // told `EOPNOTSUPP` and decides.
                // SAFETY: touches no memory of ours.
                retry(|| unsafe { os::fallocate(fd, 0, from, length) } as isize)
            }

            pub(super) fn length(fd: RawFd) -> Outcome {
                let stat = status(fd)?;
                if stat.st_mode & libc::S_IFMT != libc::S_IFBLK {
                    return u64::try_from(stat.st_size).map_err(|_| Errno(libc::EOVERFLOW));
                }
                let mut bytes = 0_u64;
                // SAFETY: the kernel writes one `u64` to where the pointer points.
                retry(|| unsafe { libc::ioctl(fd, BLKGETSIZE64, &raw mut bytes) } as isize)?;
                Ok(bytes)
            }
        }
    } else if #[cfg(windows)] {
        mod sys {
            use super::{Errno, Offset, Outcome, RawFd, os, retry};

            pub(super) fn sync_all(fd: RawFd) -> Outcome {
                // SAFETY: touches no memory of ours.
                retry(|| unsafe { os::fsync(fd) } as isize)
            }

            pub(super) fn sync_data(fd: RawFd) -> Outcome {
                // One call for both.
                sync_all(fd)
            }

            pub(super) fn allocate(_: RawFd, _: Offset, _: Offset) -> Outcome {
                // What there is sets the length, and cuts off what others have written meanwhile.
                Err(Errno(libc::EOPNOTSUPP))
            }

            pub(super) fn length(fd: RawFd) -> Outcome {
                os::length(fd)
            }
        }
    } else {
        mod sys {
            use super::{Errno, Offset, Outcome, RawFd, retry, status};

            cfg_if::cfg_if! {
                if #[cfg(target_vendor = "apple")] {
                    pub(super) fn sync_all(fd: RawFd) -> Outcome {
                        // macOS' `fsync` leaves data in the drive's cache; `F_FULLFSYNC` does not, but not every file
                        // system has it.
                        // SAFETY: touches no memory of ours.
                        retry(|| unsafe { libc::fcntl(fd, libc::F_FULLFSYNC) } as isize)
                            // SAFETY: touches no memory of ours.
                            .or_else(|_| retry(|| unsafe { libc::fsync(fd) } as isize))
                    }

                    pub(super) fn sync_data(fd: RawFd) -> Outcome {
                        // There is no `fdatasync` in macOS' interface.
                        sync_all(fd)
                    }
                } else {
                    pub(super) fn sync_all(fd: RawFd) -> Outcome {
                        // SAFETY: touches no memory of ours.
                        retry(|| unsafe { libc::fsync(fd) } as isize)
                    }

                    pub(super) fn sync_data(fd: RawFd) -> Outcome {
                        // SAFETY: touches no memory of ours.
                        retry(|| unsafe { libc::fdatasync(fd) } as isize)
                    }
                }
            }

            cfg_if::cfg_if! {
                if #[cfg(target_os = "freebsd")] {
                    pub(super) fn allocate(fd: RawFd, from: Offset, length: Offset) -> Outcome {
                        loop {
                            // Returns the error instead of setting `errno`. ZFS answers `EINVAL` to say "not supported".
                            // SAFETY: touches no memory of ours.
                            match unsafe { libc::posix_fallocate(fd, from, length) } {
                                0 => return Ok(0),
                                libc::EINTR => {}
                                errno => return Err(Errno(errno)),
                            }
                        }
                    }
                } else {
                    pub(super) fn allocate(_: RawFd, _: Offset, _: Offset) -> Outcome {
                        // macOS' `F_PREALLOCATE` does not lengthen the file, which is what callers rely on.
                        Err(Errno(libc::EOPNOTSUPP))
                    }
                }
            }

            pub(super) fn length(fd: RawFd) -> Outcome {
                u64::try_from(status(fd)?.st_size).map_err(|_| Errno(libc::EOVERFLOW))
            }
        }
    }
}
