//! Several buffers in one transfer.

use std::io::{ErrorKind, Read as _, Write as _};
#[cfg(unix)]
use std::os::unix::net::UnixDatagram;

use polyaio::{AlignedBuf, BufResult, Engine, File, IoBuf as _, OpenOptions, Reason};

use crate::bed::{BLOCK, Bed, Medium, What, buffer, code, filled};
use crate::support::{self, first_difference, pattern};
use crate::tools::{Begun, Census, eventually, join, poll_once, spawn_park};

/// The most that one call of the system takes.
const IOV_MAX: usize = 1024;

/// `data` in pieces of these lengths, over and over.
fn cut(data: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let (mut rest, mut lengths, mut pieces) = (data, lengths.iter().cycle(), Vec::new());
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(*lengths.next().expect("it cycles")));
        pieces.push(piece.to_vec());
        rest = more;
    }
    pieces
}

fn zeroed(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    pieces.iter().map(|piece| vec![0; piece.len()]).collect()
}

fn blocks(data: &[u8]) -> Vec<AlignedBuf> {
    data.chunks(BLOCK).map(filled).collect()
}

fn read_only(bed: &Bed, engine: &Engine, name: &str, data: &[u8]) -> File {
    OpenOptions::new().read(true).open(engine, bed.make(name, data)).expect("it is there")
}

/// One after the other, in order, from the offset on; the same through the page cache and past it; none, one, as many as
/// lie in the request, and more.
pub(crate) fn in_order_from_the_offset_on(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let mut want = pattern(128 * BLOCK, 1);
        let path = bed.make(&format!("{medium:?}"), &want);
        let file = bed.open(&engine, medium, &path);
        let counts = [1, 2, 7, 8, 9, 64];
        for count in counts {
            let (at, len) = (3 * BLOCK, count * BLOCK);
            let data = pattern(len, count as u64);
            want[at..at + len].copy_from_slice(&data);
            let BufResult(n, back) = file.write_vectored_at(blocks(&data), at as u64).wait();
            assert_eq!(n.expect("room"), len, "{medium:?}: {count} buffers");
            assert!(back.iter().map(|block| &block[..]).eq(data.chunks(BLOCK)), "the buffers come back as they were");
            let into: Vec<_> = (0..count + 1).map(|_| buffer(BLOCK)).collect();
            let BufResult(done, back) = engine.block_on(file.read_exact_vectored_at(into, (at - BLOCK) as u64));
            done.expect("it is that long");
            let back: Vec<u8> = back.iter().flat_map(|block| block.to_vec()).collect();
            assert_eq!(first_difference(&back, &want[at - BLOCK..at + len]), None, "{medium:?}: {count} buffers");
        }
        bed.assert_served(&engine, &[(medium.write(), counts.len() as u64), (medium.read(), counts.len() as u64)]);
        bed.evict(&path, 0, 0);
        bed.assert_file(&path, &want);
    }
}

/// Of any length and kind; only what was read counts as initialised, and the position stays.
pub(crate) fn small_ones_of_every_kind(bed: &Bed) {
    let engine = bed.engine();
    let file = bed.file(&engine, Medium::Buffered, "file", &pattern(10_000, 2));
    let data = pattern(5000, 3);
    let pieces = cut(&data, &[1, 2, 0, 13, 700, 64]);
    assert!(pieces.len() > 30);
    file.write_all_vectored_at(pieces.clone(), 4321).wait().0.expect("room");
    let BufResult(done, back) = file.read_exact_vectored_at(zeroed(&pieces).into_boxed_slice(), 4321).wait();
    done.expect("it is that long");
    assert_eq!(*back, pieces);
    file.write_all_vectored_at(["ab", "", "cde"], 10).wait().0.expect("room");
    let into = [Vec::with_capacity(3), Vec::new(), vec![7; 1], Vec::with_capacity(8)];
    let capacities: usize = into.iter().map(Vec::capacity).sum();
    let BufResult(n, back) = file.read_vectored_at(into, 10).wait();
    assert_eq!(n.expect("readable"), capacities, "up to each capacity");
    assert_eq!((&back[0][..3], back[1].len(), back[2].len(), back[3].len()), (&b"abc"[..], 0, 1, 8));
    let end = 10_000 - 5;
    let BufResult(n, back) =
        file.read_vectored_at([Vec::with_capacity(3), Vec::with_capacity(64), vec![1; 4]], end).wait();
    assert_eq!((n.expect("readable"), &back[2][..]), (5, &[1; 4][..]), "the last one is as it was");
    assert_eq!((back[0].len(), back[1].len()), (3, 2), "initialised is what was read");
    let BufResult(done, back) = file.read_exact_vectored_at([vec![0; 3], vec![0; 64]], end).wait();
    assert_eq!(done.expect_err("it ends before").kind(), ErrorKind::UnexpectedEof);
    let tail = bed.read(&bed.path("file"));
    assert_eq!((&back[0][..], &back[1][..2]), (&tail[end as usize..][..3], &tail[end as usize + 3..]));
}

