//! Handlers that hit probes: none of these runs, and each counts a miss, however deep.

use super::super::super::steps::{Outcome, expect};
use super::super::notes::What::{Entry, Mirror, Post, Pre, Return};
use super::super::notes::{What, handler, post, pre, set_calling, take};
use super::super::steps::{
    Probe, call, entered, expect_counts, expect_order, hits, mirrored, observed, returned, returning, with,
};
use super::super::{Handlers, mirrors};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use kprobes::Kprobe;

const CALLER: &str = "suite_first_copied";

/// A probe on `suite_first_copied` that runs a handler of this kind once for each call.
fn running(what: What) -> Probe {
    match what {
        Pre => entered(CALLER, 0),
        Mirror => mirrored(mirrors::on(CALLER, mirrors::two as extern "C" fn(_, _))),
        Entry => super::super::steps::with_data::<()>(CALLER).entry(handler(super::super::notes::entry)).into(),
        Return => super::super::steps::with_data::<()>(CALLER).handler(handler(super::super::notes::returns)).into(),
        Post | What::Fault => Kprobe::symbol(CALLER).post(handler(post)).into(),
    }
}

/// Probes of each kind on `suite_deep`, `suite_nested`, `suite_leaf`, with how often a call of `suite_deep` hits them.
fn below() -> Result<(Vec<Probe>, Vec<u64>), String> {
    let mut probes = Vec::new();
    let mut times = Vec::new();
    for (function, hits) in [("suite_deep", 1), ("suite_nested", 1), ("suite_leaf", 2)] {
        probes.push(observed(function, 0, 9)?);
        probes.push(returning(function, 9).into());
        probes.push(mirrored(mirrors::on(function, mirrors::two as extern "C" fn(_, _))));
        times.extend([hits; 3]);
    }
    Ok((probes, times))
}

pub(super) fn a_handler_of_any_kind_that_calls_probed_functions_makes_them_miss_exactly(
    world: &mut dyn Handlers,
) -> Outcome {
    for what in [Pre, Post, Entry, Return, Mirror] {
        let (mut probes, times) = below()?;
        probes.push(running(what));
        set_calling(what, world.address("suite_deep"));
        with(world, probes, |world, probes| {
            for round in 1..=3 {
                call(world, CALLER, [2, 3], 5)?;
                let ran = take();
                expect(&format!("handlers that have run: {ran:x?}"), ran.len(), 1)?;
                for (number, times) in times.iter().enumerate() {
                    expect_counts(world, probes, number, hits(0, times * round))
                        .map_err(|why| format!("{what:?}: {why}"))?;
                }
            }
            Ok(())
        })?;
        set_calling(what, 0);
    }
    Ok(())
}

pub(super) fn a_handler_that_calls_its_own_function_misses_itself(world: &mut dyn Handlers) -> Outcome {
    let leaf = world.address("suite_leaf");
    set_calling(Pre, leaf);
    set_calling(Post, leaf);
    with(world, vec![observed("suite_leaf", 0, 1)?, entered("suite_leaf", 2)], |world, probes| {
        call(world, "suite_leaf", [5, 0], 6)?;
        // Three handlers call it: two before, one behind.
        expect_order(&[(Pre, 1), (Pre, 2), (Post, 1)])?;
        expect_counts(world, probes, 0, hits(1, 3))?;
        expect_counts(world, probes, 1, hits(1, 3))
    })
}

pub(super) fn handlers_of_a_return_that_call_their_own_function_miss_themselves(world: &mut dyn Handlers) -> Outcome {
    let recurse = world.address("suite_recurse");
    set_calling(Entry, recurse);
    set_calling(Return, recurse);
    with(world, vec![returning("suite_recurse", 1).maxactive(8).into()], |world, probes| {
        // Each of the handlers of two activations calls it with 1: two calls more, and each is missed.
        call(world, "suite_recurse", [1, 0], 1)?;
        expect_order(&[(Entry, 1), (Entry, 1), (Return, 1), (Return, 1)])?;
        expect_counts(world, probes, 0, returned(2, 8))
    })
}

pub(super) fn a_missed_hit_has_no_post_handler(world: &mut dyn Handlers) -> Outcome {
    set_calling(Pre, world.address("suite_leaf"));
    let inner: Result<Vec<Probe>, String> = (0..4).map(|number| observed("suite_leaf", number, 9)).collect();
    with(world, inner?.into_iter().chain([entered(CALLER, 1)]).collect(), |world, probes| {
        call(world, CALLER, [2, 3], 5)?;
        expect_order(&[(Pre, 1)])?;
        (0..4).try_for_each(|number| expect_counts(world, probes, number, hits(0, 1)))
    })
}

pub(super) fn the_instructions_under_a_missed_hit_take_their_effect(world: &mut dyn Handlers) -> Outcome {
    // If they did not, the function that is called would not return to the handler.
    let functions = ["suite_pushes", "suite_count", "suite_call_memory", "suite_push_return", "suite_where"];
    for function in functions {
        let instructions = super::super::super::program().find(function).map_or(0, |f| f.instructions.len());
        let inner: Result<Vec<Probe>, String> = (0..instructions).map(|number| observed(function, number, 9)).collect();
        let leaf = Kprobe::symbol("suite_leaf").pre(handler(pre)).user(9).into();
        set_calling(Pre, world.address(function));
        with(world, inner?.into_iter().chain([leaf, entered(CALLER, 1)]).collect(), |world, _| {
            call(world, CALLER, [2, 3], 5)?;
            expect_order(&[(Pre, 1)])
        })?;
    }
    Ok(())
}

pub(super) fn after_a_handler_that_has_missed_probes_they_run_again(world: &mut dyn Handlers) -> Outcome {
    set_calling(Mirror, world.address("suite_leaf"));
    let probes = vec![running(Mirror), observed("suite_leaf", 1, 1)?, returning("suite_leaf", 2).into()];
    with(world, probes, |world, probes| {
        for round in 1..=3 {
            call(world, CALLER, [2, 3], 5)?;
            call(world, "suite_leaf", [1, 0], 2)?;
            expect_order(&[(Mirror, 0), (Entry, 2), (Pre, 1), (Post, 1), (Return, 2)])?;
            expect_counts(world, probes, 1, hits(round, round))?;
            expect_counts(world, probes, 2, returned(round, round))?;
        }
        Ok(())
    })
}
