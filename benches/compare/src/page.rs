//! `docs/benchmarks.md`: the part between two marks is made here, the rest is written by hand.

use std::fmt::Write as _;
use std::path::Path;

use crate::arguments::Args;
use crate::machine;
use crate::plot;
use crate::results::{Entry, Measured, Results};

const BEGIN: &str = "<!-- made by benches/compare: begin -->\n";
const END: &str = "<!-- made by benches/compare: end -->\n";

/// Replaces the tables and the plots.
pub(crate) fn write(args: &Args, all: &[Results], load: &str) -> Result<(), String> {
    let path = args.out.join("benchmarks.md");
    let failed = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
    let page = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
    let (before, rest) = page.split_once(BEGIN).ok_or("benchmarks.md has no place for the tables")?;
    let (_, after) = rest.split_once(END).ok_or("benchmarks.md has no end of the tables")?;
    let plots = args.out.join("benchmarks");
    std::fs::create_dir_all(&plots).map_err(|error| failed(&plots, error))?;
    let mut made = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(made, "`cargo run --release --manifest-path benches/compare/Cargo.toml -- {}`\n", args.shown());
    for line in machine::describe(args, load) {
        let _ = writeln!(made, "- {line}");
    }
    for results in all {
        section(&mut made, results);
        let bars: Vec<_> = results.entries.iter().filter(|entry| entry.is_whole()).map(Entry::bars).collect();
        plot::draw(&plots.join(format!("{}.svg", results.name)), &results.title, &bars)?;
    }
    let page = format!("{before}{BEGIN}\n{made}\n{END}{after}");
    std::fs::write(&path, page).map_err(|error| failed(&path, error))
}

fn section(made: &mut String, results: &Results) {
    let reference = results.reference();
    let _ = writeln!(made, "\n### {}\n", results.title);
    let _ = writeln!(made, "![{}](benchmarks/{}.svg)\n", results.title, results.name);
    let _ = writeln!(made, "| | IOPS | × {0} | CPU µs | × {0} | p50 µs | p99 µs | threads |", results.reference);
    let _ = writeln!(made, "|---|--:|--:|--:|--:|--:|--:|--:|");
    for entry in results.entries.iter().filter(|entry| entry.is_whole()) {
        let ratio = |of: fn(&Measured) -> f64| reference.map_or(f64::NAN, |reference| entry.ratio(reference, of));
        let bars = entry.bars();
        let threads = entry.rounds.iter().filter_map(|round| round.threads).max();
        let _ = writeln!(
            made,
            "| {} | {:.0} | {} | {} | {} | {:.1} | {:.1} | {} |",
            bars.name,
            bars.iops,
            known(ratio(|round| round.iops)),
            known(bars.cpu_us),
            known(ratio(|round| round.cpu_us)),
            bars.p50_us,
            bars.p99_us,
            threads.map_or("–".to_string(), |threads| threads.to_string()),
        );
    }
    for entry in &results.entries {
        if let Some(why) = &entry.failure {
            let _ = writeln!(made, "\nNot measured: {}: {why}.", entry.contender.name());
        }
    }
}

/// To two decimals, if it is a number.
fn known(value: f64) -> String {
    if value.is_nan() { "–".to_string() } else { format!("{value:.2}") }
}
