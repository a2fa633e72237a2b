//! The queue between submitters and workers: who takes which job, who sleeps, who is woken.
//!
//! **Jobs.** Submitters push to one injector; a worker takes a few at a time into its own deque, from which others steal.
//! Jobs only ever move injector → a worker's own deque → that worker or a thief. Whoever looks for *any* job therefore
//! looks at the injector first and at the deques afterwards: a job that moves meanwhile is seen in one of the two places.
//!
//! **Wake-ups.** A worker is *busy* (serves a job), *searching* (awake, looks for one) or *idle* (parked). A submitter
//! wakes one idle worker per batch, and none while somebody is searching. The last searcher that finds a job wakes the
//! next worker if more is queued, so that wakes ripple as far as there is work and no further.
//!
//! No wake-up is lost, because both sides announce themselves before they look, with a sequentially consistent fence in
//! between: a submitter pushes, then looks for searchers; a worker stops counting as a searcher, then looks for jobs.
//! One of the two sees the other.
//!
//! **Too many workers.** The bound on workers can change. Who finds that there are more than it allows hands back the jobs of
//! its own deque, stops being counted, and looks whether somebody has to be woken in its place: for the others it is a
//! submitter that has pushed those jobs just now. It never leaves a closed queue this way, which its workers empty.
//!
//! **The end.** Room is reserved before a job is pushed, in the same word that says "closed". After `close` nothing can
//! be reserved; what was reserved before will be pushed and taken; workers leave once nothing reserved is left to take.

use super::deque::{Injector, Local, Stealer};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, lock};

/// Jobs that a worker takes from the injector at once. More would make jobs wait behind a slow one until they are
/// stolen; fewer makes workers meet at the injector more often.
const BATCH: usize = 4;

/// Every so many searches a worker looks at the other workers' deques before the injector, so that jobs that wait
/// behind a slow one are not overtaken for ever.
const STEAL_FIRST: u32 = 16;

/// The queue is closed: nothing can be reserved any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Distributes jobs among workers. See the [module's documentation](self).
pub(super) struct Queue<T> {
    injector: Injector<T>,
    stealers: Box<[Stealer<T>]>,
    /// Jobs, as [`Load`] lays them out.
    load: AtomicU64,
    /// Workers, as [`Crew`] lays them out.
    crew: AtomicU64,
    /// Idle workers, the latest last: it is woken first, because its memory is still in a cache.
    idle: Mutex<Vec<usize>>,
    berths: Box<[Berth]>,
    /// Seats given out so far: the deques beyond it are empty.
    seated: AtomicUsize,
    /// Jobs held at the most.
    bound: usize,
    /// Workers at the most.
    most: AtomicUsize,
}

/// Where one worker sleeps.
struct Berth {
    /// Set by who takes the worker off the idle list.
    woken: Mutex<bool>,
    bell: Condvar,
}

/// A worker's place at the queue: its own deque and what it knows of itself.
pub(super) struct Seat<T> {
    index: usize,
    local: Local<T>,
    searching: bool,
    searches: u32,
    /// It was told that there are too many workers.
    surplus: bool,
}

/// The word that counts jobs: held (reserved and not released) and, of these, queued (reserved and not taken).
#[derive(Clone, Copy)]
struct Load(u64);

impl Load {
    const HELD: u64 = 1;
    const QUEUED: u64 = 1 << 31;
    const CLOSED: u64 = 1 << 62;
    /// The largest count.
    const MOST: usize = (1 << 31) - 1;

    fn held(self) -> usize {
        self.0 as usize & Self::MOST
    }

    fn queued(self) -> usize {
        (self.0 >> 31) as usize & Self::MOST
    }

    fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
}

/// The word that counts workers: hired (running or being started) and, of these, searching and idle.
#[derive(Clone, Copy)]
struct Crew(u64);

impl Crew {
    const SEARCHING: u64 = 1;
    const IDLE: u64 = 1 << 16;
    const HIRED: u64 = 1 << 32;

    fn searching(self) -> u64 {
        self.0 & 0xffff
    }

    fn idle(self) -> u64 {
        self.0 >> 16 & 0xffff
    }