/// What is more than one call takes is left over by the plain forms, and finished by the others.
pub(crate) fn more_than_one_call_takes(bed: &Bed) {
    const PIECE: usize = 3;
    let engine = bed.engine();
    let path = bed.make("file", &[]);
    let file = bed.open(&engine, Medium::Buffered, &path);
    let data = pattern(5000 * PIECE, 4);
    let pieces = cut(&data, &[PIECE]);
    let BufResult(n, _) = file.write_vectored_at(pieces.clone(), 100).wait();
    let once = n.expect("room");
    // Where each call takes one buffer, there is no such bound.
    assert!(once == IOV_MAX * PIECE || bed.takes_one_range() && once == data.len(), "{once} bytes");
    let calls = once / PIECE;
    let BufResult(done, back) = file.write_all_vectored_at(pieces.clone(), 100).wait();
    done.expect("room");
    assert_eq!(back, pieces);
    let BufResult(n, back) = file.read_vectored_at(zeroed(&pieces), 100).wait();
    assert_eq!(n.expect("readable"), once, "the same");
    assert_eq!(back[..calls], pieces[..calls]);
    assert!(back[calls..].iter().all(|piece| *piece == [0; PIECE]));
    let BufResult(done, back) = file.read_exact_vectored_at(zeroed(&pieces), 100).wait();
    done.expect("it is that long");
    assert_eq!(back, pieces);
    bed.assert_file(&path, &[&[0; 100][..], &data].concat());
    // Past the end after the first call.
    let BufResult(done, back) = file.read_exact_vectored_at(zeroed(&pieces), 100 + 2 * PIECE as u64).wait();
    assert_eq!(done.expect_err("it ends before").kind(), ErrorKind::UnexpectedEof);
    assert_eq!((&back[..4998], &back[4998..]), (&pieces[2..], &[vec![0; PIECE], vec![0; PIECE]][..]));
    file.write_all_vectored(pieces.clone()).wait().0.expect("room");
    assert_eq!(bed.read(&path)[..data.len()], data, "at the position");
}

/// Empty buffers are nothing; nothing but them, or none at all, is a transfer of nothing.
pub(crate) fn empty_ones(bed: &Bed) {
    for medium in bed.media() {
        let engine = bed.engine();
        let data = pattern(4 * BLOCK, 5);
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        let none = || Vec::<AlignedBuf>::new();
        let all = || (0..12).map(|_| buffer(0)).collect::<Vec<_>>();
        assert_eq!(file.read_vectored_at(none(), 0).wait().0.expect("nothing"), 0);
        assert_eq!(file.write_vectored_at(none(), 0).wait().0.expect("nothing"), 0);
        assert_eq!(file.read_vectored_at(all(), 1 << 40).wait().0.expect("nothing"), 0);
        file.write_all_vectored_at(all(), 1 << 40).wait().0.expect("nothing");
        file.read_exact_vectored(all()).wait().0.expect("nothing");
        bed.assert_served(&engine, &[]);
        let between = vec![buffer(0), buffer(BLOCK), buffer(0), buffer(0), buffer(2 * BLOCK), buffer(0)];
        let BufResult(n, back) = file.read_vectored_at(between, BLOCK as u64).wait();
        assert_eq!((n.expect("readable"), back.len()), (3 * BLOCK, 6));
        assert_eq!((&back[1][..], &back[4][..]), (&data[BLOCK..2 * BLOCK], &data[2 * BLOCK..]));
        bed.assert_served(&engine, &[(medium.read(), 1)]);
        bed.assert_file(&path, &data);
    }
}

