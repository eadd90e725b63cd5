//! What cannot be registered is refused, and nothing has happened.

use super::super::super::program;
use super::super::super::steps::{Outcome, call_samples, expect, offset_of, text_is_clean};
use super::super::notes::What::Pre;
use super::super::notes::{handler, pre, take};
use super::super::steps::{
    Probe, call, entered, expect_counts, expect_order, expect_refused, hits, mirrored, returning, with, with_data,
};
use super::super::{Handlers, mirrors};
use alloc::vec;
use alloc::vec::Vec;
use kprobes::{Jprobe, Kprobe, Kretprobe, Place};

fn kprobe(place: Place<'static>) -> Probe {
    Kprobe::new(place).pre(handler(pre)).into()
}

fn jprobe(place: Place<'static>) -> Probe {
    mirrored(Jprobe::new(place, handler(mirrors::two as extern "C" fn(u64, u64))))
}

fn kretprobe(place: Place<'static>) -> Probe {
    Kretprobe::<_, ()>::new(place).handler(handler(super::super::notes::returns)).into()
}

/// Each kind of probe.
const KINDS: [fn(Place<'static>) -> Probe; 3] = [kprobe, jprobe, kretprobe];

fn refused(world: &mut dyn Handlers, place: Place<'static>) -> Outcome {
    KINDS.iter().try_for_each(|kind| expect_refused(world, vec![kind(place)], 0))?;
    text_is_clean(world)
}

fn symbol(name: &'static str, offset: u64) -> Place<'static> {
    Place::Symbol { name, offset }
}

pub(super) fn an_unknown_symbol_is_refused(world: &mut dyn Handlers) -> Outcome {
    refused(world, symbol("suite_nobody", 0))?;
    refused(world, symbol("", 0))
}

pub(super) fn the_middle_of_an_instruction_is_refused(world: &mut dyn Handlers) -> Outcome {
    let inside = offset_of("suite_leaf", 1)? + 1;
    refused(world, symbol("suite_leaf", inside))?;
    let address = world.address("suite_leaf") + inside;
    refused(world, Place::Address(address))?;
    call_samples(world)
}

pub(super) fn an_offset_beyond_the_symbol_is_refused(world: &mut dyn Handlers) -> Outcome {
    let size = program().find("suite_leaf").map_or(0, |f| f.size);
    for offset in [size, size + 16, 1 << 40, u64::MAX] {
        refused(world, symbol("suite_leaf", offset))?;
    }
    Ok(())
}

pub(super) fn an_address_that_is_no_text_is_refused(world: &mut dyn Handlers) -> Outcome {
    static DATA: u64 = 0x9090_9090_9090_9090;
    let data = (&raw const DATA).addr() as u64;
    for address in [0, world.bad_address(), data, u64::MAX] {
        refused(world, Place::Address(address))?;
    }
    Ok(())
}

pub(super) fn kprobes_own_code_is_refused(world: &mut dyn Handlers) -> Outcome {
    let own = world.own_code();
    refused(world, Place::Address(own))
}

pub(super) fn a_return_probe_that_is_not_at_an_entry_is_refused(world: &mut dyn Handlers) -> Outcome {
    let second = offset_of("suite_leaf", 1)?;
    let address = world.address("suite_leaf") + second;
    expect_refused(world, vec![kretprobe(symbol("suite_leaf", second))], 0)?;
    expect_refused(world, vec![kretprobe(Place::Address(address))], 0)?;
    text_is_clean(world)
}

pub(super) fn a_jprobe_that_is_not_at_an_entry_is_refused(world: &mut dyn Handlers) -> Outcome {
    let second = offset_of("suite_leaf", 1)?;
    let address = world.address("suite_leaf") + second;
    expect_refused(world, vec![jprobe(symbol("suite_leaf", second))], 0)?;
    expect_refused(world, vec![jprobe(Place::Address(address))], 0)?;
    text_is_clean(world)
}

pub(super) fn a_batch_is_registered_as_a_whole_or_not_at_all(world: &mut dyn Handlers) -> Outcome {
    let good = || -> Vec<Probe> {
        let kept = with_data::<u64>("suite_recurse").entry(handler(super::super::notes::keeps_argument));
        let leaf = mirrors::on("suite_leaf", mirrors::two as extern "C" fn(_, _));
        vec![entered("suite_leaf", 1), returning("suite_nested", 2).into(), kept.into(), mirrored(leaf)]
    };
    take();
    for bad in [symbol("suite_nobody", 0), symbol("suite_leaf", 2), Place::Address(0)] {
        for number in 0..=good().len() {
            let mut batch = good();
            batch.insert(number, kprobe(bad));
            expect_refused(world, batch, number)?;
            text_is_clean(world)?;
        }
    }
    call_samples(world)?;
    expect_order(&[])?;
    // What was refused once can be had without the bad one.
    with(world, good(), |world, probes| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect("handlers", take().len(), 2)?;
        expect_counts(world, probes, 0, hits(1, 0))
    })
}

pub(super) fn a_probe_by_address_is_one_by_symbol(world: &mut dyn Handlers) -> Outcome {
    let second = offset_of("suite_leaf", 1)?;
    let address = world.address("suite_leaf") + second;
    with(world, vec![kprobe(Place::Address(address)), kprobe(symbol("suite_leaf", second))], |world, probes| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_order(&[(Pre, 0), (Pre, 0)])?;
        expect_counts(world, probes, 0, hits(1, 0))?;
        expect_counts(world, probes, 1, hits(1, 0))
    })
}
