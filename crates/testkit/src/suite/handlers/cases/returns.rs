//! Return probes.

use super::super::super::steps::{Outcome, expect};
use super::super::Handlers;
use super::super::notes::What::{Entry, Pre, Return};
use super::super::notes::{gives_argument, handler, keeps_argument, note, take, word};
use super::super::steps::{
    Probe, address, call, entered, expect_counts, expect_order, hits, register, returned, returning, switch, with,
    with_data, words_of,
};
use alloc::vec;
use alloc::vec::Vec;
use isa::x86::{Regs, gpr};
use kprobes::raw::Counts;
use kprobes::{Hit, Kretprobe, Watch};

/// A return probe that keeps the first argument from entry to return.
fn keeping(function: &'static str, user: u64) -> Kretprobe<'static, Regs, u64> {
    let probe = with_data::<u64>(function).entry(handler(keeps_argument)).handler(handler(gives_argument));
    probe.user(user).maxactive(16)
}

pub(super) fn the_entry_handler_runs_before_the_call_and_the_handler_behind_it(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![returning("suite_leaf", 1).into()], |world, probes| {
        call(world, "suite_leaf", [41, 0], 42)?;
        let notes = take();
        expect("arguments", words_of(&notes, Entry, word::RDI), vec![41])?;
        expect("return values", words_of(&notes, Return, word::RAX), vec![42])?;
        expect("order", [notes[0].what, notes[1].what], [Entry, Return])?;
        expect_counts(world, probes, 0, returned(1, 0))
    })
}

pub(super) fn a_return_is_seen_where_the_function_returns_to(world: &mut dyn Handlers) -> Outcome {
    let (leaf, behind) = (address(world, "suite_leaf", 0)?, address(world, "suite_first_call", 1)?);
    with(world, vec![returning("suite_leaf", 1).into()], |world, _| {
        call(world, "suite_first_call", [1, 0], 12)?;
        let notes = take();
        expect("program counters", [notes[0].words[word::PC], notes[1].words[word::PC]], [leaf, behind])?;
        let popped = notes[0].words[word::SP].wrapping_add(8);
        expect("the stack pointer behind", notes[1].words[word::SP], popped)?;
        expect("callers", [notes[0].words[word::CALLER], notes[1].words[word::CALLER]], [0, behind])
    })
}

pub(super) fn each_activation_has_data_of_its_own(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![keeping("suite_recurse", 1).into()], |world, probes| {
        call(world, "suite_recurse", [3, 0], 6)?;
        let notes = take();
        expect("arguments", words_of(&notes, Entry, word::RDI), vec![3, 2, 1, 0])?;
        expect("data at the returns", words_of(&notes, Return, word::DATA), vec![0, 1, 2, 3])?;
        expect("return values", words_of(&notes, Return, word::RAX), vec![0, 1, 3, 6])?;
        expect_counts(world, probes, 0, returned(4, 0))
    })
}

pub(super) fn data_is_zero_at_each_entry(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![keeping("suite_leaf", 1).maxactive(1).into()], |world, _| {
        for argument in 1..5 {
            call(world, "suite_leaf", [argument, 0], argument + 1)?;
            let notes = take();
            expect("data at the entry", words_of(&notes, Entry, word::DATA), vec![0])?;
            expect("data at the return", words_of(&notes, Return, word::DATA), vec![argument])?;
        }
        Ok(())
    })
}

pub(super) fn data_of_several_probes_on_one_function_are_kept_apart(world: &mut dyn Handlers) -> Outcome {
    let without: Probe = with_data::<u64>("suite_recurse").handler(handler(gives_argument)).user(2).into();
    with(world, vec![keeping("suite_recurse", 1).into(), without, returning("suite_recurse", 3).into()], |world, _| {
        call(world, "suite_recurse", [2, 0], 3)?;
        let notes = take();
        for (user, expected) in [(1, vec![0, 1, 2]), (2, vec![0; 3]), (3, vec![0; 3])] {
            let own: Vec<_> = notes.iter().filter(|n| n.user == user).copied().collect();
            expect("data at the returns", words_of(&own, Return, word::DATA), expected)?;
        }
        Ok(())
    })
}

