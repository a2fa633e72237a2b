//! What becomes of a pool when threads cannot be created: really, under `RLIMIT_NPROC` as an ordinary user.
//!
//! Both the limit and the user are the whole process's, so that each test runs in a process of its own: this test binary
//! once more, with one test selected and a variable that tells it to play its part.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::*;

const ROLE: &str = "POLYAIO_TEST_LIMITED_CHILD";
const SKIP: &str = "SKIP: ";

/// Runs the named test of this module in a child, as an ordinary user who has no other process: the limit counts all
/// threads of a user, and those of other processes come and go. Returns what the child printed on standard error; `None`,
/// and says so, where there is no such user to be had.
fn in_child(test: &str) -> Option<String> {
    let program = std::env::current_exe().expect("the test binary");
    let (_, module) = module_path!().split_once("::").expect("a module of the crate");
    let mut command = Command::new(program);
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture", "--test-threads=1"]).env(ROLE, "1");
    if !is_root() {
        // SAFETY: between fork and exec, this makes one system call.
        unsafe { command.pre_exec(count_anew) };
    }
    let skipped =
        |why: &str| eprintln!("skipped {module}::{test}: no ordinary user without other processes to be had: {why}");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            skipped(&error.to_string());
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{test}: {}\n{printed}\n{errors}", output.status);
    assert!(printed.contains("1 passed"), "the test was found: {printed}");
    if let Some((_, why)) = errors.split_once(SKIP) {
        skipped(why.lines().next().unwrap_or_default());
        return None;
    }
    Some(errors)
}

/// In the child: whether this is the child. If so it may from now on have `more` threads than it has.
fn limited(more: u64) -> bool {
    if std::env::var_os(ROLE).is_none() {
        return false;
    }
    // Not before exec: the binary may lie where nobody but root can reach it.
    if is_root()
        && let Err(error) = become_somebody()
    {
        eprintln!("{SKIP}{error}");
        println!("1 passed");
        std::process::exit(0);
    }
    let threads = std::fs::read_dir("/proc/self/task").expect("/proc is mounted").count() as u64;
    let limit = libc::rlimit { rlim_cur: threads + more, rlim_max: threads + 50 };
    set(limit);
    true
}

fn set(limit: libc::rlimit) {
    // SAFETY: changes this process's limits only.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }, 0);
}

fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getuid() == 0 }
}

