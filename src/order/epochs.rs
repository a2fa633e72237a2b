//! Writes that are counted without a lock, until a barrier comes.
//!
//! The number of the current epoch and its unfinished writes are one atomic word. A write adds itself, and learns by that in
//! which epoch it is; at its end it takes itself off while that epoch is the current one. A barrier, which has the lock,
//! changes the number and takes the count in one step: from then on the writes of that epoch end under the lock. So each write
//! is counted out where it is counted.
//!
//! A write ends with a release and a barrier begins by acquiring: what the writes did that it finds ended has happened before
//! it goes on. Of the others the last one to end has the lock after them.

use std::collections::VecDeque;

use crate::sync::atomic::{AtomicU64, Ordering};

/// The current epoch (40 bits, which wrap around), and its unfinished writes (24 bits; each has a slot, of which there are two
/// million at the most).
#[derive(Default)]
pub(super) struct Epochs(AtomicU64);

/// One epoch.
const EPOCH: u64 = 1 << 24;
/// All writes of one.
const WRITES: u64 = EPOCH - 1;
/// All epochs.
const EPOCHS: u64 = u64::MAX / EPOCH;

/// What is behind the lock: unfinished writes of the epochs before the current one, and the barriers that wait for them.
pub(super) struct Barriers<T> {
    /// Unfinished writes of each, oldest first. The oldest has some.
    before: VecDeque<u64>,
    /// The number of the oldest; of the current epoch, where there is none before it.
    oldest: u64,
    /// Each with the epoch that it waits for.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Default for Barriers<T> {
    fn default() -> Self {
        Self { before: VecDeque::new(), oldest: 0, waiting: VecDeque::new() }
    }
}

