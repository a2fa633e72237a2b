//! `try_` calls: begun at once, or the buffer back, and nothing has happened.

use std::io::Write as _;

use polyaio::{AlignedBuf, BufResult, IoBuf as _};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, code, filled};
use crate::support::{self, pattern};
use crate::tools::{Census, HELD, Held, poll_once, transfers};

const CAPACITY: usize = 3;

fn place(buffer: &AlignedBuf) -> *const u8 {
    buffer.stable_ptr()
}

pub(crate) fn the_buffer_comes_back(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(CAPACITY).build().expect("an engine");
    let data = pattern(BLOCK, 1);
    let file = bed.file(&engine, Medium::Buffered, "file", &data);
    let mut reads = Vec::new();
    let mut last = buffer(BLOCK);
    let at = place(&last);
    // The last buffer is the one that finds no room.
    while reads.len() < 10 {
        let buf = if reads.len() < CAPACITY { buffer(BLOCK) } else { std::mem::replace(&mut last, buffer(0)) };
        match file.try_read_at(buf, 0) {
            Ok(read) => reads.push(read),
            Err(busy) => {
                last = busy.into_inner();
                break;
            }
        }
    }
    assert_eq!((reads.len(), place(&last)), (CAPACITY, at), "the engine's capacity, and the same buffer");
    // Of every kind, and by the general form; again and again, and no place in line is left behind.
    for _ in 0..3 {
        last = file.try_write_at(last, 0).err().expect("there is no room").into_inner();
        last = file.write_all_at(last, 0).try_start().err().expect("there is no room").into_buf();
        last = file
            .append(last)
            .try_start()
            .err()
            .expect("there is no room")
            .into_inner()
            .try_start()
            .err()
            .expect("nor now")
            .into_buf();
        let list = file.read_vectored_at(vec![last], 0).try_start().err().expect("there is no room").into_buf();
        last = list.into_iter().next().expect("one buffer");
        assert!(file.sync_all().try_start().is_err());
    }
    assert_eq!(place(&last), at);
    assert_eq!(held.log().len(), CAPACITY, "nothing else has reached the backend");
    // One ends, and there is room for one.
    assert!(held.release());
    assert_eq!(reads.remove(0).wait().0.expect("readable"), BLOCK);
    let read = file.try_read_at(last, 0).expect("there is room");
    assert!(file.try_read_at(buffer(BLOCK), 0).is_err(), "and none for another one");
    held.open();
    let BufResult(n, back) = read.wait();
    assert_eq!((n.expect("readable"), place(&back)), (BLOCK, at));
    assert_eq!(back[..], data[..]);
    reads.into_iter().for_each(|read| assert_eq!(read.wait().0.expect("readable"), BLOCK));
    assert_healthy(&engine.stats());
}

pub(crate) fn a_close_that_finds_no_room_has_not_begun(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(1).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 2));
    let other = bed.file(&engine, Medium::Buffered, "other", &pattern(BLOCK, 3));
    let read = other.try_read_at(buffer(BLOCK), 0).expect("there is room");
    let close = file.clone().close().try_start().err().expect("there is no room").into_inner();
    held.open();
    assert_eq!(read.wait().0.expect("readable"), BLOCK);
    assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("the file is open"), BLOCK);
    close.try_start().expect("there is room").wait().expect("it closes");
    assert_eq!(code(file.read_at(buffer(BLOCK), 0).wait().0), libc::EBADF);
}

pub(crate) fn those_in_line_come_first(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(2).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; BLOCK]);
    let first = [1; 2].map(|i| file.try_write_at(filled(&[i; BLOCK]), 0).expect("there is room"));
    let mut second = file.write_at(filled(&[2; BLOCK]), 0);
    assert!(poll_once(&mut second).is_pending(), "it gets in line");
    held.open();
    first.into_iter().for_each(|first| assert_eq!(first.wait().0.expect("room"), BLOCK));
    // One place is granted to the second, which has not come for it; the other one is free.
    assert!(file.try_write_at(filled(&[3; BLOCK]), 0).is_err(), "nobody passes the line");
    // One that was polled has begun, though it has only got in line: it comes back as it is.
    let second = second.try_start().expect("it has begun");
    assert_eq!(second.wait().0.expect("room"), BLOCK);
    let third = file.try_write_at(filled(&[3; BLOCK]), 0).expect("nobody is in line");
    assert_eq!(third.wait().0.expect("room"), BLOCK);
    let written = held.log().len();
    assert_eq!(written, 4, "each once");
}

