//! Faults of displaced instructions.

use super::super::super::steps::{Outcome, expect};
use super::super::notes::What::{Fault, Pre};
use super::super::notes::{declines_fault, handler, note, pre, set_calling, take, word};
use super::super::steps::{Probe, address, call, entered, expect_counts, expect_order, hits, switch, with, words_of};
use super::super::{Handlers, notes};
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering};
use isa::x86::{Regs, gpr};
use kprobes::{Cure, Hit, Kprobe, Next};

/// The first instruction of `suite_load` reads what `rdi` points at; it is so long.
const LOAD: &str = "suite_load";
const LOAD_BYTES: u64 = 3;
/// What nothing can be read from.
static BAD: AtomicU64 = AtomicU64::new(0);

/// Goes on behind the instruction, which has read 41.
pub(super) extern "C" fn skips_load(hit: &mut Hit<'_, Regs>) -> Cure {
    declines_fault(hit);
    let regs = hit.regs_mut();
    regs.gpr[gpr::RAX] = 41;
    regs.rip += LOAD_BYTES;
    Cure::Yes
}

/// The first argument is a bad address.
extern "C" fn breaks(hit: &mut Hit<'_, Regs>) -> Next {
    note(Pre, hit.user(), &[]);
    hit.regs_mut().gpr[gpr::RDI] = BAD.load(Ordering::Relaxed);
    Next::Step
}

/// The first argument is again what `suite_load_call` has given: the address of what it has pushed.
extern "C" fn repairs(hit: &mut Hit<'_, Regs>) -> Cure {
    declines_fault(hit);
    let regs = hit.regs_mut();
    regs.gpr[gpr::RDI] = regs.rsp() + 8;
    Cure::Yes
}

/// The rest of a declined fault, for a world that must not see it: a last probe that cures.
fn last() -> Probe {
    Kprobe::symbol(LOAD).fault(handler(skips_load)).user(99).into()
}

pub(super) fn a_fault_handler_cures_by_skipping_the_instruction(world: &mut dyn Handlers) -> Outcome {
    let bad = world.bad_address();
    with(world, vec![Kprobe::symbol(LOAD).pre(handler(pre)).fault(handler(skips_load)).into()], |world, probes| {
        for round in 1..=3 {
            call(world, LOAD, [bad, 0], 42)?;
            expect_order(&[(Pre, 0), (Fault, 0)])?;
            expect_counts(world, probes, 0, hits(round, 0))?;
        }
        Ok(())
    })
}

pub(super) fn a_fault_handler_cures_by_repairing_a_register(world: &mut dyn Handlers) -> Outcome {
    BAD.store(world.bad_address(), Ordering::Relaxed);
    let probe = Kprobe::symbol(LOAD).pre(handler(breaks)).fault(handler(repairs)).user(1);
    with(world, vec![probe.into()], |world, probes| {
        for round in 1..=3 {
            call(world, "suite_load_call", [41, 0], 42)?;
            // The instruction is tried again, and the probe is not hit again.
            expect_order(&[(Pre, 1), (Fault, 1)])?;
            expect_counts(world, probes, 0, hits(round, 0))?;
        }
        Ok(())
    })
}

pub(super) fn a_fault_handler_sees_the_original_instruction_and_the_trap(world: &mut dyn Handlers) -> Outcome {
    let (bad, trap) = (world.bad_address(), world.bad_trap());
    let load = address(world, LOAD, 0)?;
    with(world, vec![last()], |world, _| {
        call(world, LOAD, [bad, 0], 42)?;
        let notes = take();
        let seen = [word::PC, word::ADDRESS, word::RDI, word::TRAP].map(|at| words_of(&notes, Fault, at));
        expect("what the handler sees", seen, [load, load, bad, trap].map(|value| vec![value]))
    })
}

pub(super) fn fault_handlers_are_asked_in_order_until_one_cures(world: &mut dyn Handlers) -> Outcome {
    let bad = world.bad_address();
    let probe = |user| Kprobe::symbol(LOAD).user(user);
    let probes = vec![
        probe(1).fault(handler(declines_fault)).into(),
        entered(LOAD, 2),
        probe(3).fault(handler(declines_fault)).into(),
        probe(4).fault(handler(skips_load)).into(),
        probe(5).fault(handler(skips_load)).into(),
    ];
    with(world, probes, |world, _| {
        call(world, LOAD, [bad, 0], 42)?;
        expect_order(&[(Pre, 2), (Fault, 1), (Fault, 3), (Fault, 4)])
    })
}

pub(super) fn a_fault_handler_that_is_switched_off_is_not_asked(world: &mut dyn Handlers) -> Outcome {
    let bad = world.bad_address();
    let first = Kprobe::symbol(LOAD).fault(handler(declines_fault)).user(1).into();
    with(world, vec![first, last()], |world, probes| {
        for on in [true, false, true] {
            switch(world, probes, 0, on)?;
            call(world, LOAD, [bad, 0], 42)?;
            expect_order(if on { &[(Fault, 1), (Fault, 99)] } else { &[(Fault, 99)] })?;
        }
        Ok(())
    })
}

pub(super) fn a_fault_handler_may_call_probed_functions(world: &mut dyn Handlers) -> Outcome {
    let bad = world.bad_address();
    set_calling(Fault, world.address("suite_leaf"));
    with(world, vec![last(), entered("suite_leaf", 1)], |world, probes| {
        call(world, LOAD, [bad, 0], 42)?;
        expect_order(&[(Fault, 99)])?;
        expect_counts(world, probes, 0, hits(1, 0))?;
        expect_counts(world, probes, 1, hits(0, 1))?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_counts(world, probes, 1, hits(1, 1))
    })
}

pub(super) fn a_fault_that_nobody_cures_is_seen_at_the_original_instruction(world: &mut dyn Handlers) -> Outcome {
    let bad = world.bad_address();
    let load = address(world, LOAD, 0)?;
    let probe = Kprobe::symbol(LOAD).fault(handler(declines_fault)).post(handler(notes::post)).user(1);
    with(world, vec![probe.into()], |world, probes| {
        for round in 1..=3 {
            expect("where the fault was seen", world.call_faulting(LOAD, [bad, 0]), Some(load))?;
            expect_order(&[(Fault, 1)])?;
            expect_counts(world, probes, 0, hits(round, 0))?;
        }
        call(world, "suite_load_call", [1, 0], 2)
    })
}

pub(super) fn a_fault_without_a_fault_handler_is_seen_at_the_original_instruction(world: &mut dyn Handlers) -> Outcome {
    let bad = world.bad_address();
    let load = address(world, LOAD, 0)?;
    with(world, vec![entered(LOAD, 1)], |world, _| {
        expect("where the fault was seen", world.call_faulting(LOAD, [bad, 0]), Some(load))?;
        call(world, "suite_load_call", [1, 0], 2)?;
        expect_order(&[(Pre, 1), (Pre, 1)])
    })
}
