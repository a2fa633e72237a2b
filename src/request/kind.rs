//! What names a request: what is asked for, of what, and the id that it has in flight.

/// What a request asks for.
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
    pub const fn is_transfer(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// What a request runs against: a descriptor of the operating system, or a number that only its backend knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RawHandle {
    /// A file descriptor. The request keeps it open.
    Descriptor(std::os::fd::RawFd),
    /// A file that no kernel knows, as returned by [`Backend::open`](crate::backend::Backend::open).
    Virtual(u64),
}

/// Names a request for as long as it is in flight: slot index and generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    /// The id as a number that can travel through a kernel. Never 0.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// An id as a kernel gave it back. Using it is what needs care: see
    /// [`Completions::push`](crate::backend::Completions::push).
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestId({}.{})", self.index(), self.generation())
    }
}
