use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex};

use polyaio::backend::{Batch, CancelOutcome, Capabilities, Completions, Serves, Wait};
use polyaio::{Backend, BufResult, Engine, File, OpKind, OpenOptions, Policy, Request};

use crate::code;
use crate::support::{Scratch, fifo, open_fifo_writer, pattern};
use crate::tools::{
    Answer, Cancelling, HELD, Held, SCRIPTED, Scripted, Watchdog, join, lock, park_on, poll_once, serve, transfers,
};

/// Serves reads inside `submit`, by another engine that it waits for there. Not as a backend should; but nothing may stand
/// still for it.
struct Within {
    inner: File,
    /// Reads that it cancels, and waits for, in between.
    cancels: bool,
}

impl Backend for Within {
    fn name(&self) -> &'static str {
        "within"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(64);
        capabilities.serves = Serves::Any;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(mut request) = batch.take() {
            if self.cancels {
                let mut idle = self.inner.read_at(vec![0; 512], 0);
                // What the page cache has completes at once.
                if poll_once(&mut idle).is_pending() {
                    assert_eq!(idle.cancel(), CancelOutcome::Cancelled, "it was not sent");
                    assert_eq!(code(idle.wait().0), libc::ECANCELED);
                }
            }
            let (length, position) = (request.length() as usize, request.position().unwrap_or(0));
            if request.kind() != OpKind::Read {
                request.complete(Ok(0));
                continue;
            }
            let BufResult(n, bytes) = self.inner.read_at(vec![0; length], position).wait();
            // SAFETY: the memory is written before the request is completed, and not touched afterwards; `n` bytes of it are.
            let room = unsafe { request.start() };
            let mut from = &bytes[..n.expect("readable")];
            for range in room {
                let (now, later) = from.split_at(from.len().min(range.len));
                // SAFETY: so many bytes fit into the range.
                unsafe { range.base.copy_from_nonoverlapping(now.as_ptr(), now.len()) };
                from = later;
            }
            request.complete(Ok(bytes.len() as u64));
        }
    }

    fn shutdown(&self) {}
}

/// What ends inside a `submit` is kept back until that has returned; but not from who waits for it in there.
#[test]
fn a_backend_that_waits_for_another_engine() {
    let _watchdog = Watchdog::new("custom_backend: a_backend_that_waits_for_another_engine");
    let scratch = Scratch::new();
    let data = pattern(64 * 512, 5);
    let path = scratch.file("file", &data);
    for cancels in [false, true] {
        for policy in ["thread-pool", "auto"] {
            let inner =
                Engine::builder().policy(policy.parse::<Policy>().expect("a policy")).build().expect("an engine");
            let inner = OpenOptions::new().read(true).open(&inner, &path).expect("it is there");
            let policy = Policy::Require("within".to_owned());
            let outer = Engine::builder().backend(Arc::new(Within { inner, cancels })).policy(policy).build();
            let outer = outer.expect("an engine");
            let file = OpenOptions::new().read(true).open(&outer, &path).expect("it is there");
            let reads = outer.block_on(join((0..64).map(|i| file.read_at(vec![0; 512], i * 512))));
            for (i, BufResult(n, back)) in reads.into_iter().enumerate() {
                assert_eq!((n.expect("served"), &back[..]), (512, &data[i * 512..][..512]), "read {i}");
            }
            assert_eq!(file.read_at(vec![0; 512], 0).wait().0.expect("served"), 512, "one alone");
        }
    }
}

/// Does what a test says inside `submit`.
struct Inside<F>(F);

impl<F: Fn() + Send + Sync> Backend for Inside<F> {
    fn name(&self) -> &'static str {
        "inside"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(64);
        capabilities.serves = Serves::Any;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(request) = batch.take() {
            (self.0)();
            request.complete(Ok(0));
        }
    }

    fn shutdown(&self) {}
}

/// Has `work` done inside a `submit`. It waits by [`park_on`], which knows of no engine: nobody who waits so sees what is
/// kept back until `submit` has returned.
fn inside_a_submit(test: &str, work: impl Fn() + Send + Sync + 'static) {
    let _watchdog = Watchdog::new(format!("custom_backend: {test}"));
    let scratch = Scratch::new();
    let path = scratch.file("file", b"outer");
    let outer = Engine::builder().backend(Arc::new(Inside(work))).policy(Policy::Require("inside".to_owned()));
    let outer = outer.build().expect("an engine");
    let file = OpenOptions::new().read(true).open(&outer, &path).expect("it is there");
    let read = file.read_at(vec![0; 512], 0).wait().0;
    assert_eq!(read.expect("`work` has not panicked"), 0);
}

/// An engine with this backend, and a file of 512 bytes on it.
fn inner(scratch: &Scratch, backend: Arc<dyn Backend>, policy: Policy) -> (Engine, File) {
    let path = scratch.file("inner", &pattern(512, 6));
    let engine = Engine::builder().backend(backend).policy(policy).build().expect("an engine");
    let file = OpenOptions::new().read(true).open(&engine, path).expect("it is there");
    (engine, file)
}

