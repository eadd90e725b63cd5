//! What handlers before and after an instruction see, and what they can do.

use super::super::super::program::VECTORS;
use super::super::super::steps::{Outcome, expect, text_is_clean};
use super::super::super::{SAMPLES, program};
use super::super::Handlers;
use super::super::notes::What::{Post, Pre};
use super::super::notes::{Note, handler, note, post, pre, take, word};
use super::super::steps::{
    Probe, address, at, call, expect_counts, expect_order, hits, observed, one_note, register, with,
};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use isa::x86::{Regs, gpr};
use kprobes::{Hit, Next};

/// An instruction by function and number; a call that runs it once; the instruction behind it; what it adds to the stack
/// pointer.
type Effect = ((&'static str, usize), (&'static str, [u64; 2]), (&'static str, usize), i64);

const EFFECTS: &[Effect] = &[
    (("suite_leaf", 0), ("suite_leaf", [5, 0]), ("suite_leaf", 1), 0),
    (("suite_leaf", 1), ("suite_leaf", [5, 0]), ("suite_leaf", 2), 0),
    (("suite_leaf", 3), ("suite_first_call", [5, 0]), ("suite_first_call", 1), 8),
    (("suite_deep", 0), ("suite_deep", [1, 2]), ("suite_deep", 1), -8),
    (("suite_deep", 1), ("suite_deep", [1, 2]), ("suite_nested", 0), -8),
    (("suite_deep", 2), ("suite_deep", [1, 2]), ("suite_deep", 3), 8),
    (("suite_nested", 6), ("suite_nested", [1, 2]), ("suite_nested", 7), 8),
    (("suite_tail", 1), ("suite_tail", [1, 0]), ("suite_leaf", 0), 0),
    (("suite_recurse", 4), ("suite_recurse", [0, 0]), ("suite_recurse", 8), 0),
    (("suite_max", 2), ("suite_max", [2, 9]), ("suite_max", 3), 0),
    (("suite_count", 2), ("suite_count", [0, 0]), ("suite_count", 5), 0),
    (("suite_count", 4), ("suite_count", [1, 0]), ("suite_count", 5), 0),
    (("suite_call_register", 1), ("suite_call_register", [1, 0]), ("suite_leaf", 0), -8),
    (("suite_call_memory", 1), ("suite_call_memory", [1, 0]), ("suite_call_memory", 2), -8),
    (("suite_call_memory", 2), ("suite_call_memory", [1, 0]), ("suite_leaf", 0), -8),
    (("suite_jump_register", 1), ("suite_jump_register", [1, 0]), ("suite_leaf", 0), 0),
    (("suite_push_return", 2), ("suite_push_return", [1, 0]), ("suite_leaf", 0), 8),
    (("suite_flags", 1), ("suite_flags", [0, 0]), ("suite_flags", 2), -8),
    (("suite_pops", 3), ("suite_pushes", [3, 4]), ("suite_pushes", 3), 24),
    (("suite_first_relative", 0), ("suite_first_relative", [0, 0]), ("suite_first_relative", 1), 0),
    (("suite_first_jump", 0), ("suite_first_jump", [1, 0]), ("suite_first_jump", 2), 0),
    (("suite_first_endbr", 0), ("suite_first_endbr", [1, 0]), ("suite_first_endbr", 1), 0),
    (("suite_load", 0), ("suite_load_call", [1, 0]), ("suite_load", 1), 0),
];

pub(super) fn a_post_handler_sees_the_effect_of_any_class_of_instruction(world: &mut dyn Handlers) -> Outcome {
    for &((function, number), (called, arguments), (behind, next), moved) in EFFECTS {
        let what = format!("{function}, instruction {number}");
        let (here, there) = (address(world, function, number)?, address(world, behind, next)?);
        let result = world.call(called, arguments);
        with(world, vec![observed(function, number, 1)?], |world, probes| {
            expect(&format!("{called} with a probe on {what}"), world.call(called, arguments), result)?;
            let notes = take();
            let [before, after] = notes.as_slice() else { return Err(format!("{what}: {notes:x?}")) };
            expect(&what, [before.what, after.what], [Pre, Post])?;
            expect(&format!("{what}: before"), before.words[word::PC], here)?;
            expect(&format!("{what}: behind"), after.words[word::PC], there)?;
            let expected = before.words[word::SP].wrapping_add_signed(moved);
            expect(&format!("{what}: the stack pointer behind"), after.words[word::SP], expected)?;
            expect_counts(world, probes, 0, hits(1, 0))
        })?;
    }
    Ok(())
}

/// A function, and the number of an instruction in it.
type Place = (&'static str, usize);

/// A probe on every instruction of the program that samples run, and where.
fn everywhere() -> Result<(Vec<Probe>, Vec<Place>), String> {
    let program = program();
    let functions = program.functions.iter().filter(|f| !VECTORS.contains(&f.name));
    let places: Vec<Place> = functions.flat_map(|f| (0..f.instructions.len()).map(|number| (f.name, number))).collect();
    let probes = (0..).zip(&places).map(|(user, &(function, number))| observed(function, number, user));
    Ok((probes.collect::<Result<_, String>>()?, places))
}

pub(super) fn handlers_run_before_and_after_every_instruction_with_the_registers_of_then(
    world: &mut dyn Handlers,
) -> Outcome {
    let (probes, places) = everywhere()?;
    with(world, probes, |world, _| {
        for sample in SAMPLES {
            let what = format!("{}{:?}", sample.function, sample.arguments);
            let got = world.call(sample.function, sample.arguments);
            expect(&what, got, sample.result.unwrap_or(got))?;
            let notes = take();
            check_trace(&notes).map_err(|why| format!("{what}: {why}"))?;
            for (user, &(function, number)) in (0..).zip(&places) {
                let ran = notes.iter().filter(|n| n.what == Post && n.user == user).count();
                let what = format!("{what}: {function}, instruction {number}");
                expect(&what, ran as u64, sample.runs_of(function, number))?;
            }
        }
        Ok(())
    })?;
    text_is_clean(world)
}

/// Each pre-handler is followed by the post-handler of its probe, and that has seen what the next pre-handler sees.
fn check_trace(notes: &[Note]) -> Outcome {
    for pair in notes.chunks(2) {
        let [before, after] = pair else { return Err("a handler is alone".into()) };
        expect(
            "handlers",
            [(before.what, before.user), (after.what, after.user)],
            [(Pre, before.user), (Post, before.user)],
        )?;
    }
    for pair in notes.get(1..).unwrap_or_default().chunks_exact(2) {
        let [after, next] = pair else { continue };
        let general = |note: &Note| [word::PC, word::SP, word::RAX, word::RDI, word::RCX].map(|at| note.words[at]);
        expect(&format!("registers behind probe {}", after.user), general(after), general(next))?;
    }
    Ok(())
}

/// `inc rax` counts from 41.
extern "C" fn begins_at_41(hit: &mut Hit<'_, Regs>) -> Next {
    hit.regs_mut().gpr[gpr::RAX] = 41;
    Next::Step
}

/// The result is the probe's word.
extern "C" fn gives_its_word(hit: &mut Hit<'_, Regs>) {
    let word = hit.user();
    hit.regs_mut().gpr[gpr::RAX] = word;
}

/// Execution goes on as many bytes further on as the probe's word says.
extern "C" fn goes_further(hit: &mut Hit<'_, Regs>) {
    let word = hit.user();
    hit.regs_mut().rip += word;
}

/// The same before the instruction, without a word about it.
extern "C" fn goes_further_silently(hit: &mut Hit<'_, Regs>) -> Next {
    goes_further(hit);
    Next::Step
}

/// The same before the instruction.
pub(super) extern "C" fn skips(hit: &mut Hit<'_, Regs>) -> Next {
    note(Pre, hit.user(), &[]);
    goes_further(hit);
    Next::Redirected
}

/// How long `inc rax` is in `suite_leaf`, where it has this number.
const INC: usize = 2;
pub(super) const INC_BYTES: u64 = 3;

pub(super) fn a_pre_handler_changes_the_registers_of_the_instruction(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![at("suite_leaf", INC)?.pre(handler(begins_at_41)).into()], |world, _| {
        call(world, "suite_leaf", [1, 0], 42)
    })
}

pub(super) fn a_post_handler_changes_the_registers_behind_the_instruction(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![at("suite_leaf", INC)?.post(handler(gives_its_word)).user(7).into()], |world, _| {
        call(world, "suite_leaf", [1, 0], 7)
    })
}

pub(super) fn a_post_handler_chooses_where_execution_goes_on(world: &mut dyn Handlers) -> Outcome {
    // Behind `mov rax, rdi` is `inc rax`, which is left out.
    with(world, vec![at("suite_leaf", INC - 1)?.post(handler(goes_further)).user(INC_BYTES).into()], |world, _| {
        call(world, "suite_leaf", [5, 0], 5)
    })
}

pub(super) fn a_program_counter_without_a_word_about_it_is_not_taken(world: &mut dyn Handlers) -> Outcome {
    // One that is emulated, if any is, and one that is copied.
    for number in [0, INC] {
        let here = address(world, "suite_leaf", number)?;
        let silent = at("suite_leaf", number)?.pre(handler(goes_further_silently)).user(INC_BYTES);
        with(world, vec![silent.into(), at("suite_leaf", number)?.pre(handler(pre)).into()], |world, _| {
            call(world, "suite_leaf", [5, 0], 6)?;
            let seen = one_note(Pre)?.words[word::PC];
            expect("where the handler behind it sees execution", seen, here)
        })?;
    }
    Ok(())
}

pub(super) fn a_pre_handler_redirects_execution(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![at("suite_leaf", INC)?.pre(handler(skips)).user(INC_BYTES).into()], |world, probes| {
        call(world, "suite_leaf", [5, 0], 5)?;
        expect_counts(world, probes, 0, hits(1, 0))
    })
}

pub(super) fn no_post_handler_runs_behind_an_instruction_that_was_skipped(world: &mut dyn Handlers) -> Outcome {
    let before = at("suite_leaf", INC)?.pre(handler(pre)).post(handler(post)).user(1);
    let skipping = at("suite_leaf", INC)?.pre(handler(skips)).post(handler(post)).user(INC_BYTES);
    take();
    let probes = register(world, vec![before.into(), skipping.into()])?;
    call(world, "suite_leaf", [5, 0], 5)?;
    expect_order(&[(Pre, 1), (Pre, INC_BYTES)])?;
    world.unregister(probes)
}
