//! Each kind of file: facts, route, and who served it.

/// Every kind of descriptor, against the plain system call.
mod every;
/// The descriptors.
mod makers;

use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::task::Poll;

use polyaio::{
    AlignedBuf, BufResult, Direct, Engine, Error, Facts, File, FileKind, FileSystem, OpenOptions, Policy, Reason, Why,
};

use crate::support::{
    self, LoopDevice, Scratch, disk_file_system, image, kernel_aio, overlayfs, pattern, ramfs, require,
};
use crate::tools::{Respawn, Watchdog, poll_once, respawn_by, spawn_park};
use crate::{BLOCK, INLINE, KERNEL, POOL, WORKERS, assert_route, auto, engines, exercise, names, open, prefer, served};

#[test]
fn on_a_disk() {
    let _watchdog = Watchdog::new("routing: on_a_disk");
    require!(kernel_aio());
    let scratch = Scratch::new();
    require!(disk_file_system(scratch.dir()));
    let (direct, buffered) = (scratch.path("direct"), scratch.path("buffered"));
    let engine = auto();
    let file = open(&engine, &direct, Direct::Required);
    assert!(file.facts().direct && file.facts().alignment.is_some() && file.facts().seekable);
    assert_route(&file, &[KERNEL, POOL], &[KERNEL, POOL], &[KERNEL, POOL]);
    assert_eq!(file.route().read[0].reason, Why::Direct);
    exercise(&engine, &file);
    let file = open(&engine, &buffered, Direct::Off);
    assert_route(&file, &[INLINE, POOL], &[POOL], &[KERNEL, POOL]);
    assert_eq!(file.route().passed[0].reason, Why::BufferedWouldBlock);
    exercise(&engine, &file);
    let inline = engine.stats().inline;
    assert_eq!(inline.requests + inline.misses, 3, "each read is tried, and what the kernel has at hand is served");
    // Appending always makes the file longer.
    let file = OpenOptions::new().append(true).custom_flags(libc::O_DIRECT).open(&engine, &direct).expect("there");
    assert_route(&file, &[], &[POOL], &[KERNEL, POOL]);

    let engine = prefer(KERNEL);
    let file = open(&engine, &direct, Direct::Required);
    assert_route(&file, &[KERNEL, POOL], &[KERNEL, POOL], &[KERNEL, POOL]);
    let file = open(&engine, &buffered, Direct::Off);
    assert_route(&file, &[KERNEL, POOL], &[POOL], &[KERNEL, POOL]);
    assert_eq!(file.route().read[0].reason, Why::CacheHits);
    exercise(&engine, &file);
    let strays = engine.stats().fallback(Reason::WouldBlock);
    assert_eq!((served(&engine, KERNEL) + strays, served(&engine, INLINE)), (3 + 1, 0));
    assert!(strays < 3, "what was written just now is at hand: {:#?}", engine.stats());

    let engine = prefer(POOL);
    for (path, how) in [(&direct, Direct::Required), (&buffered, Direct::Off)] {
        let file = open(&engine, path, how);
        assert_eq!(names(&file.route().read)[0], POOL);
        assert_eq!(names(&file.route().write)[0], POOL);
        assert_eq!(names(&file.route().sync)[0], POOL);
        exercise(&engine, &file);
    }
    assert_eq!(engine.stats().served_by(), [(POOL, 2 * (16 + 1 + 3))]);
}

#[test]
fn on_tmpfs() {
    let _watchdog = Watchdog::new("routing: on_tmpfs");
    let scratch = require!(Scratch::in_memory());
    in_memory(scratch.dir(), FileSystem::Tmpfs);
}

#[test]
fn on_ramfs() {
    let _watchdog = Watchdog::new("routing: on_ramfs");
    let scratch = Scratch::new();
    let mount = require!(ramfs(&scratch.path("ramfs")));
    in_memory(mount.dir(), FileSystem::Ramfs);
}

/// What lies in memory completes in the caller, up to a size; a policy that names a backend wants that backend.
fn in_memory(dir: &Path, file_system: FileSystem) {
    let engine = auto();
    let file = open(&engine, &dir.join("file"), Direct::Off);
    assert_eq!(file.facts().file_system, file_system);
    let swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    if file_system == FileSystem::Ramfs || !swap {
        assert_eq!((names(&file.route().read)[0], names(&file.route().write)[0]), (INLINE, INLINE));
        assert_eq!(file.route().write[0].reason, Why::InlineMemory);
        exercise(&engine, &file);
        assert_eq!(engine.stats().inline.requests, 16 + 3);
        let large = vec![1; 1 << 20];
        file.write_all_at(large, 0).wait().0.expect("room");
        assert_eq!(served(&engine, INLINE), 16 + 3, "too large to be done in between");
    }
    let engine = prefer(POOL);
    let file = open(&engine, &dir.join("file"), Direct::Off);
    exercise(&engine, &file);
    assert_eq!(engine.stats().inline.requests, 0, "{}", file.route());
}

