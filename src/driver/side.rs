//! Side seats: contexts of their own for threads that run futures at the same time.
//!
//! Threads that share a backend's context share its queue, its lock in the kernel, and the driver's seat, which goes back and
//! forth between them with a wake-up each time. So, once a second thread was seen inside [`block_on`](super::block_on()) while
//! requests are in flight, each of them takes a *side seat*: another instance of the backend
//! ([`Backend::another`](crate::backend::Backend::another)) with a lane of its own, and a place to sleep that only its own
//! completions and wakers end. The first thread of an engine that has no second pays one comparison per round.
//!
//! Who has a side seat (its *owner*) submits its new requests there, collects them, and sleeps there. All other requests, and
//! steps after the first, take the lane that all share. Nothing may wait for ever for an owner that does not come back to
//! collect: a side seat is *shared*, which means that whoever drives the engine collects its completions too,
//!
//! - when the owner leaves `block_on` with requests in flight,
//! - when somebody else polls one of its operations, or an operation anywhere but in `block_on`,
//! - when a request is held back by another one, or there is no slot for an operation: whoever waits for that may collect,
//! - when a thread turns the engine by hand, and at the engine's end,
//! - when a thread that sleeps, however often it is woken, finds after [`PATIENCE`] that the owner has done nothing since: it
//!   may be blocked, by that very thread perhaps.
//!
//! The owner ends that once its lane is empty.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::block_on::Driving;
use super::doorbell::Doorbell;
use super::parker::Parker;
use super::selector::{Events, Selector, Trigger};
use super::sharing::Sharing;
use crate::dispatch::{Core, Lane};
use crate::os::AsFd as _;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock, thread_mark, try_lock};

/// How long the owner of a side seat may be awake without coming to collect before others do.
const PATIENCE: Duration = Duration::from_millis(50);
/// Side seats of an engine at the most.
const MOST: usize = 16;

/// The side seats of an engine.
pub(crate) struct Sides {
    /// The one thread that was seen in `block_on`, by its mark; 0: none yet.
    regular: AtomicUsize,
    /// More than one was.
    crowded: AtomicBool,
    /// Made when they are first wanted.
    seats: Box<[OnceLock<Side>]>,
    /// Held by who makes one.
    making: Mutex<()>,
    /// Backends that had no other instance to give, a bit each. They are not asked again.
    refused: AtomicU64,
    /// So long a request may hold its submitter up.
    slow: Duration,
}

/// One of them.
struct Side {
    /// The backend, by its number, of which it has an instance.
    backend: u8,
    lane: Lane,
    /// Watches the instance's completions, and the bell.
    selector: Selector,
    doorbell: Arc<Doorbell>,
    /// Who has it: the thread's mark; 0: nobody.
    owner: AtomicUsize,
    /// Odd while the owner is awake, and another number each time.
    pulse: AtomicU64,
    /// Whose business it is.
    sharing: Sharing,
    /// What `pulse` was when somebody looked last, and since when it is that.
    seen: Mutex<(u64, Instant)>,
}