    fn hired(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// Whether nobody is free and the bound allows one more.
    fn all_busy(self, most: usize) -> bool {
        self.searching() == 0 && self.idle() == 0 && self.hired() < most
    }
}

impl<T> Queue<T> {
    /// The largest bound.
    pub(super) const MOST_JOBS: usize = Load::MOST;

    /// A queue that holds at most `bound` jobs, and the seats of its workers, of whom none is hired yet.
    pub(super) fn new(bound: usize, workers: usize) -> (Self, Vec<Seat<T>>) {
        let seats: Vec<Seat<T>> = (0..workers).map(Seat::new).collect();
        let queue = Self {
            injector: Injector::new(),
            stealers: seats.iter().map(|seat| seat.local.stealer()).collect(),
            load: AtomicU64::new(0),
            crew: AtomicU64::new(0),
            // Room for all of them, so that going to sleep never allocates.
            idle: Mutex::new(Vec::with_capacity(workers)),
            berths: seats.iter().map(|_| Berth::new()).collect(),
            seated: AtomicUsize::new(0),
            bound: bound.clamp(1, Load::MOST),
            most: AtomicUsize::new(workers),
        };
        (queue, seats)
    }

    // ----- submitters -----------------------------------------------------------------------------------------------

    /// Reserves room for up to `wanted` jobs and returns for how many there was room. Each must be [pushed](Self::push),
    /// and all be [announced](Self::announce).
    pub(super) fn reserve(&self, wanted: usize) -> Result<usize, Closed> {
        let mut load = self.load();
        loop {
            if load.is_closed() {
                return Err(Closed);
            }
            let room = wanted.min(self.bound - load.held());
            if room == 0 {
                return Ok(0);
            }
            let next = load.0 + room as u64 * (Load::HELD + Load::QUEUED);
            match self.load.compare_exchange_weak(load.0, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(room),
                Err(now) => load = Load(now),
            }
        }
    }

    /// Queues a job for which room was reserved.
    pub(super) fn push(&self, job: T) {
        self.injector.push(job);
    }

    /// Makes sure that somebody sees what was pushed.
    pub(super) fn announce(&self) {
        // Pairs with the fences of `park` and `found`: see the module's documentation.
        fence(Ordering::SeqCst);
        let crew = self.crew();
        if crew.searching() == 0 && crew.idle() > 0 {
            self.wake_one();
        }
    }

    /// Ends the reservation of a job that was taken.
    pub(super) fn release(&self) {
        self.load.fetch_sub(Load::HELD, Ordering::AcqRel);
    }

    // ----- workers --------------------------------------------------------------------------------------------------

    /// The next job for this worker, sleeping until there is one. `None`: the queue is closed and empty, the worker is
    /// no longer counted and must leave; or there are too many workers, see [`Seat::is_surplus`].
    pub(super) fn next(&self, seat: &mut Seat<T>) -> Option<T> {
        loop {
            seat.surplus = self.is_overstaffed();
            if seat.surplus {
                return None;
            }
            if let Some(job) = self.find(seat) {
                self.found(seat);
                return Some(job);
            }
            if !self.park(seat) {
                return None;
            }
        }
    }

    /// Workers at the most.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }

    /// Changes how many workers there may be. Those that sleep look at it; the others do after their job.
    pub(super) fn set_most(&self, workers: usize) {
        self.most.store(workers, Ordering::Release);
        self.wake_all();
    }

    /// Whether jobs wait to be taken.
    pub(super) fn has_queued(&self) -> bool {
        self.load().queued() > 0
    }

    fn is_overstaffed(&self) -> bool {
        self.crew().hired() > self.most() && !self.load().is_closed()
    }

    /// Stops counting a worker, if there are still too many; its jobs are for the others. It may come back by a hire.
    pub(super) fn leave(&self, seat: &mut Seat<T>) -> bool {
        let searching = if seat.searching { Crew::SEARCHING } else { 0 };
        let mut crew = self.crew();
        loop {
            if crew.hired() <= self.most() || self.load().is_closed() {
                return false;
            }
            let next = crew.0 - Crew::HIRED - searching;
            match self.crew.compare_exchange_weak(crew.0, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => crew = Crew(now),
            }
        }
        while let Some(job) = seat.local.pop() {
            self.injector.push(job);
        }
        seat.searching = true;
        // A submitter may have relied on this one; and there are the jobs of its deque.
        self.announce();
        true
    }

