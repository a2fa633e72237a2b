use std::process::Command;

use crate::record::BLOCK;
use crate::support::{Finished, Scratch, Watched, backends, example, handles_signal, quiet};

fn wal(args: &[&str]) -> Command {
    let mut command = Command::new(example("wal"));
    command.args(args);
    quiet(&mut command);
    command
}

fn run(args: &[&str]) -> Finished {
    Watched::start(&mut wal(args)).finish()
}

fn text(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stdout).into_owned()
}

#[test]
fn what_was_appended_is_shown() {
    let scratch = Scratch::new();
    for backend in backends() {
        for direct in [&[][..], &["--direct"]] {
            let path = scratch.path(&format!("{backend}-{}", direct.len()));
            let path = path.to_str().expect("a name that we have chosen");
            let command = |name, texts: &[&str]| {
                run(&[&[name, "--backend", backend], direct, &[path], texts].concat()).expect_success()
            };
            assert_eq!(text(&command("append", &["one", "two\n"])), "committed 1 to 2\n");
            assert_eq!(text(&command("append", &["drei"])), "committed 3 to 3\n");
            let shown = command("show", &[]);
            assert_eq!((text(&shown).as_str(), shown.stderr.as_str()), ("1 one\n2 two\\n\n3 drei\n", ""));
        }
    }
}

/// A tail is told and left alone; damage is an error, after what is well.
#[test]
fn what_is_wrong_is_shown() {
    let scratch = Scratch::new();
    let path = scratch.path("log");
    let name = path.to_str().expect("a name that we have chosen");
    for record in ["one", "two"] {
        run(&["append", name, record]).expect_success();
    }
    let whole = std::fs::read(&path).expect("it is there");
    let mut bytes = [&whole[..], &[1; 100]].concat();
    std::fs::write(&path, &bytes).expect("it can be written");
    let shown = run(&["show", name]).expect_success();
    assert!(text(&shown) == "1 one\n2 two\n" && shown.stderr.contains("100 bytes"), "{shown}");
    assert_eq!(std::fs::read(&path).expect("it is there"), bytes, "it was only looked at");
    bytes[BLOCK + 3] ^= 1;
    std::fs::write(&path, &bytes).expect("it can be written");
    for command in [&["show", name][..], &["append", name, "three"]] {
        let shown = run(command).expect_code(1);
        let beyond = format!("a later commit begins at offset {}", 2 * BLOCK);
        assert!(text(&shown).is_empty() && shown.stderr.contains(name) && shown.stderr.contains(&beyond), "{shown}");
    }
    assert_eq!(std::fs::read(&path).expect("it is there"), bytes, "damage is not written over");
    let other = scratch.file("other", b"dear diary");
    let other = other.to_str().expect("a name that we have chosen");
    for command in [&["show", other][..], &["append", other, "three"]] {
        assert!(run(command).expect_code(1).stderr.contains("no log"));
    }
    assert!(run(&["show", "/nonexistent/log"]).expect_code(1).stderr.contains("check the path"));
}

#[test]
fn torture_finds_nothing() {
    let finished = run(&["torture", "--seeds", "20"]).expect_success();
    assert!(text(&finished).starts_with("20 seeds in ") && finished.stderr.is_empty(), "{finished}");
}

/// The line that is printed shows the same again.
#[test]
fn torture_finds_a_missing_sync_and_says_how_to_see_it_again() {
    for bug in [&["--without-sync"][..], &["--bug", "early-ack"]] {
        let found = run(&[&["torture", "--seeds", "100"], bug].concat()).expect_code(1);
        let line = found.stderr.lines().last().expect("a line that says how");
        let (_, again) = line.split_once("again: ").expect("a line that says how");
        let words: Vec<&str> = again.split(' ').collect();
        assert_eq!(words[0], example("wal").to_str().expect("a path of letters"));
        assert!(words.ends_with(bug), "{again}");
        let once_more = run(&words[1..]).expect_code(1);
        assert_eq!(once_more.stderr, found.stderr);
        let traced = run(&[&words[1..], &["--trace"]].concat()).expect_code(1);
        assert!(traced.stderr.ends_with(&found.stderr) && traced.stderr.contains("SyncData"), "{traced}");
    }
    let help = text(&run(&["torture", "--help"]).expect_success());
    assert!(help.contains("--without-sync") && !help.contains("--bug"), "{help}");
}

#[test]
fn torture_ends_in_order_when_it_is_interrupted() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut watched = Watched::start(&mut wal(&["torture", "--seeds", "1000000000"]));
        watched.until("a handler", |id| handles_signal(id, signal).then_some(()));
        watched.signal(signal);
        let finished = watched.finish().expect_code(1);
        assert!(finished.stderr.starts_with("wal: interrupted after "), "{finished}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let wrong: [&[&str]; 5] = [
        &[],
        &["append", "log"],
        &["torture", "--seeds", "0"],
        &["torture", "--without-sync", "--bug", "no-sync"],
        &["torture", "--bug", "abacus"],
    ];
    for args in wrong {
        run(args).expect_code(2);
    }
}
