//! Tests that run in the kernel: `test`, or `test WORD` for those whose name contains it.
//!
//! Each leaves no probe behind, and the text as it was at boot: the runner looks after each of them.

mod differential;
mod everything;
mod faults;
mod interrupts;
mod memory;
mod notifiers;
mod processors;
mod refusals;
mod regressions;
mod scheduler;
mod suite;

pub(super) use processors::under_all_fire;

use super::with_control;
use crate::arch::{cpu, time};
use crate::mm::alias;
use crate::println;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A test.
#[derive(Clone, Copy)]
pub(super) struct Test {
    /// What it shows.
    pub(super) name: &'static str,
    /// Does it; the error says what was wrong.
    pub(super) run: fn() -> Result<(), String>,
}

/// All of them, by what they are about.
const GROUPS: &[(&str, &[Test])] = &[
    ("refusals", refusals::TESTS),
    ("faults", faults::TESTS),
    ("notifiers", notifiers::TESTS),
    ("memory", memory::TESTS),
    ("processors", processors::TESTS),
    ("interrupts", interrupts::TESTS),
    ("scheduler", scheduler::TESTS),
    ("differential", differential::TESTS),
    ("everything", everything::TESTS),
    ("regressions", regressions::TESTS),
    ("modules", super::modules::TESTS),
];

/// Runs the tests whose `GROUP::NAME` contains `wanted`.
pub(super) fn run(wanted: &str) -> Result<(), String> {
    let planted = with_control(|control| control.list().count())?;
    check(planted == 0, || format!("{planted} probes are planted: remove them first"))?;
    let text = text();
    let (mut passed, mut failed) = suite::run(wanted);
    for (group, tests) in GROUPS {
        for test in tests.iter().filter(|t| format!("{group}::{}", t.name).contains(wanted)) {
            let result = (test.run)().and_then(|()| leaves_nothing(&text));
            let result = result.inspect_err(|_| clean_up());
            report(&format!("{group}::{}", test.name), &result);
            *if result.is_ok() { &mut passed } else { &mut failed } += 1;
        }
    }
    println!("{passed} passed, {failed} failed, on {} processors, {} ms", cpu::count(), time::now_ns() / 1_000_000);
    match (passed, failed) {
        (0, 0) => Err(format!("no test has `{wanted}` in its name")),
        (_, 0) => Ok(()),
        _ => Err(format!("{failed} tests failed")),
    }
}

fn report(name: &str, result: &Result<(), String>) {
    match result {
        Ok(()) => println!("test {name} ... ok"),
        Err(why) => println!("test {name} ... FAILED: {why}"),
    }
}

/// The kernel's text as it is now.
pub(super) fn text() -> Vec<u8> {
    let range = alias::text();
    let mut bytes = vec![0; (range.end - range.start) as usize];
    crate::arch::copy::read(range.start, &mut bytes);
    bytes
}

/// No probe is planted, and the text is what it was.
fn leaves_nothing(before: &[u8]) -> Result<(), String> {
    let left: Vec<String> = with_control(|control| control.list().map(|l| l.name).collect())?;
    check(left.is_empty(), || format!("probes are left: {left:?}"))?;
    text_is(before)
}

/// The text is what it was.
pub(super) fn text_is(before: &[u8]) -> Result<(), String> {
    let now = text();
    let start = alias::text().start;
    match before.iter().zip(&now).position(|(old, new)| old != new) {
        Some(at) => Err(format!("text at {:#x} was not restored", start + at as u64)),
        None => Ok(()),
    }
}

fn clean_up() {
    let _ = with_control(|control| {
        let _ = control.remove_all();
        control.records();
        control.set_stepping(host_bare::Stepping::default());
    });
}

/// `what`, if it does not hold.
pub(in crate::probes) fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Two values that should be the same.
pub(in crate::probes) fn same<T: PartialEq + core::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    check(got == wanted, || format!("{what}: {got:?}, should be {wanted:?}"))
}

/// Defines probes by their lines.
pub(super) fn define(lines: &[&str]) -> Result<(), String> {
    with_control(|control| control.define(lines))?.map_err(|(_, error)| format!("{error}"))
}

/// Removes events.
pub(super) fn remove(names: &[&str]) -> Result<(), String> {
    for name in names {
        with_control(|control| control.remove(None, name))?.map_err(|error| format!("{error}"))?;
    }
    Ok(())
}

/// What an event has counted.
pub(super) fn counts(name: &str) -> Result<host_bare::Counts, String> {
    with_control(|control| control.counts(name))?.ok_or_else(|| format!("no event {name}"))
}

/// Steps new probes this way while `f` runs.
pub(super) fn stepping<R>(stepping: host_bare::Stepping, f: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    with_control(|control| control.set_stepping(stepping))?;
    let result = f();
    with_control(|control| control.set_stepping(host_bare::Stepping::default()))?;
    result
}
