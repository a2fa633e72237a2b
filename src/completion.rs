//! (6) The state of one slot: who still has a claim on it, whether its result is there, whom to wake.
//!
//! A slot has two owners. The *request side* (the engine, a backend, the kernel) publishes one result; the *future side*
//! collects it, or goes away first. Whoever leaves second frees the slot, and with it the buffer. One atomic word
//! decides every race between the two:
//!
//! ```text
//!            publish                          collect
//! PENDING ─────────────▶ DONE | REQUEST_GONE ─────────▶ freed by the future
//!    │ future dropped                            publish
//!    └────────────────▶ FUTURE_GONE ────────────────────▶ freed by the request side
//! ```
//!
//! The upper half of the word is the slot's *generation*. It is part of the id that travels through the kernel, so that
//! a stale or forged event can be told from a live one. Which generation a kernel has by its id is a word of its own.

#![allow(unsafe_code)]

use std::task::{Poll, RawWakerVTable, Waker};

use crate::os;
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What became of a request: bytes transferred (or the operation's value), or the error number.
///
/// # Examples
/// ```
/// use polyaio::{Errno, Outcome};
/// // What a backend says of a transfer, and what a caller sees of it.
/// let (short, failed): (Outcome, Outcome) = (Ok(512), Err(Errno(libc::EIO)));
/// assert_eq!(short, Ok(512));
/// assert_eq!(failed.map_err(std::io::Error::from).unwrap_err().raw_os_error(), Some(libc::EIO));
/// ```
pub type Outcome = Result<u64, Errno>;

/// An operating system error number, such as `libc::EINVAL`.
///
/// # Platform
/// On Windows it is the number of the C library that says the same as the system's code, and [`std::io::Error`] has the code:
/// `From` and [`of`](Self::of) translate. A code without such a number is kept as it is, with bit 30 set.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let errno = polyaio::Errno(libc::EAGAIN);
/// let error = std::io::Error::from(errno);
/// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
/// assert_eq!(errno.to_string(), error.to_string());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The number of an error of the operating system; `None` for another one.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let missing = std::fs::File::open("no such file").unwrap_err();
    /// assert_eq!(polyaio::Errno::of(&missing), Some(polyaio::Errno(libc::ENOENT)));
    /// # Ok(()) }
    /// ```
    pub fn of(error: &std::io::Error) -> Option<Self> {
        os::number_of(error).map(Self)
    }

    /// The error number that the last failed C library call of this thread left behind.
    ///
    /// # Examples
    /// For backends that call the C library:
    /// ```
    /// use polyaio::{Errno, Outcome};
    /// fn length(fd: i32) -> Outcome {
    ///     // SAFETY: it takes no memory.
    ///     let end = unsafe { libc::lseek(fd, 0, libc::SEEK_END) };
    ///     u64::try_from(end).map_err(|_| Errno::last())
    /// }
    /// assert_eq!(length(-1), Err(Errno(libc::EBADF)));
    /// ```
    pub fn last() -> Self {
        Self(os::number_of(&std::io::Error::last_os_error()).unwrap_or(libc::EIO))
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Errno({}: {})", self.0, os::error_of(self.0))
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        os::error_of(self.0).fmt(f)
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        os::error_of(errno.0)
    }
}

/// An [`Outcome`] in one word, as it is kept and handed on. A value beyond `i64::MAX`, which is no file's, is cut to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer(i64);

impl From<Outcome> for Answer {
    #[inline]
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(value) => Self(i64::try_from(value).unwrap_or(i64::MAX)),
            Err(Errno(errno)) => Self(i64::MIN | i64::from(errno as u32)),
        }
    }
}

impl From<Answer> for Outcome {
    #[inline]
    fn from(Answer(word): Answer) -> Self {
        u64::try_from(word).map_err(|_| Errno(word as i32))
    }
}

/// The result is published; the future side may read it.
const DONE: u64 = 1 << 0;
/// A waker is stored; whoever clears this bit owns the waker's cell.
const WAKER: u64 = 1 << 1;
/// The request side has cleared `WAKER` and is taking the waker out; it will set `DONE` next.
const WAKING: u64 = 1 << 2;
/// The future side has left.
const FUTURE_GONE: u64 = 1 << 3;
/// The request side has left.
const REQUEST_GONE: u64 = 1 << 4;
/// The request has begun: too late to cancel it here.
const BEGUN: u64 = 1 << 5;
/// The request was cancelled before it began, and will not begin.
const CANCELLED: u64 = 1 << 6;
/// A part is transferred, and the rest is going to be: too late to say that nothing has happened.
const PARTLY: u64 = 1 << 7;
/// A backend is asked to stop the request, or was.
const ASKED: u64 = 1 << 8;

