//! Pipes, FIFOs, socket pairs, terminals.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

pub(crate) fn socket_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a socket pair")
}

/// Makes a FIFO at `dir/name`.
pub(crate) fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let c_path = CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: the path is a C string that outlives the call.
    let made = unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "mkfifo {}: {}", path.display(), io::Error::last_os_error());
    path
}

/// Opens a FIFO for writing without waiting for its reader: a reader that never comes must not hang the test.
pub(crate) fn open_fifo_writer(path: &Path) -> File {
    // Linux lets a FIFO be opened both ways at once, which never waits (fifo(7)).
    File::options().read(true).write(true).open(path).expect("a FIFO")
}

/// Opens a FIFO for writing if somebody has it open, or is opening it, for reading; never waits.
pub(crate) fn try_fifo_writer(path: &Path) -> Option<File> {
    let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    set_blocking(&opened);
    Some(opened)
}

/// Opens a FIFO for reading; never waits. Read from it only when it [`has_data`]: without a writer it is at its end.
pub(crate) fn fifo_reader(path: &Path) -> File {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("a FIFO");
    set_blocking(&opened);
    opened
}

fn set_blocking(file: &File) {
    // SAFETY: sets the status flags of a descriptor that is open during the call; the only one it had is O_NONBLOCK.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) };
    assert_eq!(set, 0, "F_SETFL: {}", io::Error::last_os_error());
}

pub(crate) fn has_data(stream: &impl AsRawFd) -> bool {
    !is_drained(stream)
}

/// Everything that was written to the pipe or FIFO has been read.
pub(crate) fn is_drained(stream: &impl AsRawFd) -> bool {
    let mut unread: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which outlives the call.
    let asked = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut unread) };
    assert_eq!(asked, 0, "FIONREAD: {}", io::Error::last_os_error());
    unread == 0
}

/// A pseudo-terminal in raw mode: what goes in at one end comes out at the other unchanged.
pub(crate) struct Pty {
    /// The terminal emulator's end.
    pub(crate) master: File,
    /// The program's end.
    pub(crate) slave: OwnedFd,
}

pub(crate) fn pty() -> Result<Pty, String> {
    let (mut master, mut slave) = (-1, -1);
    let (name, settings, size) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: two descriptors are written through the pointers; the null arguments are optional (openpty(3)).
    if unsafe { libc::openpty(&raw mut master, &raw mut slave, name, settings, size) } != 0 {
        return Err(format!("no pseudo-terminal: {}", io::Error::last_os_error()));
    }
    // SAFETY: openpty gave us both descriptors, and nobody else knows them.
    let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    for descriptor in [master.as_raw_fd(), slave.as_raw_fd()] {
        // openpty cannot set it, and a process of another test that inherits an end would keep this one open.
        // SAFETY: fcntl on a descriptor that we own.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    make_raw(&slave).map_err(|error| format!("no raw mode: {error}"))?;
    Ok(Pty { master, slave })
}

fn make_raw(terminal: &OwnedFd) -> io::Result<()> {
    // SAFETY: the structure is one that tcgetattr has filled.
    change(terminal, |settings| unsafe { libc::cfmakeraw(settings) })
}

fn change(terminal: &OwnedFd, how: impl FnOnce(&mut libc::termios)) -> io::Result<()> {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr fills the structure when it answers 0; only then is it read and given back.
    unsafe {
        if libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut settings = settings.assume_init();
        how(&mut settings);
        if libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Pty {
    /// From now on the terminal is ready with one byte, but a read of it goes on until there are `count`, or nothing has come
    /// for 25 s (termios(3), `VTIME`): a call that is sure to block.
    pub(crate) fn reads_wait_for(&self, count: u8) {
        let how = |settings: &mut libc::termios| {
            settings.c_cc[libc::VMIN] = count;
            settings.c_cc[libc::VTIME] = 255;
        };
        change(&self.slave, how).expect("a terminal has settings");
    }

    /// From now on lines are read, and `^D` is the end: once.
    pub(crate) fn reads_lines(&self) {
        let how = |settings: &mut libc::termios| {
            settings.c_lflag |= libc::ICANON;
            settings.c_cc[libc::VEOF] = 4;
        };
        change(&self.slave, how).expect("a terminal has settings");
    }
}
