//! Requests that cannot be served, and what a machine can refuse, made to happen: by seccomp filters on a thread of the
//! test, and by spending the quota.

use super::*;
use crate::request::RawHandle;

#[test]
fn a_bad_request_fails_alone_wherever_it_stands() {
    let content = pattern(4096);
    let buffered = file(&content);
    let fd = buffered.as_raw_fd();
    let read_only = File::open("/proc/self/exe").expect("a file to read");
    each_mode(16, |bench, backend| {
        type Bad<'a> = Box<dyn Fn() -> (Request, Pending<'a>) + 'a>;
        let bad: [(&str, i32, Bad<'_>); 7] = [
            ("no such descriptor", libc::EBADF, Box::new(|| bench.request(OpKind::Read, 1 << 20, Some(0), vec![0; 8]))),
            ("a negative one", libc::EBADF, Box::new(|| bench.request(OpKind::Read, -1, None, vec![0; 8]))),
            (
                "the wrong access mode",
                libc::EBADF,
                Box::new(|| bench.request(OpKind::Write, read_only.as_raw_fd(), Some(0), vec![0; 8])),
            ),
            (
                "an offset beyond i64",
                libc::EINVAL,
                Box::new(|| bench.request(OpKind::Read, fd, Some(1 << 63), vec![0; 8])),
            ),
            ("an operation of others", libc::EOPNOTSUPP, Box::new(|| bench.request(OpKind::Len, fd, None, Vec::new()))),
            ("no offset on a file", libc::EOPNOTSUPP, Box::new(|| bench.request(OpKind::Read, fd, None, vec![0; 8]))),
            (
                "a virtual file",
                libc::EOPNOTSUPP,
                Box::new(|| {
                    let (mut request, pending) = bench.request(OpKind::Read, fd, Some(0), vec![0; 8]);
                    request.body_mut().handle = RawHandle::Virtual(7);
                    (request, pending)
                }),
            ),
        ];
        for (what, errno, make) in &bad {
            for place in [0, 4, 8] {
                let (mut requests, mut pendings) = (Vec::new(), Vec::new());
                for at in 0..9 {
                    let (request, pending) =
                        if at == place { make() } else { bench.request(OpKind::Read, fd, Some(at * 8), vec![0; 8]) };
                    requests.push(request);
                    pendings.push((at, pending));
                }
                let id = requests[place as usize].id();
                let left = bench.submit(backend, requests);
                assert!(left.busy.is_empty(), "{what} at {place}");
                let refused: Vec<_> = left.refused.iter().map(|(request, errno)| (request.id(), *errno)).collect();
                assert_eq!(refused, [(id, Errno(*errno))], "{what} at {place}");
                drop(left);
                while poll(bench, backend) > 0 {}
                for (at, pending) in pendings {
                    let (outcome, read) = pending.finish(|| ());
                    if at == place {
                        assert_eq!(outcome, Err(Errno(libc::ECANCELED)), "what the dropped request says");
                    } else {
                        assert_eq!(
                            (outcome, &read[..]),
                            (Ok(8), &content[at as usize * 8..][..8]),
                            "{what} at {place}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn streams_only_without_waiting() {
    each_mode(16, |bench, backend| {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        let read = |nowait, stream| {
            let (mut request, pending) = bench.request(OpKind::Read, reader.as_raw_fd(), None, vec![0; 5]);
            request.body_mut().nowait = nowait;
            request.body_mut().stream = stream;
            (request, pending)
        };
        // It would sit inside `io_submit` until somebody writes (pitfall 5).
        let (request, _pending) = read(false, true);
        let left = bench.submit(backend, [request]);
        assert_eq!(left.refused[0].1, Errno(libc::EOPNOTSUPP));
        drop(left);
        for stream in [true, false] {
            assert_eq!(run(bench, backend, read(true, stream)).0, Err(Errno(libc::EAGAIN)));
            writer.write_all(b"hello").expect("room in the pipe");
            assert_eq!(run(bench, backend, read(true, stream)), (Ok(5), b"hello".to_vec()));
        }
        let left = bench.submit(backend, [bench.request(OpKind::SyncAll, reader.as_raw_fd(), None, Vec::new()).0]);
        assert_eq!(left.refused[0].1, Errno(libc::EINVAL), "a pipe cannot be synced");
        let mut rest = Vec::new();
        drop(writer);
        reader.read_to_end(&mut rest).expect("the end");
        assert!(rest.is_empty());
    });
}

/// Runs `test` on a thread of its own on which the system call `number` answers `errno`; where `above` is given, only when
/// its argument number `above.0` exceeds `above.1`.
///
/// A filter is bound to its thread and to what that thread starts: the rest of the process does not notice.
fn with_refusal(number: libc::c_long, above: Option<(u32, u32)>, errno: i32, test: impl FnOnce() + Send) {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let verdict = |verdict| statement(libc::BPF_RET | libc::BPF_K, verdict);
    // `struct seccomp_data`: the number, the architecture, the instruction pointer, six arguments of 64 bits.
    let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
    let mut filter = vec![load(0), jump(libc::BPF_JEQ, number as u32, 0, if above.is_some() { 3 } else { 1 })];
    if let Some((argument, limit)) = above {
        filter.extend([load(16 + 8 * argument + low_half), jump(libc::BPF_JGT, limit, 0, 1)]);
    }
    filter.extend([verdict(libc::SECCOMP_RET_ERRNO | errno as u32), verdict(libc::SECCOMP_RET_ALLOW)]);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // SAFETY: takes no pointers, and reads a program that lives across the call.
            let refused = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                    || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            };
            if refused {
                eprintln!("skipped: no seccomp filters here: {}", Errno::last());
                return;
            }
            test();
        });
        thread.join().expect("the test on the filtered thread");
    });
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt, jf, k }
}

fn refusal(depth: usize) -> NotStarted {
    KernelAio::with_options(Options { queue_depth: depth, user_ring: true }).expect_err("refused")
}

#[test]
fn a_smaller_context_where_the_quota_is_nearly_spent() {
    with_refusal(libc::SYS_io_setup, Some((0, 100)), libc::EAGAIN, || {
        let Some(backend) = start(1024, true) else { return };
        assert_eq!(backend.capabilities().queue_bound, 64, "1024, 512, 256, 128, and then 64");
        let why = backend.degraded().expect("a reason");
        assert!(why.contains("64 requests") && why.contains("1024") && why.contains("fs.aio-max-nr"), "{why}");
        assert_eq!(start(100, true).expect("started").degraded(), None);
    });
}

#[test]
fn not_started_and_why() {
    with_refusal(libc::SYS_io_setup, None, libc::EAGAIN, || {
        let why = refusal(1024);
        assert_eq!(why.errno, Errno(libc::EAGAIN));
        for word in ["io_setup", "fs.aio-nr is ", "fs.aio-max-nr ", "16 requests", "sysctl"] {
            assert!(why.reason.contains(word), "{word}: {why}");
        }
    });
    for (errno, word) in [(libc::ENOSYS, "CONFIG_AIO"), (libc::EPERM, "seccomp")] {
        for call in [libc::SYS_io_setup, libc::SYS_io_submit, libc::SYS_io_getevents] {
            with_refusal(call, None, errno, || {
                let why = refusal(64);
                assert_eq!(why.errno, Errno(errno));
                assert!(why.reason.contains(word), "{why}");
            });
        }
    }
}

/// Spends what is left of `fs.aio-max-nr`, in halves, for a few milliseconds.
#[test]
#[ignore = "the quota is the machine's: tests that run at the same time would find no kernel AIO"]
fn the_real_quota_is_spent() {
    let mut hogs = Vec::new();
    let mut size = 1 << 20;
    while size > 0 {
        match abi::io_setup(size) {
            Ok(id) => hogs.push(id),
            Err(_) => size /= 2,
        }
    }
    let answer = KernelAio::with_options(Options { queue_depth: 256, user_ring: true });
    for id in hogs {
        // SAFETY: made above, known to nobody else.
        let _ = unsafe { abi::io_destroy(id) };
    }
    match answer {
        Err(why) => {
            assert_eq!(why.errno, Errno(libc::EAGAIN));
            assert!(why.reason.contains("fs.aio-max-nr") && why.reason.contains("fs.aio-nr"), "{why}");
            println!("{why}");
        }
        // Somebody else ended a context meanwhile.
        Ok(backend) => println!("started with {}: {:?}", backend.in_flight.bound, backend.degraded()),
    }
}

/// Submits ten reads while `io_submit` of more than `limit` requests answers `errno`; returns refused and busy.
fn submit_under(errno: i32, limit: u32) -> Option<(Vec<Errno>, usize)> {
    let buffered = file(&pattern(4096));
    let bench = Bench::new();
    let backend = start(16, true)?;
    let (requests, pendings): (Vec<_>, Vec<_>) =
        (0..10).map(|at| bench.request(OpKind::Read, buffered.as_raw_fd(), Some(at), vec![0; 8])).unzip();
    let ids: Vec<_> = requests.iter().map(Request::id).collect();
    let mut answer = None;
    with_refusal(libc::SYS_io_submit, Some((1, limit)), errno, || {
        let left = bench.submit(&backend, requests);
        let went_back = left.refused.len() + left.busy.len();
        assert_eq!(backend.in_flight.count(), 10 - went_back, "what went back is counted out");
        let busy: Vec<_> = left.busy.iter().map(Request::id).collect();
        assert_eq!(busy, ids[10 - busy.len()..], "the last ones, in order");
        answer = Some((left.refused.iter().map(|refused| refused.1).collect(), left.busy.len()));
    });
    while poll(&bench, &backend) > 0 {}
    assert_eq!(backend.in_flight.count(), 0);
    let (mut read, mut dropped) = (0, 0);
    for pending in pendings {
        match pending.finish(|| ()).0 {
            Ok(8) => read += 1,
            Err(Errno(libc::ECANCELED)) => dropped += 1,
            outcome => panic!("{outcome:?}"),
        }
    }
    let (refused, busy): (&Vec<_>, usize) = answer.as_ref().map(|(refused, busy)| (refused, *busy))?;
    assert_eq!((read, dropped), (10 - refused.len() - busy, refused.len() + busy), "each ended once");
    answer
}

#[test]
fn refusals_of_the_system_call() {
    let always = 0;
    // The error is about the first of what is offered: it is refused, and the rest offered again, down to 4.
    for errno in [libc::EINVAL, libc::EFAULT, libc::EBADF, libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOMEM] {
        let Some((refused, busy)) = submit_under(errno, 4) else { return };
        assert_eq!((refused, busy), (vec![Errno(errno); 6], 0));
        assert_eq!(submit_under(errno, always), Some((vec![Errno(errno); 10], 0)));
    }
    // A full queue is about all of them.
    assert_eq!(submit_under(libc::EAGAIN, 4), Some((vec![], 10)));
    // Answers that no kernel gives must not keep it in a loop: 0 requests taken, and interrupted for ever.
    assert_eq!(submit_under(0, always), Some((vec![], 10)));
    assert_eq!(submit_under(libc::EINTR, always), Some((vec![], 10)));
}

/// A submission that gives back a request which is not, or no longer, in the kernel's hands.
struct GivesBack<'a>(RequestId, &'a KernelAio);

