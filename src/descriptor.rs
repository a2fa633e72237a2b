//! What requests run against: a handle, what is known and learnt of it, and the order that its requests keep.
//!
//! Every request holds a strong reference to its [`OpenFile`]: the descriptor is closed after the last of them, so that a
//! number that was used again never receives somebody else's request.

#![allow(unsafe_code)]

mod alignment;
mod answer;
mod passing;

use std::any::Any;
use std::io;
use std::sync::Arc;

use crate::completion::{Errno, Outcome};
use crate::counts::Counts;
use crate::dispatch::{Completing, Core, Lane};
use crate::error::Error;
use crate::events::{self, Event};
use crate::extent::{Extent, Reach};
use crate::how::{Durability, How};
use crate::inline::Transfer;
use crate::memory::{IoVec, MOST_IOVECS};
use crate::op::Shape;
use crate::order::{self, Order};
use crate::os::{self, AsFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use crate::overlap::{Footprint, Overlap, Pass};
use crate::request::{Anomaly, OpKind, Owner, RawHandle, Request, RequestId, Trail};
use crate::route::Route;
use crate::router::facts::{self, Alignment, Facts, FileKind};
use crate::router::fallback::{self, Action, Asked, Memory, Reason, Reasons};
use crate::router::learned::{INLINE, Learned, PassedOver};
use crate::router::policy::{self, Class, Inline, Plan, Plans, Step};
use crate::router::strict::{self, Asking};
use crate::settle::{self, Tally, Witness};
use crate::slot::Slab;
use crate::stats::BackendCounters;
use crate::stream::Stream;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::trace::Trace;
use crate::twin::Twin;
use crate::warmth::Warmth;

/// What the choice of a backend has to know of a request.
#[derive(Clone, Copy, Debug)]
struct Needs {
    reach: Reach,
    /// NOWAIT would be refused, going by what it answered to such requests before.
    hopeless: bool,
}

/// An open file as the engine knows it; shared by all clones of a [`File`](crate::File) and their requests.
pub(crate) struct OpenFile {
    pub(crate) core: Arc<Core>,
    pub(crate) handle: RawHandle,
    pub(crate) facts: Facts,
    /// Operations that use it.
    pub(crate) counts: Counts,
    order: Order,
    /// Keeps requests apart that would lose each other's bytes.
    overlap: Overlap,
    /// The same file through the page cache, for what direct I/O refuses.
    twin: Twin,
    /// For descriptors without offsets.
    pub(crate) stream: Option<Arc<Stream>>,
    plans: Arc<Plans>,
    learned: Learned,
    /// For reads in the caller.
    warmth: Warmth,
    extent: Extent,
    /// A close has run: the number may be somebody else's by now.
    gone: AtomicBool,
    /// The backend that opened a virtual file.
    own: Option<u8>,
}

/// How a request begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    pub(crate) backend: u8,
    /// Whether to ask it with NOWAIT.
    pub(crate) nowait: bool,
    /// Why it is not the first of the plan, where it is not.
    pub(crate) reasons: Reasons,
    /// One at a time, with the others of the file: the file system would let them wait for each other, a worker each.
    pub(crate) in_turn: bool,
    /// Direct I/O refuses it for its alignment.
    pub(crate) misaligned: bool,
    /// A write that makes the file longer, as far as is known.
    pub(crate) grows: bool,
}

impl First {
    fn at(backend: u8) -> Self {
        Self { backend, nowait: false, reasons: Reasons::NONE, in_turn: false, misaligned: false, grows: false }
    }
}

impl OpenFile {
    /// Takes over a descriptor of the operating system.
    pub(crate) fn adopt(
        core: Arc<Core>,
        fd: OwnedFd,
        direct_refused: Option<Errno>,
        emulated: Option<Alignment>,
    ) -> Result<Arc<Self>, Error> {
        let facts = Facts::gather(fd.as_fd(), direct_refused)
            .map_err(|errno| Error::System { what: "the descriptor cannot be used", source: errno.into() })?
            .emulating(emulated);
        if direct_refused.is_some() {
            core.counters.fallback(Reason::DirectRefused);
            let (reason, errno, kind) = (Reason::DirectRefused, direct_refused, None);
            if !events::is_inside() {
                events::raise(|| Event::Fallback { reason, errno, from: "direct", to: "buffered", kind });
            }
        }
        Ok(Self::new(core, RawHandle::Descriptor(fd.into_raw_fd()), facts, None))
    }

