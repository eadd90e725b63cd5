//! Go's own function table, which stripping leaves: `.gopclntab` (Go's `internal/abi/symtab.go`,
//! `debug/gosym/pclntab.go`).
//!
//! The runtime needs it to walk stacks, so every Go program has it. Layout since Go 1.18: a header
//! (magic, quantum, pointer size, counts, the text's address, offsets of the parts), function
//! names, and a table of (entry, offset of details) pairs, entries counted from the text's start.
//! Go 1.16 and 1.17 have absolute entries and no text address.

use crate::function::{Binding, Function, Name};
use crate::image::{Image, Section};

const MAGIC_1_16: u32 = 0xffff_fffa;
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;

/// What the linker writes before its build information (`debug/buildinfo`).
const BUILD_INFO: &[u8] = b"\xff Go buildinf:";

/// Whether Go's linker made the program.
pub(crate) fn is_go(image: &Image) -> bool {
    let by_section =
        [".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo"].iter().any(|n| image.section(n).is_some());
    by_section || (image.sections.is_empty() && build_info(image))
}

/// The build information stands in a writable segment, aligned to 16 bytes.
fn build_info(image: &Image) -> bool {
    let writable = image.loads.iter().filter(|l| l.is_writable());
    let mut bytes = writable.filter_map(|l| image.file(l.offset, l.filesz));
    bytes.any(|b| b.chunks(16).any(|chunk| chunk.starts_with(BUILD_INFO)))
}

struct Layout {
    count: usize,
    text: u64,
    names: usize,
    table: usize,
    /// Bytes of an address in the table: offsets are 4, absolute ones 8.
    width: usize,
}

/// The functions that the table lists.
pub(crate) fn functions(image: &Image) -> Vec<Function> {
    let Some((base, bytes)) = table(image) else { return Vec::new() };
    let Some(layout) = layout(image, bytes) else { return Vec::new() };
    let mut functions = Vec::new();
    for i in 0..layout.count {
        let Some(function) = function(image, base, bytes, &layout, i) else { break };
        functions.push(function);
    }
    functions.retain(|f| image.load_of(f.addr).is_some_and(|l| l.is_executable()));
    functions
}

/// The table's place in the file and its bytes.
fn table(image: &Image) -> Option<(usize, &[u8])> {
    let named = [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|n| image.section(n));
    if let Some(section) = named {
        return Some((usize::try_from(section.offset).ok()?, image.section_bytes(section)?));
    }
    if !is_go(image) {
        return None;
    }
    // Without section headers: the magic number with two zero bytes, quantum 1 and 8-byte pointers
    // behind it.
    image.loads.iter().find_map(|load| {
        let bytes = image.file(load.offset, load.filesz)?;
        let is_header = |chunk: &[u8]| chunk.get(1..8) == Some(&[0xff, 0xff, 0xff, 0, 0, 1, 8]);
        let at = bytes.chunks(16).position(is_header)? * 16;
        Some((usize::try_from(load.offset).ok()? + at, &bytes[at..]))
    })
}

fn layout(image: &Image, bytes: &[u8]) -> Option<Layout> {
    let magic = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    if bytes.get(7) != Some(&8) {
        return None;
    }
    let word = |i: usize| number(bytes, 8 + i * 8, 8);
    let index = |i: usize| usize::try_from(word(i)?).ok();
    let layout = match magic {
        MAGIC_1_18 | MAGIC_1_20 => {
            // Newer linkers leave the text's address to the runtime and write 0.
            let text = word(2).filter(|&t| t != 0).or_else(|| image.section(".text").map(|s: &Section| s.addr))?;
            Layout { count: index(0)?, text, names: index(3)?, table: index(7)?, width: 4 }
        }
        MAGIC_1_16 => Layout { count: index(0)?, text: 0, names: index(2)?, table: index(6)?, width: 8 },
        _ => return None,
    };
    Some(layout)
}

fn function(image: &Image, base: usize, bytes: &[u8], layout: &Layout, i: usize) -> Option<Function> {
    let pair = layout.width * 2;
    let at = layout.table.checked_add(i.checked_mul(pair)?)?;
    let start = number(bytes, at, layout.width)?;
    let end = number(bytes, at + pair, layout.width)?;
    let details = usize::try_from(number(bytes, at + layout.width, layout.width)?).ok()?;
    let name_at = layout.table.checked_add(details)?.checked_add(layout.width)?;
    let name_offset = usize::try_from(number(bytes, name_at, 4)?).ok()?;
    let name_start = base.checked_add(layout.names)?.checked_add(name_offset)?;
    let name = Name::in_file(&image.bytes, name_start, base + bytes.len())?;
    Some(Function {
        addr: layout.text.checked_add(start)?,
        size: end.checked_sub(start)?,
        size_known: true,
        ifunc: false,
        binding: Binding::Local,
        name,
        version: None,
    })
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..width].copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
    Some(u64::from_le_bytes(word))
}
