//! Opening a file: by the backend that has it for itself, or by `open(2)` and what is asked of the descriptor afterwards; and
//! opening as an operation, which does the latter on a worker.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::Serves;
use crate::completion::Outcome;
use crate::descriptor::OpenFile;
use crate::dispatch::Core;
use crate::error::Error;
use crate::events;
use crate::file::File;
use crate::open::OpenOptions;
use crate::router::facts::Facts;
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
        let opened = open(&self.core, &self.options, &self.path);
        *lock(&self.opened) = Some(opened);
        Ok(0)
    }

    /// Opens it where one asks, if it is a file of a backend's own that never blocks: the order of what happens there is the
    /// program's, and not that of a worker.
    pub(crate) fn at_once(&self) -> Option<Outcome> {
        let opened = open_own(&self.core, &self.options, &self.path, true)?;
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

/// Opens a file that a backend has for itself; `None`: it is nobody's. `at_once`: asks only until one could block.
fn open_own(
    core: &Arc<Core>,
    options: &OpenOptions,
    path: &Path,
    at_once: bool,
) -> Option<Result<Arc<OpenFile>, Error>> {
    // What contradicts itself is refused whoever would open it.
    let checked = core.check().and_then(|()| options.flags().map(|_| ())).and_then(|()| options.emulated());
    let emulated = match checked {
        Ok(emulated) => emulated,
        Err(error) => return Some(Err(error)),
    };
    for (index, lane) in core.lanes.iter().enumerate() {
        let Some(backend) = &lane.backend else { continue };
        let capabilities = backend.capabilities();
        if at_once && (capabilities.may_block || capabilities.serves != Serves::OwnFiles) {
            continue;
        }
        let opened = backend.open(path, options).map(|opened| {
            let file = opened.map_err(|source| Error::Open { path: path.to_owned(), source })?;
            let facts = Facts::of_virtual(file.alignment).opened_with(options).emulating(emulated);
            let file = OpenFile::new(core.clone(), file.handle(), facts, Some(index as u8));
            events::file_opened(&file, Some(path));
            Ok(file)
        });
        if opened.is_some() {
            return opened;
        }
    }
    None
}

/// Opens a file. May block as `open(2)` may.
pub(crate) fn open(core: &Arc<Core>, options: &OpenOptions, path: &Path) -> Result<Arc<OpenFile>, Error> {
    if let Some(opened) = open_own(core, options, path, false) {
        return opened;
    }
    let emulated = options.emulated()?;
    let (fd, refused) = options.open_descriptor(path, core.settings.strict)?;
    let file = OpenFile::adopt(core.clone(), fd, refused, emulated)?;
    events::file_opened(&file, Some(path));
    Ok(file)
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("path", &self.path).finish_non_exhaustive()
    }
}
