//! The guard of `SIGTRAP`: no system call of the program may take it from us.
//!
//! A breakpoint kills a process that blocks, ignores or takes over `SIGTRAP`, and many do: Go's runtime, `bash`, every
//! `posix_spawn`, a thread that is created with all signals masked. So breakpoints stand on the `syscall` instructions
//! of those calls, and what they would do to `SIGTRAP` is kept in a table instead ([`Home::app_trap`]), where the
//! program finds it again when it asks.
//!
//! * `rt_sigaction(SIGTRAP)`: answered from the table. For another signal, whose handler would mask `SIGTRAP`: made
//!   with a mask that does not.
//! * `rt_sigprocmask`: carried out on the mask that the kernel restores when our handler returns; what the thread
//!   believes of `SIGTRAP` is kept beside ([`blocked`]).
//! * `rt_sigsuspend`, `ppoll`, `pselect6`, `epoll_pwait`, `epoll_pwait2`: wait under a mask of their own, and other
//!   signals' handlers run under it. The bit for `SIGTRAP` is cleared in the caller's set.
//! * `seccomp`, `prctl(PR_SET_SECCOMP)`: the filter might end the process for a system call of ours, so the tool takes
//!   the probes out before it is installed.
//! * `exit`: the thread's return probes are accounted for. `execve`, `execveat`: the tool is told, if it follows.
//!
//! [`Home::app_trap`]: crate::abi::Home::app_trap

use super::host::TrapHost;
use super::memory::{read, read_word, write};
use super::start::{SigAction, sigaction};
use super::{SIGTRAP, SIGTRAP_BIT, blocked, mailbox};
use crate::abi::{FLAG_FOLLOW, event};
use cpu::nr;
use hit::Next;
use isa::x86::Regs;
use sync::primitive::Ordering;

const EFAULT: i64 = -14;
const EINVAL: i64 = -22;
/// `SIGKILL` and `SIGSTOP` cannot be blocked.
const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;
/// Length of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// `sizeof(kernel_sigset_t)`.
const SET_BYTES: u64 = 8;
const SIGNALS: u64 = 64;
const PR_SET_SECCOMP: u64 = 22;
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
    match number {
        nr::RT_SIGACTION if fourth == SET_BYTES => match action(host, first, second, third) {
            Some(result) => done(host, regs, result),
            None => Next::Step,
        },
        nr::RT_SIGPROCMASK if fourth == SET_BYTES => {
            let result = change_mask(host, first, second, third);
            done(host, regs, result)
        }
        nr::RT_SIGSUSPEND => clear_bit(host, first),
        nr::PPOLL => clear_bit(host, fourth),
        nr::EPOLL_PWAIT | nr::EPOLL_PWAIT2 => clear_bit(host, fifth),
        nr::PSELECT6 if sixth != 0 => clear_bit(host, read_word(host.tid(), sixth).unwrap_or(0)),
        nr::EXIT => {
            hit::Host::returns(host).exit(host);
            Next::Step
        }
        nr::PRCTL if first == PR_SET_SECCOMP => sandbox(host),
        nr::SECCOMP if first <= SECCOMP_SET_MODE_FILTER => sandbox(host),
        nr::EXECVE => exec(host, AT_FDCWD, first),
        nr::EXECVEAT => exec(host, first, second),
        _ => Next::Step,
    }
}

/// The process is about to forbid itself system calls, ours among them: the tool takes the probes out first.
fn sandbox(host: &TrapHost<'_>) -> Next {
    mailbox::tell(host.memory, host.tid(), event::SANDBOX, [0; 2]);
    Next::Step
}

/// The program at `path`, from the folder `directory`, is about to be executed.
fn exec(host: &TrapHost<'_>, directory: u64, path: u64) -> Next {
    if host.memory.home.flags.load(Ordering::Relaxed) & FLAG_FOLLOW != 0 {
        mailbox::tell(host.memory, host.tid(), event::EXEC, [path, directory]);
    }
    Next::Step
}

/// A function that waits under a mask was entered; `register` points to the set.
pub(crate) fn check_mask(host: &TrapHost<'_>, register: u64, regs: &Regs) -> Next {
    clear_bit(host, regs.gpr.get(register as usize).copied().unwrap_or(0))
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
fn action(host: &TrapHost<'_>, signal: u64, new: u64, old: u64) -> Option<i64> {
    if signal == SIGTRAP {
        return Some(virtual_action(host, new, old));
    }
    if new == 0 || signal == 0 || signal > SIGNALS {
        return None;
    }
    let mut wanted = read_action(host.tid(), new)?;
    if wanted[3] & SIGTRAP_BIT == 0 {
        return None;
    }
    wanted[3] &= !SIGTRAP_BIT;
    let mut before: SigAction = [0; 4];
    let result = sigaction(signal, Some(&wanted), Some(&mut before));
    if result == 0 && old != 0 && !write_action(host.tid(), old, &before) {
        return Some(EFAULT);
    }
    Some(result)
}

/// `rt_sigaction(SIGTRAP)`, answered from the table.
fn virtual_action(host: &TrapHost<'_>, new: u64, old: u64) -> i64 {
    let kept = &host.memory.home.app_trap;
    let before: SigAction = [0, 1, 2, 3].map(|i: usize| kept[i].load(Ordering::Relaxed));
    if new != 0 {
        let Some(wanted) = read_action(host.tid(), new) else { return EFAULT };
        // A vfork child changes its own disposition, not its parent's, though the memory is the same.
        if host.is_own_process() {
            for (word, value) in kept.iter().zip(wanted) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }
    if old != 0 && !write_action(host.tid(), old, &before) {
        return EFAULT;
    }
    0
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

/// Clears `SIGTRAP` in the set at `address`, if the program can write there.
fn clear_bit(host: &TrapHost<'_>, address: u64) -> Next {
    if address != 0
        && let Some(set) = read_word(host.tid(), address).filter(|s| s & SIGTRAP_BIT != 0)
    {
        write(host.tid(), address, &(set & !SIGTRAP_BIT).to_le_bytes());
        host.memory.home.guarded.fetch_add(1, Ordering::Relaxed);
    }
    Next::Step
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
