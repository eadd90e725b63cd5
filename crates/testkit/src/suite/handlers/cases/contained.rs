//! Faults of handlers.

use super::super::super::steps::{Outcome, expect};
use super::super::notes::What::{Entry, Fault, Mirror, Post, Pre, Return};
use super::super::notes::{What, declines_fault, fault, handler, note, take, word};
use super::super::steps::{
    Probe, at, call, entered, expect_counts, expect_order, hits, mirrored, observed, order, returned, returning, with,
    with_data, words_of,
};
use super::super::{Handlers, mirrors};
use super::faults::skips_load;
use alloc::vec;
use alloc::vec::Vec;
use isa::x86::Regs;
use kprobes::raw::Counts;
use kprobes::{Hit, Kprobe, Next, Watch};

/// Notes that it begins, faults, and notes that it goes on, under another word.
fn faults(what: What, user: u64) {
    note(what, user, &[]);
    fault();
    note(what, user + 100, &[]);
}

extern "C" fn faulty_pre(hit: &mut Hit<'_, Regs>) -> Next {
    faults(Pre, hit.user());
    Next::Step
}

extern "C" fn faulty_post(hit: &mut Hit<'_, Regs>) {
    faults(Post, hit.user());
}

extern "C" fn faulty_entry(hit: &mut Hit<'_, Regs>, data: &mut u64) -> Watch {
    *data = 1;
    faults(Entry, hit.user());
    Watch::Yes
}

extern "C" fn faulty_return(hit: &mut Hit<'_, Regs>, _: &mut u64) {
    faults(Return, hit.user());
}

/// Probes on the entry of `suite_leaf` with a handler that faults, and what is counted when it has.
fn faulty() -> [(What, Probe, Counts); 5] {
    let kprobe = || Kprobe::symbol("suite_leaf");
    let kretprobe = || with_data::<u64>("suite_leaf").maxactive(1);
    let mirror: extern "C" fn(_) = mirrors::faulty;
    let once = Counts { faults: 1, ..hits(1, 0) };
    [
        (Pre, kprobe().pre(handler(faulty_pre)).into(), once),
        (Post, kprobe().post(handler(faulty_post)).into(), once),
        (Mirror, mirrored(mirrors::on("suite_leaf", mirror)), once),
        // It has not said that it wants the call watched.
        (Entry, kretprobe().entry(handler(faulty_entry)).into(), Counts { declined: 1, faults: 1, ..hits(0, 0) }),
        (Return, kretprobe().handler(handler(faulty_return)).into(), Counts { faults: 1, ..returned(1, 0) }),
    ]
}

pub(super) fn a_handler_that_faults_ends_and_its_probe_is_switched_off(world: &mut dyn Handlers) -> Outcome {
    for (what, probe, counts) in faulty() {
        with(world, vec![probe], |world, probes| {
            call(world, "suite_leaf", [1, 0], 2)?;
            expect_order(&[(what, 0)])?;
            expect_counts(world, probes, 0, counts)?;
            call(world, "suite_nested", [1, 2], 5)?;
            expect_order(&[])?;
            expect_counts(world, probes, 0, counts)
        })?;
    }
    Ok(())
}

pub(super) fn a_handler_that_faults_leaves_the_other_probes_alone(world: &mut dyn Handlers) -> Outcome {
    for (what, probe, _) in faulty() {
        let last = returning("suite_leaf", 3).into();
        let probes = vec![entered("suite_leaf", 1), probe, observed("suite_leaf", 0, 2)?, last];
        with(world, probes, |world, probes| {
            for round in 1..=3 {
                call(world, "suite_leaf", [1, 0], 2)?;
                let others: Vec<_> = order().into_iter().filter(|&ran| ran != (what, 0)).collect();
                let expected = [(Pre, 1), (Pre, 2), (Entry, 3), (Post, 2), (Return, 3)];
                expect("the other handlers", others, expected.to_vec())?;
                expect_counts(world, probes, 0, hits(round, 0))?;
                expect_counts(world, probes, 2, hits(round, 0))?;
                expect_counts(world, probes, 3, returned(round, 0))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

pub(super) fn a_fault_handler_cures_a_fault_of_its_probe_s_handlers(world: &mut dyn Handlers) -> Outcome {
    let probe = at("suite_leaf", 1)?.pre(handler(faulty_pre)).post(handler(faulty_post)).fault(handler(skips_load));
    let trap = world.bad_trap();
    with(world, vec![probe.into()], |world, probes| {
        for round in 1..=3 {
            call(world, "suite_leaf", [1, 0], 2)?;
            let notes = take();
            let ran: Vec<_> = notes.iter().map(|n| (n.what, n.user)).collect();
            let expected = [(Pre, 0), (Fault, 0), (Pre, 100), (Post, 0), (Fault, 0), (Post, 100)];
            expect("handlers that have run", ran, expected.to_vec())?;
            let traps = words_of(&notes, Fault, word::TRAP);
            expect("traps", traps, vec![trap; 2])?;
            expect_counts(world, probes, 0, hits(round, 0))?;
        }
        Ok(())
    })
}

pub(super) fn a_fault_handler_that_declines_lets_the_handler_end(world: &mut dyn Handlers) -> Outcome {
    let probe = at("suite_leaf", 1)?.pre(handler(faulty_pre)).fault(handler(declines_fault));
    with(world, vec![probe.into()], |world, probes| {
        call(world, "suite_leaf", [1, 0], 2)?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_order(&[(Pre, 0), (Fault, 0)])?;
        expect_counts(world, probes, 0, Counts { faults: 1, ..hits(1, 0) })
    })
}
