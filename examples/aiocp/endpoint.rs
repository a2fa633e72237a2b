//! The two ends of a copy: opened, adopted or connected to, and what must be known of them.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyaio::{Alignment, Direct, Engine, File, FileKind, OpenOptions};

use crate::interrupt::Interrupt;
use crate::patience::open_patiently;
use crate::text::Failure;

/// What opening needs to know, the same for both ends.
pub(crate) struct Opening<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) interrupt: &'a Arc<Interrupt>,
    pub(crate) direct: bool,
    pub(crate) strict: bool,
}

/// One end of a copy.
pub(crate) struct Endpoint {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    /// Addressed by offset, with many requests in flight; else one after the other, in order.
    pub(crate) positioned: bool,
    /// Requests must start and end at multiples of this many bytes: 1 unless it is opened for direct I/O.
    pub(crate) unit: usize,
    /// What buffers must be aligned to, in bytes.
    pub(crate) memory_alignment: usize,
    /// Bytes, where positioned.
    pub(crate) len: u64,
    /// Not there before: its mode bits are to be the source's.
    pub(crate) created: bool,
}

impl Endpoint {
    fn new(opening: &Opening<'_>, path: &Path, file: File, metadata: Metadata) -> Result<Endpoint, Failure> {
        let facts = file.facts();
        let Alignment { memory: memory_alignment, offset } = file.alignment();
        // The larger one for both, so that a place in a buffer that is aligned in the file is so in memory.
        let unit = offset.max(memory_alignment);
        // `-` stands for a descriptor with a position, and perhaps O_APPEND, that whoever opened it relies on.
        let positioned = !is_standard(path) && matches!(facts.kind, FileKind::Regular | FileKind::Block);
        let len = if positioned { opening.engine.block_on(file.len()) } else { Ok(0) };
        let len = len.map_err(|error| Failure::of(format_args!("cannot size up {}", path.display()), &error))?;
        let path = path.to_path_buf();
        Ok(Endpoint { path, file, metadata, positioned, unit, memory_alignment, len, created: false })
    }

    /// A file whose length is ours to set.
    pub(crate) fn is_resizable(&self) -> bool {
        self.positioned && self.metadata.is_file()
    }

    /// What the last block of a direct copy is padded to, in bytes: whole blocks of the file system, where those of the
    /// copy are too. A file system takes less, but not asynchronously.
    pub(crate) fn padding(&self, block_size: usize) -> usize {
        const LARGEST: u64 = 64 * 1024;
        let block = self.metadata.blksize();
        // At most `LARGEST`, which fits a `usize` everywhere.
        let padding = if block <= LARGEST { self.unit.max(block as usize) } else { self.unit };
        let fits = padding.is_multiple_of(self.unit) && block_size.is_multiple_of(padding);
        if self.unit > 1 && self.is_resizable() && fits { padding } else { self.unit }
    }

    /// A block device.
    pub(crate) fn is_block(&self) -> bool {
        self.metadata.file_type().is_block_device()
    }

    /// Lives on a disk or in memory, not at somebody's other end.
    pub(crate) fn is_storage(&self) -> bool {
        self.is_block() || self.metadata.is_file()
    }

    /// For messages.
    pub(crate) fn name(&self, standard: &'static str) -> String {
        if is_standard(&self.path) { standard.to_string() } else { self.path.display().to_string() }
    }
}

/// `-`, standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Opens what is to be copied, for reading.
pub(crate) fn open_source(opening: &Opening<'_>, path: &Path) -> Result<Endpoint, Failure> {
    if is_standard(path) {
        return adopt_standard(opening, path, io::stdin().as_fd().try_clone_to_owned());
    }
    let metadata = fs::metadata(path).map_err(|error| cannot_open(path, &error))?;
    refuse_directory(path, &metadata)?;
    let file = match ways_to_open(&metadata) {
        Way::Storage => open(opening, OpenOptions::new().read(true).direct(direct(opening)), path)?,
        Way::Device => open(opening, OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY), path)?,
        Way::Peer => adopt(opening, path, open_peer(opening, path, &metadata, false)?)?,
    };
    let mut source = Endpoint::new(opening, path, file, metadata)?;
    // A length of 0 says nothing where data is made while it is read (/proc): read to the end, in order. Only there is
    // a position at odd places no harm, such files refuse direct I/O.
    if source.len == 0 && source.unit == 1 && !source.is_block() {
        source.positioned = false;
    }
    Ok(source)
}

/// Opens where it goes, for writing, without touching what it holds.
pub(crate) fn open_destination(opening: &Opening<'_>, path: &Path, source: &Endpoint) -> Result<Endpoint, Failure> {
    if is_standard(path) {
        let destination = adopt_standard(opening, path, io::stdout().as_fd().try_clone_to_owned())?;
        refuse_same(source, &destination.metadata, path)?;
        return Ok(destination);
    }
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return create(opening, path, source);
        }
        other => other.map_err(|error| cannot_open(path, &error))?,
    };
    refuse_directory(path, &metadata)?;
    refuse_same(source, &metadata, path)?;
    let mut options = OpenOptions::new();
    let file = match ways_to_open(&metadata) {
        // The end of what is written to a device may share its last sector with what stays: that is read first.
        Way::Storage => {
            let read = opening.direct && metadata.file_type().is_block_device();
            open(opening, options.read(read).write(true).direct(direct(opening)), path)?
        }
        Way::Device => open(opening, options.write(true).custom_flags(libc::O_NOCTTY), path)?,
        Way::Peer => adopt(opening, path, open_peer(opening, path, &metadata, true)?)?,
    };
    Endpoint::new(opening, path, file, metadata)
}

