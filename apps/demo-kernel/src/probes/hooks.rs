//! What the trap dispatch calls: the other half of what the author of a kernel writes.

use super::{Demo, ENGINE};
use crate::arch::trap::Frame;
use host_bare::{Chain, Die, Displaced, FIRST, Notifier, notify};

/// Who is asked about a trap.
pub(crate) static CHAIN: Chain = Chain::new();
/// kprobes comes first.
pub(crate) static KPROBES: Notifier = Notifier::new(FIRST, notify::<Demo>);

/// A breakpoint; false when nobody knows it.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn on_breakpoint(frame: &mut Frame) -> bool {
    CHAIN.notify(Die::Breakpoint, &mut frame.regs)
}

/// A debug exception, with what DR6 said; false when nobody knows it.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn on_debug(frame: &mut Frame, dr6: u64) -> bool {
    CHAIN.notify(Die::Debug(dr6), &mut frame.regs)
}

/// A fault (`#PF`, `#GP`, `#UD`, …), before the kernel looks at it: the frame says where it was in truth.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn on_fault(frame: &mut Frame) -> Option<Displaced> {
    ENGINE.get().and_then(|engine| engine.fault(&mut frame.regs))
}

/// After the kernel has handled a fault and is about to return to the frame.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn after_fault(displaced: Option<Displaced>, frame: &mut Frame) {
    if let Some(engine) = ENGINE.get() {
        engine.after_fault(displaced, &mut frame.regs);
    }
}

/// A fault that the kernel cannot handle; false when nobody else can.
pub(crate) fn on_unhandled(frame: &mut Frame) -> bool {
    let die = Die::Fault(frame.vector, frame.error);
    CHAIN.notify(die, &mut frame.regs)
}

/// A thread is about to end.
pub(crate) fn on_thread_exit() {
    if let Some(engine) = ENGINE.get() {
        engine.thread_exit();
    }
}