/// Many at once, with more ranges than lie in a request: none gets another one's list.
pub(crate) fn lists_of_their_own(bed: &Bed) {
    const COUNT: usize = 40;
    for medium in bed.media() {
        let engine = bed.engine();
        let (data, fresh) = (pattern(COUNT * 4 * BLOCK, 6), pattern(COUNT * 4 * BLOCK, 7));
        let path = bed.make(&format!("{medium:?}"), &data);
        let file = bed.open(&engine, medium, &path);
        // Sectors of 512 bytes would do for most disks; pieces of a block's size are fit for all.
        let parts = |i: usize| data[i * 4 * BLOCK..][..4 * BLOCK].to_vec();
        for round in 0..3 {
            let reads = (0..COUNT).map(|i| {
                let into: Vec<_> = (0..4 + i % 9).map(|j| buffer(if j < 4 { BLOCK } else { 0 })).collect();
                file.read_exact_vectored_at(into, (i * 4 * BLOCK) as u64)
            });
            for (i, BufResult(done, back)) in engine.block_on(join(reads)).into_iter().enumerate() {
                done.expect("it is that long");
                assert_eq!(back.iter().flat_map(|b| b.to_vec()).collect::<Vec<_>>(), parts(i), "{medium:?} {round}");
            }
        }
        let writes = fresh.chunks(40 * BLOCK).enumerate();
        let writes = writes.map(|(i, part)| file.write_all_vectored_at(blocks(part), (i * 40 * BLOCK) as u64));
        let results = engine.block_on(join(writes));
        results.into_iter().for_each(|BufResult(done, _)| done.expect("room"));
        bed.evict(&path, 0, 0);
        bed.assert_file(&path, &fresh);
    }
}

pub(crate) fn buffers_come_back_from_what_fails(bed: &Bed) {
    let census = Census::default();
    let engine = bed.engine();
    let some = |count: usize| (0..count).map(|i| census.buffer(BLOCK, i as u8)).collect::<Vec<_>>();
    let reading = read_only(bed, &engine, "file", &[0; BLOCK]);
    for count in [2, 30, 2000] {
        let BufResult(n, back) = reading.write_vectored_at(some(count), 0).wait();
        assert_eq!((code(n), back.len()), (libc::EBADF, count));
        let BufResult(n, back) = reading.read_vectored_at(some(count), u64::MAX).wait();
        assert_eq!((code(n), back.len()), (libc::EINVAL, count));
        let mut read = reading.read_exact_vectored_at(some(count), 0);
        read.cancel();
        let BufResult(done, back) = read.wait();
        assert_eq!((code(done), back.len()), (libc::ECANCELED, count));
        let full = engine.adopt(std::fs::File::options().write(true).open("/dev/full").expect("Linux has it").into());
        let BufResult(n, back) = full.expect("any descriptor").write_vectored(some(count)).wait();
        assert_eq!((code(n), back.len()), (libc::ENOSPC, count));
    }
    drop(reading.read_vectored_at(some(20), 0));
    assert_eq!(census.live(), 0);
}

