//! Each fault: how often it strikes, what it does, and what it leaves alone.

use std::time::Duration;

use polyaio::backends::simulated::{DamageKind, Fault, Latency, SimulatedDisk};
use polyaio::{BufResult, Direct, Engine, Errno, Error, File, OpKind, OpenOptions};

use crate::disk::{code, disk, engine, open};
use crate::tools::{Watchdog, join};

const SECTOR: u64 = 512;

/// So many bytes, no two sectors alike.
fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8 ^ (at / 512) as u8 ^ salt).collect()
}

fn write(file: &File, data: &[u8], at: u64) -> std::io::Result<usize> {
    file.write_at(data.to_vec(), at).wait().0
}

fn read(file: &File, len: usize, at: u64) -> std::io::Result<Vec<u8>> {
    let BufResult(n, mut back) = file.read_at(vec![0; len], at).wait();
    n.map(|n| {
        back.truncate(n);
        back
    })
}

/// A disk with one file of 64 sectors, and an engine that has it open.
fn with_file(fault: Fault) -> (SimulatedDisk, Engine, File, Vec<u8>) {
    let disk = disk(|d| d.sector(SECTOR).fault(fault));
    let data = pattern(64 * SECTOR as usize, 1);
    disk.put("file", &data);
    let engine = engine(&disk);
    let file = open(&engine, "file");
    (disk, engine, file, data)
}

/// With 0 never, with 1 always, and in between about as often: counted on a fixed seed, so that it is no matter of luck.
#[test]
fn as_often_as_they_are_said_to_be() {
    let _watchdog = Watchdog::new("as_often_as_they_are_said_to_be");
    let faults: [(&str, Fault); 10] = [
        ("error", Fault::error(libc::EIO)),
        ("error at submit", Fault::error(libc::EIO).at_submit()),
        ("short", Fault::short()),
        ("delay", Fault::stall(Duration::from_secs(1))),
        ("queue full", Fault::queue_full()),
        ("latent error", Fault::latent_error()),
        ("bit rot", Fault::bit_rot(1)),
        ("misdirected", Fault::misdirected()),
        ("lost write", Fault::lost_write()),
        ("failed sync", Fault::failed_sync(libc::EIO)),
    ];
    for (name, fault) in faults {
        for (probability, want) in [(0.0, 0..=0), (0.1, 60..=140), (0.5, 430..=570), (1.0, 1000..=1000)] {
            let disk = disk(|d| d);
            disk.put("file", &[1; 64 * 512]);
            let id = disk.inject(fault.clone().probability(probability)).expect("it makes sense");
            let engine = engine(&disk);
            let file = open(&engine, "file");
            for round in 0..1000 {
                match name {
                    "failed sync" => _ = file.sync_data().wait(),
                    "lost write" => _ = write(&file, &[2; 512], round % 64 * 512),
                    _ if round % 2 == 0 => _ = write(&file, &[2; 512], round % 64 * 512),
                    _ => _ = read(&file, 512, round % 64 * 512),
                }
            }
            // A queue that is full for what is offered again counts anew.
            let struck = disk.struck(id).expect("it is in the plan");
            assert!(want.contains(&struck), "{name} with probability {probability}: {struck} of 1000");
        }
    }
}

#[test]
fn errors_of_every_kind() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EINVAL, libc::EAGAIN, libc::EROFS, libc::EOPNOTSUPP] {
        for at_submit in [false, true] {
            let fault = Fault::error(errno).path("file").times(3);
            let (disk, _engine, file, data) = with_file(if at_submit { fault.at_submit() } else { fault });
            assert_eq!(code(write(&file, &[9; 512], 0)), errno);
            assert_eq!(code(read(&file, 512, 0)), errno);
            assert_eq!(code(file.sync_all().wait()), errno);
            assert_eq!((disk.read("file"), disk.damage()), (Some(data), vec![]), "nothing was done");
            write(&file, &[9; 512], 0).expect("three times, and no more");
        }
    }
}

