//! Probes on unwinders and on `longjmp`: true return addresses while they run, instances accounted for after.
//!
//! The rules are those of [`hit::returns`]. What is particular to a process is where the frame address stands: the
//! unwinder's context is the first argument of `_Unwind_SetIP`, and the tool has found out at which offset it holds the
//! stack pointer of the frame that is chosen; `longjmp`'s buffer holds it in word 6, mangled by glibc
//! (`sysdeps/unix/sysv/linux/x86_64/pointer_guard.h`).

use super::host::TrapHost;
use super::memory::read_word;
use crate::abi::action;
use hit::Host;
use hit::returns::SideStack;
use isa::x86::Regs;

const RSP: usize = 4;
const RDI: usize = 7;
/// Byte offset of the stack pointer in a `jmp_buf`, for glibc and musl.
const JMP_BUF_SP: u64 = 48;
/// Offset of the pointer guard in glibc's thread control block.
const POINTER_GUARD: usize = 0x30;
const MANGLE_ROTATION: u32 = 17;

pub(crate) fn hook(host: &TrapHost<'_>, data: u64, regs: &Regs) {
    let returns = host.returns();
    let (sp, argument) = (regs.gpr[RSP], regs.gpr[RDI]);
    let (low, high) = host.signal_stack();
    let signal = SideStack { low, high };
    match data & action::BITS {
        action::UNWIND => returns.restore(host, sp, signal),
        action::LAND => {
            if let Some(cfa) = read_word(host.tid(), argument.wrapping_add(data >> 32)) {
                returns.land(host, sp, cfa, signal);
            }
        }
        action::WALKED => returns.walked(host, sp, signal),
        action::JUMP_PLAIN => jump(host, argument, regs, signal, |word| word),
        action::JUMP_MANGLED => jump(host, argument, regs, signal, demangle),
        _ => {}
    }
}

fn jump(host: &TrapHost<'_>, buffer: u64, regs: &Regs, signal: SideStack, clear: fn(u64) -> u64) {
    if let Some(target) = read_word(host.tid(), buffer.wrapping_add(JMP_BUF_SP)) {
        host.returns().jump(host, regs.gpr[RSP], clear(target), signal);
    }
}

fn demangle(word: u64) -> u64 {
    // SAFETY: only a thread that calls glibc's `longjmp` comes here: control has chosen the action for that function.
    word.rotate_right(MANGLE_ROTATION) ^ unsafe { cpu::thread_word::<POINTER_GUARD>() }
}
