//! Threads that run futures at the same time, on a backend that gives each a context of its own: with completions that come
//! when the test wants them to.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Waker;
use std::time::Duration;

use polyaio::backend::{Batch, Capabilities, Completions, OpSet, Wait};
use polyaio::{Backend, Engine, Errno, OpKind, Outcome, Policy, Request, RequestId};

use crate::tools::{Oneshot, Respawn, Watchdog, eventually, exit_now, lock, respawn, transfers};
use crate::{BLOCK, Bench};

/// Completes a request when it is submitted, and reports it once it may.
struct Context {
    name: &'static str,
    operations: OpSet,
    notification: OwnedFd,
    done: Mutex<VecDeque<(u64, Outcome)>>,
    /// Keeps completions from being seen.
    shut: AtomicBool,
    /// Gives out others.
    generous: bool,
    others: Mutex<Vec<Arc<Context>>>,
}

impl Context {
    fn new(name: &'static str, operations: &[OpKind], generous: bool) -> Arc<Self> {
        let operations = operations.iter().fold(OpSet::NONE, |set, kind| set.with(*kind));
        Self::with(name, operations, generous)
    }

    fn with(name: &'static str, operations: OpSet, generous: bool) -> Arc<Self> {
        // SAFETY: the descriptor is new and nobody else's.
        let notification = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) };
        let (done, shut, others) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { name, operations, notification, done, shut, generous, others })
    }

    fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes are read from `one`.
        unsafe { libc::write(self.notification.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Reads at once, and notes the result under the id that `park` gives. Syncs need nothing.
    fn take(&self, mut request: Request) {
        let mut outcome = Ok(0);
        if request.kind() == OpKind::Read {
            let (fd, position) = (request.descriptor().expect("a real file"), request.position().unwrap_or(0));
            // SAFETY: the memory is used for what the kind says, before the request is parked.
            let range = unsafe { request.start() }[0];
            // SAFETY: the range is valid for its length until the request is complete.
            let n = unsafe { libc::pread(fd, range.base.cast(), range.len, position as libc::off_t) };
            outcome = u64::try_from(n).map_err(|_| Errno::last());
        }
        let id = request.park().to_u64();
        lock(&self.done).push_back((id, outcome));
        self.ring();
    }

    /// The instance that somebody was given.
    fn other(&self) -> Arc<Self> {
        lock(&self.others).first().expect("one was asked for").clone()
    }
}

impl Backend for Context {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = transfers(100);
        capabilities.operations = self.operations;
        capabilities.reaped = true;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(request) = batch.take() {
            self.take(request);
        }
    }

    fn ready(&self) -> bool {
        !self.shut.load(Ordering::SeqCst) && !lock(&self.done).is_empty()
    }

    fn notification(&self) -> Option<BorrowedFd<'_>> {
        Some(self.notification.as_fd())
    }

    fn reap(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        let mut count = 0;
        while count < wait.max && !self.shut.load(Ordering::SeqCst) {
            let Some((id, outcome)) = lock(&self.done).pop_front() else { break };
            // SAFETY: `take` has parked it under this id, and its transfer is over.
            assert!(unsafe { completions.push(RequestId::from_u64(id), outcome) }, "a request that is parked");
            count += 1;
        }
        count
    }

    fn another(&self) -> Option<Arc<dyn Backend>> {
        let another = self.generous.then(|| Self::with(self.name, self.operations, false))?;
        lock(&self.others).push(another.clone());
        Some(another)
    }

    fn shutdown(&self) {}
}

const CONTEXTS: &str = "contexts";

fn engine<const N: usize>(backends: [Arc<Context>; N]) -> Engine {
    let names = backends.iter().map(|backend| backend.name.to_owned()).collect();
    let builder = Engine::builder().policy(Policy::Prefer(names)).strict(false).slow_submit(Duration::MAX);
    let builder = backends.into_iter().fold(builder, |builder, backend| builder.backend(backend));
    builder.thread_contexts(1).build().expect("an engine")
}

/// Requests that a backend has, and its contexts.
fn state(engine: &Engine, name: &str) -> (u64, u64) {
    let stats = engine.stats();
    let backend = stats.backends.iter().find(|backend| backend.name == name).expect("it was added");
    (backend.in_flight, backend.contexts)
}

/// Runs `meanwhile` while another thread waits for a request, so that whoever runs a future is not alone.
fn beside_another(bench: &Bench, context: &Context, kind: OpKind, meanwhile: impl FnOnce()) {
    context.shut();
    std::thread::scope(|scope| {
        scope.spawn(|| match kind {
            OpKind::Read => drop(bench.file.read_at(vec![0; BLOCK], 0).wait().0.expect("readable")),
            _ => bench.file.sync_data().wait().expect("nothing to do"),
        });
        eventually("a request in flight", || state(&bench.engine, context.name).0 == 1);
        meanwhile();
        context.open();
    });
}

