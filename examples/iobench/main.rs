//! `iobench`: what a request costs, by each engine in turn, beside loops that were written by hand.
//!
//! ```text
//! cargo run --release --example iobench -- --file /var/tmp/scratch --direct --pattern randread \
//!     --engine auto,thread-pool,raw-kernel-aio,raw-threads --plot iobench.svg
//! ```
//!
//! Exit codes: 0 when every engine was measured; 1 when something failed, or a signal came (nothing is printed then); 2 for
//! wrong usage.

#[path = "../../benches/raw/aio.rs"]
mod aio;
mod arguments;
mod engines;
mod figures;
#[path = "../common/interrupt.rs"]
mod interrupt;
mod log;
#[path = "../common/output.rs"]
mod output;
mod patterns;
mod plot;
mod progress;
mod report;
mod round;
mod scratch;
#[path = "../common/selection.rs"]
mod selection;
#[path = "../common/sizes.rs"]
mod sizes;
#[path = "../common/text.rs"]
mod text;
mod usage;

use std::process::ExitCode;

use crate::arguments::Args;
use crate::figures::Figures;
use crate::interrupt::Interrupt;
use crate::round::{Round, Setting};
use crate::text::{Failure, say};

fn main() -> ExitCode {
    let args = arguments::parse();
    match measure(&args).and_then(|all| publish(&args, &all)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("iobench: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The engines in turn, round by round: what else the machine does meets all of them.
fn measure(args: &Args) -> Result<Vec<Figures>, Failure> {
    let interrupt = Interrupt::install("iobench", "interrupted twice: the file is left as it is", false)?;
    let stopped = || Failure::new("interrupted: no figures");
    let size = scratch::prepare(args, &|| interrupt.raised())
        .map_err(|failure| if interrupt.raised() { stopped() } else { failure })?;
    let bar = progress::bar(u64::from(args.rounds) * args.engine.len() as u64);
    let setting = Setting { args, size, threads: usage::threads(), interrupt: &interrupt };
    let mut rounds: Vec<Vec<Round>> = args.engine.iter().map(|_| Vec::new()).collect();
    for number in 0..args.rounds {
        for (engine, done) in args.engine.iter().zip(&mut rounds) {
            bar.set_message(engine.name());
            // The same requests for all engines in a round.
            let round = round::run(*engine, &setting, u64::from(number));
            if interrupt.raised() {
                bar.finish_and_clear();
                return Err(stopped());
            }
            done.push(round.inspect_err(|_| bar.finish_and_clear())?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let pairs = args.engine.iter().zip(&rounds);
    Ok(pairs.map(|(engine, rounds)| Figures::of(*engine, args.block_size, rounds)).collect())
}

/// Prints them, and draws them.
fn publish(args: &Args, all: &[Figures]) -> Result<(), Failure> {
    if let Some(path) = &args.plot {
        let bars: Vec<plot::Bars> = all.iter().map(Figures::bars).collect();
        let title = format!("{}, {} bytes, depth {}", args.pattern.name(), args.block_size, args.depth);
        plot::draw(path, &title, &bars).map_err(Failure::new)?;
    }
    match args.json {
        true => output::print(report::json(args, all)),
        false => output::print(report::table(args, all)),
    }
}
