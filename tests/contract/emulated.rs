//! The rules of `O_DIRECT` without a device: misalignment is refused as a device refuses it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use polyaio::{AlignedBuf, Alignment, BufResult, Direct, Engine, File, IoBuf as _, OpenOptions, Reason, Slice, Stats};

use crate::bed::{BLOCK, Bed, What, assert_healthy, code};
use crate::support::{self, direct_io, image, long_tests, pattern, require, tmpfs};
use crate::tools::{Begun, join};

fn open(engine: &Engine, path: &Path, alignment: usize) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).direct(Direct::Emulated { alignment });
    options.open(engine, path).unwrap_or_else(|error| panic!("{error}"))
}

fn append(engine: &Engine, path: &Path, alignment: usize) -> File {
    let mut options = OpenOptions::new();
    options.read(true).append(true).direct(Direct::Emulated { alignment });
    options.open(engine, path).unwrap_or_else(|error| panic!("{error}"))
}

/// `len` bytes at an address that is `off` by so many bytes.
fn misplaced(data: &[u8], off: usize, alignment: usize) -> Slice<AlignedBuf> {
    let mut buffer = AlignedBuf::zeroed(off + data.len(), alignment.max(BLOCK));
    buffer[off..].copy_from_slice(data);
    buffer.slice(off..off + data.len())
}

/// It is not a fallback.
#[track_caller]
fn assert_no_fallback(stats: &Stats) {
    for reason in [Reason::Invalid, Reason::Misaligned, Reason::DirectRefused] {
        assert_eq!(stats.fallback(reason), 0, "{stats:#?}");
    }
    assert_healthy(stats);
}

/// Memory, offset and length, each alone, beside aligned ones that are well.
pub(crate) fn each_misalignment_is_refused(bed: &Bed) {
    for alignment in [512, BLOCK, 4 * BLOCK] {
        let engine = bed.engine();
        let data = pattern(8 * alignment, 1);
        let path = bed.make("file", &data);
        let file = open(&engine, &path, alignment);
        let mut ways = vec![(0, 1, alignment), (0, alignment / 2, alignment), (0, 0, alignment - 1), (0, 0, 1)];
        ways.extend([1, 8, 256, 511, alignment / 2, alignment - 1].map(|memory| (memory, 0, alignment)));
        let misaligned = ways.len() as u64;
        for (memory, offset, length) in ways {
            let what = format!("{alignment}: memory + {memory}, offset {offset}, length {length}");
            let good = join((0..8).map(|i| file.read_at(file.buffer(alignment), (i * alignment) as u64)));
            let bad = file.read_at(misplaced(&vec![7; length], memory, alignment), offset as u64);
            let (BufResult(n, back), good) = engine.block_on(async { (bad.await, good.await) });
            assert_eq!(code(n), libc::EINVAL, "{what}");
            assert_eq!(back[..], vec![7; length], "{what}: nothing was transferred");
            for (i, BufResult(n, back)) in good.into_iter().enumerate() {
                assert_eq!(n.expect("aligned"), alignment, "{what}");
                assert_eq!(back[..], data[i * alignment..][..alignment], "{what}");
            }
            let BufResult(n, back) =
                file.write_at(misplaced(&vec![7; length], memory, alignment), offset as u64).wait();
            assert_eq!((code(n), back.len()), (libc::EINVAL, length), "{what}");
            let BufResult(done, _) =
                file.write_all_at(misplaced(&vec![7; length], memory, alignment), offset as u64).wait();
            assert_eq!(code(done), libc::EINVAL, "{what}");
        }
        bed.assert_file(&path, &data);
        bed.assert_served(&engine, &[(What::CachedRead, 8 * misaligned)]);
        assert_no_fallback(&engine.stats());
    }
}

