//! A module at its address.

use crate::layout::{Part, Segment};
use crate::symbols::{Place, Symbol};
use crate::{Error, Object, with_room};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// A module as it has to stand in memory, and what is where in it.
///
/// It owns all it knows, so that it can be kept as long as the module is loaded.
///
/// ```standalone_crate
/// # #[path = "../tests/support/mod.rs"]
/// # mod support;
/// use loader::{Object, Part};
///
/// # fn main() -> Result<(), loader::Error> {
/// # let file = support::sample(&[]).bytes;
/// // The file has the function `entry` and, private to its source file, `helper`.
/// let linked = Object::parse(&file)?.link(0x10_0000, &mut |_| None)?;
/// assert_eq!((linked.base(), linked.range()), (0x10_0000, 0x10_0000..0x10_3000));
/// for segment in linked.parts() {
///     assert_eq!(linked.bytes(segment).len() as u64, segment.size);
/// }
/// assert_eq!(linked.read(0x10_1000, 9), Some(b"constants".as_slice()));
/// assert_eq!(linked.read(0x10_2fff, 2), None);
///
/// assert_eq!((linked.symbol("entry"), linked.symbol("helper")), (Some(0x10_0000), None));
/// let functions: Vec<_> = linked.functions().map(|function| function.name).collect();
/// assert_eq!(functions, ["entry", "helper"]);
/// assert_eq!(linked.function_at(0x10_0021).map(|function| function.name), Some("helper"));
///
/// let constants = linked.sections().find(|section| section.name == ".rodata");
/// assert_eq!(constants.map(|section| (section.part, section.address)), Some((Part::ReadOnly, 0x10_1000)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Linked {
    base: u64,
    segments: Vec<Segment>,
    bytes: Vec<u8>,
    /// All names, one after another.
    names: String,
    /// By address.
    functions: Vec<Entry>,
    /// By name: all symbols that others may use.
    symbols: Vec<Entry>,
    sections: Vec<(Entry, Part)>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Range<usize>,
    address: u64,
    size: u64,
}

/// A function of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its symbol.
    pub name: &'a str,
    /// Where it begins.
    pub address: u64,
    /// How long it is; 0 if the file does not tell.
    pub size: u64,
}

/// A section of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedSection<'a> {
    /// Its name. Several may have the same.
    pub name: &'a str,
    /// The part that it belongs to.
    pub part: Part,
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub size: u64,
}

impl Linked {
    /// What is left of an object after linking; `addresses` are its symbols'.
    pub(crate) fn new(object: &Object<'_>, base: u64, addresses: &[u64], bytes: Vec<u8>) -> Result<Self, Error> {
        let mut segments = with_room(object.parts().len())?;
        segments.extend_from_slice(object.parts());
        let empty = (String::new(), Vec::new(), Vec::new(), Vec::new());
        let (names, functions, symbols, sections) = empty;
        let mut linked = Self { base, segments, bytes, names, functions, symbols, sections };
        linked.reserve(object)?;
        for (symbol, &address) in object.symbols.all.iter().zip(addresses) {
            linked.add_symbol(symbol, address);
        }
        for section in &object.sections.loaded {
            let entry = linked.entry(section.name, base + section.offset, section.size);
            linked.sections.push((entry, section.part));
        }
        linked.functions.sort_unstable_by_key(|function| (function.address, function.size));
        let Self { symbols, names, .. } = &mut linked;
        symbols.sort_unstable_by(|a, b| names[a.name.clone()].cmp(&names[b.name.clone()]));
        Ok(linked)
    }

    /// Makes room for everything at once, since a failure afterwards could not be told.
    fn reserve(&mut self, object: &Object<'_>) -> Result<(), Error> {
        let kept = || object.symbols.all.iter().filter(|symbol| is_kept(symbol));
        let sections = &object.sections.loaded;
        let names = kept().map(|symbol| symbol.name.len()).chain(sections.iter().map(|section| section.name.len()));
        self.names.try_reserve_exact(names.sum()).map_err(|_| Error::OutOfMemory)?;
        self.functions = with_room(kept().filter(|symbol| is_function(symbol)).count())?;
        self.symbols = with_room(kept().filter(|symbol| !symbol.is_local).count())?;
        self.sections = with_room(sections.len())?;
        Ok(())
    }

    fn add_symbol(&mut self, symbol: &Symbol<'_>, address: u64) {
        if !is_kept(symbol) {
            return;
        }
        let entry = self.entry(symbol.name, address, symbol.size);
        if is_function(symbol) {
            self.functions.push(entry.clone());
        }
        if !symbol.is_local {
            self.symbols.push(entry);
        }
    }

    fn entry(&mut self, name: &str, address: u64, size: u64) -> Entry {
        let start = self.names.len();
        self.names.push_str(name);
        Entry { name: start..self.names.len(), address, size }
    }

    /// The address that the module has been linked for.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The addresses that it takes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.base..self.base + self.bytes.len() as u64
    }

    /// The segments, as [`Object::parts`] had them.
    #[must_use]
    pub fn parts(&self) -> &[Segment] {
        &self.segments
    }

    /// The bytes of a segment, none if it is not one of [`parts`](Self::parts).
    #[must_use]
    pub fn bytes(&self, segment: &Segment) -> &[u8] {
        if self.segments.contains(segment) { self.at(segment.offset, segment.size).unwrap_or(&[]) } else { &[] }
    }

    /// The bytes that stand at an address, `len` of them, if all are the module's.
    #[must_use]
    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.at(address.checked_sub(self.base)?, len as u64)
    }

    /// The address of a symbol that the module defines, and not for itself alone (in C: not `static`).
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let found = self.symbols.binary_search_by(|entry| self.name(entry).cmp(name));
        found.ok().map(|index| self.symbols[index].address)
    }

    /// All functions by address, those too that are private to a source file.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        self.functions.iter().map(|entry| self.function(entry))
    }

    /// The function that an address is in.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<Function<'_>> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions[..after].last()?;
        (address - function.address < function.size).then(|| self.function(function))
    }

    /// All sections in the file's order; that named `.kprobes.text` must not be probed.
    pub fn sections(&self) -> impl Iterator<Item = LoadedSection<'_>> {
        let section = |(entry, part): &(Entry, Part)| (self.name(entry), *part, entry.address, entry.size);
        self.sections.iter().map(section).map(|(name, part, address, size)| LoadedSection { name, part, address, size })
    }

    fn function(&self, entry: &Entry) -> Function<'_> {
        Function { name: self.name(entry), address: entry.address, size: entry.size }
    }

    fn name(&self, entry: &Entry) -> &str {
        &self.names[entry.name.clone()]
    }

    fn at(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    }
}

/// Whether a symbol is worth keeping: somebody may ask for it by name, or it is a function.
fn is_kept(symbol: &Symbol<'_>) -> bool {
    let is_here = matches!(symbol.place, Place::Loaded(_) | Place::Absolute);
    (is_here && !symbol.is_local) || is_function(symbol)
}

fn is_function(symbol: &Symbol<'_>) -> bool {
    symbol.is_function && matches!(symbol.place, Place::Loaded(_))
}
