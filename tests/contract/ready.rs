//! Waiting for a stream without taking anything.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use polyaio::{Engine, File, OpenOptions};

use crate::bed::{BLOCK, Bed, What, code};
use crate::support;
use crate::tools::{poll_once, spawn_park};

fn pipe(engine: &Engine) -> (File, File, std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = support::pipe();
    let copies = (reader.try_clone().expect("a descriptor"), writer.try_clone().expect("a descriptor"));
    let adopt = |fd: std::os::fd::OwnedFd| engine.adopt(fd).expect("a pipe");
    (adopt(reader.into()), adopt(writer.into()), copies.0, copies.1)
}

pub(crate) fn readable_takes_nothing(bed: &Bed) {
    let engine = bed.engine();
    let (reader, _, mut other, mut writer) = pipe(&engine);
    for round in 0..3 {
        let mut readable = reader.readable();
        assert!(poll_once(&mut readable).is_pending(), "it is empty");
        let waiting = spawn_park(readable);
        std::thread::sleep(Duration::from_millis(10));
        assert!(!waiting.is_finished());
        writer.write_all(b"some").expect("room");
        waiting.join().expect("no panic").expect("there is data");
        reader.readable().wait().expect("there still is");
        let mut back = [0; 4];
        if round == 1 {
            let read = reader.read(vec![0; 4]).wait().into_result().expect("readable");
            back.copy_from_slice(&read.1);
        } else {
            other.read_exact(&mut back).expect("nothing was taken");
        }
        assert_eq!(back, *b"some");
    }
    bed.assert_served(&engine, &[(What::Stream, 1)]);
    // A FIFO, which knows no transfer without waiting, can be waited for.
    let path = support::fifo(bed.scratch.dir(), "fifo");
    let mut both = support::open_fifo_writer(&path);
    let fifo = engine.adopt(support::fifo_reader(&path).into()).expect("a FIFO");
    let waiting = spawn_park(fifo.readable());
    both.write_all(b"x").expect("room");
    waiting.join().expect("no panic").expect("there is data");
    both.read_exact(&mut [0]).expect("nothing was taken");
    // One that is dropped holds nobody up.
    let mut dropped = fifo.readable();
    assert!(poll_once(&mut dropped).is_pending());
    let mut next = fifo.readable();
    assert!(poll_once(&mut next).is_pending());
    drop(dropped);
    both.write_all(b"x").expect("room");
    next.wait().expect("there is data");
}

pub(crate) fn writable_when_there_is_room(bed: &Bed) {
    let engine = bed.engine();
    let (_reader, writer, mut other, _) = pipe(&engine);
    writer.writable().wait().expect("it is empty");
    while writer.write(vec![1; 4096]).nowait().wait().0.is_ok() {}
    let mut writable = writer.writable();
    assert!(poll_once(&mut writable).is_pending(), "it is full");
    let waiting = spawn_park(writable);
    std::thread::sleep(Duration::from_millis(10));
    assert!(!waiting.is_finished());
    other.read_exact(&mut [0; 3 * 4096]).expect("it is full");
    waiting.join().expect("no panic").expect("there is room");
    assert_eq!(writer.write(vec![1; 4096]).nowait().wait().0.expect("there is room"), 4096);
}

pub(crate) fn the_other_end_is_gone(bed: &Bed) {
    let engine = bed.engine();
    let (peer, socket) = support::socket_pair();
    let socket = engine.adopt(socket.into()).expect("a socket");
    let mut readable = socket.readable();
    assert!(poll_once(&mut readable).is_pending());
    let waiting = spawn_park(readable);
    drop(peer);
    waiting.join().expect("no panic").expect("the end can be read");
    socket.writable().wait().expect("a write would fail at once");
    assert_eq!(socket.read(vec![0; 5]).wait().0.expect("the end is no error"), 0);
}

pub(crate) fn what_has_offsets_is_ready(bed: &Bed) {
    let engine = bed.engine();
    let path = bed.make("file", &[0; BLOCK]);
    let file = OpenOptions::new().read(true).open(&engine, &path).expect("it is there");
    file.readable().wait().expect("at once");
    assert_eq!(code(file.writable().wait()), libc::EBADF);
    let dir = OpenOptions::new().read(true).open(&engine, bed.scratch.dir()).expect("a directory");
    assert_eq!(code(dir.readable().wait()), libc::EISDIR);
    bed.assert_served(&engine, &[]);
}

pub(crate) fn closed_while_it_waits(bed: &Bed) {
    let engine = bed.engine();
    let (reader, _, _, _writer) = pipe(&engine);
    let mut readable = reader.readable();
    assert!(poll_once(&mut readable).is_pending());
    let waiting = spawn_park(readable);
    reader.clone().close().wait().expect("it is open");
    assert_eq!(code(waiting.join().expect("no panic")), libc::ECANCELED);
    assert_eq!(code(reader.readable().wait()), libc::EBADF);
}
