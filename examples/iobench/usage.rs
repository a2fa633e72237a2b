//! What the process uses: time, threads, memory.

use std::mem::MaybeUninit;
use std::time::Duration;

/// CPU time of all threads.
pub(crate) fn cpu_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the call fills the structure, whose zeros are valid as well.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Threads now; 0 where there is no `/proc`.
pub(crate) fn threads() -> u64 {
    status("Threads:").unwrap_or(0)
}

/// Resident memory now, in KiB; 0 where there is no `/proc`.
pub(crate) fn rss_kib() -> u64 {
    status("VmRSS:").unwrap_or(0)
}

/// Gives back what earlier rounds have left in the heap, so that it does not count for the next one.
pub(crate) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; memory that is in use is not touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}
