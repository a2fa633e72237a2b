//! Names for the calls that Linux has twice: those with offsets of 64 bits, on 32-bit machines too.
//!
//! The plain names have offsets of 32 bits there, so that a cast would send a transfer to another place of the file, and
//! files of 2 GiB and more answer `EOVERFLOW`. Nothing in the crate uses those. (`off64_t` is what the others have
//! anyway.)
//!
//! # References
//! feature_test_macros(7), `_FILE_OFFSET_BITS`

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        pub(crate) use libc::{
            fallocate64 as fallocate, fstat64 as fstat, ftruncate64 as ftruncate, lseek64 as lseek, off64_t as Offset,
            posix_fadvise64 as posix_fadvise, pread64 as pread, preadv64 as preadv, pwrite64 as pwrite,
            pwritev64 as pwritev, stat64 as Stat,
        };
    } else {
        pub(crate) use libc::{fstat, ftruncate, lseek, off_t as Offset, pread, preadv, pwrite, pwritev, stat as Stat};
    }
}
