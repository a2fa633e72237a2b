//! Buffers of the crate `bytes` (feature `bytes`).

#![allow(unsafe_code)]

use bytes::{Bytes, BytesMut};

use crate::buf::{IoBuf, IoBufMut};

// SAFETY: a `Bytes` is a handle to memory outside of itself that all its clones share and nobody changes while one lives.
unsafe impl IoBuf for Bytes {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: its memory is on the heap, and its range is reached through this handle only: what was split off has another.
// It moves only when the `BytesMut` is changed, which needs access to the value.
unsafe impl IoBuf for BytesMut {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above, up to the capacity, which is this handle's too.
unsafe impl IoBufMut for BytesMut {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, count: usize) {
        if self.len() < count {
            // SAFETY: the caller says that `count` bytes are initialised and within the capacity.
            unsafe { self.set_len(count) }
        }
    }
}
