//! The ELF file as its headers describe it: segments, sections, the dynamic section.

use crate::ObjectError;
use core::ops::Range;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, ReadRef as _};
use std::sync::Arc;

pub(crate) type Header = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// A part of the file that is mapped into memory (`PT_LOAD`).
///
/// ```
/// use symbols::Object;
///
/// let object = Object::read(&std::env::current_exe()?)?;
/// assert!(object.loads().iter().any(|load| load.is_executable()));
/// // What can be written cannot be executed.
/// assert!(!object.loads().iter().any(|load| load.is_executable() && load.is_writable()));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Where it is mapped, before the load bias.
    pub vaddr: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// How much of it comes from the file.
    pub filesz: u64,
    /// How much memory it takes; the rest is zero.
    pub memsz: u64,
    /// `PF_R` (4), `PF_W` (2), `PF_X` (1).
    pub flags: u32,
}

impl Load {
    /// Whether code in it can run (`PF_X`).
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.flags & elf::PF_X.0 != 0
    }

    /// Whether the program may write to it (`PF_W`).
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags & elf::PF_W.0 != 0
    }
}

/// A section header with its name looked up.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) addr: u64,
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) flags: u64,
    pub(crate) kind: u32,
    pub(crate) link: u32,
}

impl Section {
    pub(crate) fn is_code(&self) -> bool {
        self.flags & elf::SHF_ALLOC.0 != 0 && self.flags & elf::SHF_EXECINSTR.0 != 0 && self.kind == elf::SHT_PROGBITS.0
    }

    /// Procedure linkage tables hold jumps to other objects' functions, none of this object's own.
    pub(crate) fn is_plt(&self) -> bool {
        [".plt", ".plt.got", ".plt.sec", ".iplt", ".plt.bnd"].contains(&self.name.as_str())
    }

    pub(crate) fn contains(&self, vaddr: u64) -> bool {
        vaddr >= self.addr && vaddr - self.addr < self.size
    }
}

/// What the dynamic section says.
#[derive(Debug, Default)]
pub(crate) struct Dynamic {
    pub(crate) soname: Option<String>,
    pub(crate) needed: Vec<String>,
    pub(crate) pie_flag: bool,
    pub(crate) symtab: Option<u64>,
    pub(crate) strtab: Option<u64>,
    pub(crate) strsz: u64,
    pub(crate) gnu_hash: Option<u64>,
    pub(crate) hash: Option<u64>,
    /// Where the value of `DT_DEBUG` stands.
    pub(crate) debug_word: Option<u64>,
}

/// The file's bytes and headers.
///
/// # Invariants
/// Every `Load` and the section header table lie inside `bytes`; sections themselves need not.
pub(crate) struct Image {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) entry: u64,
    pub(crate) is_dyn: bool,
    pub(crate) loads: Vec<Load>,
    pub(crate) sections: Vec<Section>,
    pub(crate) interpreter: Option<String>,
    pub(crate) dynamic: Dynamic,
    pub(crate) build_id: Option<Vec<u8>>,
    pub(crate) eh_frame_hdr: Option<(u64, u64)>,
    /// Where instructions are, by address, and whether they are a linkage table's.
    code: Vec<(Range<u64>, bool)>,
}

impl Image {
    pub(crate) fn parse(bytes: Arc<Vec<u8>>, name: &str) -> Result<Self, ObjectError> {
        let data = bytes.as_slice();
        check_identity(data, name)?;
        let corrupt =
            |error: object::read::Error| ObjectError::Corrupt { name: name.to_owned(), what: error.to_string() };
        let header = Header::parse(data).map_err(corrupt)?;
        check_kind(header, name)?;
        check_tables(header, data, name)?;
        let headers = header.program_headers(LE, data).map_err(corrupt)?;
        let loads = loads(headers, data.len() as u64, name)?;
        let sections = sections(header, data).map_err(corrupt)?;
        let mut image = Self {
            entry: header.e_entry(LE),
            is_dyn: header.e_type(LE) == elf::ET_DYN,
            interpreter: headers.iter().find_map(|h| h.interpreter(LE, data).ok().flatten()).map(text),
            build_id: build_id(headers, data),
            eh_frame_hdr: headers
                .iter()
                .find(|h| h.p_type(LE) == elf::PT_GNU_EH_FRAME)
                .map(|h| (h.p_vaddr(LE), h.p_filesz(LE))),
            dynamic: Dynamic::default(),
            loads,
            sections,
            code: Vec::new(),
            bytes: Arc::clone(&bytes),
        };
        image.code = image.find_code();
        image.dynamic = image.read_dynamic(headers);
        Ok(image)
    }

