//! The types of handles, by the names that descriptors have; and events, which end sleeps.

#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::io;
use std::os::windows::io::{
    AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle as _, IntoRawHandle as _, OwnedHandle,
};
use std::ptr;

use super::ffi;

/// The value of a `HANDLE`, as a number.
pub(crate) type RawFd = isize;
/// A handle that is closed when it is dropped.
pub(crate) type OwnedFd = OwnedHandle;
/// A handle that is somebody else's.
pub(crate) type BorrowedFd<'a> = BorrowedHandle<'a>;

/// What has a handle and lends it.
pub(crate) trait AsFd {
    /// The handle.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl<T: AsHandle> AsFd for T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.as_handle()
    }
}

/// What has a handle and tells its value.
pub(crate) trait AsRawFd {
    /// The value.
    fn as_raw_fd(&self) -> RawFd;
}

impl<T: AsRawHandle> AsRawFd for T {
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw_handle() as RawFd
    }
}

/// What is made of a handle.
pub(crate) trait FromRawFd {
    /// Takes the handle.
    ///
    /// # Safety
    /// It is open, and nobody else's.
    unsafe fn from_raw_fd(fd: RawFd) -> Self;
}

impl FromRawFd for OwnedHandle {
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe { Self::from_raw_handle(fd as *mut _) }
    }
}

/// What gives its handle away.
pub(crate) trait IntoRawFd {
    /// The handle, which is the caller's to close.
    fn into_raw_fd(self) -> RawFd;
}

impl IntoRawFd for OwnedHandle {
    fn into_raw_fd(self) -> RawFd {
        self.into_raw_handle() as RawFd
    }
}

/// An event object.
#[derive(Debug)]
pub(crate) struct Event(OwnedHandle);

impl Event {
    /// One that a wait for it resets, or (`manual`) that stays set.
    pub(crate) fn new(manual: bool) -> io::Result<Self> {
        // SAFETY: neither attributes nor a name go in; the handle is new.
        unsafe {
            match ffi::CreateEventW(ptr::null(), i32::from(manual), 0, ptr::null()) {
                0 => Err(io::Error::last_os_error()),
                event => Ok(Self(OwnedHandle::from_raw_fd(event))),
            }
        }
    }

    pub(crate) fn set(&self) {
        // SAFETY: takes no pointer, and the event is open.
        unsafe { ffi::SetEvent(self.as_raw_fd()) };
    }

    pub(crate) fn reset(&self) {
        // SAFETY: takes no pointer, and the event is open.
        unsafe { ffi::ResetEvent(self.as_raw_fd()) };
    }
}

impl AsHandle for Event {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

impl AsRawHandle for Event {
    fn as_raw_handle(&self) -> std::os::windows::io::RawHandle {
        self.0.as_raw_handle()
    }
}

thread_local! {
    /// The event of this thread's transfers, one of which is under way at a time.
    static OWN: OnceCell<Event> = const { OnceCell::new() };
}

/// Calls `f` with the event of this thread; makes it where this is the first time.
pub(super) fn with_own_event<R>(f: impl FnOnce(RawFd) -> R) -> io::Result<R> {
    let own = OWN.try_with(|own| match own.get() {
        Some(event) => Ok(event.as_raw_fd()),
        None => Event::new(true).map(|event| own.get_or_init(|| event).as_raw_fd()),
    });
    match own {
        // It is there until the thread ends.
        Ok(event) => event.map(f),
        // The thread is ending, and its own event is gone: one for this call.
        Err(_) => Event::new(true).map(|event| f(event.as_raw_fd())),
    }
}

/// A handle that stays somebody else's.
///
/// # Safety
/// It is open as long as what is returned lives.
pub(crate) unsafe fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: forwarded to the caller.
    unsafe { BorrowedHandle::borrow_raw(fd as *mut _) }
}

/// The most that one wait takes: `MAXIMUM_WAIT_OBJECTS` (winnt.h).
pub(crate) const MOST_WAITED_FOR: usize = 64;

/// Waits until one of the objects is signalled; without a limit for as long as it takes. `Ok(None)`: the time is over.
///
/// # Errors
/// A handle that cannot be waited for, or is closed.
pub(crate) fn wait_for_any(objects: &[RawFd], milliseconds: Option<u32>) -> io::Result<Option<usize>> {
    debug_assert!((1..=MOST_WAITED_FOR).contains(&objects.len()));
    let limit = milliseconds.map_or(ffi::INFINITE, |limit| limit.min(ffi::INFINITE - 1));
    // SAFETY: as many handles are read as the slice has.
    let answer = unsafe { ffi::WaitForMultipleObjects(objects.len() as u32, objects.as_ptr(), 0, limit) };
    match answer {
        ffi::WAIT_FAILED => Err(io::Error::last_os_error()),
        index if (index as usize) < objects.len() => Ok(Some(index as usize)),
        _ => Ok(None),
    }
}
