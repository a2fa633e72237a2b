//! `tokio`: copies a file with `tokio::io::copy_buf`, through the adapters with tokio's traits, and shows who served it.
//!
//! ```text
//! cargo run --release --features tokio --example tokio -- --direct Cargo.lock /tmp/Cargo.lock.copy
//! ```
//!
//! With `--features tokio` the runtime's reactor collects completions. With `tokio-io` alone tokio knows nothing of the
//! engine, and the engine nothing of tokio: the runtime needs no reactor, and a thread of the engine's collects.
//! Exit codes: 0 when the copy is complete and on the disk, 1 when something failed, 2 for wrong usage.

#[path = "common/output.rs"]
mod output;
#[path = "common/selection.rs"]
mod selection;
#[path = "common/text.rs"]
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use polyaio::{Direct, Engine, File, FileKind, OpenOptions};
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, copy_buf};

use crate::selection::{Selection, Tally};
use crate::text::{Failure, say};

/// Copies a file with tokio's own copy loop, and shows who served the requests.
#[derive(Parser)]
#[command(name = "tokio", version)]
struct Args {
    /// The file to read
    source: PathBuf,

    /// The file to write
    destination: PathBuf,

    /// Blocks read ahead, and written behind
    #[arg(long, value_name = "N", default_value_t = 8)]
    depth: u16,

    /// Bytes of a block, at most 64 MiB; rounded up to what direct I/O asks for
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 16, value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    block: u32,

    #[command(flatten)]
    selection: Selection,

    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    direct: bool,

    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("tokio: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let engine = selection::start(args.selection.builder())?;
    let (source, destination) = open(args, &engine)?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    #[cfg(feature = "tokio")]
    runtime.enable_io();
    let runtime = runtime.build();
    let runtime = runtime.map_err(|error| Failure::of("cannot start tokio's runtime", &error))?;
    let (started, before) = (Instant::now(), Tally::of(&engine));
    let copied = runtime.block_on(copy(args, source.clone(), destination.clone()));
    let bytes = copied.map_err(|error| {
        let (from, to) = (args.source.display(), args.destination.display());
        Failure::of(format_args!("cannot copy {from} to {to}"), &error)
    })?;
    let (seconds, tally) = (started.elapsed().as_secs_f64(), Tally::of(&engine).since(&before));
    output::print(if args.json {
        json!({
            "bytes": bytes,
            "seconds": seconds,
            "source": { "direct": source.facts().direct, "route": source.route().to_string() },
            "destination": { "direct": destination.facts().direct, "route": destination.route().to_string() },
            "served_by": tally.served_by,
            "fallbacks": tally.fallbacks,
        })
        .to_string()
    } else {
        format!("{bytes} bytes in {seconds:.3} s\n{tally}")
    })
}

fn open(args: &Args, engine: &Engine) -> Result<(File, File), Failure> {
    let direct = if args.direct { Direct::Preferred } else { Direct::Off };
    let open = |options: &OpenOptions, path: &Path| options.open(engine, path).map_err(Failure::of_library);
    let source = open(OpenOptions::new().read(true).direct(direct), &args.source)?;
    let mut options = OpenOptions::new();
    options.write(true).direct(direct);
    match args.force {
        // Cut at its end only: what if it is the source?
        true => options.create(true),
        false => options.create_new(true),
    };
    let destination = open(&options, &args.destination).map_err(|failure| {
        let exists = !args.force && args.destination.symlink_metadata().is_ok();
        let advice = if exists { ": --force overwrites it, if you mean that" } else { "" };
        Failure::new(format!("{}{advice}", failure.line))
    })?;
    Ok((source, destination))
}

async fn copy(args: &Args, source: File, destination: File) -> io::Result<u64> {
    let adapt = |file: &File| file.clone().into_async().depth(usize::from(args.depth)).block_size(args.block as usize);
    // The buffered form: what was read ahead is copied once, to where it is written from.
    let (mut reader, mut writer) = (adapt(&source), adapt(&destination));
    let bytes = copy_buf(&mut reader, &mut writer).await?;
    // Waits for what is written behind, and reports its errors.
    writer.shutdown().await?;
    if !destination.is_stream() {
        if destination.facts().kind == FileKind::Regular {
            // It may have been longer before.
            destination.set_len(bytes).await?;
        }
        destination.sync_all().await?;
    }
    destination.close().await?;
    Ok(bytes)
}
