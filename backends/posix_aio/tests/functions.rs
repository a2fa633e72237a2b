//! What the C library does, as far as this backend relies on it: its functions through `abi.rs`, and what a program that
//! calls them itself would see.
//!
//! # References
//! `aio_error(3)`, `lio_listio(3)`, `aio_suspend(3)`, `aio_cancel(3)`; the Open POSIX Test Suite asks the same of them.

use std::ptr;
use std::time::{Duration, Instant};

use super::super::abi::{Block, Call, Operation, suspend};
#[cfg(target_env = "gnu")]
use super::super::{
    abi::{self, Cancelled, cancel, start_list},
    probe,
};
use super::*;

/// Memory, a control block, and where they are read from. Stays in its box until the read is over.
struct Reading {
    block: Block,
    byte: std::cell::UnsafeCell<u8>,
}

impl Reading {
    fn new() -> Box<Self> {
        Box::new(Self { block: Block::new(), byte: 0.into() })
    }

    fn operation(&self, fd: RawFd) -> Operation {
        Operation { call: Call::Read, fd, offset: 0, memory: self.byte.get(), length: 1 }
    }

    fn start(&self, fd: RawFd) {
        // SAFETY: callers keep the box until `finish`, and start nothing twice.
        unsafe { self.block.send(&self.operation(fd)) }.expect("room");
    }

    fn errno(&self) -> i32 {
        // SAFETY: reads a number of the block.
        unsafe { libc::aio_error(self.block.address()) }
    }

    /// Whether it is over, with its outcome.
    fn collect(&self) -> Option<Outcome> {
        // SAFETY: callers have started it, and ask no more after its end.
        unsafe { self.block.collect() }
    }

    fn finish(&self) -> (Outcome, u8) {
        loop {
            if let Some(outcome) = self.collect() {
                // SAFETY: it is over, so that nobody else writes.
                return (outcome, unsafe { *self.byte.get() });
            }
            // SAFETY: in flight, and stays in its box.
            let _ = unsafe { suspend(&[self.block.address()]) };
        }
    }
}

/// Of a file, a control block for a list.
#[cfg(target_env = "gnu")]
fn block(opcode: i32, fd: RawFd, memory: &mut [u8]) -> libc::aiocb {
    // SAFETY: numbers and pointers.
    let mut block: libc::aiocb = unsafe { std::mem::zeroed() };
    (block.aio_lio_opcode, block.aio_fildes) = (opcode, fd);
    (block.aio_buf, block.aio_nbytes) = (memory.as_mut_ptr().cast(), memory.len());
    block.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
    block
}

#[test]
fn in_progress_and_then_over_and_the_block_can_be_used_again() {
    let _turn = busy();
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let reading = Reading::new();
    for byte in [3, 4] {
        reading.start(pipe.as_raw_fd());
        assert_eq!((reading.errno(), reading.collect()), (libc::EINPROGRESS, None));
        writer.write_all(&[byte]).expect("room in the pipe");
        assert_eq!(reading.finish(), (Ok(1), byte));
        assert_eq!(reading.errno(), 0);
    }
}

#[cfg(target_env = "gnu")]
#[test]
fn a_block_shows_whether_it_was_taken() {
    let _turn = busy();
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let (taken, never) = (Reading::new(), Reading::new());
    // SAFETY: neither is in flight; the second one is never started.
    unsafe {
        never.block.prepare(&never.operation(pipe.as_raw_fd()));
        assert!(!never.block.was_taken());
        taken.start(pipe.as_raw_fd());
        assert!(taken.block.was_taken(), "it is running");
        writer.write_all(&[1]).expect("room in the pipe");
        while taken.errno() == libc::EINPROGRESS {
            std::thread::yield_now();
        }
        assert!(taken.block.was_taken(), "it is over");
    }
    assert_eq!(taken.finish(), (Ok(1), 1));
}

