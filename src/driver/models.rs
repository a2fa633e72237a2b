//! What loom checks of the seat: no wake-up is lost while it changes hands, and it never has two holders.
//!
//! And of side seats (`sharing.rs`): nobody waits for a completion that only the owner would collect, who has left.
//!
//! Run with `RUSTFLAGS="--cfg polyaio_loom" cargo test --release --lib loom`. What is run is the engine's own (`seat.rs`,
//! `parker.rs`): `block_on`'s loop, the sleep in the seat and elsewhere, nudging, handing over. The kernel, with its ring of
//! completions and its edge-triggered descriptors, is a model. A lost wake-up shows as loom's deadlock report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool as PlainBool, Ordering as Plain};
use std::time::Duration;

use loom::thread;

use super::doorbell::Bell;
use super::parker::Parker;
use super::seat::{self, Driven, Seat};
use super::sharing::Sharing;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, lock};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Two switches at points where none is forced find what is known to go wrong here.
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_branches = 10_000;
    builder.check(f);
}

/// What `epoll_wait` sleeps on: an edge of the doorbell, or of the descriptor that tells of completions.
#[derive(Default)]
struct Kernel {
    edge: Mutex<bool>,
    raised: Condvar,
    /// Completions that nobody has collected, a bit each: the ring.
    ring: AtomicUsize,
}

impl Kernel {
    /// The event first, then the signal.
    fn complete(&self, request: usize) {
        self.ring.fetch_or(1 << request, Ordering::AcqRel);
        self.ring();
    }

    fn wait(&self) {
        let mut edge = lock(&self.edge);
        while !std::mem::take(&mut *edge) {
            edge = self.raised.wait(edge).expect("nobody panics inside");
        }
    }
}

impl Bell for Kernel {
    fn ring(&self) {
        *lock(&self.edge) = true;
        self.raised.notify_one();
    }
}

/// Something that a thread waits for: a request, or news from elsewhere.
struct Event {
    happened: AtomicBool,
    waiter: Mutex<Option<Arc<Parker<Kernel>>>>,
}

impl Event {
    fn happen(&self) {
        self.happened.store(true, Ordering::Release);
        let waiter = lock(&self.waiter).take();
        if let Some(waiter) = waiter {
            waiter.notify();
        }
    }

    /// As a future: leaves its waker, and then looks.
    fn poll(&self, parker: &Arc<Parker<Kernel>>) -> Result<(), Option<crate::request::RequestId>> {
        *lock(&self.waiter) = Some(parker.clone());
        if self.happened.load(Ordering::Acquire) { Ok(()) } else { Err(None) }
    }
}

struct Engine {
    seat: Seat<Kernel>,
    kernel: Arc<Kernel>,
    in_flight: AtomicUsize,
    events: [Event; 2],
    /// Somebody sits. No model explores it.
    taken: PlainBool,
}

impl Engine {
    /// With so many requests submitted.
    fn new(in_flight: usize) -> Arc<Self> {
        Arc::new(Self {
            seat: Seat::new(),
            kernel: Arc::default(),
            in_flight: AtomicUsize::new(in_flight),
            events: std::array::from_fn(|_| Event { happened: AtomicBool::new(false), waiter: Mutex::new(None) }),
            taken: PlainBool::new(false),
        })
    }

    /// `block_on`.
    fn wait_for(&self, event: usize) {
        let parker = Parker::new();
        let end = seat::wait(self, &parker, None, || self.events[event].poll(&parker));
        assert_eq!(end, Some(()));
        seat::part(self, &parker);
    }

    fn sit(&self) {
        assert!(!self.taken.swap(true, Plain::Relaxed), "two in the seat");
    }

    fn rise(&self) {
        self.taken.store(false, Plain::Relaxed);
    }
}

impl Driven for Engine {
    type Bell = Kernel;

    fn seat(&self) -> &Seat<Kernel> {
        &self.seat
    }

