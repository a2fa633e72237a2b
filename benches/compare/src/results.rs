//! Figures, and their medians over the rounds.

use serde_json::{Value, json};

use crate::jobs::{Contender, Job};
use crate::plot::Bars;

/// One contender in one round.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) iops: f64,
    /// Microseconds of CPU time per request, of all threads of the process; not a number where nobody knows.
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of the process, where it is known.
    pub(crate) threads: Option<u64>,
}

impl Measured {
    pub(crate) fn json(&self) -> Value {
        json!({
            "iops": self.iops,
            "cpu_us_per_op": self.cpu_us,
            "latency_us": { "p50": self.p50_us, "p99": self.p99_us },
            "threads": self.threads,
        })
    }

    /// Of an object of `iobench`, or of [`Measured::json`].
    pub(crate) fn of(object: &Value) -> Option<Measured> {
        // With more digits than the median of the rounds, of which there is one.
        let cpu = object["rounds"][0]["cpu_us_per_op"].as_f64().or_else(|| object["cpu_us_per_op"].as_f64());
        Some(Measured {
            iops: object["iops"].as_f64()?,
            cpu_us: cpu?,
            p50_us: object["latency_us"]["p50"].as_f64()?,
            p99_us: object["latency_us"]["p99"].as_f64()?,
            threads: object["threads"].as_u64(),
        })
    }
}

/// One contender in all rounds.
pub(crate) struct Entry {
    pub(crate) contender: Contender,
    pub(crate) rounds: Vec<Measured>,
    /// Why it was not measured (any more).
    pub(crate) failure: Option<String>,
}

impl Entry {
    /// Whether it has figures.
    pub(crate) fn is_whole(&self) -> bool {
        self.failure.is_none() && !self.rounds.is_empty()
    }

    pub(crate) fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// The median of the ratios to another one, round by round.
    pub(crate) fn ratio(&self, other: &Entry, of: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, others)| of(own) / of(others)).collect())
    }

    pub(crate) fn bars(&self) -> Bars {
        Bars {
            name: self.contender.name(),
            iops: self.median(|round| round.iops),
            cpu_us: self.median(|round| round.cpu_us),
            p50_us: self.median(|round| round.p50_us),
            p99_us: self.median(|round| round.p99_us),
        }
    }
}

/// All contenders of a job.
pub(crate) struct Results {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) reference: &'static str,
    pub(crate) entries: Vec<Entry>,
}

impl Results {
    pub(crate) fn new(job: &Job, contenders: Vec<Contender>) -> Results {
        let entry = |contender| Entry { contender, rounds: Vec::new(), failure: None };
        let entries = contenders.into_iter().map(entry).collect();
        Results { name: job.name, title: job.title.clone(), reference: job.reference, entries }
    }

    /// What the others are compared with, if it has worked.
    pub(crate) fn reference(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_whole() && entry.contender.name() == self.reference)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
