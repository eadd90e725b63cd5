//! What cannot be probed is refused, and nothing has happened.

use super::super::steps::{
    Outcome, call, call_samples, define, expect, expect_hits, offset_of, remove, remove_all, some_of, text_is_clean,
};
use super::super::{Instruction, World, program};
use alloc::format;
use alloc::vec::Vec;

/// The line with this number of a batch is refused with a reason, and the batch leaves nothing.
fn expect_refused(world: &mut dyn World, lines: &[&str], number: usize) -> Outcome {
    let before = world.events();
    match world.define(lines) {
        Ok(()) => return Err(format!("{lines:?} is not refused")),
        Err(refusal) => {
            expect(&format!("the line that is refused of {lines:?} ({})", refusal.why), refusal.line, number)?;
            expect("a refusal has a reason", refusal.why.is_empty(), false)?;
        }
    }
    expect("events", world.events(), before)
}

fn refused_alone(world: &mut dyn World, line: &str) -> Outcome {
    expect_refused(world, &[line], 0)?;
    text_is_clean(world)?;
    call_samples(world)
}

pub(super) fn the_middle_of_an_instruction_is_refused(world: &mut dyn World) -> Outcome {
    let program = program();
    let inside =
        |f: &'static str, i: &Instruction| (1..i.length as u64).map(|at| (f, i.offset + at)).collect::<Vec<_>>();
    let instructions = program.functions.iter().flat_map(|f| f.instructions.iter().map(|i| (f.name, i)));
    let places: Vec<(&str, u64)> = instructions.flat_map(|(f, i)| inside(f, i)).collect();
    for place in some_of(world, places.len()) {
        let Some((function, offset)) = places.get(place) else { continue };
        expect_refused(world, &[&format!("p:inside {function}+{offset}")], 0)?;
    }
    text_is_clean(world)?;
    call_samples(world)
}

pub(super) fn an_unknown_function_is_refused(world: &mut dyn World) -> Outcome {
    refused_alone(world, "p:unknown suite_nobody")?;
    refused_alone(world, "r:unknown suite_nobody $retval")
}

pub(super) fn an_offset_beyond_the_function_is_refused(world: &mut dyn World) -> Outcome {
    let size = program().find("suite_leaf").map_or(0, |f| f.size);
    refused_alone(world, &format!("p:beyond suite_leaf+{size}"))?;
    refused_alone(world, &format!("p:beyond suite_leaf+{}", size + 16))
}

pub(super) fn a_return_probe_inside_a_function_is_refused(world: &mut dyn World) -> Outcome {
    let second = offset_of("suite_leaf", 1)?;
    refused_alone(world, &format!("r:inside suite_leaf+{second}"))?;
    let address = world.address("suite_leaf") + second;
    refused_alone(world, &format!("r:inside {address:#x}"))
}

pub(super) fn a_return_value_of_a_probe_that_is_no_return_probe_is_refused(world: &mut dyn World) -> Outcome {
    refused_alone(world, "p:entry suite_leaf $retval")
}

pub(super) fn a_line_that_is_no_definition_is_refused(world: &mut dyn World) -> Outcome {
    for line in
        ["x:what suite_leaf", "p:", "p:what", "p:1st suite_leaf", "r0:what suite_leaf", "p:what suite_leaf %nine"]
    {
        refused_alone(world, line)?;
    }
    Ok(())
}

pub(super) fn a_batch_is_placed_as_a_whole_or_not_at_all(world: &mut dyn World) -> Outcome {
    let inside = format!("p:bad suite_nested+{}", offset_of("suite_nested", 1)? + 1);
    let good = ["p:a suite_leaf", "r:b suite_nested", "p:c suite_recurse"];
    for bad in ["p:bad suite_nobody", "p:bad suite_leaf %nine", &inside] {
        for at in 0..=good.len() {
            let mut lines: Vec<&str> = good.to_vec();
            lines.insert(at, bad);
            expect_refused(world, &lines, at)?;
            text_is_clean(world)?;
            for event in ["a", "b", "c", "bad"] {
                expect(&format!("counts of {event} in {lines:?}"), world.counts(event), None)?;
            }
        }
    }
    call_samples(world)?;
    expect("records", world.records().len(), 0)?;
    // What was refused once can be had without the bad line.
    define(world, &good)?;
    call(world, "suite_nested", [1, 2], 5)?;
    expect_hits(world, "a", 2)?;
    remove_all(world, &["a", "b", "c"])
}

pub(super) fn a_refused_batch_leaves_the_probes_that_are_there(world: &mut dyn World) -> Outcome {
    define(world, &["p:there suite_leaf"])?;
    call(world, "suite_leaf", [1, 0], 2)?;
    expect_refused(world, &["p:more suite_nested", "p:again suite_leaf", "p:bad suite_leaf+2"], 2)?;
    call(world, "suite_nested", [1, 2], 5)?;
    expect_hits(world, "there", 3)?;
    remove(world, "there")
}
