//! See `partial_submits` in faults.rs. Compiled on its own by the test that needs it, hence no dependencies.
#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};

#[cfg(target_arch = "x86_64")]
const IO_SUBMIT: c_long = 209;
#[cfg(not(target_arch = "x86_64"))]
const IO_SUBMIT: c_long = 2;
const O_WRONLY_CREAT_CLOEXEC: c_int = 0o1 | 0o100 | 0o2000000;

#[link(name = "c")]
unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn close(descriptor: c_int) -> c_int;
}

type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

/// Stands in front of the C library's function. That one is variadic, but takes its words from registers like this one.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    mut b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
    // SAFETY: the C library has this symbol, with these arguments; the strings are literals.
    unsafe {
        let next: Syscall = core::mem::transmute(dlsym(RTLD_NEXT, c"syscall".as_ptr()));
        if number == IO_SUBMIT && b > 1 {
            b = 1;
            let log = getenv(c"POLYAIO_TEST_SHIM_LOG".as_ptr());
            if !log.is_null() {
                close(open(log, O_WRONLY_CREAT_CLOEXEC, 0o600 as c_int));
            }
        }
        next(number, a, b, c, d, e, f)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
