//! What to do about errors of the operating system, whose own words only say what happened.

use std::io;

/// About an open that failed; empty where the error says it all.
pub(super) fn on_opening(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => "check the path, or have the file made with `OpenOptions::create`",
        Kind::PermissionDenied => {
            "check the permissions of the file and of the directories above it; to read alone, leave `write` and `append` out"
        }
        Kind::ReadOnlyFilesystem => {
            "the file system is mounted read-only: to read alone, leave `write` and `append` out"
        }
        Kind::AlreadyExists => "`create_new` wants to make it; `create` opens what is there too",
        Kind::IsADirectory => "a directory can be opened for reading only, to sync it or to ask what is known of it",
        Kind::NotADirectory => "a part of the path is a file: check the path",
        Kind::ExecutableFileBusy => "the program is running: write another file and rename it over this one",
        Kind::StorageFull | Kind::QuotaExceeded => full(error.kind()),
        _ => match number(error) {
            Some(libc::EMFILE | libc::ENFILE) => DESCRIPTORS,
            Some(libc::ENXIO) => "nothing is behind this file; a FIFO that is written wants a reader first",
            Some(libc::EINVAL) => "the file system does not know one of the flags, or the name is not one of its own",
            Some(libc::ELOOP) => "too many symbolic links, or one where `custom_flags` forbid it",
            _ => "",
        },
    }
}

/// About an operation on an open file.
pub(super) fn on_operating(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => full(error.kind()),
        Kind::IsADirectory => "a directory has no bytes to transfer: open a file in it",
        Kind::ReadOnlyFilesystem => "the file system is mounted read-only",
        Kind::FileTooLarge => "raise `ulimit -f`, or choose a file system for larger files",
        Kind::BrokenPipe => "whoever has read the other end is gone",
        Kind::WouldBlock => "`nowait` was asked for, and it would have had to wait: leave it out, or try again later",
        Kind::UnexpectedEof => "the file ends before the buffer is full: `read_at` says how many bytes there are",
        Kind::WriteZero => "the file takes nothing more, and does not say why",
        Kind::PermissionDenied => "the file is sealed or immutable, or a sandbox forbids the system call",
        _ => match number(error) {
            Some(libc::EBADF) => {
                "the file was not opened for this (`OpenOptions::read`, `write` or `append`), or it has been closed"
            }
            Some(libc::EINVAL) => {
                "the file cannot do this, or offset and length are out of range; direct I/O, real or emulated, wants \
                 addresses, offsets and lengths that are multiples of `File::alignment`: `File::buffer` makes what fits"
            }
            Some(libc::ESPIPE) => "a stream has no offsets: use `read` and `write`, or an offset of 0",
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => "this file, its file system or this kernel cannot do it",
            Some(libc::ECANCELED) => "it was cancelled, or its file was closed while it waited for the stream",
            Some(libc::EIO) => "the device, or what drives it, has failed: look at the kernel log (dmesg)",
            Some(libc::EMFILE | libc::ENFILE) => DESCRIPTORS,
            _ => "",
        },
    }
}

const DESCRIPTORS: &str = "too many files are open: close some, or raise `ulimit -n`";

fn full(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::StorageFull {
        "the disk or device is full: free some space, or choose another place"
    } else {
        "your quota is used up: free some of it, or choose another place"
    }
}

/// The error's number, where numbers mean what `errno(3)` says.
fn number(error: &io::Error) -> Option<i32> {
    crate::os::number_of(error)
}
