//! The example `adder` from outside: what was written comes back, whole and once, by every backend.

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Scratch, Watched, backends, disk_file_system, example, kernel_aio, quiet, refuse, require};

const BLOCKS: u64 = 300;
/// 4 KiB of 64-bit integers, counted from 0.
const INTEGERS: u64 = BLOCKS * 512;

fn adder(scratch: &Scratch, args: &[&str]) -> Command {
    let mut command = Command::new(example("adder"));
    command.arg("--file").arg(scratch.path("adder.dat"));
    command.args(["--blocks", &BLOCKS.to_string()]).args(args);
    quiet(&mut command);
    command
}

#[track_caller]
fn assert_adds_up(command: &mut Command) -> Value {
    let finished = Watched::start(command.arg("--json")).finish().expect_success();
    let report: Value = serde_json::from_slice(&finished.stdout).expect("one JSON object");
    assert_eq!(report["sum"], INTEGERS * (INTEGERS - 1) / 2, "{report}");
    assert_eq!(report["integers"], INTEGERS, "{report}");
    report
}

#[test]
fn sum_is_right_on_every_backend() {
    for backend in backends() {
        for direct in [&[][..], &["--direct"]] {
            let scratch = Scratch::new();
            let options = [&["--backend", backend], direct].concat();
            let report = assert_adds_up(&mut adder(&scratch, &options));
            if backend == "thread-pool" {
                assert!(report["served_by"].get("kernel-aio").is_none(), "{report}");
            }
        }
    }
}

#[test]
fn sum_is_right_for_every_shape_of_the_rounds() {
    let shapes = [("1", "1", "1"), ("100", "1", "16"), ("100", "16", "16"), ("256", "100", "200"), ("3", "50", "60")];
    for (concurrent, min_nr, max_nr) in shapes {
        let scratch = Scratch::new();
        let options = ["--concurrent", concurrent, "--min-nr", min_nr, "--max-nr", max_nr];
        assert_adds_up(&mut adder(&scratch, &options));
    }
}

#[test]
fn direct_requests_are_served_by_kernel_aio() {
    let scratch = Scratch::new();
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    let report = assert_adds_up(&mut adder(&scratch, &["--direct"]));
    let served = report["served_by"]["kernel-aio"].as_u64().unwrap_or(0);
    assert!(served >= 2 * BLOCKS * 9 / 10, "{report}");
}

#[test]
fn sum_is_right_without_kernel_aio() {
    let scratch = Scratch::new();
    let mut command = adder(&scratch, &["--direct"]);
    refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
    let report = assert_adds_up(&mut command);
    assert!(report["served_by"].get("kernel-aio").is_none(), "{report}");
}

/// What somebody keeps under that name is not a scratch file.
#[test]
fn file_that_exists_is_not_overwritten() {
    let scratch = Scratch::new();
    let precious = scratch.file("adder.dat", b"precious");
    let finished = Watched::start(&mut adder(&scratch, &[])).finish().expect_code(1);
    assert!(finished.stderr.contains("adder.dat"), "{finished}");
    support::assert_file(&precious, b"precious");
}

/// `--backend`, `--engine` and the environment are one choice; the command line wins.
#[test]
fn a_backend_is_chosen_alike_by_each_way() {
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let ways: [(&[&str], Option<&str>); 4] = [
        (&["--backend", "thread-pool"], None),
        (&["--engine", "thread-pool"], None),
        (&[], Some("thread-pool")),
        (&["--engine", "thread-pool"], Some("posix-aio")),
    ];
    for (options, variable) in ways {
        let mut command = adder(&scratch, &[options, &["--direct"]].concat());
        variable.map(|name| command.env("POLYAIO_BACKEND", name));
        let report = assert_adds_up(&mut command);
        let served = report["served_by"].as_object().expect("an object");
        assert!(served.keys().eq(["thread-pool"]), "{options:?}, {variable:?}: {report}");
    }
}

/// Required by `--strict` or by the environment, a backend that is missing is an error that says what was missing;
/// preferred, it is a fallback.
#[test]
fn a_backend_is_required_alike_by_each_way() {
    require!(support::built_with_kernel_aio());
    let scratch = Scratch::new();
    type Way = (&'static [&'static str], &'static [(&'static str, &'static str)]);
    let ways: [Way; 5] = [
        (&["--backend", "kernel-aio", "--strict"], &[]),
        (&["--engine", "kernel-aio", "--strict"], &[]),
        (&["--backend", "kernel-aio"], &[("POLYAIO_STRICT", "1")]),
        (&["--strict"], &[("POLYAIO_BACKEND", "kernel-aio")]),
        (&[], &[("POLYAIO_BACKEND", "kernel-aio"), ("POLYAIO_STRICT", "1")]),
    ];
    for (options, variables) in ways {
        let without = |extra: &[&str], strict: bool| {
            let mut command = adder(&scratch, &[extra, options].concat());
            command.envs(variables.iter().copied());
            if !strict {
                command.env("POLYAIO_STRICT", "0");
            }
            refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
            command
        };
        let finished = Watched::start(&mut without(&[], true)).finish().expect_code(1);
        assert!(finished.stderr.contains("kernel-aio") && finished.stderr.contains("io_setup"), "{finished}");
        if !options.contains(&"--strict") {
            let report = assert_adds_up(&mut without(&["--direct"], false));
            assert_ne!(report["fallbacks"]["not-started"].as_u64().unwrap_or(0), 0, "{report}");
        }
    }
}

/// Direct I/O that is refused: an error by either way to be strict.
#[test]
fn strict_includes_direct_io_that_is_refused() {
    let scratch = Scratch::new();
    let mount = require!(support::ramfs(&scratch.path("ramfs")));
    for (option, variable) in [(Some("--strict"), None), (None, Some("1")), (None, None)] {
        let mut command = Command::new(example("adder"));
        quiet(command.arg("--file").arg(mount.path("adder.dat")).args(["--direct", "--blocks", "20"]).args(option));
        variable.map(|strict| command.env("POLYAIO_STRICT", strict));
        let finished = Watched::start(&mut command).finish();
        if option.is_some() || variable.is_some() {
            assert!(finished.expect_code(1).stderr.contains("O_DIRECT"));
        } else {
            finished.expect_success();
        }
    }
}

/// What makes no sense in the environment is an error that lists what does.
#[test]
fn wrong_values_in_the_environment_are_explained() {
    let scratch = Scratch::new();
    for (name, value, says) in [
        ("POLYAIO_BACKEND", "abacus", "thread-pool"),
        ("POLYAIO_BACKEND", "Thread-Pool", "thread-pool"),
        ("POLYAIO_STRICT", "maybe", "0 or 1"),
    ] {
        let finished = Watched::start(adder(&scratch, &[]).env(name, value)).finish().expect_code(1);
        for word in [name, value, says] {
            assert!(finished.stderr.contains(word), "{word} is not in: {finished}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let scratch = Scratch::new();
    let wrong: [&[&str]; 4] =
        [&["--concurrent", "0"], &["--min-nr", "0"], &["--min-nr", "9", "--max-nr", "8"], &["--backend", "abacus"]];
    for options in wrong {
        let finished = Watched::start(&mut adder(&scratch, options)).finish().expect_code(2);
        assert!(finished.stderr.contains(options[0]), "{finished}");
    }
}
