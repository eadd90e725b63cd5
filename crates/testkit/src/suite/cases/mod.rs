//! The behaviours.

mod chains;
mod counts;
mod records;
mod refusals;
mod removal;
mod results;
mod returns;

use super::steps::Outcome;
use super::{Ability, Case, World};

const fn case(name: &'static str, run: fn(&mut dyn World) -> Outcome) -> Case {
    Case { name, needs: None, run }
}

const fn case_for(ability: Ability, name: &'static str, run: fn(&mut dyn World) -> Outcome) -> Case {
    Case { name, needs: Some(ability), run }
}

/// A case is named as the function that tries it.
macro_rules! cases {
    ($($module:ident: $($name:ident),+;)+) => {
        &[$($(case(stringify!($name), $module::$name)),+),+]
    };
}

/// All behaviours that every world must have.
const COMMON: &[Case] = cases! {
    results: functions_do_what_they_should_without_probes,
        a_probe_on_every_instruction_at_once_changes_no_result,
        a_probe_on_one_instruction_of_each_function_changes_no_result,
        a_return_probe_on_every_function_at_once_changes_no_result,
        probes_and_return_probes_everywhere_together_change_no_result;
    counts: every_instruction_is_counted_as_often_as_it_runs,
        a_loop_is_counted_by_its_rounds,
        a_recursion_is_counted_by_its_depth,
        a_branch_that_is_not_taken_is_not_counted,
        an_instruction_that_is_jumped_over_is_not_counted,
        a_function_is_counted_for_all_its_callers,
        only_calls_between_definition_and_removal_are_counted,
        counts_outlast_other_events,
        many_hits_are_counted_to_the_last;
    records: records_come_in_the_order_of_execution,
        arguments_are_recorded_at_the_entry,
        registers_are_recorded_where_the_probe_is,
        the_stack_is_recorded_as_the_function_sees_it,
        a_record_bears_the_address_of_its_probe,
        records_are_given_once,
        every_round_of_a_loop_is_recorded_with_its_values,
        immediate_values_are_recorded;
    returns: return_values_are_recorded,
        an_error_is_recorded_as_it_is_returned,
        a_recursion_returns_from_the_innermost_outwards,
        a_return_knows_the_arguments_of_its_own_entry,
        a_tail_call_returns_for_both_functions,
        functions_that_tail_call_each_other_return_once_for_each_activation,
        activations_beyond_maxactive_are_missed,
        a_return_probe_that_missed_watches_as_many_again_afterwards,
        an_instance_is_free_again_after_its_return,
        a_function_whose_first_instruction_is_of_any_class_returns,
        a_function_that_pops_its_arguments_returns,
        a_function_called_through_a_register_or_memory_returns,
        several_return_probes_on_one_function_each_record,
        a_return_probe_bears_the_address_of_its_function,
        a_probe_on_the_return_instruction_comes_before_the_return_probe;
    chains: probes_on_one_instruction_run_in_the_order_of_their_definition,
        removing_one_of_several_leaves_the_others,
        a_probe_that_is_defined_later_runs_last,
        a_probe_and_a_return_probe_share_an_entry,
        removing_a_return_probe_leaves_the_probe_at_its_entry;
    removal: a_removed_probe_leaves_the_text_as_it_was,
        the_text_is_changed_where_probes_are_and_nowhere_else,
        an_event_that_is_not_there_cannot_be_removed,
        an_event_can_be_defined_again_and_counts_from_zero,
        a_hundred_rounds_of_planting_and_removing_leave_nothing,
        a_function_runs_without_records_after_its_probes_are_gone;
    refusals: the_middle_of_an_instruction_is_refused,
        an_unknown_function_is_refused,
        an_offset_beyond_the_function_is_refused,
        a_return_probe_inside_a_function_is_refused,
        a_return_value_of_a_probe_that_is_no_return_probe_is_refused,
        a_line_that_is_no_definition_is_refused,
        a_batch_is_placed_as_a_whole_or_not_at_all,
        a_refused_batch_leaves_the_probes_that_are_there;
};

/// Behaviours that need more.
const SPECIAL: &[Case] = &[
    case_for(Ability::Threads, "threads_are_counted_together", counts::threads_are_counted_together),
    case_for(
        Ability::Threads,
        "threads_return_each_with_its_own_values",
        returns::threads_return_each_with_its_own_values,
    ),
];

const ALL: [Case; COMMON.len() + SPECIAL.len()] = {
    let mut all = [COMMON[0]; COMMON.len() + SPECIAL.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = if i < COMMON.len() { COMMON[i] } else { SPECIAL[i - COMMON.len()] };
        i += 1;
    }
    all
};

/// All behaviours.
pub const CASES: &[Case] = &ALL;
