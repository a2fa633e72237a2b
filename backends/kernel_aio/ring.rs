//! The ring of completions that kernel and process share, and its protocol.
//!
//! As `aio_complete` and `aio_read_events_ring` in `fs/aio.c` have it: the kernel writes an event, then moves `tail`
//! (`smp_wmb` between); the reader reads `tail` with *acquire*, copies the events, then moves `head` with *release*, after
//! which the kernel may write over them. The kernel looks at `head` when it runs out of places
//! (`user_refill_reqs_available`), and never lets more requests in than there are places.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::abi::{IoEvent, RING_INCOMPAT_FEATURES, RING_MAGIC, RingHeader};
use super::probe::Context;
use crate::sync::atomic::Ordering;

/// What the protocol needs of a ring: the kernel's, or the one of the loom model.
pub(super) trait Places {
    /// How many places there are, at least 1.
    fn places(&self) -> u32;
    fn head(&self, order: Ordering) -> u32;
    fn tail(&self, order: Ordering) -> u32;
    fn set_head(&self, head: u32, order: Ordering);
    /// Copies an event.
    ///
    /// # Safety
    /// `at` is a place from `head` up to (not including) a `tail` that was read with acquire.
    unsafe fn event(&self, at: u32) -> IoEvent;
}

/// Copies events out, as many as fit, and then moves the head.
///
/// # Safety
/// Nobody else moves the head meanwhile: there is one reader, and it is not in `io_getevents`.
pub(super) unsafe fn drain(ring: &impl Places, events: &mut [IoEvent]) -> usize {
    let places = ring.places();
    // Moved by earlier readers only, from whom the reader's mutex was acquired. Both are reduced as the kernel does, so that
    // a head that somebody overwrote leads to wrong events (unknown ids) but not out of the ring.
    let mut head = ring.head(Ordering::Relaxed) % places;
    // Acquire: the events before this tail were written before it.
    let tail = ring.tail(Ordering::Acquire) % places;
    let mut count = 0;
    while head != tail && count < events.len() {
        // SAFETY: `head` has not reached the tail that was read with acquire above, and nobody else moves it.
        events[count] = unsafe { ring.event(head) };
        count += 1;
        head = if head + 1 == places { 0 } else { head + 1 };
    }
    if count > 0 {
        // Release: the copies are finished before the kernel may see that the places are free.
        ring.set_head(head, Ordering::Release);
    }
    count
}

/// The kernel's ring, mapped into this process.
#[derive(Debug)]
pub(super) struct Ring {
    header: NonNull<RingHeader>,
    places: u32,
}

// SAFETY: a mapping shared with the kernel, bound to no thread. `head` and `tail` are atomics; events are read by the one
// reader only, between the two.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// The context's ring, if its header is the one we know; otherwise what is wrong with it.
    ///
    /// The ring must be dropped before the context: see the order of fields in `Live`.
    pub(super) fn of(context: &Context) -> Result<Self, String> {
        let header = NonNull::new(context.id() as *mut RingHeader).ok_or("the context is not an address")?;
        if !header.is_aligned() {
            return Err("the context is not an address".to_owned());
        }
        // SAFETY: `io_setup` returns the address of a mapping of at least a page (`aio_setup_ring`; gVisor, which emulates the
        // call, maps a page there that stays empty). Only `head` and `tail` ever change after setup, and they are atomics.
        let shared = unsafe { header.as_ref() };
        let places = check_header(shared, context.size(), page_size())?;
        Ok(Self { header, places })
    }

    /// Whether there is nothing to collect. Two loads; whoever then reaps looks again.
    pub(super) fn is_empty(&self) -> bool {
        self.head(Ordering::Relaxed) == self.tail(Ordering::Acquire)
    }

    fn shared(&self) -> &RingHeader {
        // SAFETY: checked by `of`; mapped until the context is destroyed, and `Live` keeps that from happening before `self`
        // is dropped.
        unsafe { self.header.as_ref() }
    }
}

impl Places for Ring {
    fn places(&self) -> u32 {
        self.places
    }

    fn head(&self, order: Ordering) -> u32 {
        self.shared().head.load(order)
    }

    fn tail(&self, order: Ordering) -> u32 {
        self.shared().tail.load(order)
    }

    fn set_head(&self, head: u32, order: Ordering) {
        self.shared().head.store(head, order);
    }

    unsafe fn event(&self, at: u32) -> IoEvent {
        debug_assert!(at < self.places, "a place outside of the ring");
        // SAFETY: the events follow the header, `places` of them by the checked header; the kernel does not write to this one
        // before the head has passed it (the caller's promise).
        unsafe { self.header.add(1).cast::<IoEvent>().add(at as usize).read() }
    }
}

