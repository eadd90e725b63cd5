//! The guard of `SIGTRAP` and of the signals of faults: no system call of the program may take them from us.
//!
//! A breakpoint kills a process that blocks, ignores or takes over `SIGTRAP`, and many do: Go's runtime, `bash`, every
//! `posix_spawn`, a thread that is created with all signals masked. So breakpoints stand on the `syscall` instructions
//! of those calls, and what they would do to `SIGTRAP` is kept in a table instead ([`Home::app_actions`]), where the
//! program finds it again when it asks.
//!
//! * `rt_sigaction(SIGTRAP)`: answered from the table. For the signal of a fault: kept there, and something that stands
//!   for it given to the kernel ([`actions`]). For another signal, whose handler would mask `SIGTRAP`: made with a mask
//!   that does not.
//! * `rt_sigprocmask`: carried out on the mask that the kernel restores when our handler returns; what the thread
//!   believes of `SIGTRAP` is kept beside ([`blocked`]).
//! * `rt_sigsuspend`, `ppoll`, `pselect6`, `epoll_pwait`, `epoll_pwait2`: wait under a mask of their own, and other
//!   signals' handlers run under it. The bit for `SIGTRAP` is cleared in the caller's set, or in a copy of it.
//! * `seccomp`, `prctl(PR_SET_SECCOMP)`, syscall user dispatch: the filter might end the process for a system call of ours, so the tool takes
//!   the probes out before it is installed.
//! * `ptrace(PTRACE_TRACEME)`: the program is a debugger ([`debuggee`]).
//! * `exit`: the thread's return probes are accounted for. `execve`, `execveat`: the tool is told, if it follows.
//!
//! [`Home::app_actions`]: crate::abi::Home::app_actions

use super::actions::{self, UNBLOCKABLE};
use super::host::TrapHost;
use super::memory::{read, read_word, write};
use super::signals::{SigAction, sigaction};
use super::{SIGTRAP, SIGTRAP_BIT, blocked, debuggee, mailbox, modules};
use crate::abi::{Detour, FLAG_FOLLOW, event};
use cpu::nr;
use hit::Next;
use isa::x86::Regs;
use sync::primitive::Ordering;

const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
/// Length of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// `sizeof(kernel_sigset_t)`.
const SET_BYTES: u64 = 8;
const SIGNALS: u64 = 64;
const PTRACE_TRACEME: u64 = 0;
const PR_SET_SECCOMP: u64 = 22;
const PR_SET_SYSCALL_USER_DISPATCH: u64 = 59;
/// The bits of an `int`.
const INT: u64 = 0xffff_ffff;
/// `SECCOMP_SET_MODE_STRICT` is 0; other operations only ask.
const SECCOMP_SET_MODE_FILTER: u64 = 1;
/// The current folder, as `openat` and its like take it.
const AT_FDCWD: u64 = -100i64 as u64;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSI: usize = 6;
const RDI: usize = 7;
const R8: usize = 8;
const R9: usize = 9;
const R10: usize = 10;
const R11: usize = 11;

/// A guarded `syscall` instruction at `regs.rip` is about to run.
pub(crate) fn check(host: &TrapHost<'_>, regs: &mut Regs) -> Next {
    let [number, first, second, third, fourth, fifth, sixth] = [RAX, RDI, RSI, RDX, R10, R8, R9].map(|r| regs.gpr[r]);
    // The kernel takes these as `int`.
    let (signal, how) = (first & INT, first & INT);
    match number {
        nr::RT_SIGACTION if fourth == SET_BYTES => match action(host, signal, second, third) {
            Some(result) => done(host, regs, result),
            None => Next::Step,
        },
        nr::RT_SIGPROCMASK if fourth == SET_BYTES => {
            let result = change_mask(host, how, second, third);
            done(host, regs, result)
        }
        nr::RT_SIGSUSPEND => wait(host, regs, RDI, first),
        nr::PPOLL => wait(host, regs, R10, fourth),
        nr::EPOLL_PWAIT | nr::EPOLL_PWAIT2 => wait(host, regs, R8, fifth),
        nr::PSELECT6 if sixth != 0 => wait(host, regs, R9, read_word(host.tid(), sixth).unwrap_or(0)),
        // Where nothing counts, nothing is to be accounted for; and no system call is to be made.
        nr::EXIT | nr::EXIT_GROUP if !host.memory.is_active() => Next::Step,
        nr::EXIT => {
            hit::Host::returns(host).exit(host);
            Next::Step
        }
        nr::EXIT_GROUP => {
            // A vfork child leaves what it has called in its parent's memory.
            if !host.is_own_process() {
                hit::Host::returns(host).exit(host);
            }
            Next::Step
        }
        nr::PRCTL if first == PR_SET_SECCOMP || first == PR_SET_SYSCALL_USER_DISPATCH => sandbox(host),
        nr::SECCOMP if first <= SECCOMP_SET_MODE_FILTER => sandbox(host),
        nr::PTRACE if first == PTRACE_TRACEME && debuggee::asks(host.memory, host.tid()) => done(host, regs, 0),
        nr::EXECVE => exec(host, AT_FDCWD, first),
        nr::EXECVEAT => exec(host, first, second),
        _ => Next::Step,
    }
}

