//! Random numbers that are the same on every machine: the seed is all that decides.

/// SplitMix64: one word of state, each output a mix of it. Not for secrets.
///
/// Each user of chance (a fault, the latencies, a crash) has a stream of its own, so that one more fault in a plan changes
/// nothing of what the others do.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The stream of that number of a seed.
    pub(super) fn stream(seed: u64, number: u64) -> Self {
        Self(mix(seed ^ mix(number.wrapping_add(STEP))))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `bound`; 0 where that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product: the bias is less than `bound` in 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 up to, and without, 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability: never with 0, always with 1. Takes one number in each case.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    #[test]
    fn streams_are_their_own_and_repeat() {
        let draw = |mut rng: Rng| (0..100).map(|_| rng.next()).collect::<Vec<_>>();
        assert_eq!(draw(Rng::stream(1, 2)), draw(Rng::stream(1, 2)));
        assert_ne!(draw(Rng::stream(1, 2)), draw(Rng::stream(1, 3)));
        assert_ne!(draw(Rng::stream(1, 2)), draw(Rng::stream(2, 2)));
        assert_ne!(draw(Rng::stream(1, 2)), draw(Rng::stream(2, 1)));
    }

    /// The bounds of a mean over a fixed stream: a number, and no chance.
    #[test]
    fn chances_are_what_they_are_said_to_be() {
        let mut rng = Rng::stream(1, 1);
        for percent in [0_u32, 1, 10, 50, 90, 99, 100] {
            let hits = (0..100_000).filter(|_| rng.chance(f64::from(percent) / 100.0)).count();
            let off = hits.abs_diff(percent as usize * 1000);
            assert!(off <= if percent % 100 == 0 { 0 } else { 500 }, "{hits} of 100 000 with {percent} %");
        }
        assert!((0..1000).all(|_| rng.below(7) < 7) && rng.below(0) == 0);
        assert_eq!((0..1000).map(|_| rng.below(7)).collect::<std::collections::BTreeSet<_>>().len(), 7);
    }
}
