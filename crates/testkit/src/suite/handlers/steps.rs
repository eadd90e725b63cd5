//! What cases with handlers are made of.

use super::super::steps::{Outcome, expect, offset_of};
use super::notes::{self, Note, What, handler, post, pre, take};
use super::{Handlers, World};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use isa::x86::Regs;
use kprobes::raw::Counts;
use kprobes::{Jprobe, Kprobe, Kretprobe, Registered, Spec, Zeroed};

/// A probe of the suite's.
pub(super) type Probe = Spec<'static, Regs>;

/// A kprobe on an instruction of a function, by its number.
pub(super) fn at(function: &'static str, instruction: usize) -> Result<Kprobe<'static, Regs>, String> {
    Ok(Kprobe::symbol_offset(function, offset_of(function, instruction)?))
}

/// A kprobe on an instruction, whose handlers note what they see before and after it.
pub(super) fn observed(function: &'static str, instruction: usize, user: u64) -> Result<Probe, String> {
    Ok(at(function, instruction)?.pre(handler(pre)).post(handler(post)).user(user).into())
}

/// A kprobe at a function's entry, whose pre-handler notes what it sees.
pub(super) fn entered(function: &'static str, user: u64) -> Probe {
    Kprobe::symbol(function).pre(handler(pre)).user(user).into()
}

/// A return probe, whose handlers note what they see.
pub(super) fn returning(function: &'static str, user: u64) -> Kretprobe<'static, Regs> {
    Kretprobe::symbol(function).entry(handler(notes::entry)).handler(handler(notes::returns)).user(user)
}

/// The type of data of an activation, written out.
pub(super) fn with_data<D: Zeroed + Send + 'static>(function: &'static str) -> Kretprobe<'static, Regs, D> {
    Kretprobe::symbol(function)
}

/// A jprobe's specification.
pub(super) fn mirrored(probe: Jprobe<'static>) -> Probe {
    probe.into()
}

/// Registers probes that nothing is wrong with.
pub(super) fn register(world: &mut dyn Handlers, probes: Vec<Probe>) -> Result<Vec<Registered>, String> {
    let said = format!("{probes:?}");
    let count = probes.len();
    let registered = world.register(probes).map_err(|r| format!("probe {} of {said}: refused: {}", r.line, r.why))?;
    expect("probes that are registered", registered.len(), count)?;
    Ok(registered)
}

/// Registers probes, does something, and unregisters them. Nothing was noted before.
pub(super) fn with(
    world: &mut dyn Handlers,
    probes: Vec<Probe>,
    act: impl FnOnce(&mut dyn Handlers, &[Registered]) -> Outcome,
) -> Outcome {
    take();
    let registered = register(world, probes)?;
    act(world, &registered)?;
    world.unregister(registered)
}

/// Calls a function, which must give `result`.
pub(super) fn call(world: &mut dyn Handlers, function: &str, arguments: [u64; 2], result: u64) -> Outcome {
    expect(&format!("{function}{arguments:?}"), world.call(function, arguments), result)
}

/// The probe with this number has these counts.
pub(super) fn expect_counts(
    world: &mut dyn Handlers,
    probes: &[Registered],
    number: usize,
    expected: Counts,
) -> Outcome {
    let probe = probes.get(number).ok_or("no such probe")?;
    let got = world.counts_of(probe).ok_or_else(|| format!("there are no counts of probe {number}"))?;
    expect(&format!("counts of probe {number}"), got, expected)
}

/// So many hits, and so many misses.
pub(super) const fn hits(hits: u64, missed: u64) -> Counts {
    Counts { hits, missed, returns: 0, unwound: 0, declined: 0, faults: 0 }
}

/// So many calls that have returned, and so many misses.
pub(super) const fn returned(returns: u64, missed: u64) -> Counts {
    Counts { hits: returns, missed, returns, unwound: 0, declined: 0, faults: 0 }
}

/// Switches the probe with this number on or off.
pub(super) fn switch(world: &mut dyn Handlers, probes: &[Registered], number: usize, on: bool) -> Outcome {
    let probe = probes.get(number).ok_or("no such probe")?;
    world.enable(probe, on)
}

/// The handlers that have run since the last look, each with the word of its probe.
pub(super) fn order() -> Vec<(What, u64)> {
    take().iter().map(|note| (note.what, note.user)).collect()
}

/// These handlers have run since the last look.
pub(super) fn expect_order(expected: &[(What, u64)]) -> Outcome {
    expect("handlers that have run", order(), expected.to_vec())
}

/// One handler has run since the last look.
pub(super) fn one_note(what: What) -> Result<Note, String> {
    match take().as_slice() {
        [note] if note.what == what => Ok(*note),
        other => Err(format!("one {what:?} handler should have run: {other:x?}")),
    }
}

/// The notes of one kind since the last look, in the order of time: of each the word with this number.
pub(super) fn words_of(notes: &[Note], what: What, word: usize) -> Vec<u64> {
    notes.iter().filter(|n| n.what == what).map(|n| n.words[word]).collect()
}

/// The address of an instruction of a function.
pub(super) fn address(world: &dyn World, function: &str, instruction: usize) -> Result<u64, String> {
    Ok(world.address(function) + offset_of(function, instruction)?)
}

/// Probes are refused, the one with this number first, and nothing has happened.
pub(super) fn expect_refused(world: &mut dyn Handlers, probes: Vec<Probe>, number: usize) -> Outcome {
    let said = format!("{probes:?}");
    let before = world.registered();
    match world.register(probes) {
        Ok(_) => return Err(format!("{said} is not refused")),
        Err(refusal) => {
            expect(&format!("the probe that is refused of {said} ({})", refusal.why), refusal.line, number)?;
            expect("a refusal has a reason", refusal.why.is_empty(), false)?;
        }
    }
    expect("probes that are registered", world.registered(), before)
}
