//! From a batch to the queue.

use super::Shared;
use super::queue::Closed;
use crate::backend::{Batch, Refusal};
use crate::completion::Errno;

/// Queues as much of the batch as there is room for, in order; the rest stays in it, which means busy.
///
/// Never blocks and never starts a thread: what has to be started is started by a worker. At most one worker is woken,
/// however long the batch; it wakes the next.
pub(super) fn submit(shared: &Shared, batch: &mut Batch<'_>) {
    match shared.queue.reserve(batch.len()) {
        Ok(0) => {}
        Ok(room) => {
            for _ in 0..room {
                match batch.take() {
                    Some(request) => shared.queue.push(request),
                    None => unreachable!("no more was reserved than the batch has"),
                }
            }
            shared.queue.announce();
        }
        Err(Closed) => {
            while let Some(request) = batch.take() {
                batch.put_back(request, Refusal::Unsupported(Errno(libc::ECANCELED)));
            }
        }
    }
}
