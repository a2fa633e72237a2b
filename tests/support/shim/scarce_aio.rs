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

type AioRead = unsafe extern "C" fn(*mut c_void) -> c_int;

static CALLS: AtomicU32 = AtomicU32::new(0);

/// Stands in front of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn aio_read(block: *mut c_void) -> c_int {
    const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
    // SAFETY: the C library has this symbol, with this argument; the strings are literals.
    unsafe {
        let accepted = getenv(c"POLYAIO_TEST_SHIM_ACCEPT".as_ptr());
        let accepted = if accepted.is_null() { 1 } else { atoi(accepted) as u32 };
        // Whatever could panic would need more of Rust than there is here.
        if CALLS.fetch_add(1, Ordering::Relaxed).checked_rem(accepted.wrapping_add(1)) == Some(accepted) {
            *__errno_location() = EAGAIN;
            return -1;
        }
        let next: AioRead = core::mem::transmute(dlsym(RTLD_NEXT, c"aio_read".as_ptr()));
        next(block)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
