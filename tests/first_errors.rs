//! What someone sees who uses the crate for the first time and gets something wrong: each message says what happened and
//! what to do. `cargo test --test first_errors -- --nocapture` shows them.

mod support;
mod tools;

use std::io;
use std::process::Command;

use polyaio::{
    AlignedBuf, BufResult, Direct, Engine, EngineBuilder, Error, File, Op, OpenOptions, Policy, Reason, ops,
};

use support::{
    Scratch, built_with_kernel_aio, direct_io, disk_file_system, is_root, kernel_aio, ramfs, refuse, require,
};
use tools::{Respawn, Watchdog, exit_now, respawn, respawn_prepared};

const KERNEL: &str = "kernel-aio";

/// Prints the message, and fails unless it has all of this in it, on one line.
#[track_caller]
fn says(message: impl ToString, parts: &[&str]) {
    let message = message.to_string();
    println!("    {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!message.contains('\n'), "more than a line: {message}");
}

/// An engine whatever the environment says.
fn builder() -> EngineBuilder {
    Engine::builder().policy(Policy::Auto).strict(false)
}

fn engine() -> Engine {
    builder().build().expect("an engine starts on every machine")
}

fn refused(builder: EngineBuilder) -> Error {
    builder.build().expect_err("it cannot start")
}

fn opened(engine: &Engine, scratch: &Scratch) -> File {
    let path = scratch.file("data", &[7; 8192]);
    OpenOptions::new().read(true).open(engine, path).expect("it is there")
}

/// Runs the test again in a process with these variables, in which `check` is called.
#[track_caller]
fn with_environment(test: &str, name: &str, values: &[&str], check: impl Fn(&str)) {
    for value in values {
        let prepare = |command: &mut Command| {
            command.env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT").env(name, value);
        };
        match respawn_prepared(test, prepare) {
            Respawn::Parent(child) => drop(child.expect_success()),
            Respawn::Child => return check(&std::env::var(name).expect("it was set")),
        }
    }
}

/// `POLYAIO_BACKEND` names nobody: the variable is named, and what it may be.
#[test]
fn an_unknown_backend_in_the_environment() {
    let names = ["io-uring", "threadpool", "Thread-Pool", "thread-pool kernel-aio"];
    with_environment("an_unknown_backend_in_the_environment", "POLYAIO_BACKEND", &names, |name| {
        let error = Engine::new().expect_err("no such backend");
        assert!(matches!(error, Error::Options(_)), "{error:?}");
        let wrong = format!("POLYAIO_BACKEND names {name:?}");
        says(error, &[&wrong, "there is no such backend", "must be auto", "thread-pool", "commas"]);
    });
}

/// A name that only another build knows is told from one that nobody knows.
#[test]
fn a_backend_that_is_not_in_this_build() {
    let names = [(KERNEL, cfg!(feature = "kernel-aio")), ("posix-aio", cfg!(feature = "posix-aio"))];
    let compiled_in = |name: &str| names.contains(&(name, true));
    with_environment("a_backend_that_is_not_in_this_build", "POLYAIO_BACKEND", &names.map(|(name, _)| name), |name| {
        match Engine::new() {
            Ok(engine) => {
                assert!(compiled_in(name), "{name} is not in this build");
                assert!(engine.backends().iter().any(|backend| backend.name == name));
            }
            Err(error) => {
                assert!(!compiled_in(name), "{error}");
                let feature = format!("it has not the feature {name}");
                says(&error, &["POLYAIO_BACKEND", &feature, "thread-pool"]);
            }
        }
    });
}

#[test]
fn other_variables_with_values_that_make_no_sense() {
    let test = "other_variables_with_values_that_make_no_sense";
    for (name, value, may_be) in
        [("POLYAIO_STRICT", "yes", "0 or 1"), ("POLYAIO_SLOW_SUBMIT_US", "1ms", "a number of microseconds")]
    {
        if std::env::var(name).as_deref() != Ok(value) && std::env::var_os("POLYAIO_TEST_CHILD").is_some() {
            continue;
        }
        with_environment(test, name, &[value], |_| {
            says(Engine::new().expect_err("no such value"), &[name, value, may_be]);
        });
    }
}

/// The same from a program.
#[test]
fn an_unknown_backend_in_the_program() {
    for policy in [Policy::Require("kernel_aio".into()), Policy::Prefer(vec!["thread-pool".into(), "aio".into()])] {
        let error = refused(builder().policy(policy));
        assert!(matches!(error, Error::UnknownBackend { .. }), "{error:?}");
        says(error, &["there is no backend", "use one of", "thread-pool"]);
    }
}

#[test]
fn settings_that_make_no_sense() {
    for (builder, what) in [
        (builder().queue_depth(0), "queue depth is 0"),
        (builder().threads(0), "threads is 0"),
        (builder().capacity(0), "capacity is 0"),
    ] {
        says(refused(builder), &[what, "at least 1"]);
    }
    says(
        builder().threads(2).build().expect("an engine").set_threads(3).expect_err("more"),
        &["threads is 3", "at most 2"],
    );
}

#[test]
fn opening_what_cannot_be_opened() {
    let (engine, scratch) = (engine(), Scratch::new());
    let path = scratch.file("there", b"data");
    let open = |options: &OpenOptions, path: &std::path::Path| options.open(&engine, path).expect_err("refused");
    let mut options = OpenOptions::new();
    says(open(&options, &path), &["set at least one of read, write and append"]);
    options.read(true);
    let missing = open(&options, &scratch.path("missing"));
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    says(missing, &["cannot open", "missing", "No such file", "check the path", "create"]);
    says(open(options.clone().truncate(true), &path), &["truncate", "need write or append"]);
    says(open(options.clone().write(true).create_new(true), &path), &["File exists", "create_new", "`create` opens"]);
    says(open(options.clone().write(true), scratch.dir()), &["Is a directory", "for reading only"]);
    says(open(options.clone().direct(Direct::Emulated { alignment: 1000 }), &path), &["1000", "power of two"]);
}

/// A file that may not be written: said by the kernel at the opening, with what to do.
#[test]
fn opening_a_read_only_file_for_writing() {
    let (engine, scratch) = (engine(), Scratch::open_to_all());
    let path = scratch.file("read-only", b"data");
    let mut permissions = std::fs::metadata(&path).expect("it is there").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).expect("it is ours");
    if is_root() {
        // Root may write any file. This thread, which opens it, is somebody else to file systems.
        // SAFETY: takes a number, and changes this thread alone.
        unsafe { libc::setfsuid(support::NOBODY) };
    }
    let mut options = OpenOptions::new();
    let error = options.read(true).write(true).open(&engine, &path).expect_err("it is read-only");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    says(error, &["read-only", "Permission denied", "check the permissions", "leave `write`"]);
    // And what it says is true.
    options.write(false).open(&engine, &path).expect("to read alone");
}

