//! The simulated disk in the place of real files, and the cases that are not asked of it.

use std::io::Write as _;
use std::path::Path;

use polyaio::EngineBuilder;

cfg_if::cfg_if! {
    if #[cfg(feature = "simulated")] {
        pub(crate) use polyaio::backends::simulated::SimulatedDisk as Disk;

        /// In the place of a directory. Without faults; what is due together completes in a random order.
        pub(crate) fn disk(dir: &Path) -> Disk {
            Disk::builder().below(dir).shuffled(true).build().expect("nothing is wrong with it")
        }

        pub(crate) fn add(disk: Option<&Disk>, builder: EngineBuilder) -> EngineBuilder {
            builder.backend(disk.expect("made before the case").backend())
        }
    } else {
        /// There is none.
        pub(crate) enum Disk {}

        impl Disk {
            pub(crate) fn put(&self, _path: &Path, _data: &[u8]) {
                match *self {}
            }

            pub(crate) fn read(&self, _path: &Path) -> Option<Vec<u8>> {
                match *self {}
            }
        }

        pub(crate) fn disk(_dir: &Path) -> Disk {
            unreachable!("mounted with the feature only")
        }

        pub(crate) fn add(_disk: Option<&Disk>, builder: EngineBuilder) -> EngineBuilder {
            builder
        }
    }
}

/// Why, and which cases, or whole areas.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "a backend of the test's own holds the requests back, and is not offered what only the disk knows",
        &[
            "batches::pushed_while_results_wait",
            "busy::a_close_that_finds_no_room_has_not_begun",
            "busy::the_buffer_comes_back",
            "busy::those_in_line_come_first",
            "busy::what_needs_no_room_is_never_busy",
            "callbacks::all_are_called_before_the_engine_has_ended",
            "callbacks::cancelled_by_the_handle",
            "callbacks::never_inside_of_what_submits",
            "close::the_last_handle_closes",
            "close::waits_for_what_is_in_flight",
            "driving::signals_end_no_wait_early",
            "driving::the_descriptor_is_silent_until_something_ends",
            "drops::engine_dropped_in_a_waker_inside_a_poll",
            "drops::engine_dropped_while_operations_wait_in_line",
            "limits::the_line_is_served_in_order",
            "sync::covers_every_write_before_it",
            "sync::does_not_wait_for_later_writes",
            "sync::two_at_once_and_none_before",
            "wakers::the_last_waker_is_the_one_that_counts",
            "wakers::wakers_that_panic_when_cloned_or_dropped",
        ],
    ),
    ("streams are not the disk's: the other configurations have them", &["streams::", "ready::", "steps::"]),
    (
        "what is misaligned is refused, as by a device: there is no page cache to go through",
        &[
            "misaligned::",
            "how::appended_past_the_page_cache",
            "processes::nothing_is_left_of_an_engine",
            "vectored::one_is_misaligned",
        ],
    ),
    (
        "it is about other users of a file of the operating system: descriptors, positions, locks, names, processes",
        &[
            "beside::",
            "close::record_locks_last_as_long_as_the_descriptor",
            "control::metadata_of_files",
            "how::appended_to_any_file",
            "processes::direct_and_buffered_in_two",
            "transfers::positioned_requests_never_move_the_position",
            "transfers::requests_at_the_position_move_it_in_order",
        ],
    ),
    (
        "it is about a certain file system, the page cache, or a limit of the kernel's",
        &[
            "emulated::a_position_in_use_is_not_waited_for",
            "emulated::answers_as_a_device_does",
            "emulated::at_the_position_and_appended",
            "emulated::the_rest_of_a_short_transfer",
            "eof::partly_cached",
            "errors::a_full_disk",
            "errors::a_part_of_a_write_is_not_cancelled",
            "errors::the_limit_of_file_sizes",
            "how::not_waited_for",
            "limits::one_thread_serves_a_hundred",
        ],
    ),
];

/// Whether a case is not asked of it: then that is printed.
pub(crate) fn is_excepted(name: &str) -> bool {
    let case = name.split_once("::").map_or(name, |(_, case)| case);
    let area = case.find("::").map_or(case, |end| &case[..end + 2]);
    let why = EXCEPTIONS.iter().find(|(_, cases)| cases.contains(&case) || cases.contains(&area));
    let Some((why, _)) = why else { return false };
    // Not by a macro: what a test prints is shown only where it fails.
    let line = format!("NOT ASKED of the simulated disk: {case}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    true
}