#[test]
fn conditions_narrow_down() {
    let disk = disk(|d| d);
    let engine = engine(&disk);
    let (one, other) = (open(&engine, "dir/one"), open(&engine, "dir/other"));
    let failing = |fault: Fault, tries: &dyn Fn() -> Vec<bool>| {
        let id = disk.inject(fault).expect("it makes sense");
        let ended = tries();
        disk.lift(id);
        ended
    };
    let writes =
        |file: &File, count: u64| (0..count).map(|i| write(file, &[1; 100], i * 100).is_err()).collect::<Vec<_>>();
    let eio = || Fault::error(libc::EIO);
    let both = || [writes(&one, 1), writes(&other, 1)].concat();
    assert_eq!(failing(eio().path("dir/one"), &both), [true, false]);
    assert_eq!(failing(eio().path("dir"), &both), [true, true]);
    assert_eq!(failing(eio().path("di"), &both), [false, false], "no part of a name");
    assert_eq!(failing(eio().nth(3), &|| writes(&one, 5)), [false, false, true, false, false]);
    assert_eq!(failing(eio().every(2), &|| writes(&one, 5)), [false, true, false, true, false]);
    assert_eq!(failing(eio().after(3).times(1), &|| writes(&one, 5)), [false, false, false, true, false]);
    assert_eq!(failing(eio().range(199..201), &|| writes(&one, 4)), [false, true, true, false]);
    assert_eq!(failing(eio().reads(), &|| writes(&one, 2)), [false, false]);
    assert_eq!(
        failing(eio().syncs(), &|| vec![one.sync_data().wait().is_err(), one.len().wait().is_err()]),
        [true, false]
    );
    assert_eq!(failing(eio().kind(OpKind::Len), &|| vec![one.len().wait().is_err()]), [true]);
    let at_100 = eio().when(|asked| asked.kind == OpKind::Write && asked.offset == Some(100) && asked.length == 100);
    assert_eq!(failing(at_100, &|| writes(&one, 3)), [false, true, false]);
    let opening = eio().kind(OpKind::Open);
    let opened = || vec![OpenOptions::new().read(true).open(&engine, "dir/one").is_err(), one.len().wait().is_err()];
    assert_eq!(failing(opening, &opened), [true, false]);
}

#[test]
fn plans_that_make_no_sense() {
    let wrong = [
        Fault::error(0),
        Fault::error(libc::EINTR),
        Fault::error(5).probability(1.5),
        Fault::error(5).probability(f64::NAN),
        Fault::error(5).nth(0),
        Fault::error(5).every(0),
        Fault::error(5).range(7..7),
        Fault::short_to(0),
        Fault::bit_rot(0),
        Fault::lost_write().reads(),
        Fault::failed_sync(5).writes(),
    ];
    for fault in wrong {
        let built = SimulatedDisk::builder().fault(fault.clone()).build();
        assert!(matches!(built, Err(Error::Options(_))), "{fault:?}");
        assert!(matches!(disk(|d| d).inject(fault), Err(Error::Options(_))));
    }
}

#[test]
fn short_transfers() {
    let (disk, engine, file, data) = with_file(Fault::short().times(2));
    let n = write(&file, &[7; 1000], 0).expect("a part");
    assert!((1..1000).contains(&n), "{n}");
    assert_eq!(disk.read("file").expect("there")[n..], data[n..], "what was not reported was not written");
    let back = read(&file, 1000, 1000).expect("a part");
    assert!((1..1000).contains(&back.len()) && back == data[1000..1000 + back.len()]);
    // A direct file stops between two sectors; what loops goes on.
    disk.inject(Fault::short().every(2)).expect("it makes sense");
    let mut options = OpenOptions::new();
    let direct = options.read(true).write(true).direct(Direct::Required).open(&engine, "file").expect("there");
    for round in 0..20 {
        let (n, _) = direct.read_at(direct.buffer(4096), 0).wait().into_result().expect("a part");
        assert!(n % SECTOR as usize == 0 && n > 0, "round {round}: {n}");
    }
    let mut buffer = direct.buffer(8192);
    buffer.copy_from_slice(&pattern(8192, 9));
    direct.write_all_at(buffer, 512).wait().into_result().expect("all of it");
    assert_eq!(disk.read("file").expect("there")[512..512 + 8192], pattern(8192, 9));
    disk.clear_faults();
    disk.inject(Fault::short_to(100)).expect("it makes sense");
    assert_eq!(write(&file, &[1; 500], 0).expect("a part"), 100);
    assert_eq!(write(&file, &[1; 100], 0).expect("not longer"), 100);
}

#[test]
fn delays_pass_in_the_disks_own_time() {
    let disk = disk(|d| d.latency(Latency::fixed(Duration::from_millis(1))));
    disk.inject(Fault::stall(Duration::from_secs(60)).nth(1).reads()).expect("it makes sense");
    let engine = engine(&disk);
    let file = open(&engine, "a");
    write(&file, &[1; 10], 0).expect("room");
    let before = disk.now();
    read(&file, 10, 0).expect("it ends");
    let stalled = disk.now() - before;
    read(&file, 10, 0).expect("it ends");
    assert_eq!((stalled, disk.now() - before - stalled), (Duration::from_millis(60_001), Duration::from_millis(1)));
}

