//! What completes in the caller's thread: transfers that cannot block.
//!
//! A read of what is in the page cache costs a microsecond; a thread hop costs ten. `preadv2(2)` with `RWF_NOWAIT` makes
//! the difference safe to try: it transfers what is there, or answers `EAGAIN`.

#![allow(unsafe_code)]

use crate::completion::{Errno, Outcome};
use crate::memory::{IoVec, MOST_IOVECS};
use crate::os::{self, RawFd};
use crate::request::OpKind;

/// One transfer in the caller: what, from where to where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer<'a> {
    pub(crate) kind: OpKind,
    pub(crate) fd: RawFd,
    /// `None`: at the stream's position.
    pub(crate) position: Option<u64>,
    /// At least one range; what is beyond `IOV_MAX` is left out.
    pub(crate) memory: &'a [IoVec],
}

impl Transfer<'_> {
    /// Transfers without blocking: `EAGAIN` where it would, `EOPNOTSUPP` where the file cannot tell.
    ///
    /// # Safety
    /// The memory may be used for what `kind` says during the call, and the descriptor stays open.
    pub(crate) unsafe fn nowait(self) -> Outcome {
        // SAFETY: forwarded to the caller.
        unsafe { nowait(self) }
    }

    /// The ranges of one system call. (`IoVec` is laid out as `struct iovec`.)
    fn list(self) -> (*const os::iovec, libc::c_int) {
        (self.memory.as_ptr().cast(), self.memory.len().min(MOST_IOVECS) as libc::c_int)
    }

    /// The ordinary system call, which may block: for files that lie in memory, and descriptors with `O_NONBLOCK`.
    ///
    /// # Safety
    /// As [`nowait`](Self::nowait).
    pub(crate) unsafe fn plain(self) -> Outcome {
        let [IoVec { base, len }] = *self.memory else {
            // SAFETY: forwarded to the caller.
            return unsafe { self.plain_vectored() };
        };
        // SAFETY: forwarded to the caller; the calls use `len` bytes at `base`.
        retry(|| unsafe {
            match (self.kind, self.position) {
                (OpKind::Read, None) => os::read(self.fd, base.cast(), len),
                (OpKind::Read, Some(offset)) => os::pread(self.fd, base.cast(), len, offset as os::Offset),
                (_, None) => os::write(self.fd, base.cast(), len),
                (_, Some(offset)) => os::pwrite(self.fd, base.cast(), len, offset as os::Offset),
            }
        })
    }

    /// As [`plain`](Self::plain), for several ranges.
    unsafe fn plain_vectored(self) -> Outcome {
        let (list, count) = self.list();
        // SAFETY: forwarded to the caller; the calls use the memory that the ranges describe.
        retry(|| unsafe {
            match (self.kind, self.position) {
                (OpKind::Read, None) => os::readv(self.fd, list, count),
                (OpKind::Read, Some(offset)) => os::preadv(self.fd, list, count, offset as os::Offset),
                (_, None) => os::writev(self.fd, list, count),
                (_, Some(offset)) => os::pwritev(self.fd, list, count, offset as os::Offset),
            }
        })
    }
}

cfg_if::cfg_if! {
    if #[cfg(unix)] {
        impl Transfer<'_> {
    /// Transfers on a socket without blocking and without a signal.
            ///
            /// # Safety
            /// As [`nowait`](Self::nowait).
            pub(crate) unsafe fn socket(self) -> Outcome {
                let [IoVec { base, len }] = *self.memory else {
                    // SAFETY: forwarded to the caller.
                    return unsafe { self.message() };
                };
                // SAFETY: forwarded to the caller; recv(2) and send(2) use `len` bytes at `base`.
                retry(|| unsafe {
                    match self.kind {
                        OpKind::Read => libc::recv(self.fd, base.cast(), len, libc::MSG_DONTWAIT),
                        _ => libc::send(self.fd, base.cast(), len, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                    }
                })
            }

            /// As [`socket`](Self::socket), for several ranges.
            unsafe fn message(self) -> Outcome {
                let (list, count) = self.list();
                // SAFETY: all zeroes is an empty message: no address, no ranges, no control data.
                let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
                message.msg_iov = list.cast_mut();
                message.msg_iovlen = count as _;
                // SAFETY: forwarded to the caller; recvmsg(2) and sendmsg(2) use the memory that the ranges describe, and only read
                // their list.
                retry(|| unsafe {
                    match self.kind {
                        OpKind::Read => libc::recvmsg(self.fd, &raw mut message, libc::MSG_DONTWAIT),
                        _ => libc::sendmsg(self.fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                    }
                })
            }
        }
    } else {
        impl Transfer<'_> {
            /// No handle is known to be a socket's.
            ///
            /// # Safety
            /// None: it uses no memory.
            pub(crate) unsafe fn socket(self) -> Outcome {
                Err(Errno(libc::EOPNOTSUPP))
            }
        }
    }
}

fn retry(mut call: impl FnMut() -> isize) -> Outcome {
    loop {
        match u64::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => match Errno::last() {
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            },
        }
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        unsafe fn nowait(transfer: Transfer<'_>) -> Outcome {
            let number = match transfer.kind {
                OpKind::Read => libc::SYS_preadv2,
                _ => libc::SYS_pwritev2,
            };
            // -1 is the position of the file or stream itself.
            let offset = transfer.position.map_or(-1, |p| p as i64);
            let (low, high) = (offset as libc::c_long, (offset >> 32) as libc::c_long);
            let (list, count) = transfer.list();
            // SAFETY: the call reads the iovecs, which describe memory that the caller lends. On 64-bit kernels `low` is
            // the whole offset and `high` is ignored; on 32-bit ones they are its halves.
            retry(|| unsafe {
                libc::syscall(number, transfer.fd, list, count, low, high, libc::RWF_NOWAIT) as isize
            })
        }
    } else {
        /// No system call is known to return instead of waiting for a disk.
        unsafe fn nowait(_transfer: Transfer<'_>) -> Outcome {
            Err(Errno(libc::EOPNOTSUPP))
        }
    }
}
