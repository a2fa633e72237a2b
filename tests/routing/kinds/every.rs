//! Every kind of descriptor: each operation does what the plain system call does, on every backend, and nobody waits in it.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use polyaio::{AlignedBuf, BufResult, Engine, File, Reason};

use super::makers::{KINDS, Made, Making, Places};
use crate::tools::{Oneshot, Respawn, Watchdog, lock, respawn};
use crate::{BLOCK, KERNEL, POOL, POSIX, auto, prefer};

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Done(u64),
    Failed(i32),
    /// It waits for somebody else.
    Waits,
}

/// The operations, in the order in which they are tried. On what has no offsets, an offset of 0 is the position.
const OPERATIONS: [&str; 6] = ["read", "read_at", "write", "write_at", "sync_all", "len"];

type Results = [Seen; OPERATIONS.len()];

/// How long something is given to end that the plain system call has waited in.
const PATIENCE: Duration = Duration::from_millis(60);

/// What has not ended by then hangs: the plain system call did not wait in it.
const FOR_EVER: Duration = Duration::from_secs(60);

/// How long one kind is given on one backend: where one operation hangs, it is named.
const LIMIT: Duration = Duration::from_secs(150);

/// Where the engine means something else than the system call does, and says so.
fn documented(kind: &str, operation: &str, plain: Seen) -> Seen {
    match (kind, operation, plain) {
        // Whatever the access mode: it carries no data.
        ("directory", "write" | "write_at", _) => Seen::Failed(libc::EISDIR),
        // Files of procfs and sysfs that are not open for writing: the system call looks at the offset first.
        (_, "write_at", Seen::Failed(libc::ESPIPE)) => Seen::Failed(libc::EBADF),
        // Asked not to block or not, an operation waits: who wants an answer at once polls once.
        (_, _, Seen::Failed(libc::EAGAIN)) => Seen::Waits,
        // Its poll(2) says that there is an error at any time: there is nothing to wait for without a thread.
        ("userfaultfd", "read" | "read_at", Seen::Waits) => Seen::Failed(libc::EAGAIN),
        _ => plain,
    }
}

/// The length of the answer is not the same each time.
fn varies(kind: &str) -> bool {
    matches!(kind, "proc, stat" | "proc, pollable")
}

/// The kernel's log is everybody's: there may be a new record at any time.
fn may_wait(kind: &str) -> bool {
    kind == "/dev/kmsg, its end"
}

