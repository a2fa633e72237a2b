//! What an engine has done, as JSON and, made from that, as text.

use std::fmt::Write;

use polyaio::{BackendStats, Engine, Histogram, InlineStats};
use serde_json::{Map, Value, json};

/// Everything that the engine counts.
pub(crate) fn json(engine: &Engine) -> Value {
    let stats = engine.stats();
    let fallbacks: Map<_, _> = stats.fallbacks.iter().map(|(reason, n)| (reason.to_string(), json!(n))).collect();
    json!({
        "backends": stats.backends.iter().map(backend).collect::<Value>(),
        "inline": inline(&stats.inline),
        "streams": inline(&stats.streams),
        "fallbacks": fallbacks,
        "anomalies": {
            "implausible": stats.anomalies.implausible,
            "unknown_ids": stats.anomalies.unknown_ids,
            "undriven": stats.anomalies.undriven,
        },
    })
}

fn backend(backend: &BackendStats) -> Value {
    json!({
        "name": backend.name,
        "requests": backend.requests,
        "bytes": backend.bytes,
        "errors": backend.errors,
        "batches": backend.batches,
        "submitted": backend.submitted,
        "queue_full": backend.busy,
        "nowait_hits": backend.nowait_hits,
        "nowait_misses": backend.nowait_misses,
        "short_transfers": backend.short,
        "reaps": backend.reaps,
        "in_flight": backend.in_flight,
        "waiting": backend.waiting,
        "slow_submits": backend.slow_submits,
        "submit_nanoseconds_median": backend.submit_ns.quantile(0.5).unwrap_or(0),
        "submit_nanoseconds_max": backend.submit_ns.max(),
        "submit_nanoseconds": histogram(&backend.submit_ns),
        "batch_size_max": backend.batch_sizes.max(),
        "batch_sizes": histogram(&backend.batch_sizes),
    })
}

/// What was counted, as pairs of the largest value of a bucket and the number in it.
fn histogram(histogram: &Histogram) -> Value {
    histogram.buckets().map(|(most, count)| json!([most, count])).collect()
}

fn inline(stats: &InlineStats) -> Value {
    json!({ "hits": stats.requests, "bytes": stats.bytes, "misses": stats.misses })
}

/// The same for people, a line each.
pub(crate) fn text(statistics: &Value) -> String {
    let mut text = "statistics".to_string();
    // Writing to a `String` cannot fail.
    for backend in statistics["backends"].as_array().into_iter().flatten() {
        let _ = write!(text, "\n  {}: {}", backend["name"].as_str().unwrap_or_default(), counts(backend));
    }
    for (title, key) in [("in the caller", "inline"), ("streams", "streams"), ("anomalies", "anomalies")] {
        let _ = write!(text, "\n  {title}: {}", counts(&statistics[key]));
    }
    let fallbacks = &statistics["fallbacks"];
    let none = fallbacks == &json!({});
    let _ = write!(text, "\n  fallbacks: {}", if none { "none".to_string() } else { counts(fallbacks) });
    text
}

/// Every number of an object with its name.
fn counts(object: &Value) -> String {
    let numbers = object.as_object().into_iter().flatten().filter(|(_, value)| value.is_number());
    numbers.map(|(name, n)| format!("{} {n}", name.replace('_', " "))).collect::<Vec<_>>().join(", ")
}
