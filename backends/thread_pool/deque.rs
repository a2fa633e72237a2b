//! The deques that distribute jobs: `crossbeam-deque`, or a stand-in that loom can see into.
//!
//! `crossbeam-deque` is not loom-aware, so the models run on mutexed queues of the same interface. They check *our* part:
//! who is woken when, who may leave, and that every job is taken once. The deque's own correctness is crossbeam's.

cfg_if::cfg_if! {
    if #[cfg(polyaio_loom)] {
        pub(super) use self::stand_in::{Injector, Local, Stealer};
    } else {
        pub(super) use self::real::{Injector, Local, Stealer};
    }
}

#[cfg(not(polyaio_loom))]
mod real {
    use crossbeam_deque::{Steal, Worker};

    /// The queue that submitters push to.
    pub(in super::super) struct Injector<T>(crossbeam_deque::Injector<T>);

    /// One worker's own queue.
    pub(in super::super) struct Local<T>(Worker<T>);

    /// Other workers' access to a [`Local`].
    pub(in super::super) struct Stealer<T>(crossbeam_deque::Stealer<T>);

    impl<T> Injector<T> {
        pub(in super::super) fn new() -> Self {
            Self(crossbeam_deque::Injector::new())
        }

        pub(in super::super) fn push(&self, job: T) {
            self.0.push(job);
        }

        /// The oldest job, and with it up to `batch - 1` more for `local`.
        pub(in super::super) fn take_batch(&self, local: &Local<T>, batch: usize) -> Option<T> {
            insist(|| self.0.steal_batch_with_limit_and_pop(&local.0, batch))
        }

        pub(in super::super) fn take(&self) -> Option<T> {
            insist(|| self.0.steal())
        }

        pub(in super::super) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl<T> Local<T> {
        pub(in super::super) fn new() -> Self {
            Self(Worker::new_fifo())
        }

        pub(in super::super) fn stealer(&self) -> Stealer<T> {
            Stealer(self.0.stealer())
        }

        pub(in super::super) fn pop(&self) -> Option<T> {
            self.0.pop()
        }
    }

    impl<T> Stealer<T> {
        pub(in super::super) fn take(&self) -> Option<T> {
            insist(|| self.0.steal())
        }

        pub(in super::super) fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// Repeats an attempt that lost a race. Each loss is another thread's gain, so the loop is lock-free: it ends after
    /// as many rounds as there are rivals.
    fn insist<T>(mut attempt: impl FnMut() -> Steal<T>) -> Option<T> {
        loop {
            match attempt() {
                Steal::Success(job) => return Some(job),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }
}

#[cfg(polyaio_loom)]
mod stand_in {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use crate::sync::{Mutex, lock};

    type Jobs<T> = Mutex<VecDeque<T>>;

    pub(in super::super) struct Injector<T>(Jobs<T>);

    pub(in super::super) struct Local<T>(Arc<Jobs<T>>);

    pub(in super::super) struct Stealer<T>(Arc<Jobs<T>>);

    impl<T> Injector<T> {
        pub(in super::super) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(in super::super) fn push(&self, job: T) {
            lock(&self.0).push_back(job);
        }

        pub(in super::super) fn take_batch(&self, local: &Local<T>, batch: usize) -> Option<T> {
            let mut jobs = lock(&self.0);
            let first = jobs.pop_front();
            // As crossbeam: half of what is there at the most.
            let more = (jobs.len() / 2).min(batch - 1);
            if more > 0 {
                lock(&local.0).extend(jobs.drain(..more));
            }
            first
        }

        pub(in super::super) fn take(&self) -> Option<T> {
            lock(&self.0).pop_front()
        }

        pub(in super::super) fn is_empty(&self) -> bool {
            lock(&self.0).is_empty()
        }
    }

    impl<T> Local<T> {
        pub(in super::super) fn new() -> Self {
            Self(Arc::new(Mutex::new(VecDeque::new())))
        }

        pub(in super::super) fn stealer(&self) -> Stealer<T> {
            Stealer(self.0.clone())
        }

        pub(in super::super) fn pop(&self) -> Option<T> {
            lock(&self.0).pop_front()
        }
    }

    impl<T> Stealer<T> {
        pub(in super::super) fn take(&self) -> Option<T> {
            lock(&self.0).pop_front()
        }

        pub(in super::super) fn is_empty(&self) -> bool {
            lock(&self.0).is_empty()
        }
    }
}
