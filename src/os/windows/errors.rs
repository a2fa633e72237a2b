//! Error codes of Windows, and the numbers of `errno(3)` that say the same.
//!
//! Above this boundary the crate knows the numbers of the C library, which its tables are made of. A code that has no such
//! number travels as itself, with a bit set; and each comes back to the program as a code, so that `raw_os_error` of an
//! [`std::io::Error`] is what it is everywhere else on Windows, and its `kind` is what it is elsewhere.

use std::io;

// Numbers that Microsoft's C library has not: those of Linux, which it does not use otherwise.
pub(crate) const ESHUTDOWN: i32 = 1108;
pub(crate) const ESTALE: i32 = 1116;
pub(crate) const EDQUOT: i32 = 1122;

/// Set in what is the code of an error and not a number.
const CODE: i32 = 1 << 30;

/// Codes (winerror.h) and numbers. The first code of a number is the one that it becomes; codes of sockets are there for
/// backends that have some.
const TABLE: &[(i32, i32)] = &[
    (2, libc::ENOENT),         // ERROR_FILE_NOT_FOUND
    (3, libc::ENOENT),         // ERROR_PATH_NOT_FOUND
    (15, libc::ENOENT),        // ERROR_INVALID_DRIVE
    (53, libc::ENOENT),        // ERROR_BAD_NETPATH
    (67, libc::ENOENT),        // ERROR_BAD_NET_NAME
    (4, libc::EMFILE),         // ERROR_TOO_MANY_OPEN_FILES
    (5, libc::EACCES),         // ERROR_ACCESS_DENIED
    (32, libc::EACCES),        // ERROR_SHARING_VIOLATION
    (33, libc::EACCES),        // ERROR_LOCK_VIOLATION
    (1314, libc::EPERM),       // ERROR_PRIVILEGE_NOT_HELD
    (6, libc::EBADF),          // ERROR_INVALID_HANDLE
    (8, libc::ENOMEM),         // ERROR_NOT_ENOUGH_MEMORY
    (14, libc::ENOMEM),        // ERROR_OUTOFMEMORY
    (1450, libc::ENOMEM),      // ERROR_NO_SYSTEM_RESOURCES
    (1455, libc::ENOMEM),      // ERROR_COMMITMENT_LIMIT
    (87, libc::EINVAL),        // ERROR_INVALID_PARAMETER
    (123, libc::EINVAL),       // ERROR_INVALID_NAME
    (131, libc::EINVAL),       // ERROR_NEGATIVE_SEEK
    (998, libc::EFAULT),       // ERROR_NOACCESS
    (19, libc::EROFS),         // ERROR_WRITE_PROTECT
    (112, libc::ENOSPC),       // ERROR_DISK_FULL
    (39, libc::ENOSPC),        // ERROR_HANDLE_DISK_FULL
    (1295, EDQUOT),            // ERROR_DISK_QUOTA_EXCEEDED
    (223, libc::EFBIG),        // ERROR_FILE_TOO_LARGE
    (80, libc::EEXIST),        // ERROR_FILE_EXISTS
    (183, libc::EEXIST),       // ERROR_ALREADY_EXISTS
    (267, libc::ENOTDIR),      // ERROR_DIRECTORY
    (336, libc::EISDIR),       // ERROR_DIRECTORY_NOT_SUPPORTED
    (1921, libc::ELOOP),       // ERROR_CANT_RESOLVE_FILENAME
    (206, libc::ENAMETOOLONG), // ERROR_FILENAME_EXCED_RANGE
    (170, libc::EBUSY),        // ERROR_BUSY
    (1131, libc::EDEADLK),     // ERROR_POSSIBLE_DEADLOCK
    (120, libc::EOPNOTSUPP),   // ERROR_CALL_NOT_IMPLEMENTED, whose kind is `Unsupported`
    (50, libc::EOPNOTSUPP),    // ERROR_NOT_SUPPORTED
    (1, libc::EOPNOTSUPP),     // ERROR_INVALID_FUNCTION: a file system without it
    (120, libc::ENOTSUP),      // another number than EOPNOTSUPP here
    (120, libc::ENOSYS),
    (132, libc::ESPIPE),         // ERROR_SEEK_ON_DEVICE
    (109, libc::EPIPE),          // ERROR_BROKEN_PIPE
    (232, libc::EPIPE),          // ERROR_NO_DATA: the pipe is being closed
    (233, libc::EPIPE),          // ERROR_PIPE_NOT_CONNECTED
    (1223, libc::ECANCELED),     // ERROR_CANCELLED
    (995, libc::ECANCELED),      // ERROR_OPERATION_ABORTED
    (1117, libc::EIO),           // ERROR_IO_DEVICE
    (23, libc::EIO),             // ERROR_CRC
    (29, libc::EIO),             // ERROR_WRITE_FAULT
    (30, libc::EIO),             // ERROR_READ_FAULT
    (31, libc::EIO),             // ERROR_GEN_FAILURE
    (483, libc::EIO),            // ERROR_DEVICE_HARDWARE_ERROR
    (21, libc::ENXIO),           // ERROR_NOT_READY
    (1167, libc::ENODEV),        // ERROR_DEVICE_NOT_CONNECTED
    (1006, ESTALE),              // ERROR_FILE_INVALID
    (534, libc::EOVERFLOW),      // ERROR_ARITHMETIC_OVERFLOW
    (128, libc::ECHILD),         // ERROR_WAIT_NO_CHILDREN
    (10035, libc::EAGAIN),       // WSAEWOULDBLOCK
    (10004, libc::EINTR),        // WSAEINTR
    (10050, libc::ENETDOWN),     // WSAENETDOWN
    (10051, libc::ENETUNREACH),  // WSAENETUNREACH
    (10053, libc::ECONNABORTED), // WSAECONNABORTED
    (10054, libc::ECONNRESET),   // WSAECONNRESET
    (10057, libc::ENOTCONN),     // WSAENOTCONN
    (10058, ESHUTDOWN),          // WSAESHUTDOWN
    (10060, libc::ETIMEDOUT),    // WSAETIMEDOUT
    (121, libc::ETIMEDOUT),      // ERROR_SEM_TIMEOUT
    (10061, libc::ECONNREFUSED), // WSAECONNREFUSED
    (10065, libc::EHOSTUNREACH), // WSAEHOSTUNREACH
];

