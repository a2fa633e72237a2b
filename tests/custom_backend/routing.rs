use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyaio::backend::{Capabilities, Handle, OpSet};
use polyaio::backends::thread_pool::Threaded;
use polyaio::{BufResult, Direct, Engine, Error, File, IoBuf as _, OpKind, OpenOptions, Policy, Reason, Why};

use crate::code;
use crate::double::{Double, builder};
use crate::support::{Scratch, pattern, pipe};
use crate::tools::{Respawn, Watchdog, lock, respawn_prepared};

const POOL: &str = "thread-pool";

/// Reads, writes and syncs of any file.
fn transfers() -> Capabilities {
    let mut capabilities = Capabilities::new(64);
    capabilities.operations = OpSet::NONE.with(OpKind::Read).with(OpKind::Write).with(OpKind::SyncData);
    capabilities.operations = capabilities.operations.with(OpKind::SyncAll);
    capabilities
}

/// A backend that does what the thread pool does.
fn relay(name: &'static str, capabilities: Capabilities) -> Arc<Double> {
    Arc::new(Double::named(name, capabilities, |operation| operation.system_call()))
}

fn prefer(backend: &Arc<Double>, name: &str) -> Engine {
    let policy = Policy::Prefer(vec![name.to_owned()]);
    builder(4).sync_backend(backend.clone()).policy(policy).build().expect("an engine")
}

fn open(engine: &Engine, path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(engine, path).expect("it is there")
}

fn served(engine: &Engine, name: &str) -> u64 {
    engine.stats().served_by().iter().find(|(served, _)| *served == name).map_or(0, |(_, count)| *count)
}

/// Files of the operating system, by the system call that the pool would make; with what is read changed on the way.
#[test]
fn descriptors_are_served() {
    let _watchdog = Watchdog::new("custom_backend: descriptors_are_served");
    let scratch = Scratch::new();
    let data = pattern(10_000, 4);
    let path = scratch.file("file", &data);
    let double = Arc::new(Double::named("double", Capabilities::new(64), |operation| {
        assert!(matches!(operation.handle(), Handle::Descriptor(fd) if fd.try_clone_to_owned().is_ok()));
        let count = operation.system_call()?;
        let room = operation.room();
        assert_eq!(room.filled() as u64, if operation.kind() == OpKind::Read { count } else { 0 });
        operation.room().filled_mut().flatten().for_each(|byte| *byte ^= 0xff);
        Ok(count)
    }));
    let engine = prefer(&double, "double");
    let file = open(&engine, &path);
    assert_eq!((file.route().read[0].backend, &file.route().read[0].reason), ("double", &Why::ServesAny));
    let buffers = [100, 5000, 10_000].map(Vec::with_capacity);
    let BufResult(n, backs) = file.read_vectored_at(buffers, 1000).wait();
    assert_eq!(n.expect("up to the end"), 9000);
    let inverted: Vec<u8> = data[1000..].iter().map(|byte| byte ^ 0xff).collect();
    assert_eq!(backs.concat(), inverted);
    file.write_all_at(vec![5; 300], 0).wait().0.expect("room");
    file.sync_all().wait().expect("on a disk");
    assert_eq!(file.len().wait().expect("a length"), 10_000);
    let BufResult(n, back) = file.read(vec![0; 10]).wait();
    assert_eq!((n.expect("at the position"), back), (10, vec![5 ^ 0xff; 10]));
    file.set_len(7).wait().expect("shorter");
    // Nobody but the pool closes a descriptor, whatever is offered.
    file.close().wait().expect("no error");
    assert!(lock(&double.begun).iter().all(|(kind, _)| *kind != OpKind::Close));
    assert!(lock(&double.closed).is_empty());
    assert_eq!((served(&engine, POOL), engine.stats().total_fallbacks()), (1, 0), "{:?}", engine.stats().served_by());
    assert_eq!(std::fs::read(&path).expect("it is there"), [5; 7]);
}

/// The rules of emulated direct I/O that are kept where an operation runs are kept here too: it is not executed.
#[test]
fn emulated_rules_are_kept() {
    let _watchdog = Watchdog::new("custom_backend: emulated_rules_are_kept");
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(4096, 4));
    let double = Arc::new(Double::named("double", transfers(), |operation| match operation.kind() {
        OpKind::Read => Ok(operation.room().fill(7, 512) as u64),
        _ => Ok(operation.length()),
    }));
    let engine = prefer(&double, "double");
    let direct = Direct::Emulated { alignment: 512 };
    let file = OpenOptions::new().read(true).write(true).direct(direct).open(&engine, &path).expect("it is there");
    assert_eq!(file.read(file.buffer(512)).wait().0.expect("aligned"), 512);
    assert_eq!(double.count(), 1);
    let odd = || file.buffer(512).slice(..100);
    assert_eq!(code(file.read(odd()).wait().0), libc::EINVAL);
    assert_eq!(code(file.write(odd()).wait().0), libc::EINVAL);
    assert_eq!((double.count(), engine.stats().total_fallbacks()), (1, 0));
}

