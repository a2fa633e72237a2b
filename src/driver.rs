//! Who reaps: the thread that waits, or a background thread where a foreign executor does.
//!
//! Completions of kernels, and readiness of streams, have to be collected by somebody. One thread at a time has the
//! driver's *seat*: it sleeps in `epoll_wait` on
//!
//! - the backends' notification descriptors (an eventfd that kernel AIO signals with each completion),
//! - the streams somebody waits for, and
//! - the *doorbell*, an eventfd that wakers ring when what the sleeper waits for happens elsewhere.
//!
//! A program with an event loop of its own can poll the epoll instance ([`Driver::export`]) and take the seat for moments
//! ([`turn`]).
//!
//! The others park, and are woken by their own wakers. Who leaves the seat while there is still something to collect
//! nudges one of them to take it. The background thread is started when a future is pending on an executor that is not
//! ours, and sits down whenever nobody else does.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::completion::Errno;
use crate::dispatch::{Completing, Core, REAP_MAX};
use crate::error::Error;
use crate::fork::ForkGuard;
use crate::stream::Stream;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// Events taken from the kernel in one go.
const EVENTS: usize = 64;

/// After the background thread could not be started, how long until it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// `epoll_data` of the doorbell and the backends' descriptors: they only end the sleep.
const NO_STREAM: u64 = u64::MAX;

/// The part of an engine that sleeps and wakes.
pub(crate) struct Driver {
    /// The epoll instance is shared with children of this process: they must not touch what we are registered for.
    fork: Arc<ForkGuard>,
    epoll: OwnedFd,
    doorbell: Arc<Doorbell>,
    /// Who has it: the thread's mark; 0 while it is vacant.
    seat: AtomicUsize,
    /// Threads that sleep without the seat.
    parked: Mutex<Vec<Arc<Parker>>>,
    /// At least as many as are in `parked`.
    parked_count: AtomicUsize,
    /// A future was pending on an executor that is not ours.
    foreign: AtomicBool,
    /// Streams by their number in `epoll_data`.
    streams: Mutex<Vec<Weak<Stream>>>,
    /// How many directions of streams somebody waits for.
    waits: AtomicUsize,
    background: Mutex<Background>,
    /// Threads inside [`turn`], which every completion may concern.
    turning: Mutex<Vec<Arc<Parker>>>,
    /// As many as are in `turning`.
    turners: AtomicUsize,
    /// What the program polls, once it has asked for it: from then on it drives.
    outside: OnceLock<Outside>,
    /// `outside` is there.
    exported: AtomicBool,
    /// The program was rung for, and has not come yet.
    rung: AtomicBool,
}

/// What the program's own loop watches: our epoll instance, and a bell for what that does not tell. The bell is not in our
/// instance, so that a thread that drives beside the program does not take its rings.
struct Outside {
    epoll: OwnedFd,
    bell: Doorbell,
}

/// The background thread, once it was needed.
#[derive(Default)]
struct Background {
    thread: Option<JoinHandle<()>>,
    parker: Option<Arc<Parker>>,
    stop: Arc<AtomicBool>,
    /// When it could not be started.
    failed: Option<Instant>,
}

/// An eventfd that ends the seated thread's sleep.
pub(crate) struct Doorbell(OwnedFd);

