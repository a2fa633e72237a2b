//! (3) The erased, owned form of an operation: what backends see.
//!
//! A [`Request`] is the only way to the memory of one operation in flight. It is moved from queue to queue and consumed
//! by exactly one [`Request::complete`].

#![allow(unsafe_code)]

mod foreign;
mod kind;
mod owner;

use std::borrow::Cow;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

pub(crate) use foreign::{contain, is_in_foreign_code, wake, wake_by_ref};
pub use kind::{OpKind, RawHandle, RequestId};
pub(crate) use owner::{Anomaly, Owner};

use crate::completion::{Answer, Errno, Last, Outcome};
use crate::how::{Durability, How, Priority};
use crate::memory::{IoVec, MOST_IOVECS, Ranges};
use crate::metadata::{Advice, Metadata};
use crate::opening::Opening;
use crate::os::RawFd;
use crate::router::facts::Alignment;
use crate::router::fallback::{Reason, Reasons};
use crate::settle::{self, Tally, Witness};
use crate::slot::{Slab, Slot};

/// [`Body::step`] for a backend that takes one range at a time.
pub(crate) const ONE_RANGE: u16 = 1;

/// The bit of [`Body::step`] for a step that was made shorter on purpose: what it leaves was not asked for either.
pub(crate) const CUT: u16 = 1 << 15;

/// What only some kinds have.
#[derive(Clone, Debug, Default)]
pub enum Extra {
    /// Nothing.
    #[default]
    None,
    /// Of `Advise`.
    Advice(Advice),
    /// Where the answer to `Metadata` goes.
    Metadata(Arc<OnceLock<Metadata>>),
    /// What `Open` opens.
    Open(Arc<Opening>),
}

/// The request's own fields.
pub(crate) struct Body {
    pub(crate) kind: OpKind,
    pub(crate) handle: RawHandle,
    /// File offset in bytes (or the length of `SetLen`); `None`: at the stream's or file's position.
    pub(crate) position: Option<u64>,
    /// Bytes of what transfers nothing and has a range.
    pub(crate) length: u64,
    pub(crate) extra: Extra,
    /// Of a transfer; empty otherwise.
    pub(crate) memory: Ranges,
    /// So many ranges are transferred in this step at the most: [`ONE_RANGE`], [`MOST_IOVECS`], or fewer and [`CUT`].
    pub(crate) step: u16,
    /// Finish short transfers: the operation asked for all or nothing.
    pub(crate) whole: bool,
    /// Refuse with `EAGAIN` what would block.
    pub(crate) nowait: bool,
    pub(crate) how: How,
    /// The other end of a stream decides when it completes: it may take for ever.
    pub(crate) stream: bool,
    /// Direct I/O refuses it for its alignment: it goes through the file's buffered twin.
    pub(crate) misaligned: bool,
    /// Memory was given out by [`Request::start`].
    pub(crate) started: bool,
    /// Raises no events: a subscriber has begun it.
    pub(crate) quiet: bool,
    /// Bytes that earlier steps of this request have transferred.
    pub(crate) done: u64,
    pub(crate) trail: Trail,
}

impl Body {
    /// The ranges of this step.
    #[inline]
    fn iovecs(&self) -> &[IoVec] {
        let left = self.memory.left();
        &left[..left.len().min(usize::from(self.step & !CUT))]
    }

    /// Bytes to transfer in this step; of other kinds, those of their range.
    #[inline]
    pub(crate) fn length(&self) -> u64 {
        match self.kind {
            OpKind::Read | OpKind::Write => self.iovecs().iter().map(|v| v.len as u64).sum(),
            _ => self.length,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self {
            kind: OpKind::Close,
            handle: RawHandle::Virtual(0),
            position: None,
            length: 0,
            extra: Extra::None,
            memory: Ranges::default(),
            step: MOST_IOVECS as u16,
            whole: false,
            nowait: false,
            how: How::default(),
            stream: false,
            misaligned: false,
            started: false,
            quiet: false,
            done: 0,
            trail: Trail::default(),
        }
    }
}

/// Which lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the backend.
    pub(crate) backend: u8,
    /// The number of a side seat; 0: the lane that all threads share.
    pub(crate) side: u8,
}

