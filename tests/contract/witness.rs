//! Whether POSIX AIO has really served a case: each one asserts it, but for a short table.
//!
//! Its engines are asked at the end of the case, so that a copy of each is kept until then. Where the end of an engine is
//! what the case is about, it looks by itself ([`Bed::look`](crate::bed::Bed::look)).

use polyaio::Engine;

use crate::bed::{POSIX, Setup};
use crate::support::take_skipped;

/// What POSIX AIO serves nothing of: why, and which cases, or whole areas.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "streams are waited for, and then transfer in the caller or on a worker",
        &[
            "streams::",
            "ready::",
            "steps::",
            "callbacks::streams_transfer_just_before",
            "cancel::a_read_that_waits",
            "close::cancels_who_waits_for_a_stream",
            "driving::a_turn_inside_a_turn",
            "driving::turn_comes_back_in_time",
            "driving::who_waits_takes_the_seat_though_the_program_could",
            "drops::engine_dropped_while_streams_wait",
            "errors::syncs_of_what_cannot_be_synced",
            "fork::a_child_that_blocks_on_something_else_takes_no_event",
            "fork::a_child_that_leaves_a_queue_wakes_nobody",
            "fork::streams_survive_a_child_that_drops_them",
            "vectored::messages_stay_whole",
            "vectored::more_than_a_stream_holds",
            "vectored::on_fifos",
            "vectored::on_streams",
        ],
    ),
    ("it knows neither durability nor priorities, nor appends to any file", &["how::"]),
    (
        "what moves no data is the pool's",
        &[
            "close::goes_on_when_it_is_dropped",
            "close::happens_once",
            "control::a_dropped_open_closes",
            "control::advice_is_heard",
            "control::metadata_of_files",
            "limits::the_pool_is_resized",
        ],
    ),
    (
        "transfers at the position, and what direct I/O refuses, are the pool's",
        &[
            "misaligned::at_the_position",
            "misaligned::locks_outlive_the_twin",
            "misaligned::strict_engines_say_what_is_needed",
            "misaligned::the_twin_is_as_synchronous_as_its_file",
            "misaligned::without_proc",
            "transfers::requests_at_the_position_move_it_in_order",
            "vectored::one_is_misaligned",
        ],
    ),
    (
        "no backend is asked for anything",
        &[
            "batches::of_nothing",
            "callbacks::a_turn_calls_at_most_as_many_as_it_is_told",
            "cancel::before_anything_happened",
            "errors::nothing_to_transfer",
            "errors::opening_what_is_not_there",
            "fork::a_child_made_in_a_callback_calls_no_other",
            "limits::nothing_is_not_enough",
            "vectored::buffers_come_back_from_what_fails",
            "wakers::a_message_from_another_thread",
        ],
    ),
];

/// The same for musl only.
const WITH_MUSL: &[(&str, &[&str])] = &[(
    "it writes to what appends by a call that moves the position, so that these writes are left to the pool",
    &[
        "order::appended_in_the_order_of_submission",
        "order::serial_requests_do_not_wait_for_a_dropped_one",
        "vectored::appended_in_order",
    ],
)];

/// What cannot hold with musl.
const NOT_ASKED_OF_MUSL: &[(&str, &[&str])] = &[(
    "it looks the position up before a transfer, which waits for who is inside of a read(2) of the file",
    &["emulated::a_position_in_use_is_not_waited_for"],
)];

/// The C library is musl.
pub(crate) const MUSL: bool = cfg!(target_env = "musl");

/// Cases that end their engines, and look by themselves.
const END_THEIR_ENGINES: &[&str] = &[
    "drops::polled_once_and_dropped_by_the_hundreds",
    "drops::engine_dropped_in_a_waker",
    "drops::last_file_dropped_in_a_waker",
    "drops::engine_dropped_while_streams_wait",
    "batches::dropped_half_way",
    "drops::files_outlive_their_engine",
    "drops::threads_end_with_the_engine",
    "processes::nothing_is_left_of_an_engine",
    "signals::the_engine_ends_before_they_are_taken",
];

/// What is known of one case.
#[derive(Default)]
pub(crate) struct Witness {
    engines: Vec<Engine>,
    /// There was one.
    built: bool,
    served: u64,
    /// The case brings a backend of its own.
    of_others: bool,
}

impl Witness {
    pub(crate) fn watch(&mut self, name: &str, engine: &Engine) {
        let case = case(name);
        if !END_THEIR_ENGINES.contains(&case) && excepted(area(case)).is_none() {
            self.engines.push(engine.clone());
        }
    }

    pub(crate) fn look(&mut self, engine: &Engine) {
        let served = engine.stats().served_by();
        self.served += served.iter().filter(|(name, _)| *name == POSIX).map(|(_, count)| count).sum::<u64>();
    }

    pub(crate) fn note_engine(&mut self) {
        self.built = true;
    }

    pub(crate) fn leave_to_others(&mut self) {
        self.of_others = true;
    }

    /// Panics where POSIX AIO was to serve, and has served nothing; or where it has served an exception. A process that has
    /// no engine, because another one does the work, has nothing to tell.
    pub(crate) fn check(mut self, setup: Setup, name: &str) {
        std::mem::take(&mut self.engines).iter().for_each(|engine| self.look(engine));
        // What the machine lacks was printed.
        let skipped = take_skipped();
        if setup != Setup::PosixAio || !self.built || self.of_others || skipped && self.served == 0 {
            return;
        }
        let case = case(name);
        if let Some(why) = excepted(case) {
            assert_eq!(self.served, 0, "no exception any more: {why}");
        } else if excepted(area(case)).is_none() {
            assert!(self.served > 0, "POSIX AIO has served nothing of it");
        }
    }
}

/// Why POSIX AIO serves nothing of a case, or of an area.
fn excepted(name: &str) -> Option<&'static str> {
    let with_musl = if MUSL { WITH_MUSL } else { &[] };
    EXCEPTIONS.iter().chain(with_musl).find(|(_, cases)| cases.contains(&name)).map(|(why, _)| *why)
}

/// Whether the case cannot hold with this C library's POSIX AIO, which is printed.
pub(crate) fn is_not_asked(name: &str) -> bool {
    let name = case(name);
    let not_asked = NOT_ASKED_OF_MUSL.iter().find(|(_, cases)| MUSL && cases.contains(&name));
    if let Some((why, _)) = not_asked {
        // Not by a macro: what a test prints is shown only where it fails.
        let line = format!("NOT ASKED of POSIX AIO with musl: {name}: {why}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    not_asked.is_some()
}

/// The area of a case, with the colons.
fn area(case: &str) -> &str {
    case.find("::").map_or(case, |end| &case[..end + 2])
}

/// The name without the configuration.
fn case(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, case)| case)
}
