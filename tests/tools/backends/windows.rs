//! System calls, as `std` makes them.

use std::fs::File;
use std::io::{self, Seek as _};
use std::mem::ManuallyDrop;
use std::os::windows::fs::FileExt as _;
use std::os::windows::io::{FromRawHandle as _, RawHandle};

use polyaio::{Errno, OpKind, Outcome, Request};

/// The plain system calls, one for each range, for at most `most` bytes.
pub(super) fn perform(request: &mut Request, most: u64) -> Outcome {
    request.check()?;
    let handle = request.descriptor().ok_or(Errno(libc::EBADF))?;
    // SAFETY: the request keeps the handle open; it is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_handle(handle as RawHandle) });
    let (kind, position) = (request.kind(), request.position());
    match kind {
        OpKind::SyncAll => return outcome(file.sync_all().map(|()| 0)),
        OpKind::SyncData => return outcome(file.sync_data().map(|()| 0)),
        OpKind::Read | OpKind::Write => {}
        _ => return Err(Errno(libc::EOPNOTSUPP)),
    }
    // A handle for overlapped transfers keeps its position, and transfers nothing there by itself.
    let start = position.unwrap_or_else(|| (&*file).stream_position().unwrap_or(0));
    // SAFETY: the memory is used for what `kind` says, and no longer when this function returns.
    let ranges = unsafe { request.start() };
    let mut moved = 0;
    for range in ranges {
        let len = range.len.min(usize::try_from(most).unwrap_or(usize::MAX) - moved);
        // SAFETY: the ranges are valid until the request is complete; of a read, they are initialised.
        let bytes = unsafe {
            if kind == OpKind::Read {
                range.base.write_bytes(0, len);
            }
            std::slice::from_raw_parts_mut(range.base, len)
        };
        let at = start + moved as u64;
        let result = if kind == OpKind::Read { file.seek_read(bytes, at) } else { file.seek_write(bytes, at) };
        match result {
            Ok(n) => moved += n,
            Err(error) if moved == 0 => return outcome(Err(error)),
            Err(_) => break,
        }
        if moved as u64 == most {
            break;
        }
    }
    if position.is_none() {
        let _ = (&*file).seek(io::SeekFrom::Start(start + moved as u64));
    }
    Ok(moved as u64)
}

fn outcome(result: io::Result<u64>) -> Outcome {
    result.map_err(|error| Errno::of(&error).unwrap_or(Errno(libc::EIO)))
}
