//! The example `callbacks` from outside: the checksums are those of the file, whoever reads it.

mod support;

use std::process::Command;

use support::{Scratch, Watched, backends, example, quiet};

fn callbacks(args: &[&str]) -> Command {
    let mut command = Command::new(example("callbacks"));
    command.args(args);
    quiet(&mut command);
    command
}

/// Bit by bit, as the definition says.
fn crc32(data: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !data.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[test]
fn the_checksums_are_right_on_every_backend() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926, "the check value of the definition");
    let scratch = Scratch::new();
    let data = support::pattern(3_000_001, 7);
    let (large, empty) = (scratch.file("large", &data), scratch.file("empty", &[]));
    let line = |name: &std::path::Path, data: &[u8]| {
        format!("{}: {} bytes, crc32 {:08x}\n", name.display(), data.len(), crc32(data))
    };
    let expected = line(&large, &data) + &line(&empty, &[]);
    for backend in backends() {
        for direct in [&[][..], &["--direct"]] {
            for (depth, block) in [("1", "64"), ("16", "4"), ("100", "1024")] {
                let mut command = callbacks(&["--backend", backend, "--depth", depth, "--block", block]);
                let finished = Watched::start(command.args(direct).args([&large, &empty])).finish().expect_success();
                assert_eq!(String::from_utf8_lossy(&finished.stdout), expected, "{backend} {direct:?} {depth} {block}");
                assert!(finished.stderr.contains("served by"), "{}", finished.stderr);
            }
        }
    }
}

#[test]
fn each_block_and_a_plain_read_agree() {
    let scratch = Scratch::new();
    let data = support::pattern(20_000, 8);
    let file = scratch.file("file", &data);
    let mut command = callbacks(&["--block", "8", "--blocks", "--compare"]);
    let finished = Watched::start(command.arg(&file)).finish().expect_success();
    let text = String::from_utf8_lossy(&finished.stdout);
    for (number, block) in data.chunks(8192).enumerate() {
        let line = format!("block {number}, {} bytes, crc32 {:08x}\n", block.len(), crc32(block));
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    for what in ["callbacks: 20000 bytes", "plain reads: 20000 bytes"] {
        assert!(finished.stderr.contains(what), "{}", finished.stderr);
    }
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let finished = Watched::start(&mut callbacks(&["/nonexistent"])).finish();
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("/nonexistent") && finished.stderr.contains("check the path"));
    let directory = Watched::start(&mut callbacks(&["/"])).finish();
    assert_eq!(directory.status.code(), Some(1));
    assert!(directory.stderr.contains("cannot read /"), "{}", directory.stderr);
    assert_eq!(Watched::start(&mut callbacks(&[])).finish().status.code(), Some(2));
    assert_eq!(Watched::start(&mut callbacks(&["--depth", "0", "/dev/null"])).finish().status.code(), Some(2));
}
