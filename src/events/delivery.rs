//! The feature `tracing` is on: events are kept back while something is half done, then given to the subscriber.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::path::Path;

use tracing::level_filters::LevelFilter;
use tracing::{debug, error, info, trace, warn};

use super::Event;
use crate::descriptor::OpenFile;
use crate::dispatch::{Core, Lane};
use crate::request::contain;
use crate::router::policy::Candidate;

const ENGINE: &str = "polyaio::engine";
const FILE: &str = "polyaio::file";
const REQUEST: &str = "polyaio::request";

/// Events that one thread keeps back at the most: many times what the longest loop of completions raises. Over it, the
/// newest are lost, and the loss is told.
const MOST: usize = 4096;

thread_local! {
    /// How many [`Hold`]s this thread has.
    static HOLDS: Cell<usize> = const { Cell::new(0) };
    /// The subscriber is being called on this thread.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static RAISED: RefCell<Raised> = const { RefCell::new(Raised { events: VecDeque::new(), lost: 0 }) };
}

struct Raised {
    events: VecDeque<Event>,
    lost: u64,
}

/// Keeps events of this thread back for as long as it lives.
pub(crate) struct Hold(PhantomData<*const ()>);

pub(crate) fn hold() -> Hold {
    HOLDS.set(HOLDS.get() + 1);
    Hold(PhantomData)
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
        deliver();
    }
}

/// Whether the subscriber is being called on this thread: what begins here is its own doing.
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
}

/// Raises an event, if anybody may listen.
pub(crate) fn raise(event: impl FnOnce() -> Event) {
    if LevelFilter::current() != LevelFilter::OFF {
        keep(event());
        deliver();
    }
}

/// As [`raise`], for ends of requests, of which there are many and which few listen to. `quiet`: the subscriber's own doing.
pub(crate) fn raise_completed(quiet: bool, event: impl FnOnce() -> Event) {
    if LevelFilter::current() == LevelFilter::TRACE && !quiet {
        keep(event());
        deliver();
    }
}

fn keep(event: Event) {
    // A thread that is ending has no such list any more.
    let _ = RAISED.try_with(|raised| {
        let mut raised = raised.borrow_mut();
        if raised.events.len() < MOST {
            raised.events.push_back(event);
        } else {
            raised.lost += 1;
        }
    });
}

/// Gives the subscriber what was raised, unless something is half done. One at a time: what is raised meanwhile comes
/// behind it.
fn deliver() {
    if HOLDS.get() > 0 || INSIDE.get() {
        return;
    }
    while let Some(event) = next() {
        call(|| event.emit());
    }
}

fn next() -> Option<Event> {
    let next = RAISED.try_with(|raised| {
        let mut raised = raised.borrow_mut();
        if raised.events.is_empty() && raised.lost > 0 {
            return Some(Event::Anomaly { what: "events were lost", count: std::mem::take(&mut raised.lost) });
        }
        raised.events.pop_front()
    });
    next.ok().flatten()
}

fn call(f: impl FnOnce()) {
    INSIDE.set(true);
    contain(f);
    INSIDE.set(false);
}

/// Calls the subscriber here and now, unless it is what brought us here. No lock is held, and nothing is half done.
fn tell(f: impl FnOnce()) {
    if !INSIDE.get() {
        call(f);
        deliver();
    }
}

impl Event {
    fn emit(self) {
        match self {
            Self::Fallback { reason, errno, from, to, kind } => {
                let (errno, kind, reason) = (errno.map(|e| e.0), kind.map(tracing::field::debug), reason.as_str());
                debug!(target: REQUEST, reason, errno, from, to, kind, "fallback");
            }
            Self::Demoted { backend, class, errno } => {
                info!(target: FILE, backend, class = ?class, errno = errno.0, "backend demoted for a file");
            }
            Self::Resting { backend, class, reason } => {
                info!(target: FILE, backend, class = ?class, reason = reason.as_str(), "backend rests for a file");
            }
            Self::Completed { served_by, kind, outcome, nowait, fallbacks } => {
                let bytes = outcome.ok().filter(|_| kind.is_transfer());
                let errno = outcome.err().map(|errno| errno.0);
                let fallbacks = (!fallbacks.is_empty()).then(|| tracing::field::display(fallbacks));
                trace!(target: REQUEST, served_by, kind = ?kind, bytes, errno, nowait, fallbacks, "request completed");
            }
            Self::Degraded { backend, reason } => warn!(target: ENGINE, backend, reason, "backend degraded"),
            Self::Anomaly { what, count } => error!(target: ENGINE, what, count, "anomaly"),
        }
    }
}

/// Tells of the engine, of each backend that did not start, and of each that works below what was asked for.
pub(crate) fn engine_started(core: &Core) {
    let backends = || core.lanes.iter().zip(&core.settings.candidates);
    tell(|| {
        let started: Vec<_> = backends().filter(|(lane, _)| lane.backend.is_some()).map(|(_, c)| c.name).collect();
        let (strict, required) = (core.settings.strict, core.settings.required);
        debug!(target: ENGINE, backends = started.join(", "), strict, required, "engine started");
    });
    for (index, (lane, candidate)) in backends().enumerate() {
        tell(|| backend_started(lane, candidate, core.settings.order.contains(&(index as u8))));
    }
}

/// `wanted`: the policy would have used it.
fn backend_started(lane: &Lane, candidate: &Candidate, wanted: bool) {
    let backend = candidate.name;
    match (&candidate.missing, &lane.backend) {
        (Some(reason), _) if wanted => warn!(target: ENGINE, backend, reason = &**reason, "backend did not start"),
        (Some(reason), _) => debug!(target: ENGINE, backend, reason = &**reason, "backend did not start"),
        (None, started) => {
            if let Some(reason) = started.as_ref().and_then(|started| started.degraded()) {
                warn!(target: ENGINE, backend, reason, "backend degraded");
            }
        }
    }
}

pub(crate) fn file_opened(file: &OpenFile, path: Option<&Path>) {
    if LevelFilter::current() < LevelFilter::DEBUG {
        return;
    }
    tell(|| {
        let facts = &file.facts;
        debug!(
            target: FILE,
            path = path.map(|path| tracing::field::display(path.display())),
            fd = file.descriptor(),
            kind = %facts.kind,
            file_system = %facts.file_system,
            direct = facts.direct,
            alignment = facts.alignment.map(tracing::field::display),
            append = facts.append,
            readable = facts.readable,
            writable = facts.writable,
            route = %file.route(),
            "file opened"
        );
    });
}

pub(crate) fn shutdown(what: &'static str) {
    tell(|| debug!(target: ENGINE, "{what}"));
}
