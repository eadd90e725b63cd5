//! Probes in the page fault's own path.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use isa::x86::gpr;

use super::STEPPINGS;
use super::programs::{Registers, like, memory, program, run};
use crate::arch::copy;
use crate::ksyms;
use crate::mm::{PAGE, alias};
use crate::probes::tests::{check, counts, define, remove, same, stepping};
use crate::probes::with_control;

/// What a fault in demand-zero memory runs; those that the compiler has made functions of are probed.
const PATH: [&str; 8] = [
    "demo_kernel::arch::trap::fault",
    "demand_zero",
    "demo_kernel::mm::paging::map_zeroed",
    "demo_kernel::mm::paging::map",
    "demo_kernel::mm::paging::entry",
    "demo_kernel::mm::frames::take",
    "demo_kernel::mm::frames::take_zeroed",
    "demo_kernel::mm::frames::give_back",
];

/// Every instruction of a function.
fn instructions(symbol: ksyms::Symbol) -> Vec<u64> {
    let mut code = vec![0; symbol.size as usize];
    copy::read(symbol.address, &mut code);
    isa::x86::boundaries(&code, symbol.address).starts().collect()
}

fn writes() -> Registers {
    let mut registers = Registers::new();
    registers.gpr[gpr::RDI] = memory() + 5;
    registers.gpr[gpr::RSI] = alias::text().start;
    registers.gpr[gpr::RCX] = 2 * PAGE;
    registers
}

/// Probes each instruction of the path, and faults three times.
pub(super) fn every_instruction() -> Result<(), String> {
    let movs = program("movs")?;
    let control = run(movs, writes());
    let functions: Vec<_> = PATH.iter().filter_map(|name| ksyms::lookup(name).ok()).collect();
    check(functions.len() >= 2, || "the path is not there".into())?;
    let places: Vec<u64> = functions.iter().flat_map(|&f| instructions(f)).collect();
    for how in STEPPINGS {
        stepping(how, || {
            let refused = with_control(|c| c.count_all("faults_path", &places))?;
            // Whoever is refused must say why; a few instructions may be.
            check(refused.len() < 4, || format!("{} refused: {}", refused.len(), refused[0].1))?;
            let outcome = run(movs, writes());
            let (hits, missed) =
                with_control(|c| c.list().fold((0, 0), |(h, m), l| (h + l.counts.hits, m + l.counts.missed)))?;
            with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
            with_control(|c| c.records())?;
            like(&format!("{how:?}"), &outcome, &control)?;
            check(hits > 3 * 20, || format!("only {hits} hits"))?;
            same("missed", missed, 0)
        })?;
    }
    Ok(())
}

/// Three pages are three faults, also when the instruction that faults is probed itself.
pub(super) fn counts_faults() -> Result<(), String> {
    let movs = program("movs")?;
    for how in STEPPINGS {
        stepping(how, || {
            let instruction = format!("p:faults_movs {:#x} count=%cx:u64", movs.at);
            define(&[
                "p:faults_zero demand_zero at=$arg1:x64",
                "r:faults_zeroed demand_zero done=$retval:u8",
                &instruction,
            ])?;
            run(movs, writes());
            let (entries, returns) = (counts("faults_zero")?, counts("faults_zeroed")?);
            let instruction = counts("faults_movs")?;
            let records = with_control(|c| c.records())?;
            remove(&["faults_zero", "faults_zeroed", "faults_movs"])?;
            same("entries", (entries.hits, entries.missed), (3, 0))?;
            same("returns", (returns.returned, returns.missed), (3, 0))?;
            same("hits of the instruction", (instruction.hits, instruction.missed), (1, 0))?;
            let pages = records.iter().filter(|r| r.event == "faults_zero").filter_map(|r| r.values.first());
            let pages: Vec<String> = pages.map(|(_, value)| format!("{value:?}")).collect();
            same("records of addresses", pages.len(), 3)?;
            check(pages[0] != pages[1] && pages[1] != pages[2], || format!("the same address twice: {pages:?}"))
        })?;
    }
    Ok(())
}
