use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _};
use polyaio::{Direct, Engine};

use crate::support::{Scratch, pattern};
use crate::tools::{Flag, Held, Numbers, Watchdog, eventually, park_on, transfers};

const BLOCK: usize = 4096;

#[test]
fn what_was_accepted_is_written_after_a_drop() {
    let _watchdog = Watchdog::new("drops::what_was_accepted_is_written_after_a_drop");
    let scratch = Scratch::new();
    // Less room than there are blocks: some are still queued when the adapter is dropped.
    let held = Held::new(transfers(2));
    let engine = crate::engine_with(held.clone());
    let path = scratch.path("file");
    let mut file = crate::open(&engine, &path, Direct::Off).into_async().depth(8).block_size(BLOCK);
    let data = pattern(6 * BLOCK + 99, 1);
    park_on(file.write_all(&data)).expect("accepted");
    drop(file);
    eventually("two are with the backend", || held.held() == 2);
    held.open();
    eventually("all of it is written", || std::fs::read(&path).expect("it is there") == data);
}

/// Dropped at any moment: all that was accepted is in the file, and nothing else.
#[test]
fn dropped_at_random_moments() {
    let _watchdog = Watchdog::new("drops::dropped_at_random_moments");
    let scratch = Scratch::new();
    let engine = Engine::new().expect("an engine starts everywhere");
    let mut numbers = Numbers::new(7);
    for round in 0..100 {
        let path = scratch.path(&format!("file{round}"));
        let direct = if round % 2 == 0 { Direct::Off } else { Direct::Preferred };
        let depth = numbers.below(5);
        let mut file = crate::open(&engine, &path, direct).into_async().depth(depth).block_size(BLOCK);
        let data = pattern(200_000, round);
        let mut accepted = 0;
        for _ in 0..numbers.below(30) {
            let end = data.len().min(accepted + 1 + numbers.below(9000));
            let part = &data[accepted..end];
            match Pin::new(&mut file).poll_write(&mut Context::from_waker(Waker::noop()), part) {
                Poll::Ready(n) => accepted += n.expect("room"),
                Poll::Pending => std::thread::yield_now(),
            }
        }
        drop(file);
        eventually("what was accepted is written", || std::fs::read(&path).expect("it is there") == data[..accepted]);
    }
}

/// A reader and a writer of one adapter may be two tasks: what the one polls must not make the other sleep for ever.
#[test]
fn two_tasks_are_both_woken() {
    let scratch = Scratch::new();
    let held = Held::new(transfers(100));
    let engine = crate::engine_with(held.clone());
    let mut file = crate::open(&engine, &scratch.path("file"), Direct::Off).into_async().depth(0).block_size(BLOCK);
    let (writer, reader) = (Flag::new(), Flag::new());
    let wakers = [&writer, &reader].map(|flag| Waker::from(flag.clone()));
    let mut write = |waker: &Waker| Pin::new(&mut file).poll_write(&mut Context::from_waker(waker), &[1; BLOCK]);
    assert!(write(&wakers[0]).is_ready() && write(&wakers[0]).is_pending());
    let mut byte = [0];
    let mut context = Context::from_waker(&wakers[1]);
    assert!(Pin::new(&mut file).poll_read(&mut context, &mut byte).is_pending());
    let before = (writer.wakes(), reader.wakes());
    held.open();
    eventually("both are woken", || writer.wakes() > before.0 && reader.wakes() > before.1);
}

/// A read that is dropped while it waits has consumed nothing.
#[test]
fn reads_dropped_in_the_middle_lose_nothing() {
    use tokio::io::AsyncReadExt as _;
    let _watchdog = Watchdog::new("drops::reads_dropped_in_the_middle_lose_nothing");
    let scratch = Scratch::new();
    let data = pattern(100_000, 1);
    let engine = Engine::new().expect("an engine starts everywhere");
    let path = scratch.file_on_disk("file", &data);
    let mut file = crate::open(&engine, &path, Direct::Preferred).into_async().depth(2).block_size(BLOCK);
    let mut read = Vec::new();
    let mut buffer = [0; 3000];
    for round in 0.. {
        let mut polls = 0;
        let once = park_on(poll_fn(|context| {
            let polled = Pin::new(&mut Box::pin(file.read(&mut buffer))).as_mut().poll(context);
            polls += 1;
            match polled {
                Poll::Ready(n) => Poll::Ready(Some(n)),
                Poll::Pending if round % 3 == polls => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        }));
        match once {
            None => continue,
            Some(n) if n.as_ref().is_ok_and(|n| *n == 0) => break,
            Some(n) => read.extend_from_slice(&buffer[..n.expect("readable")]),
        }
    }
    assert!(read == data);
}
