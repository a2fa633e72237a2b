//! Which faults strike a request: conditions, counters and dice.

use std::ops::Range;
use std::time::Duration;

use super::asked::Asked;
use super::crash::Crash;
use super::faults::{Effect, Fault};
use super::rng::Rng;
use crate::completion::Errno;

/// Streams of the seed that faults have: those of the disk itself are below.
const FIRST_STREAM: u64 = 1 << 32;

/// Faults, and what is counted of each.
#[derive(Debug)]
pub(super) struct Plan {
    seed: u64,
    /// How many there ever were: each has a stream of its own.
    count: u64,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    id: FaultId,
    fault: Fault,
    matched: u64,
    struck: u64,
    dice: Rng,
}

/// Names a fault that was added to a disk.
///
/// # Examples
/// ```
/// # use polyaio::{Engine, OpenOptions, Policy, backends::simulated::*};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let disk = SimulatedDisk::builder().seed(7).build()?;
/// # let engine = Engine::builder().backend(disk.backend()).policy(Policy::Require(NAME.into())).build()?;
/// # let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "data")?;
/// # file.write_all_at(vec![1; 4096], 0).wait().into_result()?;
/// let weak: FaultId = disk.inject(Fault::error(libc::EIO).reads())?;
/// assert!(file.read_at(vec![0; 1], 0).wait().0.is_err());
/// assert_eq!(disk.struck(weak), Some(1));
/// disk.lift(weak);
/// assert!(file.read_at(vec![0; 1], 0).wait().0.is_ok() && disk.struck(weak).is_none());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

/// What is done to one request.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// No room.
    pub(super) queue_full: bool,
    /// Refused at submission.
    pub(super) refused: Option<Errno>,
    /// Completed with an error.
    pub(super) error: Option<Errno>,
    /// Bytes to transfer at the most.
    pub(super) short: Option<u64>,
    pub(super) delay: Duration,
    /// What becomes of the stored bytes, or of the way to them.
    pub(super) harms: Vec<Harm>,
    /// A sync fails and loses what it should cover; whether reads still see it.
    pub(super) failed_sync: Option<(Errno, bool)>,
    pub(super) power_loss: Option<Crash>,
    /// The names of all of them.
    pub(super) names: Vec<&'static str>,
}

/// Damage that is done when the request is served.
#[derive(Clone, Debug)]
pub(super) struct Harm {
    pub(super) effect: Effect,
    /// Nothing outside of it is touched.
    pub(super) within: Range<u64>,
    /// What is not decided yet is decided by it.
    pub(super) dice: Rng,
}

impl Plan {
    pub(super) fn new(seed: u64, faults: Vec<Fault>) -> Self {
        let mut plan = Self { seed, count: 0, rules: Vec::new() };
        for fault in faults {
            plan.add(fault);
        }
        plan
    }

    pub(super) fn add(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.count);
        let dice = Rng::stream(self.seed, FIRST_STREAM + self.count);
        self.rules.push(Rule { id, fault, matched: 0, struck: 0, dice });
        self.count += 1;
        id
    }

    pub(super) fn remove(&mut self, id: FaultId) {
        self.rules.retain(|rule| rule.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How often a fault has struck; `None` where it is not in the plan.
    pub(super) fn struck(&self, id: FaultId) -> Option<u64> {
        self.rules.iter().find(|rule| rule.id == id).map(|rule| rule.struck)
    }

    /// Whether any fault is about a certain file.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "for FaultInjecting"))]
    pub(super) fn asks_for_paths(&self) -> bool {
        self.rules.iter().any(|rule| rule.fault.path.is_some() || rule.fault.when.is_some())
    }

    /// Decides about a request.
    pub(super) fn judge(&mut self, asked: &Asked<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        // What is refused meets the other faults when it is offered again, and not twice.
        for refuses in [true, false] {
            for rule in self.rules.iter_mut().filter(|rule| rule.fault.effect.refuses() == refuses) {
                if rule.strikes(asked) {
                    rule.apply(asked, &mut verdict);
                }
            }
            if verdict.queue_full || verdict.refused.is_some() {
                break;
            }
        }
        verdict
    }
}

impl Rule {
    fn strikes(&mut self, asked: &Asked<'_>) -> bool {
        let Self { fault, matched, struck, dice, .. } = self;
        if !fault.matches(asked) {
            return false;
        }
        *matched += 1;
        let counted = fault.nth.is_none_or(|nth| *matched == nth)
            && fault.every.is_none_or(|every| matched.is_multiple_of(every))
            && *matched > fault.after
            && *struck < fault.times;
        // The dice fall for each that matches, so that the counters do not change when others are struck.
        let strikes = dice.chance(fault.probability) && counted;
        *struck += u64::from(strikes);
        strikes
    }

    /// The first of several answers counts; delays add up.
    fn apply(&mut self, asked: &Asked<'_>, verdict: &mut Verdict) {
        let dice = &mut self.dice;
        match self.fault.effect {
            Effect::Error { errno, at_submit: true } => _ = verdict.refused.get_or_insert(errno),
            Effect::Error { errno, at_submit: false } => _ = verdict.error.get_or_insert(errno),
            Effect::Short(bytes) => {
                let units = bytes.map_or_else(|| 1 + dice.below((asked.length - 1) / asked.unit), |b| b / asked.unit);
                let bytes = units * asked.unit;
                verdict.short = Some(verdict.short.map_or(bytes, |other| other.min(bytes)));
            }
            Effect::Delay(latency) => verdict.delay = verdict.delay.saturating_add(latency.draw(dice)),
            Effect::QueueFull => verdict.queue_full = true,
            Effect::FailedSync { errno, cached } => _ = verdict.failed_sync.get_or_insert((errno, cached)),
            Effect::PowerLoss(mode) => _ = verdict.power_loss.get_or_insert(mode),
            effect @ (Effect::LatentError | Effect::BitRot(_) | Effect::Misdirected | Effect::LostWrite) => {
                let within = self.fault.range.clone().unwrap_or(0..u64::MAX);
                verdict.harms.push(Harm { effect, within, dice: Rng::stream(dice.next(), 0) });
            }
        }
        verdict.names.push(self.fault.effect.name());
    }
}

impl Verdict {
    /// Whether nothing of a write would ever reach the disk.
    pub(super) fn refuses_to_write(&self) -> bool {
        self.error.is_some() || self.harms.iter().any(|harm| harm.effect == Effect::LostWrite)
    }
}
