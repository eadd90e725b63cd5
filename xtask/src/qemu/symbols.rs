//! The kernel's symbol table, as the kernel itself reads it from its RAM disk.
//!
//! Lines of `ADDRESS SIZE KIND NAME`, sorted by address, numbers in hexadecimal, kinds as `nm` has them (`t` text,
//! `r` read-only data, `d` data, `b` data without a value; capitals for global symbols), names demangled
//! and without hash: so two instances of one generic function have one name. A name is the rest of the line and may
//! contain spaces.
//!
//! What was written in assembly often has no size. Such a symbol reaches to the next one in its section, unless it
//! lies within one that has a size: then it is a label, or the linker's mark of a border, and its size is 0. At one
//! address, what has a size comes first.

use std::fmt::{self, Write as _};

use anyhow::{Context, Result};
use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS};
use object::read::elf::{ElfFile64, ElfSymbol64};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SectionFlags, SectionIndex, SymbolKind, SymbolSection};

/// An ELF file as the crate `object` reads it.
pub(super) type Image<'data> = ElfFile64<'data, Endianness>;

/// A symbol of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: char,
    pub(super) name: String,
    section: SectionIndex,
}

impl Symbol {
    /// It lies in an executable section.
    pub(super) const fn is_text(&self) -> bool {
        self.kind.eq_ignore_ascii_case(&'t')
    }

    /// A function, for tests of what reads them.
    #[cfg(test)]
    pub(super) fn function(address: u64, size: u64, name: &str) -> Self {
        Self { address, size, kind: 't', name: name.to_owned(), section: SectionIndex(1) }
    }

    const fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {:x} {} {}", self.address, self.size, self.kind, self.name)
    }
}

/// The table's text.
///
/// # Errors
///
/// If the bytes are no ELF file, or one without symbols.
pub(super) fn table(image: &[u8]) -> Result<String> {
    let mut text = String::new();
    for symbol in read(&parse(image)?)? {
        writeln!(text, "{symbol}")?;
    }
    Ok(text)
}

/// # Errors
///
/// If the bytes are no 64-bit ELF file.
pub(super) fn parse(image: &[u8]) -> Result<Image<'_>> {
    ElfFile64::<Endianness>::parse(image).context("no 64-bit ELF file")
}

/// All symbols that have a place in memory, sorted, with sizes where they can be known.
///
/// # Errors
///
/// If there are none.
pub(super) fn read(file: &Image<'_>) -> Result<Vec<Symbol>> {
    let mut symbols: Vec<_> = file.symbols().filter_map(|symbol| convert(file, &symbol)).collect();
    sort(&mut symbols);
    let ends: Vec<_> = file.sections().map(|section| (section.index(), section.address() + section.size())).collect();
    measure(&mut symbols, |section| ends.iter().find(|(index, _)| *index == section).map_or(0, |(_, end)| *end));
    sort(&mut symbols);
    anyhow::ensure!(!symbols.is_empty(), "the file has no symbols");
    Ok(symbols)
}

fn convert(file: &Image<'_>, symbol: &ElfSymbol64<'_, '_, Endianness>) -> Option<Symbol> {
    let name =
        symbol.name().ok().filter(|name| !name.is_empty() && !name.starts_with(".L") && !name.starts_with('$'))?;
    if matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section | SymbolKind::Tls) {
        return None;
    }
    // What has no section is a number that has a name.
    let SymbolSection::Section(section) = symbol.section() else { return None };
    let kind = section_kind(file, section)?;
    let kind = if symbol.is_global() { kind.to_ascii_uppercase() } else { kind };
    // A newline would end the line, whoever made such a name.
    let name = format!("{:#}", rustc_demangle::demangle(name)).replace(char::is_control, "?");
    Some(Symbol { address: symbol.address(), size: symbol.size(), kind, name, section })
}

/// None for what is not loaded.
fn section_kind(file: &Image<'_>, index: SectionIndex) -> Option<char> {
    let section = file.section_by_index(index).ok()?;
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return None };
    let has = |flag| sh_flags.contains(flag);
    let empty = section.elf_section_header().sh_type.get(file.endian()) == SHT_NOBITS;
    match () {
        () if !has(SHF_ALLOC) => None,
        () if has(SHF_EXECINSTR) => Some('t'),
        () if empty => Some('b'),
        () if has(SHF_WRITE) => Some('d'),
        () => Some('r'),
    }
}