/// An error's number; `None` where it has no code.
pub(crate) fn number_of(error: &io::Error) -> Option<i32> {
    error.raw_os_error().map(number)
}

fn number(code: i32) -> i32 {
    TABLE.iter().find(|entry| entry.0 == code).map_or(code | CODE, |entry| entry.1)
}

/// The error of a number.
pub(crate) fn error_of(errno: i32) -> io::Error {
    if errno & CODE != 0 {
        return io::Error::from_raw_os_error(errno & !CODE);
    }
    match TABLE.iter().find(|entry| entry.1 == errno) {
        Some(entry) => io::Error::from_raw_os_error(entry.0),
        None => io::Error::other(format!("error number {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_a_code_and_the_number_again() {
        for &(code, errno) in TABLE {
            assert_eq!(number_of(&io::Error::from_raw_os_error(code)), TABLE.iter().find(|e| e.0 == code).map(|e| e.1));
            let again = number_of(&error_of(errno));
            let same = again == Some(errno) || [libc::ENOSYS, libc::ENOTSUP].contains(&errno);
            assert!(same, "{errno} became {again:?}");
        }
    }

    #[test]
    fn a_code_without_a_number_comes_back_as_it_was() {
        let unknown = io::Error::from_raw_os_error(1392);
        let errno = number_of(&unknown).expect("it has a code");
        assert_eq!(error_of(errno).raw_os_error(), Some(1392));
    }

    #[test]
    fn errors_have_the_kind_that_they_have_elsewhere() {
        use io::ErrorKind as Kind;
        for (errno, kind) in [
            (libc::ENOENT, Kind::NotFound),
            (libc::EACCES, Kind::PermissionDenied),
            (libc::EEXIST, Kind::AlreadyExists),
            (libc::EAGAIN, Kind::WouldBlock),
            (libc::EINVAL, Kind::InvalidInput),
            (libc::ENOSPC, Kind::StorageFull),
            (EDQUOT, Kind::QuotaExceeded),
            (libc::EISDIR, Kind::IsADirectory),
            (libc::EPIPE, Kind::BrokenPipe),
            (libc::EOPNOTSUPP, Kind::Unsupported),
            (libc::ENOSYS, Kind::Unsupported),
            (libc::ESPIPE, Kind::NotSeekable),
            (libc::EFBIG, Kind::FileTooLarge),
            (libc::EROFS, Kind::ReadOnlyFilesystem),
            (libc::ENOMEM, Kind::OutOfMemory),
        ] {
            assert_eq!(error_of(errno).kind(), kind, "{errno}");
        }
    }
}