impl Doorbell {
    fn new() -> Result<Self, Error> {
        // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
        unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => Err(Error::system("eventfd")),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Makes it unreadable, for one that is watched level-triggered.
    fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes are written to `count`. Where it was not rung the answer is EAGAIN.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    fn ring(&self) {
        let one = 1u64;
        // SAFETY: eight bytes are read from `one`. The counter cannot overflow in a lifetime; it is never read, because
        // epoll watches it edge-triggered.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

fn new_epoll() -> Result<OwnedFd, Error> {
    // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
    unsafe {
        match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
            -1 => Err(Error::system("epoll_create1")),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn control(epoll: &OwnedFd, operation: i32, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: events as u32, u64: data };
    // SAFETY: `event` is read during the call only.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

impl Driver {
    /// # Errors
    /// [`Error::System`] where there are no more descriptors (`EMFILE`, `ENFILE`).
    pub(crate) fn new(fork: Arc<ForkGuard>) -> Result<Self, Error> {
        let driver = Self {
            fork,
            epoll: new_epoll()?,
            doorbell: Arc::new(Doorbell::new()?),
            seat: AtomicUsize::new(0),
            parked: Mutex::new(Vec::new()),
            parked_count: AtomicUsize::new(0),
            foreign: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
            waits: AtomicUsize::new(0),
            background: Mutex::new(Background::default()),
            turning: Mutex::new(Vec::new()),
            turners: AtomicUsize::new(0),
            outside: OnceLock::new(),
            exported: AtomicBool::new(false),
            rung: AtomicBool::new(false),
        };
        driver.watch(driver.doorbell.0.as_fd())?;
        Ok(driver)
    }

    /// Lets a backend's completions end the sleep of whoever is seated.
    pub(crate) fn watch(&self, notification: BorrowedFd<'_>) -> Result<(), Error> {
        self.control(libc::EPOLL_CTL_ADD, notification.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, NO_STREAM)
            .map_err(|errno| Error::System { what: "epoll_ctl", source: errno.into() })
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, data: u64) -> Result<(), Errno> {
        if self.fork.is_child() {
            return Err(Errno(libc::ECHILD));
        }
        control(&self.epoll, operation, fd, events, data)
    }

    // ----- streams --------------------------------------------------------------------------------------------------

    /// Makes a stream known; `EPERM` for descriptors that are always ready, such as `/dev/null`.
    pub(crate) fn add_stream(&self, stream: &Arc<Stream>, fd: RawFd) -> Result<u64, Errno> {
        let mut streams = lock(&self.streams);
        let number = match streams.iter().position(|known| known.strong_count() == 0) {
            Some(free) => free,
            None => {
                streams.push(Weak::new());
                streams.len() - 1
            }
        };
        // Disarmed: without a direction epoll would still report errors, but not with EPOLLONESHOT after the first.
        let added = self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLONESHOT | libc::EPOLLET, number as u64);
        if matches!(added, Ok(()) | Err(Errno(libc::EPERM))) {
            // Who waits for a step is woken at the engine's end, also where epoll knows nothing of the stream.
            streams[number] = Arc::downgrade(stream);
        }
        added.map(|()| number as u64)
    }

    /// Asks for one report of any of `events`; 0 asks for none.
    pub(crate) fn arm_stream(&self, fd: RawFd, number: u64, events: i32) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_MOD, fd, events | libc::EPOLLONESHOT, number)
    }

    /// Forgets a stream whose descriptor is about to be closed.
    pub(crate) fn remove_stream(&self, fd: RawFd, number: u64) {
        // A descriptor that is gone already is what we want; nothing else can fail here.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, number);
        if let Some(entry) = lock(&self.streams).get_mut(number as usize) {
            *entry = Weak::new();
        }
    }

    /// Counts directions of streams that somebody waits for.
    pub(crate) fn count_waits(&self, more: usize, fewer: usize) {
        self.waits.fetch_add(more, Ordering::SeqCst);
        self.waits.fetch_sub(fewer, Ordering::SeqCst);
    }

    pub(crate) fn waits_for_streams(&self) -> bool {
        self.waits.load(Ordering::SeqCst) > 0
    }

    /// Wakes everyone who waits for a stream.
    pub(crate) fn wake_all_streams(&self) {
        let streams: Vec<_> = lock(&self.streams).iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(|stream| stream.wake_all());
    }

    // ----- sleeping -------------------------------------------------------------------------------------------------

    /// Sleeps until something happens that may concern this thread. Returns early rather than late.
    fn sleep(&self, core: &Arc<Core>, parker: &Arc<Parker>, timeout: Option<Duration>) {
        if core.needs_driving() {
            // A waker that waits, called by who sits: nobody else can drive, and the seat stays taken afterwards.
            let seated = self.has_seat();
            if seated || self.take_seat() {
                // A subscriber that waits for I/O needs the seat.
                let _held = crate::events::hold();
                self.drive(core, parker, timeout);
                if !seated {
                    self.leave_seat(core);
                }
                return;
            }
        }
        self.parked_count.fetch_add(1, Ordering::SeqCst);
        lock(&self.parked).push(parker.clone());
        // Who left the seat, or submitted, before this thread could be nudged: look once more before the sleep.
        parker.park(timeout, || self.is_vacant(core));
        lock(&self.parked).retain(|other| !Arc::ptr_eq(other, parker));
        self.parked_count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether somebody should sit down and nobody does.
    fn is_vacant(&self, core: &Core) -> bool {
        core.needs_driving() && self.seat.load(Ordering::SeqCst) == 0
    }

    /// Before a thread goes off to run a future: lets a parked thread take the seat that this one was nudged to take.
    fn hand_over(&self, core: &Arc<Core>) {
        if self.parked_count.load(Ordering::SeqCst) > 0 || self.foreign.load(Ordering::SeqCst) {
            self.ensure_driven(core);
        }
    }

    fn take_seat(&self) -> bool {
        self.seat.compare_exchange(0, thread_mark(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether this thread has it.
    fn has_seat(&self) -> bool {
        self.seat.load(Ordering::SeqCst) == thread_mark()
    }

    fn leave_seat(&self, core: &Arc<Core>) {
        self.seat.store(0, Ordering::SeqCst);
        if !is_driver_thread() {
            self.hand_over(core);
        }
    }

    fn nudge_one(&self) -> bool {
        let next = lock(&self.parked).first().cloned();
        next.is_some_and(|parker| {
            parker.nudge();
            true
        })
    }

    /// Waits in the kernel, in the driver's seat.
    fn drive(&self, core: &Arc<Core>, parker: &Parker, timeout: Option<Duration>) {
        parker.enter_kernel(&self.doorbell);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // The last look: what comes after `enter_kernel` rings, or signals a descriptor that epoll watches.
        let count = if parker.is_notified() || core.has_completions() { 0 } else { self.wait(&mut events, timeout) };
        parker.leave_kernel();
        self.report(core, &events[..count]);
        core.reap(REAP_MAX);
    }

    // ----- the program's own loop -----------------------------------------------------------------------------------

    /// What the program can poll: readable while there is something to do for [`turn`]. From now on the program drives, and
    /// no background thread is started.
    pub(crate) fn export(&self) -> Result<BorrowedFd<'_>, Error> {
        if self.outside.get().is_none() {
            let outside = Outside { epoll: new_epoll()?, bell: Doorbell::new()? };
            for inside in [self.epoll.as_fd(), outside.bell.0.as_fd()] {
                control(&outside.epoll, libc::EPOLL_CTL_ADD, inside.as_raw_fd(), libc::EPOLLIN, NO_STREAM)
                    .map_err(|errno| Error::System { what: "epoll_ctl", source: errno.into() })?;
            }
            // What was queued before nobody has rung for.
            outside.bell.ring();
            // Another thread may have been quicker: then this one's is closed.
            let _ = self.outside.set(outside);
            self.exported.store(true, Ordering::SeqCst);
        }
        match self.outside.get() {
            Some(outside) => Ok(outside.epoll.as_fd()),
            None => unreachable!("it was set above"),
        }
    }

    /// Something was queued, or has ended, on whatever thread: lets those know who wait for anything.
    pub(crate) fn announce(&self) {
        if self.exported.load(Ordering::SeqCst)
            && !self.rung.swap(true, Ordering::SeqCst)
            && let Some(outside) = self.outside.get()
        {
            outside.bell.ring();
        }
        if self.turners.load(Ordering::SeqCst) > 0 {
            // Nothing foreign runs in there: it unparks a thread, or rings its bell.
            lock(&self.turning).iter().for_each(|parker| parker.notify());
        }
    }

    /// The program has come: who has something new rings again.
    fn answer(&self) {
        if let Some(outside) = self.outside.get() {
            outside.bell.silence();
            // Now, and no earlier: who does not ring because of the last one has published before this, and the program looks
            // at its operations after this.
            self.rung.store(false, Ordering::SeqCst);
        }
    }

    /// Collects what is ready without sleeping, where nobody else does.
    fn glance(&self, core: &Arc<Core>) {
        let wanted = self.exported.load(Ordering::SeqCst) || self.waits_for_streams();
        if !wanted || !self.take_seat() {
            return;
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            let count = self.wait(&mut events, Some(Duration::ZERO));
            self.report(core, &events[..count]);
            if count < EVENTS {
                break;
            }
        }
        self.leave_seat(core);
    }

    /// Tells streams that they are ready.
    fn report(&self, core: &Core, events: &[libc::epoll_event]) {
        // Their wakers run in here, and the seat is taken: whoever drops the engine must not wait on this thread.
        let _completing = Completing::enter();
        for event in events {
            let (number, ready) = (event.u64, event.events as i32);
            if number != NO_STREAM {
                let stream = lock(&self.streams).get(number as usize).and_then(Weak::upgrade);
                if let Some(stream) = stream {
                    stream.ready(self, ready);
                    core.ended.add_ordered(1);
                    self.announce();
                }
            }
        }
    }

    fn wait(&self, events: &mut [libc::epoll_event; EVENTS], timeout: Option<Duration>) -> usize {
        // Rounded up, so that a timeout is never early.
        let milliseconds = timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        // SAFETY: the kernel fills at most EVENTS entries of the array.
        let count =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, milliseconds) };
        // EINTR: a signal. The caller looks and comes back.
        usize::try_from(count).unwrap_or(0)
    }

    // ----- background -----------------------------------------------------------------------------------------------

    /// A future is pending on an executor that is not ours: from now on somebody has to collect at all times.
    /// `false`: nobody does, because no thread can be had.
    pub(crate) fn ensure_driven_for_foreign(&self, core: &Arc<Core>) -> bool {
        if !self.foreign.load(Ordering::SeqCst) {
            self.foreign.store(true, Ordering::SeqCst);
        }
        self.ensure_driven(core)
    }

    /// Sees to it that somebody collects, although the calling thread is not going to wait: a parked thread, or the
    /// background thread where futures are pending that no thread of ours waits for. `false` where it cannot be started.
    pub(crate) fn ensure_driven(&self, core: &Arc<Core>) -> bool {
        let unattended = self.is_vacant(core) && !self.nudge_one();
        let wanted = unattended && self.foreign.load(Ordering::SeqCst) && !self.exported.load(Ordering::SeqCst);
        !wanted || self.start_background(core)
    }

    /// `false` where no thread can be had; it is tried again after a while.
    fn start_background(&self, core: &Arc<Core>) -> bool {
        let mut background = lock(&self.background);
        if background.thread.is_some() || !core.state.is_open() {
            return true;
        }
        if background.failed.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return false;
        }
        let (core, stop) = (Arc::downgrade(core), background.stop.clone());
        let run = move || {
            let parker = Parker::current();
            if let Some(core) = core.upgrade() {
                // Before the first look at `stop`: who sets it afterwards finds the parker here.
                lock(&core.driver.background).parker = Some(parker.clone());
            }
            DRIVER_THREAD.set(true);
            loop {
                // First forget the last wake-up, then look: the next one ends the sleep.
                parker.take_notified();
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // No reference is kept across iterations but this one: the engine's shutdown stops and joins us.
                let Some(core) = core.upgrade() else { break };
                core.flush();
                core.reap(REAP_MAX);
                core.driver.sleep(&core, &parker, None);
            }
        };
        match std::thread::Builder::new().name("polyaio-driver".into()).spawn(run) {
            Ok(thread) => background.thread = Some(thread),
            Err(_) => background.failed = Some(Instant::now()),
        }
        background.thread.is_some()
    }

    /// Stops the background thread and waits for its end.
    pub(crate) fn stop_background(&self) {
        let (thread, parker) = {
            let mut background = lock(&self.background);
            background.stop.store(true, Ordering::SeqCst);
            (background.thread.take(), background.parker.take())
        };
        if let Some(parker) = parker {
            parker.notify();
        }
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // Its panics were printed; nothing of ours runs there that could panic in a way that matters now.
            let _ = thread.join();
        }
    }
}

thread_local! {
    /// The engine that this thread is inside [`block_on`] of.
    static DRIVING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
    /// This is a background thread: it sits down again by itself.
    static DRIVER_THREAD: Cell<bool> = const { Cell::new(false) };
    /// The engine of this thread's last [`turn`], by the tag of its slab, and how much had ended there by then.
    static SEEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static PARKER: RefCell<Option<Arc<Parker>>> = const { RefCell::new(None) };
}

/// A number that no other thread has while this one lives. Never 0.
fn thread_mark() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

fn is_driver_thread() -> bool {
    DRIVER_THREAD.get()
}

/// Whether this thread is inside [`block_on`] of this engine: it will flush and collect before it sleeps.
pub(crate) fn is_driving(core: &Core) -> bool {
    std::ptr::eq(DRIVING.get(), core)
}

/// Runs a future to its end on this thread, collecting completions meanwhile.
pub(crate) fn block_on<F: Future>(core: &Arc<Core>, future: F) -> F::Output {
    match block_on_until(core, future, None) {
        Some(output) => output,
        None => unreachable!("there is no deadline"),
    }
}

/// The same, until `deadline`: `None` when it has passed.
pub(crate) fn block_on_until<F: Future>(core: &Arc<Core>, future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let parker = Parker::current();
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let outer = DRIVING.replace(Arc::as_ptr(core));
    let _guard = OnExit(|| {
        DRIVING.set(outer);
        // What was polled in here relied on this thread to flush, and on somebody to collect.
        core.flush();
        core.driver.hand_over(core);
        // A wake-up that an outer `block_on` of this thread waits for may have been taken by this one: let it look.
        parker.notify();
    });
    loop {
        parker.take_notified();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if parker.is_notified() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // A future that wakes itself in each poll.
            return None;
        }
        while !parker.is_notified() {
            core.flush();
            core.reap(REAP_MAX);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            if !parker.is_notified() {
                core.driver.sleep(core, &parker, left);
            }
        }
        core.driver.hand_over(core);
    }
}