#[test]
fn cancelled_before_it_is_sent() {
    inside_a_submit("cancelled_before_it_is_sent", || {
        let scratch = Scratch::new();
        let (_engine, file) = inner(&scratch, Held::new(transfers(10)), Policy::Require(HELD.to_owned()));
        let mut read = file.read_at(vec![0; 512], 0);
        assert!(poll_once(&mut read).is_pending());
        assert_eq!(read.cancel(), CancelOutcome::Cancelled);
        assert_eq!(code(park_on(read).0), libc::ECANCELED);
    });
}

#[test]
fn cancelled_by_its_backend() {
    inside_a_submit("cancelled_by_its_backend", || {
        let scratch = Scratch::new();
        let mut capabilities = transfers(10);
        capabilities.cancel = true;
        let held = Held::new(capabilities);
        held.cancelling(Cancelling::AtOnce);
        let (_engine, file) = inner(&scratch, held.clone(), Policy::Require(HELD.to_owned()));
        let mut read = file.read_at(vec![0; 512], 0);
        while held.held() == 0 {
            assert!(poll_once(&mut read).is_pending());
        }
        assert_eq!(read.cancel(), CancelOutcome::Cancelled);
        assert_eq!(code(park_on(read).0), libc::ECANCELED);
    });
}

/// What a backend refuses goes to the next one, or fails.
#[test]
fn refused() {
    inside_a_submit("refused", || {
        let scratch = Scratch::new();
        let read = |policy| {
            let refuses = Scripted::new(|_, _| Answer::Refuse(libc::EOPNOTSUPP));
            let (_engine, file) = inner(&scratch, refuses, policy);
            park_on(file.read_at(vec![0; 512], 0))
        };
        let BufResult(n, back) = read(Policy::Prefer(vec![SCRIPTED.to_owned()]));
        assert_eq!((n.expect("the pool serves it"), back), (512, pattern(512, 6)));
        let BufResult(n, _) = read(Policy::Require(SCRIPTED.to_owned()));
        assert_eq!(n.expect_err("nobody else may").kind(), ErrorKind::Unsupported);
    });
}

/// A stream is closed while a worker is inside its system call: nobody waits for that.
#[test]
fn closed_while_a_worker_is_inside() {
    inside_a_submit("closed_while_a_worker_is_inside", || {
        let scratch = Scratch::new();
        let path = fifo(scratch.dir(), "fifo");
        let mut writer = open_fifo_writer(&path);
        writer.write_all(b"data").expect("room");
        let held = Held::new(transfers(10));
        let engine = Engine::builder().backend(held.clone()).policy(Policy::Prefer(vec![HELD.to_owned()])).build();
        let engine = engine.expect("an engine");
        let file = OpenOptions::new().read(true).open(&engine, &path).expect("a FIFO");
        let mut read = file.read(vec![0; 4]);
        while held.held() == 0 {
            assert!(poll_once(&mut read).is_pending());
        }
        let (closed, BufResult(n, _)) = park_on(async { futures::join!(file.close(), read) });
        closed.expect("a FIFO");
        assert_eq!(code(n), libc::ECANCELED);
        assert!(held.release());
    });
}

/// Ends its requests by `complete`, from within `reap`.
struct Reaps {
    taken: Mutex<Vec<Request>>,
    bell: (PipeReader, PipeWriter),
}

impl Backend for Reaps {
    fn name(&self) -> &'static str {
        "reaps"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = transfers(10);
        capabilities.reaped = true;
        capabilities
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(request) = batch.take() {
            lock(&self.taken).push(request);
            (&self.bell.1).write_all(b"!").expect("room");
        }
    }

    fn ready(&self) -> bool {
        !lock(&self.taken).is_empty()
    }

    fn notification(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.0.as_fd())
    }

    fn reap(&self, _wait: Wait, _completions: &mut Completions<'_>) -> usize {
        let taken = std::mem::take(&mut *lock(&self.taken));
        let count = taken.len();
        (&self.bell.0).read_exact(&mut vec![0; count]).expect("as many as were rung");
        taken.into_iter().for_each(serve);
        count
    }

    fn shutdown(&self) {}
}

#[test]
fn ended_inside_reap() {
    inside_a_submit("ended_inside_reap", || {
        let scratch = Scratch::new();
        let reaps = Arc::new(Reaps { taken: Mutex::default(), bell: std::io::pipe().expect("a pipe") });
        let (_engine, file) = inner(&scratch, reaps, Policy::Require("reaps".to_owned()));
        let BufResult(n, back) = park_on(file.read_at(vec![0; 512], 0));
        assert_eq!((n.expect("readable"), back), (512, pattern(512, 6)));
    });
}