impl Epochs {
    /// Counts a write; returns its epoch.
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) / EPOCH
    }

    /// Counts a write of the current epoch down, for which nobody waits. `false`: it is of an earlier one.
    #[inline]
    pub(super) fn count_down(&self, epoch: u64) -> bool {
        let mut now = self.0.load(Ordering::Relaxed);
        while now / EPOCH == epoch {
            match self.0.compare_exchange_weak(now, now - 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }

    /// Ends the current epoch; returns its unfinished writes. `None`: it has none, and goes on.
    fn turn(&self) -> Option<u64> {
        let next = |now: u64| (now & WRITES > 0).then(|| (now & !WRITES).wrapping_add(EPOCH));
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok().map(|before| before & WRITES)
    }
}

impl<T> Barriers<T> {
    /// Ends the current epoch, and keeps the barrier until its writes and all before them have ended; hands it back where they
    /// have.
    pub(super) fn wait(&mut self, epochs: &Epochs, barrier: T) -> Option<T> {
        // Without a write since the last barrier this one waits for the same epoch.
        self.before.extend(epochs.turn());
        let Some(last) = self.before.len().checked_sub(1) else { return Some(barrier) };
        self.waiting.push_back((self.oldest.wrapping_add(last as u64) & EPOCHS, barrier));
        None
    }

    /// Counts a write down that is not of the current epoch; returns the barriers that it was the last to hold back.
    pub(super) fn count_down(&mut self, epoch: u64) -> VecDeque<T> {
        let at = self.place(epoch);
        self.before[at] -= 1;
        while self.before.front() == Some(&0) {
            self.before.pop_front();
            self.oldest = self.oldest.wrapping_add(1) & EPOCHS;
        }
        let reached = self.waiting.iter().take_while(|(epoch, _)| self.place(*epoch) >= self.before.len()).count();
        // Draining nothing allocates nothing.
        self.waiting.drain(..reached).map(|(_, barrier)| barrier).collect()
    }

    /// Takes out a barrier that waits.
    pub(super) fn withdraw(&mut self, is: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.waiting.iter().position(|(_, barrier)| is(barrier))?;
        self.waiting.remove(at).map(|(_, barrier)| barrier)
    }

    /// The place of an epoch among those that have unfinished writes; beyond all of them, where it is over.
    fn place(&self, epoch: u64) -> usize {
        usize::try_from(epoch.wrapping_sub(self.oldest) & EPOCHS).unwrap_or(usize::MAX)
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn epochs_wrap_around() {
        let epochs = Epochs(AtomicU64::new(EPOCHS * EPOCH));
        let mut barriers = Barriers { oldest: EPOCHS, ..Barriers::default() };
        let last = epochs.count();
        assert_eq!(barriers.wait(&epochs, 1), None);
        let first = epochs.count();
        assert_eq!((last, first), (EPOCHS, 0));
        assert_eq!(barriers.wait(&epochs, 2), None);
        let current = epochs.count();
        assert!(epochs.count_down(current));
        assert!(!epochs.count_down(first));
        assert!(barriers.count_down(first).is_empty(), "the last one before it has a write");
        assert!(!epochs.count_down(last));
        assert_eq!(barriers.count_down(last), [1, 2]);
        assert_eq!(barriers.wait(&epochs, 3), Some(3));
    }
}

#[cfg(all(test, polyaio_loom))]
mod models {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize as PlainUsize, Ordering as Plain};

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;
    use crate::sync::{Mutex, lock};

    fn model(f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(f);
    }

    /// A file with what each of its writes has written: loom notices a barrier that is released before.
    #[derive(Default)]
    struct File {
        epochs: Epochs,
        barriers: Mutex<Barriers<Barrier>>,
        written: [UnsafeCell<bool>; 3],
        /// Barriers released so far. No model explores it.
        released: PlainUsize,
    }

    // SAFETY: that this holds is what is explored.
    #[allow(unsafe_code)]
    unsafe impl Sync for File {}

    /// Which writes it has to wait for.
    type Barrier = &'static [usize];

    impl File {
        /// The write of an epoch is over.
        fn end(&self, write: usize, epoch: u64) {
            // SAFETY: as above.
            #[allow(unsafe_code)]
            self.written[write].with_mut(|written| unsafe { *written = true });
            if !self.epochs.count_down(epoch) {
                let released = lock(&self.barriers).count_down(epoch);
                released.into_iter().for_each(|barrier| self.release(barrier));
            }
        }

        fn barrier(&self, waits_for: Barrier) {
            let passes = lock(&self.barriers).wait(&self.epochs, waits_for);
            passes.into_iter().for_each(|barrier| self.release(barrier));
        }

        fn release(&self, waits_for: Barrier) {
            for write in waits_for {
                // SAFETY: as above.
                #[allow(unsafe_code)]
                self.written[*write].with(|written| assert!(unsafe { *written }, "before the write's end"));
            }
            self.released.fetch_add(1, Plain::Relaxed);
        }

        fn released(&self) -> usize {
            self.released.load(Plain::Relaxed)
        }
    }

    fn spawn(file: &Arc<File>, f: impl FnOnce(&File) + 'static) -> thread::JoinHandle<()> {
        let file = file.clone();
        thread::spawn(move || f(&file))
    }

    /// Two writes end while a barrier comes: it is released once, after both.
    #[test]
    fn loom_a_barrier_and_the_ends_of_writes() {
        model(|| {
            let file = Arc::new(File::default());
            let ends = [0, 1].map(|write| {
                let epoch = file.epochs.count();
                spawn(&file, move |file| file.end(write, epoch))
            });
            file.barrier(&[0, 1]);
            ends.into_iter().for_each(|end| end.join().expect("it does not panic"));
            assert_eq!(file.released(), 1);
        });
    }

    /// One write begins and ends while a barrier comes, which has to wait for another one; it may wait for both.
    #[test]
    fn loom_a_barrier_and_a_write_that_begins() {
        model(|| {
            let file = Arc::new(File::default());
            let before = file.epochs.count();
            let passing = spawn(&file, |file| {
                let epoch = file.epochs.count();
                file.end(1, epoch);
            });
            let end = spawn(&file, move |file| file.end(0, before));
            file.barrier(&[0]);
            passing.join().expect("it does not panic");
            end.join().expect("it does not panic");
            assert_eq!(file.released(), 1);
            assert!(lock(&file.barriers).before.is_empty());
            assert_eq!(file.epochs.0.load(Ordering::Relaxed) & WRITES, 0);
        });
    }

    /// Two barriers come at the same time as a write ends; a write that begins after both holds neither back.
    #[test]
    fn loom_two_barriers_and_no_later_write() {
        model(|| {
            let file = Arc::new(File::default());
            let epoch = file.epochs.count();
            let end = spawn(&file, move |file| file.end(0, epoch));
            let other = spawn(&file, |file| file.barrier(&[0]));
            file.barrier(&[0]);
            other.join().expect("it does not panic");
            let later = file.epochs.count();
            end.join().expect("it does not panic");
            assert_eq!(file.released(), 2, "the later one is unfinished");
            file.end(1, later);
            assert_eq!(file.released(), 2);
        });
    }
}