/// Submits what is queued and collects completions on this thread: at most `max`, and until at least `min` were there or
/// `timeout` is over. Returns how many operations have ended, and streams have become ready, since the thread's last turn.
pub(crate) fn turn(core: &Arc<Core>, min: usize, max: usize, timeout: Option<Duration>) -> usize {
    if core.fork.is_child() {
        return 0;
    }
    let parker = Parker::current();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let driver = &core.driver;
    let (seen_of, seen) = SEEN.get();
    let before = if seen_of == core.slab.tag() { seen } else { 0 };
    driver.turners.fetch_add(1, Ordering::SeqCst);
    lock(&driver.turning).push(parker.clone());
    let _guard = OnExit(|| {
        // One entry only: another turn of this thread may be around this one.
        let mut turning = lock(&driver.turning);
        if let Some(at) = turning.iter().position(|other| Arc::ptr_eq(other, &parker)) {
            turning.swap_remove(at);
        }
        drop(turning);
        driver.turners.fetch_sub(1, Ordering::SeqCst);
        driver.hand_over(core);
        // A `block_on` of this thread may be around us.
        parker.notify();
    });
    loop {
        parker.take_notified();
        // Before the flush: what is queued after it rings anew.
        driver.answer();
        core.flush();
        driver.glance(core);
        let ended = || (core.ended.ordered_value() - before) as usize;
        core.reap(max.saturating_sub(ended()));
        let expired = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let count = ended();
        if count >= min.min(max) || expired {
            SEEN.set((core.slab.tag(), before + count as u64));
            return count;
        }
        if !parker.is_notified() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            driver.sleep(core, &parker, left);
        }
    }
}