fn create(opening: &Opening<'_>, path: &Path, source: &Endpoint) -> Result<Endpoint, Failure> {
    // Writable for now, whatever the source is: a file system that refuses O_DIRECT has created the file by then, and
    // it is opened a second time.
    let mode = mode_of(source) | 0o200;
    let mut options = OpenOptions::new();
    let file = open(opening, options.write(true).create(true).mode(mode).direct(direct(opening)), path)?;
    let metadata = fs::metadata(path).map_err(|error| cannot_open(path, &error))?;
    let mut destination = Endpoint::new(opening, path, file, metadata)?;
    destination.created = true;
    Ok(destination)
}

/// Takes the write permission back that only the copy needed.
pub(crate) fn restore_mode(destination: &Endpoint, source: &Endpoint) -> io::Result<()> {
    if !destination.created || mode_of(source) & 0o200 != 0 {
        return Ok(());
    }
    let mode = destination.metadata.permissions().mode() & !0o200;
    fs::set_permissions(&destination.path, fs::Permissions::from_mode(mode))
}

/// The permissions of a new destination, before the umask: a file's own, without set-user-ID and the like.
fn mode_of(source: &Endpoint) -> u32 {
    let named_file = source.metadata.is_file() && !is_standard(&source.path);
    if named_file { source.metadata.permissions().mode() & 0o777 } else { 0o666 }
}

enum Way {
    /// By path, perhaps for direct I/O.
    Storage,
    /// By path.
    Device,
    /// Somebody must be at its other end, which may take a while.
    Peer,
}

fn ways_to_open(metadata: &Metadata) -> Way {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() || kind.is_block_device() => Way::Storage,
        () if kind.is_fifo() || kind.is_socket() => Way::Peer,
        () => Way::Device,
    }
}

fn direct(opening: &Opening<'_>) -> Direct {
    match (opening.direct, opening.strict) {
        (false, _) => Direct::Off,
        (true, false) => Direct::Preferred,
        (true, true) => Direct::Required,
    }
}

fn open(opening: &Opening<'_>, options: &OpenOptions, path: &Path) -> Result<File, Failure> {
    options.open(opening.engine, path).map_err(Failure::of_library)
}

fn open_peer(opening: &Opening<'_>, path: &Path, metadata: &Metadata, write: bool) -> Result<OwnedFd, Failure> {
    let socket = metadata.file_type().is_socket();
    let owned_path = path.to_path_buf();
    let opened = open_patiently(opening.engine, opening.interrupt, move || {
        if socket {
            return UnixStream::connect(owned_path).map(OwnedFd::from);
        }
        fs::OpenOptions::new().read(!write).write(write).open(owned_path).map(OwnedFd::from)
    })?;
    opened.map_err(|error| cannot_open(path, &error))
}

fn adopt_standard(opening: &Opening<'_>, path: &Path, copy: io::Result<OwnedFd>) -> Result<Endpoint, Failure> {
    let described = copy.and_then(|descriptor| {
        let file = fs::File::from(descriptor);
        Ok((file.metadata()?, OwnedFd::from(file)))
    });
    let (metadata, descriptor) = described.map_err(|error| cannot_open(path, &error))?;
    refuse_directory(path, &metadata)?;
    let file = adopt(opening, path, descriptor)?;
    Endpoint::new(opening, path, file, metadata)
}

fn adopt(opening: &Opening<'_>, path: &Path, descriptor: OwnedFd) -> Result<File, Failure> {
    opening.engine.adopt(descriptor).map_err(|error| Failure::new(format!("cannot use {}: {error}", path.display())))
}

fn cannot_open(path: &Path, error: &io::Error) -> Failure {
    Failure::of(format_args!("cannot open {}", path.display()), error)
}

fn refuse_directory(path: &Path, metadata: &Metadata) -> Result<(), Failure> {
    if !metadata.is_dir() {
        return Ok(());
    }
    Err(Failure::new(format!("{} is a directory: name the files in it", path.display())))
}

/// A copy onto itself would be empty, or never end. Two ends of one terminal or socket are nothing of the kind.
fn refuse_same(source: &Endpoint, destination: &Metadata, path: &Path) -> Result<(), Failure> {
    let (a, b) = (&source.metadata, destination);
    let same_inode = a.dev() == b.dev() && a.ino() == b.ino();
    let same_device = a.file_type().is_block_device() && b.file_type().is_block_device() && a.rdev() == b.rdev();
    let stream = a.file_type().is_char_device() || a.file_type().is_socket();
    if stream || !(same_inode || same_device) {
        return Ok(());
    }
    let source = source.name("standard input");
    let path = if is_standard(path) { "standard output".to_string() } else { path.display().to_string() };
    Err(Failure::new(format!("{source} and {path} are the same file: choose another destination")))
}
