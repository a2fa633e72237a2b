//! The parkers of threads that have ended, for threads to come: as many are made as threads sleep at the same time.
//!
//! A stack that is emptied as a whole, so that nobody looks at the link of one that another thread has taken. Without a lock,
//! which the child of a fork might find taken.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Parker;

/// A parker that stays for ever.
struct Kept {
    parker: Arc<Parker>,
    /// The next spare one, while this is one.
    below: AtomicPtr<Kept>,
}

/// The spare ones.
static SPARE: AtomicPtr<Kept> = AtomicPtr::new(ptr::null_mut());

/// A thread's. Spare again once it is dropped.
pub(super) struct Taken(&'static Kept);

impl Taken {
    /// For this thread.
    pub(super) fn new() -> Self {
        // SAFETY: what is in the stack was leaked.
        let Some(first) = (unsafe { SPARE.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() }) else {
            return Self(Box::leak(Box::new(Kept { parker: Parker::new(), below: AtomicPtr::default() })));
        };
        // Those below it go back. Who looks meanwhile makes one more.
        // SAFETY: as above; the whole list is ours.
        let mut rest = unsafe { first.below.swap(ptr::null_mut(), Ordering::Relaxed).as_ref() };
        while let Some(kept) = rest {
            // SAFETY: as above.
            rest = unsafe { kept.below.load(Ordering::Relaxed).as_ref() };
            put(kept);
        }
        // One that cannot be had is left behind.
        if first.parker.take_over() { Self(first) } else { Self::new() }
    }

    pub(super) fn parker(&self) -> &'static Arc<Parker> {
        &self.0.parker
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.parker.leave();
        put(self.0);
    }
}

fn put(kept: &'static Kept) {
    let mut top = SPARE.load(Ordering::Relaxed);
    loop {
        kept.below.store(top, Ordering::Relaxed);
        match SPARE.compare_exchange_weak(top, ptr::from_ref(kept).cast_mut(), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    fn mine() -> usize {
        Parker::with_current(|parker, _| Arc::as_ptr(parker).addr())
    }

    #[test]
    fn threads_one_after_the_other_need_few() {
        let all: HashSet<usize> = (0..200).map(|_| thread::spawn(mine).join().expect("no panic")).collect();
        // Threads of other tests take and make some, too.
        assert!(all.len() < 100, "{} for 200 threads, of which one lived at a time", all.len());
    }

    #[test]
    fn no_two_threads_have_the_same_one_at_once() {
        let taken = Mutex::new(HashSet::new());
        let live = || {
            for _ in 0..500 {
                // As a thread's, which has one of its own beside it: begun and ended many times.
                let one = Taken::new();
                let address = Arc::as_ptr(one.parker()).addr();
                assert!(taken.lock().expect("no panic").insert(address), "it is somebody else's");
                thread::yield_now();
                assert!(taken.lock().expect("no panic").remove(&address));
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| _ = scope.spawn(live)));
    }

    /// Who kept the waker of a thread that has ended may call it, whoever has its parker now.
    #[test]
    fn a_waker_outlives_its_thread() {
        let waker = thread::spawn(|| Parker::with_current(|_, waker| waker.clone())).join().expect("no panic");
        let other = thread::spawn(move || {
            waker.wake_by_ref();
            let _ = mine();
            waker.wake();
        });
        other.join().expect("no panic");
    }
}
