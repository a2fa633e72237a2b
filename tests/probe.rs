//! The example `probe` from outside: an operator sees what was chosen, and why.

mod support;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{
    LoopDevice, Scratch, Watched, backends, built_with_kernel_aio, disk_file_system, example, fifo, image_with_sectors,
    kernel_aio, quiet, ramfs, refuse, require,
};

fn probe(paths: &[&Path]) -> Value {
    let mut command = Command::new(example("probe"));
    quiet(command.arg("--json").args(paths));
    parse(&mut command)
}

fn parse(command: &mut Command) -> Value {
    let finished = Watched::start(command).finish().expect_success();
    serde_json::from_slice(&finished.stdout).expect("one JSON object")
}

/// What it says of one way to open the only path.
fn opened(report: &Value, direct: bool) -> &Value {
    let ways = report["files"][0]["opened"].as_array().expect("ways to open it");
    let way = ways.iter().find(|way| way["direct"] == direct);
    way.unwrap_or_else(|| panic!("direct {direct} is not in {report}"))
}

fn backend<'a>(report: &'a Value, name: &str) -> &'a Value {
    let backends = report["machine"]["backends"].as_array().expect("a list of backends");
    let backend = backends.iter().find(|backend| backend["name"] == name);
    backend.unwrap_or_else(|| panic!("{name} is not in {report}"))
}

#[test]
fn machine_and_every_operation_are_explained() {
    let scratch = Scratch::new();
    let file = scratch.file("file", b"data");
    let report = probe(&[&file]);
    let limit = std::fs::read_to_string("/proc/sys/fs/aio-max-nr");
    let limit = limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok());
    assert_eq!(report["machine"]["aio_max_nr"].as_u64(), limit, "{report}");
    assert_eq!(backend(&report, "thread-pool")["started"], true, "{report}");
    let buffered = opened(&report, false);
    assert_eq!(buffered["kind"], "regular", "{report}");
    for operation in ["read", "write", "sync"] {
        let steps = buffered["route"][operation].as_array().expect("steps");
        assert!(!steps.is_empty(), "nobody serves {operation}: {report}");
        for step in steps {
            for part in ["backend", "reason"] {
                assert!(step[part].as_str().is_some_and(|text| !text.is_empty()), "{operation}: {report}");
            }
        }
    }
}

#[test]
fn direct_file_on_a_disk_goes_to_kernel_aio_and_names_its_alignment() {
    let scratch = Scratch::new();
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    let file = scratch.file("file", &[7; 8192]);
    let report = probe(&[&file]);
    assert_eq!(backend(&report, "kernel-aio")["started"], true, "{report}");
    let direct = opened(&report, true);
    for operation in ["read", "write"] {
        assert_eq!(direct["route"][operation][0]["backend"], "kernel-aio", "{report}");
    }
    let alignment = direct["alignment"]["offset"].as_u64().expect("a number of bytes");
    assert!(alignment.is_power_of_two() && (512..=65536).contains(&alignment), "{report}");
}

/// Probing looks, and does nothing else.
#[test]
fn probing_changes_nothing_and_waits_for_nobody() {
    let scratch = Scratch::new();
    let (file, stream) = (scratch.file("file", b"precious"), fifo(scratch.dir(), "fifo"));
    let report = probe(&[&file, &stream, scratch.dir(), Path::new("/dev/null")]);
    let kinds: Vec<&Value> =
        report["files"].as_array().expect("a list").iter().map(|file| &file["opened"][0]["kind"]).collect();
    assert_eq!(kinds, ["regular", "fifo", "directory", "char"], "{report}");
    let read = report["files"][1]["opened"][0]["route"]["read"].as_array().expect("steps");
    assert_eq!(read.last().expect("a step")["backend"], "stream-workers", "{report}");
    support::assert_file(&file, b"precious");
}

#[test]
fn refused_direct_io_is_named() {
    let scratch = Scratch::new();
    let mount = require!(ramfs(&scratch.path("ramfs")));
    std::fs::write(mount.path("file"), b"data").expect("room");
    let report = probe(&[&mount.path("file")]);
    let ways = report["files"][0]["opened"].as_array().expect("ways to open it");
    let refused = ways.iter().filter_map(|way| way["direct_refused"].as_str()).next();
    assert!(refused.is_some_and(|why| !why.is_empty()), "{report}");
}

