//! The JSON report: for scripts, so its shape is a promise.

use crate::run::{Report, SIZE, aiocp, copy, run};
use crate::support::{Scratch, backends, pattern};

#[test]
fn report_has_everything_that_was_promised() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 80);
    let report = copy(&["--direct"], scratch.file("in", &data), scratch.path("out"));
    let (bytes, seconds, rate) = (report.number("bytes"), report.number("seconds"), report.number("mib_per_s"));
    assert_eq!(bytes, SIZE as f64);
    assert!(seconds > 0.0, "{}", report.json);
    // Two figures of one thing: they may be rounded, they must not disagree.
    let computed = bytes / (1 << 20) as f64 / seconds;
    assert!((rate / computed - 1.0).abs() < 0.05, "{rate} MiB/s, computed {computed}: {}", report.json);
    for end in ["source", "destination"] {
        let end = report.end(end);
        assert_eq!(end["kind"], "regular", "{}", report.json);
        assert!(end["direct"].is_boolean(), "{}", report.json);
        assert!(end["backend"].as_str().is_some_and(|name| !name.is_empty()), "{}", report.json);
        assert!(end["reason"].as_str().is_some_and(|why| !why.is_empty()), "{}", report.json);
    }
    assert!(report.json["fallbacks"].is_object(), "{}", report.json);
}

/// Every request is counted once, by the names that `--backend` takes, and `inline`.
#[test]
fn served_by_counts_every_block_by_known_names() {
    let scratch = Scratch::new();
    let blocks = 64;
    let source = scratch.file("in", &pattern(blocks << 16, 81));
    for backend in backends() {
        for options in [&[][..], &["--direct"]] {
            let report = copy(&[&["--backend", backend], options].concat(), &source, scratch.path("out"));
            let served_by = report.json["served_by"].as_object().expect("an object");
            for name in served_by.keys() {
                let known = ["kernel-aio", "posix-aio", "thread-pool", "inline"].contains(&&name[..]);
                assert!(known, "{name} in {}", report.json);
            }
            // A read and a write for each block; more for what was repeated, prepared or finished. Far more would be
            // requests that are counted twice.
            let served = report.served_in_all();
            assert!((2 * blocks as u64..4 * blocks as u64).contains(&served), "{served} requests: {}", report.json);
        }
    }
}

#[test]
fn standard_output_carries_data_only() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 82);
    let source = scratch.file("in", &data);
    let finished = run(aiocp(["--json"]).arg(&source).arg(scratch.path("out")));
    assert!(finished.stdout.is_empty(), "{} bytes on standard output", finished.stdout.len());
    Report::of(finished);
}

#[test]
fn kinds_are_named() {
    let report = Report::of(run(&mut aiocp(["--json", "/dev/null", "/dev/null"])));
    assert_eq!(report.number("bytes"), 0.0);
    for end in ["source", "destination"] {
        let kind = report.end(end)["kind"].as_str().unwrap_or_default();
        assert!(kind.contains("char"), "/dev/null is a character device: {}", report.json);
    }
}

/// A script reads the same object, whether it went well or not.
#[test]
fn failure_is_reported_as_json_too() {
    let scratch = Scratch::new();
    let finished = run(aiocp(["--json"]).args([scratch.path("nowhere"), scratch.path("out")])).expect_code(1);
    let json: serde_json::Value = serde_json::from_str(&finished.stderr).expect("one JSON object");
    assert_eq!(json["bytes"], 0, "{json}");
    assert!(json["error"].as_str().is_some_and(|line| line.contains("nowhere")), "{json}");
}
