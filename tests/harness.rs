//! The tests' own tools: a watchdog that does not bite, or a mount that stays behind, would be noticed too late.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{LoopDevice, Scratch, Watched, feed, first_difference, image, pattern, require, tmpfs, tool};

#[test]
fn hang_becomes_a_failure_that_shows_what_was_printed() {
    let shell = require!(tool("sh"));
    let failure = |limit: Duration| {
        let mut command = Command::new(&shell);
        // The grandchild holds the output open, as a traced program does for its tracer: the whole group must go.
        command.args(["-c", "echo waiting >&2; sleep 1000"]).stderr(Stdio::piped());
        let watched = Watched::start_with_limit(&mut command, limit);
        let failure = catch_unwind(AssertUnwindSafe(|| watched.finish())).err().expect("it hangs");
        failure.downcast::<String>().expect("a message")
    };
    // On a busy machine the shell has printed nothing by then: it is given ten times as long.
    let messages = [300, 3_000, 30_000].map(Duration::from_millis).into_iter().map(failure);
    let last =
        messages.inspect(|message| assert!(message.contains("hung"), "{message}")).find(|m| m.contains("waiting"));
    assert!(last.is_some(), "what was printed is not shown");
}

#[test]
fn more_output_than_a_pipe_holds_stops_nobody() {
    let cat = require!(tool("cat"));
    let data = pattern(3 << 20, 1);
    let mut command = Command::new(cat);
    let mut watched = Watched::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let feeding = feed(watched.stdin(), data.clone());
    assert_eq!(first_difference(&watched.finish().expect_success().stdout, &data), None);
    feeding.join().expect("no panic").expect("all of it was read");
}

#[test]
fn mounts_are_seen_by_their_test_only_and_end_with_it() {
    let scratch = Scratch::new();
    let target = scratch.path("tmpfs");
    let mounted = |mounts: &str| {
        let table = std::fs::read_to_string(mounts).expect("a mount table");
        table.contains(&target.display().to_string())
    };
    {
        let _mount = require!(tmpfs(&target, "size=1m"));
        assert!(mounted("/proc/thread-self/mountinfo"), "not mounted");
        // The thread that the process began with is in nobody's namespace, unless it runs this very test.
        if std::thread::current().name() != Some("main") {
            assert!(!mounted("/proc/self/mountinfo"), "everybody sees it");
        }
    }
    assert!(!mounted("/proc/thread-self/mountinfo"), "it stays behind");
}

#[test]
fn loop_devices_end_with_their_last_user() {
    let scratch = Scratch::new();
    let backing = |device: &LoopDevice| {
        let name = device.path().file_name().expect("a name").to_string_lossy().into_owned();
        std::path::PathBuf::from(format!("/sys/block/{name}/loop/backing_file"))
    };
    let device = require!(LoopDevice::new(scratch.dir(), "disk", 1 << 20));
    let backing = backing(&device);
    let ours = scratch.dir().display().to_string();
    let in_use = || std::fs::read_to_string(&backing).is_ok_and(|file| file.contains(&ours));
    assert!(in_use(), "{} says otherwise", backing.display());
    drop(device);
    // A child of another test that has not reached its `exec` yet, or a daemon that looks at new devices, may have it open.
    let deadline = Instant::now() + Duration::from_secs(60);
    while in_use() {
        assert!(Instant::now() < deadline, "{} is still there", backing.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn image_can_be_written_and_read() {
    let scratch = Scratch::new();
    let mount = require!(image(scratch.dir(), "ext4"));
    let data = pattern(100_000, 2);
    std::fs::write(mount.path("file"), &data).expect("room");
    support::assert_file(&mount.path("file"), &data);
}
