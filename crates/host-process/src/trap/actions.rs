//! What the program believes of the signals that are ours, and what the kernel has instead.
//!
//! The program's actions are kept in a table ([`Home::app_actions`]). For `SIGTRAP` the kernel has our handler always
//! (`guard`). For the signals of faults it has
//!
//! * `SIG_IGN`, if that is the program's: an executed program inherits it, and a true fault cannot be ignored anyway;
//! * otherwise [`fault::enter`], with the program's own flags, mask and restorer: so the frame that the kernel makes is
//!   the one that the program asked for, and its handler can be jumped to with it. `SIGTRAP` is taken out of the mask,
//!   information is always asked for, and `SA_RESETHAND` is done by us.
//!
//! The table is written first, then the kernel's action: a fault in between finds the new handler, on the stack that the
//! old one asked for. A `vfork` child has actions of its own and its parent's memory, table included. What it changes
//! goes to the kernel; the default is there [`fault::enter_default`], which asks no table.
//!
//! [`Home::app_actions`]: crate::abi::Home::app_actions

use super::signals::{
    SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_RESTORER, SA_SIGINFO, SIG_DFL, SIG_IGN, SigAction,
    default_action, sigaction,
};
use super::{FAULT_BITS, Memory, SIGTRAP_BIT, TrapHost, fault};
use crate::abi::GUARDED;
use crate::abi::signal::bit;
use sync::primitive::{AtomicU64, Ordering};

/// Flags that the kernel knows (`UAPI_SA_FLAGS`): it forgets others.
const KNOWN_FLAGS: u64 = SA_SIGINFO
    | SA_RESTORER
    | SA_ONSTACK
    | SA_RESTART
    | SA_NODEFER
    | SA_RESETHAND
    | NO_CHILD_STOP
    | NO_CHILD_WAIT
    | TAGS;
const NO_CHILD_STOP: u64 = 1;
const NO_CHILD_WAIT: u64 = 2;
const TAGS: u64 = 0x800;
/// `SIGKILL` and `SIGSTOP` cannot be blocked.
pub(crate) const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;
/// How often an action is taken over that other threads change meanwhile.
const ATTEMPTS: usize = 8;

/// Whether `signal` is one of a fault.
pub(crate) fn is_fault(signal: u64) -> bool {
    (1..=64).contains(&signal) && FAULT_BITS & bit(signal) != 0
}

fn kept(memory: Memory, signal: u64) -> Option<&'static [AtomicU64; 4]> {
    memory.home.app_actions.get(GUARDED.iter().position(|&guarded| guarded == signal)?)
}

/// The action that the program believes it has for a guarded signal.
pub(crate) fn believed(memory: Memory, signal: u64) -> SigAction {
    kept(memory, signal).map_or([SIG_DFL; 4], |words| words.each_ref().map(|w| w.load(Ordering::Relaxed)))
}

/// The program believes from now on that it has this action.
pub(crate) fn believe(memory: Memory, signal: u64, action: &SigAction) {
    for (word, value) in kept(memory, signal).into_iter().flatten().zip(action) {
        word.store(*value, Ordering::Relaxed);
    }
}

/// The program's action as the kernel would keep it.
pub(crate) fn normal(action: &SigAction) -> SigAction {
    [action[0], action[1] & KNOWN_FLAGS, action[2], action[3] & !UNBLOCKABLE]
}

/// What the kernel has for a fault, instead of `action`.
fn standing_for(action: &SigAction) -> SigAction {
    let mask = action[3] & !SIGTRAP_BIT;
    match action[0] {
        SIG_IGN => [SIG_IGN, action[1], action[2], mask],
        SIG_DFL => ours(fault::enter),
        _ => {
            let flags = action[1] & !SA_RESETHAND | SA_SIGINFO | SA_RESTORER;
            let own = action[1] & SA_RESTORER != 0;
            let restorer = if own { action[2] } else { cpu::restorer as *const () as u64 };
            [entry(fault::enter), flags, restorer, mask]
        }
    }
}

fn entry(of: fault::Entry) -> u64 {
    of as *const () as u64
}

/// The action for a fault that the program does not handle.
fn ours(of: fault::Entry) -> SigAction {
    let flags = SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_RESTART;
    [entry(of), flags, cpu::restorer as *const () as u64, !SIGTRAP_BIT]
}

/// Takes the signals of faults over from the program, in the thread that starts the agent.
pub(crate) fn take_over(memory: Memory) {
    memory.home.fault_entry.store(entry(fault::enter), Ordering::Relaxed);
    for signal in GUARDED.into_iter().filter(|&signal| is_fault(signal)) {
        take_over_one(memory, signal);
    }
}

fn take_over_one(memory: Memory, signal: u64) {
    let mut now: SigAction = [0; 4];
    sigaction(signal, None, Some(&mut now));
    // When the agent was here already, the table holds the program's action.
    if now[0] == entry(fault::enter) {
        return;
    }
    for _ in 0..ATTEMPTS {
        believe(memory, signal, &now);
        let mut before: SigAction = [0; 4];
        sigaction(signal, Some(&standing_for(&now)), Some(&mut before));
        if before == now || before[0] == entry(fault::enter) {
            return;
        }
        now = before;
    }
}

/// `rt_sigaction` of the program's for a fault's signal; gives the action before.
pub(crate) fn change(host: &TrapHost<'_>, signal: u64, new: Option<&SigAction>) -> SigAction {
    let before = current(host.memory, signal);
    if let Some(new) = new.map(normal) {
        if host.is_own_process() {
            believe(host.memory, signal, &new);
            sigaction(signal, Some(&standing_for(&new)), None);
        } else {
            sigaction(signal, Some(&of_child(&new)), None);
        }
    }
    before
}

/// What the kernel has in a `vfork` child, instead of `action`.
fn of_child(action: &SigAction) -> SigAction {
    match action[0] {
        SIG_DFL => ours(fault::enter_default),
        _ => [action[0], action[1], action[2], action[3] & !SIGTRAP_BIT],
    }
}

/// The action that the running process has for a fault's signal, as the program should see it.
fn current(memory: Memory, signal: u64) -> SigAction {
    let mut now: SigAction = [0; 4];
    sigaction(signal, None, Some(&mut now));
    match now[0] {
        at if at == entry(fault::enter) => believed(memory, signal),
        at if at == entry(fault::enter_default) => [SIG_DFL; 4],
        _ => now,
    }
}

/// A handler with `SA_RESETHAND` is about to run: from now on it is the default.
pub(crate) fn reset(host: &TrapHost<'_>, signal: u64) {
    if host.is_own_process() {
        let words = kept(host.memory, signal);
        words.into_iter().for_each(|words| words[0].store(SIG_DFL, Ordering::Relaxed));
    } else {
        sigaction(signal, Some(&ours(fault::enter_default)), None);
    }
}

/// The default action from now on, in the kernel: the process is about to end by it.
pub(crate) fn give_up(signal: u64) {
    sigaction(signal, Some(&default_action()), None);
}
