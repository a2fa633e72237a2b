//! Pipes, sockets and terminals that somebody waits for.

use std::sync::{Arc, Weak};

use super::Driver;
use crate::completion::Errno;
use crate::os::RawFd;
use crate::stream::Stream;
use crate::sync::atomic::Ordering;
use crate::sync::lock;

impl Driver {
    /// Makes a stream known; `EPERM` for descriptors that are always ready, such as `/dev/null`.
    pub(crate) fn add_stream(&self, stream: &Arc<Stream>, fd: RawFd) -> Result<u64, Errno> {
        let mut streams = lock(&self.streams);
        let number = match streams.iter().position(|known| known.strong_count() == 0) {
            Some(free) => free,
            None => {
                streams.push(Weak::new());
                streams.len() - 1
            }
        };
        let added = self.check_process().and_then(|()| self.selector.add_stream(fd, number as u64));
        if matches!(added, Ok(()) | Err(Errno(libc::EPERM))) {
            // Who waits for a step is woken at the engine's end, also where the selector knows nothing of the stream.
            streams[number] = Arc::downgrade(stream);
        }
        added.map(|()| number as u64)
    }

    /// Asks for one report of any of `events`; 0 asks for none.
    pub(crate) fn arm_stream(&self, fd: RawFd, number: u64, events: i32) -> Result<(), Errno> {
        self.check_process()?;
        self.selector.arm_stream(fd, number, events)
    }

    /// Forgets a stream whose descriptor is about to be closed.
    pub(crate) fn remove_stream(&self, fd: RawFd, number: u64) {
        if self.check_process().is_ok() {
            self.selector.remove_stream(fd, number);
        }
        if let Some(entry) = lock(&self.streams).get_mut(number as usize) {
            *entry = Weak::new();
        }
    }

    /// Counts directions of streams that somebody waits for.
    pub(crate) fn count_waits(&self, more: usize, fewer: usize) {
        self.waits.fetch_add(more, Ordering::SeqCst);
        self.waits.fetch_sub(fewer, Ordering::SeqCst);
    }

    pub(crate) fn waits_for_streams(&self) -> bool {
        self.waits.load(Ordering::SeqCst) > 0
    }

    /// Wakes everyone who waits for a stream.
    pub(crate) fn wake_all_streams(&self) {
        let streams: Vec<_> = lock(&self.streams).iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(|stream| stream.wake_all());
    }
}
