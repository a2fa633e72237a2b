//! fio, where it is installed.

use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;

use crate::arguments::Args;
use crate::iobench::finish;
use crate::jobs::{BLOCK, Job};
use crate::patterns::Pattern;
use crate::results::Measured;

/// One round. Its CPU time is what it reports for its jobs, which leaves out what they do before and after.
pub(crate) fn run(job: &Job, args: &Args, engine: &str) -> Result<Measured, String> {
    if !installed() {
        return Err("fio is not installed".to_string());
    }
    let mut file = job.file.clone();
    if job.pattern.writes() {
        // One of its own: iobench would not know its file again.
        let mut path = OsString::from(&file);
        path.push(".fio");
        file = path.into();
    }
    let mut command = Command::new("fio");
    let rw = match job.pattern {
        Pattern::RandRead => "randread",
        Pattern::RandWrite => "randwrite",
        Pattern::Extend => "write",
        other => return Err(format!("{} is not among the jobs", other.name())),
    };
    let option = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
    command.arg("--name=job").arg(format!("--filename={}", file.display())).arg("--output-format=json");
    command.args([
        option("rw", &rw),
        option("bs", &BLOCK),
        option("size", &job.size),
        option("runtime", &args.seconds),
    ]);
    command.args([option("ioengine", &engine), option("direct", &u8::from(job.direct))]);
    command.args(["--norandommap", "--randrepeat=0", "--thread", "--group_reporting", "--invalidate=0"]);
    match job.pattern {
        Pattern::Extend => {
            // It may not be there.
            let _ = std::fs::remove_file(&file);
            command.args(["--fallocate=none", "--overwrite=0"])
        }
        _ => command.arg("--time_based"),
    };
    match engine {
        // Depth is what threads there are.
        "psync" => command.args([option("numjobs", &job.depth), option("iodepth", &1)]),
        _ => command.arg(option("iodepth", &job.depth)),
    };
    let report = finish(command)?;
    let measured = figures(&report["jobs"][0], job).ok_or("fio has reported no figures")?;
    // It reports the time of its own threads: those of the C library, which serve POSIX AIO, are not among them.
    let cpu_us = if engine == "posixaio" { f64::NAN } else { measured.cpu_us };
    Ok(Measured { cpu_us, ..measured })
}

fn installed() -> bool {
    version().is_some()
}

/// What is installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn figures(report: &Value, job: &Job) -> Option<Measured> {
    let side = &report[if job.pattern.writes() { "write" } else { "read" }];
    let requests = side["total_ios"].as_f64().filter(|requests| *requests > 0.0)?;
    let percentile = |name: &str| Some(side["clat_ns"]["percentile"][name].as_f64()? / 1000.0);
    // Percent of the time of all its threads, in milliseconds.
    let busy = report["usr_cpu"].as_f64()? + report["sys_cpu"].as_f64()?;
    let cpu_us = busy / 100.0 * report["job_runtime"].as_f64()? * 1000.0;
    Some(Measured {
        iops: side["iops"].as_f64()?,
        cpu_us: cpu_us / requests,
        p50_us: percentile("50.000000")?,
        p99_us: percentile("99.000000")?,
        threads: None,
    })
}
