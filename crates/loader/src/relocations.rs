//! The places of a module that depend on addresses.

use crate::header::{File, LE, SectionHeader, whole_entries};
use crate::names::shown;
use crate::sections::{Section, Sections, section_shown};
use crate::symbols::{Place, Symbols};
use crate::{Error, MAX_RELOCATIONS};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use object::LittleEndian;
use object::elf::{self, Rela64, RelocationType};

type Entry = Rela64<LittleEndian>;
const ENTRY_SIZE: u64 = size_of::<Entry>() as u64;

/// What is written at a place (psABI for x86-64, table "Relocation Types"): S is the symbol's address, A the addend,
/// P the place's address, G the address of the symbol's entry in the table of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// S + A, 64 bits.
    Absolute64,
    /// S + A, 32 bits that the processor extends with zeros.
    Absolute32,
    /// S + A, 32 bits that the processor extends with their sign.
    Absolute32Signed,
    /// S + A - P, 64 bits.
    Relative64,
    /// S + A - P, 32 bits with sign.
    Relative32,
    /// G + A - P, 32 bits with sign.
    Table32,
}

/// A type of relocation that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
}

impl Kind {
    /// The type with this number.
    fn of(number: RelocationType) -> Option<Self> {
        let (name, form) = match number {
            elf::R_X86_64_64 => ("R_X86_64_64", Form::Absolute64),
            elf::R_X86_64_32 => ("R_X86_64_32", Form::Absolute32),
            elf::R_X86_64_32S => ("R_X86_64_32S", Form::Absolute32Signed),
            elf::R_X86_64_PC64 => ("R_X86_64_PC64", Form::Relative64),
            elf::R_X86_64_PC32 => ("R_X86_64_PC32", Form::Relative32),
            // A jump by way of a linkage table where the symbol needs one; here everything is reached directly.
            elf::R_X86_64_PLT32 => ("R_X86_64_PLT32", Form::Relative32),
            elf::R_X86_64_GOTPCREL => ("R_X86_64_GOTPCREL", Form::Table32),
            // The instruction might be made one that needs no table. It need not.
            elf::R_X86_64_GOTPCRELX => ("R_X86_64_GOTPCRELX", Form::Table32),
            elf::R_X86_64_REX_GOTPCRELX => ("R_X86_64_REX_GOTPCRELX", Form::Table32),
            _ => return None,
        };
        Some(Self { name, form })
    }

    /// How many bytes are written.
    pub(crate) fn width(self) -> u64 {
        if matches!(self.form, Form::Absolute64 | Form::Relative64) { 8 } else { 4 }
    }
}

/// One place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relocation {
    /// The loaded section that it is in.
    pub(crate) section: u32,
    /// Where in it.
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
    /// The symbol's index.
    pub(crate) symbol: u32,
    pub(crate) addend: i64,
}

/// All relocations of what is loaded, with the symbols that need an entry in the table of addresses, in its order.
#[derive(Debug)]
pub(crate) struct Relocations {
    pub(crate) all: Vec<Relocation>,
    pub(crate) got: Vec<u32>,
}

impl Relocations {
    /// Reads and checks them, and marks the symbols that they need.
    pub(crate) fn read(file: &File<'_>, sections: &Sections<'_>, symbols: &mut Symbols<'_>) -> Result<Self, Error> {
        let mut relocations = Self { all: Vec::new(), got: Vec::new() };
        for (index, header) in file.sections.iter().enumerate() {
            let Some(target) = target(file, sections, index, header)? else { continue };
            let section = &sections.loaded[target as usize];
            let entries = entries(file, symbols, index, header)?;
            relocations.reserve(entries.len())?;
            for entry in entries {
                relocations.add(target, section, symbols, entry)?;
            }
        }
        Ok(relocations)
    }

    fn reserve(&mut self, count: usize) -> Result<(), Error> {
        let total = (self.all.len() + count) as u64;
        if total > MAX_RELOCATIONS {
            return Err(Error::TooMany { what: "relocations", count: total, limit: MAX_RELOCATIONS });
        }
        self.all.try_reserve(count).map_err(|_| Error::OutOfMemory)
    }