#[test]
fn backend_that_does_not_start_has_a_reason() {
    require!(built_with_kernel_aio());
    let scratch = Scratch::new();
    let file = scratch.file("file", b"data");
    let refusals = [
        (libc::EPERM, ["eperm", "not permitted"]),
        (libc::ENOSYS, ["enosys", "not implemented"]),
        (libc::EAGAIN, ["aio-max-nr", "aio-max-nr"]),
    ];
    for (errno, words) in refusals {
        let mut command = Command::new(example("probe"));
        quiet(command.arg("--json").arg(&file));
        refuse(&mut command, libc::SYS_io_setup, errno);
        let report = parse(&mut command);
        let kernel_aio = backend(&report, "kernel-aio");
        assert_eq!(kernel_aio["started"], false, "{report}");
        let reason = kernel_aio["reason"].as_str().expect("a reason").to_lowercase();
        assert!(words.iter().any(|word| reason.contains(word)), "none of {words:?} in: {reason}");
        assert!(reason.contains("io_setup"), "the call that was refused is not in: {reason}");
    }
}

/// The route that is shown is that of the choice, by whichever way it was made.
#[test]
fn choice_of_a_backend_is_shown() {
    let scratch = Scratch::new();
    let file = scratch.file("file", b"data");
    let ways: [(&[&str], Option<&str>); 3] =
        [(&["--backend", "thread-pool"], None), (&["--engine", "thread-pool"], None), (&[], Some("thread-pool"))];
    for (options, variable) in ways {
        let mut command = Command::new(example("probe"));
        quiet(command.args(options).arg("--json").arg(&file));
        variable.map(|name| command.env("POLYAIO_BACKEND", name));
        let report = parse(&mut command);
        for operation in ["read", "write", "sync"] {
            let first = &opened(&report, false)["route"][operation][0]["backend"];
            assert_eq!(first, "thread-pool", "{options:?}, {variable:?}: {report}");
        }
    }
    require!(built_with_kernel_aio());
    for (option, variable) in [(Some("--strict"), None), (None, Some("1"))] {
        let mut command = Command::new(example("probe"));
        quiet(command.args(["--engine", "kernel-aio"]).args(option).arg(&file));
        variable.map(|strict| command.env("POLYAIO_STRICT", strict));
        refuse(&mut command, libc::SYS_io_setup, libc::EPERM);
        let finished = Watched::start(&mut command).finish().expect_code(1);
        assert!(finished.stderr.contains("io_setup"), "{finished}");
    }
}

