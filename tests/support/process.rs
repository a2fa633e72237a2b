//! Running a program under a watchdog: a hang becomes a failure that shows what was printed until then.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::machine::long_tests;

/// Tells a hang from a slow machine, and claims nothing about speed: alone nothing takes a fiftieth of this. Gigabytes may,
/// on a slow disk.
fn limit() -> Duration {
    Duration::from_secs(if long_tests().is_ok() { 600 } else { 200 })
}

/// The example's executable, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // .../target/debug/deps/test-hash, and .../target/debug/examples/name.
    let profile_dir = test.parent().and_then(|deps| deps.parent()).expect("a test inside of a target directory");
    let path = profile_dir.join("examples").join(name);
    let hint = "`cargo test` builds it; after `cargo test --test ...` alone, run `cargo build --examples`";
    assert!(path.is_file(), "{} is not built: {hint}", path.display());
    path
}

/// Standard streams and environment as every test wants them unless it says otherwise.
pub(crate) fn quiet(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The suite runs once per forced backend; who is to serve a test's program is said on its command line.
    command.env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT");
    // Who serves must not depend on how busy the machine is.
    command.env("POLYAIO_SLOW_SUBMIT_US", "1000000000");
}

/// A process that is killed, with all that it started, when its time is over or its test fails.
pub(crate) struct Watched {
    child: Child,
    /// `None` once it was called off: the process is reaped, or about to be.
    watchdog: Option<Watchdog>,
    started: Instant,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    what: String,
}

/// What a process left.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// Empty if it was not piped.
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
    /// The highest `VmHWM` seen, in KiB; 0 if it was not asked for.
    pub(crate) peak_memory_kib: u64,
    what: String,
}

impl Watched {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_limit(command, limit())
    }

    /// Starts the command in a process group of its own. Outputs that are piped are read all the time, so that a full
    /// pipe never stops it.
    pub(crate) fn start_with_limit(command: &mut Command, limit: Duration) -> Self {
        let what = format!("{command:?}");
        let mut child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let (stdout, stderr) = (child.stdout.take().map(drain), child.stderr.take().map(drain));
        let watchdog = Some(Watchdog::start(child.id(), limit));
        Self { child, watchdog, started: Instant::now(), stdout, stderr, what }
    }

    /// The process's standard input, if it was piped. A test that waits for it to be read waits for the watchdog at
    /// most: that closes the other end.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input was piped")
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is not reaped yet (that takes self), so the number is still its own.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(sent, 0, "{}: kill: {}", self.what, io::Error::last_os_error());
    }

    /// Waits for `condition` to have a value, while the process runs. It is given the process's number.
    ///
    /// # Panics
    /// When the process ends before, by itself or by the watchdog.
    pub(crate) fn until<T>(&mut self, what: &str, mut condition: impl FnMut(u32) -> Option<T>) -> T {
        loop {
            if let Some(value) = condition(self.child.id()) {
                return value;
            }
            if has_ended(self.child.id(), libc::WNOHANG) {
                let (finished, hung) = self.collect(0);
                panic!("{} without {what}: {finished}", if hung { "hung" } else { "ended" });
            }
            std::thread::yield_now();
        }
    }

    /// Waits for the end of it.
    ///
    /// # Panics
    /// When the time is over, with all that it printed; and when it panicked: no input may ever cause that.
    pub(crate) fn finish(mut self) -> Finished {
        // Never for ever: the watchdog sees to that.
        while !has_ended(self.child.id(), 0) {}
        self.conclude(0)
    }

    /// The same, and looks at its memory all the while. A sample can miss a peak in the last millisecond, and can
    /// never show one that was not there. (`ru_maxrss` can: it includes the size of the test that forked.)
    pub(crate) fn finish_measured(mut self) -> Finished {
        let mut peak_memory_kib = 0;
        while !has_ended(self.child.id(), libc::WNOHANG) {
            peak_memory_kib = peak_memory_kib.max(peak_memory(self.child.id()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(1));
        }
        self.conclude(peak_memory_kib)
    }

    fn conclude(&mut self, peak_memory_kib: u64) -> Finished {
        let (finished, hung) = self.collect(peak_memory_kib);
        assert!(!hung, "hung: {finished}\nand on stdout: {} bytes", finished.stdout.len());
        assert!(!finished.stderr.contains("panicked at"), "it panicked: {finished}");
        finished
    }

    /// Reaps what has ended, and returns whether the watchdog was needed for that.
    fn collect(&mut self, peak_memory_kib: u64) -> (Finished, bool) {
        let elapsed = self.started.elapsed();
        let hung = self.watchdog.take().is_some_and(Watchdog::call_off);
        // Somebody whom it started may still be there, and hold its outputs open.
        kill_group(self.child.id());
        let status = self.child.wait().expect("a child of ours");
        let read = |pump: &mut Option<JoinHandle<Vec<u8>>>| {
            pump.take().map_or_else(Vec::new, |pump| pump.join().expect("a reader that does not panic"))
        };
        let (stdout, stderr) = (read(&mut self.stdout), read(&mut self.stderr));
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let what = std::mem::take(&mut self.what);
        (Finished { status, stdout, stderr, elapsed, peak_memory_kib, what }, hung)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.call_off();
            kill_group(self.child.id());
            let _ = self.child.wait();
        }
    }
}