    /// The bytes of the file that are mapped at `vaddr`, `len` of them, if all come from one
    /// segment of the file.
    pub(crate) fn mapped(&self, vaddr: u64, len: u64) -> Option<&[u8]> {
        let load = self.load_of(vaddr)?;
        let skip = vaddr - load.vaddr;
        (len <= load.filesz - skip).then(|| self.file(load.offset + skip, len))?
    }

    /// All file bytes from `vaddr` to the end of its segment.
    pub(crate) fn mapped_from(&self, vaddr: u64) -> Option<&[u8]> {
        let load = self.load_of(vaddr)?;
        let skip = vaddr - load.vaddr;
        self.file(load.offset + skip, load.filesz - skip)
    }

    /// The segment whose file-backed part holds `vaddr`.
    pub(crate) fn load_of(&self, vaddr: u64) -> Option<&Load> {
        self.loads.iter().find(|l| vaddr >= l.vaddr && vaddr - l.vaddr < l.filesz)
    }

    pub(crate) fn file(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.get(start..end)
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// The bytes of a section, none for one without bytes in the file.
    pub(crate) fn section_bytes(&self, section: &Section) -> Option<&[u8]> {
        if section.kind == elf::SHT_NOBITS.0 {
            return None;
        }
        self.file(section.offset, section.size)
    }

    /// Address ranges that hold instructions: code sections, or whole executable segments when
    /// there are no sections.
    pub(crate) fn code_ranges(&self, with_plt: bool) -> impl Iterator<Item = &Range<u64>> {
        self.code.iter().filter(move |(_, plt)| with_plt || !plt).map(|(range, _)| range)
    }

    /// Whether the byte at `vaddr` is in one of [`code_ranges`](Self::code_ranges).
    pub(crate) fn is_code(&self, vaddr: u64) -> bool {
        self.code_range_at(vaddr).is_some()
    }

    pub(crate) fn code_range_at(&self, vaddr: u64) -> Option<&Range<u64>> {
        let after = self.code.partition_point(|(r, _)| r.start <= vaddr);
        self.code[..after].last().map(|(r, _)| r).filter(|r| vaddr < r.end)
    }

    fn find_code(&self) -> Vec<(Range<u64>, bool)> {
        let mut ranges: Vec<_> = if self.sections.iter().any(Section::is_code) {
            let code = self.sections.iter().filter(|s| s.is_code());
            code.map(|s| (s.addr..s.addr.saturating_add(s.size), s.is_plt())).collect()
        } else {
            let code = self.loads.iter().filter(|l| l.is_executable());
            code.map(|l| (l.vaddr..l.vaddr + l.filesz, false)).collect()
        };
        let mapped =
            |r: &Range<u64>| self.load_of(r.start).is_some_and(|l| l.is_executable() && r.end - l.vaddr <= l.filesz);
        ranges.retain(|(r, _)| r.start < r.end && mapped(r));
        ranges.sort_by_key(|(r, _)| (r.start, r.end));
        // Sections do not overlap; in a file where they do, no byte is looked at twice.
        let mut end = 0;
        ranges.retain(|(r, _)| {
            let apart = r.start >= end;
            end = r.end.max(end);
            apart
        });
        ranges
    }

    fn read_dynamic(&self, headers: &[ProgramHeader64<LittleEndian>]) -> Dynamic {
        let mut dynamic = Dynamic::default();
        let found = headers.iter().find_map(|h| Some((h.p_vaddr(LE), h.dynamic(LE, self.bytes.as_slice()).ok()??)));
        let (start, entries) = found.unwrap_or((0, &[]));
        let (mut needed, mut soname) = (Vec::new(), None);
        for (entry, nth) in entries.iter().zip(0u64..) {
            let at = start.wrapping_add(nth * size_of::<elf::Dyn64<LittleEndian>>() as u64);
            let value = entry.d_val(LE);
            match entry.d_tag(LE) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => needed.push(value),
                elf::DT_SONAME => soname = Some(value),
                elf::DT_STRTAB => dynamic.strtab = Some(value),
                elf::DT_STRSZ => dynamic.strsz = value,
                elf::DT_SYMTAB => dynamic.symtab = Some(value),
                elf::DT_GNU_HASH => dynamic.gnu_hash = Some(value),
                elf::DT_HASH => dynamic.hash = Some(value),
                elf::DT_DEBUG => dynamic.debug_word = at.checked_add(8),
                elf::DT_FLAGS_1 => dynamic.pie_flag = value & elf::DF_1_PIE.0 != 0,
                _ => {}
            }
        }
        let string = |offset: u64| self.dynamic_string(dynamic.strtab?, dynamic.strsz, offset);
        let (needed, soname) = (needed.into_iter().filter_map(string).collect(), soname.and_then(string));
        Dynamic { needed, soname, ..dynamic }
    }

