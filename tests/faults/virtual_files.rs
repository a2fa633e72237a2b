//! Files that no kernel knows: a backend of our own keeps them in memory.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyaio::backend::{Batch, Capabilities, Refusal, Serves, VirtualFile};
use polyaio::{
    Backend, BufResult, Direct, Engine, Errno, FileKind, IoBuf as _, OpKind, OpenOptions, Outcome, Policy, RawHandle,
    Request,
};

use crate::code;
use crate::support::{Scratch, first_difference, pattern};
use crate::tools::{Begun, Watchdog, join, lock, park_on};

const NAME: &str = "memory";

/// Serves the paths below `mem:`.
#[derive(Default)]
struct Memory {
    state: Mutex<State>,
    /// It takes its time, inside `submit`.
    slow: AtomicBool,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Arc<Mutex<Vec<u8>>>>,
    open: HashMap<u64, Arc<Mutex<Vec<u8>>>>,
    next: u64,
    forgotten: Vec<u64>,
    closed: Vec<u64>,
}

impl Memory {
    fn serve(&self, request: &mut Request) -> Outcome {
        let RawHandle::Virtual(number) = request.handle() else { return Err(Errno(libc::EBADF)) };
        let data = lock(&self.state).open.get(&number).cloned().ok_or(Errno(libc::EBADF))?;
        let mut data = lock(&data);
        let at = request.position().unwrap_or(0) as usize;
        match request.kind() {
            OpKind::Len => Ok(data.len() as u64),
            OpKind::SyncAll | OpKind::SyncData => Ok(0),
            OpKind::SetLen => {
                data.resize(at, 0);
                Ok(0)
            }
            OpKind::Close => {
                let mut state = lock(&self.state);
                state.open.remove(&number);
                state.closed.push(number);
                Ok(0)
            }
            OpKind::Read | OpKind::Write => Ok(transfer(request, &mut data, at)),
            _ => Err(Errno(libc::EOPNOTSUPP)),
        }
    }
}

fn transfer(request: &mut Request, data: &mut Vec<u8>, mut at: usize) -> u64 {
    let write = request.kind() == OpKind::Write;
    let mut count = 0;
    // SAFETY: the memory is used for what the kind says, and no longer when this function returns.
    for range in unsafe { request.start() } {
        let n = if write {
            if data.len() < at + range.len {
                data.resize(at + range.len, 0);
            }
            // SAFETY: the range is valid for reads of its length.
            data[at..at + range.len].copy_from_slice(unsafe { std::slice::from_raw_parts(range.base, range.len) });
            range.len
        } else {
            let n = range.len.min(data.len().saturating_sub(at));
            if n > 0 {
                // SAFETY: the range is valid for writes of its length, and `n` is at most that.
                unsafe { range.base.copy_from_nonoverlapping(data[at..].as_ptr(), n) };
            }
            n
        };
        at += n;
        count += n as u64;
    }
    count
}

impl Backend for Memory {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(64);
        capabilities.serves = Serves::OwnFiles;
        capabilities
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Option<io::Result<VirtualFile>> {
        let name = path.to_str()?.strip_prefix("mem:")?.to_owned();
        assert!(matches!(options.direct_mode(), Direct::Off | Direct::Emulated { .. }));
        if name == "forbidden" {
            return Some(Err(io::Error::from_raw_os_error(libc::EACCES)));
        }
        let mut state = lock(&self.state);
        let data = state.files.entry(name).or_default().clone();
        state.next += 1;
        let number = state.next;
        state.open.insert(number, data);
        Some(Ok(VirtualFile { number, alignment: 1 }))
    }

    fn close(&self, number: u64) {
        let mut state = lock(&self.state);
        state.open.remove(&number);
        state.forgotten.push(number);
    }

    fn submit(&self, batch: &mut Batch<'_>) {
        while let Some(mut request) = batch.take() {
            if self.slow.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            match self.serve(&mut request) {
                Err(Errno(libc::EOPNOTSUPP)) => batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP))),
                outcome => request.complete(outcome),
            }
        }
    }

    fn shutdown(&self) {}
}

fn engine(policy: Policy) -> (Engine, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    (Engine::builder().backend(memory.clone()).policy(policy).build().expect("an engine"), memory)
}

#[test]
fn a_file_in_memory() {
    let _watchdog = Watchdog::new("faults: a_file_in_memory");
    for policy in [Policy::Auto, Policy::Prefer(vec![NAME.into()]), Policy::Prefer(vec!["thread-pool".into()])] {
        let (engine, memory) = engine(policy);
        let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, "mem:a").expect("always");
        assert_eq!(file.facts().kind, FileKind::Virtual);
        assert!(!file.is_stream());
        assert_eq!(file.route().read[0].backend, NAME, "{}", file.route());
        let data = pattern(100_000, 1);
        file.write_all_at(data.clone(), 0).wait().0.expect("room");
        assert_eq!(file.len().wait().expect("a length"), data.len() as u64);
        let reads = (0..100).map(|i| file.read_exact_at(vec![0; 1000], i * 1000));
        for (i, BufResult(done, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
            done.expect("it is that long");
            assert_eq!(back, data[i * 1000..][..1000]);
        }
        let BufResult(n, back) = park_on(file.read_at(vec![0; 1000], 99_500));
        assert_eq!((n.expect("the end is no error"), &back[..500]), (500, &data[99_500..]));
        assert_eq!(file.read_at(vec![0; 10], 1 << 40).wait().0.expect("the end is no error"), 0);
        file.sync_all().wait().expect("it says so");
        file.set_len(10).wait().expect("shorter");
        assert_eq!(file.len().wait().expect("a length"), 10);
        assert_eq!(code(file.allocate(0, 10).wait()), libc::EOPNOTSUPP, "its own answer");
        let clone = file.clone();
        file.close().wait().expect("it says so");
        assert_eq!(lock(&memory.state).closed, [1]);
        assert_eq!(code(clone.read_at(vec![0; 10], 0).wait().0), libc::EBADF);
        drop(clone);
        assert!(lock(&memory.state).forgotten.is_empty(), "closed once");
        let only = engine.stats().served_by();
        assert!(only.iter().all(|(name, _)| *name == NAME), "{only:?}");
    }
}

