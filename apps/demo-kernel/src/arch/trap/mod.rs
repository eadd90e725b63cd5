//! Traps: the frame, and who is asked in which order.
//!
//! Whatever a breakpoint or a single step passes through before kprobes has answered lies in `.kprobes.text`, where no
//! probe is placed: the stubs, [`trap_breakpoint`], [`trap_debug`], and of a fault everything up to the exception
//! table. Behind that (demand-zero memory, interrupts) functions may be probed: a breakpoint in them is a trap
//! inside a trap, on the same stack.
//!
//! A fault is shown to kprobes first, since it may have happened in the copy of a probed instruction: the frame then
//! says the original place. The exception table comes before demand-zero memory: a guarded access must be possible
//! anywhere, also with the frame allocator's lock held.

pub(crate) mod fault;
mod idt;

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use host_bare::Faulted;
use isa::x86::Regs;
use x86_64::registers::control::Cr2;

use super::{apic, copy, cpu, ipi};
use crate::probes::hooks;
use crate::{mm, sched};

pub(crate) use idt::load;

core::arch::global_asm!(include_str!("stubs.s"));

/// What a stub leaves on the stack. Changes of `regs` take effect: they are all restored, with `rip`, `flags` and
/// `rsp`. The processor's own part is only read.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Frame {
    /// The interrupted registers.
    pub(crate) regs: Regs,
    /// The vector.
    pub(crate) vector: u64,
    /// The error code, 0 for vectors without one.
    pub(crate) error: u64,
    /// As the processor pushed it, as all that follows.
    pub(crate) rip: u64,
    /// Code segment.
    pub(crate) cs: u64,
    /// Flags.
    pub(crate) flags: u64,
    /// Stack pointer.
    pub(crate) rsp: u64,
    /// Stack segment.
    pub(crate) ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 25 * 8, "stubs.s builds exactly this");

/// Vectors of interrupts.
pub(crate) mod vector {
    /// `#DF`.
    pub(crate) const DOUBLE_FAULT: u64 = 8;
    /// `#PF`.
    pub(crate) const PAGE_FAULT: u64 = 14;
    /// `#MC`.
    pub(crate) const MACHINE_CHECK: u64 = 18;
    /// The local timer.
    pub(crate) const TIMER: u8 = 64;
    /// Another processor's call.
    pub(crate) const CALL: u8 = 65;
    /// A thread became ready for an idle processor.
    pub(crate) const RESCHEDULE: u8 = 66;
    /// The interrupt controller changed its mind.
    pub(crate) const SPURIOUS: u8 = 255;
}

/// A function that may claim a trap.
pub(crate) type TrapHook = fn(&mut Frame) -> bool;
/// A function that is told of each NMI.
pub(crate) type NmiHook = fn(&mut Frame);

/// A function's address, 0 for none.
static FAULT_HOOK: AtomicUsize = AtomicUsize::new(0);
/// A function's address, 0 for none.
static NMI_HOOK: AtomicUsize = AtomicUsize::new(0);
/// Faults seen, for whoever wants to know that one happened.
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// Sets the function that is asked about a trap nobody else knows (breakpoints and debug exceptions too), before the
/// panic. True means: handled, go on at the frame.
pub(crate) fn set_fault_hook(hook: TrapHook) {
    FAULT_HOOK.store(hook as usize, Ordering::Release);
}

/// Nobody is asked before the panic.
pub(crate) fn clear_fault_hook() {
    FAULT_HOOK.store(0, Ordering::Release);
}

/// Sets the function that every NMI calls.
pub(crate) fn set_nmi_hook(hook: NmiHook) {
    NMI_HOOK.store(hook as usize, Ordering::Release);
}

/// No function is called by NMIs.
pub(crate) fn clear_nmi_hook() {
    NMI_HOOK.store(0, Ordering::Release);
}

/// How many NMIs processor `id` has taken.
pub(crate) fn nmi_count(id: usize) -> u64 {
    cpu::block(id).nmis.load(Ordering::Acquire)
}

