//! Where the reaper sleeps, and what ends its sleep.
//!
//! With requests at the C library it sleeps in `aio_suspend` on the first request of each seat, so many at the most whatever
//! the queue depth, and on the *bell*, which ends the sleep where there is something new to sleep on. Where requests run in
//! their descriptor's order the bell is one that never runs ([`queued`]); elsewhere it is one that is started to be rung
//! ([`started`]). A library that calls a function at the end of each request has no list, and the bell is a condition
//! variable, which that function rings too ([`called`]).
//!
//! Without requests it sleeps on a condition variable of the backend's.

#![allow(unsafe_code)]

pub(super) mod called;
mod queued;
mod started;

use std::os::fd::RawFd;
use std::sync::Arc;

use super::abi;
use super::library::Waking;
use super::seats::Seats;
use crate::completion::Errno;
use called::Ring;
use queued::Queued;
use started::Started;

/// Where the reaper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It runs, and looks at the seats before it sleeps.
    Awake,
    /// It sleeps on the condition variable: nothing is at the C library.
    Idle,
    /// It sleeps in `aio_suspend`, or until a function is called.
    Suspended,
}

/// What ends the reaper's sleep where no request does.
pub(super) enum Bell {
    /// [`Waking::QueuedBell`]
    Queued(Queued),
    /// [`Waking::StartedBell`]
    Started(Started),
    /// [`Waking::Calls`]
    Called(Arc<Ring>),
}

/// What the reaper sleeps on.
pub(super) enum List {
    /// Control blocks; keeps its memory.
    Blocks(Vec<*const libc::aiocb>),
    /// Rung at each end.
    Ring(Arc<Ring>),
}

impl Bell {
    /// # Errors
    /// `EMFILE`: it needs a descriptor.
    pub(super) fn new(waking: Waking) -> Result<Self, Errno> {
        Ok(match waking {
            Waking::QueuedBell => Self::Queued(Queued::new()),
            Waking::StartedBell => Self::Started(Started::new()?),
            Waking::Calls => Self::Called(Arc::new(Ring::new())),
        })
    }

    /// What the library's calls ring.
    pub(super) fn called(&self) -> Option<&Arc<Ring>> {
        match self {
            Self::Called(ring) => Some(ring),
            Self::Queued(_) | Self::Started(_) => None,
        }
    }

    /// Ends the reaper's sleep. `false`: it sleeps on, until a request ends.
    pub(super) fn ring(&mut self) -> bool {
        match self {
            Self::Queued(bell) => bell.ring(),
            Self::Started(bell) => return bell.ring(),
            Self::Called(ring) => ring.ring(),
        }
        true
    }

    /// Sees whether it was rung, or has had its turn.
    pub(super) fn settle(&mut self, seats: &mut Seats) {
        match self {
            Self::Queued(bell) => bell.settle(seats),
            Self::Started(bell) => bell.settle(),
            Self::Called(_) => {}
        }
    }

    /// Takes it out of a seat's queue, so that the seat is as the others.
    pub(super) fn release(&mut self, seats: &mut Seats) {
        if let Self::Queued(bell) = self {
            bell.release(seats);
        }
    }

    /// Sees to it that none is in flight.
    pub(super) fn take_down(&mut self, seats: &mut Seats) {
        match self {
            Self::Queued(bell) => bell.take_down(seats),
            Self::Started(bell) => bell.take_down(),
            Self::Called(_) => {}
        }
    }

    /// Whether it is in the queue of one of these descriptors, or may be.
    pub(super) fn hangs_at(&self, is_one: impl Fn(RawFd) -> bool) -> bool {
        matches!(self, Self::Queued(bell) if bell.hangs_at(is_one))
    }
}

impl List {
    /// For the reaper with this bell; of so many seats.
    pub(super) fn new(bell: &Bell, seats: usize) -> Self {
        match bell.called() {
            Some(ring) => Self::Ring(ring.clone()),
            None => Self::Blocks(Vec::with_capacity(seats + 1)),
        }
    }

    /// Everything whose end is to end the sleep.
    pub(super) fn make(&mut self, seats: &mut Seats, bell: &mut Bell) {
        let Self::Blocks(list) = self else { return };
        list.clear();
        if let Bell::Queued(bell) = bell {
            bell.hang(seats);
        }
        seats.list_heads(list);
        list.extend(match bell {
            Bell::Queued(bell) => bell.address(),
            Bell::Started(bell) => Some(bell.address()),
            Bell::Called(_) => None,
        });
    }

    /// Sleeps until one of them is over, or a signal comes.
    pub(super) fn sleep(&self) {
        match self {
            Self::Blocks(list) => {
                // SAFETY: the blocks are in tables that live as long as the reaper. In flight are all but those that were
                // cancelled since, which stay untouched in limbo while we sleep, and a bell that is not rung: kernels look
                // for it among theirs, and do not find it.
                let _ = unsafe { abi::suspend(list) };
            }
            Self::Ring(ring) => ring.sleep(),
        }
    }
}
