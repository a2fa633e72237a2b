//! Transfers that ask for more than their bytes: durability, the end of the file, a priority, not to wait.

#![allow(unsafe_code)]

use super::abi::{self, Call};
use crate::completion::{Errno, Outcome};
use crate::how::{Durability, How};
use crate::os::RawFd;

/// One read or write, as `how` says.
///
/// # Errors
/// The system call's own; `EPERM` for a priority that needs rights; `EOPNOTSUPP` to append, or not to wait, where the kernel
/// or the file cannot.
///
/// # Safety
/// As [`abi::plain`].
pub(super) unsafe fn transfer(fd: RawFd, call: Call<'_>, how: How) -> Outcome {
    let _raised = how.priority.map(sys::Raised::new).transpose()?;
    let synced = |outcome: Outcome| match how.durability {
        Durability::Later => outcome,
        Durability::Data => outcome.and_then(|n| abi::sync_data(fd).map(|_| n)),
        Durability::All => outcome.and_then(|n| abi::sync_all(fd).map(|_| n)),
    };
    let flags = sys::flags(how);
    if flags == Some(0) {
        // SAFETY: forwarded to the caller.
        return unsafe { abi::plain(fd, call) };
    }
    let needs_the_flag = how.append || how.nowait;
    // SAFETY: forwarded to the caller.
    let outcome = flags.map_or(Err(Errno(libc::EOPNOTSUPP)), |flags| unsafe { sys::call(fd, call, flags) });
    match outcome {
        // No such call, no such flag here, or a filter: the same by other means.
        Err(Errno(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)) if !needs_the_flag => {
            // SAFETY: forwarded to the caller.
            synced(unsafe { abi::plain(fd, call) })
        }
        Err(Errno(libc::ENOSYS)) => Err(Errno(libc::EOPNOTSUPP)),
        outcome => outcome,
    }
}

/// Where there are no priorities.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
struct Unraised;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Unraised {
    fn new(_: crate::how::Priority) -> Result<Self, Errno> {
        Ok(Self)
    }
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod sys {
            use super::{Call, Durability, Errno, How, Outcome, RawFd, abi};
            use crate::how::Priority;

            // include/uapi/linux/fs.h
            const RWF_DSYNC: libc::c_int = 0x2;
            const RWF_SYNC: libc::c_int = 0x4;
            const RWF_NOWAIT: libc::c_int = 0x8;
            const RWF_APPEND: libc::c_int = 0x10;

            /// `None` where the system has no flags.
            pub(super) fn flags(how: How) -> Option<libc::c_int> {
                let durable = match how.durability {
                    Durability::Later => 0,
                    Durability::Data => RWF_DSYNC,
                    Durability::All => RWF_SYNC,
                };
                let nowait = if how.nowait { RWF_NOWAIT } else { 0 };
                let append = if how.append { RWF_APPEND } else { 0 };
                Some(durable | nowait | append)
            }

            /// # Safety
            /// As [`abi::plain`].
            pub(super) unsafe fn call(fd: RawFd, call: Call<'_>, flags: libc::c_int) -> Outcome {
                let number = if call.write { libc::SYS_pwritev2 } else { libc::SYS_preadv2 };
                let (list, count) = (call.iovecs.as_ptr(), call.iovecs.len());
                // -1 is the position of the file itself.
                let offset = call.position.unwrap_or(-1);
                let (low, high) = (offset as libc::c_long, (offset >> 32) as libc::c_long);
                // SAFETY: the ranges are the caller's to lend. On 64-bit kernels `low` is the whole offset and `high` is
                // ignored; on 32-bit ones they are its halves.
                abi::retry(|| unsafe { libc::syscall(number, fd, list, count, low, high, flags) as isize })
            }

            /// The worker's priority, set for one call and put back afterwards.
            pub(super) struct Raised(libc::c_long);

            const IOPRIO_WHO_PROCESS: libc::c_int = 1;

            impl Raised {
                pub(super) fn new(priority: Priority) -> Result<Self, Errno> {
                    let wanted = priority.to_ioprio().ok_or(Errno(libc::EINVAL))?;
                    // SAFETY: takes no pointer; 0 is the calling thread.
                    let before = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
                    // SAFETY: as above.
                    match unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(wanted)) } {
                        0 => Ok(Self(before)),
                        _ => Err(Errno::last()),
                    }
                }
            }

            impl Drop for Raised {
                fn drop(&mut self) {
                    // Without a class of its own a thread has the one that its niceness gives.
                    let before = self.0.max(0);
                    // SAFETY: takes no pointer. It was allowed before, so that it is now.
                    unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, before) };
                }
            }
        }
    } else if #[cfg(windows)] {
        mod sys {
            use super::{Call, Durability, How, Outcome, RawFd, abi};
            use crate::os;

            pub(super) use super::Unraised as Raised;

            /// To the end of the file.
            const APPEND: libc::c_int = 1;
            /// And then to the disk.
            const SYNC: libc::c_int = 2;

            /// `None` where it has to be done by other means, or cannot be.
            pub(super) fn flags(how: How) -> Option<libc::c_int> {
                let later = how.durability == Durability::Later;
                match (how.nowait, how.append) {
                    (true, _) => None,
                    (false, true) => Some(if later { APPEND } else { APPEND | SYNC }),
                    (false, false) => later.then_some(0),
                }
            }

            /// # Safety
            /// As [`abi::plain`].
            pub(super) unsafe fn call(fd: RawFd, call: Call<'_>, flags: libc::c_int) -> Outcome {
                // SAFETY: the ranges are the caller's to lend.
                let n = abi::retry(|| unsafe { os::append(fd, call.iovecs) })?;
                if flags & SYNC != 0 {
                    abi::sync_all(fd)?;
                }
                Ok(n)
            }
        }
    } else {
        mod sys {
            use super::{Call, Errno, How, Outcome, RawFd};
            use crate::how::Durability;

            pub(super) use super::Unraised as Raised;

            pub(super) fn flags(how: How) -> Option<libc::c_int> {
                (how.durability == Durability::Later && !how.nowait && !how.append).then_some(0)
            }

            /// # Safety
            /// None: there is no such call.
            pub(super) unsafe fn call(_: RawFd, _: Call<'_>, _: libc::c_int) -> Outcome {
                Err(Errno(libc::EOPNOTSUPP))
            }
        }
    }
}

#[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
mod tests {
    use super::*;
    use crate::how::Priority;

    fn priority() -> i64 {
        // SAFETY: takes no pointer; process 0 is the calling thread.
        unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }
    }

    #[test]
    fn a_priority_lasts_for_one_call() {
        let on_a_thread = || {
            let before = priority();
            let raised = sys::Raised::new(Priority::Idle).expect("anybody may be idle");
            assert_eq!(priority(), 3 << 13);
            drop(raised);
            assert_eq!(priority(), before);
            assert!(sys::Raised::new(Priority::BestEffort(8)).is_err());
            assert_eq!(priority(), before);
        };
        std::thread::spawn(on_a_thread).join().expect("no panic");
    }
}
