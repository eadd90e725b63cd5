//! What is wrong is seen.

use super::bench::{self, Area, End};
use super::compare::{HONEST, Summary, Tamper, compare, fields};
use super::form::Form;
use super::state::State;
use crate::probes::tests::{check, same};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use host_bare::{Next, Regs};
use isa::x86::flags;

const STATES: u64 = 8;
/// `hit::BOOSTED_COPY`.
const BOOSTED_COPY: u64 = 32;

/// A change of anything in an outcome has its name.
pub(super) fn every_field() -> Result<(), String> {
    const NOP: &[u8] = &[0x90];
    let form = Form::new("control", NOP);
    let area = Area::new();
    area.fill(&[form])?;
    let native = area.run(bench::address(0), &State::new(&form, 1));
    drop(area);
    same("fields of an equal outcome", fields(&native, &native).len(), 0)?;
    let mut names: Vec<String> = Vec::new();
    for field in 0..22 {
        let mut other = native;
        match field {
            0..16 => other.regs.gpr[field] ^= 1 << (field * 4),
            16 => other.regs.rip ^= 1,
            17 => other.regs.flags ^= flags::AF,
            18 => other.segments[2] ^= 8,
            19 => other.data ^= 1,
            20 => other.stack ^= 1,
            _ => other.end = End::Fault { vector: 13, error: 0, address: 0 },
        }
        check(other != native, || format!("field {field} is not compared"))?;
        let found = fields(&native, &other);
        same("fields that differ", found.len(), 1)?;
        check(!names.contains(&found[0]), || format!("{} stands for two", found[0]))?;
        names.extend(found);
    }
    Ok(())
}

/// Runs a form with something wrong. So many of the cases must differ, and in `wanted` among others.
fn differs(form: Form, tamper: &Tamper<'_>, least: fn(u64) -> u64, wanted: &str) -> Result<(), String> {
    let Summary { cases, failed, differences, .. } = compare(&[form], STATES, tamper)?;
    let what = || format!("{form:?}: {failed} of {cases} cases differ, {differences:?}");
    check(cases >= STATES && failed >= least(cases), what)?;
    let named = differences.iter().any(|difference| difference.fields.iter().any(|field| field == wanted));
    check(named, || format!("{} not named: {}", wanted, what()))
}

/// The instruction that is probed is another one than the oracle's.
pub(super) fn another_instruction() -> Result<(), String> {
    // What the oracle executes; what is probed; where they differ.
    let pairs: [(&[u8], &[u8], &str); 7] = [
        (&[0x48, 0x01, 0xD0], &[0x48, 0x29, 0xD0], "rax"), // add rax, rdx: sub
        (&[0x48, 0x8D, 0x4B, 8], &[0x48, 0x8D, 0x4B, 9], "rcx"), // lea rcx, [rbx+8]: [rbx+9]
        (&[0x48, 0xF7, 0x13], &[0x48, 0xF7, 0x1B], "data"), // not qword ptr [rbx]: neg
        (&[0x50], &[0x53], "stack"),                       // push rax: rbx
        (&[0x74, 0x10], &[0x75, 0x10], "rip"),             // je: jne
        (&[0xF9], &[0xF8], "flags"),                       // stc: clc
        (&[0xEB, 0x10], &[0xEB, 0x11], "rip"),             // jmp, one byte further
    ];
    for (native, probed, field) in pairs {
        let form = Form::new("control", native);
        let before = |area: &Area| area.write(bench::address(0), probed);
        // `add` and `sub` of 0 are the same, `neg` and `not` never are, and so on: half is enough.
        differs(form, &Tamper { before: &before, ..HONEST }, |cases| cases / 2, field)?;
        let honest = compare(&[form], STATES, &HONEST)?;
        same("differences without it", honest.failed, 0)?;
    }
    Ok(())
}

/// One byte of each copy is wrong; behind a second breakpoint there is another one.
pub(super) fn wrong_slot() -> Result<(), String> {
    // mov rax, 0x71646c6f72706b01: nowhere else
    const CODE: [u8; 10] = [0x48, 0xB8, 0x01, 0x6B, 0x70, 0x72, 0x6F, 0x6C, 0x64, 0x71];
    let planted = |area: &Area| {
        let slots = bench::slots_with(&CODE);
        check(!slots.is_empty(), || "the slot is not found".into())?;
        let copies = slots.into_iter().flat_map(|slot| [slot, slot + BOOSTED_COPY]);
        copies.into_iter().try_for_each(|copy| area.write(copy + 2, &[0x00]))
    };
    let form = Form::new("control", &CODE);
    differs(form, &Tamper { planted: &planted, ..HONEST }, |cases| cases, "rax")
}

/// One flag is wrong when the instruction takes its effect, emulated or not.
pub(super) fn wrong_flag() -> Result<(), String> {
    fn flip(regs: &mut Regs) -> Next {
        regs.flags ^= flags::CF;
        Next::Step
    }
    let all = |cases| cases;
    let tamper = Tamper { handler: Some(flip), ..HONEST };
    differs(Form::new("control", &[0xEB, 0x10]), &tamper, all, "flags")?; // jmp: emulated
    differs(Form::new("control", &[0x9C]), &tamper, all, "stack")?; // pushfq: emulated in every way
    differs(Form::new("control", &[0x72, 0x10]), &tamper, all, "rip")?; // jb
    differs(Form::new("control", &[0x48, 0x83, 0xD0, 0]), &tamper, all, "rax") // adc rax, 0: in a slot
}