/// How many faults there were, on all processors.
pub(crate) fn fault_count() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

#[unsafe(link_section = ".kprobes.text")]
fn fault_hook(frame: &mut Frame) -> bool {
    let hook = FAULT_HOOK.load(Ordering::Acquire);
    if hook == 0 {
        return false;
    }
    // SAFETY: only `set_fault_hook` stores an address other than 0 here, a `TrapHook`.
    let hook: TrapHook = unsafe { core::mem::transmute::<usize, TrapHook>(hook) };
    hook(frame)
}

/// `#BP`, from its stub.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".kprobes.text")]
extern "C" fn trap_breakpoint(frame: &mut Frame) {
    if !hooks::on_breakpoint(frame) {
        unclaimed(frame, 0);
    }
}

/// `#DB`, from its stub.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".kprobes.text")]
extern "C" fn trap_debug(frame: &mut Frame) {
    let dr6 = take_dr6();
    if !hooks::on_debug(frame, dr6) {
        unclaimed(frame, dr6);
    }
}

/// Reads what caused a debug exception and clears it: the processor never does (SDM volume 3, 18.2.3).
#[unsafe(link_section = ".kprobes.text")]
#[inline]
fn take_dr6() -> u64 {
    let dr6: u64;
    // SAFETY: DR6 only reports; clearing it arms and disarms nothing.
    unsafe {
        core::arch::asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) dr6, in(reg) 0_u64, options(nomem, nostack, preserves_flags));
    }
    dr6
}

/// Every other exception, from its stub.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".kprobes.text")]
extern "C" fn trap_fault(frame: &mut Frame) {
    // Before anything that may fault itself.
    let cr2 = if matches!(frame.vector, vector::PAGE_FAULT | vector::DOUBLE_FAULT) { Cr2::read_raw() } else { 0 };
    let interrupted = hooks::on_fault(frame);
    if interrupted == Faulted::Cured {
        return;
    }
    if !copy::fix_up(frame) {
        fault(frame, cr2);
    }
    hooks::after_fault(interrupted, frame);
}

/// The kernel's own handling of a fault.
#[inline(never)]
fn fault(frame: &mut Frame, cr2: u64) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    let demand = frame.vector == vector::PAGE_FAULT && mm::lazy::contains(cr2) && mm::lazy::demand_zero(cr2);
    if !demand && !hooks::on_unhandled(frame) {
        unclaimed(frame, cr2);
    }
}

/// Asks the registered hook, and panics if it does not know either.
#[unsafe(link_section = ".kprobes.text")]
#[inline(never)]
fn unclaimed(frame: &mut Frame, detail: u64) {
    if !fault_hook(frame) {
        fault::die(frame, detail);
    }
}

/// NMI, from its stub.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".kprobes.text")]
extern "C" fn trap_nmi(frame: &mut Frame) {
    crate::panic::stop_if_panicking();
    let hook = NMI_HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_nmi_hook` stores an address other than 0 here, an `NmiHook`.
        let hook: NmiHook = unsafe { core::mem::transmute::<usize, NmiHook>(hook) };
        hook(frame);
    }
    // Last: whoever waits for the count finds the hook's work done.
    cpu::count_nmi();
}

/// Interrupts, from their stub.
#[unsafe(no_mangle)]
extern "C" fn trap_interrupt(frame: &mut Frame) {
    match frame.vector as u8 {
        vector::TIMER => {
            apic::end_of_interrupt();
            sched::timer_tick();
        }
        vector::CALL => {
            apic::end_of_interrupt();
            ipi::service();
        }
        vector::RESCHEDULE => {
            apic::end_of_interrupt();
            cpu::this().reschedule.store(true, Ordering::Relaxed);
        }
        // Spurious interrupts are not acknowledged (SDM volume 3, 11.9).
        _ => return,
    }
    sched::preempt();
}
