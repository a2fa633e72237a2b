//! Streams: pipes, sockets, terminals and the like, which make their reader wait for somebody else.
//!
//! Nobody sleeps in a stream's system call, and no thread belongs to one. An operation waits for its turn in the queue of
//! its direction, then for readiness, and transfers in the poll that returns the result: a read that is dropped has taken
//! nothing. The descriptor's flags are left alone, because they are shared with other processes: sockets are asked with
//! `MSG_DONTWAIT`, others with `RWF_NOWAIT`. What refuses both (FIFOs, terminals) is transferred by one ordinary call on a
//! worker, once it is ready: a [step], in memory of the stream's own, so that a dropped read loses nothing.

#![allow(unsafe_code)]

mod step;

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::task::Waker;

use self::step::Step;
pub(crate) use self::step::{Left, StepMemory};
use crate::completion::{Errno, Outcome};
use crate::driver::{Driver, FAILED, READABLE, WRITABLE};
use crate::inline::Transfer;
use crate::os::{self, RawFd};
use crate::request::{OpKind, wake};
use crate::router::facts::{self, Facts, FileKind};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// The two queues of one descriptor.
pub(crate) struct Stream {
    fd: RawFd,
    socket: bool,
    /// Neither pipe nor socket: what poll(2) says of it is what some driver makes of it.
    driver: bool,
    /// Writes never wait, and poll(2) does not say so.
    always_writable: bool,
    /// What [`register`](Self::register) found out.
    registration: OnceLock<Option<u64>>,
    /// `RWF_NOWAIT` is not known in this direction. An eventfd knows it for reads only.
    refuses_nowait: [AtomicBool; 2],
    sides: [Mutex<Side>; 2],
    /// Events that the driver is to report.
    armed: Mutex<i32>,
    deregistered: AtomicBool,
    /// Who needs the descriptor: the file until it is closed, and each step that runs.
    holds: AtomicUsize,
}

#[derive(Default)]
struct Side {
    queue: VecDeque<(Place, Option<Waker>)>,
    next: Place,
    step: Step,
    /// Memory for the next step.
    spare: Vec<u8>,
}

/// A place in the queue of one direction.
pub(crate) type Place = u64;

/// Where an operation stands in its queue.
pub(crate) enum Turn {
    /// Others are before it, or a step is under way. The waker is woken when that has changed.
    Waits,
    /// It may try.
    Mine,
    /// It is first, and a step has left something for it.
    Takes(Left),
}

/// What became of a transfer.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is over.
    Done(Outcome),
    /// Not ready.
    WouldBlock,
    /// It cannot be tried without the danger of blocking: wait for readiness, then let a worker do it.
    Refused,
}

fn side_of(kind: OpKind) -> (usize, i32) {
    if kind == OpKind::Read { (0, READABLE) } else { (1, WRITABLE) }
}

impl Stream {
    pub(crate) fn new(fd: RawFd, facts: &Facts) -> Self {
        Self {
            fd,
            socket: facts.kind == FileKind::Socket,
            driver: matches!(facts.kind, FileKind::Anonymous | FileKind::CharDevice | FileKind::Regular),
            always_writable: facts.writable && facts::never_waits_to_write(fd, facts.kind),
            registration: OnceLock::new(),
            refuses_nowait: [AtomicBool::new(false), AtomicBool::new(false)],
            sides: Default::default(),
            armed: Mutex::new(0),
            deregistered: AtomicBool::new(false),
            holds: AtomicUsize::new(1),
        }
    }

    /// Takes a place at the end of the queue.
    pub(crate) fn enter(&self, kind: OpKind) -> Place {
        let mut side = lock(&self.sides[side_of(kind).0]);
        side.next += 1;
        let place = side.next;
        side.queue.push_back((place, None));
        place
    }

    /// Whether it is this one's turn; if not, `waker` is woken when it is.
    pub(crate) fn turn(&self, kind: OpKind, place: Place, waker: &Waker) -> Turn {
        let turn = self.look(kind, place);
        if !matches!(turn, Turn::Waits) {
            return turn;
        }
        self.remember(kind, place, waker);
        // The turn may have come before the waker was there.
        self.look(kind, place)
    }

