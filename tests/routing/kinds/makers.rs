//! One descriptor of each kind that Linux has, as far as this machine lets a test have it.

use std::any::Any;
use std::ffi::CStr;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::support::{self, LoopDevice, Mount, Scratch, image, overlayfs, pattern, ramfs};

/// A descriptor, what has to live as long as it, and what is written to it.
pub(super) struct Made {
    pub(super) fd: OwnedFd,
    pub(super) payload: Vec<u8>,
    _keep: Vec<Box<dyn Any>>,
}

impl Made {
    fn new(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: fd.into(), payload: b"x".to_vec(), _keep: Vec::new() }
    }

    fn with(mut self, keep: impl Any) -> Self {
        self._keep.push(Box::new(keep));
        self
    }

    fn writing(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }
}

pub(super) type Making = Result<Made, String>;

/// Mounts and devices that all kinds share; what this machine does not let us have says why.
pub(super) struct Places {
    scratch: Scratch,
    ramfs: Result<Mount, String>,
    overlay: Result<Mount, String>,
    xfs: Result<Mount, String>,
    btrfs: Result<Mount, String>,
    tracefs: Result<Mount, String>,
    /// One for each way: direct and buffered transfers that meet on one are reported by the next sync, as `EIO`.
    devices: [Result<LoopDevice, String>; 2],
}

impl Places {
    pub(super) fn new() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.dir();
        Self {
            ramfs: ramfs(&dir.join("ramfs")),
            overlay: overlayfs(dir),
            xfs: image(dir, "xfs"),
            btrfs: image(dir, "btrfs"),
            tracefs: Mount::new(c"tracefs", &dir.join("tracefs"), "tracefs", ""),
            devices: ["buffered.img", "direct.img"].map(|name| LoopDevice::new(dir, name, 1 << 20)),
            scratch,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }
}

type Make = fn(&Places) -> Making;

