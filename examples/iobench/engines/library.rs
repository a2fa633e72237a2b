//! polyaio as a program would use it: an engine, a file, and on each thread as many operations in flight as the depth.

use std::task::Poll;
use std::time::Instant;

use polyaio::{Direct, Engine, File, OpenOptions, Policy};

use super::places::{Flying, Places};
use super::{EngineName, Worker, failed};
use crate::arguments::{Args, Executor};
use crate::log::{Log, Source};
use crate::scratch;
use crate::selection;
use crate::text::Failure;

/// An engine, and the file through it.
pub(crate) fn open(name: EngineName, args: &Args) -> Result<(Engine, File), Failure> {
    let policy = match name.wanted() {
        Some(backend) => Policy::Prefer(vec![backend.to_string()]),
        None => Policy::Auto,
    };
    let depth = args.depth * usize::from(args.threads);
    let engine = selection::start(Engine::builder().policy(policy).queue_depth(depth))?;
    let mut options = OpenOptions::new();
    let direct = if args.direct { Direct::Required } else { Direct::Off };
    options.read(true).write(args.pattern.writes()).direct(direct);
    let file = options.open(&engine, &args.file).map_err(Failure::of_library)?;
    Ok((engine, file))
}

/// One thread that makes requests.
pub(crate) struct Library {
    engine: Engine,
    file: File,
    places: Places,
    drive: Drive,
}

/// Who collects completions while the thread waits.
enum Drive {
    /// The thread itself, in `Engine::block_on`.
    Caller,
    /// The thread itself, in `Op::wait`.
    Wait,
    /// The engine's thread; this one is parked.
    Background,
    #[cfg(feature = "tokio")]
    Tokio(tokio::runtime::Runtime),
}

impl Library {
    pub(crate) fn new(engine: &Engine, file: &File, args: &Args) -> Result<Library, Failure> {
        let drive = match args.executor {
            Executor::Caller if args.depth == 1 => Drive::Wait,
            Executor::Caller => Drive::Caller,
            Executor::Background => Drive::Background,
            #[cfg(feature = "tokio")]
            Executor::Tokio => Drive::Tokio(
                tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()
                    .map_err(|error| Failure::of("cannot start tokio", &error))?,
            ),
            #[cfg(not(feature = "tokio"))]
            Executor::Tokio => return Err(Failure::new("built without tokio")),
        };
        let places = Places::new(args.depth, args.block_size);
        Ok(Library { engine: engine.clone(), file: file.clone(), places, drive })
    }

    /// One operation after the other.
    fn wait(&mut self, source: &mut Source, log: &mut Log) -> Result<(), Failure> {
        let (mut now, mut count) = (Instant::now(), 0_u32);
        let mut buffer = scratch::buffer(source.block_size());
        while let Some(request) = source.next(now) {
            let flying = Flying::begin(&self.file, request, buffer);
            let watched = count.is_multiple_of(WATCHED);
            count = count.wrapping_add(1);
            let ended = if watched { self.watch(flying, log) } else { flying.wait() };
            let end = Instant::now();
            buffer = ended.1;
            match ended.0 {
                Ok(n) if n == buffer.len() => log.done(end - now),
                other => return Err(failed(request, other)),
            }
            now = end;
        }
        Ok(())
    }

    /// As [`Flying::wait`], in two parts, so that submitting can be timed without the wait: the first poll queues, the second
    /// submits.
    fn watch(&self, mut flying: Flying, log: &mut Log) -> polyaio::BufResult<usize, polyaio::AlignedBuf> {
        let calls = log.enter();
        let ended = self.engine.block_on(std::future::poll_fn(|context| match flying.poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => match flying.poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => Poll::Ready(None),
            },
        }));
        log.leave(calls, 1);
        ended.unwrap_or_else(|| flying.wait())
    }
}

/// At depth 1, one in so many requests is watched: the others are served as by a program that does not look.
const WATCHED: u32 = 64;

impl Worker for Library {
    fn run(&mut self, source: &mut Source, log: &mut Log) -> Result<(), Failure> {
        if matches!(self.drive, Drive::Wait) {
            return self.wait(source, log);
        }
        let driving = matches!(self.drive, Drive::Caller);
        let mut flight = self.places.flight(&self.file, source, log, driving);
        let all = std::future::poll_fn(|context| flight.tick(context));
        match &self.drive {
            Drive::Caller | Drive::Wait => self.engine.block_on(all),
            Drive::Background => futures::executor::block_on(all),
            #[cfg(feature = "tokio")]
            Drive::Tokio(runtime) => runtime.block_on(all),
        }
        flight.result()
    }
}