    fn look(&self, kind: OpKind, place: Place) -> Turn {
        let mut side = lock(&self.sides[side_of(kind).0]);
        if side.queue.front().is_none_or(|first| first.0 != place) {
            return Turn::Waits;
        }
        match std::mem::take(&mut side.step) {
            Step::Idle => Turn::Mine,
            Step::Over(left) if left.is_for(kind, place) => Turn::Takes(left),
            // Of an operation that was dropped: nobody's.
            Step::Over(left) => {
                side.spare = left.into_memory();
                Turn::Mine
            }
            running @ Step::Running(_) => {
                side.step = running;
                Turn::Waits
            }
        }
    }

    fn remember(&self, kind: OpKind, place: Place, waker: &Waker) {
        let mut waker = Some(waker.clone());
        {
            let mut side = lock(&self.sides[side_of(kind).0]);
            if let Some(entry) = side.queue.iter_mut().find(|entry| entry.0 == place) {
                std::mem::swap(&mut entry.1, &mut waker);
            }
        }
        // The old waker is dropped here, outside the lock.
    }

    /// Gives the place up; the next one's turn comes.
    pub(crate) fn leave(&self, driver: &Driver, kind: OpKind, place: Place) {
        let (side, event) = side_of(kind);
        let (removed, next, empty) = {
            let queue = &mut lock(&self.sides[side]).queue;
            let at = queue.iter().position(|entry| entry.0 == place);
            let removed = at.and_then(|at| queue.remove(at));
            let next = queue.front_mut().filter(|_| at == Some(0)).and_then(|first| first.1.take());
            (removed, next, queue.is_empty())
        };
        drop(removed);
        if empty {
            self.disarm(driver, side, event);
        }
        if let Some(waker) = next {
            wake(waker);
        }
    }

    /// Tries a transfer without blocking.
    ///
    /// # Safety
    /// As [`Transfer::nowait`].
    pub(crate) unsafe fn attempt(&self, transfer: Transfer<'_>) -> Attempt {
        let refuses = &self.refuses_nowait[side_of(transfer.kind).0];
        // SAFETY: forwarded to the caller.
        let outcome = unsafe {
            if self.socket {
                transfer.socket()
            } else if refuses.load(Ordering::Relaxed) {
                return self.attempt_plain(transfer);
            } else {
                transfer.nowait()
            }
        };
        match outcome {
            Err(Errno(libc::EAGAIN)) => Attempt::WouldBlock,
            Err(Errno(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)) if !self.socket => {
                refuses.store(true, Ordering::Relaxed);
                // SAFETY: forwarded to the caller.
                unsafe { self.attempt_plain(transfer) }
            }
            outcome => Attempt::Done(outcome),
        }
    }

    /// A descriptor that the caller has made non-blocking needs no worker.
    unsafe fn attempt_plain(&self, transfer: Transfer<'_>) -> Attempt {
        if !os::is_nonblocking(self.fd) {
            return Attempt::Refused;
        }
        // SAFETY: forwarded to the caller.
        match unsafe { transfer.plain() } {
            Err(Errno(libc::EAGAIN)) => Attempt::WouldBlock,
            outcome => Attempt::Done(outcome),
        }
    }

    /// Whether transfers in a direction have turned out to need a worker.
    pub(crate) fn refuses_nowait(&self, kind: OpKind) -> bool {
        self.refuses_nowait[side_of(kind).0].load(Ordering::Relaxed)
    }

    /// Whether an ordinary transfer would find something to do now. Always so for what cannot be waited for.
    pub(crate) fn is_ready(&self, kind: OpKind) -> bool {
        (kind != OpKind::Read && self.always_writable) || self.poll(kind) != 0
    }

    /// Whether nothing can be waited for: poll(2) says at any time that there is an error, and never that it is ready. So
    /// does a userfaultfd without `O_NONBLOCK`; a wait would end at once, again and again.
    pub(crate) fn cannot_be_waited_for(&self, kind: OpKind) -> bool {
        self.driver && self.poll(kind) == os::POLLERR
    }

