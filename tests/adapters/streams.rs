use std::io::{BufRead as _, Read as _, Seek as _, Write as _};

use polyaio::Engine;

use crate::support::{pattern, pipe};
use crate::tools::Watchdog;

#[test]
fn no_more_is_taken_than_was_asked_for() {
    let engine = Engine::new().expect("an engine starts everywhere");
    let (mut reader, mut writer) = pipe();
    writer.write_all(b"abcdefgh").expect("room");
    let mut end = engine.adopt(reader.try_clone().expect("a descriptor").into()).expect("a pipe").blocking();
    end.read_exact(&mut [0; 3]).expect("data");
    assert_eq!(end.stream_position().expect_err("a pipe").raw_os_error(), Some(libc::ESPIPE));
    drop(end);
    let mut next = [0; 2];
    reader.read_exact(&mut next).expect("data");
    assert_eq!(&next, b"de");
    // A buffered read takes more, and gives it back.
    let mut end = engine.adopt(reader.into()).expect("a pipe").blocking();
    assert_eq!(end.fill_buf().expect("data"), b"fgh");
    end.consume(1);
    assert_eq!(end.into_inner().1, b"gh");
}

#[test]
fn a_pipe_from_thread_to_thread() {
    let _watchdog = Watchdog::new("streams::a_pipe_from_thread_to_thread");
    let engine = Engine::new().expect("an engine starts everywhere");
    let (reader, writer) = pipe();
    let mut writer = engine.adopt(writer.into()).expect("a pipe").blocking();
    let data = pattern(1_000_003, 1);
    let sent = data.clone();
    let sender = std::thread::spawn(move || sent.chunks(10_007).try_for_each(|part| writer.write_all(part)));
    let mut received = Vec::new();
    engine.adopt(reader.into()).expect("a pipe").blocking().read_to_end(&mut received).expect("readable");
    sender.join().expect("no panic").expect("somebody reads");
    assert!(received == data);
}

/// What was not accepted is not written, also when the caller comes back with something else.
#[cfg(feature = "futures-io")]
#[test]
fn a_write_that_had_to_wait_is_not_binding() {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use futures::AsyncWrite as _;
    let engine = Engine::new().expect("an engine starts everywhere");
    let (mut reader, writer) = pipe();
    let mut writer = engine.adopt(writer.into()).expect("a pipe").into_async();
    let mut write = |data: &[u8]| Pin::new(&mut writer).poll_write(&mut Context::from_waker(Waker::noop()), data);
    let mut accepted = 0;
    while let Poll::Ready(n) = write(&[b'a'; 4096]) {
        accepted += n.expect("somebody reads");
    }
    assert!(write(&[b'b'; 100]).is_pending());
    reader.read_exact(&mut vec![0; accepted]).expect("data");
    let Poll::Ready(n) = write(&[b'c'; 10]) else { panic!("there is room") };
    assert_eq!(n.expect("somebody reads"), 10);
    let Poll::Ready(n) = write(&[b'd'; 10]) else { panic!("there is room") };
    assert_eq!(n.expect("somebody reads"), 10);
    drop(writer);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("readable");
    assert_eq!(rest, "ccccccccccdddddddddd");
}

#[cfg(feature = "tokio-io")]
#[test]
fn a_socket_is_copied_both_ways_to_its_end() {
    let _watchdog = Watchdog::new("streams::a_socket_is_copied_both_ways_to_its_end");
    let engine = Engine::new().expect("an engine starts everywhere");
    let ((near, a), (b, far)) = (crate::support::socket_pair(), crate::support::socket_pair());
    let adopt = |socket: std::os::unix::net::UnixStream| engine.adopt(socket.into()).expect("a socket").into_async();
    let (mut a, mut b) = (adopt(a), adopt(b));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads");
    let echo = std::thread::spawn(move || {
        let mut received = Vec::new();
        (&far).read_to_end(&mut received).expect("readable");
        (&far).write_all(&received).expect("somebody reads");
    });
    let data = pattern(300_000, 1);
    let client = {
        let data = data.clone();
        std::thread::spawn(move || {
            (&near).write_all(&data).expect("somebody reads");
            near.shutdown(std::net::Shutdown::Write).expect("a socket");
            let mut echoed = Vec::new();
            (&near).read_to_end(&mut echoed).expect("readable");
            echoed
        })
    };
    let copied = runtime.block_on(tokio::io::copy_bidirectional(&mut a, &mut b)).expect("both ends are there");
    assert_eq!(copied, (300_000, 300_000));
    assert!(client.join().expect("no panic") == data);
    echo.join().expect("no panic");
}
