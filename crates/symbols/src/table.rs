//! The symbol tables, merged: functions by address, other symbols by name.

use crate::frames::Frames;
use crate::function::{Binding, Function, Name, Version};
use crate::image::{Image, Section, table_at};
use object::LittleEndian;
use object::elf::{self, Sym64};
use object::read::elf::Sym as _;
use std::collections::HashMap;
use std::sync::Arc;

const LE: LittleEndian = LittleEndian;

/// A symbol that is no function: data, or a label without a type.
pub(crate) struct Datum {
    pub(crate) addr: u64,
    pub(crate) name: Name,
    pub(crate) version: Option<Version>,
    pub(crate) binding: Binding,
}

/// What the symbol tables hold.
#[derive(Default)]
pub(crate) struct Table {
    /// By address, then name. No two have the same address, name and version.
    pub(crate) functions: Vec<Function>,
    pub(crate) data: Vec<Datum>,
    /// Names that other objects must define.
    pub(crate) imports: Vec<Name>,
    /// For each function the greatest end of it and those before: tells how far back a containing
    /// one can be.
    reach: Vec<u64>,
}

/// One symbol table in a file: where its entries, its strings and its versions are.
struct Raw<'a> {
    bytes: &'a Arc<Vec<u8>>,
    symbols: &'a [Sym64<LittleEndian>],
    strings: core::ops::Range<usize>,
    versions: HashMap<u16, Name>,
    versyms: &'a [object::U16<LittleEndian>],
}

impl Table {
    /// Reads all tables of the object, and `.symtab` of its debug file if there is one.
    pub(crate) fn read(image: &Image, debug: Option<&Arc<Vec<u8>>>) -> Self {
        let mut table = Self::default();
        for raw in raw_tables(&image.bytes, &image.sections) {
            table.add(image, &raw);
        }
        if !image.sections.iter().any(|s| s.kind == elf::SHT_DYNSYM.0)
            && let Some(raw) = dynamic_table(image)
        {
            table.add(image, &raw);
        }
        if let Some(debug) = debug {
            let sections = crate::image::sections_of(debug);
            for raw in raw_tables(debug, &sections) {
                table.add(image, &raw);
            }
        }
        table
    }

