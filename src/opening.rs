//! Opening a file as an operation: `open(2)`, and what is asked of the descriptor afterwards, run on a worker.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::completion::Outcome;
use crate::descriptor::OpenFile;
use crate::dispatch::Core;
use crate::error::Error;
use crate::file::File;
use crate::open::OpenOptions;
use crate::sync::{Mutex, lock};

/// An open under way: known to the operation and to the request. The file that nobody takes is closed with it.
pub struct Opening {
    core: Arc<Core>,
    options: OpenOptions,
    path: PathBuf,
    opened: Mutex<Option<Result<Arc<OpenFile>, Error>>>,
}

impl Opening {
    pub(crate) fn new(core: Arc<Core>, options: OpenOptions, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { core, options, path, opened: Mutex::new(None) })
    }

    /// Opens. May block as `open(2)` may. What it comes to is kept here.
    pub(crate) fn run(&self) -> Outcome {
        let opened = crate::engine::open(&self.core, &self.options, &self.path);
        *lock(&self.opened) = Some(opened);
        Ok(0)
    }

    /// Opens it where one asks, if it is a file of a backend's own that never blocks: the order of what happens there is the
    /// program's, and not that of a worker.
    pub(crate) fn at_once(&self) -> Option<Outcome> {
        let opened = crate::engine::open_own(&self.core, &self.options, &self.path, true)?;
        *lock(&self.opened) = Some(opened);
        Some(Ok(0))
    }

    /// The file, or why there is none.
    pub(crate) fn finish(&self, result: io::Result<u64>) -> Result<File, Error> {
        let opened = lock(&self.opened).take();
        match (result, opened) {
            (Ok(_), Some(opened)) => opened.map(File::new),
            (Ok(_), None) => Err(self.failed(io::ErrorKind::Unsupported.into())),
            (Err(error), _) => Err(self.failed(error)),
        }
    }

    /// The engine's own errors stay what they are.
    fn failed(&self, source: io::Error) -> Error {
        source.downcast::<Error>().unwrap_or_else(|source| Error::Open { path: self.path.clone(), source })
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("path", &self.path).finish_non_exhaustive()
    }
}
