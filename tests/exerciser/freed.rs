//! Memory that was given back is nobody's: no kernel and no worker writes into it any more.

use polyaio::{AlignedBuf, Direct, OpenOptions};

use crate::QUARANTINE;
use crate::outside::Outside;
use crate::plan::Tuning;
use crate::setups::Setup;
use crate::support::{Scratch, direct_io, report_skip, require};
use crate::tools::{Begun, Watchdog};
#[cfg(unix)]
use crate::tools::{Respawn, respawn};

fn quarantine() -> Result<(), String> {
    if QUARANTINE.is_on() { Ok(()) } else { Err("POLYAIO_TEST_QUARANTINE=0: a sanitizer has its own".into()) }
}

/// # Errors
/// Somebody has: this test, or one beside it.
pub(crate) fn check() -> Result<(), String> {
    QUARANTINE.check().map_err(|disturbed| format!("written to after it was freed: {disturbed:?}"))
}

/// The tool itself: what the kernel writes into freed memory does not go unnoticed.
#[cfg(unix)]
#[test]
fn late_writes_are_noticed() {
    require!(quarantine());
    // Alone in its process, so that nobody else is told.
    if let Respawn::Child = respawn("freed::late_writes_are_noticed").checked() {
        use std::os::fd::AsRawFd as _;
        let zeroes = std::fs::File::open("/dev/zero").expect("every Linux has it");
        for (size, at) in [(512, 0), (8192, 8191), (1 << 20, 5000)] {
            let mut memory = vec![1_u8; size];
            let target = memory.as_mut_ptr().expose_provenance() + at;
            drop(memory);
            assert!(QUARANTINE.check().is_ok(), "nobody has written yet");
            // SAFETY: the quarantine has the memory, and this test is what it is for.
            let n = unsafe { libc::read(zeroes.as_raw_fd(), std::ptr::with_exposed_provenance_mut(target), 1) };
            assert_eq!(n, 1);
            let disturbed = QUARANTINE.check().expect_err("a byte was written");
            assert_eq!((disturbed.size, disturbed.at), (size, at));
            assert!(QUARANTINE.check().is_ok(), "it is told once");
        }
    }
}

/// Reads that are dropped while they are in flight, and an engine that ends with them.
#[test]
fn dropped_in_flight() {
    const LEN: usize = 64 << 10;
    require!(quarantine());
    let _watchdog = Watchdog::new("freed::dropped_in_flight");
    let scratch = Scratch::new();
    let path = scratch.file_on_disk("file", &vec![1; 64 * LEN]);
    let direct = match direct_io(scratch.dir()) {
        Ok(()) => Direct::Required,
        Err(why) => {
            report_skip("exerciser", &format!("past the page cache: {why}"));
            Direct::Off
        }
    };
    for setup in Setup::ALL.iter().filter(|setup| setup.available().is_ok()) {
        for round in 0..10 {
            let engine = setup.engine(Tuning { queue_depth: 32, threads: 4, capacity: 1024 }, &Outside::System);
            let file = OpenOptions::new().read(true).direct(direct).open(&engine, &path).expect("it is there");
            let read = |at: usize| file.read_at(AlignedBuf::zeroed(LEN, 4096), (at * LEN) as u64);
            let mut reads: Vec<_> = (0..64).map(|at| Begun::new(read(at))).collect();
            reads.iter_mut().take(60).for_each(|read| _ = read.again());
            // Before the engine, or after it, when nobody but the slots can hold the memory any more.
            if round % 2 == 0 {
                drop((reads, file, engine));
            } else {
                drop((engine, reads, file));
            }
        }
        check().unwrap_or_else(|error| panic!("{setup:?}: {error}"));
    }
}
