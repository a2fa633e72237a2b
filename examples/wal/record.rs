//! The format: records in memory, without any I/O.
//!
//! A log is a block that says what it is, and a sequence of *commits*. Each begins at a multiple of [`BLOCK`] and is padded
//! with zeroes to the next one, so that no later commit writes to the blocks of an earlier one. A commit is one or more
//! records, one behind the other:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32 of the record's offset in the file (which is not stored), and of all that follows |
//! | 4 | length of the payload |
//! | 8 | sequence number: 1, 2, 3 ... without gaps |
//! | 8 | sequence number of the first record of the same commit |
//! | length | payload |
//!
//! All numbers are little-endian. The offset is part of the checksum so that a record in the wrong place is not one.

/// What commits begin at multiples of, in bytes: as coarse as direct I/O wants it.
pub(crate) const BLOCK: usize = 4096;

/// The longest payload, in bytes.
pub(crate) const LONGEST: usize = 1 << 20;

const HEADER: usize = 24;

/// What a log begins with, followed by zeroes.
const MAGIC: &[u8] = b"write-ahead log of polyaio, 1\n";

/// The first block of a log.
pub(crate) fn head() -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.resize(BLOCK, 0);
    head
}

/// What the beginning of a file says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    /// Nothing, or a log whose making was cut short: nobody has committed anything to it.
    Fresh,
    /// Somebody else's.
    Other,
}

/// `beginning` is the file's first block, or all of it where it is shorter; `length` is the file's, in bytes.
pub(crate) fn kind(beginning: &[u8], length: u64) -> Kind {
    let head = head();
    if beginning == head {
        return Kind::Log;
    }
    // A sector that was not written is zero, or not there.
    let unfinished = beginning.iter().zip(&head).all(|(have, want)| have == want || *have == 0);
    if unfinished && length <= BLOCK as u64 { Kind::Fresh } else { Kind::Other }
}

/// A record as recovery has found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) payload: Vec<u8>,
}

/// A header, and where its payload is.
struct Header {
    checksum: u32,
    sequence: u64,
    first: u64,
    /// Where the record ends, in bytes from the beginning of the file.
    end: usize,
}

/// Appends a record to a commit that begins at `begin`, in bytes.
pub(crate) fn encode(commit: &mut Vec<u8>, begin: u64, sequence: u64, first: u64, payload: &[u8]) {
    let offset = begin + commit.len() as u64;
    // `LONGEST` fits.
    let fields = [&(payload.len() as u32).to_le_bytes()[..], &sequence.to_le_bytes(), &first.to_le_bytes()].concat();
    let sum = checksum(&[&offset.to_le_bytes(), &fields, payload]);
    commit.extend_from_slice(&sum.to_le_bytes());
    commit.extend_from_slice(&fields);
    commit.extend_from_slice(payload);
}

/// What is in the bytes of a log.
pub(crate) struct Scan {
    pub(crate) records: Vec<Record>,
    /// Where the last commit begins of which there are records, in bytes; 0 where there is none.
    pub(crate) last_commit: usize,
    /// Where the last record ends, in bytes, or the first block. What follows is torn, if it is anything.
    pub(crate) end: usize,
    /// A commit lies behind the end, in bytes: what is missing before it was durable once, and is damaged.
    pub(crate) beyond: Option<usize>,
}

/// Reads records up to the first that is none. `trusting` takes checksums for right, which is a bug.
pub(crate) fn scan(log: &[u8], trusting: bool) -> Scan {
    let mut scan = Scan { records: Vec::new(), last_commit: 0, end: BLOCK, beyond: None };
    let (mut at, mut first) = (BLOCK, 0);
    loop {
        let sequence = scan.records.len() as u64 + 1;
        let begins = |header: &Header| at % BLOCK == 0 && header.first == sequence;
        let fits = |header: &Header| header.sequence == sequence && (header.first == first || begins(header));
        match header(log, at).filter(fits).filter(|header| trusting || is_intact(log, at, header)) {
            Some(header) => {
                if header.first == sequence {
                    (first, scan.last_commit) = (sequence, at);
                }
                scan.records.push(Record { sequence, payload: log[at + HEADER..header.end].to_vec() });
                (at, scan.end) = (header.end, header.end);
            }
            // Here a commit may end, and the next one begin behind the padding.
            None if at % BLOCK != 0 => at = at.next_multiple_of(BLOCK),
            None => break,
        }
    }
    scan.beyond = (at..log.len()).step_by(BLOCK).find(|at| begins_commit(log, *at, scan.records.len() as u64 + 1));
    scan
}

/// Whether a commit begins here whose first record has at least this number. Each was written after the one before it was
/// durable.
fn begins_commit(log: &[u8], at: usize, sequence: u64) -> bool {
    let first = header(log, at).filter(|header| header.first == header.sequence && header.sequence >= sequence);
    first.is_some_and(|header| is_intact(log, at, &header))
}

/// The header at this offset, unless it or its payload does not fit.
fn header(log: &[u8], at: usize) -> Option<Header> {
    let header = log.get(at..at + HEADER)?;
    let (checksum, rest) = header.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let (first, _) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let end = at + HEADER + length;
    (length <= LONGEST && end <= log.len()).then(|| Header {
        checksum: u32::from_le_bytes(*checksum),
        sequence: u64::from_le_bytes(*sequence),
        first: u64::from_le_bytes(*first),
        end,
    })
}

fn is_intact(log: &[u8], at: usize, header: &Header) -> bool {
    checksum(&[&(at as u64).to_le_bytes(), &log[at + 4..header.end]]) == header.checksum
}

/// The CRC-32 of several parts, as if they were one.
fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}
