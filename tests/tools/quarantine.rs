//! An allocator that keeps freed memory for a while, filled with a pattern, and notices who writes into it.
//!
//! A kernel that completes a read into memory that was freed meanwhile is seen by no sanitizer: they watch the program's own
//! instructions. Here the memory is not given out again before it was looked at.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// To be declared as the `#[global_allocator]` of a test binary. `POLYAIO_TEST_QUARANTINE=0` turns it off: a sanitizer has a
/// quarantine of its own, which ours would hide freed memory from.
pub(crate) struct Quarantine {
    kept: Mutex<Kept>,
    state: AtomicU8,
}

/// Memory that was written to after it was freed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disturbed {
    /// Bytes of the allocation.
    pub(crate) size: usize,
    /// The first that was changed.
    pub(crate) at: usize,
}

/// What I/O goes to. Smaller ones are so many that nothing would be kept for long.
const SIZES: std::ops::RangeInclusive<usize> = 512..=1 << 20;
/// Allocations, and bytes of all together, that are kept.
const MOST: usize = 4096;
const MOST_BYTES: usize = 64 << 20;

const FREED: u8 = 0xdb;
static PATTERN: [u8; 4096] = [FREED; 4096];

#[derive(Clone, Copy)]
struct Block {
    memory: *mut u8,
    layout: Layout,
}

/// The oldest is at `first`, `len` are kept.
struct Kept {
    blocks: [Option<Block>; MOST],
    first: usize,
    len: usize,
    bytes: usize,
    disturbed: Option<Disturbed>,
}

// SAFETY: what a block points to belongs to the quarantine.
unsafe impl Send for Kept {}

const UNKNOWN: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

impl Quarantine {
    pub(crate) const fn new() -> Self {
        let kept = Kept { blocks: [None; MOST], first: 0, len: 0, bytes: 0, disturbed: None };
        Self { kept: Mutex::new(kept), state: AtomicU8::new(UNKNOWN) }
    }

    pub(crate) fn is_on(&self) -> bool {
        match self.state.load(Ordering::Relaxed) {
            ON => true,
            OFF => false,
            _ => {
                // SAFETY: the name is a C string, the answer is one or null, and nobody changes the environment this early.
                // (`std::env` would allocate.)
                let off = unsafe {
                    let value = libc::getenv(c"POLYAIO_TEST_QUARANTINE".as_ptr());
                    !value.is_null() && *value == b'0' as libc::c_char
                };
                self.state.store(if off { OFF } else { ON }, Ordering::Relaxed);
                !off
            }
        }
    }

    /// Looks at all that is kept. What it finds it tells once.
    pub(crate) fn check(&self) -> Result<(), Disturbed> {
        let mut kept = crate::tools::lock(&self.kept);
        for place in 0..kept.len {
            let block = kept.blocks[(kept.first + place) % MOST];
            kept.look_at(block);
            if let Some(block) = block {
                // SAFETY: it is the quarantine's.
                unsafe { block.memory.write_bytes(FREED, block.layout.size()) };
            }
        }
        kept.disturbed.take().map_or(Ok(()), Err)
    }
}

impl Kept {
    fn push(&mut self, block: Block) {
        while self.len == MOST || self.bytes + block.layout.size() > MOST_BYTES {
            self.pop();
        }
        self.blocks[(self.first + self.len) % MOST] = Some(block);
        self.len += 1;
        self.bytes += block.layout.size();
    }

    fn pop(&mut self) {
        let block = self.blocks[self.first].take();
        self.first = (self.first + 1) % MOST;
        self.len -= 1;
        self.look_at(block);
        if let Some(Block { memory, layout }) = block {
            self.bytes -= layout.size();
            // SAFETY: it came from `System` with this layout, and was freed by its owner.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    fn look_at(&mut self, block: Option<Block>) {
        let Some(Block { memory, layout }) = block else { return };
        // SAFETY: it is the quarantine's, and was filled.
        let bytes = unsafe { std::slice::from_raw_parts(memory, layout.size()) };
        for (number, chunk) in bytes.chunks(PATTERN.len()).enumerate() {
            if chunk != &PATTERN[..chunk.len()] {
                let within = chunk.iter().position(|byte| *byte != FREED).unwrap_or(0);
                self.disturbed = Some(Disturbed { size: layout.size(), at: number * PATTERN.len() + within });
                return;
            }
        }
    }
}

// SAFETY: memory comes from `System`, and goes back to it once, with the layout that it was asked for.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: forwarded.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: forwarded.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !SIZES.contains(&layout.size()) || !self.is_on() {
            // SAFETY: forwarded.
            return unsafe { System.dealloc(memory, layout) };
        }
        // SAFETY: its owner has given it up.
        unsafe { memory.write_bytes(FREED, layout.size()) };
        // Nothing allocates under the lock.
        crate::tools::lock(&self.kept).push(Block { memory, layout });
    }
}
