//! The file that is measured: made where it is missing, recognised when it is met again, and otherwise only read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;

use polyaio::AlignedBuf;

use crate::arguments::Args;
use crate::patterns::Pattern;
use crate::sizes::memory_limit;
use crate::text::Failure;

/// Every sector that is ever written begins with it: so the first bytes of a file tell whose it is, on any file system and on
/// devices.
const MARK: &[u8] = b"polyaio iobench: scratch data, may be overwritten\n";

/// Alignment of buffers: that of any device.
const ALIGNMENT: usize = 4096;
/// Blocks are multiples of it.
const SECTOR: usize = 512;
/// The file is made in pieces of this size.
const PIECE: usize = 1 << 20;

/// What is written, and read into. Not zeros, which a device might not store at all.
pub(crate) fn buffer(len: usize) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(len, ALIGNMENT);
    fill(&mut buffer, 1);
    buffer
}

fn fill(buffer: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for bytes in buffer.chunks_mut(size_of::<u64>()) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.copy_from_slice(&state.to_le_bytes()[..bytes.len()]);
    }
    // Of every sector, because a block that was read may be written anywhere.
    for sector in buffer.chunks_exact_mut(SECTOR) {
        sector[..MARK.len()].copy_from_slice(MARK);
    }
}

/// Makes the file ready. Returns how many bytes of it are used.
pub(crate) fn prepare(args: &Args, interrupted: &dyn Fn() -> bool) -> Result<u64, Failure> {
    let path = &args.file;
    let failed = |what: &str, error: &io::Error| Failure::of(format_args!("cannot {what} {}", path.display()), error);
    let size = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(args, interrupted)?,
        Err(error) => return Err(failed("use", &error)),
        Ok(facts) if facts.file_type().is_block_device() && args.pattern == Pattern::Extend => {
            return Err(usage(format!("{} is a device, and cannot be extended: name a file", path.display())));
        }
        Ok(facts) if facts.is_file() || facts.file_type().is_block_device() => {
            let mut file = File::open(path).map_err(|error| failed("open", &error))?;
            let len = file.seek(SeekFrom::End(0)).map_err(|error| failed("use", &error))?;
            reuse(args, &file, len, facts.is_file(), interrupted)?
        }
        Ok(_) => return Err(usage(format!("{} is neither a file nor a block device", path.display()))),
    };
    if args.pattern != Pattern::Extend && !args.direct && size <= memory_limit() {
        // Cold pages are another benchmark: the first engine would be the one that reads them.
        warm(path, size, interrupted).map_err(|error| failed("read", &error))?;
    }
    Ok(size)
}

/// Empties the file: the pattern `extend` begins with nothing, in every round.
pub(crate) fn empty(path: &Path) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    opened.map(drop).map_err(|error| Failure::of(format_args!("cannot empty {}", path.display()), &error))
}

fn usage(line: String) -> Failure {
    Failure { usage: true, ..Failure::new(line) }
}

/// A new file.
fn create(args: &Args, interrupted: &dyn Fn() -> bool) -> Result<u64, Failure> {
    let failed = |error: &io::Error| Failure::of(format_args!("cannot make {}", args.file.display()), error);
    let file = OpenOptions::new().write(true).create_new(true).open(&args.file).map_err(|error| failed(&error))?;
    if args.pattern == Pattern::Extend {
        return Ok(args.size);
    }
    write_pieces(&file, args.size, interrupted).map_err(|error| {
        // Half a file is of no use to anybody.
        let _ = std::fs::remove_file(&args.file);
        failed(&error)
    })?;
    Ok(args.size)
}

/// One that is there, and has `len` bytes.
fn reuse(args: &Args, file: &File, len: u64, regular: bool, interrupted: &dyn Fn() -> bool) -> Result<u64, Failure> {
    let path = &args.file;
    let failed = |error: &io::Error| Failure::of(format_args!("cannot use {}", path.display()), error);
    let ours = is_marked(file, 0).map_err(|error| failed(&error))?;
    if args.pattern.writes() && !ours && !args.force {
        let line = format!(
            "{} was not made by iobench, and --pattern {} would overwrite it: --force does so, if you mean that",
            path.display(),
            args.pattern.name()
        );
        return Err(Failure::new(line));
    }
    if args.pattern == Pattern::Extend {
        return Ok(args.size);
    }
    let size = if regular && (ours || args.pattern.writes()) { args.size } else { args.size.min(len) };
    if size < args.block_size as u64 {
        let advice = if regular { "name a larger one" } else { "give it one, for zram by /sys/block/zram0/disksize" };
        let line = format!("{} has {len} bytes, less than one block of {}: {advice}", path.display(), args.block_size);
        return Err(usage(line));
    }
    // The last sector was written last.
    let last = (size - SECTOR as u64) / SECTOR as u64 * SECTOR as u64;
    let whole = size <= len && ours && is_marked(file, last).map_err(|error| failed(&error))?;
    if !whole && (ours || args.pattern.writes()) {
        let writable = OpenOptions::new().write(true).open(path).map_err(|error| failed(&error))?;
        write_pieces(&writable, size, interrupted).map_err(|error| failed(&error))?;
    }
    Ok(size)
}

/// Whether what lies at `offset` was written by iobench.
fn is_marked(file: &File, offset: u64) -> io::Result<bool> {
    let mut mark = [0; MARK.len()];
    match file.read_exact_at(&mut mark, offset) {
        Ok(()) => Ok(mark == *MARK),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_pieces(file: &File, size: u64, interrupted: &dyn Fn() -> bool) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    for (number, offset) in (0..size).step_by(PIECE).enumerate() {
        if interrupted() {
            return Err(io::Error::other("interrupted"));
        }
        fill(&mut piece, number as u64 + 2);
        let len = (size - offset).min(PIECE as u64) as usize;
        file.write_all_at(&piece[..len], offset)?;
    }
    // What is dirty in the page cache would be written during the measurement.
    file.sync_all()
}

/// Brings it into the page cache.
fn warm(path: &Path, size: u64, interrupted: &dyn Fn() -> bool) -> io::Result<()> {
    let (mut file, mut piece, mut left) = (File::open(path)?, vec![0; PIECE], size);
    while left > 0 && !interrupted() {
        match file.read(&mut piece)? {
            0 => break,
            n => left = left.saturating_sub(n as u64),
        }
    }
    Ok(())
}
