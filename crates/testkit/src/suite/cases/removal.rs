//! What was planted can be taken away, and leaves nothing.

use super::super::steps::{
    Outcome, call, call_samples, define, every_instruction, expect, expect_hits, expect_planted, expect_records,
    expect_returns, name_of, offset_of, remove, text_is_clean, with,
};
use super::super::{World, program};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) fn a_removed_probe_leaves_the_text_as_it_was(world: &mut dyn World) -> Outcome {
    for kind in ["p", "r"] {
        for function in &program().functions {
            let line = format!("{kind}:probe {}", function.name);
            with(world, &[line], |world| expect_planted(world, function.name, 0))?;
            text_is_clean(world)?;
        }
    }
    Ok(())
}

pub(super) fn the_text_is_changed_where_probes_are_and_nowhere_else(world: &mut dyn World) -> Outcome {
    let program = program();
    let probes = every_instruction(&program, "probe");
    let lines: Vec<&String> = probes.iter().map(|(line, ..)| line).collect();
    define(world, &lines)?;
    for (_, function, number) in &probes {
        expect_planted(world, function, offset_of(function, *number)?)?;
    }
    // Taken off one by one, the others stay.
    for (i, (line, function, number)) in probes.iter().enumerate() {
        remove(world, &name_of(line))?;
        let at = world.address(function) + offset_of(function, *number)?;
        let code = program.find(function).map(|f| program.code_of(f)).unwrap_or_default();
        let mut now = [0];
        world.text(at, &mut now);
        expect(line, now.first(), code.get(offset_of(function, *number)? as usize))?;
        if let Some((_, function, number)) = probes.get(i + 1) {
            expect_planted(world, function, offset_of(function, *number)?)?;
        }
    }
    text_is_clean(world)?;
    call_samples(world)
}

pub(super) fn an_event_that_is_not_there_cannot_be_removed(world: &mut dyn World) -> Outcome {
    expect("removing nothing is refused", world.remove("nobody").is_err(), true)?;
    with(world, &["p:leaf suite_leaf"], |world| {
        expect("removing another is refused", world.remove("nobody").is_err(), true)?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_hits(world, "leaf", 1)
    })?;
    expect("removing it again is refused", world.remove("leaf").is_err(), true)
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
    for round in 0..100 {
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
