//! polyaio and the loops by hand: the example `iobench`, a process per round.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::arguments::Args;
use crate::jobs::{BLOCK, Job};
use crate::results::Measured;

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds it, and says where it is.
pub(crate) fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--features", "tokio", "--example", "iobench"]);
    command.arg("--message-format=json-render-diagnostics").current_dir(PROJECT).stderr(Stdio::inherit());
    let built = command.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let path = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    path.filter(|_| built.status.success()).ok_or_else(|| "iobench does not build".to_string())
}

fn command(program: &Path, job: &Job, seconds: f64) -> Command {
    let mut command = Command::new(program);
    command.arg("--file").arg(&job.file).args(["--size", &job.size.to_string(), "--pattern", job.pattern.name()]);
    command.args(["--block-size", &BLOCK.to_string(), "--depth", &job.depth.to_string()]);
    command.args(["--seconds", &seconds.to_string(), "--rounds", "1", "--json"]);
    command.args(job.direct.then_some("--direct"));
    // Only what is on the command line counts.
    command.env_remove("POLYAIO_BACKEND").env_remove("POLYAIO_STRICT");
    command
}

/// Makes the file, or fills the device; refuses a file that iobench has not made.
pub(crate) fn prepare(program: &Path, job: &Job, args: &Args) -> Result<(), String> {
    if args.device.as_ref() == Some(&job.file) {
        let mut fill = Command::new(program);
        fill.arg("--file").arg(&job.file).args(["--size", &job.size.to_string(), "--force", "--json"]);
        fill.args(["--pattern", "write", "--engine", "raw-pread", "--seconds", "0.001", "--rounds", "1"]);
        finish(fill)?;
    }
    let mut first = command(program, job, 0.001);
    first.args(["--engine", "raw-pread"]);
    finish(first).map(drop)
}

/// One round.
pub(crate) fn run(program: &Path, job: &Job, args: &Args, engine: &str, executor: &str) -> Result<Measured, String> {
    let mut command = command(program, job, args.seconds);
    command.args(["--engine", engine, "--executor", executor]);
    let all = finish(command)?;
    if let Some(warning) = all[0]["warning"].as_str() {
        return Err(warning.to_string());
    }
    Measured::of(&all[0]).ok_or_else(|| format!("no figures in {all}"))
}

/// What it prints.
pub(crate) fn finish(mut command: Command) -> Result<Value, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a word");
        // Who says so is said already.
        return Err(line.split_once(": ").map_or(line, |(_, line)| line).to_string());
    }
    // fio may print notes before its JSON.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find(['[', '{']).unwrap_or(0);
    serde_json::from_str(&text[begin..]).map_err(|error| format!("{name}: {error}: {text}"))
}
