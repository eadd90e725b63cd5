//! A program that steps itself, by the trap flag.
//!
//! What is right: a program that steps itself finds the same trap behind every instruction, whether it is probed or not,
//! and at its own addresses; kprobes' own steps it never finds.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;

use host_bare::Stepping;

use super::{LOG, STEPPINGS, TAKER, take, with};
use crate::probes::tests::{check, counts, remove, same, stepping};
use crate::probes::with_control;

global_asm!(
    ".pushsection .text.notifiers_stepped, \"ax\"",
    ".globl notifiers_stepped",
    ".type notifiers_stepped, @function",
    "notifiers_stepped:",
    "mov rcx, rdi",
    "pushfq",
    "pop rax",
    "mov rdx, rax",
    "or rdx, 256",
    "push rdx",
    "popfq", // the flag takes effect behind the next instruction
    ".globl notifiers_stepped_places",
    "notifiers_stepped_places:",
    "2: nop",
    "3: lea rcx, [rcx + rcx*2]", // boosted
    "4: push rcx",               // emulated in a kernel
    "5: jmp 6f",                 // emulated
    "ud2",
    "6: mov rdx, [rsp]",
    "7: pop r8",
    "8: push rax",
    "9: popfq", // turns it off
    "10: nop",
    "mov rax, rdx",
    "ret",
    ".size notifiers_stepped, . - notifiers_stepped",
    ".popsection",
    ".pushsection .rodata.notifiers_places, \"a\"",
    ".balign 8",
    ".globl notifiers_places",
    "notifiers_places: .quad 2b, 3b, 4b, 5b, 6b, 7b, 8b, 9b, 10b",
    ".popsection",
);

unsafe extern "C" {
    safe fn notifiers_stepped(value: u64) -> u64;
    static notifiers_places: [u64; 9];
}

/// The stepped instructions: from the one behind the flag's setting to that behind its clearing.
fn places() -> [u64; 9] {
    // SAFETY: the table above, which is never written.
    unsafe { notifiers_places }
}

/// The traps of a run, where each was.
fn steps() -> Result<Vec<u64>, String> {
    LOG.clear();
    same("result", notifiers_stepped(7), 21)?;
    let seen = LOG.take();
    check(seen.iter().all(|e| e[1] == 1), || format!("another trap: {seen:x?}"))?;
    Ok(seen.into_iter().map(|e| e[2]).collect())
}

/// A trap behind each instruction, and kprobes passes them on.
pub(super) fn own() -> Result<(), String> {
    let (seen, unclaimed) = with(&[&TAKER], steps)?;
    same("steps", relative(&seen), relative(&places()[1..]))?;
    same("unclaimed", unclaimed, 0)
}

/// Distances from the first place, for people.
fn relative(addresses: &[u64]) -> Vec<i64> {
    addresses.iter().map(|a| a.wrapping_sub(places()[0]).cast_signed()).collect()
}

/// The notifier of the steps has a probe, whose own step comes through the same chain.
pub(super) fn probed_notifier() -> Result<(), String> {
    for how in STEPPINGS {
        let (seen, unclaimed) = with(&[&TAKER], || {
            stepping(how, || {
                with_control(|c| c.count("notifiers_take", take as *const () as u64))?.map_err(|e| e.to_string())?;
                let seen = steps();
                let hits = counts("notifiers_take")?;
                remove(&["notifiers_take"])?;
                same("hits and misses", (hits.hits, hits.missed), (8, 0))?;
                seen
            })
        })?;
        same(&format!("steps, {how:?}"), relative(&seen), relative(&places()[1..]))?;
        same("unclaimed", unclaimed, 0)?;
    }
    Ok(())
}

/// Runs with a probe at one of the places.
fn probed(how: Stepping, place: u64) -> Result<Vec<u64>, String> {
    let (seen, unclaimed) = with(&[&TAKER], || {
        stepping(how, || {
            with_control(|c| c.count("notifiers_step", place))?.map_err(|e| e.to_string())?;
            let seen = steps();
            let hits = counts("notifiers_step")?;
            remove(&["notifiers_step"])?;
            same("hits and misses", (hits.hits, hits.missed), (1, 0))?;
            seen
        })
    })?;
    same("unclaimed", unclaimed, 0)?;
    Ok(seen)
}

/// At the least: behind a probe the program goes on stepping, finds no trap anywhere but at its own instructions, and the
/// last ones are as ever.
pub(super) fn flag_survives() -> Result<(), String> {
    for how in STEPPINGS {
        for (n, place) in places().into_iter().enumerate().take(6) {
            let seen = probed(how, place)?;
            let what = format!("probe at instruction {n}, {how:?}");
            let after: Vec<u64> = places()[n + 2..].to_vec();
            check(seen.ends_with(&after), || format!("{what}: steps at {:?}", relative(&seen)))?;
            let foreign: Vec<u64> = seen.iter().copied().filter(|a| !places().contains(a)).collect();
            check(foreign.is_empty(), || format!("{what}: a step at {foreign:x?}"))?;
        }
    }
    Ok(())
}

/// A trap behind each instruction, as without a probe.
pub(super) fn through_probes() -> Result<(), String> {
    let mut wrong = Vec::new();
    for how in STEPPINGS {
        for (n, place) in places().into_iter().enumerate().take(8) {
            let seen = probed(how, place)?;
            if seen != places()[1..] {
                wrong.push(format!("{how:?} at {n}: {:?}", relative(&seen)));
            }
        }
    }
    check(wrong.is_empty(), || format!("should be {:?}: {}", relative(&places()[1..]), wrong.join("; ")))
}

/// The `popfq` that ends the stepping is probed: the flag that it loads is the one that counts.
pub(super) fn turned_off() -> Result<(), String> {
    for how in STEPPINGS {
        let seen = probed(how, places()[7])?;
        let beyond: Vec<u64> = seen.into_iter().filter(|a| *a > places()[8] || *a < places()[0]).collect();
        same(&format!("steps behind, {how:?}"), beyond, vec![])?;
        let flags = x86_64::registers::rflags::read_raw();
        same("the trap flag", flags & isa::x86::flags::TF, 0)?;
    }
    Ok(())
}