impl Backend for GivesBack<'_> {
    fn name(&self) -> &'static str {
        "gives-back"
    }

    fn capabilities(&self) -> Capabilities {
        self.1.capabilities()
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        submit::give_back(self.0.to_u64(), Refusal::Unsupported(Errno(libc::EINVAL)), &self.1.in_flight, batch);
    }

    fn shutdown(&self) {}
}

#[test]
fn a_completion_counts_more_than_a_refusal() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let (read, pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
        let id = read.id();
        bench.submit(backend, [read]);
        assert_eq!(poll(bench, backend), 1);
        // As if the call had said that it did not take it.
        let left = bench.submit(&GivesBack(id, backend), []);
        assert!(left.refused.is_empty() && left.busy.is_empty(), "it was the reaper's");
        assert_eq!(backend.in_flight.count(), 0, "counted out once");
        assert_eq!(pending.finish(|| ()).0, Ok(8));
    });
}

#[test]
fn waiting_ends_where_io_getevents_lies() {
    for (errno, timeout) in [(0, None), (libc::EINVAL, None), (libc::EINTR, Some(Duration::from_millis(20)))] {
        for user_ring in [true, false] {
            let bench = Bench::new();
            let Some(backend) = start(16, user_ring) else { return };
            let wait = Wait { min: 1, max: 8, timeout };
            with_refusal(libc::SYS_io_getevents, None, errno, || assert_eq!(bench.reap(&backend, wait), (0, 0)));
        }
    }
}

