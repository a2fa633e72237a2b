//! Pipes, FIFOs, sockets, terminals, standard input and output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use crate::run::{Report, SIZE, aiocp, one_line};
use crate::support::{
    Finished, Scratch, Watched, assert_file, feed, fifo, fifo_reader, first_difference, has_data, is_drained,
    open_fifo_writer, pattern, pipe, pty, require, sha256_hex, socket_pair, tool, try_fifo_writer,
};

/// Runs `aiocp ARGS` with `data` coming in through a pipe.
fn fed(command: &mut Command, data: &[u8]) -> Finished {
    let mut watched = Watched::start(command.stdin(Stdio::piped()));
    let feeding = feed(watched.stdin(), data.to_vec());
    let finished = watched.finish();
    feeding.join().expect("no panic").expect("all of it was read");
    finished
}

/// `cat f | aiocp - out`.
#[test]
fn standard_input_goes_to_a_file() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 30);
    for options in [&["--json"][..], &["--json", "--direct"]] {
        let destination = scratch.path("out");
        let report = Report::of(fed(aiocp(options).arg("-").arg(&destination), &data));
        assert_file(&destination, &data);
        assert_eq!(report.number("bytes"), SIZE as f64);
    }
}

/// `aiocp f -`.
#[test]
fn file_goes_to_standard_output() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 31);
    let source = scratch.file("in", &data);
    for options in [&["--json"][..], &["--json", "--direct"]] {
        let finished = Watched::start(aiocp(options).arg(&source).arg("-")).finish();
        assert_eq!(first_difference(&finished.stdout, &data), None);
        assert_eq!(Report::of(finished).number("bytes"), SIZE as f64);
    }
}

/// `aiocp f - | sha256sum`, with the real one at the end.
#[test]
fn checksum_of_the_output_is_right() {
    let sha256sum = require!(tool("sha256sum"));
    let scratch = Scratch::new();
    let data = pattern(SIZE, 32);
    let (reader, writer) = pipe();
    let sum = Watched::start(Command::new(sha256sum).stdin(reader).stdout(Stdio::piped()));
    let mut copying = aiocp([scratch.file("in", &data).as_os_str(), OsStr::new("-")]);
    let copied = Watched::start(copying.stdout(writer)).finish();
    // The command keeps its end of the pipe, and the reader waits for the last one to close.
    drop(copying);
    copied.expect_success();
    let printed = String::from_utf8(sum.finish().expect_success().stdout).expect("text");
    assert_eq!(printed.split_whitespace().next(), Some(&sha256_hex(&data)[..]));
}

/// `cat f | aiocp - - | cat`.
#[test]
fn pipe_goes_to_pipe() {
    let data = pattern(SIZE, 33);
    let finished = fed(&mut aiocp(["-", "-", "--json"]), &data);
    assert_eq!(first_difference(&finished.stdout, &data), None);
    assert_eq!(Report::of(finished).number("bytes"), SIZE as f64);
}

/// Whoever opened `-` relies on its position: `(head -c 100 >/dev/null; aiocp - out) < f`.
#[test]
fn standard_input_that_is_a_file_is_read_from_its_position() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 42);
    let destination = scratch.path("out");
    let mut stdin = File::open(scratch.file("in", &data)).expect("the source");
    stdin.seek(SeekFrom::Start(100)).expect("a file");
    let mut command = aiocp(["-".as_ref(), destination.as_os_str()]);
    Watched::start(command.stdin(stdin)).finish().expect_success();
    assert_file(&destination, &data[100..]);
}

/// `aiocp f - >> out`, and `(echo -n head; aiocp f -) > out`.
#[test]
fn standard_output_that_is_a_file_is_continued() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 43);
    let source = scratch.file("in", &data);
    for append in [true, false] {
        let destination = scratch.file("out", b"head");
        let mut stdout = File::options().write(!append).append(append).open(&destination).expect("it is there");
        stdout.seek(SeekFrom::End(0)).expect("a file");
        let mut command = aiocp([source.as_os_str(), OsStr::new("-")]);
        Watched::start(command.stdout(stdout)).finish().expect_success();
        assert_file(&destination, &[b"head", &data[..]].concat());
    }
}

