//! A process's memory seen from outside: mappings, symbols, and whether text still equals its file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One line of `/proc/PID/maps`.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) permissions: String,
    pub(crate) offset: u64,
    pub(crate) path: String,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.to_owned();
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let path = fields.nth(2).unwrap_or_default().to_owned();
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { start: number(start)?, end: number(end)?, permissions, offset, path })
    }

    /// True for memory that can be written and executed.
    pub(crate) fn is_writable_and_executable(&self) -> bool {
        self.permissions.contains('w') && self.permissions.contains('x')
    }
}

/// The mappings of a process; none once it is gone.
pub(crate) fn mappings(pid: u32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines().filter_map(Mapping::parse).collect()
}

/// Reads memory of a process.
fn read(pid: u32, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

/// The value of a symbol in an ELF file.
///
/// # Panics
///
/// If the file has no such symbol.
pub(crate) fn symbol(file: &Path, name: &str) -> u64 {
    let output = Command::new("nm").arg(file).output().expect("binutils are installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let value = text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let value = fields.next()?;
        (fields.nth(1)? == name).then(|| u64::from_str_radix(value, 16).ok())?
    });
    value.unwrap_or_else(|| panic!("{} has no symbol {name}", file.display()))
}

/// Where a symbol of its program lies in a process.
fn address(pid: u32, program: &Path, name: &str) -> Option<u64> {
    let position_independent = std::fs::read(program).ok()?.get(16) == Some(&3);
    let real = program.canonicalize().ok()?;
    let base = mappings(pid).into_iter().find(|mapping| Path::new(&mapping.path) == real)?.start;
    Some(symbol(program, name) + if position_independent { base } else { 0 })
}

/// The start of a function in a process, with the byte that its file has there.
#[derive(Debug)]
pub(crate) struct Site {
    pid: u32,
    address: u64,
    original: u8,
}

impl Site {
    /// Finds a function of a process's program.
    ///
    /// # Panics
    ///
    /// If it has none of that name.
    pub(crate) fn of(pid: u32, program: &Path, name: &str) -> Self {
        let address = address(pid, program, name).expect("the program is mapped");
        let at = usize::try_from(file_offset(program, symbol(program, name))).expect("a 64-bit machine");
        let original = std::fs::read(program).expect("the program can be read")[at];
        Self { pid, address, original }
    }

    /// True if the process has another byte there than its file.
    pub(crate) fn is_patched(&self) -> bool {
        read(self.pid, self.address, 1).is_some_and(|bytes| bytes[0] != self.original)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

/// The addresses, up to sixteen a mapping, where executable memory differs from the file it was mapped from.
pub(crate) fn changed_text(pid: u32) -> Vec<(PathBuf, u64)> {
    let mut changed = Vec::new();
    for mapping in mappings(pid).into_iter().filter(|m| m.permissions.contains('x') && m.path.starts_with('/')) {
        let Ok(file) = std::fs::read(&mapping.path) else { continue };
        let length = usize::try_from(mapping.end - mapping.start).expect("a 64-bit machine");
        let Some(memory) = read(pid, mapping.start, length) else { continue };
        let original = file.get(usize::try_from(mapping.offset).expect("a 64-bit machine")..).unwrap_or_default();
        let differing = memory.iter().zip(original).zip(mapping.start..).filter(|((now, then), _)| now != then);
        changed.extend(differing.take(16).map(|(_, at)| (PathBuf::from(&mapping.path), at)));
    }
    changed
}

/// The file offset of an address, by the program headers.
///
/// # Panics
///
/// If no segment holds the address.
pub(crate) fn file_offset(path: &Path, address: u64) -> u64 {
    let output = Command::new("readelf").args(["-W", "-l"]).arg(path).output().expect("binutils are installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let found = text.lines().find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let ["LOAD", offset, start, _, size, ..] = fields[..] else { return None };
        let (offset, start, size) = (number(offset)?, number(start)?, number(size)?);
        (start..start + size).contains(&address).then(|| address - start + offset)
    });
    found.expect("the address is in a segment")
}
