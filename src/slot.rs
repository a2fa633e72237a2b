//! The memory of requests in flight: slots that are made once and used again.
//!
//! A slot owns everything that the kernel may touch (invariant 1): the buffer (in [`Payload`]), the iovecs and the strong
//! reference to the descriptor (through [`Owner`]). Slots live in chunks that never move and are freed with the engine, so that
//! a request is a pointer and an id is an index with a generation.

#![allow(unsafe_code)]

mod free;

use std::collections::VecDeque;
use std::mem::{MaybeUninit, align_of, size_of};
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::completion::Completion;
use crate::request::{Body, Extra, Owner, RequestId, wake};
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::sync::{Mutex, UnsafeCell, lock};
pub(crate) use free::Below;
use free::{Free, Refused};

/// Slots in the first chunk; each further chunk is twice the one before it.
const FIRST_CHUNK: u32 = 64;
/// 64 · (2^15 − 1) slots at the most: two million.
const CHUNKS: usize = 15;
/// Slots of an engine at the most.
pub(crate) const MOST_SLOTS: usize = (FIRST_CHUNK as usize) * ((1 << CHUNKS) - 1);

/// One request's memory.
pub(crate) struct Slot {
    pub(crate) completion: Completion,
    pub(crate) index: u32,
    /// While it is free, or in the inbox of a queue.
    pub(crate) below: Below,
    /// Who holds the [`Request`](crate::Request) owns the body; after the end, the future side until it leaves, and then who
    /// frees the slot.
    pub(crate) body: UnsafeCell<Body>,
    /// Keeps the descriptor open, and with it the engine and this slot. Set before the request starts, read by both sides,
    /// taken by who frees the slot.
    owner: UnsafeCell<Option<Arc<dyn Owner>>>,
    /// Written before the request starts; taken by the future that sees `DONE`, or dropped by who frees the slot.
    payload: UnsafeCell<Payload>,
}

// SAFETY: `owner` does not change while it is shared; `body` belongs to whoever holds the one `Request`, and to the last owner afterwards; `payload` belongs to the
// future side before the start, and to whoever `Completion` names as the owner afterwards. Both hold `Send` data only.
unsafe impl Sync for Slot {}
// SAFETY: as above; nothing in a slot is bound to a thread.
unsafe impl Send for Slot {}

impl Slot {
    /// Stores the typed operation with its buffer, and returns where it lies from now on.
    ///
    /// # Safety
    /// The caller owns the payload: the slot is activated and its request has not started.
    #[inline]
    pub(crate) unsafe fn store<T: Send + 'static>(&self, value: T) -> NonNull<T> {
        // SAFETY: the caller owns the payload.
        self.payload.with_mut(|payload| unsafe { (*payload).store(value) })
    }

    /// Takes out again what was stored: the future side a typed operation after its end, the request side the memory of a
    /// stream's step before it.
    ///
    /// # Safety
    /// The caller owns the payload, which was stored as a `T` in this generation and not taken since.
    #[inline]
    pub(crate) unsafe fn take<T: Send + 'static>(&self) -> T {
        // SAFETY: forwarded to the caller.
        self.payload.with_mut(|payload| unsafe { (*payload).take() })
    }

    /// Empties the slot, as its last owner. What comes back is to be dropped outside every lock.
    ///
    /// # Safety
    /// The caller was told [`Last::Yes`](crate::completion::Last) for this slot in this generation.
    #[inline]
    pub(crate) unsafe fn clear(&self) -> (Option<Arc<dyn Owner>>, Option<Waker>) {
        // SAFETY: the last owner owns all cells.
        unsafe {
            self.payload.with_mut(|payload| {
                // Mostly the future side has taken it.
                if (*payload).drop.is_some() {
                    crate::request::contain(|| (*payload).drop_in_place());
                }
            });
            self.body.with_mut(|body| {
                let body = &mut *body;
                body.memory.release();
                // What nobody has taken of it (a file that was opened) ends here.
                if !matches!(body.extra, Extra::None) {
                    let extra = std::mem::take(&mut body.extra);
                    crate::request::contain(|| drop(extra));
                }
            });
            let owner = self.owner.with_mut(|owner| (*owner).take());
            (owner, self.completion.clear_waker())
        }
    }

    /// Names the owner of the request that is about to start.
    ///
    /// # Safety
    /// The slot is activated and not started.
    #[inline]
    pub(crate) unsafe fn set_owner(&self, owner: Arc<dyn Owner>) {
        // SAFETY: nobody but the caller knows the slot yet.
        self.owner.with_mut(|place| unsafe { *place = Some(owner) });
    }

    /// Who answers for the request.
    ///
    /// # Safety
    /// The caller is one of the two sides, and has not left; the owner was set in this generation.
    #[inline]
    pub(crate) unsafe fn owner(&self) -> &Arc<dyn Owner> {
        // SAFETY: the owner is not changed while one of the two sides is there.
        match self.owner.with(|owner| unsafe { &*owner }) {
            Some(owner) => owner,
            None => unreachable!("a live slot has an owner"),
        }
    }

    /// The request's own fields, after its end.
    ///
    /// # Safety
    /// The caller is the future side, has seen that the request is done, and has not left.
    #[inline]
    pub(crate) unsafe fn ended(&self) -> &Body {
        // SAFETY: `Request::publish` gives its `Request` up before `Completion::publish` sets `DONE` (release), and
        // touches the body no more: the future side, which has seen `DONE` (acquire), sees all that was written, and
        // nobody writes until the slot is free again.
        self.body.with(|body| unsafe { &*body })
    }

    #[inline]
    pub(crate) fn id(&self) -> RequestId {
        RequestId::new(self.index, self.completion.generation())
    }
}

