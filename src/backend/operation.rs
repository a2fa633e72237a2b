//! What a [`SyncBackend`](super::SyncBackend) is given: a request with which nothing unsafe can be done.
//!
//! The memory of a write is shown as bytes. The memory of a read may never have been written (the bare capacity of a
//! `Vec`), so that it is not shown as bytes at all: it is filled from its beginning, through a [`Room`] that counts. The
//! count that a read returns is then compared with what was filled, and nobody takes for bytes what was not written.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};

use super::room::{Filled, Room};
use super::sync_backend::errno;
use crate::completion::{Errno, Outcome};
use crate::how::{Durability, Priority};
use crate::memory::IoVec;
use crate::metadata::{Advice, Metadata};
use crate::os::{self, BorrowedFd};
use crate::request::{Anomaly, OpKind, RawHandle, Request};

/// One operation, for as long as it is being executed.
///
/// # Examples
/// All that is asked of a backend, and answered:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{io, path::Path, sync::Arc};
/// use polyaio::backend::{Capabilities, Handle, Operation, SyncBackend, VirtualFile};
/// use polyaio::{Durability, Engine, Metadata, OpKind, OpenOptions, Priority};
///
/// struct Printer;
///
/// impl SyncBackend for Printer {
///     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
///         if let Handle::Descriptor(_) = operation.handle() {
///             return operation.system_call(); // somebody else's file: as the thread pool would
///         }
///         let (from, length) = (operation.position().unwrap_or(0), operation.length());
///         match operation.kind() {
///             OpKind::Read if operation.nowait() => Err(io::ErrorKind::WouldBlock.into()),
///             OpKind::Read => Ok(operation.room().fill(b'.', 3) as u64),
///             OpKind::Write => {
///                 assert_eq!(operation.data().iter().map(|part| part.len() as u64).sum::<u64>(), length);
///                 assert_eq!((operation.durability(), operation.appends()), (Durability::Data, false));
///                 assert_eq!(operation.priority(), Some(Priority::Idle));
///                 Ok(length)
///             }
///             OpKind::Advise => Ok(println!("{:?} from {from} on", operation.advice())).map(|()| 0),
///             OpKind::Metadata => {
///                 operation.answer_metadata(Metadata::of_length(3));
///                 Ok(0)
///             }
///             _ => Err(io::ErrorKind::Unsupported.into()),
///         }
///     }
///
///     fn name(&self) -> &'static str { "printer" }
///
///     fn capabilities(&self) -> Capabilities {
///         let mut can = Capabilities::new(16);
///         (can.nowait, can.durable, can.priorities) = (true, true, true);
///         can
///     }
///
///     fn open(&self, path: &Path, _options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
///         path.starts_with("printer:").then_some(Ok(VirtualFile { number: 1, alignment: 1 }))
///     }
/// }
///
/// let engine = Engine::builder().sync_backend(Arc::new(Printer)).build()?;
/// let file = OpenOptions::new().read(true).write(true).open(&engine, "printer:")?;
/// assert_eq!(file.write_at("abc", 7).dsync().priority(Priority::Idle).wait().0?, 3);
/// assert_eq!(file.read_at(vec![0; 10], 0).wait().1[..3], *b"...");
/// assert_eq!(file.metadata().wait()?.len, 3);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Operation<'a> {
    request: &'a mut Request,
    filled: Filled,
    call: fn(&mut Request) -> Outcome,
    /// What [`data`](Self::data) shows, where that is laid out in another way than the request's ranges.
    #[cfg(windows)]
    slices: std::sync::OnceLock<Vec<IoSlice<'static>>>,
}

