//! Loop devices and file system images.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::machine::{root, tool};
use super::mounts::Mount;

/// A block device over a file. It is set to clear itself with its last user, so that even a killed test leaves none.
pub(crate) struct LoopDevice {
    path: PathBuf,
    /// The last user that counts: the device lives while this is open, or while it is mounted.
    open: File,
}

// From linux/loop.h; libc has no structures for them.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82 as libc::Ioctl;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a as libc::Ioctl;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;
// From linux/blkpg.h.
const BLKPG: libc::Ioctl = 0x1269 as libc::Ioctl;
const BLKPG_ADD_PARTITION: libc::c_int = 1;

#[repr(C)]
struct LoopInfo64 {
    device_inode_rdevice_offset_sizelimit: [u64; 5],
    number_encrypt_type_key_size: [u32; 3],
    flags: u32,
    file_crypt_names_key: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

impl LoopDevice {
    /// A device of `len` bytes of zeros over a new sparse file `dir/name`. Needs root.
    pub(crate) fn new(dir: &Path, name: &str, len: u64) -> Result<Self, String> {
        let backing = sparse(dir, name, len)?;
        Self::over(&backing)
    }

    /// The same with sectors of so many bytes: the smallest that it transfers.
    pub(crate) fn with_sectors(dir: &Path, name: &str, len: u64, sector: u32) -> Result<Self, String> {
        Self::configured(&sparse(dir, name, len)?, sector)
    }

    pub(crate) fn over(backing: &Path) -> Result<Self, String> {
        Self::configured(backing, 0)
    }

    fn configured(backing: &Path, sector: u32) -> Result<Self, String> {
        root()?;
        let backing = open_both_ways(backing)?;
        let control = open_both_ways(Path::new("/dev/loop-control"))?;
        // Between asking for a free number and taking it somebody else may have taken it, hence a few rounds.
        for _ in 0..64 {
            // SAFETY: this request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(format!("no free loop device: {}", io::Error::last_os_error()));
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open_both_ways(&path)?;
            match configure(&device, &backing, sector) {
                Ok(()) => {
                    return Ok(Self { path, open: device });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(format!("{}: LOOP_CONFIGURE: {error}", path.display())),
            }
        }
        Err("every free loop device was taken by somebody else".into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `len` bytes from `start` on its first partition, without a table. It goes with the device.
    pub(crate) fn add_partition(&self, start: i64, len: i64) -> Result<PathBuf, String> {
        #[repr(C)]
        struct Partition {
            start: i64,
            length: i64,
            number: libc::c_int,
            names: [u8; 64 + 64],
        }
        #[repr(C)]
        struct Argument {
            operation: libc::c_int,
            flags: libc::c_int,
            length: libc::c_int,
            data: *mut Partition,
        }
        let mut partition = Partition { start, length: len, number: 1, names: [0; 128] };
        let length = size_of::<Partition>() as libc::c_int;
        let argument = Argument { operation: BLKPG_ADD_PARTITION, flags: 0, length, data: &raw mut partition };
        // SAFETY: the structures have the layouts of linux/blkpg.h; the kernel reads them during the call only.
        if unsafe { libc::ioctl(self.open.as_raw_fd(), BLKPG, &raw const argument) } != 0 {
            return Err(format!("{}: BLKPG_ADD_PARTITION: {}", self.path.display(), io::Error::last_os_error()));
        }
        let path = PathBuf::from(format!("{}p1", self.path.display()));
        if path.exists() { Ok(path) } else { Err(format!("{} has no node", path.display())) }
    }
}

fn configure(device: &File, backing: &File, sector: u32) -> io::Result<()> {
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: sector,
        info: LoopInfo64 {
            device_inode_rdevice_offset_sizelimit: [0; 5],
            number_encrypt_type_key_size: [0; 3],
            // Without the second one it takes no partitions. Where there is no table it finds none by itself.
            flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN,
            file_crypt_names_key: [0; 160],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the structure has the layout of `struct loop_config`; the kernel reads it during the call only.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A fresh file system of `kind` ("ext4", "xfs", "btrfs"), mounted on `dir/kind`. Needs root and its mkfs.
pub(crate) fn image(dir: &Path, kind: &str) -> Result<Mount, String> {
    image_with_sectors(dir, kind, 512)
}

/// The same, on a device with sectors of so many bytes.
pub(crate) fn image_with_sectors(dir: &Path, kind: &str, sector: u32) -> Result<Mount, String> {
    root()?;
    let mkfs = tool(&format!("mkfs.{kind}"))?;
    // The smallest that their mkfs accepts is 300 MiB for XFS, 109 MiB for btrfs. Sparse: little of it is ever written.
    let (mib, force) = match kind {
        "xfs" => (320, "-f"),
        "btrfs" => (192, "-f"),
        _ => (64, "-F"),
    };
    let device = LoopDevice::with_sectors(dir, &format!("{kind}.img"), mib << 20, sector)?;
    // On the device and not on the file under it: it asks for the sectors.
    let made = Command::new(mkfs)
        .args(["-q", force])
        .arg(device.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("mkfs.{kind} does not start: {error}"))?;
    if !made.status.success() {
        return Err(format!("mkfs.{kind}: {}", String::from_utf8_lossy(&made.stderr).trim()));
    }
    let source = CString::new(device.path().as_os_str().as_encoded_bytes()).expect("a path without NUL");
    // The mount holds the device from here on; ours is closed, and it clears itself after the unmount.
    Mount::new(&source, &dir.join(kind), kind, "")
}

fn sparse(dir: &Path, name: &str, len: u64) -> Result<PathBuf, String> {
    let path = dir.join(name);
    let file = File::create_new(&path).and_then(|file| file.set_len(len));
    file.map(|()| path.clone()).map_err(|error| format!("{}: {error}", path.display()))
}

fn open_both_ways(path: &Path) -> Result<File, String> {
    File::options().read(true).write(true).open(path).map_err(|error| format!("{}: {error}", path.display()))
}
