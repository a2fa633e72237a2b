//! Which request is handed to the C library when, and through which descriptor.
//!
//! A descriptor with requests at the C library has a *seat*, of which there are few: glibc has 20 threads, and each serves
//! one descriptor at a time. A seat's requests end in the order in which they were sent (glibc serves a descriptor first
//! in, first out as long as priorities are equal, and here they are), so that only the first of each has to be watched. With
//! libraries that keep no order a seat has one request, and a descriptor any number of seats (`library.rs`).
//!
//! With glibc a seat has a few requests: the one that is served, and others, so that glibc's thread finds the next one
//! without waiting for ours. Everything else waits with its file. A free seat goes to the file that has none and has
//! waited longest, and while any such file waits, the others' seats are not filled up again: they run empty and become
//! free, so that no file starves behind a busy one.

#![allow(unsafe_code)]

mod send;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::abi::{Block, Cancelled, cancel, suspend};
use super::duplicates::Files;
use super::library::{Cancelling, Library};
use super::probe::Limits;
use super::submit::describe;
use super::suspend::called::Ring;
use crate::backend::CancelOutcome;
use crate::completion::{Answer, Errno, Outcome};
use crate::request::{Request, RequestId};
use send::Staged;

/// A request at the C library.
struct Flight {
    request: Request,
    /// Index of its control block.
    block: usize,
    /// A thread waits for it in [`wait_for`](super::reap::wait_for): the reaper need not be woken for it.
    attended: bool,
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
    /// The C library has refused them, for a reason of their own.
    pub(super) refused: Vec<(Request, Errno)>,
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.abandoned.is_empty() && self.stranded.is_empty() && self.refused.is_empty()
    }
}

/// The requests that the backend holds.
pub(super) struct Seats {
    library: &'static Library,
    pub(super) files: Files,
    seats: Vec<Seat>,
    blocks: Box<[Block]>,
    /// Blocks that are not in flight.
    free: Vec<usize>,
    /// What is at the end of the seats' queues and not sent, in order.
    staged: Vec<Staged>,
    /// What was sent and not taken, for a reason of its own.
    refused: Vec<(Request, Errno)>,
    /// Requests of one list at the most.
    list_max: usize,
    /// Such as are not in flight, but may be looked at by the reaper in its sleep.
    limbo: Vec<usize>,
    /// The reaper sleeps, or has not looked at the seats since.
    listed: bool,
    /// Blocks that other threads sleep on, one entry for each thread.
    watched: Vec<usize>,
    /// Such of them as are no longer in flight.
    orphans: Vec<usize>,
    /// Files with requests that wait for room, longest waiting first; each once.
    backlog: VecDeque<RawFd>,
    /// Requests at the C library.
    flights: usize,
    /// Those of them that no thread waits for by itself.
    unattended: usize,
    /// All requests at the C library, and those that wait.
    held: usize,
    /// A seat was given something for the reaper to end, and had nothing, since that was last asked.
    taken: bool,
    /// A descriptor whose queue must not be added to.
    closed: Option<RawFd>,
}

