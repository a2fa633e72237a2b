use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polyaio::{Direct, Engine, File};

use crate::support::{Scratch, direct_io, long_tests, pattern, require};
use crate::tools::{Held, Watchdog, eventually, one_of_many, transfers};

const BLOCK: usize = 4096;

/// The most requests that are in flight at once while `work` runs.
fn most_in_flight(work: impl FnOnce(File) + Send + 'static) -> usize {
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(40 * BLOCK, 1));
    let held = Held::new(transfers(100));
    let engine = crate::engine_with(held.clone());
    let file = crate::open(&engine, &path, Direct::Off);
    let worker = std::thread::spawn(move || work(file));
    let mut most = 0;
    while !worker.is_finished() {
        // Time for the worker to do whatever it does beside.
        std::thread::sleep(Duration::from_millis(2));
        most = most.max(held.held());
        held.release();
    }
    worker.join().expect("it reads or writes");
    most
}

/// `work` has so many in flight at once, and never more. Where it was preempted at each look, another try shows them.
fn assert_reaches(bound: usize, what: &str, work: impl Fn(File) + Clone + Send + 'static) {
    one_of_many(what, || {
        let most = most_in_flight(work.clone());
        assert!(most <= bound, "{what}: {most}");
        if most == bound { Ok(()) } else { Err(format!("{most} were seen")) }
    });
}

#[test]
fn reads_go_ahead_as_far_as_they_are_told() {
    let _watchdog = Watchdog::new("pace::reads_go_ahead_as_far_as_they_are_told");
    for depth in [0, 1, 3, 8] {
        assert_reaches(depth + 1, &format!("the one that is wanted, and {depth} ahead"), move |file| {
            let mut data = Vec::new();
            file.blocking().depth(depth).block_size(BLOCK).read_to_end(&mut data).expect("readable");
            assert!(data == pattern(40 * BLOCK, 1));
        });
    }
}

#[test]
fn writes_stay_behind_as_far_as_they_are_told() {
    let _watchdog = Watchdog::new("pace::writes_stay_behind_as_far_as_they_are_told");
    for depth in [0, 1, 3, 8] {
        assert_reaches(depth + 1, &format!("{depth} behind, and the one that was just filled"), move |file| {
            let mut file = file.blocking().depth(depth).block_size(BLOCK);
            file.write_all(&pattern(40 * BLOCK, 2)).expect("room");
            file.flush().expect("room");
        });
    }
}

#[test]
fn random_access_reads_nothing_ahead() {
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(100 * BLOCK, 1));
    let held = Held::new(transfers(100));
    held.open();
    let engine = crate::engine_with(held.clone());
    let mut file = crate::open(&engine, &path, Direct::Off).blocking().block_size(BLOCK);
    for i in 0..10 {
        file.seek(SeekFrom::Start(i * 37 % 90 * BLOCK as u64)).expect("a file");
        file.read_exact(&mut [0; 100]).expect("readable");
    }
    assert_eq!(held.log().len(), 10);
}

#[test]
fn a_flush_waits_for_what_is_behind() {
    let _watchdog = Watchdog::new("pace::a_flush_waits_for_what_is_behind");
    let scratch = Scratch::new();
    let held = Held::new(transfers(100));
    let engine = crate::engine_with(held.clone());
    let mut file = crate::open(&engine, &scratch.path("file"), Direct::Off).blocking().block_size(BLOCK);
    file.write_all(&pattern(3 * BLOCK + 1, 1)).expect("accepted");
    eventually("full blocks are sent without a flush", || held.held() == 3);
    let flushing = std::thread::spawn(move || file.flush().map(|()| file));
    eventually("the rest is sent by the flush", || held.held() == 4);
    assert!(held.release() && held.release() && held.release());
    std::thread::sleep(Duration::from_millis(20));
    assert!(!flushing.is_finished());
    held.release();
    let file = flushing.join().expect("no panic").expect("room");
    assert_eq!(held.served(), 4);
    drop(file);
    assert_eq!(held.served(), 4, "there is nothing left for the drop");
}

#[test]
fn a_drop_waits_for_what_is_behind() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let data = pattern(3 * BLOCK + 17, 1);
    let engine = Engine::new().expect("an engine starts everywhere");
    crate::open(&engine, &path, Direct::Preferred).blocking().block_size(BLOCK).write_all(&data).expect("accepted");
    assert!(std::fs::read(&path).expect("it is there") == data);
}

/// What read-ahead is for: the device works on several blocks at once.
#[test]
fn reading_ahead_is_quicker() {
    const LEN: usize = 64 << 20;
    require!(long_tests());
    let scratch = Scratch::new();
    require!(direct_io(scratch.dir()));
    let path = scratch.file_on_disk("file", &pattern(LEN, 1));
    let engine = Arc::new(Engine::new().expect("an engine starts everywhere"));
    let read = |depth| {
        let begin = Instant::now();
        let mut file = crate::open(&engine, &path, Direct::Required).blocking().depth(depth);
        let read = std::io::copy(&mut file, &mut std::io::sink()).expect("readable");
        assert_eq!(read, LEN as u64);
        begin.elapsed().as_secs_f64()
    };
    // The best of several: others use the disk too.
    let best = |depth| (0..5).map(|_| read(depth)).fold(f64::INFINITY, f64::min);
    let (without, with) = (best(0), best(8));
    println!("depth 0: {without:.3} s, depth 8: {with:.3} s, ratio {:.2}", without / with);
    assert!(with < without, "depth 8 takes {with} s, depth 0 {without} s");
}
