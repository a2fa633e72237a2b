//! The end of what is written to a socket.

#![allow(unsafe_code)]

use std::io;

use crate::file::File;
use crate::router::facts::FileKind;

/// Tells the other end of a socket that nothing more comes; does nothing to other files.
pub(super) fn writing(file: &File) -> io::Result<()> {
    if file.facts().kind != FileKind::Socket {
        return Ok(());
    }
    let inner = file.open_file();
    // A close waits for what has begun: the number stays this socket's meanwhile.
    let begun = inner.order.begin();
    let result = match (&begun, inner.descriptor()) {
        // SAFETY: no pointer is passed, and the descriptor is open until `end`.
        (Ok(()), Some(fd)) if unsafe { libc::shutdown(fd, libc::SHUT_WR) } == 0 => Ok(()),
        (Ok(()), Some(_)) => match io::Error::last_os_error() {
            // The other end is gone already.
            error if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(()),
            error => Err(error),
        },
        _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
    };
    inner.end();
    result
}