/// Each buffer is freed once, and not while somebody may use it.
pub(crate) fn dropped_and_cancelled(bed: &Bed) {
    const COUNT: usize = 12;
    for medium in bed.media() {
        let census = Census::default();
        let engine = bed.engine();
        let path = bed.make(&format!("{medium:?}"), &[0xAB; 64 * BLOCK]);
        let file = bed.open(&engine, medium, &path);
        let some = |fill| (0..COUNT).map(|_| census.buffer(BLOCK, fill)).collect::<Vec<_>>();
        for round in 0..30 {
            let begin = |i: usize| Begun::new(file.read_vectored_at(some(0), (i % 52 * BLOCK) as u64));
            let mut reads: Vec<_> = (0..20).map(begin).collect();
            reads.iter_mut().skip(round).for_each(|read| _ = read.again());
            for read in reads.iter_mut().step_by(3) {
                read.with_running(polyaio::Op::cancel);
            }
            drop(reads.split_off(round % 20));
            for BufResult(n, back) in engine.block_on(join(reads)) {
                assert_eq!(back.len(), COUNT);
                match n {
                    // Where one buffer is read after the other, some may be before the cancellation.
                    Ok(n) => {
                        assert!(n > 0 && n % BLOCK == 0);
                        assert!(back.iter().take(n / BLOCK).all(|b| b.as_slice() == [0xAB; BLOCK]), "{n} bytes");
                    }
                    failed => assert_eq!(code(failed), libc::ECANCELED),
                }
            }
        }
        eventually("all buffers are freed while the engine lives", || {
            file.len().wait().expect("a file has a length");
            file.read_at(buffer(BLOCK), 0).wait().0.expect("readable");
            census.live() == 0
        });
        drop(engine);
        assert_eq!((census.made(), census.freed()), (30 * 20 * COUNT, 30 * 20 * COUNT));
    }
}

pub(crate) fn appended_in_order(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", b"before");
    let file = OpenOptions::new().append(true).open(&engine, &path).expect("it is there");
    let data = pattern(40_000, 8);
    let writes = data.chunks(400).map(|part| file.write_all_vectored_at(cut(part, &[7, 50, 1]), 0));
    engine.block_on(join(writes)).into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    bed.assert_file(&path, &[&b"before"[..], &data].concat());
    bed.assert_served(&engine, &[(What::Append, 100)]);
}

/// Each buffer has to be aligned; one that is not sends the transfer through the page cache.
pub(crate) fn one_is_misaligned(bed: &Bed) {
    if !bed.media().any(|medium| medium == Medium::Direct) {
        return;
    }
    let engine = bed.engine();
    let mut data = pattern(8 * BLOCK, 9);
    let path = bed.make("file", &data);
    let file = bed.open(&engine, Medium::Direct, &path);
    let into = vec![vec![0; BLOCK - 100], vec![0; 100], vec![0; BLOCK]];
    let BufResult(done, back) = file.read_exact_vectored_at(into, BLOCK as u64).wait();
    done.expect("it is that long");
    assert_eq!(first_difference(&back.concat(), &data[BLOCK..3 * BLOCK]), None);
    let fresh = pattern(2 * BLOCK, 10);
    file.write_all_vectored_at(cut(&fresh, &[11, BLOCK, 300]), 2 * BLOCK as u64).wait().0.expect("room");
    data[2 * BLOCK..4 * BLOCK].copy_from_slice(&fresh);
    assert_eq!(engine.stats().fallback(Reason::Misaligned), 2, "{:#?}", engine.stats());
    bed.assert_served(&engine, &[(What::Misaligned, 2)]);
    bed.evict(&path, 0, 0);
    bed.assert_file(&path, &data);
}

