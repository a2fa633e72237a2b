//! Buffers that come back: a fixed number of aligned buffers in one allocation.
//!
//! A buffer that is dropped goes to whoever has waited longest, or else to the free ones. It is handed over under the lock,
//! so that a newcomer cannot take it from the one who is being woken.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::buf::{IoBuf, IoBufMut};
use crate::request::wake;
use crate::sync::{Mutex, lock};

/// A fixed number of aligned buffers of one size, allocated once. Clones are the same pool.
///
/// A buffer comes back when its [`PooledBuf`] is dropped: on any thread, also inside of the engine (the buffer of an abandoned
/// request), also when all handles of the pool are gone. The memory is freed with the last handle or buffer.
/// Taking and giving back allocates nothing.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello")?;
/// use polyaio::{BufPool, BufResult, Engine, OpenOptions};
/// let engine = Engine::new()?;
/// let file = OpenOptions::new().read(true).open(&engine, &path)?;
/// let pool = BufPool::new(2, 4096, 4096);
/// let BufResult(n, buf) = engine.block_on(async { file.read_at(pool.acquire().await, 0).await });
/// assert_eq!((n?, &buf[..]), (5, &b"hello"[..]));
/// assert_eq!(pool.available(), 1);
/// drop(buf);
/// assert_eq!(pool.available(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct BufPool {
    shared: Arc<Shared>,
}

/// A buffer of a [`BufPool`]; it goes back when it is dropped.
///
/// It has a fixed capacity and a length. [`Deref`] gives the bytes up to the length; a write sends them. A read may fill
/// the whole capacity, and makes the length at least what was read. It comes out of the pool with a length of 0. What is
/// beyond the length is initialised: zeroes, or what an earlier user of the buffer has left there.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let pool = polyaio::BufPool::new(1, 4096, 512);
/// let mut buf = pool.get().ok_or("there is one")?;
/// assert!(buf.is_empty());
/// buf.append(b"HELLO");
/// let buf = file.write_all_at(buf, 0).wait().into_result()?.1;
/// assert_eq!(&buf[..], b"HELLO");
/// # Ok(()) }
/// ```
pub struct PooledBuf {
    shared: Arc<Shared>,
    index: u32,
    len: usize,
}

/// The future of [`BufPool::acquire`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = polyaio::Engine::new()?;
/// let pool = polyaio::BufPool::new(1, 4096, 512);
/// let only = pool.get().ok_or("there is one")?;
/// let next = pool.acquire(); // not in line before it is polled
/// drop(only);
/// assert_eq!(engine.block_on(next).capacity(), 4096);
/// # Ok(()) }
/// ```
#[must_use = "a place in the line is taken when it is first polled"]
pub struct Acquire {
    shared: Arc<Shared>,
    ticket: Option<u64>,
}

struct Shared {
    memory: NonNull<u8>,
    layout: Layout,
    /// Bytes from one buffer to the next, a multiple of the alignment.
    stride: usize,
    size: usize,
    count: usize,
    state: Mutex<State>,
}

// SAFETY: the memory is its own; each buffer in it is reached through the one `PooledBuf` that has its index.
unsafe impl Send for Shared {}
// SAFETY: as above; `state` is behind a lock, the rest never changes.
unsafe impl Sync for Shared {}

/// A buffer is free only while nobody waits.
struct State {
    free: Vec<u32>,
    waiting: VecDeque<(u64, Waker)>,
    /// Handed over, and not fetched yet.
    granted: Vec<(u64, u32)>,
    next_ticket: u64,
}

