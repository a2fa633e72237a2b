//! Runs a plan on one engine and one file system, in step with the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::PathBuf;

use polyaio::{Advice, Direct, Engine, OpenOptions};

use crate::flight::{self, Item};
use crate::grounds::Ground;
use crate::model::{Model, Reading, Transfer, check_write, is, same};
use crate::ops::{self, Place};
use crate::outside::Outside;
use crate::plan::{Act, Drive, End, Form, Mode, Open, Parts, Piece, Plan, Step, Tuning, place};
use crate::setups::Setup;
use crate::support::{pattern, sha256_hex};
use crate::witness::Witness;

/// How many requests each backend has served.
pub(crate) type Served = BTreeMap<&'static str, u64>;

/// An append that finds a file longer than this finds it cut.
const LONG: u64 = 1 << 20;

/// Runs the plan; returns the checksum of the file in the end.
///
/// # Errors
/// What was not as it should be.
pub(crate) fn run(plan: &Plan, setup: Setup, ground: &Ground, served: &mut Served) -> Result<String, String> {
    let path = ground.path("file");
    let outside = setup.outside();
    outside.make(&path)?;
    let engine = setup.engine(plan.tuning, &outside);
    let mut run = Run::new(setup, ground, outside, engine, path, plan.open)?;
    for (number, step) in plan.steps.iter().enumerate() {
        run.number = number as u64;
        run.step(step, served).map_err(|error| format!("step {number}: {error}"))?;
    }
    run.close(true)?;
    run.account(served)?;
    run.compare_file()?;
    Ok(sha256_hex(&run.model.bytes))
}

struct Run<'a> {
    setup: Setup,
    ground: &'a Ground,
    outside: Outside,
    engine: Engine,
    path: PathBuf,
    file: Option<polyaio::File>,
    witness: Witness,
    model: Model,
    /// What is misaligned and has no offset is refused.
    needs_offsets: bool,
    /// Of the step; the data that is written depends on it.
    number: u64,
}

impl<'a> Run<'a> {
    fn new(
        setup: Setup,
        ground: &'a Ground,
        outside: Outside,
        engine: Engine,
        path: PathBuf,
        open: Open,
    ) -> Result<Self, String> {
        let witness = Witness::new(&outside, &path, false)?;
        let mut run = Self {
            setup,
            ground,
            outside,
            engine,
            path,
            file: None,
            witness,
            model: Model::default(),
            needs_offsets: false,
            number: 0,
        };
        run.open(open)?;
        Ok(run)
    }

    fn open(&mut self, mut open: Open) -> Result<(), String> {
        if self.ground.plain {
            open.mode = Mode::Buffered;
        }
        self.needs_offsets = open.mode == Mode::Direct && !self.ground.twins;
        open.append &= !self.needs_offsets;
        let mut options = OpenOptions::new();
        options.read(true).write(true).append(open.append).direct(match open.mode {
            Mode::Buffered => Direct::Off,
            Mode::Direct => Direct::Preferred,
            Mode::Emulated(alignment) => Direct::Emulated { alignment },
        });
        let opened = if open.later {
            options.open_async(&self.engine, &self.path).wait()
        } else {
            options.open(&self.engine, &self.path)
        };
        self.file = Some(opened.map_err(|error| error.to_string())?);
        self.witness = Witness::new(&self.outside, &self.path, open.mode == Mode::Direct && self.ground.direct)?;
        self.model.position = 0;
        self.model.append = open.append;
        self.model.rules = if let Mode::Emulated(alignment) = open.mode { Some(alignment) } else { None };
        Ok(())
    }

    fn file(&self) -> &polyaio::File {
        self.file.as_ref().expect("it is open between the steps")
    }

