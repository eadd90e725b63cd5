//! The behaviours of handlers.

mod chains;
mod contained;
mod faults;
mod instructions;
mod jprobes;
mod kunit;
mod recursion;
mod registration;
mod returns;

use super::super::steps::Outcome;
use super::{HandlerCase, Handlers, Skill};

const fn case(needs: Option<Skill>, name: &'static str, run: fn(&mut dyn Handlers) -> Outcome) -> HandlerCase {
    HandlerCase { name, needs, run }
}

/// A case is named as the function that tries it.
macro_rules! cases {
    ($($module:ident($needs:expr): $($name:ident),+;)+) => {
        &[$($(case($needs, stringify!($name), $module::$name)),+),+]
    };
}

const ALL: Option<Skill> = None;
const VECTORS: Option<Skill> = Some(Skill::Vectors);
const FAULTS: Option<Skill> = Some(Skill::Faults);

/// All behaviours of handlers.
pub const HANDLER_CASES: &[HandlerCase] = cases! {
    instructions(ALL): a_post_handler_sees_the_effect_of_any_class_of_instruction,
        handlers_run_before_and_after_every_instruction_with_the_registers_of_then,
        a_pre_handler_changes_the_registers_of_the_instruction,
        a_post_handler_changes_the_registers_behind_the_instruction,
        a_post_handler_chooses_where_execution_goes_on,
        a_program_counter_without_a_word_about_it_is_not_taken,
        a_pre_handler_redirects_execution,
        no_post_handler_runs_behind_an_instruction_that_was_skipped;
    chains(ALL): handlers_of_several_probes_run_in_the_order_of_their_registration,
        a_pre_handler_that_redirects_stops_the_chain,
        probes_of_all_kinds_on_one_address_are_switched_independently,
        a_probe_that_is_registered_switched_off_does_nothing_until_it_is_switched_on,
        a_probe_can_be_switched_again_and_again,
        switching_a_probe_as_it_is_already_changes_nothing,
        a_probe_without_handlers_counts,
        handlers_are_told_their_probe_and_its_word,
        nothing_runs_after_unregistering,
        unregistering_one_of_several_leaves_the_others;
    returns(ALL): the_entry_handler_runs_before_the_call_and_the_handler_behind_it,
        a_return_is_seen_where_the_function_returns_to,
        each_activation_has_data_of_its_own,
        data_is_zero_at_each_entry,
        data_of_several_probes_on_one_function_are_kept_apart,
        a_large_entry_keeps_all_its_bytes,
        a_call_that_the_entry_handler_declines_is_counted_as_declined,
        a_declined_call_takes_no_activation_with_it,
        calls_beyond_maxactive_are_missed_exactly_and_run_no_handler,
        the_handler_changes_the_return_value,
        a_handler_of_a_return_does_not_choose_where_execution_goes_on,
        callers_are_seen_through_other_return_probes,
        a_tail_call_has_the_caller_of_both,
        a_call_under_way_outlives_its_probe,
        a_call_under_way_is_none_of_later_probes,
        a_call_under_way_is_still_seen_by_a_probe_that_is_switched_off,
        unregistering_during_a_call_leaves_the_other_probes_of_its_function,
        a_call_under_way_is_not_seen_by_a_probe_that_is_registered_meanwhile,
        a_return_probe_without_an_entry_handler_watches_every_call,
        return_probes_around_a_handler_each_watch_the_call_once;
    jprobes(ALL): a_mirror_is_given_six_arguments_in_registers,
        a_mirror_is_given_arguments_on_the_stack,
        a_mirror_is_given_a_structure_by_value,
        a_mirror_follows_a_pointer,
        a_mirror_is_told_what_a_caller_with_variable_arguments_says,
        a_mirror_sees_both_sides_of_a_tail_call,
        a_mirror_works_on_copies,
        a_mirror_s_result_is_nobody_s,
        a_mirror_is_left_from_within,
        a_mirror_runs_for_every_call,
        a_jprobe_can_be_switched_off;
    jprobes(VECTORS): a_mirror_is_given_floating_point_arguments;
    recursion(ALL): a_handler_of_any_kind_that_calls_probed_functions_makes_them_miss_exactly,
        a_handler_that_calls_its_own_function_misses_itself,
        handlers_of_a_return_that_call_their_own_function_miss_themselves,
        a_missed_hit_has_no_post_handler,
        the_instructions_under_a_missed_hit_take_their_effect,
        after_a_handler_that_has_missed_probes_they_run_again;
    faults(ALL): a_fault_handler_cures_by_skipping_the_instruction,
        a_fault_handler_cures_by_repairing_a_register,
        a_fault_handler_sees_the_original_instruction_and_the_trap,
        fault_handlers_are_asked_in_order_until_one_cures,
        a_fault_handler_that_is_switched_off_is_not_asked,
        a_fault_handler_may_call_probed_functions;
    faults(FAULTS): a_fault_that_nobody_cures_is_seen_at_the_original_instruction,
        a_fault_without_a_fault_handler_is_seen_at_the_original_instruction;
    contained(ALL): a_handler_that_faults_ends_and_its_probe_is_switched_off,
        a_handler_that_faults_leaves_the_other_probes_alone,
        a_fault_handler_cures_a_fault_of_its_probe_s_handlers,
        a_fault_handler_that_declines_lets_the_handler_end;
    registration(ALL): an_unknown_symbol_is_refused,
        the_middle_of_an_instruction_is_refused,
        an_offset_beyond_the_symbol_is_refused,
        an_address_that_is_no_text_is_refused,
        kprobes_own_code_is_refused,
        a_return_probe_that_is_not_at_an_entry_is_refused,
        a_jprobe_that_is_not_at_an_entry_is_refused,
        a_batch_is_registered_as_a_whole_or_not_at_all,
        a_probe_by_address_is_one_by_symbol;
    kunit(ALL): kunit_test_kprobe,
        kunit_test_kprobes,
        kunit_test_kprobe_missed,
        kunit_test_kretprobe,
        kunit_test_kretprobes,
        kunit_test_stacktrace_on_kretprobe,
        kunit_test_stacktrace_on_nested_kretprobe;
};
