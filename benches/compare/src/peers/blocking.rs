use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, TryStreamExt as _};

use crate::buffer::Buffer;
use crate::patterns::Request;
use crate::results::Measured;
use crate::worker::Setting;

/// `pread` and `pwrite` by `unblock`.
pub(super) fn run(setting: &Setting) -> Result<Measured, String> {
    let file = Arc::new(setting.open()?);
    let transfer = async move |request: Request, mut buffer: Buffer| {
        let file = file.clone();
        blocking::unblock(move || {
            let result = match request.write {
                true => file.write_at(&buffer, request.offset),
                false => file.read_at(&mut buffer, request.offset),
            };
            (result, buffer)
        })
        .await
    };
    setting.measure(|shared| {
        let tasks: FuturesUnordered<_> = (0..setting.depth).map(|_| shared.clone().serve(transfer.clone())).collect();
        futures::executor::block_on(tasks.try_collect::<()>())
    })
}
