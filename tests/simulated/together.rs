//! Where faults, crashes and the page cache meet.

use std::time::Duration;

use polyaio::backends::simulated::{Crash, Fault, Latency, SimulatedDisk};
use polyaio::{BufResult, Direct, File, OpenOptions};

use crate::disk::{code, disk, engine, open};
use crate::tools::{Watchdog, join};

fn write(file: &File, byte: u8, len: usize, at: u64) -> BufResult<usize, Vec<u8>> {
    file.write_at(vec![byte; len], at).wait()
}

/// A disk with one file, without faults so far.
fn with_file(seed: u64, content: &[u8]) -> SimulatedDisk {
    let disk = disk(|d| d.seed(seed));
    disk.put("file", content);
    disk
}

fn restart(disk: &SimulatedDisk, mode: Crash) -> Vec<u8> {
    disk.crash(mode);
    disk.reopen();
    disk.read("file").expect("it was synced")
}

/// Damage to what is written is there after the sync, and after a crash; only another write mends it.
#[test]
fn damage_outlives_syncs_and_crashes() {
    let _watchdog = Watchdog::new("damage_outlives_syncs_and_crashes");
    for fault in [Fault::bit_rot(1), Fault::latent_error()] {
        let disk = disk(|d| d.seed(1).fault(fault.writes().nth(1)));
        let first = engine(&disk);
        let file = open(&first, "file");
        write(&file, 0, 4096, 0).0.expect("it reports success");
        file.sync_all().wait().expect("there is power");
        let damage = disk.damage();
        assert_eq!((damage.len(), disk.durable("file")), (1, disk.read("file")));
        restart(&disk, Crash::LoseUnsynced);
        assert_eq!(disk.damage(), damage);
        let second = engine(&disk);
        let file = open(&second, "file");
        let BufResult(n, back) = file.read_at(vec![9; 4096], 0).wait();
        assert!(n.is_err() || back.iter().any(|byte| *byte != 0), "it is still damaged");
        write(&file, 0, 4096, 0).0.expect("room");
        file.sync_all().wait().expect("there is power");
        restart(&disk, Crash::LoseUnsynced);
        assert!(disk.damage().is_empty(), "written anew");
    }
}

/// Where only the program dies, nothing becomes durable by that, and the page cache stays as it was.
#[test]
fn a_killed_program_syncs_nothing() {
    let _watchdog = Watchdog::new("a_killed_program_syncs_nothing");
    let disk = with_file(1, &[1; 10]);
    let engine = engine(&disk);
    let file = open(&engine, "file");
    write(&file, 2, 10, 0).0.expect("room");
    write(&open(&engine, "other"), 3, 10, 0).0.expect("room");
    assert_eq!(restart(&disk, Crash::KeepAll), [2; 10]);
    assert_eq!(disk.read("other"), Some(vec![3; 10]));
    assert_eq!((disk.durable("file"), disk.durable("other")), (Some(vec![1; 10]), None));
    assert_eq!(restart(&disk, Crash::LoseUnsynced), [1; 10]);
    assert_eq!(disk.read("other"), None);
}

/// A write in flight tears to what it could have become, and to nothing else.
#[test]
fn what_could_not_be_written_does_not_tear() {
    let _watchdog = Watchdog::new("what_could_not_be_written_does_not_tear");
    let mut torn = 0;
    for seed in 0..50 {
        let power_loss = || Fault::power_loss(Crash::Torn).writes();
        // Only the beginning is written.
        let disk = with_file(seed, &[1; 4096]);
        disk.inject(Fault::short_to(512).writes()).expect("a fault");
        disk.inject(power_loss()).expect("a fault");
        let _ = write(&open(&engine(&disk), "file"), 2, 4096, 0);
        disk.reopen();
        let bytes = disk.read("file").expect("it was synced");
        assert!(!bytes[512..].contains(&2), "seed {seed}");
        torn += usize::from(bytes.contains(&2));
        // At the position, which is not the end.
        let disk = with_file(seed, &[1; 512]);
        disk.inject(power_loss()).expect("a fault");
        let _ = open(&engine(&disk), "file").write(vec![2; 512]).wait();
        disk.reopen();
        assert_eq!(disk.read("file").expect("it was synced").len(), 512, "seed {seed}");
        // Direct I/O would refuse it.
        let disk = with_file(seed, &[1; 4096]);
        disk.inject(power_loss()).expect("a fault");
        let file = OpenOptions::new().write(true).direct(Direct::Required).open(&engine(&disk), "file").expect("there");
        let _ = write(&file, 2, 100, 3);
        disk.reopen();
        assert!(!disk.read("file").expect("it was synced").contains(&2), "seed {seed}");
        // There is no space for it.
        let disk = SimulatedDisk::builder().seed(seed).capacity(4096).build().expect("a disk");
        disk.put("file", &[1; 4096]);
        disk.inject(power_loss()).expect("a fault");
        let _ = write(&open(&engine(&disk), "file"), 2, 4096, 4096);
        disk.reopen();
        assert!(disk.used() <= 4096, "seed {seed}: {}", disk.used());
    }
    assert!(torn > 0, "in no case was anything written");
}

