//! One suite of what operations mean, mounted once per configuration of backends: they must not differ.
//!
//! `auto` is `Engine::new()`, so that `POLYAIO_BACKEND=... cargo test` forces its backend. The others prefer a backend by
//! name. Each case also checks who served it: a backend that passes only because another one did the work passes nothing.
//! What a preferred backend leaves to others is the table in `bed.rs`.

// What only the cases of Unix use is not used elsewhere.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

#[path = "../support/mod.rs"]
mod support;
#[path = "../tools/mod.rs"]
mod tools;

/// What a case is given: an engine of the configuration, files, and who is to serve them.
mod bed;

/// The simulated disk, and what is not asked of it.
mod simulation;

/// Whether POSIX AIO has really served a case, and why it has not served some.
mod witness;

/// Operations that are submitted together.
mod batches;
/// Readers beside writers.
mod beside;
/// `try_` calls, and what comes back of them.
mod busy;
/// `on_completion`: callbacks, for code without futures.
mod callbacks;
/// `cancel`: three answers, one result.
mod cancel;
/// `close`, and what was under way.
#[cfg(unix)]
mod close;
/// Opening, metadata, ranges of the disk and of the page cache.
#[cfg(unix)]
mod control;
/// Threads that run futures at the same time.
mod crowds;
/// `O_DIRECT` beside the page cache.
mod direct;
/// `turn`, the engine's descriptor, and waits that end.
mod driving;
/// Dropped, forgotten, and outlived: futures, files, engines.
mod drops;
/// The rules of `O_DIRECT`, enforced in software.
#[cfg(unix)]
mod emulated;
/// The end of a file.
mod eof;
/// What an impossible request is told.
mod errors;
/// A child process of the one that made the engine.
#[cfg(unix)]
mod fork;
/// What transfers may ask for beyond their bytes.
mod how;
/// Bounds, and what is over them.
mod limits;
/// What direct I/O refuses for its alignment, served all the same.
mod misaligned;
/// The order that requests keep.
mod order;
/// Other processes, and the end of one's own.
#[cfg(unix)]
mod processes;
/// Waiting for a stream without taking anything.
#[cfg(unix)]
mod ready;
/// `signal_on_completion`: a queued signal per operation.
#[cfg(unix)]
mod signals;
/// Lengths beyond 32 bits, and much data.
#[cfg(unix)]
mod sizes;
/// Streams that know no non-blocking transfer: what workers do, and what is left when nobody waits for them any more.
#[cfg(unix)]
mod steps;
/// Pipes, sockets, terminals and the like.
#[cfg(unix)]
mod streams;
/// All at once, from several threads.
mod stress;
/// `sync_all` and `sync_data`.
mod sync;
/// Reads and writes.
mod transfers;
/// Several buffers in one transfer.
mod vectored;
/// Executors, wakers, threads.
mod wakers;

