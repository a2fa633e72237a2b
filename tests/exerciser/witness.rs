//! Somebody else who looks at the file: by plain system calls, on a descriptor of its own.

use std::fs::File;
use std::ops::Range;
#[cfg(unix)]
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
#[cfg(windows)]
use std::os::windows::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use polyaio::AlignedBuf;

use crate::outside::Outside;

pub(crate) enum Witness {
    /// Of a file of the operating system.
    Descriptor(File),
    #[cfg(feature = "simulated")]
    Disk(polyaio::backends::simulated::SimulatedDisk, std::path::PathBuf),
}

/// Past the page cache.
#[cfg(unix)]
const DIRECT: i32 = libc::O_DIRECT;
/// FILE_FLAG_NO_BUFFERING of winbase.h.
#[cfg(windows)]
const DIRECT: u32 = 0x2000_0000;

const BLOCK: u64 = 4096;

impl Witness {
    /// `direct`: past the page cache, as the file that it looks at. Otherwise the two were not coherent while requests are
    /// in flight.
    pub(crate) fn new(outside: &Outside, path: &Path, direct: bool) -> Result<Self, String> {
        match outside {
            Outside::System => {
                let flags = if direct { DIRECT } else { 0 };
                let file = File::options().read(true).custom_flags(flags).open(path);
                file.map(Self::Descriptor).map_err(|error| format!("{}: {error}", path.display()))
            }
            #[cfg(feature = "simulated")]
            Outside::Disk(disk) => Ok(Self::Disk(disk.clone(), path.to_owned())),
        }
    }

    /// What is in the range, as far as the file reaches.
    pub(crate) fn read(&self, range: &Range<u64>) -> Vec<u8> {
        match self {
            Self::Descriptor(file) => read(file, range),
            #[cfg(feature = "simulated")]
            Self::Disk(disk, path) => {
                let bytes = disk.read(path).expect("it is there");
                let at = |offset: u64| (offset as usize).min(bytes.len());
                bytes[at(range.start)..at(range.end)].to_vec()
            }
        }
    }
}

fn read(file: &File, range: &Range<u64>) -> Vec<u8> {
    let from = range.start - range.start % BLOCK;
    let mut buffer = AlignedBuf::zeroed((range.end.next_multiple_of(BLOCK) - from) as usize, BLOCK as usize);
    let mut filled = 0;
    while filled < buffer.len() {
        #[cfg(unix)]
        let read = file.read_at(&mut buffer[filled..], from + filled as u64);
        #[cfg(windows)]
        let read = file.seek_read(&mut buffer[filled..], from + filled as u64);
        let n = read.expect("a file can be read");
        filled += n;
        // The end of the file lies within a block; a read that goes on there would be misaligned.
        if n == 0 || filled % BLOCK as usize != 0 {
            break;
        }
    }
    let begin = ((range.start - from) as usize).min(filled);
    buffer[begin..filled.min((range.end - from) as usize).max(begin)].to_vec()
}