#[test]
fn text_says_the_same_to_people() {
    let scratch = Scratch::new();
    let file = scratch.file("file", b"data");
    let mut command = Command::new(example("probe"));
    quiet(command.arg(&file));
    let finished = Watched::start(&mut command).finish().expect_success();
    let text = String::from_utf8(finished.stdout).expect("text");
    let seen = ["tried read of 4096 bytes at 0: 4, by ", "nowait hits", "fallbacks: ", "in the caller: ", "at most"];
    for word in ["aio-max-nr", "read:", "write:", "sync:", &file.display().to_string()].into_iter().chain(seen) {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    for name in backends().into_iter().filter(|name| *name != "auto") {
        assert!(text.contains(name), "{name} is not in:\n{text}");
    }
}

#[test]
fn missing_file_is_an_error_that_leaves_the_others() {
    let scratch = Scratch::new();
    let file = scratch.file("file", b"data");
    let mut command = Command::new(example("probe"));
    quiet(command.arg("--json").args([&scratch.path("nowhere"), &file]));
    let finished = Watched::start(&mut command).finish().expect_code(1);
    assert!(finished.stderr.contains("nowhere"), "{finished}");
    let report: Value = serde_json::from_slice(&finished.stdout).expect("one JSON object");
    assert_eq!(report["files"][1]["opened"][0]["kind"], "regular", "{report}");
}

/// Who served each trial request, by which fallbacks; and the statistics add up to them.
#[test]
fn trial_requests_say_who_served_them() {
    let scratch = Scratch::new();
    let file = scratch.file("file", &[7; 8192]);
    let report = probe(&[&file]);
    let ways = report["files"][0]["opened"].as_array().expect("ways to open it");
    let mut served: BTreeMap<&str, u64> = BTreeMap::new();
    for way in ways {
        assert!(way["not_tried"].is_null(), "{report}");
        let trials = way["trials"].as_array().expect("trials");
        assert!(trials.len() > 2, "{report}");
        for trial in trials {
            assert!(trial["error"].is_null() && trial["result"].as_u64() >= Some(4096), "{trial}");
            *served.entry(trial["served_by"].as_str().expect("a name")).or_default() += 1;
        }
        assert_eq!(trials[0]["result"], 8192, "its length: {report}");
    }
    let statistics = &report["statistics"];
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    for backend in statistics["backends"].as_array().expect("a list") {
        counted.insert(backend["name"].as_str().expect("a name"), backend["requests"].as_u64().expect("a number"));
        for count in ["errors", "queue_full", "in_flight", "waiting", "short_transfers"] {
            assert_eq!(backend[count], 0, "{count}: {report}");
        }
    }
    counted.insert("inline", statistics["inline"]["hits"].as_u64().expect("a number"));
    counted.retain(|_, count| *count > 0);
    assert_eq!(served, counted, "{report}");
    assert!(statistics["anomalies"].as_object().is_some_and(|all| all.values().all(|n| *n == 0)), "{report}");
    assert!(statistics["fallbacks"].is_object() && statistics["streams"]["hits"] == 0, "{report}");
}

#[test]
fn direct_trials_are_counted_as_nowait_hits() {
    let scratch = Scratch::new();
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    let file = scratch.file("file", &[7; 8192]);
    std::fs::File::open(&file).and_then(|file| file.sync_all()).expect("on a disk");
    let report = probe(&[&file]);
    let capabilities = &backend(&report, "kernel-aio")["capabilities"];
    assert_eq!((&capabilities["nowait"], &capabilities["serves"]), (&true.into(), &"Direct".into()), "{report}");
    let reads: Vec<_> = opened(&report, true)["trials"].as_array().expect("trials").iter().skip(1).collect();
    let backends = report["statistics"]["backends"].as_array().expect("a list");
    let kernel = backends.iter().find(|backend| backend["name"] == "kernel-aio").expect("it started");
    let nowait = kernel["nowait_hits"].as_u64().zip(kernel["nowait_misses"].as_u64()).expect("numbers");
    assert_eq!(nowait.0 + nowait.1, reads.len() as u64, "each was asked with NOWAIT: {report}");
    let hits = reads.iter().filter(|trial| trial["served_by"] == "kernel-aio").count();
    assert_eq!(hits as u64, nowait.0, "{report}");
}

/// A probe takes nothing out of a stream, nor out of what the kernel makes up, and says that it did not try.
#[test]
fn streams_keep_what_they_hold() {
    use std::io::{Read, Write};
    let scratch = Scratch::new();
    let path = fifo(scratch.dir(), "fifo");
    let mut both = std::fs::File::options().read(true).write(true).open(&path).expect("both sides");
    both.write_all(b"precious").expect("room");
    let (mut reader, mut writer) = support::pipe();
    writer.write_all(b"precious").expect("room");
    let mut command = Command::new(example("probe"));
    quiet(command.arg("--json").args([Path::new("-"), &path, Path::new("/dev/zero"), Path::new("/proc/self/stat")]));
    command.stdin(reader.try_clone().expect("descriptors"));
    let report = parse(&mut command);
    for file in report["files"].as_array().expect("a list") {
        for way in file["opened"].as_array().expect("ways to open it") {
            assert!(way["trials"] == serde_json::json!([]) && way["not_tried"].is_string(), "{file}");
        }
    }
    for stream in [&mut both as &mut dyn Read, &mut reader] {
        let mut held = [0; 8];
        stream.read_exact(&mut held).expect("it is still there");
        assert_eq!(&held, b"precious");
    }
}

/// What is typed at a terminal is for the shell.
#[test]
fn terminals_are_not_read() {
    use std::io::Write;
    let pty = require!(support::pty());
    let mut master = &pty.master;
    master.write_all(b"typed\n").expect("room");
    let mut command = Command::new(example("probe"));
    quiet(command.args(["--json", "-"]));
    command.stdin(pty.slave.try_clone().expect("descriptors"));
    let report = parse(&mut command);
    let way = &report["files"][0]["opened"][0];
    assert_eq!((&way["kind"], &way["trials"]), (&"tty".into(), &serde_json::json!([])), "{report}");
    assert!(support::has_data(&pty.slave), "what was typed is gone");
}

#[test]
fn emulated_direct_io_is_shown() {
    let scratch = Scratch::new();
    let file = scratch.file("file", b"data");
    let mut command = Command::new(example("probe"));
    quiet(command.args(["--json", "--emulate", "4096"]).arg(&file));
    let report = parse(&mut command);
    let ways = report["files"][0]["opened"].as_array().expect("ways to open it");
    let emulated: Vec<&Value> = ways.iter().filter(|way| !way["emulated"].is_null()).collect();
    let all = serde_json::json!({ "memory": 4096, "offset": 4096 });
    assert!(emulated.len() == 1 && emulated[0]["emulated"] == all && emulated[0]["transfers"] == all, "{report}");
    assert_eq!(emulated[0]["direct"], false, "{report}");
    assert_eq!(ways[0]["transfers"], serde_json::json!({ "memory": 1, "offset": 1 }), "{report}");
    let mut command = Command::new(example("probe"));
    quiet(command.args(["--emulate", "4096"]).arg(&file));
    let finished = Watched::start(&mut command).finish().expect_success();
    let text = String::from_utf8(finished.stdout).expect("text");
    assert!(text.contains("direct I/O emulated with 4096 bytes"), "{text}");
}

/// What direct I/O on `path` needs, as far as the probe can find it out without the system calls in `refused`.
fn alignment_without(path: &Path, refused: &[libc::c_long]) -> [Option<u64>; 2] {
    let mut command = Command::new(example("probe"));
    quiet(command.arg("--json").arg(path));
    for call in refused {
        refuse(&mut command, *call, libc::ENOSYS);
    }
    let report = parse(&mut command);
    let alignment = &opened(&report, true)["alignment"];
    ["memory", "offset"].map(|of| alignment[of].as_u64())
}

/// `STATX_DIOALIGN`, else `XFS_IOC_DIOINFO`, else the device's logical block size: each finds the unit of offsets, and none
/// asks for less of the memory than the one before.
#[test]
fn alignment_is_found_by_the_next_way_where_one_is_missing() {
    let ways: [&[libc::c_long]; 3] = [&[], &[libc::SYS_statx], &[libc::SYS_statx, libc::SYS_ioctl]];
    for sector in [512, 4096] {
        let scratch = Scratch::new();
        let device = require!(LoopDevice::with_sectors(scratch.dir(), "disk", 8 << 20, sector));
        let mounts = ["ext4", "xfs"].map(|kind| require_mount(scratch.dir(), kind, sector));
        let mut paths = vec![device.path().to_owned()];
        for mount in mounts.iter().flatten() {
            std::fs::write(mount.path("file"), b"data").expect("room");
            paths.push(mount.path("file"));
        }
        for path in paths {
            let found = ways.map(|refused| alignment_without(&path, refused));
            let offsets = found.map(|[_, offset]| offset);
            assert_eq!(offsets, [Some(sector.into()); 3], "{}: {found:?}", path.display());
            let memory = found.map(|[memory, _]| memory.expect("with the other one"));
            assert!(memory.is_sorted() && memory[2] == u64::from(sector), "{}: {found:?}", path.display());
            let second = u64::from(xfs_memory_alignment(&path).unwrap_or(sector));
            assert_eq!(memory[1], second, "{}: {found:?}", path.display());
            let first = statx_memory_alignment(&path).map_or(second, u64::from);
            assert_eq!(memory[0], first, "{}: {found:?}", path.display());
        }
    }
}

/// What the kernel says, where it does (Linux 6.1).
fn statx_memory_alignment(path: &Path) -> Option<u32> {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL");
    // SAFETY: all bit patterns are valid for its fields; the kernel reads the name and fills the structure.
    let (answer, facts) = unsafe {
        let mut facts: libc::statx = std::mem::zeroed();
        (libc::statx(libc::AT_FDCWD, name.as_ptr(), 0, libc::STATX_DIOALIGN, &raw mut facts), facts)
    };
    (answer == 0 && facts.stx_mask & libc::STATX_DIOALIGN != 0).then_some(facts.stx_dio_mem_align)
}

/// What XFS says of itself; others know nothing of such a question.
fn xfs_memory_alignment(path: &Path) -> Option<u32> {
    /// `_IOR('X', 30, struct dioattr)`.
    const XFS_IOC_DIOINFO: libc::c_ulong = 0x800c_581e;
    let file = std::fs::File::open(path).expect("it is there");
    let mut attributes = [0u32; 3];
    // SAFETY: the kernel fills the three numbers, or touches nothing.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), XFS_IOC_DIOINFO as _, &raw mut attributes) };
    (answer == 0).then_some(attributes[0])
}

/// A partition has no queue of its own in sysfs.
#[test]
fn alignment_of_a_partition_is_that_of_its_disk() {
    let scratch = Scratch::new();
    let disk = require!(LoopDevice::with_sectors(scratch.dir(), "disk", 8 << 20, 4096));
    let partition = require!(disk.add_partition(1 << 20, 4 << 20));
    for refused in [&[][..], &[libc::SYS_statx]] {
        let [memory, offset] = alignment_without(&partition, refused);
        assert_eq!(offset, Some(4096), "{} without {refused:?}", partition.display());
        assert!(memory.is_some_and(|memory| memory <= 4096), "{} without {refused:?}", partition.display());
    }
}

fn require_mount(dir: &Path, kind: &str, sector: u32) -> Option<support::Mount> {
    let mount = image_with_sectors(dir, kind, sector);
    let report = |why: &String| support::report_skip(&format!("probe::alignment {kind}, sectors of {sector}"), why);
    mount.inspect_err(report).ok()
}

/// btrfs does not say: nothing is made up, and a page is assumed.
#[test]
fn alignment_that_nobody_tells() {
    let scratch = Scratch::new();
    let mount = require!(image_with_sectors(scratch.dir(), "btrfs", 512));
    std::fs::write(mount.path("file"), b"data").expect("room");
    let report = probe(&[&mount.path("file")]);
    let direct = opened(&report, true);
    assert!(direct["alignment"].is_null(), "{report}");
    assert_eq!(direct["transfers"], serde_json::json!({ "memory": 4096, "offset": 4096 }), "{report}");
}
