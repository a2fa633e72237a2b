//! Raw block devices.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use crate::run::{BLOCK, Report, SIZE, aiocp, copy, expect_error, run};
use crate::support::{LoopDevice, Scratch, assert_file, first_difference, kernel_aio, pattern, require};

/// A whole number of blocks, as devices are, and more than one batch of them.
const DEVICE: usize = 16 << 20;

/// What the device itself holds, not the page cache of somebody who wrote past it.
fn contents(device: &LoopDevice) -> Vec<u8> {
    let mut data = Vec::new();
    File::open(device.path()).and_then(|mut file| file.read_to_end(&mut data)).expect("the device");
    data
}

#[test]
fn device_is_read_to_its_end() {
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", DEVICE as u64));
    let data = pattern(DEVICE, 20);
    let file = File::options().write(true).open(device.path()).expect("the device");
    file.write_all_at(&data, 0).and_then(|()| file.sync_all()).expect("room for it all");
    for options in [&[][..], &["--direct"]] {
        let destination = scratch.path("out");
        let report = copy(options, device.path(), &destination);
        assert_file(&destination, &data);
        assert_eq!(report.number("bytes"), DEVICE as f64);
        assert_eq!(report.end("source")["kind"], "block", "{}", report.json);
    }
}

#[test]
fn direct_read_of_a_device_is_served_by_kernel_aio() {
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", DEVICE as u64));
    require!(kernel_aio());
    let report = copy(&["--direct"], device.path(), scratch.path("out"));
    assert!(report.served_by("kernel-aio") >= (DEVICE / BLOCK) as u64 * 9 / 10, "{}", report.json);
}

/// Also when the source ends in the middle of a sector: a device has no smaller unit, and the rest of it must stay.
#[test]
fn device_is_written_and_its_rest_is_kept() {
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", DEVICE as u64));
    let before = pattern(DEVICE, 21);
    let file = File::options().write(true).open(device.path()).expect("the device");
    for (at, options) in [&["--sync"][..], &["--direct", "--sync"]].into_iter().enumerate() {
        file.write_all_at(&before, 0).and_then(|()| file.sync_all()).expect("room for it all");
        let data = pattern(SIZE, 22 + at as u64);
        let report = copy(options, scratch.file("in", &data), device.path());
        assert_eq!(report.end("destination")["kind"], "block", "{}", report.json);
        let want = [&data[..], &before[SIZE..]].concat();
        let differ = first_difference(&contents(&device), &want);
        assert_eq!(differ, None, "{options:?}: first difference at that byte, the copy ends at {SIZE}");
    }
}

#[test]
fn device_too_small_is_an_error() {
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", 1 << 20));
    let data = pattern(SIZE, 24);
    let source = scratch.file("in", &data);
    for options in [&[][..], &["--direct"]] {
        let mut command = aiocp(options);
        expect_error(command.arg(&source).arg(device.path()), "");
    }
    assert_eq!(contents(&device).len(), 1 << 20, "a device keeps its size");
}

#[test]
fn device_goes_to_a_pipe() {
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", DEVICE as u64));
    let data = pattern(DEVICE, 25);
    let file = File::options().write(true).open(device.path()).expect("the device");
    file.write_all_at(&data, 0).and_then(|()| file.sync_all()).expect("room for it all");
    let finished = run(aiocp(["--direct", "--json"]).arg(device.path()).arg("-"));
    assert_eq!(first_difference(&finished.stdout, &data), None);
    let report = Report::of(finished);
    assert_eq!(report.number("bytes"), DEVICE as f64);
}
