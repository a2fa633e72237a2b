//! Where a thread sleeps, and how a waker wakes it there.
//!
//! The parkers of threads are never freed: at a thread's end the next thread that needs one takes its over (`spare.rs`). So
//! their wakers can be copied without counting who has one, and called at any time. One that is called too late wakes a
//! thread for nothing, which wakers may.

#![allow(unsafe_code)]

mod spare;

use std::sync::{Arc, Weak};
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use super::doorbell::{Bell, Doorbell};
use crate::completion::Lasting;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, lock, thread_mark, try_lock};

thread_local! {
    /// This thread's: taken once, and lent.
    static MINE: spare::Taken = spare::Taken::new();
}

/// Where a thread sleeps, so that a waker knows how to wake it.
pub(super) struct Parker<B = Doorbell> {
    thread: Mutex<Thread>,
    /// The thread's mark; 0 while no thread has it.
    mark: AtomicUsize,
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
        // In a destructor, at the thread's end, one that is nobody else's later: it is kept beyond this call.
        MINE.try_with(|taken| taken.parker().clone()).unwrap_or_else(|_| Self::new())
    }

    /// Lends this thread's, and its waker.
    pub(super) fn with_current<R>(f: impl FnOnce(&Arc<Self>, &Waker) -> R) -> R {
        let mut f = Some(f);
        let mut call = |taken: &spare::Taken| match f.take() {
            Some(f) => {
                let parker = taken.parker();
                // SAFETY: the data is a parker's address, as the table's functions want it.
                let waker = unsafe { Waker::new(Arc::as_ptr(parker).cast(), &TABLE) };
                f(parker, &waker)
            }
            None => unreachable!("it is called once"),
        };
        match MINE.try_with(&mut call) {
            Ok(result) => result,
            // In a destructor, at the thread's end.
            Err(_) => call(&spare::Taken::new()),
        }
    }
}

/// The waker of a parker: its address, which stays valid for ever. Nothing is counted.
static TABLE: RawWakerVTable =
    RawWakerVTable::new(|parker| RawWaker::new(parker, &TABLE), wake_parker, wake_parker, |_| {});

/// # Safety
/// It is the address of a parker of `spare.rs`.
unsafe fn wake_parker(parker: *const ()) {
    // SAFETY: parkers of threads are never freed.
    unsafe { &*parker.cast::<Parker>() }.notify();
}

/// The waker as one that may be copied, if it is that of a thread of ours.
#[inline]
pub(crate) fn lasting(waker: &Waker) -> Option<Lasting> {
    // SAFETY: with this table nothing is counted, and what the data points at stays for ever.
    std::ptr::eq(waker.vtable(), &raw const TABLE).then(|| unsafe { Lasting::new(waker) })
}

impl<B: Bell> Parker<B> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            thread: Mutex::new(thread::current()),
            mark: AtomicUsize::new(thread_mark()),
            notified: AtomicBool::new(false),
            own: AtomicBool::new(false),
            place: AtomicU8::new(AWAKE),
            doorbell: Mutex::new(Weak::new()),
            doorbell_at: AtomicUsize::new(0),
        })
    }

    /// Gives it to this thread, after another one. `false`: whoever has locked it is gone, as in the child of a fork.
    fn take_over(&self) -> bool {
        let Some(mut thread) = try_lock(&self.thread) else { return false };
        *thread = thread::current();
        let before = self.mark.swap(thread_mark(), Ordering::Relaxed);
        debug_assert_eq!(before, 0, "another thread has it");
        self.take_notified();
        true
    }

    /// Its thread ends.
    fn leave(&self) {
        self.mark.store(0, Ordering::Relaxed);
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
        if self.mark.load(Ordering::Relaxed) == thread_mark() && self.place.load(Ordering::Relaxed) == AWAKE {
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
            PARKED => {
                let thread = lock(&self.thread).clone();
                thread.unpark();
            }
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
