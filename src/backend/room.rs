//! The memory of a read, for those who write no unsafe code: filled from its beginning, and counted.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use crate::memory::IoVec;

/// How far the memory of a read is filled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    /// In all.
    pub(super) bytes: usize,
    /// The range that is filled next, and how many bytes of it are filled.
    range: usize,
    within: usize,
    /// So many bytes of that range, after those, are initialised.
    initialised: usize,
}

/// The memory of a read: filled from its beginning, in any number of steps.
///
/// # Examples
/// `reading`, here and below, reads so many bytes from a backend that fills the room like this, and returns what came:
/// ```
/// # use std::{io, path::Path, sync::Arc};
/// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
/// # use polyaio::{Engine, OpenOptions};
/// # struct Fills<F>(F);
/// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
/// #     fn name(&self) -> &'static str { "fills" }
/// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
/// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
/// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
/// #     }
/// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
/// #         (self.0)(operation.room());
/// #         Ok(operation.room().filled() as u64)
/// #     }
/// # }
/// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
/// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
/// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
/// #     file.read_at(Vec::with_capacity(count), 0).wait().1
/// # }
/// let read = reading(10, |mut room| {
///     room.append(b"head:");
///     let taken = room.append(b" and a tail that is too long");
///     assert_eq!((taken, room.filled(), room.left()), (5, 10, 0));
/// });
/// assert_eq!(read, b"head: and ");
/// ```
#[derive(Debug)]
pub struct Room<'a> {
    pub(super) ranges: &'a [IoVec],
    pub(super) filled: &'a mut Filled,
}