fn sort(symbols: &mut [Symbol]) {
    symbols.sort_by(|a, b| (a.address, b.size, &a.name).cmp(&(b.address, a.size, &b.name)));
}

/// Gives sizes to those that have none and are not within one that has.
fn measure(symbols: &mut [Symbol], section_end: impl Fn(SectionIndex) -> u64) {
    let mut covered = 0;
    for at in 0..symbols.len() {
        let (symbol, rest) = (&symbols[at], &symbols[at + 1..]);
        if symbol.size == 0 && symbol.address >= covered {
            let next = rest.iter().find(|next| next.section == symbol.section && next.address > symbol.address);
            let end = next.map_or_else(|| section_end(symbol.section), |next| next.address);
            symbols[at].size = end.saturating_sub(symbol.address);
        } else {
            covered = covered.max(symbol.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mut symbols: Vec<Symbol>) -> Vec<(String, u64)> {
        sort(&mut symbols);
        measure(&mut symbols, |_| 0x1100);
        sort(&mut symbols);
        symbols.into_iter().map(|symbol| (symbol.name, symbol.size)).collect()
    }

    fn expected(names: &[(&str, u64)]) -> Vec<(String, u64)> {
        names.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
    }

    #[test]
    fn assembly_without_sizes_reaches_to_the_next_symbol_or_the_sections_end() {
        let found = measured(vec![
            Symbol::function(0x1000, 0, "a"),
            Symbol::function(0x1010, 0, "b"),
            Symbol::function(0x1040, 0x20, "c"),
            Symbol::function(0x1080, 0, "d"),
        ]);
        assert_eq!(found, expected(&[("a", 0x10), ("b", 0x30), ("c", 0x20), ("d", 0x80)]));
    }

    #[test]
    fn labels_and_borders_at_a_function_have_no_size() {
        let found = measured(vec![
            Symbol::function(0x1000, 0, "start"),
            Symbol::function(0x1000, 0x20, "f"),
            Symbol::function(0x1010, 0, "label"),
        ]);
        assert_eq!(found, expected(&[("f", 0x20), ("start", 0), ("label", 0)]));
    }

    #[test]
    fn aliases_without_a_size_have_the_same() {
        let found = measured(vec![
            Symbol::function(0x1000, 0, "a"),
            Symbol::function(0x1000, 0, "b"),
            Symbol::function(0x1010, 1, "c"),
        ]);
        assert_eq!(found, expected(&[("a", 0x10), ("b", 0x10), ("c", 1)]));
    }

    #[test]
    fn a_border_at_the_end_has_no_size() {
        let found = measured(vec![Symbol::function(0x1000, 0x100, "f"), Symbol::function(0x1100, 0, "end")]);
        assert_eq!(found, expected(&[("f", 0x100), ("end", 0)]));
    }

    #[test]
    fn a_line_is_address_size_kind_name() {
        assert_eq!(Symbol::function(0x1000, 0x20, "<A as B>::f").to_string(), "0000000000001000 20 t <A as B>::f");
    }

    /// Looked for in the test's own table: not inlined, optimised or not.
    #[inline(never)]
    fn landmark(number: u64) -> u64 {
        std::hint::black_box(number) + 1
    }

    #[test]
    fn our_own_symbols_are_read_and_demangled() {
        assert_eq!(landmark(1), 2);
        let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let text = table(&image).unwrap();
        let line = text.lines().find(|line| line.ends_with("symbols::tests::landmark")).expect("this very crate");
        let words: Vec<_> = line.split(' ').collect();
        assert!(u64::from_str_radix(words[1], 16).unwrap() > 0 && words[2] == "t", "{line}");
        let addresses: Vec<_> = text.lines().map(|line| u64::from_str_radix(&line[..16], 16).unwrap()).collect();
        assert!(addresses.is_sorted());
    }

    #[test]
    fn other_files_are_errors() {
        assert!(table(b"").is_err());
        assert!(table(b"\x7fELF but not really").is_err());
        let mut image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        image.truncate(4096);
        assert!(table(&image).is_err());
    }
}
