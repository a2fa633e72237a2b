//! Regular files, on every file system that can be had here.

use std::fs::{self, File};
use std::path::Path;

use crate::run::{BLOCK, Report, SIZE, aiocp, copy, one_line, run};
use crate::support::{
    Scratch, assert_file, assert_same_files, backends, direct_io, disk_file_system, image, kernel_aio, long_tests,
    overlayfs, pattern, ramfs, require, write_pattern,
};

#[test]
fn direct_copy_on_disk_is_served_by_kernel_aio() {
    let scratch = Scratch::new();
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    let data = pattern(SIZE, 1);
    let (source, destination) = (scratch.file_on_disk("in", &data), scratch.path("out"));
    let report = copy(&["--direct", "--sync"], source, &destination);
    assert_file(&destination, &data);
    report.assert_kernel_aio_carried(SIZE);
    for end in ["source", "destination"] {
        assert_eq!(report.end(end)["direct"], true, "{}", report.json);
        assert_eq!(report.end(end)["backend"], "kernel-aio", "{}", report.json);
    }
}

/// "Direct" is what was asked for, not what must be had: this one runs wherever the tests run.
#[test]
fn every_length_is_copied_exactly() {
    let scratch = Scratch::new();
    for (at, len) in
        [0, 1, 511, 512, 513, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK].into_iter().enumerate()
    {
        let data = pattern(len, len as u64);
        let source = scratch.file(&format!("in{at}"), &data);
        for direct in [&[][..], &["--direct"]] {
            let destination = scratch.path(&format!("out{at}{}", direct.len()));
            let report = copy(direct, &source, &destination);
            assert_file(&destination, &data);
            assert_eq!(report.number("bytes"), len as f64);
        }
    }
}

#[test]
fn every_backend_makes_the_same_copy() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 2);
    let source = scratch.file("in", &data);
    for backend in backends() {
        for direct in [&[][..], &["--direct"]] {
            let destination = scratch.path(&format!("{backend}{}", direct.len()));
            let report = copy(&[&["--backend", backend], direct].concat(), &source, &destination);
            assert_file(&destination, &data);
            if backend == "thread-pool" {
                report.assert_without_kernel_aio();
            }
        }
    }
}

#[test]
fn odd_block_sizes_and_depths_make_the_same_copy() {
    let scratch = Scratch::new();
    let data = pattern(1_000_003, 3);
    let source = scratch.file("in", &data);
    let small = scratch.file("small", &data[..2003]);
    let shapes = [("1", "64"), ("1000", "7"), ("4KiB", "256"), ("12345", "1"), ("1MiB", "3"), ("64MiB", "2")];
    for (block, depth) in shapes {
        // A request per byte takes its time; what it shows does not depend on the amount.
        let (source, data) = if block == "1" { (&small, &data[..2003]) } else { (&source, &data[..]) };
        let destination = scratch.path("out");
        copy(&["--block-size", block, "--depth", depth], source, &destination);
        assert_file(&destination, data);
        // Direct I/O has its own minimum. Saying so is fine, a copy that is wrong is not.
        let mut command = aiocp(["--direct", "--block-size", block, "--depth", depth]);
        let finished = run(command.arg(source).arg(&destination));
        if block.ends_with("iB") || finished.code() == Some(0) {
            finished.expect_success();
            assert_file(&destination, data);
        } else {
            assert_eq!(finished.code(), Some(2), "{finished}");
            assert!(one_line(&finished).contains("--block-size"), "{finished}");
        }
    }
}

#[test]
fn longer_destination_is_cut_to_the_source() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 4);
    let source = scratch.file("in", &data);
    for options in [&[][..], &["--direct"]] {
        let destination = scratch.file("out", &pattern(2 * SIZE, 5));
        copy(options, &source, &destination);
        assert_file(&destination, &data);
    }
}

#[test]
fn several_sources_go_into_a_directory() {
    let scratch = Scratch::new();
    let into = scratch.subdir("into");
    let files = [("a", SIZE), ("b", 0), ("c", 12_345)].map(|(name, len)| {
        let data = pattern(len, len as u64);
        (scratch.file(name, &data), into.join(name), data)
    });
    let mut command = aiocp(["--direct", "--json"]);
    let finished = run(command.args(files.iter().map(|(source, ..)| source)).arg(&into));
    let report = Report::of(finished);
    for (_, destination, data) in &files {
        assert_file(destination, data);
    }
    assert_eq!(report.number("bytes"), (SIZE + 12_345) as f64, "{}", report.json);
}

#[test]
fn one_source_goes_into_a_directory() {
    let scratch = Scratch::new();
    let data = pattern(100_000, 6);
    let source = scratch.file("in", &data);
    let into = scratch.subdir("into");
    copy(&[], source, &into);
    assert_file(&into.join("in"), &data);
}

