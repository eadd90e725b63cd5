//! A trap that is not ours goes on to the program, as if we were not there.
//!
//! Notifiers are asked first ([`notifiers`]). The last member of their chain is the action that the program believes it has for `SIGTRAP`: the guard keeps
//! it in [`Home::app_actions`](crate::abi::Home::app_actions).

use super::signals::{SA_NODEFER, SA_RESETHAND, SENT_BY_KERNEL, SIG_DFL, SIG_IGN, set_mask};
use super::{Memory, SIGTRAP, actions, blocked, notifiers};
use cpu::{SignalFrame, nr, syscall};

/// `si_code` of a breakpoint instruction (`SI_KERNEL`): the saved rip is behind it.
const SI_KERNEL: i32 = 0x80;

/// An `SA_SIGINFO` handler. One without takes the first argument only, which the calling convention allows.
type Handler = extern "C" fn(i32, *const i32, *mut u8);

pub(crate) fn deliver(
    memory: Memory,
    signal: i32,
    code: i32,
    info: *const i32,
    context: *mut u8,
    frame: &mut SignalFrame,
) {
    memory.home.foreign.fetch_add(1, sync::primitive::Ordering::Relaxed);
    if code == SI_KERNEL && notifiers::claim(memory, frame) {
        return;
    }
    // SAFETY: `gettid` has no argument and no effect.
    let tid = unsafe { syscall(nr::GETTID, [0; 6]) }.cast_unsigned();
    if code <= SENT_BY_KERNEL && blocked::holds_back(memory, tid, frame.mask(), code) {
        return;
    }
    let action = actions::believed(memory, SIGTRAP);
    match action[0] {
        SIG_IGN if code <= SENT_BY_KERNEL => {}
        SIG_DFL | SIG_IGN => die(code, frame),
        address => {
            if action[1] & SA_RESETHAND != 0 {
                actions::believe(memory, SIGTRAP, &[SIG_DFL, action[1], action[2], action[3]]);
            }
            // SAFETY: the program gave this address to the kernel as its handler for this very signal: the kernel would
            // call it with the same three arguments.
            let handler: Handler = unsafe { core::mem::transmute(address as *const ()) };
            let mask = frame.mask() | action[3] & !super::SIGTRAP_BIT;
            // The program expects its handler not to be interrupted by another SIGTRAP, unless it said otherwise.
            let deferred = action[1] & SA_NODEFER == 0 && !blocked::is(memory, tid);
            if deferred {
                blocked::set(memory, tid, true);
            }
            let before = set_mask(mask);
            handler(signal, info, context);
            set_mask(before);
            if deferred {
                blocked::set(memory, tid, false);
            }
        }
    }
}

/// The default action: the process ends by `SIGTRAP`, at the trap's own address.
fn die(code: i32, frame: &mut SignalFrame) {
    actions::give_up(SIGTRAP);
    let mut regs = frame.registers();
    if code > SENT_BY_KERNEL {
        // Run the breakpoint again, with nobody to handle it.
        regs.rip = if code == SI_KERNEL { regs.rip.wrapping_sub(1) } else { regs.rip };
        return frame.set_registers(&regs);
    }
    // SAFETY: these calls have no memory arguments.
    unsafe {
        let (pid, tid) = (syscall(nr::GETPID, [0; 6]), syscall(nr::GETTID, [0; 6]));
        syscall(nr::TGKILL, [pid.cast_unsigned(), tid.cast_unsigned(), SIGTRAP, 0, 0, 0]);
    }
}