    fn needs_driving(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) > 0
    }

    fn flush(&self, _: Option<crate::request::RequestId>) {}

    fn reap(&self) {
        if self.kernel.ring.load(Ordering::Acquire) == 0 {
            return;
        }
        // One thread gets each completion, as under the reaper's lock.
        let completed = self.kernel.ring.swap(0, Ordering::AcqRel);
        for (request, event) in self.events.iter().enumerate() {
            if completed & 1 << request != 0 {
                self.in_flight.fetch_sub(1, Ordering::SeqCst);
                event.happen();
            }
        }
    }

    fn drive(&self, parker: &Parker<Kernel>, _timeout: Option<Duration>) {
        self.sit();
        let unless = || self.kernel.ring.load(Ordering::Acquire) != 0;
        parker.sleep_in_kernel(&self.kernel, unless, || self.kernel.wait());
        self.reap();
        self.rise();
    }

    fn is_foreign(&self) -> bool {
        false
    }

    fn attend(&self) -> bool {
        true
    }
}

/// A thread that stays in the seat when there is nothing to collect.
struct Stayer<'a>(&'a Engine);

impl Driven for Stayer<'_> {
    type Bell = Kernel;

    fn seat(&self) -> &Seat<Kernel> {
        self.0.seat()
    }

    fn needs_driving(&self) -> bool {
        self.0.needs_driving()
    }

    fn stays(&self) -> bool {
        true
    }

    fn flush(&self, _: Option<crate::request::RequestId>) {}

    fn reap(&self) {
        self.0.reap();
    }

    fn drive(&self, parker: &Parker<Kernel>, timeout: Option<Duration>) {
        self.0.drive(parker, timeout);
    }

    fn is_foreign(&self) -> bool {
        false
    }

    fn attend(&self) -> bool {
        true
    }
}

fn start(engine: &Arc<Engine>, f: impl FnOnce(&Engine) + 'static) -> thread::JoinHandle<()> {
    let engine = engine.clone();
    thread::spawn(move || f(&engine))
}

/// Two threads wait for a request each. Whoever sits and is served first leaves the other one behind, asleep or about to be.
#[test]
fn loom_who_leaves_the_seat_hands_it_over() {
    model(|| {
        let engine = Engine::new(2);
        let waiters = [0, 1].map(|request| start(&engine, move |engine| engine.wait_for(request)));
        engine.kernel.complete(0);
        engine.kernel.complete(1);
        waiters.into_iter().for_each(|waiter| waiter.join().expect("it is served"));
    });
}

/// Who sits is woken by something else than I/O, and leaves; what it sat for is somebody else's, whose completion comes at
/// any moment of this.
#[test]
fn loom_a_completion_while_the_seat_changes_hands() {
    model(|| {
        let engine = Engine::new(1);
        let other = start(&engine, |engine| engine.wait_for(1));
        let waiter = start(&engine, |engine| engine.wait_for(0));
        engine.events[1].happen();
        engine.kernel.complete(0);
        other.join().expect("it was told");
        waiter.join().expect("it is served");
    });
}

/// A thread that has nothing to drive goes to sleep, while another submits what it waits for and goes away.
#[test]
fn loom_who_submits_and_leaves_wakes_a_driver() {
    model(|| {
        let engine = Engine::new(0);
        let waiter = start(&engine, |engine| engine.wait_for(0));
        engine.in_flight.fetch_add(1, Ordering::SeqCst);
        assert!(seat::ensure_driven(&*engine));
        engine.kernel.complete(0);
        waiter.join().expect("it is served");
    });
}

/// Two sleep. The one that is nudged to take the seat has news of its own, and goes away without having sat.
#[test]
fn loom_who_is_nudged_in_vain_passes_it_on() {
    model(|| {
        let engine = Engine::new(0);
        let waiters = [0, 1].map(|event| start(&engine, move |engine| engine.wait_for(event)));
        engine.in_flight.fetch_add(1, Ordering::SeqCst);
        assert!(seat::ensure_driven(&*engine));
        engine.events[1].happen();
        engine.kernel.complete(0);
        waiters.into_iter().for_each(|waiter| waiter.join().expect("it is served"));
    });
}

/// A thread stays in the seat, or is about to, while another one submits what a third waits for: whoever of them collects it.
/// Then it is told to go.
#[test]
fn loom_who_stays_in_the_seat_collects_for_others() {
    model(|| {
        let engine = Engine::new(0);
        let stayer = start(&engine, |engine| {
            let parker = Parker::new();
            let end = seat::wait(&Stayer(engine), &parker, None, || engine.events[1].poll(&parker));
            assert_eq!(end, Some(()));
            seat::part(&Stayer(engine), &parker);
        });
        let waiter = start(&engine, |engine| engine.wait_for(0));
        engine.in_flight.fetch_add(1, Ordering::SeqCst);
        assert!(seat::ensure_driven(&*engine));
        engine.kernel.complete(0);
        waiter.join().expect("it is served");
        engine.events[1].happen();
        stayer.join().expect("it was told");
    });
}

