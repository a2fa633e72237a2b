//! The log: records are appended, then committed together, and are there after a crash.
//!
//! It uses the ordinary API of the crate and knows nothing of who serves it: a real file, or a simulated disk.
//!
//! - [`Log::append`] takes a record and writes nothing. [`Log::commit`] writes all that were taken, with one write and one
//!   sync: the more a commit has, the less each costs. A record is *committed* once that has returned.
//! - [`Log::open`] reads what there is and stops at the first record that is none: what lies there was never committed. It is
//!   cut off. Where another commit lies behind it, though, it *was* committed, and is damaged: [`LogError::Corrupt`].
//! - After a failed write or sync nobody knows what is on the disk, and asking for another sync does not tell: on Linux it
//!   succeeds, and what the first has lost stays lost. So such a log does nothing more ([`LogError::Broken`]) until it is
//!   opened anew. Nor does opening trust what it has read, which may be in the page cache and nowhere else: it writes the last
//!   commit once more. No other can be missing, because each is synced before the next one is written.
//!
//! What it cannot do: tell bit rot in the *last* commit from a commit that was torn; keep two programs from using the same
//! log; make the name of a new file durable (`fsync` its directory).

use std::future::Future as _;
use std::io;
use std::task::{Context, Waker};

use polyaio::{AlignedBuf, BufResult, File};

use crate::record::{self, BLOCK, Kind, LONGEST, Record, Scan};

/// The largest log, in bytes: it is read into memory as a whole. A program that needs more begins a new file.
const LARGEST: u64 = 1 << 30;

/// Bytes per read.
const CHUNK: usize = 1 << 20;

/// Why a log does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The file could not be read, written or synced.
    #[error("cannot {doing} the log: {source}")]
    Io { doing: &'static str, source: io::Error },
    /// A committed record cannot be read any more.
    #[error(
        "the log is damaged from offset {offset} on: record {sequence} was committed and cannot be read, and a later commit \
         begins at offset {beyond}; restore it from a copy"
    )]
    Corrupt { offset: usize, sequence: u64, beyond: usize },
    /// It is something else.
    #[error("it is no log: name another file")]
    NotALog,
    /// A write or sync has failed before.
    #[error("a write or sync of the log has failed before: open it anew to see what is left")]
    Broken,
    /// A record, or the log with it, would be too long.
    #[error("the record is too long, or the log is full: at most {LONGEST} bytes, and {LARGEST} in all")]
    TooLong,
}

/// Bugs that can be put into the log, to see whether a test finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bug {
    /// A commit is not synced
    NoSync,
    /// A commit returns while its sync is under way
    EarlyAck,
    /// A sync that has failed is asked for again, and that is believed
    RetrySync,
    /// What recovery reads is taken for durable
    TrustCache,
    /// Checksums are not looked at
    NoChecksum,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    /// Where the next commit begins, in bytes.
    end: u64,
    /// The sequence number of the next record.
    next: u64,
    /// The first record that is not committed.
    first: u64,
    /// Records that are not committed, as they will be written.
    pending: Vec<u8>,
    /// A write or sync has failed, or has not come to its end.
    broken: bool,
    bug: Option<Bug>,
}

impl Log {
    /// Recovers the log in `file`, which may be empty, and returns it with the records that there are. All of them are durable
    /// then.
    ///
    /// # Errors
    /// [`LogError::Io`], also where the log is larger than a log can be; [`LogError::Corrupt`]; [`LogError::NotALog`] for a
    /// file of another kind, which is left as it is.
    pub(crate) async fn open(file: File, bug: Option<Bug>) -> Result<(Self, Vec<Record>), LogError> {
        let bytes = read(&file).await?;
        let scan = record::scan(&bytes, bug == Some(Bug::NoChecksum));
        check(&scan)?;
        let Scan { records, last_commit, end, .. } = scan;
        let whole = end.next_multiple_of(BLOCK);
        // Where there is no record, it is the first block that is written again.
        if bug != Some(Bug::TrustCache) {
            let mut commit = AlignedBuf::zeroed(whole - last_commit, BLOCK);
            commit[..end - last_commit].copy_from_slice(&bytes[last_commit..end]);
            write(&file, commit, last_commit as u64).await?;
        }
        file.set_len(whole as u64).await.map_err(failed("cut"))?;
        file.sync_data().await.map_err(failed("sync"))?;
        let next = records.len() as u64 + 1;
        let log = Self { file, end: whole as u64, next, first: next, pending: Vec::new(), broken: false, bug };
        Ok((log, records))
    }

