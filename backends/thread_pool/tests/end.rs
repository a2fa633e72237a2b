//! How the pool ends.

use super::*;

#[test]
fn a_shutdown_ends_all_threads_within_a_tenth_of_a_second() {
    one_of_many("within a tenth of a second", || {
        let took = shut_down_eight();
        if took < Duration::from_millis(100) { Ok(()) } else { Err(format!("it took {took:?}")) }
    });
}

/// Shuts a pool of eight down; returns how long it takes until they are gone.
fn shut_down_eight() -> Duration {
    let (bench, pool) = (Bench::new(), pool(8, 1000));
    let (readers, writers): (Vec<_>, Vec<_>) = (0..8).map(|_| pipe()).unzip();
    let (requests, pending): (Vec<_>, Vec<_>) = readers.iter().map(|r| read(&bench, r, None, 1)).unzip();
    submit_all(&bench, &pool, requests);
    eventually("all eight are at work", || pool.shared.roll.ids().len() == 8);
    drop(writers);
    pending.into_iter().for_each(|p| assert_eq!(p.finish(|| {}).0, Ok(0)));
    let ids = pool.shared.roll.ids();
    assert_eq!(living(&ids), 8);
    let begin = Instant::now();
    pool.shutdown();
    while living(&ids) > 0 {
        std::thread::yield_now();
        assert!(begin.elapsed() < PATIENCE, "they never end");
    }
    let took = begin.elapsed();
    let (late, _end) = bench.request(OpKind::Len, 0, None, vec![]);
    let left = bench.submit(&pool, [late]);
    assert!(matches!(left.refused[..], [(_, Errno(libc::ECANCELED))]), "a closed pool hands back");
    took
}

#[test]
fn a_shutdown_finishes_what_is_queued() {
    let (bench, file) = (Bench::new(), file());
    for _ in 0..50 {
        let pool = pool(3, 1000);
        let (requests, pending): (Vec<_>, Vec<_>) = (0..40).map(|i| read(&bench, &file, Some(i), 64)).unzip();
        submit_all(&bench, &pool, requests);
        drop(pool);
        pending.into_iter().for_each(|p| assert_eq!(p.peek(), Some(Ok(64))));
    }
}

#[test]
fn a_shutdown_does_not_wait_for_streams() {
    let (bench, pool, file) = (Bench::new(), pool(2, 1000), file());
    // A pipe has room, but not for so much.
    const LEN: usize = 1 << 20;
    let pipes = [pipe(), pipe()];
    let streams = [0, 1].map(|i| {
        let (mut request, pending) = bench.request(OpKind::Write, pipes[i].1.as_raw_fd(), None, vec![0; LEN]);
        request.body_mut().stream = true;
        submit_all(&bench, &pool, [request]);
        pending
    });
    // Taken is not enough: a worker that is not inside the call yet is waited for.
    eventually("both are stuck", || pool.shared.loops.streaming() == 2);
    let (behind, cancelled) = read(&bench, &file, Some(0), 8);
    submit_all(&bench, &pool, [behind]);
    // Neither of them ends before its pipe is read: if they were waited for, this would not return.
    pool.shutdown();
    assert_eq!(cancelled.peek(), Some(Err(Errno(libc::ECANCELED))));
    let ids = pool.shared.roll.ids();
    drop(pool);
    assert_eq!(living(&ids), 2);
    for ((mut reader, _writer), pending) in pipes.into_iter().zip(streams) {
        reader.read_exact(&mut vec![0; LEN]).expect("it comes");
        assert_eq!(pending.finish(|| {}).0, Ok(LEN as u64));
    }
    eventually("the threads end", || living(&ids) == 0);
}

#[test]
fn a_waker_may_drop_the_pool() {
    struct Drops(std::sync::Mutex<Option<ThreadPool>>);
    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("not poisoned").take());
        }
    }
    let (bench, pool, file) = (Bench::new(), pool(4, 1000), file());
    let shared = pool.shared.clone();
    let (reader, mut writer) = pipe();
    let (request, pending) = read(&bench, &reader, None, 1);
    let dropper = Arc::new(Drops(std::sync::Mutex::new(None)));
    wake_at_end(&request, &Waker::from(dropper.clone()));
    submit_all(&bench, &pool, [request]);
    let (other, end) = read(&bench, &file, Some(0), 8);
    submit_all(&bench, &pool, [other]);
    *dropper.0.lock().expect("not poisoned") = Some(pool);
    writer.write_all(b"a").expect("the pipe has room");
    assert_eq!(pending.finish(|| {}).0, Ok(1));
    assert_eq!(end.finish(|| {}).0, Ok(8));
    eventually("the threads end", || living(&shared.roll.ids()) == 0);
}
