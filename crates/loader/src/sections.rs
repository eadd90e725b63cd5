//! Which sections are loaded, and what is wrong with the others.

use crate::header::{File, LE, SectionHeader};
use crate::layout::{PAGE, Part};
use crate::names::shown;
use crate::{Error, with_room};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use object::elf;

/// A section that takes memory in the module.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    pub(crate) name: &'d str,
    pub(crate) part: Part,
    pub(crate) align: u64,
    pub(crate) size: u64,
    /// All of it, or none if it is zeros.
    pub(crate) bytes: &'d [u8],
    /// Where it is put, from the range's start.
    pub(crate) offset: u64,
}

impl Section<'_> {
    /// Whether the file has no bytes for it.
    pub(crate) fn is_zeros(&self) -> bool {
        self.bytes.is_empty() && self.size > 0
    }

    pub(crate) fn shown(&self) -> String {
        shown(self.name)
    }
}

/// The file's sections.
#[derive(Debug)]
pub(crate) struct Sections<'d> {
    pub(crate) loaded: Vec<Section<'d>>,
    /// For each section of the file its place in `loaded`, if it is there.
    indices: Vec<Option<u32>>,
}

impl<'d> Sections<'d> {
    /// Checks all sections and takes those that are loaded. They have no place yet.
    pub(crate) fn read(file: &File<'d>) -> Result<Self, Error> {
        check_extents(file)?;
        let mut sections = Self { loaded: Vec::new(), indices: with_room(file.sections.len())? };
        for (index, header) in file.sections.iter().enumerate() {
            let name = file.names.get(header.sh_name.get(LE), "section", index)?;
            let section = if is_loaded(header, name)? { Some(section(file, header, name)?) } else { None };
            sections.indices.push(section.is_some().then_some(sections.loaded.len() as u32));
            sections.loaded.extend(section);
        }
        Ok(sections)
    }

    /// The place in `loaded` of the file's section `index`; the inner `None` if it is not loaded.
    pub(crate) fn place(&self, index: usize) -> Option<Option<u32>> {
        self.indices.get(index).copied()
    }
}

/// Whether a section takes memory in the module, after all that could be wrong with it.
fn is_loaded(header: &SectionHeader, name: &str) -> Result<bool, Error> {
    let (kind, flags) = (header.sh_type.get(LE), header.sh_flags.get(LE));
    let section = || shown(name);
    if kind == elf::SHT_NULL || !flags.contains(elf::SHF_ALLOC) {
        return Ok(false);
    }
    if flags.contains(elf::SHF_WRITE) && flags.contains(elf::SHF_EXECINSTR) {
        return Err(Error::WritableAndExecutable { section: section() });
    }
    if flags.contains(elf::SHF_TLS) {
        return Err(Error::ThreadLocal { name: format!("section {}", section()) });
    }
    if is_constructors(kind, name) {
        // A compiler that emits an empty one asks for nothing.
        return if header.sh_size.get(LE) == 0 { Ok(false) } else { Err(Error::Constructors { section: section() }) };
    }
    if flags.contains(elf::SHF_COMPRESSED) {
        return Err(Error::Compressed { section: section() });
    }
    match kind {
        _ if is_for_unwinding(kind, name) => Ok(false),
        elf::SHT_NOTE => Ok(false),
        elf::SHT_PROGBITS | elf::SHT_NOBITS => Ok(true),
        _ => Err(Error::SectionKind { section: section(), kind: kind_name(kind) }),
    }
}

fn is_constructors(kind: elf::SectionType, name: &str) -> bool {
    let named = |base: &str| name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    matches!(kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY)
        || [".ctors", ".dtors", ".init", ".fini", ".init_array", ".fini_array"].into_iter().any(named)
}

fn is_for_unwinding(kind: elf::SectionType, name: &str) -> bool {
    kind == elf::SHT_X86_64_UNWIND
        || kind == elf::SHT_GNU_SFRAME
        || name == ".eh_frame"
        || name.starts_with(".gcc_except_table")
}

fn kind_name(kind: elf::SectionType) -> String {
    kind.name().map_or_else(|| format!("{kind:#x}"), String::from)
}

fn section<'d>(file: &File<'d>, header: &SectionHeader, name: &'d str) -> Result<Section<'d>, Error> {
    let align = header.sh_addralign.get(LE).max(1);
    if !align.is_power_of_two() || align > PAGE {
        return Err(Error::Alignment { section: shown(name), align });
    }
    let size = header.sh_size.get(LE);
    let zeros = header.sh_type.get(LE) == elf::SHT_NOBITS;
    let bytes = if zeros { &[] } else { file.slice(header.sh_offset.get(LE), size, || shown(name))? };
    Ok(Section { name, part: part(header, name), align, size, bytes, offset: 0 })
}

fn part(header: &SectionHeader, name: &str) -> Part {
    let flags = header.sh_flags.get(LE);
    if flags.contains(elf::SHF_EXECINSTR) {
        Part::Text
    } else if flags.contains(elf::SHF_WRITE) && !name.starts_with(".data.rel.ro") {
        Part::Data
    } else {
        Part::ReadOnly
    }
}

/// Checks that what the file has of each section is in the file, and that no two share bytes of it.
fn check_extents(file: &File<'_>) -> Result<(), Error> {
    let mut extents = with_room(file.sections.len() + 2)?;
    extents.push((file.header, None));
    extents.push((file.table, None));
    for (index, header) in file.sections.iter().enumerate() {
        let (kind, offset, size) = (header.sh_type.get(LE), header.sh_offset.get(LE), header.sh_size.get(LE));
        if kind == elf::SHT_NULL || kind == elf::SHT_NOBITS || size == 0 {
            continue;
        }
        file.slice(offset, size, || section_shown(file, index))?;
        extents.push(((offset, offset + size), Some(index)));
    }
    extents.sort_unstable();
    let overlap = extents.windows(2).find(|pair| pair[0].0.1 > pair[1].0.0);
    let Some([first, second]) = overlap else { return Ok(()) };
    let owner = |&((start, _), index): &((u64, u64), Option<usize>)| match index {
        Some(index) => section_shown(file, index),
        None if start == 0 => "the file's header".into(),
        None => "the table of sections".into(),
    };
    Err(Error::Overlap { first: owner(first), second: owner(second) })
}

/// A section's name, or its number if that is no name.
pub(crate) fn section_shown(file: &File<'_>, index: usize) -> String {
    let name = file.sections.get(index).and_then(|h| file.names.get(h.sh_name.get(LE), "section", index).ok());
    format!("section {}", name.map_or_else(|| format!("{index}"), shown))
}
