//! The end of the backend, and children of the process.

use super::*;

cases! { a_shutdown_drains what_nobody_waits_for_is_not_started dropped_while_waiting_here_is_not_started_either }

fn a_shutdown_drains(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 1000), file(&pattern(4096)));
    let all = (0..500).map(|at| bench.request(OpKind::Read, file.as_raw_fd(), Some(at), vec![0; 8]));
    let (requests, pendings): (Vec<_>, Vec<_>) = all.unzip();
    submit(&bench, &backend, requests);
    backend.shutdown();
    for (at, pending) in pendings.into_iter().enumerate() {
        assert_eq!(pending.peek(), Some(Ok(8)), "request {at} has ended before the shutdown did");
    }
    assert!(backend.shared.lock().thread.is_none());
    backend.shutdown();
    assert_eq!(duplicates(&backend) > 0, library.serial, "a file may still be open: its duplicates stay");
    drop(backend);
    assert_eq!(namesakes(file.as_raw_fd()), 1);
}

fn what_nobody_waits_for_is_not_started(library: &'static Library) {
    let (bench, backend, file) = (Bench::new(), start(library, 1000), file(&pattern(64)));
    let (write, pending) = bench.request(OpKind::Write, file.as_raw_fd(), Some(0), vec![0xee; 64]);
    drop(pending);
    submit(&bench, &backend, [write]);
    assert_eq!(held(&backend), 0);
    backend.shutdown();
    let mut content = vec![0; 64];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut content, 0).expect("readable");
    assert_eq!(content, pattern(64), "nothing was written");
}

fn dropped_while_waiting_here_is_not_started_either(library: &'static Library) {
    let _turn = busy();
    let (bench, backend) = (Bench::new(), narrow(library, 1000, 1));
    // One descriptor has one seat, or all.
    let there = if library.serial { library.depth } else { library.seats };
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (requests, mut pendings): (Vec<_>, Vec<_>) = (0..there + 2).map(|_| slow(&bench, &pipe)).unzip();
    submit(&bench, &backend, requests);
    drop(pendings.remove(there));
    let bytes: Vec<u8> = (0..=there as u8).collect();
    writer.write_all(&bytes).expect("room in the pipe");
    let ends: Vec<_> = pendings.into_iter().map(wait).collect();
    assert!(ends.iter().all(|(outcome, _)| *outcome == Ok(1)), "a byte for each: {ends:?}");
    let mut read: Vec<_> = ends.into_iter().flat_map(|(_, byte)| byte).collect();
    if !library.serial {
        read.sort_unstable();
    }
    assert_eq!(read, bytes, "each to one of those that were left");
    assert_eq!(held(&backend), 0);
}

/// The child has no reaper, no threads of the C library, and locks that nobody will ever unlock.
#[test]
fn a_child_of_fork_does_not_hang_and_cannot_start_another() {
    let (bench, backend, file) = (Bench::new(), start(own(), 16), file(&pattern(64)));
    let read = || bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8]);
    assert_eq!(run(&bench, &backend, read()).0, Ok(8));
    let mut backend = Some(backend);
    let lock = backend.as_ref().map(|backend| backend.shared.clone()).expect("just made");
    let held = lock.lock();
    // SAFETY: the child goes on on this thread's copy alone, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the default action of SIGALRM ends the child where it hangs.
        unsafe { libc::alarm(20) };
        if let Some(backend) = &backend {
            backend.forget(file.as_raw_fd());
            backend.shutdown();
        }
        drop(backend.take());
        let refused = PosixAio::start(16).is_err_and(|why| why.errno == Errno(libc::ECHILD));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if refused { 0 } else { 1 }) };
    }
    drop(held);
    let mut status = 0;
    // SAFETY: the kernel writes one number; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "0x0e: it hung; 0x100: another one started");
    let backend = backend.expect("only the child has taken it");
    assert_eq!(run(&bench, &backend, read()).0, Ok(8), "the parent goes on");
}
