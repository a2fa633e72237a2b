//! Running the test binary once more, for what ends, limits or forks a whole process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Finished, Watched};

/// Tells a test that it runs in a process of its own.
const CHILD: &str = "POLYAIO_TEST_CHILD";

/// Less than the test's own watchdog has, so that a child that hangs is the one that is named.
const LIMIT: Duration = Duration::from_secs(200);

/// Where a test is: in the parent, with what became of the child; or in the child.
pub(crate) enum Respawn {
    Parent(Finished),
    Child,
}

impl Respawn {
    /// The same, once the child, if this is the parent, has ended well.
    #[track_caller]
    pub(crate) fn checked(self) -> Self {
        match self {
            Self::Parent(child) => Self::Parent(child.expect_success()),
            Self::Child => Self::Child,
        }
    }
}

/// Runs the test `name` (its full path within the binary) once more, in a process of its own.
pub(crate) fn respawn(name: &str) -> Respawn {
    respawn_with(name, |program| Command::new(program), |_| {})
}

/// The same, in a process that is prepared by `prepare`: an environment, a filter of system calls.
pub(crate) fn respawn_prepared(name: &str, prepare: impl FnOnce(&mut Command)) -> Respawn {
    respawn_with(name, |program| Command::new(program), prepare)
}

/// The same, by a command that runs the program with something else around it.
pub(crate) fn respawn_by(name: &str, command: impl FnOnce(&Path) -> Command) -> Respawn {
    respawn_with(name, command, |_| {})
}

/// Starts the test `name` once more, to run beside this one. The child has to know by what `prepare` tells it.
pub(crate) fn respawn_beside(name: &str, prepare: impl FnOnce(&mut Command)) -> Watched {
    start(name, |program| Command::new(program), prepare)
}

fn respawn_with(name: &str, command: impl FnOnce(&Path) -> Command, prepare: impl FnOnce(&mut Command)) -> Respawn {
    if std::env::var(CHILD).as_deref() == Ok(name) {
        return Respawn::Child;
    }
    Respawn::Parent(start(name, command, prepare).finish())
}

fn start(name: &str, command: impl FnOnce(&Path) -> Command, prepare: impl FnOnce(&mut Command)) -> Watched {
    let mut command = command(&std::env::current_exe().expect("the path of this test"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command);
    Watched::start_with_limit(&mut command, LIMIT)
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Ends a forked process, without running what belongs to its parent (destructors, exit handlers, libtest's output).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Whether all other threads of this process sleep, from the beginning to the end of so much time. Counted in switches
/// between threads, because time says little where others have the processors: who looks for work now and then, or goes
/// round in circles, wakes up or is awake.
pub(crate) fn stays_asleep(time: Duration) -> Result<(), String> {
    // SAFETY: takes nothing, cannot fail.
    let own = unsafe { libc::gettid() }.to_string();
    let look = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
        let others = tasks.filter(|task| *task.file_name() != *own);
        let told = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let told =
                |line: &&str| ["Name:", "State:"].iter().any(|at| line.starts_with(at)) || line.contains("_switches:");
            Some(status.lines().filter(told).collect::<Vec<_>>().join(" "))
        };
        others.filter_map(told).collect::<Vec<_>>()
    };
    let before = look();
    std::thread::sleep(time);
    let after = look();
    let asleep = after.iter().all(|thread| thread.contains("State:\tS"));
    if asleep && before == after { Ok(()) } else { Err(format!("before: {before:#?}\nafter: {after:#?}")) }
}

/// The names of the threads of this process that the crate has started.
pub(crate) fn own_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let names = tasks.filter_map(name).map(|name| name.trim().to_owned());
    names.filter(|name| name.starts_with("polyaio-")).collect()
}