/// Data that comes in drops: a stream's short reads are no end of it.
#[test]
fn dribbling_pipe_is_copied_whole() {
    let data = pattern(3_000, 34);
    let mut watched = Watched::start(aiocp(["-", "-"]).stdin(Stdio::piped()));
    let mut stdin = watched.stdin();
    for piece in data.chunks(7) {
        stdin.write_all(piece).expect("a reader");
    }
    drop(stdin);
    assert_eq!(first_difference(&watched.finish().expect_success().stdout, &data), None);
}

/// `aiocp fifo out`, the writer coming later.
#[test]
fn fifo_goes_to_a_file() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 35);
    let (source, destination) = (fifo(scratch.dir(), "fifo"), scratch.path("out"));
    let mut watched = Watched::start(aiocp(["--json"]).arg(&source).arg(&destination));
    let writer = watched.until("opening the FIFO", |_| try_fifo_writer(&source));
    let feeding = feed(writer, data.clone());
    let report = Report::of(watched.finish());
    feeding.join().expect("no panic").expect("all of it was read");
    assert_file(&destination, &data);
    assert_eq!(report.end("source")["kind"], "fifo", "{}", report.json);
}

#[test]
fn file_goes_to_a_fifo() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 36);
    let (source, destination) = (scratch.file("in", &data), fifo(scratch.dir(), "fifo"));
    let mut reader = fifo_reader(&destination);
    let mut watched = Watched::start(aiocp(["--direct"]).arg(source).arg(&destination));
    watched.until("writing to the FIFO", |_| has_data(&reader).then_some(()));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).expect("a FIFO");
    watched.finish().expect_success();
    assert_eq!(first_difference(&got, &data), None);
}

#[test]
fn sockets_are_copied_between() {
    let data = pattern(SIZE, 37);
    let (to_stdin, stdin) = socket_pair();
    let (mut from_stdout, stdout) = socket_pair();
    let mut command = aiocp(["-", "-", "--json"]);
    let watched = Watched::start(command.stdin(OwnedFd::from(stdin)).stdout(OwnedFd::from(stdout)));
    drop(command);
    let feeding = feed(to_stdin, data.clone());
    let mut got = Vec::new();
    from_stdout.read_to_end(&mut got).expect("a socket");
    let report = Report::of(watched.finish());
    feeding.join().expect("no panic").expect("all of it was read");
    assert_eq!(first_difference(&got, &data), None);
    assert_eq!(report.end("source")["kind"], "socket", "{}", report.json);
}

/// By its path: somebody listens there.
#[test]
fn listening_socket_is_connected_to() {
    // The path of a socket has 108 bytes at most, and a clone may lie deep.
    let scratch = Scratch::open_to_all();
    let data = pattern(SIZE, 44);
    let (socket, destination) = (scratch.path("socket"), scratch.path("out"));
    let listener = UnixListener::bind(&socket).expect("a short path");
    listener.set_nonblocking(true).expect("a socket");
    let mut watched = Watched::start(&mut aiocp([&socket, &destination]));
    let (peer, _) = watched.until("connecting", |_| listener.accept().ok());
    let feeding = feed(peer, data.clone());
    watched.finish().expect_success();
    feeding.join().expect("no panic").expect("all of it was read");
    assert_file(&destination, &data);
}