/// A system call that waits under the mask at `set`, or a function that does; `register` points to it, or to the pair
/// that `pselect6` takes. The set is cleared of `SIGTRAP` where it stands. If it cannot be written, the call is made from
/// the agent's own `syscall` instruction with a cleared copy, and the register put right after ([`resume`]).
fn wait(host: &TrapHost<'_>, regs: &mut Regs, register: usize, set: u64) -> Next {
    let Some(mask) = read_word(host.tid(), set).filter(|mask| set != 0 && mask & SIGTRAP_BIT != 0) else {
        return Next::Step;
    };
    let home = host.memory.home;
    home.guarded.fetch_add(1, Ordering::Relaxed);
    let cleared = mask & !SIGTRAP_BIT;
    if write(host.tid(), set, &cleared.to_le_bytes()) {
        return Next::Step;
    }
    let tid = host.tid();
    let free = |d: &&Detour| d.tid.compare_exchange(0, tid, Ordering::Acquire, Ordering::Relaxed).is_ok();
    // One that the thread left by `longjmp` from a signal handler is its own still.
    let old = home.detours.iter().find(|d| d.tid.load(Ordering::Relaxed) == tid);
    let Some(detour) = old.or_else(|| home.detours.iter().find(free)) else { return Next::Step };
    detour.resume.store(regs.rip.wrapping_add(SYSCALL_BYTES), Ordering::Relaxed);
    detour.register.store(register as u64, Ordering::Relaxed);
    detour.value.store(regs.gpr[register], Ordering::Relaxed);
    detour.mask.store(cleared, Ordering::Relaxed);
    detour.pointer.store((&raw const detour.mask) as u64, Ordering::Relaxed);
    detour.size.store(SET_BYTES, Ordering::Relaxed);
    let pair = register == R9;
    regs.gpr[register] = if pair { (&raw const detour.pointer) as u64 } else { (&raw const detour.mask) as u64 };
    regs.rip = home.gadget.load(Ordering::Relaxed);
    Next::Redirected
}

/// The breakpoint behind the agent's `syscall` instruction: a thread comes back from the call that [`wait`] has sent
/// there. False when it is none of those.
pub(crate) fn resume(memory: super::Memory, regs: &mut Regs) -> bool {
    let behind = memory.home.gadget.load(Ordering::Relaxed).wrapping_add(SYSCALL_BYTES);
    if regs.rip.wrapping_sub(1) != behind {
        return false;
    }
    // SAFETY: `gettid` has no argument and no effect.
    let tid = unsafe { cpu::syscall(nr::GETTID, [0; 6]) }.cast_unsigned();
    let Some(detour) = memory.home.detours.iter().find(|d| d.tid.load(Ordering::Relaxed) == tid) else { return false };
    if let Some(register) = regs.gpr.get_mut(detour.register.load(Ordering::Relaxed) as usize) {
        *register = detour.value.load(Ordering::Relaxed);
    }
    regs.rip = detour.resume.load(Ordering::Relaxed);
    regs.gpr[RCX] = regs.rip;
    detour.tid.store(0, Ordering::Release);
    true
}

/// The process is about to forbid itself system calls, ours among them: the tool takes the probes out first.
fn sandbox(host: &TrapHost<'_>) -> Next {
    mailbox::tell(host.memory, host.tid(), event::SANDBOX, [0; 2]);
    modules::before_sandbox(host.memory);
    Next::Step
}

/// The program at `path`, from the folder `directory`, is about to be executed.
fn exec(host: &TrapHost<'_>, directory: u64, path: u64) -> Next {
    let traced = debuggee::executes(host.memory, host.tid());
    if !traced && host.memory.home.flags.load(Ordering::Relaxed) & FLAG_FOLLOW != 0 {
        mailbox::tell(host.memory, host.tid(), event::EXEC, [path, directory]);
    }
    Next::Step
}

/// A function that waits under a mask was entered; `register` points to the set.
pub(crate) fn check_mask(host: &TrapHost<'_>, register: u64, regs: &Regs) -> Next {
    let set = regs.gpr.get(register as usize).copied().unwrap_or(0);
    if let Some(mask) = read_word(host.tid(), set).filter(|mask| set != 0 && mask & SIGTRAP_BIT != 0) {
        write(host.tid(), set, &(mask & !SIGTRAP_BIT).to_le_bytes());
        host.memory.home.guarded.fetch_add(1, Ordering::Relaxed);
    }
    Next::Step
}