    fn step(&mut self, step: &Step, served: &mut Served) -> Result<(), String> {
        match step {
            Step::Append { .. } | Step::Here(_) if self.needs_offsets => Ok(()),
            Step::Together { from, drive, pieces } => {
                let before = self.model.len();
                let items = self.positioned(place(*from, pieces));
                self.fly(items, *drive, before)
            }
            Step::Append { drive, pieces } => {
                if self.model.len() > LONG {
                    self.set_len(4096)?;
                }
                let before = self.model.len();
                let items = self.appended(pieces);
                self.fly(items, *drive, before)
            }
            Step::Here(piece) => self.here(*piece),
            Step::SetLen(len) => self.set_len(*len),
            // Only a speed is concerned: there is no such call.
            Step::Evict if !cfg!(target_os = "linux") => Ok(()),
            Step::Evict => ok(self.file().advise(0, 0, Advice::DontNeed).wait(), "advise"),
            Step::Reopen { close, open, tuning } => self.reopen(*close, *open, *tuning, served),
            Step::Check => self.compare(),
        }
    }

    fn set_len(&mut self, len: u64) -> Result<(), String> {
        self.model.set_len(len);
        ok(self.file().set_len(len).wait(), "set_len")
    }

    // ----- what is in flight together ----------------------------------------------------------------------------------

    /// What a write of this step writes; no two are alike.
    fn data(&self, index: usize, length: usize) -> Vec<u8> {
        pattern(length, self.number << 8 | index as u64)
    }

    fn positioned(&mut self, placed: Vec<(Piece, Range<u64>)>) -> Vec<Item> {
        let alone = placed.len() == 1;
        let mut items = Vec::new();
        for (index, (mut piece, range)) in placed.into_iter().enumerate() {
            if self.model.append && piece.act.is_write() {
                self.serialise(&mut piece, alone);
            }
            // Where appends land would depend on it; and nothing is no range.
            let skip = piece.act == Act::Allocate && (self.model.append && !alone || range.is_empty())
                || piece.act == Act::Punch && range.is_empty();
            if !skip {
                items.push(self.item(index, piece, Place::At(range.start), range));
            }
        }
        items
    }

    fn appended(&mut self, pieces: &[Piece]) -> Vec<Item> {
        let mut items = Vec::new();
        for (index, &piece) in pieces.iter().enumerate() {
            let mut piece = piece;
            self.serialise(&mut piece, pieces.len() == 1);
            let length = (piece.length * piece.unit) as u64;
            items.push(self.item(index, piece, Place::End, 0..length));
        }
        items
    }

    /// The next append lands where this one ends: it must end, and with all of its bytes.
    fn serialise(&self, piece: &mut Piece, alone: bool) {
        if let Act::Write(form) = &mut piece.act {
            form.whole = true;
        }
        if !alone {
            piece.end = End::Wait;
        }
    }

    /// An operation, and what becomes of the model when it succeeds.
    fn item(&mut self, index: usize, piece: Piece, place: Place, range: Range<u64>) -> Item {
        let length = (range.end - range.start) as usize;
        let mut item = Item::new(piece, place, range);
        match piece.act {
            Act::Read(form) | Act::Write(form) => {
                let read = !piece.act.is_write();
                item.refused = self.model.refuses(&Transfer { read, form, unit: piece.unit, place, length });
            }
            Act::Punch => self.model.punch(&item.range),
            Act::Allocate => self.model.allocate(&item.range),
            _ => {}
        }
        if piece.act.is_write() {
            item.data = self.data(index, length);
            if self.model.append || place == Place::End {
                item.range = self.model.len()..self.model.len() + length as u64;
            }
            item.before = self.model.slice(&item.range).to_vec();
            if !item.refused {
                self.model.write(item.range.start, &item.data);
            }
        }
        item
    }

    /// The model is ahead already: `before` is how long the file is now.
    fn fly(&mut self, mut items: Vec<Item>, drive: Drive, before: u64) -> Result<(), String> {
        let lens = before..self.model.len();
        for item in &mut items {
            self.emulate(item)?;
        }
        let file = self.file().clone();
        flight::fly(&self.engine, &file, &self.witness, &mut items, drive, self.setup.is_short())?;
        for item in &items {
            self.check(item, &lens).map_err(|error| format!("{item}: {error}"))?;
        }
        self.settle(&items, before)
    }