/// The place of these is known only where they run.
pub(crate) fn at_the_position_and_appended(bed: &Bed) {
    const UNIT: usize = 512;
    let engine = bed.engine();
    let data = pattern(4 * UNIT + 100, 1);
    let path = bed.make("file", &data);
    let file = open(&engine, &path, UNIT);
    let seek = |file: &File, to: usize| {
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { libc::lseek(file.as_raw_fd(), to as i64, libc::SEEK_SET) }, to as i64);
    };
    // SAFETY: takes no pointer.
    let position = |file: &File| unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) } as usize;
    for (at, memory, length) in [(0, 1, UNIT), (0, 0, 100), (10, 0, UNIT), (4 * UNIT, 0, 100), (4 * UNIT + 10, 0, UNIT)]
    {
        let what = format!("at {at}, memory + {memory}, length {length}");
        seek(&file, at);
        let BufResult(n, back) = file.read(misplaced(&vec![7; length], memory, UNIT)).wait();
        assert_eq!((code(n), position(&file)), (libc::EINVAL, at), "{what}");
        assert_eq!(back[..], vec![7; length], "{what}");
        let BufResult(n, _) = file.write(misplaced(&vec![7; length], memory, UNIT)).wait();
        assert_eq!((code(n), position(&file)), (libc::EINVAL, at), "{what}");
    }
    bed.assert_file(&path, &data);
    // At the end there is nothing to be misaligned for.
    for at in [data.len(), data.len() + 1, 6 * UNIT] {
        seek(&file, at);
        assert_eq!(file.read(misplaced(&[7; 99], 1, UNIT)).wait().0.expect("the end"), 0, "at {at}");
        assert_eq!(file.read_at(misplaced(&[7; 99], 1, UNIT), at as u64).wait().0.expect("the end"), 0, "at {at}");
    }
    seek(&file, UNIT);
    let reads = engine.block_on(join((0..4).map(|_| file.read(file.buffer(1)))));
    let read: Vec<u8> = reads.into_iter().flat_map(|BufResult(n, back)| back[..n.expect("aligned")].to_vec()).collect();
    assert_eq!(read, data[UNIT..], "one after the other, up to the odd end");

    // An odd end takes nothing; once it is even, aligned writes land in order.
    let log = append(&engine, &path, UNIT);
    assert_eq!(code(log.write(log.buffer(1)).wait().0), libc::EINVAL, "the end is odd");
    assert_eq!(code(log.write_at(log.buffer(1), 0).wait().0), libc::EINVAL, "the end is odd");
    log.set_len(4 * UNIT as u64).wait().expect("open for writing");
    assert_eq!(code(log.write_at(log.buffer(1), 1).wait().0), libc::EINVAL, "XFS looks at the offset, though ignored");
    assert_eq!(code(log.write(misplaced(&[1; 100], 0, UNIT)).wait().0), libc::EINVAL);
    let lines: Vec<Vec<u8>> = (0..8).map(|i| pattern(UNIT * (1 + i % 3), 10 + i as u64)).collect();
    let writes = lines.iter().map(|line| log.write_all(misplaced(line, 0, UNIT)));
    engine.block_on(join(writes)).into_iter().for_each(|result| result.0.expect("aligned, and room"));
    bed.assert_file(&path, &[&data[..4 * UNIT], &lines.concat()].concat());
    assert_no_fallback(&engine.stats());
}

