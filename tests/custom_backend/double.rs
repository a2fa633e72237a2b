use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyaio::backend::{Capabilities, Operation, Serves, SyncBackend, VirtualFile};
use polyaio::{Engine, EngineBuilder, File, OpKind, OpenOptions, Policy};

use crate::tools::lock;

type Execute = dyn Fn(&mut Operation<'_>) -> io::Result<u64> + Send + Sync;
type Close = dyn Fn(u64) -> io::Result<()> + Send + Sync;

/// Does what it is told; its files are the paths that begin with its name.
pub(crate) struct Double {
    name: &'static str,
    capabilities: Capabilities,
    execute: Box<Execute>,
    close: Box<Close>,
    opened: AtomicUsize,
    /// The numbers of the files that it was told to close.
    pub(crate) closed: Mutex<Vec<u64>>,
    /// What it was asked to do, in the order in which it began.
    pub(crate) begun: Mutex<Vec<(OpKind, Option<u64>)>>,
}

impl Double {
    /// Serves files of its own only.
    pub(crate) fn new(execute: impl Fn(&mut Operation<'_>) -> io::Result<u64> + Send + Sync + 'static) -> Arc<Self> {
        let mut capabilities = Capabilities::new(64);
        capabilities.serves = Serves::OwnFiles;
        Arc::new(Self::named("double", capabilities, execute))
    }

    pub(crate) fn named(
        name: &'static str,
        capabilities: Capabilities,
        execute: impl Fn(&mut Operation<'_>) -> io::Result<u64> + Send + Sync + 'static,
    ) -> Self {
        let (execute, close) = (Box::new(execute), Box::new(|_| Ok(())));
        let (opened, closed, begun) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Self { name, capabilities, execute, close, opened, closed, begun }
    }

    pub(crate) fn closing(mut self, close: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static) -> Self {
        self.close = Box::new(close);
        self
    }

    /// How many operations it was asked for.
    pub(crate) fn count(&self) -> usize {
        lock(&self.begun).len()
    }
}

impl SyncBackend for Double {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn open(&self, path: &Path, _options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        path.to_str()?.strip_prefix(self.name)?.strip_prefix(':')?;
        let number = self.opened.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        Some(Ok(VirtualFile { number, alignment: 1 }))
    }

    fn close(&self, number: u64) -> io::Result<()> {
        lock(&self.closed).push(number);
        (self.close)(number)
    }

    fn execute(&self, operation: &mut Operation<'_>) -> io::Result<u64> {
        lock(&self.begun).push((operation.kind(), operation.position()));
        (self.execute)(operation)
    }
}

/// An engine with so many threads for each backend. Who serves must not depend on how busy the machine is.
pub(crate) fn builder(threads: usize) -> EngineBuilder {
    Engine::builder().threads(threads).strict(false).slow_submit(Duration::MAX)
}

/// An engine with a double, and a file of the double's. No other backend is named, whatever the suite is run with.
pub(crate) fn on(double: &Arc<Double>, threads: usize) -> (Engine, File) {
    let engine = builder(threads).policy(Policy::Auto).sync_backend(double.clone()).build().expect("an engine");
    let file = open(&engine);
    (engine, file)
}

/// Opens a file of the double's for reading and writing.
pub(crate) fn open(engine: &Engine) -> File {
    OpenOptions::new().read(true).write(true).open(engine, "double:file").expect("always")
}

/// What a read at an offset has to bring: the offset, over and over.
pub(crate) fn expected(position: u64, length: usize) -> Vec<u8> {
    position.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// Fills the room of a read with that.
pub(crate) fn deliver(operation: &mut Operation<'_>) -> io::Result<u64> {
    let bytes = expected(operation.position().expect("an offset"), operation.length() as usize);
    Ok(operation.room().append(&bytes) as u64)
}