/// Kills a process group when its time is over, whatever its test is waiting for by then.
struct Watchdog {
    leash: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// The process must not be reaped before the watchdog is called off: its number might be another's by then.
    fn start(id: u32, limit: Duration) -> Self {
        let (leash, called_off) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let over = called_off.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if over {
                kill_group(id);
            }
            over
        });
        Self { leash, thread }
    }

    /// Returns whether it has bitten.
    fn call_off(self) -> bool {
        drop(self.leash);
        self.thread.join().expect("a watchdog that does not panic")
    }
}

/// `id` is the leader of its group, and not reaped yet.
fn kill_group(id: u32) {
    // SAFETY: the leader is a child that is not reaped, so the number is still its own.
    unsafe { libc::killpg(id as libc::pid_t, libc::SIGKILL) };
}

/// Whether the process has ended; it stays unreaped, so that its number is not given to another. Waits for it unless
/// `how` is `WNOHANG`, and returns false when it was interrupted.
fn has_ended(id: u32, how: libc::c_int) -> bool {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes one siginfo_t through the pointer, or leaves the zeros, which are valid too.
    let info = unsafe {
        libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT | how);
        info.assume_init()
    };
    // It stays 0 as long as nothing has ended.
    info.si_signo != 0
}

impl Finished {
    /// The exit code; `None` if a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[track_caller]
    pub(crate) fn expect_code(self, want: i32) -> Self {
        assert_eq!(self.code(), Some(want), "{self}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        self.expect_code(0)
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match self.status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => format!("exit {:?}", self.status.code()),
        };
        write!(f, "{}\n{end} after {:.1?}; on stderr:\n{}", self.what, self.elapsed, self.stderr)
    }
}

/// The process handles this signal itself: sent before that, it only shows what signals do by default.
pub(crate) fn handles_signal(id: u32, signal: libc::c_int) -> bool {
    let mask = proc_status(id, "SigCgt:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

fn proc_status(id: u32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
}

fn peak_memory(id: u32) -> Option<u64> {
    proc_status(id, "VmHWM:")?.strip_suffix("kB")?.trim().parse().ok()
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut data = Vec::new();
        // A pty reports EIO when its other end is closed; what came before that counts.
        let _ = from.read_to_end(&mut data);
        data
    })
}

/// Writes all of `data` from a thread of its own, then closes. The result says whether the reader took it all.
pub(crate) fn feed(mut into: impl Write + Send + 'static, data: Vec<u8>) -> JoinHandle<io::Result<()>> {
    std::thread::spawn(move || into.write_all(&data))
}