/// A turn of the program's own loop takes the seat for a moment, and with it the edge of a completion; who finds the seat
/// taken meanwhile goes to sleep.
#[test]
fn loom_a_glance_leaves_nobody_asleep() {
    model(|| {
        let engine = Engine::new(1);
        let waiter = start(&engine, |engine| engine.wait_for(0));
        engine.kernel.complete(0);
        if engine.seat.take() {
            engine.sit();
            *lock(&engine.kernel.edge) = false;
            engine.rise();
            seat::leave(&*engine);
        }
        waiter.join().expect("it is served");
    });
}

/// Who sits is woken by something else than I/O, and no completion comes to its help.
#[test]
fn loom_who_sits_is_woken_by_other_news() {
    model(|| {
        let engine = Engine::new(1);
        let waiter = start(&engine, |engine| engine.wait_for(1));
        engine.events[1].happen();
        waiter.join().expect("it was told");
    });
}

/// The descriptor that tells of completions in a side seat, as the driver's selector has it: told of or not, and what it is
/// asked for is told at once where it is readable.
#[derive(Default)]
struct Watched {
    told: bool,
    readable: bool,
}

/// An engine in which one thread has a side seat. Its requests are the events' again, but all of them are in there.
struct Crowd {
    engine: Engine,
    /// What the owner sleeps on, with the ring of its instance.
    aside: Arc<Kernel>,
    in_flight: AtomicUsize,
    sharing: Sharing,
    watched: Mutex<Watched>,
}

/// A thread of the crowd.
struct Member<'a> {
    crowd: &'a Crowd,
    owner: bool,
}

impl Crowd {
    /// With so many requests in flight in the side seat. The driver's selector is told of them, or not yet.
    fn new(in_flight: usize, told: bool) -> Arc<Self> {
        let Ok(engine) = Arc::try_unwrap(Engine::new(0)) else { unreachable!("nobody else has it") };
        let (aside, in_flight, sharing) = (Arc::default(), AtomicUsize::new(in_flight), Sharing::new(told));
        Arc::new(Self { engine, aside, in_flight, sharing, watched: Mutex::new(Watched { told, readable: false }) })
    }

    fn ask(&self, told: bool) {
        let mut watched = lock(&self.watched);
        watched.told = told;
        if told && watched.readable {
            self.engine.kernel.ring();
        }
    }

    fn complete(&self, request: usize) {
        self.aside.complete(request);
        let mut watched = lock(&self.watched);
        watched.readable = true;
        if watched.told {
            self.engine.kernel.ring();
        }
    }

    fn needs_reaping(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) > 0
    }

    /// The thread that has the side seat runs until the event, and leaves.
    fn own_until(&self, event: usize) {
        let (parker, member) = (Parker::new(), Member { crowd: self, owner: true });
        let end = seat::wait(&member, &parker, None, || self.engine.events[event].poll(&parker));
        assert_eq!(end, Some(()));
        if self.needs_reaping() {
            self.sharing.share(|told| self.ask(told));
        }
        seat::part(&Member { crowd: self, owner: false }, &parker);
    }

    /// Another thread waits for a request of the owner's. In each poll it shares the seat, if that is how it learns of it.
    fn wait_for(&self, event: usize, shares: bool) {
        let (parker, member) = (Parker::new(), Member { crowd: self, owner: false });
        let end = seat::wait(&member, &parker, None, || {
            if shares {
                self.sharing.share(|told| self.ask(told));
            }
            self.engine.events[event].poll(&parker)
        });
        assert_eq!(end, Some(()));
        seat::part(&member, &parker);
    }
}

impl Member<'_> {
    fn is_near(&self) -> bool {
        self.owner || self.crowd.sharing.is_shared()
    }

    fn has_completions(&self) -> bool {
        self.is_near() && self.crowd.aside.ring.load(Ordering::Acquire) != 0
    }
}