/// A backend that simulates a disk need not have its rules. It alone knows where the file ends.
#[test]
fn with_the_rules_of_direct_io() {
    let _watchdog = Watchdog::new("faults: with_the_rules_of_direct_io");
    let (engine, _memory) = engine(Policy::Auto);
    let mut options = OpenOptions::new();
    options.read(true).write(true).direct(Direct::Emulated { alignment: 512 });
    let file = options.open(&engine, "mem:ruled").expect("always");
    assert_eq!((file.alignment().memory, file.alignment().offset), (512, 512));
    file.write_all_at(file.buffer(1000), 512).wait().0.expect("aligned");
    assert_eq!(file.len().wait().expect("a length"), 512 + 1024);
    for (offset, length) in [(0, 100), (100, 512), (4096, 100)] {
        assert_eq!(code(file.read_at(file.buffer(length).slice(..length), offset).wait().0), libc::EINVAL);
        assert_eq!(code(file.write_at(file.buffer(length).slice(..length), offset).wait().0), libc::EINVAL);
    }
    assert_eq!(file.read_at(file.buffer(512), 1024).wait().0.expect("aligned"), 512);
    let error =
        options.direct(Direct::Emulated { alignment: 3 }).open(&engine, "mem:never").expect_err("no power of two");
    assert!(matches!(error, polyaio::Error::Options(_)), "{error:?}");
}

/// Nobody else can serve it: however slow its backend is, it stays.
#[test]
fn a_slow_file() {
    let _watchdog = Watchdog::new("faults: a_slow_file");
    let (engine, memory) = engine(Policy::Auto);
    memory.slow.store(true, Ordering::SeqCst);
    let file = OpenOptions::new().read(true).write(true).open(&engine, "mem:slow").expect("always");
    for i in 0..20 {
        file.write_all_at(vec![i; 100], 0).wait().0.expect("room");
        let BufResult(done, back) = file.read_exact_at(vec![0; 100], 0).wait();
        done.expect("it is that long");
        assert_eq!(back, [i; 100]);
    }
    let stats = engine.stats();
    assert_eq!((stats.served_by(), stats.total_fallbacks()), (vec![(NAME, 40)], 0));
    assert!(stats.backends[0].slow_submits >= 30, "{stats:#?}");
    assert_eq!(file.route().read[0].backend, NAME, "{}", file.route());
}

/// The last handle goes without `close`: the backend is told.
#[test]
fn a_forgotten_file() {
    let _watchdog = Watchdog::new("faults: a_forgotten_file");
    let (engine, memory) = engine(Policy::Auto);
    let file = OpenOptions::new().read(true).write(true).open(&engine, "mem:b").expect("always");
    let read = Begun::new(file.read_at(vec![0; 10], 0));
    drop(file);
    assert!(lock(&memory.state).forgotten.is_empty(), "a request is on its way");
    drop(read);
    // The request was never sent, or it was served: both end with the next thing that is done.
    let other = OpenOptions::new().read(true).open(&engine, "mem:b").expect("always");
    assert_eq!(other.len().wait().expect("a length"), 0);
    assert_eq!(lock(&memory.state).forgotten, [1]);
    drop((other, engine));
    assert_eq!(lock(&memory.state).forgotten, [1, 2]);
}

#[test]
fn beside_other_files() {
    let _watchdog = Watchdog::new("faults: beside_other_files");
    let scratch = Scratch::new();
    let data = pattern(50_000, 2);
    let path = scratch.file("file", &data);
    let (engine, _memory) = engine(Policy::Prefer(vec![NAME.into()]));
    let error = OpenOptions::new().read(true).open(&engine, "mem:forbidden").expect_err("the backend says so");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let (source, target) = (
        OpenOptions::new().read(true).open(&engine, &path).expect("it is there"),
        OpenOptions::new().write(true).read(true).open(&engine, "mem:copy").expect("always"),
    );
    assert_eq!(source.facts().kind, FileKind::Regular);
    assert!(source.route().read.iter().all(|step| step.backend != NAME), "{}", source.route());
    let BufResult(done, buffer) = source.read_exact_at(vec![0; data.len()], 0).wait();
    done.expect("it is that long");
    target.write_all_at(buffer, 0).wait().0.expect("room");
    let BufResult(done, back) = target.read_exact_at(vec![0; data.len()], 0).wait();
    done.expect("it is that long");
    assert_eq!(first_difference(&back, &data), None);
}

/// Two backends with one name could not be told apart in a policy.
#[test]
fn names_are_unique() {
    let builder = Engine::builder().backend(Arc::new(Memory::default())).backend(Arc::new(Memory::default()));
    let error = builder.build().expect_err("two of one name");
    assert!(error.to_string().contains(NAME), "{error}");
}
