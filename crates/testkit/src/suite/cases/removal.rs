//! What was planted can be taken away, and leaves nothing.

use super::super::steps::{
    Outcome, call, call_samples, define, differences, every_instruction, expect, expect_hits, expect_planted,
    expect_records, expect_returns, name_of, offset_of, remove_all, standing, text_is_clean, with,
};
use super::super::{Program, World, program};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) fn a_removed_probe_leaves_the_text_as_it_was(world: &mut dyn World) -> Outcome {
    let program = program();
    for kind in ["p", "r"] {
        let lines = program.functions.iter().enumerate().map(|(i, f)| format!("{kind}:probe_{i} {}", f.name));
        with(world, &lines.collect::<Vec<_>>(), |world| {
            program.functions.iter().try_for_each(|function| expect_planted(world, function.name, 0))
        })?;
        text_is_clean(world)?;
    }
    for kind in ["p", "r"] {
        with(world, &[format!("{kind}:alone suite_nested")], |world| expect_planted(world, "suite_nested", 0))?;
        text_is_clean(world)?;
    }
    Ok(())
}

pub(super) fn the_text_is_changed_where_probes_are_and_nowhere_else(world: &mut dyn World) -> Outcome {
    let program = program();
    let probes = every_instruction(&program, "probe");
    let lines: Vec<&String> = probes.iter().map(|(line, ..)| line).collect();
    define(world, &lines)?;
    // The first instruction of each function is taken off first, then the second: what lies behind it stays.
    for round in 0..=longest(&program) {
        let (differing, standing) = (differences(world), standing(world));
        let mut expected = Vec::new();
        for (_, function, number) in probes.iter().filter(|(.., number)| *number >= round) {
            expected.push((*function, offset_of(function, *number)?));
        }
        // Others of the probed instruction's bytes may be changed too.
        let inside = |&(function, at): &(&str, u64)| {
            let covers =
                |&(f, start): &(&str, u64)| f == function && start <= at && at < start + length_at(&program, f, start);
            expected.iter().any(covers)
        };
        expect("changes outside of probed instructions", differing.iter().find(|d| !inside(d)), None)?;
        expect("instructions without a change", expected.iter().find(|e| !standing.contains(e)), None)?;
        let leaving = probes.iter().filter(|(.., number)| *number == round).map(|(line, ..)| name_of(line));
        let leaving: Vec<String> = leaving.collect();
        if !leaving.is_empty() {
            remove_all(world, &leaving)?;
        }
    }
    text_is_clean(world)?;
    call_samples(world)
}

/// How many instructions the longest function has.
fn longest(program: &Program) -> usize {
    program.functions.iter().map(|f| f.instructions.len()).max().unwrap_or(0)
}

fn length_at(program: &Program, function: &str, offset: u64) -> u64 {
    let found = program.find(function).and_then(|f| f.instructions.iter().find(|i| i.offset == offset));
    found.map_or(0, |i| i.length as u64)
}

pub(super) fn an_event_that_is_not_there_cannot_be_removed(world: &mut dyn World) -> Outcome {
    expect("removing nothing is refused", world.remove(&["nobody"]).is_err(), true)?;
    with(world, &["p:leaf suite_leaf"], |world| {
        expect("removing another is refused", world.remove(&["nobody"]).is_err(), true)?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_hits(world, "leaf", 1)
    })?;
    expect("removing it again is refused", world.remove(&["leaf"]).is_err(), true)?;
    // All or nothing here too.
    with(world, &["p:leaf suite_leaf"], |world| {
        expect("removing one that is not there", world.remove(&["leaf", "nobody"]).is_err(), true)?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_hits(world, "leaf", 1)
    })
}

pub(super) fn an_event_can_be_defined_again_and_counts_from_zero(world: &mut dyn World) -> Outcome {
    with(world, &["p:event suite_leaf", "r:returns suite_leaf"], |world| call(world, "suite_many", [3, 0], 3))?;
    with(world, &["p:event suite_many", "r:returns suite_leaf"], |world| {
        expect_hits(world, "event", 0)?;
        call(world, "suite_many", [3, 0], 3)?;
        expect_hits(world, "event", 1)?;
        expect_returns(world, "returns", 3)
    })
}

pub(super) fn a_hundred_rounds_of_planting_and_removing_leave_nothing(world: &mut dyn World) -> Outcome {
    for round in 0..world.repetitions(100) as u64 {
        with(world, &["p:entry suite_leaf $arg1", "r:returns suite_leaf $retval"], |world| {
            call(world, "suite_leaf", [round, 0], round + 1)?;
            expect_records(world, &[("entry", &[round]), ("returns", &[round + 1])])?;
            expect_hits(world, "entry", 1)?;
            expect_returns(world, "returns", 1)
        })?;
        text_is_clean(world)?;
    }
    Ok(())
}

pub(super) fn a_function_runs_without_records_after_its_probes_are_gone(world: &mut dyn World) -> Outcome {
    with(world, &["p:leaf suite_leaf", "r:returns suite_leaf"], |world| call(world, "suite_leaf", [1, 0], 2))?;
    expect("records from before the removal", world.records().len(), 2)?;
    call(world, "suite_leaf", [1, 0], 2)?;
    expect_records(world, &[])
}
