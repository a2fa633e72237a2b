//! Can POSIX AIO serve here, how many requests at once, and if not, why not and what to do about it.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::abi;
use super::library::{GLIBC, Library};
use crate::completion::Errno;

/// How to start [`PosixAio`](super::PosixAio).
///
/// # Examples
/// ```
/// use polyaio::backends::posix_aio::{Options, PosixAio};
/// let serial = Options { queue_depth: 16, spread: 1 }; // plain POSIX AIO: one request of each file at a time
/// println!("{:?}", PosixAio::with_options(serial).err());
/// assert!(PosixAio::with_options(Options { spread: 0, ..serial }).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests held at the most, with the C library and waiting for it; at least 1.
    pub queue_depth: usize,
    /// Descriptors that one file's requests are spread over, its own and duplicates of it: at least 1. glibc serves one request
    /// at a time of each; others serve them at the same time, and this has no effect. More than 16, or than it can wait for at
    /// once, mean as many as that.
    pub spread: usize,
}

/// Why POSIX AIO does not run here.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::posix_aio::{NotStarted, PosixAio};
/// let refused: NotStarted = PosixAio::start(0).err().ok_or("no depth")?;
/// assert_eq!((refused.errno.0, refused.to_string()), (libc::EINVAL, refused.reason));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotStarted {
    /// The error number that says the same; `EINVAL` for wrong options.
    pub errno: Errno,
    /// One sentence for an operator: what is missing, and what to do.
    pub reason: String,
}

/// What the machine and the process allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) library: &'static Library,
    /// Requests held at the most.
    pub(super) bound: usize,
    /// Requests that the C library has at the most.
    pub(super) blocks: usize,
    /// Requests of one `lio_listio` at the most.
    pub(super) list: usize,
    /// Seats at the most.
    pub(super) seats: usize,
    /// Descriptors of one file at the most. `None`: its own, with any number of seats.
    pub(super) spread: Option<usize>,
    /// Duplicates of all files at the most.
    pub(super) duplicates: usize,
}

/// The process that has used the C library's threads first. `std`'s atomic: a `static`, and no model explores it.
static USED_BY: AtomicU32 = AtomicU32::new(0);

/// glibc's threads at the most: one for each seat, and as many more as are its own default with that, which are for the
/// program, or for a second engine.
pub(super) const THREADS: usize = GLIBC.seats + 4;

/// Tells glibc, once and before the first request, how many threads it may have. Where the program has made
/// requests before, it has the ones that it was told then, and this changes nothing.
pub(super) fn size_once() {
    static SIZED: Once = Once::new();
    // Requests of one engine, its bell's two, and as many again.
    SIZED.call_once(|| abi::init(THREADS, 2 * (GLIBC.seats * GLIBC.depth + 2)));
}

/// Notes that this process uses the C library's threads from now on.
pub(super) fn note_use() {
    // The first one counts: children of it find it here. Nothing else is published by it.
    let _ = USED_BY.compare_exchange(0, std::process::id(), Ordering::Relaxed, Ordering::Relaxed);
}

