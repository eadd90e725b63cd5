//! The interrupt descriptor table: one for all processors, all gates with interrupts off.

use core::sync::atomic::{AtomicBool, Ordering};

use super::vector;
use crate::lock::IrqLock;

/// A 64-bit gate (SDM volume 3, 7.14.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

#[repr(C, align(16))]
struct Table([Gate; 256]);

static TABLE: IrqLock<Table> = IrqLock::new(Table([Gate { low: 0, high: 0 }; 256]));
static FILLED: AtomicBool = AtomicBool::new(false);

/// As `stubs.s` lays them out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stub {
    vector: u64,
    address: u64,
}

unsafe extern "C" {
    static trap_stubs: [Stub; 0];
    static trap_stubs_end: [Stub; 0];
}

/// The kernel's code segment, at boot as later.
const CODE_SELECTOR: u64 = 8;
/// Present, 64-bit interrupt gate.
const INTERRUPT_GATE: u64 = 0x8e00;

fn gate(address: u64, stack: u64) -> Gate {
    let low =
        (address & 0xffff) | CODE_SELECTOR << 16 | stack << 32 | INTERRUPT_GATE << 32 | (address >> 16 & 0xffff) << 48;
    Gate { low, high: address >> 32 }
}

/// Which stack of `cpu::load_tables` a vector uses; 0 is the current one.
fn stack(vector: u64) -> u64 {
    match vector {
        2 => 1,
        vector::DOUBLE_FAULT => 2,
        vector::MACHINE_CHECK => 3,
        _ => 0,
    }
}

fn fill(table: &mut Table) {
    // SAFETY: `stubs.s` places an array of `Stub` between the two symbols.
    let stubs = unsafe {
        let first = (&raw const trap_stubs).cast::<Stub>();
        let end = (&raw const trap_stubs_end).cast::<Stub>();
        core::slice::from_raw_parts(first, end.offset_from(first) as usize)
    };
    for stub in stubs {
        table.0[stub.vector as usize] = gate(stub.address, stack(stub.vector));
    }
}

/// Loads the table on this processor; the first one fills it.
pub(crate) fn load() {
    let mut table = TABLE.lock();
    if !FILLED.swap(true, Ordering::Relaxed) {
        fill(&mut table);
    }
    let pointer = x86_64::structures::DescriptorTablePointer {
        limit: (size_of::<Table>() - 1) as u16,
        base: x86_64::VirtAddr::from_ptr(&raw const *table),
    };
    // SAFETY: the table is static and not written after it was filled; its gates lead to stubs.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}
