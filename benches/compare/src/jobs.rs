//! What is done, and by whom.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::arguments::Args;
use crate::patterns::Pattern;
use crate::peers;

/// One table, and one plot.
pub(crate) struct Job {
    /// Of its plot, and for `--jobs`.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) file: PathBuf,
    pub(crate) pattern: Pattern,
    pub(crate) direct: bool,
    pub(crate) depth: usize,
    pub(crate) size: u64,
    /// The contender that the others are compared with: the raw loop of this kind.
    pub(crate) reference: &'static str,
}

/// Bytes per request, in every job.
pub(crate) const BLOCK: usize = 4096;

/// The jobs that were asked for.
pub(crate) fn all(args: &Args) -> Vec<Job> {
    let job = |name, title: &str, pattern, direct, depth, reference| {
        let device = args.device.clone().filter(|_| on_device(name));
        let file = device.unwrap_or_else(|| beside(args, if pattern == Pattern::Extend { ".extended" } else { "" }));
        let size = args.size_mib << 20;
        Job { name, title: format!("{title}, depth {depth}"), file, pattern, direct, depth, size, reference }
    };
    use Pattern::{Extend, RandRead, RandWrite};
    let aio = "raw-kernel-aio";
    let mut jobs = vec![
        job("direct-32", "Random direct reads", RandRead, true, 32, aio),
        job("direct-1", "Random direct reads", RandRead, true, 1, aio),
        job("cached-32", "Random reads in the page cache", RandRead, false, 32, "raw-pread"),
        job("cached-1", "Random reads in the page cache", RandRead, false, 1, "raw-pread"),
        job("write-32", "Random direct writes", RandWrite, true, 32, aio),
        job("extend-32", "Direct writes that extend the file", Extend, true, 32, aio),
    ];
    if args.device.is_some() {
        jobs.push(job("memory-32", "Random direct reads of a disk as fast as memory", RandRead, true, 32, aio));
        jobs.push(job("memory-1", "Random direct reads of a disk as fast as memory", RandRead, true, 1, aio));
    }
    jobs.retain(|job| args.jobs.is_empty() || args.jobs.iter().any(|name| name == job.name));
    jobs
}

/// The scratch files.
pub(crate) fn files(args: &Args) -> [PathBuf; 4] {
    ["", ".extended", ".fio", ".extended.fio"].map(|end| beside(args, end))
}

fn on_device(name: &str) -> bool {
    name.starts_with("memory-")
}

fn beside(args: &Args, end: &str) -> PathBuf {
    let mut path = OsString::from(&args.file);
    path.push(end);
    path.into()
}

/// Who does it.
pub(crate) enum Contender {
    /// polyaio, or a loop by hand, in `iobench`.
    Iobench {
        name: &'static str,
        engine: &'static str,
        executor: &'static str,
    },
    /// Another crate, in a process of this program.
    Peer {
        name: &'static str,
    },
    Fio {
        engine: &'static str,
    },
}

impl Contender {
    /// Those that are of interest for a job.
    pub(crate) fn all(job: &Job) -> Vec<Contender> {
        let iobench = |name, engine, executor| Contender::Iobench { name, engine, executor };
        let mut all = vec![
            iobench("polyaio", "auto", "caller"),
            iobench("polyaio, from tokio", "auto", "tokio"),
            iobench("polyaio, background thread", "auto", "background"),
            iobench("polyaio, thread-pool", "thread-pool", "caller"),
        ];
        if job.direct {
            all.push(iobench("polyaio, posix-aio", "posix-aio", "caller"));
            all.push(iobench("raw-kernel-aio", "raw-kernel-aio", "caller"));
        } else {
            all.push(iobench("raw-pread", "raw-pread", "caller"));
        }
        if job.depth > 1 || job.direct {
            all.push(iobench("raw-threads", "raw-threads", "caller"));
        }
        all.extend(peers::NAMES.iter().map(|name| Contender::Peer { name }));
        all.extend(["libaio", "io_uring", "posixaio", "psync"].map(|engine| Contender::Fio { engine }));
        all
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Contender::Iobench { name, .. } | Contender::Peer { name } => (*name).to_string(),
            Contender::Fio { engine } => format!("fio {engine}"),
        }
    }
}
