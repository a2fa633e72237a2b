use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::buffer::Buffer;
use crate::patterns::Request;
use crate::results::Measured;
use crate::worker::{Setting, Shared};

/// `pread` and `pwrite` on the threads of the runtime.
pub(super) fn spawn_blocking(setting: &Setting) -> Result<Measured, String> {
    let file = Arc::new(setting.open()?);
    let transfer = async move |request: Request, mut buffer: Buffer| {
        let file = file.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = match request.write {
                true => file.write_at(&buffer, request.offset),
                false => file.read_at(&mut buffer, request.offset),
            };
            (result, buffer)
        });
        done.await.unwrap_or_else(|error| (Err(io::Error::other(error)), Buffer::new()))
    };
    tasks(setting, |shared| shared.serve(transfer.clone()))
}

/// `tokio::fs::File`: one for each task, which seeks and transfers.
pub(super) fn fs(setting: &Setting) -> Result<Measured, String> {
    if setting.direct {
        return Err("tokio::fs copies through buffers of its own, which direct I/O refuses".to_string());
    }
    let files: Result<Vec<_>, _> = (0..setting.depth).map(|_| setting.open()).collect();
    let files: Vec<_> = files?.into_iter().map(Arc::new).collect();
    let mut next = files.iter().cycle();
    tasks(setting, move |shared| {
        // There are as many as tasks, and tasks are made twice.
        let file = next.next().and_then(|file| file.try_clone().ok()).map(tokio::fs::File::from_std);
        let file = tokio::sync::Mutex::new(file);
        shared.serve(async move |request: Request, mut buffer: Buffer| {
            let mut file = file.lock().await;
            let Some(file) = &mut *file else { return (Err(io::Error::other("no descriptor")), buffer) };
            let result = at(file, request, &mut buffer).await;
            (result, buffer)
        })
    })
}

async fn at(file: &mut tokio::fs::File, request: Request, buffer: &mut Buffer) -> io::Result<usize> {
    file.seek(SeekFrom::Start(request.offset)).await?;
    match request.write {
        true => {
            file.write_all(buffer).await?;
            file.flush().await?;
            Ok(buffer.len())
        }
        false => file.read_exact(buffer).await,
    }
}

/// As many tasks as the depth, on a runtime with one thread.
fn tasks<F>(setting: &Setting, mut task: impl FnMut(Shared) -> F) -> Result<Measured, String>
where
    F: Future<Output = Result<(), String>> + 'static,
{
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    setting.measure(|shared| {
        let local = tokio::task::LocalSet::new();
        let running: Vec<_> = (0..setting.depth).map(|_| local.spawn_local(task(shared.clone()))).collect();
        local.block_on(&runtime, async {
            for one in running {
                one.await.map_err(|error| error.to_string())??;
            }
            Ok(())
        })
    })
}
