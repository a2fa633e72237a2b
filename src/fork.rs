//! Whether this process is a child of the one that made the engine.
//!
//! A page with `MADV_WIPEONFORK` (madvise(2), since Linux 4.14) reads as zero in a child, so that looking costs one load.
//! Where the kernel does not know it, and nothing else helps, the process id is compared. On other systems a handler of
//! pthread_atfork(3) counts forks, in the child: looking costs one load there too.

#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Remembers the process that made it.
pub(crate) struct ForkGuard {
    mark: Mark,
    pid: u32,
}

/// What a fork changes in the child.
enum Mark {
    /// A 1, which becomes 0. The page belongs to the guard.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(dead_code, reason = "Linux has such pages")
    )]
    Page(NonNull<u8>),
    /// The count of [`sys::forks`].
    #[cfg_attr(any(target_os = "linux", target_os = "android"), expect(dead_code, reason = "Linux has pages"))]
    Count(usize),
    /// Nothing but the process id.
    None,
}

// SAFETY: the page is written once, before the guard is shared, and only read afterwards.
unsafe impl Sync for ForkGuard {}
// SAFETY: the page belongs to the process, not to a thread.
unsafe impl Send for ForkGuard {}

const PAGE: usize = 4096;

impl ForkGuard {
    pub(crate) fn new() -> Self {
        Self { mark: sys::mark(), pid: std::process::id() }
    }

    /// Whether this process is not the one that made the guard.
    #[inline]
    pub(crate) fn is_child(&self) -> bool {
        match self.mark {
            // SAFETY: the page is mapped until the guard is dropped; a fork turns its 1 into 0. Volatile, because nothing
            // in this program writes the zero.
            Mark::Page(page) => unsafe { page.as_ptr().read_volatile() == 0 },
            Mark::Count(count) => sys::forks() != count,
            Mark::None => self.pid != std::process::id(),
        }
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod sys {
            use std::ptr::NonNull;

            use super::{Mark, PAGE};

            /// A page that reads as zero in a child.
            pub(super) fn mark() -> Mark {
                let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                // SAFETY: a new anonymous mapping; nothing of ours is replaced.
                let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, prot, flags, -1, 0) };
                if page == libc::MAP_FAILED {
                    return Mark::None;
                }
                // SAFETY: the page was just mapped, with this length; it is ours alone.
                unsafe {
                    if libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) != 0 {
                        libc::munmap(page, PAGE);
                        return Mark::None;
                    }
                    page.cast::<u8>().write(1);
                }
                NonNull::new(page.cast()).map_or(Mark::None, Mark::Page)
            }

            /// Not counted here.
            pub(super) fn forks() -> usize {
                0
            }
        }
    } else {
        mod sys {
            use std::sync::OnceLock;
            use std::sync::atomic::{AtomicUsize, Ordering};

            use super::Mark;

            /// Forks between the process that has registered the handler and this one.
            static FORKS: AtomicUsize = AtomicUsize::new(0);

            extern "C" fn in_child() {
                // A child has one thread, this one: nothing has to be ordered.
                FORKS.fetch_add(1, Ordering::Relaxed);
            }

            pub(super) fn mark() -> Mark {
                static REGISTERED: OnceLock<bool> = OnceLock::new();
                // SAFETY: the handler adds to a number, which may be done in the child of a process with threads.
                let counted = *REGISTERED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(in_child)) } == 0);
                if counted { Mark::Count(forks()) } else { Mark::None }
            }

            pub(super) fn forks() -> usize {
                FORKS.load(Ordering::Relaxed)
            }
        }
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if let Mark::Page(page) = self.mark {
            // SAFETY: mapped by `sys::mark` with this length, and nobody reads it any more.
            unsafe { libc::munmap(page.as_ptr().cast(), PAGE) };
        }
    }
}
