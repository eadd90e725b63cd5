//! The kernel's symbol table: names of addresses and addresses of names.
//!
//! A kernel cannot hold its own table in its image without being linked twice. Ours lies on the RAM disk, where the
//! one who has built the kernel puts it (`boot/symbols`): lines of `ADDRESS SIZE KIND NAME`, sorted by address, numbers
//! in hexadecimal, kinds as `nm` has them. The names stay where the loader has put them.
//!
//! The table is set once and never changes, so trap context may read it: no lock, no allocation in [`at`]. Loadable
//! [`modules`] add their own symbols and take them away. A name is looked for in the kernel first, and then in all
//! modules; `module:name` is a module's.

pub(crate) mod modules;
mod name;
mod similar;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

pub(crate) use name::last_segment;
pub(crate) use similar::similar;

use crate::{console, fs};

const FILE: &str = "boot/symbols";
/// How many names a failed search offers.
const OFFERED: usize = 5;

/// Null, or a table that is never freed nor changed.
static TABLE: AtomicPtr<Vec<Symbol>> = AtomicPtr::new(ptr::null_mut());

/// A function or a variable of this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Where it begins.
    pub(crate) address: u64,
    /// How long it is; 0 for a label within a function and for a border of the linker's.
    pub(crate) size: u64,
    /// As `nm` has it.
    pub(crate) kind: char,
    /// Demangled, without hash.
    pub(crate) name: &'static str,
}

impl Symbol {
    /// In an executable section.
    pub(crate) const fn is_text(&self) -> bool {
        matches!(self.kind, 't' | 'T')
    }

    /// A function: executable, and not only a label.
    pub(crate) const fn is_function(&self) -> bool {
        self.is_text() && self.size > 0
    }

    fn parse(line: &'static str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let (address, size) = (number()?, number()?);
        let kind = words.next()?.chars().next()?;
        Some(Self { address, size, kind, name: words.next()? })
    }
}

/// Why a name stands for no symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// None is named so; these are named nearly so.
    NotFound(Vec<String>),
    /// Several at different addresses are; some of them.
    Ambiguous(Vec<Symbol>),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(near) if near.is_empty() => write!(f, "no such symbol"),
            Self::NotFound(near) => write!(f, "no such symbol; did you mean {}?", near.join(", ")),
            Self::Ambiguous(symbols) => {
                write!(f, "several symbols have this name:")?;
                symbols.iter().try_for_each(|symbol| write!(f, " {} at {:#x};", symbol.name, symbol.address))
            }
        }
    }
}

/// Reads the table from the RAM disk, after [`fs::init`]; how many symbols it has. Once, at boot.
pub(crate) fn init() -> usize {
    let text = fs::disk_file(FILE).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default();
    let mut symbols: Vec<_> = text.lines().filter_map(Symbol::parse).collect();
    // It is sorted; but a search in a table that is not would find nonsense. Stable: what comes first stays first.
    symbols.sort_by_key(|symbol| symbol.address);
    let count = symbols.len();
    TABLE.store(Box::into_raw(Box::new(symbols)), Ordering::Release);
    console::set_symbolizer(|address| at(address).map(|(symbol, offset)| (symbol.name, offset)));
    count
}

/// All symbols, by address; none before [`init`]. At one address, functions come before labels.
pub(crate) fn all() -> &'static [Symbol] {
    // SAFETY: null, or from `init`, which leaks the table and publishes it whole.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }.map_or(&[], Vec::as_slice)
}

/// What lies at an address, and how far behind its beginning. Trap context may ask.
pub(crate) fn at(address: u64) -> Option<(Symbol, u64)> {
    find(all(), address).or_else(|| modules::at(address))
}

/// Which of `symbols`, sorted by address, holds an address, and how far behind its beginning.
fn find(symbols: &[Symbol], address: u64) -> Option<(Symbol, u64)> {
    let until = symbols.partition_point(|symbol| symbol.address <= address);
    // Labels within a function lie between; far back there is nothing that reaches here.
    let mut reaching = symbols[..until].iter().rev().take(64).filter(|symbol| address - symbol.address < symbol.size);
    let nearest = reaching.next()?;
    // Of aliases, the first.
    let found = reaching.take_while(|symbol| symbol.address == nearest.address).last().unwrap_or(nearest);
    Some((*found, address - found.address))
}

/// The symbol of a name, given in full (`demo_kernel::fs::tree::Tree::path_lookup`) or as its last part (`path_lookup`);
/// a module's with the module's name and a colon, or without if the kernel has none of that name.
///
/// # Errors
///
/// If there is none, with near names; or several at different addresses.
pub(crate) fn lookup(name: &str) -> Result<Symbol, LookupError> {
    let full = || only(all().iter().filter(|symbol| symbol.name == name).copied());
    let last = || only(all().iter().filter(|symbol| last_segment(symbol.name) == name).copied());
    let found = full().or_else(last).or_else(|| only(modules::named(name).into_iter()));
    found.unwrap_or_else(|| Err(LookupError::NotFound(near(name))))
}

/// Whether a symbol is meant by a name: all of its own or the last part.
fn is_named(symbol: &Symbol, name: &str) -> bool {
    symbol.name == name || last_segment(symbol.name) == name
}

/// Names that are nearly this one.
fn near(name: &str) -> Vec<String> {
    let of_modules = modules::names();
    let all = all().iter().map(|symbol| symbol.name).chain(of_modules.iter().map(String::as_str));
    similar(name, all, OFFERED).into_iter().map(Into::into).collect()
}

/// The only one of its address; none of none.
fn only(found: impl Iterator<Item = Symbol>) -> Option<Result<Symbol, LookupError>> {
    let mut found: Vec<Symbol> = found.collect();
    found.dedup_by_key(|symbol| symbol.address);
    match *found.as_slice() {
        [] => None,
        [symbol] => Some(Ok(symbol)),
        _ => {
            found.truncate(OFFERED);
            Some(Err(LookupError::Ambiguous(found)))
        }
    }
}

/// An address in words: the name of what lies there, and the offset in it.
pub(crate) fn describe(address: u64) -> String {
    match at(address) {
        Some((symbol, 0)) => symbol.name.into(),
        Some((symbol, offset)) => alloc::format!("{}+{offset:#x}", symbol.name),
        None => alloc::format!("{address:#x}"),
    }
}
