//! Each front end does the same random reads, writes and seeks as a vector in memory.

use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};

use polyaio::{BlockingFile, Direct, Engine, File};

use crate::support::{Scratch, assert_file, direct_io, pattern, report_skip};
use crate::tools::{Numbers, Watchdog};

/// What a front end can do, in blocking form.
trait Front {
    /// Up to `most` bytes; fewer at the end only.
    fn read(&mut self, most: usize) -> Vec<u8>;
    fn write(&mut self, data: &[u8]);
    fn seek(&mut self, to: SeekFrom) -> Option<u64>;
    fn flush(&mut self);
}

impl Front for BlockingFile {
    fn read(&mut self, most: usize) -> Vec<u8> {
        let mut data = Vec::new();
        self.take(most as u64).read_to_end(&mut data).expect("readable");
        data
    }

    fn write(&mut self, data: &[u8]) {
        self.write_all(data).expect("room");
    }

    fn seek(&mut self, to: SeekFrom) -> Option<u64> {
        std::io::Seek::seek(self, to).ok()
    }

    fn flush(&mut self) {
        std::io::Write::flush(self).expect("room");
    }
}

#[cfg(feature = "futures-io")]
struct Futures(polyaio::AsyncFile);

#[cfg(feature = "futures-io")]
impl Front for Futures {
    fn read(&mut self, most: usize) -> Vec<u8> {
        use futures::AsyncReadExt as _;
        let mut data = Vec::new();
        let read = (&mut self.0).take(most as u64).read_to_end(&mut data).await_here();
        read.expect("readable");
        data
    }

    fn write(&mut self, data: &[u8]) {
        futures::AsyncWriteExt::write_all(&mut self.0, data).await_here().expect("room");
    }

    fn seek(&mut self, to: SeekFrom) -> Option<u64> {
        futures::AsyncSeekExt::seek(&mut self.0, to).await_here().ok()
    }

    fn flush(&mut self) {
        futures::AsyncWriteExt::flush(&mut self.0).await_here().expect("room");
    }
}

#[cfg(feature = "futures-io")]
trait AwaitHere: Future + Sized {
    fn await_here(self) -> Self::Output {
        futures::executor::block_on(self)
    }
}

#[cfg(feature = "futures-io")]
impl<F: Future> AwaitHere for F {}

#[cfg(feature = "tokio-io")]
struct Tokio(polyaio::AsyncFile, tokio::runtime::Runtime);

#[cfg(feature = "tokio-io")]
impl Front for Tokio {
    fn read(&mut self, most: usize) -> Vec<u8> {
        use tokio::io::AsyncReadExt as _;
        let mut data = Vec::new();
        let file = &mut self.0;
        let read = self.1.block_on(async { file.take(most as u64).read_to_end(&mut data).await });
        read.expect("readable");
        data
    }

    fn write(&mut self, data: &[u8]) {
        self.1.block_on(tokio::io::AsyncWriteExt::write_all(&mut self.0, data)).expect("room");
    }

    fn seek(&mut self, to: SeekFrom) -> Option<u64> {
        self.1.block_on(tokio::io::AsyncSeekExt::seek(&mut self.0, to)).ok()
    }

    fn flush(&mut self) {
        self.1.block_on(tokio::io::AsyncWriteExt::flush(&mut self.0)).expect("room");
    }
}

fn somewhere(numbers: &mut Numbers, largest: usize) -> SeekFrom {
    let distance = numbers.below(largest) as i64;
    match numbers.below(5) {
        0 => SeekFrom::Start(distance as u64),
        1 => SeekFrom::Current(distance / 4),
        2 => SeekFrom::Current(-distance / 4),
        3 => SeekFrom::Current(0),
        _ => SeekFrom::End(largest as i64 / 8 - distance),
    }
}

fn compare(front: &mut dyn Front, model: &mut Cursor<Vec<u8>>, seed: u64, steps: usize, what: &str) {
    let mut numbers = Numbers::new(seed);
    for step in 0..steps {
        let len = [1, 100, 511, 512, 4096, 5000, 20_000][numbers.below(7)] + numbers.below(7);
        match numbers.below(10) {
            0..4 => {
                // Several in a row: a window opens.
                for _ in 0..=numbers.below(8) {
                    let mut want = Vec::new();
                    (&mut *model).take(len as u64).read_to_end(&mut want).expect("memory");
                    let have = front.read(len);
                    assert!(have == want, "{what}: step {step}: {} bytes, {} expected", have.len(), want.len());
                }
            }
            4..7 => {
                for part in 0..=numbers.below(8) {
                    let data = pattern(len, seed * 1_000_000 + (step * 10 + part) as u64);
                    model.write_all(&data).expect("memory");
                    front.write(&data);
                }
            }
            7 => front.flush(),
            _ => {
                let to = somewhere(&mut numbers, 200_000);
                assert_eq!(front.seek(to), model.seek(to).ok(), "{what}: step {step}: {to:?}");
            }
        }
    }
    front.flush();
}