/// All of them.
pub(super) const KINDS: &[(&str, Make)] = &[
    ("file", |places| regular(&places.path("file"), 0)),
    ("file, direct", |places| regular(&places.path("direct"), libc::O_DIRECT)),
    ("file, appending", |places| regular(&places.path("appending"), libc::O_APPEND)),
    ("file, O_SYNC", |places| regular(&places.path("synchronous"), libc::O_SYNC)),
    ("file, O_NONBLOCK", |places| regular(&places.path("nonblocking"), libc::O_NONBLOCK)),
    ("file, read-only", |places| {
        regular(&places.path("read-only"), 0)?;
        open_path(&places.path("read-only"), libc::O_RDONLY)
    }),
    ("file, write-only", |places| {
        regular(&places.path("write-only"), 0)?;
        open_path(&places.path("write-only"), libc::O_WRONLY)
    }),
    ("file, deleted", |places| {
        let made = regular(&places.path("deleted"), 0)?;
        std::fs::remove_file(places.path("deleted")).map_err(|error| error.to_string())?;
        Ok(made)
    }),
    ("file, O_TMPFILE", |places| {
        open_path(places.scratch.dir(), libc::O_TMPFILE | libc::O_RDWR).map(|made| made.writing(block()))
    }),
    ("file, tmpfs", |_| open("/dev/shm", libc::O_TMPFILE | libc::O_RDWR)),
    ("file, tmpfs, direct", |_| open("/dev/shm", libc::O_TMPFILE | libc::O_RDWR | libc::O_DIRECT)),
    ("file, ramfs", |places| on(&places.ramfs, 0)),
    ("file, overlayfs", |places| on(&places.overlay, 0)),
    ("file, overlayfs, direct", |places| on(&places.overlay, libc::O_DIRECT)),
    ("file, XFS", |places| on(&places.xfs, 0)),
    ("file, XFS, direct", |places| on(&places.xfs, libc::O_DIRECT)),
    ("file, btrfs", |places| on(&places.btrfs, 0)),
    ("file, btrfs, direct", |places| on(&places.btrfs, libc::O_DIRECT)),
    ("proc, one value", |_| open("/proc/sys/kernel/ostype", libc::O_RDONLY)),
    ("proc, stat", |_| open("/proc/self/stat", libc::O_RDONLY)),
    ("proc, pollable", |_| open("/proc/self/mountinfo", libc::O_RDONLY)),
    ("proc, memory", |_| open("/proc/self/mem", libc::O_RDONLY)),
    ("sysfs", |_| open("/sys/kernel/mm/transparent_hugepage/enabled", libc::O_RDONLY)),
    ("tracefs, waits", |places| {
        let mount = places.tracefs.as_ref().map_err(Clone::clone)?;
        open_path(&mount.path("trace_pipe"), libc::O_RDONLY)
    }),
    ("memfd", |_| memfd(0).map(|made| made.writing(block()))),
    ("memfd, sealed", |_| {
        let made = memfd(libc::MFD_ALLOW_SEALING)?;
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK;
        // SAFETY: takes no pointer.
        call(unsafe { libc::fcntl(made.fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Ok(made)
    }),
    ("memfd, secret", |_| {
        // SAFETY: takes no pointer.
        adopted(unsafe { libc::syscall(libc::SYS_memfd_secret, 0) })
    }),
    ("memfd, huge pages", |_| memfd(libc::MFD_HUGETLB)),
    ("directory", |places| open_path(places.scratch.dir(), libc::O_RDONLY | libc::O_DIRECTORY)),
    ("path only", |_| open("/", libc::O_PATH)),
    ("symlink only", |_| open("/proc/self", libc::O_PATH | libc::O_NOFOLLOW)),
    ("block device", |places| device(places, 0)),
    ("block device, direct", |places| device(places, libc::O_DIRECT)),
    ("/dev/null", |_| open("/dev/null", libc::O_RDWR)),
    ("/dev/zero", |_| open("/dev/zero", libc::O_RDWR)),
    ("/dev/full", |_| open("/dev/full", libc::O_RDWR)),
    ("/dev/urandom", |_| open("/dev/urandom", libc::O_RDWR)),
    ("/dev/random", |_| open("/dev/random", libc::O_RDONLY)),
    ("/dev/kmsg, its end", |_| {
        let made = open("/dev/kmsg", libc::O_RDONLY)?;
        // SAFETY: takes no pointer. The log is the machine's, and stays as it is: nothing is written.
        call(unsafe { libc::lseek(made.fd.as_raw_fd(), 0, libc::SEEK_END) } as i32)?;
        Ok(made)
    }),
    // A record that is too long is refused: nothing is logged.
    ("/dev/kmsg, written", |_| open("/dev/kmsg", libc::O_WRONLY).map(|made| made.writing(pattern(3000, 1)))),
    ("/dev/loop-control", |_| open("/dev/loop-control", libc::O_RDWR)),
    ("/dev/fuse", |_| open("/dev/fuse", libc::O_RDWR)),
    ("/dev/ptmx", |_| open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY)),
    ("/dev/tty", |_| open("/dev/tty", libc::O_RDWR | libc::O_NOCTTY)),
    ("/dev/net/tun", |_| open("/dev/net/tun", libc::O_RDWR)),
    ("/dev/userfaultfd", |_| open("/dev/userfaultfd", libc::O_RDWR)),
    ("/dev/autofs", |_| open("/dev/autofs", libc::O_RDONLY)),
    ("/dev/vcs1", |_| open("/dev/vcs1", libc::O_RDONLY)),
    ("pipe, read end", |_| {
        let (reader, writer) = support::pipe();
        Ok(Made::new(reader).with(writer))
    }),
    ("pipe, write end", |_| {
        let (reader, writer) = support::pipe();
        Ok(Made::new(writer).with(reader).writing(pattern(10_000, 1)))
    }),
    ("pipe, full", |_| {
        let (reader, writer) = support::pipe();
        fill(writer.as_raw_fd())?;
        Ok(Made::new(writer).with(reader))
    }),
    ("pipe, its writer gone", |_| Ok(Made::new(support::pipe().0))),
    ("pipe, its reader gone", |_| Ok(Made::new(support::pipe().1))),
    ("pipe of packets", |_| {
        let mut ends = [-1; 2];
        // SAFETY: the kernel writes two descriptors through the pointer.
        call(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_DIRECT) })?;
        let [reader, writer] = ends.map(|fd| adopted(fd.into()));
        Ok(writer?.with(reader?.fd))
    }),
    ("FIFO, read end", |places| fifo(places, "fifo-r", libc::O_RDONLY)),
    ("FIFO, write end", |places| fifo(places, "fifo-w", libc::O_WRONLY).map(|made| made.writing(pattern(3000, 1)))),
    ("FIFO, both ends", |places| fifo(places, "fifo-rw", libc::O_RDWR)),
    ("socket, stream", |_| socket_pair(libc::SOCK_STREAM)),
    ("socket, datagrams", |_| socket_pair(libc::SOCK_DGRAM)),
    ("socket, packets", |_| socket_pair(libc::SOCK_SEQPACKET)),
    ("socket, listening", |places| {
        let path = places.path(&format!("listening-{:?}", std::time::Instant::now()).replace([' ', '{', '}'], ""));
        UnixListener::bind(path).map(Made::new).map_err(|error| error.to_string())
    }),
    ("socket, not connected", |_| socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
    ("TCP", |_| {
        let tcp = || -> io::Result<_> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            let server = listener.accept()?.0;
            Ok(Made::new(client).with(server))
        };
        tcp().map_err(|error| error.to_string())
    }),
    ("TCP, listening", |_| TcpListener::bind("127.0.0.1:0").map(Made::new).map_err(|error| error.to_string())),
    ("UDP", |_| {
        let udp = || -> io::Result<_> {
            let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            one.connect(other.local_addr()?)?;
            Ok(Made::new(one).with(other))
        };
        udp().map_err(|error| error.to_string())
    }),
    ("UDP, without a peer", |_| UdpSocket::bind("127.0.0.1:0").map(Made::new).map_err(|error| error.to_string())),
    ("netlink", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)),
    ("raw packets", |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    ("kernel crypto", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ("vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("terminal", |_| {
        let pty = support::pty()?;
        Ok(Made::new(pty.slave).with(pty.master).writing(pattern(100, 1)))
    }),
    ("terminal's master", |_| {
        let pty = support::pty()?;
        Ok(Made::new(pty.master).with(pty.slave).writing(pattern(100, 1)))
    }),
    ("eventfd", |_| eventfd(5, 0)),
    ("eventfd, empty", |_| eventfd(0, 0)),
    ("eventfd, semaphore", |_| eventfd(2, libc::EFD_SEMAPHORE)),
    ("timerfd, disarmed", |_| {
        // SAFETY: takes no pointer.
        adopted(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) }.into())
    }),
    ("signalfd", |_| {
        // SAFETY: the set is initialised by the calls, and read during the last.
        let fd = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGPWR);
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
        };
        adopted(fd.into())
    }),
    ("inotify", |_| {
        // SAFETY: takes no pointer.
        adopted(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) }.into())
    }),
    ("fanotify", |_| {
        // SAFETY: takes no pointer.
        adopted(unsafe { libc::fanotify_init(libc::FAN_CLOEXEC | libc::FAN_CLASS_NOTIF, libc::O_RDONLY as u32) }.into())
    }),
    ("epoll", |_| {
        // SAFETY: takes no pointer.
        adopted(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into())
    }),
    ("pidfd", |_| {
        // SAFETY: takes no pointer.
        adopted(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })
    }),
    ("userfaultfd", |_| userfaultfd(0)),
    ("userfaultfd, O_NONBLOCK", |_| userfaultfd(libc::O_NONBLOCK)),
    ("io_uring", |_| {
        let mut parameters = [0_u32; 30];
        // SAFETY: the kernel reads and fills the 120 bytes of `struct io_uring_params`.
        adopted(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
    }),
    ("perf event", |_| {
        // `struct perf_event_attr` of its first size: a software clock of this process.
        let mut attributes = [0_u64; 8];
        attributes[0] = 1 | 64 << 32;
        // SAFETY: the kernel reads 64 bytes.
        adopted(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 8) })
    }),
    ("BPF map", |_| {
        // An array of one 4-byte value.
        let attributes = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: the kernel reads the attributes.
        adopted(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), size_of_val(&attributes)) })
    }),
    ("landlock rules", |_| {
        let handled = [1_u64];
        // SAFETY: the kernel reads 8 bytes.
        adopted(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled.as_ptr(), 8, 0) })
    }),
    ("message queue", |_| {
        let name = c"/polyaio-kinds";
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: the name is a C string; no attributes means the defaults.
        let fd = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, std::ptr::null::<libc::mq_attr>()) };
        let made = adopted(fd.into());
        // SAFETY: as above.
        unsafe { libc::mq_unlink(name.as_ptr()) };
        made
    }),
    ("seccomp notifications", |_| notifications()),
];

