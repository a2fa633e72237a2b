use std::path::Path;

use polyaio::{Direct, Engine, OpenOptions};

use crate::log::{Log, LogError};
use crate::record::{BLOCK, LONGEST};
use crate::support::Scratch;

fn open(engine: &Engine, path: &Path, direct: Direct) -> Result<(Log, Vec<Vec<u8>>), LogError> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).direct(direct).open(engine, path).expect("a file of our own");
    let (log, records) = engine.block_on(Log::open(file, None))?;
    Ok((log, records.into_iter().map(|record| record.payload).collect()))
}

/// Commits each of these by itself, and closes the log.
fn append(engine: &Engine, path: &Path, direct: Direct, payloads: &[&[u8]]) {
    let (mut log, _) = open(engine, path, direct).expect("nothing is wrong with it");
    for payload in payloads {
        log.append(payload).expect("it is well");
        engine.block_on(log.commit()).expect("it is well");
    }
    engine.block_on(log.close()).expect("a file that closes");
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").len()
}

#[test]
fn what_was_committed_is_read() {
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts on every machine");
    let large = vec![3; LONGEST];
    for (name, direct) in [("buffered", Direct::Off), ("direct", Direct::Preferred)] {
        let path = scratch.path(name);
        append(&engine, &path, direct, &[b"one", b"", &large]);
        append(&engine, &path, direct, &[b"four"]);
        let want = [&b"one"[..], b"", &large, b"four"];
        assert_eq!(open(&engine, &path, direct).expect("nothing is wrong").1, want, "{name}");
        assert_eq!(length(&path), (5 * BLOCK + LONGEST) as u64, "{name}");
    }
    let (mut log, _) = open(&engine, &scratch.path("long"), Direct::Off).expect("nothing is wrong");
    assert!(matches!(log.append(&vec![0; LONGEST + 1]), Err(LogError::TooLong)));
    assert_eq!(log.append(b"it is well all the same").expect("nothing has failed"), 1);
}

/// What a crash may leave at the end is cut off, and written over.
#[test]
fn a_torn_tail_is_cut() {
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts on every machine");
    for torn in [0, 1, 24, 25, BLOCK - 1] {
        let path = scratch.path(&format!("torn-{torn}"));
        append(&engine, &path, Direct::Off, &[b"one", b"two", &[1; 9000]]);
        let file = std::fs::File::options().write(true).open(&path).expect("it is there");
        // The last commit has three blocks.
        file.set_len((4 * BLOCK + torn) as u64).expect("a file that can be cut");
        let (log, records) = open(&engine, &path, Direct::Off).expect("nothing is damaged");
        assert_eq!(records, [b"one", b"two"], "{torn} bytes");
        assert_eq!(length(&path), 3 * BLOCK as u64, "{torn} bytes");
        drop(log);
        append(&engine, &path, Direct::Off, &[b"new"]);
        assert_eq!(open(&engine, &path, Direct::Off).expect("nothing is wrong").1, [b"one", b"two", b"new"]);
    }
}

/// What was committed is never cut off because it is damaged.
#[test]
fn damage_is_an_error_and_changes_nothing() {
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts on every machine");
    let path = scratch.path("log");
    append(&engine, &path, Direct::Off, &[b"one", b"two", b"three"]);
    let mut bytes = std::fs::read(&path).expect("it is there");
    bytes[2 * BLOCK + 24] ^= 1;
    std::fs::write(&path, &bytes).expect("it can be written");
    match open(&engine, &path, Direct::Off).map(|_| ()) {
        Err(LogError::Corrupt { offset, sequence: 2, beyond }) => assert_eq!((offset, beyond), (BLOCK + 27, 3 * BLOCK)),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).expect("it is there"), bytes);
}

/// Whoever names the wrong file does not lose it.
#[test]
fn what_is_no_log_is_left_alone() {
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts on every machine");
    for length in [1, 30, BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK] {
        let path = scratch.file("diary", &vec![b'x'; length]);
        for direct in [Direct::Off, Direct::Preferred] {
            let opened = open(&engine, &path, direct).map(|_| ());
            assert!(matches!(opened, Err(LogError::NotALog)), "{length} bytes: {opened:?}");
        }
        assert_eq!(std::fs::read(&path).expect("it is there"), vec![b'x'; length]);
    }
    // Its making may have been cut short, though.
    for (name, bytes) in [("empty", &[][..]), ("beginning", b"write-ahead"), ("zeroes", &[0; BLOCK])] {
        let path = scratch.file(name, bytes);
        append(&engine, &path, Direct::Off, &[b"one"]);
        assert_eq!(open(&engine, &path, Direct::Off).expect("nothing is wrong").1, [b"one"], "{name}");
    }
}