/// Runs `front` for each depth, block size and medium.
fn against_a_model(name: &str, front: impl Fn(File, usize, usize) -> Box<dyn Front>) {
    let _watchdog = Watchdog::new(name);
    let scratch = Scratch::new();
    let mut media = vec![Direct::Off];
    match direct_io(scratch.dir()) {
        Ok(()) => media.push(Direct::Required),
        Err(why) => report_skip(name, &format!("the direct half: {why}")),
    }
    let engine = Engine::new().expect("an engine starts everywhere");
    for direct in media {
        for (seed, (depth, block)) in (1..).zip([(0, 4096), (1, 1), (2, 8192), (3, 6144), (8, 4096), (5, 65_536)]) {
            let what = format!("{direct:?}, depth {depth}, blocks of {block}");
            let data = pattern(50_000, seed);
            let path = scratch.file(&what, &data);
            let mut model = Cursor::new(data);
            let mut front = front(crate::open(&engine, &path, direct), depth, block);
            // Tiny blocks are slow, and writes of direct files too.
            let steps = if block == 1 && direct == Direct::Off { 10 } else { 60 };
            compare(&mut *front, &mut model, seed, steps, &what);
            drop(front);
            assert_file(&path, model.get_ref());
        }
    }
    assert_eq!(engine.stats().anomalies, Default::default());
}

#[test]
fn blocking() {
    against_a_model("random::blocking", |file, depth, block| Box::new(file.blocking().depth(depth).block_size(block)));
}

#[cfg(feature = "futures-io")]
#[test]
fn futures_io() {
    against_a_model("random::futures_io", |file, depth, block| {
        Box::new(Futures(file.into_async().depth(depth).block_size(block)))
    });
}

#[cfg(feature = "tokio-io")]
#[test]
fn tokio_io() {
    against_a_model("random::tokio_io", |file, depth, block| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads");
        Box::new(Tokio(file.into_async().depth(depth).block_size(block), runtime))
    });
}

/// Writes go to the end, wherever the position was, and it follows them.
#[test]
fn appending() {
    let scratch = Scratch::new();
    let path = scratch.file("log", b"begin ");
    let engine = Engine::new().expect("an engine starts everywhere");
    let file = polyaio::OpenOptions::new().read(true).append(true).open(&engine, &path).expect("it is there");
    let mut file = file.blocking().block_size(4096).depth(3);
    let data = pattern(100_000, 1);
    file.write_all(&data).expect("room");
    assert_eq!(file.stream_position().expect("a file"), 100_006);
    file.rewind().expect("a file");
    assert_eq!(Front::read(&mut file, 6), b"begin ");
    file.write_all(b" end").expect("room");
    assert_eq!(Front::read(&mut file, 10), b"", "behind what was appended");
    drop(file);
    assert_file(&path, &[b"begin ", &data[..], b" end"].concat());
}

/// What is read ahead does not hide what the file has become by the time its end is reached.
#[test]
fn a_growing_file_is_read_to_its_end() {
    let scratch = Scratch::new();
    let path = scratch.file("log", &pattern(10_000, 1));
    let engine = Engine::new().expect("an engine starts everywhere");
    let mut file = crate::open(&engine, &path, Direct::Off).blocking().block_size(4096).depth(8);
    let mut first = vec![0; 4097];
    file.read_exact(&mut first).expect("there is more");
    // By now everything up to the old end may have been read ahead.
    let mut log = std::fs::File::options().append(true).open(&path).expect("it is there");
    log.write_all(&pattern(10_000, 2)).expect("room");
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).expect("readable");
    assert_eq!(first.len() + rest.len(), 20_000);
    assert!(rest.ends_with(&pattern(10_000, 2)));
    assert_eq!(Front::read(&mut file, 10), b"");
    log.write_all(b"more").expect("room");
    assert_eq!(Front::read(&mut file, 10), b"more");
}