/// A large entry: each word a number of its own.
const LARGE: usize = 40;

extern "C" fn fills(hit: &mut Hit<'_, Regs>, data: &mut [u64; LARGE]) -> Watch {
    let clean = data.iter().all(|&word| word == 0);
    let first = hit.regs().argument(1) * 100;
    data.iter_mut().zip(first..).for_each(|(to, value)| *to = value);
    note(Entry, hit.user(), &[u64::from(clean)]);
    Watch::Yes
}

extern "C" fn checks(hit: &mut Hit<'_, Regs>, data: &mut [u64; LARGE]) {
    let first = data[0];
    let whole = data.iter().zip(first..).all(|(&word, value)| word == value);
    note(Return, hit.user(), &[u64::from(whole), first]);
}

pub(super) fn a_large_entry_keeps_all_its_bytes(world: &mut dyn Handlers) -> Outcome {
    let probe = with_data::<[u64; LARGE]>("suite_recurse").entry(handler(fills)).handler(handler(checks));
    with(world, vec![probe.maxactive(4).into()], |world, _| {
        for _ in 0..2 {
            call(world, "suite_recurse", [3, 0], 6)?;
            let notes = take();
            expect("data is zero at the entry", words_of(&notes, Entry, 0), vec![1; 4])?;
            expect("data is whole at the return", words_of(&notes, Return, 0), vec![1; 4])?;
            expect("data", words_of(&notes, Return, 1), vec![0, 100, 200, 300])?;
        }
        Ok(())
    })
}

/// Wants calls with an even argument only.
extern "C" fn declines_odd(hit: &mut Hit<'_, Regs>, data: &mut u64) -> Watch {
    keeps_argument(hit, data);
    if hit.regs().argument(1) % 2 == 0 { Watch::Yes } else { Watch::No }
}

fn declining() -> Kretprobe<'static, Regs, u64> {
    with_data::<u64>("suite_recurse").entry(handler(declines_odd)).handler(handler(gives_argument))
}

pub(super) fn a_call_that_the_entry_handler_declines_is_counted_as_declined(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![declining().maxactive(8).into()], |world, probes| {
        call(world, "suite_recurse", [4, 0], 10)?;
        let notes = take();
        expect("entries", words_of(&notes, Entry, word::RDI), vec![4, 3, 2, 1, 0])?;
        expect("returns", words_of(&notes, Return, word::DATA), vec![0, 2, 4])?;
        expect_counts(world, probes, 0, Counts { declined: 2, ..returned(3, 0) })
    })
}

pub(super) fn a_declined_call_takes_no_activation_with_it(world: &mut dyn Handlers) -> Outcome {
    // 4 is watched, 3 declined, 2 watched; for 1 and 0 there is no room: they are not asked for.
    with(world, vec![declining().maxactive(2).into()], |world, probes| {
        for round in 1..=20 {
            call(world, "suite_recurse", [4, 0], 10)?;
            let notes = take();
            expect("entries", words_of(&notes, Entry, word::RDI), vec![4, 3, 2])?;
            expect("returns", words_of(&notes, Return, word::DATA), vec![2, 4])?;
            let expected = Counts { declined: round, ..returned(2 * round, 2 * round) };
            expect_counts(world, probes, 0, expected)?;
        }
        Ok(())
    })
}