#[test]
fn on_overlayfs() {
    let _watchdog = Watchdog::new("routing: on_overlayfs");
    let scratch = Scratch::new();
    let mount = require!(overlayfs(scratch.dir()));
    for engine in engines() {
        for direct in [Direct::Off, Direct::Preferred] {
            let file = open(&engine, &mount.path(&format!("{direct:?}")), direct);
            assert_eq!(file.facts().file_system, FileSystem::Overlay);
            exercise(&engine, &file);
        }
    }
}

#[test]
fn on_file_system_images() {
    let _watchdog = Watchdog::new("routing: on_file_system_images");
    for (kind, file_system) in [("ext4", FileSystem::Ext4), ("xfs", FileSystem::Xfs), ("btrfs", FileSystem::Btrfs)] {
        let scratch = Scratch::new();
        let mount = match image(scratch.dir(), kind) {
            Ok(mount) => mount,
            Err(why) => {
                support::report_skip(&format!("routing::on_file_system_images {kind}"), &why);
                continue;
            }
        };
        for engine in engines() {
            for direct in [Direct::Off, Direct::Preferred] {
                let file = open(&engine, &mount.path(&format!("{direct:?}")), direct);
                assert_eq!(file.facts().file_system, file_system);
                assert_eq!(file.facts().direct, direct == Direct::Preferred, "{kind} has direct I/O");
                exercise(&engine, &file);
            }
        }
    }
}

#[test]
fn on_a_block_device() {
    let _watchdog = Watchdog::new("routing: on_a_block_device");
    require!(kernel_aio());
    let scratch = Scratch::new();
    let device = require!(LoopDevice::new(scratch.dir(), "disk", 1 << 20));
    let engine = auto();
    let mut options = OpenOptions::new();
    options.read(true).write(true).direct(Direct::Required);
    let file = options.open(&engine, device.path()).expect("a block device has direct I/O");
    assert_eq!(file.facts().kind, FileKind::Block);
    assert_route(&file, &[KERNEL, POOL], &[KERNEL, POOL], &[KERNEL, POOL]);
    assert_eq!(file.len().wait().expect("a device has a length"), 1 << 20);
    exercise(&engine, &file);
    let BufResult(n, _) = file.read_at(AlignedBuf::zeroed(BLOCK, BLOCK), 1 << 20).wait();
    assert_eq!(n.expect("the end is no error"), 0);
    let buffered = options.direct(Direct::Off).open(&engine, device.path()).expect("a block device");
    assert_eq!(names(&buffered.route().write), [POOL]);
    exercise(&engine, &buffered);
}

/// Streams are waited for and served in the caller; nobody's submission blocks.
#[test]
fn streams() {
    let _watchdog = Watchdog::new("routing: streams");
    let scratch = Scratch::new();
    let fifo = support::fifo(scratch.dir(), "fifo");
    let _other_end = support::open_fifo_writer(&fifo);
    for engine in engines() {
        let adopt = |fd: OwnedFd| engine.adopt(fd).expect("any open descriptor");
        let ((reader, writer), (socket, _peer)) = (support::pipe(), support::socket_pair());
        // SAFETY: both descriptors are new and nobody else's.
        let (event, timer) = unsafe {
            let event = OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC));
            (event, OwnedFd::from_raw_fd(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)))
        };
        let fifo = std::fs::File::open(&fifo).expect("it has a writer");
        let zero = std::fs::File::open("/dev/null").expect("/dev/null");
        let pty = support::pty();
        let mut table = vec![
            (adopt(reader.into()), FileKind::Pipe),
            (adopt(writer.into()), FileKind::Pipe),
            (adopt(socket.into()), FileKind::Socket),
            (adopt(event), FileKind::Anonymous),
            (adopt(timer), FileKind::Anonymous),
            (adopt(fifo.into()), FileKind::Fifo),
        ];
        if let Ok(pty) = pty {
            table.push((adopt(pty.slave), FileKind::Tty));
        }
        for (file, kind) in table {
            let facts: &Facts = file.facts();
            assert_eq!(facts.kind, kind);
            assert!(file.is_stream() && !facts.seekable && !facts.direct && facts.len == 0, "{facts:?}");
            let route = file.route();
            if facts.readable {
                assert_eq!(
                    (names(&route.read), &route.read[0].reason),
                    (vec![INLINE, WORKERS], &Why::Stream),
                    "{kind}"
                );
            }
            assert_eq!(route.write.is_empty(), !facts.writable, "{kind}: {route}");
            assert!(!names(&route.sync).contains(&KERNEL) || !route.to_string().is_empty());
        }
        let device = adopt(zero.into());
        assert_eq!(device.facts().kind, FileKind::CharDevice);
    }
}

