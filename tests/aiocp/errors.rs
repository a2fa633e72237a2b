//! What cannot be copied, and command lines that make no sense: a clear error, no panic, no hang, nothing destroyed.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Report, SIZE, aiocp, expect_error, expect_usage_error, one_line, run};
use crate::support::{
    Inject, NOBODY, Scratch, assert_file, built_with_kernel_aio, example, is_root, pattern, quiet, refuse, require,
    tmpfs,
};

#[test]
fn missing_source_is_named_and_no_destination_is_made() {
    let scratch = Scratch::new();
    let destination = scratch.path("out");
    let finished = expect_error(&mut aiocp([scratch.path("nowhere"), destination.clone()]), "no such file");
    assert!(finished.stderr.contains("nowhere"), "{finished}");
    assert!(!destination.exists(), "made although there was nothing to copy");
}

#[test]
fn missing_source_leaves_the_destination_alone() {
    let scratch = Scratch::new();
    let destination = scratch.file("out", b"precious");
    expect_error(&mut aiocp([scratch.path("nowhere"), destination.clone()]), "no such file");
    assert_file(&destination, b"precious");
}

#[test]
fn missing_directory_of_the_destination_is_named() {
    let scratch = Scratch::new();
    let source = scratch.file("in", b"data");
    let finished = expect_error(&mut aiocp([source, scratch.path("nowhere/out")]), "no such file");
    assert!(finished.stderr.contains("nowhere/out"), "{finished}");
}

#[test]
fn directory_is_no_source() {
    let scratch = Scratch::new();
    let destination = scratch.path("out");
    let directory = scratch.subdir("directory");
    for options in [&[][..], &["--direct"]] {
        expect_error(aiocp(options).arg(&directory).arg(&destination), "is a directory");
        assert!(!destination.exists(), "made although there was nothing to copy");
    }
}

#[test]
fn several_sources_need_a_directory() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.file("one", b"1"), scratch.file("two", b"2"));
    let last = scratch.file("last", b"precious");
    let finished = run(&mut aiocp([&one, &two, &last]));
    assert!(matches!(finished.code(), Some(1 | 2)), "{finished}");
    assert!(finished.stderr.contains("directory"), "{finished}");
    assert_file(&last, b"precious");
}

/// `aiocp` as a user without rights: ourselves, or nobody when we are root.
fn as_ordinary_user(scratch: &Scratch) -> Command {
    if !is_root() {
        return aiocp::<[&str; 0]>([]);
    }
    // The clone may be where only root can look.
    let program = scratch.path("aiocp");
    if !program.exists() {
        fs::copy(example("aiocp"), &program).expect("room for the program");
    }
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY);
    quiet(&mut command);
    command
}

#[test]
fn source_that_may_not_be_read_is_an_error() {
    let scratch = Scratch::open_to_all();
    let source = scratch.file("in", b"secret");
    fs::set_permissions(&source, Permissions::from_mode(0o000)).expect("a file of ours");
    let destination = scratch.path("out");
    let finished = expect_error(as_ordinary_user(&scratch).args([&source, &destination]), "permission denied");
    assert!(finished.stderr.contains(&source.display().to_string()), "{finished}");
    assert!(!destination.exists(), "made although there was nothing to copy");
}

#[test]
fn destination_that_may_not_be_written_is_an_error() {
    let scratch = Scratch::open_to_all();
    let source = scratch.file("in", b"data");
    let destination = scratch.file("out", b"precious");
    fs::set_permissions(&source, Permissions::from_mode(0o444)).expect("a file of ours");
    fs::set_permissions(&destination, Permissions::from_mode(0o444)).expect("a file of ours");
    expect_error(as_ordinary_user(&scratch).args([&source, &destination]), "permission denied");
    assert_file(&destination, b"precious");
}

#[test]
fn copy_onto_itself_is_refused_by_whatever_name() {
    let scratch = Scratch::new();
    let data = pattern(100_000, 60);
    let source = scratch.file("in", &data);
    let (symbolic, hard) = (scratch.path("symbolic"), scratch.path("hard"));
    symlink(&source, &symbolic).expect("a symbolic link");
    fs::hard_link(&source, &hard).expect("a hard link");
    let around = scratch.dir().join(".").join("in");
    let onto: [&Path; 5] = [&source, &symbolic, &hard, &around, scratch.dir()];
    for destination in onto {
        for options in [&[][..], &["--direct"]] {
            expect_error(aiocp(options).arg(&source).arg(destination), "same file");
            assert_file(&source, &data);
        }
    }
}

/// `aiocp f - >> f` would never end.
#[test]
fn copy_onto_itself_through_standard_output_is_refused() {
    let scratch = Scratch::new();
    let data = pattern(100_000, 61);
    let source = scratch.file("in", &data);
    let itself = fs::File::options().append(true).open(&source).expect("the source");
    let mut command = aiocp([source.as_os_str(), OsStr::new("-")]);
    // A copy that does not refuse must not fill the disk.
    limit_file_size(&mut command, 1 << 20);
    let finished = run(command.stdout(itself)).expect_code(1);
    assert!(one_line(&finished).contains("same file"), "{finished}");
    assert_file(&source, &data);
}