#[test]
fn source_and_holes_are_left_as_they_are() {
    let scratch = Scratch::new();
    // A hole, data, a hole that ends the file: what is not there reads as zeros.
    let source = scratch.file("in", &[]);
    let file = File::options().write(true).open(&source).expect("the source");
    let data = pattern(BLOCK, 7);
    std::os::unix::fs::FileExt::write_all_at(&file, &data, 1 << 20).expect("room");
    file.set_len((2 << 20) + 77).expect("a sparse file");
    let before = fs::read(&source).expect("the source");
    for options in [&[][..], &["--direct"]] {
        let destination = scratch.path("out");
        copy(options, &source, &destination);
        assert_file(&destination, &before);
        assert_file(&source, &before);
    }
}

/// Into the directory, out of it, and within it.
#[track_caller]
fn copy_through(dir: &Path) -> [Report; 3] {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 8);
    let (outside, back) = (scratch.file("outside", &data), scratch.path("back"));
    let (inside, again) = (dir.join("inside"), dir.join("again"));
    let options = ["--direct", "--sync"];
    let into = copy(&options, outside, &inside);
    let within = copy(&options, &inside, &again);
    let out_of = copy(&options, &again, &back);
    assert_file(&inside, &data);
    assert_file(&again, &data);
    assert_file(&back, &data);
    [into, within, out_of]
}

#[test]
fn ext4_image_is_served_by_kernel_aio() {
    let scratch = Scratch::new();
    let mount = require!(image(scratch.dir(), "ext4"));
    let [_, within, _] = copy_through(mount.dir());
    require!(kernel_aio());
    within.assert_kernel_aio_carried(SIZE);
}

#[test]
fn xfs_image_is_served_by_kernel_aio() {
    let scratch = Scratch::new();
    let mount = require!(image(scratch.dir(), "xfs"));
    let [_, within, _] = copy_through(mount.dir());
    require!(kernel_aio());
    within.assert_kernel_aio_carried_half(SIZE);
}

/// btrfs refuses every write that must not block, so the pool writes there. Reads it starts without blocking when they
/// are of one sector (measured on Linux 6.18: 16 KiB and more were always refused), so kernel AIO serves those.
#[test]
fn btrfs_image_is_read_by_kernel_aio_in_small_blocks() {
    let scratch = Scratch::new();
    let mount = require!(image(scratch.dir(), "btrfs"));
    copy_through(mount.dir());
    let (inside, small) = (mount.path("inside"), mount.path("small"));
    let report = copy(&["--direct", "--block-size", "4KiB"], &inside, &small);
    assert_same_files(&inside, &small);
    require!(kernel_aio());
    // Nearly all of the reads, and none of the writes.
    let reads = (SIZE / 4096) as u64;
    assert!(report.served_by("kernel-aio") >= reads * 9 / 10, "{}", report.json);
}

#[test]
fn overlayfs_is_copied_through() {
    let scratch = Scratch::new();
    let mount = require!(overlayfs(scratch.dir()));
    let [_, within, _] = copy_through(mount.dir());
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    // The layer below is a disk with direct I/O, and the overlay passes it through.
    within.assert_kernel_aio_carried_half(SIZE);
}

#[test]
fn tmpfs_is_copied_through_without_kernel_aio() {
    let memory = require!(Scratch::in_memory());
    let [_, within, _] = copy_through(memory.dir());
    // It is memory: there is nothing to wait for.
    within.assert_kernel_aio_synced_at_most();
}

/// The file system that refuses `O_DIRECT` at open: the copy is made all the same, and the report says so.
#[test]
fn ramfs_refuses_direct_io_and_says_so() {
    let scratch = Scratch::new();
    let mount = require!(ramfs(&scratch.path("ramfs")));
    assert!(direct_io(mount.dir()).is_err(), "ramfs is here because it refuses O_DIRECT");
    let [_, within, _] = copy_through(mount.dir());
    within.assert_kernel_aio_synced_at_most();
    for end in ["source", "destination"] {
        assert_eq!(within.end(end)["direct"], false, "{}", within.json);
        assert!(within.end(end)["reason"].as_str().is_some_and(|why| !why.is_empty()), "{}", within.json);
    }
}

/// Files whose length says nothing: their data is made while they are read.
#[test]
fn proc_file_is_copied_whole() {
    let scratch = Scratch::new();
    let want = fs::read("/proc/version").expect("Linux has it");
    for options in [&[][..], &["--direct"]] {
        // A new one each: they become as read-only as the source.
        let destination = scratch.path(&format!("out{}", options.len()));
        copy(options, "/proc/version", &destination);
        assert_file(&destination, &want);
    }
}

#[test]
fn one_gibibyte_direct_is_identical() {
    require!(long_tests());
    let scratch = Scratch::new();
    let (source, destination) = (scratch.path("in"), scratch.path("out"));
    let len = (1 << 30) + 123;
    write_pattern(&source, len, 9).expect("room for 2 GiB");
    let report = copy(&["--direct", "--sync"], &source, &destination);
    assert_same_files(&source, &destination);
    assert_eq!(report.number("bytes"), len as f64);
    require!(kernel_aio());
    require!(disk_file_system(scratch.dir()));
    report.assert_kernel_aio_carried(len as usize);
}