/// Who is to be woken was said before anybody knew of the request, by a [`Lasting`], which stays.
const LASTING: u64 = 1 << 9;

const GENERATION_SHIFT: u32 = 32;

/// Which side frees the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// The caller left second: it frees the slot.
    Yes,
    /// The other side is still there and will free the slot.
    No,
}

/// What a wish to cancel has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// The request had not begun, and will not.
    InTime,
    /// It has begun.
    Begun,
    /// Its result is there.
    Done,
}

/// A waker that nobody owns: it may be copied, and called at any time, for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lasting {
    data: *const (),
    table: &'static RawWakerVTable,
}

// SAFETY: as a `Waker`, which it is made of.
unsafe impl Send for Lasting {}
// SAFETY: as above.
unsafe impl Sync for Lasting {}

impl Lasting {
    /// # Safety
    /// Cloning and dropping such a waker does nothing, and calling it is allowed for ever.
    #[inline]
    pub(crate) unsafe fn new(waker: &Waker) -> Self {
        Self { data: waker.data(), table: waker.vtable() }
    }

    #[inline]
    fn is(&self, waker: &Waker) -> bool {
        self.data == waker.data() && std::ptr::eq(self.table, waker.vtable())
    }

    #[inline]
    pub(crate) fn wake(self) {
        // SAFETY: made of the parts of a waker that may be called for ever, and copied.
        unsafe { Waker::new(self.data, self.table) }.wake();
    }
}

/// Whom to wake for the result of a request that nobody knows yet.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Lasting(Lasting),
    Waker(Waker),
}

/// Whom to wake now.
#[derive(Debug, Default)]
pub(crate) struct Call {
    lasting: Option<Lasting>,
    waker: Option<Waker>,
}

impl Call {
    /// Wakes. The panics of a waker end here.
    #[inline]
    pub(crate) fn make(self) {
        if let Some(lasting) = self.lasting {
            lasting.wake();
        }
        if let Some(waker) = self.waker {
            crate::request::wake(waker);
        }
    }
}

/// The shared part of a slot.
#[derive(Debug)]
pub(crate) struct Completion {
    state: AtomicU64,
    /// The generation of a request that a kernel has, which knows it by its id only; else 0. Apart from `state`, so that it
    /// can be stored: nobody else changes it meanwhile.
    parked: AtomicU32,
    /// Written before anybody knows of the request, and then only read. Valid where `state` says `LASTING`.
    lasting: UnsafeCell<Option<Lasting>>,
    waker: UnsafeCell<Option<Waker>>,
    answer: UnsafeCell<Answer>,
}

// SAFETY: the cells are handed from thread to thread by the bits of `state`: `answer` is written by the request side
// before `DONE` (release) and read by the future side after it (acquire); `waker` belongs to the future side while
// `WAKER` is clear and `WAKING` is not set, and to whoever cleared `WAKER` otherwise.
unsafe impl Sync for Completion {}
// SAFETY: nothing in it is bound to a thread: `Waker` and `Answer` are `Send`.
unsafe impl Send for Completion {}

impl Completion {
    pub(crate) fn new() -> Self {
        Self {
            // Both sides gone: a free slot. Generation 1 is the first, so that an id is never 0.
            state: AtomicU64::new(1 << GENERATION_SHIFT | FUTURE_GONE | REQUEST_GONE),
            parked: AtomicU32::new(0),
            lasting: UnsafeCell::new(None),
            waker: UnsafeCell::new(None),
            answer: UnsafeCell::new(Answer(0)),
        }
    }

    /// Makes a free slot live again, for one request side and one future side. Only the slab calls this, for a slot that
    /// it took from its free list.
    #[inline]
    pub(crate) fn activate(&self) {
        let state = self.state.load(Ordering::Relaxed);
        debug_assert_eq!(state & FUTURE_GONE, FUTURE_GONE, "the slot is in use");
        self.state.store(state >> GENERATION_SHIFT << GENERATION_SHIFT, Ordering::Relaxed);
    }

