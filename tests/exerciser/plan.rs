//! What is done to a file: values that `proptest` makes from a seed, and makes shorter when they fail.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};

/// A file's whole life.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) tuning: Tuning,
    pub(crate) open: Open,
    pub(crate) steps: Vec<Step>,
}

/// The bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) queue_depth: usize,
    pub(crate) threads: usize,
    pub(crate) capacity: usize,
}

/// How the file is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) mode: Mode,
    pub(crate) append: bool,
    /// By `open_async`.
    pub(crate) later: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Buffered,
    /// Direct where the file system can.
    Direct,
    /// Through the page cache, by the rules of direct I/O with this alignment.
    Emulated(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Up to ten operations in flight, on ranges that do not overlap.
    Together {
        from: u64,
        drive: Drive,
        pieces: Vec<Piece>,
    },
    /// Up to ten appends in flight: in order, whatever the file was opened for.
    Append {
        drive: Drive,
        pieces: Vec<Piece>,
    },
    /// A transfer at the position.
    Here(Piece),
    SetLen(u64),
    /// All that is not dirty leaves the page cache.
    Evict,
    /// Closed, or dropped, and opened again; perhaps on another engine.
    Reopen {
        close: bool,
        open: Open,
        tuning: Option<Tuning>,
    },
    /// The whole file is compared.
    Check,
}

/// Who waits, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drive {
    /// `Engine::block_on`.
    BlockOn,
    /// An executor that knows nothing of the engine.
    Elsewhere,
    /// `Engine::turn`.
    Turn,
}

/// One of the operations of a [`Step`]. Where its range lies is what [`place`] makes of all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Units between the end of the range before it and its own.
    pub(crate) gap: usize,
    /// Units that it is long.
    pub(crate) length: usize,
    /// Bytes that offset, length and the length of each buffer are multiples of.
    pub(crate) unit: usize,
    /// Operations are submitted in the order of these.
    pub(crate) turn: u8,
    pub(crate) act: Act,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Read(Form),
    Write(Form),
    Punch,
    Allocate,
    SyncAll,
    SyncData,
    SyncRange,
    Len,
    Metadata,
}

/// Which kind of transfer, from which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// `read_exact_at`, `write_all_at`.
    pub(crate) whole: bool,
    /// Bytes that each buffer lies beside an aligned address.
    pub(crate) shift: usize,
    pub(crate) parts: Parts,
}

/// How many buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// One, without a list.
    One,
    /// A list of so many. Their lengths differ, and some are empty.
    List(usize),
}

/// What becomes of the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Wait,
    /// Dropped after so many polls.
    Drop(usize),
    /// Cancelled after so many polls, then waited for.
    Cancel(usize),
}

impl Act {
    /// Whether it has a range of the file for itself.
    pub(crate) fn has_range(self) -> bool {
        matches!(self, Self::Read(_) | Self::Write(_) | Self::Punch | Self::Allocate)
    }

    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::Write(_))
    }

    pub(crate) fn is_sync(self) -> bool {
        matches!(self, Self::SyncAll | Self::SyncData | Self::SyncRange)
    }
}

/// No positioned operation goes beyond this byte.
const SPAN: u64 = 320 << 10;

/// The pieces with their ranges, which do not overlap, in the order of submission. What finds no room any more is left out.
pub(crate) fn place(from: u64, pieces: &[Piece]) -> Vec<(Piece, Range<u64>)> {
    let mut at = from;
    let mut placed = Vec::new();
    for &piece in pieces {
        if !piece.act.has_range() {
            placed.push((piece, 0..0));
            continue;
        }
        let begin = (at + (piece.gap * piece.unit) as u64).next_multiple_of(piece.unit as u64);
        let end = begin + (piece.length * piece.unit) as u64;
        if end <= SPAN {
            placed.push((piece, begin..end));
            at = end;
        }
    }
    placed.sort_by_key(|(piece, _)| piece.turn);
    placed
}

// ----- strategies ------------------------------------------------------------------------------------------------------

/// The most that may be in flight.
const TEN: usize = 10;

pub(crate) fn plans(steps: usize) -> impl Strategy<Value = Plan> {
    (tunings(), opens(), vec(step(), 1..=steps)).prop_map(|(tuning, open, steps)| Plan { tuning, open, steps })
}

fn tunings() -> impl Strategy<Value = Tuning> {
    // Small ones, so that queues are full; first the one that is like the defaults, which failures shrink to.
    let queue_depth = prop_oneof![Just(64usize), Just(1), 2..6usize];
    let threads = prop_oneof![Just(4usize), Just(1), Just(2)];
    let capacity = prop_oneof![Just(1024usize), 1..12usize];
    (queue_depth, threads, capacity).prop_map(|(queue_depth, threads, capacity)| Tuning {
        queue_depth,
        threads,
        capacity,
    })
}