    /// Does what the file system cannot do for it, so that the file is the same everywhere.
    fn emulate(&self, item: &mut Item) -> Result<(), String> {
        let able = match item.piece.act {
            Act::Punch => self.ground.punches,
            Act::Allocate => self.ground.allocates,
            _ => return Ok(()),
        };
        // The simulated disk has both.
        if able || !matches!(self.outside, Outside::System) {
            return Ok(());
        }
        item.unsupported = true;
        let plain = File::options().write(true).open(&self.path);
        let made = plain.and_then(|plain| match item.piece.act {
            Act::Allocate => plain.set_len(item.range.end.max(plain.metadata()?.len())),
            _ => {
                let zeroes = vec![0; self.model.slice(&item.range).len()];
                (&plain).seek(SeekFrom::Start(item.range.start)).and_then(|_| (&plain).write_all(&zeroes))
            }
        });
        made.map_err(|error| format!("{item}: {error}"))
    }

    fn check(&self, item: &Item, lens: &Range<u64>) -> Result<(), String> {
        let Some(done) = &item.done else { return Ok(()) };
        if done.beside {
            return Err("memory beside its buffer has changed".into());
        }
        let cancelled = is(&done.result, libc::ECANCELED);
        if cancelled != item.is_cancelled() {
            return Err(format!("cancelling has answered {:?}, and its result is {:?}", item.cancelled, done.result));
        }
        if cancelled {
            return Ok(());
        }
        match item.piece.act {
            Act::Read(form) => {
                let may_be_short = self.may_be_short(form);
                let want = self.model.slice(&item.range);
                let (range, lens, refused) = (item.range.clone(), lens.clone(), item.refused);
                Reading { form, range, lens, want, refused, may_be_short }.check(done)
            }
            Act::Write(form) => check_write(done, &item.data, item.refused, !form.whole && self.may_be_short(form)),
            _ if item.unsupported && is(&done.result, libc::EOPNOTSUPP) => Ok(()),
            Act::Len | Act::Metadata => match &done.result {
                Ok(len) if (lens.start..=lens.end).contains(len) => Ok(()),
                // A bounce buffer writes whole blocks, and puts the length right afterwards.
                Ok(len) if !lens.is_empty() && !has_proc() && *len <= lens.end.next_multiple_of(4096) => Ok(()),
                other => Err(format!("{other:?}; it is {lens:?} bytes long")),
            },
            _ => done.result.as_ref().map(|_| ()).map_err(|error| error.to_string()),
        }
    }

    fn may_be_short(&self, form: Form) -> bool {
        // One call takes no more than `IOV_MAX` buffers.
        self.setup.is_short() || matches!(form.parts, Parts::List(count) if count > 1024)
    }

    /// What was dropped or cancelled may have landed or not, and what was short has landed in part. That is what must be
    /// there, and nothing else; then it is written for good, so that the file is the same everywhere.
    fn settle(&mut self, items: &[Item], before: u64) -> Result<(), String> {
        let open = |item: &&Item| item.piece.act.is_write() && !item.refused && !item.is_certain();
        let unsettled: Vec<&Item> = items.iter().filter(open).collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        ok(self.file().sync_data().wait(), "sync_data after something was dropped")?;
        for item in unsettled {
            let have = self.witness.read(&item.range);
            item.check_what_landed(&have).map_err(|error| format!("{item}: {error}"))?;
            let data = match item.piece.end {
                End::Wait => item.data.clone(),
                // Others than before: if the old ones still come, they are seen.
                _ => pattern(item.data.len(), !self.number ^ item.range.start << 8),
            };
            if self.model.append || item.place == Place::End {
                self.set_len(before)?;
            }
            let form = Form { whole: true, shift: 0, parts: Parts::One };
            let again = ops::write(self.file(), form, 1, item.place, &data);
            let done = flight::wait(&self.engine, again);
            check_write(&done, &data, false, false).map_err(|error| format!("{item}: again: {error}"))?;
            self.model.write(item.range.start, &data);
        }
        Ok(())
    }

