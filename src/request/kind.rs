//! What names a request: what is asked for, of what, and the id that it has in flight.

use crate::os::RawFd;

/// What a request asks for.
///
/// # Examples
/// What a backend looks at first:
/// ```
/// use polyaio::{Errno, OpKind, Outcome};
/// fn offered(kind: OpKind) -> Outcome {
///     match kind {
///         OpKind::Read | OpKind::Write => Ok(4096),
///         OpKind::SyncAll | OpKind::SyncData => Ok(0),
///         // Kinds may be added: whoever knows no more than these says so.
///         _ => Err(Errno(libc::EOPNOTSUPP)),
///     }
/// }
/// assert!(OpKind::ALL.iter().any(|kind| offered(*kind).is_err()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum OpKind {
    /// Read into the request's memory.
    Read,
    /// Write the request's memory.
    Write,
    /// Make data and metadata durable, as `fsync(2)`.
    SyncAll,
    /// Make data, and the metadata needed to find it, durable, as `fdatasync(2)`.
    SyncData,
    /// Set the file's length to the request's position, in bytes, as `ftruncate(2)`.
    SetLen,
    /// Reserve the request's length, in bytes, from its position on, as `fallocate(2)`.
    Allocate,
    /// Ask for the file's length in bytes; the outcome's value is the length.
    Len,
    /// Close the handle, as `close(2)`.
    Close,
    /// Write the data of the request's length, in bytes, from its position on back to the disk, and no metadata, as
    /// `sync_file_range(2)`.
    SyncRange,
    /// Give the disk space of the request's length, in bytes, from its position on back, as `fallocate(2)` with
    /// `FALLOC_FL_PUNCH_HOLE`.
    PunchHole,
    /// Take note of [`Request::advice`](crate::Request::advice) for a range, as `posix_fadvise(2)`.
    Advise,
    /// Tell what is known of the file, by [`Request::answer_metadata`](crate::Request::answer_metadata).
    Metadata,
    /// Open a file; served by the thread pool only.
    Open,
}

impl OpKind {
    /// Every kind, in the order of declaration.
    ///
    /// # Examples
    /// ```
    /// use polyaio::{OpKind, backend::OpSet};
    /// let every_transfer = OpKind::ALL.into_iter().filter(|kind| kind.is_transfer()).fold(OpSet::NONE, OpSet::with);
    /// assert_eq!(every_transfer, OpSet::NONE.with(OpKind::Read).with(OpKind::Write));
    /// ```
    pub const ALL: [OpKind; 13] = [
        Self::Read,
        Self::Write,
        Self::SyncAll,
        Self::SyncData,
        Self::SetLen,
        Self::Allocate,
        Self::Len,
        Self::Close,
        Self::SyncRange,
        Self::PunchHole,
        Self::Advise,
        Self::Metadata,
        Self::Open,
    ];

    /// Whether the kind moves bytes between memory and file.
    ///
    /// # Examples
    /// ```
    /// use polyaio::OpKind;
    /// assert!(OpKind::Write.is_transfer() && !OpKind::Allocate.is_transfer());
    /// ```
    pub const fn is_transfer(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// What a request runs against: a descriptor of the operating system, or a number that only its backend knows.
///
/// # Examples
/// ```
/// use polyaio::RawHandle;
/// fn path(handle: RawHandle) -> String {
///     match handle {
///         RawHandle::Descriptor(fd) => format!("/proc/self/fd/{fd}"),
///         RawHandle::Virtual(number) => format!("table:{number}"),
///         _ => unreachable!("nothing else was asked for"),
///     }
/// }
/// assert_eq!(path(RawHandle::Virtual(7)), "table:7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RawHandle {
    /// A file descriptor; on Windows the value of a `HANDLE`, as an `isize`. The request keeps it open.
    Descriptor(RawFd),
    /// A file that no kernel knows, as returned by [`Backend::open`](crate::backend::Backend::open).
    Virtual(u64),
}

/// Names a request for as long as it is in flight: slot index and generation.
///
/// # Examples
/// Through a kernel and back; here a queue of numbers plays the kernel.
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{collections::VecDeque, sync::Mutex};
/// use polyaio::backend::{Backend, Batch, Capabilities, Completions, OpSet, Wait};
/// use polyaio::{Engine, OpKind, OpenOptions, Policy, RequestId};
///
/// #[derive(Default)]
/// struct Ring(Mutex<VecDeque<u64>>);
///
/// impl Backend for Ring {
///     fn name(&self) -> &'static str { "ring" }
///
///     fn capabilities(&self) -> Capabilities {
///         let mut can = Capabilities::new(64);
///         can.operations = OpSet::NONE.with(OpKind::SyncAll).with(OpKind::SyncData);
///         can.reaped = true;
///         can
///     }
///
///     fn submit(&self, batch: &mut Batch<'_>) {
///         while let Some(request) = batch.take() {
///             self.0.lock().unwrap().push_back(request.park().to_u64());
///         }
///     }
///
///     fn ready(&self) -> bool { !self.0.lock().unwrap().is_empty() }
///
///     fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
///         let mut ring = self.0.lock().unwrap();
///         let count = ring.len().min(wait.max);
///         for number in ring.drain(..count) {
///             // SAFETY: parked above, by this backend; nobody uses its memory, of which a sync has none.
///             unsafe { completions.push(RequestId::from_u64(number), Ok(0)) };
///         }
///         count
///     }
///
///     fn shutdown(&self) {}
/// }
///
/// # let dir = tempfile::tempdir()?;
/// # let policy = Policy::Prefer(vec!["ring".into()]);
/// # let engine = Engine::builder().backend(std::sync::Arc::new(Ring::default())).policy(policy).build()?;
/// # let file = OpenOptions::new().write(true).create(true).open(&engine, dir.path().join("data"))?;
/// assert_eq!(file.sync_all().traced().wait().1.served_by, "ring");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    #[inline]
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    /// The id as a number that can travel through a kernel. Never 0.
    ///
    /// # Examples
    /// ```
    /// use polyaio::RequestId;
    /// let id = RequestId::from_u64(7 << 32 | 3);
    /// assert_eq!((id.to_u64(), format!("{id:?}")), (7 << 32 | 3, "RequestId(3.7)".to_owned()), "slot, generation");
    /// ```
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// An id as a kernel gave it back. Using it is what needs care: see
    /// [`Completions::push`](crate::backend::Completions::push).
    ///
    /// # Examples
    /// ```
    /// use polyaio::RequestId;
    /// // `user_data` of a completion event, as it was when it was sent.
    /// let event = libc::epoll_event { events: 0, u64: 42 };
    /// assert_eq!(RequestId::from_u64(event.u64), RequestId::from_u64(42));
    /// ```
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestId({}.{})", self.index(), self.generation())
    }
}
