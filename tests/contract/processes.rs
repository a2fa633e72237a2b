//! Beside other processes, and at the end of one's own.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use polyaio::{AlignedBuf, BufResult, Engine, File, IoBuf as _};

use crate::bed::{BLOCK, Bed, Medium, assert_healthy, buffer, filled};
use crate::support::{self, first_difference, pattern};
use crate::tools::{Begun, Respawn, eventually, join, park_on, poll_once, respawn, respawn_beside, respawn_prepared};

const BLOCKS: usize = 16;

/// One of two processes that work on one file.
struct Side<'a> {
    engine: Engine,
    file: File,
    /// Which of every two blocks it writes when both write.
    parity: usize,
    hears: std::fs::File,
    tells: std::fs::File,
    what: &'a str,
}

impl Side<'_> {
    /// Waits until the other one has come as far.
    fn meet(&mut self) {
        self.tells.write_all(b".").expect("room");
        self.hears.read_exact(&mut [0]).expect("it is open both ways");
    }

    fn write(&self, data: &[u8], blocks: impl Iterator<Item = usize>) {
        let write = |i: usize| self.file.write_all_at(filled(&data[i * BLOCK..][..BLOCK]), (i * BLOCK) as u64);
        let writes = self.engine.block_on(join(blocks.map(write)));
        writes.into_iter().for_each(|BufResult(done, _)| done.expect("room"));
    }

    #[track_caller]
    fn assert_reads(&self, data: &[u8]) {
        let reads = join((0..BLOCKS).map(|i| self.file.read_at(buffer(BLOCK), (i * BLOCK) as u64)));
        for (i, BufResult(n, back)) in self.engine.block_on(reads).into_iter().enumerate() {
            assert_eq!(n.expect("readable"), BLOCK);
            assert_eq!(first_difference(&back, &data[i * BLOCK..][..BLOCK]), None, "{}: block {i} is stale", self.what);
        }
    }

    /// In turns, then both at once.
    fn work(mut self) {
        for round in 0..6u64 {
            for turn in 0..2 {
                let data = pattern(BLOCKS * BLOCK, 4 * round + turn as u64);
                if turn == self.parity {
                    self.write(&data, 0..BLOCKS);
                }
                self.meet();
                self.assert_reads(&data);
                self.meet();
            }
            let data = pattern(BLOCKS * BLOCK, 4 * round + 2);
            self.write(&data, (0..BLOCKS).filter(|i| i % 2 == self.parity));
            self.meet();
            self.assert_reads(&data);
            self.meet();
        }
        assert_healthy(&self.engine.stats());
    }
}

const SHARED: &str = "POLYAIO_TEST_SHARED";
const MEDIUM: &str = "POLYAIO_TEST_MEDIUM";

/// Two processes, one file, through the page cache and past it: what one has written the other reads. When both write at
/// once, they write different pages: open(2) promises no more.
pub(crate) fn direct_and_buffered_in_two(bed: &Bed) {
    let side = |dir: &Path, medium: Medium, parity: usize| {
        let engine = bed.engine();
        let file = bed.open(&engine, medium, &dir.join("file"));
        let pipe = |name: &str| support::open_fifo_writer(&dir.join(name));
        let (hears, tells) = (pipe(["to-0", "to-1"][parity]), pipe(["to-1", "to-0"][parity]));
        Side { engine, file, parity, hears, tells, what: bed.name }
    };
    if let (Some(dir), Ok(medium)) = (std::env::var_os(SHARED), std::env::var(MEDIUM)) {
        let medium = if medium == "Direct" { Medium::Direct } else { Medium::Buffered };
        return side(&PathBuf::from(dir), medium, 1).work();
    }
    let pairs: Vec<_> = bed.media().flat_map(|ours| bed.media().map(move |theirs| (ours, theirs))).collect();
    for (ours, theirs) in pairs {
        let dir = bed.scratch.subdir(&format!("{ours:?}-{theirs:?}"));
        ["to-0", "to-1"].iter().for_each(|name| _ = support::fifo(&dir, name));
        std::fs::write(dir.join("file"), [0; BLOCKS * BLOCK]).expect("room");
        let other = respawn_beside(bed.name, |command| {
            command.env(SHARED, &dir).env(MEDIUM, format!("{theirs:?}"));
        });
        side(&dir, ours, 0).work();
        other.finish().expect_success();
    }
}

const EXIT: &str = "POLYAIO_TEST_EXIT";

/// A process that ends without a word to its engine, with everything in flight: by `exit`, and by the end of `main`.
pub(crate) fn exit_without_clean_up(bed: &Bed) {
    for how in ["exit", "return"] {
        let child = respawn_prepared(bed.name, |command| _ = command.env(EXIT, how));
        match child {
            Respawn::Parent(child) => _ = child.expect_success(),
            Respawn::Child => return leave_everything(bed, &std::env::var(EXIT).expect("set by the parent")),
        }
    }
}