/// What the operating system calls a bad file descriptor is explained, and keeps its number.
#[test]
fn writing_to_a_file_that_was_opened_for_reading() {
    let (engine, scratch) = (engine(), Scratch::new());
    let file = opened(&engine, &scratch);
    let BufResult(written, buffer) = file.write_at(vec![1; 100], 0).wait();
    let error = written.expect_err("it was opened for reading");
    assert_eq!((error.raw_os_error(), buffer.len()), (Some(libc::EBADF), 100));
    says(Error::explain(&error), &["Bad file descriptor", "was not opened for this", "OpenOptions::read", "closed"]);
    file.clone().close().wait().expect("it closes");
    says(Error::explain(&file.read_at(vec![0; 1], 0).wait().0.expect_err("closed")), &["it has been closed"]);
}

#[test]
fn transfers_that_cannot_be() {
    let (engine, scratch) = (engine(), Scratch::new());
    let file = opened(&engine, &scratch);
    let explained = |op: Op<ops::Read<Vec<u8>>>| Error::explain(&op.wait().0.expect_err("refused"));
    says(explained(file.read_at(vec![0; 1], u64::MAX)), &["Invalid argument", "offset and length are out of range"]);
    let short = file.read_exact_at(vec![0; 100], 8150).wait().0.expect_err("the file ends");
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    says(Error::explain(&short), &["ends before the buffer is full", "`read_at` says"]);
    let dir = OpenOptions::new().read(true).open(&engine, scratch.dir()).expect("a directory");
    says(explained(dir.read_at(vec![0; 1], 0)), &["Is a directory", "open a file in it"]);
    let pipe = engine.adopt(support::pipe().0.into()).expect("a pipe");
    says(explained(pipe.read_at(vec![0; 1], 100)), &["Illegal seek", "a stream has no offsets"]);
}

