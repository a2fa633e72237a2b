//! Collects completions: from the ring in memory, without a system call, or by `io_getevents`.
//!
//! The ring's head belongs to one reader. `io_getevents` moves it too, under a lock that only the kernel has. So
//! everything that moves it is a method of [`Reaper`], of which there is one, behind a mutex; looking at it
//! ([`Ring::is_empty`](super::ring::Ring::is_empty)) is free.

#![allow(unsafe_code)]

use std::ops::Range;
use std::time::{Duration, Instant};

use super::abi::{self, IoEvent};
use super::ring::drain;
use super::{InFlight, Live};
use crate::backend::{Completions, Wait};
use crate::completion::{Errno, Outcome};
use crate::request::RequestId;

/// Events that are copied at a time. 32 bytes each: they stay in the first-level cache.
const EVENTS: usize = 128;
/// A kernel does not return from an `io_getevents` that waits with nothing, before the time is up. Something that fakes
/// its answers does; after so many in a row the wait ends early rather than spin.
const EMPTY_ANSWERS: u32 = 16;

/// The one reader of a context's events.
#[derive(Debug)]
pub(super) struct Reaper {
    /// Events on their way out of the ring.
    events: Box<[IoEvent]>,
    /// Those of them that [`look`](Self::look) took out before anybody asked for them. While there are any, nothing else is
    /// read into `events`.
    ahead: Range<usize>,
}

impl Reaper {
    pub(super) fn new(queue_bound: usize) -> Self {
        Self { events: vec![IoEvent::default(); queue_bound.min(EVENTS)].into_boxed_slice(), ahead: 0..0 }
    }

    /// Whether something is there, where only a system call can tell: it takes out what it finds.
    pub(super) fn look(&mut self, live: &Live) -> bool {
        if self.ahead.is_empty() {
            self.ahead = 0..self.call(live, 0, EVENTS, Some(Duration::ZERO)).unwrap_or(0);
        }
        !self.ahead.is_empty()
    }

    /// [`Backend::reap`](crate::backend::Backend::reap).
    pub(super) fn reap(
        &mut self,
        live: &Live,
        in_flight: &InFlight,
        wait: Wait,
        completions: &mut Completions<'_>,
    ) -> usize {
        let min = wait.min.min(wait.max);
        let ahead = self.ahead.start..self.ahead.end.min(self.ahead.start.saturating_add(wait.max));
        self.ahead.start = ahead.end;
        let mut got = self.deliver(ahead, in_flight, completions);
        if !self.ahead.is_empty() {
            return got;
        }
        // By the system call one look would be one call too many when the next step waits in it anyway.
        if min == 0 || live.ring.is_some() {
            got += self.poll(live, in_flight, wait.max - got, completions);
        }
        if got >= min {
            return got;
        }
        // A time too far away to be represented is no limit.
        let deadline = wait.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut empty_answers = 0;
        while got < min && empty_answers < EMPTY_ANSWERS {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.call(live, min - got, wait.max - got, left) {
                Ok(count) => {
                    // Fewer than asked for: the time is up, or a signal came after some events.
                    empty_answers = if count == 0 { empty_answers + 1 } else { 0 };
                    got += self.deliver(0..count, in_flight, completions);
                }
                // A signal, and nothing was there. The ring can have filled since.
                Err(Errno(libc::EINTR)) if live.ring.is_some() => {
                    got += self.poll(live, in_flight, wait.max - got, completions);
                }
                Err(Errno(libc::EINTR)) => {}
                // The context is gone or the call is forbidden: waiting here would never end.
                Err(_) => break,
            }
            if left == Some(Duration::ZERO) {
                break;
            }
        }
        got
    }

    /// Takes what is there, up to `max`, without waiting.
    fn poll(&mut self, live: &Live, in_flight: &InFlight, max: usize, completions: &mut Completions<'_>) -> usize {
        let mut got = 0;
        // Each round but the last takes a whole buffer. Submissions that go on meanwhile cannot keep it here for ever:
        // one context's worth is enough for one call.
        let rounds = live.context.size().div_ceil(self.events.len()) + 1;
        for _ in 0..rounds {
            let most = (max - got).min(self.events.len());
            let count = match &live.ring {
                // SAFETY: moving the head takes the one `Reaper`, which we hold exclusively.
                Some(ring) => unsafe { drain(ring, &mut self.events[..most]) },
                None if in_flight.count() == 0 => 0,
                // `EINTR` from a call that does not wait: there was nothing.
                None => self.call(live, 0, most, Some(Duration::ZERO)).unwrap_or(0),
            };
            got += self.deliver(0..count, in_flight, completions);
            if count < self.events.len() || got >= max {
                break;
            }
        }
        got
    }

    /// `io_getevents` into the buffer.
    fn call(&mut self, live: &Live, min: usize, max: usize, timeout: Option<Duration>) -> Result<usize, Errno> {
        let most = max.min(self.events.len());
        // SAFETY: `live` owns the context, which is thus live. The call moves the head; nobody else does meanwhile, as
        // that takes the one `Reaper`, which we hold exclusively.
        unsafe { abi::io_getevents(live.context.id(), min.min(most), &mut self.events[..most], timeout) }
    }

    /// Hands over events of the buffer; returns how many were of requests that we know.
    fn deliver(&self, range: Range<usize>, in_flight: &InFlight, completions: &mut Completions<'_>) -> usize {
        let mut known = 0;
        for event in &self.events[range] {
            // SAFETY: the event is the kernel's word that it is done with the request. It is one of this engine's, which
            // `KernelAio::reap` has checked.
            known += usize::from(unsafe { completions.push(RequestId::from_u64(event.data), outcome(event)) });
        }
        // Whoever takes a request back out of the kernel counts it out. An unknown event counts for nothing: its request was
        // counted out by the submission that reclaimed it.
        in_flight.release(known);
        known
    }
}

/// What an event says. `res2` is ignored: it is 0 for everything that we submit (only USB gadgets ever set it).
fn outcome(event: &IoEvent) -> Outcome {
    u64::try_from(event.res).map_err(|_| Errno(i32::try_from(event.res.unsigned_abs()).unwrap_or(libc::EIO)))
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn negative_results_are_error_numbers() {
        let event = |res| IoEvent { res, res2: 7, ..IoEvent::default() };
        assert_eq!(outcome(&event(4096)), Ok(4096));
        assert_eq!(outcome(&event(0)), Ok(0));
        assert_eq!(outcome(&event(-i64::from(libc::EINVAL))), Err(Errno(libc::EINVAL)));
        assert_eq!(outcome(&event(i64::MIN)), Err(Errno(libc::EIO)));
    }
}