    fn poll(&self, kind: OpKind) -> os::c_short {
        os::poll(self.fd, if kind == OpKind::Read { os::POLLIN } else { os::POLLOUT })
    }

    /// Wakes `waker` once the stream may be ready. `false` where it cannot be waited for: it is always ready.
    pub(crate) fn wait(
        self: &std::sync::Arc<Self>,
        driver: &Driver,
        kind: OpKind,
        place: Place,
        waker: &Waker,
    ) -> Result<bool, Errno> {
        let Some(number) = self.register(driver)? else { return Ok(false) };
        self.remember(kind, place, waker);
        let event = side_of(kind).1;
        let mut armed = lock(&self.armed);
        if self.deregistered.load(Ordering::Acquire) {
            return Err(Errno(libc::ECANCELED));
        }
        driver.arm_stream(self.fd, number, *armed | event)?;
        if *armed & event == 0 {
            *armed |= event;
            driver.count_waits(1, 0);
        }
        Ok(true)
    }

    /// The number by which the driver knows the stream; `None` where the system does not tell of it, which means: always ready.
    fn register(self: &std::sync::Arc<Self>, driver: &Driver) -> Result<Option<u64>, Errno> {
        let _one_at_a_time = lock(&self.armed);
        if let Some(number) = self.registration.get() {
            return Ok(*number);
        }
        // Other errors pass (`ENOSPC`, `ENOMEM`), and are not remembered.
        let number = match driver.add_stream(self, self.fd) {
            Err(Errno(libc::EPERM)) => None,
            number => Some(number?),
        };
        Ok(*self.registration.get_or_init(|| number))
    }

    /// Ends the interest in a direction that nobody waits for any more. Locks `armed` before the side, as nobody does the
    /// other way round: who enters the empty queue meanwhile arms afterwards.
    fn disarm(&self, driver: &Driver, side: usize, event: i32) {
        let mut armed = lock(&self.armed);
        if *armed & event != 0 && lock(&self.sides[side]).queue.is_empty() {
            *armed &= !event;
            driver.count_waits(0, 1);
            self.rearm(driver, *armed);
        }
    }

    fn rearm(&self, driver: &Driver, events: i32) {
        if let Some(Some(number)) = self.registration.get() {
            // It was registered with this number, and a descriptor that is gone has nobody waiting.
            if !self.deregistered.load(Ordering::Acquire) {
                let _ = driver.arm_stream(self.fd, *number, events);
            }
        }
    }

    /// The driver reports readiness: the first of each direction that it concerns may try.
    pub(crate) fn ready(&self, driver: &Driver, events: i32) {
        let failed = events & FAILED != 0;
        for (side, event) in [(0, READABLE), (1, WRITABLE)] {
            if events & event == 0 && !failed {
                continue;
            }
            {
                let mut armed = lock(&self.armed);
                if *armed & event != 0 {
                    *armed &= !event;
                    driver.count_waits(0, 1);
                }
            }
            let waker = lock(&self.sides[side]).queue.front_mut().and_then(|first| first.1.take());
            if let Some(waker) = waker {
                wake(waker);
            }
        }
        // The report has disarmed both directions: the other one may still be waited for.
        let armed = lock(&self.armed);
        if *armed != 0 {
            self.rearm(driver, *armed);
        }
    }

    /// Everyone looks again: the file or the engine closes.
    pub(crate) fn wake_all(&self) {
        for side in &self.sides {
            let wakers: Vec<_> = lock(side).queue.iter_mut().filter_map(|entry| entry.1.take()).collect();
            wakers.into_iter().for_each(wake);
        }
    }

    /// Ends the driver's interest, before the descriptor is closed. Takes effect once: afterwards the number may be
    /// another stream's.
    pub(crate) fn deregister(&self, driver: &Driver) {
        if self.deregistered.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(Some(number)) = self.registration.get() {
            driver.remove_stream(self.fd, *number);
            let mut armed = lock(&self.armed);
            driver.count_waits(0, armed.count_ones() as usize);
            *armed = 0;
        }
    }
}