#[test]
fn unknown_events_are_counted_and_ignored() {
    let buffered = file(&pattern(64));
    each_mode(16, |bench, backend| {
        let stale = run_id(bench, backend, &buffered);
        for data in [u64::MAX, 0, 1 << 32 | 60_000, stale.to_u64()] {
            let mut memory = [0_u8; 8];
            let mut forged = abi::Iocb {
                data,
                opcode: abi::IOCB_CMD_PREAD,
                fildes: buffered.as_raw_fd() as u32,
                buf: memory.as_mut_ptr().expose_provenance() as u64,
                nbytes: 8,
                ..abi::Iocb::ZERO
            };
            let context = context_id(backend);
            // SAFETY: the iocb lives across the call; a buffered read of cached data ends inside it.
            assert_eq!(unsafe { abi::io_submit(context, &[&raw mut forged]) }, Ok(1));
            // One that we know, so that there is something in flight.
            let (read, pending) = bench.request(OpKind::Read, buffered.as_raw_fd(), Some(0), vec![0; 8]);
            bench.submit(backend, [read]);
            assert_eq!(bench.reap(backend, Wait::poll(8)), (1, 1));
            assert_eq!(pending.finish(|| ()).0, Ok(8));
            assert_eq!(backend.in_flight.count(), 0);
        }
    });
}

/// Runs a request to its end; returns the id that it had.
fn run_id(bench: &Bench, backend: &KernelAio, file: &File) -> RequestId {
    let (read, pending) = bench.request(OpKind::Read, file.as_raw_fd(), Some(0), vec![0; 8]);
    let id = read.id();
    assert_eq!(run(bench, backend, (read, pending)).0, Ok(8));
    id
}