/// The call has been made: the registers as `syscall` leaves them (Intel SDM: rcx = next rip, r11 = rflags).
fn done(host: &TrapHost<'_>, regs: &mut Regs, result: i64) -> Next {
    host.memory.home.guarded.fetch_add(1, Ordering::Relaxed);
    regs.rip = regs.rip.wrapping_add(SYSCALL_BYTES);
    regs.gpr[RAX] = result.cast_unsigned();
    regs.gpr[RCX] = regs.rip;
    regs.gpr[R11] = regs.flags;
    Next::Redirected
}

/// `rt_sigaction`; `None`: let the kernel do it.
///
/// The kernel's action never masks `SIGTRAP`; whether the program's does is kept in [`Home::masked`].
///
/// [`Home::masked`]: crate::abi::Home::masked
fn action(host: &TrapHost<'_>, signal: u64, new: u64, old: u64) -> Option<i64> {
    if signal == SIGTRAP {
        return Some(virtual_action(host, new, old));
    }
    if actions::is_fault(signal) {
        return Some(fault_action(host, signal, new, old));
    }
    if signal == 0 || signal > SIGNALS {
        return None;
    }
    let (masked, bit) = (&host.memory.home.masked, 1u64 << (signal - 1));
    let had = masked.load(Ordering::Relaxed) & bit != 0;
    let wanted = if new == 0 { None } else { Some(read_action(host.tid(), new)?) };
    let wants = wanted.is_some_and(|w| w[3] & SIGTRAP_BIT != 0);
    if !had && !wants {
        return None;
    }
    let cleaned = wanted.map(|w| [w[0], w[1], w[2], w[3] & !SIGTRAP_BIT]);
    let mut before: SigAction = [0; 4];
    let result = sigaction(signal, cleaned.as_ref(), Some(&mut before));
    if result != 0 {
        return Some(result);
    }
    if wanted.is_some() {
        if wants {
            masked.fetch_or(bit, Ordering::Relaxed)
        } else {
            masked.fetch_and(!bit, Ordering::Relaxed)
        };
    }
    before[3] |= if had { SIGTRAP_BIT } else { 0 };
    Some(if old != 0 && !write_action(host.tid(), old, &before) { EFAULT } else { 0 })
}

/// `rt_sigaction(SIGTRAP)`, answered from the table.
fn virtual_action(host: &TrapHost<'_>, new: u64, old: u64) -> i64 {
    let before = actions::believed(host.memory, SIGTRAP);
    if new != 0 {
        let Some(wanted) = read_action(host.tid(), new) else { return EFAULT };
        // A vfork child changes its own disposition, not its parent's, though the memory is the same.
        if host.is_own_process() {
            actions::believe(host.memory, SIGTRAP, &actions::normal(&wanted));
        }
    }
    if old != 0 && !write_action(host.tid(), old, &before) {
        return EFAULT;
    }
    0
}

/// `rt_sigaction` for the signal of a fault.
fn fault_action(host: &TrapHost<'_>, signal: u64, new: u64, old: u64) -> i64 {
    let wanted = if new == 0 { None } else { read_action(host.tid(), new) };
    if new != 0 && wanted.is_none() {
        return EFAULT;
    }
    let before = actions::change(host, signal, wanted.as_ref());
    if old != 0 && !write_action(host.tid(), old, &before) { EFAULT } else { 0 }
}

/// `rt_sigprocmask` on the mask that the kernel restores after us, and on what the thread believes of `SIGTRAP`.
fn change_mask(host: &TrapHost<'_>, how: u64, set: u64, old: u64) -> i64 {
    let believed = if blocked::is(host.memory, host.tid()) { SIGTRAP_BIT } else { 0 };
    let before = host.mask() | believed;
    if set != 0 {
        let Some(set) = read_word(host.tid(), set) else { return EFAULT };
        let after = match how {
            0 => before | set,
            1 => before & !set,
            2 => set,
            _ => return EINVAL,
        };
        // The kernel changes the mask before it copies the old one out.
        host.set_mask(after & !SIGTRAP_BIT & !UNBLOCKABLE);
        blocked::set(host.memory, host.tid(), after & SIGTRAP_BIT != 0);
    }
    if old != 0 && !write(host.tid(), old, &before.to_le_bytes()) { EFAULT } else { 0 }
}

fn read_action(tid: u64, address: u64) -> Option<SigAction> {
    let mut bytes = [0u8; 32];
    read(tid, address, &mut bytes).then(|| {
        let word = |i: usize| bytes.get(8 * i..8 * i + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        [word(0), word(1), word(2), word(3)]
    })
}

fn write_action(tid: u64, address: u64, action: &SigAction) -> bool {
    let mut bytes = [0u8; 32];
    for (to, word) in bytes.chunks_exact_mut(8).zip(action) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    write(tid, address, &bytes)
}
