//! Owned buffers: what an operation may borrow from its caller for as long as the kernel needs it.
//!
//! A buffer moves into the operation and comes back with the result. While it is away its memory must stay where it is:
//! that is what the unsafe traits [`IoBuf`] and [`IoBufMut`] promise.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

mod vectored;

pub use vectored::{IoVecBuf, IoVecBufMut};

/// A buffer that can be written from.
///
/// # Safety
/// While the value lives, also when the value itself is moved, the range described by [`stable_ptr`](Self::stable_ptr)
/// and [`bytes_init`](Self::bytes_init) stays at its place, initialised, and is changed by nobody.
///
/// # Examples
/// Memory that another library owns, as long as it neither moves nor changes:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::IoBuf;
/// struct Page(std::sync::Arc<[u8; 512]>);
///
/// // SAFETY: the array lies on the heap, initialised, and nobody has a `&mut` to what is in an `Arc`.
/// unsafe impl IoBuf for Page {
///     fn stable_ptr(&self) -> *const u8 { self.0.as_ptr() }
///     fn bytes_init(&self) -> usize { self.0.len() }
/// }
/// assert_eq!(Page([7; 512].into()).as_slice().len(), 512);
/// file.write_all_at(Page([7; 512].into()), 0).wait().0?;
/// # Ok(()) }
/// ```
pub unsafe trait IoBuf: Send + 'static {
    /// First byte.
    fn stable_ptr(&self) -> *const u8;

    /// Initialised bytes from there on.
    fn bytes_init(&self) -> usize;

    /// The initialised bytes.
    fn as_slice(&self) -> &[u8] {
        // SAFETY: the trait promises that this range is initialised and stays in place.
        unsafe { std::slice::from_raw_parts(self.stable_ptr(), self.bytes_init()) }
    }

    /// A view of a part of the buffer: I/O on it touches that range only. [`Slice::into_inner`] gives the whole back.
    ///
    /// For reads the range may reach up to the buffer's capacity, as long as it starts within its initialised bytes.
    ///
    /// # Panics
    /// Panics if the range starts after its end or after the initialised bytes.
    ///
    /// # Examples
    /// ```
    /// use polyaio::IoBuf;
    /// let part = vec![1u8, 2, 3, 4].slice(1..3);
    /// assert_eq!(&part[..], [2, 3]);
    /// assert_eq!(part.into_inner(), [1, 2, 3, 4]);
    /// ```
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self>
    where
        Self: Sized,
    {
        let begin = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n.saturating_add(1),
            Bound::Excluded(&n) => n,
            Bound::Unbounded => usize::MAX,
        };
        assert!(begin <= end, "slice starts at {begin} but ends at {end}");
        assert!(
            begin <= self.bytes_init(),
            "slice starts at {begin}, after the {} initialised bytes",
            self.bytes_init()
        );
        Slice { inner: self, begin, end }
    }
}

/// A buffer that can be read into.
///
/// # Safety
/// As [`IoBuf`], and the range of [`bytes_total`](Self::bytes_total) bytes from
/// [`stable_mut_ptr`](Self::stable_mut_ptr) on, which is at the same place as [`IoBuf::stable_ptr`], may be written
/// while the value lives.
///
/// # Examples
/// The same for reads. Here the memory is always initialised, so that there is nothing to be noted:
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{IoBuf, IoBufMut};
/// struct Page(Box<[u8; 512]>);
///
/// // SAFETY: the array lies on the heap behind its only owner, initialised.
/// unsafe impl IoBuf for Page {
///     fn stable_ptr(&self) -> *const u8 { self.0.as_ptr() }
///     fn bytes_init(&self) -> usize { self.0.len() }
/// }
/// // SAFETY: as above; all of it may be written.
/// unsafe impl IoBufMut for Page {
///     fn stable_mut_ptr(&mut self) -> *mut u8 { self.0.as_mut_ptr() }
///     fn bytes_total(&self) -> usize { self.0.len() }
///     unsafe fn set_init(&mut self, _count: usize) {}
/// }
/// let (n, page) = file.read_at(Page(Box::new([0; 512])), 0).wait().into_result()?;
/// assert_eq!(&page.0[..n], b"hello, world");
/// # Ok(()) }
/// ```
pub unsafe trait IoBufMut: IoBuf {
    /// First byte.
    fn stable_mut_ptr(&mut self) -> *mut u8;

    /// Bytes that may be written, initialised or not: a `Vec`'s capacity.
    fn bytes_total(&self) -> usize;