/// A device never stops within a block, but a file may: the rest is no mistake of the caller's.
pub(crate) fn the_rest_of_a_short_transfer(bed: &Bed) {
    const ALIGNMENT: usize = 8 * BLOCK;
    let mount = require!(tmpfs(&bed.scratch.path("small"), "size=1m"));
    let (engine, path) = (bed.engine(), mount.path("file"));
    // It is full within a block of the emulated device.
    std::fs::write(mount.path("other"), vec![1; BLOCK]).expect("room");
    std::fs::write(&path, b"").expect("room");
    let room = (1 << 20) - BLOCK;
    let data = pattern(1 << 20, 2);
    let file = open(&engine, &path, ALIGNMENT);
    assert_eq!(code(file.write_all_at(misplaced(&data, 0, ALIGNMENT), 0).wait().0), libc::ENOSPC);
    bed.assert_file(&path, &data[..room]);
    file.set_len(0).wait().expect("open for writing");
    assert_eq!(code(file.write_all(misplaced(&data, 0, ALIGNMENT)).wait().0), libc::ENOSPC);
    bed.assert_file(&path, &data[..room]);
    let log = append(&engine, &path, ALIGNMENT);
    log.set_len(0).wait().expect("open for writing");
    assert_eq!(code(log.write_all(misplaced(&data, 0, ALIGNMENT)).wait().0), libc::ENOSPC);
    bed.assert_file(&path, &data[..room]);
    // The same for reads: what ends within a block has met the end of the file.
    let BufResult(done, back) = log.read_exact_at(log.buffer(data.len()), 0).wait();
    assert_eq!(done.expect_err("it is shorter").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(back[..room], data[..room]);
    assert_healthy(&engine.stats());
}

/// Whoever is inside `read(2)` holds the position of the open file; to look it up is to wait. The caller must not.
pub(crate) fn a_position_in_use_is_not_waited_for(bed: &Bed) {
    let (engine, path) = (bed.engine(), bed.make("file", &pattern(4 * BLOCK, 1)));
    let file = open(&engine, &path, BLOCK);
    let trap = require!(Trap::new());
    let (fd, target) = (file.as_raw_fd(), trap.page.expose_provenance());
    let reader = std::thread::spawn(move || {
        // SAFETY: the page is mapped until this thread was joined.
        unsafe { libc::read(fd, std::ptr::with_exposed_provenance_mut(target), BLOCK) }
    });
    trap.wait_until_entered();
    let mut begun =
        [Begun::new(file.read(file.buffer(1).slice(..100))), Begun::new(file.read(file.buffer(1).slice(..)))];
    for _ in 0..3 {
        let BufResult(n, _) = file.read_at(file.buffer(1), 0).wait();
        assert_eq!(n.expect("nothing else is held up"), BLOCK);
        assert!(begun.iter_mut().all(Begun::again), "they wait for the position");
    }
    trap.release();
    assert_eq!(reader.join().expect("no panic"), BLOCK as isize);
    let [odd, even] = begun;
    assert_eq!(code(engine.block_on(odd).0), libc::EINVAL, "the position is known by now");
    assert_eq!(engine.block_on(even).0.expect("aligned"), BLOCK);
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }, 2 * BLOCK as i64);
}

/// A page that holds up whoever touches it first, also the kernel: userfaultfd(2).
struct Trap {
    page: *mut u8,
    fault: OwnedFd,
}

impl Trap {
    fn new() -> Result<Self, String> {
        // `_IOWR(0xAA, 0x3f, struct uffdio_api)` and `_IOWR(0xAA, 0x00, struct uffdio_register)` of linux/userfaultfd.h.
        const UFFDIO_API: u64 = 0xc018_aa3f;
        const UFFDIO_REGISTER: u64 = 0xc020_aa00;
        let failed = |what: &str| format!("{what}: {}", io::Error::last_os_error());
        // SAFETY: maps a page of its own; the structures have the layouts that the kernel expects of them.
        unsafe {
            let fault = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
            if fault < 0 {
                return Err(failed("userfaultfd"));
            }
            let fault = OwnedFd::from_raw_fd(fault as RawFd);
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let page: *mut u8 = libc::mmap(std::ptr::null_mut(), BLOCK, access, flags, -1, 0).cast();
            assert_ne!(page.cast(), libc::MAP_FAILED);
            let trap = Self { page, fault };
            let (mut api, mut range) = ([0xaa_u64, 0, 0], [page.addr() as u64, BLOCK as u64, 1, 0]);
            if libc::ioctl(trap.fault.as_raw_fd(), UFFDIO_API as _, &raw mut api) != 0
                || libc::ioctl(trap.fault.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut range) != 0
            {
                return Err(failed("userfaultfd"));
            }
            Ok(trap)
        }
    }

    fn wait_until_entered(&self) {
        let mut poll = libc::pollfd { fd: self.fault.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, for the time of the call.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 20_000) }, 1, "nobody has touched the page");
    }

    /// Lets go whoever is held up; the page reads as zeroes until it is written.
    fn release(&self) {
        // `_IOWR(0xAA, 0x04, struct uffdio_zeropage)`.
        const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;
        let mut range = [self.page.addr() as u64, BLOCK as u64, 0, 0];
        // SAFETY: as in `new`.
        assert_eq!(unsafe { libc::ioctl(self.fault.as_raw_fd(), UFFDIO_ZEROPAGE as _, &raw mut range) }, 0);
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        // SAFETY: the page is ours, and nobody is held up by it any more.
        unsafe { libc::munmap(self.page.cast(), BLOCK) };
    }
}

// ----- the same as a device --------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Read,
    Write,
    Append,
    ReadHere,
    WriteHere,
    AppendHere,
}