impl Seats {
    /// `ring`: what the library's calls ring, where it makes such.
    pub(super) fn new(limits: Limits, ring: Option<&Arc<Ring>>) -> Self {
        let seat = |_| Seat { file: -1, line: -1, flights: VecDeque::with_capacity(limits.library.depth) };
        Self {
            library: limits.library,
            files: Files::new(limits.duplicates, limits.spread),
            seats: (0..limits.seats).map(seat).collect(),
            blocks: (0..limits.blocks).map(|_| ring.cloned().map_or_else(Block::new, Block::calling)).collect(),
            free: (0..limits.blocks).rev().collect(),
            staged: Vec::with_capacity(limits.blocks),
            refused: Vec::new(),
            list_max: limits.list,
            limbo: Vec::new(),
            listed: false,
            watched: Vec::new(),
            orphans: Vec::new(),
            backlog: VecDeque::new(),
            flights: 0,
            unattended: 0,
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

    /// Those of them that the reaper has to end.
    pub(super) fn unattended(&self) -> usize {
        self.unattended
    }

    /// Whether there is a seat that the reaper does not know of, since the last call.
    pub(super) fn seat_was_taken(&mut self) -> bool {
        std::mem::take(&mut self.taken)
    }

    /// Adds the first request of each seat to a list, to sleep on until the next [`harvest`](Self::harvest).
    pub(super) fn list_heads(&mut self, list: &mut Vec<*const libc::aiocb>) {
        self.listed = true;
        list.extend(self.heads());
    }

    /// The first request of each seat.
    pub(super) fn heads(&self) -> impl Iterator<Item = *const libc::aiocb> {
        let first = self.seats.iter().filter_map(|seat| seat.flights.front());
        first.map(|flight| self.blocks[flight.block].address())
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

    /// Sends as many of the requests that wait as there is room for. `attended`: one for which its thread is going to wait
    /// by itself.
    pub(super) fn fill(&mut self, leaving: &mut Leaving, attended: Option<RequestId>) {
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
            let attended = Some(request.id()) == attended;
            if let Err(request) = self.stage(seat, request, attended) {
                self.put_back(fd, request);
                self.free_if_empty(seat);
                break;
            }
        }
        // Where there was no room for all, a completion makes some.
        if !self.launch() && self.flights == 0 {
            self.strand(leaving);
        }
        leaving.refused.append(&mut self.refused);
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
        let open = |seat: &usize| {
            Some(self.seats[*seat].line) != self.closed && self.seats[*seat].flights.len() < self.library.depth
        };
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
    pub(super) fn harvest(&mut self, done: &mut Vec<(Request, Answer)>) {
        self.listed = false;
        self.free.append(&mut self.limbo);
        for seat in 0..self.seats.len() {
            while let Some((request, outcome)) = self.take_first(seat) {
                done.push((request, outcome.into()));
            }
        }
    }

    /// The same for a thread that waits for one request: takes that, and what was before it in its queue.
    pub(super) fn harvest_one(
        &mut self,
        id: RequestId,
        done: &mut Vec<(Request, Answer)>,
    ) -> Option<(Request, Outcome)> {
        let (seat, _) = self.place(id)?;
        while let Some((request, outcome)) = self.take_first(seat) {
            if request.id() == id {
                return Some((request, outcome));
            }
            done.push((request, outcome.into()));
        }
        None
    }

    /// The first request of a seat, if it is over.
    fn take_first(&mut self, seat: usize) -> Option<(Request, Outcome)> {
        let first = self.seats[seat].flights.front()?;
        // SAFETY: the block is in flight; whoever collects holds `self` exclusively.
        let outcome = unsafe { self.blocks[first.block].collect() }?;
        let flight = self.seats[seat].flights.pop_front()?;
        let request = self.land(flight);
        self.free_if_empty(seat);
        Some((request, outcome))
    }

    /// Counts a request out that has been collected, and lets its block be used again.
    fn land(&mut self, flight: Flight) -> Request {
        self.held -= 1;
        self.depart(flight)
    }

    fn depart(&mut self, flight: Flight) -> Request {
        self.flights -= 1;
        self.unattended -= usize::from(!flight.attended);
        if self.watched.contains(&flight.block) {
            self.orphans.push(flight.block);
        } else {
            self.put_aside(flight.block);
        }
        flight.request
    }

    /// Lets a block that no other thread sleeps on be used again, once the reaper cannot look at it any more.
    fn put_aside(&mut self, block: usize) {
        let unused = if self.listed { &mut self.limbo } else { &mut self.free };
        unused.push(block);
    }

    /// Where a request at the C library is: seat, and place in its queue.
    fn place(&self, id: RequestId) -> Option<(usize, usize)> {
        let at = |seat: usize| Some((seat, self.seats[seat].flights.iter().position(|f| f.request.id() == id)?));
        (0..self.seats.len()).find_map(at)
    }

    /// The block of a request that is attended, for a thread to sleep on, until it is [unwatched](Self::unwatch). `None`:
    /// it is over, or others end it.
    pub(super) fn watch(&mut self, id: RequestId) -> Option<usize> {
        let (seat, place) = self.place(id)?;
        let flight = &self.seats[seat].flights[place];
        let block = flight.attended.then_some(flight.block)?;
        self.watched.push(block);
        Some(block)
    }

    /// The address of a block.
    pub(super) fn address(&self, block: usize) -> *const libc::aiocb {
        self.blocks[block].address()
    }

    /// A thread does not sleep on the block any more.
    pub(super) fn unwatch(&mut self, block: usize) {
        if let Some(place) = self.watched.iter().position(|watched| *watched == block) {
            self.watched.swap_remove(place);
        }
        if let Some(place) = self.orphans.iter().position(|orphan| *orphan == block)
            && !self.watched.contains(&block)
        {
            self.orphans.swap_remove(place);
            self.put_aside(block);
        }
    }

    /// Ends a request that has not begun: it is in `done` then.
    pub(super) fn cancel(&mut self, id: RequestId, done: &mut Vec<(Request, Answer)>) -> CancelOutcome {
        for place in 0..self.backlog.len() {
            let fd = self.backlog[place];
            let waiting = &mut self.files.of(fd).waiting;
            let Some(at) = waiting.iter().position(|request| request.id() == id) else { continue };
            let Some(request) = waiting.remove(at) else { continue };
            if waiting.is_empty() {
                self.backlog.remove(place);
            }
            self.held -= 1;
            done.push((request, Err(Errno(libc::ECANCELED)).into()));
            return CancelOutcome::Cancelled;
        }
        match self.place(id) {
            Some((seat, place)) => match self.library.cancelling {
                Cancelling::Queue => self.cancel_queue(seat, id, done),
                Cancelling::One => self.cancel_one(seat, place, done),
                Cancelling::Never => CancelOutcome::Running,
            },
            None => CancelOutcome::Unknown,
        }
    }

    /// Takes one request back that has not begun.
    fn cancel_one(&mut self, seat: usize, place: usize, done: &mut Vec<(Request, Answer)>) -> CancelOutcome {
        let block = self.seats[seat].flights[place].block;
        // SAFETY: the block is in flight.
        let answer = unsafe { cancel(self.seats[seat].line, Some(&self.blocks[block])) };
        let outcome = loop {
            // SAFETY: the block is in flight, and we have `self` exclusively.
            match unsafe { self.blocks[block].collect() } {
                Some(outcome) => break outcome,
                // It is over but for being said so, if it is not by now.
                // SAFETY: in flight, and in its table.
                None if answer == Ok(Cancelled::All) => _ = unsafe { suspend(&[self.blocks[block].address()]) },
                None => return CancelOutcome::Running,
            }
        };
        if let Some(flight) = self.seats[seat].flights.remove(place) {
            done.push((self.land(flight), outcome.into()));
        }
        self.free_if_empty(seat);
        if outcome == Err(Errno(libc::ECANCELED)) { CancelOutcome::Cancelled } else { CancelOutcome::Done }
    }

    /// Takes everything back from a seat that has not begun, and sends again what was not meant.
    ///
    /// glibc loses what is queued behind a request that is cancelled while it waits for a thread as the first of its
    /// descriptor (`__aio_remove_request` marks the next one as runnable and puts it on no list). Cancelling all of a
    /// descriptor leaves nothing behind that could be lost.
    fn cancel_queue(&mut self, seat: usize, id: RequestId, done: &mut Vec<(Request, Answer)>) -> CancelOutcome {
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
                    done.push((self.land(flight), Err(Errno(libc::ECANCELED)).into()));
                }
                Some(Err(Errno(libc::ECANCELED))) => self.send_again(seat, flight),
                Some(other) => {
                    if asked {
                        outcome = CancelOutcome::Done;
                    }
                    done.push((self.land(flight), other.into()));
                }
            }
        }
        self.free_if_empty(seat);
        outcome
    }

    /// Sends a request that was taken back; where there is no room for it any more it waits as the first of its file.
    fn send_again(&mut self, seat: usize, flight: Flight) {
        let attended = flight.attended;
        let mut request = self.depart(flight);
        // SAFETY: the C library has given it back unbegun.
        unsafe { request.retract() };
        if let Err(request) = self.stage(seat, request, attended) {
            let fd = self.seats[seat].file;
            self.put_back(fd, request);
        }
        self.launch();
        // The first of the seat may be another one now.
        self.taken = true;
    }

    /// Whether a thread sleeps on one of its own.
    #[cfg(all(test, not(polyaio_loom)))]
    pub(super) fn is_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    /// The address of every block, for tests.
    #[cfg(all(test, not(polyaio_loom)))]
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}
