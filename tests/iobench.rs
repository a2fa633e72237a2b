//! The example `iobench` from outside: every engine, pattern and executor has its figures, files of others stay as they are.
//!
//! The runs are fractions of a second: that there are figures and that they fit together, not what they are.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{
    Finished, LoopDevice, Scratch, Watched, backends, built_with_kernel_aio, direct_io, example, handles_signal,
    kernel_aio, quiet, refuse, report_skip, require, root,
};

const PATTERNS: [&str; 6] = ["randread", "randwrite", "read", "write", "extend", "mixed70"];
const DISTRIBUTION: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];

/// `iobench --file FILE ARGS...`, small and short unless `args` say otherwise.
fn iobench(file: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(example("iobench"));
    command.arg("--file").arg(file).args(args);
    for (option, value) in [("--size", "2MiB"), ("--seconds", "0.02"), ("--rounds", "1")] {
        if !args.iter().any(|arg| arg.starts_with(option)) {
            command.args([option, value]);
        }
    }
    quiet(&mut command);
    command
}

fn run(command: &mut Command) -> Finished {
    Watched::start(command).finish()
}

/// Engines that this build and this machine have.
fn engines() -> Vec<&'static str> {
    let mut engines = backends();
    engines.extend(["raw-pread", "raw-threads"]);
    match kernel_aio() {
        Ok(()) => engines.push("raw-kernel-aio"),
        Err(why) if built_with_kernel_aio().is_ok() => report_skip("iobench", &why),
        Err(_) => {}
    }
    engines
}

/// The objects of a run with `--json`, after a look at each.
#[track_caller]
fn figures(command: &mut Command) -> Vec<Value> {
    let finished = run(command.arg("--json")).expect_success();
    let Ok(Value::Array(all)) = serde_json::from_slice(&finished.stdout) else {
        panic!("not an array: {}\n{finished}", String::from_utf8_lossy(&finished.stdout));
    };
    all.iter().for_each(assert_sane);
    all
}