/// One transfer, and the file that it meets.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    call: Call,
    /// Length of the file.
    len: usize,
    /// How far the memory is off.
    memory: usize,
    offset: usize,
    length: usize,
}

type Answer = Result<usize, i32>;

impl Call {
    const ALL: [Self; 6] = [Self::Read, Self::Write, Self::Append, Self::ReadHere, Self::WriteHere, Self::AppendHere];

    fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadHere)
    }

    fn appends(self) -> bool {
        matches!(self, Self::Append | Self::AppendHere)
    }

    fn is_here(self) -> bool {
        matches!(self, Self::ReadHere | Self::WriteHere | Self::AppendHere)
    }
}

impl Transfer {
    /// All that the rules may tell apart.
    fn all(call: Call, len: usize, unit: usize) -> Vec<Self> {
        let mut offsets =
            vec![0, 1, unit / 2, unit, len, len + 1, len.next_multiple_of(unit), 16 * unit, 16 * unit + 1];
        offsets.sort_unstable();
        offsets.dedup();
        let mut all = Vec::new();
        for memory in [0, 1, 256, 511] {
            for &offset in &offsets {
                let lengths = [0, 1, unit - 1, unit, unit + 1, 4 * unit, 9 * unit + 1];
                all.extend(lengths.map(|length| Self { call, len, memory, offset, length }));
            }
        }
        all
    }