struct OnExit<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnExit<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Where a thread sleeps, so that a waker knows how to wake it.
pub(crate) struct Parker {
    thread: Thread,
    notified: AtomicBool,
    place: AtomicU8,
    /// The doorbell of the engine in whose seat the thread sleeps. The reference keeps the descriptor from being closed,
    /// and its number from being used again, under a waker that is about to ring.
    doorbell: Mutex<Option<Arc<Doorbell>>>,
}

/// The thread runs, and looks at `notified` before it sleeps.
const AWAKE: u8 = 0;
/// It sleeps in `std::thread::park`.
const PARKED: u8 = 1;
/// It sleeps in the kernel, in a driver's seat.
const IN_KERNEL: u8 = 2;

impl Parker {
    /// This thread's.
    pub(crate) fn current() -> Arc<Self> {
        PARKER.with_borrow_mut(|parker| parker.get_or_insert_with(Self::new).clone())
    }

    fn new() -> Arc<Self> {
        Arc::new(Self {
            thread: std::thread::current(),
            notified: AtomicBool::new(false),
            place: AtomicU8::new(AWAKE),
            doorbell: Mutex::new(None),
        })
    }

    fn is_notified(&self) -> bool {
        self.notified.load(Ordering::SeqCst)
    }

    fn take_notified(&self) {
        self.notified.swap(false, Ordering::SeqCst);
    }

    fn notify(&self) {
        if !self.notified.swap(true, Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// Ends the sleep, if there is one, without news.
    fn nudge(&self) {
        match self.place.load(Ordering::SeqCst) {
            PARKED => self.thread.unpark(),
            IN_KERNEL => {
                let doorbell = lock(&self.doorbell).clone();
                if let Some(doorbell) = doorbell {
                    doorbell.ring();
                }
            }
            _ => {}
        }
    }

    /// Sleeps until it is woken, unless it was notified or `unless` says so.
    fn park(&self, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        self.place.store(PARKED, Ordering::SeqCst);
        if !self.is_notified() && !unless() {
            match timeout {
                Some(timeout) => std::thread::park_timeout(timeout),
                None => std::thread::park(),
            }
        }
        self.place.store(AWAKE, Ordering::SeqCst);
    }

    fn enter_kernel(&self, doorbell: &Arc<Doorbell>) {
        *lock(&self.doorbell) = Some(doorbell.clone());
        self.place.store(IN_KERNEL, Ordering::SeqCst);
    }

    fn leave_kernel(&self) {
        self.place.store(AWAKE, Ordering::SeqCst);
        lock(&self.doorbell).take();
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