fn leave_everything(bed: &Bed, how: &str) {
    let engine = bed.engine();
    for medium in bed.media() {
        let path = bed.make(&format!("{medium:?}"), &pattern(64 * BLOCK, 1));
        let file = bed.open(&engine, medium, &path);
        // One is over, whoever is to have served something of this.
        file.write_at(filled(&[1; BLOCK]), 0).wait().0.expect("room");
        bed.evict(&path, 0, 0);
        let reads = (0..64).map(|i| Begun::new(file.read_at(buffer(BLOCK), i * BLOCK as u64)));
        let mut reads: Vec<_> = reads.collect();
        reads.iter_mut().for_each(|read| _ = read.again());
        let mut writes: Vec<_> = (0..64).map(|i| file.write_at(filled(&[1; BLOCK]), i * BLOCK as u64)).collect();
        writes.iter_mut().for_each(|write| _ = poll_once(write));
        std::mem::forget((reads, writes, file));
    }
    // Somebody waits for what never comes, on an executor of ours and on a foreign one.
    let (reader, writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let (here, there) = (reader.clone(), engine.clone());
    std::thread::spawn(move || there.block_on(here.read(vec![0; 1])));
    std::thread::spawn(move || park_on(reader.read(vec![0; 1])));
    std::mem::forget((engine, writer));
    if how == "exit" {
        // No destructor will.
        std::fs::remove_dir_all(bed.scratch.dir()).expect("ours");
        std::process::exit(0);
    }
}

/// What a process has: its threads, its descriptors, and the rings of kernel AIO in its memory.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    threads: usize,
    descriptors: Vec<String>,
    rings: usize,
}

impl Holdings {
    fn count() -> Self {
        let names = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten().map(|entry| entry.path());
        // The directory that is read here is gone by now.
        let open = names.filter_map(|fd| Some((std::fs::read_link(&fd).ok()?, fd)));
        let mut descriptors: Vec<_> = open.map(|(to, fd)| format!("{} {}", fd.display(), to.display())).collect();
        descriptors.sort();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
        let rings = maps.lines().filter(|line| line.ends_with("/[aio]")).count();
        Self { threads: std::fs::read_dir("/proc/self/task").expect("/proc").count(), descriptors, rings }
    }
}

/// Uses whatever an engine starts or opens, and leaves some of it unfinished.
fn use_everything(bed: &Bed, engine: &Engine) -> Vec<File> {
    let mut files = Vec::new();
    for medium in bed.media() {
        let path = bed.make(&format!("{medium:?}"), &pattern(64 * BLOCK, 2));
        let file = bed.open(engine, medium, &path);
        bed.evict(&path, 0, 0);
        let reads = park_on(join((0..64).map(|i| file.read_at(buffer(BLOCK), i * BLOCK as u64))));
        reads.into_iter().for_each(|BufResult(n, _)| assert_eq!(n.expect("readable"), BLOCK));
        // Misaligned, on a direct file: it gets a twin.
        let odd: polyaio::Slice<AlignedBuf> = buffer(101).slice(1..101);
        file.write_all_at(odd, 3).wait().0.expect("room");
        file.sync_all().wait().expect("on a disk");
        let mut left: Vec<_> = (0..8).map(|i| Begun::new(file.read_at(buffer(BLOCK), i * BLOCK as u64))).collect();
        left.iter_mut().step_by(2).for_each(|read| _ = read.with_running(polyaio::Op::cancel));
        drop(left);
        files.push(file);
    }
    let (reader, _writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    assert!(poll_once(&mut reader.read(vec![0; 1])).is_pending());
    let path = bed.scratch.path("fifo");
    let path = if path.exists() { path } else { support::fifo(bed.scratch.dir(), "fifo") };
    let mut writer = support::open_fifo_writer(&path);
    let fifo = engine.adopt(support::fifo_reader(&path).into()).expect("a FIFO");
    writer.write_all(b"x").expect("room");
    assert_eq!(fifo.read(vec![0; 1]).wait().0.expect("readable"), 1);
    engine.notification().expect("a descriptor");
    files.push(reader);
    files
}

/// Threads, descriptors and contexts of the kernel: after the engine's end there are as many as before its beginning.
pub(crate) fn nothing_is_left_of_an_engine(bed: &Bed) {
    if let Respawn::Parent(child) = respawn(bed.name) {
        child.expect_success();
        return;
    }
    let before = Holdings::count();
    for round in 0..4 {
        let engine = bed.engine();
        let files = use_everything(bed, &engine);
        bed.look(&engine);
        let meanwhile = Holdings::count();
        assert!(meanwhile.threads > before.threads && meanwhile.descriptors.len() > before.descriptors.len());
        match round {
            0 => drop((files, engine)),
            1 => drop((engine, files)),
            2 => {
                drop(files);
                park_on(engine.shutdown());
            }
            _ => {
                engine
                    .block_on(join(files.into_iter().map(File::close)))
                    .into_iter()
                    .for_each(|done| done.expect("open"));
                drop(engine);
            }
        }
        if round == 2 {
            // Who is told of the end is told by the last thread, while it goes.
            eventually("nothing is left", || Holdings::count().descriptors == before.descriptors);
        }
        let left = Holdings::count();
        assert_eq!((left.descriptors, left.rings), (before.descriptors.clone(), before.rings), "round {round}");
    }
    // The C library keeps its threads for a second, in case it needs them again.
    eventually("all threads are gone", || Holdings::count() == before);
}
