//! `probe`: what the library knows of a file, who would serve its requests and why, who did serve a few, what that cost in
//! fallbacks, and the state of the machine. Nothing is written.
//!
//! ```text
//! cargo run --example probe -- Cargo.toml /dev/vda /tmp
//! ```
//!
//! Each file is opened twice, buffered and for direct I/O, for reading and writing where that is permitted; with
//! `--emulate 4096` once more, with the rules of direct I/O enforced in software. Where there is stored data (regular files,
//! block devices) the length is asked for and the first block is read, twice, which may change the time of last access.
//! Nothing is read from a stream, a terminal, another device, or a file that the kernel makes up (`/proc`): a read there
//! would take something away, or wait. Exit codes: 0, or 1 when one of the files could not be opened, 2 for wrong usage.

#[path = "common/backends.rs"]
mod backends;
#[path = "common/output.rs"]
mod output;
#[path = "common/selection.rs"]
mod selection;
#[path = "common/statistics.rs"]
mod statistics;
#[path = "common/text.rs"]
mod text;

use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use polyaio::backend::Capabilities;
use polyaio::{
    AlignedBuf, Alignment, BufResult, Direct, Engine, Error, Facts, File, FileKind, FileSystem, OpKind, OpenOptions,
    RouteStep, Trace,
};
use serde_json::{Value, json};

use crate::selection::Selection;
use crate::text::{Failure, say};

/// Shows who would serve the requests of a file, and why.
#[derive(Parser)]
#[command(name = "probe", version)]
struct Args {
    /// What to look at; `-` is standard input
    #[arg(value_name = "PATH", required = true, num_args = 1..)]
    paths: Vec<PathBuf>,

    /// Open each also with the rules of direct I/O emulated, for an alignment of so many bytes
    #[arg(long, value_name = "BYTES")]
    emulate: Option<usize>,
    #[command(flatten)]
    selection: Selection,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        // Said already, where it belongs.
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(format_args!("probe: {}", failure.line));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Returns whether all files could be opened.
fn run(args: &Args) -> Result<bool, Failure> {
    // Before the engine takes its own share of it.
    let aio_nr = number("/proc/sys/fs/aio-nr");
    let engine = selection::start(args.selection.builder())?;
    let machine = machine(&engine, aio_nr);
    if !args.json {
        output::print(machine_text(&machine))?;
    }
    let mut files = Vec::new();
    let mut all = true;
    for path in &args.paths {
        let file = look_at(&engine, path, args.emulate).unwrap_or_else(|failure| {
            all = false;
            say(format_args!("probe: {}", failure.line));
            json!({ "path": path.to_string_lossy(), "error": failure.line })
        });
        if !args.json && file["error"].is_null() {
            output::print(file_text(&file))?;
        }
        files.push(file);
    }
    let statistics = statistics::json(&engine);
    if args.json {
        output::print(json!({ "machine": machine, "files": files, "statistics": statistics }))?;
    } else {
        output::print(statistics::text(&statistics))?;
    }
    Ok(all)
}

fn machine(engine: &Engine, aio_nr: Option<u64>) -> Value {
    let mut all = backends::json(engine);
    for (entry, status) in all.as_array_mut().into_iter().flatten().zip(engine.backends()) {
        entry["capabilities"] = status.capabilities.map_or(Value::Null, |can| capabilities(&can));
    }
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "aio_nr": aio_nr,
        "aio_max_nr": number("/proc/sys/fs/aio-max-nr"),
        "backends": all,
    })
}

fn capabilities(can: &Capabilities) -> Value {
    let operations = OpKind::ALL.iter().filter(|kind| can.operations.contains(**kind));
    json!({
        "operations": operations.map(|kind| format!("{kind:?}")).collect::<Vec<_>>(),
        "serves": format!("{:?}", can.serves),
        "vectored": can.vectored,
        "nowait": can.nowait,
        "cancel": can.cancel,
        "reaped": can.reaped,
        "queue_bound": can.queue_bound,
    })
}

/// What such a file of the kernel says, where there is one.
fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn number(path: &str) -> Option<u64> {
    line(path)?.parse().ok()
}

/// Opens `path` in all ways that make a difference, and describes each.
fn look_at(engine: &Engine, path: &Path, emulate: Option<usize>) -> Result<Value, Failure> {
    let cannot = |error: &io::Error| Failure::of(format_args!("cannot open {}", path.display()), error);
    let mut opened = Vec::new();
    if path.as_os_str() == "-" {
        let file = io::stdin().as_fd().try_clone_to_owned().map_err(|error| cannot(&error))?;
        let file = engine.adopt(file).map_err(Failure::of_library)?;
        opened.push(describe(&file, "standard input, as it is"));
        return Ok(json!({ "path": "-", "opened": opened }));
    }
    let metadata = fs::metadata(path).map_err(|error| cannot(&error))?;
    if metadata.file_type().is_socket() {
        let (file, _peer) = UnixStream::pair().map_err(|error| cannot(&error))?;
        let file = engine.adopt(OwnedFd::from(file)).map_err(Failure::of_library)?;
        opened.push(describe(&file, "not connected to: a socket of the same kind"));
        return Ok(json!({ "path": path.to_string_lossy(), "opened": opened }));
    }
    let direct_too = metadata.is_file() || metadata.file_type().is_block_device();
    let mut ways = vec![Direct::Off];
    if direct_too {
        ways.push(Direct::Preferred);
        ways.extend(emulate.map(|alignment| Direct::Emulated { alignment }));
    }
    for way in ways {
        let (file, how) = open(engine, path, &metadata, way).map_err(Failure::of_library)?;
        opened.push(describe(&file, &how));
    }
    Ok(json!({ "path": path.to_string_lossy(), "opened": opened }))
}

