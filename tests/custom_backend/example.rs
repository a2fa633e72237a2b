use std::process::Command;

use crate::support::{Scratch, Watched, backends, example, pattern, quiet};

fn custom_backend(args: &[&str]) -> Command {
    let mut command = Command::new(example("custom_backend"));
    quiet(command.args(args));
    command
}

/// What it copies into memory comes back, whoever serves the files that it reads.
#[test]
fn copies_come_back() {
    let scratch = Scratch::new();
    let mut data = pattern(300_001, 7);
    data[100_000..200_000].fill(0);
    let (sparse, empty) = (scratch.file("sparse", &data), scratch.file("empty", &[]));
    for backend in backends() {
        for depth in ["1", "50"] {
            let mut command = custom_backend(&["--backend", backend, "--depth", depth, "--threads", "3"]);
            let finished = Watched::start(command.args([&sparse, &empty])).finish().expect_success();
            let output = String::from_utf8_lossy(&finished.stdout).into_owned();
            assert!(output.contains("sparse: 300001 bytes, read back the same"), "{output}");
            assert!(output.contains("empty: 0 bytes, read back the same"), "{output}");
            // 74 pages, of which 23 hold nothing but zeroes.
            let kept = format!("{} bytes of memory in all", (74 - 23) * 4096);
            assert_eq!(output.matches(&kept).count(), 2, "{output}");
            assert_eq!(output.matches("read: memory (opened by this backend)").count(), 2, "{output}");
            assert!(output.contains("memory: ") && finished.stderr.contains("served by"), "{output}");
        }
    }
}

/// One slow thread. How many are in time is not for a test to say; the example fails where a result does not agree with the
/// answer.
#[test]
fn reads_are_cancelled() {
    let scratch = Scratch::new();
    let file = scratch.file("file", &pattern(10, 7));
    let mut command = custom_backend(&["--slow", "20", "--threads", "1", "--depth", "8"]);
    let finished = Watched::start(command.arg(file)).finish().expect_success();
    let output = String::from_utf8_lossy(&finished.stdout).into_owned();
    let cancelled = output.split("of 8 reads ").nth(1).and_then(|rest| rest.split(' ').next());
    let cancelled: usize = cancelled.and_then(|number| number.parse().ok()).expect("it says how many");
    assert!(cancelled <= 8, "{output}");
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let finished = Watched::start(&mut custom_backend(&["/nonexistent"])).finish().expect_code(1);
    assert!(finished.stderr.contains("/nonexistent") && finished.stderr.contains("check the path"));
    let scratch = Scratch::new();
    let finished = Watched::start(custom_backend(&[]).arg(scratch.dir())).finish().expect_code(1);
    assert!(finished.stderr.contains("cannot copy"), "{}", finished.stderr);
    Watched::start(&mut custom_backend(&[])).finish().expect_code(2);
    let help = Watched::start(&mut custom_backend(&["--help"])).finish().expect_success();
    assert!(String::from_utf8_lossy(&help.stdout).contains("--threads <N>"));
}