#[track_caller]
fn assert_sane(object: &Value) {
    let number = |key: &str| object[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number: {object}"));
    assert!(object["engine"].is_string(), "{object}");
    assert!(number("iops") > 0.0 && number("requests") >= 1.0, "{object}");
    let rate = number("iops") * number("block_size") / f64::from(1 << 20);
    // Both are rounded.
    assert!((number("mib_per_s") - rate).abs() <= 0.1 + rate / 100.0, "{object}");
    assert!(number("threads") >= 1.0 && number("rss_kib") > 0.0, "{object}");
    assert!(number("cpu_us_per_op") >= 0.0 && number("submit_nvcsw") >= 0.0, "{object}");
    assert!(number("ops_per_submit") == 0.0 || number("ops_per_submit") >= 1.0, "{object}");
    for key in ["latency_us", "submit_us"] {
        let values =
            DISTRIBUTION.map(|name| object[key][name].as_f64().unwrap_or_else(|| panic!("{key}.{name}: {object}")));
        assert!(values.is_sorted() && values[0] >= 0.0, "{key}: {object}");
        // To one decimal.
        assert!(values.iter().all(|value| (value * 10.0 - (value * 10.0).round()).abs() < 1e-3), "{key}: {object}");
    }
    let served: u64 = object["served_by"].as_object().expect("an object").values().filter_map(Value::as_u64).sum();
    assert_eq!(Some(served), object["requests"].as_u64(), "{object}");
    assert!(object["fallbacks"].is_object(), "{object}");
}

#[test]
fn every_engine_has_its_figures_for_every_pattern() {
    let scratch = Scratch::new();
    let engines = engines();
    let list = engines.join(",");
    let mut ways = vec![&[][..]];
    match direct_io(scratch.dir()) {
        Ok(()) => ways.push(&["--direct"]),
        Err(why) => report_skip("iobench", &why),
    }
    for pattern in PATTERNS {
        for way in &ways {
            let args = [&["--pattern", pattern, "--engine", &list, "--depth", "4"], *way].concat();
            let all = figures(&mut iobench(&scratch.path("data"), &args));
            let names: Vec<_> = all.iter().filter_map(|object| object["engine"].as_str()).collect();
            assert_eq!(names, engines, "in the order of the command line");
            for object in &all {
                assert_eq!(object["pattern"], pattern);
                let own = |name: &str| object["engine"] != name || object["served_by"][name] == object["requests"];
                assert!(own("raw-pread") && own("raw-threads") && own("raw-kernel-aio"), "{object}");
            }
        }
    }
}

#[test]
fn every_executor_drives_every_depth() {
    let scratch = Scratch::new();
    let mut executors = vec!["caller", "background"];
    if cfg!(feature = "tokio") {
        executors.push("tokio");
    }
    for executor in executors {
        for depth in ["1", "32", "100"] {
            for pattern in ["randread", "mixed70"] {
                let engines = backends().join(",");
                let args = ["--pattern", pattern, "--engine", &engines, "--executor", executor, "--depth", depth];
                let all = figures(&mut iobench(&scratch.path("data"), &args));
                assert!(all.iter().all(|object| object["executor"] == executor), "{all:?}");
            }
        }
    }
}

#[test]
fn threads_share_an_engine() {
    let scratch = Scratch::new();
    let args = ["--pattern", "read", "--engine", "auto,raw-pread", "--threads", "3", "--depth", "2", "--rounds", "2"];
    for object in figures(&mut iobench(&scratch.path("data"), &args)) {
        assert!(object["threads"].as_u64() >= Some(3), "{object}");
        assert_eq!(object["rounds"].as_array().map(Vec::len), Some(2), "{object}");
    }
}

/// Each request lengthens the file, and at `--size` it is over, however much time is left.
#[test]
fn extending_ends_at_the_size() {
    let scratch = Scratch::new();
    let file = scratch.path("grows");
    let engines = engines().join(",");
    let args = ["--pattern", "extend", "--engine", &engines, "--seconds", "3600", "--rounds", "2", "--size", "1MiB"];
    for object in figures(&mut iobench(&file, &args)) {
        assert_eq!(object["requests"], 2 * 256, "{object}");
    }
    assert_eq!(file.metadata().expect("it is kept").len(), 1 << 20);
}

/// What somebody keeps under that name is not scratch data; what iobench made itself is, on any file system.
#[test]
fn files_of_others_are_only_read() {
    let (disk, memory) = (Scratch::new(), Scratch::in_memory());
    if let Err(why) = &memory {
        report_skip("iobench::files_of_others_are_only_read", why);
    }
    for scratch in [Some(&disk), memory.as_ref().ok()].into_iter().flatten() {
        let precious = vec![b'p'; 1 << 20];
        let file = scratch.file("precious", &precious);
        for pattern in PATTERNS {
            let mut command = iobench(&file, &["--pattern", pattern, "--engine", "auto"]);
            if pattern.ends_with("read") {
                figures(&mut command);
            } else {
                let refused = run(&mut command).expect_code(1);
                assert!(refused.stderr.contains("--force"), "{refused}");
                assert!(refused.stdout.is_empty(), "{refused}");
            }
            assert!(std::fs::read(&file).expect("there") == precious, "{pattern} has changed it");
        }
        // Nor is an empty one.
        let empty = scratch.file("empty", b"");
        run(&mut iobench(&empty, &["--pattern", "write", "--engine", "auto"])).expect_code(1);

        figures(&mut iobench(&file, &["--pattern", "randwrite", "--engine", "auto", "--force"]));
        assert!(std::fs::read(&file).expect("there") != precious);
        let made = scratch.path("made");
        for pattern in PATTERNS.iter().chain(&PATTERNS) {
            for path in [&file, &made] {
                figures(&mut iobench(path, &["--pattern", pattern, "--engine", "auto,raw-pread"]));
            }
        }
    }
}

#[test]
fn devices_are_measured_too() {
    require!(root());
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "image", 4 << 20));
    let path = device.path();
    figures(&mut iobench(path, &["--pattern", "randread", "--engine", "auto,raw-pread"]));
    let refused = run(&mut iobench(path, &["--pattern", "write", "--engine", "auto"])).expect_code(1);
    assert!(refused.stderr.contains("--force"), "{refused}");
    figures(&mut iobench(path, &["--pattern", "write", "--engine", "auto", "--force"]));
    figures(&mut iobench(path, &["--pattern", "mixed70", "--engine", "auto", "--direct"]));
    let refused = run(&mut iobench(path, &["--pattern", "extend", "--engine", "auto", "--force"])).expect_code(2);
    assert!(refused.stderr.contains("cannot be extended"), "{refused}");
}

