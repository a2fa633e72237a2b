//! The descriptor that wakes who sleeps for a completion.

#![allow(unsafe_code)]

use std::io;

use crate::os::{AsFd, BorrowedFd};

/// A descriptor that only this side writes to, and that nobody reads: it is watched edge-triggered.
#[derive(Debug)]
pub(super) struct Bell(sys::Descriptor);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        sys::Descriptor::new().map(Self)
    }

    pub(super) fn ring(&self) {
        self.0.ring();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod sys {
            use std::io;
            use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

            /// An eventfd.
            #[derive(Debug)]
            pub(super) struct Descriptor(OwnedFd);

            impl Descriptor {
                pub(super) fn new() -> io::Result<Self> {
                    // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
                    unsafe {
                        match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                            -1 => Err(io::Error::last_os_error()),
                            fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
                        }
                    }
                }

                pub(super) fn ring(&self) {
                    let one = 1_u64;
                    // SAFETY: eight bytes are read from `one`. The counter does not overflow in a lifetime.
                    unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
                }
            }

            impl AsFd for Descriptor {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.0.as_fd()
                }
            }
        }
    } else if #[cfg(windows)] {
        mod sys {
            use std::io;

            use crate::os::{AsFd as _, BorrowedFd, Event};

            /// An event that whoever waits for it resets.
            #[derive(Debug)]
            pub(super) struct Descriptor(Event);

            impl Descriptor {
                pub(super) fn new() -> io::Result<Self> {
                    Event::new(false).map(Self)
                }

                pub(super) fn ring(&self) {
                    self.0.set();
                }

                pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
                    self.0.as_fd()
                }
            }
        }
    } else {
        mod sys {
            use std::io::{self, Read as _, Write as _};
            use std::os::fd::{AsFd, BorrowedFd};
            use std::os::unix::net::UnixStream;

            /// Two sockets, which fill up.
            #[derive(Debug)]
            pub(super) struct Descriptor {
                heard: UnixStream,
                rung: UnixStream,
            }

            impl Descriptor {
                pub(super) fn new() -> io::Result<Self> {
                    let (heard, rung) = UnixStream::pair()?;
                    heard.set_nonblocking(true)?;
                    rung.set_nonblocking(true)?;
                    Ok(Self { heard, rung })
                }

                pub(super) fn ring(&self) {
                    if (&self.rung).write(&[1]).is_err() {
                        // Full: no edge came of it. Whatever becomes of a ring that others make meanwhile, one follows.
                        while (&self.heard).read(&mut [0; 1024]).is_ok() {}
                        let _ = (&self.rung).write(&[1]);
                    }
                }
            }

            impl AsFd for Descriptor {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.heard.as_fd()
                }
            }
        }
    }
}