/// For reading and writing where that is permitted. Opening it never waits and never changes it.
fn open(engine: &Engine, path: &Path, metadata: &Metadata, direct: Direct) -> Result<(File, String), Error> {
    let kind = metadata.file_type();
    let asked = match direct {
        Direct::Off => "buffered",
        Direct::Emulated { .. } => "buffered, with the rules of direct I/O",
        _ => "direct, if it can be",
    };
    let mut options = OpenOptions::new();
    options.read(true).direct(direct);
    if kind.is_fifo() {
        // Both sides at once, for one alone waits for the other, or fails.
        let file = options.write(true).custom_flags(libc::O_NONBLOCK).open(engine, path)?;
        return Ok((file, "both sides, non-blocking, so as not to wait for the other side".to_string()));
    }
    // A device may take notice of being opened for writing; a terminal must not become ours, or wait for a carrier.
    if kind.is_char_device() {
        let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(engine, path)?;
        return Ok((file, "read-only, non-blocking".to_string()));
    }
    if !metadata.is_dir() {
        match options.write(true).open(engine, path) {
            Ok(file) => return Ok((file, format!("{asked}, read-write"))),
            Err(refused) => {
                let refused = match refused {
                    // The path is known here.
                    Error::Open { source, .. } => source.to_string(),
                    other => other.to_string(),
                };
                let file = options.write(false).open(engine, path)?;
                return Ok((file, format!("{asked}, read-only (for writing: {refused})")));
            }
        }
    }
    Ok((options.open(engine, path)?, format!("{asked}, read-only")))
}

fn describe(file: &File, how: &str) -> Value {
    let facts = file.facts();
    let not_tried = why_not_to_try(facts);
    let trials = if not_tried.is_none() { try_it(file) } else { Vec::new() };
    // Afterwards, with what was learnt.
    let route = file.route();
    let bytes = |alignment: Alignment| json!({ "memory": alignment.memory, "offset": alignment.offset });
    json!({
        "how": how,
        "kind": facts.kind.to_string(),
        "file_system": facts.file_system.to_string(),
        "direct": facts.direct,
        "direct_refused": facts.direct_refused.as_ref().map(ToString::to_string),
        "alignment": facts.alignment.map(bytes),
        "emulated": facts.emulated.map(bytes),
        "transfers": bytes(file.alignment()),
        "readable": facts.readable,
        "writable": facts.writable,
        "append": facts.append,
        "seekable": facts.seekable,
        "route": {
            "read": steps(&route.read),
            "write": steps(&route.write),
            "sync": steps(&route.sync),
            "misaligned": steps(&route.misaligned),
            "passed": steps(&route.passed),
        },
        "trials": trials,
        "not_tried": not_tried,
    })
}

/// File systems whose files are made up as they are read: proc, sysfs, debugfs, tracefs, securityfs, configfs, pstore,
/// efivarfs, cgroup, cgroup2, bpf.
const MADE_UP: [u64; 11] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0x6165_676c,
    0xde5e_81e4,
    0x0027_e0eb,
    0x6367_7270,
    0xcafe_4a11,
];

/// Why no request is tried, where one might take something away, wait, or have an effect.
fn why_not_to_try(facts: &Facts) -> Option<&'static str> {
    match (facts.kind, facts.file_system) {
        (FileKind::Regular, FileSystem::Other(magic)) if MADE_UP.contains(&magic) => {
            Some("the kernel makes this file up when it is read")
        }
        (FileKind::Regular, _) if facts.len == 0 => Some("it is empty"),
        (FileKind::Regular | FileKind::Block, _) if !facts.readable => Some("it is not readable"),
        (FileKind::Regular | FileKind::Block, _) => None,
        (FileKind::Directory, _) => Some("a directory has no bytes to read"),
        _ => Some("reading could wait, or take something from others"),
    }
}

