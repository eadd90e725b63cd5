//! A program that steps itself, by the trap flag.
//!
//! What is right: a program that steps itself finds a trap behind every instruction, at its own addresses, and never
//! kprobes' own steps. The trap behind a probed instruction may be missing: the breakpoint's has come in its place, and
//! takes the pending step with it (SDM volume 3, section 18.3.1.4; Linux is the same).

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

/// The program goes on stepping behind a probe, at its own addresses.
pub(super) fn flag_survives() -> Result<(), String> {
    let all = &places()[1..];
    let mut wrong = Vec::new();
    for how in STEPPINGS {
        for (n, place) in places().into_iter().enumerate().take(8) {
            let seen = probed(how, place)?;
            let without: Vec<u64> = all.iter().copied().filter(|&a| a != places()[n + 1]).collect();
            if seen != all && seen != without {
                wrong.push(format!("{how:?} at {n}: {:?}", relative(&seen)));
            }
        }
    }
    check(wrong.is_empty(), || format!("should be {:?}, but: {}", relative(all), wrong.join("; ")))
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
