//! The agent's first instructions in the target, run once by a thread that the tool holds.

use super::{Memory, SIGTRAP, SIGTRAP_BIT, abandoned, foreign, fork, guard};
use crate::abi::{Home, MAGIC, VERSION};
use cpu::{SignalFrame, nr, syscall};
use hit::Outcome;
use sync::primitive::{AtomicU64, Ordering};

/// `si_code` of a trap that the processor raised (`SI_KERNEL`).
const SI_KERNEL: i32 = 0x80;

/// `struct kernel_sigaction`.
pub(crate) type SigAction = [u64; 4];

const SA_SIGINFO: u64 = 4;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;
const SA_NODEFER: u64 = 0x4000_0000;

/// Address of [`Home`]; 0 before [`start`].
static HOME: AtomicU64 = AtomicU64::new(0);

/// Takes over `SIGTRAP`. Returns 0, or the kernel's error.
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
            for (kept, word) in home.app_trap.iter().zip(old) {
                kept.store(word, Ordering::Relaxed);
            }
        }
        home.version.store(VERSION, Ordering::Relaxed);
        home.magic.store(MAGIC, Ordering::Release);
    }
    result
}

/// Our own action: information, the alternate stack if there is one (a goroutine's stack has no room for a signal
/// frame), nested traps allowed, everything else masked.
fn action() -> SigAction {
    let flags = SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER | SA_RESTART;
    [enter as *const () as u64, flags, cpu::restorer as *const () as u64, !SIGTRAP_BIT]
}

/// The action that terminates the process.
pub(crate) fn default_action() -> SigAction {
    [0, SA_RESTORER, cpu::restorer as *const () as u64, 0]
}

/// `rt_sigaction` proper.
pub(crate) fn sigaction(signal: u64, new: Option<&SigAction>, old: Option<&mut SigAction>) -> i64 {
    let new = new.map_or(0, |a| (&raw const *a) as u64);
    let old = old.map_or(0, |a| (&raw mut *a) as u64);
    // SAFETY: both pointers are null or to whole actions that live across the call.
    unsafe { syscall(nr::RT_SIGACTION, [signal, new, old, 8, 0, 0]) }
}

/// The kernel clears the direction flag for a handler, but not the alignment check flag, under which compiled code
/// may not run.
#[unsafe(naked)]
extern "C" fn enter(signal: i32, info: *const i32, context: *mut u8) {
    core::arch::naked_asm!(
        "pushfq",
        "and dword ptr [rsp], {keep}",
        "popfq",
        "jmp {handler}",
        keep = const !ALIGNMENT_CHECK,
        handler = sym handler,
    )
}

/// `EFLAGS.AC`.
const ALIGNMENT_CHECK: i32 = 1 << 18;

extern "C" fn handler(signal: i32, info: *const i32, context: *mut u8) {
    // SAFETY: `start` stored the address before it installed this handler, and promised that it stays mapped.
    let memory = Memory { home: unsafe { &*(HOME.load(Ordering::Relaxed) as *const Home) } };
    // SAFETY: the kernel calls this function with the frame it just made; this is the only view of it.
    let mut frame = unsafe { SignalFrame::new(context) };
    // SAFETY: `siginfo_t` is an array of at least 32 ints; `si_code` is the third.
    let code = unsafe { info.add(2).read() };
    fork::notice(memory);
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