fn call(result: i32) -> Result<i32, String> {
    if result < 0 { Err(io::Error::last_os_error().to_string()) } else { Ok(result) }
}

/// Owns what a system call has returned.
fn adopted(fd: libc::c_long) -> Making {
    let fd = call(fd as i32)?;
    // SAFETY: the call that returned it has made it, and nobody else knows it.
    Ok(Made::new(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn write(fd: i32, bytes: &[u8]) -> Result<(), String> {
    // SAFETY: reads the slice during the call.
    call(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as i32).map(drop)
}

fn block() -> Vec<u8> {
    pattern(4096, 2)
}

fn open(path: &str, flags: i32) -> Making {
    open_path(Path::new(path), flags)
}

fn open_path(path: &Path, flags: i32) -> Making {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    open_c(&name, flags)
}

fn open_c(name: &CStr, flags: i32) -> Making {
    // SAFETY: the name is a C string.
    adopted(unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }.into())
}

/// A file of one block; what is written is a block too, so that direct I/O can do it, at the place that the kernel chose
/// for its memory or by the fallback.
fn regular(path: &Path, flags: i32) -> Making {
    std::fs::write(path, block()).map_err(|error| error.to_string())?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    Ok(Made::new(file).writing(block()))
}

fn on(mount: &Result<Mount, String>, flags: i32) -> Making {
    let mount = mount.as_ref().map_err(Clone::clone)?;
    regular(&mount.path(&format!("file-{flags}")), flags)
}

fn device(places: &Places, flags: i32) -> Making {
    let device = places.devices[usize::from(flags != 0)].as_ref().map_err(Clone::clone)?;
    open_path(device.path(), libc::O_RDWR | flags).map(|made| made.writing(block()))
}

fn memfd(flags: u32) -> Making {
    // SAFETY: the name is a C string.
    adopted(unsafe { libc::memfd_create(c"kind".as_ptr(), flags | libc::MFD_CLOEXEC) }.into())
}

/// Fills a pipe to its last byte.
fn fill(fd: i32) -> Result<(), String> {
    // SAFETY: takes no pointer.
    let set = |flags: i32| call(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) });
    set(libc::O_NONBLOCK)?;
    while write(fd, &[0; 4096]).is_ok() {}
    set(0).map(drop)
}