/// What was submitted together completes, and takes effect, in another order.
#[test]
fn completions_out_of_order() {
    let latencies = Latency::uniform(Duration::from_micros(1), Duration::from_micros(100));
    for disk in [disk(|d| d.latency(latencies)), disk(|d| d.shuffled(true))] {
        let engine = engine(&disk);
        let file = open(&engine, "a");
        let writes = (0..32).map(|i| file.write_at(vec![i as u8; 10], i * 10));
        engine.block_on(join(writes)).into_iter().for_each(|done| _ = done.0.expect("room"));
        let trace = disk.trace().to_string();
        let answered = |line: &str| line.split('#').nth(1)?.split_once(" -> ")?.0.parse::<u64>().ok();
        let order: Vec<u64> = trace.lines().filter_map(answered).collect();
        assert_eq!(order.len(), 32, "{trace}");
        assert!(!order.is_sorted(), "{order:?}");
        let want: Vec<u8> = (0..320).map(|at| (at / 10) as u8).collect();
        assert_eq!(disk.read("a"), Some(want));
    }
}

/// More than there is room for waits in the engine; what finds the queue full by a fault is offered again.
#[test]
fn a_full_queue() {
    let _watchdog = Watchdog::new("a_full_queue");
    let disk = disk(|d| d.queue_bound(4).fault(Fault::queue_full().probability(0.3).when(|asked| asked.number > 1)));
    let engine = engine(&disk);
    let file = open(&engine, "a");
    let writes = (0..100).map(|i| file.write_at(vec![i as u8; 10], i * 10));
    let ended = engine.block_on(join(writes));
    let refused = ended.iter().filter(|done| done.0.is_err()).count();
    let again: Vec<_> = ended.iter().filter_map(|done| Some(Errno::of(done.0.as_ref().err()?)?.0)).collect();
    assert!(again.iter().all(|errno| *errno == libc::EAGAIN), "{again:?}");
    // Only what meets it with nothing in flight is told.
    assert!(refused <= 3, "{refused} of 100");
    assert!(engine.stats().backends.iter().any(|b| b.name == "simulated" && b.busy > 10));
}

// ----- damage ---------------------------------------------------------------------------------------------------------

#[test]
fn latent_errors_last_until_they_are_written_anew() {
    let (disk, _engine, file, data) = with_file(Fault::latent_error().reads().times(1).range(1024..4096));
    assert_eq!(code(read(&file, data.len(), 0)), libc::EIO);
    let damage = disk.damage();
    assert_eq!((damage.len(), damage[0].kind), (1, DamageKind::LatentError));
    let bad = damage[0].range.clone();
    assert!(
        bad.start >= 1024 && bad.end <= 4096 && bad.end - bad.start == SECTOR && bad.start % SECTOR == 0,
        "{bad:?}"
    );
    for at in (0..64).map(|sector| sector * SECTOR) {
        let back = read(&file, SECTOR as usize, at);
        if at == bad.start {
            assert_eq!(code(back), libc::EIO, "for ever");
        } else {
            assert_eq!(back.expect("the others are fine"), data[at as usize..][..SECTOR as usize]);
        }
    }
    for (at, len) in [(bad.start + 1, 10), (bad.start + 256, 256), (bad.start + 256, 600), (bad.start - 100, 200)] {
        assert_eq!(code(write(&file, &vec![5; len], at)), libc::EIO, "a part of it cannot be written");
    }
    write(&file, &[5; 512], bad.start).expect("as a whole it can");
    assert_eq!(read(&file, 512, bad.start).expect("whole again"), [5; 512]);
    assert_eq!((disk.damage(), disk.damage_log().len()), (vec![], 1));
}

#[test]
fn bits_that_flip_stay_flipped_where_they_may() {
    let (disk, _engine, file, data) = with_file(Fault::bit_rot(3).times(1).range(5000..5050));
    let back = read(&file, data.len(), 0).expect("nobody notices");
    let changed: Vec<usize> = (0..data.len()).filter(|at| back[*at] != data[*at]).collect();
    let bits: u32 = changed.iter().map(|at| (back[*at] ^ data[*at]).count_ones()).sum();
    assert!((1..=3).contains(&bits) && changed.iter().all(|at| (5000..5050).contains(at)), "{changed:?}");
    for damage in disk.damage() {
        assert_eq!((damage.kind, damage.path.to_str()), (DamageKind::BitRot, Some("file")));
    }
    let told: Vec<usize> = disk.damage().iter().flat_map(|damage| damage.range.clone()).map(|at| at as usize).collect();
    assert!(changed.iter().all(|at| told.contains(at)), "{changed:?} of {told:?}");
    assert_eq!(read(&file, data.len(), 0).expect("readable"), back, "they stay so");
    assert_eq!(disk.durable("file"), Some(back), "on the disk, too");
    write(&file, &data[5000..5050], 5000).expect("room");
    assert_eq!((read(&file, data.len(), 0).expect("readable"), disk.damage()), (data, vec![]));
}

