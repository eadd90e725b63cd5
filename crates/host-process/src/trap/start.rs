//! The agent's first instructions in the target, run once by a thread that the tool holds.

use super::signals::{SA_NODEFER, SA_ONSTACK, SA_RESTART, SA_RESTORER, SA_SIGINFO, SigAction, sigaction};
use super::{FAULT_BITS, Memory, SIGTRAP, SIGTRAP_BIT, abandoned, actions, detour, foreign, fork, guard};
use crate::abi::{Home, MAGIC, STUB_BYTES, STUB_STRIDE, VERSION};
use cpu::{SignalFrame, nr, syscall};
use hit::Outcome;
use isa::x86::flags;
use sync::primitive::{AtomicU64, Ordering};

/// `si_code` of a single step.
const TRAP_TRACE: i32 = 2;
/// `si_code` of a trap that the processor raised (`SI_KERNEL`).
const SI_KERNEL: i32 = 0x80;

/// Address of [`Home`]; 0 before [`start`].
pub(crate) static HOME: AtomicU64 = AtomicU64::new(0);

/// Takes over `SIGTRAP` and the signals of faults. Returns 0, or the kernel's error.
///
/// ```no_run
/// # use host_process::{abi::{Home, MAGIC}, trap};
/// # use std::sync::atomic::Ordering;
/// # fn example(home: &'static Home) {
/// // SAFETY: what it names was mapped before, and stays.
/// let error = unsafe { trap::start(home) };
/// assert_eq!((error, home.magic.load(Ordering::Acquire)), (0, MAGIC));
/// # }
/// ```
///
/// # Safety
///
/// `home` must point to a mapped [`Home`] that stays mapped for the life of the process, whose `shared`, `identity` and
/// `stubs` fields are addresses of such mappings too.
pub unsafe extern "C" fn start(home: *const Home) -> i64 {
    // SAFETY: the caller's promise; any bits are a valid `Home`.
    let home: &'static Home = unsafe { &*home };
    HOME.store((&raw const *home) as u64, Ordering::Relaxed);
    let mut old: SigAction = [0; 4];
    let result = sigaction(SIGTRAP, Some(&action()), Some(&mut old));
    if result == 0 {
        // When the agent was here already, the table holds the program's action, and `old` is ours.
        if old[0] != action()[0] {
            actions::believe(Memory { home }, SIGTRAP, &old);
        }
        actions::take_over(Memory { home });
        home.detour_entry.store(detour::entry as *const () as u64, Ordering::Relaxed);
        home.return_entry.store(detour::return_entry as *const () as u64, Ordering::Relaxed);
        home.version.store(VERSION, Ordering::Relaxed);
        home.magic.store(MAGIC, Ordering::Release);
    }
    result
}

/// Our own action: information, the alternate stack if there is one (a goroutine's stack has no room for a signal
/// frame), nested traps and faults allowed, everything else masked.
fn action() -> SigAction {
    let flags = SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER | SA_RESTART;
    [enter as *const () as u64, flags, cpu::restorer as *const () as u64, !(SIGTRAP_BIT | FAULT_BITS)]
}

/// The kernel clears the direction flag for a handler, but not the alignment check flag, under which compiled code
/// may not run. (It clears the trap flag too; one that shows here is a debugger's, and not to be kept: see [`detour`].)
#[unsafe(naked)]
extern "C" fn enter(signal: i32, info: *const i32, context: *mut u8) {
    core::arch::naked_asm!(
        "pushfq",
        "and dword ptr [rsp], {keep}",
        "popfq",
        "jmp {handler}",
        keep = const !(ALIGNMENT_CHECK | detour::TRAP_FLAG),
        handler = sym handler,
    )
}

/// `EFLAGS.AC`.
pub(crate) const ALIGNMENT_CHECK: i32 = flags::AC as i32;

/// The memory that [`start`] was given. For handlers only, which it has installed.
pub(crate) fn memory() -> Memory {
    // SAFETY: `start` stored the address before it installed a handler, and promised that it stays mapped.
    Memory { home: unsafe { &*(HOME.load(Ordering::Relaxed) as *const Home) } }
}

/// The program steps itself by the trap flag. True when the step is ours, and it is told nothing; else its registers are
/// those that it would have without probes.
fn stepped(memory: Memory, frame: &mut SignalFrame) -> bool {
    let mut regs = frame.registers();
    let host = super::TrapHost::new(memory, frame);
    // A function has returned to a stub: that is a hit, and the step has ended at its caller.
    let behind = regs.rip.wrapping_sub(memory.home.stubs.load(Ordering::Relaxed));
    if behind < STUB_BYTES && behind.is_multiple_of(STUB_STRIDE) {
        hit::returned(&host, (behind / STUB_STRIDE) as u32, &mut regs);
    }
    let outcome = hit::single_step(&host, &mut regs);
    host.set_registers(&regs);
    outcome != Outcome::Foreign
}

extern "C" fn handler(signal: i32, info: *const i32, context: *mut u8) {
    let memory = memory();
    // SAFETY: the kernel calls this function with the frame it just made; this is the only view of it.
    let mut frame = unsafe { SignalFrame::new(context) };
    // SAFETY: `siginfo_t` is an array of at least 32 ints; `si_code` is the third.
    let code = unsafe { info.add(2).read() };
    fork::notice(memory);
    if code == TRAP_TRACE && stepped(memory, &mut frame) {
        return;
    }
    if code == SI_KERNEL {
        let mut regs = frame.registers();
        if guard::resume(memory, &mut regs) {
            return frame.set_registers(&regs);
        }
        let host = super::TrapHost::new(memory, &mut frame);
        let outcome = hit::breakpoint(&host, &mut regs);
        if outcome != Outcome::Foreign {
            if outcome == Outcome::Stale {
                memory.home.stale.fetch_add(1, Ordering::Relaxed);
            }
            return frame.set_registers(&regs);
        }
        // SAFETY: `gettid` has no argument and no effect.
        let tid = unsafe { syscall(nr::GETTID, [0; 6]) }.cast_unsigned();
        if abandoned::give_back(memory, tid, &mut regs, &mut frame) {
            return frame.set_registers(&regs);
        }
    }
    foreign::deliver(memory, signal, code, info, context, &mut frame);
}