fn opens() -> impl Strategy<Value = Open> {
    let mode = prop_oneof![
        3 => Just(Mode::Buffered),
        4 => Just(Mode::Direct),
        1 => Just(Mode::Emulated(512)),
        1 => Just(Mode::Emulated(4096)),
    ];
    (mode, one_in(6), any::<bool>()).prop_map(|(mode, append, later)| Open { mode, append, later })
}

/// True once in so many times.
fn one_in(times: u32) -> impl Strategy<Value = bool> {
    (0..times).prop_map(move |number| number == times - 1)
}

fn step() -> impl Strategy<Value = Step> {
    let from = prop_oneof![3 => 0..40_000u64, 1 => 0..SPAN];
    let lens = prop_oneof![2 => 0..40_000u64, 1 => (0..40u64).prop_map(|block| block * 4096), 1 => 0..SPAN];
    let reopen = (any::<bool>(), opens(), prop_oneof![2 => Just(None), 1 => tunings().prop_map(Some)])
        .prop_map(|(close, open, tuning)| Step::Reopen { close, open, tuning });
    prop_oneof![
        10 => (from.clone(), drives(), vec(pieces(acts()), 1..=TEN)).prop_map(together),
        5 => (from, drives(), pieces(acts())).prop_map(|(from, drive, piece)| together((from, drive, vec![piece]))),
        5 => (0..8u64, drives(), vec(neighbours(), 2..=TEN))
            .prop_map(|(page, drive, pieces)| together((page * 4096, drive, pieces))),
        3 => (drives(), vec(pieces(transfers(false)), 1..=TEN))
            .prop_map(|(drive, pieces)| Step::Append { drive, pieces }),
        3 => pieces(prop_oneof![transfers(true), transfers(false)]).prop_map(Step::Here),
        3 => lens.prop_map(Step::SetLen),
        2 => Just(Step::Evict),
        3 => reopen,
        2 => Just(Step::Check),
    ]
}

fn together((from, drive, pieces): (u64, Drive, Vec<Piece>)) -> Step {
    Step::Together { from, drive, pieces }
}

fn drives() -> impl Strategy<Value = Drive> {
    prop_oneof![3 => Just(Drive::BlockOn), 1 => Just(Drive::Elsewhere), 1 => Just(Drive::Turn)]
}

fn pieces(act: impl Strategy<Value = Act>) -> impl Strategy<Value = Piece> {
    // Anything; what devices with small and with large blocks want.
    let unit_and_length = prop_oneof![
        4 => (Just(1usize), prop_oneof![Just(0usize), 1..16usize, 1..6000usize, 1..70_000usize]),
        2 => (Just(512usize), prop_oneof![1..12usize, 1..80usize]),
        4 => (Just(4096usize), prop_oneof![1..4usize, 1..20usize]),
    ];
    let end = prop_oneof![
        8 => Just(End::Wait),
        1 => (1..4usize).prop_map(End::Drop),
        1 => (0..4usize).prop_map(End::Cancel),
    ];
    (prop_oneof![Just(0usize), 0..3usize, 0..900usize], unit_and_length, any::<u8>(), act, end).prop_map(
        |(gap, (unit, length), turn, act, end)| {
            // Otherwise a single large gap leaves no room for the others.
            let gap = if unit == 1 { gap } else { gap % 3 };
            Piece { gap, length, unit, turn, act, end }
        },
    )
}

/// Small ones side by side: those that a device can do by itself, and those that it cannot, in the same pages.
fn neighbours() -> impl Strategy<Value = Piece> {
    let unit_and_length = prop_oneof![(Just(512usize), 1..3usize), (Just(1usize), 1..500usize)];
    let act = prop_oneof![5 => transfers(false), 1 => transfers(true)];
    (0..2usize, unit_and_length, any::<u8>(), act).prop_map(|(gap, (unit, length), turn, act)| Piece {
        gap,
        length,
        unit,
        turn,
        act,
        end: End::Wait,
    })
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => transfers(false),
        6 => transfers(true),
        1 => Just(Act::Punch),
        1 => Just(Act::Allocate),
        1 => Just(Act::SyncAll),
        1 => Just(Act::SyncData),
        1 => Just(Act::SyncRange),
        1 => Just(Act::Len),
        1 => Just(Act::Metadata),
    ]
}

fn transfers(read: bool) -> BoxedStrategy<Act> {
    let shift = prop_oneof![6 => Just(0usize), 1 => Just(512), 2 => 1..8usize];
    let parts = prop_oneof![
        60 => Just(Parts::One),
        20 => (1..6usize).prop_map(Parts::List),
        10 => (6..40usize).prop_map(Parts::List),
        // More than one call takes (`IOV_MAX`).
        1 => Just(Parts::List(1100)),
    ];
    let form = (any::<bool>(), shift, parts).prop_map(|(whole, shift, parts)| Form { whole, shift, parts });
    form.prop_map(move |form| if read { Act::Read(form) } else { Act::Write(form) }).boxed()
}
