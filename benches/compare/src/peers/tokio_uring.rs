use std::rc::Rc;

use crate::buffer::Buffer;
use crate::patterns::Request;
use crate::results::Measured;
use crate::worker::Setting;

pub(super) fn run(setting: &Setting) -> Result<Measured, String> {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(|error| error.to_string())?;
    let file = setting.open()?;
    let file = Rc::new(runtime.block_on(async { tokio_uring::fs::File::from_std(file) }));
    let transfer = async move |request: Request, buffer: Buffer| match request.write {
        true => file.write_at(buffer, request.offset).submit().await,
        false => file.read_at(buffer, request.offset).await,
    };
    setting.measure(|shared| {
        runtime.block_on(async {
            let task = |_| tokio_uring::spawn(shared.clone().serve(transfer.clone()));
            let tasks: Vec<_> = (0..setting.depth).map(task).collect();
            for task in tasks {
                task.await.map_err(|error| error.to_string())??;
            }
            Ok(())
        })
    })
}