    pub(crate) fn new(core: Arc<Core>, handle: RawHandle, facts: Facts, own: Option<u8>) -> Arc<Self> {
        let plans = Class::ALL.map(|class| policy::plan(&facts, own, class, &core.settings));
        let missing = |plan: &Plan| plan.passed.iter().any(|(_, why)| matches!(why, policy::Why::NotStarted(_)));
        if [Class::Read, Class::Write, Class::Sync].iter().any(|class| missing(&plans[*class as usize])) {
            core.counters.fallback(Reason::NotStarted);
            raise_detour(&core, &plans, Reason::NotStarted);
        }
        if core.settings.passes_over_a_named_one(&facts, &plans) {
            core.counters.fallback(Reason::PassedOver);
            raise_detour(&core, &plans, Reason::PassedOver);
        }
        Self::with_plans(core, handle, facts, own, plans)
    }

    /// What operations run against that concern no file yet.
    pub(crate) fn none(core: Arc<Core>) -> Arc<Self> {
        Self::with_plans(core, RawHandle::Virtual(0), Facts::of_virtual(1), None, Default::default())
    }

    fn with_plans(core: Arc<Core>, handle: RawHandle, facts: Facts, own: Option<u8>, plans: Plans) -> Arc<Self> {
        let stream = match handle {
            RawHandle::Descriptor(fd) if facts.is_stream() => Some(Arc::new(Stream::new(fd, &facts))),
            _ => None,
        };
        let warmth = Warmth::new(match (plans[Class::Read as usize].inline, handle) {
            (Inline::PageCache(_), RawHandle::Descriptor(fd)) => Some(fd),
            _ => None,
        });
        let extent = Extent::new(&facts, handle);
        let plans = core.plans.share(plans);
        Arc::new(Self {
            core,
            handle,
            facts,
            counts: Counts::default(),
            order: Order::default(),
            overlap: Overlap::default(),
            twin: Twin::default(),
            stream,
            plans,
            learned: Learned::default(),
            warmth,
            extent,
            gone: AtomicBool::new(false),
            own,
        })
    }

