//! What the figures were made on.

use std::path::Path;
use std::process::Command;

use crate::arguments::Args;
use crate::fio;

/// How busy the machine is: processes that run, on average over the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_string()
}

/// Lines of a list.
pub(crate) fn describe(args: &Args, load_before: &str) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kib| kib.trim_end_matches(" kB").parse::<u64>().ok());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the numbers is who has built it.
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_string();
    let mut lines = vec![
        format!(
            "machine: {cores} cores of {}, {} GiB of memory, Linux {kernel}{}",
            field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_string()),
            memory.unwrap_or(0) / (1 << 20),
            if is_virtual() { ", a virtual machine" } else { "" },
        ),
        format!("disk: {}", file_system(&args.file)),
        format!("load (processes that run, over a minute): {load_before} before, {} after", load()),
        format!("versions: {}", versions()),
    ];
    if let Some(device) = &args.device {
        lines.insert(2, format!("disk as fast as memory: {}", device.display()));
    }
    lines
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn is_virtual() -> bool {
    field("/proc/cpuinfo", "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"))
}

fn file_system(file: &Path) -> String {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found =
        Command::new("findmnt").args(["--noheadings", "--output", "FSTYPE,SOURCE", "--target"]).arg(directory).output();
    let text = found.map(|found| String::from_utf8_lossy(&found.stdout).into_owned()).unwrap_or_default();
    let words: Vec<_> = text.split_whitespace().collect();
    if words.is_empty() { "unknown".to_string() } else { words.join(" on ") }
}

/// Of what was compared.
fn versions() -> String {
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let rustc = rustc.split(' ').nth(1).map(|version| format!("Rust {version}"));
    let crates = ["tokio", "blocking", "compio", "tokio-uring", "io-uring"].into_iter().filter_map(crate_version);
    let fio = fio::version().unwrap_or_else(|| "no fio".to_string());
    rustc.into_iter().chain(crates).chain([fio]).collect::<Vec<_>>().join(", ")
}

/// The newest version of a crate that this program is built with.
fn crate_version(name: &str) -> Option<String> {
    let lock = include_str!("../Cargo.lock");
    let header = format!("name = \"{name}\"\nversion = \"");
    let version = lock.rsplit_once(&header)?.1.split('"').next()?;
    Some(format!("{name} {version}"))
}
