//! A buffer for direct I/O, as each of the crates wants it.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::jobs::BLOCK;

/// A block of memory that begins at a multiple of its size.
pub(crate) struct Buffer(NonNull<u8>);

/// What iobench writes into every sector, so that it knows its file again.
const MARK: &[u8] = b"polyaio iobench: scratch data, may be overwritten\n";

// SAFETY: it owns its memory.
unsafe impl Send for Buffer {}

const LAYOUT: Layout = match Layout::from_size_align(BLOCK, BLOCK) {
    Ok(layout) => layout,
    Err(_) => panic!("a block is a power of two"),
};

impl Buffer {
    pub(crate) fn new() -> Buffer {
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc_zeroed(LAYOUT) };
        let mut buffer = Buffer(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(LAYOUT)));
        buffer.chunks_exact_mut(512).for_each(|sector| sector[..MARK.len()].copy_from_slice(MARK));
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.0.as_ptr(), LAYOUT) };
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: it owns so many bytes, all initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), BLOCK) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), BLOCK) }
    }
}

impl compio::buf::IoBuf for Buffer {
    fn as_init(&self) -> &[u8] {
        self
    }
}

impl compio::buf::SetLen for Buffer {
    // Always whole.
    unsafe fn set_len(&mut self, _len: usize) {}
}

impl compio::buf::IoBufMut for Buffer {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: initialised bytes may be taken for ones that need not be, as long as nobody makes them uninitialised, which
        // a read does not.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), BLOCK) }
    }
}

// SAFETY: the memory does not move with the handle, and stays until that is dropped.
unsafe impl tokio_uring::buf::IoBuf for Buffer {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        BLOCK
    }

    fn bytes_total(&self) -> usize {
        BLOCK
    }
}

// SAFETY: as above.
unsafe impl tokio_uring::buf::IoBufMut for Buffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_ptr()
    }

    // Always whole.
    unsafe fn set_init(&mut self, _pos: usize) {}
}
