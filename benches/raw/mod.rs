//! What the benches have in common; `aio.rs` is their baseline, kernel AIO by hand.

// Each bench uses a part of it.
#![allow(dead_code, unused_imports)]

use std::fs::File;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use aio::{Event, Iocb, PREAD, PWRITE, RawContext};

mod aio;

pub(crate) const BLOCK: usize = 4096;
/// Bytes of the file, where a bench makes it.
const FILE: usize = 256 << 20;

/// CPU time of this thread.
pub(crate) fn cpu_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the call fills the structure.
    let time = unsafe {
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()), 0);
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Random blocks of the file; a sequence of its own for each seed.
pub(crate) struct Blocks {
    state: u64,
    count: u64,
}

impl Blocks {
    /// Of a file of `count` blocks.
    pub(crate) fn new(seed: usize, count: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64), count }
    }

    pub(crate) fn next_offset(&mut self) -> u64 {
        // xorshift64.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % self.count) * BLOCK as u64
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What is read, and the file that has to stay open meanwhile.
pub(crate) fn file_to_read() -> std::io::Result<(Option<File>, PathBuf)> {
    match std::env::var_os("POLYAIO_BENCH_FILE") {
        Some(path) => Ok((None, PathBuf::from(path))),
        None => make_file().map(|(file, path)| (Some(file), path)),
    }
}

/// A file without a name, and the path that it can be opened by as long as it is open.
fn make_file() -> std::io::Result<(File, PathBuf)> {
    let dir = std::env::var_os("POLYAIO_BENCH_DIR").unwrap_or(env!("CARGO_TARGET_TMPDIR").into());
    let mut file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(dir)?;
    let chunk: Vec<u8> = (0..1 << 20).map(|i: u32| (i / BLOCK as u32) as u8).collect();
    for _ in 0..FILE / chunk.len() {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    Ok((file, path))
}
