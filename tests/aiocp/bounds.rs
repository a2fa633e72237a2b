//! Bounds: memory, whatever the size of what is copied.

use std::fs;

use crate::run::aiocp;
use crate::support::{Scratch, Watched, first_difference, pattern, write_pattern};

/// What the program itself may take, in KiB: code, threads' stacks as far as they are touched, queues.
const CONSTANT_KIB: u64 = 16 << 10;

/// However large the file: depth times block size, and a constant.
#[test]
fn memory_stays_within_depth_times_block_size() {
    let scratch = Scratch::new();
    let source = scratch.path("in");
    write_pattern(&source, 48 << 20, 90).expect("room for 96 MiB");
    for (block_kib, depth) in [(64, 32), (1024, 4), (4, 128)] {
        for options in [&[][..], &["--direct"]] {
            let destination = scratch.path("out");
            let mut command = aiocp(options);
            command.args(["--block-size", &format!("{block_kib}KiB"), "--depth", &depth.to_string()]);
            let watched = Watched::start(command.arg(&source).arg(&destination));
            let finished = watched.finish_measured().expect_success();
            let bound = depth * block_kib + CONSTANT_KIB;
            let peak = finished.peak_memory_kib;
            assert!(peak > 0, "never measured: {finished}");
            assert!(peak <= bound, "{peak} KiB with {depth} blocks of {block_kib} KiB, bound {bound}: {options:?}");
            fs::remove_file(destination).expect("the copy");
        }
    }
}

/// A fast reader must not run ahead of a slow writer: here the writer stands still.
#[test]
fn memory_stays_bounded_when_the_reader_of_the_output_is_slow() {
    let scratch = Scratch::new();
    let source = scratch.path("in");
    write_pattern(&source, 48 << 20, 91).expect("room for 48 MiB");
    let (mut reader, writer) = crate::support::pipe();
    let mut command = aiocp([source.as_os_str(), "-".as_ref()]);
    let watched = Watched::start(command.stdout(writer));
    drop(command);
    // Small reads, all of it: the pipe is full nearly all the time.
    let slow = std::thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), [0; 3_000]);
        while let Ok(len @ 1..) = std::io::Read::read(&mut reader, &mut piece) {
            all.extend_from_slice(&piece[..len]);
        }
        all
    });
    let finished = watched.finish_measured().expect_success();
    let got = slow.join().expect("no panic");
    assert_eq!(first_difference(&got, &fs::read(&source).expect("the source")), None);
    let bound = 32 * 64 + CONSTANT_KIB;
    assert!(finished.peak_memory_kib <= bound, "{} KiB, bound {bound}", finished.peak_memory_kib);
}

#[test]
fn patterns_differ_by_seed_and_place() {
    let (one, two) = (pattern(1 << 16, 1), pattern(1 << 16, 2));
    assert_ne!(one, two, "a copy of the wrong file would go unnoticed");
    assert_ne!(one[..4096], one[4096..8192], "two blocks in the wrong order would go unnoticed");
}
