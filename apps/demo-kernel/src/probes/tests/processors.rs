//! Several processors at the same probe: nothing is lost, nothing goes wrong, probes come and go under fire.
//!
//! On one processor the same work is done in turns.

mod crew;
mod fire;
mod removal;

use super::{Test, check, counts, define, same, stepping};
use crate::arch::{cpu, interrupts};
use crate::probes::with_control;
use crate::sched;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

pub(in crate::probes) use crew::under_all_fire;
pub(super) use crew::{
    STEPPINGS, address, attach, count, count_returns, counted, counted_returns, everywhere, placed, remove_all, soon,
    under_fire,
};

pub(super) const TESTS: &[Test] = &[
    Test { name: "hits_on_all_processors_at_once_are_all_counted", run: hits_are_counted },
    Test { name: "returns_on_all_processors_at_once_are_all_counted", run: returns_are_counted },
    Test { name: "several_probes_at_one_place_count_alike", run: chains_are_counted },
    Test { name: "records_of_all_processors_are_whole_and_in_order", run: records_are_whole },
    Test { name: "one_instance_for_all_processors_admits_one_at_a_time", run: one_instance },
    Test { name: "probes_come_and_go_under_fire", run: fire::come_and_go },
    Test { name: "return_probes_come_and_go_under_fire", run: fire::returns_come_and_go },
    Test { name: "hits_and_misses_are_the_calls_under_fire", run: || crate::probes::fire::fire(300) },
    Test { name: "jumps_come_and_go_under_fire", run: || crate::probes::toggle::toggle(300) },
    Test { name: "batches_of_fifty_come_and_go_under_fire", run: fire::batches },
    Test { name: "no_handler_runs_after_its_probe_was_removed", run: fire::removed_is_silent },
    Test { name: "removal_waits_for_a_handler_that_answers_calls", run: removal::waits_in_grace },
    Test { name: "removal_waits_for_a_handler_that_answers_nothing", run: removal::waits_in_patch },
    Test { name: "activations_come_home_after_their_probe_was_removed", run: removal::in_flight },
    Test { name: "a_new_probe_does_not_count_the_returns_of_a_removed_one", run: removal::not_credited },
];

core::arch::global_asm!(include_str!("processors/code.s"));

unsafe extern "C" {
    safe fn processors_nop(x: u64) -> u64;
    safe fn processors_push(x: u64) -> u64;
    safe fn processors_lea(x: u64) -> u64;
    safe fn processors_load(x: u64) -> u64;
    safe fn processors_jmp(x: u64) -> u64;
    safe fn processors_call(x: u64) -> u64;
    safe fn processors_add(x: u64) -> u64;
    safe fn processors_fifty(x: u64) -> u64;
}

pub(super) type Function = extern "C" fn(u64) -> u64;

/// Functions that give their argument plus one, by the kind of their first instruction.
const KINDS: [(&str, Function); 7] = [
    ("nop", processors_nop),
    ("push", processors_push),
    ("lea", processors_lea),
    ("load", processors_load),
    ("jmp", processors_jmp),
    ("call", processors_call),
    ("add", processors_add),
];

/// Where a function begins.
pub(super) fn entry(function: Function) -> u64 {
    function as usize as u64
}

/// Calls all kinds.
fn call_kinds(x: u64) -> Result<(), String> {
    KINDS.iter().try_for_each(|(kind, function)| same(kind, function(x), x + 1))
}

/// Calls all kinds `times` times.
fn call_often(number: usize, times: u64) -> Result<(), String> {
    (0..times).try_for_each(|i| call_kinds((number as u64) << 32 | i))
}

fn hits_are_counted() -> Result<(), String> {
    const TIMES: u64 = 300;
    let total = TIMES * cpu::count() as u64;
    for how in STEPPINGS {
        stepping(how, || {
            KINDS.iter().try_for_each(|(kind, function)| count(kind, entry(*function)))?;
            everywhere(|number| call_often(number, TIMES))?;
            KINDS.iter().try_for_each(|(kind, _)| counted(kind, total))
        })
        .map_err(|why| format!("{how:?}: {why}"))?;
        remove_all()?;
    }
    Ok(())
}

