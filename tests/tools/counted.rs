//! Buffers whose end is counted: each must be freed exactly once, and not while the kernel may write into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use polyaio::{AlignedBuf, IoBuf, IoBufMut};

/// How many buffers were made, and how many of them are gone.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    freed: AtomicUsize,
}

impl Census {
    /// A buffer of `len` bytes `fill`, fit for direct I/O.
    pub(crate) fn buffer(&self, len: usize, fill: u8) -> CountedBuf {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        let mut inner = AlignedBuf::zeroed(len, 4096);
        inner.fill(fill);
        CountedBuf { inner, canary: CANARY, census: self.clone() }
    }

    pub(crate) fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    pub(crate) fn freed(&self) -> usize {
        self.0.freed.load(Ordering::SeqCst)
    }

    pub(crate) fn live(&self) -> usize {
        self.made() - self.freed()
    }
}

const CANARY: u64 = 0xA11C_E0FF_EE15_A11F;

pub(crate) struct CountedBuf {
    inner: AlignedBuf,
    /// Shows a second drop of the same value, as far as a test can.
    canary: u64,
    census: Census,
}

impl Drop for CountedBuf {
    fn drop(&mut self) {
        let canary = std::mem::replace(&mut self.canary, 0);
        let freed = self.census.0.freed.fetch_add(1, Ordering::SeqCst) + 1;
        // A panic in a destructor could be swallowed on somebody else's thread.
        if canary != CANARY || freed > self.census.made() {
            eprintln!("a buffer was dropped twice ({freed} of {} freed)", self.census.made());
            std::process::abort();
        }
        // Who still writes into it would change this, and who still reads it sends this to the disk.
        self.inner.fill(0xDD);
    }
}

// SAFETY: the memory is that of `inner`, which keeps these promises itself.
unsafe impl IoBuf for CountedBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.inner.stable_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.inner.bytes_init()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for CountedBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.inner.stable_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.inner.bytes_total()
    }

    unsafe fn set_init(&mut self, count: usize) {
        // SAFETY: forwarded to the caller.
        unsafe { self.inner.set_init(count) }
    }
}