    /// Notes that the first `count` bytes are initialised. Never shrinks: a `Vec`'s length becomes the larger one of its
    /// old length and `count`.
    ///
    /// # Safety
    /// They are, and `count` is at most [`bytes_total`](Self::bytes_total).
    ///
    /// # Examples
    /// ```
    /// use polyaio::IoBufMut;
    /// let mut buffer = Vec::with_capacity(8);
    /// // SAFETY: eight bytes may be written; two are, and those are noted.
    /// unsafe {
    ///     buffer.stable_mut_ptr().write_bytes(b'x', 2);
    ///     buffer.set_init(2);
    ///     buffer.set_init(1);
    /// }
    /// assert_eq!(buffer, b"xx", "it never shrinks");
    /// ```
    unsafe fn set_init(&mut self, count: usize);
}

// SAFETY: a `Vec`'s memory is on the heap and moves only when the `Vec` is changed, which needs access to the value.
unsafe impl IoBuf for Vec<u8> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above; the capacity is owned memory.
unsafe impl IoBufMut for Vec<u8> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, count: usize) {
        if self.len() < count {
            // SAFETY: the caller says that `count` bytes are initialised and within the capacity.
            unsafe { self.set_len(count) }
        }
    }
}

/// Buffers whose bytes are all initialised and lie on the heap behind a unique owner.
macro_rules! owned_initialised {
    ($($(#[$meta:meta])* [$($generic:tt)*] $type:ty),+ $(,)?) => {$(
        // SAFETY: the memory is on the heap, owned by the value, and stays in place when the value moves.
        unsafe impl<$($generic)*> IoBuf for $type {
            fn stable_ptr(&self) -> *const u8 {
                self.as_ptr()
            }

            fn bytes_init(&self) -> usize {
                self.len()
            }
        }

        // SAFETY: as above; the owner is unique, so that the memory may be written.
        unsafe impl<$($generic)*> IoBufMut for $type {
            fn stable_mut_ptr(&mut self) -> *mut u8 {
                self.as_mut_ptr()
            }

            fn bytes_total(&self) -> usize {
                self.len()
            }

            unsafe fn set_init(&mut self, _count: usize) {}
        }
    )+};
}

owned_initialised!([] Box<[u8]>, [const N: usize] Box<[u8; N]>, [] AlignedBuf);

/// Buffers that can only be written from: shared or constant memory.
macro_rules! readable_only {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: the memory is constant for as long as the value lives, and is not part of the value itself.
        unsafe impl IoBuf for $type {
            fn stable_ptr(&self) -> *const u8 {
                self.as_ptr()
            }

            fn bytes_init(&self) -> usize {
                self.len()
            }
        }
    )+};
}

readable_only!(&'static [u8], &'static str, String, Arc<[u8]>, Arc<Vec<u8>>, Arc<str>);

/// A part of a buffer; made by [`IoBuf::slice`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::{IoBuf, Slice};
/// // Read the second half of a buffer, and no more.
/// let half: Slice<Vec<u8>> = vec![0; 10].slice(5..);
/// let (n, half) = file.read_at(half, 7).wait().into_result()?;
/// assert_eq!((n, &half[..]), (5, &b"world"[..]));
/// assert_eq!(half.into_inner(), b"\0\0\0\0\0world");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Slice<B> {
    inner: B,
    begin: usize,
    end: usize,
}

impl<B> Slice<B> {
    /// The whole buffer.
    ///
    /// # Examples
    /// A loop of one's own goes on where the last read has stopped, in the same buffer:
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// use polyaio::IoBuf;
    /// let (mut buffer, mut filled) = (vec![0; 12], 0);
    /// while filled < 12 {
    ///     let (n, rest) = file.read_at(buffer.slice(filled..), filled as u64).wait().into_result()?;
    ///     (buffer, filled) = (rest.into_inner(), filled + n);
    /// }
    /// assert_eq!(buffer, b"hello, world");
    /// # Ok(()) }
    /// ```
    pub fn into_inner(self) -> B {
        self.inner
    }

    /// The whole buffer, by reference.
    ///
    /// # Examples
    /// ```
    /// use polyaio::IoBuf;
    /// let part = String::from("hello").slice(1..3);
    /// assert_eq!((&part[..], part.as_inner().as_str()), (&b"el"[..], "hello"));
    /// ```
    pub fn as_inner(&self) -> &B {
        &self.inner
    }
}

impl<B: IoBuf> Deref for Slice<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.inner.as_slice()[self.begin..self.end.min(self.inner.bytes_init())]
    }
}

// SAFETY: a part of a stable range is stable; `begin` is within the initialised bytes (checked by `slice`, and a buffer's
// initialised bytes never shrink while the slice owns it).
unsafe impl<B: IoBuf> IoBuf for Slice<B> {
    fn stable_ptr(&self) -> *const u8 {
        // SAFETY: `begin` is at most the number of initialised bytes.
        unsafe { self.inner.stable_ptr().add(self.begin) }
    }

