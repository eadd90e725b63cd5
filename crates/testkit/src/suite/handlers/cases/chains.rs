//! Several probes, and probes that are switched.

use super::super::super::steps::{Outcome, differences, expect, expect_planted, standing, text_is_clean};
use super::super::notes::What::{Entry, Mirror, Post, Pre, Return};
use super::super::notes::{What, handler, take, word};
use super::super::steps::{
    at, call, entered, expect_counts, expect_order, hits, mirrored, observed, one_note, register, returning, switch,
    with,
};
use super::super::{Handlers, mirrors};
use super::instructions::{INC_BYTES, skips};
use alloc::vec;
use alloc::vec::Vec;
use kprobes::Kprobe;
use kprobes::raw::Counts;

pub(super) fn handlers_of_several_probes_run_in_the_order_of_their_registration(world: &mut dyn Handlers) -> Outcome {
    let probes = vec![observed("suite_leaf", 1, 3)?, observed("suite_leaf", 1, 1)?, observed("suite_leaf", 1, 2)?];
    with(world, probes, |world, _| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_order(&[(Pre, 3), (Pre, 1), (Pre, 2), (Post, 3), (Post, 1), (Post, 2)])
    })
}

pub(super) fn a_pre_handler_that_redirects_stops_the_chain(world: &mut dyn Handlers) -> Outcome {
    let skipping = at("suite_leaf", 2)?.pre(handler(skips)).user(INC_BYTES).into();
    with(world, vec![observed("suite_leaf", 2, 1)?, skipping, observed("suite_leaf", 2, 2)?], |world, probes| {
        call(world, "suite_leaf", [5, 0], 5)?;
        expect_order(&[(Pre, 1), (Pre, INC_BYTES)])?;
        expect_counts(world, probes, 0, hits(1, 0))?;
        expect_counts(world, probes, 1, hits(1, 0))?;
        expect_counts(world, probes, 2, hits(0, 0))
    })
}

/// Handlers, each with the word of its probe.
type Ran = &'static [(What, u64)];
/// What a probe at the entry of `suite_leaf` runs before and after the instruction and at the return, by its number.
const KINDS: [[Ran; 3]; 4] = [
    [&[(Pre, 0)], &[], &[]],
    [&[(Mirror, 0)], &[], &[]],
    [&[(Entry, 2)], &[], &[(Return, 2)]],
    [&[(Pre, 3)], &[(Post, 3)], &[]],
];

pub(super) fn probes_of_all_kinds_on_one_address_are_switched_independently(world: &mut dyn Handlers) -> Outcome {
    let leaf = "suite_leaf";
    let probes = vec![
        entered(leaf, 0),
        mirrored(mirrors::on(leaf, mirrors::two as extern "C" fn(_, _))),
        returning(leaf, 2).into(),
        observed(leaf, 0, 3)?,
    ];
    with(world, probes, |world, probes| {
        // Each set of them, in an order in which neighbours differ in several.
        for set in (0..16usize).map(|i| i * 7 % 16).chain([15]) {
            let on = |number: usize| set >> number & 1 != 0;
            (0..KINDS.len()).try_for_each(|number| switch(world, probes, number, on(number)))?;
            call(world, "suite_leaf", [1, 2], 2)?;
            let kinds = KINDS.iter().enumerate().filter(|(number, _)| on(*number)).map(|(_, kind)| kind);
            let expected: Vec<_> =
                kinds.clone().flat_map(|kind| kind[0]).chain(kinds.clone().flat_map(|k| k[1])).collect();
            let expected: Vec<_> = expected.into_iter().chain(kinds.flat_map(|kind| kind[2])).copied().collect();
            expect_order(&expected)?;
            expect("the text is as without probes", differences(world).is_empty(), set == 0)?;
        }
        Ok(())
    })
}

