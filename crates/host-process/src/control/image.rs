//! The agent's image: an ELF file with relative relocations only, which the tool loads into the target.

use super::{HostError, Result};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, Rela, SectionHeader};
use object::{Endianness, Object, ObjectSymbol, elf};

const PAGE: u64 = 0x1000;

/// A loadable image.
///
/// ```
/// # #[cfg(feature = "local")] {
/// use host_process::control::Image;
///
/// let image = Image::parse(agent_image::IMAGE)?;
/// assert!(0 < image.code_bytes() && image.code_bytes() < image.size());
/// assert!(Image::parse(b"no ELF file").is_err());
/// # }
/// # Ok::<(), host_process::control::HostError>(())
/// ```
#[derive(Debug)]
pub struct Image {
    /// What it would be in memory at address 0.
    memory: Vec<u8>,
    segments: Vec<Segment>,
    relocations: Vec<(u64, u64)>,
    symbols: Vec<(String, u64)>,
}

/// A range of pages and how they are protected (`PROT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) protection: u64,
}

impl Image {
    /// Reads an image, and refuses one that needs anybody else.
    ///
    /// # Errors
    ///
    /// When it is no such ELF file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes)
            .map_err(|e| HostError::Unexpected { pid: 0, what: format!("the agent's image is unusable: {e}") })
    }

    fn read(bytes: &[u8]) -> core::result::Result<Self, String> {
        let text = |e: object::Error| e.to_string();
        let endian = Endianness::Little;
        let file = ElfFile64::<Endianness>::parse(bytes).map_err(text)?;
        let undefined: Vec<_> = file
            .dynamic_symbols()
            .filter(|s| s.is_undefined())
            .filter_map(|s| s.name().ok())
            .filter(|n| !n.is_empty())
            .collect();
        if !undefined.is_empty() {
            return Err(format!("undefined symbols {undefined:?}"));
        }
        let loads = file.elf_program_headers().iter().filter(|p| p.p_type(endian) == elf::PT_LOAD);
        let mut memory = Vec::new();
        let mut segments = Vec::new();
        for load in loads {
            let (at, size) = (load.p_vaddr(endian), load.p_memsz(endian));
            let end = (at + size).next_multiple_of(PAGE);
            memory.resize((end as usize).max(memory.len()), 0);
            let data = load.data(endian, bytes).map_err(|()| "a segment is cut off".to_owned())?;
            let place = memory.get_mut(at as usize..at as usize + data.len()).ok_or("a segment is too large")?;
            place.copy_from_slice(data);
            let start = at & !(PAGE - 1);
            segments.push(Segment { start, size: end - start, protection: protection(load.p_flags(endian)) });
        }
        let symbols = file.dynamic_symbols().filter_map(|s| Some((s.name().ok()?.to_owned(), s.address()))).collect();
        Ok(Self { memory, segments, relocations: relocations(&file, bytes)?, symbols })
    }

    /// Bytes of address space that it takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Bytes of it that are executable, in whole pages.
    #[must_use]
    pub fn code_bytes(&self) -> u64 {
        self.segments.iter().filter(|s| s.protection & libc::PROT_EXEC as u64 != 0).map(|s| s.size).sum()
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// A segment's bytes, relocated for an image at `base`.
    pub(crate) fn bytes(&self, segment: Segment, base: u64) -> Vec<u8> {
        let (start, end) = (segment.start as usize, (segment.start + segment.size) as usize);
        let mut bytes = self.memory.get(start..end).unwrap_or_default().to_vec();
        for &(offset, addend) in &self.relocations {
            let at = (offset as usize).wrapping_sub(start);
            if let Some(word) = bytes.get_mut(at..at.saturating_add(8)) {
                word.copy_from_slice(&base.wrapping_add(addend).to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn symbol(&self, name: &str) -> Result<u64> {
        let found = self.symbols.iter().find(|(n, _)| n == name).map(|&(_, at)| at);
        found.ok_or_else(|| HostError::Unexpected { pid: 0, what: format!("the agent has no `{name}`") })
    }
}

fn protection(flags: elf::ProgramFlags) -> u64 {
    let bit = |flag: elf::ProgramFlags, protection: i32| if flags.contains(flag) { protection as u64 } else { 0 };
    bit(elf::PF_R, libc::PROT_READ) | bit(elf::PF_W, libc::PROT_WRITE) | bit(elf::PF_X, libc::PROT_EXEC)
}

/// (offset, addend) of each relocation; all must be relative.
fn relocations(file: &ElfFile64<'_, Endianness>, bytes: &[u8]) -> core::result::Result<Vec<(u64, u64)>, String> {
    let endian = Endianness::Little;
    let sections = file.elf_header().sections(endian, bytes).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for section in sections.iter() {
        let Some((entries, _)) = section.rela(endian, bytes).map_err(|e| e.to_string())? else { continue };
        for entry in entries {
            if entry.r_type(endian, false) != elf::R_X86_64_RELATIVE {
                return Err(format!("relocation type {}", entry.r_type(endian, false)));
            }
            found.push((entry.r_offset(endian), entry.r_addend(endian).cast_unsigned()));
        }
    }
    Ok(found)
}
