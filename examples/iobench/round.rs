//! One round of one engine: its threads run for a while, and what the process has used meanwhile is taken down.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::arguments::Args;
use crate::engines::kernel_aio::RawKernelAio;
use crate::engines::positioned::Positioned;
use crate::engines::{EngineName, Worker, library, open_raw};
use crate::interrupt::Interrupt;
use crate::log::{Log, Source};
use crate::patterns::{Job, Pattern, Sequence};
use crate::selection::Tally;
use crate::text::{Failure, say};
use crate::{scratch, usage};

/// What came of it.
pub(crate) struct Round {
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
    pub(crate) log: Log,
    /// That serve: those that make requests, and the engine's own.
    pub(crate) threads: u64,
    pub(crate) rss_kib: u64,
    pub(crate) tally: Tally,
}

/// What is the same in all rounds.
pub(crate) struct Setting<'a> {
    pub(crate) args: &'a Args,
    /// Bytes of the file that are used.
    pub(crate) size: u64,
    /// Threads of the process that have nothing to do with any engine. Not counted anew for each round: those of the one before
    /// may still be on their way out.
    pub(crate) threads: u64,
    pub(crate) interrupt: &'a Interrupt,
}

/// Before the measurement, so that threads and lessons are there that a long run would have.
const WARM_UP_MAX: Duration = Duration::from_millis(200);

/// Runs it. What it made ends with it: idle threads of one engine are nothing that another has to bear.
pub(crate) fn run(name: EngineName, setting: &Setting, seed: u64) -> Result<Round, Failure> {
    let &Setting { args, size, .. } = setting;
    if args.pattern == Pattern::Extend {
        scratch::empty(&args.file)?;
    }
    usage::trim_memory();
    let job = Job::new(args.pattern, args.block_size, size);
    let bench = Bench { setting, job: &job, seed };
    let writes = args.pattern.writes();
    match name {
        EngineName::RawKernelAio => {
            let file = Arc::new(open_raw(&args.file, writes, args.direct)?);
            let worker = |_| RawKernelAio::new(file.clone(), args.block_size, args.depth);
            let workers = (0..args.threads).map(worker).collect::<Result<Vec<_>, _>>()?;
            bench.run(workers, &|log| raw_tally(name, log))
        }
        EngineName::RawPread | EngineName::RawThreads => {
            let file = Arc::new(open_raw(&args.file, writes, args.direct)?);
            let each = if name == EngineName::RawThreads { args.depth } else { 1 };
            let count = usize::from(args.threads) * each;
            let workers = (0..count).map(|_| Positioned::new(file.clone(), args.block_size)).collect();
            bench.run(workers, &|log| raw_tally(name, log))
        }
        _ => {
            let (engine, file) = library::open(name, args)?;
            let worker = |_| library::Library::new(&engine, &file, args);
            let workers = (0..args.threads).map(worker).collect::<Result<Vec<_>, _>>()?;
            bench.run(workers, &|_| Counts::of(&engine))
        }
    }
}

/// Who has served so far, and in how many submissions.
struct Counts {
    tally: Tally,
    batches: u64,
    submitted: u64,
}

impl Counts {
    fn of(engine: &polyaio::Engine) -> Counts {
        let stats = engine.stats();
        let sum = |of: fn(&polyaio::BackendStats) -> u64| stats.backends.iter().map(of).sum();
        Counts { tally: Tally::of(engine), batches: sum(|b| b.batches), submitted: sum(|b| b.submitted) }
    }
}

/// A loop by hand serves all by itself.
fn raw_tally(name: EngineName, log: &Log) -> Counts {
    let served_by = BTreeMap::from([(name.name().to_string(), log.requests)]);
    let tally = Tally { served_by, fallbacks: BTreeMap::new() };
    Counts { tally, batches: log.batches, submitted: log.submitted }
}

struct Bench<'a> {
    setting: &'a Setting<'a>,
    job: &'a Job,
    seed: u64,
}

impl Bench<'_> {
    /// Lets the workers run, each on a thread of its own. `counts` is asked before and after.
    fn run<W: Worker>(&self, workers: Vec<W>, counts: &dyn Fn(&Log) -> Counts) -> Result<Round, Failure> {
        // All threads of the round, and this one.
        let barrier = &Barrier::new(workers.len() + 1);
        let mut log = Log::new();
        let mut failure = None;
        let round = std::thread::scope(|scope| {
            let start = |(number, worker)| {
                let thread = move || self.work(worker, number as u64, barrier);
                std::thread::Builder::new().spawn_scoped(scope, thread).unwrap_or_else(|error| {
                    // Those that were started wait for it for ever.
                    say(format_args!("iobench: cannot start thread {number}: {error}: raise `ulimit -u`"));
                    std::process::exit(1);
                })
            };
            let threads: Vec<_> = workers.into_iter().enumerate().map(start).collect();
            barrier.wait();
            let (before, cpu, start) = (counts(&log), usage::cpu_time(), Instant::now());
            barrier.wait();
            // They run.
            barrier.wait();
            let (time, cpu) = (start.elapsed(), usage::cpu_time().saturating_sub(cpu));
            let (threads_now, rss_kib) = (usage::threads(), usage::rss_kib());
            barrier.wait();
            for thread in threads {
                match thread.join() {
                    Ok(Ok(more)) => log.add(&more),
                    Ok(Err(error)) => failure = Some(error),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            let after = counts(&log);
            // The engine's own count; that of the loops by hand comes from this log, and stays as it is.
            log.batches = after.batches - before.batches;
            log.submitted = after.submitted - before.submitted;
            let threads = threads_now.saturating_sub(self.setting.threads);
            let tally = after.tally.since(&before.tally);
            (time, cpu, threads, rss_kib, tally)
        });
        let (time, cpu, threads, rss_kib, tally) = round;
        failure.map_or(Ok(Round { time, cpu, log, threads, rss_kib, tally }), Err)
    }

    /// One thread: warms up, and is measured.
    fn work(&self, mut worker: impl Worker, number: u64, barrier: &Barrier) -> Result<Log, Failure> {
        let _end = EndOnPanic;
        let interrupted = || self.setting.interrupt.raised();
        let requests = |seed: u64, time| {
            let sequence = Sequence::new(self.job, (self.seed << 32) + (number << 1) + seed);
            Source::new(sequence, time, &interrupted)
        };
        let warm_up = (self.setting.args.seconds / 10).min(WARM_UP_MAX);
        let warmed = match self.setting.args.pattern {
            // It would use the file up.
            Pattern::Extend => Ok(()),
            _ => worker.run(&mut requests(0, warm_up), &mut Log::new()),
        };
        barrier.wait();
        barrier.wait();
        let mut log = Log::new();
        let done = warmed.and_then(|()| worker.run(&mut requests(1, self.setting.args.seconds), &mut log));
        barrier.wait();
        barrier.wait();
        done.map(|()| log)
    }
}

/// A thread that panics would leave the others at the barrier.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(101);
        }
    }
}
