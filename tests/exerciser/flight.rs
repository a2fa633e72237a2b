//! Operations in flight together: begun in order, dropped, cancelled, or brought to their ends.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use polyaio::backend::CancelOutcome;
use polyaio::{Engine, File};

use crate::model::same;
use crate::ops::{self, Done, Place, Running};
use crate::plan::{Act, Drive, End, Piece};
use crate::tools::park_on;
use crate::witness::Witness;

/// An operation, what it should do, and what it has done.
pub(crate) struct Item {
    pub(crate) piece: Piece,
    pub(crate) place: Place,
    /// Where it lands.
    pub(crate) range: Range<u64>,
    /// Where it was sent, and how long it is.
    given: Range<u64>,
    /// What it writes.
    pub(crate) data: Vec<u8>,
    /// What was there before a write, as far as the file reached.
    pub(crate) before: Vec<u8>,
    /// The rules say no.
    pub(crate) refused: bool,
    /// The file system cannot do it.
    pub(crate) unsupported: bool,
    running: Option<Box<dyn Running>>,
    pub(crate) cancelled: Option<CancelOutcome>,
    pub(crate) done: Option<Done>,
}

impl Item {
    pub(crate) fn new(mut piece: Piece, place: Place, range: Range<u64>) -> Self {
        if matches!(piece.act, Act::Punch | Act::Allocate) {
            // Whether it has happened would have to be found out.
            piece.end = End::Wait;
        }
        Self {
            piece,
            place,
            given: range.clone(),
            range,
            data: Vec::new(),
            before: Vec::new(),
            refused: false,
            unsupported: false,
            running: None,
            cancelled: None,
            done: None,
        }
    }

    /// It has promised to do nothing.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled == Some(CancelOutcome::Cancelled)
    }

    /// A write that has all of its bytes in the file, on every run.
    pub(crate) fn is_certain(&self) -> bool {
        self.piece.end == End::Wait && self.count() == Some(self.data.len() as u64)
    }

    /// The bytes that it says it has transferred.
    fn count(&self) -> Option<u64> {
        self.done.as_ref().and_then(|done| done.result.as_ref().ok().copied())
    }

    /// Checks what is in the range of a write that may not have happened, or not all of it.
    pub(crate) fn check_what_landed(&self, have: &[u8]) -> Result<(), String> {
        let before = |at: usize| self.before.get(at).copied().unwrap_or(0);
        let sure = if self.is_cancelled() { Some(0) } else { self.count().map(|n| n as usize) };
        let odd = |(at, byte): (usize, &u8)| match sure {
            Some(n) => *byte != if at < n { self.data[at] } else { before(at) },
            None => *byte != self.data[at] && *byte != before(at),
        };
        match have.iter().enumerate().position(odd) {
            Some(at) => {
                Err(format!("byte {} is {:#04x}, {sure:?} bytes have landed", self.range.start + at as u64, have[at]))
            }
            None => Ok(()),
        }
    }

    fn start(&self, file: &File) -> Box<dyn Running> {
        let length = self.given.end - self.given.start;
        match self.piece.act {
            Act::Read(form) => ops::read(file, form, self.piece.unit, self.place, length as usize),
            Act::Write(form) => ops::write(file, form, self.piece.unit, self.place, &self.data),
            act => ops::control(file, act, self.given.start, length),
        }
    }

    /// Polls once, unless it is over; returns whether it has ended just now.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Some(running) = &mut self.running else { return false };
        let Poll::Ready(done) = running.poll(context) else { return false };
        (self.running, self.done) = (None, Some(done));
        true
    }

    fn give_up(&mut self) {
        let (End::Drop(polls) | End::Cancel(polls)) = self.piece.end else { return };
        // The first one was to begin it.
        for _ in 1..polls {
            self.poll(&mut Context::from_waker(Waker::noop()));
        }
        match self.piece.end {
            End::Drop(_) => self.running = None,
            _ => self.cancelled = self.running.as_mut().map(|running| running.cancel()),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {:?} ({:?}, unit {})", self.piece.act, self.range, self.piece.end, self.piece.unit)
    }
}

/// Runs them all. `short`: a write that has ended may have written a part.
///
/// # Errors
/// A sync that was over before a write that had been submitted earlier.
pub(crate) fn fly(
    engine: &Engine,
    file: &File,
    witness: &Witness,
    items: &mut [Item],
    drive: Drive,
    short: bool,
) -> Result<(), String> {
    for item in items.iter_mut() {
        item.running = Some(item.start(file));
        if item.piece.end != End::Cancel(0) {
            item.poll(&mut Context::from_waker(Waker::noop()));
        }
    }
    items.iter_mut().for_each(Item::give_up);
    let mut covered = Ok(());
    let mut poll = |context: &mut Context<'_>| {
        for at in 0..items.len() {
            if items[at].poll(context) && items[at].piece.act.is_sync() && covered.is_ok() {
                covered = check_covered(witness, items, at, short);
            }
        }
        if items.iter().all(|item| item.running.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    };
    drive_to_the_end(engine, drive, &mut poll);
    covered
}

fn drive_to_the_end(engine: &Engine, drive: Drive, poll: &mut (dyn FnMut(&mut Context<'_>) -> Poll<()> + '_)) {
    match drive {
        Drive::BlockOn => engine.block_on(poll_fn(poll)),
        Drive::Elsewhere => park_on(poll_fn(poll)),
        Drive::Turn => {
            while poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                engine.turn(1, 64, Some(Duration::from_millis(20)));
            }
        }
    }
}

/// The sync at `at` has ended: what was written before it is in the file, whether its future knows it or not.
fn check_covered(witness: &Witness, items: &[Item], at: usize, short: bool) -> Result<(), String> {
    if items[at].done.as_ref().is_some_and(|done| done.result.is_err()) {
        return Ok(());
    }
    for item in &items[..at] {
        let Act::Write(form) = item.piece.act else { continue };
        let certain = item.piece.end == End::Wait && !item.refused && (form.whole || !short);
        if certain {
            same(&witness.read(&item.range), &item.data, item.range.start)
                .map_err(|error| format!("{} has not covered {item}: {error}", items[at]))?;
        }
    }
    Ok(())
}

/// Runs one.
pub(crate) fn wait(engine: &Engine, mut running: Box<dyn Running>) -> Done {
    engine.block_on(poll_fn(|context| running.poll(context)))
}
