//! What the trap dispatch calls: the other half of what the author of a kernel writes.

use super::Demo;
use crate::arch::trap::Frame;
use host_bare::{Chain, Die, Faulted};

/// Who is asked about a trap that is not kprobes' own.
pub(crate) static CHAIN: Chain = Chain::new();

/// A breakpoint; false when nobody knows it.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn on_breakpoint(frame: &mut Frame) -> bool {
    CHAIN.trap::<Demo>(Die::Breakpoint, &mut frame.regs)
}

/// A debug exception, with what DR6 said; false when nobody knows it.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn on_debug(frame: &mut Frame, dr6: u64) -> bool {
    CHAIN.trap::<Demo>(Die::Debug(dr6), &mut frame.regs)
}

/// A fault (`#PF`, `#GP`, `#UD`, …), before the kernel looks at it: the frame says where it was in truth. If a probe's
/// fault handler has cured it, the kernel is not to look at it at all.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn on_fault(frame: &mut Frame) -> Faulted {
    host_bare::fault::<Demo>(&mut frame.regs, frame.vector)
}

/// After the kernel has handled a fault and is about to return to the frame.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn after_fault(faulted: Faulted, frame: &mut Frame) {
    host_bare::after_fault::<Demo>(faulted.displaced(), &mut frame.regs);
}

/// A fault that the kernel cannot handle; false when nobody else can.
pub(crate) fn on_unhandled(frame: &mut Frame) -> bool {
    CHAIN.trap::<Demo>(Die::Fault(frame.vector, frame.error), &mut frame.regs)
}