/// Looks at what is there; starts nothing.
///
/// # Errors
/// `EINVAL`: wrong options. `ENOSYS`: what the C library does is not known, or it has no POSIX AIO. `ECHILD`: a child of
/// `fork(2)` whose parent's threads did not come along.
pub(super) fn look(library: Option<&'static Library>, options: Options) -> Result<Limits, NotStarted> {
    let refuse = |errno, reason: &str| Err(NotStarted { errno: Errno(errno), reason: reason.to_owned() });
    if options.queue_depth == 0 || options.spread == 0 {
        return refuse(libc::EINVAL, "POSIX AIO needs a queue depth, and a number of descriptors, of at least 1");
    }
    let Some(library) = library else {
        return refuse(
            libc::ENOSYS,
            "POSIX AIO is not served with this C library: it is with glibc and musl, and on FreeBSD, NetBSD and macOS; use \
             thread-pool or auto",
        );
    };
    if !library.forks && is_orphan(USED_BY.load(Ordering::Relaxed), std::process::id()) {
        return refuse(
            libc::ECHILD,
            "POSIX AIO does not work in this process: it is a child of fork(2), its parent has used POSIX AIO, and the C \
             library's threads do not come along; use kernel-aio or thread-pool here, or fork before the first request",
        );
    }
    if abi::limit(libc::_SC_ASYNCHRONOUS_IO).is_none_or(|version| version == 0) {
        return refuse(libc::ENOSYS, "this C library has no POSIX AIO (sysconf(_SC_ASYNCHRONOUS_IO))");
    }
    // One list names every seat's first request, and the bell.
    let listed = abi::limit(libc::_SC_AIO_LISTIO_MAX).unwrap_or(usize::MAX);
    let most = abi::limit(libc::_SC_AIO_MAX).into_iter().chain(abi::most_per_process()).min().unwrap_or(usize::MAX);
    if listed < 2 || most < 2 {
        return refuse(
            libc::EAGAIN,
            "POSIX AIO is limited to one request here (sysconf(_SC_AIO_LISTIO_MAX, _SC_AIO_MAX), sysctl kern.aioprocmax or \
             vfs.aio.max_aio_queue_per_proc)",
        );
    }
    let seats = library.seats.min(listed - 1).min(most - 1);
    Ok(Limits {
        library,
        bound: options.queue_depth,
        blocks: (seats * library.depth).min(most - 1),
        list: library.list.min(listed),
        seats,
        spread: library.serial.then_some(options.spread.min(seats)),
        // What a program may open is its own: an eighth of it at the most.
        duplicates: (abi::open_files() / 8).clamp(1, 4096),
    })
}

/// The bell that ends the reaper's sleep needs a descriptor, and there is none.
pub(super) fn no_bell(errno: Errno) -> NotStarted {
    let reason = format!(
        "POSIX AIO needs a descriptor of its own, and opening one failed: {errno}; raise the limit of open files (`ulimit \
         -n`), or use thread-pool"
    );
    NotStarted { errno, reason }
}

/// Whether this process is not the one that has used the C library's threads.
fn is_orphan(used_by: u32, process: u32) -> bool {
    used_by != 0 && used_by != process
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::super::abi::LIST_MAX;
    use super::super::library::MUSL;
    use super::*;

    #[test]
    fn other_libraries_are_refused_and_told_why() {
        let why = look(None, Options { queue_depth: 1, spread: 1 }).expect_err("nothing is known of it");
        assert!(why.errno == Errno(libc::ENOSYS) && why.reason.contains("with this C library"), "{why}");
    }

    #[test]
    fn options_are_checked() {
        for options in [Options { queue_depth: 0, spread: 16 }, Options { queue_depth: 1, spread: 0 }] {
            let why = look(Some(&GLIBC), options).expect_err("nothing is not enough");
            assert!(why.errno == Errno(libc::EINVAL) && why.reason.contains("at least 1"), "{why}");
        }
        let options = Options { queue_depth: 7, spread: 99 };
        let limits = look(Some(&GLIBC), options).expect("no child of fork");
        assert_eq!((limits.bound, limits.spread), (7, Some(limits.seats)));
        assert!(limits.seats == 16 && limits.blocks == 64 && limits.duplicates >= 1, "{limits:?}");
        assert!((2..=LIST_MAX).contains(&limits.list), "{limits:?}");
        let limits = look(Some(&MUSL), options).expect("no child of fork");
        assert!(limits.blocks == limits.seats && limits.spread.is_none() && limits.list == 1, "{limits:?}");
    }

    #[test]
    fn only_children_of_a_user_are_orphans() {
        assert!(!is_orphan(0, 5) && !is_orphan(5, 5) && is_orphan(5, 6));
    }
}