/// One change of a sector is there or is not, also where it is kept as several.
#[test]
fn a_sector_tears_as_a_whole() {
    let _watchdog = Watchdog::new("a_sector_tears_as_a_whole");
    for seed in 0..50 {
        let disk = SimulatedDisk::builder().seed(seed).sector(65536).build().expect("a disk");
        disk.put("file", &[1; 131_072]);
        open(&engine(&disk), "file").punch_hole(0, 65536).wait().expect("room");
        let bytes = restart(&disk, Crash::Torn);
        assert!(bytes[..65536].iter().all(|byte| *byte == bytes[0]), "seed {seed}");
        // A durable write in the midst of one that is not.
        let disk = with_file(seed, &[1; 512]);
        let engine = engine(&disk);
        let file = open(&engine, "file");
        write(&file, 2, 512, 0).0.expect("room");
        file.write_at(vec![3; 100], 200).dsync().wait().0.expect("room");
        let bytes = restart(&disk, Crash::Torn);
        assert_eq!((bytes[0], bytes[250]), (bytes[511], 3), "seed {seed}");
    }
}

/// What is refused meets the other faults when it is offered again: they strike, once.
#[test]
fn a_refusal_swallows_no_other_fault() {
    let _watchdog = Watchdog::new("a_refusal_swallows_no_other_fault");
    let disk = disk(|d| d.seed(1).queue_bound(8));
    disk.inject(Fault::queue_full().writes().nth(2)).expect("a fault");
    let failing = disk.inject(Fault::error(libc::EIO).writes().nth(2)).expect("a fault");
    let engine = engine(&disk);
    let file = open(&engine, "file");
    let results = engine.block_on(join((0..3).map(|i| file.write_at(vec![1; 10], i * 10))));
    let failed: Vec<i32> =
        results.into_iter().filter_map(|BufResult(n, _)| n.err()).map(|e| code(Err::<(), _>(e))).collect();
    assert_eq!((disk.struck(failing), &failed[..]), (Some(1), &[libc::EIO][..]));
}

/// A write that makes the file longer goes astray as any other does, and leaves the length alone.
#[test]
fn what_lengthens_a_file_goes_astray_too() {
    let _watchdog = Watchdog::new("what_lengthens_a_file_goes_astray_too");
    let disk = with_file(1, &[1; 8192]);
    let fault = disk.inject(Fault::misdirected().writes()).expect("a fault");
    let engine = engine(&disk);
    let file = open(&engine, "file");
    for i in 0..8 {
        assert_eq!(write(&file, 9, 512, 8192 + i * 512).0.expect("it reports success"), 512);
    }
    assert_eq!(disk.struck(fault), Some(8));
    assert!(!disk.damage().is_empty());
    assert_eq!(disk.read("file").expect("there")[..8192].iter().filter(|byte| **byte == 9).count() % 512, 0);
    assert_eq!(disk.read("file").expect("there").len(), 8192);
}

/// Opening is part of the program's order too: the trace of a program on one thread is the same each time.
#[test]
fn opening_asynchronously_repeats() {
    let _watchdog = Watchdog::new("opening_asynchronously_repeats");
    let run = || {
        let latency = Latency::exponential(Duration::from_millis(1));
        let disk = disk(|d| d.seed(5).shuffled(true).latency(latency).fault(Fault::short().probability(0.2)));
        let engine = engine(&disk);
        let busy = open(&engine, "busy");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        engine.block_on(async {
            let writes = join((0..40).map(|i| busy.write_all_at(vec![1; 100], i * 100)));
            let opened = join(["a", "b", "c"].map(|path| options.open_async(&engine, path)));
            let (_, files) = futures::join!(writes, opened);
            for file in &files {
                file.as_ref().expect("made").write_all_at(vec![2; 900], 0).await.0.expect("room");
            }
        });
        disk.trace().to_string()
    };
    let first = run();
    (0..20).for_each(|round| assert_eq!(run(), first, "round {round}"));
}

/// `./` says nothing, wherever it stands.
#[test]
fn paths_are_compared_as_what_they_name() {
    let disk = disk(|d| d.below("./data").fault(Fault::error(libc::EIO).reads().path("./data//a")));
    disk.put("data/a", &[1; 10]);
    disk.put("data/b", &[1; 10]);
    let engine = engine(&disk);
    assert_eq!(code(open(&engine, "data/a").read_at(vec![0; 10], 0).wait().0), libc::EIO);
    assert_eq!(open(&engine, "./data/./b").read_at(vec![0; 10], 0).wait().0.expect("another file"), 10);
    assert!(disk.spoil("data/b", 0..u64::MAX), "all of it");
}
