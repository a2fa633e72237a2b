//! Handing requests to the C library: what goes out together goes in one call of `lio_listio`.
//!
//! Against a call of `aio_read` for each, it takes glibc's lock once, so that the threads that the first requests wake do
//! not come in between the others. Its answer is not enough: where it is an error, some requests are on their way and
//! others are not, and each control block has to be asked. A single request goes by itself: a list costs an allocation.
//! Syncs always do: `lio_listio` knows none.

#![allow(unsafe_code)]

use super::super::abi::{Call, start_list};
use super::{Flight, Seats, describe};
use crate::completion::Errno;
use crate::request::Request;

/// A request in a seat's queue that the C library has not been given.
pub(super) struct Staged {
    seat: usize,
    block: usize,
    call: Call,
}

impl Seats {
    /// Puts a request at the end of a seat's queue, for the next [`launch`](Self::launch). Gives it back where there is no
    /// control block for it.
    pub(super) fn stage(&mut self, seat: usize, mut request: Request, attended: bool) -> Result<(), Request> {
        let Ok(mut operation) = describe(&request) else { return Err(request) };
        let Some(block) = self.free.pop() else { return Err(request) };
        // SAFETY: the memory goes to the C library only, for what the kind says, until the outcome is collected.
        if let [range] = unsafe { request.start() } {
            (operation.memory, operation.length) = (range.base, range.len);
        }
        operation.fd = self.seats[seat].line;
        // SAFETY: a free block is not in flight, and nobody sleeps on it.
        unsafe { self.blocks[block].prepare(&operation) };
        let flights = &mut self.seats[seat].flights;
        if !attended {
            self.taken |= flights.iter().all(|flight| flight.attended);
            self.unattended += 1;
        }
        flights.push_back(Flight { request, block, attended });
        self.flights += 1;
        self.staged.push(Staged { seat, block, call: operation.call });
        Ok(())
    }

    /// Sends what was staged. `false`: the C library has not taken all of it; the rest waits again, in its order.
    pub(super) fn launch(&mut self) -> bool {
        let mut staged = std::mem::take(&mut self.staged);
        let (mut sent, mut all) = (0, true);
        while sent < staged.len() {
            let list = staged[sent..].iter().take(self.list_max).take_while(|staged| staged.call.is_transfer());
            let count = list.count().max(1);
            let answer = self.launch_together(&staged[sent..sent + count]);
            if let Err(errno) = answer
                && self.is_final(errno)
            {
                self.refuse(&staged[sent], errno);
            } else if answer.is_err() {
                // Of these some may have been taken; of those behind them none was tried. From the last one on, so that each
                // is put before those that were staged after it.
                staged[sent..].iter().rev().for_each(|staged| self.unstage(staged));
                all = false;
                break;
            }
            sent += count;
        }
        staged.clear();
        self.staged = staged;
        all
    }

    /// Sends some in one call.
    fn launch_together(&self, list: &[Staged]) -> Result<(), Errno> {
        match list {
            // SAFETY: the block is prepared, and stays where it is: the table is freed with `self`, when nothing is in flight.
            // The engine keeps descriptor and memory until the request is complete, and the duplicate lives longer than that.
            [one] => unsafe { self.blocks[one.block].start(one.call) },
            // SAFETY: as above, for each of them.
            many => unsafe { start_list(many.iter().map(|staged| &self.blocks[staged.block])) },
        }
    }

    /// Whether the error is the request's own. Of a list it may be anyone's.
    fn is_final(&self, errno: Errno) -> bool {
        self.library.list == 1 && ![libc::EAGAIN, libc::ENOMEM].contains(&errno.0)
    }

    /// Takes a request back, unless it is on its way.
    fn unstage(&mut self, staged: &Staged) {
        // SAFETY: prepared, and not collected since.
        if self.library.list > 1 && unsafe { self.blocks[staged.block].was_taken() } {
            return;
        }
        if let Some(request) = self.take_back(staged) {
            self.put_back(self.seats[staged.seat].file, request);
            self.free_if_empty(staged.seat);
        }
    }

    /// Takes a request out that cannot be served here.
    fn refuse(&mut self, staged: &Staged, errno: Errno) {
        if let Some(request) = self.take_back(staged) {
            self.held -= 1;
            self.refused.push((request, errno));
            self.free_if_empty(staged.seat);
        }
    }

    fn take_back(&mut self, staged: &Staged) -> Option<Request> {
        let flights = &mut self.seats[staged.seat].flights;
        let place = flights.iter().position(|flight| flight.block == staged.block)?;
        let flight = flights.remove(place)?;
        let mut request = self.depart(flight);
        // SAFETY: the C library has not taken it, and holds no pointers of it.
        unsafe { request.retract() };
        Some(request)
    }
}
