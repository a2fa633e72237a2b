//! The buffered twin of a direct descriptor: a second descriptor of the same file, without `O_DIRECT`.
//!
//! What direct I/O refuses for its alignment goes through the twin. It is opened by the first worker that needs it, and is
//! closed only together with the descriptor: closing *any* descriptor of a file drops the process's fcntl(2) locks on it.

#![allow(unsafe_code)]

use crate::completion::Errno;
use crate::os::{AsRawFd as _, OwnedFd, RawFd};
use crate::sync::{Mutex, lock};

/// The twin of one file.
#[derive(Default)]
pub(crate) struct Twin(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unopened,
    Open(OwnedFd),
    /// The file cannot be opened a second time, and will not be later.
    Refused(Errno),
    /// Closed together with the descriptor.
    Closed,
}

impl Twin {
    /// The twin of `fd`. It stays open until [`close`](Self::close), which waits for every request of the file.
    ///
    /// Opening may block: for workers only.
    ///
    /// # Errors
    /// That of `open(2)`: `ENOENT` without `/proc`, `EACCES` where the file's permissions refuse what the descriptor has,
    /// `EMFILE`, `ENFILE` and `ENOMEM`, which are not remembered.
    pub(crate) fn descriptor(&self, fd: RawFd) -> Result<RawFd, Errno> {
        let mut state = lock(&self.0);
        match &*state {
            State::Open(twin) => return Ok(twin.as_raw_fd()),
            State::Refused(errno) => return Err(*errno),
            State::Closed => return Err(Errno(libc::EBADF)),
            State::Unopened => {}
        }
        let opened = reopen(fd);
        match opened {
            Ok(twin) => {
                let raw = twin.as_raw_fd();
                *state = State::Open(twin);
                Ok(raw)
            }
            Err(errno) => {
                if !matches!(errno.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM) {
                    *state = State::Refused(errno);
                }
                Err(errno)
            }
        }
    }

    /// Closes it, just before or after the descriptor itself.
    pub(crate) fn close(&self) {
        let state = std::mem::replace(&mut *lock(&self.0), State::Closed);
        drop(state);
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        use std::ffi::CString;
        use std::os::fd::FromRawFd as _;

        use crate::os;

        /// Flags of a descriptor that a write's meaning hangs on.
        const KEPT: i32 = libc::O_ACCMODE | libc::O_APPEND | libc::O_SYNC | libc::O_DSYNC | libc::O_NOATIME;

        fn reopen(fd: RawFd) -> Result<OwnedFd, Errno> {
            // SAFETY: F_GETFL takes no pointer.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
            if flags == -1 {
                return Err(Errno::last());
            }
            let path = CString::new(format!("/proc/self/fd/{fd}")).map_err(|_| Errno(libc::EINVAL))?;
            loop {
                // SAFETY: `path` is a C string; nothing else goes in by pointer.
                let twin = unsafe { libc::open(path.as_ptr(), flags & KEPT | libc::O_CLOEXEC | libc::O_NOCTTY) };
                if twin >= 0 {
                    // SAFETY: the descriptor is new and nobody else's.
                    let twin = unsafe { OwnedFd::from_raw_fd(twin) };
                    return if same_file(fd, twin.as_raw_fd())? { Ok(twin) } else { Err(Errno(libc::ENOENT)) };
                }
                match Errno::last() {
                    Errno(libc::EINTR) => {}
                    errno => return Err(errno),
                }
            }
        }

        /// Whatever is mounted on /proc: the twin has to be the same file.
        fn same_file(one: RawFd, other: RawFd) -> Result<bool, Errno> {
            let identity = |fd| {
                let mut status = std::mem::MaybeUninit::<os::Stat>::uninit();
                // SAFETY: `status` is large enough for fstat(2) to fill, and initialised once the call succeeds.
                unsafe {
                    if os::fstat(fd, status.as_mut_ptr()) != 0 {
                        return Err(Errno::last());
                    }
                    let status = status.assume_init();
                    Ok((status.st_dev, status.st_ino, status.st_rdev))
                }
            };
            Ok(identity(one)? == identity(other)?)
        }
    } else if #[cfg(windows)] {
        use crate::os;

        /// By ReOpenFile: with the same rights, where those who have opened the file let others write it.
        fn reopen(fd: RawFd) -> Result<OwnedFd, Errno> {
            os::reopen_buffered(fd)
        }
    } else {
        fn reopen(_fd: RawFd) -> Result<OwnedFd, Errno> {
            Err(Errno(libc::EOPNOTSUPP))
        }
    }
}