#[test]
fn wrong_usage_is_explained() {
    let scratch = Scratch::new();
    let file = scratch.path("data");
    let tiny = scratch.file("tiny", b"less than a block");
    let cases: [(&Path, &[&str], &str); 17] = [
        (&file, &["--pattern", "randread"], "--engine"),
        (&file, &["--engine", "auto"], "--pattern"),
        (&file, &["--engine", "auto,io-uring", "--pattern", "read"], "io-uring"),
        (&file, &["--engine", "auto,auto", "--pattern", "read"], "named twice"),
        (&file, &["--engine", "auto", "--pattern", "backwards"], "backwards"),
        (&file, &["--engine", "auto", "--pattern", "read", "--depth", "0"], "at least 1"),
        (&file, &["--engine", "auto", "--pattern", "read", "--depth", "99999999"], "at most"),
        (&file, &["--engine", "auto", "--pattern", "read", "--threads", "0"], "--threads"),
        (&file, &["--engine", "auto", "--pattern", "read", "--block-size", "1000"], "multiple of 512"),
        (&file, &["--engine", "auto", "--pattern", "read", "--block-size", "4MiB"], "no room"),
        (&file, &["--engine", "auto", "--pattern", "read", "--block-size", "4KB"], "unknown unit"),
        (&file, &["--engine", "auto", "--pattern", "read", "--depth", "16384", "--block-size", "64MiB"], "--size"),
        (&file, &["--engine", "raw-threads", "--pattern", "read", "--depth", "5000"], "5000 threads"),
        (&file, &["--engine", "auto", "--pattern", "read", "--plot", "/nowhere/at/all.svg"], "--plot"),
        (&tiny, &["--engine", "auto", "--pattern", "read"], "less than one block"),
        (scratch.dir(), &["--engine", "auto", "--pattern", "read"], "neither a file nor a block device"),
        (Path::new("/dev/null"), &["--engine", "auto", "--pattern", "read"], "neither a file nor a block device"),
    ];
    for (path, args, says) in cases {
        let refused = run(&mut iobench(path, args)).expect_code(2);
        assert!(refused.stderr.contains(says), "`{says}` is not in: {refused}");
        assert!(refused.stdout.is_empty(), "{refused}");
    }
    for wrong in ["--seconds=0", "--seconds=-1", "--seconds=x", "--rounds=0", "--size=0"] {
        let refused = run(&mut iobench(&file, &["--engine", "auto", "--pattern", "read", wrong])).expect_code(2);
        assert!(refused.stderr.contains(wrong.split('=').next().unwrap_or_default()), "{refused}");
    }
    assert!(!file.exists(), "nothing was made of a command line that is wrong");
}

#[test]
fn tokio_is_there_or_says_how_to_get_it() {
    let scratch = Scratch::new();
    let args = ["--engine", "auto", "--pattern", "read", "--executor", "tokio"];
    let mut command = iobench(&scratch.path("data"), &args);
    match cfg!(feature = "tokio") {
        true => drop(figures(&mut command)),
        false => {
            let refused = run(&mut command).expect_code(2);
            assert!(refused.stderr.contains("--features tokio"), "{refused}");
        }
    }
}

