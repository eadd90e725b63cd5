//! A probe on everything at once: the kernel works as before.
//!
//! What cannot be probed is listed with the reason. Everything else gets a probe, the whole workload runs on all
//! processors with timer interrupts, and its answers are compared.

use super::{Test, check, same};
use crate::ksyms;
use crate::probes::with_control;
use crate::{println, workload};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use host_bare::{Control, Error};

pub(super) const TESTS: &[Test] = &[
    Test { name: "every_function_is_probed", run: every_function },
    Test { name: "every_function_has_a_return_probe", run: every_return },
    Test { name: "every_instruction_of_the_workload_is_probed", run: every_instruction },
];

/// The addresses of all functions, each once.
fn functions() -> Vec<u64> {
    let mut all: Vec<u64> = ksyms::all().iter().filter(|s| s.is_function()).map(|s| s.address).collect();
    all.dedup();
    all
}

/// Plants, works, tells, removes.
fn probe_all(
    what: &str,
    addresses: &[u64],
    plant: impl FnOnce(&mut Control<super::super::Demo>) -> Vec<(u64, Error)>,
) -> Result<(), String> {
    let refused = with_control(plant)?;
    let worked = workload::run();
    let (hits, reached, missed) = with_control(|control| {
        control.list().fold((0, 0, 0), |(hits, reached, missed), l| {
            (hits + l.counts.hits, reached + u64::from(l.counts.hits > 0), missed + l.counts.missed)
        })
    })?;
    let planted = with_control(|control| control.list().count())?;
    with_control(Control::remove_all)?.map_err(|e| e.to_string())?;
    with_control(|control| control.records())?;
    println!(
        "  {what}: {} found, {planted} probed, {} refused; {hits} hits on {reached} of them, {missed} missed",
        addresses.len(),
        refused.len()
    );
    for (why, (count, example)) in reasons(&refused) {
        println!("    refused {count:5}: {why} (as {example})");
    }
    worked.map_err(|why| format!("the workload went wrong: {why}"))?;
    same("probed and refused", planted + refused.len(), addresses.len())?;
    check(reached > 50 && hits > 10_000, || format!("only {hits} hits on {reached} probes"))
}

/// How often each reason was given, without its address, and one of the places.
fn reasons(refused: &[(u64, Error)]) -> BTreeMap<String, (usize, String)> {
    let mut reasons = BTreeMap::new();
    for (address, error) in refused {
        let why = error.to_string().replace(&format!("{address:#x}"), "ADDRESS");
        let why = why.split(" at ADDRESS (").next().unwrap_or_default().to_string();
        reasons.entry(why).or_insert_with(|| (0, ksyms::describe(*address))).0 += 1;
    }
    reasons
}

fn every_function() -> Result<(), String> {
    let all = functions();
    probe_all("functions", &all, |control| control.count_all("function", &all))
}

fn every_return() -> Result<(), String> {
    let all = functions();
    probe_all("returns of functions", &all, |control| control.count_all_returns("return", &all, 64))
}

/// The boundaries of the workload's functions, of the file layer's and the scheduler's.
fn every_instruction() -> Result<(), String> {
    const PARTS: [&str; 4] = ["demo_kernel::workload::", "demo_kernel::fs::", "demo_kernel::sched::", "sys_"];
    let wanted = |name: &str| PARTS.iter().any(|part| name.contains(part));
    let functions = ksyms::all().iter().filter(|s| s.is_function() && wanted(s.name));
    let mut all = Vec::new();
    for function in functions {
        let boundaries = with_control(|control| control.boundaries(function.address))?;
        all.extend(boundaries.map_err(|e| e.to_string())?);
    }
    all.sort_unstable();
    all.dedup();
    probe_all("instructions", &all, |control| control.count_all("instruction", &all))
}
