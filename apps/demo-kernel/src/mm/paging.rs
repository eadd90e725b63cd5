//! The page tables: four levels, read and written through the direct map, one lock for all changes.
//!
//! All processors share one set. Upper levels are writable and executable; the last level decides. Nothing that is
//! mapped is moved, so other processors' translation buffers have to be flushed only where something is taken away, or
//! a protection changes ([`super::modules`]); the alias and the mappings of the boot are used by one processor alone, and
//! need not even that.

pub(super) mod direct_map;

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::registers::control::Cr3;

use super::{PAGE, direct, frames};
use crate::arch::ipi;
use crate::boot;
use crate::lock::{IrqGuard, IrqLock};

/// `entry.s` maps so much of physical memory.
pub(super) const MAPPED_AT_BOOT: u64 = 4 << 30;

/// An entry refers to something.
pub(super) const PRESENT: u64 = 1;
/// Writable.
pub(super) const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
/// In an upper level: maps memory itself.
pub(super) const LARGE: u64 = 1 << 7;
/// Not executable.
pub(super) const NO_EXECUTE: u64 = 1 << 63;
/// The physical address in an entry.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Data: rw-.
pub(super) const DATA: u64 = PRESENT | WRITABLE | NO_EXECUTE;
/// What is only read: r--.
pub(super) const READ_ONLY: u64 = PRESENT | NO_EXECUTE;
/// Code: r-x.
pub(super) const CODE: u64 = PRESENT;
/// Device registers: rw-, uncached.
pub(super) const DEVICE: u64 = DATA | UNCACHED | WRITE_THROUGH;

const LARGE_PAGE: u64 = 2 << 20;

/// Held while a table changes.
static TABLES: IrqLock<()> = IrqLock::new(());

/// Tables that were made, and stay.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Frames that are tables for good: their number only grows.
pub(crate) fn tables() -> u64 {
    MADE.load(Ordering::Relaxed)
}

/// Physical address of the highest table.
pub(super) fn root() -> u64 {
    Cr3::read_raw().0.start_address().as_u64()
}

/// Bits of an address that one entry of a table covers, by the table's level (1 is the lowest).
pub(super) const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

fn slot(table: u64, address: u64, level: u32) -> *mut u64 {
    (direct(table) + (address >> shift(level) & 511) * 8) as *mut u64
}

/// An entry of a table.
pub(super) fn entry(table: u64, address: u64, level: u32) -> u64 {
    // SAFETY: `table` comes from the root or from an entry that refers to a table; all are in the direct map.
    unsafe { slot(table, address, level).read_volatile() }
}

fn set(table: u64, address: u64, level: u32, value: u64) {
    // SAFETY: as in `entry`; the callers below say why the new value is right.
    unsafe { slot(table, address, level).write_volatile(value) }
}

/// What translates an address: the entry, and the level at which it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    /// The last entry.
    pub(super) entry: u64,
    /// 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub(super) level: u32,
    address: u64,
}

impl Translation {
    /// The physical address.
    pub(crate) fn physical(&self) -> u64 {
        let mask = (1 << shift(self.level)) - 1;
        (self.entry & ADDRESS & !mask) | (self.address & mask)
    }

    /// Whether the page may be written.
    pub(crate) fn writable(&self) -> bool {
        self.entry & WRITABLE != 0
    }

    /// Whether the page may be executed.
    pub(crate) fn executable(&self) -> bool {
        self.entry & NO_EXECUTE == 0
    }
}

/// What is mapped at an address.
pub(crate) fn translate(address: u64) -> Option<Translation> {
    let mut table = root();
    for level in (1..=4).rev() {
        let entry = entry(table, address, level);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 1 || entry & LARGE != 0 {
            return Some(Translation { entry, level, address });
        }
        table = entry & ADDRESS;
    }
    None
}

/// The lowest table for an address, made if it does not exist.
fn lowest_table(address: u64) -> Option<u64> {
    let mut table = root();
    for level in (2..=4).rev() {
        let mut entry = entry(table, address, level);
        if entry & PRESENT == 0 {
            entry = frames::take_zeroed()? | PRESENT | WRITABLE;
            MADE.fetch_add(1, Ordering::Relaxed);
            set(table, address, level, entry);
        }
        assert!(entry & LARGE == 0, "{address:#x} lies in a large page");
        table = entry & ADDRESS;
    }
    Some(table)
}

