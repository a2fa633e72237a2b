//! polyaio beside what people would use instead, and beside raw loops: the same jobs, in turn, round by round, each in a process
//! of its own, so that none has the other's threads and memory.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- [--file PATH] [--device /dev/zram0] [--seconds 1] [--rounds 5]
//! ```
//!
//! builds `iobench` for polyaio and the loops by hand, runs all, and writes tables and plots into `docs/benchmarks.md` and
//! `docs/benchmarks/`. What is not installed, or does not work here, is named with the reason.

mod arguments;
mod buffer;
mod fio;
mod iobench;
mod jobs;
mod machine;
mod page;
mod peers;
mod results;
mod worker;

#[path = "../../../examples/iobench/log.rs"]
#[allow(dead_code)]
mod log;
#[path = "../../../examples/iobench/patterns.rs"]
#[allow(dead_code)]
mod patterns;
#[path = "../../../examples/iobench/plot.rs"]
mod plot;
#[path = "../../../examples/iobench/usage.rs"]
#[allow(dead_code)]
mod usage;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Args;
use crate::jobs::{Contender, Job};
use crate::results::{Measured, Results};

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.worker {
        Some(worker) => worker::run(worker).map(|measured| println!("{}", measured.json())),
        None => compare(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("compare: {line}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<(), String> {
    let program = iobench::build()?;
    let load = machine::load();
    let mut all = Vec::new();
    for job in jobs::all(args) {
        eprintln!("{}", job.title);
        iobench::prepare(&program, &job, args)?;
        all.push(measure(&program, &job, args));
    }
    for file in jobs::files(args) {
        // They may not be there: not every job has one.
        let _ = std::fs::remove_file(file);
    }
    page::write(args, &all, &load)
}

/// All contenders of a job in turn, round by round: what else the machine does meets all of them.
fn measure(program: &std::path::Path, job: &Job, args: &Args) -> Results {
    let mut results = Results::new(job, Contender::all(job));
    for round in 0..args.rounds {
        for entry in &mut results.entries {
            if entry.failure.is_some() {
                continue;
            }
            let measured = match &entry.contender {
                Contender::Iobench { engine, executor, .. } => iobench::run(program, job, args, engine, executor),
                Contender::Fio { engine } => fio::run(job, args, engine),
                Contender::Peer { name } => worker::start(job, args, name, round),
            };
            match measured {
                Ok(measured) => {
                    let Measured { iops, cpu_us, .. } = measured;
                    eprintln!("  {:<28} {:>10.0} IOPS {cpu_us:>8.2} us CPU", entry.contender.name(), iops);
                    entry.rounds.push(measured);
                }
                Err(why) => {
                    eprintln!("  {:<28} {why}", entry.contender.name());
                    entry.failure = Some(why);
                }
            }
        }
    }
    results
}
