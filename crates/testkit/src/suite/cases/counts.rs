//! A probe counts each time that its instruction runs, and no other.

use super::super::steps::{
    Outcome, call, call_sample, counts, define, every_instruction, expect, expect_hits, expect_returns, name_of,
    offset_of, remove, with,
};
use super::super::{SAMPLES, World, program};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

pub(super) fn every_instruction_is_counted_as_often_as_it_runs(world: &mut dyn World) -> Outcome {
    let probes = every_instruction(&program(), "each");
    let lines: Vec<&String> = probes.iter().map(|(line, ..)| line).collect();
    with(world, &lines, |world| {
        let mut expected = vec![0; probes.len()];
        for sample in SAMPLES {
            call_sample(world, sample)?;
            for ((line, function, number), expected) in probes.iter().zip(&mut expected) {
                *expected += sample.runs_of(function, *number);
                let what = format!("hits of instruction {number} of {function} after {sample:?}");
                expect(&what, counts(world, &name_of(line))?.hits, *expected)?;
            }
        }
        Ok(())
    })
}

pub(super) fn a_loop_is_counted_by_its_rounds(world: &mut dyn World) -> Outcome {
    let add = offset_of("suite_loop", 3)?;
    let again = offset_of("suite_count", 4)?;
    with(world, &[format!("p:add suite_loop+{add}"), format!("p:again suite_count+{again}")], |world| {
        call(world, "suite_loop", [10, 0], 55)?;
        call(world, "suite_count", [7, 0], 7)?;
        expect_hits(world, "add", 10)?;
        expect_hits(world, "again", 7)
    })
}

pub(super) fn a_recursion_is_counted_by_its_depth(world: &mut dyn World) -> Outcome {
    with(world, &["p:entry suite_recurse"], |world| {
        call(world, "suite_recurse", [12, 0], 78)?;
        expect_hits(world, "entry", 13)
    })
}

pub(super) fn a_branch_that_is_not_taken_is_not_counted(world: &mut dyn World) -> Outcome {
    let (branch, inside) = (offset_of("suite_error", 2)?, offset_of("suite_error", 3)?);
    with(world, &[format!("p:branch suite_error+{branch}"), format!("p:inside suite_error+{inside}")], |world| {
        for argument in 0..9 {
            world.call("suite_error", [argument, 0]);
        }
        expect_hits(world, "branch", 9)?;
        expect_hits(world, "inside", 4)
    })
}

pub(super) fn an_instruction_that_is_jumped_over_is_not_counted(world: &mut dyn World) -> Outcome {
    let never = offset_of("suite_first_jump", 1)?;
    with(world, &[format!("p:never suite_first_jump+{never}"), "p:entry suite_first_jump".into()], |world| {
        call(world, "suite_first_jump", [3, 0], 3)?;
        expect_hits(world, "entry", 1)?;
        expect_hits(world, "never", 0)
    })
}

pub(super) fn a_function_is_counted_for_all_its_callers(world: &mut dyn World) -> Outcome {
    with(world, &["p:leaf suite_leaf"], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        call(world, "suite_nested", [1, 1], 4)?;
        call(world, "suite_call_register", [1, 0], 2)?;
        call(world, "suite_call_memory", [1, 0], 2)?;
        call(world, "suite_tail", [1, 0], 4)?;
        call(world, "suite_jump_register", [1, 0], 2)?;
        call(world, "suite_push_return", [1, 0], 2)?;
        expect_hits(world, "leaf", 8)
    })
}

pub(super) fn only_calls_between_definition_and_removal_are_counted(world: &mut dyn World) -> Outcome {
    call(world, "suite_leaf", [1, 0], 2)?;
    with(world, &["p:leaf suite_leaf"], |world| {
        expect_hits(world, "leaf", 0)?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_hits(world, "leaf", 1)
    })?;
    call(world, "suite_leaf", [1, 0], 2)?;
    expect("counts of an event that is gone", world.counts("leaf"), None)
}

pub(super) fn counts_outlast_other_events(world: &mut dyn World) -> Outcome {
    with(world, &["p:leaf suite_leaf", "r:leaf_returns suite_leaf"], |world| {
        call(world, "suite_many", [3, 0], 3)?;
        define(world, &["p:many suite_many"])?;
        call(world, "suite_many", [3, 0], 3)?;
        remove(world, "many")?;
        call(world, "suite_many", [3, 0], 3)?;
        expect_hits(world, "leaf", 9)?;
        expect_returns(world, "leaf_returns", 9)
    })
}

pub(super) fn many_hits_are_counted_to_the_last(world: &mut dyn World) -> Outcome {
    let add = offset_of("suite_loop", 3)?;
    with(world, &[format!("p:add suite_loop+{add}")], |world| {
        call(world, "suite_loop", [500, 0], 125_250)?;
        expect_hits(world, "add", 500)
    })
}

pub(super) fn threads_are_counted_together(world: &mut dyn World) -> Outcome {
    with(world, &["p:leaf suite_leaf", "r:many suite_many", "p:recurse suite_recurse"], |world| {
        let calls: Vec<(&str, [u64; 2])> =
            (0..3).flat_map(|_| [("suite_many", [40, 0]), ("suite_recurse", [20, 0])]).collect();
        expect("results", world.call_together(&calls), [40, 210].repeat(3))?;
        expect_hits(world, "leaf", 120)?;
        expect_hits(world, "recurse", 63)?;
        expect_returns(world, "many", 3)
    })
}