impl Room<'_> {
    /// Bytes that were put into it.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// reading(10, |mut room| {
    ///     room.append(b"abc");
    ///     assert_eq!(room.filled(), 3, "what `execute` returns");
    /// });
    /// ```
    pub fn filled(&self) -> usize {
        self.filled.bytes
    }

    /// Bytes that there is still room for.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// reading(10, |mut room| {
    ///     while room.left() >= 4 {
    ///         room.append(b"abc "); // whole records only
    ///     }
    ///     assert_eq!(room.left(), 2);
    /// });
    /// ```
    pub fn left(&self) -> usize {
        let after: usize = self.ranges[self.filled.range..].iter().map(|range| range.len).sum();
        after - self.filled.within
    }

    /// Copies as many of the bytes as there is room for; returns how many.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// assert_eq!(reading(4, |mut room| assert_eq!(room.append(b"hello"), 4)), b"hell");
    /// ```
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        // SAFETY: the same bytes, of which nobody has to know that they are initialised.
        let bytes: &[MaybeUninit<u8>] = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) };
        self.put(bytes.len(), |place, at| place.copy_from_slice(&bytes[at..][..place.len()]))
    }

    /// Puts `byte` in, `count` times or as often as there is room for; returns how often.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// let read = reading(6, |mut room| {
    ///     room.append(b"ab");
    ///     room.fill(0, usize::MAX); // a hole to the end
    /// });
    /// assert_eq!(read, b"ab\0\0\0\0");
    /// ```
    pub fn fill(&mut self, byte: u8, count: usize) -> usize {
        self.put(count, |place, _| place.fill(MaybeUninit::new(byte)))
    }

    /// What comes next, as bytes: all that is left of the present range of memory, empty when there is no room. What was
    /// never written is zeroed first, which costs some tens of nanoseconds for 4 KiB. [`advance`](Self::advance) tells how
    /// much of it was used.
    ///
    /// # Examples
    /// For whoever decodes into memory, such as a decompressor:
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// let read = reading(8, |mut room| {
    ///     let spare = room.spare();
    ///     assert_eq!(spare, [0; 8]);
    ///     (spare[0], spare[1]) = (b'o', b'k');
    ///     room.advance(2);
    /// });
    /// assert_eq!(read, b"ok");
    /// ```
    pub fn spare(&mut self) -> &mut [u8] {
        let known = self.filled.initialised;
        // SAFETY: bytes are initialised here, and none the other way round.
        let spare = unsafe { self.spare_uninit() };
        let (base, len) = (spare.as_mut_ptr().cast::<u8>(), spare.len());
        spare[known..].fill(MaybeUninit::new(0));
        self.filled.initialised = len;
        // SAFETY: all of it is initialised, the memory is the read's until it is complete, and we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(base, len) }
    }

    /// Notes that the first `count` bytes of [`spare`](Self::spare) are part of the result.
    ///
    /// # Panics
    /// Panics if `count` is larger than what `spare` has last returned.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// let read = reading(8, |mut room| {
    ///     room.spare().fill(b'x');
    ///     room.advance(3); // the rest was scratch space
    ///     assert_eq!(room.left(), 5);
    /// });
    /// assert_eq!(read, b"xxx");
    /// ```
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.filled.initialised, "{count} bytes of {}", self.filled.initialised);
        // SAFETY: so many are initialised.
        unsafe { self.step_over(count) }
    }

    /// Reads from `reader`, once, into the present range of memory; returns how many bytes came. 0 also where there is no room.
    ///
    /// # Errors
    /// The reader's.
    ///
    /// # Examples
    /// Until the room is full or the reader at its end; ranges of memory, and short reads, take several calls.
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// let read = reading(8, |mut room| {
    ///     let mut reader = &b"hello, world"[..];
    ///     while room.read_from(&mut reader).is_ok_and(|n| n > 0) {}
    /// });
    /// assert_eq!(read, b"hello, w");
    /// ```
    pub fn read_from(&mut self, reader: &mut (impl io::Read + ?Sized)) -> io::Result<usize> {
        let spare = self.spare();
        if spare.is_empty() {
            return Ok(0);
        }
        let count = reader.read(spare)?;
        self.advance(count);
        Ok(count)
    }

    /// What was filled, in order, to be changed in place: decoded, say.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// let read = reading(5, |mut room| {
    ///     room.append(b"uryyb");
    ///     for part in room.filled_mut() {
    ///         part.iter_mut().for_each(|byte| *byte = (*byte - b'a' + 13) % 26 + b'a');
    ///     }
    /// });
    /// assert_eq!(read, b"hello");
    /// ```
    pub fn filled_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let Filled { range, within, .. } = *self.filled;
        let length =
            move |(index, whole): (usize, &IoVec)| (whole.base, if index < range { whole.len } else { within });
        let parts = self.ranges.iter().enumerate().take(range + 1).map(length).filter(|(_, len)| *len > 0);
        // SAFETY: these bytes were filled, which initialises them; the ranges overlap nowhere (`IoVecBufMut`), and we are
        // borrowed mutably as long as the slices live.
        parts.map(|(base, len)| unsafe { std::slice::from_raw_parts_mut(base, len) })
    }

    /// As [`spare`](Self::spare), for system calls that are told where to write: nothing is zeroed.
    ///
    /// # Safety
    /// Bytes are written to it, and nothing else: what is initialised stays so.
    ///
    /// # Examples
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// use std::mem::MaybeUninit;
    /// let read = reading(8, |mut room| {
    ///     // SAFETY: two bytes are written, and nothing else; then they are noted.
    ///     unsafe {
    ///         room.spare_uninit()[..2].copy_from_slice(&[MaybeUninit::new(b'o'), MaybeUninit::new(b'k')]);
    ///         room.assume_filled(2);
    ///     }
    /// });
    /// assert_eq!(read, b"ok");
    /// ```
    pub unsafe fn spare_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let Some(range) = self.ranges.get(self.filled.range) else { return &mut [] };
        let within = self.filled.within;
        // SAFETY: `within` is less than the length of the range, which may be written until the read is complete.
        unsafe { std::slice::from_raw_parts_mut(range.base.add(within).cast(), range.len - within) }
    }

    /// Notes that `count` more bytes are filled.
    ///
    /// # Safety
    /// They were written, in order: the first `count` bytes of [`spare_uninit`](Self::spare_uninit).
    ///
    /// # Panics
    /// Panics if there is no room for so many.
    ///
    /// # Examples
    /// After a system call that was told where to write:
    /// ```
    /// # use std::{io, path::Path, sync::Arc};
    /// # use polyaio::backend::{Capabilities, Operation, Room, SyncBackend, VirtualFile};
    /// # use polyaio::{Engine, OpenOptions};
    /// # struct Fills<F>(F);
    /// # impl<F: Fn(Room<'_>) + Send + Sync> SyncBackend for Fills<F> {
    /// #     fn name(&self) -> &'static str { "fills" }
    /// #     fn capabilities(&self) -> Capabilities { Capabilities::new(8) }
    /// #     fn open(&self, _: &Path, _: &OpenOptions) -> Option<io::Result<VirtualFile>> {
    /// #         Some(Ok(VirtualFile { number: 1, alignment: 1 }))
    /// #     }
    /// #     fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
    /// #         (self.0)(operation.room());
    /// #         Ok(operation.room().filled() as u64)
    /// #     }
    /// # }
    /// # fn reading(count: usize, fill: impl Fn(Room<'_>) + Send + Sync + 'static) -> Vec<u8> {
    /// #     let engine = Engine::builder().sync_backend(Arc::new(Fills(fill))).build().unwrap();
    /// #     let file = OpenOptions::new().read(true).open(&engine, "own").unwrap();
    /// #     file.read_at(Vec::with_capacity(count), 0).wait().1
    /// # }
    /// let read = reading(64, |mut room| {
    ///     let file = std::fs::File::open("/dev/zero").expect("there");
    ///     // SAFETY: `read(2)` writes to the memory that it is given, and says how many bytes.
    ///     unsafe {
    ///         let spare = room.spare_uninit();
    ///         let n = libc::read(std::os::fd::AsRawFd::as_raw_fd(&file), spare.as_mut_ptr().cast(), spare.len());
    ///         room.assume_filled(n.max(0) as usize);
    ///     }
    /// });
    /// assert_eq!(read, [0; 64]);
    /// ```
    pub unsafe fn assume_filled(&mut self, count: usize) {
        // SAFETY: forwarded to the caller.
        unsafe { self.step_over(count) }
    }

    /// Fills up to `count` bytes, range by range; `write` initialises all that it is given, and is told how many bytes
    /// were filled before.
    fn put(&mut self, count: usize, mut write: impl FnMut(&mut [MaybeUninit<u8>], usize)) -> usize {
        let mut done = 0;
        while done < count {
            // SAFETY: `write` initialises.
            let spare = unsafe { self.spare_uninit() };
            let step = spare.len().min(count - done);
            if step == 0 {
                break;
            }
            write(&mut spare[..step], done);
            // SAFETY: written just now.
            unsafe { self.step_over(step) };
            done += step;
        }
        done
    }

    /// # Safety
    /// The next `count` bytes, through all ranges, were written.
    pub(super) unsafe fn step_over(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let range = self.ranges.get(self.filled.range).expect("no more bytes than there is room for");
            let step = left.min(range.len - self.filled.within);
            self.filled.within += step;
            self.filled.initialised = self.filled.initialised.saturating_sub(step);
            self.filled.bytes += step;
            left -= step;
            if self.filled.within == range.len {
                (self.filled.range, self.filled.within, self.filled.initialised) = (self.filled.range + 1, 0, 0);
            }
        }
    }
}
