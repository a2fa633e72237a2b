//! Power failures: what was synced is there, and nothing but what was written.

use polyaio::backends::simulated::{Crash, Fault, SimulatedDisk, for_seeds};
use polyaio::{Engine, Errno, File, OpenOptions};

use crate::disk::{code, disk, engine, open};
use crate::tools::{Watchdog, join};

fn write(file: &File, byte: u8, len: usize, at: u64) {
    file.write_all_at(vec![byte; len], at).wait().into_result().expect("room");
}

const UNSYNCED: [Crash; 3] = [Crash::LoseUnsynced, Crash::KeepPrefix, Crash::Torn];

#[test]
fn what_was_synced_survives_every_crash() {
    let _watchdog = Watchdog::new("what_was_synced_survives_every_crash");
    for mode in UNSYNCED.into_iter().chain([Crash::KeepFirst(0), Crash::KeepAll]) {
        for_seeds(0..50, |seed| {
            let disk = disk(|d| d.seed(seed).shuffled(true));
            let engine = engine(&disk);
            let file = open(&engine, "file");
            // In flight together, and synced while they are.
            let writes: Vec<_> = (0..16).map(|i| file.write_at(vec![i as u8 + 1; 300], i * 300)).collect();
            let (_, synced) = engine.block_on(async { futures::join!(join(writes), file.sync_data()) });
            synced.expect("there is power");
            let before = disk.read("file").expect("there");
            assert_eq!(disk.durable("file"), Some(before.clone()), "{mode:?}: a sync covers the writes before it");
            disk.crash(mode);
            disk.reopen();
            assert_eq!(disk.read("file"), Some(before), "{mode:?}");
        });
    }
}

/// Each byte is what it was at the sync, or what one of the writes since has put there; never anything else.
#[test]
fn what_was_not_synced_is_old_or_new() {
    let _watchdog = Watchdog::new("what_was_not_synced_is_old_or_new");
    for mode in UNSYNCED {
        let (mut olds, mut news) = (0, 0);
        for_seeds(0..200, |seed| {
            let disk = disk(|d| d.seed(seed));
            let engine = engine(&disk);
            let (file, other) = (open(&engine, "file"), open(&engine, "other"));
            write(&file, 1, 8192, 0);
            file.sync_all().wait().expect("there is power");
            write(&file, 2, 3000, 1000);
            write(&other, 9, 10, 0);
            write(&file, 3, 3000, 3000);
            let report = disk.crash(mode);
            assert_eq!(report.unsynced, 4, "two writes, a file, and a write to that");
            disk.reopen();
            let have = disk.read("file").expect("its name was synced");
            assert_eq!(have.len(), 8192);
            for (at, byte) in have.iter().enumerate() {
                let may = [Some(1), (1000..4000).contains(&at).then_some(2), (3000..6000).contains(&at).then_some(3)];
                assert!(may.contains(&Some(*byte)), "{mode:?}, seed {seed}: {byte} at {at}");
            }
            olds += usize::from(!have.contains(&2) && !have.contains(&3));
            news += usize::from(have.contains(&3));
            if mode == Crash::KeepPrefix && have.contains(&3) {
                assert!(have[1000..3000].iter().all(|byte| *byte == 2), "those before it are there, too");
                assert_eq!(disk.read("other"), Some(vec![9; 10]), "of other files as well");
            }
        });
        match mode {
            Crash::LoseUnsynced => assert_eq!((olds, news), (200, 0)),
            Crash::KeepPrefix => assert!(olds > 20 && news > 20, "{olds} old, {news} new"),
            // Of dozens of sectors some are always new.
            _ => assert!(news > 150, "{news} new"),
        }
    }
}

/// What is open is of before the crash; what is opened afterwards sees the survivor.
#[test]
fn programs_are_told() {
    let disk = disk(|d| d);
    let engine = engine(&disk);
    let file = open(&engine, "file");
    write(&file, 1, 10, 0);
    assert!(disk.is_powered());
    disk.crash(Crash::LoseUnsynced);
    assert!(!disk.is_powered());
    assert_eq!(code(file.read_at(vec![0; 1], 0).wait().0), libc::EIO);
    assert_eq!(code(file.sync_all().wait()), libc::EIO);
    assert_eq!(code(file.len().wait()), libc::EIO);
    let refused = OpenOptions::new().read(true).open(&engine, "file").expect_err("there is no power");
    assert!(refused.to_string().contains(&Errno(libc::EIO).to_string()), "{refused}");
    disk.reopen();
    assert_eq!(code(file.len().wait()), libc::EIO, "for ever");
    file.close().wait().expect("closed it is");
    let gone = OpenOptions::new().read(true).open(&engine, "file").expect_err("it was never synced");
    assert!(gone.to_string().contains("os error 2"), "{gone}");
    let again = open(&engine, "file");
    write(&again, 2, 5, 0);
    again.sync_all().wait().expect("there is power");
    assert_eq!(disk.durable("file"), Some(vec![2; 5]));
}

