//! A test that hangs must fail, and say which it was and what it was waiting in.

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

/// Tells a hang from a slow machine, and claims nothing about speed: alone no test takes a fiftieth of this. Long runs ask
/// for more.
const LIMIT: Duration = Duration::from_secs(240);

/// Ends the process when it is not dropped in time.
pub(crate) struct Watchdog {
    _leash: Sender<()>,
}

impl Watchdog {
    pub(crate) fn new(test: impl Into<String>) -> Self {
        let long = std::env::var_os("POLYAIO_TEST_LONG").is_some();
        // For who looks for a hang, and does not want to wait for each.
        let seconds = std::env::var("POLYAIO_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let limit = seconds.map_or(if long { LIMIT * 10 } else { LIMIT }, Duration::from_secs);
        Self::with_limit(test, limit)
    }

    pub(crate) fn with_limit(test: impl Into<String>, limit: Duration) -> Self {
        let test = test.into();
        remember_panics();
        let (leash, called_off) = channel::<()>();
        let watch = move || {
            if called_off.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let panics = crate::tools::lock(&PANICS).join("\n");
                let panics = if panics.is_empty() { panics } else { format!("Panics so far:\n{panics}\n") };
                let message = format!("\nHUNG: {test} did not end within {limit:?}. {panics}Threads:\n{}\n", threads());
                let _ = std::io::stderr().write_all(message.as_bytes());
                // A panic would end this thread only: the one that hangs cannot be ended but with the process.
                std::process::abort();
            }
        };
        std::thread::Builder::new().name("watchdog".into()).spawn(watch).expect("a thread for the watchdog");
        Self { _leash: leash }
    }
}

/// A test that fails in the middle may hang in a destructor, and libtest shows its message at its end only.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let panic = format!("  {}: {info}", thread.name().unwrap_or("?"));
            crate::tools::lock(&PANICS).push(panic);
            usual(info);
        }));
    });
}

/// Each thread's name and where in the kernel it sleeps.
fn threads() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let line = |task: std::fs::DirEntry| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default().trim().to_owned();
        format!("  {:<16} {:<24} {}", read("comm"), read("wchan"), read("syscall"))
    };
    tasks.map(line).collect::<Vec<_>>().join("\n")
}

/// Waits until `condition` holds. The watchdog limits it from above; this message only says what was waited for.
///
/// # Panics
/// After two minutes.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "still not so after two minutes: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// For what a scheduler can spoil and a defect spoils always (the time that something takes, a kernel that is busy): one
/// attempt of many has to hold.
///
/// # Panics
/// With the last attempt's reason, when none has held.
#[track_caller]
pub(crate) fn one_of_many<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    const ATTEMPTS: usize = 25;
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(value) => return value,
            Err(why) => last = why,
        }
    }
    panic!("{what}: not in one of {ATTEMPTS} attempts; in the last one {last}");
}