pub(super) fn calls_beyond_maxactive_are_missed_exactly_and_run_no_handler(world: &mut dyn Handlers) -> Outcome {
    for room in 1..=6u64 {
        let probe = keeping("suite_recurse", 1).maxactive(room as u32).into();
        with(world, vec![probe], |world, probes| {
            for round in 1..=3 {
                call(world, "suite_recurse", [4, 0], 10)?;
                let watched = room.min(5);
                let notes = take();
                // Those that came first are the outermost.
                let outermost = (0..watched).map(|n| 4 - n).collect();
                expect("entries", words_of(&notes, Entry, word::RDI), outermost)?;
                expect("returns", words_of(&notes, Return, word::DATA), (5 - watched..5).collect())?;
                expect_counts(world, probes, 0, returned(round * watched, round * (5 - watched)))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The result is one more than it was.
extern "C" fn adds_one(hit: &mut Hit<'_, Regs>, (): &mut ()) {
    hit.regs_mut().gpr[gpr::RAX] += 1;
}

pub(super) fn the_handler_changes_the_return_value(world: &mut dyn Handlers) -> Outcome {
    let probe = with_data::<()>("suite_leaf").handler(handler(adds_one));
    with(world, vec![probe.into()], |world, _| {
        call(world, "suite_leaf", [1, 0], 3)?;
        // leaf(leaf(1) + 2): each gives one more.
        call(world, "suite_nested", [1, 2], 7)
    })
}

/// The program counter is spoiled.
extern "C" fn spoils_entry(hit: &mut Hit<'_, Regs>, (): &mut ()) -> Watch {
    hit.regs_mut().rip = 1;
    Watch::Yes
}

extern "C" fn spoils_return(hit: &mut Hit<'_, Regs>, (): &mut ()) {
    hit.regs_mut().rip = 1;
}

pub(super) fn a_handler_of_a_return_does_not_choose_where_execution_goes_on(world: &mut dyn Handlers) -> Outcome {
    let probe = with_data::<()>("suite_leaf").entry(handler(spoils_entry)).handler(handler(spoils_return));
    with(world, vec![probe.into(), returning("suite_leaf", 1).into()], |world, probes| {
        call(world, "suite_nested", [1, 2], 5)?;
        expect_counts(world, probes, 0, returned(2, 0))?;
        expect_counts(world, probes, 1, returned(2, 0))
    })
}

pub(super) fn callers_are_seen_through_other_return_probes(world: &mut dyn Handlers) -> Outcome {
    let (first, second) = (address(world, "suite_nested", 3)?, address(world, "suite_nested", 6)?);
    let outer = address(world, "suite_deep", 2)?;
    let functions = ["suite_leaf", "suite_nested", "suite_deep"];
    let probes = (1..).zip(functions).map(|(user, function)| returning(function, user).into()).collect();
    with(world, probes, |world, _| {
        call(world, "suite_deep", [1, 2], 5)?;
        let notes = take();
        let callers = words_of(&notes, Return, word::CALLER);
        expect("callers", callers.get(..3), Some(&[first, second, outer][..]))
    })
}

pub(super) fn a_tail_call_has_the_caller_of_both(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![returning("suite_tail", 1).into(), returning("suite_leaf", 2).into()], |world, _| {
        call(world, "suite_tail", [4, 0], 7)?;
        let notes = take();
        let callers = words_of(&notes, Return, word::CALLER);
        expect("returns", callers.len(), 2)?;
        expect("the caller of the one that was jumped to", callers[0], callers[1])
    })
}

/// What `suite_wait` returns.
const WAITED: u64 = 42;

pub(super) fn a_call_under_way_outlives_its_probe(world: &mut dyn Handlers) -> Outcome {
    take();
    for _ in 0..3 {
        let mut probes = Some(register(world, vec![keeping("suite_wait", 1).into()])?);
        let result = world.call_waiting(&mut |world| {
            expect_order(&[(Entry, 1)])?;
            world.unregister(probes.take().unwrap_or_default())
        })?;
        expect("the result", result, WAITED)?;
        expect_order(&[])?;
    }
    // All is as if it had never been.
    with(world, vec![keeping("suite_wait", 1).maxactive(1).into()], |world, probes| {
        call(world, "suite_wait_call", [5, 0], 5)?;
        expect_order(&[(Entry, 1), (Return, 1)])?;
        expect_counts(world, probes, 0, returned(1, 0))
    })
}

/// As many return probes as an address has bits: the last of them gets that of the one before them all.
const LATER: u64 = 32;

pub(super) fn a_call_under_way_is_none_of_later_probes(world: &mut dyn Handlers) -> Outcome {
    take();
    let mut first = Some(register(world, vec![keeping("suite_wait", 0).into()])?);
    let mut last = Vec::new();
    let result = world.call_waiting(&mut |world| {
        expect_order(&[(Entry, 0)])?;
        world.unregister(first.take().unwrap_or_default())?;
        for user in 1..=LATER {
            world.unregister(core::mem::take(&mut last))?;
            last = register(world, vec![keeping("suite_wait", user).maxactive(1).into()])?;
        }
        Ok(())
    })?;
    expect("the result", result, WAITED)?;
    expect_order(&[])?;
    expect_counts(world, &last, 0, returned(0, 0))?;
    call(world, "suite_wait_call", [5, 0], 5)?;
    expect_order(&[(Entry, LATER), (Return, LATER)])?;
    expect_counts(world, &last, 0, returned(1, 0))?;
    world.unregister(last)
}

pub(super) fn a_call_under_way_is_still_seen_by_a_probe_that_is_switched_off(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![keeping("suite_wait", 1).into()], |world, probes| {
        let result = world.call_waiting(&mut |world| {
            expect_order(&[(Entry, 1)])?;
            switch(world, probes, 0, false)
        })?;
        expect("the result", result, WAITED)?;
        expect_order(&[(Return, 1)])?;
        expect_counts(world, probes, 0, returned(1, 0))?;
        call(world, "suite_wait_call", [5, 0], 5)?;
        expect_order(&[])
    })
}

pub(super) fn unregistering_during_a_call_leaves_the_other_probes_of_its_function(world: &mut dyn Handlers) -> Outcome {
    for gone in 0..2 {
        take();
        let both = vec![keeping("suite_wait", 0).into(), keeping("suite_wait", 1).into()];
        let mut probes = register(world, both)?;
        let mut leaving = Some(probes.remove(gone as usize));
        let result = world.call_waiting(&mut |world| {
            expect_order(&[(Entry, 0), (Entry, 1)])?;
            world.unregister(leaving.take().into_iter().collect())
        })?;
        expect("the result", result, WAITED)?;
        expect_order(&[(Return, 1 - gone)])?;
        expect_counts(world, &probes, 0, returned(1, 0))?;
        world.unregister(probes)?;
    }
    Ok(())
}

pub(super) fn a_call_under_way_is_not_seen_by_a_probe_that_is_registered_meanwhile(
    world: &mut dyn Handlers,
) -> Outcome {
    take();
    let mut later = None;
    let result = world.call_waiting(&mut |world| {
        later = Some(register(world, vec![keeping("suite_wait", 1).into()])?);
        Ok(())
    })?;
    expect("the result", result, WAITED)?;
    expect_order(&[])?;
    let probes = later.ok_or("nothing was done meanwhile")?;
    expect_counts(world, &probes, 0, hits(0, 0))?;
    world.unregister(probes)
}

pub(super) fn a_return_probe_without_an_entry_handler_watches_every_call(world: &mut dyn Handlers) -> Outcome {
    let bare = with_data::<()>("suite_leaf");
    let with_handler = with_data::<()>("suite_leaf").handler(handler(super::super::notes::returns)).user(1);
    with(world, vec![bare.into(), with_handler.into()], |world, probes| {
        call(world, "suite_many", [10, 0], 10)?;
        expect("handlers", take().len(), 10)?;
        expect_counts(world, probes, 0, returned(10, 0))?;
        expect_counts(world, probes, 1, returned(10, 0))
    })
}

pub(super) fn return_probes_around_a_handler_each_watch_the_call_once(world: &mut dyn Handlers) -> Outcome {
    let behind = address(world, "suite_first_call", 1)?;
    let probes = vec![returning("suite_leaf", 1).into(), entered("suite_leaf", 2), returning("suite_leaf", 3).into()];
    with(world, probes, |world, probes| {
        for round in 1..=3 {
            call(world, "suite_first_call", [1, 0], 12)?;
            let notes = take();
            let mut ran: Vec<_> = notes.iter().map(|n| (n.what, n.user)).collect();
            // Which of the two returns first is not said.
            ran.get_mut(3..).unwrap_or_default().sort_by_key(|&(_, user)| user);
            expect("handlers", ran, vec![(Entry, 1), (Pre, 2), (Entry, 3), (Return, 1), (Return, 3)])?;
            expect("callers", words_of(&notes, Return, word::CALLER), vec![behind; 2])?;
            expect_counts(world, probes, 0, returned(round, 0))?;
            expect_counts(world, probes, 2, returned(round, 0))?;
        }
        Ok(())
    })
}
