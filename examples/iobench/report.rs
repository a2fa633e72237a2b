//! The figures as a table for people, and as JSON for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::arguments::Args;
use crate::figures::Figures;

/// The percentiles that are reported, by the names of their keys.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// An array, with an object per engine.
pub(crate) fn json(args: &Args, all: &[Figures]) -> Value {
    all.iter().map(|figures| object(args, figures)).collect()
}

fn object(args: &Args, figures: &Figures) -> Value {
    let round = |&(iops, cpu_us): &(f64, f64)| json!({ "iops": tenths(iops), "cpu_us_per_op": thousandths(cpu_us) });
    let mut object = json!({
        "engine": figures.engine.name(),
        "iops": tenths(figures.iops),
        "mib_per_s": tenths(figures.mib_per_s),
        "latency_us": distribution(&figures.log.latency),
        "submit_us": distribution(&figures.log.submit),
        "submit_nvcsw": figures.log.submit_nvcsw,
        "cpu_us_per_op": tenths(figures.cpu_us_per_op),
        "ops_per_submit": tenths(figures.ops_per_submit),
        "threads": figures.threads,
        "rss_kib": figures.rss_kib,
        "served_by": figures.tally.served_by,
        "fallbacks": figures.tally.fallbacks,
        "own_share": thousandths(figures.own_share()),
        "requests": figures.log.requests,
        "pattern": args.pattern.name(),
        "block_size": args.block_size,
        "depth": args.depth,
        "direct": args.direct,
        "executor": if figures.engine.is_raw() { Value::Null } else { json!(args.executor.name()) },
        "rounds": figures.rounds.iter().map(round).collect::<Value>(),
    });
    if let Some(warning) = figures.warning() {
        object["warning"] = json!(warning);
    }
    object
}

/// Microseconds.
fn distribution(histogram: &Histogram<u64>) -> Value {
    let mut object: Value = QUANTILES.iter().map(|(key, q)| (*key, us(histogram, *q))).collect();
    object["max"] = json!(us(histogram, 1.0));
    object
}

/// To one decimal.
pub(crate) fn us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    // A histogram says the upper end of a bucket, which no value may have reached.
    tenths(histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1000.0)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Rounded down: a share that is not whole does not look so.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).floor() / 1000.0
}

const HEADINGS: [&str; 12] = [
    "engine",
    "IOPS",
    "MiB/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "CPU us/op",
    "submit p50",
    "p99.9",
    "slept",
    "ops/submit",
    "threads",
];

/// A line per engine, what served where that needs to be said, and what the figures mean.
pub(crate) fn table(args: &Args, all: &[Figures]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_string)];
    rows.extend(all.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let line = |row: &[String; HEADINGS.len()]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells
            .map(|(at, (cell, &width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join("  ")
    };
    let title = format!(
        "{} of {} bytes, depth {}, {} thread{}, {}, executor {}, {} round{} of {} s",
        args.pattern.name(),
        args.block_size,
        args.depth,
        args.threads,
        if args.threads == 1 { "" } else { "s" },
        if args.direct { "direct" } else { "buffered" },
        args.executor.name(),
        args.rounds,
        if args.rounds == 1 { "" } else { "s" },
        args.seconds.as_secs_f64(),
    );
    let served = all.iter().map(|figures| format!("{}: {}", figures.engine.name(), figures.tally));
    let warnings = all.iter().filter_map(Figures::warning).map(|warning| format!("WARNING: {warning}"));
    std::iter::once(title).chain(rows.iter().map(line)).chain(served).chain(warnings).collect::<Vec<_>>().join("\n")
}

fn row(figures: &Figures) -> [String; HEADINGS.len()] {
    let (latency, submit) = (&figures.log.latency, &figures.log.submit);
    let one = |value: f64| format!("{value:.1}");
    [
        figures.engine.name().to_string(),
        format!("{:.0}", figures.iops),
        one(figures.mib_per_s),
        one(us(latency, 0.5)),
        one(us(latency, 0.99)),
        one(us(latency, 0.999)),
        one(figures.cpu_us_per_op),
        one(us(submit, 0.5)),
        one(us(submit, 0.999)),
        figures.log.submit_nvcsw.to_string(),
        one(figures.ops_per_submit),
        figures.threads.to_string(),
    ]
}