#[test]
fn misdirected_writes() {
    for seed in 0..200 {
        let disk = disk(|d| d.seed(seed).fault(Fault::misdirected().writes().times(1).range(2048..16_384)));
        let data = pattern(64 * 512, 3);
        disk.put("file", &data);
        disk.put("other", &data);
        let engine = engine(&disk);
        let file = open(&engine, "file");
        assert_eq!(write(&file, &[0xee; 700], 4196).expect("nobody notices"), 700);
        let have = disk.read("file").expect("there");
        let changed: Vec<usize> = (0..data.len()).filter(|at| have[*at] != data[*at]).collect();
        let (first, last) = (changed[0], changed[changed.len() - 1] + 1);
        assert!(first >= 2048 && last <= 16_384, "seed {seed}: {first}..{last} was not to be touched");
        assert!(have[4196..4896].iter().filter(|byte| **byte == 0xee).count() < 700, "its own place stays");
        assert_eq!(have.len(), data.len());
        let mut kinds: Vec<_> = disk.damage().into_iter().map(|d| (d.kind, d.range)).collect();
        kinds.sort_by_key(|(_, range)| range.start);
        let there = kinds.iter().find(|(kind, _)| *kind == DamageKind::Misdirected).expect("told").1.clone();
        assert!(have[there.start as usize..there.end as usize].iter().all(|byte| *byte == 0xee));
        assert_eq!((there.end - there.start, there.start % 512), (700, 4196 % 512));
        assert!(changed.iter().all(|at| there.contains(&(*at as u64))), "nothing else has changed");
        assert_eq!(disk.read("other"), Some(data), "another file is another file");
    }
}

#[test]
fn misdirected_reads_damage_nothing() {
    let (disk, _engine, file, data) = with_file(Fault::misdirected().reads().times(1));
    let back = read(&file, 512, 1024).expect("nobody notices");
    assert_ne!(back, data[1024..1536]);
    let from = data.chunks(512).position(|sector| sector == back);
    assert!(from.is_some_and(|sector| sector != 2), "it is another sector of the file");
    assert_eq!(read(&file, 512, 1024).expect("readable"), data[1024..1536], "the next one is right");
    assert_eq!((disk.damage(), disk.read("file")), (vec![], Some(data)));
}

#[test]
fn lost_writes() {
    let (disk, _engine, file, data) = with_file(Fault::lost_write().nth(2));
    write(&file, &[1; 100], 0).expect("room");
    assert_eq!(write(&file, &[2; 100], 1000).expect("nobody notices"), 100);
    file.sync_all().wait().expect("nobody notices");
    assert_eq!(read(&file, 100, 1000).expect("readable"), data[1000..1100]);
    let damage = disk.damage();
    assert_eq!((damage.len(), damage[0].kind, damage[0].range.clone()), (1, DamageKind::LostWrite, 1000..1100));
    write(&file, &[2; 50], 1000).expect("room");
    assert_eq!(disk.damage()[0].range, 1050..1100, "the half that was written anew is whole");
}

#[test]
fn a_failed_sync_loses_what_it_should_cover() {
    for cached in [false, true] {
        let fault = Fault::failed_sync(libc::EIO).nth(2);
        let (disk, _engine, file, data) = with_file(if cached { fault.cached() } else { fault });
        write(&file, &[1; 100], 0).expect("room");
        file.sync_data().wait().expect("the first");
        write(&file, &[2; 100], 50).expect("room");
        assert_eq!(code(file.sync_data().wait()), libc::EIO);
        let synced = [&[1; 100][..], &data[100..]].concat();
        let seen = if cached { [&[1; 50][..], &[2; 100], &data[150..]].concat() } else { synced.clone() };
        assert_eq!((read(&file, data.len(), 0).expect("readable"), disk.durable("file")), (seen, Some(synced.clone())));
        assert_eq!(disk.damage()[0].kind, DamageKind::LostSync);
        file.sync_data().wait().expect("it knows nothing of the last one");
        assert_eq!(disk.durable("file"), Some(synced), "and does not bring it back");
    }
}

/// Faults that the test itself makes.
#[test]
fn damage_by_hand() {
    let (disk, _engine, file, data) = with_file(Fault::error(libc::EIO).probability(0.0));
    assert!(disk.flip_bit("file", 7, 3) && disk.spoil("file", 600..601));
    assert!(!disk.flip_bit("none", 7, 3) && !disk.spoil("file", 1 << 40..(1 << 40) + 1));
    assert_eq!(read(&file, 512, 0).expect("readable")[7], data[7] ^ 8);
    assert_eq!(code(read(&file, 1, 1000)), libc::EIO);
    let kinds: Vec<_> = disk.damage().into_iter().map(|d| (d.number, d.kind, d.range)).collect();
    assert_eq!(kinds, [(0, DamageKind::BitRot, 7..8), (0, DamageKind::LatentError, 512..1024)]);
}
