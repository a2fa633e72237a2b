//! See `scarce_aio` in faults.rs. Compiled on its own by the test that needs it, hence no dependencies.
#![no_std]

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

const EAGAIN: c_int = 11;

#[link(name = "c")]
unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn atoi(number: *const c_char) -> c_int;
    fn __errno_location() -> *mut c_int;
}

type Send = unsafe extern "C" fn(*mut c_void) -> c_int;

static CALLS: AtomicU32 = AtomicU32::new(0);

/// Stands in front of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn aio_read(block: *mut c_void) -> c_int {
    // SAFETY: as the caller's call; the name is that of such a function.
    unsafe { if is_refused() { -1 } else { next(c"aio_read".as_ptr())(block) } }
}

/// The same for lists. What is refused is left as it is, as where glibc has no memory, and the others are on their way.
#[unsafe(no_mangle)]
unsafe extern "C" fn lio_listio(_mode: c_int, list: *const *mut c_void, count: c_int, _event: *mut c_void) -> c_int {
    let mut answer = 0;
    for at in 0..count as usize {
        // SAFETY: the list has so many entries, which are control blocks. The second number in one is what to do: 0 is a read.
        answer |= unsafe {
            let block = *list.add(at);
            let name = if *block.cast::<c_int>().add(1) == 0 { c"aio_read" } else { c"aio_write" };
            if is_refused() { -1 } else { next(name.as_ptr())(block) }
        };
    }
    answer
}

unsafe fn is_refused() -> bool {
    // SAFETY: the C library has these symbols, with these arguments; the strings are literals.
    unsafe {
        let accepted = getenv(c"POLYAIO_TEST_SHIM_ACCEPT".as_ptr());
        let accepted = if accepted.is_null() { 1 } else { atoi(accepted) as u32 };
        // Whatever could panic would need more of Rust than there is here.
        let refused = CALLS.fetch_add(1, Ordering::Relaxed).checked_rem(accepted.wrapping_add(1)) == Some(accepted);
        if refused {
            *__errno_location() = EAGAIN;
        }
        refused
    }
}

unsafe fn next(name: *const c_char) -> Send {
    const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
    // SAFETY: the C library has this symbol, with this argument.
    unsafe { core::mem::transmute(dlsym(RTLD_NEXT, name)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