#[test]
fn terminal_takes_the_output() {
    let mut pty = require!(pty());
    let scratch = Scratch::new();
    // More than a terminal's buffer of 4 KiB: the writer has to wait for us.
    let data = pattern(100_000, 38);
    let mut command = aiocp([scratch.file("in", &data).as_os_str(), OsStr::new("-")]);
    let watched = Watched::start(command.stdout(pty.slave));
    drop(command);
    let mut got = vec![0; data.len()];
    pty.master.read_exact(&mut got).expect("all of it");
    watched.finish().expect_success();
    assert_eq!(first_difference(&got, &data), None);
}

/// Progress is for people: a terminal on standard error gets it, a log file does not.
#[test]
fn progress_shows_on_a_terminal_only() {
    let mut pty = require!(pty());
    let scratch = Scratch::new();
    let data = pattern(SIZE, 39);
    let source = scratch.file("in", &data);
    let shown = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // Ends with EIO when the last writer closes.
        let _ = pty.master.read_to_end(&mut shown);
        shown
    });
    let mut command = aiocp([source.as_os_str(), scratch.path("out").as_os_str()]);
    Watched::start(command.stderr(pty.slave).env("TERM", "xterm")).finish().expect_success();
    drop(command);
    let shown = shown.join().expect("no panic");
    assert!(shown.contains(&b'\r') || shown.contains(&b'\x1b'), "no bar: {:?}", String::from_utf8_lossy(&shown));

    let mut command = aiocp([source.as_os_str(), scratch.path("out").as_os_str()]);
    let logged = Watched::start(&mut command).finish().expect_success();
    assert!(!logged.stderr.contains(['\r', '\x1b']), "{logged}");
}

/// Waiting for an idle stream costs no CPU and ends with the stream.
#[test]
fn empty_fifo_ends_in_an_empty_file() {
    let scratch = Scratch::new();
    let (source, destination) = (fifo(scratch.dir(), "fifo"), scratch.path("out"));
    let mut watched = Watched::start(&mut aiocp([&source, &destination]));
    drop(watched.until("opening the FIFO", |_| try_fifo_writer(&source)));
    watched.finish().expect_success();
    assert_file(&destination, &[]);
}

/// The pipe's reader is gone: an error like any other, not a death by SIGPIPE, not a panic, not a hang.
#[test]
fn reader_that_is_gone_is_an_error() {
    let scratch = Scratch::new();
    let source = scratch.file("in", &pattern(SIZE, 40));
    let (reader, writer) = pipe();
    drop(reader);
    let mut command = aiocp([source.as_os_str(), OsStr::new("-")]);
    let finished = Watched::start(command.stdout(writer)).finish().expect_code(1);
    assert!(one_line(&finished).to_lowercase().contains("pipe"), "{finished}");
}

#[test]
fn reader_that_leaves_in_the_middle_is_an_error() {
    let scratch = Scratch::new();
    let data = pattern(SIZE, 41);
    let source = scratch.file("in", &data);
    let (mut reader, writer) = pipe();
    let mut command = aiocp([source.as_os_str(), OsStr::new("-")]);
    let watched = Watched::start(command.stdout(writer));
    drop(command);
    let mut got = vec![0; 1 << 20];
    reader.read_exact(&mut got).expect("the first part");
    drop(reader);
    let finished = watched.finish().expect_code(1);
    assert!(one_line(&finished).to_lowercase().contains("pipe"), "{finished}");
    assert_eq!(first_difference(&got, &data[..1 << 20]), None);
}

/// Held open by us all the time: only a copy that counts its bytes would end, and none may.
#[test]
fn open_fifo_is_waited_for() {
    let scratch = Scratch::new();
    let (source, destination) = (fifo(scratch.dir(), "fifo"), scratch.path("out"));
    let mut writer = open_fifo_writer(&source);
    let mut watched = Watched::start(&mut aiocp([&source, &destination]));
    writer.write_all(b"one").expect("room in the FIFO");
    watched.until("reading", |_| is_drained(&writer).then_some(()));
    writer.write_all(b"two").expect("room in the FIFO");
    drop(writer);
    watched.finish().expect_success();
    assert_file(&destination, b"onetwo");
}
