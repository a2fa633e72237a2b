//! What the C libraries do differently, as far as this backend goes by it. One table: nothing else asks where it runs, but
//! for `abi.rs`, which has to name what there is.
//!
//! glibc keeps a queue for each descriptor and serves it first in, first out. The others serve requests of one descriptor
//! at the same time and in any order: musl on a thread for each, the kernels of FreeBSD and macOS on their own threads, and
//! NetBSD's on one. There a seat has a single request, a descriptor has as many seats as it likes, and what is beyond the
//! seats waits in the backend.
//!
//! # References
//! `rt/aio_misc.c` in glibc; `src/aio/aio.c` in musl; `sys/kern/vfs_aio.c` in FreeBSD; `sys/kern/sys_aio.c` in NetBSD;
//! `bsd/kern/kern_aio.c` in XNU

use super::abi::LIST_MAX;

/// How the reaper is told of an end, and of what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waking {
    /// It sleeps in `aio_suspend` on the first request of each seat, and on one that is queued behind them and is cancelled
    /// to end the sleep.
    QueuedBell,
    /// It sleeps in `aio_suspend` on the seats' requests, and on one that is started to end the sleep.
    StartedBell,
    /// It sleeps on a condition variable: the library calls a function at the end of each request (`SIGEV_THREAD`), on the
    /// thread that has served it.
    Calls,
}

/// What can be stopped at the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelling {
    /// All of a descriptor's queue that has not begun; what was not meant is sent again. See `Seats::cancel_queue`.
    Queue,
    /// One request.
    One,
    /// None: what is at the library runs to its end.
    Never,
}

/// A C library, and the kernel behind it where that serves POSIX AIO itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Library {
    /// Seats at the most: what runs at the same time, and what the reaper looks through.
    pub(super) seats: usize,
    /// Requests of a seat at the most.
    pub(super) depth: usize,
    /// A descriptor's requests run one after the other, in their order: so that it has one seat, and a file's are spread
    /// over duplicates.
    pub(super) serial: bool,
    /// Requests of one `lio_listio` at the most. 1: each goes by a call of its own, whose error is the request's, unless it
    /// is one that says that there is no room.
    pub(super) list: usize,
    pub(super) waking: Waking,
    pub(super) cancelling: Cancelling,
    /// A thread may sleep on a request that the reaper or a cancel collects meanwhile.
    pub(super) attends: bool,
    /// A write to a descriptor with `O_APPEND` leaves the file's position alone.
    pub(super) appends: bool,
    /// `aio_fsync(O_SYNC)` does as much as [`OpKind::SyncAll`](crate::request::OpKind::SyncAll) promises.
    pub(super) sync_all: bool,
    /// `aio_fsync(O_DSYNC)` does as much as [`OpKind::SyncData`](crate::request::OpKind::SyncData) promises.
    pub(super) sync_data: bool,
    /// It serves in a child of `fork(2)` whose parent has used it.
    pub(super) forks: bool,
}

/// Fewer seats than threads, of which the program may use some; and a few requests behind the one that runs, so that a thread
/// finds the next one without waiting for ours.
pub(super) const GLIBC: Library = Library {
    seats: 16,
    depth: 4,
    serial: true,
    list: LIST_MAX,
    waking: Waking::QueuedBell,
    cancelling: Cancelling::Queue,
    attends: true,
    appends: true,
    sync_all: true,
    sync_data: true,
    forks: false,
};

/// - `aio_suspend` on several requests can miss an end where two threads are in it (they share one futex word, whose value
///   comes back), and two engines have two reapers.
/// - The function is called by the thread that has served the request, when that has let go of the descriptor; none is
///   started for it that could be missing. Only then is a request over here: before, the number of a closed descriptor still
///   stands for what it was (`q->append`, `q->seekable`).
/// - `aio_cancel` waits for a thread that is inside of a transfer, and for ever for one that waits for others' writes.
/// - Where descriptors append it calls `write`, which moves the position.
/// - `lio_listio` is a loop.
/// - A child of `fork(2)` may find a lock taken.
pub(super) const MUSL: Library = Library {
    seats: 64,
    depth: 1,
    serial: false,
    list: 1,
    waking: Waking::Calls,
    cancelling: Cancelling::Never,
    attends: false,
    appends: false,
    sync_all: true,
    sync_data: true,
    forks: false,
};

/// By its source: `SIGEV_KEVENT` would tell without a list, and is not used.
pub(super) const FREEBSD: Library = Library {
    seats: 64,
    depth: 1,
    serial: false,
    list: 1,
    waking: Waking::StartedBell,
    cancelling: Cancelling::One,
    attends: false,
    appends: true,
    sync_all: true,
    sync_data: true,
    forks: true,
};

/// By its source: one thread serves all, in order. `aio_cancel` wakes nobody who sleeps on what it cancels, and
/// `aio_fsync(O_SYNC)` is an `O_DSYNC` in some versions.
pub(super) const NETBSD: Library = Library { cancelling: Cancelling::Never, sync_all: false, ..FREEBSD };

/// By its source: 16 requests per process (`kern.aioprocmax`), of which one is the bell. An appended write moves the position.
/// A sync does not reach the drive's cache, as `F_FULLFSYNC` does.
pub(super) const MACOS: Library = Library { seats: 15, appends: false, sync_all: false, sync_data: false, ..FREEBSD };

/// The one of this build. `None`: it has none that is known.
pub(super) const HERE: Option<&Library> = if cfg!(all(target_os = "linux", target_env = "gnu")) {
    Some(&GLIBC)
} else if cfg!(all(target_os = "linux", target_env = "musl")) {
    Some(&MUSL)
} else if cfg!(target_os = "freebsd") {
    Some(&FREEBSD)
} else if cfg!(target_os = "netbsd") {
    Some(&NETBSD)
} else if cfg!(target_os = "macos") {
    Some(&MACOS)
} else {
    None
};