#[cfg(unix)]
pub(crate) fn what_needs_no_room_is_never_busy(bed: &Bed) {
    let held = Held::new(transfers(100));
    let engine = bed.builder_with(HELD).backend(held.clone()).capacity(1).build().expect("an engine");
    let file = bed.file(&engine, Medium::Buffered, "file", &[0; BLOCK]);
    let read = file.try_read_at(buffer(BLOCK), 0).expect("there is room");
    assert!(file.try_read_at(buffer(BLOCK), 0).is_err(), "there is no more");
    // What is refused by a check has its result at once.
    let wrong = file.try_read_at(buffer(BLOCK), u64::MAX).expect("it needs no room");
    assert_eq!(code(wrong.wait().0), libc::EINVAL);
    assert_eq!(file.try_read_at(vec![0; 0], 0).expect("it needs no room").wait().0.expect("nothing"), 0);
    // A stream's operations are in the stream's own queue, in the order of these calls; a poll transfers, and no call does.
    let (reader, mut writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    writer.write_all(b"abcd").expect("room");
    let first = reader.read(vec![0; 2]).try_start().expect("it needs no room");
    let mut second = reader.read(vec![0; 2]).try_start().expect("it needs no room");
    assert!(poll_once(&mut second).is_pending(), "the first has not transferred");
    assert_eq!(first.wait().into_result().expect("readable"), (2, b"ab".to_vec()));
    assert_eq!(second.wait().into_result().expect("readable"), (2, b"cd".to_vec()));
    held.open();
    assert_eq!(read.wait().0.expect("readable"), BLOCK);
}

pub(crate) fn begun_in_order(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", &[]);
    let file = polyaio::OpenOptions::new().append(true).open(&engine, &path).expect("it is there");
    let lines: Vec<_> = (0..100).map(|i| format!("line {i}\n")).collect();
    let begun: Vec<_> =
        lines.iter().map(|line| file.append(line.clone()).try_start().expect("there is room")).collect();
    // Whoever is waited for first.
    for append in begun.into_iter().rev() {
        append.wait().0.expect("room");
    }
    bed.assert_file(&path, lines.concat().as_bytes());
    // Begun and dropped: as any operation that was sent or not.
    drop(file.append("one more").try_start().expect("there is room"));
    file.sync_all().try_start().expect("there is room").wait().expect("on a disk");
}

/// A result that is there from the beginning: by whichever way it is asked for.
pub(crate) fn what_was_begun_in_the_caller_is_over(bed: &Bed) {
    let engine = bed.engine();
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(BLOCK, 4));
    let begin = || file.try_read_at(vec![1; 0], 0).expect("it needs no room");
    assert_eq!(begin().wait().0.expect("nothing"), 0);
    assert_eq!(engine.block_on(begin()).0.expect("nothing"), 0);
    assert!(begin().wait_timeout(std::time::Duration::ZERO).is_some());
    let (BufResult(n, _), trace) = begin().traced().wait();
    assert_eq!((n.expect("nothing"), trace.served_by), (0, polyaio::Trace::NONE));
    assert_eq!(begin().cancel(), polyaio::backend::CancelOutcome::Done);
    drop(begin());
    // From the page cache, where the configuration reads there.
    assert_eq!(file.read_at(buffer(BLOCK), 0).wait().0.expect("readable"), BLOCK);
    let (BufResult(n, back), trace) = file.try_read_at(buffer(BLOCK), 0).expect("there is room").traced().wait();
    assert_eq!((n.expect("readable"), back[..] == pattern(BLOCK, 4)[..]), (BLOCK, true), "by {trace}");
}

/// Four threads that find no room most of the time: every read is served once, with its own buffer.
pub(crate) fn every_buffer_is_accounted_for(bed: &Bed) {
    const THREADS: usize = 4;
    const READS: usize = 150;
    for medium in bed.media() {
        let engine = bed.builder().capacity(2).build().expect("an engine");
        let data = pattern(16 * BLOCK, 5);
        let file = bed.file(&engine, medium, &format!("{medium:?}"), &data);
        let census = Census::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for i in 0..READS {
                        let block = i % 16;
                        let mut buf = census.buffer(BLOCK, 0);
                        let at = buf.stable_ptr();
                        let read = loop {
                            match file.try_read_at(buf, (block * BLOCK) as u64) {
                                Ok(read) => break read,
                                Err(busy) => buf = busy.into_inner(),
                            }
                            assert_eq!(buf.stable_ptr(), at);
                            std::thread::yield_now();
                        };
                        // Some are dropped, begun.
                        if i % 5 == 4 {
                            drop(read);
                            continue;
                        }
                        let BufResult(n, back) = read.wait();
                        assert_eq!((n.expect("readable"), back.stable_ptr()), (BLOCK, at));
                        assert_eq!(back.as_slice(), &data[block * BLOCK..][..BLOCK]);
                    }
                });
            }
        });
        assert_healthy(&engine.stats());
        bed.look(&engine);
        drop((file, engine));
        assert_eq!((census.made(), census.live()), (THREADS * READS, 0));
    }
}