/// The number of places, if this is a ring that we know.
fn check_header(header: &RingHeader, granted: usize, page_size: usize) -> Result<u32, String> {
    if header.magic != RING_MAGIC {
        return Err(format!("its magic is {:#x} instead of {RING_MAGIC:#x}", header.magic));
    }
    if header.incompat_features != RING_INCOMPAT_FEATURES {
        return Err(format!("it has unknown features ({:#x})", header.incompat_features));
    }
    if header.header_length as usize != size_of::<RingHeader>() {
        return Err(format!("its header has {} bytes instead of {}", header.header_length, size_of::<RingHeader>()));
    }
    // `aio_setup_ring` fills whole pages, and adds a place that stays empty.
    let bytes = size_of::<RingHeader>() + header.nr as usize * size_of::<IoEvent>();
    if (header.nr as usize) <= granted || !bytes.is_multiple_of(page_size) {
        return Err(format!("it claims {} places for {granted} requests", header.nr));
    }
    Ok(header.nr)
}

fn page_size() -> usize {
    // SAFETY: takes no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn header() -> RingHeader {
        RingHeader {
            id: 0,
            nr: 127,
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            magic: RING_MAGIC,
            compat_features: 1,
            incompat_features: 0,
            header_length: 32,
        }
    }

    #[test]
    fn only_the_known_header_is_a_ring() {
        assert_eq!(check_header(&header(), 32, 4096), Ok(127));
        let wrong = [
            (RingHeader { magic: 0, ..header() }, "magic"),
            (RingHeader { incompat_features: 2, ..header() }, "features"),
            (RingHeader { header_length: 64, ..header() }, "64 bytes"),
            (RingHeader { nr: 0, ..header() }, "0 places"),
            (RingHeader { nr: 126, ..header() }, "126 places"),
        ];
        for (header, what) in wrong {
            let reason = check_header(&header, 32, 4096).expect_err(what);
            assert!(reason.contains(what), "{reason}");
        }
        assert!(check_header(&header(), 127, 4096).is_err(), "no place stays empty");
    }
}

/// The protocol of the ring, with a thread in the kernel's place.
#[cfg(all(test, polyaio_loom))]
mod loom_model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::UnsafeCell;
    use crate::sync::atomic::AtomicU32;

    /// Two events at a time: the third and fourth write over the first and second.
    const PLACES: u32 = 3;
    const COMPLETIONS: u64 = 4;

    struct Model {
        head: AtomicU32,
        tail: AtomicU32,
        events: [UnsafeCell<IoEvent>; PLACES as usize],
    }

    // SAFETY: the protocol under test hands the cells over; loom reports it if it does not.
    unsafe impl Sync for Model {}
    // SAFETY: nothing is bound to a thread.
    unsafe impl Send for Model {}

    impl Places for Model {
        fn places(&self) -> u32 {
            PLACES
        }

        fn head(&self, order: Ordering) -> u32 {
            self.head.load(order)
        }

        fn tail(&self, order: Ordering) -> u32 {
            self.tail.load(order)
        }

        fn set_head(&self, head: u32, order: Ordering) {
            self.head.store(head, order);
        }

        unsafe fn event(&self, at: u32) -> IoEvent {
            // SAFETY: the caller's promise; loom checks it.
            self.events[at as usize].with(|event| unsafe { *event })
        }
    }

    impl Model {
        /// `aio_complete`, where `user_refill_reqs_available` lets only as many in as there are free places.
        fn complete(&self, data: u64) {
            let tail = self.tail.load(Ordering::Relaxed);
            let next = (tail + 1) % PLACES;
            while next == self.head.load(Ordering::Acquire) {
                thread::yield_now();
            }
            // SAFETY: the place is free: the reader's head has passed it. Loom checks it.
            self.events[tail as usize].with_mut(|event| unsafe { *event = IoEvent { data, ..IoEvent::default() } });
            // `smp_wmb()` between the event and the tail.
            self.tail.store(next, Ordering::Release);
        }
    }

    #[test]
    fn loom_events_are_read_once_in_order_and_never_torn() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(4);
        model.check(|| {
            let ring = Arc::new(Model {
                head: AtomicU32::new(0),
                tail: AtomicU32::new(0),
                events: std::array::from_fn(|_| UnsafeCell::new(IoEvent::default())),
            });
            let kernel = {
                let ring = ring.clone();
                thread::spawn(move || (1..=COMPLETIONS).for_each(|data| ring.complete(data)))
            };
            let mut expected = 1;
            while expected <= COMPLETIONS {
                let mut events = [IoEvent::default(); 2];
                // SAFETY: this thread is the one reader.
                let count = unsafe { drain(&*ring, &mut events) };
                for event in &events[..count] {
                    assert_eq!(event.data, expected);
                    expected += 1;
                }
                if count == 0 {
                    thread::yield_now();
                }
            }
            kernel.join().expect("the kernel's side");
        });
    }
}
