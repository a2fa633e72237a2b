use compio::buf::BufResult;
use compio::io::{AsyncReadAt as _, AsyncWriteAt as _};

use crate::buffer::Buffer;
use crate::patterns::Request;
use crate::results::Measured;
use crate::worker::Setting;

pub(super) fn run(setting: &Setting) -> Result<Measured, String> {
    let runtime = compio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let flags = if setting.direct { libc::O_DIRECT } else { 0 };
    let mut options = compio::fs::OpenOptions::new();
    options.read(true).write(setting.pattern.writes()).custom_flags(flags);
    let file = runtime.block_on(options.open(&setting.path)).map_err(|error| error.to_string())?;
    let transfer = async move |request: Request, buffer: Buffer| {
        let BufResult(result, buffer) = match request.write {
            true => (&file).write_at(buffer, request.offset).await,
            false => file.read_at(buffer, request.offset).await,
        };
        (result, buffer)
    };
    setting.measure(|shared| {
        let tasks: Vec<_> = (0..setting.depth).map(|_| runtime.spawn(shared.clone().serve(transfer.clone()))).collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.map_err(|_| "a task has panicked".to_string())??;
            }
            Ok(())
        })
    })
}
