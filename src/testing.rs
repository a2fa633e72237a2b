//! Requests without an engine, for the unit tests of backends.

#![allow(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::backend::{Backend, Batch, Completions, Wait};
use crate::completion::{Errno, Last, Outcome};
use crate::memory::IoVec;
use crate::os::RawFd;
use crate::request::{self, Anomaly, Body, OpKind, Owner, RawHandle, Request, RequestId};
use crate::router::facts::Alignment;
use crate::settle::Tally;
use crate::slot::{Slab, Slot};

/// Tells a hang from a slow machine, and claims nothing about speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// For what a scheduler can spoil and a defect spoils always (the time that something takes): one attempt of many has to
/// hold. Panics with the last one's reason where none has.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn one_of_many<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    const ATTEMPTS: usize = 25;
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(value) => return value,
            Err(why) => last = why,
        }
    }
    panic!("{what}: not in one of {ATTEMPTS} attempts; in the last one {last}");
}

/// CPU time of the calling thread: what a piece of work costs, whatever else the machine does meanwhile.
pub(crate) use crate::os::thread_time;

/// An owner that publishes whatever a backend answers.
struct Publisher {
    slab: Arc<Slab>,
}

impl Owner for Publisher {
    fn judge(&self, _request: &mut Request, outcome: Outcome, _tally: &mut Tally) -> Option<Outcome> {
        Some(outcome)
    }

    fn resubmit(self: Arc<Self>, _request: Request) {
        unreachable!("`judge` finishes every request")
    }

    fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    fn twin(&self) -> Result<RawFd, Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }

    fn close_twin(&self) {}

    fn alignment(&self) -> Option<Alignment> {
        None
    }

    fn count_anomaly(&self, _anomaly: Anomaly) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Makes requests and collects what becomes of them.
pub(crate) struct Bench {
    slab: Arc<Slab>,
    owner: Arc<dyn Owner>,
}

/// The future side of a request made by a [`Bench`].
pub(crate) struct Pending<'a> {
    slot: &'a Slot,
}

/// What one submission left behind.
pub(crate) struct Leftover {
    pub(crate) refused: Vec<(Request, Errno)>,
    pub(crate) busy: VecDeque<Request>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let slab = Arc::new(Slab::new(1 << 16));
        Self { owner: Arc::new(Publisher { slab: slab.clone() }), slab }
    }

    /// A request on `fd`; a transfer moves `buffer`, which comes back from [`Pending::finish`].
    pub(crate) fn request(
        &self,
        kind: OpKind,
        fd: RawFd,
        position: Option<u64>,
        buffer: Vec<u8>,
    ) -> (Request, Pending<'_>) {
        let Poll::Ready(slot) = self.slab.poll_acquire(&mut None, Waker::noop()) else { panic!("the slab is full") };
        // SAFETY: the slot is live and ours; the request has not started.
        let request = unsafe {
            let mut place = slot.store(buffer);
            let buffer = place.as_mut();
            slot.body.with_mut(|body| {
                *body = Body { kind, handle: RawHandle::Descriptor(fd), position, ..Body::default() };
                if kind.is_transfer() {
                    (*body).memory.iovecs[0] = IoVec { base: buffer.as_mut_ptr(), len: buffer.len() };
                    (*body).memory.count = 1;
                }
            });
            slot.set_owner(self.owner.clone());
            Request::from_slot(slot)
        };
        (request, Pending { slot })
    }

    /// Submits once; everything that the backend did not take comes back in order.
    pub(crate) fn submit(&self, backend: &dyn Backend, requests: impl IntoIterator<Item = Request>) -> Leftover {
        self.submit_attending(backend, None, requests)
    }

    /// The same, by a thread that is going to wait for one of them.
    pub(crate) fn submit_attending(
        &self,
        backend: &dyn Backend,
        attended: Option<RequestId>,
        requests: impl IntoIterator<Item = Request>,
    ) -> Leftover {
        let (mut queue, mut refused, mut busy) = (requests.into_iter().collect(), Vec::new(), VecDeque::new());
        backend.submit(&mut Batch {
            slab: &self.slab,
            queue: &mut queue,
            refused: &mut refused,
            busy: &mut busy,
            revocable: true,
            attended,
        });
        busy.append(&mut queue);
        Leftover { refused, busy }
    }

    #[cfg_attr(not(all(feature = "kernel-aio", target_os = "linux")), allow(dead_code))]
    /// Reaps once and completes what came; returns how many, and how many ids were unknown.
    pub(crate) fn reap(&self, backend: &dyn Backend, wait: Wait) -> (usize, u64) {
        let mut claimed = Vec::new();
        let mut completions = Completions { slab: &self.slab, claimed: &mut claimed, unknown: 0 };
        backend.reap(wait, &mut completions);
        let unknown = completions.unknown;
        let count = claimed.len();
        for (request, answer) in claimed {
            request.complete(answer.into());
        }
        (count, unknown)
    }
}

impl Pending<'_> {
    /// The outcome, if it is there.
    pub(crate) fn peek(&self) -> Option<Outcome> {
        self.slot.completion.peek()
    }

    /// Waits until the request is complete, calling `step` meanwhile; panics after two minutes.
    pub(crate) fn finish(self, mut step: impl FnMut()) -> (Outcome, Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        let outcome = loop {
            if let Some(outcome) = self.peek() {
                break outcome;
            }
            assert!(Instant::now() < deadline, "the request did not complete within {PATIENCE:?}");
            step();
            std::thread::yield_now();
        };
        // SAFETY: the request is done, so that the payload is ours; it is the `Vec` that `request` stored.
        let buffer = unsafe { self.slot.take::<Vec<u8>>() };
        (outcome, buffer)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.slot.completion.leave() == Last::Yes {
            // SAFETY: we were told that we are the last owner.
            unsafe { request::free(std::ptr::NonNull::from(self.slot)) };
        }
    }
}
