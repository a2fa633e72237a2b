//! Operations that move no data between memory and file, and return more than success.

use std::io;
use std::sync::{Arc, OnceLock};

use super::{Operation, Shape, sealed};
use crate::completion::{Errno, Outcome};
use crate::error::Error;
use crate::file::File;
use crate::how::At;
use crate::metadata::{self, Advice};
use crate::opening::Opening;
use crate::request::{Extra, OpKind};

/// Asks for what is known of the file.
///
/// Made by [`File::metadata`](crate::File::metadata); the example of [`ops`](crate::ops) has it.
#[derive(Debug, Default)]
pub struct Metadata {
    pub(crate) answer: Arc<OnceLock<metadata::Metadata>>,
}

impl sealed::Sealed for Metadata {}
impl Operation for Metadata {
    type Output = io::Result<metadata::Metadata>;

    fn shape(&mut self) -> Shape {
        Shape::control(OpKind::Metadata, None)
    }

    fn extra(&self) -> Extra {
        Extra::Metadata(self.answer.clone())
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        // A backend that has said nothing offers what it does not have.
        result.and_then(|_| self.answer.get().copied().ok_or(Errno(libc::EOPNOTSUPP).into()))
    }
}

/// Tells what the program is going to do.
///
/// Made by [`File::advise`](crate::File::advise); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Advise {
    pub(crate) advice: Advice,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl sealed::Sealed for Advise {}
impl Operation for Advise {
    type Output = io::Result<()>;

    fn shape(&mut self) -> Shape {
        Shape { allocate: self.length, ..Shape::control(OpKind::Advise, Some(self.offset)) }
    }

    fn extra(&self) -> Extra {
        Extra::Advice(self.advice)
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        result.map(|_| ())
    }
}

/// Waits until something can be transferred.
///
/// Made by [`File::readable`](crate::File::readable) and [`File::writable`](crate::File::writable); the example of
/// [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Ready {
    /// `Read` or `Write`.
    pub(crate) direction: OpKind,
}

impl sealed::Sealed for Ready {}
impl Operation for Ready {
    type Output = io::Result<()>;

    fn shape(&mut self) -> Shape {
        Shape::transfer(self.direction, At::look(), 0, false)
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        result.map(|_| ())
    }
}

/// Opens a file.
///
/// Made by [`OpenOptions::open_async`](crate::OpenOptions::open_async); the example of [`ops`](crate::ops) has it.
#[derive(Debug)]
pub struct Open {
    pub(crate) opening: Arc<Opening>,
}

impl sealed::Sealed for Open {}
impl Operation for Open {
    type Output = Result<File, Error>;

    fn shape(&mut self) -> Shape {
        Shape::control(OpKind::Open, None)
    }

    fn extra(&self) -> Extra {
        Extra::Open(self.opening.clone())
    }

    fn at_once(&self) -> Option<Outcome> {
        self.opening.at_once()
    }

    fn finish(self, result: io::Result<u64>) -> Self::Output {
        self.opening.finish(result)
    }
}
