//! The symbol table.

use crate::header::{File, LE, SectionHeader, is_strings, whole_entries};
use crate::names::{Names, shown};
use crate::sections::{Sections, section_shown};
use crate::{Error, MAX_SYMBOLS, with_room};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use object::LittleEndian;
use object::elf::{self, Sym64};

type Entry = Sym64<LittleEndian>;
const ENTRY_SIZE: u64 = size_of::<Entry>() as u64;

/// Where a symbol's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// From the host.
    Undefined,
    /// It is the value.
    Absolute,
    /// It is an offset in a loaded section.
    Loaded(u32),
    /// It is in a section that is not loaded.
    Dropped,
}

/// A symbol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol<'d> {
    /// Its name; a section's if it stands for one.
    pub(crate) name: &'d str,
    pub(crate) place: Place,
    pub(crate) value: u64,
    pub(crate) size: u64,
    pub(crate) is_function: bool,
    pub(crate) is_local: bool,
    pub(crate) is_weak: bool,
    /// Whether a relocation refers to it.
    pub(crate) is_needed: bool,
    /// Its entry in the table of addresses.
    pub(crate) got: Option<u32>,
}

impl Symbol<'_> {
    pub(crate) fn shown(&self) -> String {
        shown(self.name)
    }
}

/// The symbol table and where it is among the sections.
#[derive(Debug)]
pub(crate) struct Symbols<'d> {
    pub(crate) section: u32,
    pub(crate) all: Vec<Symbol<'d>>,
}

impl<'d> Symbols<'d> {
    pub(crate) fn read(file: &File<'d>, sections: &Sections<'d>) -> Result<Self, Error> {
        let is_table = |&(_, header): &(usize, &SectionHeader)| header.sh_type.get(LE) == elf::SHT_SYMTAB;
        let mut tables = file.sections.iter().enumerate().filter(is_table);
        let (index, header) = tables.next().ok_or(Error::NoSymbols)?;
        if tables.next().is_some() {
            return Err(Error::SeveralSymbolTables);
        }
        let entries = entries(file, index, header)?;
        let names = names(file, index, header)?;
        let mut all = with_room(entries.len())?;
        for (number, entry) in entries.iter().enumerate() {
            all.push(Reader { sections, names, number }.symbol(entry)?);
        }
        check_unique(&all)?;
        Ok(Self { section: index as u32, all })
    }
}

fn entries<'d>(file: &File<'d>, index: usize, header: &SectionHeader) -> Result<&'d [Entry], Error> {
    let table = || "the symbol table".into();
    let (entry, size) = (header.sh_entsize.get(LE), header.sh_size.get(LE));
    if entry != ENTRY_SIZE {
        return Err(Error::EntrySize { table: table(), size: entry, expected: ENTRY_SIZE });
    }
    if !size.is_multiple_of(ENTRY_SIZE) {
        return Err(Error::PartialEntry { table: table(), size, entry: ENTRY_SIZE });
    }
    let count = size / ENTRY_SIZE;
    if count > MAX_SYMBOLS {
        return Err(Error::TooMany { what: "symbols", count, limit: MAX_SYMBOLS });
    }
    Ok(whole_entries(file.slice(header.sh_offset.get(LE), size, || section_shown(file, index))?))
}

fn names<'d>(file: &File<'d>, index: usize, header: &SectionHeader) -> Result<Names<'d>, Error> {
    let link = header.sh_link.get(LE);
    let strings = usize::try_from(link).ok().and_then(|link| file.sections.get(link)).filter(|s| is_strings(s));
    let strings = strings.ok_or_else(|| Error::BadLink {
        section: section_shown(file, index),
        index: link.into(),
        what: "table of names",
    })?;
    let bytes = file.slice(strings.sh_offset.get(LE), strings.sh_size.get(LE), || "the table of names".into())?;
    Ok(Names(bytes))
}

