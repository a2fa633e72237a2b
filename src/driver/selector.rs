//! What tells the seated thread of readiness: epoll(7) on Linux, kqueue(2) on the BSDs and macOS.
//!
//! Each is a descriptor that becomes readable with what it has to tell, so that a program's own loop, and tokio's reactor,
//! can poll it as well as the thread in the seat. The files have the same items; no other file of the driver knows which
//! of them is compiled in.

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod epoll;
        use self::epoll as system;
    } else {
        mod kqueue;
        use self::kqueue as system;
    }
}

pub(super) use self::system::{Events, Selector};
/// The instance, its room for what one wait tells, and the bits by which it tells of a stream.
pub(crate) use self::system::{FAILED, READABLE, WRITABLE};

/// When a watched descriptor is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// With each change, once.
    Edge,
    /// As long as it is readable.
    Level,
}

/// The number of descriptors that only end the sleep: the doorbell's and the backends'.
pub(super) const NO_STREAM: u64 = u64::MAX;

/// Events taken from the kernel in one go.
pub(super) const EVENTS: usize = 64;
