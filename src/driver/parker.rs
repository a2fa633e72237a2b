//! Where a thread sleeps, and how a waker wakes it there.

use std::cell::OnceCell;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::doorbell::{Bell, Doorbell};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, lock, thread_mark};

thread_local! {
    /// This thread's, and its waker: made once, and lent.
    static MINE: OnceCell<(Arc<Parker>, Waker)> = const { OnceCell::new() };
}

/// Where a thread sleeps, so that a waker knows how to wake it.
pub(super) struct Parker<B = Doorbell> {
    thread: Thread,
    /// The thread's mark. Another thread may have it once this one has ended, when nobody sleeps here any more.
    mark: usize,
    /// Set by other threads. Each reads what the one before has set, so that who takes it sees the news of all.
    notified: AtomicBool,
    /// Set by the thread itself, which is awake then, and used by nobody else.
    own: AtomicBool,
    place: AtomicU8,
    /// The doorbell of the engine in whose seat the thread sleeps, or has slept last. It does not keep the descriptor; who
    /// rings does, so that its number is not used again meanwhile.
    doorbell: Mutex<Weak<B>>,
    /// Its address, for the thread itself. No other doorbell has it, for the memory stays as long as `doorbell` names it.
    doorbell_at: AtomicUsize,
}

/// The thread runs, and looks at `notified` before it sleeps.
const AWAKE: u8 = 0;
/// It sleeps in `std::thread::park`.
const PARKED: u8 = 1;
/// It sleeps in the kernel, in a driver's seat.
const IN_KERNEL: u8 = 2;

impl Parker {
    /// This thread's.
    pub(super) fn current() -> Arc<Self> {
        Self::with_current(|parker, _| parker.clone())
    }

    /// Lends this thread's, and its waker.
    pub(super) fn with_current<R>(f: impl FnOnce(&Arc<Self>, &Waker) -> R) -> R {
        let make = || {
            let parker = Self::new();
            (parker.clone(), Waker::from(parker))
        };
        let mut f = Some(f);
        let mut call = |mine: &(Arc<Self>, Waker)| match f.take() {
            Some(f) => f(&mine.0, &mine.1),
            None => unreachable!("it is called once"),
        };
        match MINE.try_with(|mine| call(mine.get_or_init(make))) {
            Ok(result) => result,
            // In a destructor, at the thread's end.
            Err(_) => call(&make()),
        }
    }
}

impl<B: Bell> Parker<B> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            thread: thread::current(),
            mark: thread_mark(),
            notified: AtomicBool::new(false),
            own: AtomicBool::new(false),
            place: AtomicU8::new(AWAKE),
            doorbell: Mutex::new(Weak::new()),
            doorbell_at: AtomicUsize::new(0),
        })
    }

    #[inline]
    pub(super) fn is_notified(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.notified.load(Ordering::SeqCst)
    }

    #[inline]
    pub(super) fn take_notified(&self) {
        self.own.store(false, Ordering::Relaxed);
        // Who notifies after the look is seen at the next one.
        if self.notified.load(Ordering::SeqCst) {
            self.notified.swap(false, Ordering::SeqCst);
        }
    }

    #[inline]
    pub(super) fn notify(&self) {
        if self.mark == thread_mark() && self.place.load(Ordering::Relaxed) == AWAKE {
            // It looks before it sleeps.
            self.own.store(true, Ordering::Relaxed);
        } else if !self.notified.swap(true, Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// Ends the sleep, if there is one, without news.
    pub(super) fn nudge(&self) {
        // Pairs with the fence of `park` and `sleep_in_kernel`: who is not seen to sleep yet will see why it must not.
        fence(Ordering::SeqCst);
        match self.place.load(Ordering::SeqCst) {
            PARKED => self.thread.unpark(),
            IN_KERNEL => {
                let doorbell = lock(&self.doorbell).upgrade();
                if let Some(doorbell) = doorbell {
                    doorbell.ring();
                }
            }
            _ => {}
        }
    }

    /// Sleeps until it is woken, unless it was notified or `unless` says so.
    pub(super) fn park(&self, timeout: Option<Duration>, unless: impl FnOnce() -> bool) {
        self.place.store(PARKED, Ordering::SeqCst);
        // Pairs with the fences of who wakes: this one's place is known before it looks.
        fence(Ordering::SeqCst);
        if !self.is_notified() && !unless() {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
        }
        self.place.store(AWAKE, Ordering::SeqCst);
    }

    /// Sleeps in `wait`, which `doorbell` ends, unless it was notified or `unless` says so.
    pub(super) fn sleep_in_kernel<R>(
        &self,
        doorbell: &Arc<B>,
        unless: impl FnOnce() -> bool,
        wait: impl FnOnce() -> R,
    ) -> Option<R> {
        let at = Arc::as_ptr(doorbell).addr();
        if self.doorbell_at.load(Ordering::Relaxed) != at {
            let before = std::mem::replace(&mut *lock(&self.doorbell), Arc::downgrade(doorbell));
            self.doorbell_at.store(at, Ordering::Relaxed);
            drop(before);
        }
        self.place.store(IN_KERNEL, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // The last look: what comes after this rings, or signals a descriptor that the kernel watches.
        let result = if self.is_notified() || unless() { None } else { Some(wait()) };
        self.place.store(AWAKE, Ordering::SeqCst);
        result
    }
}

impl<B: Bell> Wake for Parker<B> {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
