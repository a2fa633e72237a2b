//! `database`: a redb database on polyaio: fills it, checks it, opens it again and checks that, and shows who served.
//!
//! ```text
//! cargo run --release --bin database -- /tmp/example.redb
//! ```
//!
//! Exit codes: 0 when everything was found as it was written, 1 when something failed, 2 for wrong usage.

#[path = "../../../common/output.rs"]
mod output;
#[path = "../../../common/selection.rs"]
mod selection;
#[path = "../../../common/text.rs"]
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use polyaio::{Direct, Engine};
use polyaio_clients::storage::Storage;
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};

use crate::output::print;
use crate::selection::{Selection, Tally};
use crate::text::{Failure, say};

/// Fills a redb database whose file polyaio serves, checks it, opens it again, and shows who served the requests.
#[derive(Parser)]
#[command(name = "database", version)]
struct Args {
    /// The database's file, which must not be there yet
    path: PathBuf,

    /// Entries to write
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    entries: u64,

    /// Entries of one transaction, each of which is synced
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    transaction: u64,

    /// Bytes that redb keeps in memory; few, so that it has to read
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    cache: usize,

    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    direct: bool,

    /// Use, and check, a database that is there
    #[arg(long)]
    reuse: bool,

    #[command(flatten)]
    selection: Selection,
}

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("database: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    if !args.reuse && args.path.symlink_metadata().is_ok() {
        let path = args.path.display();
        return Err(Failure::new(format!(
            "{path} is there already: name another file, or --reuse it, if you mean that"
        )));
    }
    let engine = selection::start(args.selection.builder())?;
    let mut before = Tally::of(&engine);
    let mut phase = |what: &str| {
        let now = Tally::of(&engine);
        print(format_args!("{what}: {}", now.since(&before)))?;
        before = now;
        Ok::<_, Failure>(())
    };

    let (database, file) = open(args, &engine)?;
    print(file.route())?;
    fill(args, &database).map_err(failed("cannot fill it"))?;
    phase(&format!("filled with {} entries", args.entries))?;
    check(args, &database)?;
    phase("checked")?;
    drop(database);

    let (mut database, _) = open(args, &engine)?;
    check(args, &database)?;
    if !database.check_integrity().map_err(failed("cannot check its structure"))? {
        return Err(Failure::new("its structure was damaged: it was not closed well, or the device lost writes"));
    }
    phase("opened again and checked")
}

fn open(args: &Args, engine: &Engine) -> Result<(Database, polyaio::File), Failure> {
    let direct = if args.direct { Direct::Preferred } else { Direct::Off };
    let storage = Storage::open(engine, &args.path, direct).map_err(Failure::of_library)?;
    let file = storage.file();
    let database = redb::Builder::new().set_cache_size(args.cache).create_with_backend(storage);
    let what = format!("cannot open the database {}", args.path.display());
    Ok((database.map_err(|error| Failure::new(format!("{what}: {error}")))?, file))
}

fn fill(args: &Args, database: &Database) -> Result<(), redb::Error> {
    let mut key = 0;
    while key < args.entries {
        let writing = database.begin_write()?;
        {
            let mut table = writing.open_table(TABLE)?;
            for _ in 0..args.transaction.min(args.entries - key) {
                table.insert(key, &value(key)[..])?;
                key += 1;
            }
        }
        writing.commit()?;
    }
    Ok(())
}

/// In an order in which they do not lie in the file.
fn check(args: &Args, database: &Database) -> Result<(), Failure> {
    let found = |error: redb::Error| Failure::new(format!("cannot read it: {error}"));
    let reading = database.begin_read().map_err(|error| found(error.into()))?;
    let table = reading.open_table(TABLE).map_err(|error| found(error.into()))?;
    let len = table.len().map_err(|error| found(error.into()))?;
    if len != args.entries {
        return Err(Failure::new(format!("it has {len} entries, and {} were written", args.entries)));
    }
    // A prime larger than what anybody writes here: every key comes once.
    let mut key = 0;
    for _ in 0..args.entries {
        key = (key + 1_000_000_007) % args.entries;
        let entry = table.get(key).map_err(|error| found(error.into()))?;
        if entry.is_none_or(|entry| entry.value() != value(key)) {
            return Err(Failure::new(format!("entry {key} is not what was written")));
        }
    }
    Ok(())
}

/// Different for each key, in length too.
fn value(key: u64) -> Vec<u8> {
    let seed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let len = 50 + (seed >> 57) as usize;
    (0..len).map(|i| (seed >> (i % 8 * 8)) as u8 ^ i as u8).collect()
}

fn failed<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(format!("{what}: {error}"))
}
