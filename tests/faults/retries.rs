//! Between a refusal and its repetition the world goes on: engines end, files are closed, their numbers are given away.

use std::fs::File as StdFile;
use std::time::Duration;

use polyaio::{BufResult, Engine, IoBuf as _, OpenOptions, Policy};

use crate::support::{Scratch, assert_file, pattern};
use crate::tools::{
    Answer, Begun, Census, HELD, Held, Respawn, SCRIPTED, Scripted, Watchdog, eventually, join, one_of_many, park_on,
    poll_once, respawn, stays_asleep, transfers,
};
use crate::{BLOCK, prefer};

/// A request that is offered again and again while the engine ends is freed once, and ends once.
#[test]
fn the_engine_ends_in_a_storm_of_full_queues() {
    let _watchdog = Watchdog::new("faults: the_engine_ends_in_a_storm_of_full_queues");
    for round in 0..60 {
        let census = Census::default();
        let scripted = Scripted::new(move |number, _| match (number + round) % 7 {
            0 => Answer::Elsewhere,
            1 => Answer::Leave,
            _ => Answer::Busy,
        });
        let policy = Policy::Prefer(vec![SCRIPTED.to_owned()]);
        let builder = Engine::builder().backend(scripted).policy(policy).strict(false);
        let engine = builder.capacity(48).threads(2).build().expect("an engine");
        let scratch = Scratch::new();
        let data = pattern(64 * BLOCK, 1);
        let path = scratch.file("file", &data);
        let file = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
        let begin = |i| Begun::new(file.read_at(census.buffer(BLOCK, 0), (i * BLOCK) as u64));
        let mut reads: Vec<_> = (0..64).map(begin).collect();
        for read in &mut reads {
            read.again();
        }
        // Some are abandoned, some are waited for, and the engine ends meanwhile.
        let waiting: Vec<_> = reads.drain(..32).map(|read| std::thread::spawn(|| park_on(read))).collect();
        drop(reads);
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(100 * round as u64));
        }
        drop(engine);
        for (i, read) in waiting.into_iter().enumerate() {
            let BufResult(n, back) = read.join().expect("no panic");
            let n = n.expect("it was sent before the engine ended, and is finished");
            assert_eq!((n, back.as_slice()), (BLOCK, &data[i * BLOCK..][..BLOCK]));
        }
        drop(file);
        eventually("all buffers are freed", || census.live() == 0);
    }
}

/// A repetition goes to the file that was meant, though it was closed meanwhile, and others were opened.
#[test]
fn a_retry_reaches_its_own_file() {
    let _watchdog = Watchdog::new("faults: a_retry_reaches_its_own_file");
    for (errno, closed) in [(libc::EINVAL, true), (libc::EINVAL, false), (libc::EOPNOTSUPP, true), (libc::EPERM, false)]
    {
        let (held, scratch) = (Held::new(transfers(100)), Scratch::new());
        let engine = prefer(held.clone(), HELD);
        let path = scratch.file("meant", &[0; BLOCK]);
        let file = OpenOptions::new().write(true).open(&engine, &path).expect("it is there");
        let data = pattern(BLOCK, 7);
        let mut write = file.write_all_at(data.clone(), 0);
        assert!(poll_once(&mut write).is_pending());
        eventually("the write is with its backend", || poll_once(&mut write).is_pending() && held.held() == 1);
        let mut close = closed.then(|| file.clone().close());
        assert!(close.as_mut().is_none_or(|close| poll_once(close).is_pending()), "a write is on its way");
        drop(file);
        // One that asks for the descriptor's number, or whose number was free, would meet these.
        let bystanders: Vec<_> = (0..64).map(|i| scratch.file(&format!("bystander{i}"), b"mine")).collect();
        let open: Vec<_> =
            bystanders.iter().map(|path| StdFile::options().write(true).open(path).expect("there")).collect();
        assert!(held.fail(errno));
        write.wait().0.expect("the pool writes it");
        if let Some(close) = close {
            close.wait().expect("an ordinary file");
        }
        assert_file(&path, &data);
        bystanders.iter().for_each(|path| assert_file(path, b"mine"));
        drop(open);
    }
}

/// Over every bound, waiting costs nothing: neither the executor's thread nor one of ours goes round in circles.
#[test]
fn a_full_queue_lets_everybody_sleep() {
    let _watchdog = Watchdog::new("faults: a_full_queue_lets_everybody_sleep");
    // In a process of its own: what its threads do is counted.
    let Respawn::Child = respawn("retries::a_full_queue_lets_everybody_sleep").checked() else { return };
    for capacity in [8, 65_536] {
        for foreign in [false, true] {
            let held = Held::new(transfers(2));
            let policy = Policy::Prefer(vec![HELD.to_owned()]);
            let builder = Engine::builder().backend(held.clone()).policy(policy).strict(false);
            let engine = builder.capacity(capacity).threads(1).build().expect("an engine");
            let scratch = Scratch::new();
            let path = scratch.file("file", &pattern(BLOCK, 1));
            let file = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
            let reader = std::thread::spawn(move || {
                let reads = join((0..200).map(|_| file.read_at(vec![0; BLOCK], 0)));
                if foreign { park_on(reads) } else { engine.block_on(reads) }
            });
            eventually("it is full", || held.held() == 2);
            // At first some may be on their way to sleep.
            one_of_many(&format!("capacity {capacity}, foreign {foreign}: asleep"), || {
                stays_asleep(Duration::from_millis(200))
            });
            held.open();
            reader
                .join()
                .expect("no panic")
                .into_iter()
                .for_each(|BufResult(n, _)| assert_eq!(n.expect("readable"), BLOCK));
        }
    }
}
