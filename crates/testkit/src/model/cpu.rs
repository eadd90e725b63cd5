//! A thread of the machine's program.

use super::EXIT;
use hit::returns::SideStack;
use isa::x86::{Regs, gpr};

/// How a thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has returned from where it began.
    Exited,
    /// A breakpoint that nobody owns has killed it, at this address.
    Killed(u64),
    /// It has accessed, or executed, what it must not: where it stood.
    Faulted(u64),
    /// The unwinder has met a return address that is in no function: this one.
    Terminated(u64),
}

/// A thread: registers, and what is between two steps.
///
/// ```
/// use testkit::model::{Cpu, TEXT};
///
/// let cpu = Cpu::new(1, TEXT, 0x7000_2000);
/// // It is about to execute the function's first instruction, and its return address is on the stack.
/// assert_eq!((cpu.regs.rip, cpu.sp()), (TEXT, 0x7000_1FF8));
/// assert_eq!((cpu.trapped, cpu.end), (None, None));
/// ```
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The thread's identity, not 0.
    pub id: u64,
    /// Its registers.
    pub regs: Regs,
    /// A breakpoint was fetched here; its trap has not been handled yet.
    pub trapped: Option<u64>,
    /// The stack that signal handlers run on.
    pub signal: SideStack,
    /// How it has ended, if it has.
    pub end: Option<End>,
    /// Breakpoints that were gone when their traps were handled.
    pub stale: u64,
}

impl Cpu {
    /// A thread that calls `function`, with its stack ending at `stack_top`, and then exits.
    ///
    /// The return address [`EXIT`] is to be written at `stack_top - 8`: [`Machine::start`](super::Machine::start) does.
    #[must_use]
    pub fn new(id: u64, function: u64, stack_top: u64) -> Self {
        let mut regs = Regs { rip: function, ..Regs::default() };
        regs.gpr[gpr::RSP] = stack_top - 8;
        Self { id, regs, trapped: None, signal: SideStack::default(), end: None, stale: 0 }
    }

    /// The stack pointer.
    #[must_use]
    pub fn sp(&self) -> u64 {
        self.regs.rsp()
    }

    /// Where it ends.
    #[must_use]
    pub(crate) fn is_at_exit(&self) -> bool {
        self.regs.rip == EXIT
    }
}
