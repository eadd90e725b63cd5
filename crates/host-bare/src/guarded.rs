//! Guarded accesses to memory: a bad address is an answer, not a panic.
//!
//! The instruction that may fault has an entry in the section `__ex_table`, with the address where to go on
//! (Linux: `arch/x86/mm/extable.c`). The kernel's fault handler asks [`fix_up`] before it does anything else. Then
//! these functions can be used anywhere, trap context included: no lock, no allocation, and nothing is mapped for
//! them (memory that was never touched reads as a fault). All faults count: an address that is not canonical raises
//! `#GP`, not `#PF`.
//!
//! The linker script keeps the section, and says where it begins and ends: `__start___ex_table`,
//! `__stop___ex_table`. A kernel that has such accesses of its own need not use these: [`crate::Kernel::read`] and
//! its like are only given by default.

use crate::Regs;
use core::arch::asm;

/// One instruction that may fault, and where to go on then.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    instruction: u64,
    go_on: u64,
}

unsafe extern "C" {
    static __start___ex_table: [Entry; 0];
    static __stop___ex_table: [Entry; 0];
}

/// Copies from `address`; false when any of it cannot be read (`out` may be filled in part then).
///
/// ```
/// # fn example<K: host_bare::Kernel>(address: u64) {
/// // The first bytes of a structure, or what a register took for its address.
/// let mut bytes = [0; 16];
/// if host_bare::guarded::read(address, &mut bytes) {
///     // All sixteen are there.
/// }
/// # }
/// ```
#[inline(never)]
pub fn read(address: u64, out: &mut [u8]) -> bool {
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
///
/// ```
/// # use host_bare::guarded;
/// # fn example<K: host_bare::Kernel>(mut rbp: u64) -> usize {
/// // How deep a stack is whose frames are chained, however wrong the chain may be.
/// let mut depth = 0;
/// while let Some(outer) = guarded::read_word(rbp).filter(|&outer| outer > rbp) {
///     (rbp, depth) = (outer, depth + 1);
/// }
/// # depth
/// # }
/// ```
#[inline]
pub fn read_word(address: u64) -> Option<u64> {
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
///
/// If memory is there, it is the caller's to change: a return address on an interrupted stack, for example.
///
/// ```
/// # use host_bare::guarded;
/// # fn example<K: host_bare::Kernel>(regs: &host_bare::Regs, to: u64) -> bool {
/// // Where the function that was interrupted at its first instruction returns to.
/// // SAFETY: its thread is this one, and goes on only after the trap.
/// unsafe { guarded::write_word(regs.rsp(), to) }
/// # }
/// ```
#[inline]
pub unsafe fn write_word(address: u64, value: u64) -> bool {
    let failed: u64;
    // SAFETY: the memory is the caller's to change, by the contract; a fault goes on at `3:`, with `failed` still 1.
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

/// Whether the instruction that has faulted is one of these; if so, the registers go on behind it.
///
/// ```
/// # use host_bare::guarded;
/// # fn example<K: host_bare::Kernel>(regs: &mut host_bare::Regs, page_in: fn() -> bool, panic: fn()) {
/// // In the fault handler: the table first, since whoever reads in trap context must not wait for a page.
/// if !guarded::fix_up(regs) && !page_in() {
///     panic();
/// }
/// # }
/// ```
pub fn fix_up(regs: &mut Regs) -> bool {
    let mut entry = (&raw const __start___ex_table).cast::<Entry>();
    let end = (&raw const __stop___ex_table).cast::<Entry>();
    while entry < end {
        // SAFETY: the linker places whole entries between the two symbols.
        let this = unsafe { *entry };
        if this.instruction == regs.rip {
            regs.rip = this.go_on;
            return true;
        }
        entry = entry.wrapping_add(1);
    }
    false
}
