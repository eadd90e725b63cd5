//! A probed program computes what it computed before.

use super::super::steps::{
    Outcome, call_samples, counts, every_instruction, every_return, expect, expect_planted, name_of, offset_of,
    text_is_clean, with,
};
use super::super::{SAMPLES, World, program};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) fn functions_do_what_they_should_without_probes(world: &mut dyn World) -> Outcome {
    text_is_clean(world)?;
    call_samples(world)
}

pub(super) fn a_probe_on_every_instruction_at_once_changes_no_result(world: &mut dyn World) -> Outcome {
    let lines: Vec<String> = every_instruction(&program(), "all").into_iter().map(|(line, ..)| line).collect();
    with(world, &lines, call_samples)
}

pub(super) fn a_probe_on_one_instruction_of_each_function_changes_no_result(world: &mut dyn World) -> Outcome {
    let probes = every_instruction(&program(), "one");
    let rounds = probes.iter().map(|(.., number)| number + 1).max().unwrap_or(0);
    for round in 0..rounds {
        let probes: Vec<_> = probes.iter().filter(|(.., number)| *number == round).collect();
        let lines: Vec<&String> = probes.iter().map(|(line, ..)| line).collect();
        with(world, &lines, |world| {
            call_samples(world)?;
            for (line, function, number) in probes {
                expect_planted(world, function, offset_of(function, *number)?)?;
                let expected = SAMPLES.iter().map(|s| s.runs_of(function, *number)).sum();
                let hits = counts(world, &name_of(line))?.hits;
                expect(&format!("hits of instruction {number} of {function}"), hits, expected)?;
            }
            Ok(())
        })?;
        text_is_clean(world)?;
    }
    Ok(())
}

pub(super) fn a_return_probe_on_every_function_at_once_changes_no_result(world: &mut dyn World) -> Outcome {
    let probes = every_return(&program(), "returns");
    let lines: Vec<&String> = probes.iter().map(|(line, _)| line).collect();
    with(world, &lines, |world| {
        call_samples(world)?;
        for (line, function) in &probes {
            let entries: u64 = SAMPLES.iter().map(|s| s.entries_of(function)).sum();
            let got = counts(world, &name_of(line))?;
            expect(
                &format!("hits, returned, unwound and missed of {function}"),
                (got.hits, got.returned, got.unwound, got.missed),
                (entries, entries, 0, 0),
            )?;
        }
        Ok(())
    })
}

pub(super) fn probes_and_return_probes_everywhere_together_change_no_result(world: &mut dyn World) -> Outcome {
    let mut lines: Vec<String> = every_return(&program(), "returns").into_iter().map(|(line, _)| line).collect();
    lines.extend(every_instruction(&program(), "all").into_iter().map(|(line, ..)| line));
    with(world, &lines, call_samples)
}
