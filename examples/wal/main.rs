//! `wal`: a write-ahead log with checksums, which is told the truth about storage before it meets any.
//!
//! ```text
//! cargo run --release --features simulated --example wal -- append accounts.log "alice pays bob 5" "bob pays carol 3"
//! wal show accounts.log
//! wal torture --seeds 10000
//! wal torture --without-sync
//! ```
//!
//! `append` and `show` work on real files. `torture` runs the same log on a simulated disk, once per seed, through power
//! failures, failing writes and syncs, torn sectors and bit rot, and sees whether it keeps its promises. Without its sync it
//! does not: that takes a few seeds to find, and the line that is printed then shows it again.
//!
//! | file | what |
//! |---|---|
//! | `log.rs` | the log: append, commit, recover; ordinary API of the crate, any file |
//! | `record.rs` | its format: records in memory, without I/O |
//! | `torture.rs` | one seed: what is done to the log, and what it has promised |
//! | `campaign.rs`, `interrupt.rs` | many seeds, a progress bar, Ctrl-C |
//!
//! Exit codes: 0; 1 when something failed, the log is damaged, a promise was broken, or a signal came; 2 for wrong usage.

mod campaign;
mod interrupt;
mod log;
#[path = "../common/output.rs"]
mod output;
mod record;
#[path = "../common/selection.rs"]
mod selection;
#[path = "../common/text.rs"]
mod text;
mod torture;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use polyaio::{Direct, OpenOptions};

use crate::campaign::Campaign;
use crate::log::{Log, LogError};
use crate::selection::Selection;
use crate::text::{Failure, say};

/// A write-ahead log with checksums, and its trial on a disk that misbehaves.
#[derive(Parser)]
#[command(name = "wal", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Commit texts to a log, one record each; the log is made where there is none
    Append {
        #[command(flatten)]
        access: Access,

        /// The log
        file: PathBuf,

        /// The records
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Print the records of a log, and what is wrong with it; nothing is changed
    Show {
        #[command(flatten)]
        access: Access,

        /// The log
        file: PathBuf,
    },
    /// Run the log on a simulated disk with faults and power failures
    Torture(Campaign),
}

/// How the log is opened.
#[derive(clap::Args)]
struct Access {
    #[command(flatten)]
    selection: Selection,

    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    direct: bool,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Append { access, file, text } => append(&access, &file, &text),
        Command::Show { access, file } => show(&access, &file),
        Command::Torture(campaign) => campaign.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("wal: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn append(access: &Access, path: &Path, texts: &[String]) -> Result<(), Failure> {
    let engine = selection::start(access.selection.builder())?;
    let file = access.options().write(true).create(true).open(&engine, path).map_err(Failure::of_library)?;
    let (mut log, _) = engine.block_on(Log::open(file, None)).map_err(|error| failure(path, error))?;
    // A new name is durable once its directory is.
    sync_directory(path)
        .map_err(|error| Failure::of(format_args!("cannot sync {}'s directory", path.display()), &error))?;
    for text in texts {
        log.append(text.as_bytes()).map_err(|error| failure(path, error))?;
    }
    let last = engine.block_on(log.commit()).map_err(|error| failure(path, error))?;
    let first = last + 1 - texts.len() as u64;
    engine
        .block_on(log.close())
        .map_err(|error| Failure::of(format_args!("cannot close {}", path.display()), &error))?;
    output::print(format_args!("committed {first} to {last}"))
}

fn show(access: &Access, path: &Path) -> Result<(), Failure> {
    let engine = selection::start(access.selection.builder())?;
    let file = access.options().open(&engine, path).map_err(Failure::of_library)?;
    let (scan, tail) = engine.block_on(log::peek(&file)).map_err(|error| failure(path, error))?;
    for record in &scan.records {
        output::print(format_args!("{} {}", record.sequence, printable(&record.payload)))?;
    }
    log::check(&scan).map_err(|error| failure(path, error))?;
    if tail > 0 {
        say(format_args!("{tail} bytes behind the last record are no record: a commit that was torn, or damaged"));
    }
    Ok(())
}

/// As text, on one line.
fn printable(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    let printable = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(printable).collect()
}

impl Access {
    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).direct(match (self.direct, self.selection.strict()) {
            (false, _) => Direct::Off,
            (true, false) => Direct::Preferred,
            (true, true) => Direct::Required,
        });
        options
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory)?.sync_all()
}

fn failure(path: &Path, error: LogError) -> Failure {
    match error {
        LogError::Io { doing, source } => Failure::of(format_args!("cannot {doing} {}", path.display()), &source),
        other => Failure::new(format!("{}: {other}", path.display())),
    }
}