impl Driven for Member<'_> {
    type Bell = Kernel;

    fn seat(&self) -> &Seat<Kernel> {
        &self.crowd.engine.seat
    }

    fn needs_driving(&self) -> bool {
        self.crowd.sharing.is_shared() && self.crowd.needs_reaping()
    }

    fn flush(&self, _: Option<crate::request::RequestId>) {}

    fn reap(&self) {
        if !self.has_completions() {
            return;
        }
        let completed = self.crowd.aside.ring.swap(0, Ordering::AcqRel);
        for (request, event) in self.crowd.engine.events.iter().enumerate() {
            if completed & 1 << request != 0 {
                self.crowd.in_flight.fetch_sub(1, Ordering::SeqCst);
                event.happen();
            }
        }
    }

    fn settle(&self) {
        if self.owner {
            self.crowd.sharing.settle(|| !self.crowd.needs_reaping());
        }
    }

    fn rest(&self, parker: &Parker<Kernel>, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        if !self.owner || !self.crowd.needs_reaping() {
            return parker.park(timeout, unless);
        }
        self.crowd.sharing.turn_away(|told| self.crowd.ask(told));
        let aside = &self.crowd.aside;
        parker.sleep_in_kernel(aside, || unless() || self.has_completions(), || aside.wait());
    }

    fn drive(&self, parker: &Parker<Kernel>, _timeout: Option<Duration>) {
        let (crowd, kernel) = (self.crowd, &self.crowd.engine.kernel);
        crowd.engine.sit();
        if self.owner && crowd.needs_reaping() {
            crowd.sharing.tell(true, |told| crowd.ask(told));
        }
        parker.sleep_in_kernel(kernel, || self.has_completions(), || kernel.wait());
        self.reap();
        crowd.engine.rise();
    }

    fn is_foreign(&self) -> bool {
        false
    }

    fn attend(&self) -> bool {
        true
    }
}

fn join_crowd(crowd: &Arc<Crowd>, f: impl FnOnce(&Crowd) + 'static) -> thread::JoinHandle<()> {
    let crowd = crowd.clone();
    thread::spawn(move || f(&crowd))
}

/// The owner is about to sleep, and has the selector told no more; another shares the seat.
#[test]
fn loom_a_shared_seat_is_told_of() {
    model(|| {
        let crowd = Crowd::new(1, true);
        let other = join_crowd(&crowd, |crowd| crowd.sharing.share(|told| crowd.ask(told)));
        crowd.sharing.turn_away(|told| crowd.ask(told));
        other.join().expect("no panic");
        assert!(lock(&crowd.watched).told);
    });
}

/// The owner sleeps in its seat, and another thread waits for what is in flight there: whoever of them collects it.
#[test]
fn loom_who_waits_for_the_owners_request_is_served() {
    model(|| {
        let crowd = Crowd::new(2, false);
        let owner = join_crowd(&crowd, |crowd| crowd.own_until(0));
        let other = join_crowd(&crowd, |crowd| crowd.wait_for(1, true));
        crowd.complete(0);
        crowd.complete(1);
        owner.join().expect("it is served");
        other.join().expect("it is served");
    });
}

/// The owner hears of something else, and leaves; another thread waits for what it has left in flight, and may have gone to sleep
/// before that, or have shared the seat.
#[test]
fn loom_who_leaves_its_seat_leaves_nobody_behind() {
    for shares in [false, true] {
        model(move || {
            let crowd = Crowd::new(1, true);
            let owner = join_crowd(&crowd, |crowd| crowd.own_until(1));
            let other = join_crowd(&crowd, move |crowd| crowd.wait_for(0, shares));
            crowd.engine.events[1].happen();
            crowd.complete(0);
            owner.join().expect("it was told");
            other.join().expect("it is served");
        });
    }
}

/// A thread wakes itself while another one has news for it, which it told before.
#[test]
fn loom_who_wakes_itself_misses_no_news() {
    model(|| {
        let parker = Parker::<Kernel>::new();
        let news = Arc::new(AtomicBool::new(false));
        let other = {
            let (parker, news) = (parker.clone(), news.clone());
            thread::spawn(move || {
                news.store(true, Ordering::Release);
                parker.notify();
            })
        };
        parker.notify();
        loop {
            parker.take_notified();
            if news.load(Ordering::Acquire) {
                break;
            }
            while !parker.is_notified() {
                parker.park(None, || false);
            }
        }
        other.join().expect("no panic");
    });
}
