use std::sync::Arc;

use polyaio::backend::{Batch, CancelOutcome, Capabilities, Serves};
use polyaio::{Backend, BufResult, Engine, File, OpKind, OpenOptions, Policy};

use crate::code;
use crate::support::{Scratch, pattern};
use crate::tools::{Watchdog, join, poll_once};

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