    /// The plain system call on a descriptor with `O_DIRECT`.
    fn plain(&self, fd: RawFd, memory: &mut AlignedBuf) -> Answer {
        let range = &mut memory[self.memory..self.memory + self.length];
        let (base, at) = (range.as_mut_ptr(), self.offset as libc::off_t);
        // SAFETY: the range is ours during the call.
        let n = unsafe {
            if self.call.is_here() {
                assert_eq!(libc::lseek(fd, at, libc::SEEK_SET), at);
            }
            match self.call {
                Call::Read => libc::pread(fd, base.cast(), self.length, at),
                Call::ReadHere => libc::read(fd, base.cast(), self.length),
                Call::Write | Call::Append => libc::pwrite(fd, base.cast(), self.length, at),
                Call::WriteHere | Call::AppendHere => libc::write(fd, base.cast(), self.length),
            }
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// The same by the library, with the rules emulated.
    fn emulated(&self, file: &File, memory: AlignedBuf) -> (Answer, AlignedBuf) {
        let part = memory.slice(self.memory..self.memory + self.length);
        let at = self.offset as u64;
        if self.call.is_here() {
            // SAFETY: takes no pointer.
            unsafe { libc::lseek(file.as_raw_fd(), at as i64, libc::SEEK_SET) };
        }
        let BufResult(n, part) = match self.call {
            Call::Read => file.read_at(part, at).wait(),
            Call::ReadHere => file.read(part).wait(),
            Call::Write | Call::Append => file.write_at(part, at).wait(),
            Call::WriteHere | Call::AppendHere => file.write(part).wait(),
        };
        (n.map_err(|error| error.raw_os_error().expect("an error with a number")), part.into_inner())
    }

    /// Why a file system may serve what the rules refuse.
    fn leniency(&self, file_system: &str, needs: Alignment) -> Option<&'static str> {
        let unit = needs.offset;
        let odd = |n: usize| !n.is_multiple_of(unit);
        let appended = self.call.appends() && odd(self.len);
        let rest_is_even = !odd(self.length) && !appended;
        // The position of an appending descriptor is ignored too.
        let offset_is_even = !odd(self.offset);
        let within_a_page = self.length <= BLOCK;
        if file_system == "btrfs" {
            return Some("goes through the page cache");
        }
        if file_system == "ext4" && self.call.appends() && !offset_is_even && rest_is_even {
            return Some("the offset of what is appended is ignored");
        }
        if self.call.reads() && offset_is_even && self.offset + self.length > self.len.next_multiple_of(BLOCK) {
            return Some("what lies behind the last block is not looked at");
        }
        if !odd(self.memory) || !rest_is_even || !offset_is_even {
            return None;
        }
        if self.memory.is_multiple_of(needs.memory) {
            return Some("the device wants less of the address");
        }
        within_a_page.then_some("the address is not looked at")
    }
}

/// Whatever the rules admit the device admits, with the same count. What it admits beyond them is its own leniency.
pub(crate) fn answers_as_a_device_does(bed: &Bed) {
    require!(direct_io(bed.scratch.dir()));
    let mut places: Vec<(&str, PathBuf)> = Vec::new();
    if support::disk_file_system(bed.scratch.dir()).is_ok() {
        let facts = open(&bed.engine(), &bed.make("look", b""), 512).facts().clone();
        places.push((if facts.file_system == polyaio::FileSystem::Xfs { "xfs" } else { "ext4" }, bed.scratch.path("")));
    }
    let mut mounts = Vec::new();
    for kind in ["xfs", "btrfs"] {
        match image(bed.scratch.dir(), kind) {
            Ok(mount) => mounts.push((kind, mount)),
            Err(why) => support::report_skip(bed.name, &format!("{kind}: {why}")),
        }
    }
    places.extend(mounts.iter().map(|(kind, mount)| (*kind, mount.dir().to_owned())));
    if places.is_empty() {
        return support::report_skip(bed.name, "no file system whose rules are known");
    }
    for (kind, dir) in places {
        for ((call, leniency), count) in compare(bed, kind, &dir) {
            println!("{}: {kind}, {call:?}: {count} misaligned ones are served: {leniency}", bed.name);
        }
    }
}

fn compare(bed: &Bed, kind: &str, dir: &Path) -> BTreeMap<(Call, &'static str), usize> {
    let engine = bed.engine();
    let (real, emulated) = (dir.join("real"), dir.join("emulated"));
    let mut lenient = BTreeMap::new();
    // An even end and an odd one; thousands of calls all the same.
    let lengths: &[usize] =
        if long_tests().is_ok() { &[0, 1, 8 * BLOCK, 8 * BLOCK + 100] } else { &[8 * BLOCK, 8 * BLOCK + 100] };
    for call in Call::ALL {
        for &len in lengths {
            let data = pattern(len, 5);
            let make = |path: &Path| std::fs::write(path, &data).expect("room");
            make(&real);
            make(&emulated);
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).append(call.appends()).custom_flags(libc::O_DIRECT);
            let device = options.open(&real).expect("it takes O_DIRECT");
            let needs = engine.adopt(device.try_clone().expect("a descriptor").into()).expect("open").alignment();
            let unit = needs.offset;
            let file = if call.appends() { append(&engine, &emulated, unit) } else { open(&engine, &emulated, unit) };
            let mut memory = AlignedBuf::zeroed(10 * unit + 1024, unit.max(BLOCK));
            for transfer in Transfer::all(call, len, unit) {
                memory.fill(9);
                let want = transfer.plain(device.as_raw_fd(), &mut memory);
                let seen = memory.clone();
                memory.fill(9);
                let have;
                (have, memory) = transfer.emulated(&file, memory);
                let what = format!("{kind}, unit {unit}: {transfer:?}");
                if have == want {
                    // Behind the end of the file a device's read leaves zeroes.
                    let read = if call.reads() { have.unwrap_or(0) } else { transfer.length };
                    let read = transfer.memory..transfer.memory + read;
                    assert_eq!(memory[read.clone()], seen[read], "{what}");
                } else {
                    let why = transfer.leniency(kind, needs);
                    let why = why.unwrap_or_else(|| panic!("{what}: {have:?}, and on the device {want:?}"));
                    assert!(have == Err(libc::EINVAL) && want.is_ok(), "{what}: {have:?}, and on the device {want:?}");
                    *lenient.entry((call, why)).or_insert(0) += 1;
                }
                if have.is_err() {
                    bed.assert_file(&emulated, &data);
                }
                if !call.reads() {
                    if have == want && have.is_ok() {
                        assert!(
                            std::fs::read(&emulated).expect("readable") == std::fs::read(&real).expect("readable"),
                            "{what}"
                        );
                    }
                    // ext4 writes the blocks that the file has, and then refuses the odd rest.
                    if want != Ok(0) && (want.is_ok() || transfer.length > unit) {
                        make(&real);
                    }
                    if have.is_ok_and(|n| n > 0) {
                        make(&emulated);
                    }
                }
            }
        }
    }
    assert_healthy(&engine.stats());
    lenient
}
