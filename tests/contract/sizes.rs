//! Lengths beyond 32 bits, and much data.

use polyaio::{BufResult, OpenOptions};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::support::{first_difference, long_tests, pattern, require};
use crate::tools::join;

/// Cut to 32 bits, this is two blocks.
const LEN: usize = (4 << 30) + 2 * BLOCK;

/// Memory that nobody touches is none, which is so of zeroes from the system: only the addresses have to be had.
fn addresses() -> Result<(), String> {
    let (write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of our own, which is gone again before anybody could use it.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), LEN, write, private, -1, 0);
        if base == libc::MAP_FAILED {
            return Err(format!("4 GiB of addresses: {}", std::io::Error::last_os_error()));
        }
        libc::munmap(base, LEN);
    }
    Ok(())
}

/// Buffers of more than 4 GiB: a length cut to 32 bits would transfer two blocks of the three, or say that two were all.
pub(crate) fn beyond_32_bits(bed: &Bed) {
    require!(addresses());
    let engine = bed.engine();
    let data = pattern(3 * BLOCK, 1);
    let file = bed.file(&engine, Medium::Buffered, "file", &data);
    let BufResult(n, back) = file.read_at(vec![0; LEN], 0).wait();
    assert_eq!(n.expect("a file that is shorter is no error"), 3 * BLOCK);
    assert_eq!(first_difference(&back[..3 * BLOCK], &data), None);
    let BufResult(done, back) = file.read_exact_at(back, 0).wait();
    assert_eq!(done.expect_err("it ends before").kind(), std::io::ErrorKind::UnexpectedEof);
    let parts = vec![vec![0; BLOCK], vec![0; 2 << 30], vec![0; 2 << 30]];
    let BufResult(n, parts) = file.read_vectored_at(parts, 0).wait();
    assert_eq!(n.expect("a file that is shorter is no error"), 3 * BLOCK);
    assert_eq!((&parts[0][..], &parts[1][..2 * BLOCK]), (&data[..BLOCK], &data[BLOCK..]));
    let null = OpenOptions::new().write(true).open(&engine, "/dev/null").expect("every system has it");
    // What one system call takes, in whole pages; the looping kind goes on to the end.
    let BufResult(n, back) = null.write_at(back, 0).wait();
    assert_eq!(n.expect("it takes everything"), (2 << 30) - BLOCK);
    let BufResult(done, back) = null.write_all_at(back, 0).wait();
    done.expect("it takes everything");
    assert_eq!(back.len(), LEN);
    null.write_all(back).wait().0.expect("it takes everything");
    assert_healthy(&engine.stats());
}

/// Eight requests of 1 MiB at a time; 768 MiB in all where the tests may take long.
pub(crate) fn eight_of_a_mebibyte_at_a_time(bed: &Bed) {
    const MIB: usize = 1 << 20;
    const FILE: usize = 64;
    let rounds = if long_tests().is_ok() { 96 } else { 2 };
    for medium in bed.media() {
        let engine = bed.engine();
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &[]);
        file.allocate(0, (FILE * MIB) as u64).wait().expect("room");
        for round in 0..rounds {
            let place = |i: usize| ((round * 8 + i) % FILE * MIB) as u64;
            let data = pattern(8 * MIB, round as u64);
            let writes = data.chunks(MIB).enumerate().map(|(i, part)| file.write_all_at(filled(part), place(i)));
            engine.block_on(join(writes)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
            let reads = engine.block_on(join((0..8).map(|i| file.read_exact_at(buffer(MIB), place(i)))));
            for (i, BufResult(done, back)) in reads.into_iter().enumerate() {
                done.expect("it is that long");
                assert_eq!(first_difference(&back, &data[i * MIB..][..MIB]), None, "{medium:?}, round {round}");
            }
        }
        assert_healthy(&engine.stats());
    }
}
