//! The baseline for kernel AIO: one thread, a context of its own, as many requests per `io_submit` as there are idle places,
//! completions from the ring in memory, and `io_getevents` to sleep.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Instant;

use polyaio::AlignedBuf;

use super::{Worker, failed};
use crate::aio::{Event, Iocb, PREAD, PWRITE, RawContext};
use crate::log::{Log, Source};
use crate::patterns::Request;
use crate::scratch;
use crate::text::Failure;

pub(crate) struct RawKernelAio {
    file: Arc<File>,
    context: RawContext,
    places: Vec<Place>,
    iocbs: Vec<Iocb>,
    events: Vec<Event>,
    /// Places without a request.
    idle: Vec<usize>,
    /// What is submitted next.
    pointers: Pointers,
}

/// A request, and its memory.
struct Place {
    buffer: AlignedBuf,
    request: Request,
    start: Instant,
}

/// Into `iocbs`, which never grows.
struct Pointers(Vec<*mut Iocb>);

// SAFETY: they point into memory that goes along with them.
unsafe impl Send for Pointers {}

impl RawKernelAio {
    pub(crate) fn new(file: Arc<File>, block_size: usize, depth: usize) -> Result<RawKernelAio, Failure> {
        let context = RawContext::try_new(depth).map_err(|error| {
            let advice = match error.raw_os_error() {
                Some(libc::EAGAIN) => ": fs.aio-max-nr is spent (sysctl fs.aio-nr fs.aio-max-nr)",
                Some(libc::ENOSYS | libc::EPERM) => ": the kernel, or a seccomp filter, has no kernel AIO",
                _ => "",
            };
            Failure::new(format!("raw-kernel-aio: io_setup: {error}{advice}"))
        })?;
        let request = Request { write: false, offset: 0 };
        let place = |_| Place { buffer: scratch::buffer(block_size), request, start: Instant::now() };
        Ok(RawKernelAio {
            file,
            context,
            places: (0..depth).map(place).collect(),
            iocbs: vec![Iocb::default(); depth],
            events: vec![[0; 4]; depth],
            idle: (0..depth).rev().collect(),
            pointers: Pointers(Vec::with_capacity(depth)),
        })
    }

    fn prepare(&mut self, at: usize, request: Request, start: Instant) {
        let place = &mut self.places[at];
        (place.request, place.start) = (request, start);
        self.iocbs[at] = Iocb {
            data: at as u64,
            opcode: if request.write { PWRITE } else { PREAD },
            fildes: self.file.as_raw_fd() as u32,
            buf: place.buffer.as_mut_ptr() as u64,
            nbytes: place.buffer.len() as u64,
            offset: request.offset as i64,
            ..Iocb::default()
        };
        self.pointers.0.push(&raw mut self.iocbs[at]);
    }

    fn submit(&mut self, log: &mut Log) -> Result<(), Failure> {
        let count = self.pointers.0.len() as u64;
        let calls = log.enter();
        // SAFETY: places and iocbs stay where they are, and `drop` waits for what is in flight.
        let submitted = unsafe { self.context.submit(&self.pointers.0) };
        log.leave(calls, count);
        self.pointers.0.clear();
        log.batches += submitted.map_err(|error| Failure::of("io_submit", &error))?;
        log.submitted += count;
        Ok(())
    }

    /// Sleeps if nothing is there. How many events there are.
    fn collect(&mut self) -> usize {
        // SAFETY: this thread is the only one that has the context.
        match unsafe { self.context.take(&mut self.events) } {
            0 => self.context.wait(&mut self.events, None),
            got => got,
        }
    }
}

impl Worker for RawKernelAio {
    fn run(&mut self, source: &mut Source, log: &mut Log) -> Result<(), Failure> {
        let (depth, mut now) = (self.places.len(), Instant::now());
        let mut failure = None;
        loop {
            while let Some(at) = self.idle.pop() {
                let Some(request) = source.next(now) else {
                    self.idle.push(at);
                    break;
                };
                self.prepare(at, request, now);
            }
            if !self.pointers.0.is_empty() {
                // Without knowing which of them are in flight there is nothing to wait for; the context's end does that.
                self.submit(log)?;
            }
            if self.idle.len() == depth {
                return failure.map_or(Ok(()), Err);
            }
            let got = self.collect();
            now = Instant::now();
            for &[at, _, result, _] in &self.events[..got] {
                let place = &self.places[at as usize];
                self.idle.push(at as usize);
                if result as usize == place.buffer.len() {
                    log.done(now - place.start);
                    continue;
                }
                let result = match result as i64 {
                    errno @ ..0 => Err(io::Error::from_raw_os_error(-errno as i32)),
                    n => Ok(n as usize),
                };
                failure = failure.or(Some(failed(place.request, result)));
                source.stop();
            }
        }
    }
}