    /// Ends the present generation. Only who was [`Last`] calls this, before the slot goes back to the free list.
    #[inline]
    pub(crate) fn retire(&self) {
        debug_assert_eq!(self.parked.load(Ordering::Relaxed), 0, "no kernel has it");
        let generation = (self.state.load(Ordering::Relaxed) >> GENERATION_SHIFT) as u32;
        let next = u64::from(generation.wrapping_add(1).max(1));
        self.state.store(next << GENERATION_SHIFT | FUTURE_GONE | REQUEST_GONE, Ordering::Release);
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> GENERATION_SHIFT) as u32
    }

    /// Says whom to wake for the result of a request that nobody knows yet: as a [`poll`](Self::poll) would that is pending.
    #[inline]
    pub(crate) fn expect(&self, whom: Expected) {
        let state = self.state.load(Ordering::Relaxed);
        debug_assert_eq!(state as u32, 0, "the slot was just activated");
        let said = match whom {
            Expected::Lasting(lasting) => {
                // SAFETY: nobody else knows of the slot's new generation, so that its cells are ours.
                self.lasting.with_mut(|cell| unsafe { *cell = Some(lasting) });
                LASTING
            }
            Expected::Waker(waker) => {
                // SAFETY: as above. It is empty.
                self.waker.with_mut(|cell| unsafe { *cell = Some(waker) });
                WAKER
            }
        };
        self.state.store(state | said, Ordering::Relaxed);
    }

    /// Who was said to be woken by whoever has begun the request, if that lasts.
    #[inline]
    fn lasting(&self, state: u64) -> Option<Lasting> {
        // SAFETY: it was written before anybody knew of the request, and nobody writes it before the slot is used again.
        if state & LASTING != 0 { self.lasting.with(|cell| unsafe { *cell }) } else { None }
    }

    // ----- request side ---------------------------------------------------------------------------------------------

    /// Notes that a kernel holds the request from now on and knows it by its id only.
    #[inline]
    pub(crate) fn park(&self) {
        self.parked.store(self.generation(), Ordering::Release);
    }

    /// Takes the request back from the kernel; `false` where the id is not of a request that a kernel holds.
    #[inline]
    pub(crate) fn claim(&self, generation: u32) -> bool {
        generation != 0 && self.parked.compare_exchange(generation, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the future side has left, so that nobody would see a result.
    #[inline]
    pub(crate) fn is_abandoned(&self) -> bool {
        self.state.load(Ordering::Acquire) & FUTURE_GONE != 0
    }

    /// The point of no return: `false` where the request was cancelled before, and must not begin.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state & (CANCELLED | BEGUN) != 0 {
                return state & CANCELLED == 0;
            }
            match self.state.compare_exchange_weak(state, state | BEGUN, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
    }

    /// Notes that a part is transferred, before the rest is submitted.
    pub(crate) fn begin_rest(&self) {
        self.state.fetch_or(PARTLY, Ordering::AcqRel);
    }

    /// Whether a backend was asked to stop the request since this was asked last.
    pub(crate) fn take_asked(&self) -> bool {
        self.state.fetch_and(!ASKED, Ordering::AcqRel) & ASKED != 0
    }

    /// Publishes the result and leaves. The caller wakes the waker, outside every lock.
    ///
    /// The waker is taken out *before* `DONE` is set, so that one atomic step both publishes and leaves: after it the
    /// future side may free the slot at once. One that lasts is there for whoever needs it, and takes no step.
    #[inline]
    pub(crate) fn publish(&self, answer: Answer) -> (Call, Last) {
        // SAFETY: the request side owns `answer` until it sets `DONE` below.
        self.answer.with_mut(|cell| unsafe { *cell = answer });
        let mut state = self.state.load(Ordering::Acquire);
        let mut call = Call { lasting: self.lasting(state), waker: None };
        loop {
            debug_assert_eq!(state & (DONE | REQUEST_GONE), 0, "a request completes once");
            if state & WAKER != 0 {
                let taking = state & !WAKER | WAKING;
                if let Err(now) = self.state.compare_exchange_weak(state, taking, Ordering::AcqRel, Ordering::Acquire) {
                    state = now;
                    continue;
                }
                // SAFETY: we cleared `WAKER`, and `WAKING` keeps the future side off the cell.
                call.waker = self.waker.with_mut(|cell| unsafe { (*cell).take() });
                state = taking;
            }
            let done = state & !WAKING | DONE | REQUEST_GONE;
            match self.state.compare_exchange(state, done, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let last = if state & FUTURE_GONE != 0 { Last::Yes } else { Last::No };
                    return (call, last);
                }
                Err(now) => state = now,
            }
        }
    }

    // ----- future side ----------------------------------------------------------------------------------------------

    /// The result, or the promise that `waker` is woken once it is there.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        let mut state = self.state.load(Ordering::Acquire);
        if state & DONE != 0 {
            return Poll::Ready(self.outcome());
        }
        if self.lasting(state).is_some_and(|lasting| lasting.is(waker)) {
            // It is called after `DONE` is set, whatever else happens.
            return Poll::Pending;
        }
        // Own the cell: either no waker is stored, or we take the bit back.
        while state & WAKER != 0 {
            match self.state.compare_exchange_weak(state, state & !WAKER, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => state &= !WAKER,
                Err(now) => state = now,
            }
        }
        if state & DONE != 0 {
            return Poll::Ready(self.outcome());
        }
        if state & WAKING != 0 {
            // The result is a few instructions away and the previous waker is being called: come back.
            crate::request::wake_by_ref(waker);
            return Poll::Pending;
        }
        // SAFETY: neither `WAKER` nor `WAKING` nor `DONE` is set: the future side owns the cell.
        self.waker.with_mut(|cell| unsafe {
            match &mut *cell {
                Some(old) => old.clone_from(waker),
                empty => *empty = Some(waker.clone()),
            }
        });
        loop {
            if state & DONE != 0 {
                return Poll::Ready(self.outcome());
            }
            match self.state.compare_exchange_weak(state, state | WAKER, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Poll::Pending,
                Err(now) => state = now,
            }
        }
    }

    /// The result, if it is there; registers nothing.
    #[inline]
    pub(crate) fn peek(&self) -> Option<Outcome> {
        self.is_done().then(|| self.outcome())
    }

    /// Whether the result is there.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// Cancels the request, unless it has begun.
    pub(crate) fn revoke(&self) -> Revoked {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state & DONE != 0 {
                return Revoked::Done;
            }
            if state & (CANCELLED | BEGUN) != 0 {
                return if state & CANCELLED != 0 { Revoked::InTime } else { Revoked::Begun };
            }
            match self.state.compare_exchange_weak(state, state | CANCELLED, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Revoked::InTime,
                Err(now) => state = now,
            }
        }
    }

    /// Notes that a backend is going to be asked to stop the request; `false` where a part of it is transferred, so that it
    /// is not to be asked.
    pub(crate) fn ask(&self) -> bool {
        self.state.fetch_or(ASKED, Ordering::AcqRel) & PARTLY == 0
    }

    /// Whether a part is transferred: what a backend has stopped since then is only the rest.
    pub(crate) fn is_partly_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & PARTLY != 0
    }

    /// The future side leaves, having collected the result or not.
    #[inline]
    pub(crate) fn leave(&self) -> Last {
        if self.state.load(Ordering::Acquire) & REQUEST_GONE != 0 {
            // Nobody else is left who would look at the bit.
            return Last::Yes;
        }
        let before = self.state.fetch_or(FUTURE_GONE, Ordering::AcqRel);
        if before & REQUEST_GONE != 0 { Last::Yes } else { Last::No }
    }

    /// Drops a waker that nobody will call any more. Only who was [`Last`] calls this.
    #[inline]
    pub(crate) fn clear_waker(&self) -> Option<Waker> {
        // SAFETY: the caller is the last owner of the slot.
        self.waker.with_mut(|cell| unsafe { (*cell).take() })
    }

    #[inline]
    fn outcome(&self) -> Outcome {
        // SAFETY: called after `DONE` was seen with acquire; nobody writes it again in this generation.
        self.answer.with(|cell| unsafe { *cell }).into()
    }
}

