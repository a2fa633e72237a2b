//! Which request is handed to the C library when, and through which descriptor.
//!
//! A descriptor with requests at the C library has a *seat*, of which there are few: glibc has 20 threads, and each serves
//! one descriptor at a time. A seat's requests end in the order in which they were sent (glibc serves a descriptor first
//! in, first out as long as priorities are equal, and here they are), so that only the first of each has to be watched.
//!
//! A seat has up to [`DEPTH`] requests: the one that is served, and others, so that glibc's thread finds the next one
//! without waiting for ours. Everything else waits with its file. A free seat goes to the file that has none and has
//! waited longest, and while any such file waits, the others' seats are not filled up again: they run empty and become
//! free, so that no file starves behind a busy one.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::abi::{Block, Cancelled, cancel};
use super::duplicates::Files;
use super::probe::Limits;
use super::submit::describe;
use crate::backend::CancelOutcome;
use crate::completion::{Errno, Outcome};
use crate::request::{Request, RequestId};

/// Descriptors with requests at the C library at the most: fewer than glibc's threads, of which the program may use some.
pub(super) const SEATS: usize = 16;
/// Requests of one descriptor at the C library at the most.
pub(super) const DEPTH: usize = 4;

/// A request at the C library.
struct Flight {
    request: Request,
    /// Index of its control block.
    block: usize,
}

/// A descriptor with requests at the C library.
struct Seat {
    /// The descriptor that the requests name.
    file: RawFd,
    /// The same, or a duplicate of it.
    line: RawFd,
    /// Oldest first. Empty: the seat is free.
    flights: VecDeque<Flight>,
}

/// What has to be done with requests outside of the lock.
#[derive(Default)]
pub(super) struct Leaving {
    /// Nobody waits for them, and they have not begun.
    pub(super) abandoned: Vec<Request>,
    /// The C library has no room though it has nothing of ours.
    pub(super) stranded: Vec<Request>,
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.abandoned.is_empty() && self.stranded.is_empty()
    }
}