impl BufPool {
    /// A pool of `count` buffers of `size` bytes each, whose addresses are multiples of `align` bytes.
    ///
    /// # Panics
    /// Panics if `count` or `size` is 0, if `align` is not a power of two, or if all of them together need more than
    /// `isize::MAX` bytes. Aborts, as `Vec` does, when there is no memory.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::BufPool;
    /// let pool = BufPool::new(8, 65536, 4096);
    /// assert_eq!((pool.count(), pool.buffer_size(), pool.alignment(), pool.available()), (8, 65536, 4096, 8));
    /// # Ok(()) }
    /// ```
    pub fn new(count: usize, size: usize, align: usize) -> Self {
        assert!(count > 0 && size > 0, "a pool needs buffers, and buffers need bytes: {count} of {size}");
        assert!(align.is_power_of_two(), "alignment {align} must be a power of two");
        let stride = size.checked_next_multiple_of(align);
        let layout = stride.and_then(|stride| stride.checked_mul(count));
        let layout = layout.and_then(|bytes| Layout::from_size_align(bytes, align).ok());
        let (Some(stride), Some(layout), Ok(last)) = (stride, layout, u32::try_from(count)) else {
            panic!("{count} buffers of {size} bytes at multiples of {align} are more than can be allocated");
        };
        // SAFETY: the layout is not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let state = State {
            // The first is on top.
            free: (0..last).rev().collect(),
            waiting: VecDeque::new(),
            granted: Vec::with_capacity(count),
            next_ticket: 0,
        };
        let state = Mutex::new(state);
        Self { shared: Arc::new(Shared { memory, layout, stride, size, count, state }) }
    }

    /// A buffer; `None` while all are out, or others wait for one.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = polyaio::BufPool::new(1, 4096, 512);
    /// let only = pool.get().ok_or("there is one")?;
    /// assert!(pool.get().is_none());
    /// drop(only);
    /// assert!(pool.get().is_some());
    /// # Ok(()) }
    /// ```
    pub fn get(&self) -> Option<PooledBuf> {
        let index = lock(&self.shared.state).free.pop()?;
        Some(PooledBuf::new(&self.shared, index))
    }

    /// A buffer, as soon as there is one. Those who wait are served in the order of their first polls. Who waits while holding
    /// buffers of the same pool may wait for himself.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the line, and what was handed to it meanwhile goes to the next.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = polyaio::Engine::new()?;
    /// let pool = polyaio::BufPool::new(1, 4096, 512);
    /// let first = engine.block_on(pool.acquire());
    /// let waiting = { let pool = pool.clone(); std::thread::spawn(move || pool.get().is_some()) };
    /// assert!(!waiting.join().unwrap());
    /// drop(first);
    /// let second = engine.block_on(pool.acquire());
    /// assert_eq!(second.capacity(), 4096);
    /// # Ok(()) }
    /// ```
    pub fn acquire(&self) -> Acquire {
        Acquire { shared: self.shared.clone(), ticket: None }
    }

    /// Buffers that [`get`](Self::get) would give now.
    ///
    /// # Examples
    /// ```
    /// let pool = polyaio::BufPool::new(4, 4096, 512);
    /// let out = pool.get();
    /// assert!(out.is_some() && pool.available() == 3);
    /// ```
    pub fn available(&self) -> usize {
        lock(&self.shared.state).free.len()
    }

    /// Buffers in all.
    ///
    /// # Examples
    /// ```
    /// let pool = polyaio::BufPool::new(4, 4096, 512);
    /// let _out = pool.get();
    /// assert_eq!(pool.count(), 4, "wherever they are");
    /// ```
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Bytes of each buffer.
    ///
    /// # Examples
    /// What was asked for; an odd size is not rounded up, though the next buffer begins at a multiple of the alignment.
    /// ```
    /// let pool = polyaio::BufPool::new(2, 1000, 512);
    /// assert_eq!(pool.buffer_size(), 1000);
    /// ```
    pub fn buffer_size(&self) -> usize {
        self.shared.size
    }

    /// What the address of each buffer is a multiple of, in bytes.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let wanted = file.alignment().memory.max(512);
    /// let pool = polyaio::BufPool::new(2, 8192, wanted);
    /// assert_eq!(pool.alignment(), wanted);
    /// let buffer = pool.get().ok_or("there is one")?;
    /// assert!((buffer.as_ptr() as usize).is_multiple_of(wanted));
    /// # Ok(()) }
    /// ```
    pub fn alignment(&self) -> usize {
        self.shared.layout.align()
    }
}