#[test]
fn every_kind_does_what_the_system_call_does_on_every_backend() {
    let _watchdog = Watchdog::new("routing: every_kind_does_what_the_system_call_does_on_every_backend");
    // In a process of its own, which may be given signals and filters.
    if let Respawn::Parent(child) = respawn("kinds::every::every_kind_does_what_the_system_call_does_on_every_backend")
    {
        let child = child.expect_success();
        let _ = std::io::stderr().write_all(&only(&child.stderr, "SKIP").into_bytes());
        print!("{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    interrupting();
    let (places, next, wrong) = (Places::new(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    // Most of the time is spent waiting.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((name, make)) = KINDS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(all) = on_every_backend(name, &|| make(&places)) {
                        lock(&wrong).extend(all);
                    }
                }
            });
        }
    });
    let wrong = lock(&wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Prints a row; returns what is wrong with it.
fn on_every_backend(name: &str, make: &dyn Fn() -> Making) -> Result<(), Vec<String>> {
    let plain = match make() {
        Ok(made) => by_system_call(name, made),
        Err(why) => {
            eprintln!("SKIP routing: a descriptor of the kind `{name}`: {why}");
            return Ok(());
        }
    };
    println!("{name:<26} {}", shown(&plain));
    let mut wrong = Vec::new();
    for backend in ["auto", KERNEL, POSIX, POOL] {
        if backend == KERNEL && crate::support::built_with_kernel_aio().is_err() {
            continue;
        }
        if backend == POSIX && crate::support::posix_aio().is_err() {
            continue;
        }
        let _watchdog = Watchdog::with_limit(format!("{name} by {backend}"), LIMIT);
        if let Err(why) = by_engine(name, backend, &make().expect("as before"), &plain) {
            wrong.push(format!("{name} by {backend}: {why}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn only(text: &str, word: &str) -> String {
    text.lines().filter(|line| line.starts_with(word)).fold(String::new(), |all, line| all + line + "\n")
}

fn shown(results: &Results) -> String {
    let one = |(name, seen): (&&str, &Seen)| match seen {
        Seen::Done(n) => format!("{name} {n}"),
        Seen::Failed(errno) => format!("{name}: {}", polyaio::Errno(*errno)),
        Seen::Waits => format!("{name} waits"),
    };
    OPERATIONS.iter().zip(results).map(one).collect::<Vec<_>>().join("; ")
}

// ----- the engine --------------------------------------------------------------------------------------------------------

fn by_engine(kind: &str, backend: &str, made: &Made, plain: &Results) -> Result<(), String> {
    let engine = if backend == "auto" { auto() } else { prefer(backend) };
    let Made { fd, payload, .. } = made;
    let file = match engine.adopt(fd.try_clone().expect("a descriptor")) {
        Ok(file) => file,
        // Nothing can be done with it, and the kernel says the same to each operation but `fstat`.
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            let same = plain[..5].iter().all(|seen| *seen == Seen::Failed(errno));
            return if same { Ok(()) } else { Err(format!("not adopted: {error}")) };
        }
    };
    let read = || AlignedBuf::zeroed(BLOCK, BLOCK);
    let mut results = [Seen::Waits; OPERATIONS.len()];
    for (operation, result) in results.iter_mut().enumerate() {
        let waits = may_wait(kind) || documented(kind, OPERATIONS[operation], plain[operation]) == Seen::Waits;
        let before = (Instant::now(), cost(&engine));
        let write = || AlignedBuf::copy_from(payload, BLOCK);
        *result = match operation {
            0 => transfer(&engine, file.read(read()), waits),
            1 => transfer(&engine, file.read_at(read(), 0), waits),
            2 => transfer(&engine, file.write(write()), waits),
            3 => transfer(&engine, file.write_at(write(), 0), waits),
            4 => limited(&engine, file.sync_all(), waits).map_or(Seen::Waits, |done| seen(done.map(|()| 0))),
            _ => limited(&engine, file.len(), waits).map_or(Seen::Waits, seen),
        };
        let tries = cost(&engine) - before.1;
        if tries > 20 {
            return Err(format!("{} was tried {tries} times in {:?}", OPERATIONS[operation], before.0.elapsed()));
        }
    }
    compare(kind, &results, plain)?;
    close(&engine, file)?;
    // Whatever was left waiting: the engine ends, with all its threads. The watchdog sees to that.
    drop(engine);
    Ok(())
}

/// What a wait costs: transfers that were tried in vain, and steps on workers.
fn cost(engine: &Engine) -> u64 {
    let stats = engine.stats();
    stats.streams.misses + stats.inline.misses + stats.fallback(Reason::NowaitUnsupported)
}

fn compare(kind: &str, results: &Results, plain: &Results) -> Result<(), String> {
    let blurred = |seen: Seen| match seen {
        Seen::Done(n) if varies(kind) => Seen::Done(n.min(1)),
        Seen::Done(n) if may_wait(kind) && n > 0 => Seen::Waits,
        seen => seen,
    };
    for ((operation, result), plain) in OPERATIONS.iter().zip(results).zip(plain) {
        let plain = documented(kind, operation, *plain);
        if blurred(*result) != blurred(plain) {
            return Err(format!("{operation} gives {result:?}, and the system call {plain:?}"));
        }
    }
    Ok(())
}

fn close(engine: &Engine, file: File) -> Result<(), String> {
    match limited(engine, file.close(), false) {
        Some(Ok(())) => Ok(()),
        other => Err(format!("close: {other:?}")),
    }
}

fn transfer<B>(engine: &Engine, operation: impl Future<Output = BufResult<usize, B>>, waits: bool) -> Seen {
    limited(engine, operation, waits).map_or(Seen::Waits, |BufResult(n, _)| seen(n.map(|n| n as u64)))
}

fn seen(result: std::io::Result<u64>) -> Seen {
    match result {
        Ok(n) => Seen::Done(n),
        Err(error) => Seen::Failed(error.raw_os_error().unwrap_or_else(|| panic!("without a number: {error:?}"))),
    }
}

/// Runs an operation; `None` when it was given time in vain.
fn limited<F: Future>(engine: &Engine, operation: F, waits: bool) -> Option<F::Output> {
    let mut operation = pin!(operation);
    let mut over = pin!(Oneshot::new());
    let mut timer = None;
    let timed = |over: Oneshot<()>| {
        let (leash, called_off) = channel::<()>();
        let patience = if waits { PATIENCE } else { FOR_EVER };
        std::thread::spawn(move || {
            if called_off.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                over.send(());
            }
        });
        leash
    };
    engine.block_on(std::future::poll_fn(|context| match operation.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            timer.get_or_insert_with(|| timed(over.clone()));
            over.as_mut().poll(context).map(|()| None)
        }
    }))
}

// ----- the plain system call ---------------------------------------------------------------------------------------------

fn by_system_call(kind: &str, made: Made) -> Results {
    let _watchdog = Watchdog::with_limit(format!("{kind} by the system call"), LIMIT);
    // Only the engine knows what it takes for a stream.
    let probe = auto();
    let adopted = probe.adopt(made.fd.try_clone().expect("a descriptor"));
    let stream = adopted.as_ref().is_ok_and(|file| file.is_stream());
    drop((adopted, probe));
    let mut results = [Seen::Waits; OPERATIONS.len()];
    for (operation, result) in results.iter_mut().enumerate() {
        let fd = made.fd.try_clone().expect("a descriptor");
        let payload = made.payload.clone();
        let (begun, tid) = channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: has no preconditions.
            begun.send(unsafe { libc::gettid() }).expect("somebody waits for it");
            outcome(|| one(fd, operation, stream, &payload))
        });
        let number = until_it_sleeps(&tid, || thread.is_finished());
        let interrupted = number.is_some();
        while let Some(number) = number.filter(|_| !thread.is_finished()) {
            // SAFETY: a thread of this process; that it may have ended is no harm in a process of our own.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), number, libc::SIGUSR2) };
            std::thread::sleep(Duration::from_millis(1));
        }
        *result = match thread.join().expect("no panic") {
            Seen::Failed(libc::EINTR) if interrupted => Seen::Waits,
            seen => seen,
        };
    }
    results
}