/// The flags are shared with other processes. Each is read from once it was waited for, or written to.
#[test]
fn no_stream_changes_its_flags() {
    let _watchdog = Watchdog::new("routing: no_stream_changes_its_flags");
    let scratch = Scratch::new();
    let watched = scratch.file("watched", b"");
    let fifo = support::fifo(scratch.dir(), "fifo");
    let engine = auto();
    let adopt = |fd: OwnedFd| engine.adopt(fd).expect("any open descriptor");
    // SAFETY: the descriptors are new and nobody else's.
    let [event, timer, inotify] = unsafe {
        [
            libc::eventfd(0, libc::EFD_CLOEXEC),
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC),
            libc::inotify_init1(libc::IN_CLOEXEC),
        ]
        .map(|fd| OwnedFd::from_raw_fd(fd))
    };
    watch(&inotify, &watched);
    let (pipe, mut pipe_writer) = support::pipe();
    let (socket, mut peer) = support::socket_pair();
    let mut fifo_writer = support::open_fifo_writer(&fifo);
    let fifo = support::fifo_reader(&fifo);
    let (signal, alarm) = (event.try_clone().expect("a duplicate"), timer.try_clone().expect("a duplicate"));
    type Row = (&'static str, File, Box<dyn FnMut()>, &'static str);
    let mut table: Vec<Row> = vec![
        ("pipe", adopt(pipe.into()), Box::new(move || pipe_writer.write_all(b"data").expect("room")), INLINE),
        ("socket", adopt(socket.into()), Box::new(move || peer.write_all(b"data").expect("room")), INLINE),
        ("FIFO", adopt(fifo.into()), Box::new(move || fifo_writer.write_all(b"data").expect("room")), WORKERS),
        ("eventfd", adopt(event), Box::new(move || ring(&signal)), INLINE),
        ("timerfd", adopt(timer), Box::new(move || set(&alarm)), INLINE),
        ("inotify", adopt(inotify), Box::new(move || std::fs::write(&watched, b"new").expect("room")), WORKERS),
    ];
    match support::pty().and_then(|pty| Ok((pty, support::pty()?))) {
        Ok((mut first, second)) => {
            let mut terminal = std::fs::File::from(second.slave);
            let type_in = move || first.master.write_all(b"data").expect("room");
            table.push(("terminal", adopt(first.slave), Box::new(type_in), WORKERS));
            let show = move || terminal.write_all(b"data").expect("room");
            table.push(("terminal's master", adopt(second.master.into()), Box::new(show), WORKERS));
        }
        Err(why) => support::report_skip("routing::no_stream_changes_its_flags", &why),
    }
    for (name, file, mut make_ready, server) in table {
        let (before, earlier) = (flags(&file), served(&engine, server));
        let mut read = file.read(vec![0; 200]);
        assert!(poll_once(&mut read).is_pending(), "{name}");
        assert_eq!(flags(&file), before, "{name}, while it is waited for");
        make_ready();
        let BufResult(n, _) = read.wait();
        assert!(n.expect("readable") > 0, "{name}");
        assert_eq!((flags(&file), served(&engine, server)), (before, earlier + 1), "{name}");
        if file.facts().writable {
            // A timer has nothing to write to, and says so.
            let BufResult(n, _) = file.write(1_u64.to_ne_bytes().to_vec()).wait();
            assert_eq!(n.ok(), (name != "timerfd").then_some(8), "{name}");
            assert_eq!(flags(&file), before, "{name}, written to");
        }
    }
    let null = OpenOptions::new().read(true).write(true).open(&engine, "/dev/null").expect("/dev/null");
    let before = flags(&null);
    assert_eq!(null.read(vec![0; 8]).wait().0.expect("the end is no error"), 0);
    assert_eq!(null.write(vec![0; 8]).wait().0.expect("room"), 8);
    assert_eq!(flags(&null), before);
}

fn flags(file: &impl AsRawFd) -> i32 {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
}

fn ring(event: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: eight bytes are read from `one`.
    assert_eq!(unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) }, 8);
}

fn set(timer: &OwnedFd) {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = libc::itimerspec { it_interval: zero, it_value: libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 } };
    // SAFETY: `spec` is read during the call.
    assert_eq!(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) }, 0);
}

