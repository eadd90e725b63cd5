//! What the live page tables say: a walk over all mappings, and the proof of W^X.

use alloc::vec::Vec;

use super::PAGE;
use super::paging::{self, ADDRESS, LARGE, NO_EXECUTE, PRESENT, WRITABLE};

/// The result of an [`audit`], in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Mapped.
    pub(crate) pages: u64,
    /// Executable.
    pub(crate) executable: u64,
    /// Writable and executable at the same address. Must be 0.
    pub(crate) writable_and_executable: u64,
    /// Executable here, and the same frame writable at another address. Must be 0.
    pub(crate) writable_aliases_of_executable: u64,
}

/// Visits a table: `permissions` are what the levels above allow.
fn visit(table: u64, base: u64, level: u32, permissions: u64, f: &mut dyn FnMut(u64, u64, u64, bool, bool)) {
    for index in 0..512 {
        let address = base + (index << paging::shift(level));
        let entry = paging::entry(table, address, level);
        if entry & PRESENT == 0 {
            continue;
        }
        // A page is writable if all levels say so, and not executable if one says so.
        let both = (permissions & entry & WRITABLE) | ((permissions | entry) & NO_EXECUTE);
        if level == 1 || entry & LARGE != 0 {
            let size = 1 << paging::shift(level);
            f(address, entry & ADDRESS & !(size - 1), size, both & WRITABLE != 0, both & NO_EXECUTE == 0);
        } else {
            visit(entry & ADDRESS, address, level - 1, both, f);
        }
    }
}

/// Calls `f(virtual, physical, size, writable, executable)` for every page that is mapped.
pub(crate) fn walk(mut f: impl FnMut(u64, u64, u64, bool, bool)) {
    let root = paging::root();
    for index in 0..512_u64 {
        let base = index << paging::shift(4);
        // Addresses continue bit 47 upwards.
        let base = if index >= 256 { base | 0xffff << 48 } else { base };
        let entry = paging::entry(root, base, 4);
        if entry & PRESENT != 0 {
            visit(entry & ADDRESS, base, 3, entry & (WRITABLE | NO_EXECUTE), &mut f);
        }
    }
}

/// Walks the live page tables and counts what must not be. They stand still meanwhile: both walks see the same.
pub(crate) fn audit() -> Audit {
    let _tables = paging::hold();
    let mut found = Audit::default();
    // Executable frames, as ranges that grow while neighbours follow.
    let mut frames: Vec<(u64, u64)> = Vec::new();
    walk(|_, physical, size, writable, executable| {
        found.pages += size / PAGE;
        if executable {
            found.executable += size / PAGE;
            found.writable_and_executable += if writable { size / PAGE } else { 0 };
            match frames.last_mut() {
                Some((_, end)) if *end == physical => *end += size,
                _ => frames.push((physical, physical + size)),
            }
        }
    });
    walk(|_, physical, size, writable, executable| {
        if writable && !executable {
            let overlap = |&(start, end): &(u64, u64)| end.min(physical + size).saturating_sub(start.max(physical));
            found.writable_aliases_of_executable += frames.iter().map(overlap).sum::<u64>() / PAGE;
        }
    });
    found
}
