//! Seeds: where they come from, and how a failing one is told.

use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::error::Error;

/// Names the seed of disks that are not told one, and the one that [`for_seeds`] runs.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use polyaio::backends::simulated::{ENV_SEED, SimulatedDisk};
/// let disk = SimulatedDisk::builder().build()?;
/// println!("{ENV_SEED}={} repeats it", disk.seed());
/// # if let Ok(seed) = std::env::var(ENV_SEED) { assert_eq!(disk.seed().to_string(), seed) }
/// # Ok(()) }
/// ```
pub const ENV_SEED: &str = "POLYAIO_SIMULATED_SEED";

/// Calls `test` with each seed. Where it panics, the seed is printed to standard error, with the line that repeats it, and
/// the panic goes on.
///
/// With the environment variable `POLYAIO_SIMULATED_SEED` only that seed is run, whether or not it is one of `seeds`.
///
/// # Panics
/// When `test` does, and where the variable is no number.
///
/// # Examples
/// ```
/// use polyaio::backends::simulated::{SimulatedDisk, for_seeds};
/// for_seeds(0..10, |seed| {
///     let disk = SimulatedDisk::builder().seed(seed).build().expect("nothing is wrong with it");
///     assert_eq!(disk.seed(), seed);
/// });
/// ```
#[track_caller]
pub fn for_seeds(seeds: impl IntoIterator<Item = u64>, mut test: impl FnMut(u64)) {
    match named() {
        Ok(Some(seed)) => run(seed, &mut test),
        Ok(None) => seeds.into_iter().for_each(|seed| run(seed, &mut test)),
        Err(error) => panic!("{error}"),
    }
}

fn run(seed: u64, test: &mut impl FnMut(u64)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
        eprintln!("failed with seed {seed}: {ENV_SEED}={seed} repeats it");
        resume_unwind(panic);
    }
}

/// That of the environment, or a random one.
pub(super) fn of_environment() -> Result<u64, Error> {
    // The standard library's way to something random.
    Ok(named()?.unwrap_or_else(|| RandomState::new().hash_one(0)))
}

fn named() -> Result<Option<u64>, Error> {
    let Some(value) = std::env::var_os(ENV_SEED).filter(|value| !value.is_empty()) else { return Ok(None) };
    let seed = value.to_str().and_then(|text| text.parse().ok());
    seed.map(Some).ok_or_else(|| Error::Options(format!("{ENV_SEED} is {value:?}: it must be a number below 2^64")))
}
