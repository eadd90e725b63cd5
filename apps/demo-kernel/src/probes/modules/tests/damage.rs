//! Where what is in a relocatable ELF file, so that it can be spoilt (ELF-64 Object File Format 1.5).

use alloc::vec::Vec;

/// Bytes of a header of a section, an entry of the symbol table, and of a table of relocations.
const SECTION: usize = 64;
const SYMBOL: usize = 24;
const SYMBOLS: u32 = 2;
const RELOCATIONS: u32 = 4;

/// A file.
pub(super) struct Elf {
    pub(super) bytes: Vec<u8>,
}

impl Elf {
    pub(super) fn cut(&mut self, length: usize) -> Option<()> {
        self.bytes.truncate(length);
        Some(())
    }

    /// Writes bytes.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        self.bytes.get_mut(at..at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        Some(())
    }

    fn word(&self, at: usize) -> Option<usize> {
        Some(u64::from_le_bytes(self.bytes.get(at..at + 8)?.try_into().ok()?) as usize)
    }

    fn half(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn quarter(&self, at: usize) -> Option<usize> {
        Some(u16::from_le_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?).into())
    }

    /// Where the headers of all sections are.
    fn sections(&self) -> Option<impl Iterator<Item = usize>> {
        let (first, count) = (self.word(40)?, self.quarter(60)?);
        Some((0..count).map(move |index| first + index * SECTION))
    }

    /// Whether a name stands at a place.
    fn is_named(&self, at: usize, name: &str) -> bool {
        let bytes = self.bytes.get(at..at + name.len() + 1);
        bytes.is_some_and(|bytes| bytes.strip_suffix(&[0]) == Some(name.as_bytes()))
    }

    /// The header of the section with a name, or whose name begins with it and a dot.
    fn section(&self, name: &str) -> Option<usize> {
        let names = self.word(self.sections()?.nth(self.quarter(62)?)? + 24)?;
        self.sections()?.find(|&at| {
            let name_at = self.half(at).map_or(0, |offset| names + offset as usize);
            let longer = self.bytes.get(name_at..name_at + name.len() + 1);
            self.is_named(name_at, name)
                || longer.is_some_and(|bytes| bytes.strip_suffix(b".") == Some(name.as_bytes()))
        })
    }

    /// Sets a word of a section's header.
    pub(super) fn set_section(&mut self, name: &str, offset: usize, value: u64) -> Option<()> {
        self.put(self.section(name)? + offset, &value.to_le_bytes())
    }

    fn of_type(&self, kind: u32) -> Option<usize> {
        self.sections()?.find(|&at| self.half(at + 4) == Some(kind))
    }

    /// Where a symbol's entry is, and its name.
    fn symbol(&self, name: &str) -> Option<(usize, usize)> {
        let table = self.of_type(SYMBOLS)?;
        let (start, bytes) = (self.word(table + 24)?, self.word(table + 32)?);
        let names = self.word(self.sections()?.nth(self.half(table + 40)? as usize)? + 24)?;
        let mut entries = (start..start + bytes).step_by(SYMBOL);
        entries.find_map(|at| {
            let place = names + self.half(at)? as usize;
            self.is_named(place, name).then_some((at, place))
        })
    }

    /// Gives a symbol another name, as long as its own.
    pub(super) fn rename(&mut self, name: &str, other: &str) -> Option<()> {
        let (_, place) = self.symbol(name)?;
        self.put(place, other.as_bytes())
    }

    /// Sets a part of a symbol's entry: 6 is its section, 8 its value.
    pub(super) fn set_symbol(&mut self, name: &str, offset: usize, value: u64) -> Option<()> {
        let (at, _) = self.symbol(name)?;
        let bytes = value.to_le_bytes();
        self.put(at + offset, if offset == 6 { &bytes[..2] } else { &bytes })
    }

    /// Sets a part of the first relocation: 0 is its place, 8 its type, 12 its symbol.
    pub(super) fn relocation(&mut self, offset: usize, value: u64) -> Option<()> {
        let at = self.word(self.of_type(RELOCATIONS)? + 24)?;
        let bytes = value.to_le_bytes();
        self.put(at + offset, if offset == 0 { &bytes } else { &bytes[..4] })
    }

    /// Writes into the module's declaration.
    pub(super) fn declare(&mut self, offset: usize, bytes: &[u8]) -> Option<()> {
        let (at, _) = self.symbol("kprobes_module")?;
        let section = self.sections()?.nth(self.quarter(at + 6)?)?;
        self.put(self.word(section + 24)? + self.word(at + 8)? + offset, bytes)
    }
}
