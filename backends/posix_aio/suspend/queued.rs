//! The bell where a descriptor's requests run in order: a request that never runs.
//!
//! It is a read of no bytes at an offset that no file has, which the kernel refuses before it looks at the descriptor. It is
//! queued as the last of the longest queue, so that it occupies none of the C library's threads, and needs no descriptor of
//! its own. Cancelling it ends the sleep at once, from within the call: that is how it is rung. If it gets its turn before,
//! the seat has run empty, which ends the sleep too.
//!
//! Nothing is ever queued behind the bell, because glibc may lose what is queued behind a request that is cancelled (see
//! `Seats::cancel_queue`). That is why the bell's seat is closed while the reaper sleeps.

#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::ptr;

use super::super::abi::{self, Block, Call, Operation};
use super::super::seats::Seats;

/// The bell: see the module's documentation.
pub(in super::super) struct Queued {
    /// Two, because the last one may be in the hands of a thread for a moment more when the next one is hung.
    blocks: Box<[Block; 2]>,
    /// The one to ring, and the descriptor in whose queue it is.
    hanging: Option<(usize, RawFd)>,
    /// The other one, where it is not over yet: it is running.
    falling: Option<usize>,
}

impl Queued {
    pub(super) fn new() -> Self {
        Self { blocks: Box::new([Block::new(), Block::new()]), hanging: None, falling: None }
    }

    /// Ends the reaper's sleep.
    pub(super) fn ring(&self) {
        if let Some((bell, line)) = self.hanging {
            // Whatever the answer, the bell is over or about to be.
            // SAFETY: it is in flight as long as it hangs.
            let _ = unsafe { abi::cancel(line, Some(&self.blocks[bell])) };
        }
    }

    /// Sees whether it was rung, or has had its turn.
    pub(super) fn settle(&mut self, seats: &mut Seats) {
        if let Some((bell, _)) = self.hanging
            && self.is_over(bell)
        {
            self.hanging = None;
            seats.reopen();
        }
    }

    /// Takes it down, so that its seat is as the others.
    pub(super) fn release(&mut self, seats: &mut Seats) {
        self.ring();
        if let Some((bell, _)) = self.hanging.take() {
            seats.reopen();
            if !self.is_over(bell) {
                // It could not be cancelled, as it runs: nothing that is queued behind it now can be lost any more.
                self.wait_until_fallen();
                self.falling = Some(bell);
            }
        }
    }

    /// As [`release`](Self::release), and sees to it that none is in flight.
    pub(super) fn take_down(&mut self, seats: &mut Seats) {
        self.release(seats);
        self.wait_until_fallen();
    }

    /// Whether it is in the queue of one of these descriptors, or may be.
    pub(super) fn hangs_at(&self, is_one: impl Fn(RawFd) -> bool) -> bool {
        self.falling.is_some() || self.hanging.is_some_and(|(_, line)| is_one(line))
    }

    /// Queues it behind what the longest queue has, if it does not hang already. Where the C library has no room for it, new
    /// requests are noticed with the next completion only.
    pub(super) fn hang(&mut self, seats: &mut Seats) {
        if self.hanging.is_some() {
            return;
        }
        let Some(line) = seats.close_longest() else { return };
        if self.falling.is_some_and(|bell| self.is_over(bell)) {
            self.falling = None;
        }
        let bell = self.falling.map_or(0, |falling| 1 - falling);
        let nothing = Operation { call: Call::Read, fd: line, offset: -1, memory: ptr::null_mut(), length: 0 };
        // SAFETY: this one is not in flight. The blocks stay in their box until both are over. No bytes are asked for.
        match unsafe { self.blocks[bell].send(&nothing) } {
            Ok(()) => self.hanging = Some((bell, line)),
            Err(_no_room) => seats.reopen(),
        }
    }

    /// Collects one that is in flight, if it is over.
    fn is_over(&self, bell: usize) -> bool {
        // SAFETY: it is in flight, and callers note that it no longer is; they hold the lock that `self` is under.
        unsafe { self.blocks[bell].collect() }.is_some()
    }

    /// What to sleep on, where it hangs.
    pub(super) fn address(&self) -> Option<*const libc::aiocb> {
        self.hanging.map(|(bell, _)| self.blocks[bell].address())
    }

    fn wait_until_fallen(&mut self) {
        while let Some(bell) = self.falling {
            if self.is_over(bell) {
                self.falling = None;
            } else {
                // A thread of the C library has just begun with it, which takes a microsecond.
                // SAFETY: in flight; it stays in its box.
                let _ = unsafe { abi::suspend(&[self.blocks[bell].address()]) };
            }
        }
    }
}