    #[inline]
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match self.handle {
            RawHandle::Descriptor(fd) => Some(fd),
            RawHandle::Virtual(_) => None,
        }
    }

    /// What each operation would be served by now, and why.
    pub(crate) fn route(&self) -> Route {
        let refuses = |kind| self.stream.as_ref().is_some_and(|stream| stream.refuses_nowait(kind));
        let refuses = [refuses(OpKind::Read), refuses(OpKind::Write)];
        let in_stead = (self.core.pool, self.core.lanes[usize::from(self.core.stream_workers)].name);
        Route::new(&self.facts, &self.core.settings, &self.plans, &self.learned, refuses, in_stead)
    }

    // ----- before a request exists ----------------------------------------------------------------------------------

    /// Checks once, above the backends, what every backend would have to check. `Some` is a result that needs no backend.
    pub(crate) fn validate(&self, shape: &Shape, memory: &[IoVec]) -> Option<Outcome> {
        let allowed = match shape.kind {
            OpKind::Read => self.facts.readable,
            OpKind::Write => self.facts.writable,
            _ => true,
        };
        let beyond = |position: u64| position.checked_add(shape.length()).is_none_or(|end| end > i64::MAX as u64);
        let transfer = shape.kind.is_transfer();
        let error = match shape.position {
            _ if transfer && self.facts.kind == FileKind::Directory => libc::EISDIR,
            _ if !allowed => libc::EBADF,
            Some(position) if transfer && position > i64::MAX as u64 => libc::EINVAL,
            Some(position) if transfer && self.stream.is_some() && position != 0 => libc::ESPIPE,
            _ if shape.how.append && self.stream.is_some() => libc::ESPIPE,
            _ if shape.how.durability != Durability::Later && self.stream.is_some() => libc::EOPNOTSUPP,
            _ if shape.how.priority.is_some_and(|priority| priority.to_ioprio().is_none()) => libc::EINVAL,
            _ if shape.how.look && self.stream.is_some() => return None,
            _ if transfer && shape.length() == 0 => return Some(Ok(0)),
            Some(position) if beyond(position) => libc::EINVAL,
            _ => return self.ruled_out(shape, memory),
        };
        Some(Err(Errno(error)))
    }

    /// Whether reads may complete in the caller's thread.
    #[inline]
    pub(crate) fn reads_in_the_caller(&self) -> bool {
        self.plans[Class::Read as usize].inline != Inline::Never
    }

    /// Tries to complete a transfer in the caller's thread. Returns the bytes transferred, and whether that is all.
    ///
    /// # Safety
    /// The memory may be used for what the shape's kind says during the call.
    pub(crate) unsafe fn inline(&self, shape: &Shape, memory: &[IoVec]) -> Option<Outcome> {
        let (Some(position), Some(fd)) = (shape.position, self.descriptor()) else { return None };
        let plan = &self.plans[Class::of(shape.kind, true) as usize];
        let (len, nowait) = (shape.length(), shape.how.nowait);
        if memory.len() > MOST_IOVECS || shape.how.append || shape.how.durability != Durability::Later {
            return None;
        }
        let transfer = Transfer { kind: shape.kind, fd, position: shape.position, memory };
        let outcome = match plan.inline {
            // SAFETY: forwarded to the caller; the descriptor is open because the caller has begun an operation.
            Inline::Memory(most) if len <= most as u64 => unsafe { transfer.plain() },
            // What would block is the caller's affair, if that is the wish.
            // SAFETY: as above.
            Inline::PageCache(most) if len <= most as u64 && nowait => unsafe { transfer.nowait() },
            Inline::PageCache(most) if len <= most as u64 && self.learned.nowait(Class::Read, INLINE) => {
                // SAFETY: as above.
                let cached = unsafe { self.cached_read(fd, position, shape, transfer) };
                if cached.is_none() {
                    self.warmth.miss();
                    self.core.counters.inline_misses.add(1);
                }
                cached?
            }
            _ => return None,
        };
        events::raise_completed(events::is_inside(), || Event::Completed {
            served_by: Trace::INLINE,
            kind: shape.kind,
            outcome,
            nowait: matches!(plan.inline, Inline::PageCache(_)),
            fallbacks: Reasons::NONE,
        });
        self.core.counters.inline_requests.add(1);
        self.core.counters.inline_bytes.add(outcome.unwrap_or(0));
        if shape.kind == OpKind::Write {
            self.extent.extend(position, position + outcome.unwrap_or(0));
        }
        Some(outcome)
    }

    /// Reads from the page cache, where all of it is there.
    ///
    /// # Safety
    /// As [`Transfer::nowait`].
    unsafe fn cached_read(&self, fd: RawFd, position: u64, shape: &Shape, transfer: Transfer) -> Option<Outcome> {
        let len = shape.length();
        let earned = self.warmth.look(fd, position, len, self.extent.len())?;
        // SAFETY: forwarded to the caller.
        let outcome = unsafe { transfer.nowait() };
        let hit = self.cached_read_is_final(fd, position, shape, outcome);
        hit.then(|| {
            self.warmth.hit(earned);
            outcome
        })
    }

    /// Whether a NOWAIT read says all there is to say: not when it would have blocked, half-way or at once, and not when
    /// an old kernel says 0 before the end of the file.
    fn cached_read_is_final(&self, fd: RawFd, position: u64, shape: &Shape, outcome: Outcome) -> bool {
        match outcome {
            Ok(n) if n == shape.length() => true,
            Ok(n) => facts::current_len(fd).is_some_and(|len| position + n >= len),
            Err(Errno(libc::EAGAIN | libc::EIO)) => false,
            Err(errno) => {
                // EOPNOTSUPP, ENOSYS, a seccomp filter's EPERM ...: let a backend say what is the matter.
                // A strict engine's first choice is the backend: the caller's try before it is no part of the plan.
                if self.learned.end_inline(errno) && !self.core.settings.strict {
                    self.core.counters.fallback(Reason::NowaitUnsupported);
                    let next = self.core.pool;
                    self.raise_fallback(Reason::NowaitUnsupported, Some(errno), Trace::INLINE, next, OpKind::Read);
                }
                false
            }
        }
    }

    /// The first step for a new request.
    ///
    /// # Errors
    /// No backend may serve it: the policy requires one that cannot, or a strict engine would have to pass one over.
    #[inline(always)]
    pub(crate) fn first_step(&self, shape: &Shape, memory: &[IoVec], class: Class) -> io::Result<First> {
        match self.first_of_plan(shape, memory, class) {
            Some(first) => Ok(first),
            None => self.first_of_all(shape, memory, class),
        }
    }

    /// The same, whatever the file has taught, and whatever is asked for.
    fn first_of_all(&self, shape: &Shape, memory: &[IoVec], class: Class) -> io::Result<First> {
        if shape.kind == OpKind::Open {
            // There is no file yet whose route could be asked.
            return Ok(First::at(self.core.pool));
        }
        let place = shape.position.filter(|_| !shape.how.append);
        if shape.kind.is_transfer() && self.is_misaligned(shape.kind, place, memory) {
            if shape.how.nowait {
                return Err(Errno(libc::EINVAL).into());
            }
            return if self.may_divert(class) {
                let grows = !self.extent.reach(shape.kind, shape.position, shape.length()).within;
                Ok(First { misaligned: true, grows, ..First::at(self.core.pool) })
            } else {
                Err(self.misaligned(shape, memory).into())
            };
        }
        let (over, unfit) = (self.passed_over(class), self.unfit(shape.how));
        let reach = self.extent.reach(shape.kind, shape.position, shape.length());
        // Where nothing may be served otherwise than by the first choice, what that refuses is to be an error each time.
        let hopeless =
            !shape.how.nowait && !reach.within && !self.core.settings.strict && self.learned.refuses_growth();
        if let Some((backend, nowait)) = self.choose(class, shape.kind, Needs { reach, hopeless }, unfit, over) {
            let in_turn = hopeless && backend == self.core.pool;
            let mut first = First { nowait, in_turn, grows: !reach.within, ..First::at(backend) };
            if let Some((wanted, reason)) = self.detour(class, shape.kind, backend, unfit, over) {
                if self.core.settings.strict {
                    // The lesson that is kept also in a strict engine: the file knows no NOWAIT.
                    let answer = (reason == Reason::NowaitUnsupported).then_some(Errno(libc::EOPNOTSUPP));
                    return Err(self.strict(wanted, reason, answer, &Asking::of(shape)).into());
                }
                self.core.counters.fallback(reason);
                self.raise_fallback(reason, None, self.name(wanted), backend, shape.kind);
                first.reasons.insert(reason);
            }
            return Ok(first);
        }
        if !self.core.settings.required && !self.core.settings.strict {
            return Err(Errno(libc::ENOTSUP).into());
        }
        let what =
            format!("no backend that the policy allows can serve this {:?} ({})", shape.kind, self.why_not(class));
        Err(Error::Strict { what, errno: None }.into())
    }

    /// What by far the most requests begin with: the first of the plan, where the file has taught nothing that speaks against
    /// it, and nothing special is asked for.
    #[inline(always)]
    fn first_of_plan(&self, shape: &Shape, memory: &[IoVec], class: Class) -> Option<First> {
        let step = self.plans[class as usize].steps.first()?;
        let misaligned = || shape.kind.is_transfer() && self.is_misaligned(shape.kind, shape.position, memory);
        let special = shape.how != How::default() || shape.kind == OpKind::Open;
        if special || !self.learned.is_blank(class) || !self.offers(step, shape.kind) || misaligned() {
            return None;
        }
        let reach = self.extent.reach(shape.kind, shape.position, shape.length());
        let (backend, nowait) = self.ask(step, class, Needs { reach, hopeless: false })?;
        Some(First { nowait, grows: !reach.within, ..First::at(backend) })
    }

    /// Why the backends of the policy do not serve a class of operation.
    fn why_not(&self, class: Class) -> String {
        let name = |backend: &u8| self.core.settings.candidates[usize::from(*backend)].name;
        let passed = self.plans[class as usize].passed.iter().map(|(backend, why)| format!("{}: {why}", name(backend)));
        passed.collect::<Vec<_>>().join("; ")
    }

    /// Whether the policy lets the engine transfer on a stream.
    ///
    /// # Errors
    /// It requires a backend that serves no streams.
    pub(crate) fn allows_streams(&self, shape: &Shape) -> io::Result<()> {
        let required = self.core.settings.required;
        if required { self.first_step(shape, &[], Class::Position).map(|_| ()) } else { Ok(()) }
    }

    /// The first backend for a step of a stream.
    ///
    /// # Errors
    /// As [`first_step`](Self::first_step).
    pub(crate) fn first_for_stream(&self, shape: &Shape) -> io::Result<First> {
        let first = self.first_step(shape, &[], Class::Position)?;
        Ok(First { backend: self.for_stream(first.backend, 0), ..first })
    }

    /// What the pool would do on a stream is done by the stream workers, unless they have refused it: a call that lasts for
    /// ever must not occupy a thread that the disk needs.
    fn for_stream(&self, backend: u8, tried: u32) -> u8 {
        let workers = self.core.stream_workers;
        if backend == self.core.pool && tried & 1 << workers == 0 { workers } else { backend }
    }

    /// A request's error for the caller. What the kernel said is not enough where strictness made an error of it.
    pub(crate) fn explain(&self, errno: Errno, refusal: Option<(u8, Reason)>, asking: &Asking) -> io::Error {
        if let Some((backend, reason)) = refusal {
            // An early end was no error.
            let answer = (reason != Reason::EarlyEnd).then_some(errno);
            return self.strict(backend, reason, answer, asking).into();
        }
        if matches!(errno.0, libc::ECANCELED | os::ESHUTDOWN) && !self.core.state.is_open() {
            return Error::EngineClosed.into();
        }
        errno.into()
    }

    /// What to say where strictness refuses to hand a request over.
    fn strict(&self, backend: u8, reason: Reason, answer: Option<Errno>, asking: &Asking) -> Error {
        let name = self.name(backend);
        let alignment = self.facts.alignment.filter(|_| self.facts.direct);
        strict::refusal(asking, name, reason, answer, alignment)
    }

    /// The first of the plan, and why a request does not begin with it; `None` where it does.
    fn detour(&self, class: Class, kind: OpKind, backend: u8, unfit: u32, over: PassedOver) -> Option<(u8, Reason)> {
        // By far the most: it was the first, and so it is one that offers.
        if self.plans[class as usize].steps.first().is_some_and(|step| step.backend == backend) {
            return None;
        }
        let offers = |step: &&Step| self.offers(step, kind) && unfit & 1 << step.backend == 0;
        let first = self.plans[class as usize].steps.iter().find(offers)?;
        if first.backend == backend {
            return None;
        }
        let flag = first.nowait && !self.learned.nowait(class, first.backend);
        let reason = match flag {
            _ if (over.slow & !over.refused) & 1 << first.backend != 0 => Reason::SlowSubmit,
            true => Reason::NowaitUnsupported,
            false => Reason::Remembered,
        };
        Some((first.backend, reason))
    }

    /// Backends that the next request passes over. A strict engine asks anew each time: to pass one over for what it once
    /// answered would be a fallback, and what a slow one serves is served.
    fn passed_over(&self, class: Class) -> PassedOver {
        if self.core.settings.strict { PassedOver::default() } else { self.learned.passed_over(class) }
    }

    /// The backends that cannot do a transfer as it wants to be done, a bit each.
    fn unfit(&self, how: How) -> u32 {
        if how == How::default() {
            return 0;
        }
        let fits = |lane: &Lane| {
            let can = &lane.capabilities;
            (can.appends || !how.append)
                && (can.durable || how.durability == Durability::Later)
                && (can.priorities || how.priority.is_none())
                && (can.nowait || !how.nowait)
        };
        let unfit = self.core.lanes.iter().enumerate().filter(|(_, lane)| !fits(lane));
        unfit.fold(0, |set, (index, _)| set | 1 << index)
    }

    /// The best backend that has not refused, and whether to ask it with NOWAIT.
    fn choose(&self, class: Class, kind: OpKind, needs: Needs, tried: u32, over: PassedOver) -> Option<(u8, bool)> {
        let out = tried | over.refused | over.slow;
        let steps = self.plans[class as usize].steps.iter();
        let mut usable = steps.filter(|step| out & 1 << step.backend == 0).filter(|step| self.offers(step, kind));
        usable.find_map(|step| self.ask(step, class, needs)).or_else(|| self.last_demoted(class, kind, tried))
    }

    #[inline]
    fn offers(&self, step: &Step, kind: OpKind) -> bool {
        // Only the pool knows what has to be closed together with a descriptor, and in which order.
        let may = kind != OpKind::Close || self.descriptor().is_none() || step.backend == self.core.pool;
        may && self.core.lanes[usize::from(step.backend)].capabilities.operations.contains(kind)
    }

    /// How to ask a backend; `None` where it could only be asked in a way that blocks.
    fn ask(&self, step: &Step, class: Class, needs: Needs) -> Option<(u8, bool)> {
        if !step.nowait {
            return Some((step.backend, false));
        }
        if self.learned.nowait(class, step.backend) {
            return (!needs.hopeless).then_some((step.backend, true));
        }
        // The file knows no NOWAIT: what needs new blocks, or has to be read from the disk first, would block.
        (needs.reach.mapped && self.facts.direct).then_some((step.backend, false))
    }

    /// When all are passed over for what they did earlier, the plan's last one is asked all the same.
    fn last_demoted(&self, class: Class, kind: OpKind, tried: u32) -> Option<(u8, bool)> {
        let last = self.plans[class as usize].steps.last()?;
        (self.offers(last, kind) && tried & 1 << last.backend == 0).then_some((last.backend, last.nowait))
    }

    /// A write was served: where no NOWAIT tells what would block, it matters which blocks the file has.
    fn look_at_mapping(&self, class: Class, backend: u8) {
        let mut steps = self.plans[class as usize].steps.iter();
        if backend == self.core.pool
            && steps.any(|step| step.nowait && !self.learned.nowait(class, step.backend))
            && let Some(fd) = self.descriptor()
        {
            // On a thread of the pool.
            self.extent.look(fd);
        }
    }

    /// What the order gate has to do for an operation.
    #[inline]
    pub(crate) fn gate(&self, shape: &Shape, in_turn: bool) -> order::Class {
        match shape.kind {
            OpKind::Close => order::Class::Last,
            OpKind::SyncAll | OpKind::SyncData | OpKind::SyncRange => order::Class::Barrier,
            OpKind::Read | OpKind::Write if shape.position.is_none() => order::Class::Serial,
            OpKind::Write if self.facts.append || shape.how.append || in_turn => order::Class::Serial,
            // Changes of the length count as writes: a sync covers them as well.
            OpKind::Write | OpKind::SetLen | OpKind::Allocate | OpKind::PunchHole => order::Class::Write,
            _ => order::Class::Free,
        }
    }

    /// Whether nobody else decides when a request is over. A close waits for operations on a stream that nobody may poll.
    #[inline]
    fn ends_by_itself(&self, request: &Request) -> bool {
        !request.is_stream() && (self.stream.is_none() || request.kind() != OpKind::Close)
    }

    // ----- on its way -----------------------------------------------------------------------------------------------

    /// Queues a request whose turn has come, once no overlapping one is in its way.
    fn launch(&self, request: Request) {
        // A flush follows.
        self.launch_by(request, Core::enqueue);
    }

    /// The same for one that this thread has made just now.
    fn launch_near(&self, request: Request) -> bool {
        self.launch_by(request, Core::enqueue_near)
    }

    /// Returns whether others were let go, which have to be flushed.
    #[inline]
    fn launch_by(&self, request: Request, enqueue: fn(&Core, Request)) -> bool {
        if request.body().trail.pass != Pass::None || !self.may_overlap(request.kind()) {
            enqueue(&self.core, request);
            return false;
        }
        let (id, mut held, mut released) = (request.id(), true, false);
        self.admit(request, |request| {
            if request.id() == id {
                held = false;
                enqueue(&self.core, request);
            } else {
                self.core.enqueue(request);
                released = true;
            }
        });
        if held {
            self.waits_for_others();
        }
        released
    }

    fn admit(&self, request: Request, release: impl FnMut(Request)) {
        let cached = Self::is_cached_write(&request);
        self.overlap.admit(&self.counts, request, cached, |request| self.footprint(request), release);
    }

    /// A request of this thread's is held back by others, whose ends may be another thread's to collect.
    fn waits_for_others(&self) {
        self.core.driver.sides.share_all(&self.core);
    }

    /// Sends a request on its way, of which its file has said how it begins.
    pub(crate) fn submit(&self, mut request: Request, first: &First) {
        let mut released = false;
        if request.kind().is_transfer() {
            // What the caller has written of it may have left a rest that is misaligned.
            let rest = request.body().done > 0;
            if first.misaligned || rest && self.is_misaligned(request.kind(), request.place(), request.memory_left()) {
                released = self.divert(&mut request);
            }
            let class = Class::of(request.kind(), request.position().is_some());
            let trail = &mut request.body_mut().trail;
            (trail.grows, trail.watched) = (first.grows, self.learned.on_probation(class, trail.backend));
        }
        if request.body().trail.gate.may_wait() {
            // Those before it may be cached writes.
            self.give_back(&mut request.body_mut().trail.pass);
        }
        if self.ends_by_itself(&request) {
            self.core.unfinished.fetch_add(1, Ordering::SeqCst);
        }
        if let (OpKind::Close, Some(stream)) = (request.kind(), &self.stream) {
            // Before the number can be somebody else's.
            stream.deregister(&self.core.driver);
        }
        match self.order.admit(request, &self.counts) {
            Some(close) if close.kind() == OpKind::Close => self.close(close),
            Some(request) => released |= self.launch_near(request),
            None => self.waits_for_others(),
        }
        if released {
            // By an operation that nobody may poll for a long time.
            self.core.flush_after_completion();
        }
    }

    /// Sends a close on its way, after all other operations. Workers that are inside the stream's calls may be there for
    /// ever, and are not waited for: the last of them closes the descriptor when its call returns.
    fn close(&self, request: Request) {
        match &self.stream {
            Some(stream) if !stream.let_go() => settle::now(|| request.complete(Ok(0))),
            _ => self.core.enqueue(request),
        }
    }

    /// Ends a request that was cancelled in time, where it waits in the engine. One that waits elsewhere ends by itself.
    pub(crate) fn withdraw(&self, id: RequestId) {
        let waiting = self.core.withdraw(id).or_else(|| self.order.withdraw(id));
        let is = |request: &Request| request.id() == id;
        let waiting = waiting.or_else(|| self.overlap.withdraw(&self.counts, is, |next| self.core.enqueue(next)));
        if let Some(request) = waiting {
            let _completing = Completing::enter();
            settle::now(|| request.complete(Err(Errno(libc::ECANCELED))));
        }
        self.core.flush_after_completion();
    }
}