/// Several buffers in one transfer, as `readv` would fill them; and the looping forms.
#[cfg(unix)]
pub(crate) fn on_streams(bed: &Bed) {
    let engine = bed.engine();
    let adopt = |fd: std::os::fd::OwnedFd| engine.adopt(fd).expect("any open descriptor");
    let (reader, mut writer) = support::pipe();
    let (peer, socket) = support::socket_pair();
    let (mut socket_writer, socket) = (peer, adopt(socket.into()));
    let reader = adopt(reader.into());
    for (file, writer) in [(&reader, &mut writer as &mut dyn std::io::Write), (&socket, &mut socket_writer)] {
        let into = || (0..10).map(|i| Vec::with_capacity(if i == 4 { 0 } else { 8 })).collect::<Vec<_>>();
        let mut read = file.read_vectored(into());
        assert!(poll_once(&mut read).is_pending(), "it is empty");
        writer.write_all(&pattern(60, 1)).expect("room");
        let BufResult(n, back) = read.wait();
        assert_eq!((n.expect("readable"), back.concat()), (60, pattern(60, 1)), "all that was there");
        writer.write_all(b"one and two").expect("room");
        let BufResult(done, back) = file.read_exact_vectored([vec![0; 3], vec![0; 5], vec![0; 3]]).wait();
        done.expect("it is there");
        assert_eq!((&back[0][..], &back[1][..], &back[2][..]), (&b"one"[..], &b" and "[..], &b"two"[..]));
    }
    bed.assert_served(&engine, &[(What::Stream, 4)]);
}

/// More than fits in a stream, in more buffers than one call takes: each transfer goes on within a buffer.
#[cfg(unix)]
pub(crate) fn more_than_a_stream_holds(bed: &Bed) {
    let engine = bed.engine();
    let data = pattern(300_000, 2);
    let (reader, writer) = support::pipe();
    let (peer, socket) = support::socket_pair();
    let streams: [(Box<dyn std::io::Read + Send>, std::os::fd::OwnedFd); 2] =
        [(Box::new(reader), writer.into()), (Box::new(peer), socket.into())];
    for (mut reader, writer) in streams {
        let writer = engine.adopt(writer).expect("any open descriptor");
        let pieces = cut(&data, &[100, 1, 70]);
        assert!(pieces.len() > 2 * IOV_MAX);
        let writing = spawn_park(writer.write_all_vectored(pieces));
        let mut back = vec![0; data.len()];
        reader.read_exact(&mut back).expect("it is written");
        writing.join().expect("no panic").0.expect("somebody reads");
        assert_eq!(first_difference(&back, &data), None);
    }
}

/// A message is scattered over the buffers, and gathered from them.
#[cfg(unix)]
pub(crate) fn messages_stay_whole(bed: &Bed) {
    let engine = bed.engine();
    let (peer, socket) = UnixDatagram::pair().expect("a socket pair");
    let socket = engine.adopt(socket.into()).expect("any open descriptor");
    socket.write_vectored(["a mes", "", "sage"]).wait().0.expect("room");
    let mut message = [0; 64];
    assert_eq!(peer.recv(&mut message).expect("it is there"), 9, "one message, not three");
    peer.send(b"an answer").expect("room");
    let BufResult(n, back) = socket.read_vectored([vec![0; 3], vec![0; 9]]).wait();
    assert_eq!((n.expect("readable"), &back[0][..], &back[1][..6]), (9, &b"an "[..], &b"answer"[..]));
}

/// What knows no NOWAIT is transferred by workers.
#[cfg(unix)]
pub(crate) fn on_fifos(bed: &Bed) {
    let engine = bed.engine();
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let mut both = support::open_fifo_writer(&path);
    let fifo = engine.adopt(support::fifo_reader(&path).into()).expect("any open descriptor");
    both.write_all(b"hello, world").expect("room");
    let BufResult(done, back) = fifo.read_exact_vectored([vec![0; 5], vec![0; 7]]).wait();
    done.expect("it is there");
    assert_eq!((&back[0][..], &back[1][..]), (&b"hello"[..], &b", world"[..]));
    let fifo = OpenOptions::new().write(true).open(&engine, &path).expect("somebody reads");
    let data = pattern(20_000, 3);
    let writing = spawn_park(fifo.write_all_vectored(cut(&data, &[5000, 1, 0, 300])));
    let mut back = vec![0; data.len()];
    both.read_exact(&mut back).expect("it is written");
    writing.join().expect("no panic").0.expect("somebody reads");
    assert_eq!(first_difference(&back, &data), None);
}
