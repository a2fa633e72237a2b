//! From a batch to the seats.

use std::ptr;
use std::sync::Arc;

use super::abi::{self, Call, Operation};
use super::seats::Leaving;
use super::{Shared, reap};
use crate::backend::{Batch, Refusal};
use crate::completion::Errno;
use crate::request::{OpKind, Request};

/// [`Backend::submit`](crate::backend::Backend::submit): takes as much of the batch as there is room for, in order, and sends
/// what finds a seat.
///
/// Sending is a short critical section of the C library, in which it may start one of its threads. Nothing in it waits for
/// a device.
pub(super) fn submit(shared: &Arc<Shared>, batch: &mut Batch<'_>) {
    let leaving = {
        let mut state = shared.lock();
        if state.closing {
            drop(state);
            while let Some(request) = batch.take() {
                batch.put_back(request, Refusal::Unsupported(Errno(libc::ESHUTDOWN)));
            }
            return;
        }
        if !reap::ensure_started(shared, &mut state) {
            // No thread is to be had: busy. With nothing in flight here the engine goes elsewhere.
            return;
        }
        while let Some(request) = batch.take() {
            if state.seats.held() >= shared.limits.bound {
                batch.put_back(request, Refusal::Busy);
                break;
            }
            // The rules that an emulation of direct I/O has for appended writes.
            match describe(&request).and_then(|operation| request.check().map(|()| operation)) {
                Ok(operation) if moves_the_position(shared, &operation) => {
                    batch.put_back(request, Refusal::Unsupported(Errno(libc::EOPNOTSUPP)));
                }
                Ok(operation) => state.seats.admit(operation.fd, request),
                Err(errno) => batch.put_back(request, Refusal::Unsupported(errno)),
            }
        }
        let mut leaving = Leaving::default();
        let attended = batch.attended().filter(|_| shared.limits.library.attends);
        state.seats.fill(&mut leaving, attended);
        state.alert(shared);
        leaving
    };
    for request in leaving.stranded {
        batch.put_back(request, Refusal::Busy);
    }
    for (request, errno) in leaving.refused {
        batch.put_back(request, Refusal::Unsupported(errno));
    }
    // Nobody waits for these and nothing has happened yet. Dropping them cancels them, which calls foreign code.
    drop(leaving.abandoned);
}

/// Whether it is a write that the C library would make at the file's position, because the descriptor appends.
fn moves_the_position(shared: &Shared, operation: &Operation) -> bool {
    !shared.limits.library.appends && operation.call == Call::Write && abi::appends(operation.fd)
}

/// Everything of the operation but the memory; or why it cannot be served here.
pub(super) fn describe(request: &Request) -> Result<Operation, Errno> {
    // A virtual file is unknown to this C library, though not to every backend.
    let fd = request.descriptor().ok_or(Errno(libc::EOPNOTSUPP))?;
    let call = match request.kind() {
        OpKind::Read => Call::Read,
        OpKind::Write => Call::Write,
        OpKind::SyncAll => Call::SyncAll,
        OpKind::SyncData => Call::SyncData,
        _ => return Err(Errno(libc::EOPNOTSUPP)),
    };
    if fd < 0 {
        return Err(Errno(libc::EBADF));
    }
    let mut operation = Operation { call, fd, offset: 0, memory: ptr::dangling_mut(), length: 0 };
    if request.kind().is_transfer() {
        // A stream would keep one of the C library's threads for as long as it likes; and a control block has one range of
        // memory, and always an offset.
        if request.is_stream() || request.segments() > 1 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let position = request.position().ok_or(Errno(libc::EOPNOTSUPP))?;
        operation.offset = i64::try_from(position).map_err(|_| Errno(libc::EINVAL))?;
    }
    Ok(operation)
}