/// What an operation runs against.
///
/// # Examples
/// ```
/// use std::{fs::File, io, os::fd::AsFd};
/// use polyaio::backend::Handle;
/// fn length(handle: Handle<'_>) -> io::Result<u64> {
///     match handle {
///         Handle::Descriptor(fd) => Ok(File::from(fd.try_clone_to_owned()?).metadata()?.len()),
///         Handle::Virtual(number) => Ok(number * 4096),
///         _ => Err(io::ErrorKind::Unsupported.into()),
///     }
/// }
/// assert_eq!(length(Handle::Virtual(2)).ok(), Some(8192));
/// assert!(length(Handle::Descriptor(io::stdin().as_fd())).is_ok());
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Handle<'a> {
    /// A file of the operating system. It stays open while the operation is executed.
    Descriptor(BorrowedFd<'a>),
    /// A file of the backend's own, by the number that [`SyncBackend::open`](super::SyncBackend::open) gave it.
    Virtual(u64),
}

impl<'a> Operation<'a> {
    /// `call` makes the system call that the operation would be on a descriptor.
    pub(crate) fn new(request: &'a mut Request, call: fn(&mut Request) -> Outcome) -> Self {
        if request.kind().is_transfer() {
            // SAFETY: what is handed out here borrows from the operation, which borrows the request: nobody has it any more
            // when the request can be completed. A write's memory is shown as `&[u8]` only, and a read's count is at most
            // what was filled (`settle`).
            unsafe { request.start() };
        }
        Self {
            request,
            filled: Filled::default(),
            call,
            #[cfg(windows)]
            slices: std::sync::OnceLock::new(),
        }
    }

    /// What is asked for.
    pub fn kind(&self) -> OpKind {
        self.request.kind()
    }