/// Maps a page.
///
/// # Panics
/// Without memory for tables, or when something is mapped there.
pub(super) fn map(address: u64, physical: u64, flags: u64) {
    let _tables = TABLES.lock();
    let table = lowest_table(address).expect("no memory for page tables");
    assert!(entry(table, address, 1) & PRESENT == 0, "{address:#x} is mapped already");
    set(table, address, 1, physical | flags);
}

/// Maps a frame of zeros, rw-, unless something is mapped there already. False without memory.
pub(super) fn map_zeroed(address: u64) -> bool {
    let _tables = TABLES.lock();
    let Some(table) = lowest_table(address) else { return false };
    if entry(table, address, 1) & PRESENT == 0 {
        let Some(frame) = frames::take_zeroed() else { return false };
        set(table, address, 1, frame | DATA);
    }
    true
}

/// Takes what is mapped at small pages away, and gives the frames back when no processor can reach them any more.
///
/// # Safety
/// The frames came from [`map_zeroed`], and nobody uses the addresses.
pub(super) unsafe fn unmap_range(start: u64, end: u64) {
    let mut gone = Vec::new();
    {
        let _tables = TABLES.lock();
        for page in (start..end).step_by(PAGE as usize) {
            if let Some(old) = translate(page).filter(|old| old.level == 1) {
                replace(page, 0);
                gone.push(old.physical());
            }
        }
    }
    flush_everywhere();
    for frame in gone {
        // SAFETY: the caller says where they came from; no mapping and no processor's buffer refers to them now.
        unsafe { frames::give_back(frame) };
    }
}

/// Gives the small pages of a range, all of them mapped, another protection; or takes them away, for 0. Who relies on it
/// flushes.
pub(super) fn change(range: Range<u64>, flags: u64) {
    let _tables = TABLES.lock();
    for page in range.step_by(PAGE as usize) {
        if let Some(old) = translate(page).filter(|old| old.level == 1) {
            replace(page, if flags == 0 { 0 } else { old.physical() | flags });
        }
    }
}

/// No table changes while this is held, but for the alias.
pub(super) fn hold() -> IrqGuard<'static, ()> {
    TABLES.lock()
}

/// Makes the tables for an address, so that [`replace`] finds them.
pub(super) fn prepare(address: u64) {
    let _tables = TABLES.lock();
    lowest_table(address).expect("no memory for page tables");
}

/// Changes what is mapped at a prepared address, 0 for nothing, as this processor sees it: the address is used by one
/// processor at a time.
pub(super) fn replace(address: u64, value: u64) {
    let mut table = root();
    for level in (2..=4).rev() {
        table = entry(table, address, level) & ADDRESS;
    }
    set(table, address, 1, value);
    flush(address);
}

fn flush(address: u64) {
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new_truncate(address));
}

/// Takes from the direct map what is no memory: `entry.s` could not know. ACPI's tables have been read by now.
pub(crate) fn trim_direct_map() {
    let _tables = TABLES.lock();
    for physical in (super::IMAGE_LIMIT..MAPPED_AT_BOOT).step_by(LARGE_PAGE as usize) {
        let is_memory = boot::ram().any(|range| range.start < physical + LARGE_PAGE && range.end > physical);
        if !is_memory && let Some(table) = directory(direct(physical)) {
            set(table, direct(physical), 2, 0);
        }
    }
}

/// The table of level 2 for an address.
fn directory(address: u64) -> Option<u64> {
    let mut table = root();
    for level in (3..=4).rev() {
        let entry = entry(table, address, level);
        if entry & PRESENT == 0 {
            return None;
        }
        table = entry & ADDRESS;
    }
    Some(table)
}

/// Makes a low page executable at its physical address, and read-only in the direct map.
pub(crate) fn expose_identity(physical: u64) {
    replace(direct(physical), physical | PRESENT | NO_EXECUTE);
    replace(physical, physical | CODE);
}

/// Takes [`expose_identity`] back.
pub(crate) fn hide_identity(physical: u64) {
    replace(physical, 0);
    replace(direct(physical), physical | DATA);
}

/// Takes all low mappings away, on all processors, and flushes whatever else has gone.
pub(crate) fn drop_identity() {
    set(root(), 0, 4, 0);
    flush_everywhere();
}

/// All processors forget what they remember of the page tables.
pub(super) fn flush_everywhere() {
    ipi::on_all(x86_64::instructions::tlb::flush_all);
}

/// The first address of the page of `address`.
pub(super) const fn page_of(address: u64) -> u64 {
    address & !(PAGE - 1)
}
