//! Whether one more thread can be had, and if not, which limit stands in the way.

#![allow(unsafe_code)]

use std::fmt::Write as _;
use std::io;
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long to wait for the kernel to forget the probe's thread.
const PROBE_GONE: Duration = Duration::from_millis(5);

/// Starts a thread that ends at once.
///
/// `threadpool` panics where a thread cannot be created, and the panic hook would print that on the user's standard
/// error. `std` returns an error: so ask it first. What remains is the moment between the two, in which another process
/// may take the last thread; that panic is caught by who grows the pool.
///
/// # Errors
/// What `pthread_create(3)` says: `EAGAIN` for a limit ([`blame`] finds out which), `ENOMEM`.
pub(super) fn one_more_thread() -> io::Result<()> {
    let probe = Builder::new().name("polyaio-probe".into()).spawn(thread_id)?;
    if let Ok(id) = probe.join() {
        wait_until_gone(id);
    }
    Ok(())
}

/// The limits that may be spent, as a sentence for an operator.
pub(super) fn blame(error: &io::Error) -> String {
    let mut text = format!("a thread could not be created: {error}");
    let found = limits();
    if !found.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}", found.join("; "));
    }
    text
}

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        use std::fs::read_to_string;
        use std::path::Path;

        fn thread_id() -> libc::pid_t {
            // SAFETY: takes nothing, cannot fail.
            unsafe { libc::gettid() }
        }

        /// Waits until a joined thread does not count against the limits any more. `pthread_join` returns a little before.
        fn wait_until_gone(id: libc::pid_t) {
            let deadline = Instant::now() + PROBE_GONE;
            // SAFETY: signal 0 is sent to nobody: the call only looks whether the thread exists.
            while unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, 0) } == 0 && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }

        /// The limits on threads in force here, those that are reached if any can be seen to be.
        fn limits() -> Vec<String> {
            let (mut reached, mut possible) = (Vec::new(), Vec::new());
            for (limit, used, what) in [cgroup(), system()].into_iter().flatten() {
                if used >= limit { reached.push(what) } else { possible.push(what) }
            }
            // How many threads the user has cannot be asked: so this limit is named wherever the others do not explain it.
            if reached.is_empty() { user().or(possible.into_iter().next()).into_iter().collect() } else { reached }
        }

        fn user() -> Option<String> {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `limit` has room for what is written.
            let failed = unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) } != 0;
            if failed || limit.rlim_cur == libc::RLIM_INFINITY {
                return None;
            }
            // SAFETY: takes nothing, cannot fail.
            let user = unsafe { libc::getuid() };
            Some(format!(
                "RLIMIT_NPROC allows user {user} {} threads over all processes (`ulimit -u`)",
                limit.rlim_cur
            ))
        }

        fn system() -> Option<(u64, u64, String)> {
            let limit: u64 = number(Path::new("/proc/sys/kernel/threads-max"))?;
            let load = read_to_string("/proc/loadavg").ok()?;
            let used = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
            Some((limit, used, format!("the system has {used} threads of kernel.threads-max = {limit}")))
        }

        /// The nearest bound of the process's control groups (version 2, or the `pids` hierarchy of version 1).
        fn cgroup() -> Option<(u64, u64, String)> {
            let groups = read_to_string("/proc/self/cgroup").ok()?;
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let root = match fields.next()? {
                    "" => "/sys/fs/cgroup",
                    list if list.split(',').any(|name| name == "pids") => "/sys/fs/cgroup/pids",
                    _ => return None,
                };
                let own = Path::new(root).join(fields.next()?.trim_start_matches('/'));
                let nearest = own.ancestors().take_while(|path| path.starts_with(root)).filter_map(|path| {
                    let limit = number(&path.join("pids.max"))?;
                    let used = number(&path.join("pids.current"))?;
                    Some((limit, used, format!("the control group has {used} threads of pids.max = {limit}")))
                });
                nearest.min_by_key(|(limit, used, _)| limit.saturating_sub(*used))
            })
        }

        fn number(path: &Path) -> Option<u64> {
            read_to_string(path).ok()?.trim().parse().ok()
        }
    } else {
        fn thread_id() {}

        fn wait_until_gone(_: ()) {
            std::thread::sleep(PROBE_GONE.min(Duration::from_millis(1)));
            let _ = Instant::now();
        }

        fn limits() -> Vec<String> {
            vec!["see the limit on processes and threads of this user (`ulimit -u`)".into()]
        }
    }
}