#[cfg(target_env = "gnu")]
#[test]
fn a_list_is_read_and_written_with_gaps_and_in_both_modes() {
    let file = file(&pattern(64));
    let fd = file.as_raw_fd();
    for mode in [libc::LIO_WAIT, libc::LIO_NOWAIT] {
        let (mut read, mut write, mut nothing) = ([0; 8], [0xcc; 8], [0xdd; 8]);
        let mut blocks = [
            block(libc::LIO_READ, fd, &mut read),
            block(libc::LIO_NOP, fd, &mut nothing),
            block(libc::LIO_WRITE, fd, &mut write),
        ];
        blocks[2].aio_offset = 32;
        let [reads, skips, writes] = &mut blocks;
        let list: [*mut libc::aiocb; 5] = [ptr::null_mut(), reads, skips, ptr::null_mut(), writes];
        // SAFETY: blocks and memory stay in their places until both transfers are over.
        unsafe {
            assert_eq!(libc::lio_listio(mode, list.as_ptr(), 5, ptr::null_mut()), 0, "{}", Errno::last());
            for at in [list[1], list[4]] {
                while libc::aio_error(at) == libc::EINPROGRESS {
                    assert_eq!(mode, libc::LIO_NOWAIT, "LIO_WAIT comes back when all are over");
                    suspend(&[at.cast_const()]).expect("no signal");
                }
                assert_eq!((libc::aio_error(at), libc::aio_return(at)), (0, 8));
            }
        }
        assert_eq!((&read[..], nothing), (&pattern(64)[..8], [0xdd; 8]), "what is left out is left alone");
        let mut written = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, 32).expect("readable");
        assert_eq!(written, [0xcc; 8]);
    }
    let mut list = [ptr::null_mut()];
    // SAFETY: the list names nothing.
    let answers =
        [77, libc::LIO_NOWAIT].map(|mode| unsafe { libc::lio_listio(mode, list.as_mut_ptr(), 1, ptr::null_mut()) });
    assert_eq!(answers, [-1, 0], "a mode that there is none of; a list of nothing");
}

#[cfg(target_env = "gnu")]
#[test]
fn our_lists_start_in_order() {
    let _turn = busy();
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let readings: Vec<_> = (0..abi::LIST_MAX).map(|_| Reading::new()).collect();
    // SAFETY: the boxes stay until each is finished, and so does the pipe.
    unsafe {
        readings.iter().for_each(|reading| reading.block.prepare(&reading.operation(pipe.as_raw_fd())));
        start_list(readings.iter().map(|reading| &reading.block)).expect("room");
    }
    let bytes: Vec<u8> = (0..abi::LIST_MAX as u8).collect();
    writer.write_all(&bytes).expect("room in the pipe");
    for (reading, byte) in readings.iter().zip(bytes) {
        assert_eq!(reading.finish(), (Ok(1), byte));
    }
}

