//! Whether this process is a child of the one that made the engine.
//!
//! A page with `MADV_WIPEONFORK` (madvise(2), since Linux 4.14) reads as zero in a child, so that looking costs one load.
//! Where the kernel does not know it, the process id is compared.

#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Remembers the process that made it.
pub(crate) struct ForkGuard {
    page: Option<NonNull<u8>>,
    pid: u32,
}

// SAFETY: the page is written once, before the guard is shared, and only read afterwards.
unsafe impl Sync for ForkGuard {}
// SAFETY: the page belongs to the process, not to a thread.
unsafe impl Send for ForkGuard {}

const PAGE: usize = 4096;

impl ForkGuard {
    pub(crate) fn new() -> Self {
        Self { page: map_page(), pid: std::process::id() }
    }

    /// Whether this process is not the one that made the guard.
    pub(crate) fn is_child(&self) -> bool {
        match self.page {
            // SAFETY: the page is mapped until the guard is dropped; a fork turns its 1 into 0. Volatile, because nothing
            // in this program writes the zero.
            Some(page) => unsafe { page.as_ptr().read_volatile() == 0 },
            None => self.pid != std::process::id(),
        }
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        fn map_page() -> Option<NonNull<u8>> {
            let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new anonymous mapping; nothing of ours is replaced.
            let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, prot, flags, -1, 0) };
            if page == libc::MAP_FAILED {
                return None;
            }
            // SAFETY: the page was just mapped, with this length; it is ours alone.
            unsafe {
                if libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) != 0 {
                    libc::munmap(page, PAGE);
                    return None;
                }
                page.cast::<u8>().write(1);
            }
            NonNull::new(page.cast())
        }
    } else {
        fn map_page() -> Option<NonNull<u8>> {
            None
        }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            // SAFETY: mapped by `map_page` with this length, and nobody reads it any more.
            unsafe { libc::munmap(page.as_ptr().cast(), PAGE) };
        }
    }
}