impl Shared {
    fn release(&self, index: u32) {
        let waker = {
            let mut state = lock(&self.state);
            match state.waiting.pop_front() {
                Some((ticket, waker)) => {
                    state.granted.push((ticket, index));
                    waker
                }
                None => return state.free.push(index),
            }
        };
        wake(waker);
    }
}

impl State {
    /// What was handed to the holder of the ticket.
    fn fetch(&mut self, ticket: u64) -> Option<u32> {
        let at = self.granted.iter().position(|granted| granted.0 == ticket)?;
        Some(self.granted.swap_remove(at).1)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: allocated by `BufPool::new` with this layout; all buffers are back, because each holds a reference.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

impl Future for Acquire {
    type Output = PooledBuf;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PooledBuf> {
        let this = &mut *self;
        // Wakers are foreign code: cloned before the lock is taken, dropped after it is released.
        let mut waker = context.waker().clone();
        let mut state = lock(&this.shared.state);
        let index = match this.ticket {
            Some(ticket) => state.fetch(ticket),
            None => state.free.pop(),
        };
        if let Some(index) = index {
            drop(state);
            this.ticket = None;
            return Poll::Ready(PooledBuf::new(&this.shared, index));
        }
        match this.ticket {
            Some(ticket) => {
                if let Some(entry) = state.waiting.iter_mut().find(|entry| entry.0 == ticket) {
                    mem::swap(&mut entry.1, &mut waker);
                }
            }
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.waiting.push_back((ticket, waker));
                this.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let (granted, left) = {
            let mut state = lock(&self.shared.state);
            let granted = state.fetch(ticket);
            let at = state.waiting.iter().position(|entry| entry.0 == ticket);
            (granted, at.and_then(|at| state.waiting.remove(at)))
        };
        drop(left);
        if let Some(index) = granted {
            self.shared.release(index);
        }
    }
}

impl PooledBuf {
    fn new(shared: &Arc<Shared>, index: u32) -> Self {
        Self { shared: shared.clone(), index, len: 0 }
    }

    /// Bytes that it can hold.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let buffer = polyaio::BufPool::new(1, 8, 8).get().ok_or("there is one")?;
    /// assert_eq!((buffer.len(), buffer.capacity()), (0, 8));
    /// let (n, buffer) = file.read_at(buffer, 0).wait().into_result()?;
    /// assert_eq!((n, &buffer[..]), (8, &b"hello, w"[..]), "a read fills the capacity");
    /// # Ok(()) }
    /// ```
    pub fn capacity(&self) -> usize {
        self.shared.size
    }

    /// Makes the first `len` bytes the buffer's contents. Bytes that are new to it are zeroes, or what an earlier user has
    /// left.
    ///
    /// # Panics
    /// Panics if `len` is more than the [`capacity`](Self::capacity).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut buf = polyaio::BufPool::new(1, 4096, 512).get().ok_or("there is one")?;
    /// buf.set_len(100);
    /// buf[..5].copy_from_slice(b"hello");
    /// assert_eq!((buf.len(), buf.capacity()), (100, 4096));
    /// # Ok(()) }
    /// ```
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a length of {len} in a buffer of {} bytes", self.capacity());
        self.len = len;
    }

    /// Makes it empty.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut buffer = polyaio::BufPool::new(1, 4096, 512).get().ok_or("there is one")?;
    /// for word in ["HELLO", "WORLD"] {
    ///     buffer.clear();
    ///     buffer.append(word.as_bytes());
    ///     buffer = file.write_all_at(buffer, 0).wait().into_result()?.1;
    /// }
    /// assert_eq!(std::fs::read(&path)?, b"WORLD, world");
    /// # Ok(()) }
    /// ```
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The bytes up to the length.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut buffer = polyaio::BufPool::new(1, 4096, 512).get().ok_or("there is one")?;
    /// assert!(buffer.as_slice().is_empty(), "whatever was in it before");
    /// buffer.append(b"hello");
    /// assert_eq!(buffer.as_slice(), b"hello");
    /// # Ok(()) }
    /// ```
    pub fn as_slice(&self) -> &[u8] {
        self
    }

    /// The bytes up to the length, to change them.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut buffer = polyaio::BufPool::new(1, 4096, 512).get().ok_or("there is one")?;
    /// buffer.append(b"hello");
    /// buffer.as_mut_slice().reverse();
    /// assert_eq!(&buffer[..], b"olleh");
    /// # Ok(()) }
    /// ```
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self
    }

    /// Appends as much of `data` as fits; returns how much that was.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut buf = polyaio::BufPool::new(1, 8, 8).get().ok_or("there is one")?;
    /// buf.append(b"hello");
    /// assert_eq!(&buf[..], b"hello");
    /// # Ok(()) }
    /// ```
    pub fn append(&mut self, data: &[u8]) -> usize {
        let n = data.len().min(self.capacity() - self.len);
        let begin = self.len;
        self.len += n;
        self[begin..].copy_from_slice(&data[..n]);
        n
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the index is one of `count`, so that the buffer is within the allocation.
        unsafe { self.shared.memory.as_ptr().add(self.index as usize * self.shared.stride) }
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory was zeroed when it was allocated; this buffer is ours alone, and `len` is within it.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl AsRef<[u8]> for PooledBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        self.shared.release(self.index);
    }
}

// SAFETY: the memory is the pool's, which lives as long as the buffer, and reached through this value only.
unsafe impl IoBuf for PooledBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.start()
    }

    fn bytes_init(&self) -> usize {
        self.len
    }
}

