use std::sync::Arc;

use polyaio::backend::Capabilities;
use polyaio::{AlignedBuf, Direct, Engine, File, IoBuf as _, OpKind, OpenOptions, Policy, Reason};

use crate::double::{Double, builder};
use crate::support::{Scratch, pattern, report_skip};
use crate::tools::{Begun, Gate, Watchdog, eventually};

const BLOCK: usize = 4096;

/// A direct file of a backend that keeps each write until the gate opens, and then does so little of it that the rest is
/// misaligned: it goes on through the page cache, and waits for what else is in flight.
struct Bed {
    gate: Arc<Gate>,
    double: Arc<Double>,
    engine: Engine,
    file: File,
    _scratch: Scratch,
}

fn bed(test: &str, capacity: usize) -> Option<Bed> {
    let gate = Gate::new();
    let theirs = gate.clone();
    let mut capabilities = Capabilities::new(64);
    capabilities.appends = true;
    let double = Arc::new(Double::named("double", capabilities, move |operation| match operation.kind() {
        OpKind::Write => {
            theirs.wait();
            Ok(100)
        }
        _ => operation.system_call(),
    }));
    let policy = Policy::Prefer(vec!["double".to_owned()]);
    let engine = builder(4).capacity(capacity).sync_backend(double.clone()).policy(policy).build().expect("an engine");
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(8 * BLOCK, 3));
    let open = OpenOptions::new().read(true).write(true).direct(Direct::Preferred).open(&engine, &path);
    let file = open.expect("it is there");
    if file.facts().alignment.is_none_or(|alignment| !file.facts().direct || alignment.offset <= 100) {
        report_skip(test, "no direct I/O here that would refuse what is misaligned");
        return None;
    }
    Some(Bed { gate, double, engine, file, _scratch: scratch })
}

fn buffer() -> AlignedBuf {
    AlignedBuf::zeroed(BLOCK, BLOCK)
}

/// A read waits in line for the slot of a write, which becomes a cached one meanwhile.
#[test]
fn a_cached_write_does_not_wait_for_who_waits_for_its_slot() {
    let _watchdog = Watchdog::new("custom_backend: a_cached_write_does_not_wait_for_who_waits_for_its_slot");
    let Some(bed) = bed("gates", 1) else { return };
    let mut write = Begun::new(bed.file.write_all_at(buffer(), 0));
    assert!(write.again());
    eventually("the write is being served", || bed.double.count() == 1);
    let mut read = Begun::new(bed.file.read_at(buffer(), BLOCK as u64));
    assert!(read.again(), "there is no slot");
    bed.gate.open();
    bed.engine.block_on(write).0.expect("room");
    assert_eq!(bed.engine.block_on(read).0.expect("readable"), BLOCK);
    assert_eq!(bed.engine.stats().fallback(Reason::Misaligned), 1, "it was a cached write");
}

/// The same for one that does not wait, and is tried again.
#[test]
fn a_cached_write_does_not_wait_for_who_was_told_busy() {
    let _watchdog = Watchdog::new("custom_backend: a_cached_write_does_not_wait_for_who_was_told_busy");
    let Some(bed) = bed("gates", 1) else { return };
    let mut write = Begun::new(bed.file.write_all_at(buffer(), 0));
    assert!(write.again());
    eventually("the write is being served", || bed.double.count() == 1);
    let Err(busy) = bed.file.read_at(buffer(), BLOCK as u64).try_start() else { panic!("there is no slot") };
    bed.gate.open();
    bed.engine.block_on(write).0.expect("room");
    let Ok(read) = busy.into_inner().try_start() else { panic!("there is one now") };
    assert_eq!(bed.engine.block_on(read).0.expect("readable"), BLOCK);
    assert_eq!(bed.engine.stats().fallback(Reason::Misaligned), 1, "it was a cached write");
}

/// An append that becomes a cached write has its turn while others wait for theirs.
#[test]
fn a_cached_write_does_not_wait_for_who_waits_for_its_turn() {
    let _watchdog = Watchdog::new("custom_backend: a_cached_write_does_not_wait_for_who_waits_for_its_turn");
    let Some(bed) = bed("gates", 100) else { return };
    let mut writes: Vec<_> = (0..4).map(|_| Begun::new(bed.file.write_all(buffer()))).collect();
    writes.iter_mut().for_each(|write| assert!(write.again()));
    eventually("the first is being served", || bed.double.count() == 1);
    bed.gate.open();
    for write in writes {
        bed.engine.block_on(write).0.expect("room");
    }
    assert_eq!(bed.engine.stats().fallback(Reason::Misaligned), 4, "all became cached writes");
}

/// What is misaligned from its begin waits for nobody but who was before it: not for itself either.
#[test]
fn misaligned_from_the_begin() {
    let _watchdog = Watchdog::new("custom_backend: misaligned_from_the_begin");
    let Some(bed) = bed("gates", 100) else { return };
    for round in 0..3 {
        let odd = || buffer().slice(..10);
        let write = bed.file.write_all_at(odd(), 3);
        let read = bed.file.read_at(odd(), 3);
        let (write, read) = bed.engine.block_on(async { futures::join!(write, read) });
        write.0.expect("room");
        assert_eq!(read.0.expect("readable"), 10, "round {round}");
    }
}