#[test]
fn suspending_ends_with_any_of_the_list_or_in_time() {
    let (_alone, _turn) = (alone(), busy());
    let mut pipes = [(); 2].map(|()| std::io::pipe().expect("a pipe"));
    let readings = [Reading::new(), Reading::new()];
    for (reading, (pipe, _)) in readings.iter().zip(&pipes) {
        reading.start(pipe.as_raw_fd());
    }
    let list = [ptr::null(), readings[0].block.address(), ptr::null(), readings[1].block.address()];
    let limit = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let begin = Instant::now();
    // SAFETY: both are in flight, and stay in their boxes.
    let answer = unsafe { libc::aio_suspend(list.as_ptr(), 4, &raw const limit) };
    assert_eq!((answer, Errno::last()), (-1, Errno(libc::EAGAIN)), "nothing has ended");
    // Bug 32795 of glibc takes the limit for a moment that is long past, or far away. The backend never sets one.
    assert!((Duration::from_millis(50)..Duration::from_secs(30)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    pipes[1].1.write_all(&[9]).expect("room in the pipe");
    // SAFETY: as above.
    unsafe { suspend(&list) }.expect("no signal");
    assert_eq!((readings[0].collect(), readings[1].finish()), (None, (Ok(1), 9)), "any one");
    // One that is over already, and an empty list, do not wait for the others.
    pipes[0].1.write_all(&[8]).expect("room in the pipe");
    assert_eq!(readings[0].finish(), (Ok(1), 8));
}

#[cfg(target_env = "gnu")]
#[test]
fn cancelling_has_three_answers_by_request_and_by_descriptor() {
    let _turn = busy();
    let (pipe, mut writer) = std::io::pipe().expect("a pipe");
    let fd = pipe.as_raw_fd();
    let [first, second, third] = [(); 3].map(|()| Reading::new());
    first.start(fd);
    // Until a thread has begun with it.
    // SAFETY: it is in flight.
    while unsafe { cancel(fd, Some(&first.block)) } == Ok(Cancelled::All) {
        assert_eq!(first.finish().0, Err(Errno(libc::ECANCELED)));
        first.start(fd);
        std::thread::yield_now();
    }
    second.start(fd);
    third.start(fd);
    // SAFETY: the blocks are in flight, or were and stay in their boxes.
    unsafe {
        assert_eq!(cancel(fd, Some(&first.block)), Ok(Cancelled::NotAll), "it is running");
        assert_eq!(cancel(fd, Some(&third.block)), Ok(Cancelled::All), "it has not begun");
        assert_eq!(third.finish().0, Err(Errno(libc::ECANCELED)));
        assert_eq!(cancel(fd, None), Ok(Cancelled::NotAll), "one has not begun, and another is running");
        assert_eq!((second.finish().0, first.collect()), (Err(Errno(libc::ECANCELED)), None));
        writer.write_all(&[5]).expect("room in the pipe");
        assert_eq!(first.finish(), (Ok(1), 5));
        assert_eq!(cancel(fd, None), Ok(Cancelled::Ended), "by descriptor");
        assert_eq!(cancel(fd, Some(&first.block)), Ok(Cancelled::Ended), "by request");
        assert_eq!(cancel(1 << 20, None), Err(Errno(libc::EBADF)));
    }
}

/// In a process of its own: the C library is told once.
#[cfg(target_env = "gnu")]
#[test]
fn threads_are_sized_before_the_first_request_only() {
    let name = "backends::posix_aio::tests::functions::child_that_is_told_twice";
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
    child.args([name, "--exact", "--ignored", "--nocapture"]).env("POLYAIO_TEST_CHILD", name);
    let child = child.output().expect("it starts");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}

/// Not a test by itself: the one above runs it. A program has told the C library how many threads it may have and has used
/// it; then comes an engine.
#[cfg(target_env = "gnu")]
#[test]
#[ignore = "the child of threads_are_sized_before_the_first_request_only"]
fn child_that_is_told_twice() {
    if std::env::var_os("POLYAIO_TEST_CHILD").is_none() {
        return;
    }
    // SAFETY: the default action of SIGALRM ends this process where it hangs.
    unsafe { libc::alarm(60) };
    abi::init(2, 64);
    let mut pipes: Vec<_> = (0..4).map(|_| std::io::pipe().expect("a pipe")).collect();
    let readings: Vec<_> = pipes.iter().map(|_| Reading::new()).collect();
    let start = |at: usize| readings[at].start(pipes[at].0.as_raw_fd());
    // SAFETY: in flight.
    let stop = |at: usize| unsafe { cancel(pipes[at].0.as_raw_fd(), Some(&readings[at].block)) };
    (0..4).for_each(start);
    // A thread is started with its first request, which then has begun.
    assert_eq!(
        [0, 1, 2, 3].map(stop),
        [Ok(Cancelled::NotAll), Ok(Cancelled::NotAll), Ok(Cancelled::All), Ok(Cancelled::All)]
    );
    for at in [2, 3] {
        assert_eq!(readings[at].finish().0, Err(Errno(libc::ECANCELED)));
    }
    // The engine's call comes too late, and does no harm.
    probe::size_once();
    start(2);
    assert_eq!(stop(2), Ok(Cancelled::All), "there is no third thread");
    assert_eq!(readings[2].finish().0, Err(Errno(libc::ECANCELED)));
    for at in [0, 1] {
        pipes[at].1.write_all(&[6]).expect("room in the pipe");
        assert_eq!(readings[at].finish(), (Ok(1), 6));
    }
    let (bench, backend, file) = (Bench::new(), start_backend(), file(&pattern(4096)));
    let all = (0..100).map(|at| bench.request(OpKind::Read, file.as_raw_fd(), Some(at), vec![0; 8]));
    let (requests, pendings): (Vec<_>, Vec<_>) = all.unzip();
    submit(&bench, &backend, requests);
    for (at, pending) in pendings.into_iter().enumerate() {
        assert_eq!(wait(pending), (Ok(8), pattern(4096)[at..at + 8].to_vec()), "two threads are enough");
    }
}

#[cfg(target_env = "gnu")]
fn start_backend() -> PosixAio {
    super::start(own(), 1000)
}