/// Figures that are another backend's do not go by as its own.
#[test]
fn who_does_not_serve_itself_is_reported() {
    require!(built_with_kernel_aio());
    let scratch = Scratch::new();
    let args = ["--pattern", "randread", "--engine", "kernel-aio,thread-pool,auto"];
    let without_kernel_aio = || {
        let mut command = iobench(&scratch.path("data"), &args);
        refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
        command
    };
    let all = figures(&mut without_kernel_aio());
    assert_eq!(all[0]["own_share"], 0.0, "{all:?}");
    assert!(all[0]["served_by"].get("kernel-aio").is_none(), "{all:?}");
    assert!(all[0]["warning"].as_str().is_some_and(|warning| warning.contains("only 0 %")), "{all:?}");
    for itself in &all[1..] {
        assert_eq!((&itself["own_share"], itself.get("warning")), (&Value::from(1.0), None), "{itself}");
    }
    let table = run(&mut without_kernel_aio()).expect_success();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let warnings: Vec<_> = table.lines().filter(|line| line.starts_with("WARNING")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("kernel-aio has served only 0 %"), "{table}");

    let mut command = iobench(&scratch.path("data"), &["--pattern", "randread", "--engine", "raw-kernel-aio"]);
    refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
    let failed = run(&mut command).expect_code(1);
    assert!(failed.stderr.contains("io_setup"), "{failed}");
}

#[test]
fn plot_is_a_picture_of_all_engines() {
    let scratch = Scratch::new();
    let plot = scratch.path("plot.svg");
    let mut command = iobench(&scratch.path("data"), &["--pattern", "randread", "--engine", "auto,raw-threads"]);
    let finished = run(command.arg("--plot").arg(&plot)).expect_success();
    let table = String::from_utf8_lossy(&finished.stdout).into_owned();
    assert!(["IOPS", "\nauto ", "\nraw-threads "].iter().all(|part| table.contains(part)), "{table}");
    assert!(finished.stderr.is_empty(), "a bar is for terminals: {finished}");
    let svg = std::fs::read_to_string(&plot).expect("it was drawn");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    // Each engine in three panels; a bar or two each.
    assert_eq!((svg.matches("\nauto\n").count(), svg.matches("\nraw-threads\n").count()), (3, 3), "{svg}");
    assert!(["Throughput", "CPU time", "Latency"].iter().all(|panel| svg.contains(panel)), "{svg}");
}

/// Half a table is worse than none.
#[test]
fn a_signal_ends_it_without_figures() {
    for json in [&[][..], &["--json"]] {
        let scratch = Scratch::new();
        let args = ["--pattern", "randread", "--engine", "auto,raw-pread", "--seconds", "3600"];
        let mut running = Watched::start(iobench(&scratch.path("data"), &args).args(json));
        // The main thread, the one that waits for signals, and one that makes requests, which is there once the file is made.
        let threads = |id: u32| std::fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
        running.until("making requests", |id| (handles_signal(id, libc::SIGINT) && threads(id) >= 3).then_some(()));
        assert_interrupted(running);
    }
}

/// A file of which only a part is there is nobody's.
#[test]
fn a_signal_leaves_no_half_of_a_file() {
    let scratch = Scratch::new();
    let file = scratch.path("data");
    let args = ["--pattern", "randread", "--engine", "auto", "--seconds", "3600", "--size", "1GiB"];
    let mut running = Watched::start(&mut iobench(&file, &args));
    running.until("making the file", |_| file.exists().then_some(()));
    assert_interrupted(running);
    // Whole, where the signal was late.
    assert!(file.metadata().map_or(true, |facts| facts.len() == 1 << 30), "{:?}", file.metadata());
}

#[track_caller]
fn assert_interrupted(running: Watched) {
    running.signal(libc::SIGINT);
    let finished = running.finish().expect_code(1);
    assert!(finished.stdout.is_empty(), "{finished}");
    assert!(finished.stderr.contains("interrupted"), "{finished}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished}");
}
