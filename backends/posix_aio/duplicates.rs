//! The files that requests name, and the duplicates of their descriptors.
//!
//! glibc serves one request at a time of each descriptor, so that one file's requests are spread over several. (Others serve
//! them at the same time: there a file has its own descriptor only, with as many seats as are free.) Closing *any*
//! descriptor of a file drops the process's `fcntl` locks on it: so a duplicate, once made, stays until the descriptor
//! itself is about to be closed ([`Backend::forget`](crate::backend::Backend::forget)). Duplicates are made as they are
//! needed, one for each request that finds all others of its file busy.

#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;

use super::abi;
use crate::completion::Errno;
use crate::request::Request;

/// What is known of one file, by its descriptor.
pub(super) struct File {
    /// The descriptor itself, then its duplicates.
    lines: Vec<Line>,
    /// How many seats they have.
    pub(super) seated: usize,
    /// No duplicate is to be had any more.
    complete: bool,
    /// Requests that wait for room, oldest first.
    pub(super) waiting: VecDeque<Request>,
}

/// A descriptor, and where its requests are.
struct Line {
    fd: RawFd,
    seated: bool,
}

/// All files that requests came for and that were not forgotten.
pub(super) struct Files {
    known: HashMap<RawFd, File>,
    /// Duplicates of all files.
    duplicates: usize,
    /// So many at the most.
    most: usize,
    /// Descriptors of one file at the most, each with one seat. `None`: one, with any number of seats.
    spread: Option<usize>,
    /// Why there are fewer than would have been used.
    pub(super) refused: Option<Errno>,
}

impl Files {
    pub(super) fn new(most: usize, spread: Option<usize>) -> Self {
        Self { known: HashMap::new(), duplicates: 0, most, spread, refused: None }
    }

    /// The file of a descriptor that a request names.
    pub(super) fn of(&mut self, fd: RawFd) -> &mut File {
        self.known.entry(fd).or_insert_with(|| File {
            lines: vec![Line { fd, seated: false }],
            seated: 0,
            complete: false,
            waiting: VecDeque::new(),
        })
    }

    /// How many seats a file has.
    pub(super) fn seated(&self, fd: RawFd) -> usize {
        self.known.get(&fd).map_or(0, |file| file.seated)
    }

    /// A descriptor of the file for one more seat: one that has none, or a new duplicate. `None`: all that the file may have
    /// are busy.
    pub(super) fn seat(&mut self, fd: RawFd) -> Option<RawFd> {
        if self.spread.is_none() {
            self.of(fd).seated += 1;
            return Some(fd);
        }
        if self.known.get(&fd).is_none_or(|file| file.seated == file.lines.len()) {
            self.grow(fd)?;
        }
        let file = self.of(fd);
        let line = file.lines.iter_mut().find(|line| !line.seated)?;
        line.seated = true;
        file.seated += 1;
        Some(line.fd)
    }

    /// Makes one more descriptor of the file; at first that is its own.
    fn grow(&mut self, fd: RawFd) -> Option<()> {
        let (room, spread) = (self.duplicates < self.most, self.spread?);
        if !self.known.contains_key(&fd) {
            self.of(fd);
            return Some(());
        }
        let file = self.of(fd);
        if file.complete || file.lines.len() >= spread || !room {
            return None;
        }
        match abi::duplicate(fd) {
            Ok(duplicate) => {
                file.lines.push(Line { fd: duplicate, seated: false });
                self.duplicates += 1;
                Some(())
            }
            Err(errno) => {
                // Asking again with each request would cost more than it could bring.
                file.complete = true;
                self.refused = Some(errno);
                None
            }
        }
    }

    /// Notes that a descriptor of the file has a seat less.
    pub(super) fn unseat(&mut self, fd: RawFd, line: RawFd) {
        let shared = self.spread.is_none();
        let file = self.of(fd);
        if shared {
            file.seated -= 1;
            return;
        }
        if let Some(line) = file.lines.iter_mut().find(|known| known.fd == line && known.seated) {
            line.seated = false;
            file.seated -= 1;
        }
    }

    /// Forgets a file, unless requests of it are here: then its duplicates are in use, and stay.
    pub(super) fn forget(&mut self, fd: RawFd) -> Option<Duplicates> {
        if self.known.get(&fd).is_none_or(|file| file.seated > 0 || !file.waiting.is_empty()) {
            return None;
        }
        let file = self.known.remove(&fd)?;
        self.duplicates -= file.lines.len() - 1;
        Some(Duplicates(file.lines.into_iter().skip(1).map(|line| line.fd).collect()))
    }

    /// Forgets all files of which no request is here.
    pub(super) fn forget_all(&mut self) -> Vec<Duplicates> {
        let all: Vec<_> = self.known.keys().copied().collect();
        all.into_iter().filter_map(|fd| self.forget(fd)).collect()
    }

    /// How many duplicates there are.
    #[cfg(all(test, not(polyaio_loom)))]
    pub(super) fn duplicates(&self) -> usize {
        self.duplicates
    }
}

/// Duplicates of one file that nobody uses. Dropping closes them.
pub(super) struct Duplicates(Vec<RawFd>);

impl Duplicates {
    /// Whether this is one of them.
    pub(super) fn contains(&self, fd: RawFd) -> bool {
        self.0.contains(&fd)
    }
}

impl Drop for Duplicates {
    fn drop(&mut self) {
        for fd in self.0.drain(..) {
            // SAFETY: made by `duplicate`; no request of the file is here, and no list knows it any more.
            unsafe { abi::close(fd) };
        }
    }
}