    // ----- one at a time -----------------------------------------------------------------------------------------------

    fn here(&mut self, piece: Piece) -> Result<(), String> {
        let (Act::Read(mut form) | Act::Write(mut form)) = piece.act else { return Ok(()) };
        let (unit, length) = (piece.unit, piece.length * piece.unit);
        let read = !piece.act.is_write();
        // The position would not be the same everywhere.
        form.whole |= self.may_be_short(form);
        let transfer = Transfer { read, form, unit, place: Place::Here, length };
        let refused = self.model.refuses(&transfer);
        let data = self.data(0, length);
        let at = if !read && self.model.append { self.model.len() } else { self.model.position };
        let range = at..at + length as u64;
        let running = if read {
            ops::read(self.file(), form, unit, Place::Here, length)
        } else {
            ops::write(self.file(), form, unit, Place::Here, &data)
        };
        let done = flight::wait(&self.engine, running);
        let checked = if done.beside {
            Err("memory beside its buffer has changed".into())
        } else if read {
            let (want, lens) = (self.model.slice(&range), self.model.len()..self.model.len());
            Reading { form, range: range.clone(), lens, want, refused, may_be_short: false }.check(&done)
        } else {
            check_write(&done, &data, refused, false)
        };
        checked.map_err(|error| format!("{transfer:?} at {at}: {error}"))?;
        let moved = if read { self.model.slice(&range).len() as u64 } else { length as u64 };
        if !refused && moved > 0 {
            self.model.position = at + moved;
            if !read {
                self.model.write(at, &data);
            }
        }
        Ok(())
    }

    fn reopen(&mut self, close: bool, open: Open, tuning: Option<Tuning>, served: &mut Served) -> Result<(), String> {
        self.close(close)?;
        self.compare_file()?;
        if let Some(tuning) = tuning {
            self.account(served)?;
            self.engine = self.setup.engine(tuning, &self.outside);
        }
        self.open(open)
    }

    fn close(&mut self, close: bool) -> Result<(), String> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if close {
            ok(file.close().wait(), "close")?;
        }
        Ok(())
    }

    /// Adds up what the engine has done, and checks that nothing happened that should never happen.
    fn account(&self, served: &mut Served) -> Result<(), String> {
        let stats = self.engine.stats();
        for (name, count) in stats.served_by() {
            *served.entry(name).or_default() += count;
        }
        if stats.anomalies == Default::default() { Ok(()) } else { Err(format!("{:?}", stats.anomalies)) }
    }

    // ----- comparing ---------------------------------------------------------------------------------------------------

    /// As the file itself reads.
    fn compare(&self) -> Result<(), String> {
        // Whole blocks, for who wants it aligned.
        let blocks = self.model.bytes.len().next_multiple_of(4096);
        let form = Form { whole: true, shift: 0, parts: Parts::One };
        let done = flight::wait(&self.engine, ops::read(self.file(), form, 1, Place::At(0), blocks));
        let (end, range) = (self.model.len(), 0..blocks as u64);
        let (lens, want) = (end..end, &self.model.bytes[..]);
        Reading { form, range, lens, want, refused: false, may_be_short: false }.check(&done)?;
        let len = self.file().len().wait().map_err(|error| error.to_string())?;
        if len == end { Ok(()) } else { Err(format!("{len} bytes long, should be {end}")) }
    }

    /// As everybody else reads it.
    fn compare_file(&self) -> Result<(), String> {
        let have = self.outside.read(&self.path)?;
        same(&have, &self.model.bytes, 0).map_err(|error| format!("the file: {error}"))
    }
}

fn ok<T>(result: std::io::Result<T>, what: &str) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| format!("{what}: {error}"))
}

/// Without it descriptors cannot be opened again, and what is misaligned goes through a bounce buffer.
fn has_proc() -> bool {
    cfg!(windows) || std::path::Path::new("/proc/self/fd").exists()
}
