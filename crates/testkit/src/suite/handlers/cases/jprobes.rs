//! Jprobes: mirrors of functions.

use super::super::super::steps::{Outcome, expect};
use super::super::notes::What::Mirror;
use super::super::notes::take;
use super::super::steps::{call, expect_counts, expect_order, hits, mirrored, one_note, switch, with, words_of};
use super::super::{Handlers, mirrors};
use alloc::format;
use alloc::vec;
use core::sync::atomic::AtomicU64;
use kprobes::Mirror as Mirrors;

/// Calls a function whose mirror must be given these arguments, and must change nothing.
fn mirrors<F: Mirrors>(
    world: &mut dyn Handlers,
    (function, mirror): (&'static str, F),
    (called, arguments): (&str, [u64; 2]),
    expected: &[u64],
) -> Outcome {
    let result = world.call(called, arguments);
    with(world, vec![mirrored(mirrors::on(function, mirror))], |world, probes| {
        call(world, called, arguments, result)?;
        let note = one_note(Mirror)?;
        let words = note.words.get(..expected.len()).unwrap_or_default();
        expect(&format!("what the mirror of {function} was given"), words, expected)?;
        expect_counts(world, probes, 0, hits(1, 0))
    })
}

/// What `suite_wide_call(10, 20)` gives to `suite_wide`.
const WIDE: [u64; 8] = [12, 21, 22, 13, 23, 14, 10, 20];

pub(super) fn a_mirror_is_given_six_arguments_in_registers(world: &mut dyn Handlers) -> Outcome {
    let six: extern "C" fn(_, _, _, _, _, _) = mirrors::six;
    mirrors(world, ("suite_wide", six), ("suite_wide_call", [10, 20]), &WIDE[..6])
}

pub(super) fn a_mirror_is_given_arguments_on_the_stack(world: &mut dyn Handlers) -> Outcome {
    let eight: extern "C" fn(_, _, _, _, _, _, _, _) = mirrors::eight;
    mirrors(world, ("suite_wide", eight), ("suite_wide_call", [10, 20]), &WIDE)
}

pub(super) fn a_mirror_is_given_a_structure_by_value(world: &mut dyn Handlers) -> Outcome {
    let structure: extern "C" fn(_, _) = mirrors::structure;
    mirrors(world, ("suite_struct", structure), ("suite_struct_call", [3, 4]), &[3, 5, 4, 4])
}

pub(super) fn a_mirror_follows_a_pointer(world: &mut dyn Handlers) -> Outcome {
    static WORD: AtomicU64 = AtomicU64::new(0x1234_5678_9ABC_DEF0);
    let pointer: extern "C" fn(_) = mirrors::pointer;
    let argument = (&raw const WORD).expose_provenance() as u64;
    mirrors(world, ("suite_leaf", pointer), ("suite_leaf", [argument, 0]), &[0x1234_5678_9ABC_DEF0])
}

pub(super) fn a_mirror_is_told_what_a_caller_with_variable_arguments_says(world: &mut dyn Handlers) -> Outcome {
    let variadic: extern "C" fn(_) = mirrors::variadic;
    mirrors(world, ("suite_variadic", variadic), ("suite_variadic_call", [7, 0]), &[7, 3])
}

pub(super) fn a_mirror_is_given_floating_point_arguments(world: &mut dyn Handlers) -> Outcome {
    let floats: extern "C" fn(_, _) = mirrors::floats;
    let expected = [7f64.to_bits(), (-3f64).to_bits()];
    mirrors(world, ("suite_float", floats), ("suite_float_call", [7, -3i64 as u64]), &expected)
}

pub(super) fn a_mirror_sees_both_sides_of_a_tail_call(world: &mut dyn Handlers) -> Outcome {
    let two = || mirrors::two as extern "C" fn(_, _);
    let probes = ["suite_tail", "suite_leaf"].map(|function| mirrored(mirrors::on(function, two())));
    with(world, probes.into_iter().collect(), |world, _| {
        call(world, "suite_tail", [4, 9], 7)?;
        let notes = take();
        expect("first arguments", words_of(&notes, Mirror, 0), vec![4, 6])?;
        expect("second arguments", words_of(&notes, Mirror, 1), vec![9, 9])
    })
}

pub(super) fn a_mirror_works_on_copies(world: &mut dyn Handlers) -> Outcome {
    let spoils: extern "C" fn(_) = mirrors::spoils;
    mirrors(world, ("suite_wide", spoils), ("suite_wide_call", [10, 20]), &[12])
}

pub(super) fn a_mirror_s_result_is_nobody_s(world: &mut dyn Handlers) -> Outcome {
    let other: extern "C" fn(_) -> _ = mirrors::other_result;
    mirrors(world, ("suite_leaf", other), ("suite_leaf", [5, 0]), &[5])
}

pub(super) fn a_mirror_is_left_from_within(world: &mut dyn Handlers) -> Outcome {
    let leaves = || mirrors::leaves as extern "C" fn(_);
    mirrors(world, ("suite_leaf", leaves()), ("suite_leaf", [5, 0]), &[5])?;
    // It is not taken for a fault, and the next call is seen.
    with(world, vec![mirrored(mirrors::on("suite_leaf", leaves()))], |world, probes| {
        call(world, "suite_many", [5, 0], 5)?;
        expect("mirrors", words_of(&take(), Mirror, 0), vec![0, 1, 2, 3, 4])?;
        expect_counts(world, probes, 0, hits(5, 0))
    })
}

pub(super) fn a_mirror_runs_for_every_call(world: &mut dyn Handlers) -> Outcome {
    let two: extern "C" fn(_, _) = mirrors::two;
    with(world, vec![mirrored(mirrors::on("suite_recurse", two))], |world, probes| {
        call(world, "suite_recurse", [3, 0], 6)?;
        expect("mirrors", words_of(&take(), Mirror, 0), vec![3, 2, 1, 0])?;
        expect_counts(world, probes, 0, hits(4, 0))
    })
}

pub(super) fn a_jprobe_can_be_switched_off(world: &mut dyn Handlers) -> Outcome {
    let two: extern "C" fn(_, _) = mirrors::two;
    with(world, vec![mirrored(mirrors::on("suite_leaf", two).disabled())], |world, probes| {
        for on in [false, true, false] {
            switch(world, probes, 0, on)?;
            call(world, "suite_leaf", [1, 0], 2)?;
            expect_order(if on { &[(Mirror, 0)] } else { &[] })?;
        }
        Ok(())
    })
}