    /// What it runs against.
    pub fn handle(&self) -> Handle<'_> {
        match self.request.handle() {
            // SAFETY: the request keeps the descriptor open until it is complete, and we borrow the request.
            RawHandle::Descriptor(fd) => Handle::Descriptor(unsafe { os::borrow(fd) }),
            RawHandle::Virtual(number) => Handle::Virtual(number),
        }
    }

    /// The offset in the file in bytes; of [`OpKind::SetLen`] the new length. `None` means at the stream's or file's own
    /// position. Of a write to a file that was opened for appending, and of one that [`appends`](Self::appends), it means
    /// nothing.
    pub fn position(&self) -> Option<u64> {
        self.request.position()
    }

    /// Bytes to transfer; of other kinds, those of their range.
    pub fn length(&self) -> u64 {
        self.request.length()
    }

    /// Whether a write goes to the end of a file that was not opened for appending. Asked of backends that can
    /// [`append`](super::Capabilities::appends).
    pub fn appends(&self) -> bool {
        self.request.appends()
    }

    /// Whether to answer `EAGAIN` instead of waiting for a device. Asked of backends that honour
    /// [`nowait`](super::Capabilities::nowait).
    pub fn nowait(&self) -> bool {
        self.request.nowait()
    }

    /// What of a write has to be durable when it returns. Asked of backends that are
    /// [`durable`](super::Capabilities::durable).
    pub fn durability(&self) -> Durability {
        self.request.durability()
    }

    /// The priority of a transfer. Asked of backends that have [`priorities`](super::Capabilities::priorities).
    pub fn priority(&self) -> Option<Priority> {
        self.request.priority()
    }

    /// The advice of [`OpKind::Advise`].
    pub fn advice(&self) -> Option<Advice> {
        self.request.advice()
    }

    /// Answers [`OpKind::Metadata`], before 0 is returned. Only the first answer counts.
    pub fn answer_metadata(&self, metadata: Metadata) {
        self.request.answer_metadata(metadata);
    }

    /// The bytes of a write, in order, as `std`'s vectored writes take them; empty for other kinds.
    pub fn data(&self) -> &[IoSlice<'_>] {
        if self.kind() != OpKind::Write {
            return &[];
        }
        // SAFETY: the ranges of a write are initialised, changed by nobody and in place until the request is complete
        // (`IoBuf`), and we borrow the request.
        unsafe { self.shown(self.request.iovecs()) }
    }

    /// # Safety
    /// The ranges may be read as long as the operation is borrowed.
    #[cfg(unix)]
    unsafe fn shown<'b>(&self, ranges: &'b [IoVec]) -> &'b [IoSlice<'b>] {
        // SAFETY: `IoVec` and, by its documentation, `IoSlice` are laid out as `struct iovec`.
        unsafe { std::slice::from_raw_parts(ranges.as_ptr().cast(), ranges.len()) }
    }

    /// # Safety
    /// The ranges may be read as long as the operation is borrowed.
    #[cfg(windows)]
    unsafe fn shown(&self, ranges: &[IoVec]) -> &[IoSlice<'_>] {
        /// An `IoSlice` is a `WSABUF` here, which has 32 bits for its length.
        const MOST: usize = 1 << 30;
        self.slices.get_or_init(|| {
            // SAFETY: as the caller says. The list is given out for no longer than the operation is borrowed.
            let bytes =
                ranges.iter().map(|range| unsafe { std::slice::from_raw_parts(range.base.cast_const(), range.len) });
            bytes.flat_map(|bytes| bytes.chunks(MOST)).map(IoSlice::new).collect()
        })
    }

    /// Where a read puts its bytes; full from the beginning for other kinds.
    pub fn room(&mut self) -> Room<'_> {
        let ranges = if self.kind() == OpKind::Read { self.request.iovecs() } else { &[] };
        Room { ranges, filled: &mut self.filled }
    }

    /// Makes the system call that the thread pool would make, once, with the operation's own memory: what a backend does that
    /// only wants to watch, delay, count or refuse what others serve. A read begins with the first byte of its memory, whatever
    /// was put into it before.
    ///
    /// # Errors
    /// The system call's own; `EBADF` for a virtual file.
    pub fn system_call(&mut self) -> io::Result<u64> {
        let count = (self.call)(self.request)?;
        if self.kind() == OpKind::Read {
            self.filled = Filled::default();
            // SAFETY: the call has written so many bytes, from the beginning.
            unsafe { self.room().step_over(count as usize) };
        }
        Ok(count)
    }

    /// What the request is completed with.
    pub(crate) fn settle(self, result: io::Result<u64>) -> Outcome {
        let count = result.map_err(|error| errno(&error))?;
        if self.kind() == OpKind::Read && count > self.filled.bytes as u64 {
            self.request.owner().count_anomaly(Anomaly::Implausible);
            return Err(Errno(libc::EIO));
        }
        Ok(count)
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;
    use crate::testing::Bench;

    /// A read of 24 bytes into ranges of 4, 8 and 12 bytes, of which those that come later lie first in the buffer.
    fn with_room(f: impl FnOnce(&mut Operation<'_>) -> io::Result<u64>) -> (Outcome, Vec<u8>) {
        let bench = Bench::new();
        let (mut request, end) = bench.request(OpKind::Read, -1, Some(0), vec![0xee; 24]);
        let memory = &mut request.body_mut().memory;
        let base = memory.iovecs[0].base;
        memory.clear();
        for (at, len) in [(20, 4), (12, 8), (0, 12)] {
            // SAFETY: the range lies in the buffer.
            memory.push(IoVec { base: unsafe { base.add(at) }, len });
        }
        let mut operation = Operation::new(&mut request, |_| Err(Errno(libc::EBADF)));
        let result = f(&mut operation);
        let outcome = operation.settle(result);
        request.complete(outcome);
        let (outcome, back) = end.finish(|| unreachable!("it is complete"));
        (outcome, [&back[20..], &back[12..20], &back[..12]].concat())
    }

    #[test]
    fn a_room_is_filled_range_by_range() {
        let (outcome, back) = with_room(|operation| {
            let mut room = operation.room();
            assert_eq!((room.left(), room.append(b"abc"), room.left()), (24, 3, 21));
            assert_eq!(room.fill(b'.', 3), 3);
            assert_eq!(room.append(&[b'x'; 100]), 18);
            assert_eq!((room.left(), room.filled(), room.append(b"y"), room.fill(0, 1)), (0, 24, 0, 0));
            assert!(room.spare().is_empty() && room.read_from(&mut &b"more"[..]).is_ok_and(|n| n == 0));
            assert_eq!(room.filled_mut().map(|part| part.len()).collect::<Vec<_>>(), [4, 8, 12]);
            Ok(24)
        });
        assert_eq!((outcome, &back[..]), (Ok(24), &b"abc...xxxxxxxxxxxxxxxxxx"[..]));
    }

    /// What was written into the spare bytes stays there until they are advanced over, and is zeroed once only.
    #[test]
    fn spare_bytes_are_initialised_once() {
        let (outcome, back) = with_room(|operation| {
            let mut room = operation.room();
            room.append(b"abcde");
            let spare = room.spare();
            assert_eq!(spare, [0; 7], "the rest of the second range");
            spare[3] = b'!';
            room.advance(2);
            assert_eq!(room.spare(), [0, b'!', 0, 0, 0]);
            // A room is only a view.
            assert_eq!(operation.room().spare(), [0, b'!', 0, 0, 0]);
            operation.room().advance(5);
            assert_eq!((operation.room().filled(), operation.room().spare().len()), (12, 12));
            assert_eq!(operation.room().filled_mut().map(|part| part.len()).collect::<Vec<_>>(), [4, 8]);
            Ok(12)
        });
        assert_eq!((outcome, &back[..12]), (Ok(12), &b"abcde\0\0\0!\0\0\0"[..]));
        assert_eq!(back[12..], [0; 12], "zeroed, though not part of the result");
    }

    #[test]
    fn reading_ends_at_the_end_of_a_range() {
        let (outcome, back) = with_room(|operation| {
            let mut source = &b"0123456789abcdefghijklmnopqrstuvwxyz"[..];
            let mut room = operation.room();
            let counts: Vec<_> = (0..4).map(|_| room.read_from(&mut source).expect("in memory")).collect();
            assert_eq!(counts, [4, 8, 12, 0]);
            Ok(room.filled() as u64)
        });
        assert_eq!((outcome, &back[..]), (Ok(24), &b"0123456789abcdefghijklmn"[..]));
    }

    #[test]
    fn bytes_that_are_told_of() {
        let (outcome, back) = with_room(|operation| {
            let mut room = operation.room();
            // SAFETY: written, and only then told of.
            unsafe {
                room.spare_uninit()[..2].fill(MaybeUninit::new(b'h'));
                room.assume_filled(2);
            }
            Ok(2)
        });
        assert_eq!((outcome, &back[..2]), (Ok(2), &b"hh"[..]));
    }

    #[test]
    fn a_count_of_more_than_was_filled_is_no_count() {
        let (outcome, _) = with_room(|operation| Ok(operation.room().append(b"four") as u64 + 1));
        assert_eq!(outcome, Err(Errno(libc::EIO)));
        let (outcome, _) = with_room(|operation| Ok(operation.room().append(b"four") as u64 - 1));
        assert_eq!(outcome, Ok(3));
    }

    #[test]
    #[should_panic(expected = "9 bytes of 8")]
    fn advancing_over_what_was_never_given() {
        let bench = Bench::new();
        let (mut request, _end) = bench.request(OpKind::Read, -1, Some(0), vec![0; 8]);
        let mut operation = Operation::new(&mut request, |_| Err(Errno(libc::EBADF)));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            operation.room().spare().fill(1);
            operation.room().advance(9);
        }));
        // Started, so that it must not be dropped.
        request.complete(Err(Errno(libc::EIO)));
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn what_is_written_is_shown_and_nothing_else() {
        let bench = Bench::new();
        let (mut request, end) = bench.request(OpKind::Write, -1, Some(3), b"bytes".to_vec());
        let mut operation = Operation::new(&mut request, |_| Err(Errno(libc::EBADF)));
        assert_eq!((operation.data().len(), &operation.data()[0][..]), (1, &b"bytes"[..]));
        assert_eq!((operation.room().left(), operation.room().append(b"other"), operation.length()), (0, 0, 5));
        let outcome = operation.settle(Ok(5));
        request.complete(outcome);
        assert_eq!(end.finish(|| unreachable!("it is complete")), (Ok(5), b"bytes".to_vec()));
    }
}
