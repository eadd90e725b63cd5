//! A probed program computes what it computed before.

use super::super::steps::{
    Outcome, call_sample, call_samples, counts, define, every_instruction, every_return, expect, expect_planted,
    name_of, offset_of, remove, text_is_clean, with,
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

pub(super) fn a_probe_on_each_instruction_alone_changes_no_result_and_counts_it(world: &mut dyn World) -> Outcome {
    for (line, function, number) in every_instruction(&program(), "one") {
        define(world, &[&line])?;
        expect_planted(world, function, offset_of(function, number)?)?;
        let mut expected = 0;
        for sample in SAMPLES.iter().filter(|s| s.entries_of(function) > 0) {
            call_sample(world, sample)?;
            expected += sample.runs_of(function, number);
        }
        let hits = counts(world, &name_of(&line))?.hits;
        expect(&format!("hits of instruction {number} of {function}"), hits, expected)?;
        remove(world, &name_of(&line))?;
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