/// Tells that a file passes over backends that would come first: one that did not start, or does not serve its kind.
fn raise_detour(core: &Core, plans: &Plans, reason: Reason) {
    if events::is_inside() {
        return;
    }
    events::raise(|| {
        let missing = reason == Reason::NotStarted;
        let concerns = |why: &policy::Why| matches!(why, policy::Why::NotStarted(_)) == missing;
        let passed = |plan: &Plan| plan.passed.iter().find(|(_, why)| concerns(why)).map(|(backend, _)| *backend);
        let name = |backend: u8| core.settings.candidates[usize::from(backend)].name;
        let found = plans.iter().find_map(|plan| passed(plan).map(|from| (from, plan.steps.first())));
        let from = found.map_or(Trace::NONE, |(from, _)| name(from));
        let to = found.and_then(|(_, first)| first).map_or(Trace::NONE, |first| name(first.backend));
        Event::Fallback { reason, errno: None, from, to, kind: None }
    });
}

impl Owner for OpenFile {
    fn judge(&self, request: &mut Request, outcome: Outcome, tally: &mut Tally) -> Option<Outcome> {
        let trail = &mut request.body_mut().trail;
        trail.from = trail.place;
        let counted = trail.counted;
        let outcome = self.verdict(request, outcome)?;
        let unready = request.is_stream() && outcome == Err(Errno(libc::EAGAIN));
        if unready {
            self.core.counters.stream_misses.add(1);
        } else if counted {
            tally.serve(outcome, request.kind().is_transfer());
        }
        let body = request.body();
        events::raise_completed(body.quiet, || Event::Completed {
            served_by: self.name(body.trail.backend),
            kind: body.kind,
            outcome,
            nowait: body.nowait,
            fallbacks: body.trail.reasons,
        });
        self.finish(request, outcome);
        tally.left += u32::from(std::mem::take(&mut request.body_mut().trail.counted));
        tally.finished += usize::from(self.ends_by_itself(request));
        if request.is_stream() {
            // Its result is left with the stream: who takes it from there is to find it counted.
            if self.core.judged(&tally.take()) {
                self.core.flush_after_completion();
            }
            self.end_step(request, outcome);
        }
        Some(outcome)
    }