/// Two symbols with one name, neither of them private to a source file, contradict each other.
fn check_unique(all: &[Symbol<'_>]) -> Result<(), Error> {
    let mut names = with_room(all.len())?;
    names.extend(all.iter().filter(|symbol| !symbol.is_local).map(|symbol| symbol.name));
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::DuplicateSymbol { symbol: shown(pair[0]) }),
        None => Ok(()),
    }
}

/// What it takes to understand one entry.
struct Reader<'a, 'd> {
    sections: &'a Sections<'d>,
    names: Names<'d>,
    number: usize,
}

impl<'d> Reader<'_, 'd> {
    fn symbol(&self, entry: &Entry) -> Result<Symbol<'d>, Error> {
        let name = self.names.get(entry.st_name.get(LE), "symbol", self.number)?;
        let (kind, binding) = (entry.st_info.st_type(), entry.st_info.st_bind());
        check_kind(name, kind, binding)?;
        let mut symbol = Symbol {
            name,
            place: self.place(entry, name)?,
            value: entry.st_value.get(LE),
            size: entry.st_size.get(LE),
            is_function: kind == elf::STT_FUNC,
            is_local: binding == elf::STB_LOCAL,
            is_weak: binding == elf::STB_WEAK,
            is_needed: false,
            got: None,
        };
        self.check_place(&mut symbol)?;
        Ok(symbol)
    }

    fn place(&self, entry: &Entry, name: &str) -> Result<Place, Error> {
        let index = entry.st_shndx.get(LE);
        match index {
            // The first entry stands for no symbol; what refers to it means the value 0.
            elf::SHN_UNDEF if self.number == 0 => return Ok(Place::Absolute),
            elf::SHN_UNDEF => return Ok(Place::Undefined),
            elf::SHN_ABS => return Ok(Place::Absolute),
            elf::SHN_COMMON => return Err(Error::CommonSymbol { symbol: shown(name) }),
            _ => {}
        }
        let place = if index.is_reserved() { None } else { self.sections.place(index.0.into()) };
        match place {
            Some(Some(loaded)) => Ok(Place::Loaded(loaded)),
            Some(None) => Ok(Place::Dropped),
            None => Err(Error::SymbolSection { symbol: shown(name), section: index.0.into() }),
        }
    }

    fn check_place(&self, symbol: &mut Symbol<'d>) -> Result<(), Error> {
        match symbol.place {
            Place::Undefined if symbol.name.is_empty() => Err(Error::NamelessSymbol { index: self.number as u64 }),
            Place::Loaded(index) => {
                let section = &self.sections.loaded[index as usize];
                if symbol.name.is_empty() {
                    symbol.name = section.name;
                }
                let inside = symbol.value.checked_add(symbol.size).is_some_and(|end| end <= section.size);
                if inside { Ok(()) } else { Err(outside(symbol, section.shown(), section.size)) }
            }
            _ => Ok(()),
        }
    }
}

fn outside(symbol: &Symbol<'_>, section: String, len: u64) -> Error {
    Error::SymbolOutside { symbol: symbol.shown(), value: symbol.value, size: symbol.size, section, len }
}

fn check_kind(name: &str, kind: elf::SymbolType, binding: elf::SymbolBind) -> Result<(), Error> {
    let symbol = || shown(name);
    match kind {
        elf::STT_NOTYPE | elf::STT_OBJECT | elf::STT_FUNC | elf::STT_SECTION | elf::STT_FILE => {}
        elf::STT_COMMON => return Err(Error::CommonSymbol { symbol: symbol() }),
        elf::STT_TLS => return Err(Error::ThreadLocal { name: format!("the symbol {}", symbol()) }),
        elf::STT_GNU_IFUNC => return Err(Error::IndirectFunction { symbol: symbol() }),
        _ => return Err(Error::SymbolKind { symbol: symbol(), what: "type", value: kind.0 }),
    }
    match binding {
        elf::STB_LOCAL | elf::STB_GLOBAL | elf::STB_WEAK | elf::STB_GNU_UNIQUE => Ok(()),
        _ => Err(Error::SymbolKind { symbol: symbol(), what: "binding", value: binding.0 }),
    }
}
