//! Which request comes next.

use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

/// What is done to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Reads at random places
    #[value(name = "randread")]
    RandRead,
    /// Writes at random places
    #[value(name = "randwrite")]
    RandWrite,
    /// Reads one block after the other, and begins again at the end
    Read,
    /// Writes one block after the other, and begins again at the end
    Write,
    /// Writes past the end of an empty file, until it has its size
    Extend,
    /// Reads and writes at random places, 70 reads of 100
    #[value(name = "mixed70")]
    Mixed70,
}

impl Pattern {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::RandRead => "randread",
            Pattern::RandWrite => "randwrite",
            Pattern::Read => "read",
            Pattern::Write => "write",
            Pattern::Extend => "extend",
            Pattern::Mixed70 => "mixed70",
        }
    }

    /// Whether the file is changed.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Pattern::Read | Pattern::RandRead)
    }
}

/// One transfer of a block.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) write: bool,
    /// In the file, in bytes; a multiple of the block size.
    pub(crate) offset: u64,
}

/// What the threads of a round do together.
pub(crate) struct Job {
    pattern: Pattern,
    pub(crate) block_size: usize,
    /// Blocks of the file.
    blocks: u64,
    /// The next one, where they are taken in order.
    next: AtomicU64,
}

impl Job {
    /// On the first `size` bytes of a file.
    pub(crate) fn new(pattern: Pattern, block_size: usize, size: u64) -> Job {
        Job { pattern, block_size, blocks: size / block_size as u64, next: AtomicU64::new(0) }
    }
}

/// The requests of one thread; a sequence of its own for each seed.
pub(crate) struct Sequence<'a> {
    job: &'a Job,
    state: u64,
}

impl<'a> Sequence<'a> {
    pub(crate) fn new(job: &'a Job, seed: u64) -> Sequence<'a> {
        // xorshift never leaves 0.
        Sequence { job, state: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed.wrapping_mul(2) + 1) }
    }

    /// Bytes of each request.
    pub(crate) fn block_size(&self) -> usize {
        self.job.block_size
    }

    /// `None`: the file has its size.
    pub(crate) fn next(&mut self) -> Option<Request> {
        let job = self.job;
        let (write, block) = match job.pattern {
            Pattern::RandRead => (false, self.random(job.blocks)),
            Pattern::RandWrite => (true, self.random(job.blocks)),
            Pattern::Mixed70 => (self.random(100) >= 70, self.random(job.blocks)),
            Pattern::Read => (false, job.in_order() % job.blocks),
            Pattern::Write => (true, job.in_order() % job.blocks),
            Pattern::Extend => (true, Some(job.in_order()).filter(|block| *block < job.blocks)?),
        };
        Some(Request { write, offset: block * job.block_size as u64 })
    }

    /// A number below `bound`; by xorshift64*, of which the upper half is the better one.
    fn random(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(random) * u128::from(bound)) >> 64) as u64
    }
}

impl Job {
    fn in_order(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_a_block_of_the_file() {
        for pattern in Pattern::value_variants() {
            let job = Job::new(*pattern, 4096, 10 * 4096 + 1);
            let mut sequence = Sequence::new(&job, 7);
            let requests: Vec<Request> = std::iter::from_fn(|| sequence.next()).take(1000).collect();
            assert!(
                requests.iter().all(|request| request.offset % 4096 == 0 && request.offset < 10 * 4096),
                "{pattern:?}"
            );
            assert_eq!(requests.iter().any(|request| request.write), pattern.writes(), "{pattern:?}");
            let reads = requests.iter().filter(|request| !request.write).count();
            match pattern {
                Pattern::Extend => assert_eq!(requests.len(), 10),
                Pattern::Mixed70 => assert!((640..760).contains(&reads), "{reads}"),
                _ => assert!(reads == 0 || reads == 1000, "{reads}"),
            }
        }
    }
}
