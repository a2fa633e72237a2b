//! Can kernel AIO start here, with how many requests in flight, and if not, why not and what to do about it.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs;

use super::abi;
use crate::completion::Errno;

/// Below so many requests in flight a context is not worth its system calls.
const SMALLEST: usize = 16;
/// `ioctx_alloc` answers `EINVAL` above 2^28 bytes of events, of which it makes two for each request asked for.
const LARGEST: usize = (1 << 28) / size_of::<abi::IoEvent>() / 2;

/// The environment variable that chooses how completions are read.
const RING_VARIABLE: &str = "POLYAIO_KERNEL_AIO_RING";

/// How to start [`KernelAio`](super::KernelAio).
///
/// # Examples
/// ```
/// use polyaio::backends::kernel_aio::Options;
/// let options = Options { queue_depth: 32, user_ring: true };
/// assert_ne!(options, Options { user_ring: false, ..options });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests in flight at the most; at least 1. They count against the machine's `fs.aio-max-nr`.
    pub queue_depth: usize,
    /// Read completions from the ring in memory, where its header is the known one; otherwise, and with `false`, by
    /// `io_getevents(2)`.
    pub user_ring: bool,
}

impl Options {
    /// `queue_depth`, and the ring unless the environment variable `POLYAIO_KERNEL_AIO_RING` is `0`.
    ///
    /// # Errors
    /// The variable is set to something other than `0` or `1`.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::backends::kernel_aio::Options;
    /// let options = Options::from_env(64)?;
    /// assert_eq!(options.user_ring, std::env::var("POLYAIO_KERNEL_AIO_RING").as_deref() != Ok("0"));
    /// # Ok(()) }
    /// ```
    pub fn from_env(queue_depth: usize) -> Result<Self, NotStarted> {
        let user_ring = parse_ring_variable(std::env::var_os(RING_VARIABLE))?;
        Ok(Self { queue_depth, user_ring })
    }
}

/// Why kernel AIO does not run here.
///
/// # Examples
/// ```
/// use polyaio::backends::kernel_aio::{KernelAio, NotStarted};
/// let refused: NotStarted = KernelAio::start(0).unwrap_err();
/// assert_eq!((refused.errno.0, refused.to_string()), (libc::EINVAL, refused.reason));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotStarted {
    /// What the system call answered; `EINVAL` for wrong options.
    pub errno: Errno,
    /// One sentence for an operator: what was tried, what was answered, what to do.
    pub reason: String,
}

/// A live context of this process.
#[derive(Debug)]
pub(super) struct Context {
    id: abi::ContextId,
    /// How many requests may be in flight.
    size: usize,
    /// Who made it. After `fork(2)` the child has the number but no context behind it (`mm_init_aio`).
    process: u32,
    /// Dropped after `io_destroy`.
    #[cfg(all(test, not(polyaio_loom)))]
    witness: std::sync::Arc<()>,
}

impl Context {
    /// Makes the largest context of at most `wanted` requests that the machine allows, and checks that it can be used.
    ///
    /// `EAGAIN` (the quota `fs.aio-max-nr`) and `ENOMEM` are answered by asking for half as much, down to [`SMALLEST`]:
    /// log2 system calls at the most. Anything else means that there is no kernel AIO here.
    pub(super) fn new(wanted: usize) -> Result<Self, NotStarted> {
        if wanted == 0 {
            let reason = "kernel AIO needs a queue depth of at least 1 (it was 0)".to_owned();
            return Err(NotStarted { errno: Errno(libc::EINVAL), reason });
        }
        let mut size = wanted.min(LARGEST);
        let smallest = size.min(SMALLEST);
        let id = loop {
            // The cast is exact: `LARGEST` is far below 2^32.
            match abi::io_setup(size as u32) {
                Ok(id) => break id,
                Err(Errno(libc::EAGAIN | libc::ENOMEM)) if size > smallest => size = (size / 2).max(smallest),
                Err(errno) => return Err(not_started("io_setup", size, errno)),
            }
        };
        let context = Self {
            id,
            size,
            process: std::process::id(),
            #[cfg(all(test, not(polyaio_loom)))]
            witness: std::sync::Arc::default(),
        };
        context.check_calls()?;
        Ok(context)
    }

