//! Faults: what stands before the program's handlers of `SIGSEGV`, `SIGBUS`, `SIGFPE` and `SIGILL`.
//!
//! The kernel calls [`enter`] instead of the program's handler, with a frame as the program asked for it ([`actions`]).
//! [`filter`] says what becomes of it:
//!
//! 1. Somebody has **sent** the signal (`kill`, `sigqueue`, a memory error elsewhere). The program gets it as it is. If it
//!    has interrupted a handler of ours, it waits until that has returned, and the signal mask with it; a detour outside
//!    of handlers, which has no mask to give back, it interrupts like any other code.
//! 2. A **displaced instruction** has faulted: the registers in the frame become what they would be without the probe,
//!    and so does an address in the information. The fault handlers of its probes are asked first ([`hit::offer`]).
//! 3. A **probe's handler** has faulted: its fault handler is asked, and then it ends there ([`Running::contain`]).
//! 4. What remains is the program's. Its handler is jumped to, with arguments and stack as the kernel made them, so an
//!    unwinder that comes by finds the kernel's frame and nothing else. If it handles nothing, the process ends by the
//!    same signal, with the same information, at the true registers.
//!
//! A program's handler that returns to the instruction (it has mapped what was missing) hits the probe again: the kernel
//! takes the registers from the frame, and those are the true ones. After a fault handler of a probe the copy goes on.

use super::signals::{SA_RESETHAND, SENT_BY_KERNEL, SIG_DFL, SIG_IGN, send_again};
use super::{FAULT_BITS, TrapHost, actions, detour, lanes, modules, stacks, start};
use crate::abi::Home;
use crate::abi::lanes::ALONE;
use crate::abi::signal::{self, bit};
use arch::x86::handlers::Running;
use cpu::SignalFrame;
use hit::{Displaced, Host};
use isa::x86::Regs;
use sync::primitive::Ordering;

/// An `SA_SIGINFO` handler.
pub(crate) type Entry = extern "C" fn(i32, *mut i32, *mut u8);

/// What the filter says when the handler's work is done: `rt_sigreturn`.
const DONE: u64 = 0;
/// `si_code` of a memory error that does not concern the running instruction (`BUS_MCEERR_AO`).
const ELSEWHERE: i32 = 5;
/// Where in `siginfo_t` the code and the address are, in units of their size.
const CODE: usize = 2;
const ADDRESS: usize = 2;

/// The handler of a fault whose action is in the table.
#[unsafe(naked)]
pub(crate) extern "C" fn enter(signal: i32, info: *mut i32, context: *mut u8) {
    core::arch::naked_asm!("xor ecx, ecx", "jmp {sift}", sift = sym sift)
}

/// The handler of a fault that ends the process, whatever the table says: in a `vfork` child.
#[unsafe(naked)]
pub(crate) extern "C" fn enter_default(signal: i32, info: *mut i32, context: *mut u8) {
    core::arch::naked_asm!("mov ecx, 1", "jmp {sift}", sift = sym sift)
}

/// Asks the filter, and returns or goes on in the program's handler: with the three arguments, the stack and the flags as
/// the kernel has set them, and 0 in `rax` as it has left it. Compiled code may not run with the alignment check flag,
/// which the kernel does not clear.
#[unsafe(naked)]
extern "C" fn sift(signal: i32, info: *mut i32, context: *mut u8, default: u64) {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "pushfq",
        "and dword ptr [rsp], {not_stepped}",
        "pushfq",
        "and dword ptr [rsp], {keep}",
        "popfq",
        "sub rsp, 8",
        "call {filter}",
        "add rsp, 8",
        "mov r11, rax",
        "popfq",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "xor eax, eax",
        "test r11, r11",
        "jz 2f",
        "jmp r11",
        "2:",
        "ret",
        not_stepped = const !detour::TRAP_FLAG,
        keep = const !(start::ALIGNMENT_CHECK | detour::TRAP_FLAG),
        filter = sym filter,
    )
}

/// What becomes of a signal: 0, or the program's handler.
extern "C" fn filter(number: i32, info: *mut i32, context: *mut u8, default: u64) -> u64 {
    let memory = start::memory();
    // SAFETY: the kernel has called the handler with the frame that it just made; this is the only view of it.
    let mut frame = unsafe { SignalFrame::new(context) };
    // SAFETY: `siginfo_t` is an array of at least 32 ints.
    let code = unsafe { info.add(CODE).read() };
    let signal = u64::from(number.cast_unsigned());
    let sent = code <= SENT_BY_KERNEL || signal == signal::BUS && code == ELSEWHERE;
    let mut regs = frame.registers();
    let trap = frame.trap();
    let host = TrapHost::in_fault(memory, &mut frame);
    if sent {
        if gives_back(&host, regs.rip) {
            host.set_mask(host.mask() | bit(signal));
            send_again(signal, info);
            return DONE;
        }
        return deliver(&host, signal, info, default != 0, Cause::Sent);
    }
    let at = regs.rip;
    let displaced = hit::displaced(&host, &mut regs);
    if handled(&host, displaced, &mut regs, trap, (signal, address(info))) {
        host.set_registers(&regs);
        return DONE;
    }
    if displaced.is_some() {
        host.set_registers(&regs);
        correct(info, at, regs.rip);
    }
    let cause = if displaced.is_none() && is_ours(memory.home, at) { Cause::Ours } else { Cause::Raised };
    deliver(&host, signal, info, default != 0, cause)
}