/// Loom explores every interleaving of the two sides: `RUSTFLAGS="--cfg polyaio_loom" cargo test --release --lib loom`.
#[cfg(all(test, polyaio_loom))]
mod loom_models {
    use std::sync::Arc as StdArc;
    use std::task::Wake;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::*;

    /// Counts its calls.
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: StdArc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counter() -> (StdArc<Count>, Waker) {
        let count = StdArc::new(Count(AtomicUsize::new(0)));
        (count.clone(), Waker::from(count))
    }

    fn live() -> Arc<Completion> {
        let completion = Arc::new(Completion::new());
        completion.activate();
        completion
    }

    /// A pending poll is followed by a wake-up, or its result is there at the next one; one side is the last.
    #[test]
    fn no_result_goes_by_unnoticed() {
        loom::model(|| {
            let completion = live();
            let publisher = {
                let completion = completion.clone();
                thread::spawn(move || {
                    let (call, last) = completion.publish(Ok(7).into());
                    call.make();
                    last
                })
            };
            let (count, waker) = counter();
            let pending = completion.poll(&waker).is_pending();
            let last = publisher.join().expect("the publisher does not panic");
            assert_eq!(last, Last::No, "the future side is still there");
            if pending {
                assert!(count.0.load(Ordering::SeqCst) > 0, "a pending poll was never woken");
            }
            assert_eq!(completion.poll(&waker), Poll::Ready(Ok(7)));
            assert_eq!(completion.leave(), Last::Yes);
        });
    }

