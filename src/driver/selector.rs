//! What tells the seated thread of readiness: epoll(7) on Linux, kqueue(2) on the BSDs and macOS, and on Windows a wait for
//! several objects.
//!
//! Each but the last is a descriptor that becomes readable with what it has to tell, so that a program's own loop, and tokio's reactor,
//! can poll it as well as the thread in the seat. The files have the same items; no other file of the driver knows which
//! of them is compiled in.

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod epoll;
        use self::epoll as system;
    } else if #[cfg(windows)] {
        mod windows;
        use self::windows as system;
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
    #[cfg(unix)]
    Level,
}

/// The number of descriptors that only end the sleep: the doorbell's and the backends'.
pub(super) const NO_STREAM: u64 = u64::MAX;

/// Events taken from the kernel in one go.
#[cfg(unix)]
pub(super) const EVENTS: usize = 64;

/// The same for every selector that is a descriptor.
#[cfg(all(test, unix, not(polyaio_loom)))]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::driver::doorbell::{Bell as _, Doorbell};

    /// What is told now.
    fn told(selector: &Selector) -> Vec<(u64, i32)> {
        let mut events = Events::new();
        selector.wait(&mut events, Some(Duration::ZERO));
        events.iter().collect()
    }

    fn new() -> Selector {
        Selector::new().expect("a descriptor")
    }

    #[test]
    fn an_edge_is_told_once_and_a_level_until_it_is_gone() {
        let (edge, level, bell) = (new(), new(), Doorbell::new().expect("a descriptor"));
        edge.watch(bell.as_fd(), Trigger::Edge).expect("it can be watched");
        level.watch(bell.as_fd(), Trigger::Level).expect("it can be watched");
        assert!(told(&edge).is_empty() && told(&level).is_empty(), "nobody has rung");
        for _ in 0..3 {
            bell.ring();
            assert_eq!(told(&edge), [(NO_STREAM, READABLE)]);
            assert!(told(&edge).is_empty(), "once");
            assert_eq!((told(&level).len(), told(&level).len()), (1, 1));
            bell.silence();
            assert!(told(&level).is_empty());
        }
    }

    #[test]
    fn a_selector_can_be_watched() {
        let (inner, outer, bell) = (new(), new(), Doorbell::new().expect("a descriptor"));
        inner.watch(bell.as_fd(), Trigger::Edge).expect("it can be watched");
        outer.watch(inner.as_fd(), Trigger::Level).expect("it can be watched");
        assert!(told(&outer).is_empty());
        bell.ring();
        assert_eq!((told(&outer).len(), told(&outer).len()), (1, 1), "until somebody has taken it");
        assert_eq!(told(&inner).len(), 1);
        assert!(told(&outer).is_empty());
    }

    #[test]
    fn a_stream_is_told_of_once_for_each_time_that_it_is_asked_for() {
        let (selector, (mut one, mut other)) = (new(), UnixStream::pair().expect("two sockets"));
        let fd = one.as_raw_fd();
        selector.add_stream(fd, 7).expect("a socket has events");
        other.write_all(b"x").expect("there is room");
        assert!(told(&selector).is_empty(), "nobody has asked");
        selector.arm_stream(fd, 7, READABLE).expect("it is known");
        assert_eq!(told(&selector), [(7, READABLE)]);
        assert!(told(&selector).is_empty(), "it is still readable, and nobody has asked again");
        selector.arm_stream(fd, 7, READABLE).expect("it is known");
        assert_eq!(told(&selector), [(7, READABLE)], "what came before");
        one.read_exact(&mut [0]).expect("one byte");
        selector.arm_stream(fd, 7, READABLE).expect("it is known");
        assert!(told(&selector).is_empty());
        selector.arm_stream(fd, 7, READABLE | WRITABLE).expect("it is known");
        assert_eq!(told(&selector), [(7, WRITABLE)]);
        selector.arm_stream(fd, 7, 0).expect("it is known");
        other.write_all(b"x").expect("there is room");
        assert!(told(&selector).is_empty(), "not asked for any more");
        selector.arm_stream(fd, 7, READABLE).expect("it is known");
        selector.remove_stream(fd, 7);
        assert!(told(&selector).is_empty(), "forgotten");
    }

    #[test]
    fn an_end_wakes_who_waits_for_it() {
        let (selector, (reader, writer)) = (new(), std::io::pipe().expect("a pipe"));
        selector.add_stream(reader.as_raw_fd(), 0).expect("a pipe has events");
        selector.add_stream(writer.as_raw_fd(), 1).expect("a pipe has events");
        selector.arm_stream(reader.as_raw_fd(), 0, READABLE).expect("it is known");
        selector.remove_stream(writer.as_raw_fd(), 1);
        drop(writer);
        let told = told(&selector);
        assert!(told.len() == 1 && told[0].0 == 0 && told[0].1 & (READABLE | FAILED) != 0, "{told:?}");
    }
}