pub(super) fn a_probe_that_is_registered_switched_off_does_nothing_until_it_is_switched_on(
    world: &mut dyn Handlers,
) -> Outcome {
    let off = || Kprobe::symbol("suite_leaf").pre(handler(super::super::notes::pre)).user(1).disabled();
    let other_off = || returning("suite_nested", 2).disabled();
    with(world, vec![off().into(), other_off().into(), entered("suite_tail", 3)], |world, probes| {
        expect_planted(world, "suite_tail", 0)?;
        expect("places where something stands", standing(world).len(), 1)?;
        call(world, "suite_nested", [1, 2], 5)?;
        expect_order(&[])?;
        expect_counts(world, probes, 0, hits(0, 0))?;
        switch(world, probes, 0, true)?;
        switch(world, probes, 1, true)?;
        call(world, "suite_nested", [1, 2], 5)?;
        expect_order(&[(Entry, 2), (Pre, 1), (Pre, 1), (Return, 2)])?;
        expect_counts(world, probes, 0, hits(2, 0))
    })?;
    text_is_clean(world)
}

pub(super) fn a_probe_can_be_switched_again_and_again(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![observed("suite_leaf", 1, 1)?], |world, probes| {
        for round in 1..=world.repetitions(20) as u64 {
            switch(world, probes, 0, false)?;
            text_is_clean(world)?;
            call(world, "suite_leaf", [1, 0], 2)?;
            expect_order(&[])?;
            switch(world, probes, 0, true)?;
            call(world, "suite_leaf", [1, 0], 2)?;
            expect_order(&[(Pre, 1), (Post, 1)])?;
            expect_counts(world, probes, 0, hits(round, 0))?;
        }
        Ok(())
    })
}

pub(super) fn switching_a_probe_as_it_is_already_changes_nothing(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![entered("suite_leaf", 1), entered("suite_leaf", 2)], |world, probes| {
        for on in [true, false, false, true, true] {
            switch(world, probes, 0, on)?;
            call(world, "suite_leaf", [1, 0], 2)?;
            expect_order(if on { &[(Pre, 1), (Pre, 2)] } else { &[(Pre, 2)] })?;
        }
        Ok(())
    })
}

pub(super) fn a_probe_without_handlers_counts(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![Kprobe::symbol("suite_leaf").into()], |world, probes| {
        call(world, "suite_nested", [1, 2], 5)?;
        expect_order(&[])?;
        expect_counts(world, probes, 0, hits(2, 0))
    })
}

pub(super) fn handlers_are_told_their_probe_and_its_word(world: &mut dyn Handlers) -> Outcome {
    let word = 0x0123_4567_89AB_CDEF;
    let leaf = world.address("suite_leaf");
    with(world, vec![entered("suite_leaf", word)], |world, _| {
        call(world, "suite_leaf", [1, 0], 2)?;
        let note = one_note(Pre)?;
        expect("the word", note.user, word)?;
        expect("the address", note.words[word::ADDRESS], leaf)?;
        expect("no caller", note.words[word::CALLER], 0)?;
        expect("no trap", note.words[word::TRAP], 0)
    })?;
    with(world, vec![returning("suite_leaf", word).into()], |world, _| {
        call(world, "suite_leaf", [1, 0], 2)?;
        for note in take() {
            expect("the word", note.user, word)?;
            expect("the address", note.words[word::ADDRESS], leaf)?;
        }
        Ok(())
    })
}

pub(super) fn nothing_runs_after_unregistering(world: &mut dyn Handlers) -> Outcome {
    let probes = vec![
        observed("suite_leaf", 0, 1)?,
        returning("suite_leaf", 2).into(),
        mirrored(mirrors::on("suite_leaf", mirrors::two as extern "C" fn(_, _))),
    ];
    take();
    let probes = register(world, probes)?;
    let old: Vec<_> = probes.iter().map(|p| kprobes::Registered::new(p.id(), p.serial())).collect();
    world.unregister(probes)?;
    text_is_clean(world)?;
    call(world, "suite_nested", [1, 2], 5)?;
    expect_order(&[])?;
    for probe in &old {
        expect("counts of a probe that is gone", world.counts_of(probe), None::<Counts>)?;
    }
    Ok(())
}

pub(super) fn unregistering_one_of_several_leaves_the_others(world: &mut dyn Handlers) -> Outcome {
    for gone in 0..3 {
        take();
        let mut probes = register(world, (0..3).map(|user| entered("suite_leaf", user)).collect())?;
        let one = probes.remove(gone as usize);
        world.unregister(vec![one])?;
        call(world, "suite_leaf", [1, 0], 2)?;
        let left: Vec<_> = (0..3).filter(|&user| user != gone).map(|user| (Pre, user)).collect();
        expect_order(&left)?;
        world.unregister(probes)?;
    }
    Ok(())
}
