//! What a strict engine says where another one would have fallen back.

use std::fmt::Write;

use crate::completion::Errno;
use crate::error::Error;
use crate::op::Shape;
use crate::request::{Body, OpKind};
use crate::router::facts::Alignment;
use crate::router::fallback::Reason;

/// What was wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) kind: OpKind,
    /// In bytes; `None`: at the position.
    pub(crate) position: Option<u64>,
    /// In bytes.
    pub(crate) length: u64,
}

impl Asking {
    pub(crate) fn of(shape: &Shape) -> Self {
        Self { kind: shape.kind, position: shape.position, length: shape.length() }
    }

    /// What is left of a request.
    pub(crate) fn of_body(body: &Body) -> Self {
        Self { kind: body.kind, position: body.position, length: body.length() }
    }
}

/// The error of a request that `backend` did not serve, where only a fallback could have.
///
/// `answer` is what the backend said; `None` where it gave no error, or was not asked. `alignment` is that of a file that is
/// open for direct I/O.
pub(crate) fn refusal(
    asking: &Asking,
    backend: &str,
    reason: Reason,
    answer: Option<Errno>,
    alignment: Option<Alignment>,
) -> Error {
    let mut what = format!("{:?}", asking.kind);
    // Writing to a `String` cannot fail.
    if asking.kind.is_transfer() {
        let _ = write!(what, " of {} bytes", asking.length);
        if let Some(position) = asking.position {
            let _ = write!(what, " at {position}");
        }
    }
    let _ = write!(what, ": {backend} ");
    let _ = match answer {
        Some(errno) => write!(what, "answered {errno}: "),
        None => write!(what, "did not serve it: "),
    };
    what.push_str(meaning(reason));
    if reason == Reason::Invalid {
        let _ = match alignment {
            Some(alignment) => write!(what, ", or it is misaligned for direct I/O ({alignment})"),
            None => write!(what, ", or its offset or length is wrong"),
        };
    }
    let _ = write!(what, ". Another backend would have been asked ({reason}): {}", advice(reason));
    Error::Strict { what, errno: answer }
}

/// What the answer means.
fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::WouldBlock => "it would have had to block",
        Reason::NowaitUnsupported => "the file system knows no NOWAIT, and without it the request would block",
        Reason::NowaitError => "with NOWAIT, some kernels say so too early",
        Reason::EarlyEnd => "it told the end of the file before the file ends, as old kernels do",
        Reason::Invalid => "ambiguous: the backend cannot serve such a request on this file",
        Reason::Unsupported => "it cannot do this here",
        Reason::QueueFull => "there is no room, and nothing of ours is in flight that could make some",
        Reason::Remembered => "it is passed over for what it said to earlier requests",
        Reason::Misaligned => "direct I/O refuses its address, offset or length",
        Reason::SlowSubmit => "it has held the caller up before",
        Reason::NotStarted => "it did not start",
        Reason::PassedOver => "it does not serve files of this kind",
        Reason::DirectRefused => "the file system refuses direct I/O",
    }
}

/// What to do, where nobody may fall back.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::WouldBlock => {
            "preallocate what is going to be written (`File::allocate`); repeat a read, which goes through once the file's \
             metadata is in memory; or let the engine fall back (no strict, `Policy::Prefer`)"
        }
        Reason::NowaitUnsupported => {
            "write within the file's length or on another file system, require the thread pool, or let the engine fall back"
        }
        Reason::NowaitError => {
            "repeat it; if it fails again it is the device: look at the kernel log (dmesg). Or let the engine fall back"
        }
        Reason::EarlyEnd => "update the kernel (Linux 5.9 and 5.10 did it), or let the engine fall back",
        Reason::Invalid => {
            "check address, offset and length; where they are right, require another backend, or let the engine fall back"
        }
        Reason::Unsupported => {
            "look for a seccomp filter, try another file system, require another backend, or let the engine fall back"
        }
        Reason::QueueFull => {
            "lower other users of the backend (kernel AIO: raise fs.aio-max-nr), or let the engine fall back"
        }
        Reason::Misaligned => "align it as `Facts::alignment` says, or let the engine fall back",
        Reason::DirectRefused => "use another file system, or open it without direct I/O",
        Reason::Remembered | Reason::SlowSubmit | Reason::NotStarted | Reason::PassedOver => {
            "`File::route` and `Engine::backends` say why; require another backend, or let the engine fall back"
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    const ASKING: Asking = Asking { kind: OpKind::Write, position: Some(8192), length: 4096 };

    #[test]
    fn says_what_was_wanted_of_whom_and_what_came_of_it() {
        for reason in Reason::ALL {
            let error = refusal(&ASKING, "kernel-aio", reason, Some(Errno(libc::EINVAL)), None);
            let text = error.to_string();
            let answered = format!("kernel-aio answered {}", Errno(libc::EINVAL));
            for part in ["Write of 4096 bytes at 8192", &answered, reason.as_str()] {
                assert!(text.contains(part), "{part} is not in: {text}");
            }
            assert_eq!(error.raw_os_error(), std::io::Error::from(Errno(libc::EINVAL)).raw_os_error());
        }
    }

    #[test]
    fn invalid_names_both_meanings_and_the_alignment() {
        let alignment = Alignment { memory: 512, offset: 4096 };
        let text = refusal(&ASKING, "b", Reason::Invalid, Some(Errno(libc::EINVAL)), Some(alignment)).to_string();
        for part in ["cannot serve such a request on this file", "misaligned", "512", "4096 B"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        let text = refusal(&ASKING, "b", Reason::Invalid, Some(Errno(libc::EINVAL)), None).to_string();
        assert!(!text.contains("misaligned") && text.contains("offset or length is wrong"), "{text}");
    }

    #[test]
    fn what_answered_no_error_has_no_number() {
        let error = refusal(&ASKING, "b", Reason::EarlyEnd, None, None);
        assert_eq!(error.raw_os_error(), None);
    }
}
