//! What the crate asks of the operating system, where the families of systems differ: the types of handles, the calls that
//! transfer, the numbers of errors.
//!
//! `unix.rs` has little more than names: descriptors, and the C library's calls. `windows/` has the same names for handles and
//! what there is in place of those calls; error codes become the numbers of `errno(3)` at this boundary, so that everything
//! above means the same by them.

cfg_if::cfg_if! {
    if #[cfg(unix)] {
        mod unix;
        use self::unix as system;
    } else {
        mod windows;
        use self::windows as system;
    }
}

pub(crate) use self::system::*;
