//! The figures of an engine, from all of its rounds.

use std::collections::BTreeMap;

use crate::engines::EngineName;
use crate::log::Log;
use crate::plot::Bars;
use crate::report::us;
use crate::round::Round;
use crate::selection::Tally;

/// Those that are not distributions are the median of the rounds, unless said otherwise.
pub(crate) struct Figures {
    pub(crate) engine: EngineName,
    pub(crate) iops: f64,
    pub(crate) mib_per_s: f64,
    pub(crate) cpu_us_per_op: f64,
    /// Of all rounds.
    pub(crate) log: Log,
    /// Of all rounds; 0 where nothing was submitted, because all was served in the caller.
    pub(crate) ops_per_submit: f64,
    /// The most of any round.
    pub(crate) threads: u64,
    /// The most of any round.
    pub(crate) rss_kib: u64,
    /// Of all rounds.
    pub(crate) tally: Tally,
    /// In their order: requests per second, and microseconds of CPU time per request.
    pub(crate) rounds: Vec<(f64, f64)>,
}

/// An engine that serves a smaller share of its requests itself is not what was measured.
const OWN_SHARE_MIN: f64 = 0.99;

impl Figures {
    /// Of `rounds`, of which there is one at least.
    pub(crate) fn of(engine: EngineName, block_size: usize, rounds: &[Round]) -> Figures {
        let mut log = Log::new();
        let mut tally = Tally::default();
        for round in rounds {
            log.add(&round.log);
            add(&mut tally.served_by, &round.tally.served_by);
            add(&mut tally.fallbacks, &round.tally.fallbacks);
        }
        let rates = |round: &Round| {
            let requests = round.log.requests as f64;
            (requests / round.time.as_secs_f64(), round.cpu.as_secs_f64() * 1e6 / requests.max(1.0))
        };
        let each: Vec<(f64, f64)> = rounds.iter().map(rates).collect();
        let iops = median(each.iter().map(|round| round.0).collect());
        Figures {
            engine,
            iops,
            mib_per_s: iops * block_size as f64 / f64::from(1 << 20),
            cpu_us_per_op: median(each.iter().map(|round| round.1).collect()),
            ops_per_submit: if log.batches == 0 { 0.0 } else { log.submitted as f64 / log.batches as f64 },
            threads: rounds.iter().map(|round| round.threads).max().unwrap_or(0),
            rss_kib: rounds.iter().map(|round| round.rss_kib).max().unwrap_or(0),
            tally,
            log,
            rounds: each,
        }
    }

    /// The share of the requests (0 to 1) that the engine has served itself; what `auto` serves is right, whoever does it.
    pub(crate) fn own_share(&self) -> f64 {
        let all: u64 = self.tally.served_by.values().sum();
        match self.engine.wanted() {
            Some(name) if all > 0 => *self.tally.served_by.get(name).unwrap_or(&0) as f64 / all as f64,
            _ => 1.0,
        }
    }

    /// What is drawn of it.
    pub(crate) fn bars(&self) -> Bars {
        Bars {
            name: self.engine.name().to_string(),
            iops: self.iops,
            cpu_us: self.cpu_us_per_op,
            p50_us: us(&self.log.latency, 0.5),
            p99_us: us(&self.log.latency, 0.99),
        }
    }

    /// What is to be said of an engine whose figures are those of others.
    pub(crate) fn warning(&self) -> Option<String> {
        let share = self.own_share();
        let name = self.engine.name();
        // Rounded down, so that what is too little does not look like enough.
        let percent = (share * 1000.0).floor() / 10.0;
        (share < OWN_SHARE_MIN)
            .then(|| format!("{name} has served only {percent} % of its requests itself: {}", self.tally))
    }
}

fn add(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, count) in more {
        *sum.entry(name.clone()).or_default() += count;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