/// No file may grow beyond so many bytes; who tries is ended by SIGXFSZ.
fn limit_file_size(command: &mut Command, bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: setrlimit may be called between fork and exec, and reads a structure that the closure owns.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[test]
fn full_device_is_an_error() {
    let scratch = Scratch::new();
    let source = scratch.file("in", &pattern(SIZE, 62));
    for options in [&[][..], &["--direct"]] {
        expect_error(aiocp(options).arg(&source).arg("/dev/full"), "no space left");
    }
}

#[test]
fn full_standard_output_is_an_error() {
    let scratch = Scratch::new();
    let source = scratch.file("in", &pattern(SIZE, 63));
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    expect_error(aiocp([source.as_os_str(), OsStr::new("-")]).stdout(full), "no space left");
}

#[test]
fn full_file_system_is_an_error_and_leaves_a_prefix() {
    let scratch = Scratch::new();
    let mount = require!(tmpfs(&scratch.path("small"), "size=1m"));
    let data = pattern(SIZE, 64);
    let source = scratch.file("in", &data);
    for options in [&[][..], &["--direct"]] {
        let destination = mount.path("out");
        expect_error(aiocp(options).arg(&source).arg(&destination), "no space left");
        let left = fs::read(&destination).unwrap_or_default();
        assert!(data.starts_with(&left), "{options:?}: {} bytes that are no prefix", left.len());
    }
}

/// A sync that fails means that the data may be lost: never to be swallowed.
#[test]
fn failing_sync_is_an_error() {
    let scratch = Scratch::new();
    let fault = require!(Inject::new(scratch.dir(), "fsync,fdatasync", "error=EIO"));
    let source = scratch.file("in", &pattern(SIZE, 67));
    let mut command = fault.command(example("aiocp"));
    quiet(command.args(["--backend", "thread-pool", "--sync"]).args([&source, &scratch.path("out")]));
    expect_error(&mut command, "input/output error");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let scratch = Scratch::new();
    let source = scratch.file("in", b"data");
    let destination = scratch.path("out");
    let cases: [(&[&str], &str); 9] = [
        (&["--block-size", "0"], "--block-size"),
        (&["--block-size", "lots"], "--block-size"),
        (&["--block-size=-1"], "--block-size"),
        (&["--block-size", "99999999999999999999"], "--block-size"),
        (&["--depth", "0"], "--depth"),
        (&["--depth", "many"], "--depth"),
        (&["--depth", "99999999999999999999"], "--depth"),
        (&["--backend", "punch-cards"], "--backend"),
        (&["--no-such-option"], "--no-such-option"),
    ];
    for (options, says) in cases {
        expect_usage_error(aiocp(options).args([&source, &destination]), says);
        assert!(!destination.exists(), "{options:?}");
    }
    expect_usage_error(&mut aiocp::<[PathBuf; 0]>([]), "Usage");
    expect_usage_error(&mut aiocp([&source]), "Usage");
}

#[test]
fn strict_turns_a_backend_that_is_not_there_into_an_error() {
    let scratch = Scratch::new();
    let source = scratch.file("in", &pattern(SIZE, 65));
    let mut command = aiocp(["--direct", "--strict", "--backend", "kernel-aio"]);
    refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
    expect_error(command.args([&source, &scratch.path("out")]), "kernel-aio");
}

/// Being strict is one thing, by the command line and by the environment.
#[test]
fn strictness_of_the_environment_is_that_of_the_option() {
    require!(built_with_kernel_aio());
    let scratch = Scratch::new();
    let source = scratch.file("in", &pattern(SIZE, 67));
    for option in ["--backend", "--engine"] {
        let mut command = aiocp(["--direct", option, "kernel-aio"]);
        command.env("POLYAIO_STRICT", "1");
        refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
        expect_error(command.args([&source, &scratch.path("out")]), "io_setup");
    }
    let mount = require!(crate::support::ramfs(&scratch.path("ramfs")));
    let mut command = aiocp(["--direct"]);
    command.env("POLYAIO_STRICT", "1");
    expect_error(command.args([&source, &mount.path("out")]), "O_DIRECT");
}

/// The same request without `--strict` is served by somebody else, and says so: no fallback is silent.
#[test]
fn backend_that_is_not_there_falls_back_visibly() {
    require!(built_with_kernel_aio());
    let scratch = Scratch::new();
    let data = pattern(SIZE, 66);
    let (source, destination) = (scratch.file("in", &data), scratch.path("out"));
    let mut command = aiocp(["--direct", "--json", "--backend", "kernel-aio"]);
    refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
    let report = Report::of(run(command.args([&source, &destination])));
    assert_file(&destination, &data);
    report.assert_without_kernel_aio();
    assert!(report.json.to_string().contains("kernel-aio"), "who was missing is not in {}", report.json);
}
