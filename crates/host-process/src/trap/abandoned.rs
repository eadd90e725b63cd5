//! A thread that the tool held when it was killed.
//!
//! The kernel lets a tracee go when its tracer dies. A thread that was making a system call for the tool runs on behind
//! that call, into the breakpoint that stands there (or at the end of the agent's start), with registers that are not
//! its own. The tool has noted them before; the handler gives them back, and the thread goes on where it was taken.

use super::{Memory, SIGTRAP_BIT};
use cpu::SignalFrame;
use isa::x86::Regs;
use sync::primitive::Ordering;

/// The agent's code is no larger.
const IMAGE: u64 = 0x20000;

/// Gives thread `tid` its registers and mask back; false when it is not an abandoned one.
pub(crate) fn give_back(memory: Memory, tid: u64, regs: &mut Regs, frame: &mut SignalFrame) -> bool {
    let held = &memory.home.held;
    let in_agent = memory.home.gadget.load(Ordering::Relaxed).abs_diff(regs.rip) < IMAGE;
    if !in_agent || held.tid.compare_exchange(tid, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    for (register, kept) in regs.gpr.iter_mut().zip(&held.gpr) {
        *register = kept.load(Ordering::Relaxed);
    }
    regs.rip = held.rip.load(Ordering::Relaxed);
    regs.flags = held.flags.load(Ordering::Relaxed);
    // Guards may stand. If it had blocked `SIGTRAP`, that is noted.
    frame.set_mask(held.mask.load(Ordering::Relaxed) & !SIGTRAP_BIT);
    true
}
