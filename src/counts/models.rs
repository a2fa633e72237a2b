//! What loom checks of the counts: a cached write runs beside no other transfer, a close after all of them, and neither waits
//! for ever.
//!
//! What is run is the engine's own (`Counts`, `Closing`, and `Overlap` with transfers that are numbers). The file's bytes are a
//! cell: loom notices who comes there before another one has left, or has happened before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as PlainUsize, Ordering as Plain};

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;
use crate::overlap::{Footprint, Overlap, Pass, Passes};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(f);
}

struct Transfer {
    cached_write: bool,
    pass: Pass,
}

impl Passes for Transfer {
    fn pass(&mut self, pass: Pass) {
        self.pass = pass;
    }
}

#[derive(Default)]
struct File {
    counts: Counts,
    overlap: Overlap<Transfer>,
    closing: Closing<()>,
    /// `None`: it was closed.
    bytes: UnsafeCell<Option<u32>>,
    /// Transfers and closes that have run. No model explores them.
    transferred: PlainUsize,
    closed: PlainUsize,
}

// SAFETY: that this holds is what is explored.
#[allow(unsafe_code)]
unsafe impl Sync for File {}

impl File {
    fn new() -> Arc<Self> {
        Arc::new(Self { bytes: UnsafeCell::new(Some(0)), ..Self::default() })
    }

    /// An operation, from its begin to where it waits, or its end. Returns whether the file was open.
    fn operate(&self, cached_write: bool) -> bool {
        let begun = self.counts.begin(!cached_write);
        let mut transfer = Transfer { cached_write, pass: if begun.untracked { Pass::Untracked } else { Pass::None } };
        if begun.closed {
            self.end(transfer.pass);
            return false;
        }
        if begun.tracking {
            let pass = std::mem::take(&mut transfer.pass);
            self.overlap.give_back(&self.counts, pass, |next| self.run(next));
        }
        if transfer.pass == Pass::Untracked {
            self.run(transfer);
        } else {
            self.admit(transfer);
        }
        true
    }

    fn admit(&self, transfer: Transfer) {
        let cached_write = transfer.cached_write;
        let footprint = |_: &Transfer| Footprint { bytes: 0..4096, cached_write };
        self.overlap.admit(&self.counts, transfer, cached_write, footprint, |next| self.run(next));
    }

    fn run(&self, transfer: Transfer) {
        // SAFETY: as above.
        #[allow(unsafe_code)]
        unsafe {
            if transfer.cached_write {
                self.bytes.with_mut(|bytes| *(*bytes).as_mut().expect("it is open") += 1);
            } else {
                self.bytes.with(|bytes| assert!((*bytes).is_some(), "it is open"));
            }
        }
        self.transferred.fetch_add(1, Plain::Relaxed);
        self.end(transfer.pass);
    }

    /// As `OpenFile::end`.
    fn end(&self, pass: Pass) {
        let ended = self.counts.end(pass == Pass::Untracked);
        self.overlap.ended(&self.counts, pass, ended.writes, |next| self.run(next));
        if ended.close && self.closing.take().is_some() {
            self.close();
        }
    }

    fn begin_close(&self) {
        self.counts.close().expect("it is the only one");
        if self.closing.wait(&self.counts, ()).is_some() {
            self.close();
        }
    }

    fn close(&self) {
        // SAFETY: as above.
        #[allow(unsafe_code)]
        self.bytes.with_mut(|bytes| unsafe { *bytes = None });
        self.closed.fetch_add(1, Plain::Relaxed);
    }

    fn assert_over(&self, transferred: usize, closed: usize) {
        assert_eq!(self.transferred.load(Plain::Relaxed), transferred, "each transfer runs, and once");
        assert_eq!(self.closed.load(Plain::Relaxed), closed, "so does the close");
        assert_eq!((operations(self.counts.0.load(Ordering::SeqCst)), self.counts.has_untracked()), (0, false));
    }
}

fn spawn(file: &Arc<File>, f: impl FnOnce(&File) + 'static) -> thread::JoinHandle<()> {
    let file = file.clone();
    thread::spawn(move || f(&file))
}

/// A transfer that begins while the first cached write comes is waited for, or tracked.
#[test]
fn loom_a_transfer_and_the_first_cached_write() {
    model(|| {
        let file = File::new();
        let transfer = spawn(&file, |file| assert!(file.operate(false)));
        file.operate(true);
        transfer.join().expect("it does not panic");
        file.assert_over(2, 0);
    });
}

/// With two of them, each of which may be the last one.
#[test]
fn loom_two_transfers_and_the_first_cached_write() {
    model(|| {
        let file = File::new();
        let transfers = [(); 2].map(|()| spawn(&file, |file| assert!(file.operate(false))));
        file.operate(true);
        transfers.into_iter().for_each(|transfer| transfer.join().expect("it does not panic"));
        file.assert_over(3, 0);
    });
}

/// The same for one that has begun without a pass, and comes to the gate when it is sent: it had to wait for a slot.
#[test]
fn loom_a_transfer_admitted_later_and_the_first_cached_write() {
    model(|| {
        let file = File::new();
        let transfer = spawn(&file, |file| {
            file.counts.begin(false);
            file.admit(Transfer { cached_write: false, pass: Pass::None });
        });
        file.operate(true);
        transfer.join().expect("it does not panic");
        file.assert_over(2, 0);
    });
}

/// A pass that is given back lets the cached write go, although its operation goes on.
#[test]
fn loom_a_pass_given_back_and_the_first_cached_write() {
    model(|| {
        let file = File::new();
        let waits = spawn(&file, |file| {
            if file.counts.begin(true).untracked {
                file.overlap.give_back(&file.counts, Pass::Untracked, |next| file.run(next));
            }
        });
        file.operate(true);
        waits.join().expect("it does not panic");
        assert_eq!(file.transferred.load(Plain::Relaxed), 1, "before the other one has ended");
        file.end(Pass::None);
        file.assert_over(1, 0);
    });
}

/// A close waits for an operation that begins at the same time, or that one is refused.
#[test]
fn loom_a_close_and_operations_that_begin() {
    model(|| {
        let file = File::new();
        let others = [(); 2].map(|()| {
            let file = file.clone();
            thread::spawn(move || file.operate(false))
        });
        file.begin_close();
        let open = others.map(|other| other.join().expect("it does not panic"));
        file.assert_over(open.into_iter().filter(|open| *open).count(), 1);
    });
}

/// A close behind a cached write that waits for a transfer.
#[test]
fn loom_a_close_behind_a_cached_write_that_waits() {
    model(|| {
        let file = File::new();
        let transfer = spawn(&file, |file| assert!(file.operate(false)));
        let write = {
            let begun = file.counts.begin(false);
            assert!(!begun.closed);
            spawn(&file, |file| file.admit(Transfer { cached_write: true, pass: Pass::None }))
        };
        transfer.join().expect("it does not panic");
        file.begin_close();
        write.join().expect("it does not panic");
        file.assert_over(2, 1);
    });
}