    fn witness(&self) -> Option<Arc<dyn Witness>> {
        Some(self.core.clone())
    }

    fn resubmit(self: Arc<Self>, mut request: Request) {
        let Trail { from, counted, .. } = request.body().trail;
        request.body_mut().trail.counted = false;
        // Counted in at the next lane before it is counted out at the last one.
        match request.body().trail.pass {
            Pass::None => self.launch(request),
            Pass::Untracked | Pass::Tracked(_) => self.core.enqueue(request),
        }
        if counted {
            self.core.lane(from).left(1);
        }
        self.core.flush_after_completion();
    }

    fn check(&self, request: &Request) -> Result<(), Errno> {
        // It was ready when the request was made, but others may have been faster, and the wait for a worker long.
        if request.is_stream() && self.stream.as_ref().is_some_and(|stream| !stream.is_ready(request.kind())) {
            return Err(Errno(libc::EAGAIN));
        }
        self.check_where_it_runs(request)
    }

    fn closing(&self) {
        if let Some(fd) = self.descriptor() {
            self.core.forget(fd);
        }
    }

    fn slab(&self) -> &Arc<Slab> {
        &self.core.slab
    }

    fn submitted(&self, class: Class, backend: u8, slow: bool) {
        if self.learned.submitted(class, backend, slow) {
            events::raise(|| Event::Resting { backend: self.name(backend), class, reason: Reason::SlowSubmit });
        }
    }

