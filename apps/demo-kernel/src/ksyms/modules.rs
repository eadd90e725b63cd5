//! Symbols of modules, which come and go.
//!
//! They are found in trap context too, so the list is a [`Snapshot`]: replaced as a whole, and when [`remove`] returns
//! nobody looks at what was removed. A [`Symbol`] that somebody has found before outlives it, though: its name is kept
//! for ever, each name once, so a module that is inserted again costs nothing. There is room for [`NAME_BYTES`].

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::Symbol;
use crate::lock::IrqLock;
use crate::snapshot::Snapshot;

/// What all names of modules' symbols together may take.
const NAME_BYTES: usize = 1 << 20;

/// By address.
static MODULES: Snapshot<Vec<Arc<Module>>> = Snapshot::new(Vec::new());
static NAMES: IrqLock<Names> = IrqLock::new(Names { known: BTreeSet::new(), bytes: 0 });

/// What a module's symbols are, before they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct New<'a> {
    /// Where it begins.
    pub(crate) address: u64,
    /// How long it is.
    pub(crate) size: u64,
    /// As `nm` has it.
    pub(crate) kind: char,
    /// Demangled.
    pub(crate) name: &'a str,
}

/// Why symbols are not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddError {
    /// There is a module of that name, or at those addresses.
    Twice,
    /// The names are too long, all together, or too many.
    NoRoom,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice => write!(f, "its symbols are known already"),
            Self::NoRoom => write!(f, "there is no room for the names of its symbols"),
        }
    }
}

#[derive(Debug)]
struct Module {
    name: String,
    range: Range<u64>,
    /// By address.
    symbols: Vec<Symbol>,
}

/// Names that live for ever.
struct Names {
    known: BTreeSet<&'static str>,
    bytes: usize,
}

impl Names {
    fn keep(&mut self, name: &str) -> Option<&'static str> {
        if let Some(known) = self.known.get(name) {
            return Some(known);
        }
        if name.len() > NAME_BYTES - self.bytes {
            return None;
        }
        self.bytes += name.len();
        let kept: &'static str = Box::leak(name.into());
        self.known.insert(kept);
        Some(kept)
    }
}

/// Adds the symbols of a module, which is all that lies in `range`.
///
/// # Errors
///
/// When its name or its addresses are there already, or there is no room; nothing is added then.
pub(crate) fn add(name: &str, range: Range<u64>, symbols: &[New<'_>]) -> Result<(), AddError> {
    let mut kept = Vec::with_capacity(symbols.len());
    for &New { address, size, kind, name } in symbols {
        let name = NAMES.lock().keep(name).ok_or(AddError::NoRoom)?;
        kept.push(Symbol { address, size, kind, name });
    }
    kept.sort_by_key(|symbol| symbol.address);
    let module = Arc::new(Module { name: name.to_string(), range, symbols: kept });
    MODULES.replace(|modules| {
        let same =
            |m: &Module| m.name == name || (m.range.start < module.range.end && module.range.start < m.range.end);
        if modules.iter().any(|m| same(m)) {
            return Err(AddError::Twice);
        }
        let mut more = modules.clone();
        let at = more.partition_point(|m| m.range.start < module.range.start);
        more.insert(at, module);
        Ok(more)
    })
}

/// Removes a module's symbols: when this returns, nobody finds them and nobody is just looking. False when there is no
/// such module.
pub(crate) fn remove(name: &str) -> bool {
    let others = |modules: &Vec<Arc<Module>>| {
        let others: Vec<_> = modules.iter().filter(|m| m.name != name).cloned().collect();
        if others.len() < modules.len() { Ok(others) } else { Err(()) }
    };
    MODULES.replace(others).is_ok()
}

/// What lies at an address. Trap context may ask.
pub(super) fn at(address: u64) -> Option<(Symbol, u64)> {
    MODULES.read(|modules| {
        let behind = modules.partition_point(|module| module.range.start <= address);
        let module = modules[..behind].last().filter(|module| module.range.contains(&address))?;
        super::find(&module.symbols, address)
    })
}

/// The symbols of a name, as the modules have them: of all modules, or of the one that is named before a colon.
pub(super) fn named(name: &str) -> Vec<Symbol> {
    let same = |module: &str, symbol: &Symbol| match name.strip_prefix(module).and_then(|rest| rest.strip_prefix(':')) {
        Some(rest) if !rest.starts_with(':') => super::is_named(symbol, rest),
        _ => super::is_named(symbol, name),
    };
    MODULES.read(|modules| {
        let of = |module: &Arc<Module>| {
            module.symbols.iter().copied().filter(|symbol| same(&module.name, symbol)).collect::<Vec<_>>()
        };
        modules.iter().flat_map(of).collect()
    })
}

/// The names of all symbols, each as `module:name`.
pub(super) fn names() -> Vec<String> {
    let of = |module: &Arc<Module>| {
        module.symbols.iter().map(|symbol| alloc::format!("{}:{}", module.name, symbol.name)).collect::<Vec<_>>()
    };
    MODULES.read(|modules| modules.iter().flat_map(of).collect())
}

/// The module that an address belongs to.
pub(crate) fn module_of(address: u64) -> Option<String> {
    MODULES.read(|modules| modules.iter().find(|m| m.range.contains(&address)).map(|m| m.name.clone()))
}

/// How many names are kept, and their bytes.
pub(crate) fn kept() -> (usize, usize) {
    let names = NAMES.lock();
    (names.known.len(), names.bytes)
}
