//! Which backend serves which kind of file, what becomes of `O_DIRECT`, and what policies mean.
//!
//! The route is what `File::route` says; each table is also checked against who really served the requests.

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// Writes that need new blocks.
mod blocks;
/// `O_DIRECT` where it is refused.
mod direct;
/// The rules of `O_DIRECT`, enforced in software, and what transfers must be multiples of.
mod emulated;
/// Each kind of file.
mod kinds;
/// What policies and the environment choose.
mod policy;
/// Submitting keeps its caller awake.
mod submit;

use std::path::Path;
use std::time::Duration;

use polyaio::{AlignedBuf, BufResult, Direct, Engine, File, OpenOptions, Policy, RouteStep};

use support::pattern;
use tools::join;

const BLOCK: usize = 4096;
const KERNEL: &str = "kernel-aio";
const POSIX: &str = "posix-aio";
const POOL: &str = "thread-pool";
const INLINE: &str = "inline";
const WORKERS: &str = "stream-workers";

fn auto() -> Engine {
    steady(Policy::Auto)
}

/// Who serves must not depend on how busy the machine is.
fn steady(policy: Policy) -> Engine {
    let builder = Engine::builder().policy(policy).strict(false).slow_submit(Duration::MAX);
    builder.build().expect("an engine starts on every machine")
}

fn prefer(name: &str) -> Engine {
    steady(Policy::Prefer(vec![name.to_owned()]))
}

/// One for each preference that this build knows.
fn engines() -> Vec<Engine> {
    let kernel = support::built_with_kernel_aio().is_ok().then(|| prefer(KERNEL));
    [auto(), prefer(POOL)].into_iter().chain(kernel).collect()
}

fn open(engine: &Engine, path: &Path, direct: Direct) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).direct(direct);
    options.open(engine, path).unwrap_or_else(|error| panic!("{error}"))
}

fn names(steps: &[RouteStep]) -> Vec<&'static str> {
    steps.iter().map(|step| step.backend).collect()
}

/// The backends for reads, writes and syncs, in the order in which they are asked.
#[track_caller]
fn assert_route(file: &File, read: &[&str], write: &[&str], sync: &[&str]) {
    let route = file.route();
    let have = (names(&route.read), names(&route.write), names(&route.sync));
    assert_eq!(have, (read.to_vec(), write.to_vec(), sync.to_vec()), "{route}\n{:?}", file.facts());
}

fn served(engine: &Engine, name: &str) -> u64 {
    engine.stats().served_by().iter().find(|(served, _)| *served == name).map_or(0, |(_, count)| *count)
}

/// Writes and reads back; whatever the route, the data is right.
fn exercise(engine: &Engine, file: &File) {
    let data = pattern(16 * BLOCK, 1);
    let writes = data.chunks(BLOCK).enumerate();
    let writes = writes.map(|(i, part)| file.write_all_at(AlignedBuf::copy_from(part, BLOCK), (i * BLOCK) as u64));
    engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("room"));
    file.sync_all().wait().expect("a file can be synced");
    for _ in 0..3 {
        let BufResult(done, back) = file.read_exact_at(AlignedBuf::zeroed(16 * BLOCK, BLOCK), 0).wait();
        done.expect("it is that long");
        assert_eq!(back[..], data);
    }
    assert_eq!(engine.stats().anomalies, Default::default());
}