    /// A hire was served by a worker that had left: its seat is not a new one.
    pub(super) fn came_back(&self) {
        self.seated.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether all workers are busy and there may be more.
    pub(super) fn needs_hands(&self) -> bool {
        self.crew().all_busy(self.most()) && !self.load().is_closed()
    }

    /// Counts one more worker, if all are busy and there may be more. The caller starts it (it begins as a searcher, so that
    /// nobody else is woken or hired meanwhile) or [dismisses](Self::dismiss) it.
    pub(super) fn hire(&self) -> bool {
        let mut crew = self.crew();
        loop {
            if !crew.all_busy(self.most()) || self.load().is_closed() {
                return false;
            }
            let next = crew.0 + Crew::HIRED + Crew::SEARCHING;
            match self.crew.compare_exchange_weak(crew.0, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.seated.fetch_add(1, Ordering::AcqRel);
                    return true;
                }
                Err(now) => crew = Crew(now),
            }
        }
    }

    /// Counts one more worker whatever the others do, for models that begin with several.
    #[cfg(all(test, polyaio_loom))]
    pub(super) fn hire_always(&self) {
        self.seated.fetch_add(1, Ordering::AcqRel);
        self.crew.fetch_add(Crew::HIRED + Crew::SEARCHING, Ordering::AcqRel);
    }

    /// Takes back a hire that came to nothing: no thread could be started.
    pub(super) fn dismiss(&self) {
        self.seated.fetch_sub(1, Ordering::AcqRel);
        self.crew.fetch_sub(Crew::HIRED + Crew::SEARCHING, Ordering::AcqRel);
        // A submitter may have relied on the searcher that never came. (Whether something is queued can be asked only
        // after the fence in there: it is not worth it.)
        self.announce();
    }

    /// How many workers are hired.
    pub(super) fn hired(&self) -> usize {
        self.crew().hired()
    }

    // ----- the end --------------------------------------------------------------------------------------------------

    /// Takes no more jobs; workers leave when they have served what is queued.
    pub(super) fn close(&self) {
        self.load.fetch_or(Load::CLOSED, Ordering::AcqRel);
        self.wake_all();
    }

    /// Takes a job out of a closed queue whose workers are all stuck, to hand it back.
    pub(super) fn drain(&self) -> Option<T> {
        let job = self.injector.take().or_else(|| self.stealers.iter().find_map(Stealer::take))?;
        self.taken();
        self.release();
        Some(job)
    }

    // ----- inside ---------------------------------------------------------------------------------------------------

    fn find(&self, seat: &mut Seat<T>) -> Option<T> {
        if let Some(job) = seat.local.pop() {
            return Some(job);
        }
        if self.load().queued() == 0 {
            return None;
        }
        seat.searches = seat.searches.wrapping_add(1);
        if seat.searches.is_multiple_of(STEAL_FIRST) {
            let stolen = self.steal(seat);
            return stolen.or_else(|| self.injector.take_batch(&seat.local, BATCH));
        }
        self.injector.take_batch(&seat.local, BATCH).or_else(|| self.steal(seat))
    }

    /// Takes one job from another worker. One only: jobs never move from deque to deque.
    fn steal(&self, seat: &Seat<T>) -> Option<T> {
        let seated = self.seated.load(Ordering::Acquire).min(self.stealers.len());
        // Each worker begins with the one after itself, so that thieves spread.
        (1..seated).find_map(|step| self.stealers[(seat.index + step) % seated].take())
    }

    /// Whether any job can be seen; the order matters (see the module's documentation).
    fn sees_any(&self) -> bool {
        let seated = self.seated.load(Ordering::Acquire).min(self.stealers.len());
        !self.injector.is_empty() || self.stealers[..seated].iter().any(|stealer| !stealer.is_empty())
    }

