//! The behaviour suite of `testkit`, with this kernel as its world: the same cases as on the model machine and in an
//! ordinary process.

mod handlers;

use super::{check, report};
use crate::arch::{copy, cpu};
use crate::ksyms;
use crate::probes::with_control;
use crate::sched;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Control, Stepping};
use testkit::suite::{
    Ability, Broken, CASES, Case, Counts, Fault, HANDLER_CASES, Handlers, Record, Refusal, Spoil, Spoiled, Verdict,
    World, run_case, run_handler_case,
};

core::arch::global_asm!(
    ".pushsection .text.suite, \"axR\"",
    include_str!(concat!(env!("OUT_DIR"), "/suite.s")),
    ".popsection"
);

/// The faults that the suite must find in a world that behaves otherwise.
const FAULTS: [Fault; 4] = [Fault::DropsHits, Fault::WrongValues, Fault::WrongResults, Fault::LeavesText];
/// What the cases of handlers must find.
const SPOILS: [Spoil; 5] =
    [Spoil::StaleRegisters, Spoil::SharesData, Spoil::DeclinedIsMissed, Spoil::SwitchesNothing, Spoil::DropsMirrors];
/// All ways to step, with their names.
const STEPPINGS: [(&str, Stepping); 5] = [
    ("best", Stepping::Best),
    ("boosted", Stepping::Boosted),
    ("second-breakpoint", Stepping::SecondBreakpoint),
    ("trap-flag", Stepping::SingleStep),
    ("jump", Stepping::Jump),
];

/// Runs the cases whose `suite::STEPPING::NAME` contains `wanted`, for each way to step; how many passed and failed.
pub(super) fn run(wanted: &str) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for (name, stepping) in STEPPINGS {
        for case in CASES {
            let full = format!("suite::{name}::{}", case.name);
            if !full.contains(wanted) {
                continue;
            }
            let result = super::stepping(stepping, || verdict(case, &mut Kernel));
            if result.is_err() {
                report(&full, &result);
            }
            *if result.is_ok() { &mut passed } else { &mut failed } += 1;
        }
    }
    for (name, stepping) in STEPPINGS {
        for case in HANDLER_CASES.iter().filter(|case| case.needs.is_none_or(|skill| Kernel.has(skill))) {
            let full = format!("suite::{name}::handlers::{}", case.name);
            if !full.contains(wanted) {
                continue;
            }
            let result = super::stepping(stepping, || run_handler_case(case, &mut Kernel));
            if result.is_err() {
                report(&full, &result);
            }
            *if result.is_ok() { &mut passed } else { &mut failed } += 1;
        }
    }
    if passed + failed > 0 {
        crate::println!(
            "test suite: {} cases with each of {} steppings, {failed} failed",
            CASES.len() + HANDLER_CASES.iter().filter(|case| case.needs.is_none_or(|skill| Kernel.has(skill))).count(),
            STEPPINGS.len()
        );
    }
    for fault in FAULTS {
        let full = format!("suite::finds::{fault:?}");
        if full.contains(wanted) {
            let result = finds(fault);
            report(&full, &result);
            *if result.is_ok() { &mut passed } else { &mut failed } += 1;
        }
    }
    for spoil in SPOILS {
        let full = format!("suite::finds::{spoil:?}");
        if full.contains(wanted) {
            let result = finds_spoiled(spoil);
            report(&full, &result);
            *if result.is_ok() { &mut passed } else { &mut failed } += 1;
        }
    }
    (passed, failed)
}

fn verdict(case: &Case, world: &mut dyn World) -> Result<(), String> {
    match run_case(case, world) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(why) => Err(why),
        Verdict::Skipped(ability) => Err(format!("skipped for want of {ability:?}")),
    }
}

