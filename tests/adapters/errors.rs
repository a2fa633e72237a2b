use std::io::{self, Read as _, Seek as _, Write as _};

use polyaio::{Direct, Engine, OpKind};

use crate::support::{Scratch, pattern, require, tmpfs};
use crate::tools::{Answer, Respawn, Scripted, Watchdog, respawn};

const BLOCK: usize = 4096;

/// Fails the write at `offset`, and nothing else.
fn failing_at(offset: u64) -> Engine {
    crate::engine_with(Scripted::new(move |_, seen| match (seen.kind, seen.position) {
        (OpKind::Write, Some(at)) if at == offset => Answer::Fail(libc::EIO),
        _ => Answer::Elsewhere,
    }))
}

fn is_eio<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EIO))
}

#[test]
fn a_write_behind_that_fails_is_reported_once() {
    let _watchdog = Watchdog::new("errors::a_write_behind_that_fails_is_reported_once");
    for depth in [0, 1, 4, 20] {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let engine = failing_at(2 * BLOCK as u64);
        let mut file = crate::open(&engine, &path, Direct::Off).blocking().depth(depth).block_size(BLOCK);
        let data = pattern(10 * BLOCK, 1);
        let mut results: Vec<_> = data.chunks(BLOCK).map(|block| file.write_all(block)).collect();
        let refused = results.iter().filter(|result| is_eio(result)).count();
        results.extend([file.flush(), file.flush()]);
        let failed = results.iter().filter(|result| is_eio(result)).count();
        assert_eq!(failed, 1, "depth {depth}: {results:?}");
        assert!(results.iter().all(|result| result.is_ok() || is_eio(result)));
        drop(file);
        // The call that reported the error has accepted nothing; all else is written.
        let written = std::fs::read(&path).expect("it is there");
        assert_eq!(written.len(), (10 - refused) * BLOCK, "depth {depth}");
        assert!(written[..2 * BLOCK] == data[..2 * BLOCK]);
        assert!(written[2 * BLOCK..3 * BLOCK].iter().all(|byte| *byte == 0), "the one that failed");
    }
}

#[test]
fn an_error_outlives_a_read_and_is_told_by_a_seek() {
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(4 * BLOCK, 1));
    let engine = failing_at(0);
    let mut file = crate::open(&engine, &path, Direct::Off).blocking().block_size(BLOCK);
    file.write_all(&[1; 100]).expect("accepted");
    assert_eq!(file.read(&mut [0; 10]).expect("reads do not fail for it"), 10);
    assert!(is_eio(&file.seek(io::SeekFrom::Start(7))));
    assert_eq!(file.stream_position().expect("told once"), 110, "a seek that fails does not move");
    file.write_all(&[1; 100]).expect("elsewhere");
    file.flush().expect("told once");
}

#[test]
fn reads_that_fail_are_reported_and_can_be_repeated() {
    let scratch = Scratch::new();
    let data = pattern(10 * BLOCK, 1);
    let path = scratch.file("file", &data);
    let failures = std::sync::atomic::AtomicUsize::new(0);
    let engine = crate::engine_with(Scripted::new(move |_, seen| {
        let third = seen.kind == OpKind::Read && seen.position == Some(2 * BLOCK as u64);
        let first = third && failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        if first { Answer::Fail(libc::EIO) } else { Answer::Elsewhere }
    }));
    let mut file = crate::open(&engine, &path, Direct::Off).blocking().block_size(BLOCK);
    let (mut read, mut errors) = (Vec::new(), 0);
    loop {
        match file.read_to_end(&mut read) {
            Ok(_) => break,
            Err(error) => {
                assert_eq!((error.raw_os_error(), read.len()), (Some(libc::EIO), 2 * BLOCK));
                errors += 1;
            }
        }
    }
    assert!(errors == 1 && read == data);
}

#[test]
fn a_full_disk_is_told_by_the_flush_at_the_latest() {
    let scratch = Scratch::new();
    let mount = require!(tmpfs(&scratch.path("small"), "size=1m"));
    let engine = Engine::new().expect("an engine starts everywhere");
    let mut file = crate::open(&engine, &mount.path("file"), Direct::Off).blocking().depth(3);
    let error = file.write_all(&pattern(2 << 20, 1)).and_then(|()| file.flush()).expect_err("there is no room");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_file_that_is_not_open_for_it_says_so_at_once() {
    let scratch = Scratch::new();
    let path = scratch.file("file", b"data");
    let engine = Engine::new().expect("an engine starts everywhere");
    let reader = polyaio::OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
    let refused = reader.blocking().write(b"x").expect_err("not open for writing");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    let writer = polyaio::OpenOptions::new().write(true).open(&engine, &path).expect("it is there");
    let refused = writer.blocking().read(&mut [0]).expect_err("not open for reading");
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
}

/// An error that nobody asks for is lost with the adapter, and nothing else is.
#[test]
fn dropping_does_not_panic_for_an_error() {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let engine = failing_at(2 * BLOCK as u64);
    let mut file = crate::open(&engine, &path, Direct::Off).blocking().block_size(BLOCK);
    file.write_all(&pattern(2 * BLOCK + 5, 1)).expect("accepted");
    drop(file);
    assert_eq!(std::fs::metadata(&path).expect("it is there").len(), 2 * BLOCK as u64);
}

#[cfg(feature = "futures-io")]
#[test]
fn a_close_reports_what_was_behind() {
    use futures::AsyncWriteExt as _;
    let scratch = Scratch::new();
    let engine = failing_at(2 * BLOCK as u64);
    let file = crate::open(&engine, &scratch.path("file"), Direct::Off);
    let mut file = file.into_async().depth(8).block_size(BLOCK);
    futures::executor::block_on(async {
        file.write_all(&pattern(3 * BLOCK, 1)).await.expect("accepted");
        assert!(is_eio(&file.close().await));
        file.close().await.expect("told once");
    });
}

/// The limit counts for the whole process: a child has one.
#[test]
fn the_limit_of_file_sizes_is_told_once() {
    const LIMIT: usize = 8 * BLOCK;
    if let Respawn::Parent(child) = respawn("errors::the_limit_of_file_sizes_is_told_once") {
        child.expect_success();
        return;
    }
    let limit = libc::rlimit { rlim_cur: LIMIT as u64, rlim_max: LIMIT as u64 };
    // SAFETY: ignores a signal, and reads `limit` during the call.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    for direct in [Direct::Off, Direct::Preferred] {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let engine = Engine::new().expect("an engine starts everywhere");
        let mut file = crate::open(&engine, &path, direct).blocking().depth(20).block_size(BLOCK);
        let data = pattern(LIMIT + 1, 1);
        let error = file.write_all(&data).and_then(|()| file.flush()).expect_err("one byte too many");
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{direct:?}");
        file.flush().expect("told once");
        drop(file);
        assert!(std::fs::read(&path).expect("it is there") == data[..LIMIT]);
    }
}
