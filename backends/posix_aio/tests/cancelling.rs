//! What can be stopped, and what becomes of the rest.

use super::super::library::Cancelling;
use super::*;
#[cfg(target_env = "gnu")]
use crate::testing::PATIENCE;
use crate::testing::one_of_many;

cases! { what_waits_here_can_be_cancelled cancelling_races_with_the_end }

/// Waits until a thread is inside read(2) of this pipe, by whatever descriptor.
#[cfg(target_env = "gnu")]
pub(super) fn wait_for_reader(pipe: &PipeReader) {
    let link = |fd: RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let reads = |task: std::fs::DirEntry| {
        let doing = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        let fd = doing.strip_prefix(&format!("{} 0x", libc::SYS_read)).and_then(|rest| rest.split(' ').next());
        let fd = fd.and_then(|fd| RawFd::from_str_radix(fd, 16).ok());
        fd.is_some_and(|fd| link(fd).is_some() && link(fd) == link(pipe.as_raw_fd()))
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while !std::fs::read_dir("/proc/self/task").expect("/proc").flatten().any(reads) {
        assert!(std::time::Instant::now() < deadline, "no thread takes it up");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// How many of the pipe's requests are running: those that cannot be cancelled. The others end.
fn cancel_all(backend: &PosixAio, ids: &[RequestId]) -> usize {
    ids.iter().filter(|id| backend.cancel(**id) == CancelOutcome::Running).count()
}

/// And at the library what has not begun, where it has queues; what else is there, by its word.
fn what_waits_here_can_be_cancelled(library: &'static Library) {
    let _turn = busy();
    // musl ends a thread that waits in a read.
    let runs = if library.cancelling == Cancelling::One { 0 } else { library.seats };
    one_of_many("so many run at once", || {
        let (bench, backend) = (Bench::new(), start(library, 1000));
        let (pipe, mut writer) = std::io::pipe().expect("a pipe");
        let (requests, pendings): (Vec<_>, Vec<_>) = (0..100).map(|_| slow(&bench, &pipe)).unzip();
        let ids: Vec<_> = requests.iter().map(Request::id).collect();
        submit(&bench, &backend, requests);
        // Threads need a moment to take up their first request; on a busy machine more than this.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let running = cancel_all(&backend, &ids);
        let ended = pendings.iter().filter(|pending| pending.peek() == Some(Err(Errno(libc::ECANCELED)))).count();
        assert_eq!(ended, 100 - running, "cancelled means complete, with ECANCELED");
        assert_eq!(backend.cancel(ids[99]), CancelOutcome::Unknown, "it is complete");
        release(&mut writer, running);
        let outcomes = pendings.into_iter().map(|pending| wait(pending).0);
        assert_eq!(outcomes.filter(|outcome| *outcome == Ok(1)).count(), running, "what ran has ended with its byte");
        assert_eq!(held(&backend), 0);
        if running == runs { Ok(()) } else { Err(format!("{running}, and not {runs}")) }
    });
}

fn cancelling_races_with_the_end(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 1000), file(&pattern(4096)));
    let at_once = most(library).max(40) as u64 + 8;
    for _ in 0..if library.serial { 300 } else { 100 } {
        let all = (0..at_once).map(|at| bench.request(OpKind::Read, file.as_raw_fd(), Some(at), vec![0; 64]));
        let (requests, pendings): (Vec<_>, Vec<_>) = all.unzip();
        let ids: Vec<_> = requests.iter().map(Request::id).collect();
        submit(&bench, &backend, requests);
        let cancelled: Vec<_> = ids.iter().rev().map(|id| backend.cancel(*id) == CancelOutcome::Cancelled).collect();
        for ((at, pending), cancelled) in pendings.into_iter().enumerate().zip(cancelled.into_iter().rev()) {
            let (outcome, buffer) = wait(pending);
            match outcome {
                Err(Errno(libc::ECANCELED)) => assert!(cancelled, "request {at} was not cancelled"),
                outcome => {
                    assert!(!cancelled, "request {at} was cancelled");
                    assert_eq!((outcome, buffer), (Ok(64), pattern(4096)[at..][..64].to_vec()));
                }
            }
        }
    }
    assert_eq!(held(&backend), 0);
}
