//! A database's file: `redb`'s [`StorageBackend`] on polyaio.
//!
//! redb calls from ordinary threads and lends its buffers for the length of the call, so each call is one operation and a
//! [`wait`](polyaio::Op::wait): no executor, and no other thread where the calling one can collect the completion. What
//! was lent is copied, because a buffer that a kernel may write into has to be owned by the operation.

use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use polyaio::{AlignedBuf, BufResult, Direct, Engine, Error, File, OpenOptions};
use redb::StorageBackend;

/// A database's file. One process at a time has it open.
#[derive(Debug)]
pub struct Storage {
    file: File,
    /// Its lock keeps other processes out; gone when the database is closed.
    lock: Mutex<Option<std::fs::File>>,
}

impl Storage {
    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    /// [`Error::Open`], also where another process has the database open (`EAGAIN`), and [`Error::DirectRefused`].
    pub fn open(engine: &Engine, path: &Path, direct: Direct) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).create(true).direct(direct).open(engine, path)?;
        let lock = lock(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Self { file, lock: Mutex::new(Some(lock)) })
    }

    /// A handle to the same file, to ask for its route.
    pub fn file(&self) -> File {
        self.file.clone()
    }

    /// Of so many bytes, at an address that direct I/O accepts.
    fn buffer(&self, len: usize) -> AlignedBuf {
        AlignedBuf::zeroed(len, self.memory())
    }

    fn memory(&self) -> usize {
        self.file.alignment().memory.max(align_of::<u64>())
    }
}

/// redb locks its own files; what others store it in, they lock.
fn lock(path: &Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another process has this database open: close it there first",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.file.len().wait()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let BufResult(done, buffer) = self.file.read_exact_at(self.buffer(out.len()), offset).wait();
        done?;
        out.copy_from_slice(&buffer);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).wait()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().wait()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(AlignedBuf::copy_from(data, self.memory()), offset).wait().0
    }

    fn close(&self) -> io::Result<()> {
        // What close(2) has to say of delayed writes is worth hearing before the lock goes.
        let closed = self.file.clone().close().wait();
        self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        closed
    }
}
