//! `aiocp`: copies files asynchronously, by the backend that suits them, and shows which one that was.
//!
//! ```text
//! cargo run --release --example aiocp -- --direct --json big.img copy.img
//! tar c . | aiocp - archive.tar
//! aiocp --backend thread-pool *.iso directory/
//! ```
//!
//! Exit codes: 0 when everything was copied; 1 when something was not, or a signal came (a regular destination is then
//! cut to what was copied); 2 for wrong usage.

#[path = "../common/backends.rs"]
mod backends;
mod cli;
mod endpoint;
mod flow;
#[path = "../common/interrupt.rs"]
mod interrupt;
mod job;
mod patience;
mod progress;
mod report;
#[path = "../common/selection.rs"]
mod selection;
#[path = "../common/sizes.rs"]
mod sizes;
#[path = "../common/slots.rs"]
mod slots;
#[path = "../common/text.rs"]
mod text;
mod turn;
mod written;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use polyaio::Engine;

use crate::cli::Args;
use crate::interrupt::Interrupt;
use crate::job::Job;
use crate::report::Outcome;
use crate::text::{Failure, say};

fn main() -> ExitCode {
    let args = cli::parse();
    let started = Instant::now();
    let (engine, interrupt) = match start(&args) {
        Ok(both) => both,
        Err(failure) => {
            match args.json {
                true => report::print_json(None, &[], Some(&failure), started.elapsed().as_secs_f64()),
                false => say(format_args!("aiocp: {}", failure.line)),
            }
            return ExitCode::from(failure.exit_code());
        }
    };
    let outcomes = match plan(&args) {
        Ok(pairs) => copy_all(&args, &engine, &interrupt, &pairs),
        Err(failure) => {
            let mut outcome = Outcome::new(&args.sources[0], &args.destination);
            outcome.failure = Some(failure);
            if !args.json {
                outcome.tell(&args);
            }
            vec![outcome]
        }
    };
    if args.json {
        report::print_json(Some(&engine), &outcomes, None, started.elapsed().as_secs_f64());
    }
    let first_failure = outcomes.iter().find_map(|outcome| outcome.failure.as_ref());
    ExitCode::from(first_failure.map_or(0, Failure::exit_code))
}

fn start(args: &Args) -> Result<(Engine, Arc<Interrupt>), Failure> {
    let interrupt = Interrupt::install("aiocp", "interrupted twice: the destination is left as it is", args.json)?;
    let engine = selection::start(args.selection.builder().queue_depth(args.depth))?;
    Ok((engine, interrupt))
}

/// Which source goes where.
fn plan(args: &Args) -> Result<Vec<(&Path, PathBuf)>, Failure> {
    let destination = &args.destination;
    let into_directory = !endpoint::is_standard(destination) && destination.is_dir();
    if args.sources.len() > 1 && !into_directory {
        let line = format!("{} is not a directory: several sources need one", destination.display());
        return Err(Failure::new(line));
    }
    let mut taken = HashSet::new();
    let mut pairs = Vec::new();
    for source in &args.sources {
        let target = match into_directory {
            true => destination.join(name_of(source)?),
            false => destination.clone(),
        };
        if !taken.insert(target.clone()) {
            let line = format!("two sources would become {}: copy them one by one", target.display());
            return Err(Failure::new(line));
        }
        pairs.push((source.as_path(), target));
    }
    Ok(pairs)
}

fn name_of(source: &Path) -> Result<&std::ffi::OsStr, Failure> {
    let name = source.file_name().filter(|_| !endpoint::is_standard(source));
    name.ok_or_else(|| {
        let line = format!("{} has no name to go into a directory with: name the destination", source.display());
        Failure::new(line)
    })
}

/// One after the other. One that fails does not keep the others from being copied, a signal does.
fn copy_all(args: &Args, engine: &Engine, interrupt: &Arc<Interrupt>, pairs: &[(&Path, PathBuf)]) -> Vec<Outcome> {
    let mut job = Job { args, engine, interrupt, spare: Vec::new() };
    let mut outcomes = Vec::with_capacity(pairs.len());
    for (source, destination) in pairs {
        let mut outcome = job.copy(source, destination);
        let rest = pairs.len() - outcomes.len() - 1;
        if interrupt.raised() && rest != 0 && outcome.failure.is_none() {
            outcome.failure = Some(Failure::new(format!("interrupted: {rest} more were not copied")));
        }
        if !args.json {
            outcome.tell(args);
        }
        let usage = outcome.failure.as_ref().is_some_and(|failure| failure.usage);
        outcomes.push(outcome);
        if usage || interrupt.raised() {
            break;
        }
    }
    outcomes
}