/// Room for a typed operation: inline up to 80 bytes (a buffer's handle of up to 64 bytes and the operation's own fields).
struct Payload {
    inline: MaybeUninit<[u64; 10]>,
    /// Drops what `inline` holds; `None` when it holds nothing.
    drop: Option<unsafe fn(*mut u8)>,
}

impl Payload {
    const fn fits<T>() -> bool {
        size_of::<T>() <= size_of::<[u64; 10]>() && align_of::<T>() <= align_of::<u64>()
    }

    #[inline]
    unsafe fn store<T>(&mut self, value: T) -> NonNull<T> {
        debug_assert!(self.drop.is_none(), "the payload is taken");
        let place = self.inline.as_mut_ptr().cast::<u8>();
        // SAFETY: `fits` has checked size and alignment for the inline case; a `Box<T>` always fits.
        unsafe {
            if const { Self::fits::<T>() } {
                place.cast::<T>().write(value);
                self.drop = Some(|p| p.cast::<T>().drop_in_place());
                NonNull::new_unchecked(place.cast())
            } else {
                let boxed = NonNull::from(Box::leak(Box::new(value)));
                place.cast::<NonNull<T>>().write(boxed);
                self.drop = Some(|p| drop(Box::from_raw(p.cast::<NonNull<T>>().read().as_ptr())));
                boxed
            }
        }
    }

    #[inline]
    unsafe fn take<T>(&mut self) -> T {
        debug_assert!(self.drop.is_some(), "the payload is empty");
        self.drop = None;
        let place = self.inline.as_mut_ptr().cast::<u8>();
        // SAFETY: the caller says that a `T` was stored; it lies inline or boxed by the same constant condition.
        unsafe {
            if const { Self::fits::<T>() } {
                place.cast::<T>().read()
            } else {
                *Box::from_raw(place.cast::<NonNull<T>>().read().as_ptr())
            }
        }
    }

