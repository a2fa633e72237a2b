//! What a case is given: an engine of its configuration, files to work on, and who is to serve them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use polyaio::{AlignedBuf, Direct, Engine, EngineBuilder, Errno, Error, File, OpenOptions, Policy, Reason, Stats};

use crate::simulation::{self, Disk};
use crate::support::{self, Scratch, assert_bytes, report_skip};
use crate::tools::{Watchdog, one_of_many};
use crate::witness::{self, Witness};

/// A configuration of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// The defaults, and what the environment says.
    Auto,
    /// Kernel AIO preferred.
    KernelAio,
    /// POSIX AIO preferred.
    PosixAio,
    /// The thread pool preferred.
    ThreadPool,
    /// The simulated disk, without faults.
    Simulated,
    /// A backend preferred that does not start: as the defaults, but nothing completes in the caller.
    Missing,
}

/// Through the page cache or past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    Buffered,
    Direct,
}

/// Kinds of work that are routed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A direct read.
    DirectRead,
    /// A direct write to blocks that the file has.
    DirectWrite,
    /// A direct write that makes the file longer, or fills a hole.
    DirectGrow,
    /// A buffered read of what is in the page cache.
    CachedRead,
    /// A buffered write.
    BufferedWrite,
    /// `sync_all`, `sync_data`.
    Sync,
    /// `len`, `set_len`, `allocate`, `close`.
    Meta,
    /// Transfers at the position.
    Serial,
    /// A transfer on a direct file that direct I/O refuses.
    Misaligned,
    /// Appending writes.
    Append,
    /// A transfer on a pipe, socket, eventfd or timerfd.
    Stream,
    /// A transfer on a FIFO or terminal, which know no NOWAIT.
    Tty,
}

const KERNEL: &str = "kernel-aio";
pub(crate) const POSIX: &str = "posix-aio";
const POOL: &str = "thread-pool";
const SIMULATED: &str = "simulated";
const INLINE: &str = "inline";
const WORKERS: &str = "stream-workers";

/// Who serves what: for a preferred backend, everything that it does not serve itself is an exception.
fn server(setup: Setup, what: What) -> &'static str {
    match (setup, what) {
        // Nobody waits inside a stream's system call.
        (_, What::Stream) => INLINE,
        // Nor does a thread that the disk needs.
        (_, What::Tty) => WORKERS,
        // Nobody else knows its files.
        (Setup::Simulated, _) => SIMULATED,
        // No asynchronous interface has these.
        (_, What::Meta | What::Serial) => POOL,
        (_, What::Misaligned) => POOL,
        // It would move the position.
        (Setup::PosixAio, What::Append) if witness::MUSL => POOL,
        // Blocks threads of its own, so that any file with offsets will do.
        (Setup::PosixAio, _) => POSIX,
        // These would block the submitter.
        (_, What::Append | What::BufferedWrite | What::DirectGrow) => POOL,
        (Setup::ThreadPool, _) | (Setup::Missing, What::CachedRead) => POOL,
        // Cheaper than any backend.
        (Setup::Auto, What::CachedRead) => INLINE,
        (_, What::DirectRead | What::DirectWrite | What::CachedRead | What::Sync) => KERNEL,
    }
}

/// The table as text.
pub(crate) fn table() -> String {
    use What::*;
    let all = [
        DirectRead,
        DirectWrite,
        DirectGrow,
        CachedRead,
        BufferedWrite,
        Misaligned,
        Sync,
        Meta,
        Serial,
        Append,
        Stream,
        Tty,
    ];
    let row = |what: What| {
        let setups = [Setup::Auto, Setup::KernelAio, Setup::PosixAio, Setup::ThreadPool, Setup::Simulated];
        let [auto, kernel, posix, pool, simulated] = setups.map(|setup| server(setup, what));
        format!("{:<14} {auto:<12} {kernel:<12} {posix:<12} {pool:<12} {simulated}", format!("{what:?}"))
    };
    let head = format!("{:<14} {:<12} {KERNEL:<12} {POSIX:<12} {POOL:<12} {SIMULATED}", "", "auto");
    std::iter::once(head).chain(all.map(row)).collect::<Vec<_>>().join("\n")
}