/// Mounts the suite once per configuration.
macro_rules! suite {
    ($($(#[$only:meta])* $area:ident { $($(#[$here:meta])* $case:ident),+ $(,)? })+) => {
        suite!(@mount auto Auto $($(#[$only])* $area { $($(#[$here])* $case)+ })+);
        suite!(@mount kernel_aio KernelAio $($(#[$only])* $area { $($(#[$here])* $case)+ })+);
        suite!(@mount posix_aio PosixAio $($(#[$only])* $area { $($(#[$here])* $case)+ })+);
        suite!(@mount thread_pool ThreadPool $($(#[$only])* $area { $($(#[$here])* $case)+ })+);
        #[cfg(feature = "simulated")]
        suite!(@mount simulated Simulated $($(#[$only])* $area { $($(#[$here])* $case)+ })+);
    };
    (@mount $mount:ident $setup:ident $($(#[$only:meta])* $area:ident { $($(#[$here:meta])* $case:ident)+ })+) => {
        mod $mount {
            $($(#[$only])* mod $area {
                $($(#[$here])* #[test]
                fn $case() {
                    let name = concat!(stringify!($mount), "::", stringify!($area), "::", stringify!($case));
                    $crate::bed::Bed::run($crate::bed::Setup::$setup, name, $crate::$area::$case);
                })+
            })+
        }
    };
}

suite! {
    transfers {
        what_is_written_is_read_by_any_executor,
        results_match_their_requests,
        sizes_mixed_in_one_batch,
        large_requests,
        more_than_two_gigabytes,
        buffers_of_every_kind,
        a_write_changes_its_range_only,
        #[cfg(unix)]
        positioned_requests_never_move_the_position,
        #[cfg(unix)]
        requests_at_the_position_move_it_in_order,
        metadata,
    }
    vectored {
        in_order_from_the_offset_on,
        small_ones_of_every_kind,
        more_than_one_call_takes,
        empty_ones,
        lists_of_their_own,
        buffers_come_back_from_what_fails,
        dropped_and_cancelled,
        appended_in_order,
        one_is_misaligned,
        #[cfg(unix)]
        on_streams,
        #[cfg(unix)]
        more_than_a_stream_holds,
        #[cfg(unix)]
        messages_stay_whole,
        #[cfg(unix)]
        on_fifos,
    }
    #[cfg(unix)]
    control {
        metadata_of_files,
        holes_are_punched,
        in_order_with_writes,
        advice_is_heard,
        opened_elsewhere,
        a_dropped_open_closes,
    }
    how {
        #[cfg(unix)]
        appended_to_any_file,
        appended_by_several,
        appended_past_the_page_cache,
        what_cannot_be_appended,
        #[cfg(unix)]
        durable_when_complete,
        priorities,
        #[cfg(unix)]
        not_waited_for,
        #[cfg(unix)]
        streams_are_not_waited_for,
        told_too_late,
    }
    errors {
        a_bad_one_in_the_middle_fails_alone,
        #[cfg(unix)]
        an_error_of_the_device_is_its_own,
        wrong_access_mode,
        offsets_beyond_the_end_of_numbers,
        nothing_to_transfer,
        a_full_device,
        #[cfg(unix)]
        a_full_disk,
        #[cfg(unix)]
        a_part_of_a_write_is_not_cancelled,
        #[cfg(unix)]
        the_limit_of_file_sizes,
        #[cfg(unix)]
        directories,
        #[cfg(unix)]
        syncs_of_what_cannot_be_synced,
        opening_what_is_not_there,
    }
    eof {
        reads_at_the_end_are_short,
        exact_reads_past_the_end_say_so,
        the_tail_of_a_direct_file,
        #[cfg(unix)]
        partly_cached,
        cut_meanwhile,
        holes_read_as_zeroes,
    }
    #[cfg(unix)]
    sizes {
        beyond_32_bits,
        eight_of_a_mebibyte_at_a_time,
    }
    beside {
        holes_are_filled,
        #[cfg(unix)]
        appended,
        #[cfg(unix)]
        appended_beside_an_allocation,
        #[cfg(unix)]
        rewritten_in_cycles,
        #[cfg(unix)]
        direct_comes_and_goes,
    }
    #[cfg(unix)]
    processes {
        direct_and_buffered_in_two,
        exit_without_clean_up,
        nothing_is_left_of_an_engine,
    }
    order {
        appended_in_the_order_of_submission,
        appending_ignores_the_offset,
        serial_requests_do_not_wait_for_a_dropped_one,
        the_file_is_as_long_as_its_last_write,
    }
    sync {
        covers_every_write_before_it,
        does_not_wait_for_later_writes,
        two_at_once_and_none_before,
        #[cfg(unix)]
        of_a_file_opened_synchronous,
    }
    #[cfg(unix)]
    streams {
        an_empty_pipe_is_waited_for,
        the_end_of_a_pipe,
        nobody_reads_any_more,
        offsets_of_streams,
        reads_complete_in_order,
        writes_of_many_tasks_stay_whole,
        more_than_a_pipe_holds,
        fifos,
        terminals,
        sockets_both_ways,
        events_and_timers,
        devices_that_are_always_ready,
        a_dropped_read_takes_nothing,
        idle_pipes_leave_the_disk_alone,
        a_thousand_idle_pipes_cost_the_disk_nothing,
        a_dropped_wait_is_really_over,
        descriptors_that_do_not_block,
    }
    #[cfg(unix)]
    ready {
        readable_takes_nothing,
        writable_when_there_is_room,
        the_other_end_is_gone,
        what_has_offsets_is_ready,
        closed_while_it_waits,
    }
    #[cfg(unix)]
    steps {
        what_a_dropped_read_has_asked_for_is_left_to_the_next,
        what_is_left_is_ready,
        the_end_of_a_terminal_is_left_too,
        a_dropped_write_is_written_once,
        reads_dropped_at_random_lose_nothing,
        writes_dropped_at_random_stay_in_order,
        reads_complete_in_order,
        writes_of_many_tasks_stay_whole,
        stuck_workers_leave_the_disk_alone,
        a_file_closes_while_a_worker_is_stuck,
        the_engine_ends_while_a_worker_is_stuck,
        one_that_has_not_begun_is_cancelled,
        what_is_not_ready_any_more_is_waited_for,
        cancelled_while_a_worker_has_it,
        cancelled_before_a_worker_has_it,
        who_waits_for_the_stream_holds_no_place_in_line,
    }
    #[cfg(unix)]
    close {
        waits_for_what_is_in_flight,
        happens_once,
        cancels_who_waits_for_a_stream,
        goes_on_when_it_is_dropped,
        the_last_handle_closes,
        record_locks_last_as_long_as_the_descriptor,
    }
    drops {
        polled_once_and_dropped_by_the_hundreds,
        dropped_unpolled_does_nothing,
        forgotten,
        engines_dropped_in_flight,
        files_dropped_in_flight,
        engine_dropped_in_a_waker,
        last_file_dropped_in_a_waker,
        engine_dropped_in_a_waker_inside_a_poll,
        engine_dropped_while_operations_wait_in_line,
        #[cfg(unix)]
        engine_dropped_while_streams_wait,
        files_outlive_their_engine,
        #[cfg(unix)]
        threads_end_with_the_engine,
        the_submitting_thread_ends,
    }
    limits {
        nothing_is_not_enough,
        far_above_the_queue_depth,
        the_line_is_served_in_order,
        one_thread_serves_a_hundred,
        #[cfg(unix)]
        the_pool_is_resized,
        the_pool_is_resized_at_work,
        a_dozen_engines,
        a_million_small_requests,
    }
    direct {
        is_coherent_with_buffered,
        blocks_side_by_side,
        overwrites_and_what_makes_a_file_longer,
    }
    misaligned {
        in_each_way,
        beside_direct_requests_in_the_same_pages,
        written_back_at_once,
        at_random_against_a_model,
        at_the_end_of_the_file,
        appended,
        #[cfg(unix)]
        at_the_position,
        #[cfg(unix)]
        locks_outlive_the_twin,
        #[cfg(unix)]
        the_twin_is_as_synchronous_as_its_file,
        #[cfg(unix)]
        without_proc,
        #[cfg(unix)]
        on_a_block_device,
        #[cfg(unix)]
        direct_since_it_was_opened,
        strict_engines_say_what_is_needed,
    }
    batches {
        pushed_while_results_wait,
        of_nothing,
        of_mixed_operations,
        of_one_to_four_times_the_queue,
        in_one_submission,
        pushed_while_others_run,
        dropped_half_way,
        many_reads_at_once,
        of_streams_and_strangers,
    }
    cancel {
        before_anything_happened,
        one_half_leaves_the_other_alone,
        at_random_moments,
        what_waits_for_its_turn,
        a_read_that_waits,
        in_the_line_for_a_place,
        too_late,
    }
    busy {
        the_buffer_comes_back,
        a_close_that_finds_no_room_has_not_begun,
        those_in_line_come_first,
        #[cfg(unix)]
        what_needs_no_room_is_never_busy,
        begun_in_order,
        what_was_begun_in_the_caller_is_over,
        every_buffer_is_accounted_for,
    }
    callbacks {
        each_is_called_once_with_its_result,
        never_inside_of_what_submits,
        #[cfg(unix)]
        a_turn_calls_at_most_as_many_as_it_is_told,
        they_submit_and_poll_and_wait,
        what_panics_takes_nobody_along,
        the_last_handle_dropped_in_one,
        all_are_called_before_the_engine_has_ended,
        #[cfg(unix)]
        streams_transfer_just_before,
        cancelled_by_the_handle,
        from_several_threads,
        begun_before,
    }
    #[cfg(unix)]
    signals {
        each_carries_its_number,
        other_numbers_are_refused,
        a_full_queue_loses_none,
        the_engine_ends_before_they_are_taken,
    }
    driving {
        turn_waits_for_as_many_as_it_is_told,
        turn_comes_back_in_time,
        a_wait_that_ends_ends_nothing_else,
        #[cfg(unix)]
        the_descriptor_tells_when_to_turn,
        polled_once_and_only_turned,
        turns_on_several_threads,
        a_turn_inside_a_turn,
        who_waits_takes_the_seat_though_the_program_could,
        #[cfg(unix)]
        signals_end_no_wait_early,
        #[cfg(unix)]
        the_descriptor_is_silent_until_something_ends,
    }
    #[cfg(unix)]
    emulated {
        each_misalignment_is_refused,
        at_the_position_and_appended,
        the_rest_of_a_short_transfer,
        a_position_in_use_is_not_waited_for,
        answers_as_a_device_does,
    }
    crowds {
        each_with_a_context_of_its_own,
        none_where_none_is_wanted,
        begun_by_one_that_blocks,
        a_batch_of_one_that_blocks,
        a_sync_behind_a_write_of_one_that_blocks,
        room_that_one_holds_who_blocks,
        turned_by_another,
        ended_by_another,
        left_in_flight,
    }
    wakers {
        a_message_from_another_thread,
        begun_here_and_finished_elsewhere,
        polled_once_and_driven_by_others,
        #[cfg(unix)]
        engine_threads_sleep_when_idle,
        wakers_that_panic,
        #[cfg(unix)]
        wakers_that_panic_when_cloned_or_dropped,
        the_last_waker_is_the_one_that_counts,
        waking_starts_the_next_request,
        block_on_within_block_on,
        #[cfg(unix)]
        a_signal_storm,
        a_waker_that_waits,
    }
    #[cfg(unix)]
    fork {
        the_child_is_told_and_the_parent_loses_nothing,
        streams_survive_a_child_that_drops_them,
        a_child_that_blocks_on_something_else_takes_no_event,
        a_child_that_leaves_a_queue_wakes_nobody,
        a_child_made_in_a_callback_calls_no_other,
        a_new_engine_works_in_the_child,
    }
    stress {
        four_threads_on_one_engine,
        random_requests_against_a_model,
    }
}

/// Not a test of the library: shows the table of exceptions (`cargo test --test contract -- --nocapture who_serves_what`).
#[test]
fn who_serves_what() {
    println!("{}", bed::table());
}
