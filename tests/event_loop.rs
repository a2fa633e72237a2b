//! The example `event_loop` from outside: a loop that knows nothing but epoll misses no completion.

mod support;

use std::process::Command;

use support::{Scratch, Watched, backends, example, quiet};

fn event_loop(args: &[&str]) -> Command {
    let mut command = Command::new(example("event_loop"));
    command.args(args);
    quiet(&mut command);
    command
}

#[test]
fn the_sums_are_right_on_every_backend() {
    let scratch = Scratch::new();
    let data = support::pattern(3_000_001, 7);
    let (large, empty) = (scratch.file("large", &data), scratch.file("empty", &[]));
    let sum: u64 = data.iter().map(|byte| u64::from(*byte)).sum();
    let expected = format!("{}: 3000001 bytes, sum {sum}\n{}: 0 bytes, sum 0\n", large.display(), empty.display());
    for backend in backends() {
        for direct in [&[][..], &["--direct"]] {
            for depth in ["1", "16", "100"] {
                let mut command = event_loop(&["--backend", backend, "--depth", depth]);
                let finished = Watched::start(command.args(direct).args([&large, &empty])).finish().expect_success();
                assert_eq!(String::from_utf8_lossy(&finished.stdout), expected, "{backend} {direct:?} {depth}");
                assert!(finished.stderr.contains("served by"), "{}", finished.stderr);
            }
        }
    }
}

#[test]
fn the_timer_is_served_by_the_same_loop() {
    let scratch = Scratch::new();
    let file = scratch.file("file", &support::pattern(32 << 20, 1));
    let mut command = event_loop(&["--tick", "1", "--depth", "1", "--direct"]);
    let finished = Watched::start(command.arg(&file)).finish().expect_success();
    assert!(finished.stderr.contains("reads in flight"), "{}", finished.stderr);
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let finished = Watched::start(&mut event_loop(&["/nonexistent"])).finish();
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("/nonexistent") && finished.stderr.contains("check the path"));
    assert_eq!(Watched::start(&mut event_loop(&[])).finish().status.code(), Some(2));
    let unreadable = Watched::start(&mut event_loop(&["--backend", "nobody", "/dev/null"])).finish();
    assert_eq!(unreadable.status.code(), Some(2));
    assert!(unreadable.stderr.contains("thread-pool"), "it lists what there is: {}", unreadable.stderr);
}
