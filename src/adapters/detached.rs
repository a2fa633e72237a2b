//! What an adapter has accepted and not written when it is dropped: a task of its own, run by whoever wakes it.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use super::cursor::Cursor;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// Writes what is left in `cursor`. Nobody hears of errors.
pub(super) fn finish(cursor: Cursor) {
    let task = Arc::new(Task { wakes: AtomicUsize::new(0), cursor: Mutex::new(Some(cursor)) });
    task.run();
}

struct Task {
    /// Calls since the last look; who makes it 1 is the one who looks.
    wakes: AtomicUsize,
    cursor: Mutex<Option<Cursor>>,
}

impl Task {
    fn run(self: &Arc<Self>) {
        if self.wakes.fetch_add(1, Ordering::AcqRel) != 0 {
            return;
        }
        let waker = Waker::from(self.clone());
        let mut seen = 1;
        loop {
            // Taken out: nothing foreign runs under the lock.
            let Some(mut cursor) = lock(&self.cursor).take() else { return };
            if cursor.poll_flush(&mut Context::from_waker(&waker)).is_ready() {
                // It never becomes 0 again: nobody looks any more.
                return;
            }
            *lock(&self.cursor) = Some(cursor);
            match self.wakes.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(more) => seen = more,
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.run();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.run();
    }
}