fn returns_are_counted() -> Result<(), String> {
    const TIMES: u64 = 200;
    let total = TIMES * cpu::count() as u64;
    for how in STEPPINGS {
        stepping(how, || {
            KINDS.iter().try_for_each(|(kind, function)| count_returns(kind, entry(*function), cpu::MAX as u32))?;
            everywhere(|number| call_often(number, TIMES))?;
            KINDS.iter().try_for_each(|(kind, _)| counted_returns(kind, total))
        })
        .map_err(|why| format!("{how:?}: {why}"))?;
        remove_all()?;
    }
    Ok(())
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

fn chains_are_counted() -> Result<(), String> {
    const TIMES: u64 = 500;
    HANDLED.store(0, Ordering::Relaxed);
    let place = entry(processors_add);
    let total = TIMES * cpu::count() as u64;
    count("first", place)?;
    attach("second", place, |_| {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        host_bare::Next::Step
    })?;
    count_returns("third", place, cpu::MAX as u32)?;
    count("fourth", place)?;
    everywhere(|_| (0..TIMES).try_for_each(|i| same("the result", processors_add(i), i + 1)))?;
    ["first", "second", "fourth"].iter().try_for_each(|name| counted(name, total))?;
    counted_returns("third", total)?;
    same("handler's count", HANDLED.load(Ordering::Relaxed), total)?;
    remove_all()
}

/// Each call leaves a record of its argument, on the ring of the processor it ran on.
fn records_are_whole() -> Result<(), String> {
    const TIMES: u64 = 200;
    with_control(|control| control.records())?;
    define(&["p:whole processors_lea x=%di:u64"])?;
    let threads: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
    everywhere(|_| {
        let me = cpu::id();
        threads[me].store(sched::current(), Ordering::Relaxed);
        (0..TIMES).try_for_each(|i| {
            let x = (me as u64) << 32 | i;
            same("the result", processors_lea(x), x + 1)
        })
    })?;
    counted("whole", TIMES * cpu::count() as u64)?;
    let records = with_control(|control| control.records())?;
    same("records", records.len() as u64, TIMES * cpu::count() as u64)?;
    check(records.is_sorted_by_key(|r| r.header.time), || "not in the order of their time".into())?;
    let mut next = [0; cpu::MAX];
    for record in records {
        let from = record.header.cpu as usize;
        let values: Vec<String> = record.values.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        same("x", values, vec![format!("x=Unsigned({})", (from as u64) << 32 | next[from])])?;
        same("thread", u64::from(record.header.thread), threads[from].load(Ordering::Relaxed))?;
        next[from] += 1;
    }
    remove_all()
}

static INSIDE: AtomicU64 = AtomicU64::new(0);

/// Returns when as many have come as `all` says, in this and in all earlier rounds.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn processors_meet(all: u64) -> u64 {
    INSIDE.fetch_add(1, Ordering::AcqRel);
    while INSIDE.load(Ordering::Acquire) < all {
        core::hint::spin_loop();
    }
    all + 1
}

/// All meet inside the probed function, so of each round exactly one has the instance: the one that has had it in the
/// round before has given it back before it comes again.
fn one_instance() -> Result<(), String> {
    const ROUNDS: u64 = 200;
    let all = cpu::count() as u64;
    INSIDE.store(0, Ordering::Relaxed);
    count_returns("one", entry(processors_meet), 1)?;
    everywhere(|_| {
        same("interrupts", interrupts::enabled(), true)?;
        (1..=ROUNDS).try_for_each(|round| same("the result", processors_meet(round * all), round * all + 1))
    })?;
    let counts = counts("one")?;
    same("hits and returns", (counts.hits, counts.returned), (ROUNDS, ROUNDS))?;
    same("missed", counts.missed, ROUNDS * (all - 1))?;
    remove_all()
}