fn watch(inotify: &OwnedFd, path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL");
    // SAFETY: the path is a C string that outlives the call.
    let watched = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) };
    assert!(watched >= 0, "inotify_add_watch: {}", std::io::Error::last_os_error());
}

/// A policy that requires the pool means its stream workers too; one that requires what serves no streams gets none.
#[test]
fn required_backends_and_streams() {
    let _watchdog = Watchdog::new("routing: required_backends_and_streams");
    let scratch = Scratch::new();
    let fifo = support::fifo(scratch.dir(), "fifo");
    let mut writer = support::open_fifo_writer(&fifo);
    writer.write_all(b"data").expect("room");
    let require = |name: &str| Engine::builder().policy(Policy::Require(name.to_owned())).strict(true).build();
    if let Ok(engine) = require(KERNEL) {
        let file = OpenOptions::new().read(true).open(&engine, &fifo).expect("it has a writer");
        let error = file.read(vec![0; 4]).wait().0.expect_err("it would block the submitter");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert!(matches!(inner, Some(Error::Strict { .. })), "{error:?}");
    }
    let engine = require(POOL).expect("it starts on every machine");
    let file = OpenOptions::new().read(true).open(&engine, &fifo).expect("it has a writer");
    assert_eq!(file.read(vec![0; 4]).wait().0.expect("readable"), 4);
    assert_eq!(engine.stats().served_by(), [(WORKERS, 1)]);
    assert_eq!(names(&file.route().read), [WORKERS]);
    // It is no backend that could be chosen.
    assert!(engine.backends().iter().all(|backend| backend.name != WORKERS));
    let error = require(WORKERS).expect_err("an unknown name");
    assert!(matches!(error, Error::UnknownBackend { .. }) && !error.to_string().contains("stream-workers,"), "{error}");
}

/// A kernel whose pipes know no NOWAIT: everything that streams do, on workers. In a process of its own, under `strace`.
#[test]
fn pipes_without_nowait() {
    const NAME: &str = "kinds::pipes_without_nowait";
    let _watchdog = Watchdog::new("routing: pipes_without_nowait");
    let scratch = Scratch::new();
    let inject = require!(support::Inject::new(scratch.dir(), "preadv2,pwritev2", "error=EOPNOTSUPP"));
    if let Respawn::Parent(child) = respawn_by(NAME, |program| inject.command(program)) {
        child.expect_success();
        assert!(inject.count() > 0, "nothing was tampered with: {}", inject.log());
        return;
    }
    const LEN: usize = 300_000;
    let engine = auto();
    let (reader, writer) = support::pipe();
    let reader = engine.adopt(reader.into()).expect("a pipe");
    let writer = engine.adopt(writer.into()).expect("a pipe");
    let data = pattern(LEN, 4);
    let writing = spawn_park(writer.write_all(data.clone()));
    let mut back = Vec::new();
    let mut dropped = 0;
    while back.len() < LEN {
        // Every third is dropped, as soon as it was asked for or a moment later.
        let mut read = reader.read(vec![0; 1 + (back.len() * 7 + dropped) % 5000]);
        if dropped % 3 != 2 {
            if let Poll::Ready(BufResult(n, piece)) = poll_once(&mut read) {
                back.extend_from_slice(&piece[..n.expect("readable")]);
                continue;
            }
            if dropped % 3 == 1 {
                std::thread::yield_now();
            }
            dropped += 1;
            continue;
        }
        let BufResult(n, piece) = read.wait();
        back.extend_from_slice(&piece[..n.expect("readable")]);
        dropped += 1;
    }
    assert_eq!(support::first_difference(&back, &data), None, "with {dropped} drops");
    writing.join().expect("no panic").0.expect("somebody reads");
    let mut read = reader.read(vec![0; 10]);
    assert!(poll_once(&mut read).is_pending());
    drop(writer);
    assert_eq!(read.wait().0.expect("the end is no error"), 0);
    assert_eq!(served(&engine, INLINE), 0);
    assert!(served(&engine, WORKERS) as usize >= LEN / 4096);
    assert_eq!(names(&reader.route().read), [WORKERS]);
}

/// A path only, and a directory: what cannot carry data.
#[test]
fn what_is_no_file() {
    let _watchdog = Watchdog::new("routing: what_is_no_file");
    use std::os::unix::fs::OpenOptionsExt as _;
    let engine = auto();
    let path = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/").expect("/");
    let error = engine.adopt(path.into()).expect_err("a path only");
    assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
    let directory = engine.adopt(std::fs::File::open("/").expect("/").into()).expect("it can be synced");
    assert_eq!(directory.facts().kind, FileKind::Directory);
    assert!(!directory.is_stream());
}
