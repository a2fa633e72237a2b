//! System calls, as a test makes them.

use std::io;

use polyaio::{Errno, OpKind, Outcome, Request};

/// The plain system call, for at most `most` bytes.
pub(super) fn perform(request: &mut Request, most: u64) -> Outcome {
    request.check()?;
    let fd = request.descriptor().ok_or(Errno(libc::EBADF))?;
    let (kind, position) = (request.kind(), request.position());
    match kind {
        // SAFETY: takes no pointer.
        OpKind::SyncAll => return outcome(|| unsafe { libc::fsync(fd) } as isize),
        // SAFETY: takes no pointer.
        OpKind::SyncData => return outcome(|| unsafe { libc::fdatasync(fd) } as isize),
        OpKind::Read | OpKind::Write => {}
        _ => return Err(Errno(libc::EOPNOTSUPP)),
    }
    // SAFETY: the memory is used for what `kind` says, and no longer when this function returns.
    let ranges = unsafe { request.start() };
    let mut room = usize::try_from(most).unwrap_or(usize::MAX);
    let cut = |range: &polyaio::IoVec| {
        let iov_len = range.len.min(room);
        room -= iov_len;
        libc::iovec { iov_base: range.base.cast(), iov_len }
    };
    let list: Vec<_> = ranges.iter().map(cut).collect();
    let (first, count) = (list.as_ptr(), list.len() as libc::c_int);
    // SAFETY: the ranges are valid until the request is complete, and the list until the end of the call.
    outcome(|| unsafe {
        match (kind, position) {
            (OpKind::Read, Some(at)) => libc::preadv(fd, first, count, at as libc::off_t),
            (OpKind::Read, None) => libc::readv(fd, first, count),
            (_, Some(at)) => libc::pwritev(fd, first, count, at as libc::off_t),
            (_, None) => libc::writev(fd, first, count),
        }
    })
}

fn outcome(call: impl FnOnce() -> isize) -> Outcome {
    u64::try_from(call()).map_err(|_| Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)))
}
