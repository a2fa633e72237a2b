//! The memory of a transfer: ranges of it, in order, as the system calls take them.

#![allow(unsafe_code)]

/// A range of memory; laid out as `struct iovec`.
///
/// # Examples
/// Written out for those who implement [`IoVecBuf`](crate::IoVecBuf), or pass a request's memory on to `preadv(2)`:
/// ```
/// use polyaio::{IoVec, IoVecBuf};
/// let parts = vec![b"ab".to_vec(), Vec::new(), b"cde".to_vec()];
/// let ranges: Vec<IoVec> = parts.ranges().collect();
/// assert_eq!(ranges[2].len, 3);
/// assert_eq!(ranges[2].base.cast_const(), parts[2].as_ptr());
/// assert_eq!(size_of::<IoVec>(), size_of::<libc::iovec>());
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct IoVec {
    /// First byte.
    pub base: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

impl IoVec {
    const EMPTY: Self = Self { base: std::ptr::null_mut(), len: 0 };
}

/// How many iovecs lie in the slot itself.
pub(crate) const INLINE_IOVECS: usize = 8;

/// How many ranges one system call takes: `IOV_MAX` of Linux, the BSDs and macOS.
pub(crate) const MOST_IOVECS: usize = 1024;

/// The ranges of memory of a transfer, in order: few in place, more of them in one allocation.
pub struct Ranges {
    pub(crate) iovecs: [IoVec; INLINE_IOVECS],
    /// All of them, once they are too many for `iovecs`; else empty.
    more: Vec<IoVec>,
    /// Those before it are served.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { iovecs: [IoVec::EMPTY; INLINE_IOVECS], more: Vec::new(), first: 0, count: 0 }
    }
}

impl Ranges {
    /// Adds a range at the end; an empty one is nothing.
    #[inline]
    pub(crate) fn push(&mut self, range: IoVec) {
        if range.len == 0 {
            return;
        }
        if self.count < INLINE_IOVECS {
            self.iovecs[self.count] = range;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.iovecs);
            }
            self.more.push(range);
        }
        self.count += 1;
    }

    /// Adds several.
    pub(crate) fn extend(&mut self, ranges: impl Iterator<Item = IoVec>) {
        let expected = self.count + ranges.size_hint().0;
        if expected > INLINE_IOVECS && self.more.is_empty() {
            self.more.reserve(expected);
        }
        ranges.for_each(|range| self.push(range));
    }

    /// Forgets all of them, and keeps the allocation for others.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.more.clear();
        (self.first, self.count) = (0, 0);
    }

    /// Forgets all of them, with their allocation.
    #[inline]
    pub(crate) fn release(&mut self) {
        (self.first, self.count) = (0, 0);
        if self.more.capacity() > 0 {
            self.more = Vec::new();
        }
    }

    /// Has a range end after so many bytes; returns how many ranges come before that. There are more bytes.
    #[cfg(feature = "simulated")]
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "for FaultInjecting"))]
    pub(crate) fn split(&mut self, bytes: u64) -> usize {
        let all = self.left().to_vec();
        let (mut before, mut at) = (0, 0);
        while at + (all[before].len as u64) <= bytes {
            at += all[before].len as u64;
            before += 1;
        }
        let within = (bytes - at) as usize;
        self.clear();
        all[..before].iter().for_each(|range| self.push(*range));
        let IoVec { base, len } = all[before];
        self.push(IoVec { base, len: within });
        // SAFETY: `within` is less than the length of the range.
        self.push(IoVec { base: unsafe { base.add(within) }, len: len - within });
        all[before + 1..].iter().for_each(|range| self.push(*range));
        before + usize::from(within > 0)
    }

    /// What is left to transfer.
    #[inline]
    pub(crate) fn left(&self) -> &[IoVec] {
        let all: &[IoVec] = if self.more.is_empty() { &self.iovecs } else { &self.more };
        &all[self.first..self.count]
    }

    /// Bytes left to transfer.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.left().iter().map(|range| range.len as u64).sum()
    }

    /// Moves on by `n` bytes, which have been transferred: at most what is left.
    #[inline]
    pub(crate) fn advance(&mut self, n: u64) {
        let all: &mut [IoVec] = if self.more.is_empty() { &mut self.iovecs } else { &mut self.more };
        let mut left = n as usize;
        while left > 0 && self.first < self.count {
            let range = &mut all[self.first];
            let step = left.min(range.len);
            // SAFETY: `step` stays within the range that the iovec describes.
            range.base = unsafe { range.base.add(step) };
            range.len -= step;
            left -= step;
            if range.len == 0 {
                self.first += 1;
            }
        }
    }
}