/// Where a request has been so far; the router writes it and reads it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trail {
    /// Index of the backend that has it now, or will have it next.
    pub(crate) backend: u8,
    /// The lane that has it, or has had it.
    pub(crate) place: Place,
    /// The lane whose backend has answered last.
    pub(crate) from: Place,
    /// Backends that refused it, a bit each.
    pub(crate) tried: u32,
    /// The refusal that counts if no backend can serve it: which backend, which error.
    pub(crate) refused: Option<(u8, Errno)>,
    /// What the order gate has to do when the request ends.
    pub(crate) gate: crate::order::Class,
    /// The lane that has it counts it as in flight.
    pub(crate) counted: bool,
    /// The write epoch that the order gate counted it in.
    pub(crate) epoch: u64,
    /// How it has passed the gate of overlapping requests.
    pub(crate) pass: crate::overlap::Pass,
    /// The fallbacks that it went through.
    pub(crate) reasons: Reasons,
    /// It ended with an error for which another backend would have been asked, were the engine not strict.
    pub(crate) strict: Option<Reason>,
    /// A write that made the file longer, as far as was known when it was sent.
    pub(crate) grows: bool,
    /// Submitting one like it has held the caller up: it is submitted on its own, and timed.
    pub(crate) watched: bool,
}

impl Trail {
    /// Which backend said no, and as which fallback that would have been counted, were the engine not strict.
    pub(crate) fn refusal(&self) -> Option<(u8, Reason)> {
        self.strict.map(|reason| (self.backend, reason))
    }
}

/// One operation on its way: owned by whoever serves it, completed exactly once.
///
/// Dropping a request that has not started completes it with `ECANCELED`, and the buffer goes back to the caller.
/// Dropping one that has started **aborts the process** with a message: the kernel may still hold its memory, and no
/// other way to go on is sound.
///
/// # Examples
/// What of an operation arrives at a backend:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
/// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
/// # struct Submits(fn(&mut Batch<'_>));
/// # impl Backend for Submits {
/// #     fn name(&self) -> &'static str { "submits" }
/// #     fn capabilities(&self) -> Capabilities {
/// #         let mut can = Capabilities::new(64);
/// #         (can.durable, can.priorities) = (true, true);
/// #         can
/// #     }
/// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
/// #     fn shutdown(&self) {}
/// # }
/// use polyaio::{Durability, Priority, RawHandle};
/// fn submit(batch: &mut Batch<'_>) {
///     while let Some(mut request) = batch.take() {
///         assert_eq!((request.kind(), request.position(), request.length()), (OpKind::Write, Some(4096), 5));
///         assert_eq!((request.durability(), request.priority()), (Durability::Data, Some(Priority::Idle)));
///         assert!(!request.nowait() && !request.appends() && !request.is_stream());
///         assert!(matches!(request.handle(), RawHandle::Descriptor(fd) if request.descriptor() == Some(fd)));
///         assert_eq!((request.segments(), request.advice()), (1, None));
///         assert_ne!(request.id().to_u64(), 0);
///         // Whoever does not start it may drop it: the caller gets `ECANCELED`.
///         if request.is_abandoned() { continue }
///         // The rules of direct I/O that a file may emulate.
///         if let Err(errno) = request.check() { return request.complete(Err(errno)) }
///         // SAFETY: the memory of a write is only read, here not even that, and not after the next line.
///         unsafe { request.start() };
///         request.complete(Ok(5));
///     }
/// }
/// # let dir = tempfile::tempdir()?;
/// # let policy = Policy::Prefer(vec!["submits".into()]);
/// # let engine = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).policy(policy).build()?;
/// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
/// let (written, trace) = file.write_at("hello", 4096).dsync().priority(Priority::Idle).traced().wait();
/// assert_eq!((written.0?, trace.served_by), (5, "submits"));
/// # Ok(()) }
/// ```
pub struct Request {
    slot: NonNull<Slot>,
}

// SAFETY: a request is the one owner of its slot's body, which holds `Send` data; the slot itself is `Sync`.
unsafe impl Send for Request {}
// SAFETY: shared access reads plain fields only.
unsafe impl Sync for Request {}

