//! Files that are no modules, made of one that is.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::damage::Elf;
use super::{NAME, logged, refused, start, state, stop};
use crate::probes::modules::{insert, read};
use crate::probes::tests::check;

/// A way to damage a file, and what the refusal must say.
type Damage = (&'static str, fn(&mut Elf) -> Option<()>, &'static str);

const DAMAGES: &[Damage] = &[
    ("an empty file", |elf| elf.cut(0), "not an ELF file"),
    ("a script", |elf| elf.put(0, b"#!/bin/sh\n"), "not an ELF file"),
    ("a file of 63 bytes", |elf| elf.cut(63), "truncated"),
    ("half a file", |elf| elf.cut(elf.bytes.len() / 2), "truncated"),
    ("a file without its last byte", |elf| elf.cut(elf.bytes.len() - 1), "truncated"),
    ("a 32-bit file", |elf| elf.put(4, &[1]), "32-bit"),
    ("a big-endian file", |elf| elf.put(5, &[2]), "big-endian"),
    ("a file for another processor", |elf| elf.put(18, &183_u16.to_le_bytes()), "another processor"),
    ("a program", |elf| elf.put(16, &2_u16.to_le_bytes()), "relocatable"),
    ("a shared library", |elf| elf.put(16, &3_u16.to_le_bytes()), "relocatable"),
    ("section headers far away", |elf| elf.put(40, &u64::MAX.to_le_bytes()), "truncated"),
    ("section headers of another size", |elf| elf.put(58, &40_u16.to_le_bytes()), "entries of 40 bytes"),
    ("a text of an absurd size", |elf| elf.set_section(".text", 32, 1 << 60), "truncated"),
    ("text that is absurdly far away", |elf| elf.set_section(".text", 24, 1 << 60), "truncated"),
    ("zeros of an absurd size", |elf| elf.set_section(".bss", 32, 1 << 40), "more memory than"),
    ("an alignment that is none", |elf| elf.set_section(".text", 48, 3), "only powers of two"),
    ("text that can be written", |elf| elf.set_section(".text", 8, 7), "writable and executable"),
    ("a name that nobody has", |elf| elf.rename("kprobes_comm", "kprobes_gone"), "undefined symbol kprobes_gone"),
    ("no declaration", |elf| elf.rename("kprobes_module", "kprobes_mudole"), "does not define kprobes_module"),
    ("a relocation of an unknown type", |elf| elf.relocation(8, 200), "not supported"),
    ("a relocation outside its section", |elf| elf.relocation(0, 1 << 40), "outside"),
    ("a relocation without a symbol", |elf| elf.relocation(12, 1 << 24), "names symbol"),
    ("a symbol in no section", |elf| elf.set_symbol("kprobes_module", 6, 0xfe00), "does not exist"),
    ("a symbol outside its section", |elf| elf.set_symbol("kprobes_module", 8, 1 << 20), "is not inside"),
    ("another magic word", |elf| elf.declare(0, b"kpmodulf"), "magic"),
    ("another version", |elf| elf.declare(8, &77_u32.to_le_bytes()), "version 77"),
    ("other registers", |elf| elf.declare(12, &8_u32.to_le_bytes()), "registers of 8 bytes"),
    ("a name of an absurd length", |elf| elf.declare(24, &u64::MAX.to_le_bytes()), "too long"),
    ("no name", |elf| elf.declare(24, &0_u64.to_le_bytes()), "a name that is none"),
    ("parameters beyond count", |elf| elf.declare(56, &u64::MAX.to_le_bytes()), "too many parameters"),
    ("more parameters than there are", |elf| elf.declare(56, &200_u64.to_le_bytes()), "kprobes_module"),
];

fn good() -> Result<Vec<u8>, String> {
    read(NAME).map_err(|error| error.to_string())
}

pub(super) fn hostile() -> Result<(), String> {
    let file = good()?;
    let before = state();
    for (what, damage, why) in DAMAGES {
        let mut elf = Elf { bytes: file.clone() };
        damage(&mut elf).ok_or_else(|| format!("{what}: the file has no such place"))?;
        check(elf.bytes != file, || format!("{what}: the file is as it was"))?;
        refused(insert(&elf.bytes, &[]), why).map_err(|wrong| format!("{what}: {wrong}"))?;
    }
    drop(file);
    let after = state();
    // The file's own copy has gone too.
    check((after.addresses, after.frames) == (before.addresses, before.frames), || format!("{after:?} is left"))?;
    check(after.executable == before.executable && after.names == before.names, || format!("{after:?} is left"))
}

/// The negative control: what all of these were made of is inserted.
pub(super) fn control() -> Result<(), String> {
    logged(|| {
        start(&[])?;
        stop()
    })
    .map(drop)
}