    /// Takes a record for the next commit, and returns its sequence number. Nothing is written.
    ///
    /// # Errors
    /// [`LogError::TooLong`], [`LogError::Broken`].
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<u64, LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        let longest = self.end + (self.pending.len() + payload.len() + 2 * BLOCK) as u64;
        if payload.len() > LONGEST || longest > LARGEST {
            return Err(LogError::TooLong);
        }
        let sequence = self.next;
        record::encode(&mut self.pending, self.end, sequence, self.first, payload);
        self.next += 1;
        Ok(sequence)
    }

    /// Makes the records durable that were taken, and returns the sequence number of the last one.
    ///
    /// # Errors
    /// [`LogError::Io`]: the records may or may not be there when the log is opened anew, the first ones or all.
    /// [`LogError::Broken`].
    ///
    /// # Cancel safety
    /// Dropped before its end, it has failed.
    pub(crate) async fn commit(&mut self) -> Result<u64, LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        if self.pending.is_empty() {
            return Ok(self.next - 1);
        }
        self.broken = true;
        let mut commit = AlignedBuf::zeroed(self.pending.len().next_multiple_of(BLOCK), BLOCK);
        commit[..self.pending.len()].copy_from_slice(&self.pending);
        let length = commit.len() as u64;
        write(&self.file, commit, self.end).await?;
        self.sync().await?;
        self.broken = false;
        self.pending.clear();
        self.end += length;
        self.first = self.next;
        Ok(self.next - 1)
    }

    async fn sync(&self) -> Result<(), LogError> {
        let synced = match self.bug {
            Some(Bug::NoSync) => Ok(()),
            Some(Bug::EarlyAck) => {
                // It begins, and goes on without whoever would wait for it.
                let _ = std::pin::pin!(self.file.sync_data()).poll(&mut Context::from_waker(Waker::noop()));
                Ok(())
            }
            Some(Bug::RetrySync) if self.file.sync_data().await.is_ok() => Ok(()),
            _ => self.file.sync_data().await,
        };
        synced.map_err(failed("sync"))
    }

    /// Closes the file. What was not committed is gone.
    ///
    /// # Errors
    /// Those of `close(2)`. They mean nothing for what was committed.
    pub(crate) async fn close(self) -> io::Result<()> {
        self.file.close().await
    }
}

/// Reads a log without changing it: its records, and the bytes behind them that are none.
///
/// # Errors
/// [`LogError::Io`]. Damage is not one: [`check`] tells.
pub(crate) async fn peek(file: &File) -> Result<(Scan, u64), LogError> {
    let scan = record::scan(&read(file).await?, false);
    let length = file.len().await.map_err(failed("read"))?;
    let tail = length.saturating_sub(scan.end.next_multiple_of(BLOCK) as u64);
    Ok((scan, tail))
}

/// Whether all that was committed is there, as far as the log itself can tell.
///
/// # Errors
/// [`LogError::Corrupt`].
pub(crate) fn check(scan: &Scan) -> Result<(), LogError> {
    let sequence = scan.records.len() as u64 + 1;
    let offset = scan.end;
    scan.beyond.map_or(Ok(()), |beyond| Err(LogError::Corrupt { offset, sequence, beyond }))
}

/// The blocks of a log. What is shorter than a block at its end was never committed.
async fn read(file: &File) -> Result<Vec<u8>, LogError> {
    let length = file.len().await.map_err(failed("read"))?;
    match kind(file, length).await? {
        Kind::Log => {}
        Kind::Fresh => return Ok(record::head()),
        Kind::Other => return Err(LogError::NotALog),
    }
    if length > LARGEST {
        return Err(failed("read")(io::ErrorKind::FileTooLarge.into()));
    }
    // At most `LARGEST`.
    let length = length as usize / BLOCK * BLOCK;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let chunk = AlignedBuf::zeroed(CHUNK.min(length - bytes.len()), BLOCK);
        let read = file.read_exact_at(chunk, bytes.len() as u64).await.into_result();
        let ((), chunk) = read.map_err(failed("read"))?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn kind(file: &File, length: u64) -> Result<Kind, LogError> {
    let BufResult(read, block) = file.read_exact_at(AlignedBuf::zeroed(BLOCK, BLOCK), 0).await;
    match read {
        // The file is shorter; what there is of it is in the buffer.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        read => read.map_err(failed("read"))?,
    }
    // Not more than the block.
    let count = length.min(BLOCK as u64) as usize;
    Ok(record::kind(&block[..count], length))
}

async fn write(file: &File, commit: AlignedBuf, offset: u64) -> Result<(), LogError> {
    let written = file.write_all_at(commit, offset).await.into_result();
    written.map(|_| ()).map_err(failed("write"))
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { doing, source }
}
