//! A Parquet file's bytes: `parquet`'s [`AsyncFileReader`] on polyaio.
//!
//! A reader of a few columns needs a few stretches of a file, known in advance. [`get_byte_ranges`] is given all of them,
//! and they go to the kernel together, as one [`Batch`](polyaio::Batch): the time of the slowest one, not of their sum.
//!
//! [`get_byte_ranges`]: AsyncFileReader::get_byte_ranges

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use polyaio::{AlignedBuf, BufResult, Engine, File};

/// Reads ranges of one file. Clones share their counts.
#[derive(Clone)]
pub struct ColumnReader {
    engine: Engine,
    file: File,
    fetched: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    ranges: AtomicU64,
    largest_batch: AtomicU64,
    bytes: AtomicU64,
}

/// What has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Times that something was asked for.
    pub batches: u64,
    /// Ranges in all of them.
    pub ranges: u64,
    /// Ranges in the largest of them.
    pub largest_batch: u64,
    /// Bytes that were asked for; direct I/O reads up to a block more on either side.
    pub bytes: u64,
}

impl ColumnReader {
    /// `file` is one of `engine`'s.
    pub fn new(engine: &Engine, file: File) -> Self {
        Self { engine: engine.clone(), file, fetched: Arc::default() }
    }

    /// What it, and its clones, have read so far.
    pub fn fetched(&self) -> Fetched {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { batches, ranges, largest_batch, bytes } = &*self.fetched;
        Fetched {
            batches: value(batches),
            ranges: value(ranges),
            largest_batch: value(largest_batch),
            bytes: value(bytes),
        }
    }

    async fn fetch(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        self.count(&ranges);
        let mut batch = self.engine.batch();
        for range in &ranges {
            let (window, buffer) = self.window(range)?;
            batch.push(self.file.read_at(buffer, window.start), |result| result);
        }
        let mut found = Vec::with_capacity(ranges.len());
        for (range, BufResult(n, buffer)) in ranges.iter().zip(batch.all().await) {
            let (n, skip) = (n.map_err(failed)?, self.skip(range));
            let end = skip + length(range)?;
            found.push(if n >= end { bytes_of(buffer, skip..end) } else { self.again(range).await? });
        }
        Ok(found)
    }

    fn count(&self, ranges: &[Range<u64>]) {
        let (count, bytes) = (ranges.len() as u64, ranges.iter().map(|range| range.end - range.start).sum());
        self.fetched.batches.fetch_add(1, Ordering::Relaxed);
        self.fetched.ranges.fetch_add(count, Ordering::Relaxed);
        self.fetched.largest_batch.fetch_max(count, Ordering::Relaxed);
        self.fetched.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What has to be read to have a range, and a buffer for it: direct I/O begins and ends at multiples of something.
    fn window(&self, range: &Range<u64>) -> Result<(Range<u64>, AlignedBuf)> {
        let skip = self.skip(range);
        let buffer = self.file.buffer(skip + length(range)?);
        let start = range.start - skip as u64;
        Ok((start..start + buffer.len() as u64, buffer))
    }

    /// So many bytes stand in a window before its range.
    fn skip(&self, range: &Range<u64>) -> usize {
        // Smaller than the alignment, which is a `usize`.
        (range.start % self.file.alignment().offset as u64) as usize
    }

    /// An operating system may read less than it was asked for. Then all of it is read, or it is told that the file ends
    /// before.
    async fn again(&self, range: &Range<u64>) -> Result<Bytes> {
        let buffer = AlignedBuf::zeroed(length(range)?, self.file.alignment().memory.max(align_of::<u64>()));
        let BufResult(done, buffer) = self.file.read_exact_at(buffer, range.start).await;
        done.map_err(failed)?;
        let end = buffer.len();
        Ok(bytes_of(buffer, 0..end))
    }
}

impl AsyncFileReader for ColumnReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let found = self.fetch(vec![range]).await?;
            found.into_iter().next().ok_or_else(|| ParquetError::General("nothing for one range".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.fetch(ranges).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let len = self.file.len().await.map_err(failed)?;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, len).await?))
        }
        .boxed()
    }
}

fn length(range: &Range<u64>) -> Result<usize> {
    let length = range.end.checked_sub(range.start).and_then(|length| usize::try_from(length).ok());
    length.ok_or_else(|| ParquetError::General(format!("no range of bytes: {range:?}")))
}

/// The error is kept whole: its text says what to do.
fn failed(error: io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// The bytes stay where they were read to.
fn bytes_of(buffer: AlignedBuf, range: Range<usize>) -> Bytes {
    struct Owner(AlignedBuf);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Owner(buffer)).slice(range)
}