impl Request {
    /// Makes the request of an activated slot whose body is filled.
    ///
    /// # Safety
    /// The slot is live, its body is filled, its owner keeps the slab alive, and no other `Request` of it exists.
    #[inline]
    pub(crate) unsafe fn from_slot(slot: &Slot) -> Self {
        Self { slot: NonNull::from(slot) }
    }

    /// What is asked for.
    #[inline]
    pub fn kind(&self) -> OpKind {
        self.body().kind
    }

    /// What it runs against. A descriptor stays open until the request is complete.
    pub fn handle(&self) -> RawHandle {
        self.body().handle
    }

    /// The descriptor, where the handle is one.
    #[inline]
    pub fn descriptor(&self) -> Option<RawFd> {
        match self.body().handle {
            RawHandle::Descriptor(fd) => Some(fd),
            RawHandle::Virtual(_) => None,
        }
    }

    /// The offset in the file in bytes; `None` means at the stream's or file's own position.
    pub fn position(&self) -> Option<u64> {
        self.body().position
    }

    /// Bytes to transfer in this step; of other kinds, those of their range.
    #[inline]
    pub fn length(&self) -> u64 {
        self.body().length()
    }

    /// Makes this step of a transfer shorter: what a backend sees of it is so long. There are more bytes in it, and few ranges.
    #[cfg(feature = "simulated")]
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "for FaultInjecting"))]
    pub(crate) fn cut(&mut self, bytes: u64) {
        let body = self.body_mut();
        let ranges = body.memory.split(bytes);
        body.step = ranges as u16 | CUT;
    }

    /// The ranges of this step, as they were before it was [cut](Self::cut): what is asked for.
    pub(crate) fn ranges_before_cut(&self) -> Cow<'_, [IoVec]> {
        let step = self.iovecs();
        if self.body().step & CUT == 0 {
            return Cow::Borrowed(step);
        }
        let mut ranges = step.to_vec();
        let mut rest = self.memory_left()[step.len()..].iter().peekable();
        // Within a range, mostly, which became two.
        if let (Some(last), Some(next)) = (ranges.last_mut(), rest.peek())
            && last.base.wrapping_add(last.len) == next.base
        {
            last.len += next.len;
            rest.next();
        }
        let room = MOST_IOVECS.saturating_sub(ranges.len());
        ranges.extend(rest.take(room));
        Cow::Owned(ranges)
    }

    /// Makes its answer final: nobody is asked once more without NOWAIT.
    #[cfg(feature = "simulated")]
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "for FaultInjecting"))]
    pub(crate) fn insist(&mut self) {
        self.body_mut().nowait = false;
    }

    /// Whether to answer `EAGAIN` instead of blocking, as `RWF_NOWAIT`.
    pub fn nowait(&self) -> bool {
        self.body().nowait
    }

    /// What of a write has to be durable when it completes. Asked of backends that say they are
    /// [`durable`](crate::backend::Capabilities::durable).
    pub fn durability(&self) -> Durability {
        self.body().how.durability
    }

    /// The priority of a transfer. Asked of backends that have [`priorities`](crate::backend::Capabilities::priorities).
    pub fn priority(&self) -> Option<Priority> {
        self.body().how.priority
    }

    /// Whether a write goes to the end of a file that was not opened for appending, whatever [`position`](Self::position)
    /// says. Asked of backends that can [`append`](crate::backend::Capabilities::appends).
    pub fn appends(&self) -> bool {
        self.body().how.append
    }

    pub(crate) fn how(&self) -> How {
        self.body().how
    }

    /// Where a transfer goes; unknown of what is appended.
    pub(crate) fn place(&self) -> Option<u64> {
        self.position().filter(|_| !self.appends())
    }

    /// Whether the other end of a stream decides when it completes, so that it may take for ever. A shutdown does not
    /// wait for such a request.
    pub fn is_stream(&self) -> bool {
        self.body().stream
    }

    /// Whether direct I/O refuses it for its alignment, so that it has to go through [`twin`](Self::twin).
    pub(crate) fn is_misaligned(&self) -> bool {
        self.body().misaligned
    }

    /// The file's buffered twin, opened if need be: may block.
    pub(crate) fn twin(&self) -> Result<RawFd, Errno> {
        self.owner().twin()
    }

    /// Closes the twin, for who closes the descriptor.
    pub(crate) fn close_twin(&self) {
        self.owner().close_twin();
    }

    /// What direct I/O on the file needs, where that is known.
    pub(crate) fn alignment(&self) -> Option<Alignment> {
        self.owner().alignment()
    }

    /// Checks what can only be checked where the request runs: whether a transfer at the position, or an appended one, keeps
    /// the rules of direct I/O that the file emulates. May block as `lseek(2)` does.
    ///
    /// A backend that serves such transfers calls it before its system call, and completes the request with the error.
    ///
    /// # Errors
    /// `EINVAL` the transfer is misaligned ([`Direct::Emulated`](crate::Direct::Emulated)).
    pub fn check(&self) -> Result<(), Errno> {
        self.owner().check(self)
    }

    /// The advice of [`OpKind::Advise`].
    pub fn advice(&self) -> Option<Advice> {
        match self.body().extra {
            Extra::Advice(advice) => Some(advice),
            _ => None,
        }
    }

    /// Answers [`OpKind::Metadata`], before the request is completed with 0. Only the first answer counts.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
    /// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
    /// # struct Submits(fn(&mut Batch<'_>));
    /// # impl Backend for Submits {
    /// #     fn name(&self) -> &'static str { "submits" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    /// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
    /// #     fn shutdown(&self) {}
    /// # }
    /// # use polyaio::Metadata;
    /// fn submit(batch: &mut Batch<'_>) {
    ///     while let Some(request) = batch.take() {
    ///         match request.kind() {
    ///             OpKind::Metadata => {
    ///                 request.answer_metadata(Metadata::of_length(1000));
    ///                 request.complete(Ok(0));
    ///             }
    ///             _ => batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP))),
    ///         }
    ///     }
    /// }
    /// # let dir = tempfile::tempdir()?;
    /// # let policy = Policy::Prefer(vec!["submits".into()]);
    /// # let engine = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).policy(policy).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
    /// assert_eq!(file.metadata().wait()?.len, 1000);
    /// # Ok(()) }
    /// ```
    pub fn answer_metadata(&self, metadata: Metadata) {
        if let Extra::Metadata(answer) = &self.body().extra {
            let _ = answer.set(metadata);
        }
    }

    /// What [`OpKind::Open`] opens.
    pub(crate) fn opening(&self) -> Option<Arc<Opening>> {
        match &self.body().extra {
            Extra::Open(opening) => Some(opening.clone()),
            _ => None,
        }
    }

    /// The id by which a kernel, or a table of the backend, can know the request.
    pub fn id(&self) -> RequestId {
        self.slot().id()
    }

    /// Whether nobody waits for the result any more, nor for the effect; or the operation was cancelled. A request that has
    /// not started is then to be dropped. `false` is the point of no return: from then on a wish to cancel comes too late,
    /// so ask just before the start.
    ///
    /// Never so for [`OpKind::Close`], which has to happen, nor for what was sent before: a transfer of which a part is done,
    /// a request that another backend has refused.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        let body = self.body();
        let sent = body.done > 0 || body.trail.tried != 0;
        let completion = &self.slot().completion;
        !completion.begin() || (!sent && body.kind != OpKind::Close && completion.is_abandoned())
    }

    /// Past the point of no return, for a request that must happen; `false` where it was cancelled before.
    pub(crate) fn begin(&self) -> bool {
        self.slot().completion.begin()
    }

    /// How many ranges of memory this step has, none of them empty: at most 1024 (`IOV_MAX`), and one for a backend that is not
    /// [`vectored`](crate::backend::Capabilities::vectored). Always 0 for kinds that transfer nothing.
    pub fn segments(&self) -> usize {
        self.iovecs().len()
    }

    /// Gives out the request's memory: from here on it must end by [`complete`](Self::complete) or
    /// [`retract`](Self::retract).
    ///
    /// # Safety
    /// The memory is used only for what [`kind`](Self::kind) says (written by a `Read`, read by a `Write`), and by nobody
    /// after the request was completed or retracted. A `Read` that is completed with `Ok(n)` has had its first `n` bytes
    /// written: the caller takes them for initialised. The slice itself stays valid, at the same place, just as long.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
    /// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
    /// # struct Submits(fn(&mut Batch<'_>));
    /// # impl Backend for Submits {
    /// #     fn name(&self) -> &'static str { "submits" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    /// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
    /// #     fn shutdown(&self) {}
    /// # }
    /// # use polyaio::RawHandle;
    /// fn submit(batch: &mut Batch<'_>) {
    ///     while let Some(mut request) = batch.take() {
    ///         let RawHandle::Descriptor(fd) = request.handle() else { unreachable!("no files of its own") };
    ///         let position = request.position().unwrap_or(0) as libc::off_t;
    ///         // SAFETY: written by the kernel during the call, and by nobody later.
    ///         let ranges = unsafe { request.start() };
    ///         // SAFETY: `IoVec` is laid out as `iovec`; the request keeps the memory and the descriptor.
    ///         let n = unsafe { libc::preadv(fd, ranges.as_ptr().cast(), ranges.len() as i32, position) };
    ///         request.complete(u64::try_from(n).map_err(|_| Errno::last()));
    ///     }
    /// }
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let policy = Policy::Require("submits".into());
    /// # let engine = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).policy(policy).build()?;
    /// # let file = OpenOptions::new().read(true).open(&engine, &path)?;
    /// let (read, trace) = file.read_vectored_at([vec![0; 5], vec![0; 7]], 0).traced().wait();
    /// assert_eq!((read.0?, &read.1, trace.served_by), (12, &[b"hello".to_vec(), b", world".to_vec()], "submits"));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub unsafe fn start(&mut self) -> &[IoVec] {
        self.body_mut().started = true;
        self.iovecs()
    }

    /// Takes back a start that came to nothing: the system call refused the request.
    ///
    /// # Safety
    /// Nobody holds pointers from [`start`](Self::start) any more.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use polyaio::backend::{Backend, Batch, Capabilities, Refusal};
    /// # use polyaio::{Engine, Errno, OpKind, OpenOptions, Policy, Reason};
    /// # struct Submits(fn(&mut Batch<'_>));
    /// # impl Backend for Submits {
    /// #     fn name(&self) -> &'static str { "submits" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(64) }
    /// #     fn submit(&self, batch: &mut Batch<'_>) { (self.0)(batch) }
    /// #     fn shutdown(&self) {}
    /// # }
    /// fn submit(batch: &mut Batch<'_>) {
    ///     while let Some(mut request) = batch.take() {
    ///         // SAFETY: nothing is written or read.
    ///         let ranges = unsafe { request.start() }.len();
    ///         println!("{ranges} ranges: a system call that fails with ENOSYS");
    ///         // SAFETY: it has refused the request: nobody holds its pointers.
    ///         unsafe { request.retract() };
    ///         // Without that, giving it back would abort the process.
    ///         batch.put_back(request, Refusal::Unsupported(Errno(libc::ENOSYS)));
    ///     }
    /// }
    /// # let dir = tempfile::tempdir()?;
    /// # let builder = Engine::builder().backend(std::sync::Arc::new(Submits(submit))).strict(false);
    /// # let engine = builder.policy(Policy::Prefer(vec!["submits".into()])).build()?;
    /// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
    /// file.write_all_at("hello", 0).wait().0?; // by somebody else
    /// # assert_ne!(engine.stats().fallback(Reason::Unsupported), 0);
    /// # Ok(()) }
    /// ```
    pub unsafe fn retract(&mut self) {
        self.body_mut().started = false;
    }

    /// Hands the request over to a kernel that returns its id. It comes back by
    /// [`Completions::push`](crate::backend::Completions::push) or [`Batch::reclaim`](crate::backend::Batch::reclaim).
    ///
    /// Call it *before* the system call: the completion may be there before the call returns.
    ///
    /// # Examples
    /// Before the call, in a `submit`; [`RequestId`] shows the whole way there and back.
    /// ```
    /// use polyaio::{Request, RequestId};
    /// fn send(request: Request, queue: &mut Vec<RequestId>) {
    ///     // From here on the request is the queue's: whoever takes the id from it completes it.
    ///     queue.push(request.park());
    /// }
    /// ```
    #[inline]
    pub fn park(self) -> RequestId {
        let id = self.id();
        self.slot().completion.park();
        std::mem::forget(self);
        id
    }

    /// Takes a parked request back by its id. `None`: no such request is parked.
    #[inline]
    pub(crate) fn claim(slab: &Slab, id: RequestId) -> Option<Self> {
        let slot = slab.find(id)?;
        // SAFETY: `claim` succeeds for one caller per `park`, which gave up the one `Request` of the slot.
        slot.completion.claim(id.generation()).then(|| unsafe { Self::from_slot(slot) })
    }

    /// Gives the request up: whoever makes it anew of its slot owns it from then on.
    #[inline]
    pub(crate) fn give_up(self, slab: &Slab) -> &Slot {
        debug_assert!(slab.find(self.id()).is_some_and(|slot| std::ptr::eq(slot, self.slot())), "of another engine");
        let slot = self.slot;
        std::mem::forget(self);
        // SAFETY: a slot lives as long as its slab, which is this one.
        unsafe { slot.as_ref() }
    }

    /// For who serves an [`OpKind::Close`]: tells all that have something of the descriptor, just before it is closed.
    pub(crate) fn announce_close(&self) {
        self.owner().closing();
    }

    /// Ends the request with the number of bytes transferred (or the operation's value), or with an error.
    ///
    /// The engine decides what this means: it may finish a short transfer or try another backend. Otherwise the waiting
    /// future is woken, from inside this call: hold no lock that a waker might want. What is completed inside
    /// [`Backend::submit`](crate::backend::Backend::submit) ends after that has returned, all of it together.
    ///
    /// More bytes than were asked for, or bytes transferred by a request whose memory was never given out by
    /// [`start`](Self::start), become `EIO`.
    pub fn complete(mut self, outcome: Outcome) {
        let _held = crate::events::hold();
        let outcome = self.answered(outcome);
        settle::end(self, outcome.into());
    }

    /// A backend has answered: nobody uses the memory any more. Returns what is believed of it.
    #[inline]
    fn answered(&mut self, outcome: Outcome) -> Outcome {
        let outcome = self.plausible(outcome);
        self.body_mut().started = false;
        outcome
    }

    /// Asks the owner what an answer means. `None`: the request needs another step.
    #[inline]
    pub(crate) fn judge(&mut self, outcome: Outcome, tally: &mut Tally) -> Option<Outcome> {
        let owner: *const Arc<dyn Owner> = self.owner();
        // SAFETY: the slot's reference stays in its place until the request is published, which `judge` cannot do.
        let owner = unsafe { &*owner };
        owner.judge(self, outcome, tally)
    }

    /// A count larger than the request, or of bytes that were never touched, is a broken backend: it becomes `EIO` and is
    /// counted. The caller of a read takes the count for initialised bytes, so that this is a matter of soundness.
    #[inline]
    fn plausible(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Ok(n) if self.kind().is_transfer() && (n > self.length() || (n > 0 && !self.body().started)) => {
                self.owner().count_anomaly(Anomaly::Implausible);
                Err(Errno(libc::EIO))
            }
            outcome => outcome,
        }
    }

    /// Publishes the result without asking the owner; frees the slot where nobody waits.
    #[inline]
    pub(crate) fn publish(self, answer: Answer) {
        let slot = self.slot;
        std::mem::forget(self);
        // SAFETY: the slot lives until its last owner frees it, and we are one of them until `publish` returns.
        let (call, last) = unsafe { slot.as_ref() }.completion.publish(answer);
        if last == Last::Yes {
            // SAFETY: we are the last owner.
            unsafe { free(slot) };
        }
        call.make();
    }

    /// Takes out what [`Slot::store`] has put into the slot, before the request is published: its memory is not the
    /// future's.
    ///
    /// # Safety
    /// It was stored as a `T`, it is taken once, and neither a backend nor the future uses it any more.
    pub(crate) unsafe fn take_payload<T: Send + 'static>(&mut self) -> T {
        // SAFETY: the request side owns the payload until it publishes; the rest is forwarded to the caller.
        unsafe { self.slot().take::<T>() }
    }

    /// Notes that `n` bytes were transferred, and moves on to what is left.
    pub(crate) fn advance(&mut self, n: u64) {
        let body = self.body_mut();
        body.done += n;
        body.position = body.position.map(|p| p + n);
        body.memory.advance(n);
        if n > 0 {
            self.slot().completion.begin_rest();
        }
    }

    /// Whether somebody has wished it cancelled, since this was asked last, of a backend that may have stopped it.
    pub(crate) fn take_asked(&self) -> bool {
        self.slot().completion.take_asked()
    }

    #[inline]
    pub(crate) fn body(&self) -> &Body {
        // SAFETY: the holder of the request owns the body.
        self.slot().body.with(|body| unsafe { &*body })
    }

    #[inline]
    pub(crate) fn body_mut(&mut self) -> &mut Body {
        // SAFETY: the holder of the request owns the body, and `&mut self` makes the access exclusive.
        self.slot().body.with_mut(|body| unsafe { &mut *body })
    }

    /// The ranges of this step.
    #[inline]
    pub(crate) fn iovecs(&self) -> &[IoVec] {
        self.body().iovecs()
    }

    /// The ranges of this step and of those that may follow.
    pub(crate) fn memory_left(&self) -> &[IoVec] {
        self.body().memory.left()
    }

    #[inline]
    pub(crate) fn owner(&self) -> &Arc<dyn Owner> {
        // SAFETY: the request is not published, so that its slot has an owner.
        unsafe { self.slot().owner() }
    }

    #[inline]
    fn slot(&self) -> &Slot {
        // SAFETY: a slot lives as long as its slab, which the slot's owner keeps alive until the request is published.
        unsafe { self.slot.as_ref() }
    }
}