/// What is in flight ends, and a torn crash may have it half done.
#[test]
fn in_flight_when_the_power_fails() {
    let _watchdog = Watchdog::new("in_flight_when_the_power_fails");
    let (mut whole, mut torn) = (0, 0);
    for_seeds(0..100, |seed| {
        for mode in [Crash::LoseUnsynced, Crash::Torn] {
            let disk = disk(|d| d.seed(seed).fault(Fault::power_loss(mode).writes().nth(4)));
            disk.put("file", &[0; 8 * 4096]);
            let engine = engine(&disk);
            let file = open(&engine, "file");
            let writes: Vec<_> = (0..8).map(|i| file.write_at(vec![1; 4096], i * 4096)).collect();
            let ended = engine.block_on(join(writes));
            assert!(ended.into_iter().all(|done| code(done.0) == libc::EIO), "none has succeeded");
            disk.reopen();
            let have = disk.read("file").expect("there");
            assert_eq!(have.len(), 8 * 4096);
            let new = have.iter().filter(|byte| **byte == 1).count();
            assert!(have.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "sectors are whole");
            match mode {
                Crash::Torn => torn += usize::from(new > 0 && new % 4096 != 0),
                _ => whole += new,
            }
        }
    });
    assert!(torn > 50 && whole == 0, "{torn} of 100 torn, {whole} bytes without");
}

/// Each write is durable when it completes.
#[cfg(unix)]
const SYNCHRONOUS: i32 = libc::O_DSYNC;
/// FILE_FLAG_WRITE_THROUGH of winbase.h.
#[cfg(windows)]
const SYNCHRONOUS: u32 = 0x8000_0000;

/// Durable when it completes, and nothing of the writes before it.
#[test]
fn durable_writes() {
    for synchronous in [false, true] {
        let disk = disk(|d| d);
        disk.put("file", &[0; 30]);
        let engine = engine(&disk);
        let mut options = OpenOptions::new();
        let plain = open(&engine, "file");
        options.write(true).custom_flags(if synchronous { SYNCHRONOUS } else { 0 });
        let file = options.open(&engine, "file").expect("there");
        write(&plain, 1, 20, 0);
        let one = file.write_all_at(vec![2; 10], 5);
        let one = if synchronous { one } else { one.dsync() };
        one.wait().into_result().expect("room");
        let want = [vec![0; 5], vec![2; 10], vec![0; 15]].concat();
        assert_eq!(disk.durable("file"), Some(want), "synchronous: {synchronous}");
        disk.crash(Crash::KeepAll);
        let want = [vec![1; 5], vec![2; 10], vec![1; 5], vec![0; 10]].concat();
        assert_eq!(disk.read("file"), Some(want));
    }
}

/// A small program that swaps two files by hand, as databases do: with its sync it never loses both.
fn save(engine: &Engine, disk: &SimulatedDisk, round: u8, sync: bool) -> std::io::Result<()> {
    let file = open(engine, "new");
    file.set_len(0).wait()?;
    file.write_all_at(vec![round; 2000], 0).wait().into_result()?;
    if sync {
        file.sync_all().wait()?;
    }
    file.close().wait()?;
    disk.rename("new", "state");
    Ok(())
}

#[test]
fn a_sync_that_is_left_out_is_found() {
    let _watchdog = Watchdog::new("a_sync_that_is_left_out_is_found");
    for sync in [true, false] {
        let mut broken = 0;
        for_seeds(0..100, |seed| {
            let disk = disk(|d| d.seed(seed));
            disk.put("state", &[1; 2000]);
            let engine = engine(&disk);
            disk.inject(Fault::power_loss(Crash::Torn).nth(1 + seed % 20)).expect("it makes sense");
            for round in 2..6 {
                if !disk.is_powered() || save(&engine, &disk, round, sync).is_err() {
                    break;
                }
            }
            if disk.is_powered() {
                disk.crash(Crash::Torn);
            }
            disk.reopen();
            let state = disk.read("state").unwrap_or_default();
            let whole = state.len() == 2000 && state.iter().all(|byte| *byte == state[0] && *byte > 0);
            broken += u32::from(!whole);
        });
        assert_eq!(broken == 0, sync, "{broken} of 100 broken, synced: {sync}");
    }
}
