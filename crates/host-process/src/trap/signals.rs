//! The kernel's signals: actions, masks, and sending to oneself.

use crate::abi::signal::bit;
use cpu::{nr, syscall};

/// `struct kernel_sigaction`: handler, flags, restorer, mask.
pub(crate) type SigAction = [u64; 4];

pub(crate) const SIG_DFL: u64 = 0;
pub(crate) const SIG_IGN: u64 = 1;

pub(crate) const SA_SIGINFO: u64 = 4;
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;
pub(crate) const SA_ONSTACK: u64 = 0x0800_0000;
pub(crate) const SA_RESTART: u64 = 0x1000_0000;
pub(crate) const SA_NODEFER: u64 = 0x4000_0000;
pub(crate) const SA_RESETHAND: u64 = 0x8000_0000;

/// `si_code` values above 0 are the kernel's: a real exception, which cannot be ignored (`force_sig`).
pub(crate) const SENT_BY_KERNEL: i32 = 0;

const SIG_BLOCK: u64 = 0;
const SIG_SETMASK: u64 = 2;

/// The action that terminates the process.
pub(crate) fn default_action() -> SigAction {
    [SIG_DFL, SA_RESTORER, cpu::restorer as *const () as u64, 0]
}

/// `rt_sigaction` proper.
pub(crate) fn sigaction(signal: u64, new: Option<&SigAction>, old: Option<&mut SigAction>) -> i64 {
    let new = new.map_or(0, |a| (&raw const *a) as u64);
    let old = old.map_or(0, |a| (&raw mut *a) as u64);
    // SAFETY: both pointers are null or to whole actions that live across the call.
    unsafe { syscall(nr::RT_SIGACTION, [signal, new, old, 8, 0, 0]) }
}

/// Installs a signal mask for a while; returns the one before.
pub(crate) fn set_mask(mask: u64) -> u64 {
    change_mask(SIG_SETMASK, mask)
}

/// Masks the signals of `set` too, until the running handler ends.
pub(crate) fn block(set: u64) {
    change_mask(SIG_BLOCK, set);
}

fn change_mask(how: u64, set: u64) -> u64 {
    let mut before = 0u64;
    let (new, old) = ((&raw const set) as u64, (&raw mut before) as u64);
    // SAFETY: both pointers are to words on this stack.
    unsafe { syscall(nr::RT_SIGPROCMASK, [how, new, old, 8, 0, 0]) };
    before
}

/// Sends the running thread a signal again that it has just got, with the same `siginfo_t`. It arrives when the running
/// handler has returned, if the interrupted mask lets it.
///
/// A thread may say of a signal to itself that the kernel has sent it (`do_rt_tgsigqueueinfo` in Linux
/// `kernel/signal.c`).
pub(crate) fn send_again(signal: u64, info: *const i32) {
    block(bit(signal));
    // SAFETY: these calls have no argument.
    let [pid, tid] = [nr::GETPID, nr::GETTID].map(|number| unsafe { syscall(number, [0; 6]) }.cast_unsigned());
    // SAFETY: `info` is the `siginfo_t` of the running handler, which the kernel reads.
    let sent = unsafe { syscall(nr::RT_TGSIGQUEUEINFO, [pid, tid, signal, info as u64, 0, 0]) };
    if sent != 0 {
        // SAFETY: the call has no memory argument.
        unsafe { syscall(nr::TGKILL, [pid, tid, signal, 0, 0, 0]) };
    }
}
