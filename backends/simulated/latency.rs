//! How long requests take.

use std::time::Duration;

use super::rng::Rng;

/// A distribution of latencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency(Shape);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Fixed(Duration),
    Uniform(Duration, Duration),
    Exponential(Duration),
    Spikes { usual: Duration, spike: Duration, probability: f64 },
}

impl Latency {
    /// Always the same.
    pub const fn fixed(time: Duration) -> Self {
        Self(Shape::Fixed(time))
    }

    /// Anything from `least` to `most`, all of it alike.
    pub const fn uniform(least: Duration, most: Duration) -> Self {
        Self(Shape::Uniform(least, most))
    }

    /// Mostly short and sometimes long, as of a queue that is served at random: exponential with this mean. At most 40 times
    /// the mean.
    pub const fn exponential(mean: Duration) -> Self {
        Self(Shape::Exponential(mean))
    }

    /// `usual`, and `spike` with a probability from 0 to 1.
    pub const fn spikes(usual: Duration, spike: Duration, probability: f64) -> Self {
        Self(Shape::Spikes { usual, spike, probability })
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> Duration {
        match self.0 {
            Shape::Fixed(time) => time,
            Shape::Uniform(least, most) => {
                let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX - 1);
                least + Duration::from_nanos(rng.below(span + 1))
            }
            Shape::Exponential(mean) => {
                // The fraction is below 1 by at least 2^-53.
                let factor = -(1.0 - rng.fraction()).ln();
                Duration::try_from_secs_f64(mean.as_secs_f64() * factor.min(40.0)).unwrap_or(Duration::MAX)
            }
            Shape::Spikes { usual, spike, probability } => {
                if rng.chance(probability) {
                    spike
                } else {
                    usual
                }
            }
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_they_should_be() {
        let (ms, mut rng) = (Duration::from_millis, Rng::stream(1, 0));
        let cases = [
            (Latency::fixed(ms(5)), 5.0, ms(5)..ms(6)),
            (Latency::uniform(ms(2), ms(8)), 5.0, ms(2)..ms(9)),
            (Latency::exponential(ms(5)), 5.0, ms(0)..ms(200)),
            (Latency::spikes(ms(1), ms(41), 0.1), 5.0, ms(1)..ms(42)),
        ];
        for (latency, mean, range) in cases {
            let draws: Vec<_> = (0..100_000).map(|_| latency.draw(&mut rng)).collect();
            assert!(draws.iter().all(|time| range.contains(time)), "{latency:?}");
            let have = draws.iter().sum::<Duration>().as_secs_f64() * 1000.0 / draws.len() as f64;
            assert!((have - mean).abs() < 0.15, "{latency:?}: {have} ms");
        }
    }
}