    unsafe fn drop_in_place(&mut self) {
        if let Some(drop) = self.drop.take() {
            // SAFETY: `drop` was set by `store` for what lies in `inline`.
            unsafe { drop(self.inline.as_mut_ptr().cast()) }
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // SAFETY: we own the payload.
        unsafe { self.drop_in_place() }
    }
}

/// All slots of an engine.
pub(crate) struct Slab {
    /// Each with room for so many slots; the first `made` of all are there.
    chunks: [AtomicPtr<Slot>; CHUNKS],
    /// Slots made so far: one after the other, so that a chunk takes no more memory than those of it that were used.
    made: AtomicU32,
    capacity: u32,
    tag: u64,
    free: Free,
    line: Mutex<Line>,
}

/// Slabs made so far in this process: each has a tag of its own.
static TAGS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// What is behind a lock: new slots, and those that somebody waits for.
#[derive(Default)]
struct Line {
    /// Who waits for a slot, in order: the bound is reached. They are served in order even if a later one comes first to
    /// fetch its slot: the order of appends and syncs hangs on it. While there are any, the stack of free slots is closed.
    waiters: VecDeque<Waiter>,
    tickets: u64,
}

/// Somebody who waits for a slot.
struct Waiter {
    ticket: Ticket,
    waker: Option<Waker>,
    /// The slot that was granted and is not fetched yet. Those with a slot are before those without.
    slot: Option<u32>,
}

/// A place in the line for a slot.
pub(crate) type Ticket = u64;

impl Slab {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = u32::try_from(capacity.clamp(1, MOST_SLOTS)).unwrap_or(u32::MAX);
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            made: AtomicU32::new(0),
            capacity,
            tag: TAGS.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            free: Free::new(),
            line: Mutex::new(Line::default()),
        }
    }

    /// A live slot, or a place in the line where the bound allows none or others are waiting already.
    #[inline]
    pub(crate) fn poll_acquire(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<&Slot> {
        // The common case, without a reference to the waker.
        if ticket.is_none()
            && let Some(slot) = self.try_acquire()
        {
            return Poll::Ready(slot);
        }
        self.poll_line(ticket, waker)
    }

    /// A live slot; `None` where the bound allows none or others are waiting already.
    pub(crate) fn try_acquire(&self) -> Option<&Slot> {
        let index = match self.free.take(|index| &self.slot(index).below) {
            Ok(index) => Some(index),
            Err(Refused::Closed) => None,
            Err(Refused::Empty) => {
                let mut line = lock(&self.line);
                if line.waiters.is_empty() { self.take(&mut line) } else { None }
            }
        };
        index.map(|index| self.activate(index))
    }

    /// Lets all who wait in line look again.
    pub(crate) fn wake_line(&self) {
        let wakers: Vec<_> = lock(&self.line).waiters.iter_mut().filter_map(|waiter| waiter.waker.take()).collect();
        wakers.into_iter().for_each(wake);
    }

    fn poll_line(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<&Slot> {
        let mut mine = Some(waker.clone());
        let (index, next) = {
            let mut line = lock(&self.line);
            // Room has come since we looked.
            let room = if ticket.is_none() && line.waiters.is_empty() { self.take(&mut line) } else { None };
            match *ticket {
                _ if room.is_some() => (room, None),
                None => {
                    if line.waiters.is_empty() {
                        // What is put back from now on comes to the line.
                        self.free.close();
                    }
                    let number = line.enqueue(&mut mine);
                    *ticket = Some(number);
                    // Those before us have their slots and have not fetched them: what is free is for us.
                    if let Some(index) = self.take(&mut line) {
                        self.give(&mut line, index);
                    }
                    // One that was put back before the stack was closed may be ours, and nobody is left who would say so.
                    (None, line.next_waker())
                }
                Some(number) => {
                    let (index, next) = line.advance(number, &mut mine);
                    if index.is_some() {
                        self.open_if_served(&line);
                    }
                    (index, next)
                }
            }
        };
        crate::request::contain(|| drop(mine));
        next.into_iter().for_each(wake);
        if index.is_some() {
            *ticket = None;
        }
        index.map_or(Poll::Pending, |index| Poll::Ready(self.activate(index)))
    }

    /// Leaves the line; a slot that was granted meanwhile goes to the next.
    pub(crate) fn forsake(&self, ticket: Ticket) {
        let (entry, next) = {
            let mut line = lock(&self.line);
            let entry = line.place(ticket).and_then(|at| line.waiters.remove(at));
            self.open_if_served(&line);
            (entry, line.next_waker())
        };
        next.into_iter().for_each(wake);
        if let Some(index) = entry.and_then(|entry| entry.slot) {
            self.put(index);
        }
    }

    fn open_if_served(&self, line: &Line) {
        if line.waiters.is_empty() {
            self.free.open();
        }
    }

    /// Tells this slab from every other of the process. Never 0.
    #[inline]
    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    /// Puts an emptied slot back among the free ones.
    #[inline]
    pub(crate) fn put_back(&self, slot: &Slot) {
        slot.completion.retire();
        self.put(slot.index);
    }

    /// The live slot that an id names, whatever its state.
    #[inline]
    pub(crate) fn find(&self, id: RequestId) -> Option<&Slot> {
        (id.index() < self.made.load(Ordering::Acquire)).then(|| self.slot(id.index()))
    }

    fn put(&self, index: u32) {
        if self.free.put(index, &self.slot(index).below) {
            return;
        }
        let waker = {
            let mut line = lock(&self.line);
            self.give(&mut line, index);
            line.next_waker()
        };
        waker.into_iter().for_each(wake);
    }

    /// A free slot, or a new one.
    #[inline]
    fn take(&self, _line: &mut Line) -> Option<u32> {
        if let Some(index) = self.free.take_locked(|index| &self.slot(index).below) {
            return Some(index);
        }
        // Changed by who has the line's lock only.
        let index = self.made.load(Ordering::Relaxed);
        if index == self.capacity {
            return None;
        }
        let (chunk, within) = place(index);
        if within == 0 {
            let room = Box::<[Slot]>::new_uninit_slice((FIRST_CHUNK << chunk) as usize);
            self.chunks[chunk].store(Box::into_raw(room).cast(), Ordering::Release);
        }
        // SAFETY: the chunk has room for it, and nobody knows the place before `made` is stored.
        unsafe { self.chunks[chunk].load(Ordering::Relaxed).add(within).write(new_slot(index)) };
        self.made.store(index + 1, Ordering::Release);
        Some(index)
    }

    /// Gives a slot to the first in line who has none, or puts it back.
    fn give(&self, line: &mut Line, index: u32) {
        let first = line.waiters.partition_point(|waiter| waiter.slot.is_some());
        match line.waiters.get_mut(first) {
            Some(waiter) => waiter.slot = Some(index),
            None => self.free.put_locked(index, &self.slot(index).below),
        }
    }

    /// The slot at a place.
    ///
    /// # Safety
    /// The slot was made.
    #[inline]
    pub(crate) unsafe fn slot_at(&self, index: u32) -> &Slot {
        self.slot(index)
    }

    /// A slot that was made.
    #[inline]
    fn slot(&self, index: u32) -> &Slot {
        let (chunk, within) = place(index);
        let base = self.chunks[chunk].load(Ordering::Acquire);
        // SAFETY: `take` has made the slot before anybody knew the index.
        unsafe { &*base.add(within) }
    }

    #[inline]
    fn activate(&self, index: u32) -> &Slot {
        let slot = self.slot(index);
        slot.completion.activate();
        slot
    }
}

impl Line {
    fn enqueue(&mut self, waker: &mut Option<Waker>) -> Ticket {
        self.tickets += 1;
        self.waiters.push_back(Waiter { ticket: self.tickets, waker: waker.take(), slot: None });
        self.tickets
    }

    /// Where in the line a ticket is. Tickets ascend along it. Not by going through it: an executor that polls all that it
    /// waits for, whenever one of them ends, comes here once for each in the line.
    #[inline]
    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }

    /// The slot of the first in the line, if that is `ticket`, with the waker of who is first now; else keeps the waker.
    fn advance(&mut self, ticket: Ticket, waker: &mut Option<Waker>) -> (Option<u32>, Option<Waker>) {
        if let Some(first) = self.waiters.front()
            && first.ticket == ticket
            && let Some(index) = first.slot
        {
            // The old waker goes back to the caller, to be dropped outside the lock.
            *waker = self.waiters.pop_front().and_then(|first| first.waker);
            return (Some(index), self.next_waker());
        }
        if let Some(waiter) = self.place(ticket).and_then(|at| self.waiters.get_mut(at)) {
            std::mem::swap(&mut waiter.waker, waker);
        }
        (None, None)
    }

    /// Whom to wake: the first in the line, once it has a slot. The others keep their turn.
    fn next_waker(&mut self) -> Option<Waker> {
        self.waiters.front_mut().filter(|first| first.slot.is_some()).and_then(|first| first.waker.take())
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let mut left = self.made.load(Ordering::Acquire) as usize;
        for (chunk, base) in self.chunks.iter().enumerate() {
            let base = base.load(Ordering::Acquire);
            if !base.is_null() {
                let length = (FIRST_CHUNK << chunk) as usize;
                let made = left.min(length);
                left -= made;
                // SAFETY: made by `take`: a box of this length, so many of which it has written. Nobody holds a slot any more:
                // every slot in use holds, through its owner, a reference to the engine that holds this slab.
                unsafe {
                    std::ptr::slice_from_raw_parts_mut(base, made).drop_in_place();
                    drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(base.cast::<MaybeUninit<Slot>>(), length)));
                }
            }
        }
    }
}