/// A backend that has no context to give keeps nobody from one that has.
#[test]
fn a_context_of_whoever_has_one() {
    let _watchdog = Watchdog::new("faults: crowds::a_context_of_whoever_has_one");
    let lonely = Context::new("lonely", &[OpKind::Read, OpKind::Write], false);
    let generous = Context::new(CONTEXTS, &[OpKind::SyncData, OpKind::SyncAll], true);
    let bench = Bench::on(engine([lonely.clone(), generous.clone()]), 4, false);
    beside_another(&bench, &lonely, OpKind::Read, || bench.engine.block_on(async {}));
    assert_eq!(state(&bench.engine, CONTEXTS).1, 1, "it was idle");
    beside_another(&bench, &generous, OpKind::SyncData, || bench.engine.block_on(async {}));
    assert_eq!(state(&bench.engine, CONTEXTS).1, 2);
    assert_eq!(state(&bench.engine, "lonely").1, 1);
}

/// Who waits for what a blocked thread has begun finds that out, although it never sleeps for long.
#[test]
fn begun_by_one_that_blocks_for_one_that_is_restless() {
    let _watchdog = Watchdog::new("faults: crowds::begun_by_one_that_blocks_for_one_that_is_restless");
    let contexts = Context::new(CONTEXTS, &[OpKind::Read], true);
    let bench = Bench::on(engine([contexts.clone()]), 4, false);
    let (engine, file) = (&bench.engine, &bench.file);
    let ((given, taken), (done, end)) = (mpsc::channel(), mpsc::channel::<()>());
    let contexts = &contexts;
    let (waker, over) = (Mutex::new(None::<Waker>), AtomicBool::new(false));
    std::thread::scope(|scope| {
        beside_another(&bench, contexts, OpKind::Read, || {
            scope.spawn(move || {
                engine.block_on(async {
                    let mut batch = engine.batch();
                    batch.push(file.read_at(vec![0; BLOCK], 0), |result| result.0.expect("readable"));
                    contexts.other().shut();
                    batch.submit();
                    given.send(batch).expect("somebody takes it");
                    end.recv().expect("the other one is done");
                });
            });
            eventually("a request in a context of its own", || state(engine, CONTEXTS) == (2, 2));
        });
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                lock(&waker).iter().for_each(Waker::wake_by_ref);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut batch = taken.recv().expect("it was begun");
        contexts.other().open();
        let mut all = pin!(batch.all());
        let results = engine.block_on(poll_fn(|context| {
            *lock(&waker) = Some(context.waker().clone());
            all.as_mut().poll(context)
        }));
        assert_eq!(results, [BLOCK]);
        over.store(true, Ordering::SeqCst);
        done.send(()).expect("it waits");
    });
}

/// The number of the system call in which the first thread of this process is.
fn sleeps_in() -> Option<libc::c_long> {
    let call = std::fs::read_to_string(format!("/proc/self/task/{}/syscall", std::process::id())).ok()?;
    call.split(' ').next()?.parse().ok()
}

/// An epoll instance is shared with a child: what that takes from it its parent would wait for in vain.
#[test]
fn a_child_does_not_sleep_where_its_parent_does() {
    let _watchdog = Watchdog::new("faults: crowds::a_child_does_not_sleep_where_its_parent_does");
    let name = "crowds::a_child_does_not_sleep_where_its_parent_does";
    if let Respawn::Parent(child) = respawn(name) {
        child.expect_success();
        return;
    }
    let contexts = Context::new(CONTEXTS, &[OpKind::Read], true);
    let bench = Bench::on(engine([contexts.clone()]), 4, false);
    beside_another(&bench, &contexts, OpKind::Read, || {
        bench.engine.block_on(async {
            let mut batch = bench.engine.batch();
            batch.push(bench.file.read_at(vec![0; BLOCK], 0), |result| result.0.expect("readable"));
            contexts.other().shut();
            batch.submit();
            assert_eq!(state(&bench.engine, CONTEXTS), (2, 2));
            // SAFETY: the child runs on this thread's copy, and on one that it starts, and leaves by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the default action of SIGALRM ends the child where it hangs.
                unsafe { libc::alarm(100) };
                in_the_child(&bench.engine);
            }
            let mut status = 0;
            // SAFETY: the kernel writes one int; the child is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed: 0x0e: it hung; 0x100: it slept in its parent's epoll instance");
            contexts.other().open();
            assert_eq!(batch.all().await, [BLOCK]);
        });
    });
}

/// Waits for something of its own, and looks where it sleeps meanwhile.
fn in_the_child(engine: &Engine) -> ! {
    let news = Oneshot::new();
    let sender = news.clone();
    std::thread::spawn(move || {
        let polls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
        loop {
            match sleeps_in() {
                Some(call) if polls.contains(&call) => exit_now(1),
                Some(libc::SYS_futex) => return sender.send(()),
                _ => std::thread::yield_now(),
            }
        }
    });
    engine.block_on(news);
    exit_now(0)
}