// SAFETY: as above, up to the capacity.
unsafe impl IoBufMut for PooledBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.len = self.len.max(count);
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufPool")
            .field("count", &self.count())
            .field("buffer_size", &self.buffer_size())
            .field("alignment", &self.alignment())
            .field("available", &self.available())
            .finish()
    }
}

impl fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuf").field("len", &self.len).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("waits", &self.ticket.is_some()).finish_non_exhaustive()
    }
}

#[cfg(all(test, polyaio_loom))]
mod models {
    use std::task::Wake;

    use super::*;
    use crate::sync::Condvar;

    #[derive(Default)]
    struct Flag(Mutex<bool>, Condvar);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            *lock(&self.0) = true;
            self.1.notify_one();
        }
    }

    /// Polls again only when it was woken: a wake-up that is lost is a deadlock, which the model reports.
    fn wait(mut line: Acquire) -> PooledBuf {
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        loop {
            if let Poll::Ready(buffer) = Pin::new(&mut line).poll(&mut Context::from_waker(&waker)) {
                return buffer;
            }
            let mut woken = lock(&flag.0);
            while !std::mem::take(&mut *woken) {
                woken = flag.1.wait(woken).expect("nobody panics inside");
            }
        }
    }

    /// Who waits is handed the one buffer, whichever thread gives it back, and a waiter that leaves passes it on.
    #[test]
    fn loom_a_buffer_always_reaches_somebody_who_waits() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let pool = BufPool::new(1, 8, 8);
            let held = pool.get().expect("it is new");
            let other = pool.clone();
            let waiter = loom::thread::spawn(move || drop(wait(other.acquire())));
            let mut leaver = pool.acquire();
            let polled = Pin::new(&mut leaver).poll(&mut Context::from_waker(Waker::noop()));
            drop(held);
            drop((polled, leaver));
            waiter.join().expect("it ends");
            assert_eq!(pool.available(), 1);
        });
    }
}
