//! How long requests take.

use std::time::Duration;

use super::rng::Rng;

/// A distribution of latencies.
///
/// # Examples
/// ```
/// use polyaio::backends::simulated::{Latency, SimulatedDisk};
/// use std::time::Duration;
/// // A disk that is usually quick, and every thousandth time busy with itself.
/// let latency = Latency::spikes(Duration::from_micros(80), Duration::from_millis(200), 0.001);
/// let disk = SimulatedDisk::builder().latency(latency).build().expect("nothing is wrong with it");
/// assert_eq!(disk.now(), Duration::ZERO);
/// ```
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
    ///
    /// # Examples
    /// What completes at the same time was in flight together: the disk has no heads.
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use std::time::Duration;
    /// let disk = SimulatedDisk::builder().latency(Latency::fixed(Duration::from_millis(10))).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// disk.put("blocks", &[1; 4096]);
    /// let file = OpenOptions::new().read(true).open(&engine, "blocks")?;
    /// let before = disk.now();
    /// file.read_many_at((0..8).map(|block| (vec![0; 512], block * 512))).wait();
    /// assert_eq!((disk.now() - before).as_millis(), 10);
    /// # Ok(()) }
    /// ```
    pub const fn fixed(time: Duration) -> Self {
        Self(Shape::Fixed(time))
    }

    /// Anything from `least` to `most`, all of it alike.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use std::time::Duration;
    /// let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
    /// disk.inject(Fault::delay(Latency::uniform(least, most)).reads())?;
    /// let before = disk.now();
    /// file.read_at(vec![0; 1], 0).wait().0?;
    /// assert!(disk.now() - before >= least && disk.now() - before < most + Duration::from_millis(1));
    /// # Ok(()) }
    /// ```
    pub const fn uniform(least: Duration, most: Duration) -> Self {
        Self(Shape::Uniform(least, most))
    }

    /// Mostly short and sometimes long, as of a queue that is served at random: exponential with this mean. At most 40 times
    /// the mean.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use std::time::Duration;
    /// disk.inject(Fault::delay(Latency::exponential(Duration::from_secs(1))).reads())?;
    /// let before = disk.now();
    /// for _ in 0..100 { file.read_at(vec![0; 1], 0).wait().0?; }
    /// let mean = (disk.now() - before) / 100;
    /// assert!(mean > Duration::from_millis(500) && mean < Duration::from_secs(2), "{mean:?}");
    /// # Ok(()) }
    /// ```
    pub const fn exponential(mean: Duration) -> Self {
        Self(Shape::Exponential(mean))
    }

    /// `usual`, and `spike` with a probability from 0 to 1.
    ///
    /// # Examples
    /// ```
    /// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let disk = SimulatedDisk::builder().seed(7).build()?;
    /// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
    /// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
    /// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
    /// use std::time::Duration;
    /// let (usual, spike) = (Duration::from_micros(80), Duration::from_secs(1));
    /// disk.inject(Fault::delay(Latency::spikes(usual, spike, 0.2)).reads())?;
    /// let before = disk.now();
    /// for _ in 0..100 { file.read_at(vec![0; 1], 0).wait().0?; }
    /// let spikes = (disk.now() - before).as_secs();
    /// assert!((5..50).contains(&spikes), "about 20 of 100: {spikes}");
    /// # Ok(()) }
    /// ```
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