thread_local! {
    /// The place in the row of seats where this thread looks first.
    static FIRST: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Which thread looks first at which place.
static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl Sides {
    /// At most `most`.
    pub(crate) fn new(most: usize, slow: Duration) -> Self {
        let seats = (0..most.min(MOST)).map(|_| OnceLock::new()).collect();
        let (making, refused) = (Mutex::new(()), AtomicU64::new(0));
        Self { regular: AtomicUsize::new(0), crowded: AtomicBool::new(false), seats, making, refused, slow }
    }

    /// Notes that this thread is inside `block_on`; whether it is not the only one that ever was.
    fn is_crowded(&self) -> bool {
        if self.crowded.load(Ordering::Relaxed) {
            return true;
        }
        let (me, regular) = (thread_mark(), self.regular.load(Ordering::Relaxed));
        let alone = regular == me
            || regular == 0 && self.regular.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !alone {
            self.crowded.store(true, Ordering::Relaxed);
        }
        !alone
    }

    fn all(&self) -> impl Iterator<Item = &Side> {
        // Where there was never a crowd there are none.
        let seats = if self.crowded.load(Ordering::Relaxed) { &self.seats[..] } else { &[] };
        seats.iter().filter_map(OnceLock::get)
    }

    /// Whether there may be any.
    #[inline]
    pub(crate) fn are_there(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// A seat by its number, counted from 1.
    #[inline]
    fn get(&self, number: u8) -> Option<&Side> {
        self.seats.get(usize::from(number).checked_sub(1)?)?.get()
    }

    /// The lanes of all of them.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (u8, &Lane)> {
        self.all().map(|side| (side.backend, &side.lane))
    }

    /// The lane of a seat for the requests of a backend; `None`: that is the one that all share.
    #[inline]
    pub(crate) fn lane(&self, number: u8) -> Option<&Lane> {
        if number == 0 { None } else { self.get(number).map(|side| &side.lane) }
    }

    /// The number of this thread's seat, if it is for this backend; otherwise 0.
    #[inline]
    pub(crate) fn place(&self, core: &Core, backend: u8) -> u8 {
        let number = if self.crowded.load(Ordering::Relaxed) { Driving::side(core) } else { 0 };
        if number != 0 && self.get(number).is_some_and(|side| side.backend == backend) { number } else { 0 }
    }

    /// The lanes that this thread looks after, beyond those that all share: its own, and those that are shared.
    pub(crate) fn near(&self, core: &Core) -> impl Iterator<Item = &Lane> {
        let mine = usize::from(Driving::side(core));
        let looked_after = move |(at, side): &(usize, &Side)| at + 1 == mine || side.is_shared();
        let seats = self.seats.iter().enumerate().filter_map(|(at, seat)| Some((at, seat.get()?)));
        seats.filter(looked_after).map(|(_, side)| &side.lane)
    }

    /// Whether a thread that sleeps has to sleep in the driver's seat for something here to happen.
    pub(crate) fn need_driving(&self) -> bool {
        self.all().any(|side| side.is_shared() && side.lane.needs_reaping())
    }

    /// Shares all of them.
    pub(crate) fn share_all(&self, core: &Core) {
        self.all().for_each(|side| side.share(core));
    }

    /// Shares a seat unless it is this thread's own. `number` is where an operation that this thread waits for was begun.
    #[inline]
    pub(crate) fn share_with_me(&self, core: &Core, number: u8) {
        if number != 0
            && number != Driving::side(core)
            && let Some(side) = self.get(number)
        {
            side.share(core);
        }
    }

    /// A seat for this thread, which is inside `block_on`: its number, and whether it has to be left in the end. An outer
    /// `block_on` of the same thread may have one. One that is not there yet is made where threads are at work.
    fn take(&self, core: &Core) -> Option<(u8, bool)> {
        let first = FIRST.get();
        let first =
            if first == usize::MAX { THREADS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) } else { first };
        FIRST.set(first);
        let me = thread_mark();
        let count = self.seats.len();
        if let Some(at) = self.seats.iter().position(|seat| seat.get().is_some_and(|side| side.is_of(me))) {
            return Some((at as u8 + 1, false));
        }
        (0..count).map(|step| first.wrapping_add(step) % count).find_map(|at| {
            let seat = &self.seats[at];
            let side = seat.get().or_else(|| self.make(core, seat))?;
            side.owner.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).ok()?;
            side.pulse.fetch_or(1, Ordering::SeqCst);
            side.sharing.settle(|| side.lane.is_empty());
            Some((at as u8 + 1, true))
        })
    }

    /// A seat with another instance of the first busy backend that has one to give.
    fn make<'a>(&self, core: &Core, seat: &'a OnceLock<Side>) -> Option<&'a Side> {
        // Who comes meanwhile goes on without one, and comes again.
        let _making = try_lock(&self.making)?;
        for (number, lane) in core.lanes.iter().enumerate().filter(|(_, lane)| lane.needs_reaping()) {
            if self.refused.load(Ordering::Relaxed) & 1 << number != 0 {
                continue;
            }
            match Side::open(core, number, lane, self.slow) {
                Some(side) => return Some(seat.get_or_init(|| side)),
                None => self.refused.fetch_or(1 << number, Ordering::Relaxed),
            };
        }
        None
    }
}

impl Side {
    /// With another instance of a backend; `None` where it cannot be had.
    fn open(core: &Core, backend: usize, lane: &Lane, slow: Duration) -> Option<Self> {
        let instance = lane.backend.as_ref()?.another()?;
        let (selector, doorbell) = (Selector::new().ok()?, Arc::new(Doorbell::new().ok()?));
        selector.watch(doorbell.as_fd(), Trigger::Edge).ok()?;
        selector.watch(instance.notification()?, Trigger::Edge).ok()?;
        // At once, though nothing is told there yet: later it could fail.
        core.driver.watch(instance.notification()?).ok()?;
        let capabilities = instance.capabilities();
        let side = Self {
            backend: backend as u8,
            lane: Lane::new(lane.name, Some(instance), capabilities, slow),
            selector,
            doorbell,
            owner: AtomicUsize::new(0),
            pulse: AtomicU64::new(0),
            sharing: Sharing::new(true),
            seen: Mutex::new((0, Instant::now())),
        };
        side.sharing.turn_away(side.ask(core));
        Some(side)
    }

    fn is_of(&self, thread: usize) -> bool {
        self.owner.load(Ordering::SeqCst) == thread
    }

