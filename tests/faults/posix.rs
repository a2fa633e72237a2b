//! POSIX AIO where the C library has no room: `EAGAIN` from `aio_read`, sometimes or always.

use std::process::Command;

use polyaio::{BufResult, Engine, Policy, Reason};

use crate::support::{Scratch, Watched, posix_aio, quiet, require, scarce_aio};
use crate::tools::{Watchdog, join};
use crate::{BLOCK, Bench};

const POSIX: &str = "posix-aio";
const POOL: &str = "thread-pool";
const COUNT: usize = 300;
const ACCEPT: &str = "POLYAIO_TEST_SHIM_ACCEPT";

/// Every request ends, served by whom there is room.
#[test]
fn no_room_in_the_c_library() {
    let _watchdog = Watchdog::new("faults: no_room_in_the_c_library");
    require!(posix_aio());
    let scratch = Scratch::new();
    let shim = require!(scarce_aio(scratch.dir()));
    for accepted in ["0", "1", "5"] {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        quiet(&mut command);
        command.args(["posix::child_without_room", "--exact", "--ignored", "--nocapture"]);
        command.env("LD_PRELOAD", &shim).env(ACCEPT, accepted);
        Watched::start(&mut command).finish().expect_success();
    }
}

/// Not a test by itself: `no_room_in_the_c_library` runs it.
#[test]
#[ignore = "the child of no_room_in_the_c_library"]
fn child_without_room() {
    let Ok(accepted) = std::env::var(ACCEPT) else { return };
    let engine = Engine::builder().policy(Policy::Prefer(vec![POSIX.into()])).build().expect("an engine");
    let bench = Bench::on(engine, COUNT, false);
    for _ in 0..3 {
        let reads = (0..COUNT).map(|i| bench.file.read_at(vec![0; BLOCK], (i * BLOCK) as u64));
        for (i, BufResult(n, back)) in bench.engine.block_on(join(reads)).into_iter().enumerate() {
            assert_eq!((n.expect("readable"), &back[..]), (BLOCK, &bench.data[i * BLOCK..][..BLOCK]));
        }
    }
    let stats = bench.engine.stats();
    assert_eq!(bench.served(POSIX) + bench.served(POOL), 3 * COUNT as u64, "{stats:#?}");
    let elsewhere = stats.fallback(Reason::QueueFull) + stats.fallback(Reason::Unsupported);
    if accepted == "0" {
        assert_eq!((bench.served(POSIX), elsewhere), (0, 3 * COUNT as u64), "{stats:#?}");
    } else {
        assert!(
            bench.served(POSIX) > 0 && bench.served(POOL) <= elsewhere + stats.fallback(Reason::Remembered),
            "{stats:#?}"
        );
    }
    assert_eq!(stats.anomalies, Default::default());
}