/// Ends several requests, as [`Request::complete`] does with one; empties the list.
#[allow(dead_code, reason = "for POSIX AIO, which is not everywhere")]
pub(crate) fn complete_all(done: &mut Vec<(Request, Answer)>) {
    complete_by(done, settle::settle);
}

/// The same for requests that are all of one engine.
pub(crate) fn complete_all_of<W: Witness>(engine: &Arc<W>, done: &mut Vec<(Request, Answer)>) {
    complete_by(done, |done| settle::settle_of(Some(engine), done));
}

fn complete_by(done: &mut Vec<(Request, Answer)>, settle: impl FnOnce(&mut Vec<(Request, Answer)>)) {
    let _held = crate::events::hold();
    done.iter_mut().for_each(|(request, answer)| *answer = request.answered((*answer).into()).into());
    settle(done);
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.body().started {
            eprintln!(
                "polyaio: a backend dropped {:?} after it had started: the kernel may still hold its memory. Aborting. \
                 (A backend must end a started request by `complete` or `retract`.)",
                self.id()
            );
            std::process::abort();
        }
        // SAFETY: `self` is not used again: its one ownership moves to the copy, which ends it.
        let request = unsafe { Self::from_slot(self.slot.as_ref()) };
        request.complete(Err(Errno(libc::ECANCELED)));
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id())
            .field("kind", &self.kind())
            .field("handle", &self.handle())
            .field("position", &self.position())
            .field("length", &self.length())
            .finish_non_exhaustive()
    }
}

/// Gives a slot back, as its last owner.
///
/// # Safety
/// The caller was told [`Last::Yes`] for this slot in this generation.
#[inline]
pub(crate) unsafe fn free(slot: NonNull<Slot>) {
    // SAFETY: the last owner owns the slot and what is in it; the slot itself lives as long as the slab, which `owner`
    // keeps alive until the end of this function.
    let slot = unsafe { slot.as_ref() };
    // SAFETY: as above.
    let (owner, waker) = unsafe { slot.clear() };
    if let Some(owner) = &owner {
        owner.slab().put_back(slot);
    }
    drop(owner);
    if waker.is_some() {
        contain(|| drop(waker));
    }
}