/// The negative control: a world with a fault does not pass.
fn finds(fault: Fault) -> Result<(), String> {
    let mut world = Kernel;
    let mut broken = Broken::new(&mut world, fault);
    let found = CASES.iter().any(|case| verdict(case, &mut broken).is_err());
    // The world itself was not harmed, but what a broken one leaves may be.
    let _ = with_control(Control::remove_all);
    check(found, || format!("{fault:?} is not found"))
}

/// The same for cases of handlers.
fn finds_spoiled(spoil: Spoil) -> Result<(), String> {
    let mut world = Kernel;
    let mut spoiled = Spoiled::new(&mut world, spoil);
    let found = HANDLER_CASES
        .iter()
        .filter(|case| case.needs.is_none())
        .any(|case| run_handler_case(case, &mut spoiled).is_err());
    Kernel.unregister_all();
    check(found, || format!("{spoil:?} is not found"))
}

/// This kernel.
struct Kernel;

/// Calls a function of the suite's program.
fn call(function: &str, [a, b]: [u64; 2]) -> u64 {
    let Ok(symbol) = ksyms::lookup(function) else { return 0 };
    // SAFETY: the suite names functions of its own program, which is linked into the kernel's text; they take two
    // numbers and give one, by the calling convention of C.
    let function =
        unsafe { core::mem::transmute::<*const (), extern "C" fn(u64, u64) -> u64>(symbol.address as *const ()) };
    function(a, b)
}

/// A call that another thread makes.
struct Job<'a> {
    function: &'a str,
    arguments: [u64; 2],
    result: AtomicU64,
}

fn work(job: usize) {
    // SAFETY: `call_together` passes a job's address, and joins this thread before the job goes.
    let job = unsafe { &*(job as *const Job<'_>) };
    job.result.store(call(job.function, job.arguments), Ordering::Release);
}

impl World for Kernel {
    fn address(&self, function: &str) -> u64 {
        ksyms::lookup(function).map_or(0, |symbol| symbol.address)
    }

    fn text(&mut self, address: u64, out: &mut [u8]) {
        copy::read(address, out);
    }

    fn call(&mut self, function: &str, arguments: [u64; 2]) -> u64 {
        call(function, arguments)
    }

    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
        let defined = with_control(|control| control.define(lines)).map_err(|why| Refusal { line: 0, why })?;
        defined.map_err(|(line, why)| Refusal { line, why: why.to_string() })
    }

    fn remove(&mut self, events: &[&str]) -> Result<(), String> {
        with_control(|control| control.remove_events(events))?.map_err(|why| why.to_string())
    }

    fn events(&self) -> Vec<String> {
        let last = |name: String| name.rsplit('/').next().unwrap_or_default().to_string();
        with_control(|control| control.list().map(|l| last(l.name)).collect()).unwrap_or_default()
    }

    fn counts(&mut self, event: &str) -> Option<Counts> {
        with_control(|control| control.counts(event)).ok()?
    }

    fn records(&mut self) -> Vec<Record> {
        let records = with_control(Control::records).unwrap_or_default();
        let record = |r: host_bare::Record| Record {
            event: r.event,
            address: r.header.address,
            values: r.values.iter().map(|(_, value)| value.number()).collect(),
        };
        records.into_iter().map(record).collect()
    }

    fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::Threads => true,
        }
    }

    fn call_together(&mut self, calls: &[(&str, [u64; 2])]) -> Vec<u64> {
        let job = |&(function, arguments): &(_, _)| Job { function, arguments, result: AtomicU64::new(0) };
        let jobs: Vec<Job<'_>> = calls.iter().map(job).collect();
        let spawn = |(i, job): (usize, &Job<'_>)| {
            sched::spawn_on(Some(i % cpu::count()), "suite", work, core::ptr::from_ref(job) as usize)
        };
        let threads: Vec<_> = jobs.iter().enumerate().map(spawn).collect();
        threads.into_iter().for_each(sched::join);
        jobs.iter().map(|job| job.result.load(Ordering::Acquire)).collect()
    }
}