/// Offers a fault to the probes' fault handlers, and ends a probe's handler if one has raised it.
fn handled(
    host: &TrapHost<'_>,
    displaced: Option<Displaced>,
    regs: &mut Regs,
    trap: u64,
    (signal, address): (u64, u64),
) -> bool {
    if let Some(displaced) = displaced
        && hit::offer(host, &displaced, regs, trap)
    {
        hit::resume::<<TrapHost<'_> as Host>::Isa>(displaced, regs);
        return true;
    }
    let Some(running) = place(host).filter(|running| running.is_calling()) else { return false };
    modules::note_fault(host.memory.home, host.tid(), signal, regs.rip, address);
    // Its fault handler runs on a stack of its own, too; the handler ends also when there is none.
    let contained = host.calling(|| running.contain(host, regs, trap));
    contained.unwrap_or_else(|| running.recovery().recover(regs))
}

/// Whether the thread is in code of ours that gives the interrupted mask back when it ends: a signal that is masked there
/// is delivered then. A detour has no mask to give back, nor has a light handler.
fn gives_back(host: &TrapHost<'_>, at: u64) -> bool {
    let home = host.memory.home;
    let lane = lanes::here(home);
    let in_detour = lane.is_some_and(|lane| lane.frame.load(Ordering::Relaxed) != 0);
    let alone = lane.is_some_and(|lane| lane.calling.load(Ordering::Relaxed) == ALONE);
    let masked = host.mask() & stacks::HANDLERS == stacks::HANDLERS;
    alone || masked && !in_detour && is_ours(home, at) || in_handler(host).is_some()
}

/// What the running thread keeps of the handler that it calls, if it is in one.
fn place<'h>(host: &TrapHost<'h>) -> Option<&'h Running> {
    let home = host.memory.home;
    // Where nothing counts, nobody enters; and no system call is to be made.
    host.memory.is_active().then_some(())?;
    lanes::in_light_handler(home, host.sp()).or_else(|| in_handler(host))
}

/// The same of a handler that runs on a stack of its own.
fn in_handler<'h>(host: &TrapHost<'h>) -> Option<&'h Running> {
    let home = host.memory.home;
    host.memory.is_active().then_some(())?;
    home.running.get(modules::place_of(home, host.tid())?)
}

/// Whether `address` is in the agent's code. Its `syscall` instruction is not meant: threads of the program's make calls
/// there.
fn is_ours(home: &Home, address: u64) -> bool {
    const SYSCALL_BYTES: u64 = 2;
    let (start, end): (u64, u64);
    // SAFETY: the linker defines both symbols; nothing is read.
    unsafe {
        core::arch::asm!(
            ".hidden __ehdr_start",
            ".hidden etext",
            "lea {}, [rip + __ehdr_start]",
            "lea {}, [rip + etext]",
            out(reg) start, out(reg) end, options(nomem, nostack, preserves_flags, pure),
        );
    }
    let gadget = home.gadget.load(Ordering::Relaxed);
    (start..end).contains(&address) && !(gadget..=gadget + SYSCALL_BYTES).contains(&address)
}

/// The address that the information names.
fn address(info: *mut i32) -> u64 {
    // SAFETY: as in `correct`.
    unsafe { info.cast::<u64>().add(ADDRESS).read() }
}

/// The information has the address of the instruction, if that is what the signal is about (`SIGILL`, `SIGFPE`).
fn correct(info: *mut i32, copy: u64, original: u64) {
    // SAFETY: `siginfo_t` is longer than three words; for the signals of faults the third is `si_addr`. It is the
    // kernel's copy for the handler that runs now.
    unsafe {
        let address = info.cast::<u64>().add(ADDRESS);
        if address.read() == copy {
            address.write(original);
        }
    }
}

/// Where a signal comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Sent,
    Raised,
    /// An error of the agent's own: no handler of the program's could make sense of it.
    Ours,
}

/// The program's handler, or the end.
fn deliver(host: &TrapHost<'_>, signal: u64, info: *mut i32, default: bool, cause: Cause) -> u64 {
    let action = actions::believed(host.memory, signal);
    match action[0] {
        SIG_IGN if cause == Cause::Sent && !default => DONE,
        handler if handler > SIG_IGN && cause != Cause::Ours && !default => {
            if action[1] & SA_RESETHAND != 0 {
                actions::reset(host, signal);
            }
            handler
        }
        _ => {
            actions::give_up(signal);
            send_again(signal, info);
            DONE
        }
    }
}

#[cfg(test)]
mod tests;

const _: () = assert!(SIG_DFL == DONE && FAULT_BITS & bit(signal::TRAP) == 0);