    /// Sorts, drops duplicates and finds missing sizes. `frames` is asked only if a size is
    /// missing.
    pub(crate) fn finish<'a>(&mut self, image: &Image, frames: impl FnOnce() -> &'a Frames) {
        // The versioned one of two equal names comes first: it stays.
        self.functions.sort_by(|a, b| {
            let names = || a.name.as_bytes().cmp(b.name.as_bytes());
            let versions =
                || a.version().is_none().cmp(&b.version().is_none()).then_with(|| a.version().cmp(&b.version()));
            a.addr.cmp(&b.addr).then_with(names).then_with(versions).then_with(|| b.size_known.cmp(&a.size_known))
        });
        self.functions.dedup_by(|b, a| {
            let same_version = b.version.is_none() || a.version() == b.version();
            a.addr == b.addr && same_version && a.name.as_bytes() == b.name.as_bytes()
        });
        if self.functions.iter().any(|f| !f.size_known) {
            self.repair_sizes(image, frames());
        }
        let farther = |reach: &mut u64, f: &Function| {
            *reach = f.end().max(*reach);
            Some(*reach)
        };
        self.reach = self.functions.iter().scan(0, farther).collect();
    }

    /// The functions that contain `vaddr`: those of the innermost start, all aliases.
    pub(crate) fn at(&self, vaddr: u64) -> &[Function] {
        let after = self.functions.partition_point(|f| f.addr <= vaddr);
        let candidates = (0..after).rev().take_while(|&i| self.reach[i] > vaddr);
        let Some(found) = candidates.into_iter().find(|&i| self.functions[i].contains(vaddr)) else { return &[] };
        let addr = self.functions[found].addr;
        let first = self.functions.partition_point(|f| f.addr < addr);
        &self.functions[first..=found]
    }

    fn add(&mut self, image: &Image, raw: &Raw<'_>) {
        for (index, symbol) in raw.symbols.iter().enumerate().skip(1) {
            let kind = symbol.st_type();
            if matches!(kind, elf::STT_SECTION | elf::STT_FILE | elf::STT_TLS) {
                continue;
            }
            let start = raw.strings.start.saturating_add(symbol.st_name(LE) as usize);
            let Some(name) = Name::in_file(raw.bytes, start, raw.strings.end) else { continue };
            let section = symbol.st_shndx(LE);
            if name.as_bytes().is_empty() || section == elf::SHN_ABS {
                continue;
            }
            let (name, version) = raw.version(index, name);
            if section == elf::SHN_UNDEF {
                self.imports.push(name);
            } else if symbol.st_value(LE) != 0 {
                self.define(image, symbol, name, version);
            }
        }
    }

    fn define(&mut self, image: &Image, symbol: &Sym64<LittleEndian>, name: Name, version: Option<Version>) {
        let addr = symbol.st_value(LE);
        let binding = match symbol.st_bind() {
            elf::STB_LOCAL => Binding::Local,
            elf::STB_WEAK => Binding::Weak,
            _ => Binding::Global,
        };
        if is_function(image, symbol) {
            let size = symbol.st_size(LE);
            let ifunc = symbol.st_type() == elf::STT_GNU_IFUNC;
            self.functions.push(Function { addr, size, size_known: size != 0, ifunc, binding, name, version });
        } else {
            self.data.push(Datum { addr, name, version, binding });
        }
    }

    fn repair_sizes(&mut self, image: &Image, frames: &Frames) {
        let mut next = u64::MAX;
        for i in (0..self.functions.len()).rev() {
            let addr = self.functions[i].addr;
            if !self.functions[i].size_known {
                let range = image.code_range_at(addr).map_or(addr, |r| r.end);
                let end = match frames.at(addr) {
                    Some(frame) if frame.start == addr => frame.end,
                    Some(frame) => frame.end.min(next).min(range),
                    None => next.min(range),
                };
                self.functions[i].size = end.saturating_sub(addr);
            }
            if i > 0 && self.functions[i - 1].addr != addr {
                next = addr;
            }
        }
    }
}

/// Functions by type; also labels in code without a type that other files can see: hand-written
/// assembly often leaves the type out.
fn is_function(image: &Image, symbol: &Sym64<LittleEndian>) -> bool {
    let addr = symbol.st_value(LE);
    match symbol.st_type() {
        elf::STT_FUNC | elf::STT_GNU_IFUNC => image.load_of(addr).is_some_and(|l| l.is_executable()),
        elf::STT_NOTYPE => symbol.st_bind() != elf::STB_LOCAL && image.is_code(addr),
        _ => false,
    }
}

fn raw_tables<'a>(bytes: &'a Arc<Vec<u8>>, sections: &'a [Section]) -> Vec<Raw<'a>> {
    let tables = sections.iter().filter(|s| s.kind == elf::SHT_SYMTAB.0 || s.kind == elf::SHT_DYNSYM.0);
    tables
        .filter_map(|section| {
            let strings = sections.get(section.link as usize)?;
            let start = usize::try_from(strings.offset).ok()?;
            let end = start.checked_add(usize::try_from(strings.size).ok()?)?.min(bytes.len());
            let count = usize::try_from(section.size / 24).ok()?;
            let mut raw = Raw {
                bytes,
                symbols: table_at(bytes, section.offset, count),
                strings: start..end,
                versions: HashMap::new(),
                versyms: &[],
            };
            if section.kind == elf::SHT_DYNSYM.0
                && let Some(versym) = sections.iter().find(|s| s.kind == elf::SHT_GNU_VERSYM.0)
            {
                raw.versyms = table_at(bytes, versym.offset, usize::try_from(versym.size / 2).ok()?);
                raw.read_versions(sections);
            }
            Some(raw)
        })
        .collect()
}

