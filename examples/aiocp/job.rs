//! One source to one destination: open, make room, copy, and finish or cut.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use polyaio::{AlignedBuf, Engine};

use crate::cli::Args;
use crate::endpoint::{self, Endpoint, Opening};
use crate::flow::Flow;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::report::{Outcome, Side};
use crate::selection::Tally;
use crate::text::Failure;

/// What all copies of one run share.
pub(crate) struct Job<'a> {
    pub(crate) args: &'a Args,
    pub(crate) engine: &'a Engine,
    pub(crate) interrupt: &'a Arc<Interrupt>,
    /// The buffers of the copy before.
    pub(crate) spare: Vec<AlignedBuf>,
}

impl Job<'_> {
    /// Copies, and tells how it went.
    pub(crate) fn copy(&mut self, source: &Path, destination: &Path) -> Outcome {
        let started = Instant::now();
        let before = Tally::of(self.engine);
        let mut outcome = Outcome::new(source, destination);
        outcome.failure = self.try_copy(&mut outcome).err();
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome.tally = Tally::of(self.engine).since(&before);
        outcome
    }

    fn try_copy(&mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let opening = Opening {
            engine: self.engine,
            interrupt: self.interrupt,
            direct: self.args.direct,
            strict: self.args.selection.strict(),
        };
        let source = endpoint::open_source(&opening, &outcome.source.path)?;
        outcome.source = Side::of_source(&source);
        let destination = endpoint::open_destination(&opening, &outcome.destination.path, &source)?;
        outcome.destination = Side::of_destination(&destination);
        if let Err(failure) = self.check(&source, &destination) {
            if destination.created {
                // Best effort: what is wrong is said anyway, and the file is empty.
                let _ = std::fs::remove_file(&destination.path);
            }
            return Err(failure);
        }
        let copied = self.copy_between(&source, &destination, outcome);
        // Again, for a route changes with what was found out.
        outcome.source = Side::of_source(&source);
        outcome.destination = Side::of_destination(&destination);
        copied?;
        self.close(source, destination)
    }

    /// What can be known to fail before the destination is touched.
    fn check(&self, source: &Endpoint, destination: &Endpoint) -> Result<(), Failure> {
        let unit = source.unit.max(destination.unit);
        let size = self.args.block_size;
        if !size.is_multiple_of(unit) {
            let next = size.next_multiple_of(unit);
            let line =
                format!("with --direct, --block-size must be a multiple of {unit} bytes here: {next}, not {size}");
            return Err(Failure { line, usage: true });
        }
        let (reading, writing) = (source.file.route(), destination.file.route());
        for (end, route, steps) in [(source, &reading, &reading.read), (destination, &writing, &writing.write)] {
            if steps.is_empty() {
                let why: String =
                    route.passed.iter().map(|step| format!(": {} ({})", step.backend, step.reason)).collect();
                let name = end.path.display();
                let line = format!(
                    "no backend that --strict (or POLYAIO_STRICT) leaves can serve {name}{why}: choose another, or leave it out"
                );
                return Err(Failure::new(line));
            }
        }
        if destination.is_block() && destination.positioned && source.positioned && source.len > destination.len {
            let (name, room) = (destination.path.display(), destination.len);
            let line = format!("{name} has {room} bytes and the copy {}: choose a larger device", source.len);
            return Err(Failure::new(line));
        }
        Ok(())
    }

    fn copy_between(
        &mut self,
        source: &Endpoint,
        destination: &Endpoint,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let visible = !self.args.quiet && !self.args.json;
        let bar = progress::bar(visible, source, destination);
        let flow = Flow::new(source, destination, self.args.block_size, self.args.depth, &bar);
        self.settle(source);
        let room = if destination.is_resizable() { self.make_room(source, destination) } else { Ok(0) };
        let copied = room.and_then(|room| {
            flow.run(self.engine, self.interrupt, &mut self.spare)?;
            self.finish(source, destination, flow.copied(), flow.extent().max(room))
        });
        bar.finish_and_clear();
        outcome.bytes = flow.copied();
        copied.map_err(|failure| self.cut(destination, flow.copied(), failure))
    }

    /// A direct read of what is still dirty in the page cache has to write it first, which it does not do asynchronously.
    /// So a source that was written a moment ago is written back now, all at once.
    fn settle(&self, source: &Endpoint) {
        if source.positioned && source.file.facts().direct {
            // Only for speed: what cannot be written back cannot be read either, and says so then.
            let _ = self.engine.block_on(source.file.sync_data());
        }
    }

    /// Empties the destination, then reserves the whole length: writes inside it do not extend the file, so that
    /// direct ones stay asynchronous, and a full disk is known now. Returns the length it has now.
    fn make_room(&self, source: &Endpoint, destination: &Endpoint) -> Result<u64, Failure> {
        let file = &destination.file;
        let what = |error: io::Error| Failure::of(format_args!("cannot write {}", destination.path.display()), &error);
        if destination.len != 0 {
            self.engine.block_on(file.set_len(0)).map_err(what)?;
        }
        if !source.positioned || source.len == 0 {
            return Ok(0);
        }
        let length = source.len.next_multiple_of(destination.padding(self.args.block_size) as u64);
        match self.engine.block_on(file.allocate(0, length)) {
            Ok(()) => Ok(length),
            // Only a favour: a file system that cannot do it grows the file as it is written.
            Err(error) if is_refusal(&error) => Ok(0),
            Err(error) => {
                Err(Failure::of(format_args!("no room for {length} bytes in {}", destination.path.display()), &error))
            }
        }
    }

    /// The destination's length, permissions and durability.
    fn finish(&self, source: &Endpoint, destination: &Endpoint, copied: u64, extent: u64) -> Result<(), Failure> {
        let what = |doing: &str, error: io::Error| {
            Failure::of(format_args!("cannot {doing} {}", destination.name("standard output")), &error)
        };
        if destination.is_resizable() && extent != copied {
            self.engine.block_on(destination.file.set_len(copied)).map_err(|error| what("set the length of", error))?;
        }
        endpoint::restore_mode(destination, source).map_err(|error| what("set the permissions of", error))?;
        if self.args.sync && destination.is_storage() {
            self.engine.block_on(destination.file.sync_all()).map_err(|error| what("sync", error))?;
        }
        Ok(())
    }

    /// Leaves only what was copied, and says so.
    fn cut(&self, destination: &Endpoint, copied: u64, failure: Failure) -> Failure {
        if !destination.is_resizable() {
            return failure;
        }
        let name = destination.path.display();
        let note = match self.engine.block_on(destination.file.set_len(copied)) {
            Ok(()) => format!("{name} holds the first {copied} bytes"),
            Err(error) => {
                format!("{name} could not be cut to the {copied} bytes that were copied: {error}")
            }
        };
        Failure { line: format!("{} ({note})", failure.line), ..failure }
    }

    fn close(&self, source: Endpoint, destination: Endpoint) -> Result<(), Failure> {
        for (end, standard) in [(destination, "standard output"), (source, "standard input")] {
            let name = end.name(standard);
            let closed = self.engine.block_on(end.file.close());
            closed.map_err(|error| Failure::of(format_args!("cannot close {name}"), &error))?;
        }
        Ok(())
    }
}

/// "Not here", as opposed to "no room".
fn is_refusal(error: &io::Error) -> bool {
    let refusals =
        [libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS, libc::EINVAL, libc::EPERM, libc::ENODEV, libc::ESPIPE];
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error().is_some_and(|errno| refusals.contains(&errno))
}
