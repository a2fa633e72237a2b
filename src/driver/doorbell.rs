//! What ends the seated thread's sleep when what it waits for happens elsewhere.

use crate::error::Error;
use crate::os::{AsFd, BorrowedFd};

/// What ends a sleep in the kernel.
pub(super) trait Bell: Send + Sync + 'static {
    fn ring(&self);
}

/// A descriptor that becomes readable when it is rung: an eventfd, or a pair of sockets where there is none; on Windows an event.
pub(super) struct Doorbell(system::Descriptor);

impl Doorbell {
    pub(super) fn new() -> Result<Self, Error> {
        system::Descriptor::new().map(Self)
    }

    /// Makes it unreadable, for one that is watched level-triggered.
    pub(super) fn silence(&self) {
        self.0.drain();
    }

    /// The same for one that is watched edge-triggered, as far as the next ring needs it: after each sleep.
    pub(super) fn heard(&self) {
        if system::FILLS_UP {
            self.0.drain();
        }
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        self.0.ring();
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        #[allow(unsafe_code)]
        mod system {
            use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

            use crate::error::Error;

            /// The counter cannot overflow in a lifetime; epoll tells of each ring, also while it is not 0.
            pub(super) const FILLS_UP: bool = false;

            /// An eventfd.
            pub(super) struct Descriptor(OwnedFd);

            impl Descriptor {
                pub(super) fn new() -> Result<Self, Error> {
                    // SAFETY: the call takes no pointer, and the descriptor that it returns is new.
                    unsafe {
                        match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                            -1 => Err(Error::system("eventfd")),
                            fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
                        }
                    }
                }

                pub(super) fn drain(&self) {
                    let mut count = 0u64;
                    // SAFETY: eight bytes are written to `count`. Where it was not rung the answer is EAGAIN.
                    unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
                }

                pub(super) fn ring(&self) {
                    let one = 1u64;
                    // SAFETY: eight bytes are read from `one`.
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
        mod system {
            use crate::error::Error;
            use crate::os::{AsFd as _, BorrowedFd, Event};

            /// It stays set until it is reset.
            pub(super) const FILLS_UP: bool = true;

            /// An event object.
            pub(super) struct Descriptor(Event);

            impl Descriptor {
                pub(super) fn new() -> Result<Self, Error> {
                    Event::new(true).map(Self).map_err(|source| Error::System { what: "CreateEvent", source })
                }

                pub(super) fn drain(&self) {
                    self.0.reset();
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
        mod system {
            use std::io::{ErrorKind, Read as _, Write as _};
            use std::os::fd::{AsFd, BorrowedFd};
            use std::os::unix::net::UnixStream;

            use crate::error::Error;

            /// What is not read out stays, until no more rings go in.
            pub(super) const FILLS_UP: bool = true;

            /// Two ends, neither of which blocks.
            pub(super) struct Descriptor {
                heard: UnixStream,
                rung: UnixStream,
            }

            impl Descriptor {
                pub(super) fn new() -> Result<Self, Error> {
                    let failed = |source| Error::System { what: "socketpair", source };
                    let (heard, rung) = UnixStream::pair().map_err(failed)?;
                    heard.set_nonblocking(true).map_err(failed)?;
                    rung.set_nonblocking(true).map_err(failed)?;
                    Ok(Self { heard, rung })
                }

                pub(super) fn drain(&self) {
                    let mut rings = [0; 64];
                    loop {
                        match (&self.heard).read(&mut rings) {
                            Ok(count) if count == rings.len() => {}
                            Err(error) if error.kind() == ErrorKind::Interrupted => {}
                            // All were read; or there were none.
                            _ => break,
                        }
                    }
                }

                pub(super) fn ring(&self) {
                    // Where there is no room, there are rings that nobody has heard yet.
                    while matches!((&self.rung).write(&[1]), Err(error) if error.kind() == ErrorKind::Interrupted) {}
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
