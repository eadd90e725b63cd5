//! Guarded accesses to memory: a bad address is an answer, not a panic.
//!
//! The instruction that may fault has an entry in the section `__ex_table` (Linux: `arch/x86/mm/extable.c`) with the
//! address where to go on. Usable anywhere, trap context included: no lock, no allocation, and no demand-zero memory
//! behind it (memory that was never touched reads as a fault). All faults count: a non-canonical address raises
//! `#GP`, not `#PF`.

use core::arch::asm;

use super::trap::Frame;

/// One instruction that may fault, and where to go on then.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    instruction: u64,
    go_on: u64,
}

unsafe extern "C" {
    static __ex_table_start: [Entry; 0];
    static __ex_table_end: [Entry; 0];
}

/// Copies from `address`; false when any of it cannot be read (`out` may be filled in part then).
#[unsafe(link_section = ".kprobes.text")]
#[inline(never)]
pub(crate) fn read(address: u64, out: &mut [u8]) -> bool {
    let left: usize;
    // SAFETY: writes `out` and nothing else. Reading may fault, which the table turns into a jump to `3:`, with what
    // remained in rcx; the direction flag is clear as everywhere in Rust.
    unsafe {
        asm!(
            "2: rep movsb",
            "3:",
            ".pushsection __ex_table, \"a\"",
            ".balign 8",
            ".quad 2b, 3b",
            ".popsection",
            inout("rcx") out.len() => left,
            inout("rsi") address => _,
            inout("rdi") out.as_mut_ptr() => _,
            options(nostack, preserves_flags)
        );
    }
    left == 0
}

/// Reads eight bytes, which need not be aligned.
#[unsafe(link_section = ".kprobes.text")]
#[inline(never)]
pub(crate) fn read_u64(address: u64) -> Option<u64> {
    let value: u64;
    let failed: u64;
    // SAFETY: reads only; a fault goes on at `3:`, with `failed` still 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: mov {value}, [{address}]",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection __ex_table, \"a\"",
            ".balign 8",
            ".quad 2b, 3b",
            ".popsection",
            address = in(reg) address,
            value = out(reg) value,
            failed = out(reg) failed,
            options(nostack, readonly)
        );
    }
    (failed == 0).then_some(value)
}

/// Writes eight bytes, which need not be aligned; false when they cannot be written.
///
/// # Safety
/// If memory is there, it is the caller's to change: a return address on an interrupted stack, for example.
#[unsafe(link_section = ".kprobes.text")]
#[inline(never)]
pub(crate) unsafe fn write_u64(address: u64, value: u64) -> bool {
    let failed: u64;
    // SAFETY: the caller may change what lies there; a fault goes on at `3:`, with `failed` still 1.
    unsafe {
        asm!(
            "mov {failed:e}, 1",
            "2: mov [{address}], {value}",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection __ex_table, \"a\"",
            ".balign 8",
            ".quad 2b, 3b",
            ".popsection",
            address = in(reg) address,
            value = in(reg) value,
            failed = out(reg) failed,
            options(nostack)
        );
    }
    failed == 0
}

/// Whether the faulting instruction is in the table; if so, the frame goes on behind it.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn fix_up(frame: &mut Frame) -> bool {
    let mut entry = (&raw const __ex_table_start).cast::<Entry>();
    let end = (&raw const __ex_table_end).cast::<Entry>();
    while entry < end {
        // SAFETY: the linker script places whole entries between the two symbols.
        let this = unsafe { *entry };
        if this.instruction == frame.regs.rip {
            frame.regs.rip = this.go_on;
            return true;
        }
        entry = entry.wrapping_add(1);
    }
    false
}