/// The number of a thread that has slept for a while, interruptibly: for somebody else, and not for a disk.
fn until_it_sleeps(tid: &Receiver<i32>, finished: impl Fn() -> bool) -> Option<i32> {
    let number = tid.recv().expect("it has begun");
    let mut since = Instant::now();
    while !finished() {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{number}/stat")).unwrap_or_default();
        if stat.rsplit(") ").next().is_none_or(|rest| !rest.starts_with('S')) {
            since = Instant::now();
        }
        if since.elapsed() > PATIENCE {
            return Some(number);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

fn outcome(call: impl FnOnce() -> i64) -> Seen {
    u64::try_from(call()).map_or_else(|_| Seen::Failed(crate::tools::errno()), Seen::Done)
}

fn one(fd: OwnedFd, operation: usize, stream: bool, payload: &[u8]) -> i64 {
    let number = fd.as_raw_fd();
    let mut memory = AlignedBuf::zeroed(BLOCK, BLOCK);
    let payload = AlignedBuf::copy_from(payload, BLOCK);
    let (into, from) = (memory.as_mut_ptr().cast(), payload.as_ptr().cast());
    // SAFETY: the calls use the memory of the two buffers, which live until the end of this function.
    unsafe {
        match operation {
            0 => libc::read(number, into, BLOCK) as i64,
            1 if stream => libc::read(number, into, BLOCK) as i64,
            1 => libc::pread(number, into, BLOCK, 0) as i64,
            2 => libc::write(number, from, payload.len()) as i64,
            3 if stream => libc::write(number, from, payload.len()) as i64,
            3 => libc::pwrite(number, from, payload.len(), 0) as i64,
            4 => i64::from(libc::fsync(number)),
            _ => length(number),
        }
    }
}

fn length(fd: RawFd) -> i64 {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` has room for what is written, and is read only when it was.
    unsafe {
        if libc::fstat(fd, status.as_mut_ptr()) != 0 {
            return -1;
        }
        let status = status.assume_init();
        if status.st_mode & libc::S_IFMT == libc::S_IFBLK { libc::lseek(fd, 0, libc::SEEK_END) } else { status.st_size }
    }
}

/// A handler that ends the system calls that it interrupts.
fn interrupting() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; a zeroed action has no flags, and so does not restart system calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
    }
}
