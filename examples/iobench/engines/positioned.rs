//! The simplest baseline: a thread that calls `pread` and `pwrite`. One of them is `raw-pread`, as many as the depth are
//! `raw-threads`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

use polyaio::AlignedBuf;

use super::{Worker, failed};
use crate::log::{Log, Source};
use crate::scratch;
use crate::text::Failure;

pub(crate) struct Positioned {
    file: Arc<File>,
    buffer: AlignedBuf,
}

impl Positioned {
    pub(crate) fn new(file: Arc<File>, block_size: usize) -> Positioned {
        Positioned { file, buffer: scratch::buffer(block_size) }
    }
}

impl Worker for Positioned {
    fn run(&mut self, source: &mut Source, log: &mut Log) -> Result<(), Failure> {
        let mut now = Instant::now();
        while let Some(request) = source.next(now) {
            let calls = log.enter();
            let start = calls.start;
            let result = match request.write {
                true => self.file.write_at(&self.buffer, request.offset),
                false => self.file.read_at(&mut self.buffer, request.offset),
            };
            now = log.leave(calls, 1);
            match result {
                Ok(n) if n == self.buffer.len() => log.done(now - start),
                other => return Err(failed(request, other)),
            }
            log.batches += 1;
            log.submitted += 1;
        }
        Ok(())
    }
}