/// Where a case runs.
pub(crate) struct Bed {
    setup: Setup,
    /// The test's full name.
    pub(crate) name: &'static str,
    pub(crate) scratch: Scratch,
    /// In the place of the scratch directory.
    disk: Option<Disk>,
    media: Vec<Medium>,
    /// Who serves what is certain on a disk's file system only.
    certain: bool,
    posix: Mutex<Witness>,
}

impl Bed {
    /// Runs a case under a watchdog; or skips it, visibly, where the machine lacks its backend.
    pub(crate) fn run(setup: Setup, name: &'static str, case: fn(&Bed)) {
        let _watchdog = Watchdog::new(name);
        if setup == Setup::Simulated && simulation::is_excepted(name) {
            return;
        }
        let kernel = support::kernel_aio();
        if let (Setup::KernelAio, Err(why)) = (setup, &kernel) {
            return report_skip(name, why);
        }
        if let (Setup::PosixAio, Err(why)) = (setup, support::posix_aio()) {
            return report_skip(name, &why);
        }
        if setup == Setup::PosixAio && witness::is_not_asked(name) {
            return;
        }
        let scratch = Scratch::new();
        let mut media = vec![Medium::Buffered];
        let direct = if setup == Setup::Simulated { Ok(()) } else { support::direct_io(scratch.dir()) };
        match direct {
            Ok(()) => media.push(Medium::Direct),
            Err(why) => report_skip(name, &format!("the direct half: {why}")),
        }
        let setup = resolve(setup);
        // POSIX AIO serves alike on every file system; the simulated disk is one by itself.
        let everywhere = matches!(setup, Setup::PosixAio | Setup::Simulated);
        let certain = if everywhere { Ok(()) } else { support::disk_file_system(scratch.dir()).and(kernel) };
        if let Err(why) = &certain {
            report_skip(name, &format!("who served it: {why}"));
        }
        let mut bed =
            Bed { setup, name, scratch, disk: None, media, certain: certain.is_ok(), posix: Mutex::default() };
        one_of_many("served by whom it should be", || {
            (bed.scratch, bed.posix) = (Scratch::new(), Mutex::default());
            bed.disk = (setup == Setup::Simulated).then(|| simulation::disk(&bed.scratch.path(SIMULATED)));
            // From here on only what the case itself skips counts.
            let _ = support::take_skipped();
            let done = catch_unwind(AssertUnwindSafe(|| case(&bed)));
            done.or_else(|why| match why.downcast::<Strayed>() {
                Ok(strayed) => Err(strayed.0),
                Err(defect) => resume_unwind(defect),
            })
        });
        bed.posix.into_inner().expect("no case has panicked").check(setup, name);
    }

    /// As [`assert_served`](Self::assert_served), for transfers that are told how: POSIX AIO knows neither durability nor
    /// priorities, so that others serve them, which is no fallback.
    #[track_caller]
    pub(crate) fn assert_served_as_told(&self, engine: &Engine, work: &[(What, u64)]) {
        if self.setup != Setup::PosixAio {
            return self.assert_served(engine, work);
        }
        let served = engine.stats().served_by();
        assert!(!served.iter().any(|(name, _)| *name == POSIX), "{served:?}");
    }

    /// The preferred backend takes one range of memory per call.
    pub(crate) fn takes_one_range(&self) -> bool {
        self.setup == Setup::PosixAio
    }

    pub(crate) fn media(&self) -> impl Iterator<Item = Medium> {
        self.media.iter().copied()
    }