/// From root to a user who has no other process.
fn become_somebody() -> std::io::Result<()> {
    // SAFETY: these calls change this process's credentials only.
    let failed = unsafe {
        let user = 1_000_000 + libc::getpid().unsigned_abs();
        libc::setresgid(user, user, user) != 0 || libc::setresuid(user, user, user) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// In a user namespace of its own, a user's threads are counted anew.
fn count_anew() -> std::io::Result<()> {
    // SAFETY: changes this process's credentials only.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn assert_explains(reason: &str) {
    assert!(reason.contains("RLIMIT_NPROC") || reason.contains("pids.max"), "{reason}");
}

#[test]
fn threads_that_cannot_be_created_make_a_smaller_pool() {
    let test = "threads_that_cannot_be_created_make_a_smaller_pool";
    let file = file();
    if !limited(3) {
        if let Some(errors) = in_child(test) {
            assert!(!errors.contains("panicked"), "no panic message reaches the user: {errors}");
        }
        return;
    }
    let (bench, pool) = (Bench::new(), pool(8, 1000));
    assert_eq!(pool.degraded(), None);
    let (reader, writer) = pipe();
    let (requests, stuck): (Vec<_>, Vec<_>) = (0..2).map(|_| read(&bench, &reader, None, 1)).unzip();
    submit_all(&bench, &pool, requests);
    let (requests, pending): (Vec<_>, Vec<_>) = (0..100).map(|i| read(&bench, &file, Some(i), 64)).unzip();
    submit_all(&bench, &pool, requests);
    pending.into_iter().for_each(|p| assert_eq!(p.finish(|| {}).0, Ok(64)));
    let reason = pool.degraded().expect("it says that it is small");
    assert!(reason.starts_with("3 of up to 8 threads: "), "{reason}");
    assert_explains(&reason);
    assert_eq!(pool.threads(), 3);
    // A second later it is tried again; this time it works.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for what is written.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) }, 0);
    set(libc::rlimit { rlim_cur: limit.rlim_max, ..limit });
    std::thread::sleep(worker::RETRY_AFTER);
    let (request, pending) = read(&bench, &file, Some(0), 64);
    submit_all(&bench, &pool, [request]);
    assert_eq!(pending.finish(|| {}).0, Ok(64));
    eventually("the pool has grown", || pool.threads() > 3 && pool.degraded().is_none());
    drop(writer);
    stuck.into_iter().for_each(|p| assert_eq!(p.finish(|| {}).0, Ok(0)));
    eprintln!("{reason}");
}

#[test]
fn one_thread_is_enough() {
    let file = file();
    if !limited(1) {
        in_child("one_thread_is_enough");
        return;
    }
    let (bench, pool) = (Bench::new(), pool(8, 1000));
    let (requests, pending): (Vec<_>, Vec<_>) = (0..100).map(|i| read(&bench, &file, Some(i), 64)).unzip();
    submit_all(&bench, &pool, requests);
    pending.into_iter().for_each(|p| assert_eq!(p.finish(|| {}).0, Ok(64)));
    assert_eq!(pool.threads(), 1);
    assert_explains(&pool.degraded().expect("it says that it is small"));
}

#[test]
fn no_thread_at_all_is_an_error_that_names_the_limit() {
    let test = "no_thread_at_all_is_an_error_that_names_the_limit";
    if !limited(0) {
        if let Some(errors) = in_child(test) {
            assert!(!errors.contains("panicked"), "no panic message reaches the user: {errors}");
        }
        return;
    }
    let refused = ThreadPool::start(Options { threads: 8, queue_bound: 8 }).expect_err("there is no thread to be had");
    assert_eq!(refused.errno, Errno(libc::EAGAIN));
    assert_explains(&refused.to_string());
    eprintln!("{refused}");
}

/// The stream workers start late, when there may be no thread left: then the pool does their work, and that is counted.
#[test]
fn without_stream_workers_the_pool_serves_streams() {
    let (dir, test) = (tempfile::tempdir().expect("a directory"), "without_stream_workers_the_pool_serves_streams");
    let fifo = fifo(dir.path());
    if !limited(2) {
        if let Some(errors) = in_child(test) {
            assert!(!errors.contains("panicked"), "no panic message reaches the user: {errors}");
        }
        return;
    }
    let builder = crate::Engine::builder().policy(crate::Policy::Auto).threads(1);
    let [engine, strict] =
        [false, true].map(|strict| builder.clone().strict(strict).build().expect("two threads are left"));
    let [read, strict] = [&engine, &strict].map(|engine| {
        let reader = engine.adopt(fifo.try_clone().expect("a duplicate").into()).expect("any descriptor");
        (&fifo).write_all(b"data").expect("room");
        reader.read(vec![0; 4]).wait()
    });
    assert_eq!((read.0.expect("readable"), &read.1[..]), (4, &b"data"[..]));
    let stats = engine.stats();
    assert_eq!(stats.served_by(), [(NAME, 1)]);
    assert_eq!(stats.fallback(crate::Reason::NotStarted), 1);
    let error = strict.0.expect_err("nobody else may");
    assert!(error.to_string().contains("stream-workers") && error.to_string().contains("did not start"), "{error}");
    // A while later they are tried again; this time they come.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for what is written.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) }, 0);
    set(libc::rlimit { rlim_cur: limit.rlim_max, ..limit });
    std::thread::sleep(worker::RETRY_AFTER);
    let reader = engine.adopt(fifo.try_clone().expect("a duplicate").into()).expect("any descriptor");
    // What the strict engine has not read is still there.
    assert_eq!(reader.read(vec![0; 4]).wait().0.expect("readable"), 4);
    assert_eq!(engine.stats().served_by(), [(NAME, 1), (streams::NAME, 1)]);
}

/// A FIFO, open both ways (fifo(7)).
fn fifo(dir: &std::path::Path) -> File {
    use std::os::unix::ffi::OsStrExt as _;
    let path = dir.join("fifo");
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: the name is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    File::options().read(true).write(true).open(path).expect("a FIFO")
}
