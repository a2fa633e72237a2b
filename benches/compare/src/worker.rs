//! One crate, one job, one round: a process of its own.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;

use crate::arguments::Args;
use crate::buffer::Buffer;
use crate::iobench::finish;
use crate::jobs::{self, BLOCK};
use crate::log::{Log, Source};
use crate::patterns::{Job, Pattern, Request, Sequence};
use crate::results::Measured;
use crate::{peers, usage};

/// What the process is told on its command line.
pub(crate) struct Setting {
    pub(crate) peer: String,
    pub(crate) path: PathBuf,
    pub(crate) pattern: Pattern,
    pub(crate) direct: bool,
    pub(crate) depth: usize,
    size: u64,
    seconds: f64,
    round: u64,
}

/// Runs it as a process.
pub(crate) fn start(job: &jobs::Job, args: &Args, peer: &str, round: u32) -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let (direct, depth, size) = (job.direct, job.depth, job.size);
    let told = serde_json::json!([peer, job.file, job.pattern.name(), direct, depth, size, args.seconds, round]);
    let mut command = Command::new(program);
    command.arg("--worker").arg(told.to_string());
    let object = finish(command)?;
    Measured::of(&object).ok_or_else(|| format!("no figures in {object}"))
}

/// Is that process.
pub(crate) fn run(told: &str) -> Result<Measured, String> {
    let setting = Setting::of(told).ok_or_else(|| format!("not understood: {told}"))?;
    if setting.pattern == Pattern::Extend {
        // iobench has looked before whether it may be emptied.
        std::fs::File::create(&setting.path).map_err(|error| format!("{}: {error}", setting.path.display()))?;
    }
    peers::run(&setting)
}

impl Setting {
    fn of(told: &str) -> Option<Setting> {
        let told: serde_json::Value = serde_json::from_str(told).ok()?;
        Some(Setting {
            peer: told[0].as_str()?.to_string(),
            path: told[1].as_str()?.into(),
            pattern: Pattern::from_str(told[2].as_str()?, false).ok()?,
            direct: told[3].as_bool()?,
            depth: usize::try_from(told[4].as_u64()?).ok()?,
            size: told[5].as_u64()?,
            seconds: told[6].as_f64()?,
            round: told[7].as_u64()?,
        })
    }

    pub(crate) fn open(&self) -> Result<std::fs::File, String> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::File::options();
        options.read(true).write(self.pattern.writes()).custom_flags(if self.direct { libc::O_DIRECT } else { 0 });
        options.open(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Has `all` make all requests twice: to warm up, and to be measured.
    pub(crate) fn measure(&self, mut all: impl FnMut(&Shared) -> Result<(), String>) -> Result<Measured, String> {
        let seconds = Duration::from_secs_f64(self.seconds);
        if self.pattern != Pattern::Extend {
            all(&Shared::new(self, 0, (seconds / 10).min(Duration::from_millis(200))))?;
        }
        let shared = Shared::new(self, 1, seconds);
        let (start, cpu) = (Instant::now(), usage::cpu_time());
        all(&shared)?;
        let (time, cpu) = (start.elapsed(), usage::cpu_time() - cpu);
        let state = shared.0.borrow();
        let quantile = |q| state.log.latency.value_at_quantile(q) as f64 / 1000.0;
        Ok(Measured {
            iops: state.log.requests as f64 / time.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / state.log.requests.max(1) as f64,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            threads: Some(usage::threads()),
        })
    }
}

/// Requests, and what came of them; all tasks are on one thread.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<State>>);

struct State {
    source: Source<'static>,
    log: Log,
}

impl Shared {
    fn new(setting: &Setting, part: u64, time: Duration) -> Shared {
        // Two of them in a process that then ends.
        let job: &'static Job = Box::leak(Box::new(Job::new(setting.pattern, BLOCK, setting.size)));
        let sequence = Sequence::new(job, (setting.round << 32) + part);
        Shared(Rc::new(RefCell::new(State { source: Source::new(sequence, time, &|| false), log: Log::new() })))
    }

    /// The next request, at `now`.
    pub(crate) fn next(&self, now: Instant) -> Option<Request> {
        self.0.borrow_mut().source.next(now)
    }

    /// One that was made at `start` has its result at `now`.
    pub(crate) fn done(&self, start: Instant, now: Instant) {
        self.0.borrow_mut().log.done(now - start);
    }

    /// One place of the depth: a request after the other, by `transfer`.
    pub(crate) async fn serve(
        self,
        transfer: impl AsyncFn(Request, Buffer) -> (std::io::Result<usize>, Buffer),
    ) -> Result<(), String> {
        let (mut now, mut buffer) = (Instant::now(), Buffer::new());
        while let Some(request) = self.next(now) {
            let (result, back) = transfer(request, buffer).await;
            buffer = back;
            let end = Instant::now();
            match result {
                Ok(BLOCK) => self.done(now, end),
                Ok(n) => return Err(format!("short transfer of {n} bytes at byte {}", request.offset)),
                Err(error) => return Err(format!("byte {}: {error}", request.offset)),
            }
            now = end;
        }
        Ok(())
    }
}