    /// Threads that the preferred backend has for itself: POSIX AIO's reaper, and those of the C library, 20 at the most,
    /// which have the name of the thread that started them.
    pub(crate) fn reapers(&self) -> usize {
        if self.setup == Setup::PosixAio { 1 + 20 } else { 0 }
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        self.posix.lock().expect("no case has panicked").note_engine();
        // Who serves must not depend on how busy the machine is.
        let builder = Engine::builder().slow_submit(Duration::MAX);
        match self.setup {
            Setup::Auto | Setup::Missing => builder,
            Setup::KernelAio => builder.policy(Policy::Prefer(vec![KERNEL.into()])),
            Setup::PosixAio => builder.policy(Policy::Prefer(vec![POSIX.into()])),
            Setup::ThreadPool => builder.policy(Policy::Prefer(vec![POOL.into()])),
            Setup::Simulated => {
                simulation::add(self.disk.as_ref(), builder).policy(Policy::Prefer(vec![SIMULATED.into()]))
            }
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        let engine = self.builder().build().expect("an engine starts on every machine");
        self.watch(&engine);
        engine
    }

    /// Has the engine asked, when the case is over, whether POSIX AIO has served. [`engine`](Self::engine) does it by itself.
    pub(crate) fn watch(&self, engine: &Engine) {
        if self.setup == Setup::PosixAio {
            self.posix.lock().expect("no case has panicked").watch(self.name, engine);
        }
    }

    /// For a case that ends its engine: asks now.
    pub(crate) fn look(&self, engine: &Engine) {
        if self.setup == Setup::PosixAio {
            self.posix.lock().expect("no case has panicked").look(engine);
        }
    }

    /// A builder that prefers `name`, and then what the configuration prefers.
    pub(crate) fn builder_with(&self, name: &str) -> EngineBuilder {
        self.posix.lock().expect("no case has panicked").leave_to_others();
        let mut names = vec![name.to_owned()];
        match self.setup {
            Setup::Auto | Setup::Missing => {}
            Setup::KernelAio => names.push(KERNEL.into()),
            Setup::PosixAio => names.push(POSIX.into()),
            Setup::ThreadPool => names.push(POOL.into()),
            Setup::Simulated => unreachable!("no other backend serves its files: see the exceptions"),
        }
        Engine::builder().policy(Policy::Prefer(names)).slow_submit(Duration::MAX)
    }

    /// Whether opening needs no worker.
    pub(crate) fn opens_at_once(&self) -> bool {
        self.disk.is_some()
    }

    /// A new file that holds `data`, also on the disk: later direct writes find its blocks allocated.
    pub(crate) fn make(&self, name: &str, data: &[u8]) -> PathBuf {
        if let Some(disk) = &self.disk {
            let path = self.path(name);
            disk.put(&path, data);
            return path;
        }
        let path = self.scratch.file(name, data);
        // Windows wants the right to write for that.
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        opened.and_then(|file| file.sync_all()).expect("a file can be synced");
        path
    }

    /// Where [`make`](Self::make) makes the file of that name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let below = if self.disk.is_some() { self.scratch.path(SIMULATED) } else { self.scratch.path("") };
        below.join(name)
    }

    /// Length of a file in bytes.
    pub(crate) fn len(&self, path: &Path) -> u64 {
        match &self.disk {
            Some(disk) => disk.read(path).expect("there").len() as u64,
            None => std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len(),
        }
    }

    /// What a file holds.
    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        match &self.disk {
            Some(disk) => disk.read(path).expect("there"),
            None => std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }

    /// A file holds just these bytes.
    #[track_caller]
    pub(crate) fn assert_file(&self, path: &Path, want: &[u8]) {
        assert_bytes(path, &self.read(path), want);
    }

    /// Throws a file's pages out of the page cache, where it goes through one.
    pub(crate) fn evict(&self, path: &Path, offset: u64, len: u64) {
        if self.disk.is_none() {
            evict(path, offset, len);
        }
    }

