//! Time against dd: the promise of the README, with the same durability, cold, side by side.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::aiocp;
use crate::support::{
    Scratch, Watched, disk_file_system, kernel_aio, long_tests, report_skip, require, tool, write_pattern,
};

const MIB: u64 = 1024;
const ROUNDS: usize = 5;

#[test]
fn direct_copy_is_faster_than_dd() {
    require!(long_tests());
    let scratch = Scratch::new();
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    let dd = require!(tool("dd"));
    let source = scratch.path("in");
    write_pattern(&source, MIB << 20, 92).expect("room for 2 GiB");
    let (one, two) = (scratch.path("out1"), scratch.path("out2"));

    let mut by_aiocp = aiocp(["--direct", "--sync"]);
    by_aiocp.arg(&source).arg(&one);
    let mut contenders =
        [vec![by_aiocp], vec![copy_by_dd(&dd, &source, &one, 0, MIB)], in_halves(&dd, &source, [&one, &two])];
    let mut times = [const { Vec::new() }; 3];
    // Interleaved: whatever slows this machine down for a while slows them all.
    for _ in 0..ROUNDS {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            times.push(time_cold(contender, &source, [&one, &two]));
        }
    }
    judge(times.map(median));
}

/// Two of them at once, half of the file each: if that is no faster than one, the disk has nothing left to give.
fn in_halves(dd: &Path, source: &Path, destinations: [&Path; 2]) -> Vec<Command> {
    let half = MIB / 2;
    destinations.iter().zip([0, half]).map(|(to, skip)| copy_by_dd(dd, source, to, skip, half)).collect()
}

/// Copies `count` MiB of the source, after the first `skip`.
fn copy_by_dd(dd: &Path, source: &Path, destination: &Path, skip: u64, count: u64) -> Command {
    let operand = |name: &str, path: &Path| {
        let mut operand = OsString::from(name);
        operand.push(path);
        operand
    };
    let mut command = Command::new(dd);
    command.args(["bs=1M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none"]);
    command.args([format!("skip={skip}"), format!("count={count}")]);
    command.args([operand("if=", source), operand("of=", destination)]).stdin(Stdio::null());
    command
}

fn time_cold(commands: &mut [Command], source: &Path, destinations: [&Path; 2]) -> Duration {
    for destination in destinations {
        let _ = fs::remove_file(destination);
    }
    settle(source.parent().expect("a file in a directory"));
    evict(source);
    let started = Instant::now();
    let running: Vec<Watched> = commands.iter_mut().map(Watched::start).collect();
    for copy in running {
        copy.finish().expect_success();
    }
    started.elapsed()
}

fn judge([aiocp, dd, halves]: [Duration; 3]) {
    let rate = |time: Duration| format!("{:.0} MiB/s", MIB as f64 / time.as_secs_f64());
    let ratio = dd.as_secs_f64() / aiocp.as_secs_f64();
    let headroom = dd.as_secs_f64() / halves.as_secs_f64();
    let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
    // A machine that is busy with other things shows how it schedules, not how it copies.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let line = format!(
        "FIGURES 1 GiB direct, cold, synced, medians of {ROUNDS} rounds: aiocp ({build}) {}, dd {}, ratio {ratio:.2}; \
         two dd at once {}; load average {load}\n",
        rate(aiocp),
        rate(dd),
        rate(halves),
    );
    // Past the capture, like a skip: the figures are what this test is for.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if ratio <= 1.0 && headroom < 1.15 {
        let why = format!("one dd takes all that the disk gives (two: {headroom:.2} times one), nobody can be faster");
        return report_skip(concat!(module_path!(), "::direct_copy_is_faster_than_dd"), &why);
    }
    assert!(ratio > 1.0, "{line}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Has the file system write back everything now: freeing the last round's gigabyte is not this round's work.
fn settle(dir: &Path) {
    let dir = File::open(dir).expect("a directory of ours");
    // SAFETY: acts on a descriptor that is open during the call.
    let synced = unsafe { libc::syncfs(dir.as_raw_fd()) };
    assert_eq!(synced, 0, "syncfs");
}

/// Drops the file's pages from the cache, which needs no rights: all of them are clean.
fn evict(path: &Path) {
    let file = File::open(path).expect("the source");
    // SAFETY: advice on a descriptor that is open during the call.
    let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(advised, 0, "posix_fadvise");
}
