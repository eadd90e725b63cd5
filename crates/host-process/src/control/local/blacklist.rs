//! Functions that forbid probes on themselves.
//!
//! A program puts what must not be probed into the section `.kprobes.text` (Linux: `__kprobes`): what its own handlers
//! call, for instance, if a recursion there shall be refused and not be counted as missed. The linker keeps the section
//! under its name, since no rule of its own knows it.

use super::error::{Error, Result};
use crate::control::objects::{FileId, Mapped, Objects};
use object::{Object, ObjectSection, ReadCache};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

const SECTION: &str = ".kprobes.text";

/// The ranges of files that are not to be probed, by the files' own addresses.
#[derive(Debug, Default)]
pub(crate) struct Blacklist {
    files: HashMap<FileId, Vec<Range<u64>>>,
}

/// What must not be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The function, as `OBJECT:SYMBOL`.
    pub name: String,
    /// Where it is.
    pub range: Range<u64>,
}

impl Blacklist {
    /// Refuses an address that is in it.
    pub(crate) fn check(&mut self, objects: &Objects, address: u64) -> Result<()> {
        let Some(object) = objects.at(address) else { return Ok(()) };
        let vaddr = object.to_file(address);
        if !self.ranges(object).iter().any(|r| r.contains(&vaddr)) {
            return Ok(());
        }
        let name = object.function_at(address).map_or_else(|| object.base_name().to_owned(), |f| f.demangled());
        Err(Error::Forbidden { address, name })
    }

    /// All functions that are in it.
    pub(crate) fn list(&mut self, objects: &Objects) -> Vec<Forbidden> {
        let mut all = Vec::new();
        for object in &objects.all {
            let ranges = self.ranges(object);
            let inside = object.object.functions().iter().filter(|f| ranges.iter().any(|r| r.contains(&f.addr)));
            all.extend(inside.map(|f| Forbidden {
                name: format!("{}:{}", object.base_name(), f.demangled()),
                range: object.to_target(f.addr)..object.to_target(f.addr + f.size),
            }));
        }
        all
    }

    fn ranges(&mut self, object: &Mapped) -> &[Range<u64>] {
        self.files.entry(object.file).or_insert_with(|| read(&object.path).unwrap_or_default())
    }
}

/// The section's range; `None` when the file is not to be had: the vdso, or one that was deleted.
fn read(path: &str) -> Option<Vec<Range<u64>>> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let file = object::File::parse(&cache).ok()?;
    let found = file.sections().filter(|s| s.name() == Ok(SECTION));
    Some(found.map(|s| s.address()..s.address() + s.size()).collect())
}
