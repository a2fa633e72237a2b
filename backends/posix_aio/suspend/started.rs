//! The bell where requests run in any order: a request that is not started until it is rung.
//!
//! A request that waits for something would do, but these kernels have few threads for all processes, and such a request
//! would occupy one. So the reaper's list names a control block that the kernel does not know. It looks through the list
//! again whenever a request ends, whoever's it is: so that starting one with that block ends the sleep as soon as it is over. It
//! reads no bytes of a directory; whether that is an error there is all the same.
//!
//! Where the kernel has no room for it, what is new is noticed with the next end of a request that was there before.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;

use super::super::abi::{self, Block, Call, Operation};
use crate::completion::Errno;

/// A directory that is there wherever programs run, and on no server.
const PLACE: &str = "/dev";

/// The bell: see the module's documentation.
pub(in super::super) struct Started {
    /// Stays in its place, which is in the reaper's list.
    block: Box<Block>,
    directory: File,
    /// It is in flight.
    rung: bool,
}

impl Started {
    /// # Errors
    /// `EMFILE` and what else open(2) has.
    pub(super) fn new() -> Result<Self, Errno> {
        let directory = File::open(PLACE).map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Self { block: Box::new(Block::new()), directory, rung: false })
    }

    /// Ends the reaper's sleep. `false`: there is no room for it.
    pub(super) fn ring(&mut self) -> bool {
        let fd = self.directory.as_raw_fd();
        let nothing = Operation { call: Call::Read, fd, offset: 0, memory: ptr::dangling_mut(), length: 0 };
        // SAFETY: not in flight if it is not rung; the block stays in its box until it is over. No bytes are asked for.
        self.rung = self.rung || unsafe { self.block.send(&nothing) }.is_ok();
        self.rung
    }

    /// Sees whether it has ended.
    pub(super) fn settle(&mut self) {
        // SAFETY: in flight; who calls has `self` for itself.
        if self.rung && unsafe { self.block.collect() }.is_some() {
            self.rung = false;
        }
    }

    /// Sees to it that it is not in flight.
    pub(super) fn take_down(&mut self) {
        self.settle();
        while self.rung {
            // SAFETY: in flight; it stays in its box.
            let _ = unsafe { abi::suspend(&[self.block.address()]) };
            self.settle();
        }
    }

    /// What to sleep on.
    pub(super) fn address(&self) -> *const libc::aiocb {
        #[cfg(all(test, target_env = "musl"))]
        if !self.rung {
            // SAFETY: not in flight.
            unsafe { self.block.seem_in_flight() };
        }
        self.block.address()
    }
}