/// Streams, where it serves any file.
#[test]
fn streams_are_served() {
    let _watchdog = Watchdog::new("custom_backend: streams_are_served");
    let double = relay("double", transfers());
    let engine = prefer(&double, "double");
    let (reader, writer) = pipe();
    let (reader, writer) = (engine.adopt(reader.into()).expect("a pipe"), engine.adopt(writer.into()).expect("a pipe"));
    writer.write_all("hello").wait().0.expect("room");
    let BufResult(n, back) = reader.read(Vec::with_capacity(10)).wait();
    assert_eq!((n.expect("readable"), &back[..]), (5, &b"hello"[..]));
    writer.close().wait().expect("no error");
    assert_eq!(reader.read(vec![0; 10]).wait().0.expect("the end"), 0);
}

/// "Not here" is no error where somebody else can: visibly, and remembered.
#[test]
fn what_is_not_supported_goes_to_the_pool() {
    let _watchdog = Watchdog::new("custom_backend: what_is_not_supported_goes_to_the_pool");
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(100, 4));
    let double = Arc::new(Double::named("double", transfers(), |operation| match operation.kind() {
        OpKind::Write => Err(io::ErrorKind::Unsupported.into()),
        _ => operation.system_call(),
    }));
    let engine = prefer(&double, "double");
    let file = open(&engine, &path);
    let (BufResult(done, _), trace) = file.write_at(vec![1; 10], 0).traced().wait();
    assert_eq!(done.expect("elsewhere"), 10);
    assert_eq!((trace.served_by, trace.fallbacks.to_string()), (POOL, "unsupported".to_owned()));
    assert_eq!(engine.stats().fallback(Reason::Unsupported), 1);
    let route = file.route();
    assert_eq!((route.write[0].backend, route.read[0].backend), (POOL, "double"), "{route}");
    let passed = route.passed.iter().find(|step| step.backend == "double").expect("it says why");
    assert!(matches!(passed.reason, Why::Demoted(errno) if errno.0 == libc::EOPNOTSUPP), "{route}");
    file.write_at(vec![2; 10], 0).wait().0.expect("elsewhere");
    assert_eq!((double.count(), engine.stats().fallback(Reason::Remembered)), (1, 1));
    let BufResult(n, back) = file.read_at(vec![0; 10], 0).wait();
    assert_eq!((n.expect("it is served"), back), (10, vec![2; 10]));
    assert_eq!(served(&engine, "double"), 1);
}

/// A strict engine hands nothing over: what the backend refuses is an error that says so. What it does not offer is not its.
#[test]
fn on_a_strict_engine() {
    let _watchdog = Watchdog::new("custom_backend: on_a_strict_engine");
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(100, 4));
    let mut everything = transfers();
    everything.operations = OpSet::ALL;
    for (capabilities, all) in [(transfers(), false), (everything, true)] {
        let double = Arc::new(Double::named("double", capabilities, |operation| match operation.kind() {
            OpKind::Write => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            _ => operation.system_call(),
        }));
        for policy in [Policy::Require("double".into()), Policy::Prefer(vec!["double".into()])] {
            let engine =
                builder(2).sync_backend(double.clone()).policy(policy).strict(true).build().expect("it starts");
            let file = open(&engine, &path);
            for _ in 0..5 {
                let error = file.write_at(vec![1; 10], 0).wait().0.expect_err("nobody else may");
                assert_eq!(error.raw_os_error().or(code_of(&error)), Some(libc::EINVAL), "{error:?}");
                assert!(error.to_string().contains("double"), "{error}");
            }
            assert_eq!(file.read_at(vec![0; 100], 0).wait().0.expect("it serves that"), 100);
            assert_eq!(file.len().wait().expect("moves no data"), 100);
            file.close().wait().expect("as ever");
            let pool = if all { 1 } else { 2 };
            assert_eq!((served(&engine, POOL), engine.stats().total_fallbacks()), (pool, 0));
        }
    }
}

