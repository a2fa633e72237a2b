//! Windows: WaitForMultipleObjects.
//!
//! It waits for the doorbell, and for the events of backends that have some. Of streams nothing tells: they are always
//! ready, and a worker makes the call that may wait.

use std::time::Duration;

use super::{NO_STREAM, Trigger};
use crate::completion::Errno;
use crate::error::Error;
use crate::os::{self, AsRawFd as _, BorrowedFd, MOST_WAITED_FOR, RawFd};
use crate::sync::{Mutex, lock};

/// A read would find something.
pub(crate) const READABLE: i32 = 1;
/// A write would find room.
pub(crate) const WRITABLE: i32 = 2;
/// Whoever tries will learn of it, in both directions.
pub(crate) const FAILED: i32 = 4;

/// What is waited for, the doorbell first; and whether it is told of.
pub(in crate::driver) struct Selector(Mutex<Vec<(RawFd, bool)>>);

/// Whether the last [`Selector::wait`] had something to tell.
pub(in crate::driver) struct Events(bool);

impl Events {
    pub(in crate::driver) fn new() -> Self {
        Self(false)
    }

    /// One at a time is told; who sleeps next is told of the others.
    pub(in crate::driver) fn is_full(&self) -> bool {
        false
    }

    /// Numbers, and what has become of whom they stand for.
    pub(in crate::driver) fn iter(&self) -> impl Iterator<Item = (u64, i32)> {
        self.0.then_some((NO_STREAM, READABLE)).into_iter()
    }
}

impl Selector {
    /// # Errors
    /// None: it is a list.
    pub(in crate::driver) fn new() -> Result<Self, Error> {
        Ok(Self(Mutex::new(Vec::new())))
    }

    /// Tells, as [`NO_STREAM`], when `object` is signalled. Whether it stays so is up to the object.
    pub(in crate::driver) fn watch(&self, object: BorrowedFd<'_>, _trigger: Trigger) -> Result<(), Error> {
        let mut objects = lock(&self.0);
        if objects.len() == MOST_WAITED_FOR {
            return Err(Error::System { what: "WaitForMultipleObjects", source: Errno(libc::EINVAL).into() });
        }
        objects.push((object.as_raw_fd(), true));
        Ok(())
    }

    /// Whether it tells of an object that is watched. One that is signalled is told of at once.
    pub(in crate::driver) fn tell(&self, object: BorrowedFd<'_>, told: bool) -> Result<(), Errno> {
        let mut objects = lock(&self.0);
        let known = objects.iter_mut().find(|known| known.0 == object.as_raw_fd()).ok_or(Errno(libc::ENOENT))?;
        known.1 = told;
        Ok(())
    }

    /// `EPERM`: as for what is always ready elsewhere.
    pub(in crate::driver) fn add_stream(&self, _fd: RawFd, _number: u64) -> Result<(), Errno> {
        Err(Errno(libc::EPERM))
    }

    /// No stream is known here.
    pub(in crate::driver) fn arm_stream(&self, _fd: RawFd, _number: u64, _events: i32) -> Result<(), Errno> {
        Ok(())
    }

    /// No stream is known here.
    pub(in crate::driver) fn remove_stream(&self, _fd: RawFd, _number: u64) {}

    /// Waits until there is something to tell; without a timeout for as long as it takes.
    pub(in crate::driver) fn wait(&self, events: &mut Events, timeout: Option<Duration>) {
        // Rounded up, so that a timeout is never early.
        let milliseconds = timeout.map(|t| u32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX));
        let (mut objects, mut count) = ([0; MOST_WAITED_FOR], 0);
        for (object, _) in lock(&self.0).iter().filter(|known| known.1) {
            objects[count] = *object;
            count += 1;
        }
        let told = os::wait_for_any(&objects[..count], milliseconds);
        // A backend that has ended may have closed its event: the doorbell is left.
        let told = told.or_else(|_| os::wait_for_any(&objects[..1], milliseconds));
        events.0 = matches!(told, Ok(Some(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::doorbell::{Bell as _, Doorbell};
    use crate::os::{AsFd as _, Event};

    fn told(selector: &Selector) -> Vec<(u64, i32)> {
        let mut events = Events::new();
        selector.wait(&mut events, Some(Duration::ZERO));
        events.iter().collect()
    }

    #[test]
    fn the_bell_and_a_backend_end_the_sleep() {
        let (selector, bell) = (Selector::new().expect("a list"), Doorbell::new().expect("an event"));
        let backend = Event::new(false).expect("an event");
        selector.watch(bell.as_fd(), Trigger::Edge).expect("there is room");
        selector.watch(backend.as_fd(), Trigger::Edge).expect("there is room");
        assert!(told(&selector).is_empty(), "nobody has rung");
        bell.ring();
        assert_eq!(told(&selector), [(NO_STREAM, READABLE)]);
        bell.heard();
        assert!(told(&selector).is_empty());
        backend.set();
        assert_eq!(told(&selector).len(), 1);
        assert!(told(&selector).is_empty(), "once");
        selector.tell(backend.as_fd(), false).expect("it is watched");
        backend.set();
        assert!(told(&selector).is_empty(), "others want it");
        selector.tell(backend.as_fd(), true).expect("it is watched");
        assert_eq!(told(&selector).len(), 1);
    }

    #[test]
    fn the_bell_is_heard_beside_an_event_that_is_gone() {
        let (selector, bell) = (Selector::new().expect("a list"), Doorbell::new().expect("an event"));
        selector.watch(bell.as_fd(), Trigger::Edge).expect("there is room");
        let backend = Event::new(false).expect("an event");
        selector.watch(backend.as_fd(), Trigger::Edge).expect("there is room");
        drop(backend);
        bell.ring();
        assert_eq!(told(&selector).len(), 1);
    }
}