    fn bytes_init(&self) -> usize {
        self.end.min(self.inner.bytes_init()).saturating_sub(self.begin)
    }
}

// SAFETY: as above, up to the capacity.
unsafe impl<B: IoBufMut> IoBufMut for Slice<B> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: `begin` is at most the number of initialised bytes.
        unsafe { self.inner.stable_mut_ptr().add(self.begin) }
    }

    fn bytes_total(&self) -> usize {
        self.end.min(self.inner.bytes_total()) - self.begin
    }

    unsafe fn set_init(&mut self, count: usize) {
        // SAFETY: the bytes before `begin` are initialised already, so that `begin + count` are.
        unsafe { self.inner.set_init(self.begin + count) }
    }
}

/// A buffer on the heap whose address is a multiple of a power of two, as direct I/O wants it.
///
/// All of its bytes are initialised, and its length never changes.
///
/// # Examples
/// ```
/// let mut block = polyaio::AlignedBuf::zeroed(4096, 4096);
/// block[0] = 1;
/// assert_eq!(block.as_ptr() as usize % 4096, 0);
/// ```
pub struct AlignedBuf {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, as a `Box<[u8]>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer of `len` zeroes whose address is a multiple of `align` bytes.
    ///
    /// # Panics
    /// Panics if `align` is not a power of two, or if `len` rounded up to it is more than `isize::MAX`. Aborts, as `Vec`
    /// does, when there is no memory.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let buf = polyaio::AlignedBuf::zeroed(8192, 4096);
    /// assert_eq!((buf.len(), buf.as_ptr() as usize % 4096), (8192, 0));
    /// # Ok(()) }
    /// ```
    pub fn zeroed(len: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(len, align).unwrap_or_else(|_| {
            panic!("alignment {align} must be a power of two, and length {len} at most isize::MAX")
        });
        if len == 0 {
            // A well aligned address that is never read from.
            let start = NonNull::new(std::ptr::without_provenance_mut(align));
            return Self { start: start.expect("an alignment is never 0"), layout };
        }
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        Self { start: start.unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }

    /// A copy of `data` whose address is a multiple of `align` bytes.
    ///
    /// # Panics
    /// As [`zeroed`](Self::zeroed).
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let buf = polyaio::AlignedBuf::copy_from(b"hello", 512);
    /// assert_eq!(&buf[..], b"hello");
    /// # Ok(()) }
    /// ```
    pub fn copy_from(data: &[u8], align: usize) -> Self {
        let mut buffer = Self::zeroed(data.len(), align);
        buffer.copy_from_slice(data);
        buffer
    }

    /// What the address is a multiple of, in bytes.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use polyaio::AlignedBuf;
    /// let block = AlignedBuf::zeroed(8192, 4096);
    /// assert_eq!((block.alignment(), block.clone().alignment()), (4096, 4096), "what a `Vec` would forget");
    /// # Ok(()) }
    /// ```
    pub fn alignment(&self) -> usize {
        self.layout.align()
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: allocated by `zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialised, and `size` bytes long.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        Self::copy_from(self, self.alignment())
    }
}

impl PartialEq for AlignedBuf {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for AlignedBuf {}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len()).field("alignment", &self.alignment()).finish()
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn aligned_buffers_are_aligned_zeroed_and_comparable() {
        for align in [1, 8, 512, 4096, 1 << 21] {
            let buffer = AlignedBuf::zeroed(1000, align);
            assert_eq!(buffer.as_ptr() as usize % align, 0);
            assert!(buffer.iter().all(|byte| *byte == 0));
            assert_eq!(buffer.clone(), buffer);
        }
        assert!(AlignedBuf::zeroed(0, 4096).is_empty());
    }

    #[test]
    fn a_slice_reads_into_its_range_only() {
        let mut part = Vec::from([0u8; 10]).slice(2..5);
        assert_eq!((part.bytes_init(), part.bytes_total()), (3, 3));
        // SAFETY: three bytes may be written.
        unsafe {
            part.stable_mut_ptr().write_bytes(7, 3);
            part.set_init(3);
        }
        assert_eq!(part.into_inner(), [0, 0, 7, 7, 7, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_vector_grows_to_what_was_read_and_never_shrinks() {
        let mut empty = Vec::with_capacity(8);
        assert_eq!(empty.bytes_total(), empty.capacity());
        // SAFETY: written just before.
        unsafe {
            empty.stable_mut_ptr().write_bytes(1, 4);
            empty.set_init(4);
            empty.set_init(2);
        }
        assert_eq!(empty, [1, 1, 1, 1]);
    }

    #[test]
    #[should_panic(expected = "after the 2 initialised bytes")]
    fn a_slice_cannot_start_beyond_what_is_initialised() {
        let _ = Vec::from([1u8, 2]).slice(3..4);
    }
}