    /// A waker that was left before anybody knew of the request is called, unless a later one has taken its place.
    #[test]
    fn a_waker_left_beforehand_is_called() {
        loom::model(|| {
            let completion = live();
            let (first, early) = counter();
            completion.expect(Expected::Waker(early));
            let publisher = {
                let completion = completion.clone();
                thread::spawn(move || completion.publish(Ok(1).into()).0.make())
            };
            let (second, late) = counter();
            let pending = completion.poll(&late).is_pending();
            publisher.join().expect("the publisher does not panic");
            let calls = [&first, &second].map(|count| count.0.load(Ordering::SeqCst));
            assert!(!pending || calls[1] > 0, "the second waker was not woken");
            assert!(calls[0] <= 1, "the first one was woken again");
            assert_eq!(completion.leave(), Last::Yes);
        });
    }

    /// Who is woken by a waker that lasts has nothing to register; another one counts beside it.
    #[test]
    fn a_waker_that_lasts_is_called_whoever_else_waits() {
        for moves in [false, true] {
            loom::model(move || {
                let completion = live();
                let (first, waker) = counter();
                // SAFETY: it is called once, which uses up a reference of its own.
                completion
                    .expect(Expected::Lasting(unsafe { Lasting::new(&std::mem::ManuallyDrop::new(waker.clone())) }));
                let publisher = {
                    let completion = completion.clone();
                    thread::spawn(move || completion.publish(Ok(1).into()).0.make())
                };
                let (second, other) = counter();
                let pending = completion.poll(if moves { &other } else { &waker }).is_pending();
                publisher.join().expect("the publisher does not panic");
                let calls = [&first, &second].map(|count| count.0.load(Ordering::SeqCst));
                assert!(!pending || calls[usize::from(moves)] > 0, "a pending poll was never woken: {calls:?}");
                assert_eq!(completion.poll(&waker), Poll::Ready(Ok(1)));
                assert_eq!(completion.leave(), Last::Yes);
            });
        }
    }

    /// The second of two wakers is the one that counts.
    #[test]
    fn a_new_waker_replaces_the_old_one() {
        loom::model(|| {
            let completion = live();
            let (_, first) = counter();
            assert!(completion.poll(&first).is_pending());
            let publisher = {
                let completion = completion.clone();
                thread::spawn(move || completion.publish(Ok(1).into()).0.make())
            };
            let (count, second) = counter();
            let pending = completion.poll(&second).is_pending();
            publisher.join().expect("the publisher does not panic");
            if pending {
                assert!(count.0.load(Ordering::SeqCst) > 0, "the second waker was not woken");
            }
        });
    }

    /// Dropping the future races with the result: exactly one side frees the slot.
    #[test]
    fn exactly_one_side_is_the_last() {
        loom::model(|| {
            let completion = live();
            let publisher = {
                let completion = completion.clone();
                thread::spawn(move || completion.publish(Err(Errno(5)).into()).1)
            };
            let mine = completion.leave();
            let theirs = publisher.join().expect("the publisher does not panic");
            assert!((mine == Last::Yes) != (theirs == Last::Yes), "{mine:?} and {theirs:?}");
        });
    }

    /// Cancelling races with the beginning: one of them wins, and both know which.
    #[test]
    fn what_is_cancelled_in_time_never_begins() {
        loom::model(|| {
            let completion = live();
            let worker = {
                let completion = completion.clone();
                thread::spawn(move || {
                    let begun = completion.begin();
                    completion.publish(if begun { Ok(1) } else { Err(Errno(125)) }.into());
                    begun
                })
            };
            let revoked = completion.revoke();
            let begun = worker.join().expect("the worker does not panic");
            match revoked {
                Revoked::InTime => assert!(!begun, "it was told that it never began"),
                Revoked::Begun | Revoked::Done => assert!(begun),
            }
            assert_eq!(completion.revoke(), Revoked::Done);
            assert_eq!(completion.leave(), Last::Yes);
        });
    }

    /// A kernel's event and the submitter that takes a refused request back: one of them gets it.
    #[test]
    fn a_parked_request_is_claimed_once() {
        loom::model(|| {
            let completion = live();
            let generation = completion.generation();
            completion.park();
            let reaper = {
                let completion = completion.clone();
                thread::spawn(move || completion.claim(generation))
            };
            let mine = completion.claim(generation);
            let theirs = reaper.join().expect("the reaper does not panic");
            assert!(mine != theirs);
            assert!(!completion.claim(generation.wrapping_add(1)), "another generation is nobody's");
        });
    }
}