fn code_of(error: &io::Error) -> Option<i32> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::Strict { errno, .. } => errno.map(|errno| errno.0),
        _ => None,
    }
}

/// Two, in the order that the policy says; what the first does not offer is the second's.
#[test]
fn in_the_order_of_the_policy() {
    let _watchdog = Watchdog::new("custom_backend: in_the_order_of_the_policy");
    for (names, reads, writes) in [(["first", "second"], "first", "first"), (["second", "first"], "second", "first")] {
        let policy = Policy::Prefer(names.map(str::to_owned).to_vec());
        in_order(two().policy(policy).build().expect("an engine"), reads, writes);
    }
}

fn two() -> polyaio::EngineBuilder {
    let mut reads = transfers();
    reads.operations = OpSet::NONE.with(OpKind::Read);
    builder(2).sync_backend(relay("first", transfers())).sync_backend(relay("second", reads))
}

fn in_order(engine: Engine, reads: &str, writes: &str) {
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(100, 4));
    let file = open(&engine, &path);
    let (BufResult(n, _), trace) = file.read_at(vec![0; 100], 0).traced().wait();
    assert_eq!((n.expect("readable"), trace.served_by), (100, reads), "{}", file.route());
    let (BufResult(n, _), trace) = file.write_at(vec![0; 100], 0).traced().wait();
    assert_eq!((n.expect("room"), trace.served_by), (100, writes), "{}", file.route());
}

/// `POLYAIO_BACKEND` knows the program's own backends, where the program leaves the choice to it.
#[test]
fn by_the_environment() {
    let _watchdog = Watchdog::new("custom_backend: by_the_environment");
    let here = |value: &str, in_child: &dyn Fn()| {
        let prepare = |command: &mut std::process::Command| _ = command.env("POLYAIO_BACKEND", value);
        match respawn_prepared("routing::by_the_environment", prepare).checked() {
            Respawn::Parent(_) => false,
            Respawn::Child => {
                in_child();
                true
            }
        }
    };
    let in_child = || match std::env::var("POLYAIO_BACKEND").expect("the parent sets it").as_str() {
        "second,first" => in_order(two().build().expect("an engine"), "second", "first"),
        "first" => in_order(two().build().expect("an engine"), "first", "first"),
        _ => {
            let error = two().build().expect_err("there is none of that name").to_string();
            assert!(error.contains("\"third\"") && error.contains("first, second"), "{error}");
        }
    };
    for value in ["second,first", "first", "third"] {
        if here(value, &in_child) {
            return;
        }
    }
}

/// Nobody is asked for a file that is not theirs, and the paths of each go to it.
#[test]
fn beside_each_other() {
    let _watchdog = Watchdog::new("custom_backend: beside_each_other");
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(100, 4));
    let (first, second) = (relay("first", Capabilities::new(8)), relay("second", Capabilities::new(8)));
    // One by the engine's settings, one with threads of its own number.
    let threaded = Threaded::start(second.clone(), 2).expect("a thread");
    assert_eq!(threaded.threads(), 1);
    let engine = builder(2).sync_backend(first.clone()).backend(Arc::new(threaded)).build().expect("an engine");
    let mut options = OpenOptions::new();
    let files = ["first:a", "second:b"].map(|path| options.read(true).write(true).open(&engine, path).expect("always"));
    for file in &files {
        assert_eq!(code(file.read_at(vec![0; 10], 0).wait().0), libc::EBADF, "no system call serves it");
    }
    let file = open(&engine, &path);
    assert_eq!(file.read_at(vec![0; 100], 0).wait().0.expect("it is there"), 100);
    assert_eq!((first.count(), second.count()), (1, 1), "they are not named");
    let missing: PathBuf = scratch.path("missing");
    let error = options.open(&engine, &missing).expect_err("the operating system's own error");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let twice = builder(1).sync_backend(first.clone()).sync_backend(first).build().expect_err("two of one name");
    assert!(twice.to_string().contains("first"), "{twice}");
}

/// The threads have a name, and end with the engine.
#[test]
fn threads() {
    let _watchdog = Watchdog::new("custom_backend: threads");
    // Alone in its process: other tests have such threads too.
    let Respawn::Child = crate::tools::respawn("routing::threads").checked() else { return };
    let engine = prefer(&relay("double", transfers()), "double");
    let count = || crate::tools::own_threads().iter().filter(|name| *name == "polyaio-execute").count();
    crate::tools::eventually("one to begin with", || count() == 1);
    drop(engine);
    crate::tools::eventually("none is left", || count() == 0);
}