    fn found(&self, seat: &mut Seat<T>) {
        let mut last = false;
        if std::mem::take(&mut seat.searching) {
            let before = Crew(self.crew.fetch_sub(Crew::SEARCHING, Ordering::AcqRel));
            last = before.searching() == 1;
            // Pairs with `announce`: a submitter that still saw this searcher pushed before we look at `queued`.
            fence(Ordering::SeqCst);
        }
        let more = self.taken();
        if last && more && self.crew().idle() > 0 {
            self.wake_one();
        }
    }

    /// Counts a job as taken; returns whether more are queued.
    fn taken(&self) -> bool {
        let before = Load(self.load.fetch_sub(Load::QUEUED, Ordering::AcqRel));
        if before.is_closed() && before.queued() == 1 {
            // That was the last one for ever: who sleeps may leave.
            self.wake_all();
        }
        before.queued() > 1
    }

    /// Sleeps until there may be work. `false`: there will never be any.
    fn park(&self, seat: &mut Seat<T>) -> bool {
        let mut idle = lock(&self.idle);
        let searching = if seat.searching { Crew::SEARCHING } else { 0 };
        self.crew.fetch_add(Crew::IDLE.wrapping_sub(searching), Ordering::AcqRel);
        // Pairs with `announce`. Who wakes holds the lock that we hold, so that until we are on the list it waits for us.
        fence(Ordering::SeqCst);
        let load = self.load();
        if load.is_closed() && load.queued() == 0 {
            self.crew.fetch_sub(Crew::IDLE + Crew::HIRED, Ordering::AcqRel);
            return false;
        }
        seat.searching = true;
        if self.is_overstaffed() {
            self.crew.fetch_sub(Crew::IDLE - Crew::SEARCHING, Ordering::AcqRel);
            return true;
        }
        // A job that is counted and not seen is about to be pushed, or was just taken: who pushes it will announce it.
        if load.queued() > 0 && self.sees_any() {
            self.crew.fetch_sub(Crew::IDLE - Crew::SEARCHING, Ordering::AcqRel);
            return true;
        }
        idle.push(seat.index);
        drop(idle);
        self.berths[seat.index].sleep();
        true
    }

    /// Wakes the worker that fell asleep last, unless somebody is searching already: that one will look again.
    fn wake_one(&self) {
        let woken = {
            let mut idle = lock(&self.idle);
            if self.crew().searching() > 0 {
                return;
            }
            let Some(index) = idle.pop() else { return };
            // Counted here, not by the worker: from now on nobody else needs to be woken.
            self.crew.fetch_sub(Crew::IDLE - Crew::SEARCHING, Ordering::AcqRel);
            index
        };
        self.berths[woken].wake();
    }

    fn wake_all(&self) {
        let mut idle = lock(&self.idle);
        for index in idle.drain(..) {
            self.crew.fetch_sub(Crew::IDLE - Crew::SEARCHING, Ordering::AcqRel);
            self.berths[index].wake();
        }
    }

    fn load(&self) -> Load {
        Load(self.load.load(Ordering::Acquire))
    }

    fn crew(&self) -> Crew {
        Crew(self.crew.load(Ordering::Acquire))
    }
}

impl<T> Seat<T> {
    fn new(index: usize) -> Self {
        // A worker begins as a searcher: `hire` has counted it as one.
        Self { index, local: Local::new(), searching: true, searches: 0, surplus: false }
    }

    /// Whether the last [`Queue::next`] gave no job because there are too many workers.
    pub(super) fn is_surplus(&self) -> bool {
        self.surplus
    }
}

impl Berth {
    fn new() -> Self {
        Self { woken: Mutex::new(false), bell: Condvar::new() }
    }

    fn sleep(&self) {
        let mut woken = lock(&self.woken);
        while !std::mem::take(&mut *woken) {
            woken = self.bell.wait(woken).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn wake(&self) {
        *lock(&self.woken) = true;
        // Outside the lock, so that the sleeper does not wake up only to wait for it.
        self.bell.notify_one();
    }
}
