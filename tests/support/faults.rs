//! Making the kernel refuse.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::machine::{strace, tool};

/// Has the kernel refuse a system call of `command` with `errno`, always: a seccomp filter, as containers have them.
/// Needs neither rights nor tools.
pub(crate) fn refuse(command: &mut Command, call: libc::c_long, errno: libc::c_int) {
    // SAFETY: two system calls, on the stack.
    unsafe { command.pre_exec(move || refuse_here(call, errno)) };
}

/// The same for the calling thread, from now on, and for what it starts.
pub(crate) fn refuse_here(call: libc::c_long, errno: libc::c_int) -> io::Result<()> {
    let step = |code: u32, jump_if_false: u8, operand: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_false,
        k: operand,
    };
    // The number is the first word of what a filter sees. One architecture only, so it needs no look at the others.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which outlives the calls.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A system call that `strace` tampers with, as in its manual: `io_submit:error=EINVAL:when=5+`.
pub(crate) struct Inject {
    strace: PathBuf,
    log: PathBuf,
    call: String,
    how: String,
}

impl Inject {
    /// `dir` is where the trace is kept until the end of the test.
    pub(crate) fn new(dir: &Path, call: &str, how: &str) -> Result<Self, String> {
        let (log, call, how) = (dir.join("strace.log"), call.to_owned(), how.to_owned());
        Ok(Self { strace: strace()?, log, call, how })
    }

    /// A command that runs `program` with the fault.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.strace);
        let inject = format!("inject={}:{}", self.call, self.how);
        command.args(["-f", "-qq", "-e", &format!("trace={}", self.call), "-e", &inject, "-o"]);
        command.arg(&self.log).arg("--").arg(program);
        command
    }

    /// How many calls were tampered with. A test of a fault that never happened tests nothing.
    pub(crate) fn count(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).expect("strace wrote its log");
        // A signal that is delivered leaves no mark on the call, only its own line.
        log.lines().filter(|line| line.contains("(INJECTED)") || line.contains("--- SIG")).count()
    }

    /// The trace, for the message of a failure.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A library for `LD_PRELOAD` that lets `io_submit` accept one request of each batch, whatever its size: the kernel's
/// partial acceptance, which `strace` cannot make (it would report requests as taken that the kernel never saw).
/// Creates the file that `POLYAIO_TEST_SHIM_LOG` names when it acts.
pub(crate) fn partial_submits(dir: &Path) -> Result<PathBuf, String> {
    shim(dir, "partial_submits", include_str!("shim/partial_submits.rs"))
}

/// A library for `LD_PRELOAD` that has `aio_read` refuse with `EAGAIN` what comes after each `POLYAIO_TEST_SHIM_ACCEPT`
/// accepted calls; 0 refuses all. Lists (`lio_listio`) are refused in the same parts.
pub(crate) fn scarce_aio(dir: &Path) -> Result<PathBuf, String> {
    shim(dir, "scarce_aio", include_str!("shim/scarce_aio.rs"))
}

fn shim(dir: &Path, name: &str, source_text: &str) -> Result<PathBuf, String> {
    let rustc = tool("rustc").or_else(|why| {
        let beside_cargo = Path::new(env!("CARGO")).with_file_name("rustc");
        if beside_cargo.is_file() { Ok(beside_cargo) } else { Err(why) }
    })?;
    let source = dir.join(format!("{name}.rs"));
    let library = dir.join(format!("lib{name}.so"));
    std::fs::write(&source, source_text).map_err(|error| error.to_string())?;
    // One compiler at a time is enough on a small machine.
    static COMPILING: Mutex<()> = Mutex::new(());
    let _alone = COMPILING.lock();
    let built = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"])
        .args([&library, &source])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("rustc does not start: {error}"))?;
    if built.status.success() {
        Ok(library)
    } else {
        Err(format!("the shim does not build here: {}", String::from_utf8_lossy(&built.stderr)))
    }
}