/// The requests that the backend holds.
pub(super) struct Seats {
    pub(super) files: Files,
    seats: Vec<Seat>,
    blocks: Box<[Block]>,
    /// Blocks that are not in flight.
    free: Vec<usize>,
    /// Such as were taken back by others than the reaper, which may still look at them in its sleep.
    limbo: Vec<usize>,
    /// Files with requests that wait for room, longest waiting first; each once.
    backlog: VecDeque<RawFd>,
    /// Requests at the C library.
    flights: usize,
    /// These, and those that wait.
    held: usize,
    /// A seat was taken since it was last asked.
    taken: bool,
    /// A descriptor whose queue must not be added to.
    closed: Option<RawFd>,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        let seat = |_| Seat { file: -1, line: -1, flights: VecDeque::with_capacity(DEPTH) };
        Self {
            files: Files::new(limits.duplicates, limits.spread),
            seats: (0..limits.seats).map(seat).collect(),
            blocks: (0..limits.blocks).map(|_| Block::new()).collect(),
            free: (0..limits.blocks).rev().collect(),
            limbo: Vec::new(),
            backlog: VecDeque::new(),
            flights: 0,
            held: 0,
            taken: false,
            closed: None,
        }
    }

    /// Requests here, at the C library or waiting.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Requests at the C library.
    pub(super) fn flights(&self) -> usize {
        self.flights
    }

    /// Whether a seat was taken since the last call.
    pub(super) fn seat_was_taken(&mut self) -> bool {
        std::mem::take(&mut self.taken)
    }

    /// Adds the first request of each seat to a list.
    pub(super) fn list_heads(&self, list: &mut Vec<*const libc::aiocb>) {
        let heads = self.seats.iter().filter_map(|seat| seat.flights.front());
        list.extend(heads.map(|flight| self.blocks[flight.block].address()));
    }

    /// The descriptor with most requests, and lets nothing be added to its queue until [`reopen`](Self::reopen).
    pub(super) fn close_longest(&mut self) -> Option<RawFd> {
        let longest = (0..self.seats.len()).max_by_key(|seat| self.seats[*seat].flights.len())?;
        if self.seats[longest].flights.is_empty() {
            return None;
        }
        self.closed = Some(self.seats[longest].line);
        self.closed
    }

    /// Whether the closed seat has run empty, so that others may sit there, or requests wait that might be added.
    pub(super) fn wants_closed(&self) -> bool {
        let in_use = |line| self.seats.iter().any(|seat| seat.line == line);
        self.closed.is_some_and(|line| !in_use(line) || !self.backlog.is_empty())
    }

    /// Ends what [`close_longest`](Self::close_longest) began.
    pub(super) fn reopen(&mut self) {
        self.closed = None;
    }

    /// Takes a request in. It is sent by the next [`fill`](Self::fill).
    pub(super) fn admit(&mut self, fd: RawFd, request: Request) {
        let waiting = &mut self.files.of(fd).waiting;
        waiting.push_back(request);
        if waiting.len() == 1 {
            self.backlog.push_back(fd);
        }
        self.held += 1;
    }

    /// Sends as many of the requests that wait as there is room for.
    pub(super) fn fill(&mut self, leaving: &mut Leaving) {
        while let Some((place, seat)) = self.next() {
            let Some(fd) = self.backlog.remove(place) else { return };
            let file = self.files.of(fd);
            let Some(request) = file.waiting.pop_front() else { continue };
            if !file.waiting.is_empty() {
                // Behind the others: they take turns.
                self.backlog.push_back(fd);
            }
            if request.is_abandoned() {
                self.held -= 1;
                leaving.abandoned.push(request);
                self.free_if_empty(seat);
                continue;
            }
            if let Err(request) = self.send(seat, request) {
                self.put_back(fd, request);
                self.free_if_empty(seat);
                if self.flights == 0 {
                    self.strand(leaving);
                }
                // A completion makes room.
                return;
            }
        }
    }

    /// Whose turn it is (a place in the backlog), and the seat for it.
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.free.is_empty() {
            return None;
        }
        let hungry = self.backlog.iter().position(|fd| self.files.seated(*fd) == 0);
        if let Some(place) = hungry {
            return Some((place, self.sit(self.backlog[place])?));
        }
        // Each of these has a seat, so that they are few.
        (0..self.backlog.len()).find_map(|place| Some((place, self.room(self.backlog[place])?)))
    }

    /// A seat for a file that has one already: a free one, or the one with the shortest queue.
    fn room(&mut self, fd: RawFd) -> Option<usize> {
        if let Some(seat) = self.sit(fd) {
            return Some(seat);
        }
        let open =
            |seat: &usize| Some(self.seats[*seat].line) != self.closed && self.seats[*seat].flights.len() < DEPTH;
        let own = |seat: &usize| self.seats[*seat].file == fd && !self.seats[*seat].flights.is_empty();
        (0..self.seats.len()).filter(own).filter(open).min_by_key(|seat| self.seats[*seat].flights.len())
    }

    /// Gives a free seat to one more descriptor of the file.
    fn sit(&mut self, fd: RawFd) -> Option<usize> {
        let free = self.seats.iter().position(|seat| seat.file < 0)?;
        let line = self.files.seat(fd)?;
        debug_assert_ne!(Some(line), self.closed, "the bell hangs there: what is queued behind it may be lost");
        let seat = &mut self.seats[free];
        (seat.file, seat.line) = (fd, line);
        Some(free)
    }

    fn free_if_empty(&mut self, seat: usize) {
        let place = &mut self.seats[seat];
        if place.flights.is_empty() && place.file >= 0 {
            self.files.unseat(place.file, place.line);
            (place.file, place.line) = (-1, -1);
        }
    }

    /// Hands a request to the C library, or gives it back where there is no room.
    fn send(&mut self, seat: usize, mut request: Request) -> Result<(), Request> {
        let Ok(mut operation) = describe(&request) else { return Err(request) };
        let Some(block) = self.free.pop() else { return Err(request) };
        // SAFETY: the memory goes to the C library only, for what the kind says, until the outcome is collected.
        if let [range] = unsafe { request.start() } {
            (operation.memory, operation.length) = (range.base, range.len);
        }
        operation.fd = self.seats[seat].line;
        // SAFETY: the block is not in flight, and stays where it is: the table is freed with `self`, when nothing is in flight.
        // The engine keeps descriptor and memory until the request is complete, and the duplicate lives longer than that.
        if let Err(_no_room) = unsafe { self.blocks[block].send(&operation) } {
            // SAFETY: the C library has refused it, and holds no pointers of it.
            unsafe { request.retract() };
            self.free.push(block);
            return Err(request);
        }
        let flights = &mut self.seats[seat].flights;
        self.taken |= flights.is_empty();
        flights.push_back(Flight { request, block });
        self.flights += 1;
        Ok(())
    }

    /// Puts a request back that was the first to wait.
    fn put_back(&mut self, fd: RawFd, request: Request) {
        let waiting = &mut self.files.of(fd).waiting;
        waiting.push_front(request);
        if waiting.len() == 1 {
            self.backlog.push_front(fd);
        }
    }

    /// Gives up everything that waits.
    fn strand(&mut self, leaving: &mut Leaving) {
        while let Some(fd) = self.backlog.pop_front() {
            let waiting = &mut self.files.of(fd).waiting;
            self.held -= waiting.len();
            leaving.stranded.extend(waiting.drain(..));
        }
    }

    /// Takes what is over. Only for the reaper, while it is awake.
    pub(super) fn harvest(&mut self, done: &mut Vec<(Request, Outcome)>) {
        self.free.append(&mut self.limbo);
        for seat in 0..self.seats.len() {
            while let Some(first) = self.seats[seat].flights.front() {
                // SAFETY: the block is in flight; whoever collects holds `self` exclusively.
                let Some(outcome) = (unsafe { self.blocks[first.block].collect() }) else { break };
                if let Some(flight) = self.seats[seat].flights.pop_front() {
                    self.free.push(flight.block);
                    self.land(flight, outcome, done);
                }
            }
            self.free_if_empty(seat);
        }
    }

    fn land(&mut self, flight: Flight, outcome: Outcome, done: &mut Vec<(Request, Outcome)>) {
        self.flights -= 1;
        self.held -= 1;
        done.push((flight.request, outcome));
    }

    /// Ends a request that has not begun: it is in `done` then.
    pub(super) fn cancel(&mut self, id: RequestId, done: &mut Vec<(Request, Outcome)>) -> CancelOutcome {
        for place in 0..self.backlog.len() {
            let fd = self.backlog[place];
            let waiting = &mut self.files.of(fd).waiting;
            let Some(at) = waiting.iter().position(|request| request.id() == id) else { continue };
            let Some(request) = waiting.remove(at) else { continue };
            if waiting.is_empty() {
                self.backlog.remove(place);
            }
            self.held -= 1;
            done.push((request, Err(Errno(libc::ECANCELED))));
            return CancelOutcome::Cancelled;
        }
        let is_its = |seat: &usize| self.seats[*seat].flights.iter().any(|flight| flight.request.id() == id);
        match (0..self.seats.len()).find(is_its) {
            Some(seat) => self.cancel_flight(seat, id, done),
            None => CancelOutcome::Unknown,
        }
    }

    /// Takes everything back from a seat that has not begun, and sends again what was not meant.
    ///
    /// glibc loses what is queued behind a request that is cancelled while it waits for a thread as the first of its
    /// descriptor (`__aio_remove_request` marks the next one as runnable and puts it on no list). Cancelling all of a
    /// descriptor leaves nothing behind that could be lost.
    fn cancel_flight(&mut self, seat: usize, id: RequestId, done: &mut Vec<(Request, Outcome)>) -> CancelOutcome {
        // SAFETY: no block is named.
        if let Ok(Cancelled::Ended) | Err(_) = unsafe { cancel(self.seats[seat].line, None) } {
            // All of it was over; the reaper is about to collect it.
            return CancelOutcome::Done;
        }
        let mut outcome = CancelOutcome::Running;
        for _ in 0..self.seats[seat].flights.len() {
            let Some(flight) = self.seats[seat].flights.pop_front() else { break };
            let asked = flight.request.id() == id;
            // SAFETY: the block is in flight, and we have `self` exclusively.
            match unsafe { self.blocks[flight.block].collect() } {
                None => self.seats[seat].flights.push_back(flight),
                Some(Err(Errno(libc::ECANCELED))) if asked => {
                    outcome = CancelOutcome::Cancelled;
                    self.limbo.push(flight.block);
                    self.land(flight, Err(Errno(libc::ECANCELED)), done);
                }
                Some(Err(Errno(libc::ECANCELED))) => self.send_again(seat, flight),
                Some(other) => {
                    if asked {
                        outcome = CancelOutcome::Done;
                    }
                    self.limbo.push(flight.block);
                    self.land(flight, other, done);
                }
            }
        }
        self.free_if_empty(seat);
        outcome
    }

    /// Sends a request that was taken back; where there is no room for it any more it waits as the first of its file.
    fn send_again(&mut self, seat: usize, mut flight: Flight) {
        self.limbo.push(flight.block);
        self.flights -= 1;
        // SAFETY: the C library has given it back unbegun.
        unsafe { flight.request.retract() };
        if let Err(request) = self.send(seat, flight.request) {
            let fd = self.seats[seat].file;
            self.put_back(fd, request);
        }
        // The first of the seat may be another one now.
        self.taken = true;
    }

    /// The address of every block, for tests.
    #[cfg(all(test, not(polyaio_loom)))]
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}
