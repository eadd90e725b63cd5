//! Detours: what a jump into kprobes calls.
//!
//! A site that is placed by a jump has a detour of its own, made by [`kprobes::Isa::detour`]: it leaves a gap below the
//! stack pointer, pushes the site's index, and calls [`entry`]; the copy of the displaced instructions follows. So the
//! return address is where execution goes on, and the processor's prediction of returns stays right.
//!
//! [`entry`] makes the registers that a trap would have saved, with interrupts off as in a trap, and lets the hit path
//! run on them. Mostly it returns to the copy. If a handler has sent execution elsewhere, or moved the stack, it leaves by
//! `iretq`, which restores everything at once.
//!
//! ```text
//! interrupted stack │ gap │ site │ return address │ flags rip r15 … rax │ …
//!               rsp ┘                                                 └ Regs
//! ```
//!
//! Source: Linux, `arch/x86/kernel/kprobes/opt.c` (`optprobe_template_func`).

use super::TrapHost;
use crate::{Engine, Kernel};
use hit::Onward;
use isa::x86::{Privilege, Regs};

/// Bytes that a detour leaves below the stack pointer: an emulated instruction may push there.
const GAP: usize = arch::x86::detour_gap(Privilege::Kernel) as usize;

/// The registers are those of a jump that this site was placed by; true when the copy comes next, with these.
extern "C" fn detoured<K: Kernel>(regs: &mut Regs, site: u64) -> bool {
    let host: Option<TrapHost<'_, K>> = K::engine().and_then(Engine::host);
    host.is_none_or(|host| hit::detoured(&host, site, regs) == Onward::Copy)
}

/// What detours call.
///
/// # Safety
///
/// Only a detour may, in kernel mode.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn entry<K: Kernel>() {
    core::arch::naked_asm!(
        "pushfq",
        "push 2", // all flags that can be: no interrupts, no step, no direction, no alignment check, no nested task
        "popfq",
        isa::push_registers!(),
        "lea rax, [rsp + 20*8 + {gap}]",
        "mov [rsp + 4*8], rax",
        "mov rdi, rsp",
        "mov rsi, [rsp + 19*8]",
        "mov rbx, rsp",
        "and rsp, -16",
        "call {detoured}",
        "mov rsp, rbx",
        "test al, al",
        "je 2f",
        isa::pop_registers!(),
        "pop r15",
        "lea rsp, [rsp + 8]",
        "popfq",
        "ret {gap} + 8",
        // What `iretq` takes, from rip on: cs, flags, rsp, ss, over the return address, the site and a word of the gap.
        "2:",
        "mov rax, [rsp + 17*8]",
        "mov rcx, [rsp + 4*8]",
        "mov [rsp + 18*8], rax",
        "mov [rsp + 19*8], rcx",
        "mov eax, cs",
        "mov [rsp + 17*8], rax",
        "mov eax, ss",
        "mov [rsp + 20*8], rax",
        isa::pop_registers!(),
        "pop r15",
        "iretq",
        gap = const GAP,
        detoured = sym detoured::<K>,
    )
}