    /// Opens for reading and writing.
    pub(crate) fn open(&self, engine: &Engine, medium: Medium, path: &Path) -> File {
        let direct = if medium == Medium::Direct { Direct::Required } else { Direct::Off };
        if medium == Medium::Direct {
            // A direct write waits for pages in the cache to go, which NOWAIT refuses: kernel AIO would not serve it.
            self.evict(path, 0, 0);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).direct(direct);
        options.open(engine, path).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A file of `data`, open for reading and writing.
    pub(crate) fn file(&self, engine: &Engine, medium: Medium, name: &str, data: &[u8]) -> File {
        self.open(engine, medium, &self.make(name, data))
    }

    /// Checks that just this work was done, and by whom.
    #[track_caller]
    pub(crate) fn assert_served(&self, engine: &Engine, work: &[(What, u64)]) {
        self.look(engine);
        if !self.certain {
            return;
        }
        let mut want = BTreeMap::new();
        for &(what, count) in work.iter().filter(|(_, count)| *count > 0) {
            *want.entry(server(self.setup, what)).or_insert(0) += count;
        }
        let stats = engine.stats();
        let have: BTreeMap<_, _> = stats.served_by().into_iter().collect();
        let mut too_many = None;
        if let Some(quick) = [KERNEL, INLINE].into_iter().find(|name| want.contains_key(name)) {
            // The kernel may answer EAGAIN to NOWAIT for reasons of its own (a page that is locked for a moment). That is
            // served by the pool, and counted; but it must stay the exception.
            let strays = count(&have, POOL).saturating_sub(count(&want, POOL));
            let explained = stats.fallback(Reason::WouldBlock) + stats.inline.misses;
            if strays > 0 && strays <= explained.min(count(&want, quick)) {
                // None where there are few requests, and one of them can be a stray all the same: it is done once more.
                too_many = (strays > (count(&want, quick) + 12) / 20).then_some((strays, count(&want, quick)));
                *want.entry(POOL).or_insert(0) += strays;
                *want.entry(quick).or_insert(0) -= strays;
                want.retain(|_, count| *count > 0);
            }
        }
        assert_eq!(have, want, "served by others than {work:?} should be under {:?}: {stats:#?}", self.setup);
        assert_healthy(&stats);
        if let Some((strays, of)) = too_many {
            // Not `panic!`: it is none yet, and the hook would print it.
            resume_unwind(Box::new(Strayed(format!("{strays} of {of} would have blocked: {stats:#?}"))));
        }
    }
}

/// The kernel has answered EAGAIN to NOWAIT more often than is the exception: why a case is done once more.
struct Strayed(String);

fn count(by: &BTreeMap<&'static str, u64>, name: &str) -> u64 {
    by.get(name).copied().unwrap_or(0)
}

/// Nothing happened that should never happen.
#[track_caller]
pub(crate) fn assert_healthy(stats: &Stats) {
    assert_eq!(stats.anomalies, Default::default(), "{stats:#?}");
}

/// `Auto` becomes what the environment forces.
fn resolve(setup: Setup) -> Setup {
    let forced = std::env::var("POLYAIO_BACKEND").unwrap_or_default();
    match (setup, forced.as_str()) {
        (Setup::Auto, KERNEL) => Setup::KernelAio,
        (Setup::Auto, POSIX) if support::posix_aio().is_ok() => Setup::PosixAio,
        (Setup::Auto, POOL) => Setup::ThreadPool,
        (Setup::Auto, name) if !name.is_empty() && name != "auto" => Setup::Missing,
        _ => setup,
    }
}

impl Medium {
    pub(crate) fn read(self) -> What {
        if self == Self::Direct { What::DirectRead } else { What::CachedRead }
    }

    pub(crate) fn write(self) -> What {
        if self == Self::Direct { What::DirectWrite } else { What::BufferedWrite }
    }
}

/// The unit of direct I/O that every disk accepts.
pub(crate) const BLOCK: usize = 4096;

/// A buffer that is fit for direct I/O.
pub(crate) fn buffer(len: usize) -> AlignedBuf {
    AlignedBuf::zeroed(len, BLOCK)
}

/// The same, with data.
pub(crate) fn filled(data: &[u8]) -> AlignedBuf {
    AlignedBuf::copy_from(data, BLOCK)
}

/// The same, of a file of the operating system; where nothing can be thrown out, nothing depends on it.
#[cfg(not(target_os = "linux"))]
fn evict(_path: &Path, _offset: u64, _len: u64) {}

/// The same, of a file of the operating system.
#[cfg(target_os = "linux")]
fn evict(path: &Path, offset: u64, len: u64) {
    use std::os::fd::AsRawFd as _;
    let file = std::fs::File::open(path).expect("it is there");
    file.sync_all().expect("only clean pages can go");
    // SAFETY: takes no pointer.
    let answer = unsafe { libc::posix_fadvise(file.as_raw_fd(), offset as i64, len as i64, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(answer, 0, "posix_fadvise");
}

/// Reserves space; `false` where the system cannot, and says so.
pub(crate) fn allocate(file: &File, from: u64, len: u64) -> bool {
    match file.allocate(from, len).wait() {
        Ok(()) => true,
        Err(error) => {
            assert!(cfg!(windows) && Errno::of(&error) == Some(Errno(libc::EOPNOTSUPP)), "{error}");
            false
        }
    }
}

/// The error number of an error of the crate.
pub(crate) fn number(error: &Error) -> Option<i32> {
    let code = std::io::Error::from_raw_os_error(error.raw_os_error()?);
    Errno::of(&code).map(|errno| errno.0)
}

/// The error number of a result that must have failed.
#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    let error = result.expect_err("it cannot succeed");
    Errno::of(&error).unwrap_or_else(|| panic!("an error without a number: {error:?}")).0
}
