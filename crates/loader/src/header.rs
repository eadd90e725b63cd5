//! The file's header and its table of sections.

use crate::names::Names;
use crate::{Error, MAX_SECTIONS};
use alloc::string::{String, ToString as _};
use object::LittleEndian;
use object::elf::{self, FileHeader64, SectionHeader64};
use object::pod;

pub(crate) const LE: LittleEndian = LittleEndian;
pub(crate) type SectionHeader = SectionHeader64<LittleEndian>;
type FileHeader = FileHeader64<LittleEndian>;

const HEADER_SIZE: u64 = size_of::<FileHeader>() as u64;
const SECTION_SIZE: u64 = size_of::<SectionHeader>() as u64;

/// A file whose header is a relocatable file's.
#[derive(Debug)]
pub(crate) struct File<'d> {
    pub(crate) bytes: &'d [u8],
    pub(crate) sections: &'d [SectionHeader],
    /// The names of sections.
    pub(crate) names: Names<'d>,
    /// The bytes that the header and the table of sections take.
    pub(crate) header: (u64, u64),
    pub(crate) table: (u64, u64),
}

impl<'d> File<'d> {
    /// Checks the header and finds the sections.
    pub(crate) fn read(bytes: &'d [u8]) -> Result<Self, Error> {
        let header = header(bytes)?;
        let table = (header.e_shoff.get(LE), u64::from(header.e_shnum.get(LE)));
        let mut file = Self { bytes, sections: &[], names: Names(&[]), header: (0, HEADER_SIZE), table: (0, 0) };
        file.sections = file.section_table(header, table)?;
        file.table = (table.0, table.0.saturating_add(table.1 * SECTION_SIZE));
        file.names = file.section_names(header)?;
        Ok(file)
    }

    /// The bytes from `offset` on, `size` of them; `what` names them if the file is too short.
    pub(crate) fn slice(&self, offset: u64, size: u64, what: impl FnOnce() -> String) -> Result<&'d [u8], Error> {
        let range = || {
            let start = usize::try_from(offset).ok()?;
            self.bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        };
        range().ok_or_else(|| Error::Truncated {
            what: what(),
            end: offset.saturating_add(size),
            len: self.bytes.len() as u64,
        })
    }

    fn section_table(&self, header: &FileHeader, (offset, count): (u64, u64)) -> Result<&'d [SectionHeader], Error> {
        // A count of zero with a table means that the count is elsewhere since it needs more than 16 bits.
        if count > MAX_SECTIONS || (count == 0 && offset != 0) {
            let count = if count == 0 { elf::SHN_LORESERVE.into() } else { count };
            return Err(Error::TooMany { what: "sections", count, limit: MAX_SECTIONS });
        }
        if count == 0 {
            return Err(Error::NoSections);
        }
        let size = u64::from(header.e_shentsize.get(LE));
        if size != SECTION_SIZE {
            return Err(Error::EntrySize { table: "the table of sections".into(), size, expected: SECTION_SIZE });
        }
        let table = self.slice(offset, count * SECTION_SIZE, || "the table of sections".into())?;
        Ok(whole_entries(table))
    }

    fn section_names(&self, header: &FileHeader) -> Result<Names<'d>, Error> {
        let index = header.e_shstrndx.get(LE).0;
        let section = self.sections.get(usize::from(index)).filter(|section| is_strings(section));
        let section = section.ok_or_else(|| Error::BadLink {
            section: "the file's header".into(),
            index: index.into(),
            what: "table of section names",
        })?;
        let (offset, size) = (section.sh_offset.get(LE), section.sh_size.get(LE));
        Ok(Names(self.slice(offset, size, || "the table of section names".into())?))
    }
}

/// Whether a section is a table of strings.
pub(crate) fn is_strings(section: &SectionHeader) -> bool {
    section.sh_type.get(LE) == elf::SHT_STRTAB
}

/// Bytes as a table; those after the last whole entry are left out.
pub(crate) fn whole_entries<T: pod::Pod>(bytes: &[u8]) -> &[T] {
    // It cannot fail: there are as many, and entries are read at any alignment.
    pod::slice_from_bytes(bytes, bytes.len() / size_of::<T>()).map_or(&[], |(entries, _)| entries)
}

fn header(bytes: &[u8]) -> Result<&FileHeader, Error> {
    if bytes.get(..4) != Some(elf::ELFMAG.as_slice()) {
        return Err(Error::NotElf);
    }
    let Ok((header, _)) = pod::from_bytes::<FileHeader>(bytes) else {
        let what = "the ELF header".into();
        return Err(Error::Truncated { what, end: HEADER_SIZE, len: bytes.len() as u64 });
    };
    check_identity(header)?;
    match header.e_type.get(LE) {
        elf::ET_REL => Ok(header),
        elf::ET_EXEC => Err(Error::NotRelocatable { what: "an executable, already linked" }),
        elf::ET_DYN => Err(Error::NotRelocatable { what: "a shared object or an executable, already linked" }),
        elf::ET_CORE => Err(Error::NotRelocatable { what: "a core dump" }),
        _ => Err(Error::NotRelocatable { what: "an ELF file of unknown type" }),
    }
}

fn check_identity(header: &FileHeader) -> Result<(), Error> {
    let ident = &header.e_ident;
    if ident.class != elf::ELFCLASS64 {
        return Err(Error::Not64Bit);
    }
    if ident.data != elf::ELFDATA2LSB {
        return Err(Error::BigEndian);
    }
    let machine = header.e_machine.get(LE);
    if machine != elf::EM_X86_64 {
        let machine = machine.name().map_or_else(|| machine.to_string(), String::from);
        return Err(Error::OtherMachine { machine });
    }
    let version = header.e_version.get(LE);
    if ident.version != elf::EV_CURRENT || version != u32::from(elf::EV_CURRENT.0) {
        let version = if version == 1 { ident.version.0.into() } else { version };
        return Err(Error::OtherVersion { version });
    }
    Ok(())
}
