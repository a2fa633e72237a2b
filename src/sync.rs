//! The synchronisation primitives the crate is built on: `std`'s, or loom's when its models run.
//!
//! Only what a model explores comes from here (atomics, locks, the cell). `Arc` stays `std`'s everywhere: loom's cannot
//! hold trait objects.

cfg_if::cfg_if! {
    if #[cfg(polyaio_loom)] {
        pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
        pub(crate) use loom::cell::UnsafeCell;

        /// Sleeping threads. Time does not pass in a model: a timeout is never over.
        pub(crate) mod thread {
            pub(crate) use loom::thread::{Thread, current, park};

            pub(crate) fn park_timeout(_timeout: std::time::Duration) {
                park();
            }
        }
    } else {
        pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
        pub(crate) use std::thread;
        pub(crate) use self::cell::UnsafeCell;
    }
}

/// A number that no other thread has while this one lives. Never 0.
pub(crate) fn thread_mark() -> usize {
    cfg_if::cfg_if! {
        if #[cfg(polyaio_loom)] {
            // Loom runs its threads on one of the system's: only its own thread-locals tell them apart.
            loom::thread_local!(static MARK: u8 = 0);
        } else {
            thread_local!(static MARK: u8 = const { 0 });
        }
    }
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// Locks a mutex whether or not a thread panicked while holding it.
///
/// Every critical section in this crate leaves its data consistent at each step, so that the poison flag carries no
/// information; user code (wakers, callbacks, buffers' destructors) never runs under a lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// As [`lock`], or `None` while another thread holds the mutex.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

#[cfg(not(polyaio_loom))]
mod cell {
    /// `std`'s cell with loom's interface.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}
