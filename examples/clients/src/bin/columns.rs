//! `columns`: writes a small Parquet file and reads some of its columns, both through polyaio, and shows who served.
//!
//! ```text
//! cargo run --release --bin columns -- write /tmp/example.parquet
//! cargo run --release --bin columns -- read /tmp/example.parquet --column id --column celsius
//! ```
//!
//! Exit codes: 0 when all was done, 1 when something failed, 2 for wrong usage.

#[path = "../../../common/output.rs"]
mod output;
#[path = "../../../common/selection.rs"]
mod selection;
#[path = "../../../common/text.rs"]
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use clap::{Args, Parser, Subcommand};
use futures::TryStreamExt as _;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use polyaio::{Direct, OpenOptions};
use polyaio_clients::columns::ColumnReader;

use crate::output::print;
use crate::selection::{Selection, Tally};
use crate::text::{Failure, say};

/// Writes a small Parquet file, and reads columns of one, through polyaio; shows who served the requests.
#[derive(Parser)]
#[command(name = "columns", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a file of measurements: id, celsius, station, note
    Write {
        /// The file, which must not be there yet
        path: PathBuf,

        /// Rows of the file
        #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
        rows: u32,

        /// Rows of one row group: the columns of a group lie together in the file
        #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
        group: u32,

        #[command(flatten)]
        how: How,
    },
    /// Read columns of any Parquet file without compression, and show what is in them
    Read {
        /// The file
        path: PathBuf,

        /// A column to read; may be given several times [default: all]
        #[arg(long = "column", value_name = "NAME")]
        columns: Vec<String>,

        #[command(flatten)]
        how: How,
    },
}

#[derive(Args)]
struct How {
    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    direct: bool,

    #[command(flatten)]
    selection: Selection,
}

impl How {
    fn direct(&self) -> Direct {
        if self.direct { Direct::Preferred } else { Direct::Off }
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Write { path, rows, group, how } => write(&path, rows, group, &how),
        Command::Read { path, columns, how } => read(&path, &columns, &how),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("columns: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

fn write(path: &Path, rows: u32, group: u32, how: &How) -> Result<(), Failure> {
    let engine = selection::start(how.selection.builder())?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).direct(how.direct()).open(&engine, path);
    let file = file.map_err(Failure::of_library)?;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group as usize)).build();
    let failed = failed("cannot write", path);
    // `parquet` writes to anything with `std::io::Write`; what is written goes to the engine in blocks, behind it.
    let mut writer =
        ArrowWriter::try_new(file.clone().blocking(), rows_of(0..0)?.schema(), Some(properties)).map_err(&failed)?;
    for start in (0..rows).step_by(group as usize) {
        writer.write(&rows_of(start..rows.min(start.saturating_add(group)))?).map_err(&failed)?;
    }
    let mut blocking = writer.into_inner().map_err(&failed)?;
    blocking.flush().and_then(|()| file.sync_all().wait()).map_err(|error| failed(error.into()))?;
    let len = file.len().wait().map_err(|error| failed(error.into()))?;
    print(format_args!("wrote {rows} rows, {len} bytes"))?;
    print(Tally::of(&engine))
}

/// Measurements that can be computed again.
fn rows_of(rows: std::ops::Range<u32>) -> Result<RecordBatch, Failure> {
    let ids = || rows.clone().map(i64::from);
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids()))),
        ("celsius", Arc::new(Float64Array::from_iter_values(ids().map(|id| (id % 400) as f64 / 10.0 - 5.0)))),
        ("station", Arc::new(StringArray::from_iter_values(ids().map(|id| format!("station {}", id % 97))))),
        ("note", Arc::new(StringArray::from_iter_values(ids().map(|id| format!("what was measured as number {id}"))))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|error| Failure::new(format!("cannot make rows: {error}")))
}

fn read(path: &Path, columns: &[String], how: &How) -> Result<(), Failure> {
    let engine = selection::start(how.selection.builder())?;
    let file = OpenOptions::new().read(true).direct(how.direct()).open(&engine, path).map_err(Failure::of_library)?;
    let reader = ColumnReader::new(&engine, file.clone());
    let len = file.len().wait().map_err(|error| failed("cannot read", path)(error.into()))?;
    let sums = engine.block_on(summarise(path, columns, reader.clone()))?;
    for sum in sums {
        print(sum)?;
    }
    let fetched = reader.fetched();
    print(format_args!(
        "read {} of {len} bytes: {} ranges in {} batches, at most {} in one",
        fetched.bytes, fetched.ranges, fetched.batches, fetched.largest_batch
    ))?;
    print(file.route())?;
    print(Tally::of(&engine))
}

/// A line for each column.
async fn summarise(path: &Path, columns: &[String], reader: ColumnReader) -> Result<Vec<String>, Failure> {
    let failed = failed("cannot read", path);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(&failed)?;
    let known: Vec<_> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    if let Some(unknown) = columns.iter().find(|name| !known.contains(name)) {
        let known = known.join(", ");
        return Err(Failure::new(format!("{} has no column {unknown:?}; it has {known}", path.display())));
    }
    let wanted = |name: &&String| columns.is_empty() || columns.contains(name);
    let mask = ProjectionMask::columns(builder.parquet_schema(), known.iter().filter(wanted).map(String::as_str));
    let stream = builder.with_projection(mask).build().map_err(&failed)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(&failed)?;
    Ok(known.iter().filter(wanted).map(|name| summary(name, &batches)).collect())
}

fn summary(name: &str, batches: &[RecordBatch]) -> String {
    let arrays: Vec<_> = batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
    let rows: usize = arrays.iter().map(|array| array.len()).sum();
    let what = match arrays.first().map(|array| array.data_type()) {
        Some(DataType::Int64) => {
            let values = arrays.iter().flat_map(|array| array.as_primitive::<Int64Type>().iter().flatten());
            format!("sum {}", values.map(i128::from).sum::<i128>())
        }
        Some(DataType::Float64) => {
            let values = arrays.iter().flat_map(|array| array.as_primitive::<Float64Type>().iter().flatten());
            format!("sum {:.1}", values.sum::<f64>())
        }
        Some(DataType::Utf8) => {
            let values = arrays.iter().flat_map(|array| array.as_string::<i32>().iter().flatten());
            format!("{} bytes of text", values.map(str::len).sum::<usize>())
        }
        Some(other) => format!("{other}"),
        None => "nothing".to_owned(),
    };
    format!("{name}: {rows} rows, {what}")
}

/// Errors of storage keep their text, which says what to do; the format's own are told as they are.
fn failed(what: &'static str, path: &Path) -> impl Fn(ParquetError) -> Failure {
    move |error| {
        let what = format!("{what} {}", path.display());
        match &error {
            ParquetError::External(inner) => match inner.downcast_ref::<std::io::Error>() {
                Some(error) => Failure::of(what, error),
                None => Failure::new(format!("{what}: {inner}")),
            },
            _ => Failure::new(format!("{what}: {error}: is it a Parquet file without compression?")),
        }
    }
}