    pub(super) fn id(&self) -> abi::ContextId {
        self.id
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A seccomp filter may allow `io_setup` and refuse the rest: better to learn that here than with each request.
    fn check_calls(&self) -> Result<(), NotStarted> {
        let refused = |errno: Errno| matches!(errno.0, libc::ENOSYS | libc::EPERM | libc::EACCES);
        // SAFETY: no iocb is offered.
        if let Err(errno) = unsafe { abi::io_submit(self.id, &[]) }
            && refused(errno)
        {
            return Err(not_started("io_submit", self.size, errno));
        }
        // SAFETY: the context is live, and nobody else knows it yet.
        if let Err(errno) = unsafe { abi::io_getevents(self.id, 0, &mut [], Some(std::time::Duration::ZERO)) }
            && refused(errno)
        {
            return Err(not_started("io_getevents", self.size, errno));
        }
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A child of fork: the context is the parent's, and so is the ring that the number points to.
            return;
        }
        // SAFETY: the context is live, as it ends nowhere else, and ours alone: its ring is reached only through `Live`,
        // which owns both and is being dropped. An error would mean that somebody else has destroyed it; nothing is left to
        // do then.
        let _ = unsafe { abi::io_destroy(self.id) };
    }
}

#[cfg(all(test, not(polyaio_loom)))]
impl Context {
    /// Has no owner left once the context is destroyed. Its number says nothing then: it is an address, which the next context
    /// of the process may get.
    pub(super) fn witness(&self) -> std::sync::Weak<()> {
        std::sync::Arc::downgrade(&self.witness)
    }
}

/// Why a context is smaller than asked for, as a sentence.
pub(super) fn smaller(wanted: usize, granted: usize) -> String {
    format!(
        "kernel AIO has room for {granted} requests in flight instead of {wanted}: the machine's quota is nearly spent \
         (now {}). More wait in the engine's queue. Raise it with `sysctl -w fs.aio-max-nr=1048576`, or ask for a smaller \
         queue depth",
        quota()
    )
}

fn not_started(call: &str, size: usize, errno: Errno) -> NotStarted {
    let what = match errno.0 {
        libc::EAGAIN => format!(
            "the machine's quota is spent, not even {size} requests fit (now {}); raise it with `sysctl -w \
             fs.aio-max-nr=1048576`, or end or shrink other users of kernel AIO (databases, virtual machines; containers \
             share the quota)",
            quota()
        ),
        libc::ENOSYS => {
            "this kernel has no AIO (CONFIG_AIO), or a sandbox hides it; the other backends serve instead".to_owned()
        }
        libc::EPERM | libc::EACCES => "a seccomp profile or security module forbids it; allow io_setup, io_submit, \
             io_getevents and io_destroy to have it"
            .to_owned(),
        libc::ENOMEM => "the kernel has no memory for the completion ring".to_owned(),
        _ => "an answer that its manual page does not explain".to_owned(),
    };
    let reason = format!("kernel AIO does not start: {call}: {errno}: {what}");
    NotStarted { errno, reason }
}

/// The state of the machine-wide quota.
fn quota() -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/fs/{name}"));
    match (read("aio-nr"), read("aio-max-nr")) {
        (Ok(used), Ok(most)) => format!("fs.aio-nr is {} of fs.aio-max-nr {}", used.trim(), most.trim()),
        _ => "fs.aio-nr and fs.aio-max-nr cannot be read: no /proc".to_owned(),
    }
}

fn parse_ring_variable(value: Option<OsString>) -> Result<bool, NotStarted> {
    match value.as_ref().map(|value| value.to_str()) {
        None | Some(Some("1")) => Ok(true),
        Some(Some("0")) => Ok(false),
        _ => {
            let reason = format!(
                "{RING_VARIABLE} is {:?}; it can be 1 (read completions from the ring in memory, the default) or 0 (by \
                 io_getevents)",
                value.unwrap_or_default()
            );
            Err(NotStarted { errno: Errno(libc::EINVAL), reason })
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_ring_variable_takes_two_values_and_says_so() {
        assert_eq!(parse_ring_variable(None), Ok(true));
        assert_eq!(parse_ring_variable(Some("1".into())), Ok(true));
        assert_eq!(parse_ring_variable(Some("0".into())), Ok(false));
        for wrong in ["", "no", "2"] {
            let error = parse_ring_variable(Some(wrong.into())).expect_err(wrong);
            assert!(error.reason.contains("1 (") && error.reason.contains("0 (by"), "{error}");
        }
    }

    #[test]
    fn a_depth_of_zero_says_what_is_wrong() {
        let error = Context::new(0).expect_err("0 requests");
        assert_eq!(error.errno, Errno(libc::EINVAL));
        assert!(error.to_string().contains("at least 1"), "{error}");
    }

    #[test]
    fn each_refusal_has_its_own_advice() {
        let reason = |errno| not_started("io_setup", 16, Errno(errno)).reason;
        let spent = reason(libc::EAGAIN);
        assert!(spent.contains("fs.aio-max-nr") && spent.contains("fs.aio-nr") && spent.contains("sysctl"), "{spent}");
        assert!(reason(libc::ENOSYS).contains("CONFIG_AIO"));
        assert!(reason(libc::EPERM).contains("seccomp"));
    }
}