    fn twin(&self) -> Result<RawFd, Errno> {
        self.twin.descriptor(self.descriptor().ok_or(Errno(libc::EBADF))?)
    }

    fn close_twin(&self) {
        self.twin.close();
    }

    fn alignment(&self) -> Option<Alignment> {
        self.facts.alignment
    }

    fn count_anomaly(&self, anomaly: Anomaly) {
        match anomaly {
            Anomaly::Implausible => self.core.counters.implausible.add(1),
        }
        let what = "a completion with more bytes than were asked for, or of a request that never started";
        events::raise(|| Event::Anomaly { what, count: 1 });
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let (Some(stream), false) = (&self.stream, self.gone.load(Ordering::Acquire)) {
            stream.deregister(&self.core.driver);
        }
        if self.gone.load(Ordering::Acquire) {
            return;
        }
        self.twin.close();
        match self.handle {
            RawHandle::Descriptor(fd) => {
                self.core.forget(fd);
                // SAFETY: the descriptor is ours and no close has run; nobody else holds this file any more.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
            RawHandle::Virtual(number) => {
                let lane = self.own.map(|own| &self.core.lanes[usize::from(own)]);
                if let Some(backend) = lane.and_then(|lane| lane.backend.as_ref()) {
                    backend.close(number);
                }
            }
        }
    }
}