    fn dynamic_string(&self, table: u64, size: u64, offset: u64) -> Option<String> {
        let strings = self.mapped(table, size)?;
        let tail = strings.get(usize::try_from(offset).ok()?..)?;
        let end = tail.iter().position(|&b| b == 0)?;
        Some(text(&tail[..end]))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check_identity(data: &[u8], name: &str) -> Result<(), ObjectError> {
    let name = name.to_owned();
    if data.get(..4) != Some(elf::ELFMAG.as_slice()) {
        return Err(ObjectError::NotElf { name });
    }
    let Some(machine) = data.get(18..20).map(|m| u16::from_le_bytes([m[0], m[1]])) else {
        return Err(ObjectError::Truncated { name, what: "the ELF header", end: 64, len: data.len() as u64 });
    };
    // A big-endian file has the machine's bytes the other way round; every number in use fits in
    // one byte.
    let machine = if data[5] == elf::ELFDATA2MSB.0 { machine.swap_bytes() } else { machine };
    if data[4] == elf::ELFCLASS32.0 {
        return Err(ObjectError::Not64Bit { name, machine: machine_name(machine) });
    }
    if machine != elf::EM_X86_64.0 {
        return Err(ObjectError::OtherMachine { name, machine: machine_name(machine) });
    }
    if data[4] != elf::ELFCLASS64.0 || data[5] != elf::ELFDATA2LSB.0 {
        return Err(ObjectError::Corrupt { name, what: "impossible class or byte order".to_owned() });
    }
    if data.len() < 64 {
        return Err(ObjectError::Truncated { name, what: "the ELF header", end: 64, len: data.len() as u64 });
    }
    Ok(())
}

fn machine_name(machine: u16) -> String {
    let known = match elf::Machine(machine) {
        elf::EM_386 => "i386",
        elf::EM_X86_64 => "x86-64",
        elf::EM_ARM => "ARM",
        elf::EM_AARCH64 => "AArch64",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC => "PowerPC",
        elf::EM_PPC64 => "64-bit PowerPC",
        elf::EM_S390 => "S/390",
        elf::EM_SPARC => "SPARC",
        elf::EM_SPARCV9 => "64-bit SPARC",
        elf::EM_IA_64 => "Itanium",
        elf::EM_LOONGARCH => "LoongArch",
        elf::EM_MIPS => "MIPS",
        elf::EM_BPF => "BPF",
        _ => return format!("ELF machine {machine}"),
    };
    known.to_owned()
}

fn check_kind(header: &Header, name: &str) -> Result<(), ObjectError> {
    let what = match header.e_type(LE) {
        elf::ET_EXEC | elf::ET_DYN => return Ok(()),
        elf::ET_REL => "a relocatable object (not linked yet)".to_owned(),
        elf::ET_CORE => "a core dump".to_owned(),
        other => format!("ELF type {}", other.0),
    };
    Err(ObjectError::NotLoadable { name: name.to_owned(), what })
}

/// The two header tables must lie inside the file.
fn check_tables(header: &Header, data: &[u8], name: &str) -> Result<(), ObjectError> {
    let len = data.len() as u64;
    let tables = [
        ("the program headers", header.e_phoff(LE), header.e_phentsize(LE), header.e_phnum(LE)),
        ("the section headers", header.e_shoff(LE), header.e_shentsize(LE), header.e_shnum(LE)),
    ];
    for (what, offset, entry, count) in tables {
        let end = offset.saturating_add(u64::from(entry) * u64::from(count));
        if end > len {
            return Err(ObjectError::Truncated { name: name.to_owned(), what, end, len });
        }
    }
    Ok(())
}

fn loads(headers: &[ProgramHeader64<LittleEndian>], len: u64, name: &str) -> Result<Vec<Load>, ObjectError> {
    let mut loads = Vec::new();
    for header in headers.iter().filter(|h| h.p_type(LE) == elf::PT_LOAD) {
        let load = Load {
            vaddr: header.p_vaddr(LE),
            offset: header.p_offset(LE),
            filesz: header.p_filesz(LE),
            memsz: header.p_memsz(LE),
            flags: header.p_flags(LE).0,
        };
        let end = load.offset.saturating_add(load.filesz);
        if end > len {
            return Err(ObjectError::Truncated { name: name.to_owned(), what: "a segment", end, len });
        }
        if load.vaddr.checked_add(load.memsz.max(load.filesz)).is_none() {
            let what = format!("the segment at {:#x} wraps around the address space", load.vaddr);
            return Err(ObjectError::Corrupt { name: name.to_owned(), what });
        }
        loads.push(load);
    }
    if loads.is_empty() {
        return Err(ObjectError::Corrupt { name: name.to_owned(), what: "no segment to load".to_owned() });
    }
    Ok(loads)
}

/// The sections of a file of which nothing else is checked.
pub(crate) fn sections_of(data: &[u8]) -> Vec<Section> {
    let header = Header::parse(data).ok().filter(|h| h.e_machine(LE) == elf::EM_X86_64);
    header.and_then(|h| sections(h, data).ok()).unwrap_or_default()
}

fn sections(header: &Header, data: &[u8]) -> object::read::Result<Vec<Section>> {
    if header.e_shoff(LE) == 0 {
        return Ok(Vec::new());
    }
    let table = header.sections(LE, data)?;
    let read = |s: &SectionHeader64<LittleEndian>| Section {
        name: table.section_name(LE, s).map(text).unwrap_or_default(),
        addr: s.sh_addr(LE),
        size: s.sh_size(LE),
        offset: s.sh_offset(LE),
        flags: s.sh_flags(LE).0,
        kind: s.sh_type(LE).0,
        link: s.sh_link(LE),
    };
    Ok(table.iter().map(read).collect())
}

fn build_id(headers: &[ProgramHeader64<LittleEndian>], data: &[u8]) -> Option<Vec<u8>> {
    for header in headers {
        let Ok(Some(mut notes)) = header.notes(LE, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}

/// A table of `T` at `offset` in the file, as long as the file allows, at most `count`.
pub(crate) fn table_at<T: object::Pod>(data: &[u8], offset: u64, count: usize) -> &[T] {
    let room = (data.len() as u64).saturating_sub(offset) / size_of::<T>().max(1) as u64;
    let count = count.min(usize::try_from(room).unwrap_or(0));
    data.read_slice_at(offset, count).unwrap_or(&[])
}
