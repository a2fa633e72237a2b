//! The end of what is written to a socket.

use std::io;

use crate::file::File;
use crate::os;
use crate::overlap::Pass;
use crate::router::facts::FileKind;

/// Tells the other end of a socket that nothing more comes; does nothing to other files.
pub(super) fn writing(file: &File) -> io::Result<()> {
    if file.facts().kind != FileKind::Socket {
        return Ok(());
    }
    let inner = file.open_file();
    // A close waits for what has begun: the number stays this socket's meanwhile.
    let begun = inner.counts.begin(false);
    let result = match (begun.closed, inner.descriptor()) {
        (false, Some(fd)) => match os::shutdown_writing(fd) {
            // The other end is gone already.
            Err(error) if os::number_of(&error) == Some(libc::ENOTCONN) => Ok(()),
            result => result,
        },
        _ => Err(os::error_of(libc::EBADF)),
    };
    inner.end(Pass::None);
    result
}
