//! Several buffers for one transfer: what [`readv(2)`](https://man7.org/linux/man-pages/man2/readv.2.html) calls a vector.

use super::{IoBuf, IoBufMut};
use crate::memory::IoVec;

/// Several buffers that can be written from, one after the other.
///
/// Implemented for vectors, arrays and boxed slices of [`IoBuf`]s. Any number of buffers is fine; empty ones are left out.
///
/// # Safety
/// While the value lives, also when the value itself is moved, each range of [`ranges`](Self::ranges) stays at its place,
/// initialised, and is changed by nobody; and the ranges are the same at each call.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::IoVecBuf;
/// let record = [b"length=5;".to_vec(), b"HELLO".to_vec()]; // a header and a body
/// assert_eq!(record.ranges().map(|range| range.len).collect::<Vec<_>>(), [9, 5]);
/// file.write_all_vectored_at(record, 0).wait().0?;
/// assert_eq!(std::fs::read(&path)?, b"length=5;HELLO");
/// # Ok(()) }
/// ```
pub unsafe trait IoVecBuf: Send + 'static {
    /// The initialised bytes of each buffer, in order. They are only read from.
    fn ranges(&self) -> impl Iterator<Item = IoVec>;
}

/// Several buffers that can be read into, one after the other.
///
/// # Safety
/// As [`IoVecBuf`], and each range of [`ranges_mut`](Self::ranges_mut) stays at its place, may be written while the value
/// lives, and overlaps no other.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// use polyaio::IoVecBufMut;
/// let mut parts = [Vec::with_capacity(5), Vec::with_capacity(2), Vec::with_capacity(100)];
/// assert_eq!(parts.ranges_mut().count(), 3);
/// let (n, parts) = file.read_vectored_at(parts, 0).wait().into_result()?;
/// assert_eq!((n, &parts), (12, &[b"hello".to_vec(), b", ".to_vec(), b"world".to_vec()]));
/// # Ok(()) }
/// ```
pub unsafe trait IoVecBufMut: IoVecBuf {
    /// The bytes of each buffer that may be written, initialised or not, in order: a `Vec`'s capacity.
    fn ranges_mut(&mut self) -> impl Iterator<Item = IoVec>;

    /// Notes that the first `count` bytes, counted through the buffers in order, are initialised: so each of them is full
    /// before the next has anything. As [`IoBufMut::set_init`], it never shrinks a buffer.
    ///
    /// # Safety
    /// They are, and `count` is at most the sum of the ranges of [`ranges_mut`](Self::ranges_mut).
    ///
    /// # Examples
    /// ```
    /// use polyaio::IoVecBufMut;
    /// let mut parts = [Vec::with_capacity(2), Vec::with_capacity(4)];
    /// for range in parts.ranges_mut() {
    ///     // SAFETY: the range may be written.
    ///     unsafe { range.base.write_bytes(b'x', range.len) };
    /// }
    /// // SAFETY: all of them were written.
    /// unsafe { parts.set_init(3) };
    /// assert_eq!(parts, [b"xx".to_vec(), b"x".to_vec()]);
    /// ```
    unsafe fn set_init(&mut self, count: usize);
}

fn range<B: IoBuf>(buffer: &B) -> IoVec {
    // Only ever read from: requests of kind `Write` promise it.
    IoVec { base: buffer.stable_ptr().cast_mut(), len: buffer.bytes_init() }
}

fn range_mut<B: IoBufMut>(buffer: &mut B) -> IoVec {
    IoVec { base: buffer.stable_mut_ptr(), len: buffer.bytes_total() }
}

/// # Safety
/// As [`IoVecBufMut::set_init`].
unsafe fn set_init<B: IoBufMut>(buffers: &mut [B], count: usize) {
    let mut left = count;
    for buffer in buffers {
        let part = left.min(buffer.bytes_total());
        left -= part;
        if part > 0 {
            // SAFETY: the caller says that so many bytes are initialised; they are no more than fit.
            unsafe { buffer.set_init(part) }
        }
    }
}

macro_rules! vectors {
    ($([$($generic:tt)*] $type:ty),+ $(,)?) => {$(
        // SAFETY: each buffer's memory is in place by its own promise, also when the buffer itself is moved; nobody else can
        // get at the buffers.
        unsafe impl<B: IoBuf $($generic)*> IoVecBuf for $type {
            fn ranges(&self) -> impl Iterator<Item = IoVec> {
                self.iter().map(range)
            }
        }

        // SAFETY: as above; different buffers own different memory, for each may be written by its own promise.
        unsafe impl<B: IoBufMut $($generic)*> IoVecBufMut for $type {
            fn ranges_mut(&mut self) -> impl Iterator<Item = IoVec> {
                self.iter_mut().map(range_mut)
            }

            unsafe fn set_init(&mut self, count: usize) {
                // SAFETY: forwarded to the caller.
                unsafe { set_init(self, count) }
            }
        }
    )+};
}

vectors!([] Vec<B>, [] Box<[B]>, [, const N: usize] [B; N]);

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_fills_one_buffer_after_the_other() {
        let mut buffers = [Vec::with_capacity(4), Vec::new(), vec![9; 3], Vec::with_capacity(4)];
        let total: usize = buffers.ranges_mut().map(|range| range.len).sum();
        assert_eq!(total, buffers.iter().map(Vec::capacity).sum::<usize>());
        for range in buffers.ranges_mut().filter(|range| range.len > 0) {
            // SAFETY: the range may be written.
            unsafe { range.base.write_bytes(7, range.len) };
        }
        let first = buffers[0].capacity();
        // SAFETY: all of them were written.
        unsafe { IoVecBufMut::set_init(&mut buffers, first + 2) };
        assert_eq!(buffers[0], vec![7; first]);
        assert_eq!(
            (&buffers[2][..], buffers[3].len()),
            (&[7, 7, 7][..], 0),
            "three bytes before, and nothing in the last"
        );
        // SAFETY: as above.
        unsafe { IoVecBufMut::set_init(&mut buffers, first + 3 + 1) };
        assert_eq!(buffers[3], [7]);
    }
}
