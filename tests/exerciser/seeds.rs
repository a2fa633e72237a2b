//! Plans from seeds: the same ones on every run, on every machine and on every backend; and the shortest that fails.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::grounds::Ground;
use crate::plan::{self, Plan};
use crate::run::{self, Served};
use crate::setups::Setup;
use crate::support::{long_tests, report_skip};
use crate::tools::Watchdog;

/// The first of the seeds that are always tried.
const FIRST: u64 = 0x5eed_0001;
/// So many of them; at leisure as many more as there is time for.
const FEW: u64 = 3;
const LEISURE: Duration = Duration::from_secs(8);
/// Steps of a plan, at most.
const STEPS: usize = 24;

/// Runs plans on a file system, each on every engine.
///
/// # Panics
/// If one of them fails, with the shortest form of it.
pub(crate) fn exercise(ground: Result<Ground, String>) {
    let ground = match ground {
        Ok(ground) => ground,
        Err(why) => return report_skip("exerciser", &why),
    };
    let setups = setups(&ground);
    let begin = Instant::now();
    let mut served = Served::new();
    let long = long_tests().is_ok();
    match given_seed() {
        Some(seed) => exercise_seed(seed, &ground, &setups, &mut served),
        None => {
            let wanted = |tried| tried < FEW || long && begin.elapsed() < LEISURE;
            for tried in (0..).take_while(|tried| wanted(*tried)) {
                exercise_seed(FIRST + tried, &ground, &setups, &mut served);
            }
        }
    }
    println!("{}: served by {served:?}", ground.name);
    // Who passes because another one did the work passes nothing. One seed may leave a backend nothing to do.
    let idle = |setup: &&Setup| setup.backend().is_some_and(|name| !served.contains_key(name));
    if given_seed().is_none() && (ground.plain || ground.direct && ground.name != "memory") {
        let idle: Vec<_> = setups.iter().filter(idle).collect();
        assert!(idle.is_empty(), "{idle:?} served nothing: {served:?}");
    }
}

/// The engines that this machine has, and that know the files there.
fn setups(ground: &Ground) -> Vec<Setup> {
    let available = |setup: &Setup| match setup.available() {
        Ok(()) => true,
        Err(why) => {
            report_skip("exerciser", &format!("{setup:?}: {why}"));
            false
        }
    };
    #[cfg(feature = "simulated")]
    if ground.plain {
        return vec![Setup::Simulated, Setup::ThreadPool];
    }
    let _ = ground;
    Setup::ALL.iter().copied().filter(available).collect()
}

/// `POLYAIO_TEST_SEED`, decimal or as `0x...`: the one plan to run.
///
/// # Panics
/// If it is no number.
fn given_seed() -> Option<u64> {
    let text = std::env::var("POLYAIO_TEST_SEED").ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|error| panic!("POLYAIO_TEST_SEED={text}: {error}")))
}

fn exercise_seed(seed: u64, ground: &Ground, setups: &[Setup], served: &mut Served) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { failure_persistence: None, max_shrink_iters: 4096, max_shrink_time: 30_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let plan = plan::plans(STEPS).new_tree(&mut runner).expect("nothing is filtered");
    let failed = Cell::new(None);
    let total = RefCell::new(served);
    let test = |plan: Plan| try_plan(&plan, seed, ground, setups, &failed, &mut total.borrow_mut());
    match runner.run_one(plan, test) {
        Ok(_) => {}
        Err(TestError::Fail(why, plan)) => panic!("{}", report(seed, ground, &why.to_string(), &plan)),
        Err(TestError::Abort(why)) => panic!("seed {seed:#x}: {why}"),
    }
}

/// Runs a plan on every engine; all must end in the same checksum.
fn try_plan(
    plan: &Plan,
    seed: u64,
    ground: &Ground,
    setups: &[Setup],
    failed: &Cell<Option<Setup>>,
    served: &mut Served,
) -> Result<(), TestCaseError> {
    let mut first: Option<(Setup, String)> = None;
    // While a failing plan is made shorter, the engine that it failed on is the only one of interest; and what is a matter
    // of luck may need several attempts.
    let (setups, attempts) = match failed.get() {
        Some(setup) => (vec![setup], 4),
        None => (setups.to_vec(), 1),
    };
    for setup in setups.iter().flat_map(|setup| std::iter::repeat_n(*setup, attempts)) {
        let _watchdog = Watchdog::new(format!("exerciser, seed {seed:#x}, on {} with {setup:?}", ground.name));
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run::run(plan, setup, ground, served).and_then(|sum| crate::freed::check().map(|()| sum))
        }));
        let end = end.unwrap_or_else(|panic| Err(format!("a panic: {}", message(&*panic))));
        let other = first.as_ref().filter(|(_, sum)| end.as_ref().is_ok_and(|end| end != sum));
        let why = match (&end, other) {
            (Err(why), _) => format!("{setup:?}: {why}"),
            (Ok(sum), Some((other, other_sum))) => format!("{setup:?} ends in {sum}, {other:?} in {other_sum}"),
            (Ok(_), None) => {
                first = first.or(end.ok().map(|sum| (setup, sum)));
                continue;
            }
        };
        failed.set(Some(setup));
        return Err(TestCaseError::fail(why));
    }
    Ok(())
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("not in words")
}

fn report(seed: u64, ground: &Ground, why: &str, plan: &Plan) -> String {
    let name = ground.name;
    let mut text = format!(
        "on {name}, {why}\nagain: POLYAIO_TEST_SEED={seed:#x} cargo test --test exerciser {name}\n\
         the shortest plan that fails: {:?}, {:?}\n",
        plan.tuning, plan.open
    );
    for (number, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "  {number}: {step:?}");
    }
    text
}