    fn is_shared(&self) -> bool {
        self.sharing.is_shared()
    }

    /// Lets whoever drives collect here too.
    fn share(&self, core: &Core) {
        // Not in a child: a thread of the parent may have held the lock in there.
        if !core.fork.is_child() {
            self.sharing.share(self.ask(core));
        }
    }

    /// Has the driver's selector tell of completions, or not.
    fn ask(&self, core: &Core) -> impl Fn(bool) {
        let notification = self.lane.backend.as_ref().and_then(|backend| backend.notification());
        move |told| notification.into_iter().for_each(|notification| core.driver.tell(notification, told))
    }

    fn is_ready(&self) -> bool {
        self.lane.has_completions()
    }

    /// The owner sleeps here until something happens that concerns it.
    fn sleep(&self, core: &Core, parker: &Parker, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        self.sharing.turn_away(self.ask(core));
        let wait = || {
            self.selector.wait(&mut Events::new(), timeout);
            self.doorbell.heard();
        };
        parker.sleep_in_kernel(&self.doorbell, || unless() || self.is_ready(), wait);
    }

    /// For how long the owner has been awake without coming to collect, as far as anybody has looked; `None`: it has no
    /// requests that nobody else may collect. Noted for all who look: each of them may be woken again and again.
    fn unattended(&self) -> Option<Duration> {
        let pulse = self.pulse.load(Ordering::SeqCst);
        if !self.lane.needs_reaping() || self.is_shared() {
            return None;
        }
        if pulse.is_multiple_of(2) {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        if seen.0 != pulse {
            *seen = (pulse, now);
        }
        Some(now.saturating_duration_since(seen.1))
    }
}

/// What a thread inside `block_on` does about side seats.
impl Core {
    /// Before each round of polls: takes a seat if there is a crowd, and takes note of what goes on in it.
    pub(super) fn settle_aside(&self) {
        let sides = &self.driver.sides;
        if sides.seats.is_empty() || self.fork.is_child() {
            return;
        }
        if let Some(side) = sides.get(Driving::side(self)) {
            side.sharing.settle(|| side.lane.is_empty());
        } else if sides.is_crowded()
            && self.state.is_open()
            && let Some((number, owned)) = sides.take(self)
        {
            Driving::sit_aside(number, owned);
        }
    }

    /// Leaves this thread's seat: what it has in flight is collected by whoever drives.
    pub(super) fn leave_aside(&self) {
        if Driving::side(self) == 0 {
            return;
        }
        // What was queued in here goes out by this thread.
        self.flush();
        let Some(side) = Driving::rise().and_then(|number| self.driver.sides.get(number)) else { return };
        if !side.lane.is_empty() {
            side.share(self);
        }
        side.pulse.fetch_add(1, Ordering::SeqCst);
        side.owner.store(0, Ordering::SeqCst);
    }

    /// Before a sleep in the driver's seat: it ends with completions of this thread's side seat too.
    pub(super) fn take_along(&self) {
        if let Some(side) = self.driver.sides.get(Driving::side(self))
            && side.lane.needs_reaping()
        {
            side.sharing.tell(true, side.ask(self));
        }
    }

    /// Sleeps without the driver's seat: in this thread's side seat, if it has something to wait for there.
    pub(super) fn rest(&self, parker: &Parker, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        let side = self.driver.sides.get(Driving::side(self)).filter(|side| side.lane.needs_reaping());
        // A child has the same selector and the same bell as its parent: it would take from it what it sleeps for.
        match side.filter(|_| !self.fork.is_child()) {
            Some(side) => side.sleep(self, parker, timeout, unless),
            None => parker.park(timeout, unless),
        }
    }

    /// Runs a sleep of this thread, shorter where others have requests that only they collect: who was awake all the time, and
    /// has not come to collect, has to share.
    pub(super) fn patiently(&self, timeout: Option<Duration>, sleep: impl FnOnce(Option<Duration>)) {
        let sides = &self.driver.sides;
        let mine = sides.get(Driving::side(self));
        let beat = || {
            if let Some(side) = mine {
                side.pulse.fetch_add(1, Ordering::SeqCst);
            }
        };
        let is_mine = |side: &Side| mine.is_some_and(|mine| std::ptr::eq(mine, side));
        let others = || sides.all().filter(|side| !is_mine(side));
        // All of them are looked at: what is noted of each counts from now on.
        if self.fork.is_child() || others().filter_map(Side::unattended).count() == 0 {
            beat();
            sleep(timeout);
            beat();
            return;
        }
        beat();
        sleep(Some(timeout.unwrap_or(PATIENCE).min(PATIENCE)));
        beat();
        let is_stuck = |side: &&Side| side.unattended().is_some_and(|time| time >= PATIENCE);
        others().filter(is_stuck).for_each(|side| side.share(self));
    }
}