/// Emulated direct I/O keeps the rules of a device on any file system.
#[test]
fn a_misaligned_buffer_of_emulated_direct_io() {
    let (engine, scratch) = (engine(), Scratch::new());
    let path = scratch.file("data", &[7; 8192]);
    let mut options = OpenOptions::new();
    let file = options.read(true).direct(Direct::Emulated { alignment: 4096 }).open(&engine, path).expect("any file");
    let error = file.read_at(vec![0; 1000], 0).wait().0.expect_err("misaligned");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    says(Error::explain(&error), &["direct I/O", "multiples of `File::alignment`", "`File::buffer`"]);
    assert_eq!(file.read_at(file.buffer(1000), 0).wait().0.expect("what was advised"), 4096);
}

/// A strict engine does not go through the page cache instead, and names the alignment.
#[test]
fn a_misaligned_buffer_on_a_strict_engine() {
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let path = scratch.file_on_disk("data", &[7; 8192]);
    let engine = builder().strict(true).build().expect("an engine");
    let file = OpenOptions::new().read(true).direct(Direct::Required).open(&engine, path).expect("a disk");
    let alignment = file.alignment();
    for (len, offset) in [(1000, 0), (alignment.offset, 7)] {
        let BufResult(n, _) = file.read_at(AlignedBuf::zeroed(len, 4096), offset).wait();
        let error = n.expect_err("misaligned");
        let own = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).expect("one of ours");
        assert!(matches!(own, Error::Strict { .. }) && own.raw_os_error() == Some(libc::EINVAL), "{own:?}");
        let (length, multiple) = (format!("{len} bytes at offset {offset}"), alignment.offset.to_string());
        says(&error, &["strict", &length, &multiple, "misaligned"]);
        assert_eq!(Error::explain(&error), error.to_string());
    }
}

/// A file system that knows no direct I/O, where it was asked for: ramfs.
#[test]
fn direct_io_that_the_file_system_refuses() {
    let (engine, scratch) = (engine(), Scratch::new());
    let mount = require!(ramfs(&scratch.path("mount")));
    let path = mount.path("data");
    std::fs::write(&path, [7; 4096]).expect("memory");
    require!(direct_io(mount.dir()).map_or(Ok(()), |()| Err("ramfs knows O_DIRECT here".to_owned())));
    let mut options = OpenOptions::new();
    let error = options.read(true).direct(Direct::Required).open(&engine, &path).expect_err("ramfs");
    says(error, &["cannot be opened for direct I/O", "O_DIRECT", "use Direct::Preferred", "another file system"]);
    // And what it says is true.
    options.direct(Direct::Preferred).open(&engine, &path).expect("buffered");
    assert_eq!(engine.stats().fallback(Reason::DirectRefused), 1);
}

/// A container's seccomp profile, and a quota that is spent: the engine starts, says why, and serves; an engine that requires
/// what is missing says the same.
#[test]
fn no_kernel_aio_in_the_container() {
    let _watchdog = Watchdog::new("first_errors: no_kernel_aio_in_the_container");
    let test = "no_kernel_aio_in_the_container";
    const CASE: &str = "POLYAIO_TEST_CASE";
    if std::env::var_os(CASE).is_none() {
        require!(built_with_kernel_aio());
    }
    let answers = [
        (libc::EPERM, &["seccomp", "allow io_setup, io_submit, io_getevents and io_destroy"][..]),
        (libc::ENOSYS, &["CONFIG_AIO", "the other backends serve instead"]),
        (libc::EAGAIN, &["quota is spent", "fs.aio-max-nr", "fs.aio-nr", "sysctl -w", "containers share"]),
    ];
    for (errno, parts) in answers {
        let this = errno.to_string();
        if std::env::var(CASE).is_ok_and(|case| case != this) {
            continue;
        }
        let prepare = |command: &mut Command| {
            command.env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT").env(CASE, &this);
            refuse(command, libc::SYS_io_setup, errno);
        };
        let Respawn::Child = respawn_prepared(test, prepare).checked() else { continue };
        let (engine, scratch) = (Engine::new().expect("the pool serves"), Scratch::new());
        let status = engine.backends().into_iter().find(|backend| backend.name == KERNEL).expect("compiled in");
        assert!(!status.started);
        let call = ["kernel AIO does not start: io_setup", &polyaio::Errno(errno).to_string()].map(str::to_owned);
        says(status.reason.expect("it says why"), &[parts, &call.each_ref().map(String::as_str)].concat());
        let file = opened(&engine, &scratch);
        assert_eq!(file.read_exact_at(vec![0; 100], 0).wait().1, [7; 100]);
        says(file.route(), &["passed over: kernel-aio", "io_setup"]);
        let required = refused(Engine::builder().policy(Policy::Require(KERNEL.into())));
        says(required, &[&["the required backend kernel-aio did not start"], parts].concat());
    }
}

