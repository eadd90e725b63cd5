//! Reading no more of a file than is asked for.
//!
//! Most of a program built with debug information is that information, often hundreds of megabytes
//! of which nothing here has use. So a large file is read in parts, into a buffer as long as the
//! file: everything stays at its own offset, and what is not read stays zero and costs no memory.

use crate::image::{Section, sections_of};
use object::LittleEndian;
use object::elf::{FileHeader64, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Files up to this size are read whole: it is not worth the calls.
const SMALL: u64 = 512 << 10;
/// The longest file that is read at all; nobody links longer ones.
const LONGEST: u64 = 16 << 30;

/// What of a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but debug information.
    Object,
    /// The symbol tables and the build id.
    Symbols,
}

/// The file's bytes, with zeros where they are not wanted.
pub(crate) fn read(path: &Path, part: Part) -> Result<Vec<u8>> {
    // Asked before opening: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut file = File::open(path)?;
    let len = metadata.len();
    if len > LONGEST {
        return Err(Error::new(ErrorKind::FileTooLarge, "longer than any program"));
    }
    if len > SMALL
        && let Some(bytes) = read_parts(&file, len, part)
    {
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).map_err(Error::other)?)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// None if the headers are not what they should be: then the whole file is read, and the error is
/// found there.
fn read_parts(file: &File, len: u64, part: Part) -> Option<Vec<u8>> {
    let len = usize::try_from(len).ok()?;
    // Asked first: a zeroed allocation that fails would end the process.
    Vec::<u8>::new().try_reserve_exact(len).ok()?;
    let mut bytes = vec![0; len];
    fill(file, &mut bytes, 0, 64)?;
    let header = *FileHeader64::<LittleEndian>::parse(bytes.as_slice()).ok()?;
    let table = |offset: u64, entry: u16, count: u16| (offset, u64::from(entry) * u64::from(count));
    let le = LittleEndian;
    let programs = table(header.e_phoff(le), header.e_phentsize(le), header.e_phnum(le));
    let sections = table(header.e_shoff(le), header.e_shentsize(le), header.e_shnum(le));
    fill(file, &mut bytes, programs.0, programs.1)?;
    fill(file, &mut bytes, sections.0, sections.1)?;
    // Once without names, to find the names.
    let names = sections_of(&bytes).get(usize::from(header.e_shstrndx(le).0)).map(|s| (s.offset, s.size))?;
    fill(file, &mut bytes, names.0, names.1)?;
    let mut wanted = wanted_sections(&sections_of(&bytes), part);
    if part == Part::Object {
        let headers = header.program_headers(le, bytes.as_slice()).ok()?;
        wanted.extend(headers.iter().map(|h| (h.p_offset(le), h.p_filesz(le))));
    }
    for (offset, size) in merged(wanted) {
        fill(file, &mut bytes, offset, size)?;
    }
    Some(bytes)
}

fn wanted_sections(sections: &[Section], part: Part) -> Vec<(u64, u64)> {
    let is_table = |s: &Section| s.kind == SHT_SYMTAB.0 || s.kind == SHT_DYNSYM.0;
    let strings: Vec<u32> = sections.iter().filter(|s| is_table(s)).map(|s| s.link).collect();
    let debug = |s: &Section| [".debug_", ".zdebug_", ".rela.debug_"].iter().any(|p| s.name.starts_with(p));
    let wanted = |(i, s): &(u32, &Section)| match part {
        Part::Object => !debug(s),
        Part::Symbols => is_table(s) || strings.contains(i) || s.name == ".note.gnu.build-id",
    };
    let stored = (0u32..).zip(sections).filter(|(_, s)| s.kind != SHT_NOBITS.0);
    stored.filter(wanted).map(|(_, s)| (s.offset, s.size)).collect()
}

/// Ranges that overlap, as sections and their segments do, made one.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, size) in ranges {
        match merged.last_mut() {
            Some((s, n)) if start <= s.saturating_add(*n) => *n = (*n).max(start.saturating_add(size) - *s),
            _ => merged.push((start, size)),
        }
    }
    merged
}

/// Reads a range; what of it lies behind the end of the file is left out.
fn fill(file: &File, bytes: &mut [u8], offset: u64, size: u64) -> Option<()> {
    let start = usize::try_from(offset).ok()?.min(bytes.len());
    let end = start.saturating_add(usize::try_from(size).ok()?).min(bytes.len());
    file.read_exact_at(&mut bytes[start..end], offset).ok()
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn overlapping_ranges_are_read_once() {
        assert_eq!(merged(vec![(10, 5), (0, 4), (12, 10), (22, 1), (30, 0)]), [(0, 4), (10, 13), (30, 0)]);
    }
}
