//! `wal torture`: many seeds, several at a time.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log::Bug;
use crate::text::{Failure, say};
use crate::torture::{Broken, End, Tally};
use crate::{interrupt, output, torture};

#[derive(clap::Args)]
pub(crate) struct Campaign {
    /// How many lives of a log
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The first one; the others follow
    #[arg(long, value_name = "N", default_value_t = 1)]
    first_seed: u64,

    /// Leave the sync of commits out, to see whether that is found
    #[arg(long)]
    without_sync: bool,

    /// Put another bug into the log
    #[arg(long, value_name = "NAME", value_enum, hide = true, conflicts_with = "without_sync")]
    bug: Option<Bug>,

    /// Print all that the disk has seen, when a promise was broken
    #[arg(long)]
    trace: bool,
}

impl Campaign {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let raised = interrupt::install()?;
        let started = Instant::now();
        let bar = bar(self.seeds);
        let shared = Shared { next: AtomicU64::new(0), outcome: Mutex::default() };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs() {
                scope.spawn(|| self.work(&shared, &raised, &bar));
            }
        });
        bar.finish_and_clear();
        // Nobody who has held the lock panicked: the scope would have gone on with that.
        let Outcome { total, count, first } = shared.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match first {
            Some((_, End::Broken(broken))) => return Err(self.report(&broken)),
            Some((_, End::NotBegun(error))) => return Err(Failure::new(format!("cannot start: {error}"))),
            None => {}
        }
        if count < self.seeds {
            return Err(Failure::new(format!("interrupted after {count} seeds: no promise was broken")));
        }
        let seconds = started.elapsed().as_secs_f64();
        output::print(format_args!("{count} seeds in {seconds:.1} s, no promise was broken: {total}"))
    }

    /// Seeds at a time.
    fn jobs(&self) -> u64 {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        processors.min(self.seeds)
    }

    /// Takes one seed after the other. Seeds are begun in order, and what has begun is brought to its end: so the first one
    /// that fails is found, whoever is faster.
    fn work(&self, shared: &Shared, raised: &AtomicBool, bar: &ProgressBar) {
        while !raised.load(Ordering::Relaxed) {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.seeds {
                return;
            }
            let lived = torture::run(self.first_seed.wrapping_add(number), self.bug());
            bar.inc(1);
            let mut outcome = shared.outcome.lock().unwrap_or_else(PoisonError::into_inner);
            outcome.count += 1;
            match lived {
                Ok(tally) => outcome.total.add(&tally),
                Err(end) => {
                    shared.next.fetch_max(self.seeds, Ordering::Relaxed);
                    if outcome.first.as_ref().is_none_or(|(first, _)| number < *first) {
                        outcome.first = Some((number, end));
                    }
                }
            }
        }
    }

    fn bug(&self) -> Option<Bug> {
        if self.without_sync { Some(Bug::NoSync) } else { self.bug }
    }

    /// Tells the story of a seed; what remains to be said is which it was.
    fn report(&self, broken: &Broken) -> Failure {
        if self.trace {
            say(broken.trace.to_string().trim_end());
        }
        broken.story.iter().for_each(|line| say(format_args!("  {line}")));
        let seed = broken.seed;
        say(format_args!("seed {seed}: {}", broken.promise));
        Failure::new(format!("a promise was broken; this shows it again: {} {}", program(), self.again(seed)))
    }

    fn again(&self, seed: u64) -> String {
        use clap::ValueEnum as _;
        let bug = match (self.without_sync, self.bug.and_then(|bug| bug.to_possible_value())) {
            (true, _) => " --without-sync".to_owned(),
            (false, Some(bug)) => format!(" --bug {}", bug.get_name()),
            (false, None) => String::new(),
        };
        format!("torture --seeds 1 --first-seed {seed}{bug}")
    }
}

/// What the threads of a campaign share.
struct Shared {
    /// The next seed to begin, counted from the first.
    next: AtomicU64,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    /// Of the seeds without a broken promise.
    total: Tally,
    /// Seeds that were run.
    count: u64,
    /// The first that did not come to its end, counted from the first of all.
    first: Option<(u64, End)>,
}

/// As it was called.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "wal".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A bar on standard error, or one that shows nothing.
fn bar(seeds: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr());
    // The template is a constant; a mistake in it costs its looks only.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