/// A queue deeper than the machine allows: smaller, and said.
#[test]
fn a_queue_that_is_too_deep() {
    require!(kernel_aio());
    let limit = std::fs::read_to_string("/proc/sys/fs/aio-max-nr").map_err(|error| error.to_string());
    let limit: usize = require!(limit.and_then(|limit| limit.trim().parse().map_err(|_| limit)));
    // Half as much again as there is: half of that fits, and leaves a quarter to others.
    let engine = builder().queue_depth(limit / 2 * 3).build().expect("an engine starts on every machine");
    let status = engine.backends().into_iter().find(|backend| backend.name == KERNEL).expect("compiled in");
    let wanted = format!("instead of {}", limit / 2 * 3);
    if status.started {
        let parts = ["room for", &wanted, "fs.aio-max-nr", "sysctl -w", "smaller queue depth", "More wait"];
        says(status.reason.expect("it is smaller"), &parts);
    } else {
        // Others have it all.
        says(status.reason.expect("it says why"), &["quota is spent", "fs.aio-max-nr"]);
    }
}

/// More operations than the engine has room for: who does not want to wait gets the operation back.
#[test]
fn more_operations_than_there_is_room_for() {
    let engine = builder().capacity(1).build().expect("an engine");
    let (first, second) = (opened(&engine, &Scratch::new()), opened(&engine, &Scratch::new()));
    // It keeps its place until somebody asks for its result.
    let held = first.sync_all().try_start().expect("there is room for one");
    let busy = second.sync_all().try_start().err().expect("and not for two");
    says(&busy, &["as many operations as it has capacity for", "try again when one has ended"]);
    held.wait().expect("a file of ours");
    // And what it says is true.
    busy.into_inner().try_start().expect("there is room again").wait().expect("a file of ours");
}

#[test]
fn an_engine_that_is_dropped_too_early() {
    let scratch = Scratch::new();
    let file = opened(&engine(), &scratch);
    let BufResult(n, buffer) = file.read_at(vec![0; 100], 0).wait();
    assert_eq!(buffer.len(), 100);
    says(Error::explain(&n.expect_err("its engine is gone")), &["has been shut down", "keep the `Engine` alive"]);
    says(file.sync_all().wait().expect_err("its engine is gone"), &["keep the `Engine` alive"]);
}

#[test]
fn use_after_fork() {
    let _watchdog = Watchdog::new("first_errors: use_after_fork");
    let Respawn::Child = respawn("use_after_fork").checked() else { return };
    let (engine, scratch) = (engine(), Scratch::new());
    let file = opened(&engine, &scratch);
    // SAFETY: this process has been started for this test, and the child leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let parts = ["belongs to the parent process", "after fork", "make a new one in the child"];
                says(file.read_at(vec![0; 1], 0).wait().0.expect_err("the parent's"), &parts);
                let opened = OpenOptions::new().read(true).open(&engine, "/dev/null");
                says(opened.expect_err("the parent's"), &parts);
                // And what it says is true.
                assert_eq!(opened_anew(&scratch), 1);
            }));
            exit_now(i32::from(checked.is_err()));
        }
        child => {
            assert!(child > 0, "fork: {}", io::Error::last_os_error());
            let mut status = 0;
            // SAFETY: the kernel writes one int; the child is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child's wait status");
        }
    }
}

fn opened_anew(scratch: &Scratch) -> usize {
    let engine = engine();
    opened(&engine, scratch).read_at(vec![0; 1], 0).wait().0.expect("it is readable")
}