    fn add(
        &mut self,
        target: u32,
        section: &Section<'_>,
        symbols: &mut Symbols<'_>,
        entry: &Entry,
    ) -> Result<(), Error> {
        let Some(relocation) = relocation(target, section, symbols, entry)? else { return Ok(()) };
        let symbol = &mut symbols.all[relocation.symbol as usize];
        symbol.is_needed = true;
        if relocation.kind.form == Form::Table32 && symbol.got.is_none() {
            self.got.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
            symbol.got = Some(self.got.len() as u32);
            self.got.push(relocation.symbol);
        }
        self.all.push(relocation);
        Ok(())
    }
}

/// The loaded section that the relocations in a section are for, if it has any and that is loaded.
fn target(
    file: &File<'_>,
    sections: &Sections<'_>,
    index: usize,
    header: &SectionHeader,
) -> Result<Option<u32>, Error> {
    let form = match header.sh_type.get(LE) {
        elf::SHT_RELA => None,
        elf::SHT_REL => Some("REL"),
        elf::SHT_CREL => Some("CREL"),
        elf::SHT_RELR => Some("RELR"),
        _ => return Ok(None),
    };
    let target = header.sh_info.get(LE);
    let place = usize::try_from(target).ok().filter(|&target| target != 0).and_then(|target| sections.place(target));
    let place =
        place.ok_or_else(|| Error::RelocationTarget { section: section_shown(file, index), target: target.into() })?;
    match (place, form) {
        (Some(_), Some(form)) => Err(Error::RelocationForm { section: section_shown(file, target as usize), form }),
        _ => Ok(place),
    }
}

fn entries<'d>(
    file: &File<'d>,
    symbols: &Symbols<'_>,
    index: usize,
    header: &SectionHeader,
) -> Result<&'d [Entry], Error> {
    let (entry, size, link) = (header.sh_entsize.get(LE), header.sh_size.get(LE), header.sh_link.get(LE));
    let table = || section_shown(file, index);
    if link != symbols.section {
        return Err(Error::BadLink { section: table(), index: link.into(), what: "symbol table" });
    }
    if entry != ENTRY_SIZE {
        return Err(Error::EntrySize { table: table(), size: entry, expected: ENTRY_SIZE });
    }
    if !size.is_multiple_of(ENTRY_SIZE) {
        return Err(Error::PartialEntry { table: table(), size, entry: ENTRY_SIZE });
    }
    Ok(whole_entries(file.slice(header.sh_offset.get(LE), size, table)?))
}

/// One entry, checked; none if it asks for nothing.
fn relocation(
    target: u32,
    section: &Section<'_>,
    symbols: &Symbols<'_>,
    entry: &Entry,
) -> Result<Option<Relocation>, Error> {
    let (offset, info) = (entry.r_offset.get(LE), entry.r_info.get(LE));
    let (index, number) = ((info >> 32) as u32, RelocationType(info as u32));
    let count = symbols.all.len() as u64;
    let symbol = symbols.all.get(index as usize).ok_or_else(|| Error::SymbolIndex {
        section: section.shown(),
        offset,
        index: index.into(),
        count,
    })?;
    if number == elf::R_X86_64_NONE {
        return Ok(None);
    }
    let kind = Kind::of(number).ok_or_else(|| Error::RelocationKind {
        section: section.shown(),
        offset,
        kind: kind_name(number),
    })?;
    check_place(section, offset, kind)?;
    if symbol.place == Place::Dropped {
        return Err(Error::NotLoaded { section: section.shown(), offset, symbol: shown(symbol.name) });
    }
    Ok(Some(Relocation { section: target, offset, kind, symbol: index, addend: entry.r_addend.get(LE) }))
}

fn check_place(section: &Section<'_>, offset: u64, kind: Kind) -> Result<(), Error> {
    let inside = offset.checked_add(kind.width()).is_some_and(|end| end <= section.size);
    if !inside {
        return Err(Error::RelocationOutside { section: section.shown(), offset, kind: kind.name, len: section.size });
    }
    if section.is_zeros() {
        return Err(Error::RelocationInZeros { section: section.shown(), offset });
    }
    Ok(())
}

fn kind_name(number: RelocationType) -> String {
    elf::NAMES_R_X86_64.name(number).map_or_else(|| format!("{number}"), String::from)
}