fn fifo(places: &Places, name: &str, flags: i32) -> Making {
    let path = places.path(name);
    if !path.exists() {
        support::fifo(places.scratch.dir(), name);
    }
    let other = support::open_fifo_writer(&path);
    open_path(&path, flags).map(|made| made.with(other))
}

fn socket(family: i32, kind: i32, protocol: i32) -> Making {
    // SAFETY: takes no pointer.
    adopted(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }.into())
}

fn socket_pair(kind: i32) -> Making {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two descriptors through the pointer.
    call(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    let [one, other] = ends.map(|fd| adopted(fd.into()));
    Ok(one?.with(other?.fd))
}

fn eventfd(value: u32, flags: i32) -> Making {
    // SAFETY: takes no pointer.
    let made = adopted(unsafe { libc::eventfd(value, flags | libc::EFD_CLOEXEC) }.into())?;
    Ok(made.writing(1_u64.to_ne_bytes()))
}

/// Handshaken, so that its reader waits for events.
fn userfaultfd(flags: i32) -> Making {
    const UFFDIO_API: libc::Ioctl = 0xC018_AA3F as libc::Ioctl;
    // SAFETY: takes no pointer.
    let made = adopted(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | flags) })?;
    let mut handshake = [0xAA_u64, 0, 0];
    // SAFETY: the kernel reads and fills the 24 bytes of `struct uffdio_api`.
    call(unsafe { libc::ioctl(made.fd.as_raw_fd(), UFFDIO_API, handshake.as_mut_ptr()) })?;
    Ok(made)
}

/// The listener of a filter that allows everything, once per process: a second one would be refused.
fn notifications() -> Making {
    static LISTENER: std::sync::OnceLock<Result<OwnedFd, String>> = std::sync::OnceLock::new();
    let make = || {
        let code = (libc::BPF_RET | libc::BPF_K) as u16;
        let mut filter = [libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let program = libc::sock_fprog { len: 1, filter: filter.as_mut_ptr() };
        // SAFETY: the kernel copies the program, which outlives the calls.
        let fd = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        adopted(fd).map(|made| made.fd)
    };
    let listener = LISTENER.get_or_init(make).as_ref().map_err(Clone::clone)?;
    listener.try_clone().map(Made::new).map_err(|error| error.to_string())
}