/// `.dynsym` of a file whose section headers were removed, through the dynamic section.
fn dynamic_table(image: &Image) -> Option<Raw<'_>> {
    let dynamic = &image.dynamic;
    let (symtab, strtab) = (dynamic.symtab?, dynamic.strtab?);
    let offset = |vaddr| image.load_of(vaddr).map(|l| vaddr - l.vaddr + l.offset);
    let count = gnu_hash_count(image).or_else(|| hash_count(image))?;
    let start = usize::try_from(offset(strtab)?).ok()?;
    let end = start.saturating_add(usize::try_from(dynamic.strsz).ok()?).min(image.bytes.len());
    let symbols = table_at(&image.bytes, offset(symtab)?, count);
    Some(Raw { bytes: &image.bytes, symbols, strings: start..end, versions: HashMap::new(), versyms: &[] })
}

/// The number of dynamic symbols, from `DT_HASH`: its chain has one entry for each.
fn hash_count(image: &Image) -> Option<usize> {
    let table = image.mapped(image.dynamic.hash?, 8)?;
    Some(u32::from_le_bytes(table[4..8].try_into().ok()?) as usize)
}

/// The number of dynamic symbols, from `DT_GNU_HASH`: one past the end of the chain of the highest
/// bucket.
fn gnu_hash_count(image: &Image) -> Option<usize> {
    let table = image.mapped_from(image.dynamic.gnu_hash?)?;
    let word = |at: usize| Some(u32::from_le_bytes(table.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let (buckets, first, bloom) = (word(0)? as usize, word(4)? as usize, word(8)? as usize);
    let start = bloom.checked_mul(8)?.checked_add(16)?;
    let chains = buckets.checked_mul(4)?.checked_add(start)?;
    let mut last = 0;
    for i in 0..buckets {
        last = last.max(word(start + i * 4)? as usize);
    }
    if last < first {
        return Some(first);
    }
    while word((last - first).checked_mul(4)?.checked_add(chains)?)? & 1 == 0 {
        last += 1;
    }
    Some(last + 1)
}

impl Raw<'_> {
    /// The version of a symbol: from the version table, or written into the name as newer linkers
    /// do in `.symtab`.
    fn version(&self, index: usize, name: Name) -> (Name, Option<Version>) {
        if let Some(at) = name.as_bytes().iter().position(|&b| b == b'@').filter(|&at| at > 0) {
            let is_default = name.as_bytes().get(at + 1) == Some(&b'@');
            if let Some((head, tail)) = name.split(at, at + 1 + usize::from(is_default)) {
                return (head, Some(Version { name: tail, is_default }));
            }
        }
        let versym = self.versyms.get(index).map_or(1, |v| v.get(LE));
        let version = self.versions.get(&(versym & 0x7fff));
        let version = version.map(|name| Version { name: name.clone(), is_default: versym & 0x8000 == 0 });
        (name, version)
    }

    /// Reads the definitions of `.gnu.version_d`: number to name. Versions of imports do not matter
    /// here.
    fn read_versions(&mut self, sections: &[Section]) {
        let Some(section) = sections.iter().find(|s| s.kind == elf::SHT_GNU_VERDEF.0) else { return };
        let half = |at: u64| table_at::<object::U16<LittleEndian>>(self.bytes, at, 1).first().map(|v| v.get(LE));
        let word = |at: u64| table_at::<object::U32<LittleEndian>>(self.bytes, at, 1).first().map(|v| v.get(LE));
        let mut at = section.offset;
        let end = section.offset.saturating_add(section.size);
        // At most one definition per number, so a chain that loops ends.
        for _ in 0..0x8000 {
            if at >= end {
                break;
            }
            let (Some(flags), Some(index), Some(aux), Some(next)) =
                (half(at + 2), half(at + 4), word(at + 12), word(at + 16))
            else {
                break;
            };
            // The base definition (flag 1) names the object itself, not a version.
            let name = word(at + u64::from(aux)).and_then(|offset| {
                Name::in_file(self.bytes, self.strings.start.checked_add(offset as usize)?, self.strings.end)
            });
            if let (0, Some(name)) = (flags & 1, name) {
                self.versions.insert(index & 0x7fff, name);
            }
            if next == 0 {
                break;
            }
            at = at.saturating_add(u64::from(next));
        }
    }
}