fn new_slot(index: u32) -> Slot {
    Slot {
        completion: Completion::new(),
        index,
        below: Below::new(),
        body: UnsafeCell::new(Body::default()),
        owner: UnsafeCell::new(None),
        payload: UnsafeCell::new(Payload { inline: MaybeUninit::uninit(), drop: None }),
    }
}

/// Chunk and place within it of a slot. Any index has one, also one that a forged id names.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let shifted = u64::from(index) + u64::from(FIRST_CHUNK);
    let chunk = shifted.ilog2() - FIRST_CHUNK.ilog2();
    (chunk as usize, (shifted - (u64::from(FIRST_CHUNK) << chunk)) as usize)
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_fits_the_promised_size() {
        assert!(size_of::<Slot>() <= 512, "{} bytes", size_of::<Slot>());
    }

    #[test]
    fn every_index_has_one_place() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected, "slot {index}");
            expected.1 += 1;
            if expected.1 == (FIRST_CHUNK as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn the_line_for_a_slot_is_served_in_order() {
        let slab = Slab::new(2);
        let take = || match slab.poll_acquire(&mut None, Waker::noop()) {
            Poll::Ready(slot) => slot,
            Poll::Pending => panic!("there is room for two"),
        };
        let held = [take(), take()];
        let (mut first, mut second, mut third) = (None, None, None);
        for ticket in [&mut first, &mut second, &mut third] {
            assert!(slab.poll_acquire(ticket, Waker::noop()).is_pending());
        }
        held.into_iter().for_each(|slot| slab.put_back(slot));
        assert!(slab.poll_acquire(&mut None, Waker::noop()).is_pending(), "nobody passes the line");
        assert!(slab.poll_acquire(&mut second, Waker::noop()).is_pending(), "its slot is there, its turn is not");
        slab.forsake(first.expect("still in the line"));
        assert!(slab.poll_acquire(&mut third, Waker::noop()).is_pending(), "not before the second");
        assert!(slab.poll_acquire(&mut second, Waker::noop()).is_ready());
        assert!(slab.poll_acquire(&mut third, Waker::noop()).is_ready(), "the first one's slot came down the line");
    }

    /// An executor may poll all that it waits for whenever one of them ends.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_line_costs_those_who_are_polled_in_it_nothing() {
        use crate::testing::thread_time;
        // Thread time for a round of polls of each in the line; the quickest of a few, for what disturbs makes it longer.
        let round = |waiting: usize| {
            let slab = Slab::new(1);
            assert!(slab.poll_acquire(&mut None, Waker::noop()).is_ready());
            let mut tickets = vec![None; waiting];
            let mut poll_all = || {
                let begin = thread_time();
                tickets.iter_mut().for_each(|ticket| assert!(slab.poll_acquire(ticket, Waker::noop()).is_pending()));
                thread_time() - begin
            };
            poll_all();
            (0..5).map(|_| poll_all()).min().expect("five rounds")
        };
        // In a line of 16 times the length each poll may take somewhat longer; gone through, it takes 16 times as long.
        crate::testing::one_of_many("polls in a long line", || {
            let (short, long) = (round(256), round(256 * 16) / 16);
            if long < short * 6 { Ok(()) } else { Err(format!("256 polls took {short:?}, in a long line {long:?}")) }
        });
    }
}

#[cfg(all(test, polyaio_loom))]
mod line_models {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize as Plain;
    use std::task::Wake;

    use loom::thread;

    use super::*;

    struct Count(Plain);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn loom_who_gets_in_line_is_woken_for_its_slot() {
        loom::model(|| {
            let slab = Arc::new(Slab::new(1));
            let Poll::Ready(_) = slab.poll_acquire(&mut None, Waker::noop()) else { panic!("there is one") };
            let giver = {
                let slab = slab.clone();
                thread::spawn(move || slab.put_back(slab.slot(0)))
            };
            let count = Arc::new(Count(Plain::new(0)));
            let waker = Waker::from(count.clone());
            let mut ticket = None;
            let ready = slab.poll_acquire(&mut ticket, &waker).is_ready();
            giver.join().expect("no panic");
            assert!(
                ready || count.0.load(std::sync::atomic::Ordering::SeqCst) > 0,
                "in line, with a slot, and never woken"
            );
        });
    }
}