/// A few requests that change nothing: the length, and the first block, twice.
fn try_it(file: &File) -> Vec<Value> {
    let Alignment { memory, offset, .. } = file.alignment();
    let (memory, block) = (memory.max(4096), offset.max(4096));
    let told = |what: String, result: io::Result<u64>, trace: Trace| {
        json!({
            "request": what,
            "result": result.as_ref().ok(),
            "error": result.as_ref().err().map(ToString::to_string),
            "served_by": trace.served_by,
            "fallbacks": trace.fallbacks.iter().map(|reason| reason.to_string()).collect::<Vec<_>>(),
        })
    };
    let (len, trace) = file.len().traced().wait();
    let mut trials = vec![told("length".to_string(), len, trace)];
    for _ in 0..2 {
        let (BufResult(n, _), trace) = file.read_at(AlignedBuf::zeroed(block, memory), 0).traced().wait();
        trials.push(told(format!("read of {block} bytes at 0"), n.map(|n| n as u64), trace));
    }
    trials
}

fn steps(steps: &[RouteStep]) -> Value {
    steps.iter().map(|step| json!({ "backend": step.backend, "reason": step.reason.to_string() })).collect()
}

// People read the same as programs do: the text is made from the JSON. Writing to a `String` cannot fail.

fn machine_text(machine: &Value) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "kernel {}", plain(&machine["kernel"]));
    let _ =
        writeln!(text, "fs.aio-nr {} of fs.aio-max-nr {}", plain(&machine["aio_nr"]), plain(&machine["aio_max_nr"]));
    for backend in machine["backends"].as_array().into_iter().flatten() {
        let started = if backend["started"] == true { "started" } else { "not started" };
        let reason = match &backend["reason"] {
            Value::Null => String::new(),
            reason => format!(": {}", plain(reason)),
        };
        let _ = writeln!(text, "backend {}: {started}{reason}", plain(&backend["name"]));
        if let can @ Value::Object(_) = &backend["capabilities"] {
            let _ = writeln!(text, "  {}", capabilities_text(can));
        }
    }
    text
}

fn capabilities_text(can: &Value) -> String {
    let operations: Vec<String> = can["operations"].as_array().into_iter().flatten().map(plain).collect();
    let mut text = format!("{}; serves {}; ", operations.join(", "), plain(&can["serves"]).to_lowercase());
    for ability in ["vectored", "nowait", "cancel", "reaped"] {
        if can[ability] == true {
            let _ = write!(text, "{ability}, ");
        }
    }
    let _ = write!(text, "at most {} requests", can["queue_bound"]);
    text
}

fn trial_text(trial: &Value) -> String {
    let result = if trial["error"].is_null() { plain(&trial["result"]) } else { plain(&trial["error"]) };
    let fallbacks: Vec<String> = trial["fallbacks"].as_array().into_iter().flatten().map(plain).collect();
    let fallbacks = if fallbacks.is_empty() { String::new() } else { format!(" ({})", fallbacks.join(", ")) };
    format!("{}: {result}, by {}{fallbacks}", plain(&trial["request"]), plain(&trial["served_by"]))
}

fn file_text(file: &Value) -> String {
    let mut text = plain(&file["path"]);
    for opened in file["opened"].as_array().into_iter().flatten() {
        let _ = write!(text, "\n  opened {}", plain(&opened["how"]));
        let _ = write!(text, "\n    {} on {}", plain(&opened["kind"]), plain(&opened["file_system"]));
        for fact in ["direct", "readable", "writable", "append", "seekable"] {
            if opened[fact] == true {
                let _ = write!(text, ", {fact}");
            }
        }
        if let Some(refused) = opened["direct_refused"].as_str() {
            let _ = write!(text, "\n    direct I/O is refused: {refused}");
        }
        if let alignment @ Value::Object(_) = &opened["alignment"] {
            let (memory, offset) = (&alignment["memory"], &alignment["offset"]);
            let _ = write!(text, "\n    alignment for direct I/O: memory {memory}, offset and length {offset} bytes");
        }
        if let Value::Object(_) = &opened["emulated"] {
            let _ = write!(text, "\n    direct I/O emulated with {} bytes", opened["emulated"]["offset"]);
        }
        for operation in ["read", "write", "sync"] {
            let _ = write!(text, "\n    {operation}: {}", steps_text(&opened["route"][operation]));
        }
        if opened["route"]["misaligned"] != json!([]) {
            let _ = write!(text, "\n    misaligned: {}", steps_text(&opened["route"]["misaligned"]));
        }
        if opened["route"]["passed"] != json!([]) {
            let _ = write!(text, "\n    passed over: {}", steps_text(&opened["route"]["passed"]));
        }
        for trial in opened["trials"].as_array().into_iter().flatten() {
            let _ = write!(text, "\n    tried {}", trial_text(trial));
        }
        if let Some(why) = opened["not_tried"].as_str() {
            let _ = write!(text, "\n    not tried: {why}");
        }
    }
    text.push('\n');
    text
}

fn steps_text(steps: &Value) -> String {
    let step = |step: &Value| format!("{} ({})", plain(&step["backend"]), plain(&step["reason"]));
    let steps: Vec<String> = steps.as_array().into_iter().flatten().map(step).collect();
    if steps.is_empty() { "nobody".to_string() } else { steps.join(", then ") }
}

/// A JSON value as it would be said.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_string(),
        other => other.to_string(),
    }
}
