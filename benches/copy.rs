//! The example `aiocp` against what one would copy with otherwise: `cp` followed by `sync` of the copy, and `dd` with direct
//! I/O. Each copies a file that is not in the page cache, until the copy is on the disk.
//!
//! `cargo build --release --example aiocp && cargo bench --bench copy` prints the seconds of each, and how many times as
//! fast `aiocp` is: medians of rounds in which all take turns. The file is made in `POLYAIO_BENCH_DIR`, or in Cargo's target
//! directory, and has `POLYAIO_BENCH_MIB` MiB (2048).

use std::error::Error;
use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use raw::median;

#[path = "raw/mod.rs"]
mod raw;

const ROUNDS: usize = 5;
const MIB: usize = 1 << 20;

/// One way to copy.
struct Way {
    name: &'static str,
    /// One after the other; `SOURCE` and `COPY` stand for the files.
    commands: Vec<Vec<String>>,
}

fn ways(aiocp: &Path) -> Vec<Way> {
    let way = |name, commands: &[&str]| Way {
        name,
        commands: commands.iter().map(|command| command.split(' ').map(str::to_owned).collect()).collect(),
    };
    let mut all = vec![
        way("aiocp --direct --sync", &["AIOCP --direct --sync SOURCE COPY"]),
        way("cp; sync", &["cp SOURCE COPY", "sync COPY"]),
        way("dd, direct", &["dd if=SOURCE of=COPY bs=1M iflag=direct oflag=direct conv=fsync status=none"]),
    ];
    all[0].commands[0][0] = aiocp.display().to_string();
    all
}

/// Makes a file that no file system can make smaller.
fn make(path: &Path, mib: usize) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(path)?;
    let (mut block, mut state) = (vec![0_u64; MIB / 8], 1_u64);
    for done in 0..mib {
        for word in &mut block {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state;
        }
        let bytes: Vec<u8> = block.iter().flat_map(|word| word.to_ne_bytes()).collect();
        file.write_all(&bytes)?;
        if done % 256 == 0 && std::io::stderr().is_terminal() {
            eprint!("\rmaking {}: {done} of {mib} MiB", path.display());
        }
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    file.sync_all()?;
    Ok(())
}

/// Takes a file out of the page cache.
fn evict(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the call takes no pointer.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(errno)),
    }
}

/// Seconds.
fn copy(way: &Way, source: &Path, copy: &Path) -> Result<f64, Box<dyn Error>> {
    let _ = fs::remove_file(copy);
    evict(source)?;
    let path = |path: &Path| path.display().to_string();
    let start = Instant::now();
    for command in &way.commands {
        let words: Vec<_> =
            command.iter().map(|word| word.replace("SOURCE", &path(source)).replace("COPY", &path(copy))).collect();
        let status = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.map_err(|error| format!("{}: {error}", words[0]))?;
        if !status.success() {
            return Err(format!("{}: {status}", words.join(" ")).into());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if fs::metadata(copy)?.len() == fs::metadata(source)?.len() {
        Ok(seconds)
    } else {
        Err(format!("{}: the copy has another length", way.name).into())
    }
}

/// Removes the files, also after an error.
struct Files([PathBuf; 2]);

impl Drop for Files {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| _ = fs::remove_file(path));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo puts benches beside the directory of the examples.
    let aiocp = std::env::current_exe()?.ancestors().nth(2).map(|release| release.join("examples/aiocp"));
    let aiocp = aiocp.filter(|path| path.is_file()).ok_or("first: cargo build --release --example aiocp")?;
    let dir = std::env::var_os("POLYAIO_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let mib = std::env::var("POLYAIO_BENCH_MIB").ok().map_or(Ok(2048), |text| text.parse());
    let mib: usize = mib.map_err(|error| format!("POLYAIO_BENCH_MIB: {error}"))?;
    let files = Files(["source", "copy"].map(|name| dir.join(format!("polyaio-copy-{name}-{}", std::process::id()))));
    make(&files.0[0], mib)?;
    let ways = ways(&aiocp);
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(ways.iter().map(|way| copy(way, &files.0[0], &files.0[1])).collect::<Result<_, _>>()?);
    }
    println!(
        "{mib} MiB in {}\n{:<24} {:>8} {:>8} {:>22}",
        dir.display(),
        "",
        "seconds",
        "MiB/s",
        "aiocp is times as fast"
    );
    for (at, way) in ways.iter().enumerate() {
        let seconds = median(rounds.iter().map(|round| round[at]).collect());
        let ratio = median(rounds.iter().map(|round| round[at] / round[0]).collect());
        println!("{:<24} {seconds:>8.2} {:>8.0} {ratio:>22.2}", way.name, mib as f64 / seconds);
    }
    Ok(())
}
